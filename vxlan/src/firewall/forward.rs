//! What chains of others do to forwarded packets of pods. Pure.
//!
//! A packet that one base chain accepts still goes through the next: nothing in a table of ours helps against a drop
//! in somebody else's. So it is found and reported. The judgement follows a packet of which only one end is known, a
//! pod, through the chain: a rule matches always, never, or perhaps. What depends on more than the pod's address does
//! not decide, except for an accept that names a device which carries pod traffic: that gets the benefit of the doubt.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;

use super::foreign::{Extension, ForeignChain};
use super::table::{Expression, MetaKey, NETWORK, NFPROTO_IPV4, NFPROTO_IPV6, Rule, Verdict, hook};

/// How many chains deep a packet is followed (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;

/// A chain that drops what a pod sends or gets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForwardDrop {
    /// `ip`, `ip6` or `inet`.
    pub family: String,
    /// Table of the base chain.
    pub table: String,
    /// The base chain.
    pub chain: String,
    /// The pool whose packets it drops.
    pub pool: IpNet,
    /// By its policy; otherwise by a rule.
    pub by_policy: bool,
}

impl ForwardDrop {
    /// The commands that mend it until the next reload of whatever wrote the chain.
    #[must_use]
    pub fn remedy(&self) -> String {
        let Self { family, table, chain, pool, .. } = self;
        let word = if pool.addr().is_ipv4() { "ip" } else { "ip6" };
        format!(
            "nft insert rule {family} {table} {chain} {word} saddr {pool} accept && nft insert rule {family} {table} {chain} {word} daddr {pool} accept"
        )
    }
}

impl fmt::Display for ForwardDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, chain, pool, by_policy } = self;
        let how = if *by_policy { "its policy" } else { "a rule" };
        write!(
            f,
            "chain {chain} of the nftables table {family} {table} drops forwarded packets of {pool} by {how}"
        )
    }
}

/// The chains at the hook `forward` that drop packets from or to a pool. `devices` are those that carry pod traffic.
#[must_use]
pub fn forward_drops(
    chains: &[ForeignChain],
    pools: &[IpNet],
    devices: &BTreeSet<String>,
) -> BTreeSet<ForwardDrop> {
    let by_name: BTreeMap<(&str, &str, &str), &ForeignChain> = chains
        .iter()
        .map(|chain| ((chain.family.as_str(), chain.table.as_str(), chain.name.as_str()), chain))
        .collect();
    let mut drops = BTreeSet::new();
    for chain in chains {
        let Some(base) = chain.base.as_ref().filter(|base| base.base.hook == hook::FORWARD) else { continue };
        for pool in pools {
            if (chain.family == "ip") != pool.addr().is_ipv4() && chain.family != "inet" {
                continue;
            }
            let by_policy = [true, false].into_iter().find_map(|source| {
                let packet = Packet { pool: *pool, source, devices, chains: &by_name };
                match packet.follow(chain, DEPTH) {
                    Outcome::Dropped => Some(false),
                    Outcome::Undecided if base.drops => Some(true),
                    Outcome::Undecided | Outcome::Accepted => None,
                }
            });
            if let Some(by_policy) = by_policy {
                drops.insert(ForwardDrop {
                    family: chain.family.clone(),
                    table: chain.table.clone(),
                    chain: chain.name.clone(),
                    pool: *pool,
                    by_policy,
                });
            }
        }
    }
    drops
}

/// A packet with a pod at one end.
struct Packet<'a> {
    pool: IpNet,
    /// The pod is the sender.
    source: bool,
    devices: &'a BTreeSet<String>,
    chains: &'a BTreeMap<(&'a str, &'a str, &'a str), &'a ForeignChain>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Dropped,
    Undecided,
}

/// Whether a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Matches {
    Never,
    /// It depends on something unknown.
    Perhaps,
    /// It names a device of pods and nothing else that is unknown.
    Likely,
    Always,
}

impl Packet<'_> {
    fn follow(&self, chain: &ForeignChain, depth: usize) -> Outcome {
        let Some(depth) = depth.checked_sub(1) else { return Outcome::Undecided };
        for rule in &chain.rules {
            let (matches, end) = self.judge(rule);
            let target = |name: &String| {
                let key = (chain.family.as_str(), chain.table.as_str(), name.as_str());
                self.chains.get(&key).map_or(Outcome::Undecided, |target| self.follow(target, depth))
            };
            let outcome = match (matches, end) {
                // There may be an accept among them, and nobody to ask: nothing is claimed.
                (_, End::Unread) => Outcome::Accepted,
                (Matches::Never | Matches::Perhaps, _) | (_, End::Nothing) => Outcome::Undecided,
                (Matches::Likely | Matches::Always, End::Verdict(Verdict::Accept)) => Outcome::Accepted,
                (Matches::Likely, End::Verdict(Verdict::Jump(name) | Verdict::Goto(name))) => {
                    match target(name) {
                        Outcome::Accepted => Outcome::Accepted,
                        Outcome::Dropped | Outcome::Undecided => Outcome::Undecided,
                    }
                }
                (Matches::Likely, _) => Outcome::Undecided,
                (Matches::Always, End::Reject | End::Verdict(Verdict::Drop)) => Outcome::Dropped,
                (Matches::Always, End::Verdict(Verdict::Return)) => return Outcome::Undecided,
                (Matches::Always, End::Verdict(Verdict::Goto(name))) => return target(name),
                (Matches::Always, End::Verdict(Verdict::Jump(name))) => target(name),
                (Matches::Always, End::Verdict(Verdict::Continue)) => Outcome::Undecided,
            };
            if outcome != Outcome::Undecided {
                return outcome;
            }
        }
        Outcome::Undecided
    }

    fn judge<'r>(&self, rule: &'r Rule) -> (Matches, End<'r>) {
        let mut matches = Matches::Always;
        let mut loaded = Loaded::Unknown;
        let mut mask: Option<&[u8]> = None;
        for expression in &rule.expressions {
            match expression {
                Expression::Meta(MetaKey::NetworkProtocol) => loaded = Loaded::Protocol,
                Expression::Meta(MetaKey::InputName | MetaKey::OutputName) => loaded = Loaded::Device,
                Expression::Meta(MetaKey::TransportProtocol | MetaKey::InputIndex)
                | Expression::AddressKind
                | Expression::ConnectionState => loaded = Loaded::Unknown,
                Expression::Payload { base, offset, length } => {
                    mask = None;
                    loaded = self.payload(*base, *offset, *length);
                }
                Expression::Mask(bits) => mask = Some(bits),
                Expression::Compare { equal, value } => {
                    matches = matches.min(self.compare(loaded, mask, *equal, value));
                }
                Expression::Lookup { .. }
                | Expression::Range { .. }
                | Expression::Among { .. }
                | Expression::VerdictMap { .. }
                | Expression::Other(_)
                | Expression::Extension(
                    Extension::State { .. }
                    | Extension::Ports { .. }
                    | Extension::ManyPorts { .. }
                    | Extension::DestinationKind { .. },
                ) => matches = matches.min(Matches::Perhaps),
                Expression::Counter
                | Expression::Masquerade { .. }
                | Expression::Note
                | Expression::Extension(Extension::Comment) => {}
                Expression::Unread => return (Matches::Perhaps, End::Unread),
                Expression::Reject => return (matches, End::Reject),
                Expression::Verdict(verdict) => return (matches, End::Verdict(verdict)),
            }
        }
        (matches, End::Nothing)
    }

    /// Only the pod's address is known; shorter loads are the first bytes of it.
    fn payload(&self, base: u32, offset: u32, length: u32) -> Loaded {
        let (width, source, destination) = if self.pool.addr().is_ipv4() { (4, 12, 16) } else { (16, 8, 24) };
        let known = if self.source { source } else { destination };
        if base == NETWORK && offset == known && length <= width { Loaded::Address } else { Loaded::Unknown }
    }

    fn compare(&self, loaded: Loaded, mask: Option<&[u8]>, equal: bool, value: &[u8]) -> Matches {
        let decided = |same: bool| if same == equal { Matches::Always } else { Matches::Never };
        match loaded {
            Loaded::Protocol => {
                let own = if self.pool.addr().is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
                decided(value == [own])
            }
            Loaded::Address => match self.within(mask, value) {
                Some(same) => decided(same),
                None => Matches::Perhaps,
            },
            Loaded::Device => {
                let name = String::from_utf8_lossy(value);
                // A name without its closing zero stands for all that begin with it.
                let ours = match name.strip_suffix('\0') {
                    Some(_) => self.devices.contains(name.trim_end_matches('\0')),
                    None => self.devices.iter().any(|device| device.starts_with(name.as_ref())),
                };
                match (ours, equal) {
                    (true, true) => Matches::Likely,
                    (false, true) => Matches::Never,
                    (_, false) => Matches::Perhaps,
                }
            }
            Loaded::Unknown => Matches::Perhaps,
        }
    }

    /// Whether all addresses of the pool have these bits, or none; nothing if some have.
    fn within(&self, mask: Option<&[u8]>, value: &[u8]) -> Option<bool> {
        let address = super::table::octets(self.pool.network());
        let fixed = super::table::octets(self.pool.netmask());
        let mut free = false;
        for (index, wanted) in value.iter().enumerate() {
            let asked = mask.map_or(0xff, |mask| mask.get(index).copied().unwrap_or(0));
            let (have, known) = (address.get(index).copied()?, fixed.get(index).copied()?);
            if (have ^ wanted) & asked & known != 0 {
                return Some(false);
            }
            free |= asked & !known != 0;
        }
        if free { None } else { Some(true) }
    }
}

/// What the register holds.
#[derive(Debug, Clone, Copy)]
enum Loaded {
    Protocol,
    Device,
    Address,
    Unknown,
}

/// How a rule ends.
#[derive(Debug, Clone, Copy)]
enum End<'a> {
    Verdict(&'a Verdict),
    Reject,
    Unread,
    Nothing,
}

#[cfg(test)]
mod tests;
