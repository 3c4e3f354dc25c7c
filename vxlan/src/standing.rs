//! What of ours stands after some changes: what was observed, with the changes that the kernel accepted and what it
//! takes along with them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::diff::Change;
use crate::effects;
use crate::state::{Interface, LinkName, NexthopId, Observed, RouteTarget, State};

/// What of ours the kernel holds after a look, which has found this of ours and these devices of all, and after changes that
/// the kernel has accepted since. Where it did more, the next look shows it.
#[must_use]
pub fn standing(found: State, interfaces: &BTreeMap<LinkName, Interface>, applied: &[Change]) -> State {
    let ours: BTreeSet<LinkName> = found.links.keys().cloned().collect();
    let still_local = |ip| has_address(interfaces.iter().filter(|(name, _)| !ours.contains(*name)), ip);
    let mut state = found;
    // Nexthops that go one after the other are looked for once among all routes.
    for changes in applied.chunk_by(|one, other| gone(one).is_some() && gone(other).is_some()) {
        let gone: BTreeSet<NexthopId> = changes.iter().filter_map(gone).collect();
        if gone.is_empty() {
            changes.iter().for_each(|change| apply(&mut state, change, &still_local));
        } else {
            state.nexthops.retain(|id, _| !gone.contains(id));
            state
                .routes
                .retain(|_, route| !matches!(&route.target, RouteTarget::Nexthop(id) if gone.contains(id)));
        }
    }
    state
}

const fn gone(change: &Change) -> Option<NexthopId> {
    if let Change::DeleteNexthop(id) = change { Some(*id) } else { None }
}

/// Whether an address is on a device of others.
pub(crate) fn local_elsewhere(observed: &Observed, ip: IpAddr) -> bool {
    has_address(observed.interfaces.iter().filter(|(name, _)| !observed.ours.links.contains_key(*name)), ip)
}

fn has_address<'a>(mut devices: impl Iterator<Item = (&'a LinkName, &'a Interface)>, ip: IpAddr) -> bool {
    devices.any(|(_, device)| device.addresses.iter().any(|a| a.address.addr() == ip))
}

fn apply(state: &mut State, change: &Change, still_local: &dyn Fn(IpAddr) -> bool) {
    match change {
        Change::AddLink(name, link) => {
            state.links.insert(name.clone(), link.clone());
            state.rp_filter.entry(name.clone()).or_insert(0);
        }
        Change::SetLink(name, link) => {
            if let Some(now) = state.links.insert(name.clone(), link.clone()) {
                effects::link_set(state, name, &now, link);
            }
        }
        Change::DeleteLink(name) => effects::link_deleted(state, name, still_local),
        Change::SetRpFilter(name, value) => drop(state.rp_filter.insert(name.clone(), *value)),
        Change::AddAddress(address) => drop(state.addresses.insert(address.clone())),
        Change::DeleteAddress(address) => effects::address_deleted(state, address, still_local),
        Change::SetNeighbor(key, mac) => drop(state.neighbors.insert(key.clone(), *mac)),
        Change::DeleteNeighbor(key) => drop(state.neighbors.remove(key)),
        Change::SetFdb(key, remote) => drop(state.fdb.insert(key.clone(), *remote)),
        Change::DeleteFdb(key) => drop(state.fdb.remove(key)),
        Change::AddNexthop(id, nexthop) | Change::SetNexthop(id, nexthop) => {
            state.nexthops.insert(*id, nexthop.clone());
        }
        Change::DeleteNexthop(id) => effects::nexthop_deleted(state, *id),
        Change::AddRoute(key, route) | Change::SetRoute(key, route) => {
            state.routes.insert(*key, route.clone());
        }
        Change::DeleteRoute(key) => drop(state.routes.remove(key)),
        Change::AddRule(rule) => drop(state.rules.insert(*rule)),
        Change::DeleteRule(rule) => drop(state.rules.remove(rule)),
        Change::SetFirewall(table) => state.firewall = Some(table.clone()),
        Change::ChangeSets(changes) => {
            for change in changes {
                if let Some(set) = state.firewall.as_mut().and_then(|table| table.sets.get_mut(&change.set)) {
                    set.elements.extend(&change.add);
                    set.elements.retain(|element| !change.remove.contains(element));
                }
            }
        }
        Change::DeleteFirewall => state.firewall = None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::diff::diff;
    use crate::reconcile::{Dataplane, reconcile};
    use crate::testing::{Spec, arbitrary_spec};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_what_the_kernel_holds_after_any_number_of_the_changes(
            a in arbitrary_spec(),
            b in arbitrary_spec(),
            count in any::<prop::sample::Index>(),
        ) {
            let mut kernel = Spec::node();
            let from = kernel.observe(&[]).unwrap();
            prop_assert!(reconcile(&mut kernel, &from, &a.state()).failures.is_empty());
            let observed = kernel.observe(&[]).unwrap();
            let changes = diff(&observed, &b.state()).changes;
            let changes = &changes[..count.index(changes.len() + 1)];
            prop_assert!(kernel.apply(changes).is_empty());
            let found = observed.ours.clone();
            prop_assert_eq!(
                standing(found, &observed.interfaces, changes),
                kernel.observe(&[]).unwrap().ours
            );
        }
    }
}
