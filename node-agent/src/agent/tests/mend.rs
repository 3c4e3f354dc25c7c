//! What the notifications name is put back without a look at everything, and only where that is right.

use std::net::IpAddr;

use vxlan::fake::{Event, Kind, Mishap, errno};
use vxlan::{Change, InstalledRoute, Lost, RouteKey};

use super::super::repairs::BURST;
use super::harness::{Cluster, Node};

/// All that a node has of its peers that can be named.
pub(super) fn all(node: &Node) -> Lost {
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
        // Slower than what counts as one event.
        tokio::time::sleep(BURST).await;
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

/// An entry is deleted while a pass begins: it finds it missing and makes it, and reads only then that it was deleted.
#[tokio::test]
async fn what_a_pass_has_repaired_is_not_repaired_again_and_what_it_has_not_written_is_at_once() {
    let cluster = pair().await;
    let node = cluster.node("n1");
    let Lost { fdb, neighbors, .. } = all(node);
    let fdb = Lost { fdb, ..Lost::default() };
    node.tell_late(fdb.clone());
    let passes = node.published().counters.passes;
    node.kernel.clear_events();
    node.kernel.tamper("an entry deleted", |state| state.fdb.clear());
    node.until("a pass, and one that looks", |published| published.counters.passes >= passes + 2).await;
    assert_eq!((repairs(node, "fdb"), node.changes().len()), (1, 1), "{:?}", node.changes());

    // Of what the pass has not written there is no doubt.
    let neighbors = Lost { neighbors, ..Lost::default() };
    node.tell_late(neighbors.clone());
    node.kernel.tamper("an entry deleted", |state| state.fdb.clear());
    node.until("both", |published| {
        ["fdb", "neighbor"].map(|kind| published.counters.repairs.get(kind).copied().unwrap_or_default())
            == [2, neighbors.neighbors.len() as u64]
    })
    .await;
}

#[tokio::test]
async fn of_a_repair_that_half_fails_each_object_is_counted_once() {
    let cluster = pair().await;
    let node = cluster.node("n1");
    let before = node.kernel.state();
    let lost = all(node);
    let total =
        |node: &Node| ["fdb", "neighbor", "route"].map(|kind| repairs(node, kind)).iter().sum::<u64>();
    node.kernel.fail_kind(Kind::Route, 1, errno::ENOMEM);
    let passes = node.published().counters.passes;
    node.lose(lost.clone());
    node.until("a pass", |published| published.counters.passes > passes).await;
    assert_eq!(node.kernel.state(), before);
    assert_eq!(total(node), lost.len() as u64);
    let entries = |event: &&Event| matches!(event, Event::Applied(Change::SetFdb(..)));
    node.kernel.clear_events();
    node.passes().await;
    assert_eq!(node.changes().iter().filter(entries).count(), 0, "nothing is left to do");
}

/// Each call of a quick repair fails, in each way: a pass makes it good, whatever the repair came to.
#[tokio::test]
async fn whatever_fails_of_a_quick_repair_is_made_good() {
    let ways = [
        Mishap::Refused(errno::ENOMEM),
        Mishap::Refused(errno::EEXIST),
        Mishap::Unanswered,
        Mishap::Cut,
        Mishap::Deaf,
    ];
    let mut met = std::collections::BTreeSet::new();
    for way in ways {
        // The first call hears of it.
        for after in 1.. {
            let cluster = pair().await;
            let node = cluster.node("n1");
            let (before, lost) = (node.kernel.state(), all(node));
            // One call for the names of devices, and one for each object.
            if after > 1 + lost.len() as u64 {
                break;
            }
            let story = format!("call {after}: {way:?}");
            let passes = node.published().counters.passes;
            node.kernel.fail_call(after, way);
            node.lose(lost.clone());
            node.until(&story, |published| {
                published.counters.passes > passes && node.kernel.state() == before
            })
            .await;
            let happened = node.kernel.mishaps();
            assert!(matches!(happened.as_slice(), [(_, done)] if *done == way), "{story}: {happened:?}");
            met.extend(happened.into_iter().map(|(call, _)| call));
            let counted: u64 = ["fdb", "neighbor", "route"].map(|kind| repairs(node, kind)).iter().sum();
            // What was done without an answer nobody has counted.
            let unknown = match way {
                Mishap::Refused(_) | Mishap::Cut | Mishap::Half(_) => 0,
                Mishap::Unanswered => 1,
                Mishap::Deaf => 2 + lost.len() as u64 - after,
            };
            let unknown = if after == 1 { 0 } else { unknown };
            assert_eq!(counted, lost.len() as u64 - unknown, "{story}");
            assert_eq!(node.conditions(), Vec::<String>::new(), "{story}");
        }
    }
    assert_eq!(met.len(), 4, "names, a neighbour, an entry, a route: {met:?}");
}
