//! What holds after every pass, whatever went wrong in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use crate::fake::FakeKernel;
use crate::state::{FdbKey, NeighborKey, Observed, Route, RouteKey, RouteTarget, State};

/// Objects by name, with what they say.
pub(super) fn objects(state: &State) -> BTreeMap<String, String> {
    fn put<K: Debug, V: Debug>(
        into: &mut BTreeMap<String, String>,
        kind: &str,
        all: impl IntoIterator<Item = (K, V)>,
    ) {
        into.extend(all.into_iter().map(|(key, value)| (format!("{kind} {key:?}"), format!("{value:?}"))));
    }
    let mut found = BTreeMap::new();
    put(&mut found, "link", &state.links);
    put(&mut found, "rp_filter", &state.rp_filter);
    put(&mut found, "address", state.addresses.iter().map(|address| (address, ())));
    put(&mut found, "neighbor", &state.neighbors);
    put(&mut found, "fdb", &state.fdb);
    put(&mut found, "nexthop", &state.nexthops);
    put(&mut found, "route", &state.routes);
    put(&mut found, "rule", state.rules.iter().map(|rule| (rule, ())));
    put(&mut found, "firewall", state.firewall.iter().map(|table| ((), table)));
    found
}

/// What is not ours, in a whole look at a kernel.
pub(super) fn foreign(kernel: &FakeKernel, wanted: &[&State]) -> Observed {
    let mut seen = kernel.observed(&["10.244.0.0/16".parse().unwrap()]);
    let mut ours = std::mem::take(&mut seen.ours);
    seen.interfaces.retain(|name, _| !ours.links.contains_key(name));
    // Settings of others' devices that nobody asked us to change.
    ours.rp_filter.retain(|name, _| {
        seen.interfaces.contains_key(name) && wanted.iter().all(|state| !state.rp_filter.contains_key(name))
    });
    seen.ours.rp_filter = ours.rp_filter;
    seen
}

/// Whether packets by a route get out of this machine.
pub(super) fn works(state: &State, key: &RouteKey) -> bool {
    let Some(route) = state.routes.get(key) else { return false };
    let RouteTarget::Nexthop(id) = route.target else { return route.target == RouteTarget::Unreachable };
    let Some(nexthop) = state.nexthops.get(&id) else { return false };
    let Some(link) = state.links.get(&nexthop.link) else { return true };
    let fits = |Route { mtu, .. }: &Route| mtu.is_none_or(|mtu| mtu <= link.mtu);
    if !link.up || !fits(route) {
        return false;
    }
    if link.vxlan().is_none() {
        return true;
    }
    let neighbor = NeighborKey { link: nexthop.link.clone(), address: nexthop.gateway.address };
    state
        .neighbors
        .get(&neighbor)
        .is_some_and(|mac| state.fdb.contains_key(&FdbKey { link: nexthop.link.clone(), mac: *mac }))
}

/// Nothing hangs in the air.
pub(super) fn sound(state: &State) -> Result<(), String> {
    let device =
        |name: &crate::state::LinkName| state.links.contains_key(name) || state.rp_filter.contains_key(name);
    for (key, route) in &state.routes {
        if let RouteTarget::Nexthop(id) = route.target
            && !state.nexthops.contains_key(&id)
        {
            return Err(format!("{key:?} without its nexthop"));
        }
    }
    let on = state.nexthops.values().map(|nexthop| &nexthop.link);
    let on =
        on.chain(state.neighbors.keys().map(|key| &key.link)).chain(state.fdb.keys().map(|key| &key.link));
    match on.into_iter().find(|name| !device(name)) {
        Some(name) => Err(format!("something on {name}, which is not there")),
        None => Ok(()),
    }
}

/// What a pass without a fault makes of a kernel, step by step.
pub(super) struct Course<'a> {
    before: State,
    wanted: &'a State,
    objects_before: BTreeMap<String, String>,
    objects_wanted: BTreeMap<String, String>,
    /// Objects that are neither as they were nor as they are wanted at some time.
    disturbed: BTreeSet<String>,
    /// Routes that do not work at some time, though they did before and are wanted.
    broken: BTreeSet<RouteKey>,
    /// Pools whose rule is missing at some time.
    unruled: BTreeSet<String>,
}

impl<'a> Course<'a> {
    pub(super) fn of(before: State, steps: &[State], wanted: &'a State) -> Self {
        let mut course = Self {
            objects_before: objects(&before),
            objects_wanted: objects(wanted),
            before,
            wanted,
            disturbed: BTreeSet::new(),
            broken: BTreeSet::new(),
            unruled: BTreeSet::new(),
        };
        for step in steps {
            let (strange, broken, unruled) =
                (course.strange(step), course.not_working(step), course.without_rule(step));
            course.disturbed.extend(strange);
            course.broken.extend(broken);
            course.unruled.extend(unruled);
        }
        course
    }

    /// What is worse in `now` than it is at any time of a pass without a fault.
    pub(super) fn judge(&self, now: &State) -> Result<(), String> {
        sound(now)?;
        if let Some(object) = self.strange(now).pop() {
            return Err(format!(
                "{object} is neither as before nor as wanted: before {:?}, now {:?}, wanted {:?}",
                self.objects_before.get(&object),
                objects(now).get(&object),
                self.objects_wanted.get(&object)
            ));
        }
        if let Some(key) = self.not_working(now).pop() {
            return Err(format!("{key:?} does not work any more"));
        }
        match self.without_rule(now).pop() {
            Some(from) => Err(format!("no rule for {from} leads anywhere")),
            None => Ok(()),
        }
    }

    fn strange(&self, now: &State) -> Vec<String> {
        let (before, now, wanted) = (&self.objects_before, objects(now), &self.objects_wanted);
        let names: BTreeSet<&String> = before.keys().chain(now.keys()).chain(wanted.keys()).collect();
        let strange = names.into_iter().filter(|name| {
            let value = now.get(*name);
            // A setting that is not wanted is whatever the kernel gives.
            let open = name.starts_with("rp_filter") && !wanted.contains_key(*name);
            !open
                && !self.disturbed.contains(*name)
                && value != before.get(*name)
                && value != wanted.get(*name)
        });
        strange.cloned().collect()
    }

    fn not_working(&self, now: &State) -> Vec<RouteKey> {
        let lost = self.wanted.routes.keys().filter(|key| works(&self.before, key) && !works(now, key));
        lost.filter(|key| !self.broken.contains(*key)).copied().collect()
    }

    fn without_rule(&self, now: &State) -> Vec<String> {
        // One that is to go serves for as long as there is something in its table.
        let serves = |state: &State, from| {
            let mut rules = state.rules.iter().filter(|rule| rule.from == from);
            rules.any(|rule| {
                self.wanted.rules.contains(rule) || state.routes.keys().any(|key| key.table == rule.table)
            })
        };
        let always = |from| serves(&self.before, from) && serves(self.wanted, from);
        let lost = self.wanted.rules.iter().filter(|rule| always(rule.from) && !serves(now, rule.from));
        lost.map(|rule| rule.from.to_string()).filter(|from| !self.unruled.contains(from)).collect()
    }
}
