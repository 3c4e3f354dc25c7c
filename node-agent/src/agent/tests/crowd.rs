//! A hundred whole agents that start at once on one pool.

use std::collections::BTreeSet;

use super::harness::Cluster;

const AGENTS: usize = 100;

#[tokio::test]
async fn a_hundred_agents_at_once_end_with_a_block_each() {
    let mut cluster = Cluster::new();
    let names: Vec<String> = (1..=AGENTS).map(|number| format!("n{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        // Each in a subnet of its own: this is about blocks, not about sessions.
        cluster.add(name, &[&format!("192.168.{number}.7/24")]);
    }
    for name in &names {
        cluster.start(name);
    }
    let mut blocks = BTreeSet::new();
    for name in &names {
        let published = cluster
            .node(name)
            .until("ready with every pair", |published| {
                published.status.ready
                    && published.pairs.iter().filter(|pair| pair.ready).count() == AGENTS - 1
            })
            .await;
        assert_eq!(published.status.blocks.len(), 1, "{name}");
        blocks.extend(published.status.blocks.iter().cloned());
        assert_eq!(published.blocks.len(), AGENTS);
    }
    assert_eq!(blocks.len(), AGENTS, "all distinct");
    let contents = cluster.store.contents();
    assert_eq!((contents.nodes.len(), contents.claims.len(), contents.pools.len()), (AGENTS, AGENTS, 1));
}
