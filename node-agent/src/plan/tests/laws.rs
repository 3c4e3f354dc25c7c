//! Laws that every plan keeps, over random worlds and the changes between them, on a kernel that has rules.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vxlan::fake::FakeKernel;
use vxlan::{Dataplane, RouteTarget, diff, reconcile};

use super::*;
use crate::underlay::choose;

/// A peer of a random world.
#[derive(Debug, Clone)]
struct AnyPeer {
    index: u8,
    underlay: Vec<String>,
    blocks: Vec<String>,
    learned: bool,
}

prop_compose! {
    fn any_peer()(
        index in 2_u8..8,
        subnet in prop_oneof![Just("192.0.2"), Just("198.51.100"), Just("10.244.9")],
        length in prop_oneof![Just(24_u8), Just(32), Just(16)],
        host in prop_oneof![9 => Just(0_u8), 1 => Just(11)],
        ipv4 in prop::bool::weighted(0.8),
        ipv6 in prop::bool::weighted(0.5),
        blocks in prop::collection::btree_set(0_u8..5, 0..3),
        learned in any::<bool>(),
    ) -> AnyPeer {
        let mut underlay = Vec::new();
        let host = if host == 0 { index + 20 } else { host };
        if ipv4 {
            underlay.push(format!("{subnet}.{host}/{length}"));
        }
        if ipv6 {
            underlay.push(format!("2001:db8::{host}/64"));
        }
        let blocks = blocks
            .into_iter()
            .map(|which| match which {
                0..3 => format!("10.244.{}.0/24", index * 4 + which),
                3 => format!("fd10:244:0:{index}::/64"),
                // One that this node may hold.
                _ => "10.244.1.0/24".to_owned(),
            })
            .collect();
        AnyPeer { index, underlay, blocks, learned }
    }
}

fn world(
    own: &[&str],
    held: &[&str],
    peers: &[AnyPeer],
    ipip: &[IpTunnel],
    memory: Memory,
) -> (Scene, FakeKernel) {
    let mut scene = Scene::new(format!("n1 {}", held.join(" ")).trim(), &[]);
    if !ipip.is_empty() {
        scene.config.paths.cross_subnet = PathUse::Ipip;
        scene.config.paths.fallback = PathUse::Ipip;
        scene.ip_tunnels = ipip.iter().copied().collect();
    }
    scene.config.pools.push(pool("fd10:244::/48", 64));
    scene.memory = memory;
    for peer in peers {
        let name = format!("n{}", peer.index);
        let words: Vec<&str> = peer.underlay.iter().chain(&peer.blocks).map(String::as_str).collect();
        scene.add(format!("{name} {}", words.join(" ")).trim());
        if peer.learned {
            let blocks: Vec<&str> = peer.blocks.iter().map(String::as_str).collect();
            scene.established(&name, &blocks);
        }
    }
    (scene, FakeKernel::node(own, 1500))
}

/// One pass of an agent without the agent.
fn pass(scene: &mut Scene, kernel: &FakeKernel) -> Plan {
    let watched = watched(&scene.config, &scene.snapshot);
    let mut dataplane = kernel.clone();
    scene.observed = dataplane.observe(&watched).unwrap();
    let pools: Vec<IpNet> = scene.config.pools.iter().map(|pool| pool.cidr).collect();
    scene.local = choose(&scene.config.node.underlay, &pools, &scene.observed, &scene.local).local;
    let plan = scene.plan();
    let report = reconcile(&mut dataplane, &scene.observed, &plan.dataplane);
    assert_eq!(report.failures, [], "the kernel takes the plan");
    assert_eq!(report.conflicts, []);
    let after = dataplane.observe(&watched).unwrap();
    assert_eq!(diff(&after, &plan.dataplane).changes, [], "and there is nothing left to do");
    scene.memory.clone_from(&plan.memory);
    plan
}

fn lawful(scene: &Scene, plan: &Plan) {
    let holders: BTreeMap<IpNet, &str> = scene
        .snapshot
        .claims
        .values()
        .filter_map(|claim| claim.holder.as_ref().map(|holder| (claim.block.net(), holder.as_str())))
        .collect();
    assert_eq!(plan.dataplane.flaws(), []);
    for (key, route) in &plan.dataplane.routes {
        match &route.target {
            RouteTarget::Nexthop(id) => {
                assert!(plan.dataplane.nexthops.contains_key(id), "{key:?} leads nowhere");
                if key.table == MAIN_TABLE {
                    // Invariants 10 and 13: to the holder that the claim names, and never over a block of ours.
                    assert_eq!(holders.get(&key.prefix).copied(), plan.owners().get(key).copied());
                    assert!(scene.held.iter().all(|own| !own.net().contains(&key.prefix)));
                }
            }
            RouteTarget::Unreachable => assert_eq!(key.metric, UNREACHABLE_METRIC),
            RouteTarget::Other => panic!("never wanted"),
        }
    }
    for pair in &plan.pairs {
        let works = pair.decision.path != Path::None;
        assert_eq!(works, pair.needs.nexthop.is_some(), "{pair:?}");
        assert!(pair.needs.met(&plan.dataplane, &plan.dataplane) || !works);
        assert_eq!(works, pair.mtu > 0, "{pair:?}");
        assert_eq!(works, pair.local.is_some() && pair.remote.is_some(), "{pair:?}");
    }
    for peer in plan.peers.values() {
        assert!(!peer.families.is_empty());
        for rule in &peer.import.rules {
            assert!(holders.contains_key(&rule.prefix), "only what is claimed is accepted");
            assert_eq!(rule.next_hops.as_ref().map(BTreeSet::len), Some(1));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_kernel_takes_every_plan_and_every_change_between_two(
        families in 1_u8..4,
        before in prop::collection::vec(any_peer(), 0..5),
        after in prop::collection::vec(any_peer(), 0..5),
        held in any::<(bool, bool)>(),
        ipip in prop::collection::vec(prop::sample::subsequence(IpTunnel::ALL.to_vec(), 0..=2), 2),
    ) {
        let own: Vec<&str> = [(1, "192.0.2.11/24"), (2, "2001:db8::11/64")]
            .into_iter()
            .filter(|(bit, _)| families & bit != 0)
            .map(|(_, address)| address)
            .collect();
        let held: Vec<&str> = [(held.0, "10.244.1.0/24"), (held.1, "fd10:244:0:1::/64")]
            .into_iter()
            .filter(|(is, _)| *is)
            .map(|(_, block)| block)
            .collect();
        let (mut scene, kernel) = world(&own, &held, &before, &ipip[0], Memory::new());
        let plan = pass(&mut scene, &kernel);
        lawful(&scene, &plan);
        let again = pass(&mut scene, &kernel);
        prop_assert_eq!(&plan.dataplane, &again.dataplane, "a plan does not depend on what it has made");
        // What was native stays in the memory: sessions come and go between the two worlds.
        let (mut next, _) = world(&own, &held, &after, &ipip[1], scene.memory.clone());
        let plan = pass(&mut next, &kernel);
        lawful(&next, &plan);
    }
}
