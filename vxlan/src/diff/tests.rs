use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::fake::{FakeKernel, Kind as K, errno};
use crate::reconcile::{Dataplane, Refused, Report, reconcile};
use crate::state::{Gateway, InstalledRoute, IpTunnel, Settings, TunnelId, TunnelKind};
use crate::testing::{Spec, arbitrary_spec, link, route_key, vx4};

fn pass(kernel: &FakeKernel, wanted: &State) -> Report {
    let mut handle = kernel.clone();
    let observed = handle.observe(&[]).unwrap();
    reconcile(&mut handle, &observed, wanted)
}

/// Whether the kernel holds exactly this; of `rp_filter` only what is wanted counts.
fn holds(kernel: &FakeKernel, wanted: &State) -> Result<(), TestCaseError> {
    let mut now = kernel.observed(&[]).ours;
    let rp_filter = std::mem::take(&mut now.rp_filter);
    let wanted = wanted.clone().normalised();
    for (name, value) in &wanted.rp_filter {
        prop_assert_eq!(rp_filter.get(name), Some(value), "rp_filter of {}", name);
    }
    now.rp_filter.clone_from(&wanted.rp_filter);
    prop_assert_eq!(now, wanted);
    Ok(())
}

fn quiet(kernel: &FakeKernel, wanted: &State) -> Result<(), TestCaseError> {
    let changes = diff(&kernel.observed(&[]), wanted).changes;
    prop_assert!(changes.is_empty(), "a second pass wants {changes:?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_the_diff_gives_the_wanted_state(a in arbitrary_spec(), b in arbitrary_spec()) {
        let kernel = Spec::node();
        for wanted in [a.state(), b.state(), State::default(), b.state()] {
            let report = pass(&kernel, &wanted);
            // The kernel refuses a change whose ground is missing: none refused means that each prefix was legal.
            prop_assert!(report.failures.is_empty(), "{:#?}", report.failures);
            prop_assert!(report.conflicts.is_empty());
            holds(&kernel, &wanted)?;
            quiet(&kernel, &wanted)?;
        }
    }

    #[test]
    fn a_route_that_stays_is_never_missing(a in arbitrary_spec(), b in arbitrary_spec()) {
        let kernel = Spec::node();
        // A device that is replaced or set down takes its routes along, and so does an object whose family changes:
        // that is not in question here.
        let (from, to) = (a.state(), b.keeping_devices_and_ids_of(&a).state());
        let _ = pass(&kernel, &from);
        let lasting: Vec<RouteKey> = from
            .clone()
            .normalised()
            .routes
            .into_keys()
            .filter(|key| to.clone().normalised().routes.contains_key(key))
            .collect();
        let mut handle = kernel.clone();
        for change in diff(&kernel.observed(&[]), &to).changes {
            prop_assert_eq!(handle.apply(std::slice::from_ref(&change)), Refused::new());
            let routes = kernel.state().routes;
            for key in &lasting {
                prop_assert!(routes.contains_key(key), "{:?} is missing after {:?}", key, change);
            }
        }
    }

    #[test]
    fn a_failed_change_is_made_good(a in arbitrary_spec(), b in arbitrary_spec(), failing in 0usize..40, count in 1usize..4) {
        let kernel = Spec::node();
        let wanted = b.state();
        let _ = pass(&kernel, &a.state());
        let changes = diff(&kernel.observed(&[]), &wanted).changes;
        let mut handle = kernel.clone();
        let failing = failing.min(changes.len());
        let head = handle.apply(&changes[..failing]);
        prop_assert!(head.is_empty());
        kernel.fail_next(count, errno::ENOMEM);
        let _ = handle.apply(&changes[failing..]);
        kernel.heal();
        // What was built on the ground that failed comes one pass later.
        let report = pass(&kernel, &wanted);
        prop_assert!(report.failures.is_empty(), "{:#?}", report.failures);
        holds(&kernel, &wanted)?;
        quiet(&kernel, &wanted)?;
    }

    #[test]
    fn drift_is_repaired_in_one_pass(spec in arbitrary_spec(), hits in prop::collection::vec((0u8..11, any::<prop::sample::Index>()), 1..6)) {
        let kernel = Spec::node();
        let wanted = spec.state();
        let _ = pass(&kernel, &wanted);
        for (what, index) in hits {
            drift(&kernel, what, index);
        }
        let report = pass(&kernel, &wanted);
        prop_assert!(report.failures.is_empty(), "{:#?}", report.failures);
        holds(&kernel, &wanted)?;
        quiet(&kernel, &wanted)?;
    }

    #[test]
    fn foreign_objects_are_reported_and_never_touched(
        a in arbitrary_spec(),
        b in arbitrary_spec(),
        plants in prop::collection::vec((0u8..5, any::<prop::sample::Index>()), 1..4),
    ) {
        let kernel = Spec::node();
        let _ = pass(&kernel, &a.state());
        let wanted = b.state().normalised();
        let planted = plants.into_iter().filter(|(what, index)| plant(&kernel, &wanted, *what, *index)).count();
        let foreign = |kernel: &FakeKernel| {
            let mut seen = kernel.observed(&["10.0.0.0/30".parse().unwrap(), "10.244.1.0/24".parse().unwrap()]);
            let ours = std::mem::take(&mut seen.ours);
            seen.interfaces.retain(|name, _| !ours.links.contains_key(name));
            seen
        };
        let before = foreign(&kernel);
        let watched: Vec<_> = wanted.routes.keys().map(|key| key.prefix).collect();
        let mut handle = kernel.clone();
        let observed = handle.observe(&watched).unwrap();
        let report = reconcile(&mut handle, &observed, &wanted);
        prop_assert!(report.failures.is_empty(), "{:#?}", report.failures);
        prop_assert_eq!(report.conflicts.is_empty(), planted == 0);
        let repeated = diff(&handle.observe(&watched).unwrap(), &wanted);
        prop_assert!(repeated.changes.is_empty(), "a second pass wants {:?}", repeated.changes);
        prop_assert_eq!(foreign(&kernel), before);
    }
}

/// Something goes wrong in the kernel, as it does when others work on it.
fn drift(kernel: &FakeKernel, what: u8, index: prop::sample::Index) {
    let state = kernel.state();
    let device = |kernel: &FakeKernel| {
        let names: Vec<LinkName> = kernel.state().links.into_keys().collect();
        (!names.is_empty()).then(|| names[index.index(names.len())].clone())
    };
    match what {
        0 => {
            if let Some(name) = device(kernel) {
                kernel.remove_interface(name.as_str());
            }
        }
        1 => {
            if let Some(name) = device(kernel) {
                kernel.set_up(name.as_str(), false);
                kernel.set_up(name.as_str(), true);
            }
        }
        2 => {
            if let Some(name) = device(kernel) {
                kernel.rename_interface(name.as_str(), "stray0");
            }
        }
        3 => kernel.set_carrier("eth0", false),
        4 => kernel.tamper("routes flushed", |state| state.routes.clear()),
        5 => kernel.tamper("neighbours flushed", |state| state.neighbors.clear()),
        6 => kernel.tamper("an FDB entry moved", |state| {
            if let Some(remote) = state.fdb.values_mut().next() {
                *remote = match remote {
                    IpAddr::V4(_) => "192.0.2.250".parse().unwrap(),
                    IpAddr::V6(_) => "2001:db8::250".parse().unwrap(),
                };
            }
        }),
        7 => {
            let ids: Vec<NexthopId> = state.nexthops.into_keys().collect();
            if !ids.is_empty() {
                let id = ids[index.index(ids.len())];
                kernel.tamper("a nexthop deleted", |state| effects::nexthop_deleted(state, id));
            }
        }
        8 => kernel.tamper("the ruleset flushed, or a set, or a chain", |state| {
            let Some(table) = &mut state.firewall else { return };
            match index.index(3) {
                0 => state.firewall = None,
                1 => table.sets.values_mut().for_each(|set| set.elements.clear()),
                _ => table.chains.values_mut().for_each(|chain| chain.rules.clear()),
            }
        }),
        9 => {
            if let Some(name) = device(kernel) {
                let bent = [Settings::Bent, Settings::Alien][index.index(2)];
                kernel.tamper("settings bent", |state| {
                    if let Some(link) = state.links.get_mut(&name) {
                        link.settings = bent;
                    }
                });
            }
        }
        _ => kernel.tamper("a plain route with our mark", |state| {
            if let Some(route) = state.routes.values_mut().next() {
                route.target = RouteTarget::Other;
            }
        }),
    }
    kernel.set_carrier("eth0", true);
}

/// Puts something foreign in the way of what is wanted; says whether it stands in the way.
fn plant(kernel: &FakeKernel, wanted: &State, what: u8, index: prop::sample::Index) -> bool {
    let state = kernel.state();
    match what {
        0 => {
            let names: Vec<_> = wanted.links.keys().filter(|name| !state.links.contains_key(name)).collect();
            let Some(name) = (!names.is_empty()).then(|| names[index.index(names.len())]) else {
                return false;
            };
            kernel.add_interface(name.as_str(), "bridge", 1500, &[]);
            true
        }
        1 => {
            let free = wanted.links.iter().filter(|(name, link)| {
                state.links.get(*name).is_none_or(|now| now.id() != link.id())
                    && state.links.values().all(|now| now.id() != link.id())
            });
            let ids: Vec<TunnelId> = free.map(|(_, link)| link.id()).collect();
            if ids.is_empty() {
                return false;
            }
            kernel.add_foreign_tunnel("flannel.1", ids[index.index(ids.len())]);
            true
        }
        2 => {
            let ids: Vec<_> = wanted.nexthops.keys().filter(|id| !state.nexthops.contains_key(id)).collect();
            let Some(id) = (!ids.is_empty()).then(|| *ids[index.index(ids.len())]) else { return false };
            kernel.add_foreign_nexthop(id);
            true
        }
        what => {
            // Where there is none of ours, and beside one of ours.
            let beside = what == 4;
            let keys: Vec<_> =
                wanted.routes.keys().filter(|key| state.routes.contains_key(key) == beside).collect();
            let Some(key) = (!keys.is_empty()).then(|| *keys[index.index(keys.len())]) else { return false };
            kernel.add_foreign_route(InstalledRoute {
                key,
                protocol: 12,
                link: Some(link("eth0")),
                gateway: None,
            });
            true
        }
    }
}

/// One peer with two blocks behind a nexthop object, over the tunnel.
fn tunnelled() -> State {
    let mut state = vx4();
    let peer = Mac([2, 0, 0, 0, 0, 7]);
    state.neighbors.insert(NeighborKey { link: link("vx4"), address: "10.244.7.0".parse().unwrap() }, peer);
    state.fdb.insert(FdbKey { link: link("vx4"), mac: peer }, "192.0.2.17".parse().unwrap());
    let gateway = Gateway { address: "10.244.7.0".parse().unwrap(), onlink: true };
    state.nexthops.insert(NexthopId(7), Nexthop { gateway, link: link("vx4") });
    for prefix in ["10.244.7.0/24", "10.244.17.0/24"] {
        let route = Route { target: RouteTarget::Nexthop(NexthopId(7)), source: None, mtu: None };
        state.routes.insert(route_key(prefix), route);
    }
    state
}

/// The same peer, native: tunnel entries stay ready.
fn native() -> State {
    let mut state = tunnelled();
    let gateway = Gateway { address: "192.0.2.17".parse().unwrap(), onlink: false };
    state.nexthops.insert(NexthopId(7), Nexthop { gateway, link: link("eth0") });
    state
}

#[test]
fn switching_a_peer_is_one_message() {
    let kernel = Spec::node();
    let _ = pass(&kernel, &tunnelled());
    for wanted in [native(), tunnelled()] {
        let report = pass(&kernel, &wanted);
        let nexthop = wanted.nexthops[&NexthopId(7)].clone();
        assert_eq!(report.applied, [Change::SetNexthop(NexthopId(7), nexthop)]);
    }
}

#[test]
fn a_shrinking_mtu_is_written_before_the_nexthop_moves_and_a_growing_one_after() {
    let kernel = Spec::node();
    let _ = pass(&kernel, &native());
    let mut small = tunnelled();
    small.routes.values_mut().for_each(|route| route.mtu = Some(1350));
    let order = |report: &Report| report.applied.iter().map(K::of).collect::<Vec<_>>();
    assert_eq!(order(&pass(&kernel, &small)), [K::Route, K::Route, K::Nexthop]);
    assert_eq!(order(&pass(&kernel, &native())), [K::Nexthop, K::Route, K::Route]);
}

#[test]
fn what_is_added_comes_in_order_and_goes_in_reverse() {
    let kernel = Spec::node();
    let mut wanted = tunnelled();
    wanted.rules.insert(Rule { priority: 110, from: "10.244.0.0/16".parse().unwrap(), table: 9000 });
    wanted.rp_filter.insert(link("vx4"), 2);
    let kinds = |report: &Report| {
        let mut kinds: Vec<_> = report.applied.iter().map(K::of).collect();
        kinds.dedup();
        kinds
    };
    let report = pass(&kernel, &wanted);
    assert_eq!(
        kinds(&report),
        [K::Link, K::RpFilter, K::Address, K::Neighbor, K::Fdb, K::Nexthop, K::Route, K::Rule]
    );
    let mut bare = vx4();
    bare.addresses.clear();
    let report = pass(&kernel, &bare);
    assert_eq!(kinds(&report), [K::Rule, K::Route, K::Nexthop, K::Fdb, K::Neighbor, K::Address]);
    assert_eq!(pass(&kernel, &State::default()).applied, [Change::DeleteLink(link("vx4"))]);
}

#[test]
fn a_device_whose_vni_changes_is_replaced_with_all_that_hangs_on_it() {
    let kernel = Spec::node();
    let _ = pass(&kernel, &tunnelled());
    let mut wanted = tunnelled();
    wanted.links.values_mut().filter_map(TunnelLink::vxlan_mut).for_each(|vxlan| vxlan.vni.0 += 1);
    let report = pass(&kernel, &wanted);
    assert!(report.failures.is_empty());
    let mut count = BTreeMap::new();
    for change in &report.applied {
        *count.entry(K::of(change)).or_insert(0) += 1;
    }
    let expected =
        [(K::Link, 2), (K::Address, 1), (K::Neighbor, 1), (K::Fdb, 1), (K::Nexthop, 1), (K::Route, 2)];
    assert_eq!(count, expected.into());
}

#[test]
fn a_peer_that_turns_native_while_its_device_is_replaced_loses_no_route() {
    let kernel = Spec::node();
    let _ = pass(&kernel, &tunnelled());
    let mut wanted = native();
    wanted.links.values_mut().filter_map(TunnelLink::vxlan_mut).for_each(|vxlan| vxlan.vni.0 += 1);
    let report = pass(&kernel, &wanted);
    let routes = report.applied.iter().filter(|change| K::of(change) == K::Route);
    assert_eq!(routes.count(), 0, "{:#?}", report.applied);
    assert!(matches!(report.applied[0], Change::SetNexthop(..)));
}

#[test]
fn a_foreign_device_of_our_name_blocks_what_depends_on_it_and_nothing_else() {
    let kernel = Spec::node();
    kernel.add_interface("vx4", "bridge", 1500, &[]);
    let mut wanted = tunnelled();
    let gateway = Gateway { address: "192.0.2.18".parse().unwrap(), onlink: false };
    wanted.nexthops.insert(NexthopId(8), Nexthop { gateway, link: link("eth0") });
    let route = Route { target: RouteTarget::Nexthop(NexthopId(8)), source: None, mtu: None };
    wanted.routes.insert(route_key("10.244.8.0/24"), route);
    let report = pass(&kernel, &wanted);
    assert!(report.failures.is_empty());
    assert_eq!(report.applied.len(), 2, "{:#?}", report.applied);
    assert_eq!(report.conflicts.len(), 1);
    let conflict = &report.conflicts[0];
    assert_eq!(conflict.wanted, "device vx4");
    assert_eq!(conflict.found, "device vx4 (kind bridge, alias \"\") which is not marked as ours");
    assert!(conflict.hint.contains("ip link delete vx4"));

    kernel.remove_interface("vx4");
    assert!(pass(&kernel, &wanted).failures.is_empty());
    assert_eq!(kernel.state().routes.len(), 3);
}

#[test]
fn a_foreign_route_that_would_win_is_a_conflict_and_a_worse_one_is_not() {
    let rival = |metric| InstalledRoute {
        key: RouteKey { metric, ..route_key("10.244.7.0/24") },
        protocol: 12,
        link: Some(link("eth0")),
        gateway: Some("192.0.2.9".parse().unwrap()),
    };
    let mut wanted = tunnelled();
    wanted.routes.retain(|key, _| *key == route_key("10.244.7.0/24"));
    let mut at_50 = wanted.clone();
    at_50.routes =
        wanted.routes.iter().map(|(key, r)| (RouteKey { metric: 50, ..*key }, r.clone())).collect();

    for (metric, conflicts) in [(50, 1), (49, 1), (51, 0)] {
        let kernel = Spec::node();
        kernel.add_foreign_route(rival(metric));
        let mut handle = kernel.clone();
        let observed = handle.observe(&["10.244.7.0/24".parse().unwrap()]).unwrap();
        let report = reconcile(&mut handle, &observed, &at_50);
        assert!(report.failures.is_empty(), "metric {metric}: {:?}", report.failures);
        assert_eq!(report.conflicts.len(), conflicts, "metric {metric}");
        assert_eq!(kernel.state().routes.len(), 1 - conflicts, "metric {metric}");
    }
}

#[test]
fn beside_a_foreign_route_of_its_key_a_route_is_left_as_it_is_and_can_still_go() {
    let kernel = Spec::node();
    let _ = pass(&kernel, &tunnelled());
    let key = route_key("10.244.7.0/24");
    kernel.add_foreign_route(InstalledRoute { key, protocol: 12, link: None, gateway: None });
    let watchful = |wanted: &State| {
        let mut handle = kernel.clone();
        let observed = handle.observe(&[key.prefix]).unwrap();
        reconcile(&mut handle, &observed, wanted)
    };
    let mut wanted = tunnelled();
    wanted.routes.values_mut().for_each(|route| route.mtu = Some(1300));
    let report = watchful(&wanted);
    let written: Vec<_> = report.applied.iter().map(ToString::to_string).collect();
    assert_eq!(written, ["set route 10.244.17.0/24 in table 254"]);
    assert_eq!(report.conflicts.len(), 1);
    // The pair still moves, by its nexthop object.
    let mut wanted = native();
    wanted.routes.values_mut().for_each(|route| route.mtu = Some(1300));
    assert!(matches!(watchful(&wanted).applied.as_slice(), [Change::SetNexthop(..)]));
    let report = watchful(&State::default());
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(kernel.state().routes.is_empty());
    assert_eq!(kernel.observed(&[key.prefix]).foreign_routes.len(), 1);

    let _ = watchful(&tunnelled());
    assert!(!kernel.state().routes.contains_key(&key), "the way is not free");
    kernel.remove_foreign_route(key);
    let _ = watchful(&tunnelled());
    assert!(kernel.state().routes.contains_key(&key), "it is");
}

/// An IP tunnel beside the VXLAN device, and a peer's next hop in it.
fn with_ipip() -> State {
    let mut state = tunnelled();
    let device = TunnelLink {
        kind: TunnelKind::Ip(IpTunnel::Ipip),
        local: "192.0.2.1".parse().unwrap(),
        mtu: 1480,
        up: true,
        settings: Settings::Ours,
    };
    state.links.insert(link("ipip"), device);
    state
}

fn through_ipip() -> State {
    let mut state = with_ipip();
    let gateway = Gateway { address: "192.0.2.17".parse().unwrap(), onlink: true };
    state.nexthops.insert(NexthopId(7), Nexthop { gateway, link: link("ipip") });
    state
}

#[test]
fn a_peer_moves_between_all_paths_by_one_message() {
    let kernel = Spec::node();
    let mut native = native();
    native.links = with_ipip().links;
    let _ = pass(&kernel, &with_ipip());
    for wanted in [through_ipip(), native.clone(), through_ipip(), with_ipip(), native] {
        let applied = pass(&kernel, &wanted).applied;
        assert!(matches!(applied.as_slice(), [Change::SetNexthop(..)]), "{applied:#?}");
    }
}

#[test]
fn an_ip_tunnel_follows_its_local_address_and_loses_nothing() {
    let kernel = Spec::node();
    let _ = pass(&kernel, &through_ipip());
    let mut wanted = through_ipip();
    wanted.links.get_mut(&link("ipip")).unwrap().local = "192.0.2.9".parse().unwrap();
    assert!(matches!(pass(&kernel, &wanted).applied.as_slice(), [Change::SetLink(..)]));
    // A stray of ours with the address that is wanted elsewhere goes first.
    kernel.rename_interface("ipip", "stray0");
    let report = pass(&kernel, &through_ipip());
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    kernel.rename_interface("ipip", "stray0");
    let mut both = wanted.clone();
    both.links.insert(link("stray0"), through_ipip().links[&link("ipip")].clone());
    let _ = pass(&kernel, &both);
    let report = pass(&kernel, &through_ipip());
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(holds(&kernel, &through_ipip()).is_ok());
}

#[test]
fn settings_are_set_back_where_they_can_be_and_else_the_device_is_made_anew() {
    for (settings, replaced) in [(Settings::Bent, false), (Settings::Alien, true)] {
        for name in ["vx4", "ipip"] {
            let kernel = Spec::node();
            let _ = pass(&kernel, &with_ipip());
            kernel.tamper("settings", |state| state.links.get_mut(&link(name)).unwrap().settings = settings);
            let report = pass(&kernel, &with_ipip());
            assert!(report.failures.is_empty());
            let first = &report.applied[0];
            assert_eq!(matches!(first, Change::DeleteLink(_)), replaced, "{name} {settings:?}: {first:?}");
            assert!(replaced || report.applied.len() == 1, "nothing else is touched");
            assert!(holds(&kernel, &with_ipip()).is_ok());
        }
    }
}

#[test]
fn a_foreign_tunnel_with_our_local_address_is_a_conflict_and_the_fallback_device_is_none() {
    let kernel = Spec::node();
    let id = |local: &str| TunnelId::Ip { kind: IpTunnel::Ipip, local: local.parse().unwrap() };
    kernel.add_foreign_tunnel("tunl0", id("0.0.0.0"));
    kernel.add_foreign_tunnel("theirs", id("192.0.2.1"));
    let report = pass(&kernel, &through_ipip());
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert_eq!(report.conflicts.len(), 1);
    assert!(report.conflicts[0].found.starts_with("tunnel device theirs"), "{:?}", report.conflicts);
    kernel.remove_interface("theirs");
    assert!(pass(&kernel, &through_ipip()).conflicts.is_empty());
    assert!(holds(&kernel, &through_ipip()).is_ok());
}

#[test]
fn the_same_prefix_in_another_table_is_no_conflict() {
    let kernel = Spec::node();
    let key = RouteKey { table: 100, ..route_key("10.244.7.0/24") };
    kernel.add_foreign_route(InstalledRoute { key, protocol: 12, link: None, gateway: None });
    let mut handle = kernel.clone();
    let observed = handle.observe(&["10.244.7.0/24".parse().unwrap()]).unwrap();
    assert_eq!(observed.foreign_routes.len(), 1);
    assert!(reconcile(&mut handle, &observed, &tunnelled()).conflicts.is_empty());
}

#[test]
fn rp_filter_of_a_missing_device_is_not_written() {
    let kernel = Spec::node();
    let mut wanted = State::default();
    wanted.rp_filter.insert(link("eth0"), 2);
    wanted.rp_filter.insert(link("eth9"), 2);
    assert_eq!(pass(&kernel, &wanted).applied, [Change::SetRpFilter(link("eth0"), 2)]);
    // No longer wanted: a setting is not an object, it stays until another value is wanted.
    assert!(pass(&kernel, &State::default()).applied.is_empty());
}
