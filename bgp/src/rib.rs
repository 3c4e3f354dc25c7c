//! Routing information bases (RFC 4271 §3.2); pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::wire::Attributes;

/// Name of a peer: the node's name, or the configured name of an outside speaker.
pub type PeerName = String;

/// What is accepted from a peer: nothing but what a rule permits (RFC 8212).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImportFilter {
    /// Any rule that matches accepts.
    pub rules: Vec<ImportRule>,
}

/// Accepts prefixes within `prefix` whose length lies in `lengths`, with a next hop among `next_hops`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRule {
    /// Covering prefix.
    pub prefix: IpNet,
    /// Prefix lengths permitted, both ends included; `(24, 24)` with a /24 is exactly that block.
    pub lengths: (u8, u8),
    /// Next hops permitted; `None`: only the peer's own address (of IPv6 also its link-local one).
    pub next_hops: Option<BTreeSet<IpAddr>>,
}

/// Which of our prefixes a peer gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// All that [`Speaker::announce`] was given.
    All,
    /// Those equal to or within one of these.
    Within(Vec<IpNet>),
}

/// Accepted routes of all peers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    /// By prefix; the paths of a prefix are sorted by the decision process (RFC 4271 §9.1.2), best first.
    pub routes: BTreeMap<IpNet, Vec<LearnedRoute>>,
}

/// One accepted path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnedRoute {
    /// Who told us.
    pub peer: PeerName,
    /// Global next hop.
    pub next_hop: IpAddr,
    /// Attributes.
    pub attributes: Arc<Attributes>,
    /// Kept over a restart of the peer (RFC 4724 §4.2).
    pub stale: bool,
}

/// Why a prefix is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// No import rule covers the prefix.
    NotPermitted,
    /// A rule covers the prefix but not its next hop.
    NextHop,
    /// Our AS is in AS_PATH, or our identifier in ORIGINATOR_ID.
    Loop,
    /// We announce this very prefix ourselves.
    OwnPrefix,
}
