//! What the kernel does by itself when an object changes: the flushes that nobody asked for.
//!
//! Shared by the diff, which has to put back what goes along, and by the fake kernel, which has to take it away.
//! Held to the real kernel by `tests/kernel`. Seen on Linux 6.18; none of it is documented by the kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::state::{Address, LinkName, NexthopId, RouteTarget, State, TunnelLink};

/// `RT_TABLE_MAIN`.
pub(crate) const MAIN: u32 = 254;
/// The smallest MTU with which a device has IPv6 (RFC 8200 §5; `IPV6_MIN_MTU`).
pub(crate) const IPV6_MIN_MTU: u32 = 1280;

/// A device is deleted: all that hangs on it goes, and IPv4 routes that use an address of it as source.
///
/// `still_local` says whether an address remains on another device.
pub(crate) fn link_deleted(state: &mut State, link: &LinkName, still_local: &dyn Fn(IpAddr) -> bool) {
    state.links.remove(link);
    state.rp_filter.remove(link);
    state.neighbors.retain(|key, _| key.link != *link);
    state.fdb.retain(|key, _| key.link != *link);
    let addresses: Vec<Address> = state.addresses.iter().filter(|a| a.link == *link).cloned().collect();
    for address in addresses {
        address_deleted(state, &address, still_local);
    }
    link_unusable(state, link);
}

/// A device is set down: its nexthops (and their routes), all its neighbours, even permanent ones, and its IPv6
/// addresses go. Its IPv4 addresses and its forwarding database stay.
pub(crate) fn link_down(state: &mut State, link: &LinkName) {
    state.neighbors.retain(|key, _| key.link != *link);
    state.addresses.retain(|a| a.link != *link || a.address.addr().is_ipv4());
    link_unusable(state, link);
}

/// A device is down or without carrier: its nexthop objects go, and their routes with them.
pub(crate) fn link_unusable(state: &mut State, link: &LinkName) {
    let lost: BTreeSet<NexthopId> =
        state.nexthops.iter().filter(|(_, nexthop)| nexthop.link == *link).map(|(id, _)| *id).collect();
    if !lost.is_empty() {
        state.nexthops.retain(|id, _| !lost.contains(id));
        state
            .routes
            .retain(|_, route| !matches!(route.target, RouteTarget::Nexthop(id) if lost.contains(&id)));
    }
}

/// A device gets other settings.
pub(crate) fn link_set(state: &mut State, link: &LinkName, old: &TunnelLink, new: &TunnelLink) {
    if old.mac() != new.mac() {
        mac_changed(state, link);
    }
    if old.mtu != new.mtu {
        mtu_changed(state, link, old.mtu, new.mtu);
    }
    if old.up && !new.up {
        link_down(state, link);
    }
}

/// The Ethernet address of a device changes: all its neighbours go, even permanent ones.
pub(crate) fn mac_changed(state: &mut State, link: &LinkName) {
    state.neighbors.retain(|key, _| key.link != *link);
}

/// The MTU of a device changes. An IPv6 route over it whose MTU no longer fits, or was the device's, gets the new one;
/// below IPv6's minimum the device loses its IPv6 addresses and neighbours, while nexthops and routes stay.
pub(crate) fn mtu_changed(state: &mut State, link: &LinkName, old: u32, new: u32) {
    let over: BTreeSet<NexthopId> =
        state.nexthops.iter().filter(|(_, nexthop)| nexthop.link == *link).map(|(id, _)| *id).collect();
    for (key, route) in &mut state.routes {
        let concerned = matches!(route.target, RouteTarget::Nexthop(id) if over.contains(&id));
        if concerned && key.prefix.addr().is_ipv6() && route.mtu.is_some_and(|mtu| mtu >= new || mtu == old) {
            route.mtu = Some(new);
        }
    }
    if old >= IPV6_MIN_MTU && new < IPV6_MIN_MTU {
        state.addresses.retain(|a| a.link != *link || a.address.addr().is_ipv4());
        state.neighbors.retain(|key, _| key.link != *link || key.address.is_ipv4());
    }
}

/// An address is deleted. IPv4 routes of table `main` that use it as source go, wherever they lead, unless it is
/// `still_local` on another device; those of other tables, and IPv6 routes over nexthop objects, keep it. With the last IPv4 address of a device its IPv4
/// neighbours go, even permanent ones.
pub(crate) fn address_deleted(state: &mut State, address: &Address, still_local: &dyn Fn(IpAddr) -> bool) {
    state.addresses.remove(address);
    let ip = address.address.addr();
    if ip.is_ipv6() {
        return;
    }
    if !still_local(ip) && !state.addresses.iter().any(|a| a.address.addr() == ip) {
        state.routes.retain(|key, route| key.table != MAIN || route.source != Some(ip));
    }
    if !state.addresses.iter().any(|a| a.link == address.link && a.address.addr().is_ipv4()) {
        state.neighbors.retain(|key, _| key.link != address.link || key.address.is_ipv6());
    }
}

/// A nexthop object is deleted: its routes go, without a notification for each.
pub(crate) fn nexthop_deleted(state: &mut State, id: NexthopId) {
    state.nexthops.remove(&id);
    state.routes.retain(|_, route| route.target != RouteTarget::Nexthop(id));
}
