//! A hundred agents that start at once on one pool.

use std::process::{Child, Command, Stdio};

use tokio::task::JoinSet;

use super::*;
use crate::store::file::{FileOptions, FileStore};

const AGENTS: usize = 100;

/// Little room: 128 blocks for 100 nodes.
const CROWDED: &str = "10.244.0.0/17";

fn all_distinct(blocks: &BTreeMap<String, Block>, contents: &Snapshot) {
    let distinct: BTreeSet<&Block> = blocks.values().collect();
    assert_eq!((blocks.len(), distinct.len()), (AGENTS, AGENTS));
    assert_eq!((contents.nodes.len(), contents.claims.len(), contents.pools.len()), (AGENTS, AGENTS, 1));
    for (node, block) in blocks {
        assert_eq!(contents.claims[block].holder, Some(name(node)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn as_tasks_on_the_store_in_memory() {
    let store = MemoryStore::new();
    let directory = tempfile::tempdir().unwrap();
    let mut agents = JoinSet::new();
    for number in 0..AGENTS {
        let (view, node) = (store.another_view(), format!("n{number}"));
        let directory = directory.path().join(&node);
        agents
            .spawn(async move { (node.clone(), run_until_claimed(&view, &node, directory, CROWDED).await) });
    }
    all_distinct(&agents.join_all().await.into_iter().collect(), &store.contents());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn as_tasks_with_a_store_of_files_each() {
    let directory = tempfile::tempdir().unwrap();
    let mut agents = JoinSet::new();
    for number in 0..AGENTS {
        let (path, node) = (directory.path().join("store"), format!("n{number}"));
        let state = directory.path().join(&node);
        agents.spawn(async move {
            let store = FileStore::open(path, FileOptions::default()).await.unwrap();
            (node.clone(), run_until_claimed(&store, &node, state, CROWDED).await)
        });
    }
    let blocks = agents.join_all().await.into_iter().collect();
    let store = FileStore::open(directory.path().join("store"), FileOptions::default()).await.unwrap();
    let contents =
        crate::store::tests::until(&store, "every claim", |shown| shown.claims.len() == AGENTS).await;
    all_distinct(&blocks, &contents);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_processes_with_a_store_of_files_each() {
    let directory = tempfile::tempdir().unwrap();
    let spawn = |node: &String| -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "claims::tests::crowd::one_agent_of_many", "--ignored", "--nocapture"])
            .env("PAIRWAY_TEST_STORE", directory.path())
            .env("PAIRWAY_TEST_NODE", node)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let nodes: Vec<String> = (0..AGENTS).map(|number| format!("n{number}")).collect();
    let agents: Vec<Child> = nodes.iter().map(spawn).collect();
    for mut agent in agents {
        assert!(agent.wait().unwrap().success());
    }
    let block_of = |node: String| {
        let text = std::fs::read_to_string(directory.path().join(&node).join("block")).unwrap();
        (node, block(&text))
    };
    let blocks = nodes.into_iter().map(block_of).collect();
    let store = FileStore::open(directory.path().join("store"), FileOptions::default()).await.unwrap();
    let contents =
        crate::store::tests::until(&store, "every claim", |shown| shown.claims.len() == AGENTS).await;
    all_distinct(&blocks, &contents);
}

#[tokio::test]
#[ignore = "a process of the test above, which names its node"]
async fn one_agent_of_many() {
    let directory = PathBuf::from(std::env::var("PAIRWAY_TEST_STORE").unwrap());
    let node = std::env::var("PAIRWAY_TEST_NODE").unwrap();
    let store = FileStore::open(directory.join("store"), FileOptions::default()).await.unwrap();
    let block = run_until_claimed(&store, &node, directory.join(&node), CROWDED).await;
    std::fs::write(directory.join(&node).join("block"), block.to_string()).unwrap();
}
