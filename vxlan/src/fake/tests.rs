use super::*;
use crate::reconcile::reconcile;
use crate::state::{Gateway, Nexthop, Route, RouteTarget};
use crate::testing::{Spec, link, route_key, vx4};

fn apply(kernel: &FakeKernel, change: Change) -> Result<(), i32> {
    kernel.clone().apply(&[change]).remove(&0).map_or(Ok(()), |error| Err(error.errno))
}

fn nexthop(gateway: &str, onlink: bool, device: &str) -> Nexthop {
    Nexthop { gateway: Gateway { address: gateway.parse().unwrap(), onlink }, link: link(device) }
}

fn to(id: u32) -> Route {
    Route { target: RouteTarget::Nexthop(NexthopId(id)), source: None, mtu: None }
}

fn with_tunnel() -> FakeKernel {
    let kernel = Spec::node();
    let mut handle = kernel.clone();
    let observed = handle.observe(&[]).unwrap();
    assert!(reconcile(&mut handle, &observed, &vx4()).failures.is_empty());
    kernel.clear_events();
    kernel
}

#[test]
fn changes_without_ground_are_refused_with_the_errno_of_linux() {
    let kernel = with_tunnel();
    let id = NexthopId(7);
    let vx = |gateway: &str, onlink| nexthop(gateway, onlink, "vx4");
    let cases = [
        (Change::AddNexthop(id, nexthop("192.0.2.9", false, "eth9")), errno::ENODEV),
        (Change::AddNexthop(id, nexthop("198.51.100.9", false, "eth0")), errno::ENETUNREACH),
        (Change::AddNexthop(id, vx("fd00::9", false)), errno::EHOSTUNREACH),
        (Change::AddNexthop(id, vx("10.244.1.0", true)), errno::EINVAL),
        (Change::AddNexthop(id, nexthop("2001:db8::1", false, "eth0")), errno::EINVAL),
        (Change::SetNexthop(id, vx("10.244.7.0", true)), errno::ENOENT),
        (Change::DeleteNexthop(id), errno::ENOENT),
        (Change::AddRoute(route_key("10.244.7.0/24"), to(7)), errno::EINVAL),
        (Change::DeleteRoute(route_key("10.244.7.0/24")), errno::ESRCH),
        (Change::AddLink(link("vx4"), vx4().links[&link("vx4")].clone()), errno::EEXIST),
        (Change::AddLink(link("vz4"), vx4().links[&link("vx4")].clone()), errno::EEXIST),
        (Change::SetRpFilter(link("eth9"), 2), errno::ENODEV),
    ];
    for (change, errno) in cases {
        assert_eq!(apply(&kernel, change.clone()), Err(errno), "{change:?}");
    }
}

#[test]
fn ipv6_refuses_an_onlink_gateway_inside_of_a_block_that_is_routed_elsewhere() {
    let kernel = with_tunnel();
    apply(&kernel, Change::AddNexthop(NexthopId(1), nexthop("2001:db8::2", false, "eth0"))).unwrap();
    apply(&kernel, Change::AddRoute(route_key("fd10:244:0:7::/64"), to(1))).unwrap();
    let inside = nexthop("fd10:244:0:7::", true, "vx4");
    assert_eq!(apply(&kernel, Change::SetNexthop(NexthopId(1), inside)), Err(errno::EINVAL));
    let link_local = nexthop("fe80::ff:fe00:7", false, "vx4");
    assert_eq!(apply(&kernel, Change::SetNexthop(NexthopId(1), link_local)), Ok(()));
}

#[test]
fn a_tunnel_goes_with_its_underlay_and_routes_with_their_device() {
    let kernel = with_tunnel();
    apply(&kernel, Change::AddNexthop(NexthopId(1), nexthop("192.0.2.2", false, "eth0"))).unwrap();
    apply(&kernel, Change::AddRoute(route_key("10.244.7.0/24"), to(1))).unwrap();
    kernel.remove_interface("eth0");
    let state = kernel.state();
    assert!(state.links.is_empty() && state.addresses.is_empty());
    assert!(state.nexthops.is_empty() && state.routes.is_empty());
}

#[test]
fn carrier_loss_takes_the_nexthops_of_the_device_and_their_routes() {
    let kernel = with_tunnel();
    apply(&kernel, Change::AddNexthop(NexthopId(1), nexthop("192.0.2.2", false, "eth0"))).unwrap();
    apply(&kernel, Change::AddRoute(route_key("10.244.7.0/24"), to(1))).unwrap();
    kernel.set_carrier("eth0", false);
    assert!(kernel.state().nexthops.is_empty() && kernel.state().routes.is_empty());
    let again = apply(&kernel, Change::AddNexthop(NexthopId(1), nexthop("192.0.2.2", false, "eth0")));
    assert_eq!(again, Err(errno::ENETDOWN));
}

#[test]
fn failures_come_as_ordered_and_end() {
    let kernel = with_tunnel();
    kernel.fail_kind(Kind::Route, 1, errno::ENOMEM);
    apply(&kernel, Change::AddNexthop(NexthopId(1), nexthop("192.0.2.2", false, "eth0"))).unwrap();
    let add = Change::AddRoute(route_key("10.244.7.0/24"), to(1));
    assert_eq!(apply(&kernel, add.clone()), Err(errno::ENOMEM));
    assert_eq!(apply(&kernel, add.clone()), Ok(()));
    assert_eq!(kernel.events().last(), Some(&Event::Applied(add.clone())));
    assert!(kernel.events().contains(&Event::Refused(add, errno::ENOMEM)));

    kernel.fail_observe(1);
    let mut handle = kernel.clone();
    assert_eq!(handle.observe(&[]).unwrap_err().source.kind(), io::ErrorKind::Interrupted);
    assert!(handle.observe(&[]).is_ok());
}

#[test]
fn others_wake_the_hook_and_our_own_changes_do_not() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let kernel = with_tunnel();
    let woken = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&woken);
    kernel.on_change(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    apply(&kernel, Change::SetRpFilter(link("eth0"), 2)).unwrap();
    assert_eq!(woken.load(Ordering::Relaxed), 0);
    kernel.set_up("vx4", false);
    assert_eq!(woken.load(Ordering::Relaxed), 1);
}

#[test]
fn a_node_has_its_underlay_and_a_default_route() {
    let kernel = FakeKernel::node(&["192.0.2.1/24", "2001:db8::1/64"], 1500);
    let seen = kernel.observed(&["192.0.2.0/28".parse().unwrap()]);
    assert_eq!(seen.interfaces[&link("eth0")].addresses.len(), 2);
    assert_eq!(seen.default_routes.len(), 2);
    assert_eq!(seen.foreign_routes.len(), 1, "the connected network covers the watched prefix");
    assert_eq!(seen.foreign_routes[0].protocol, 2);
}
