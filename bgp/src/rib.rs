//! Routing information bases (RFC 4271 §3.2); pure.
//!
//! [`Rib`] holds what every peer told us (its Adj-RIB-In, before the import filter, so that a changed filter acts
//! at once) and what follows from it: the Loc-RIB, which is the value [`Routes`]. Each call does work in
//! proportion to the prefixes that it concerns. [`AdjRibOut`] is one peer's other direction.

mod adj_rib_in;
mod adj_rib_out;
mod decision;
mod filter;
mod interner;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use self::adj_rib_in::{AdjRibIn, Change, Context};
pub use self::adj_rib_out::{
    AdjRibOut, GRACEFUL_SHUTDOWN, Outbound, graceful_shutdown_attributes, own_attributes,
};
use self::decision::Standing;
use self::interner::Interner;
use crate::wire::{Attributes, Update};
use crate::{Asn, Family, RouterId};

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
    /// All of them.
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

/// What the RIB must know of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    /// Its address.
    pub address: IpAddr,
    /// It is in another AS.
    pub external: bool,
    /// What is accepted from it.
    pub import: ImportFilter,
    /// More prefixes than this, accepted or not, are too many.
    pub max_prefixes: usize,
}

/// What a peer's Adj-RIB-In holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// Accepted prefixes by family.
    pub accepted: BTreeMap<Family, usize>,
    /// Refused prefixes by reason.
    pub refused: BTreeMap<Refusal, usize>,
    /// The first of the refused prefixes, up to [`REFUSED_SHOWN`].
    pub refused_prefixes: Vec<(IpNet, Refusal)>,
}

/// How many refused prefixes an [`Inventory`] names.
pub const REFUSED_SHOWN: usize = 100;

/// A peer sent more prefixes than it may: the session is to end with Cease/1 (RFC 4486 §4).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("more than {limit} prefixes")]
pub struct PrefixLimitExceeded {
    /// The limit.
    pub limit: usize,
    /// Prefixes whose paths changed before the one too many.
    pub changed: Vec<IpNet>,
}

/// What all peers told us and what we make of it.
///
/// Methods return the prefixes whose paths in [`Rib::routes`] changed, none twice. A peer that is not there is a peer that said
/// nothing.
#[derive(Debug)]
pub struct Rib {
    asn: Asn,
    router_id: RouterId,
    own: BTreeSet<IpNet>,
    peers: BTreeMap<PeerName, AdjRibIn>,
    routes: Arc<Routes>,
    interner: Interner,
}

impl Rib {
    /// An empty RIB of a speaker with this AS and identifier.
    #[must_use]
    pub fn new(asn: Asn, router_id: RouterId) -> Self {
        Self {
            asn,
            router_id,
            own: BTreeSet::new(),
            peers: BTreeMap::new(),
            routes: Arc::default(),
            interner: Interner::default(),
        }
    }

    /// Adds a peer, or changes what is known of it; what it told us stays and is judged again.
    pub fn set_peer(&mut self, peer: &str, neighbor: Neighbor) -> Vec<IpNet> {
        let Some(adj_rib_in) = self.peers.get_mut(peer) else {
            self.peers.insert(peer.to_owned(), AdjRibIn::new(neighbor));
            return Vec::new();
        };
        let moved = adj_rib_in.neighbor.address != neighbor.address
            || adj_rib_in.neighbor.external != neighbor.external;
        adj_rib_in.neighbor = neighbor;
        let mut changed = self.judge_again(peer);
        if moved {
            changed.extend(self.rank_again(peer));
            changed.sort_unstable();
            changed.dedup();
        }
        changed
    }

    /// Changes what is accepted from a peer; what it told us is judged again.
    pub fn set_filter(&mut self, peer: &str, import: ImportFilter) -> Vec<IpNet> {
        let Some(adj_rib_in) = self.peers.get_mut(peer) else { return Vec::new() };
        adj_rib_in.neighbor.import = import;
        self.judge_again(peer)
    }

    /// Forgets a peer and all that it told us.
    pub fn remove_peer(&mut self, peer: &str) -> Vec<IpNet> {
        let changed = self.peer_down(peer);
        self.peers.remove(peer);
        changed
    }

    /// Our own prefixes: the same from others is refused, whoever says it.
    pub fn set_own(&mut self, own: BTreeSet<IpNet>) -> Vec<IpNet> {
        let touched: Vec<IpNet> = self.own.symmetric_difference(&own).copied().collect();
        self.own = own;
        let mut changed = BTreeSet::new();
        let names: Vec<PeerName> = self.peers.keys().cloned().collect();
        for peer in names {
            changed.extend(self.with_peer(&peer, |adj_rib_in, context, changes| {
                for prefix in &touched {
                    adj_rib_in.judge_one(*prefix, context, changes);
                }
            }));
        }
        changed.into_iter().collect()
    }

    /// The session is established, with these families. What is kept of other families is dropped (RFC 4724 §4.2).
    pub fn peer_up(&mut self, peer: &str, router_id: RouterId, families: BTreeSet<Family>) -> Vec<IpNet> {
        let Some(adj_rib_in) = self.peers.get_mut(peer) else { return Vec::new() };
        let renamed = adj_rib_in.router_id != Some(router_id);
        adj_rib_in.router_id = Some(router_id);
        adj_rib_in.families = families.clone();
        let mut changed = Vec::new();
        for family in Family::ALL {
            if !families.contains(&family) {
                changed.extend(self.clear(peer, family));
            }
        }
        if renamed {
            changed.extend(self.rank_again(peer));
        }
        changed
    }

    /// The session is gone and nothing of it is kept.
    pub fn peer_down(&mut self, peer: &str) -> Vec<IpNet> {
        Family::ALL.into_iter().flat_map(|family| self.clear(peer, family)).collect()
    }

    /// Drops all that a peer told us of a family.
    pub fn clear(&mut self, peer: &str, family: Family) -> Vec<IpNet> {
        self.with_peer(peer, |adj_rib_in, _, changes| adj_rib_in.retain(family, |_| false, changes))
    }

    /// The session is gone and what the peer told us of a family is kept for now (RFC 4724 §4.2). What was kept
    /// already over an earlier restart is dropped.
    pub fn mark_stale(&mut self, peer: &str, family: Family) -> Vec<IpNet> {
        self.with_peer(peer, |adj_rib_in, _, changes| adj_rib_in.mark_stale(family, changes))
    }

    /// End-of-RIB has come, or the time is over: drops what the peer has not told us again (RFC 4724 §4.2).
    pub fn sweep_stale(&mut self, peer: &str, family: Family) -> Vec<IpNet> {
        self.with_peer(peer, |adj_rib_in, _, changes| {
            adj_rib_in.retain(family, |entry| !entry.stale, changes);
        })
    }

    /// Takes in what a peer says. Prefixes of families that the session does not have are passed over.
    ///
    /// # Errors
    ///
    /// If the peer now has more prefixes than it may. What came before the one too many has been taken in: the
    /// caller ends the session and calls [`Rib::peer_down`].
    pub fn update(&mut self, peer: &str, update: &Update) -> Result<Vec<IpNet>, PrefixLimitExceeded> {
        let attributes = update.attributes.as_ref().map(|attributes| self.interner.intern(attributes));
        let mut within_limit = true;
        let changed = self.with_peer(peer, |adj_rib_in, context, changes| {
            adj_rib_in.withdraw(&update.withdrawn, changes);
            if let Some(attributes) = &attributes {
                within_limit = adj_rib_in.announce(&update.reach, attributes, context, changes).is_ok();
            }
        });
        drop(attributes);
        self.interner.release(1);
        if within_limit {
            return Ok(changed);
        }
        let limit = self.peers.get(peer).map_or(0, |adj_rib_in| adj_rib_in.neighbor.max_prefixes);
        Err(PrefixLimitExceeded { limit, changed })
    }

    /// Accepted routes of all peers. A value: it does not change under the reader's hands.
    #[must_use]
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes)
    }

    /// What a peer told us, in numbers.
    #[must_use]
    pub fn inventory(&self, peer: &str) -> Inventory {
        self.peers.get(peer).map(AdjRibIn::inventory).unwrap_or_default()
    }

    /// Sets of attributes held: one for each that is in use, and a few that no longer are.
    #[must_use]
    pub fn attribute_sets(&self) -> usize {
        self.interner.len()
    }

    fn judge_again(&mut self, peer: &str) -> Vec<IpNet> {
        self.with_peer(peer, AdjRibIn::judge_all)
    }

    /// Orders the paths anew wherever the peer has one.
    fn rank_again(&mut self, peer: &str) -> Vec<IpNet> {
        let Self { peers, routes, .. } = self;
        let Some(adj_rib_in) = peers.get(peer) else { return Vec::new() };
        let accepted: Vec<IpNet> = adj_rib_in.accepted().collect();
        let mut changed = Vec::new();
        for prefix in accepted {
            let Some(before) = routes.routes.get(&prefix).filter(|paths| paths.len() > 1) else { continue };
            let mut after = before.clone();
            decision::rank(&mut after, |name| standing(peers, name));
            if after != *before {
                Arc::make_mut(routes).routes.insert(prefix, after);
                changed.push(prefix);
            }
        }
        changed
    }

    /// Lets `act` change one Adj-RIB-In and brings the Loc-RIB in line.
    fn with_peer(
        &mut self,
        peer: &str,
        act: impl FnOnce(&mut AdjRibIn, &Context<'_>, &mut Vec<Change>),
    ) -> Vec<IpNet> {
        let Self { asn, router_id, own, peers, routes, interner } = self;
        let mut changes = Vec::new();
        let Some(adj_rib_in) = peers.get_mut(peer) else { return Vec::new() };
        act(adj_rib_in, &Context { asn: *asn, router_id: *router_id, own }, &mut changes);
        let released = adj_rib_in.take_released();
        let changed = bring_in_line(peer, changes, peers, routes);
        interner.release(released);
        changed
    }
}

/// Takes the changes of one Adj-RIB-In over into the Loc-RIB.
fn bring_in_line(
    peer: &str,
    changes: Vec<Change>,
    peers: &BTreeMap<PeerName, AdjRibIn>,
    routes: &mut Arc<Routes>,
) -> Vec<IpNet> {
    if changes.is_empty() {
        return Vec::new();
    }
    let routes = &mut Arc::make_mut(routes).routes;
    let mut changed: Vec<IpNet> = Vec::with_capacity(changes.len());
    for Change { prefix, path } in changes {
        let paths = routes.entry(prefix).or_default();
        paths.retain(|known| known.peer != peer);
        if let Some(path) = path {
            paths.push(path.into_route(peer));
            decision::rank(paths, |name| standing(peers, name));
        }
        if paths.is_empty() {
            routes.remove(&prefix);
        }
        changed.push(prefix);
    }
    changed.sort_unstable();
    changed.dedup();
    changed
}

fn standing(peers: &BTreeMap<PeerName, AdjRibIn>, peer: &str) -> Standing {
    let adj_rib_in = peers.get(peer).expect("a path's peer has an Adj-RIB-In: they go together");
    Standing {
        external: adj_rib_in.neighbor.external,
        router_id: adj_rib_in.router_id,
        address: adj_rib_in.neighbor.address,
    }
}
