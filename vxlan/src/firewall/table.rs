//! An nftables table as a value: as much of the language as we write, and the rest by name.
//!
//! The kernel shows rules as lists of expressions, small steps of a machine with registers. We write and read the
//! same form, so that what is compared is what runs. Registers are not part of the value: everything that we write
//! goes through the first, and what uses another is [`Expression::Other`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::foreign::Extension;

/// `NFPROTO_IPV4`.
pub(crate) const NFPROTO_IPV4: u8 = 2;
/// `NFPROTO_IPV6`.
pub(crate) const NFPROTO_IPV6: u8 = 10;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
pub(crate) const NETWORK: u32 = 1;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`.
pub(crate) const TRANSPORT: u32 = 2;

/// Hooks of the families `ip`, `ip6` and `inet` (`enum nf_inet_hooks`).
pub mod hook {
    /// Packets for this machine.
    pub const INPUT: u32 = 1;
    /// Packets that pass through.
    pub const FORWARD: u32 = 2;
    /// Packets on their way out, whoever made them.
    pub const POSTROUTING: u32 = 4;
}

/// Priorities at a hook; smaller comes first (`enum nf_ip_hook_priorities`).
pub mod priority {
    /// `NF_IP_PRI_FILTER`.
    pub const FILTER: i32 = 0;
    /// `NF_IP_PRI_NAT_SRC`.
    pub const SRCNAT: i32 = 100;
}

/// States of a connection as connection tracking sees a packet (`NF_CT_STATE_BIT`).
pub mod state {
    /// The first packet of one.
    pub const NEW: u32 = 1 << 3;
    /// A packet that connection tracking was told to leave alone.
    pub const UNTRACKED: u32 = 1 << 6;
}

/// A table: sets and chains by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Sets.
    pub sets: BTreeMap<String, Set>,
    /// Chains.
    pub chains: BTreeMap<String, Chain>,
}

impl Table {
    /// Whether another table differs at most in the elements of its sets.
    #[must_use]
    pub fn same_but_elements(&self, other: &Self) -> bool {
        self.chains == other.chains
            && self.sets.len() == other.sets.len()
            && self.sets.iter().zip(&other.sets).all(|((name, set), (other_name, other))| {
                name == other_name && set.key == other.key && set.key != SetKey::Other
            })
    }
}

/// A set of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What it holds.
    pub key: SetKey,
    /// Its elements.
    pub elements: BTreeSet<IpAddr>,
}

/// What a set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKey {
    /// `ipv4_addr`
    Ipv4,
    /// `ipv6_addr`
    Ipv6,
    /// Anything that we never write. Only ever observed.
    Other,
}

impl SetKey {
    /// The key that holds an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Where it is hooked into the path of packets; a chain without is only jumped to.
    pub base: Option<BaseChain>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A chain that packets go through by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// Where.
    pub base: Base,
    /// What no rule has decided is dropped.
    pub drops: bool,
}

/// Where a base chain is hooked in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// One of [`hook`].
    pub hook: u32,
    /// Order among the chains of a hook; see [`priority`].
    pub priority: i32,
}

impl BaseChain {
    /// One that lets pass what no rule has decided.
    #[must_use]
    pub fn accepting(base: Base) -> Self {
        Self { base, drops: false }
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it does, step by step.
    pub expressions: Vec<Expression>,
    /// What `nft list` shows behind it; empty for none.
    pub comment: String,
}

impl Rule {
    /// A rule without a comment.
    #[must_use]
    pub fn new(expressions: Vec<Expression>) -> Self {
        Self { expressions, comment: String::new() }
    }
}

/// A step of a rule. Loads go into the first register, comparisons read it; one that is not so ends the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Loads something that is known of the packet.
    Meta(MetaKey),
    /// Loads bytes of the packet.
    Payload {
        /// Which header: 1 network, 2 transport.
        base: u32,
        /// From its begin, in bytes.
        offset: u32,
        /// How many, at most 16.
        length: u32,
    },
    /// Loads the kind of the destination address as the routing tables have it (`fib daddr type`).
    AddressKind,
    /// Keeps the bits of a mask.
    Mask(Vec<u8>),
    /// Goes on if what is loaded equals a value, or does not.
    Compare {
        /// Equal.
        equal: bool,
        /// The value, as it stands in the register.
        value: Vec<u8>,
    },
    /// Goes on if what is loaded is in a set, or is absent.
    Lookup {
        /// The set.
        set: String,
        /// Absent.
        absent: bool,
    },
    /// Counts. What it has counted so far is no part of the rule.
    Counter,
    /// Gives the packet's connection the address of the device that it leaves by.
    Masquerade {
        /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`: connections that begin at once don't fight for one port.
        fully_random: bool,
    },
    /// Refuses the packet and says so.
    Reject,
    /// Loads the state of the packet's connection, as a bit of [`state`]. Only ever observed.
    ConnectionState,
    /// Goes on if what is loaded lies in a range, ends included, or does not. Only ever observed.
    Range {
        /// Within.
        equal: bool,
        /// The least.
        from: Vec<u8>,
        /// The largest.
        to: Vec<u8>,
    },
    /// A lookup in a set of others whose elements are known, as ranges with their ends. Only ever observed.
    Among {
        /// The ranges, all of the same width, in ascending order and apart from each other.
        ranges: Arc<[(Vec<u8>, Vec<u8>)]>,
        /// Goes on if it is in none of them.
        absent: bool,
    },
    /// Decides by what is loaded, or goes on with the next rule (`vmap`). Only ever observed.
    VerdictMap {
        /// The map.
        map: String,
        /// Ranges with their ends, each with its verdict, where all of the map is known; the first that has it decides.
        choices: Option<Arc<[Choice]>>,
    },
    /// Writes a log or marks the packet, and goes on. Only ever observed.
    Note,
    /// A match of iptables. Only ever observed.
    Extension(Extension),
    /// Decides.
    Verdict(Verdict),
    /// Stands for rules, of a chain with more of them than are read: anything can come of them. Only ever observed.
    Unread,
    /// Anything that we never write, by its name. Only ever observed.
    Other(String),
}

impl Expression {
    pub(crate) fn equals(value: impl Into<Vec<u8>>) -> Self {
        Self::Compare { equal: true, value: value.into() }
    }
}

/// An element of a map of verdicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The least value.
    pub from: Vec<u8>,
    /// The largest.
    pub to: Vec<u8>,
    /// What is decided for them.
    pub verdict: Verdict,
}

/// What can be known of a packet (`enum nft_meta_keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// `nfproto`, one byte.
    NetworkProtocol,
    /// `l4proto`, one byte.
    TransportProtocol,
    /// `iif`, a number of four bytes. Only ever observed.
    InputIndex,
    /// `iifname`
    InputName,
    /// `oifname`
    OutputName,
}

/// Kinds of destination addresses (`RTN_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// This machine's.
    Local,
    /// Broadcast of a connected network.
    Broadcast,
    /// Multicast.
    Multicast,
}

impl AddressKind {
    /// `RTN_LOCAL`, `RTN_BROADCAST`, `RTN_MULTICAST`.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Local => 2,
            Self::Broadcast => 3,
            Self::Multicast => 5,
        }
    }
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No other rule of this base chain.
    Accept,
    /// The end of the packet.
    Drop,
    /// On in a chain, and back if it decides nothing.
    Jump(String),
    /// On in a chain, and not back.
    Goto(String),
    /// Back to where the chain was jumped to from.
    Return,
    /// On with the next rule.
    Continue,
}

/// What a counter has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

#[cfg(feature = "io")]
impl Count {
    pub(crate) fn add(&mut self, other: Self) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

pub(crate) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
