//! What of ours the kernel holds after a pass: what was found, with the changes that were accepted.

use std::collections::BTreeMap;
use std::sync::Arc;

use vxlan::{Change, Interface, LinkName, State, standing};

/// Applies accepted changes to what was found. Where that comes to what was wanted, as it should, the two are one.
pub(super) fn present(
    found: State,
    interfaces: &BTreeMap<LinkName, Interface>,
    applied: &[Change],
    wanted: &Arc<State>,
) -> Arc<State> {
    let mut state = standing(found, interfaces, applied);
    // Of the devices of others nobody asks.
    state.rp_filter.retain(|link, _| wanted.rp_filter.contains_key(link));
    if state == **wanted { Arc::clone(wanted) } else { Arc::new(state) }
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
