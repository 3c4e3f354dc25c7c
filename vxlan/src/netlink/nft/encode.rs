//! From values to messages. Numbers in attributes are in network byte order.

use std::net::IpAddr;

use crate::firewall::{Chain, Expression, MetaKey, Rule, SetKey, Verdict};
use crate::netlink::attributes::{octets, put, put_nested};
use crate::netlink::request::{CREATE, Request};

use super::{INET, REGISTER, UDATA_COMMENT, VERDICT_REGISTER, attr, kind, message};

/// `NLM_F_APPEND`.
const APPEND: u16 = 0x800;

/// A message about something in a table of family `inet`.
fn request(message: u8, flags: u16, table: &str, fill: impl FnOnce(&mut Vec<u8>)) -> Request {
    let mut body = header(INET).to_vec();
    put_text(&mut body, attr::TABLE, table);
    fill(&mut body);
    Request { kind: kind(message), flags, body }
}

pub(super) const fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

pub(super) fn new_table(table: &str, comment: &str) -> Request {
    request(message::NEW_TABLE, CREATE, table, |body| {
        put(body, attr::TABLE_USERDATA, &user_comment(comment));
    })
}

/// A table without a mark, which is only there to be deleted: so that there is one to delete.
pub(super) fn any_table(table: &str) -> Request {
    request(message::NEW_TABLE, CREATE, table, |_| {})
}

pub(super) fn delete_table(table: &str) -> Request {
    request(message::DELETE_TABLE, 0, table, |_| {})
}

/// A set; `id` tells sets of one transaction apart.
pub(super) fn new_set(table: &str, name: &str, key: SetKey, id: u32) -> Request {
    // `TYPE_IPADDR` and `TYPE_IP6ADDR` of nft: what it shows the elements as.
    let (shown_as, length) = match key {
        SetKey::Ipv4 | SetKey::Other => (7, 4),
        SetKey::Ipv6 => (8, 16),
    };
    request(message::NEW_SET, CREATE, table, |body| {
        put_text(body, attr::SET_NAME, name);
        put_u32(body, attr::SET_FLAGS, 0);
        put_u32(body, attr::SET_KEY_TYPE, shown_as);
        put_u32(body, attr::SET_KEY_LENGTH, length);
        put_u32(body, attr::SET_ID, id);
    })
}

pub(super) fn add_elements(table: &str, set: &str, elements: &[IpAddr]) -> Request {
    elements_request(message::NEW_ELEMENTS, CREATE, table, set, elements)
}

pub(super) fn delete_elements(table: &str, set: &str, elements: &[IpAddr]) -> Request {
    elements_request(message::DELETE_ELEMENTS, 0, table, set, elements)
}

fn elements_request(message: u8, flags: u16, table: &str, set: &str, elements: &[IpAddr]) -> Request {
    request(message, flags, table, |body| {
        put_text(body, attr::ELEMENTS_SET, set);
        put_nested(body, attr::ELEMENTS, |list| {
            for element in elements {
                put_nested(list, attr::LIST_ELEMENT, |one| {
                    put_data(one, attr::ELEMENT_KEY, &octets(*element));
                });
            }
        });
    })
}

pub(super) fn new_chain(table: &str, name: &str, chain: &Chain) -> Request {
    request(message::NEW_CHAIN, CREATE, table, |body| {
        put_text(body, attr::CHAIN_NAME, name);
        if let Some(base) = &chain.base {
            put_nested(body, attr::CHAIN_HOOK, |hook| {
                put_u32(hook, attr::HOOK_NUMBER, base.base.hook);
                put_u32(hook, attr::HOOK_PRIORITY, base.base.priority.cast_unsigned());
            });
            // `NF_DROP`, `NF_ACCEPT`.
            put_u32(body, attr::CHAIN_POLICY, u32::from(!base.drops));
            put_text(body, attr::CHAIN_TYPE, &base.base.kind);
        }
    })
}

pub(super) fn new_rule(table: &str, chain: &str, rule: &Rule) -> Request {
    request(message::NEW_RULE, CREATE | APPEND, table, |body| {
        put_text(body, attr::RULE_CHAIN, chain);
        put_nested(body, attr::RULE_EXPRESSIONS, |list| {
            for expression in &rule.expressions {
                put_expression(list, expression);
            }
        });
        if !rule.comment.is_empty() {
            put(body, attr::RULE_USERDATA, &user_comment(&rule.comment));
        }
    })
}

/// Body of a dump of what is in a table.
pub(super) fn in_table(family: u8, table: &str) -> Vec<u8> {
    let mut body = header(family).to_vec();
    put_text(&mut body, attr::TABLE, table);
    body
}

/// Body of a dump of the rules of a chain.
pub(super) fn in_chain(family: u8, table: &str, chain: &str) -> Vec<u8> {
    let mut body = in_table(family, table);
    put_text(&mut body, attr::RULE_CHAIN, chain);
    body
}

/// Body of a dump of the elements of a set.
pub(super) fn in_set(family: u8, table: &str, set: &str) -> Vec<u8> {
    let mut body = in_table(family, table);
    put_text(&mut body, attr::ELEMENTS_SET, set);
    body
}

pub(super) fn generation() -> Request {
    Request { kind: kind(message::GET_GENERATION), flags: 0, body: header(0).to_vec() }
}

/// Type, length, text with its closing zero.
fn user_comment(comment: &str) -> Vec<u8> {
    let text: Vec<u8> = comment.bytes().take(usize::from(u8::MAX) - 1).chain([0]).collect();
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [vec![UDATA_COMMENT, length], text].concat()
}

fn put_expression(list: &mut Vec<u8>, expression: &Expression) {
    let (name, data) = step(expression);
    put_nested(list, attr::LIST_ELEMENT, |element| {
        put_text(element, attr::EXPRESSION_NAME, &name);
        put_nested(element, attr::EXPRESSION_DATA, |body| body.extend(data));
    });
}

/// Name and attributes of an expression (`NFTA_META_*` and so on).
fn step(expression: &Expression) -> (String, Vec<u8>) {
    let mut data = Vec::new();
    let name = match expression {
        Expression::Meta(key) => {
            put_u32(&mut data, 1, REGISTER);
            put_u32(&mut data, 2, meta_number(*key));
            "meta"
        }
        Expression::Payload { base, offset, length } => {
            put_u32(&mut data, 1, REGISTER);
            put_u32(&mut data, 2, *base);
            put_u32(&mut data, 3, *offset);
            put_u32(&mut data, 4, *length);
            "payload"
        }
        Expression::AddressKind => {
            put_u32(&mut data, 1, REGISTER);
            put_u32(&mut data, 2, FIB_ADDRESS_KIND);
            put_u32(&mut data, 3, FIB_DESTINATION);
            "fib"
        }
        Expression::Mask(mask) => {
            put_u32(&mut data, 1, REGISTER);
            put_u32(&mut data, 2, REGISTER);
            put_u32(&mut data, 3, u32::try_from(mask.len()).unwrap_or(0));
            put_data(&mut data, 4, mask);
            put_data(&mut data, 5, &vec![0; mask.len()]);
            "bitwise"
        }
        Expression::Compare { equal, value } => {
            put_u32(&mut data, 1, REGISTER);
            put_u32(&mut data, 2, u32::from(!equal));
            put_data(&mut data, 3, value);
            "cmp"
        }
        Expression::Lookup { set, absent } => {
            put_text(&mut data, 1, set);
            put_u32(&mut data, 2, REGISTER);
            put_u32(&mut data, 5, u32::from(*absent));
            "lookup"
        }
        Expression::Counter => "counter",
        Expression::Masquerade { fully_random } => {
            put_u32(&mut data, 1, if *fully_random { FULLY_RANDOM } else { 0 });
            "masq"
        }
        Expression::Reject => {
            // `NFT_REJECT_ICMPX_UNREACH`, `NFT_REJECT_ICMPX_ADMIN_PROHIBITED`.
            put_u32(&mut data, 1, 2);
            put(&mut data, 2, &[3]);
            "reject"
        }
        Expression::Verdict(verdict) => {
            put_u32(&mut data, 1, VERDICT_REGISTER);
            put_nested(&mut data, 2, |value| {
                put_nested(value, attr::DATA_VERDICT, |body| put_verdict(body, verdict));
            });
            "immediate"
        }
        // Only ever observed: the kernel refuses them in this form.
        Expression::Other(name) => return (name.clone(), data),
        Expression::ConnectionState => "ct",
        Expression::Range { .. } => "range",
        Expression::Among { .. } | Expression::VerdictMap { .. } => "lookup",
        Expression::Unread => "unread",
        Expression::Note => "log",
        Expression::Extension(_) => "match",
    };
    (name.to_owned(), data)
}

/// `NFT_FIB_RESULT_ADDRTYPE`.
pub(super) const FIB_ADDRESS_KIND: u32 = 3;
/// `NFTA_FIB_F_DADDR`.
pub(super) const FIB_DESTINATION: u32 = 2;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
pub(super) const FULLY_RANDOM: u32 = 1 << 4;

/// `NFT_META_*`.
fn meta_number(key: MetaKey) -> u32 {
    match key {
        MetaKey::InputIndex => 4,
        MetaKey::InputName => 6,
        MetaKey::OutputName => 7,
        MetaKey::NetworkProtocol => 15,
        MetaKey::TransportProtocol => 16,
    }
}

/// `NF_DROP`, `NF_ACCEPT`, `NFT_*`.
fn put_verdict(body: &mut Vec<u8>, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Continue => (-1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    put_u32(body, attr::VERDICT_CODE, i32::cast_unsigned(code));
    if let Some(chain) = chain {
        put_text(body, attr::VERDICT_CHAIN, chain);
    }
}

fn put_data(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    put_nested(buffer, kind, |body| put(body, attr::DATA_VALUE, value));
}

fn put_u32(buffer: &mut Vec<u8>, kind: u16, value: u32) {
    put(buffer, kind, &value.to_be_bytes());
}

fn put_text(buffer: &mut Vec<u8>, kind: u16, text: &str) {
    put(buffer, kind, &[text.as_bytes(), &[0]].concat());
}
