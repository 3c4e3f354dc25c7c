//! What of ours somebody else has undone: counted, said, and backed off from where it happens again and again.
//!
//! A change is a repair if its object was wanted before as it is wanted now, stood so after the last pass, and was found
//! otherwise. What
//! goes with a device that we have changed ourselves is none. An object that is undone [`MANY`] times within
//! [`WITHIN`], a [`BURST`] counted once, has an opponent: from then on it alone is put back ever more seldom, down to once per audit, and the
//! rest goes on. Pure; objects that stand on one that is left alone are left alone with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vxlan::firewall::Table;
use vxlan::{
    Address, Change, FdbKey, LinkName, NeighborKey, NexthopId, Observed, Report, RouteKey, RouteTarget, Rule,
    State,
};

use crate::plan::Finding;

/// So many times...
const MANY: usize = 5;
/// ... within this time are no accident.
const WITHIN: Duration = Duration::from_secs(60);
/// What is undone again within this time is one event: `ip neigh flush` goes round until it finds nothing more, and meets
/// what was put back meanwhile.
pub(super) const BURST: Duration = Duration::from_millis(250);
/// The first pause; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// No more fights than this are listed one by one, nor more repairs of one pass logged.
const LISTED: usize = 10;

/// One object in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    Link(LinkName),
    RpFilter(LinkName),
    Address(Address),
    Neighbor(NeighborKey),
    Fdb(FdbKey),
    Nexthop(NexthopId),
    Route(RouteKey),
    Rule(Rule),
    /// The nftables table, as a whole.
    Firewall,
}

impl Object {
    /// The object of a change.
    pub(super) fn of(change: &Change) -> Self {
        match change {
            Change::AddLink(name, _) | Change::SetLink(name, _) | Change::DeleteLink(name) => {
                Self::Link(name.clone())
            }
            Change::SetRpFilter(name, _) => Self::RpFilter(name.clone()),
            Change::AddAddress(address) | Change::DeleteAddress(address) => Self::Address(address.clone()),
            Change::SetNeighbor(key, _) | Change::DeleteNeighbor(key) => Self::Neighbor(key.clone()),
            Change::SetFdb(key, _) | Change::DeleteFdb(key) => Self::Fdb(key.clone()),
            Change::AddNexthop(id, _) | Change::SetNexthop(id, _) | Change::DeleteNexthop(id) => {
                Self::Nexthop(*id)
            }
            Change::AddRoute(key, _) | Change::SetRoute(key, _) | Change::DeleteRoute(key) => {
                Self::Route(*key)
            }
            Change::AddRule(rule) | Change::DeleteRule(rule) => Self::Rule(*rule),
            Change::SetFirewall(_) | Change::ChangeSets(_) | Change::DeleteFirewall => Self::Firewall,
        }
    }

    /// Whether two states hold the same of it.
    pub(super) fn same(&self, one: &State, other: &State) -> bool {
        match self {
            Self::Link(name) => one.links.get(name) == other.links.get(name),
            Self::RpFilter(name) => one.rp_filter.get(name) == other.rp_filter.get(name),
            Self::Address(address) => one.addresses.contains(address) == other.addresses.contains(address),
            Self::Neighbor(key) => one.neighbors.get(key) == other.neighbors.get(key),
            Self::Fdb(key) => one.fdb.get(key) == other.fdb.get(key),
            Self::Nexthop(id) => one.nexthops.get(id) == other.nexthops.get(id),
            Self::Route(key) => one.routes.get(key) == other.routes.get(key),
            Self::Rule(rule) => one.rules.contains(rule) == other.rules.contains(rule),
            Self::Firewall => one.firewall == other.firewall,
        }
    }

    /// Whether two plans want the same of it. The nodes in the sets of the nftables table come and go all the time: who is
    /// in them is no other wish.
    fn as_wanted(&self, one: &State, other: &State) -> bool {
        match (self, &one.firewall, &other.firewall) {
            (Self::Firewall, Some(one), Some(other)) => {
                let keys = |table: &Table| -> Vec<_> {
                    table.sets.iter().map(|(name, set)| (name.clone(), set.key)).collect()
                };
                one.chains == other.chains && keys(one) == keys(other)
            }
            _ => self.same(one, other),
        }
    }

    /// A state that holds this object as another one has it, and nothing else.
    fn alone(&self, state: &State) -> State {
        let mut alone = State::default();
        leave(&mut alone, state, self);
        alone
    }

    /// The device that it goes with.
    fn link<'a>(&'a self, state: &'a State) -> Option<&'a LinkName> {
        let of_nexthop = |id: &NexthopId| state.nexthops.get(id).map(|nexthop| &nexthop.link);
        match self {
            Self::Link(_) | Self::Rule(_) | Self::Firewall => None,
            Self::RpFilter(name) => Some(name),
            Self::Address(address) => Some(&address.link),
            Self::Neighbor(key) => Some(&key.link),
            Self::Fdb(key) => Some(&key.link),
            Self::Nexthop(id) => of_nexthop(id),
            Self::Route(key) => match &state.routes.get(key)?.target {
                RouteTarget::Nexthop(id) => of_nexthop(id),
                RouteTarget::Unreachable | RouteTarget::Other => None,
            },
        }
    }

    /// What shows who does it, as far as the kernel tells.
    fn hint(&self, observed: &Observed) -> String {
        match self {
            Self::Route(key) => {
                let rival = observed
                    .foreign_routes
                    .iter()
                    .find(|route| (route.key.table, route.key.prefix) == (key.table, key.prefix));
                match rival {
                    Some(rival) => {
                        format!("beside it stands {rival}: look for the program that makes that one")
                    }
                    None => {
                        "`ip monitor route` shows when; look for another routing daemon or network plugin"
                            .to_owned()
                    }
                }
            }
            Self::Nexthop(_) => "`ip monitor nexthop` shows when; look for another routing daemon".to_owned(),
            Self::Neighbor(_) => "`ip monitor neigh` shows when".to_owned(),
            Self::Fdb(_) => "`bridge monitor fdb` shows when; look for another VXLAN manager".to_owned(),
            Self::Rule(_) => {
                "`ip monitor rule` shows when; look for another network plugin or VPN".to_owned()
            }
            Self::Firewall => {
                "`nft monitor` shows when; look for a firewall that flushes the whole ruleset when it is loaded".to_owned()
            }
            Self::RpFilter(name) => format!(
                "look for what sets net.ipv4.conf.{name}.rp_filter: sysctl.d, a network manager, a security agent"
            ),
            Self::Link(name) => format!(
                "`ip monitor link dev {name}` shows when; take the device out of the hands of NetworkManager or systemd-networkd"
            ),
            Self::Address(address) => format!(
                "`ip monitor address` shows when; take {} out of the hands of NetworkManager or systemd-networkd",
                address.link
            ),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name) => write!(f, "device {name}"),
            Self::RpFilter(name) => write!(f, "rp_filter of {name}"),
            Self::Address(Address { link, address }) => write!(f, "address {address} dev {link}"),
            Self::Neighbor(NeighborKey { link, address }) => write!(f, "neighbour {address} dev {link}"),
            Self::Fdb(FdbKey { link, mac }) => write!(f, "forwarding entry {mac} dev {link}"),
            Self::Nexthop(id) => write!(f, "nexthop {}", id.0),
            Self::Route(key) => write!(f, "route {} table {} metric {}", key.prefix, key.table, key.metric),
            Self::Rule(rule) => {
                write!(f, "rule {} from {} table {}", rule.priority, rule.from, rule.table)
            }
            Self::Firewall => f.write_str("the nftables table"),
        }
    }
}

/// What has been repaired.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// When objects were undone, the latest last.
    undone: BTreeMap<Object, VecDeque<Instant>>,
    fights: BTreeMap<Object, Fight>,
    /// Devices that the last pass changed itself.
    touched: BTreeSet<LinkName>,
}

/// Somebody undoes an object again and again.
#[derive(Debug)]
struct Fight {
    times: u64,
    /// The last time that it was undone.
    last: Instant,
    wait: Duration,
    /// The object as it was wanted then. Where something else is wanted now, that is done at once.
    wanted: State,
}

impl Fight {
    /// When the object is put back.
    fn next(&self) -> Instant {
        self.last + self.wait
    }
}

/// What was programmed by the last pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before<'a> {
    /// What was wanted.
    pub wanted: &'a State,
    /// What stood when it was done.
    pub present: &'a State,
}

impl Repairs {
    /// What to ask of the kernel: what is wanted, but objects that are fought over stay as they are for now.
    pub(super) fn restrain(&self, wanted: Arc<State>, found: &State, now: Instant) -> Arc<State> {
        let waits = |(object, fight): &(&Object, &Fight)| {
            now < fight.next() && object.as_wanted(&fight.wanted, &wanted)
        };
        let left: Vec<(&Object, &Fight)> = self.fights.iter().filter(waits).collect();
        let mut state = Arc::clone(&wanted);
        for (object, fight) in left {
            let state = Arc::make_mut(&mut state);
            leave(state, found, object);
            if *object == Object::Firewall {
                follow_nodes(state, &fight.wanted, &wanted);
            }
        }
        state
    }

    /// Takes note of what a pass did. Returns the changes that were repairs.
    pub(super) fn note<'r>(
        &mut self,
        before: Option<Before<'_>>,
        found: &State,
        wanted: &State,
        report: &'r Report,
        now: Instant,
        audit: Duration,
    ) -> Vec<&'r Change> {
        let mut repaired = Vec::new();
        let mut undone = BTreeSet::new();
        if let Some(before) = before {
            let was_undone = |object: &Object| {
                object.as_wanted(before.wanted, wanted)
                    && object.same(before.present, before.wanted)
                    && !object.same(found, before.present)
                    && !object.same(found, wanted)
                    && object.link(wanted).is_none_or(|link| !self.touched.contains(link))
            };
            // An object that is deleted and made again is one.
            let mut seen = BTreeSet::new();
            for change in report.applied.iter().rev() {
                let object = Object::of(change);
                if was_undone(&object) && seen.insert(object) {
                    repaired.push(change);
                }
            }
            repaired.reverse();
            let failed = report.failures.iter().map(|failure| &failure.change);
            undone = report.applied.iter().chain(failed).map(Object::of).filter(|o| was_undone(o)).collect();
        }
        self.count(&undone, wanted, now, audit);
        // Over when the object has stood for two audits.
        self.fights.retain(|object, fight| {
            now < fight.next() + audit * 2 && object.as_wanted(&fight.wanted, wanted)
        });
        self.touched = report
            .applied
            .iter()
            .filter_map(|change| if let Object::Link(name) = Object::of(change) { Some(name) } else { None })
            .collect();
        repaired
    }

    /// Whether it takes more than to put these objects back: somebody fights over one of them, or it may have gone with
    /// a device that we have changed ourselves.
    pub(super) fn doubts(&self, objects: &[Object], wanted: &State) -> bool {
        objects.iter().any(|object| {
            self.fights.contains_key(object)
                || object.link(wanted).is_some_and(|link| self.touched.contains(link))
        })
    }

    /// Takes note of objects that were put back between two passes.
    pub(super) fn mended(&mut self, objects: &[Object], wanted: &State, now: Instant, audit: Duration) {
        self.count(&objects.iter().cloned().collect(), wanted, now, audit);
    }

    /// The world is another one: what went with the underlay was not undone by anybody.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// When to look again.
    pub(super) fn wakes(&self, now: Instant, audit: Duration) -> impl Iterator<Item = Instant> {
        self.fights
            .values()
            .flat_map(move |fight| [fight.next(), fight.next() + audit * 2])
            .filter(move |wake| *wake > now)
    }

    pub(super) fn findings(&self, observed: &Observed) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self
            .fights
            .iter()
            .take(LISTED)
            .map(|(object, fight)| {
                let message = format!(
                    "somebody undoes {object} again and again ({} times so far): it is put back every {} s only; {}",
                    fight.times,
                    fight.wait.as_secs().max(1),
                    object.hint(observed)
                );
                Finding::new("RepairLoop", object, message)
            })
            .collect();
        if let Some(more @ 1..) = self.fights.len().checked_sub(LISTED) {
            findings.push(Finding::new("RepairLoop", "", format!("and {more} more objects")));
        }
        findings
    }

    fn count(&mut self, undone: &BTreeSet<Object>, wanted: &State, now: Instant, audit: Duration) {
        let flapped = flapped(undone, wanted);
        for object in undone {
            // What went with its device or its nexthop was not undone for itself.
            let with_link =
                object.link(wanted).is_some_and(|link| undone.contains(&Object::Link(link.clone())));
            let with_nexthop = if let Object::Route(key) = object
                && let Some(RouteTarget::Nexthop(id)) = wanted.routes.get(key).map(|route| &route.target)
            {
                undone.contains(&Object::Nexthop(*id))
            } else {
                false
            };
            if with_link || with_nexthop || object.link(wanted).is_some_and(|link| flapped.contains(link)) {
                continue;
            }
            let burst = |last: &Instant| now.saturating_duration_since(*last) < BURST;
            if let Some(fight) = self.fights.get_mut(object) {
                if burst(&fight.last) {
                    continue;
                }
                fight.times += 1;
                fight.last = now;
                fight.wait = fight.wait.saturating_mul(2).min(audit);
                continue;
            }
            let times = self.undone.entry(object.clone()).or_default();
            if times.back().is_some_and(burst) {
                continue;
            }
            times.push_back(now);
            if times.iter().filter(|at| now.duration_since(**at) < WITHIN).count() >= MANY {
                let fight = Fight {
                    times: u64::try_from(times.len()).unwrap_or(u64::MAX),
                    last: now,
                    wait: FIRST_WAIT.min(audit),
                    wanted: object.alone(wanted),
                };
                self.fights.insert(object.clone(), fight);
            }
        }
        let fights = &self.fights;
        self.undone.retain(|object, times| {
            times.retain(|at| now.duration_since(*at) < WITHIN);
            !times.is_empty() && !fights.contains_key(object)
        });
    }
}

/// Devices that lost all of their nexthops at once, and had several: the kernel takes them with the carrier, so that is
/// nobody who fights with us.
fn flapped(undone: &BTreeSet<Object>, wanted: &State) -> BTreeSet<LinkName> {
    if !undone.iter().any(|object| matches!(object, Object::Nexthop(_))) {
        return BTreeSet::new();
    }
    // Of a device: nexthops that are wanted, and those among them that were undone.
    let mut counts: BTreeMap<&LinkName, (usize, usize)> = BTreeMap::new();
    for (id, nexthop) in &wanted.nexthops {
        let (all, gone) = counts.entry(&nexthop.link).or_default();
        *all += 1;
        *gone += usize::from(undone.contains(&Object::Nexthop(*id)));
    }
    counts
        .into_iter()
        .filter(|(_, (all, gone))| *all > 1 && all == gone)
        .map(|(link, _)| link.clone())
        .collect()
}

/// Logs repairs, each with what was undone.
pub(super) fn log(repaired: &[&Change]) {
    for change in repaired.iter().take(LISTED) {
        tracing::info!(repair = %change, "somebody has undone {}: repaired", Object::of(change));
    }
    if let Some(more @ 1..) = repaired.len().checked_sub(LISTED) {
        tracing::info!("and {more} more objects were repaired");
    }
}

/// Makes a state say of an object, and of what stands on it, what is found of it.
fn leave(state: &mut State, found: &State, object: &Object) {
    match object {
        Object::Link(name) => {
            take(&mut state.links, &found.links, name);
            if !state.links.contains_key(name) {
                state.addresses.retain(|address| address.link != *name);
                state.neighbors.retain(|key, _| key.link != *name);
                state.fdb.retain(|key, _| key.link != *name);
                state.rp_filter.remove(name);
                let on_it = state.nexthops.iter().filter(|(_, nexthop)| nexthop.link == *name);
                let on_it: Vec<NexthopId> = on_it.map(|(id, _)| *id).collect();
                for id in on_it {
                    leave(state, found, &Object::Nexthop(id));
                }
            }
        }
        Object::RpFilter(name) => take(&mut state.rp_filter, &found.rp_filter, name),
        Object::Address(address) => take_member(&mut state.addresses, &found.addresses, address),
        Object::Neighbor(key) => take(&mut state.neighbors, &found.neighbors, key),
        Object::Fdb(key) => take(&mut state.fdb, &found.fdb, key),
        Object::Nexthop(id) => {
            take(&mut state.nexthops, &found.nexthops, id);
            if !state.nexthops.contains_key(id) {
                state.routes.retain(|_, route| route.target != RouteTarget::Nexthop(*id));
            }
        }
        Object::Route(key) => take(&mut state.routes, &found.routes, key),
        Object::Rule(rule) => take_member(&mut state.rules, &found.rules, rule),
        Object::Firewall => state.firewall.clone_from(&found.firewall),
    }
}

/// In a table that is left as it is found nodes come and go all the same: its guard would drop what new ones send.
fn follow_nodes(left: &mut State, before: &State, wanted: &State) {
    let (Some(left), Some(before), Some(wanted)) = (&mut left.firewall, &before.firewall, &wanted.firewall)
    else {
        return;
    };
    for (name, set) in &mut left.sets {
        if let (Some(before), Some(wanted)) = (before.sets.get(name), wanted.sets.get(name))
            && set.key == wanted.key
        {
            set.elements.retain(|node| wanted.elements.contains(node) || !before.elements.contains(node));
            set.elements.extend(wanted.elements.difference(&before.elements).copied());
        }
    }
}

fn take<K: Ord + Clone, V: Clone>(state: &mut BTreeMap<K, V>, found: &BTreeMap<K, V>, key: &K) {
    match found.get(key) {
        Some(value) => drop(state.insert(key.clone(), value.clone())),
        None => drop(state.remove(key)),
    }
}

fn take_member<T: Ord + Clone>(state: &mut BTreeSet<T>, found: &BTreeSet<T>, member: &T) {
    if found.contains(member) {
        state.insert(member.clone());
    } else {
        state.remove(member);
    }
}

#[cfg(test)]
mod tests;
