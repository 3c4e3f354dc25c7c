//! A cluster's worth of agents that want a block at once, on an API server that is killed meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::JoinSet;

use super::*;
use crate::claims::tests::run_until_claimed;

const AGENTS: usize = 200;

/// Agents that share a client here, as no agents do: two hundred of them would only measure this machine.
const STORES: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_agents_while_the_server_is_killed() {
    let mut server = off_runtime(ApiServer::start).await;
    let options = options_on(&server, GROUP).await;
    let directory = tempfile::tempdir().unwrap();
    let stores: Vec<Arc<KubernetesStore>> =
        (0..STORES).map(|_| Arc::new(KubernetesStore::open(options.clone()))).collect();
    let mut agents = JoinSet::new();
    for number in 0..AGENTS {
        let (store, node) = (stores[number % STORES].clone(), format!("n{number}"));
        let state = directory.path().join(&node);
        agents.spawn(async move {
            let block = run_until_claimed(&*store, &node, state, "10.244.0.0/16").await;
            (node, block)
        });
    }
    let mut kills = 0;
    for claims in [20, 70, 130] {
        until(&*stores[0], "some claims", |shown| shown.claims.len() >= claims).await;
        server = off_runtime(move || {
            server.kill();
            server.restart();
            server
        })
        .await;
        kills += 1;
    }
    let blocks: BTreeMap<String, Block> = tokio::time::timeout(Duration::from_secs(300), agents.join_all())
        .await
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(kills, 3);
    let distinct: BTreeSet<&Block> = blocks.values().collect();
    assert_eq!((blocks.len(), distinct.len()), (AGENTS, AGENTS), "no block twice");
    for store in &stores {
        let contents = until(&**store, "every claim", |shown| shown.claims.len() == AGENTS).await;
        for (node, block) in &blocks {
            assert_eq!(contents.claims[block].holder, Some(name(node)), "none leaked");
        }
    }
    off_runtime(move || drop(server)).await;
}
