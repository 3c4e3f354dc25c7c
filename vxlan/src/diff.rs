//! From observed and wanted state to an ordered list of changes; pure.
//!
//! What is added goes in the order in which the kernel lets things lean on each other: devices, their settings,
//! addresses, neighbours, FDB entries, the firewall, nexthops, routes, rules. What goes, goes in reverse and after everything
//! that is added, so that a path is made before the old one is broken. Two things go early because they can't
//! stand beside their successors: a device that can't be changed into the wanted one (VNI, port, underlay family, kind),
//! and one of ours whose identity (VNI and port, local address of an IP tunnel) another name needs.
//!
//! The kernel takes things along by itself (see `effects`): the diff plays that on a copy of what was observed and
//! puts back what is wanted.

mod beside;
mod detours;
mod faults;
mod obstacles;
mod text;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;

use crate::effects;
use crate::firewall::Table;
use crate::standing::local_elsewhere;
use crate::state::{
    Address, ELSEWHERE, FdbKey, LinkName, Mac, NeighborKey, Nexthop, NexthopId, Observed, Route, RouteKey,
    RouteTarget, Rule, State, TunnelLink,
};
use beside::beside;
use faults::InUse;
pub(crate) use faults::{Ground, removals};
use obstacles::Obstacles;

/// One change of one kernel object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Create a device (with alias, `nolearning`, `addrgenmode none`, `accept_ra` 0, MTU, MAC, up).
    AddLink(LinkName, TunnelLink),
    /// Change MAC, MTU, local address, underlay device, bent settings or the up state of a living device.
    SetLink(LinkName, TunnelLink),
    /// Delete a device, and with it all that hangs on it.
    DeleteLink(LinkName),
    /// Set `rp_filter` of a device (`IFLA_INET_CONF`).
    SetRpFilter(LinkName, u8),
    /// Add an address.
    AddAddress(Address),
    /// Delete an address.
    DeleteAddress(Address),
    /// Add or replace a permanent neighbour.
    SetNeighbor(NeighborKey, Mac),
    /// Delete a neighbour.
    DeleteNeighbor(NeighborKey),
    /// Add or replace a forwarding database entry.
    SetFdb(FdbKey, IpAddr),
    /// Delete a forwarding database entry.
    DeleteFdb(FdbKey),
    /// Create a nexthop object (`NLM_F_CREATE | NLM_F_EXCL`).
    AddNexthop(NexthopId, Nexthop),
    /// Point a nexthop object of ours elsewhere: moves all its routes in one message.
    SetNexthop(NexthopId, Nexthop),
    /// Delete a nexthop object; the kernel deletes its routes with it, without a notification for each.
    DeleteNexthop(NexthopId),
    /// Create a route (`NLM_F_CREATE | NLM_F_EXCL`).
    AddRoute(RouteKey, Route),
    /// Replace a route of ours.
    SetRoute(RouteKey, Route),
    /// Delete a route.
    DeleteRoute(RouteKey),
    /// Add a policy rule.
    AddRule(Rule),
    /// Delete a policy rule.
    DeleteRule(Rule),
    /// Write our nftables table, in one transaction in which the old one goes.
    SetFirewall(Table),
    /// Change elements of our table's sets, in one transaction.
    ChangeSets(Vec<SetChange>),
    /// Delete our nftables table.
    DeleteFirewall,
}

impl Change {
    /// The device that it is made on, or leads to.
    #[must_use]
    pub fn link(&self) -> Option<&LinkName> {
        match self {
            Self::AddLink(link, _) | Self::SetLink(link, _) | Self::DeleteLink(link) => Some(link),
            Self::SetRpFilter(link, _) => Some(link),
            Self::AddAddress(address) | Self::DeleteAddress(address) => Some(&address.link),
            Self::SetNeighbor(key, _) | Self::DeleteNeighbor(key) => Some(&key.link),
            Self::SetFdb(key, _) | Self::DeleteFdb(key) => Some(&key.link),
            Self::AddNexthop(_, nexthop) | Self::SetNexthop(_, nexthop) => Some(&nexthop.link),
            Self::DeleteNexthop(_)
            | Self::AddRoute(..)
            | Self::SetRoute(..)
            | Self::DeleteRoute(_)
            | Self::AddRule(_)
            | Self::DeleteRule(_)
            | Self::SetFirewall(_)
            | Self::ChangeSets(_)
            | Self::DeleteFirewall => None,
        }
    }
}

/// What becomes of a set of our nftables table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetChange {
    /// Its name.
    pub set: String,
    /// Addresses to add.
    pub add: BTreeSet<IpAddr>,
    /// Addresses to remove.
    pub remove: BTreeSet<IpAddr>,
}

/// Something of somebody else's that stands where we want something of ours. Reported, never replaced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// What of ours could not be: `route 10.244.7.0/24`, `device pairway-vx4`.
    pub wanted: String,
    /// What is in the way and whose it looks: `route 10.244.7.0/24 via 192.0.2.9 dev eth0 proto bird`.
    pub found: String,
    /// What to do about it.
    pub hint: String,
}

/// What to do, in order, and what stands in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Changes in the order in which they must be applied.
    pub changes: Vec<Change>,
    /// Foreign objects in our way; what they block is not among the changes.
    pub conflicts: Vec<Conflict>,
    /// Wanted routes whose packets go elsewhere, all or some of them, though the kernel may hold the route: what of
    /// others leads them there, as a sentence.
    pub diverted: BTreeMap<RouteKey, String>,
    /// Where in `changes` nexthops, routes and removals begin.
    stages: [usize; 3],
}

impl Diff {
    /// The stages of `changes`, each of which stands on those before: what nexthops lean on, nexthops, routes and rules,
    /// removals.
    pub(crate) fn stages(&self) -> [Range<usize>; 4] {
        let [nexthops, routes, removals] = self.stages;
        [0..nexthops, nexthops..routes, routes..removals, removals..self.changes.len()]
    }
}

/// Keys as the kernel will show them.
pub(crate) fn normal(wanted: &State) -> Cow<'_, State> {
    let normal = wanted.routes.keys().all(RouteKey::is_normalised);
    if normal { Cow::Borrowed(wanted) } else { Cow::Owned(wanted.clone().normalised()) }
}

/// The changes that turn `observed.ours` into `wanted`.
///
/// Order: devices, device settings, addresses, neighbours, FDB, firewall, nexthops, routes, rules; what goes, goes in
/// reverse. A route whose MTU shrinks is written before its nexthop moves, one whose MTU grows after, so that no
/// packet that fits the smaller MTU meets the wrong one. `diff(x, x)` is empty.
#[must_use]
pub fn diff(observed: &Observed, wanted: &State) -> Diff {
    diff_of_normal(observed, &normal(wanted))
}

/// The same for a state with keys as the kernel will show them.
pub(crate) fn diff_of_normal(observed: &Observed, wanted: &State) -> Diff {
    let obstacles = Obstacles::find(observed, wanted);
    let mut work = Work {
        observed,
        wanted,
        now: Cow::Borrowed(&observed.ours),
        obstacles: &obstacles,
        changes: Vec::new(),
    };
    work.replace_links();
    work.set_links();
    work.set_rp_filter();
    work.add_addresses();
    work.set_neighbors();
    work.set_firewall();
    work.shrink_routes();
    let nexthops = work.changes.len();
    work.set_nexthops();
    let routes = work.changes.len();
    work.set_routes();
    work.set_rules();
    let removals = work.changes.len();
    work.remove(&InUse::default());
    let changes = work.changes;
    let stages = [nexthops, routes, removals];
    Diff { changes, conflicts: obstacles.conflicts, diverted: obstacles.diverted, stages }
}

/// The diff in the making: `now` is what the kernel will hold after `changes`, as far as side effects matter.
struct Work<'a> {
    observed: &'a Observed,
    wanted: &'a State,
    now: Cow<'a, State>,
    obstacles: &'a Obstacles,
    changes: Vec<Change>,
}

impl Work<'_> {
    /// Deletes devices that can't stand beside what is wanted, then creates the missing ones.
    fn replace_links(&mut self) {
        let wanted = self.wanted;
        let (mut missing, mut claimed) = (Vec::new(), BTreeSet::new());
        for (name, link) in &wanted.links {
            if self.obstacles.link(name) {
                continue;
            }
            let now = self.now.links.get(name);
            if now.is_none_or(|now| !now.can_become(link)) {
                missing.push((name, link));
            }
            if now.is_none_or(|now| now.id() != link.id()) {
                claimed.insert(link.id());
            }
        }
        let doomed: BTreeSet<LinkName> = self
            .now
            .links
            .iter()
            .filter(|(name, now)| {
                let replaced = wanted.links.get(*name).is_some_and(|link| !now.can_become(link));
                let unwanted = !wanted.links.contains_key(*name);
                !self.obstacles.link(name) && (replaced || unwanted && claimed.contains(&now.id()))
            })
            .map(|(name, _)| name.clone())
            .collect();
        if !doomed.is_empty() {
            self.leave_links(&doomed);
        }
        for name in doomed {
            let observed = self.observed;
            effects::link_deleted(self.now.to_mut(), &name, &|ip| local_elsewhere(observed, ip));
            self.changes.push(Change::DeleteLink(name));
        }
        for (name, link) in missing {
            self.now.to_mut().links.insert(name.clone(), link.clone());
            self.changes.push(Change::AddLink(name.clone(), link.clone()));
        }
    }

    /// Moves nexthops that are to leave a doomed device for a device of others now, so that their routes survive.
    fn leave_links(&mut self, doomed: &BTreeSet<LinkName>) {
        let wanted = self.wanted;
        let moving: Vec<(NexthopId, &Nexthop)> = wanted
            .nexthops
            .iter()
            .filter(|(id, nexthop)| {
                let usable = self.observed.interfaces.get(&nexthop.link).is_some_and(|i| i.up && i.carrier);
                let stays = !wanted.links.contains_key(&nexthop.link) && !doomed.contains(&nexthop.link);
                let leaves = self.now.nexthops.get(id).is_some_and(|now| doomed.contains(&now.link));
                usable && stays && leaves && !self.obstacles.nexthop(**id)
            })
            .map(|(id, nexthop)| (*id, nexthop))
            .collect();
        let ids: BTreeSet<NexthopId> = moving.iter().map(|(id, _)| *id).collect();
        // Their new source address may not be there yet.
        self.write_shrunk(|id| ids.contains(&id), |now, wanted| Route { mtu: wanted.mtu, ..now.clone() });
        for (id, nexthop) in moving {
            if self.carries_ipv6_into_ipv4(id, nexthop) {
                continue;
            }
            self.now.to_mut().nexthops.insert(id, nexthop.clone());
            self.changes.push(Change::SetNexthop(id, nexthop.clone()));
        }
    }

    /// Brings living devices to their wanted settings.
    fn set_links(&mut self) {
        for (name, link) in &self.wanted.links {
            let Some(now) = self.now.links.get(name) else { continue };
            if self.obstacles.link(name) || now == link {
                continue;
            }
            let state = self.now.to_mut();
            if let Some(now) = state.links.insert(name.clone(), link.clone()) {
                effects::link_set(state, name, &now, link);
            }
            self.changes.push(Change::SetLink(name.clone(), link.clone()));
        }
    }

    fn set_rp_filter(&mut self) {
        for (name, value) in &self.wanted.rp_filter {
            let exists = self.now.links.contains_key(name) || self.observed.interfaces.contains_key(name);
            if exists && !self.obstacles.link(name) && self.now.rp_filter.get(name) != Some(value) {
                self.changes.push(Change::SetRpFilter(name.clone(), *value));
            }
        }
    }

    fn add_addresses(&mut self) {
        for address in &self.wanted.addresses {
            if !self.obstacles.link(&address.link) && !self.now.addresses.contains(address) {
                self.changes.push(Change::AddAddress(address.clone()));
            }
        }
    }

    fn set_neighbors(&mut self) {
        for (key, mac, now) in beside(&self.wanted.neighbors, &self.now.neighbors) {
            if now != Some(mac) && !self.obstacles.link(&key.link) {
                self.changes.push(Change::SetNeighbor(key.clone(), *mac));
            }
        }
        for (key, remote, now) in beside(&self.wanted.fdb, &self.now.fdb) {
            if now != Some(remote) && !self.obstacles.link(&key.link) {
                // Over a nexthop object the kernel takes a replace, and leaves it as it is.
                if now == Some(&ELSEWHERE) {
                    self.changes.push(Change::DeleteFdb(key.clone()));
                }
                self.changes.push(Change::SetFdb(key.clone(), *remote));
            }
        }
    }

    /// Writes our table, where more than its sets differs. In a kernel without nf_tables there is nothing to do: that
    /// it is missing is seen in what was observed.
    fn set_firewall(&mut self) {
        let netfilter = &self.observed.netfilter;
        if netfilter.unavailable.is_some() || netfilter.foreign_table {
            return;
        }
        let change = match (&self.now.firewall, &self.wanted.firewall) {
            (None, None) => None,
            (Some(_), None) => Some(Change::DeleteFirewall),
            (Some(now), Some(wanted)) if now == wanted => None,
            (Some(now), Some(wanted)) if now.same_but_elements(wanted) => {
                Some(Change::ChangeSets(set_changes(now, wanted)))
            }
            (_, Some(wanted)) => Some(Change::SetFirewall(wanted.clone())),
        };
        self.changes.extend(change);
    }

    /// Writes routes whose MTU shrinks while their nexthop object stays the same, before that object moves.
    fn shrink_routes(&mut self) {
        self.write_shrunk(|_| true, |_, wanted| wanted.clone());
    }

    fn write_shrunk(&mut self, of: impl Fn(NexthopId) -> bool, form: impl Fn(&Route, &Route) -> Route) {
        let mut shrunk = Vec::new();
        for (key, now, wanted) in beside(&self.now.routes, &self.wanted.routes) {
            let Some(route) = wanted else { continue };
            let RouteTarget::Nexthop(id) = route.target else { continue };
            if now.target == route.target && shrinks(now, route) && of(id) && !self.obstacles.route(key) {
                shrunk.push((*key, form(now, route)));
            }
        }
        if !shrunk.is_empty() {
            let state = self.now.to_mut();
            for (key, route) in shrunk {
                state.routes.insert(key, route.clone());
                self.changes.push(Change::SetRoute(key, route));
            }
        }
    }

    fn set_nexthops(&mut self) {
        for (id, nexthop) in &self.wanted.nexthops {
            if self.obstacles.nexthop(*id) {
                continue;
            }
            match self.now.nexthops.get(id) {
                Some(now) if now == nexthop => {}
                Some(_) if self.carries_ipv6_into_ipv4(*id, nexthop) => {
                    effects::nexthop_deleted(self.now.to_mut(), *id);
                    self.changes.push(Change::DeleteNexthop(*id));
                    self.changes.push(Change::AddNexthop(*id, nexthop.clone()));
                }
                Some(_) => self.changes.push(Change::SetNexthop(*id, nexthop.clone())),
                None => self.changes.push(Change::AddNexthop(*id, nexthop.clone())),
            }
        }
    }

    /// Whether the kernel refuses to move an object because IPv6 routes, which can't use an IPv4 gateway, use it.
    fn carries_ipv6_into_ipv4(&self, id: NexthopId, nexthop: &Nexthop) -> bool {
        nexthop.gateway.address.is_ipv4()
            && self.now.nexthops.get(&id).is_some_and(|now| now.gateway.address.is_ipv6())
            && self
                .now
                .routes
                .iter()
                .any(|(key, route)| key.prefix.addr().is_ipv6() && route.target == RouteTarget::Nexthop(id))
    }

    fn set_routes(&mut self) {
        for (key, route, now) in beside(&self.wanted.routes, &self.now.routes) {
            if now == Some(route) || self.obstacles.route(key) {
                continue;
            }
            match now {
                // A replace of a route of several paths may leave some of them: delete all.
                Some(Route { target: RouteTarget::Other, .. }) => {
                    self.changes.push(Change::DeleteRoute(*key));
                    self.changes.push(Change::AddRoute(*key, route.clone()));
                }
                Some(_) => self.changes.push(Change::SetRoute(*key, route.clone())),
                None => self.changes.push(Change::AddRoute(*key, route.clone())),
            }
        }
    }

    fn set_rules(&mut self) {
        let added = self.wanted.rules.difference(&self.now.rules).map(|rule| Change::AddRule(*rule));
        self.changes.extend(added);
    }

    /// Removes what is not wanted, in reverse order.
    fn remove(&mut self, in_use: &InUse) {
        let (wanted, obstacles) = (self.wanted, self.obstacles);
        let gone = self.now.rules.difference(&wanted.rules).filter(|rule| !in_use.rules.contains(rule));
        self.changes.extend(gone.map(|rule| Change::DeleteRule(*rule)));
        let now = &self.now;
        let gone = beside(&now.routes, &wanted.routes)
            .filter(|(key, _, wanted)| wanted.is_none() && !in_use.routes.contains(key));
        self.changes.extend(gone.map(|(key, ..)| Change::DeleteRoute(*key)));

        // What stands in for something that is blocked stays until the way is free.
        let held: BTreeSet<NexthopId> = now
            .routes
            .iter()
            .filter(|(key, _)| obstacles.route(key) && wanted.routes.contains_key(key))
            .filter_map(|(_, route)| match route.target {
                RouteTarget::Nexthop(id) => Some(id),
                RouteTarget::Unreachable | RouteTarget::Other => None,
            })
            .filter(|id| !wanted.nexthops.contains_key(id) || obstacles.nexthop(*id))
            .collect();
        let gone = now.nexthops.keys().filter(|id| {
            !wanted.nexthops.contains_key(id) && !held.contains(id) && !in_use.nexthops.contains(id)
        });
        self.changes.extend(gone.map(|id| Change::DeleteNexthop(*id)));

        // What hangs on a device that goes, goes with it.
        let held_links: BTreeSet<&LinkName> =
            held.iter().filter_map(|id| now.nexthops.get(id)).map(|nexthop| &nexthop.link).collect();
        let stays = |link: &LinkName| {
            wanted.links.contains_key(link) || held_links.contains(link) || in_use.links.contains(link)
        };
        let cleaned = |link: &LinkName| stays(link) && !obstacles.link(link) && !held_links.contains(link);
        let gone = beside(&now.fdb, &wanted.fdb).filter(|(_, _, wanted)| wanted.is_none());
        let gone = gone.filter(|(key, ..)| cleaned(&key.link) && !in_use.fdb.contains(key));
        self.changes.extend(gone.map(|(key, ..)| Change::DeleteFdb(key.clone())));
        let gone = beside(&now.neighbors, &wanted.neighbors).filter(|(_, _, wanted)| wanted.is_none());
        let gone = gone.filter(|(key, ..)| cleaned(&key.link) && !in_use.neighbors.contains(key));
        self.changes.extend(gone.map(|(key, ..)| Change::DeleteNeighbor(key.clone())));
        let gone = now.addresses.iter().filter(|a| {
            cleaned(&a.link) && !wanted.addresses.contains(a) && !in_use.addresses.contains(&a.address.addr())
        });
        let gone: Vec<Address> = gone.cloned().collect();
        self.changes.extend(gone.iter().cloned().map(Change::DeleteAddress));
        // With its last IPv4 address a device loses its IPv4 neighbours.
        let ipv4 = |a: &&Address| a.address.addr().is_ipv4();
        let bared: BTreeSet<&LinkName> = gone.iter().filter(ipv4).map(|a| &a.link).collect();
        let bared = |link: &LinkName| {
            bared.contains(link) && !wanted.addresses.iter().filter(ipv4).any(|a| a.link == *link)
        };
        let lost = wanted.neighbors.iter().filter(|(key, _)| key.address.is_ipv4() && bared(&key.link));
        self.changes.extend(lost.map(|(key, mac)| Change::SetNeighbor(key.clone(), *mac)));
        let gone = now.links.keys().filter(|link| !stays(link) && !obstacles.link(link));
        self.changes.extend(gone.map(|link| Change::DeleteLink(link.clone())));
    }
}

/// What of the sets' elements differs.
fn set_changes(now: &Table, wanted: &Table) -> Vec<SetChange> {
    let pairs = wanted.sets.iter().filter_map(|(name, set)| Some((name, set, now.sets.get(name)?)));
    pairs
        .filter(|(_, wanted, now)| wanted != now)
        .map(|(name, wanted, now)| SetChange {
            set: name.clone(),
            add: wanted.elements.difference(&now.elements).copied().collect(),
            remove: now.elements.difference(&wanted.elements).copied().collect(),
        })
        .collect()
}

/// Whether a route's MTU becomes smaller; no MTU is the device's, which is never smaller.
fn shrinks(now: &Route, wanted: &Route) -> bool {
    match (now.mtu, wanted.mtu) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(now), Some(wanted)) => wanted < now,
    }
}

#[cfg(test)]
mod tests;
