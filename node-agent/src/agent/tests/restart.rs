//! Restarts: silent, and after changes that nobody saw.

use std::time::Duration;

use bgp::speaker::Shutdown;

use super::harness::Cluster;
use crate::agent::AgentError;
use crate::agent::state_dir::StateDirError;

const N1: (&str, &str) = ("n1", "192.0.2.11/24");
const N2: (&str, &str) = ("n2", "192.0.2.12/24");
const N3: (&str, &str) = ("n3", "198.51.100.13/24");

#[tokio::test]
async fn a_restart_in_an_unchanged_world_changes_nothing_anywhere() {
    let mut cluster = Cluster::of(&[N1, N2, N3]).await;
    for node in cluster.nodes.values() {
        node.kernel.clear_events();
    }
    let before = cluster.node("n1").kernel.state();
    cluster.stop("n1").await;
    cluster.path("n2", "n1", "native", "bgp-restarting").await;
    assert_eq!(cluster.node("n1").kernel.state(), before, "nothing is purged on exit");
    // Its session takes its time: until it has delivered, what the kernel held stands.
    cluster.fabric.mute("192.0.2.12", true);
    cluster.start("n1");
    cluster.path("n1", "n2", "native", "bgp-held").await;
    cluster.fabric.mute("192.0.2.12", false);
    cluster.converged().await;
    cluster.path("n1", "n2", "native", "bgp").await;
    for (name, node) in &cluster.nodes {
        node.passes().await;
        assert_eq!(node.changes(), [], "{name}");
    }
    // Positive control: the same look finds a change.
    cluster.node("n1").kernel.tamper("a route goes", |state| state.routes.clear());
    cluster.node("n1").passes().await;
    assert_ne!(cluster.node("n1").changes(), []);
    let (starts, ends) = cluster.fabric.history();
    assert_eq!(ends, [Shutdown::Silent]);
    let restarting: Vec<bool> = starts.iter().map(|start| start.restarting).collect();
    assert_eq!(restarting, [false, false, false, true]);
}

#[tokio::test]
async fn what_changed_while_the_agent_was_away_is_made_up_for() {
    let mut cluster = Cluster::of(&[N1, N2, N3]).await;
    cluster.stop("n1").await;
    cluster.stop("n3").await;
    let node = "n3".parse().unwrap();
    crate::store::Store::remove_node(&cluster.store, &node).await.unwrap();
    cluster.node("n2").kernel.set_addresses("eth0", &["192.0.2.77/24"]);
    cluster.node("n2").until("moved", |published| published.status.underlay["ipv4"] == "192.0.2.77/24").await;
    cluster.start("n1");
    cluster
        .node("n1")
        .until("n3 is gone", |published| published.status.ready && published.pairs.len() == 1)
        .await;
    cluster.path("n1", "n2", "native", "bgp").await;
    let state = cluster.node("n1").kernel.state();
    assert_eq!(state.fdb.len(), 1);
    assert_eq!(state.nexthops.values().next().unwrap().gateway.address.to_string(), "192.0.2.77");
}

#[tokio::test]
async fn a_native_pair_whose_session_does_not_come_back_falls_back_when_the_time_is_over() {
    let mut cluster = Cluster::of(&[N1, N2]).await;
    cluster.stop("n1").await;
    cluster.stop("n2").await;
    cluster.fabric.forget_silent();
    cluster.node("n1").config.lock().unwrap().as_mut().unwrap().bgp.restart_time = Duration::from_millis(700);
    cluster.start("n1");
    cluster.path("n1", "n2", "native", "bgp-held").await;
    cluster.path("n1", "n2", "vxlan", "bgp-waiting").await;
}

#[tokio::test]
async fn a_killed_agent_starts_as_silently() {
    let mut cluster = Cluster::of(&[N1, N3]).await;
    cluster.nodes.get_mut("n1").unwrap().kill();
    cluster.node("n1").kernel.clear_events();
    // The lock goes with the process; here with the last of its tasks, which ends a moment later.
    while cluster.node("n1").locked() {
        tokio::task::yield_now().await;
    }
    cluster.start("n1");
    cluster.converged().await;
    assert_eq!(cluster.node("n1").changes(), []);
}

#[tokio::test]
async fn the_time_for_sessions_begins_with_the_first_snapshot() {
    let mut cluster = Cluster::of(&[N1, N2]).await;
    cluster.stop("n1").await;
    let node = cluster.nodes.get_mut("n1").unwrap();
    let restart_time = Duration::from_millis(600);
    node.config.lock().unwrap().as_mut().unwrap().bgp.restart_time = restart_time;
    // The store takes longer to answer than sessions have.
    node.store = crate::store::memory::MemoryStore::unlisted();
    let contents = cluster.store.contents();
    cluster.fabric.mute("192.0.2.12", true);
    cluster.start("n1");
    tokio::time::sleep(restart_time + Duration::from_millis(200)).await;
    let store = cluster.node("n1").store.clone();
    store.roll_back(contents);
    store.resume();
    cluster.path("n1", "n2", "native", "bgp-held").await;
    cluster.path("n1", "n2", "vxlan", "bgp-waiting").await;
}

/// What the store says is remembered, and nothing can be written: readiness is about this node.
#[tokio::test]
async fn an_agent_that_starts_while_its_store_is_away_is_ready_by_the_record_of_its_last_run() {
    let mut cluster = Cluster::of(&[N1, N3]).await;
    let away = |node: &super::harness::Node| {
        node.store.set_health(Err("the server does not answer".to_owned()));
        node.store.fail_next(u32::MAX);
    };
    cluster.node("n1").kernel.clear_events();
    let before = cluster.node("n1").kernel.state();
    cluster.stop("n1").await;
    away(cluster.node("n1"));
    cluster.start("n1");
    let node = cluster.node("n1");
    node.until("ready without its store", |published| {
        let conditions = &published.status.conditions;
        published.status.ready && conditions.iter().any(|condition| condition.kind == "StoreUnavailable")
    })
    .await;
    node.until_condition("RecordNotPublished").await;
    node.passes().await;
    assert!(node.published().status.ready);
    assert_eq!(node.kernel.state(), before);

    // One whose record says something else is not: the others send to an address that it has not any more.
    cluster.stop("n1").await;
    cluster.node("n1").kernel.set_addresses("eth0", &["192.0.2.77/24"]);
    cluster.start("n1");
    let node = cluster.node("n1");
    node.until("not ready", |published| published.status.not_ready_reasons == ["record"]).await;
    node.store.fail_next(0);
    node.store.set_health(Ok(()));
    node.until("ready", |published| published.status.ready).await;
}

/// While a machine is off its Node may go, and another node may get its block: it waits for the store.
#[tokio::test]
async fn after_a_boot_the_record_that_is_remembered_does_not_count() {
    let mut cluster = Cluster::of(&[N1, N3]).await;
    cluster.stop("n1").await;
    cluster.node("n1").store.fail_next(u32::MAX);
    cluster.node("n1").store.tamper(|snapshot| snapshot.rebuilding = true);
    // The control: in the same boot it does.
    cluster.start("n1");
    cluster.node("n1").until("ready", |published| published.status.ready).await;
    cluster.stop("n1").await;
    cluster.node("n1").boot();
    cluster.start("n1");
    let node = cluster.node("n1");
    node.until("not ready", |published| published.status.not_ready_reasons == ["record"]).await;
    node.passes().await;
    assert!(!node.published().status.ready);
    node.store.fail_next(0);
    node.store.tamper(|snapshot| snapshot.rebuilding = false);
    node.until("ready", |published| published.status.ready).await;
}

#[tokio::test]
async fn an_agent_whose_speaker_dies_ends_to_be_started_again() {
    let mut cluster = Cluster::of(&[N1, N2]).await;
    cluster.fabric.kill("192.0.2.11");
    let error = cluster.nodes.get_mut("n1").unwrap().ended().await;
    assert!(matches!(&error, AgentError::Task(what) if what.contains("speaker")), "{error}");
}

#[tokio::test]
async fn a_second_agent_is_refused() {
    let cluster = Cluster::of(&[N1]).await;
    let error = cluster.node("n1").second();
    assert!(matches!(error, AgentError::StateDir(StateDirError::Locked { .. })), "{error}");
}

#[tokio::test]
async fn no_kernel_change_before_the_first_snapshot() {
    let mut cluster = Cluster::new();
    cluster.store = crate::store::memory::MemoryStore::unlisted();
    cluster.add("n1", &[N1.1]);
    cluster.start("n1");
    cluster.node("n1").passes().await;
    assert_eq!(cluster.node("n1").changes(), []);
    let published = cluster.node("n1").published();
    assert!(published.status.not_ready_reasons.contains(&"store".to_owned()));
    cluster.store.resume();
    cluster.converged().await;
    assert_ne!(cluster.node("n1").changes(), []);
}
