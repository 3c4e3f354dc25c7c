//! Agents of two versions on one directory, in both upgrade orders.

use std::collections::BTreeMap;

use super::*;
use crate::claims::ClaimKeeper;
use crate::store::record;

/// An agent of a version: what it says in its record beyond what the older one knows.
struct Agent {
    store: FileStore,
    keeper: ClaimKeeper,
    record: NodeRecord,
}

impl Agent {
    async fn start(place: &Place, node: &str, version: u32) -> Self {
        let options = FileOptions { encoding: Encoding { version }, ..watching() };
        let mut record = record_of(node);
        record.router_id = if node == "n1" { "192.0.2.1" } else { "192.0.2.2" }.parse().unwrap();
        if version > record::VERSION {
            record.unknown = BTreeMap::from([("future".to_owned(), serde_json::json!({"of": node}))]);
        }
        let keeper = ClaimKeeper::open(name(node), place.directory.path().join(node)).await;
        Self { store: place.open(options).await, keeper, record }
    }

    async fn pass(&mut self) -> Vec<Block> {
        let config = config::ConfigFile::parse(
            "version: 1\npools: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]\n",
            "test.yaml",
        )
        .unwrap()
        .for_node(self.record.name.as_str());
        let snapshot = until(&self.store, "anything", |_| true).await;
        let claims = self.keeper.pass(&self.store, &config, &self.record, &snapshot, Timestamp::now()).await;
        assert_eq!(claims.conditions, [], "a newer peer is no trouble");
        claims.blocks()
    }
}

/// What routes follow from.
fn routed(shown: &Snapshot) -> (BTreeMap<NodeName, NodeRecord>, BTreeMap<Block, Claim>) {
    let known = |(name, record): (&NodeName, &Arc<NodeRecord>)| {
        (name.clone(), NodeRecord { unknown: BTreeMap::new(), ..NodeRecord::clone(record) })
    };
    (shown.nodes.iter().map(known).collect(), shown.claims.clone())
}

#[tokio::test]
async fn both_orders_of_an_upgrade_and_the_way_back_change_no_route() {
    let (old, new) = (record::VERSION, record::VERSION + 1);
    for order in [["n1", "n2"], ["n2", "n1"]] {
        let place = Place::new();
        let mut agents = BTreeMap::new();
        let mut blocks = BTreeMap::new();
        for node in order {
            let mut agent = Agent::start(&place, node, old).await;
            blocks.insert(node, agent.pass().await);
            agents.insert(node, agent);
        }
        let observer = place.open(watching()).await;
        let before =
            until(&observer, "two nodes", |shown| shown.nodes.len() == 2 && shown.claims.len() == 2).await;
        let steps = [(order[0], new), (order[1], new), (order[0], old), (order[1], old)];
        for (node, version) in steps {
            agents.remove(node);
            agents.insert(node, Agent::start(&place, node, version).await);
            for (node, agent) in &mut agents {
                assert_eq!(agent.pass().await, blocks[node], "{node} after {version}");
            }
            // Written once more by this version, as any change of the node would.
            let agent = &agents[node];
            agent.store.publish(&agent.record).await.unwrap();
            let record = format!("nodes/{node}");
            let shown = until(&observer, "its version", |shown| {
                shown.problems.contains_key(&record) == (version > record::VERSION)
            })
            .await;
            assert_eq!(routed(&shown), routed(&before));
            assert!(shown.nodes[&name(node)].unknown.contains_key("future"), "{version} keeps it");
        }
        // What a newer agent wrote holds its block against an older one.
        let held = Claim {
            unknown: BTreeMap::from([("future".to_owned(), serde_json::json!(1))]),
            ..claim_of("10.99.0.0/24", "n1")
        };
        let newer = place.open(FileOptions { encoding: Encoding { version: new }, ..watching() }).await;
        newer.claim(&held).await.unwrap();
        let outcome = agents["n2"].store.claim(&claim_of("10.99.0.0/24", "n2")).await.unwrap();
        assert_eq!(outcome, ClaimOutcome::TakenBy(Some(name("n1"))));
        let shown = until(&observer, "the claim", |shown| shown.claims.contains_key(&held.block)).await;
        assert_eq!(shown.claims[&held.block], held);
        assert!(
            shown.problems["claims/10-99-0-0-24"].starts_with("written by a newer version"),
            "{:?}",
            shown.problems
        );
    }
}
