use super::*;

#[test]
fn a_link_local_address_is_the_modified_eui64_of_the_mac() {
    // RFC 4291 appendix A: insert ff:fe, invert the universal/local bit.
    let mac = Mac([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]);
    assert_eq!(mac.link_local().to_string(), "fe80::3656:78ff:fe9a:bcde");
    assert_eq!(Mac([0x02, 0, 0, 0, 0, 1]).link_local().to_string(), "fe80::ff:fe00:1");
}

#[test]
fn device_names_are_those_of_the_kernel() {
    for good in ["eth0", "pairway-vx4", "a", "123456789012345"] {
        assert!(good.parse::<LinkName>().is_ok(), "{good}");
    }
    for bad in ["", "1234567890123456", "a/b", "a b", "a:1", ".", "..", "a\tb"] {
        assert!(bad.parse::<LinkName>().is_err(), "{bad}");
    }
}

#[test]
fn our_range_of_nexthop_ids_has_both_ends() {
    let marks = Marks {
        route_protocol: 83,
        ifalias: "pairway".into(),
        nexthop_base: 0x5000_0000,
        firewall_table: "pairway".into(),
    };
    assert!(marks.owns_nexthop(NexthopId(0x5000_0000)));
    assert!(marks.owns_nexthop(NexthopId(0x5fff_ffff)));
    assert!(!marks.owns_nexthop(NexthopId(0x6000_0000)));
    assert!(!marks.owns_nexthop(NexthopId(0x4fff_ffff)));
}

#[test]
fn a_metric_of_zero_is_1024_in_ipv6_alone() {
    let key = |prefix: &str, metric| RouteKey { table: 254, prefix: prefix.parse().unwrap(), metric };
    assert_eq!(key("fd10::/64", 0).normalised(), key("fd10::/64", 1024));
    assert_eq!(key("fd10::/64", 7).normalised(), key("fd10::/64", 7));
    assert_eq!(key("10.0.0.0/8", 0).normalised(), key("10.0.0.0/8", 0));

    let route = Route { target: RouteTarget::Unreachable, source: None, mtu: None };
    let state = State { routes: [(key("fd10::/64", 0), route)].into(), ..State::default() }.normalised();
    assert!(state.routes.contains_key(&key("fd10::/64", 1024)));
}

#[test]
fn a_foreign_route_is_shown_with_its_owner() {
    let route = InstalledRoute {
        key: RouteKey { table: 254, prefix: "10.244.7.0/24".parse().unwrap(), metric: 32 },
        protocol: 12,
        link: Some("eth0".parse().unwrap()),
        gateway: Some("192.0.2.9".parse().unwrap()),
    };
    assert_eq!(
        route.to_string(),
        "route 10.244.7.0/24 via 192.0.2.9 dev eth0 table 254 metric 32 proto 12 (bird)"
    );
}

#[test]
fn wanted_states_are_looked_through_for_flaws() {
    let id = NexthopId(7);
    let gateway = Gateway { address: "192.0.2.7".parse().unwrap(), onlink: false };
    let key = |prefix: &str| RouteKey { table: 254, prefix: prefix.parse().unwrap(), metric: 0 };
    let via = |mtu| Route { target: RouteTarget::Nexthop(id), source: None, mtu };
    let mut state = State::default();
    state.nexthops.insert(id, Nexthop { gateway, link: "eth0".parse().unwrap() });
    state.routes.insert(key("10.244.7.0/24"), via(Some(1400)));
    state.routes.insert(RouteKey { table: 1120, ..key("192.0.2.7/32") }, via(Some(1400)));
    assert_eq!(state.flaws(), []);
    // In whatever table: the cached destination is the nexthop's.
    state.routes.insert(RouteKey { table: 1120, ..key("192.0.2.7/32") }, via(None));
    let told: Vec<_> = state.flaws().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["routes 10.244.7.0/24 and 192.0.2.7/32 over nexthop 7 have different MTUs"]);
    state.nexthops.clear();
    assert_eq!(state.flaws().len(), 3, "and each route leads nowhere");
    let stray = NeighborKey { link: "vx4".parse().unwrap(), address: gateway.address };
    let state = State { neighbors: [(stray, Mac([2; 6]))].into(), ..State::default() };
    assert!(matches!(state.flaws().as_slice(), [Flaw::NoVxlanDevice { .. }]));
}
