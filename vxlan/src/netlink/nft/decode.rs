//! From messages to values. Total: what can't be read is `Other`, or nothing.

use std::net::IpAddr;

use crate::firewall::{Base, BaseChain, Count, Expression, Extension, MetaKey, Rule, SetKey, Verdict, hook};
use crate::netlink::attributes::{attribute, attributes, ip, text};
use crate::netlink::channel::Message;

use super::encode::{FIB_ADDRESS_KIND, FIB_DESTINATION, FULLY_RANDOM};
use super::{
    HEADER, INET, IPV4, IPV6, REGISTER, SUBSYSTEM, UDATA_COMMENT, VERDICT_REGISTER, attr, kind, message,
};

/// A table as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundTable {
    pub(super) family: u8,
    pub(super) name: String,
    pub(super) comment: String,
}

/// A chain as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundChain {
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) name: String,
    pub(super) base: Option<BaseChain>,
}

/// A rule as the kernel shows it, with what it has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundRule {
    pub(super) chain: String,
    pub(super) rule: Rule,
    pub(super) count: Count,
}

/// A set as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundSet {
    pub(super) name: String,
    pub(super) key: SetKey,
}

/// Family as `nft` names it; nothing for those that no packet of ours goes through.
pub(super) const fn family_name(family: u8) -> Option<&'static str> {
    match family {
        INET => Some("inet"),
        IPV4 => Some("ip"),
        IPV6 => Some("ip6"),
        _ => None,
    }
}

/// Hooks at which others can drop what we must get.
pub(super) const fn matters(hook: u32) -> bool {
    matches!(hook, hook::INPUT | hook::FORWARD)
}

/// Whether a notification is about our table, or about a chain at a hook that matters.
pub(super) fn concerns(notification: &Message<'_>, table: &str) -> bool {
    let [message, subsystem] = notification.kind.to_le_bytes();
    if subsystem != SUBSYSTEM || message == message::NEW_GENERATION {
        return false;
    }
    let Some(body) = notification.body.get(HEADER..) else { return true };
    let ours = attribute(body, attr::TABLE).is_some_and(|name| text(name) == table);
    ours || (message == message::NEW_CHAIN && is_hooked(body))
}

/// Family, table and name of a chain.
pub(super) type ChainKey = (u8, String, String);

/// The chain that a notification tells of: `(message::NEW_CHAIN, ...)` if it has one at a hook that
/// matters, `(message::DELETE_CHAIN, ...)` if any has gone, which Linux 6.18 tells without its hook.
pub(super) fn told_chain(notification: &Message<'_>) -> Option<(u8, ChainKey)> {
    let [message, subsystem] = notification.kind.to_le_bytes();
    let body = notification.body.get(HEADER..)?;
    let tells = message == message::DELETE_CHAIN || (message == message::NEW_CHAIN && is_hooked(body));
    if subsystem != SUBSYSTEM || !tells {
        return None;
    }
    let family = *notification.body.first()?;
    let key = (family, text(attribute(body, attr::TABLE)?), text(attribute(body, attr::CHAIN_NAME)?));
    Some((message, key))
}

/// The chain of somebody else's whose rules a notification says to have changed.
pub(super) fn told_rule(notification: &Message<'_>) -> Option<ChainKey> {
    let [message, subsystem] = notification.kind.to_le_bytes();
    if subsystem != SUBSYSTEM || !matches!(message, message::NEW_RULE | message::DELETE_RULE) {
        return None;
    }
    let body = notification.body.get(HEADER..)?;
    let family = *notification.body.first()?;
    Some((family, text(attribute(body, attr::TABLE)?), text(attribute(body, attr::RULE_CHAIN)?)))
}

fn is_hooked(chain: &[u8]) -> bool {
    let hook = attribute(chain, attr::CHAIN_HOOK).and_then(|hook| attribute(hook, attr::HOOK_NUMBER));
    hook.and_then(number).is_some_and(matters)
}

pub(super) fn table(found: u16, body: &[u8]) -> Option<FoundTable> {
    let (family, body) = split(found, message::NEW_TABLE, body)?;
    let comment = attribute(body, attr::TABLE_USERDATA).map_or_else(String::new, comment);
    Some(FoundTable { family, name: text(attribute(body, attr::TABLE)?), comment })
}

pub(super) fn chain(found: u16, body: &[u8]) -> Option<FoundChain> {
    let (family, body) = split(found, message::NEW_CHAIN, body)?;
    let base = attribute(body, attr::CHAIN_HOOK).and_then(|hooked| {
        let base = Base {
            kind: text(attribute(body, attr::CHAIN_TYPE)?),
            hook: number(attribute(hooked, attr::HOOK_NUMBER)?)?,
            priority: number(attribute(hooked, attr::HOOK_PRIORITY)?)?.cast_signed(),
        };
        let drops = attribute(body, attr::CHAIN_POLICY).and_then(number) == Some(0);
        Some(BaseChain { base, drops })
    });
    Some(FoundChain {
        family,
        table: text(attribute(body, attr::TABLE)?),
        name: text(attribute(body, attr::CHAIN_NAME)?),
        base,
    })
}

pub(super) fn set(found: u16, body: &[u8]) -> Option<FoundSet> {
    let (_, body) = split(found, message::NEW_SET, body)?;
    let flags = attribute(body, attr::SET_FLAGS).and_then(number).unwrap_or(0);
    let length = attribute(body, attr::SET_KEY_LENGTH).and_then(number);
    let shown_as = attribute(body, attr::SET_KEY_TYPE).and_then(number);
    let key = match (flags, shown_as, length) {
        (0, Some(7), Some(4)) => SetKey::Ipv4,
        (0, Some(8), Some(16)) => SetKey::Ipv6,
        _ => SetKey::Other,
    };
    Some(FoundSet { name: text(attribute(body, attr::SET_NAME)?), key })
}

/// A set or map of somebody else's whose elements say all of it: no time-outs, no ranges of several fields.
pub(super) fn plain_set(found: u16, body: &[u8]) -> Option<PlainSet> {
    /// `NFT_SET_ANONYMOUS`, `NFT_SET_CONSTANT`, `NFT_SET_INTERVAL`, `NFT_SET_MAP`.
    const PLAIN: u32 = 1 | 2 | INTERVAL | 8;
    const INTERVAL: u32 = 4;
    let (_, body) = split(found, message::NEW_SET, body)?;
    let flags = attribute(body, attr::SET_FLAGS).and_then(number).unwrap_or(0);
    let name = text(attribute(body, attr::SET_NAME)?);
    let width = usize::try_from(attribute(body, attr::SET_KEY_LENGTH).and_then(number)?).ok()?;
    (flags & !PLAIN == 0).then_some(PlainSet { name, width, intervals: flags & INTERVAL != 0 })
}

/// See [`plain_set`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlainSet {
    pub(super) name: String,
    /// Bytes of a key.
    pub(super) width: usize,
    /// Its elements are begins and ends of ranges.
    pub(super) intervals: bool,
}

/// An element of a set or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    /// Empty of the one that stands for all that no other has (`*`).
    pub(super) key: Vec<u8>,
    /// It begins a range, or is one; else it is the first that is out of one. (So an end comes before a begin.)
    pub(super) begins: bool,
    /// Of a map of verdicts.
    pub(super) verdict: Option<Verdict>,
}

/// The elements in a message; nothing if one of them can't be read.
pub(super) fn keys(found: u16, body: &[u8]) -> Option<Vec<Element>> {
    /// `NFT_SET_ELEM_INTERVAL_END`, `NFT_SET_ELEM_CATCHALL`
    const END: u32 = 1;
    const CATCH_ALL: u32 = 2;
    let (_, body) = split(found, message::NEW_ELEMENTS, body)?;
    let list = attribute(body, attr::ELEMENTS).unwrap_or_default();
    let read = |element: &[u8]| {
        let flags = attribute(element, attr::ELEMENT_FLAGS).and_then(number).unwrap_or(0);
        let key = match flags {
            CATCH_ALL => Vec::new(),
            0 | END => value(attribute(element, attr::ELEMENT_KEY)?)?.to_vec(),
            _ => return None,
        };
        let decides =
            attribute(element, attr::ELEMENT_DATA).and_then(|data| attribute(data, attr::DATA_VERDICT));
        Some(Element { key, begins: flags & END == 0, verdict: decides.and_then(verdict) })
    };
    attributes(list)
        .filter(|(kind, _)| *kind == attr::LIST_ELEMENT)
        .map(|(_, element)| read(element))
        .collect()
}

/// Elements as ranges with their ends.
pub(super) fn ranges(
    mut elements: Vec<Element>,
    intervals: bool,
) -> Vec<(Vec<u8>, Vec<u8>, Option<Verdict>)> {
    if !intervals {
        return elements
            .into_iter()
            .map(|element| (element.key.clone(), element.key, element.verdict))
            .collect();
    }
    elements.sort_by(|one, other| (&one.key, one.begins).cmp(&(&other.key, other.begins)));
    let mut ranges = Vec::new();
    let mut open: Option<Element> = None;
    for element in elements {
        match (open.take(), element.begins) {
            (Some(from), false) => {
                ranges.extend(next(element.key, false).map(|to| (from.key, to, from.verdict)))
            }
            (None, false) => {}
            (_, true) => open = Some(element),
        }
    }
    ranges.extend(open.map(|from| {
        let to = vec![0xff; from.key.len()];
        (from.key, to, from.verdict)
    }));
    ranges
}

/// The addresses in a message of elements.
pub(super) fn elements(found: u16, body: &[u8]) -> Vec<IpAddr> {
    let Some((_, body)) = split(found, message::NEW_ELEMENTS, body) else { return Vec::new() };
    let list = attribute(body, attr::ELEMENTS).unwrap_or_default();
    attributes(list)
        .filter(|(kind, _)| *kind == attr::LIST_ELEMENT)
        .filter_map(|(_, element)| ip(attribute(attribute(element, attr::ELEMENT_KEY)?, attr::DATA_VALUE)?))
        .collect()
}

pub(super) fn rule(found: u16, body: &[u8]) -> Option<FoundRule> {
    let (_, body) = split(found, message::NEW_RULE, body)?;
    let mut count = Count::default();
    let list = attribute(body, attr::RULE_EXPRESSIONS).unwrap_or_default();
    let expressions = attributes(list)
        .filter(|(kind, _)| *kind == attr::LIST_ELEMENT)
        .map(|(_, element)| expression(element, &mut count))
        .collect();
    let comment = attribute(body, attr::RULE_USERDATA).map_or_else(String::new, comment);
    Some(FoundRule {
        chain: text(attribute(body, attr::RULE_CHAIN)?),
        rule: Rule { expressions, comment },
        count,
    })
}

pub(super) fn generation(found: u16, body: &[u8]) -> Option<u32> {
    let (_, body) = split(found, message::NEW_GENERATION, body)?;
    number(attribute(body, attr::GENERATION_ID)?)
}

/// Family and attributes, if the message is of the kind that is expected.
fn split(found: u16, expected: u8, body: &[u8]) -> Option<(u8, &[u8])> {
    if found != kind(expected) {
        return None;
    }
    Some((*body.first()?, body.get(HEADER..)?))
}

/// The comment in user data: a list of type, length, value.
fn comment(mut bytes: &[u8]) -> String {
    while let [kind, length, rest @ ..] = bytes {
        let Some(value) = rest.get(..usize::from(*length)) else { break };
        if *kind == UDATA_COMMENT {
            return text(value);
        }
        bytes = rest.get(usize::from(*length)..).unwrap_or_default();
    }
    String::new()
}

fn expression(element: &[u8], count: &mut Count) -> Expression {
    let name = attribute(element, attr::EXPRESSION_NAME).map_or_else(String::new, text);
    let data = attribute(element, attr::EXPRESSION_DATA).unwrap_or_default();
    if name == "counter" {
        let counted = |kind| attribute(data, kind).and_then(number64).unwrap_or(0);
        count.add(Count { bytes: counted(1), packets: counted(2) });
        return Expression::Counter;
    }
    known(&name, data).unwrap_or(Expression::Other(name))
}

/// An expression in the form that we write.
fn known(name: &str, data: &[u8]) -> Option<Expression> {
    let field = |kind| attribute(data, kind).and_then(number);
    let through_first = |kind| (field(kind) == Some(REGISTER)).then_some(());
    match name {
        "meta" => {
            through_first(1)?;
            let key = match field(2)? {
                4 => MetaKey::InputIndex,
                6 => MetaKey::InputName,
                7 => MetaKey::OutputName,
                15 => MetaKey::NetworkProtocol,
                16 => MetaKey::TransportProtocol,
                _ => return None,
            };
            Some(Expression::Meta(key))
        }
        "payload" => {
            through_first(1)?;
            Some(Expression::Payload { base: field(2)?, offset: field(3)?, length: field(4)? })
        }
        "fib" => {
            through_first(1)?;
            (field(2)? == FIB_ADDRESS_KIND && field(3)? == FIB_DESTINATION).then_some(Expression::AddressKind)
        }
        "bitwise" => {
            through_first(1)?;
            through_first(2)?;
            let plain = field(6).is_none_or(|operation| operation == 0);
            let zero = value(attribute(data, 5)?)?.iter().all(|byte| *byte == 0);
            (plain && zero).then_some(())?;
            Some(Expression::Mask(value(attribute(data, 4)?)?.to_vec()))
        }
        "cmp" => {
            through_first(1)?;
            let value = value(attribute(data, 3)?)?.to_vec();
            let equal = match field(2)? {
                0 => true,
                1 => false,
                order => return ordered(order, value),
            };
            Some(Expression::Compare { equal, value })
        }
        "range" => {
            through_first(1)?;
            let end = |kind| Some(value(attribute(data, kind)?)?.to_vec());
            Some(Expression::Range { equal: field(2)? == 0, from: end(3)?, to: end(4)? })
        }
        // `NFT_CT_STATE`
        "ct" => {
            through_first(1)?;
            (field(2)? == 0).then_some(Expression::ConnectionState)
        }
        "log" => Some(Expression::Note),
        "match" => {
            let revision = field(2).unwrap_or(0);
            Extension::read(&text(attribute(data, 1)?), revision, attribute(data, 3)?)
                .map(Expression::Extension)
        }
        "lookup" => {
            through_first(2)?;
            let flags = field(5).unwrap_or(0);
            if flags == 0 && field(3) == Some(VERDICT_REGISTER) {
                return Some(Expression::VerdictMap { map: text(attribute(data, 1)?), choices: None });
            }
            (attribute(data, 3).is_none() && flags <= 1).then_some(())?;
            Some(Expression::Lookup { set: text(attribute(data, 1)?), absent: flags == 1 })
        }
        "masq" => match field(1).unwrap_or(0) {
            _ if attribute(data, 2).is_some() => None,
            0 => Some(Expression::Masquerade { fully_random: false }),
            FULLY_RANDOM => Some(Expression::Masquerade { fully_random: true }),
            _ => None,
        },
        "reject" => Some(Expression::Reject),
        // The targets of iptables, as iptables-nft writes them.
        "target" => match text(attribute(data, 1)?).as_str() {
            "REJECT" => Some(Expression::Reject),
            "LOG" | "NFLOG" | "ULOG" | "MARK" | "CONNMARK" | "TRACE" | "AUDIT" | "SECMARK"
            | "CONNSECMARK" => Some(Expression::Note),
            _ => None,
        },
        "immediate" => {
            (field(1) == Some(VERDICT_REGISTER)).then_some(())?;
            verdict(attribute(attribute(data, 2)?, attr::DATA_VERDICT)?).map(Expression::Verdict)
        }
        _ => None,
    }
}

/// A comparison by order (`NFT_CMP_LT` and so on) as a range, of numbers in network byte order.
fn ordered(order: u32, value: Vec<u8>) -> Option<Expression> {
    let (least, most) = (vec![0; value.len()], vec![0xff; value.len()]);
    let (from, to) = match order {
        2 => (least, next(value, false)?),
        3 => (least, value),
        4 => (next(value, true)?, most),
        5 => (value, most),
        _ => return None,
    };
    Some(Expression::Range { equal: true, from, to })
}

/// The number after this one, or the one before; nothing at the end.
pub(super) fn next(mut value: Vec<u8>, up: bool) -> Option<Vec<u8>> {
    for byte in value.iter_mut().rev() {
        let (sum, over) = if up { byte.overflowing_add(1) } else { byte.overflowing_sub(1) };
        *byte = sum;
        if !over {
            return Some(value);
        }
    }
    None
}

fn verdict(body: &[u8]) -> Option<Verdict> {
    let chain = || attribute(body, attr::VERDICT_CHAIN).map(text);
    match number(attribute(body, attr::VERDICT_CODE)?)?.cast_signed() {
        0 => Some(Verdict::Drop),
        1 => Some(Verdict::Accept),
        -1 => Some(Verdict::Continue),
        -3 => chain().map(Verdict::Jump),
        -4 => chain().map(Verdict::Goto),
        -5 => Some(Verdict::Return),
        _ => None,
    }
}

fn value(data: &[u8]) -> Option<&[u8]> {
    attribute(data, attr::DATA_VALUE)
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

fn number64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?))
}
