//! Our vocabulary of the cluster: nodes, blocks, claims, pools, and the snapshot of all of them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;

/// Name of a node: a DNS subdomain (RFC 1123), at most 253 bytes, as Kubernetes wants it. It names files and objects.
///
/// Shared, because it stands in all that is known of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

/// A name that is not a DNS subdomain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a node name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253"
)]
pub struct NodeNameError(pub String);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NodeNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let legal = name.len() <= 253
            && name.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && label.starts_with(edge)
                    && label.ends_with(edge)
                    && label.chars().all(|c| edge(c) || c == '-')
            });
        if legal { Ok(Self(name.into())) } else { Err(NodeNameError(name.to_owned())) }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A CIDR of pod addresses held by one node; host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(IpNet);

impl Block {
    /// The block that `net` lies in, host bits cut off.
    #[must_use]
    pub fn new(net: IpNet) -> Self {
        Self(net.trunc())
    }

    /// As a prefix.
    #[must_use]
    pub fn net(self) -> IpNet {
        self.0
    }

    /// Its network address: the tunnel address of a node whose oldest block this is.
    #[must_use]
    pub fn network(self) -> IpAddr {
        self.0.network()
    }

    /// The name of its record in every store: `10-244-7-0-24`, `fd10-244-0-7---64` (every `:` and `.` and `/` becomes `-`).
    #[must_use]
    pub fn record_name(self) -> String {
        self.0.to_string().replace(['.', ':', '/'], "-")
    }

    /// The block that a record name means; `None` for a name that is no block's.
    #[must_use]
    pub fn from_record_name(name: &str) -> Option<Self> {
        let (address, length) = name.rsplit_once('-')?;
        let text = |separator: &str| format!("{}/{length}", address.replace('-', separator));
        let net: IpNet = text(".").parse().or_else(|_| text(":").parse()).ok()?;
        let block = Self::new(net);
        (block.record_name() == name).then_some(block)
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Underlay addresses of a node, each with the prefix length of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Underlay {
    /// IPv4 address and prefix length.
    pub ipv4: Option<Ipv4Net>,
    /// IPv6 address and prefix length.
    pub ipv6: Option<Ipv6Net>,
}

/// A set of words, shared by all whose words are the same: in most clusters every node has the same ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words(Arc<BTreeSet<String>>);

impl Words {
    /// Takes the other's set for its own, if they are equal.
    pub fn share(&mut self, other: &Self) {
        if self == other {
            self.0 = Arc::clone(&other.0);
        }
    }
}

impl Deref for Words {
    type Target = BTreeSet<String>;

    fn deref(&self) -> &BTreeSet<String> {
        &self.0
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut BTreeSet<String> {
        Arc::make_mut(&mut self.0)
    }
}

impl FromIterator<String> for Words {
    fn from_iter<I: IntoIterator<Item = String>>(words: I) -> Self {
        Self(Arc::new(words.into_iter().collect()))
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its name.
    pub name: NodeName,
    /// Its underlay addresses.
    pub underlay: Underlay,
    /// Its AS.
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// TCP port that its speaker listens on.
    pub bgp_port: u16,
    /// VXLAN network identifier.
    pub vni: u32,
    /// VXLAN UDP port.
    pub vxlan_port: u16,
    /// Labels for rules.
    pub labels: BTreeMap<String, String>,
    /// Path kinds that it can receive: `native`, `vxlan`, `ipip` (IPv4 pods) and `sit` (IPv6 pods).
    pub capabilities: Words,
    /// Digest of what both ends of a pair must have in common (path policy, VNI, port).
    pub common_digest: String,
    /// Which run of an agent wrote it: when that run began, and a random part. Missing before version 0.1.
    pub instance: Option<String>,
    /// Where another agent runs that wants the name, as a note to the one who has it.
    pub contender: Option<String>,
    /// Fields of newer versions, kept as they came.
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// A block and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The block.
    pub block: Block,
    /// Its holder; `None` if the record's content can't be read: the name alone holds the block.
    pub holder: Option<NodeName>,
    /// When it was claimed: a node's oldest block gives its tunnel address. Times tie by block order.
    pub claimed_at: Timestamp,
    /// Fields of newer versions, kept as they came.
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// Fixes a pool's block prefix for the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRecord {
    /// The pool.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_prefix: u8,
    /// Fields of newer versions, kept as they came.
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// Everything that the store holds at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Grows with every change.
    pub revision: u64,
    /// Node records by name. A record that has become unreadable stands here with its last good content.
    pub nodes: BTreeMap<NodeName, Arc<NodeRecord>>,
    /// Claims by block.
    pub claims: BTreeMap<Block, Claim>,
    /// Pool records by CIDR.
    pub pools: BTreeMap<IpNet, PoolRecord>,
    /// Blocks given back, and when: not taken again before `blocks.reuseAfter`.
    pub released: BTreeMap<Block, Timestamp>,
    /// Records that can't be read, newer versions, and what else an operator should know; by record name.
    pub problems: BTreeMap<String, String>,
    /// Claims whose record can't be read at this revision. `claims` has their last good content, or the name alone.
    pub unreadable: BTreeSet<Block>,
    /// The store has lost what this node had in it (it was emptied or rolled back) and is being filled again by those
    /// who live: what is missing here says nothing of who is gone.
    pub rebuilding: bool,
}

impl Snapshot {
    /// Blocks of a node, oldest claim first.
    #[must_use]
    pub fn blocks_of(&self, node: &NodeName) -> Vec<Block> {
        let mut claims: Vec<&Claim> =
            self.claims.values().filter(|claim| claim.holder.as_ref() == Some(node)).collect();
        claims.sort_by_key(|claim| (claim.claimed_at, claim.block));
        claims.into_iter().map(|claim| claim.block).collect()
    }
}
