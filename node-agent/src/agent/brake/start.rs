//! The brake of the first passes, which know no earlier snapshot: the kernel tells what was there.
//!
//! A peer is known again by the Ethernet address of its VTEP, which stands in our forwarding database for every peer
//! that a tunnel could reach, native ones too; one without is known by its gateway. What it has lost is told by the
//! routes to its blocks. If the first plan would take too much of that away, everything that was found of peers stays
//! beside what is wanted, with the devices that it stands on, until all of it is wanted again or the grace time is
//! over and the store answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::Brake as Limits;
use ipnet::IpNet;
use tokio::time::Instant;
use vxlan::{LinkName, Mac, NexthopId, RouteTarget, State};

use super::too_many;

/// What the brake of the first passes does.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::agent) enum StartBrake {
    /// No plan has been looked at yet.
    #[default]
    Armed,
    /// The first was too bad to be believed.
    Holding {
        /// When it is believed at the earliest.
        until: Instant,
    },
    /// A plan has been believed; the brake of the snapshots has taken over.
    Off,
}

/// A plan behind the brake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) struct Started {
    /// What the kernel should hold.
    pub state: Arc<State>,
    /// While the brake holds.
    pub held: Option<Held>,
}

/// What the brake holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) struct Held {
    /// Peers that the plan lacks, wholly or in part.
    pub gone: usize,
    /// Peers that the kernel knows.
    pub all: usize,
    /// When to look again at the latest; `None`: only the store's answer is waited for.
    pub until: Option<Instant>,
}

impl StartBrake {
    /// What to believe of a plan at this time. `pools`: blocks lie in them. `answering`: the store is well.
    pub(in crate::agent) fn pass(
        &mut self,
        limits: &Limits,
        pools: &[IpNet],
        wanted: &Arc<State>,
        found: &State,
        now: Instant,
        answering: bool,
    ) -> Started {
        let (gone, all) = match self {
            Self::Off => (0, 0),
            Self::Armed | Self::Holding { .. } => losses(pools, wanted, found),
        };
        let until = match *self {
            // Once it holds, it holds all that is not back yet.
            Self::Holding { until } if gone > 0 && (now < until || !answering) => until,
            // All of them is too much at any number: a peer alone is more likely forgotten than gone.
            Self::Armed
                if too_many(limits.share, limits.at_least, gone, all)
                    || (gone == all && too_many(limits.share, 1, gone, all)) =>
            {
                now + limits.grace
            }
            Self::Armed | Self::Holding { .. } | Self::Off => {
                *self = Self::Off;
                return Started { state: Arc::clone(wanted), held: None };
            }
        };
        *self = Self::Holding { until };
        let until = Some(until).filter(|until| *until > now);
        Started { state: Arc::new(keep(wanted, found)), held: Some(Held { gone, all, until }) }
    }
}

/// A peer as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    /// By the Ethernet address of its VTEP.
    Vtep(Mac),
    /// By its gateway, where it has no VTEP.
    Gateway(IpAddr),
}

/// How many of the peers that were found a plan lacks, wholly or in part, and how many were found.
fn losses(pools: &[IpNet], wanted: &State, found: &State) -> (usize, usize) {
    let before = peers(pools, found);
    if before.is_empty() {
        return (0, 0);
    }
    let after = peers(pools, wanted);
    let of_family = |blocks: &BTreeSet<IpNet>, ipv4: bool| -> BTreeSet<IpNet> {
        blocks.iter().copied().filter(|block| block.addr().is_ipv4() == ipv4).collect()
    };
    let lost = |peer: &Peer, blocks: &BTreeSet<IpNet>| {
        let Some(now) = after.get(peer) else { return true };
        [true, false].into_iter().any(|ipv4| {
            let (blocks, now) = (of_family(blocks, ipv4), of_family(now, ipv4));
            // With as many blocks as before it has others now.
            now.len() < blocks.len() && !blocks.is_subset(&now)
        })
    };
    (before.iter().filter(|(peer, blocks)| lost(peer, blocks)).count(), before.len())
}

/// The peers of a state, each with the blocks that are routed to it.
fn peers(pools: &[IpNet], state: &State) -> BTreeMap<Peer, BTreeSet<IpNet>> {
    let vteps = Vteps::of(state);
    let mut peers: BTreeMap<Peer, BTreeSet<IpNet>> =
        state.fdb.keys().map(|key| (Peer::Vtep(key.mac), BTreeSet::new())).collect();
    for (key, route) in &state.routes {
        let RouteTarget::Nexthop(id) = route.target else { continue };
        // What lies in no pool is a node's own address, or comes from a speaker outside of the cluster.
        if !pools.iter().any(|pool| pool.contains(&key.prefix)) {
            continue;
        }
        if let Some(peer) = vteps.peer(state, id) {
            peers.entry(peer).or_default().insert(key.prefix);
        }
    }
    peers
}

/// Who is behind a gateway.
struct Vteps {
    /// By neighbour on a tunnel device.
    inner: BTreeMap<(LinkName, IpAddr), Mac>,
    /// By underlay address.
    outer: BTreeMap<IpAddr, Mac>,
}

impl Vteps {
    fn of(state: &State) -> Self {
        Self {
            inner: state.neighbors.iter().map(|(key, mac)| ((key.link.clone(), key.address), *mac)).collect(),
            outer: state.fdb.iter().map(|(key, remote)| (*remote, key.mac)).collect(),
        }
    }

    fn peer(&self, state: &State, id: NexthopId) -> Option<Peer> {
        let nexthop = state.nexthops.get(&id)?;
        let gateway = nexthop.gateway.address;
        // IPv6 in IPv4 has the peer's IPv4 address in the gateway.
        let within = match gateway {
            IpAddr::V6(ip) => ip.to_ipv4().map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        let inner = self.inner.get(&(nexthop.link.clone(), gateway));
        let vtep = inner.or_else(|| self.outer.get(&within.unwrap_or(gateway))).copied();
        Some(vtep.map_or(Peer::Gateway(gateway), Peer::Vtep))
    }
}

/// What is wanted, with what is found beside it; where they differ, what is wanted.
fn keep(wanted: &State, found: &State) -> State {
    let mut state = wanted.clone();
    for (name, link) in &found.links {
        // Two devices can't share what is the id of one of them: the one that is wanted has it.
        if !state.links.contains_key(name) && state.links.values().all(|other| other.id() != link.id()) {
            state.links.insert(name.clone(), link.clone());
            let on_it = found.addresses.iter().filter(|address| address.link == *name);
            state.addresses.extend(on_it.cloned());
            if let Some(value) = found.rp_filter.get(name) {
                state.rp_filter.insert(name.clone(), *value);
            }
        }
    }
    let stands =
        |state: &State, link: &LinkName| !found.links.contains_key(link) || state.links.contains_key(link);
    for (key, mac) in &found.neighbors {
        if stands(&state, &key.link) {
            state.neighbors.entry(key.clone()).or_insert(*mac);
        }
    }
    for (key, remote) in &found.fdb {
        if stands(&state, &key.link) {
            state.fdb.entry(key.clone()).or_insert(*remote);
        }
    }
    for (id, nexthop) in &found.nexthops {
        if stands(&state, &nexthop.link) {
            state.nexthops.entry(*id).or_insert_with(|| nexthop.clone());
        }
    }
    let (before, after) = (Vteps::of(found), Vteps::of(&state));
    for (key, route) in &found.routes {
        let RouteTarget::Nexthop(id) = route.target else { continue };
        // An id may be another peer's by now.
        let same = before.peer(found, id).is_some_and(|peer| after.peer(&state, id) == Some(peer));
        if same && !state.routes.contains_key(key) {
            state.routes.insert(*key, route.clone());
        }
    }
    keep_nodes(&mut state, found);
    state
}

/// Nodes that are kept are not masqueraded to, and the guard knows them.
fn keep_nodes(state: &mut State, found: &State) {
    let (Some(wanted), Some(found)) = (&mut state.firewall, &found.firewall) else { return };
    for (name, set) in &mut wanted.sets {
        if let Some(found) = found.sets.get(name).filter(|found| found.key == set.key) {
            set.elements.extend(&found.elements);
        }
    }
}

#[cfg(test)]
mod tests;
