//! What a pass has left need not be looked at again, unless somebody else has changed anything.

use std::net::IpAddr;
use std::sync::Arc;

use super::harness::{Cluster, Node};

/// `n1` beside the record of `n3`, which does not run any more.
async fn alone() -> Cluster {
    let mut cluster = Cluster::of(&[("n1", "192.0.2.11/24"), ("n3", "198.51.100.13/24")]).await;
    cluster.stop("n3").await;
    cluster.node("n1").passes().await;
    cluster
}

/// The record of `n3` gets another underlay address.
fn moves(cluster: &Cluster, last: u8) {
    cluster.store.tamper(|snapshot| {
        let record = snapshot.nodes.get_mut(&"n3".parse().unwrap()).unwrap();
        Arc::make_mut(record).underlay.ipv4 = Some(format!("198.51.100.{last}/24").parse().unwrap());
    });
}

/// Whether the forwarding entry leads there.
fn leads_to(node: &Node, last: u8) -> bool {
    let remote = IpAddr::from([198, 51, 100, last]);
    node.kernel.state().fdb.values().any(|found| *found == remote)
}

#[tokio::test]
async fn records_that_change_one_after_the_other_need_no_look_each() {
    let cluster = alone().await;
    let node = cluster.node("n1");
    let (looks, passes) = (node.kernel.observations(), node.published().counters.passes);
    for last in 50..70 {
        moves(&cluster, last);
        node.until("moved", |_| leads_to(node, last)).await;
    }
    let looks = node.kernel.observations() - looks;
    let passes = node.published().counters.passes - passes;
    assert!(looks * 2 < passes, "{looks} looks in {passes} passes");
    // The kernel holds what it would after a look, and one follows.
    let (state, looks) = (node.kernel.state(), node.kernel.observations());
    node.until("a look", |_| node.kernel.observations() > looks).await;
    node.passes().await;
    assert_eq!(node.kernel.state(), state);
}

/// The pass that does what is new in the store also finds what somebody else has done since the last.
#[tokio::test]
async fn a_foreign_change_between_two_changes_of_the_store_is_repaired_with_the_next() {
    let cluster = alone().await;
    let node = cluster.node("n1");
    let block = node.pair("n3", "ipv4").blocks[0].parse().unwrap();
    for last in 50..60 {
        moves(&cluster, last);
        node.until("moved", |_| leads_to(node, last)).await;
        let before = node.kernel.state();
        let key = *before.routes.keys().find(|key| key.prefix == block).unwrap();
        let repaired = |node: &Node| node.published().counters.repairs.get("route").copied();
        let repairs = repaired(node);
        let next = last + 100;
        node.kernel.tamper("a route deleted", |state| {
            state.routes.remove(&key);
        });
        moves(&cluster, next);
        let mut stood = None;
        node.until("moved", |_| {
            let state = node.kernel.state();
            let moved = leads_to(node, next);
            if moved && stood.is_none() {
                stood = Some(state.routes.contains_key(&key));
            }
            moved
        })
        .await;
        assert_eq!(stood, Some(true), "the same pass puts it back");
        assert!(repaired(node) > repairs);
    }
}

/// Where something of others stands in the way each pass looks.
#[tokio::test]
async fn where_not_all_stands_each_pass_looks() {
    let cluster = alone().await;
    let node = cluster.node("n1");
    node.kernel.fail_kind(vxlan::fake::Kind::Fdb, usize::MAX, vxlan::fake::errno::ENOMEM);
    moves(&cluster, 50);
    node.until_condition("KernelRefused").await;
    let (looks, passes) = (node.kernel.observations(), node.published().counters.passes);
    for last in 51..55 {
        moves(&cluster, last);
        let before = node.published().counters.passes;
        node.until("a pass", |published| published.counters.passes > before).await;
    }
    assert!(node.kernel.observations() - looks >= node.published().counters.passes - passes);
    node.kernel.heal();
    node.until("moved", |_| leads_to(node, 54)).await;
    node.until_no_condition("KernelRefused").await;
}

/// What is known is trusted only until the notifications are asked, and these are asked when the pass begins: what somebody
/// does right before is repaired by it.
#[tokio::test]
async fn a_foreign_change_at_the_last_moment_is_seen_by_the_pass_that_begins() {
    let cluster = alone().await;
    let node = cluster.node("n1");
    let block = node.pair("n3", "ipv4").blocks[0].parse().unwrap();
    let mut looked = 0;
    for last in 50..60 {
        moves(&cluster, last);
        node.until("moved", |_| leads_to(node, last)).await;
        let key = *node.kernel.state().routes.keys().find(|key| key.prefix == block).unwrap();
        let (kernel, looks) = (node.kernel.clone(), node.kernel.observations());
        node.at_hear(move || {
            kernel.tamper("a route deleted", |state| {
                state.routes.remove(&key);
            });
        });
        moves(&cluster, last + 100);
        let mut stood = None;
        node.until("moved", |_| {
            let state = node.kernel.state();
            let moved = leads_to(node, last + 100);
            if moved && stood.is_none() {
                stood = Some(state.routes.contains_key(&key));
            }
            moved
        })
        .await;
        assert_eq!(stood, Some(true), "the same pass puts it back");
        looked += u64::from(node.kernel.observations() > looks);
    }
    assert_eq!(looked, 10, "each of these passes has looked");
}
