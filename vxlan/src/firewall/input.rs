//! What chains of others do to the packets that must arrive at this node: those of our tunnels, and BGP's. Pure.
//!
//! The judgement follows the first packet of a connection through the chains at the hook `input`. What matches it for
//! certain and what can't is known of its addresses, ports, protocol, device and state; all else may match or not, and
//! both ways are gone. A drop is claimed only where every way ends in one: a rule that can't be judged is an excuse.
//! (`forward` claims more: there it is known whom to ask, the owner of the pool.)

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::foreign::{Extension, ForeignChain};
use super::table::{
    AddressKind, Choice, Expression, MetaKey, NETWORK, NFPROTO_IPV4, NFPROTO_IPV6, Rule, TRANSPORT, Verdict,
    hook, octets, state,
};

/// How many chains deep a packet is followed (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;
/// Rules that are looked at for one base chain and one kind of packet; what is not decided then is not claimed.
const MOST_STEPS: usize = 20_000;
/// `IFNAMSIZ`: how names of devices stand in a register.
const NAME_BYTES: usize = 16;

/// Packets that this node must get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// What they are.
    pub what: Arriving,
    /// The device that they come in by, and its index.
    pub device: (String, u32),
    /// This node's address.
    pub to: IpAddr,
    /// Where they come from.
    pub from: BTreeSet<IpAddr>,
}

/// A kind of packet, by what filters tell it from others by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arriving {
    /// UDP to this port.
    Udp(u16),
    /// TCP to this port.
    Tcp(u16),
    /// An IP protocol by its number.
    Protocol(u8),
}

impl Arriving {
    const fn protocol(self) -> u8 {
        match self {
            Self::Udp(_) => 17,
            Self::Tcp(_) => 6,
            Self::Protocol(number) => number,
        }
    }

    const fn port(self) -> Option<u16> {
        match self {
            Self::Udp(port) | Self::Tcp(port) => Some(port),
            Self::Protocol(_) => None,
        }
    }
}

impl fmt::Display for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(port) => write!(f, "UDP port {port}"),
            Self::Tcp(port) => write!(f, "TCP port {port}"),
            Self::Protocol(number) => write!(f, "IP protocol {number}"),
        }
    }
}

/// A base chain that drops packets that this node must get.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InputDrop {
    /// `ip`, `ip6` or `inet`.
    pub family: String,
    /// Table of the base chain.
    pub table: String,
    /// The base chain.
    pub chain: String,
    /// What it drops.
    pub what: Arriving,
    /// The address that they are sent to; its family is theirs.
    pub to: IpAddr,
    /// The senders whose packets are dropped.
    pub from: BTreeSet<IpAddr>,
    /// These are all that were asked about.
    pub everybody: bool,
    /// By its policy; otherwise by a rule.
    pub by_policy: bool,
    /// The table has chains of ufw.
    pub ufw: bool,
}

impl InputDrop {
    /// The command that mends it until the next reload of whatever wrote the chain, in the words of that program where
    /// it is known.
    #[must_use]
    pub fn remedy(&self) -> String {
        let Self { family, table, chain, what, .. } = self;
        let sources: Vec<Option<IpAddr>> =
            if self.everybody { vec![None] } else { self.from.iter().copied().map(Some).take(8).collect() };
        let commands = sources.into_iter().map(|source| match (family.as_str(), table.as_str(), what) {
            (_, "firewalld", _) => format!("firewall-cmd {}", self.firewalld(source)),
            (_, _, Arriving::Udp(port) | Arriving::Tcp(port)) if self.ufw => {
                let word = if matches!(what, Arriving::Udp(_)) { "udp" } else { "tcp" };
                let from = source.map_or_else(|| "any".to_owned(), |source| source.to_string());
                format!("ufw allow proto {word} from {from} to {} port {port}", self.to)
            }
            ("ip" | "ip6", "filter", _) => {
                let program = if family == "ip" { "iptables" } else { "ip6tables" };
                let from = source.map_or_else(String::new, |source| format!(" -s {source}"));
                let what = match what {
                    Arriving::Udp(port) => format!("udp --dport {port}"),
                    Arriving::Tcp(port) => format!("tcp --dport {port}"),
                    Arriving::Protocol(number) => number.to_string(),
                };
                format!("{program} -I {chain}{from} -p {what} -j ACCEPT")
            }
            _ => {
                let word = if self.to.is_ipv4() { "ip" } else { "ip6" };
                let from = source.map_or_else(String::new, |source| format!("{word} saddr {source} "));
                let what = match what {
                    Arriving::Udp(port) => format!("udp dport {port}"),
                    Arriving::Tcp(port) => format!("tcp dport {port}"),
                    Arriving::Protocol(number) => format!("meta l4proto {number}"),
                };
                format!("nft insert rule {family} {table} {chain} {from}{what} accept")
            }
        });
        commands.collect::<Vec<_>>().join(" && ")
    }

    fn firewalld(&self, source: Option<IpAddr>) -> String {
        if let Some(source) = source {
            return format!("--zone=trusted --add-source={source}");
        }
        match self.what {
            Arriving::Udp(port) => format!("--add-port={port}/udp"),
            Arriving::Tcp(port) => format!("--add-port={port}/tcp"),
            // As /etc/protocols has them.
            Arriving::Protocol(4) => "--add-protocol=ipencap".to_owned(),
            Arriving::Protocol(41) => "--add-protocol=ipv6".to_owned(),
            Arriving::Protocol(number) => format!("--add-protocol={number}"),
        }
    }
}

impl fmt::Display for InputDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, chain, what, to, .. } = self;
        let how = if self.by_policy { "its policy" } else { "a rule" };
        write!(f, "chain {chain} of the nftables table {family} {table} drops {what} to {to} by {how}")?;
        let mut from = self.from.iter();
        match from.next() {
            Some(first) if !self.everybody => match from.len() {
                0 => write!(f, ", from {first}"),
                others => write!(f, ", from {first} and {others} more"),
            },
            _ => Ok(()),
        }
    }
}

/// The chains at the hook `input` that drop what must arrive.
#[must_use]
pub fn input_drops(chains: &[ForeignChain], arrivals: &[Arrival]) -> BTreeSet<InputDrop> {
    let by_name: BTreeMap<(&str, &str, &str), &ForeignChain> = chains
        .iter()
        .map(|chain| ((chain.family.as_str(), chain.table.as_str(), chain.name.as_str()), chain))
        .collect();
    let mut drops = BTreeSet::new();
    for chain in chains {
        let Some(base) = chain.base.as_ref().filter(|base| base.base.hook == hook::INPUT) else { continue };
        for arrival in arrivals {
            if (chain.family == "ip") != arrival.to.is_ipv4() && chain.family != "inet" {
                continue;
            }
            let steps = Cell::new(MOST_STEPS);
            let senders: Vec<IpAddr> = arrival.from.iter().copied().collect();
            let mut found = Found::default();
            let walk = Walk { arrival, chains: &by_name, steps: &steps, drops: base.drops };
            walk.senders(chain, &senders, &mut found);
            if found.from.is_empty() {
                continue;
            }
            let ufw = chains.iter().any(|other| {
                (&other.family, &other.table) == (&chain.family, &chain.table)
                    && other.name.starts_with("ufw")
            });
            drops.insert(InputDrop {
                family: chain.family.clone(),
                table: chain.table.clone(),
                chain: chain.name.clone(),
                what: arrival.what,
                to: arrival.to,
                everybody: found.from.len() == senders.len(),
                from: found.from,
                by_policy: found.by_policy,
                ufw,
            });
        }
    }
    drops
}

/// The senders that a base chain drops packets of.
#[derive(Debug, Default)]
struct Found {
    from: BTreeSet<IpAddr>,
    by_policy: bool,
}

/// Packets of one kind on their way through one base chain.
struct Walk<'a> {
    arrival: &'a Arrival,
    chains: &'a BTreeMap<(&'a str, &'a str, &'a str), &'a ForeignChain>,
    steps: &'a Cell<usize>,
    /// The policy of the base chain.
    drops: bool,
}

/// The ends that a packet can come to in a chain.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    accept: bool,
    drop: bool,
    /// Back to where the chain was jumped to from, or to the policy.
    back: bool,
}

impl Ends {
    const ANY: Self = Self { accept: true, drop: true, back: true };
}

/// Whether a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Matches {
    Never,
    Perhaps,
    Always,
}

impl Matches {
    fn decided(yes: bool) -> Self {
        if yes { Self::Always } else { Self::Never }
    }
}

impl Walk<'_> {
    /// Judges a group of senders; where a rule tells them apart, each half for itself.
    fn senders(&self, base: &ForeignChain, senders: &[IpAddr], found: &mut Found) {
        let mixed = Cell::new(false);
        let ends = Group { walk: self, senders, mixed: &mixed }.follow(base, DEPTH);
        let accepted = ends.accept || ends.back && !self.drops;
        let dropped = ends.drop || ends.back && self.drops;
        if !accepted && dropped {
            found.from.extend(senders);
            found.by_policy |= ends.back;
        } else if accepted && dropped && mixed.get() && senders.len() > 1 {
            let (one, other) = senders.split_at(senders.len() / 2);
            self.senders(base, one, found);
            self.senders(base, other, found);
        }
    }
}

/// Some of the senders.
struct Group<'a> {
    walk: &'a Walk<'a>,
    senders: &'a [IpAddr],
    /// A rule matches packets of some of them and not of others.
    mixed: &'a Cell<bool>,
}

impl Group<'_> {
    fn follow(&self, chain: &ForeignChain, depth: usize) -> Ends {
        let Some(depth) = depth.checked_sub(1) else { return Ends::ANY };
        let mut ends = Ends::default();
        for rule in &chain.rules {
            let Some(steps) = self.walk.steps.get().checked_sub(1) else { return Ends::ANY };
            self.walk.steps.set(steps);
            let (matches, end) = self.judge(rule);
            if matches == Matches::Never {
                continue;
            }
            // Where the packet can go if the rule matches; whether it can come to the next rule then.
            let (then, goes_on) = match end {
                End::Nothing => continue,
                End::Drop => (Ends { drop: true, ..Ends::default() }, false),
                End::Unknown => (Ends::ANY, true),
                End::Verdict(Verdict::Accept) => (Ends { accept: true, ..Ends::default() }, false),
                End::Verdict(Verdict::Drop) => (Ends { drop: true, ..Ends::default() }, false),
                End::Verdict(Verdict::Return) => (Ends { back: true, ..Ends::default() }, false),
                End::Verdict(Verdict::Continue) => continue,
                End::Verdict(Verdict::Goto(name)) => (self.target(chain, name, depth), false),
                End::Verdict(Verdict::Jump(name)) => {
                    let inside = self.target(chain, name, depth);
                    (Ends { back: false, ..inside }, inside.back)
                }
            };
            ends.accept |= then.accept;
            ends.drop |= then.drop;
            ends.back |= then.back;
            if matches == Matches::Always && !goes_on {
                return ends;
            }
        }
        ends.back = true;
        ends
    }

    fn target(&self, from: &ForeignChain, name: &str, depth: usize) -> Ends {
        let key = (from.family.as_str(), from.table.as_str(), name);
        self.walk.chains.get(&key).map_or(Ends::ANY, |chain| self.follow(chain, depth))
    }

    fn judge<'r>(&self, rule: &'r Rule) -> (Matches, End<'r>) {
        let mut matches = Matches::Always;
        let mut loaded = Loaded::Unknown;
        for expression in &rule.expressions {
            let found = match expression {
                Expression::Meta(key) => {
                    loaded = self.meta(*key);
                    continue;
                }
                Expression::AddressKind => {
                    loaded = Loaded::Bytes(AddressKind::Local.number().to_ne_bytes().to_vec());
                    continue;
                }
                Expression::ConnectionState => {
                    loaded = Loaded::Bytes(state::NEW.to_ne_bytes().to_vec());
                    continue;
                }
                Expression::Payload { base, offset, length } => {
                    loaded = self.payload(*base, *offset, *length);
                    continue;
                }
                Expression::Mask(mask) => {
                    loaded = loaded.masked(mask);
                    continue;
                }
                Expression::Counter | Expression::Note | Expression::Masquerade { .. } => continue,
                Expression::Compare { equal, value } => {
                    // Only as many bytes are compared as there are in the value.
                    self.test(&loaded, |bytes| {
                        bytes.get(..value.len()).map(|begin| (begin == value) == *equal)
                    })
                }
                Expression::Range { equal, from, to } => self.test(&loaded, |bytes| {
                    let bytes = bytes.get(..from.len())?;
                    Some((from.as_slice() <= bytes && bytes <= to.as_slice()) == *equal)
                }),
                Expression::Among { ranges, absent } => self.test(&loaded, |bytes| {
                    if ranges.first().is_some_and(|(from, _)| from.len() != bytes.len()) {
                        return None;
                    }
                    let after = ranges.partition_point(|(from, _)| from.as_slice() <= bytes);
                    let last = after.checked_sub(1).and_then(|last| ranges.get(last));
                    Some(last.is_some_and(|(_, to)| bytes <= to.as_slice()) != *absent)
                }),
                Expression::VerdictMap { choices, .. } => match Self::choose(&loaded, choices.as_deref()) {
                    Chosen::Nothing => Matches::Never,
                    Chosen::Unknown => return (matches.min(Matches::Perhaps), End::Unknown),
                    Chosen::Verdict(verdict) => return (matches, End::Verdict(verdict)),
                },
                Expression::Extension(extension) => self.extension(extension),
                Expression::Lookup { .. } => Matches::Perhaps,
                Expression::Other(name) => {
                    loaded = Loaded::Unknown;
                    if !FILTERS.contains(&name.as_str()) {
                        return (matches.min(Matches::Perhaps), End::Unknown);
                    }
                    Matches::Perhaps
                }
                Expression::Unread => return (Matches::Perhaps, End::Unknown),
                Expression::Reject => return (matches, End::Drop),
                Expression::Verdict(verdict) => return (matches, End::Verdict(verdict)),
            };
            matches = matches.min(found);
            if matches == Matches::Never {
                break;
            }
        }
        (matches, End::Nothing)
    }

    fn meta(&self, key: MetaKey) -> Loaded {
        let arrival = self.walk.arrival;
        Loaded::Bytes(match key {
            MetaKey::NetworkProtocol => vec![if arrival.to.is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 }],
            MetaKey::TransportProtocol => vec![arrival.what.protocol()],
            MetaKey::InputIndex => arrival.device.1.to_ne_bytes().to_vec(),
            MetaKey::InputName => {
                let mut name = arrival.device.0.clone().into_bytes();
                name.resize(NAME_BYTES, 0);
                name
            }
            // A packet that arrives leaves by none.
            MetaKey::OutputName => return Loaded::Unknown,
        })
    }

    /// Addresses, protocol and destination port; shorter loads are the first bytes of them.
    fn payload(&self, base: u32, offset: u32, length: u32) -> Loaded {
        let arrival = self.walk.arrival;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (protocol, source, destination) = if arrival.to.is_ipv4() { (9, 12, 16) } else { (6, 8, 24) };
        let bytes = match (base, offset) {
            (NETWORK, at) if at == source => return Loaded::Sender { length, mask: None },
            (NETWORK, at) if at == destination => octets(arrival.to),
            (NETWORK, at) if at == protocol => vec![arrival.what.protocol()],
            (TRANSPORT, 2) => match arrival.what.port() {
                Some(port) => port.to_be_bytes().to_vec(),
                None => return Loaded::Unknown,
            },
            _ => return Loaded::Unknown,
        };
        bytes.get(..length).map_or(Loaded::Unknown, |bytes| Loaded::Bytes(bytes.to_vec()))
    }

    /// Asks about what is loaded; of senders, about each.
    fn test(&self, loaded: &Loaded, asked: impl Fn(&[u8]) -> Option<bool>) -> Matches {
        match loaded {
            Loaded::Unknown => Matches::Perhaps,
            Loaded::Bytes(bytes) => asked(bytes).map_or(Matches::Perhaps, Matches::decided),
            Loaded::Sender { length, mask } => {
                let mut all: Option<bool> = None;
                for sender in self.senders {
                    let mut bytes = octets(*sender);
                    bytes.truncate(*length);
                    if let Some(mask) = mask {
                        apply(mask, &mut bytes);
                    }
                    let Some(one) = asked(&bytes) else { return Matches::Perhaps };
                    if all.is_some_and(|all| all != one) {
                        self.mixed.set(true);
                        return Matches::Perhaps;
                    }
                    all = Some(one);
                }
                all.map_or(Matches::Perhaps, Matches::decided)
            }
        }
    }

    /// What a map decides; of senders nothing is known that would decide for all.
    fn choose<'r>(loaded: &Loaded, choices: Option<&'r [Choice]>) -> Chosen<'r> {
        let (Loaded::Bytes(bytes), Some(choices)) = (loaded, choices) else { return Chosen::Unknown };
        if choices.iter().any(|choice| choice.from.len() != bytes.len()) {
            return Chosen::Unknown;
        }
        let has = |choice: &&Choice| choice.from <= *bytes && *bytes <= choice.to;
        choices.iter().find(has).map_or(Chosen::Nothing, |choice| Chosen::Verdict(&choice.verdict))
    }

    fn extension(&self, extension: &Extension) -> Matches {
        let what = self.walk.arrival.what;
        match extension {
            Extension::Comment => Matches::Always,
            Extension::State { bits, invert } => Matches::decided((bits & state::NEW != 0) != *invert),
            Extension::Ports { source, destination } => {
                let wanted = what.port().map(|port| destination.has(port));
                match wanted {
                    Some(false) => Matches::Never,
                    Some(true) if source.all() => Matches::Always,
                    Some(true) | None => Matches::Perhaps,
                }
            }
            Extension::ManyPorts { destination, source, ranges, invert } => {
                let Some(port) = what.port() else { return Matches::Perhaps };
                let among = ranges.iter().any(|(first, last)| (*first..=*last).contains(&port));
                match (destination, source) {
                    (true, false) => Matches::decided(among != *invert),
                    (true, true) if among => Matches::decided(!invert),
                    _ => Matches::Perhaps,
                }
            }
            Extension::DestinationKind { bits, invert } => {
                let local = bits & (1 << AddressKind::Local.number()) != 0;
                Matches::decided(local != *invert)
            }
        }
    }
}

/// Expressions that load something, ask something or change something, and decide nothing.
const FILTERS: [&str; 24] = [
    "bitwise",
    "byteorder",
    "cmp",
    "connlimit",
    "ct",
    "dynset",
    "exthdr",
    "fib",
    "hash",
    "inner",
    "last",
    "limit",
    "match",
    "meta",
    "notrack",
    "numgen",
    "osf",
    "payload",
    "quota",
    "range",
    "rt",
    "socket",
    "tunnel",
    "xfrm",
];

/// What the register holds.
#[derive(Debug, Clone)]
enum Loaded {
    Bytes(Vec<u8>),
    /// The first bytes of the sender's address, masked.
    Sender {
        length: usize,
        mask: Option<Vec<u8>>,
    },
    Unknown,
}

impl Loaded {
    fn masked(self, mask: &[u8]) -> Self {
        match self {
            Self::Bytes(mut bytes) => {
                apply(mask, &mut bytes);
                Self::Bytes(bytes)
            }
            Self::Sender { length, mask: None } => Self::Sender { length, mask: Some(mask.to_vec()) },
            Self::Sender { .. } | Self::Unknown => Self::Unknown,
        }
    }
}

fn apply(mask: &[u8], bytes: &mut [u8]) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte &= mask.get(index).copied().unwrap_or(0);
    }
}

/// What a map decides.
#[derive(Debug, Clone, Copy)]
enum Chosen<'a> {
    Verdict(&'a Verdict),
    /// It has no such element: the rule does not match.
    Nothing,
    Unknown,
}

/// How a rule ends.
#[derive(Debug, Clone, Copy)]
enum End<'a> {
    Verdict(&'a Verdict),
    Drop,
    /// Something that may decide anything.
    Unknown,
    Nothing,
}

#[cfg(test)]
mod tests;
