//! What must wait when some of the changes have failed: nothing is moved onto ground that is missing, and what still
//! carries something that is wanted is not removed. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::state::{
    FdbKey, LinkName, NeighborKey, Nexthop, NexthopId, Observed, RouteKey, RouteTarget, Rule, State,
};

use super::obstacles::Obstacles;
use super::{Change, Work, normal};

/// What stands of what is wanted, after changes of which some have failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ground<'a> {
    standing: &'a State,
    wanted: &'a State,
}

impl<'a> Ground<'a> {
    pub(crate) fn new(standing: &'a State, wanted: &'a State) -> Self {
        Self { standing, wanted }
    }

    /// Whether a change of a nexthop or a route can be made: it finds what it stands on, and breaks nothing that works.
    pub(crate) fn bears(&self, change: &Change) -> bool {
        match change {
            Change::SetNexthop(id, _) | Change::AddNexthop(id, _) | Change::DeleteNexthop(id) => {
                self.wanted.nexthops.get(id).is_none_or(|nexthop| self.carries(nexthop))
            }
            Change::AddRoute(key, _) | Change::SetRoute(key, _) => self.leads(key),
            // The first half of a replacement.
            Change::DeleteRoute(key) => !self.wanted.routes.contains_key(key) || self.leads(key),
            Change::AddLink(..)
            | Change::SetLink(..)
            | Change::DeleteLink(_)
            | Change::SetRpFilter(..)
            | Change::AddAddress(_)
            | Change::DeleteAddress(_)
            | Change::SetNeighbor(..)
            | Change::DeleteNeighbor(_)
            | Change::SetFdb(..)
            | Change::DeleteFdb(_)
            | Change::AddRule(_)
            | Change::DeleteRule(_)
            | Change::SetFirewall(_)
            | Change::ChangeSets(_)
            | Change::DeleteFirewall => true,
        }
    }

    /// Whether packets by a nexthop get into its tunnel, if it leads into one.
    fn carries(&self, nexthop: &Nexthop) -> bool {
        let (standing, wanted) = (self.standing, self.wanted);
        if !wanted.links.contains_key(&nexthop.link) {
            return true;
        }
        let neighbor = NeighborKey { link: nexthop.link.clone(), address: nexthop.gateway.address };
        let Some(mac) = wanted.neighbors.get(&neighbor) else {
            return standing.links.contains_key(&nexthop.link);
        };
        let fdb = FdbKey { link: nexthop.link.clone(), mac: *mac };
        standing.links.contains_key(&nexthop.link)
            && standing.neighbors.get(&neighbor) == Some(mac)
            && standing.fdb.get(&fdb) == wanted.fdb.get(&fdb)
    }

    /// Whether the nexthop of a route stands as it is wanted, and its source address.
    fn leads(&self, key: &RouteKey) -> bool {
        let (standing, wanted) = (self.standing, self.wanted);
        let Some(route) = wanted.routes.get(key) else { return true };
        let nexthop = match route.target {
            RouteTarget::Nexthop(id) => {
                let nexthop = wanted.nexthops.get(&id);
                standing.nexthops.get(&id) == nexthop && nexthop.is_none_or(|nexthop| self.carries(nexthop))
            }
            RouteTarget::Unreachable | RouteTarget::Other => true,
        };
        let has = |state: &State, ip| state.addresses.iter().any(|address| address.address.addr() == ip);
        nexthop && route.source.is_none_or(|source| !has(wanted, source) || has(standing, source))
    }
}

/// What still carries something that is wanted, in place of what could not be made.
#[derive(Debug, Default)]
pub(super) struct InUse {
    pub(super) rules: BTreeSet<Rule>,
    pub(super) routes: BTreeSet<RouteKey>,
    pub(super) nexthops: BTreeSet<NexthopId>,
    pub(super) links: BTreeSet<LinkName>,
    pub(super) neighbors: BTreeSet<NeighborKey>,
    pub(super) fdb: BTreeSet<FdbKey>,
    /// Source addresses.
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl InUse {
    fn of(standing: &State, wanted: &State) -> Self {
        let mut found = Self::default();
        let missing: BTreeSet<_> = wanted.rules.difference(&standing.rules).map(|rule| rule.from).collect();
        found.rules = standing.rules.iter().filter(|rule| missing.contains(&rule.from)).copied().collect();
        let tables: BTreeSet<u32> = found.rules.iter().map(|rule| rule.table).collect();
        for (key, now) in &standing.routes {
            let stands_in = match wanted.routes.get(key) {
                Some(wanted) => wanted != now,
                None => tables.contains(&key.table),
            };
            if !stands_in {
                continue;
            }
            found.routes.insert(*key);
            found.addresses.extend(now.source);
            if let RouteTarget::Nexthop(id) = now.target {
                found.nexthops.insert(id);
            }
        }
        for (id, now) in &standing.nexthops {
            if found.nexthops.contains(id) || wanted.nexthops.get(id).is_some_and(|wanted| wanted != now) {
                found.add_ground(standing, now);
            }
        }
        found
    }

    fn add_ground(&mut self, standing: &State, nexthop: &Nexthop) {
        let link = nexthop.link.clone();
        let neighbor = NeighborKey { link: link.clone(), address: nexthop.gateway.address };
        if let Some(mac) = standing.neighbors.get(&neighbor) {
            self.fdb.insert(FdbKey { link: link.clone(), mac: *mac });
            self.neighbors.insert(neighbor);
        }
        // Without an IPv4 address a device loses its IPv4 neighbours.
        let on_it = standing.addresses.iter().filter(|address| address.link == link);
        self.addresses.extend(on_it.map(|address| address.address.addr()).filter(IpAddr::is_ipv4).take(1));
        self.links.insert(link);
    }
}

/// What is to be removed where some of the changes before it have failed: `standing` is what they have left.
pub(crate) fn removals(observed: &Observed, standing: &State, wanted: &State) -> Vec<Change> {
    let wanted = normal(wanted);
    let obstacles = Obstacles::find(observed, &wanted);
    let now = std::borrow::Cow::Borrowed(standing);
    let mut work = Work { observed, wanted: &wanted, now, obstacles: &obstacles, changes: Vec::new() };
    work.remove(&InUse::of(standing, &wanted));
    work.changes
}
