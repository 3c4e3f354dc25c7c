//! Two agents of one name, and one that comes back.

use super::harness::{Cluster, Node};

const N1: (&str, &str) = ("n1", "192.0.2.11/24");
const N2: (&str, &str) = ("n2", "192.0.2.12/24");

#[tokio::test]
async fn a_newcomer_under_a_taken_name_touches_nothing_and_both_say_so() {
    let mut cluster = Cluster::of(&[N1, N2]).await;
    let blocks = cluster.node("n1").published().status.blocks.clone();
    cluster.add_as("newcomer", "n1", &["192.0.2.77/24"]);
    cluster.start("newcomer");
    let newcomer = cluster.node("newcomer");
    newcomer.until_condition("NodeNameTaken").await;
    cluster.node("n1").until_condition("NodeNameTaken").await;
    // Longer than one that is gone is waited for: the other one answers.
    tokio::time::sleep(newcomer.limits.name_patience * 2).await;
    newcomer.passes().await;
    assert!(newcomer.conditions().contains(&"NodeNameTaken".to_owned()));
    let published = newcomer.published();
    assert!(!published.status.ready && published.status.not_ready_reasons.contains(&"name".to_owned()));
    assert_eq!(newcomer.changes(), []);
    let taken = &published.status.conditions[0].message;
    assert!(taken.contains("192.0.2.11"), "{taken}");
    let told = cluster.node("n1").published();
    let told = told.status.conditions.iter().find(|found| found.kind == "NodeNameTaken").unwrap();
    assert!(told.message.contains("192.0.2.77"), "{}", told.message);
    cluster.path("n2", "n1", "native", "bgp").await;
    assert_eq!(cluster.node("n2").pair("n1", "ipv4").underlay.peer, "192.0.2.11");
    assert_eq!(cluster.store.contents().claims.len(), 2, "nothing was claimed");
    assert!(cluster.node("n1").published().status.ready);
    // The one who has it ends for good: the newcomer goes on by itself, with the same blocks.
    cluster.stop("n1").await;
    let newcomer = cluster.node("newcomer");
    newcomer.until("ready", |published| published.status.ready).await;
    newcomer.until_no_condition("NodeNameTaken").await;
    assert_eq!(newcomer.published().status.blocks, blocks);
    assert_ne!(newcomer.changes(), []);
}

async fn comes_back(node: &Node) {
    let mut taken = false;
    node.until("ready", |published| {
        taken |= published.status.conditions.iter().any(|found| found.kind == "NodeNameTaken");
        published.status.ready
    })
    .await;
    assert!(!taken, "its own name");
}

#[tokio::test]
async fn a_node_that_comes_back_is_never_kept_from_its_name() {
    let mut cluster = Cluster::of(&[N1, N2]).await;
    let blocks = cluster.node("n1").published().status.blocks.clone();
    // A minute must not matter in this test.
    cluster.nodes.get_mut("n1").unwrap().limits.name_patience = std::time::Duration::from_secs(600);
    let restart = async |cluster: &mut Cluster| {
        cluster.start("n1");
        comes_back(cluster.node("n1")).await;
        assert_eq!(cluster.node("n1").published().status.blocks, blocks);
        cluster.stop("n1").await;
    };
    cluster.stop("n1").await;
    restart(&mut cluster).await;
    // With another address.
    cluster.node("n1").kernel.set_addresses("eth0", &["192.0.2.33/24"]);
    restart(&mut cluster).await;
    // With nothing but its address.
    cluster.nodes.get_mut("n1").unwrap().lose_state();
    restart(&mut cluster).await;
    // From before there were identifiers, elsewhere.
    cluster.store.tamper(|snapshot| {
        for record in snapshot.nodes.values_mut() {
            std::sync::Arc::make_mut(record).instance = None;
        }
    });
    cluster.node("n1").kernel.set_addresses("eth0", &["192.0.2.44/24"]);
    restart(&mut cluster).await;
}

#[tokio::test]
async fn a_machine_in_the_place_of_one_that_is_gone_waits_a_while() {
    let mut cluster = Cluster::of(&[N1, N2]).await;
    let blocks = cluster.node("n1").published().status.blocks.clone();
    cluster.stop("n1").await;
    cluster.add_as("successor", "n1", &["192.0.2.88/24"]);
    cluster.start("successor");
    let successor = cluster.node("successor");
    successor.until_condition("NodeNameTaken").await;
    successor.until("ready", |published| published.status.ready).await;
    assert_eq!(successor.published().status.blocks, blocks);
    successor.until_no_condition("NodeNameTaken").await;
}

/// A machine was copied with its state directory: both are sure that the name is theirs.
#[tokio::test]
async fn the_original_notices_its_copy_at_once() {
    let mut cluster = Cluster::of(&[N1, N2]).await;
    cluster.add_as("copy", "n1", &["192.0.2.99/24"]);
    let from = cluster.node("n1").config.lock().unwrap().as_ref().unwrap().state_dir.join("runs");
    let to = cluster.node("copy").config.lock().unwrap().as_ref().unwrap().state_dir.join("runs");
    std::fs::copy(from, to).unwrap();
    cluster.start("copy");
    cluster.node("n1").until_condition("NodeNameTaken").await;
}
