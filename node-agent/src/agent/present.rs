//! What of ours the kernel holds after a pass: what was found, with the changes that were accepted.

use std::collections::BTreeSet;
use std::sync::Arc;

use vxlan::{Change, NexthopId, RouteTarget, State};

/// Applies accepted changes to what was found. The next look at the kernel corrects it where the kernel did more. Where
/// that comes to what was wanted, as it should, the two are one.
pub(super) fn present(found: State, applied: &[Change], wanted: &Arc<State>) -> Arc<State> {
    let mut state = found;
    // Nexthops that go one after the other are looked for once among all routes.
    for changes in applied.chunk_by(|one, other| gone(one).is_some() && gone(other).is_some()) {
        let gone: BTreeSet<NexthopId> = changes.iter().filter_map(gone).collect();
        if gone.is_empty() {
            changes.iter().for_each(|change| apply(&mut state, change));
        } else {
            delete_nexthops(&mut state, &gone);
        }
    }
    // Of the devices of others nobody asks.
    state.rp_filter.retain(|link, _| wanted.rp_filter.contains_key(link));
    if state == **wanted { Arc::clone(wanted) } else { Arc::new(state) }
}

const fn gone(change: &Change) -> Option<NexthopId> {
    if let Change::DeleteNexthop(id) = change { Some(*id) } else { None }
}

fn delete_nexthops(state: &mut State, gone: &BTreeSet<NexthopId>) {
    state.nexthops.retain(|id, _| !gone.contains(id));
    state.routes.retain(|_, route| !matches!(&route.target, RouteTarget::Nexthop(id) if gone.contains(id)));
}

fn apply(state: &mut State, change: &Change) {
    match change {
        Change::AddLink(name, link) | Change::SetLink(name, link) => {
            state.links.insert(name.clone(), link.clone());
        }
        Change::DeleteLink(name) => {
            state.links.remove(name);
            state.addresses.retain(|address| address.link != *name);
            state.neighbors.retain(|key, _| key.link != *name);
            state.fdb.retain(|key, _| key.link != *name);
            let on_it = state.nexthops.iter().filter(|(_, nexthop)| nexthop.link == *name);
            let gone = on_it.map(|(id, _)| *id).collect();
            delete_nexthops(state, &gone);
        }
        Change::SetRpFilter(name, value) => {
            state.rp_filter.insert(name.clone(), *value);
        }
        Change::AddAddress(address) => {
            state.addresses.insert(address.clone());
        }
        Change::DeleteAddress(address) => {
            state.addresses.remove(address);
        }
        Change::SetNeighbor(key, mac) => {
            state.neighbors.insert(key.clone(), *mac);
        }
        Change::DeleteNeighbor(key) => {
            state.neighbors.remove(key);
        }
        Change::SetFdb(key, remote) => {
            state.fdb.insert(key.clone(), *remote);
        }
        Change::DeleteFdb(key) => {
            state.fdb.remove(key);
        }
        Change::AddNexthop(id, nexthop) | Change::SetNexthop(id, nexthop) => {
            state.nexthops.insert(*id, nexthop.clone());
        }
        Change::DeleteNexthop(id) => delete_nexthops(state, &BTreeSet::from([*id])),
        Change::AddRoute(key, route) | Change::SetRoute(key, route) => {
            state.routes.insert(*key, route.clone());
        }
        Change::DeleteRoute(key) => {
            state.routes.remove(key);
        }
        Change::AddRule(rule) => {
            state.rules.insert(*rule);
        }
        Change::DeleteRule(rule) => {
            state.rules.remove(rule);
        }
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

/// Kind of object and operation of a change, as the metrics name them.
pub(super) const fn kind(change: &Change) -> (&'static str, &'static str) {
    match change {
        Change::AddLink(..) => ("link", "add"),
        Change::SetLink(..) => ("link", "set"),
        Change::DeleteLink(_) => ("link", "delete"),
        Change::SetRpFilter(..) => ("rp_filter", "set"),
        Change::AddAddress(_) => ("address", "add"),
        Change::DeleteAddress(_) => ("address", "delete"),
        Change::SetNeighbor(..) => ("neighbor", "set"),
        Change::DeleteNeighbor(_) => ("neighbor", "delete"),
        Change::SetFdb(..) => ("fdb", "set"),
        Change::DeleteFdb(_) => ("fdb", "delete"),
        Change::AddNexthop(..) => ("nexthop", "add"),
        Change::SetNexthop(..) => ("nexthop", "set"),
        Change::DeleteNexthop(_) => ("nexthop", "delete"),
        Change::AddRoute(..) => ("route", "add"),
        Change::SetRoute(..) => ("route", "set"),
        Change::DeleteRoute(_) => ("route", "delete"),
        Change::AddRule(_) => ("rule", "add"),
        Change::DeleteRule(_) => ("rule", "delete"),
        Change::SetFirewall(_) | Change::ChangeSets(_) => ("firewall", "set"),
        Change::DeleteFirewall => ("firewall", "delete"),
    }
}

/// Number of objects by kind.
pub(super) fn counts(state: &State) -> [(&'static str, usize); 9] {
    [
        ("link", state.links.len()),
        ("address", state.addresses.len()),
        ("neighbor", state.neighbors.len()),
        ("fdb", state.fdb.len()),
        ("nexthop", state.nexthops.len()),
        ("route", state.routes.len()),
        ("rule", state.rules.len()),
        ("rp_filter", state.rp_filter.len()),
        ("firewall", usize::from(state.firewall.is_some())),
    ]
}
