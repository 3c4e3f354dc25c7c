//! From observed and wanted state to an ordered list of changes; pure.

use crate::state::{
    Address, FdbKey, LinkName, Mac, NeighborKey, Nexthop, NexthopId, Observed, Route, RouteKey, Rule, State,
    VxlanLink,
};
use std::net::IpAddr;

/// One change of one kernel object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Create a device (with alias, `nolearning`, `addrgenmode none`, MTU, MAC, up).
    AddLink(LinkName, VxlanLink),
    /// Change MAC, MTU, local address, underlay device or the up state of a living device.
    SetLink(LinkName, VxlanLink),
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
}

/// The changes that turn `observed.ours` into `wanted`.
///
/// Order: devices, device settings, addresses, neighbours, FDB, nexthops, routes, rules; what goes, goes in
/// reverse. `diff(x, x)` is empty.
#[must_use]
pub fn diff(observed: &Observed, wanted: &State) -> Diff {
    let _ = (observed, wanted);
    Diff::default()
}
