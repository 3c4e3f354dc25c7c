//! The way of one kind of packet through one base chain, for all of its senders at once.
//!
//! At each rule stands the group of senders whose packets can come there. A rule takes some of them along, for certain
//! or perhaps; where a rule tells senders apart, the group is parted by it, so that no chain is walked again for a part.

use std::collections::BTreeMap;

use super::super::foreign::{Extension, ForeignChain};
use super::super::table::{
    AddressKind, Choice, Expression, MetaKey, NETWORK, NFPROTO_IPV4, NFPROTO_IPV6, Rule, TRANSPORT, Verdict,
    octets, state,
};
use super::Arrival;
use super::senders::{Group, Senders, Steps, bytes_mask, first_bytes};

/// How many chains deep a packet is followed (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;
/// Steps for one base chain and one kind of packet, some milliseconds; what is not decided then is not claimed.
pub(super) const MOST_STEPS: usize = 4_000_000;
/// Bytes of a register as far as we look at it; so many have the names of devices (`IFNAMSIZ`).
const REGISTER: usize = 16;

/// Chains by family, table and name.
pub(super) type Chains<'a> = BTreeMap<(&'a str, &'a str, &'a str), &'a ForeignChain>;

/// Packets of one kind on their way through one base chain.
pub(super) struct Walk<'a> {
    arrival: &'a Arrival,
    senders: &'a Senders,
    chains: &'a Chains<'a>,
    steps: Steps,
}

/// What a base chain does to them.
pub(super) struct Found {
    /// The senders whose packets are dropped, whatever is not known of them.
    pub(super) dropped: Group,
    /// Some of them by the policy.
    pub(super) by_policy: bool,
}

/// The senders whose packets can come to each of the ends of a chain.
struct Ends {
    accept: Group,
    drop: Group,
    /// Back to where the chain was jumped to from, or to the policy.
    back: Group,
}

impl Ends {
    fn add(&mut self, other: &Self) {
        self.accept.add(&other.accept);
        self.drop.add(&other.drop);
        self.back.add(&other.back);
    }

    /// Anything can become of them.
    fn any(&mut self, group: &Group) {
        self.accept.add(group);
        self.drop.add(group);
        self.back.add(group);
    }
}

/// What a rule does that matches.
struct Judged<'r> {
    /// The senders whose packets can match; nothing for all that come here.
    can: Option<Group>,
    /// They match for certain.
    sure: bool,
    end: End<'r>,
}

/// Whether packets match.
enum Matches {
    Never,
    Perhaps,
    Always,
    /// Always those of some senders, and never the others'.
    Of(Group),
}

impl Matches {
    fn decided(yes: bool) -> Self {
        if yes { Self::Always } else { Self::Never }
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(arrival: &'a Arrival, senders: &'a Senders, chains: &'a Chains<'a>) -> Self {
        Self { arrival, senders, chains, steps: Steps::new(MOST_STEPS) }
    }

    /// Steps so far.
    pub(super) fn steps(&self) -> usize {
        self.steps.used()
    }

    /// `drops`: the policy of the base chain.
    pub(super) fn through(&self, base: &ForeignChain, drops: bool) -> Found {
        let ends = self.follow(base, self.senders.all(), DEPTH);
        let (mut dropped, mut accepted) = (ends.drop, ends.accept);
        if drops {
            dropped.add(&ends.back)
        } else {
            accepted.add(&ends.back)
        }
        dropped.remove(&accepted);
        let mut by_policy = ends.back;
        by_policy.keep(&dropped);
        Found { by_policy: !by_policy.is_empty(), dropped }
    }

    fn follow(&self, chain: &ForeignChain, mut live: Group, depth: usize) -> Ends {
        let mut ends =
            Ends { accept: self.senders.none(), drop: self.senders.none(), back: self.senders.none() };
        // Three groups are made, and three combined at the end.
        let enough = self.steps.take(8 * self.senders.words());
        let Some(depth) = depth.checked_sub(1).filter(|_| enough) else {
            ends.any(&live);
            return ends;
        };
        for rule in &chain.rules {
            if live.is_empty() {
                return ends;
            }
            if !self.steps.take(rule.expressions.len() + 1) {
                ends.any(&live);
                return ends;
            }
            if let Some(judged) = self.judge(rule, &live) {
                self.act(chain, judged, &mut live, &mut ends, depth);
            }
        }
        ends.back.add(&live);
        ends
    }

    /// Lets those that match go where the rule leads.
    fn act(&self, chain: &ForeignChain, judged: Judged<'_>, live: &mut Group, ends: &mut Ends, depth: usize) {
        let Judged { can, sure, end } = judged;
        let mut can = can.unwrap_or_else(|| live.clone());
        if !self.steps.take(4 * self.senders.words()) {
            ends.any(&can);
            return;
        }
        match end {
            End::Verdict(Verdict::Continue) => return,
            End::Unknown => {
                ends.any(&can);
                return;
            }
            End::Drop | End::Verdict(Verdict::Drop) => ends.drop.add(&can),
            End::Verdict(Verdict::Accept) => ends.accept.add(&can),
            End::Verdict(Verdict::Return) => ends.back.add(&can),
            End::Verdict(Verdict::Goto(name)) => ends.add(&self.target(chain, name, can.clone(), depth)),
            End::Verdict(Verdict::Jump(name)) => {
                let inside = self.target(chain, name, can.clone(), depth);
                ends.accept.add(&inside.accept);
                ends.drop.add(&inside.drop);
                // Those come to the next rule.
                can.remove(&inside.back);
            }
        }
        if sure {
            live.remove(&can);
        }
    }

    fn target(&self, from: &ForeignChain, name: &str, group: Group, depth: usize) -> Ends {
        let key = (from.family.as_str(), from.table.as_str(), name);
        if let Some(chain) = self.chains.get(&key) {
            return self.follow(chain, group, depth);
        }
        Ends { accept: group.clone(), drop: group.clone(), back: group }
    }

    /// Nothing if the rule matches no packet, or decides nothing.
    fn judge<'r>(&self, rule: &'r Rule, live: &Group) -> Option<Judged<'r>> {
        let mut can: Option<Group> = None;
        let mut sure = true;
        let mut loaded = Loaded::Unknown;
        // What else it may be: tunnels are often taken out of connection tracking.
        let mut or = None;
        for expression in &rule.expressions {
            let either = |test: &dyn Fn(&Loaded) -> Matches| {
                let found = test(&loaded);
                match (&found, or.as_ref().map(test)) {
                    (_, None)
                    | (Matches::Always, Some(Matches::Always))
                    | (Matches::Never, Some(Matches::Never)) => found,
                    (_, Some(_)) => Matches::Perhaps,
                }
            };
            let found = match expression {
                Expression::Meta(key) => {
                    (loaded, or) = (self.meta(*key), None);
                    continue;
                }
                Expression::AddressKind => {
                    (loaded, or) = (Loaded::bytes(&AddressKind::Local.number().to_ne_bytes()), None);
                    continue;
                }
                Expression::ConnectionState => {
                    loaded = Loaded::bytes(&state::NEW.to_ne_bytes());
                    or = Some(Loaded::bytes(&state::UNTRACKED.to_ne_bytes()));
                    continue;
                }
                Expression::Payload { base, offset, length } => {
                    (loaded, or) = (self.payload(*base, *offset, *length), None);
                    continue;
                }
                Expression::Mask(mask) => {
                    (loaded, or) = (loaded.masked(mask), or.map(|or| or.masked(mask)));
                    continue;
                }
                Expression::Counter | Expression::Note | Expression::Masquerade { .. } => continue,
                Expression::Compare { equal, value } => either(&|loaded| self.compare(loaded, *equal, value)),
                Expression::Range { equal, from, to } => {
                    either(&|loaded| self.range(loaded, *equal, from, to))
                }
                Expression::Among { ranges, absent } => either(&|loaded| self.among(loaded, ranges, *absent)),
                Expression::VerdictMap { choices, .. } => {
                    match choose_either(&loaded, or.as_ref(), choices.as_deref()) {
                        Chosen::Nothing => Matches::Never,
                        Chosen::Unknown => return Some(Judged { can, sure: false, end: End::Unknown }),
                        Chosen::Verdict(verdict) => {
                            return Some(Judged { can, sure, end: End::Verdict(verdict) });
                        }
                    }
                }
                Expression::Extension(extension) => self.extension(extension),
                Expression::Lookup { .. } => Matches::Perhaps,
                Expression::Other(name) => {
                    (loaded, or) = (Loaded::Unknown, None);
                    if !FILTERS.contains(&name.as_str()) {
                        return Some(Judged { can, sure: false, end: End::Unknown });
                    }
                    Matches::Perhaps
                }
                Expression::Unread => return Some(Judged { can, sure: false, end: End::Unknown }),
                Expression::Reject => return Some(Judged { can, sure, end: End::Drop }),
                Expression::Verdict(verdict) => {
                    return Some(Judged { can, sure, end: End::Verdict(verdict) });
                }
            };
            match found {
                Matches::Never => return None,
                Matches::Perhaps => sure = false,
                Matches::Always => {}
                Matches::Of(mut some) => {
                    some.keep(can.as_ref().unwrap_or(live));
                    if some.is_empty() {
                        return None;
                    }
                    can = Some(some);
                }
            }
        }
        None
    }

    fn meta(&self, key: MetaKey) -> Loaded {
        let arrival = self.arrival;
        match key {
            MetaKey::NetworkProtocol => {
                Loaded::bytes(&[if arrival.to.is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 }])
            }
            MetaKey::TransportProtocol => Loaded::bytes(&[arrival.what.protocol()]),
            MetaKey::InputIndex => Loaded::bytes(&arrival.device.1.to_ne_bytes()),
            MetaKey::InputName => match Loaded::bytes(arrival.device.0.as_bytes()) {
                // A name is followed by zeros.
                Loaded::Bytes { bytes, .. } => Loaded::Bytes { bytes, length: REGISTER },
                other @ (Loaded::Sender { .. } | Loaded::Unknown) => other,
            },
            // A packet that arrives leaves by none.
            MetaKey::OutputName => Loaded::Unknown,
        }
    }

    /// Addresses, protocol and destination port; shorter loads are the first bytes of them.
    fn payload(&self, base: u32, offset: u32, length: u32) -> Loaded {
        let arrival = self.arrival;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (protocol, source, destination) = if arrival.to.is_ipv4() { (9, 12, 16) } else { (6, 8, 24) };
        let loaded = match (base, offset) {
            (NETWORK, at) if at == source => {
                let length = length.min(self.senders.width());
                return Loaded::Sender { length, mask: bytes_mask(length) };
            }
            (NETWORK, at) if at == destination => Loaded::bytes(&octets(arrival.to)),
            (NETWORK, at) if at == protocol => Loaded::bytes(&[arrival.what.protocol()]),
            (TRANSPORT, 2) => match arrival.what.port() {
                Some(port) => Loaded::bytes(&port.to_be_bytes()),
                None => Loaded::Unknown,
            },
            _ => Loaded::Unknown,
        };
        match loaded {
            Loaded::Bytes { bytes, length: all } if length <= all => Loaded::Bytes { bytes, length },
            Loaded::Bytes { .. } | Loaded::Sender { .. } | Loaded::Unknown => Loaded::Unknown,
        }
    }

    /// Only as many bytes are compared as there are in the value.
    fn compare(&self, loaded: &Loaded, equal: bool, value: &[u8]) -> Matches {
        match *loaded {
            Loaded::Unknown => Matches::Perhaps,
            Loaded::Bytes { .. } => loaded
                .first(value.len())
                .map_or(Matches::Perhaps, |begin| Matches::decided((begin == value) == equal)),
            Loaded::Sender { length, .. } if value.len() > length => Matches::Perhaps,
            Loaded::Sender { mask, .. } => {
                let (mask, value) = (mask & bytes_mask(value.len()), first_bytes(value));
                self.of(self.senders.between(mask, value, value, &self.steps), equal)
            }
        }
    }

    fn range(&self, loaded: &Loaded, equal: bool, from: &[u8], to: &[u8]) -> Matches {
        if from.len() != to.len() {
            return Matches::Perhaps;
        }
        match *loaded {
            Loaded::Unknown => Matches::Perhaps,
            Loaded::Bytes { .. } => loaded
                .first(from.len())
                .map_or(Matches::Perhaps, |bytes| Matches::decided((from <= bytes && bytes <= to) == equal)),
            Loaded::Sender { length, .. } if from.len() > length => Matches::Perhaps,
            Loaded::Sender { mask, .. } => {
                let mask = mask & bytes_mask(from.len());
                let some = self.senders.between(mask, first_bytes(from), first_bytes(to), &self.steps);
                self.of(some, equal)
            }
        }
    }

    fn among(&self, loaded: &Loaded, ranges: &[(Vec<u8>, Vec<u8>)], absent: bool) -> Matches {
        let width = ranges.first().map(|(from, _)| from.len());
        match loaded {
            Loaded::Unknown => Matches::Perhaps,
            Loaded::Bytes { length, .. } | Loaded::Sender { length, .. }
                if width.is_some_and(|width| width != *length) =>
            {
                Matches::Perhaps
            }
            Loaded::Bytes { bytes, length } => {
                let bytes = bytes.get(..*length).unwrap_or_default();
                let after = ranges.partition_point(|(from, _)| from.as_slice() <= bytes);
                let last = after.checked_sub(1).and_then(|last| ranges.get(last));
                Matches::decided(last.is_some_and(|(_, to)| bytes <= to.as_slice()) != absent)
            }
            Loaded::Sender { mask, .. } => self.of(self.senders.among(*mask, ranges, &self.steps), !absent),
        }
    }

    /// `yes`: these senders, otherwise all but these. What took too many steps to say is not known.
    fn of(&self, some: Option<Group>, yes: bool) -> Matches {
        match some {
            None => Matches::Perhaps,
            Some(some) if yes => Matches::Of(some),
            Some(some) => {
                let mut others = self.senders.all();
                others.remove(&some);
                Matches::Of(others)
            }
        }
    }

    fn extension(&self, extension: &Extension) -> Matches {
        let what = self.arrival.what;
        match extension {
            Extension::Comment => Matches::Always,
            Extension::State { bits, invert } => {
                let [new, untracked] = [state::NEW, state::UNTRACKED].map(|state| bits & state != 0);
                if new == untracked { Matches::decided(new != *invert) } else { Matches::Perhaps }
            }
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

/// What a map decides; of senders nothing is known that would decide for all.
fn choose<'r>(loaded: &Loaded, choices: Option<&'r [Choice]>) -> Chosen<'r> {
    let (Loaded::Bytes { bytes, length }, Some(choices)) = (loaded, choices) else { return Chosen::Unknown };
    let bytes = bytes.get(..*length).unwrap_or_default();
    if choices.iter().any(|choice| choice.from.len() != bytes.len()) {
        return Chosen::Unknown;
    }
    let has = |choice: &&Choice| choice.from.as_slice() <= bytes && bytes <= choice.to.as_slice();
    choices.iter().find(has).map_or(Chosen::Nothing, |choice| Chosen::Verdict(&choice.verdict))
}

/// What a map decides of a value that may also be another one.
fn choose_either<'a>(loaded: &Loaded, or: Option<&Loaded>, choices: Option<&'a [Choice]>) -> Chosen<'a> {
    let chosen = choose(loaded, choices);
    match (chosen, or.map(|or| choose(or, choices))) {
        (_, None) | (Chosen::Nothing, Some(Chosen::Nothing)) => chosen,
        (Chosen::Verdict(one), Some(Chosen::Verdict(other))) if one == other => chosen,
        (_, Some(_)) => Chosen::Unknown,
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
#[derive(Debug, Clone, Copy)]
enum Loaded {
    Bytes {
        /// Zeros behind.
        bytes: [u8; REGISTER],
        length: usize,
    },
    /// The first bytes of the sender's address, as far as the mask keeps them.
    Sender {
        length: usize,
        mask: u128,
    },
    Unknown,
}

impl Loaded {
    fn bytes(given: &[u8]) -> Self {
        if given.len() > REGISTER {
            return Self::Unknown;
        }
        Self::Bytes { bytes: first_bytes(given).to_be_bytes(), length: given.len() }
    }

    /// The first bytes, if so many are there.
    fn first(&self, many: usize) -> Option<&[u8]> {
        match self {
            Self::Bytes { bytes, length } if many <= *length => bytes.get(..many),
            Self::Bytes { .. } | Self::Sender { .. } | Self::Unknown => None,
        }
    }

    /// What is behind the end of a mask is not kept.
    fn masked(self, given: &[u8]) -> Self {
        let bits = first_bytes(given);
        match self {
            Self::Bytes { bytes, length } => {
                Self::Bytes { bytes: (u128::from_be_bytes(bytes) & bits).to_be_bytes(), length }
            }
            Self::Sender { length, mask } => Self::Sender { length, mask: mask & bits },
            Self::Unknown => Self::Unknown,
        }
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
}
