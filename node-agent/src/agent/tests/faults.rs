//! What fails, goes and comes back: changes that the kernel refuses, tampering, the underlay, the store.

use std::time::Duration;

use vxlan::fake::{Kind, errno};
use vxlan::{Forwarding, InstalledRoute, RouteKey};

use super::super::repairs::BURST;
use super::harness::Cluster;
use crate::node::{Block, Claim};
use crate::store::{Store as _, StoreTrouble};

const N1: (&str, &str) = ("n1", "192.0.2.11/24");
const N2: (&str, &str) = ("n2", "192.0.2.12/24");
const N3: (&str, &str) = ("n3", "198.51.100.13/24");

/// Each number of refused changes over a start, a repair and a flip: the agent says so and gets there.
#[tokio::test]
async fn changes_that_fail_are_tried_again() {
    for count in [1, 2, 3, 5, 8, 13, 40] {
        let mut cluster = Cluster::new();
        for (name, address) in [N1, N2, N3] {
            cluster.add(name, &[address]);
            cluster.node(name).kernel.fail_next(count, errno::ENOMEM);
            cluster.start(name);
        }
        cluster.converged().await;
        let counted = cluster.node("n1").published().counters.change_failures.values().sum::<u64>();
        // What stands on a refused object is refused with it.
        assert!(counted >= u64::try_from(count).unwrap(), "{counted} of {count}");
        let want = cluster.node("n1").kernel.state();
        cluster.node("n1").kernel.fail_next(count, errno::EBUSY);
        cluster.node("n1").kernel.remove_interface("pairway-vx4");
        cluster.node("n1").until("repaired", |_| cluster.node("n1").kernel.state() == want).await;
        cluster.node("n1").kernel.fail_next(count, errno::EBUSY);
        cluster.fabric.cut("192.0.2.12");
        cluster.path("n1", "n2", "vxlan", "bgp-down").await;
        assert!(cluster.node("n1").published().status.failures.is_empty());
    }
}

#[tokio::test]
async fn each_kind_of_object_may_fail() {
    let kinds = [
        Kind::Link,
        Kind::RpFilter,
        Kind::Address,
        Kind::Neighbor,
        Kind::Fdb,
        Kind::Nexthop,
        Kind::Route,
        Kind::Rule,
    ];
    for kind in kinds {
        let mut cluster = Cluster::new();
        for (name, address) in [N1, N3] {
            cluster.add(name, &[address]);
        }
        cluster.node("n1").kernel.fail_kind(kind, usize::MAX, errno::EINVAL);
        cluster.start("n1");
        cluster.start("n3");
        let node = cluster.node("n1");
        let failing = node.until("a failure", |published| !published.status.failures.is_empty()).await;
        assert!(!failing.status.ready, "{kind:?}");
        assert_eq!(failing.status.not_ready_reasons, ["dataplane"], "{kind:?}");
        node.kernel.heal();
        cluster.converged().await;
        assert!(node.published().status.failures.is_empty());
    }
}

#[tokio::test]
async fn a_kernel_that_can_not_be_read_is_left_alone() {
    let cluster = Cluster::of(&[N1, N3]).await;
    let node = cluster.node("n1");
    node.kernel.clear_events();
    node.kernel.fail_observe(usize::MAX);
    node.kernel.tamper("all routes go", |state| state.routes.clear());
    node.until_condition("KernelUnreadable").await;
    assert_eq!(node.changes(), []);
    node.kernel.heal();
    node.until_no_condition("KernelUnreadable").await;
    cluster.converged().await;
    assert_ne!(node.changes(), []);
}

type Damage = fn(&mut vxlan::State);

#[tokio::test]
async fn whatever_is_taken_away_comes_back_at_once() {
    let cluster = Cluster::of(&[N1, N2, N3]).await;
    let node = cluster.node("n1");
    let want = node.kernel.state();
    let damages: [(&str, Damage); 6] = [
        ("routes", |state| state.routes.clear()),
        ("neighbours", |state| state.neighbors.clear()),
        ("fdb", |state| state.fdb.clear()),
        ("rules", |state| state.rules.clear()),
        ("addresses", |state| state.addresses.clear()),
        ("nexthops", |state| {
            state.nexthops.clear();
            state.routes.retain(|_, route| route.target == vxlan::RouteTarget::Unreachable);
        }),
    ];
    for (what, damage) in damages {
        node.kernel.tamper(what, damage);
        assert_ne!(node.kernel.state(), want, "{what}");
        node.until(what, |_| node.kernel.state() == want).await;
    }
    for link in ["pairway-vx4", "eth0"] {
        node.kernel.set_up(link, false);
        node.kernel.set_up(link, true);
        node.until(link, |_| node.kernel.state() == want).await;
    }
    cluster.path("n1", "n2", "native", "bgp").await;
}

#[tokio::test]
async fn without_its_underlay_the_data_plane_stays_as_it_is() {
    let cluster = Cluster::of(&[N1, N3]).await;
    let node = cluster.node("n1");
    let want = node.kernel.state();
    node.kernel.set_addresses("eth0", &[]);
    node.until_condition("UnderlayMissing").await;
    assert_eq!(node.published().status.not_ready_reasons, ["underlay"]);
    node.passes().await;
    assert_eq!(node.kernel.state(), want);
    assert_eq!(node.pair("n3", "ipv4").path, "vxlan", "it is still shown");
    node.kernel.set_addresses("eth0", &["192.0.2.11/24"]);
    node.until_no_condition("UnderlayMissing").await;
    cluster.converged().await;
    assert_eq!(node.kernel.state(), want);
}

#[tokio::test]
async fn a_lost_carrier_is_waited_for() {
    let cluster = Cluster::of(&[N1, N2, N3]).await;
    let node = cluster.node("n1");
    let want = node.kernel.state();
    node.kernel.set_carrier("eth0", false);
    node.until_condition("UnderlayMissing").await;
    node.kernel.clear_events();
    node.passes().await;
    assert_eq!(node.changes(), [], "nothing is tried that the kernel must refuse");
    node.kernel.set_carrier("eth0", true);
    node.until("repaired", |_| node.kernel.state() == want).await;
    cluster.converged().await;
}

#[tokio::test]
async fn a_foreign_route_in_the_way_is_a_condition_and_stays() {
    let cluster = Cluster::of(&[N1, N3]).await;
    let node = cluster.node("n1");
    let prefix = node.pair("n3", "ipv4").blocks[0].parse().unwrap();
    let key = RouteKey { table: 254, prefix, metric: 1120 };
    node.kernel.tamper("our route goes", |state| {
        state.routes.remove(&key);
    });
    node.kernel.add_foreign_route(InstalledRoute {
        key,
        protocol: 12,
        link: Some("eth0".parse().unwrap()),
        gateway: Some("192.0.2.1".parse().unwrap()),
    });
    node.until_condition("Conflict").await;
    node.until("unready pair", |published| !published.pairs[0].ready).await;
    node.kernel.remove_foreign_route(key);
    node.until_no_condition("Conflict").await;
    cluster.converged().await;
}

#[tokio::test]
async fn a_foreign_route_that_is_preferred_makes_the_pair_unready() {
    let cluster = Cluster::of(&[N1, N3]).await;
    let node = cluster.node("n1");
    assert_eq!(node.pair("n3", "ipv4").not_ready, None);
    let key = RouteKey { table: 254, prefix: node.pair("n3", "ipv4").blocks[0].parse().unwrap(), metric: 7 };
    node.kernel.add_foreign_route(InstalledRoute {
        key,
        protocol: 4,
        link: Some("eth0".parse().unwrap()),
        gateway: Some("192.0.2.1".parse().unwrap()),
    });
    let published = node.until("unready", |published| !published.pairs[0].ready).await;
    let why = published.pairs[0].not_ready.clone().unwrap();
    assert!(why.contains("metric 7 proto 4 (static)"), "{why}");
    node.until_condition("Conflict").await;
    // A worse one is nobody's trouble.
    node.kernel.remove_foreign_route(key);
    node.kernel.add_foreign_route(InstalledRoute {
        key: RouteKey { metric: 5000, ..key },
        protocol: 4,
        link: Some("eth0".parse().unwrap()),
        gateway: Some("192.0.2.1".parse().unwrap()),
    });
    node.until_no_condition("Conflict").await;
    node.passes().await;
    assert!(node.pair("n3", "ipv4").ready);
}

#[tokio::test]
async fn what_the_kernel_refuses_is_a_condition_and_the_pair_says_what_is_missing() {
    let mut cluster = Cluster::of(&[N1]).await;
    cluster.node("n1").kernel.fail_kind(Kind::Route, usize::MAX, errno::ENOMEM);
    cluster.add("n3", &[N3.1]);
    cluster.start("n3");
    let node = cluster.node("n1");
    node.until_condition("KernelRefused").await;
    let pair = node.pair("n3", "ipv4");
    assert!(!pair.ready && pair.not_ready.as_ref().unwrap().starts_with("route 10.244."), "{pair:?}");
    node.kernel.heal();
    node.until_no_condition("KernelRefused").await;
    cluster.converged().await;
}

#[tokio::test]
async fn forwarding_that_is_off_is_a_condition_where_it_matters() {
    let cluster = Cluster::of(&[N1, N3]).await;
    let node = cluster.node("n1");
    let forwarding = |ipv4, ipv6| Forwarding { ipv4: Some(ipv4), ipv6: Some(ipv6) };
    node.kernel.set_forwarding(forwarding(false, false));
    let published = node
        .until("ForwardingDisabled", |published| {
            published.status.conditions.iter().any(|found| found.kind == "ForwardingDisabled")
        })
        .await;
    let found: Vec<_> = published.status.conditions.iter().map(|found| found.subject.as_str()).collect();
    assert_eq!(found, ["ipv4"], "this node has no IPv6 block");
    assert!(published.status.conditions[0].message.contains("sysctl -w net.ipv4.ip_forward=1"));
    node.kernel.set_forwarding(forwarding(true, false));
    node.until_no_condition("ForwardingDisabled").await;
}

#[tokio::test]
async fn a_fighter_is_backed_off_from_and_the_rest_goes_on() {
    let cluster = Cluster::of(&[N1, N3]).await;
    let node = cluster.node("n1");
    // What goes right after a change of our device may have gone with that.
    node.passes().await;
    let want = node.kernel.state();
    let key =
        RouteKey { table: 254, prefix: node.pair("n3", "ipv4").blocks[0].parse().unwrap(), metric: 1120 };
    let fight = || {
        node.kernel.tamper("a route goes", |state| {
            state.routes.remove(&key);
        });
    };
    for times in 1..=5 {
        assert!(!node.conditions().contains(&"RepairLoop".to_owned()), "{times}");
        // Slower than what counts as one event.
        tokio::time::sleep(BURST).await;
        fight();
        node.until("repaired", |published| published.counters.repairs.get("route") == Some(&times)).await;
        assert_eq!(node.kernel.state(), want);
    }
    node.until_condition("RepairLoop").await;
    fight();
    node.kernel.clear_events();
    node.passes().await;
    assert_eq!(node.changes(), [], "left alone for now");
    assert!(!node.pair("n3", "ipv4").ready);
    node.kernel.tamper("the rest goes", |state| state.fdb.clear());
    node.until("the rest", |_| node.kernel.state().fdb == want.fdb).await;
    // Nobody undoes it any more: it is put back, and that is the end of it.
    node.until("put back", |_| node.kernel.state() == want).await;
    node.until_no_condition("RepairLoop").await;
    cluster.converged().await;
}

#[tokio::test]
async fn notifications_that_fail_are_listened_for_again() {
    let cluster = Cluster::of(&[N1, N3]).await;
    let node = cluster.node("n1");
    let want = node.kernel.state();
    node.fault.send_replace(true);
    node.until_condition("KernelEventsLost").await;
    let before = node.published().counters.passes;
    node.kernel.tamper("all routes go", |state| state.routes.clear());
    node.until("repaired without being told", |_| node.kernel.state() == want).await;
    let passes = node.published().counters.passes - before;
    assert!(passes < 200, "{passes} passes: the loop is busy");
    node.fault.send_replace(false);
    node.until_no_condition("KernelEventsLost").await;
    node.kernel.tamper("all routes go", |state| state.routes.clear());
    node.until("repaired", |_| node.kernel.state() == want).await;
}

#[tokio::test]
async fn a_lost_block_fences() {
    let cluster = Cluster::of(&[N1, N2, N3]).await;
    let (n1, n2) = (cluster.node("n1"), cluster.node("n2"));
    let block = Block::new(n1.published().status.blocks[0].parse().unwrap());
    // A backup of the store from before is restored, and n3 is faster than n1.
    cluster.store.pause();
    assert!(cluster.store.release(block, &"n1".parse().unwrap()).await.unwrap());
    let stolen = Claim {
        block,
        holder: Some("n3".parse().unwrap()),
        claimed_at: "2020-01-01T00:00:00Z".parse().unwrap(),
        unknown: [].into(),
    };
    cluster.store.claim(&stolen).await.unwrap();
    cluster.store.resume();
    n1.until_condition("BlockLost").await;
    // Another block is claimed, and the lost one is neither announced by n1 nor routed to it.
    n1.until("another block", |published| {
        published.status.blocks.len() == 1 && published.status.blocks[0] != block.to_string()
    })
    .await;
    n2.until("the block is n3's", |published| {
        published.pairs.iter().any(|pair| pair.peer == "n3" && pair.blocks.contains(&block.to_string()))
            && published
                .pairs
                .iter()
                .all(|pair| pair.peer == "n3" || !pair.blocks.contains(&block.to_string()))
    })
    .await;
    cluster.path("n2", "n1", "native", "bgp").await;
}

#[tokio::test]
async fn an_emptied_store_takes_no_route_away() {
    let cluster = Cluster::of(&[N1, N2, N3, ("n4", "198.51.100.14/24")]).await;
    let kept: Vec<_> = cluster.nodes.values().map(|node| node.kernel.state()).collect();
    for node in cluster.nodes.values() {
        node.kernel.clear_events();
    }
    cluster.store.empty();
    cluster.converged().await;
    for (node, kept) in cluster.nodes.values().zip(kept) {
        node.passes().await;
        let deletes = node.changes().into_iter().filter(|event| format!("{event:?}").contains("Delete"));
        assert_eq!(deletes.count(), 0, "{:#?}", node.changes());
        assert_eq!(node.kernel.state(), kept);
    }
}

#[tokio::test]
async fn peers_that_vanish_together_are_kept_for_a_while_and_then_go() {
    let mut cluster = Cluster::of(&[N1, N2, N3]).await;
    cluster.stop("n2").await;
    cluster.stop("n3").await;
    let node = cluster.node("n1");
    cluster.store.pause();
    for name in ["n2", "n3"] {
        cluster.store.remove_node(&name.parse().unwrap()).await.unwrap();
    }
    cluster.store.resume();
    node.until_condition("PeersVanished").await;
    assert_eq!(node.published().pairs.len(), 2);
    node.until("gone for good", |published| published.pairs.is_empty()).await;
    node.until_no_condition("PeersVanished").await;
    assert!(node.kernel.state().nexthops.is_empty());
}

#[tokio::test]
async fn a_restart_on_an_empty_store_keeps_what_the_kernel_holds() {
    let mut cluster = Cluster::of(&[N1, N2, N3]).await;
    for name in ["n1", "n2", "n3"] {
        cluster.stop(name).await;
    }
    let before = cluster.node("n1").kernel.state();
    cluster.store.empty();
    cluster.node("n1").config.lock().unwrap().as_mut().unwrap().brake.grace = Duration::from_secs(3);
    cluster.start("n1");
    let node = cluster.node("n1");
    node.until_condition("PeersVanished").await;
    assert_eq!(node.kernel.state(), before);
    // The others come back within the grace time: nothing has been lost.
    node.kernel.clear_events();
    cluster.start("n2");
    cluster.start("n3");
    cluster.converged().await;
    let node = cluster.node("n1");
    node.until_no_condition("PeersVanished").await;
    assert_eq!(node.kernel.state(), before);
    // Nobody comes back: in the end the routes go.
    for name in ["n1", "n2", "n3"] {
        cluster.stop(name).await;
    }
    cluster.store.empty();
    cluster.start("n1");
    let node = cluster.node("n1");
    node.until_condition("PeersVanished").await;
    node.until_no_condition("PeersVanished").await;
    node.until("no peer", |_| node.kernel.state().nexthops.is_empty()).await;
}

#[tokio::test]
async fn a_peer_alone_that_is_gone_at_a_start_is_kept_until_the_store_answers() {
    let mut cluster = Cluster::of(&[N1, N3]).await;
    for name in ["n1", "n3"] {
        cluster.stop(name).await;
    }
    let before = cluster.node("n1").kernel.state();
    cluster.store.remove_node(&"n3".parse().unwrap()).await.unwrap();
    cluster.node("n1").store.set_health(Err("no such directory".to_owned()));
    cluster.start("n1");
    let node = cluster.node("n1");
    node.until_condition("PeersVanished").await;
    assert_eq!(node.kernel.state(), before);
    let grace = node.config.lock().unwrap().as_ref().unwrap().brake.grace;
    tokio::time::sleep(grace + Duration::from_millis(100)).await;
    node.passes().await;
    assert!(node.conditions().contains(&"PeersVanished".to_owned()), "the store has not answered yet");
    assert_eq!(node.kernel.state(), before);
    node.store.set_health(Ok(()));
    node.until_no_condition("PeersVanished").await;
    assert!(node.kernel.state().nexthops.is_empty());
}

#[tokio::test]
async fn the_brake_is_set_while_the_agent_runs() {
    for (share, held) in [(50, true), (100, false)] {
        let mut cluster = Cluster::of(&[N1, N2, N3]).await;
        cluster.stop("n2").await;
        cluster.stop("n3").await;
        let node = cluster.node("n1");
        node.reconfigure(|config| config.brake.share = share);
        node.passes().await;
        cluster.store.pause();
        for name in ["n2", "n3"] {
            cluster.store.remove_node(&name.parse().unwrap()).await.unwrap();
        }
        cluster.store.resume();
        let mut shown = false;
        node.until("gone", |published| {
            shown |= published.status.conditions.iter().any(|found| found.kind == "PeersVanished");
            published.pairs.is_empty()
        })
        .await;
        assert_eq!(shown, held, "{share} %");
    }
}

#[tokio::test]
async fn a_store_that_fails_is_a_condition_and_routes_stay() {
    let cluster = Cluster::of(&[N1, N3]).await;
    let node = cluster.node("n1");
    let before = node.kernel.state();
    node.store.set_health(Err("no such directory".to_owned()));
    node.until_condition("StoreUnavailable").await;
    assert!(node.published().status.ready);
    assert_eq!(node.kernel.state(), before);
    node.store.set_health(Ok(()));
    node.until_no_condition("StoreUnavailable").await;
}

#[tokio::test]
async fn a_node_that_has_lost_its_store_is_not_ready_and_routes_stay() {
    let cluster = Cluster::of(&[N1, N3]).await;
    let node = cluster.node("n1");
    let before = node.kernel.state();
    let text = "another directory bears the path".to_owned();
    node.store.report(Err(StoreTrouble { text, detached: true }));
    node.until("not ready", |published| published.status.not_ready_reasons == ["store"]).await;
    assert!(node.conditions().contains(&"StoreUnavailable".to_owned()));
    assert!(cluster.node("n3").published().status.ready, "the others have theirs");
    node.passes().await;
    assert_eq!(node.kernel.state(), before);
    node.store.set_health(Ok(()));
    node.until("ready", |published| published.status.ready).await;
}
