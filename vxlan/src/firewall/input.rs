//! What chains of others do to the packets that must arrive at this node: those of our tunnels, and BGP's. Pure.
//!
//! The judgement follows the first packet of a connection through the chains at the hook `input`. What matches it for
//! certain and what can't is known of its addresses, ports, protocol, device and state; all else may match or not, and
//! both ways are gone. A drop is claimed only where every way ends in one: a rule that can't be judged is an excuse.
//! (`forward` claims more: there it is known whom to ask, the owner of the pool.)
//!
//! `walk` follows the packets of all senders at once, as sets of them (`senders`), in a number of steps that is bounded;
//! `drop` is what is found, in words.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::foreign::ForeignChain;
use super::table::hook;

mod drop;
mod senders;
mod walk;

pub use drop::InputDrop;

use senders::Senders;
use walk::{Chains, Walk};

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

/// The chains at the hook `input` that drop what must arrive.
#[must_use]
pub fn input_drops(chains: &[ForeignChain], arrivals: &[Arrival]) -> BTreeSet<InputDrop> {
    judged(chains, arrivals).0
}

/// The same, with the steps that it has taken.
fn judged(chains: &[ForeignChain], arrivals: &[Arrival]) -> (BTreeSet<InputDrop>, usize) {
    let by_name: Chains<'_> = chains
        .iter()
        .map(|chain| ((chain.family.as_str(), chain.table.as_str(), chain.name.as_str()), chain))
        .collect();
    let mut drops = BTreeSet::new();
    let mut steps = 0;
    for arrival in arrivals {
        let senders = Senders::new(&arrival.from, arrival.to.is_ipv4());
        for chain in chains {
            let Some(base) = chain.base.as_ref().filter(|base| base.base.hook == hook::INPUT) else {
                continue;
            };
            if (chain.family == "ip") != arrival.to.is_ipv4() && chain.family != "inet" {
                continue;
            }
            let walk = Walk::new(arrival, &senders, &by_name);
            let found = walk.through(chain, base.drops);
            steps += walk.steps();
            if found.dropped.is_empty() {
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
                everybody: found.dropped == senders.all(),
                from: senders.addresses(&found.dropped),
                by_policy: found.by_policy,
                ufw,
            });
        }
    }
    (drops, steps)
}

#[cfg(test)]
mod tests;
