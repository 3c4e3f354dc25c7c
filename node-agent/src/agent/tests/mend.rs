//! What the notifications name is put back without a look at everything, and only where that is right.

use std::net::IpAddr;

use vxlan::fake::Kind;
use vxlan::{InstalledRoute, Lost, RouteKey};

use super::harness::{Cluster, Node};

/// All that a node has of its peers that can be named.
fn all(node: &Node) -> Lost {
    let state = node.kernel.state();
    Lost {
        neighbors: state.neighbors.into_keys().collect(),
        fdb: state.fdb.into_keys().collect(),
        routes: state.routes.into_keys().filter(|key| key.metric != u32::MAX).collect(),
    }
}

fn repairs(node: &Node, kind: &str) -> u64 {
    node.published().counters.repairs.get(kind).copied().unwrap_or_default()
}

async fn pair() -> Cluster {
    let cluster = Cluster::of(&[("n1", "192.0.2.1/24"), ("n2", "198.51.100.2/24")]).await;
    cluster.node("n1").passes().await;
    cluster
}

#[tokio::test]
async fn what_was_taken_away_comes_back_before_the_kernel_is_looked_at_and_a_look_follows() {
    let cluster = pair().await;
    let node = cluster.node("n1");
    let (before, lost) = (node.kernel.state(), all(node));
    assert!(!lost.neighbors.is_empty() && !lost.fdb.is_empty() && lost.routes.len() > 1, "{lost:?}");
    let (looks, passes) = (node.kernel.observations(), node.published().counters.passes);
    let routes = u64::try_from(lost.routes.len()).unwrap();
    node.lose(lost);
    node.until("repaired", |published| published.counters.repairs.get("route") == Some(&routes)).await;
    assert_eq!(node.kernel.state(), before);
    assert_eq!(
        (node.kernel.observations(), node.published().counters.passes),
        (looks, passes),
        "no look yet"
    );
    assert_eq!((repairs(node, "fdb"), repairs(node, "neighbor")), (1, 1));
    node.until("a look", |published| published.counters.passes > passes).await;
    assert_eq!(repairs(node, "route"), routes, "what was repaired is not repaired again");
    assert!(node.kernel.observations() > looks);

    // Without a name for it, it takes a look.
    let key = *all(node).routes.first().unwrap();
    node.kernel.tamper("a route taken away", |state| {
        state.routes.remove(&key);
    });
    node.until("repaired", |published| published.counters.repairs.get("route") > Some(&routes)).await;
    assert_eq!(node.kernel.state(), before);
}

#[tokio::test]
async fn what_stands_in_its_place_is_a_conflict_and_a_refusal_is_tried_again() {
    let cluster = pair().await;
    let node = cluster.node("n1");
    let before = node.kernel.state();
    let key = *all(node).routes.first().unwrap();
    let lost = || Lost { routes: [key].into(), ..Lost::default() };
    node.kernel.fail_kind(Kind::Route, 1, 12);
    node.lose(lost());
    node.until("repaired", |published| published.counters.repairs.get("route") == Some(&1)).await;
    assert_eq!(node.kernel.state(), before);

    let gateway: IpAddr = "192.0.2.9".parse().unwrap();
    let rival = RouteKey { metric: key.metric, ..key };
    node.kernel.tamper("taken away for good", |state| {
        state.routes.remove(&rival);
    });
    node.kernel.add_foreign_route(InstalledRoute {
        key: rival,
        protocol: 12,
        link: Some("eth0".parse().unwrap()),
        gateway: Some(gateway),
    });
    node.lose(lost());
    node.until_condition("Conflict").await;
    assert!(!node.kernel.state().routes.contains_key(&key));
    node.kernel.remove_foreign_route(rival);
    node.until_no_condition("Conflict").await;
    assert_eq!(node.kernel.state(), before);
}

#[tokio::test]
async fn whoever_takes_it_away_again_and_again_is_told_and_backed_off_from() {
    let cluster = pair().await;
    let node = cluster.node("n1");
    let key = *all(node).routes.first().unwrap();
    for times in 1..=5 {
        node.lose(Lost { routes: [key].into(), ..Lost::default() });
        node.until("repaired", |published| published.counters.repairs.get("route") == Some(&times)).await;
    }
    node.until_condition("RepairLoop").await;
    let passes = node.published().counters.passes;
    node.lose(Lost { routes: [key].into(), ..Lost::default() });
    node.until("a pass", |published| published.counters.passes > passes).await;
    assert!(!node.kernel.state().routes.contains_key(&key), "not at once");
    node.until("put back", |_| node.kernel.state().routes.contains_key(&key)).await;
}
