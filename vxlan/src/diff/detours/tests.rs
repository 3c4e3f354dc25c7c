use proptest::prelude::*;

use super::*;
use crate::state::{
    Address, Gateway, Interface, InterfaceAddress, LinkName, Nexthop, NexthopId, Route, Settings, TunnelKind,
    TunnelLink, Vni, Vxlan,
};

const OURS: u32 = 1120;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn link(text: &str) -> LinkName {
    text.parse().unwrap()
}

/// A node with a pool, a peer in a tunnel and one on the same link, and a route from outside.
fn wanted() -> State {
    let mut state = State::default();
    let vxlan = Vxlan { vni: Vni(1), port: 4789, underlay: link("eth0"), mac: crate::state::Mac([2; 6]) };
    let device = TunnelLink {
        kind: TunnelKind::Vxlan(vxlan),
        local: "192.0.2.1".parse().unwrap(),
        mtu: 1450,
        up: true,
        settings: Settings::Ours,
    };
    state.links.insert(link("vx4"), device);
    state.addresses.insert(Address { link: link("vx4"), address: net("10.244.1.0/32") });
    let target = |id| Route { target: RouteTarget::Nexthop(NexthopId(id)), source: None, mtu: None };
    for (id, gateway, device) in
        [(7, "10.244.7.0", "vx4"), (8, "192.0.2.8", "eth0"), (9, "192.0.2.254", "eth0")]
    {
        let gateway = Gateway { address: gateway.parse().unwrap(), onlink: device == "vx4" };
        state.nexthops.insert(NexthopId(id), Nexthop { gateway, link: link(device) });
    }
    for (table, prefix, id) in [
        (MAIN, "10.244.7.0/24", 7),
        (OURS, "198.51.100.7/32", 7),
        (MAIN, "10.244.8.0/24", 8),
        (OURS, "192.0.2.8/32", 8),
        (MAIN, "10.0.0.0/8", 9),
    ] {
        state.routes.insert(RouteKey { table, prefix: net(prefix), metric: 1120 }, target(id));
    }
    let pool = RouteKey { table: MAIN, prefix: net("10.244.0.0/16"), metric: u32::MAX };
    state.routes.insert(pool, Route { target: RouteTarget::Unreachable, source: None, mtu: None });
    state.rules.insert(Rule { priority: 1120, from: net("10.244.0.0/16"), table: OURS });
    state
}

fn rule(priority: u32, from: Option<&str>, to: Option<&str>, table: u32) -> ForeignRule {
    ForeignRule {
        ipv6: false,
        priority,
        from: from.map(net),
        to: to.map(net),
        input: None,
        asks_more: false,
        action: RuleAction::Lookup { table, suppress: None },
        protocol: 0,
    }
}

fn route(table: u32, prefix: &str, gateway: Option<&str>, device: &str) -> InstalledRoute {
    let key = RouteKey { table, prefix: net(prefix), metric: 0 };
    let gateway = gateway.map(|gateway| gateway.parse().unwrap());
    InstalledRoute { key, protocol: 3, link: Some(link(device)), gateway }
}

/// The kernel's own rules and routes, with a container network, and table 77 of somebody else's.
fn observed(rules: Vec<ForeignRule>) -> Observed {
    let mut observed = Observed::default();
    let own = [rule(0, None, None, LOCAL), rule(32_766, None, None, MAIN), rule(32_767, None, None, 253)];
    observed.foreign_rules = rules.into_iter().chain(own).collect();
    observed.foreign_rules.sort_by_key(|rule| rule.priority);
    observed.foreign_routes = vec![
        route(77, "0.0.0.0/0", Some("192.0.2.77"), "eth0"),
        route(78, "10.244.7.0/25", Some("192.0.2.77"), "eth0"),
        route(MAIN, "192.0.2.0/24", None, "eth0"),
        route(MAIN, "10.244.1.0/24", None, "cni0"),
        route(MAIN, "10.244.1.9/32", None, "cali1"),
    ];
    observed.default_routes = vec![route(MAIN, "0.0.0.0/0", Some("192.0.2.254"), "eth0")];
    let cni0 = Interface {
        index: 9,
        kind: "bridge".to_owned(),
        alias: String::new(),
        up: true,
        carrier: true,
        mtu: 1500,
        mac: None,
        tunnel: None,
        ends: None,
        forwards: None,
        addresses: vec![InterfaceAddress { address: net("10.244.1.1/24"), unfit: false, local_scope: false }],
    };
    observed.interfaces.insert(link("cni0"), cni0);
    observed
}

/// Which routes are passed by, and how many conflicts there are.
fn passed(observed: &Observed) -> (Vec<String>, usize) {
    let found = find(observed, &wanted());
    let passed = found.diverted.keys().map(|key| format!("{} {}", key.table, key.prefix)).collect();
    (passed, found.conflicts.len())
}

const BLOCKS: [&str; 3] = ["254 10.0.0.0/8", "254 10.244.7.0/24", "254 10.244.8.0/24"];
const HOSTS: [&str; 2] = ["1120 192.0.2.8/32", "1120 198.51.100.7/32"];

#[test]
fn a_rule_counts_if_it_catches_pods_before_ours_and_leads_to_a_route() {
    let all = [BLOCKS.as_slice(), &HOSTS].concat();
    let suppressed = |table| ForeignRule {
        action: RuleAction::Lookup { table, suppress: Some(0) },
        ..rule(100, None, None, table)
    };
    let pool = Some("10.244.0.0/16");
    let cases: Vec<(&str, ForeignRule, Vec<&str>, usize)> = vec![
        ("from the pool", rule(100, pool, None, 77), all.clone(), 2),
        ("from all", rule(100, None, None, 77), all.clone(), 2),
        ("from our block", rule(100, Some("10.244.1.0/24"), None, 77), all.clone(), 2),
        ("from another's block", rule(100, Some("10.244.9.0/24"), None, 77), vec![], 0),
        ("from elsewhere", rule(100, Some("10.9.0.0/16"), None, 77), vec![], 0),
        ("behind ours, before main", rule(1121, pool, None, 77), BLOCKS.to_vec(), 1),
        ("behind main", rule(32_767, pool, None, 77), vec![], 0),
        ("to a block", rule(100, None, Some("10.244.7.0/24"), 77), BLOCKS[..2].to_vec(), 1),
        ("to a part of a block", rule(100, None, Some("10.244.7.64/26"), 77), BLOCKS[..2].to_vec(), 1),
        ("to a node", rule(100, None, Some("198.51.100.7/32"), 77), vec![HOSTS[1]], 1),
        ("to a table without a route", rule(100, pool, None, 79), vec![], 0),
        ("to a table with a part", rule(100, pool, None, 78), BLOCKS[..2].to_vec(), 1),
        ("to main", rule(100, None, None, MAIN), vec![HOSTS[1]], 1),
        // As WireGuard's wg-quick has it: the default route does not count.
        ("to main without its default route", suppressed(MAIN), vec![], 0),
        ("to a default route that does not count", suppressed(77), vec![], 0),
        ("to our table", rule(100, None, None, OURS), vec![], 0),
        ("with a mark", ForeignRule { asks_more: true, ..rule(100, pool, None, 77) }, vec![], 0),
        ("an end", ForeignRule { action: RuleAction::End, ..rule(100, pool, None, 0) }, all.clone(), 2),
        ("a jump", ForeignRule { action: RuleAction::Other, ..rule(100, pool, None, 0) }, vec![], 0),
        ("of IPv6", ForeignRule { ipv6: true, ..rule(100, None, None, 77) }, vec![], 0),
        (
            "by pods' bridge",
            ForeignRule { input: Some("cni0".to_owned()), ..rule(100, None, None, 77) },
            all,
            2,
        ),
        (
            "by another device",
            ForeignRule { input: Some("lo".to_owned()), ..rule(100, None, None, 77) },
            vec![],
            0,
        ),
    ];
    for (what, rule, expected, conflicts) in cases {
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        let (mut found, count) = passed(&observed(vec![rule]));
        found.sort();
        let mut expected = expected;
        expected.sort();
        assert_eq!((found, count), (expected, conflicts), "{what}");
    }
}

#[test]
fn a_rule_is_one_conflict_that_names_it_and_what_to_do() {
    let found = find(&observed(vec![rule(100, Some("10.244.0.0/16"), None, 77)]), &wanted());
    let conflict = &found.conflicts[0];
    assert_eq!(conflict.wanted, "routes of table 1120 (ipv4) behind rule 100");
    assert!(
        conflict.found.starts_with("rule 100 from 10.244.0.0/16 lookup 77, route 0.0.0.0/0 via 192.0.2.77")
    );
    assert!(
        conflict.hint.contains("and 1 more follow it") && conflict.hint.contains("above 1120"),
        "{}",
        conflict.hint
    );
}

#[test]
fn a_route_inside_of_a_peers_block_takes_a_part_of_it() {
    let mut observed = observed(Vec::new());
    assert_eq!(passed(&observed), (vec![], 0), "our own pods, and what is connected, are no conflicts");
    observed.foreign_routes.push(route(MAIN, "10.244.7.64/26", Some("192.0.2.9"), "eth0"));
    observed.foreign_routes.push(route(MAIN, "10.244.7.9/32", Some("192.0.2.9"), "eth0"));
    observed.foreign_routes.push(route(MAIN, "10.9.0.0/16", Some("192.0.2.9"), "eth0"));
    observed.foreign_routes.push(route(77, "10.244.8.9/32", Some("192.0.2.9"), "eth0"));
    assert_eq!(passed(&observed), (vec![BLOCKS[1].to_owned()], 1));
    let found = find(&observed, &wanted());
    assert_eq!(found.conflicts[0].wanted, "route 10.244.7.0/24 table 254 metric 1120");
    assert!(found.conflicts[0].found.contains("10.244.7.64/26 via 192.0.2.9 dev eth0"));
    assert!(found.conflicts[0].found.ends_with("and 1 more"), "{}", found.conflicts[0].found);
}

/// Prefixes that often lie inside of one another.
fn prefix() -> impl Strategy<Value = IpNet> {
    (0u32..32, 0u8..7).prop_map(|(high, length)| {
        IpNet::new(std::net::Ipv4Addr::from(high << 27).into(), length).expect("a short length").trunc()
    })
}

fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

proptest! {
    #[test]
    fn a_search_finds_what_looking_at_each_finds(
        prefixes in prop::collection::vec((prefix(), 0u32..3), 0..20),
        ours_at in prop::collection::vec(prefix(), 0..12),
        asked in prefix(),
        to in prop::option::of(prefix()),
        suppress in prop::option::of(0u32..5),
    ) {
        let mut routes: Vec<_> = prefixes
            .into_iter()
            .map(|(prefix, metric)| {
                let found = route(77, &prefix.to_string(), None, "eth0");
                InstalledRoute { key: RouteKey { metric, ..found.key }, ..found }
            })
            .collect();
        routes.sort_by_key(|route| route.key);
        let observed = Observed { foreign_routes: routes, ..Observed::default() };
        let expected = observed
            .foreign_routes
            .iter()
            .filter(|route| suppress.is_none_or(|least| u32::from(route.key.prefix.prefix_len()) > least))
            .filter(|route| overlap(route.key.prefix, asked))
            .max_by_key(|route| route.key.prefix.prefix_len());
        let tables = tables(&observed);
        let found = tables.get(&(77, false)).and_then(|routes| routes.longest(asked, suppress));
        prop_assert_eq!(found, expected);

        let mut wanted = State::default();
        for prefix in ours_at {
            for table in [77, MAIN] {
                let target = Route { target: RouteTarget::Unreachable, source: None, mtu: None };
                wanted.routes.insert(RouteKey { table, prefix, metric: 7 }, target);
            }
        }
        let rule = ForeignRule { to, ..rule(100, None, None, 77) };
        let found: BTreeSet<&RouteKey> = ours(&wanted, MAIN, &rule).map(|(key, _)| key).collect();
        let concerned = |key: &&RouteKey| key.table == MAIN && to.is_none_or(|to| overlap(to, key.prefix));
        prop_assert_eq!(found, wanted.routes.keys().filter(concerned).collect::<BTreeSet<_>>());
    }
}
