//! Keepers on the store in memory; `crowd` has many at once, `full` more than there are blocks, `weather` random
//! misfortunes.

mod crowd;
mod full;
mod giving_back;
mod weather;

use config::ConfigFile;
use tempfile::TempDir;

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::tests::{at, block, claim_of, name, pool_of, record_of};

/// One node: its keeper, its view of the store, its state directory and its clock.
pub(crate) struct Node {
    pub(crate) store: MemoryStore,
    keeper: ClaimKeeper,
    pub(crate) config: Config,
    record: NodeRecord,
    directory: TempDir,
    now: Timestamp,
}

pub(crate) const POOL: &str = "{ cidr: 10.244.0.0/16, blockPrefix: 24 }";

fn config(pools: &[&str], blocks: &str) -> Config {
    let pools: String = pools.iter().map(|pool| format!("  - {pool}\n")).collect();
    let text = format!("version: 1\npools:\n{pools}blocks: {{ {blocks} }}\n");
    ConfigFile::parse(&text, "test.yaml").unwrap_or_else(|errors| panic!("{errors}")).for_node("n1")
}

/// An agent's loop, as far as claims go: until it has its block of /24 of the pool and nothing is left to do. Whatever fails
/// meanwhile is tried again.
pub(crate) async fn run_until_claimed(
    store: &dyn Store,
    node: &str,
    directory: PathBuf,
    pool: &str,
) -> Block {
    let mut keeper = ClaimKeeper::open(name(node), directory).await;
    let config = config(&[&format!("{{ cidr: {pool}, blockPrefix: 24 }}")], "perNode: 1");
    let mut snapshots = store.snapshots();
    snapshots.wait_for(Option::is_some).await.unwrap();
    loop {
        let snapshot = snapshots.borrow_and_update().clone().unwrap();
        let claims = keeper.pass(store, &config, &record_of(node), &snapshot, Timestamp::now()).await;
        match claims.retry_after {
            None => {
                assert_eq!(claims.conditions, []);
                return claims.held[0].block;
            }
            Some(pause) => drop(tokio::time::timeout(pause, snapshots.changed()).await),
        }
    }
}

/// The same loop without an end: whatever becomes of the store, the agent keeps its blocks in it.
pub(crate) async fn keep_claims(store: &dyn Store, node: &str, directory: PathBuf, pool: &str) {
    let mut keeper = ClaimKeeper::open(name(node), directory).await;
    let config = config(&[&format!("{{ cidr: {pool}, blockPrefix: 24 }}")], "perNode: 1");
    let mut snapshots = store.snapshots();
    snapshots.wait_for(Option::is_some).await.unwrap();
    loop {
        let snapshot = snapshots.borrow_and_update().clone().unwrap();
        let claims = keeper.pass(store, &config, &record_of(node), &snapshot, Timestamp::now()).await;
        assert_eq!(claims.lost, []);
        let pause = claims.retry_after.unwrap_or(Duration::from_secs(5));
        drop(tokio::time::timeout(pause, snapshots.changed()).await);
    }
}

impl Node {
    pub(crate) async fn new(node: &str, store: &MemoryStore, pools: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keeper = ClaimKeeper::open(name(node), directory.path().to_owned()).await;
        let config = config(pools, "perNode: 1");
        Self { store: store.another_view(), keeper, config, record: record_of(node), directory, now: at(0) }
    }

    pub(crate) async fn pass(&mut self) -> Claims {
        let snapshot = self.snapshot();
        self.keeper.pass(&self.store, &self.config, &self.record, &snapshot, self.now).await
    }

    pub(crate) async fn claim_more(&mut self, pool: Option<&str>) -> Result<Vec<Block>, CommandError> {
        let snapshot = self.snapshot();
        let pool = pool.map(|pool| pool.parse().unwrap());
        self.keeper.claim_more(&self.store, &self.config, &self.record, &snapshot, pool, self.now).await
    }

    /// `pairway blocks release`, and the pass that follows.
    async fn give_back(&mut self, block: Block, force: bool) -> Result<Released, CommandError> {
        let (snapshot, before) = (self.snapshot(), self.keeper.held());
        let released = self
            .keeper
            .release(&self.store, &self.config, &self.record, &snapshot, Release { block, force }, self.now)
            .await?;
        Ok(released.followed_by(&before, &self.pass().await))
    }

    async fn restart(&mut self) {
        self.keeper = ClaimKeeper::open(self.record.name.clone(), self.directory.path().to_owned()).await;
    }

    /// What the node sees. What it does next in the store bears the time of its own clock.
    fn snapshot(&self) -> std::sync::Arc<Snapshot> {
        self.store.set_time(self.now);
        self.store.snapshots().borrow().clone().unwrap()
    }

    fn after(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }
}

pub(crate) fn kinds(claims: &Claims) -> Vec<(&str, &str)> {
    claims.conditions.iter().map(|condition| (condition.kind, condition.subject.as_str())).collect()
}

#[tokio::test]
async fn the_first_pass_makes_record_pools_and_claims() {
    let store = MemoryStore::new();
    let v6 = r#"{ cidr: "fd10:244::/48", blockPrefix: 64 }"#;
    let mut node = Node::new("n1", &store, &[POOL, v6]).await;
    node.config = config(&[POOL, v6], "perNode: 2");
    let claims = node.pass().await;
    assert_eq!(claims.conditions, []);
    assert_eq!(claims.retry_after, None);
    let contents = store.contents();
    assert_eq!(*contents.nodes[&name("n1")], record_of("n1"));
    assert_eq!(contents.pools.len(), 2);
    assert_eq!(contents.blocks_of(&name("n1")), claims.blocks());
    let lengths: Vec<u8> = claims.blocks().iter().map(|block| block.net().prefix_len()).collect();
    assert_eq!(lengths, [24, 24, 64, 64], "the oldest first, IPv4 before IPv6");

    let calls = node.store.calls();
    assert_eq!(node.pass().await, claims);
    assert_eq!(node.store.calls(), calls, "a second pass has nothing to do");
    node.restart().await;
    assert_eq!(node.pass().await, claims);
    assert_eq!(node.store.calls(), calls, "nor has a restart");
}

#[tokio::test]
async fn a_claim_that_was_not_answered_is_asked_for_again_before_any_other() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    node.store.fail_next_of("claim", 1);
    node.pass().await;
    // It is made, the answer is lost, and no snapshot shows it.
    store.pause();
    node.store.lose_next_answers(1);
    assert_eq!(node.pass().await.held, []);
    let made: Vec<Block> = store.contents().claims.keys().copied().collect();
    assert_eq!(made.len(), 1);
    // Another pool comes first by now.
    node.config = config(&["{ cidr: 10.99.0.0/16, blockPrefix: 24 }", POOL], "perNode: 1");
    assert_eq!(node.pass().await.blocks(), made);
    store.resume();
    assert_eq!(node.pass().await.blocks(), made);
    assert_eq!(store.contents().claims.len(), 1);
}

#[tokio::test]
async fn an_emptied_store_gets_everything_back_at_once() {
    let store = MemoryStore::new();
    let (mut one, mut other) =
        (Node::new("n1", &store, &[POOL]).await, Node::new("n2", &store, &[POOL]).await);
    let mut before = Vec::new();
    for node in [&mut one, &mut other] {
        node.pass().await;
        node.claim_more(None).await.unwrap();
        before.push(node.pass().await);
        assert_eq!(before.last().unwrap().held.len(), 2);
    }
    let contents = store.contents();
    store.empty();
    one.restart().await;
    for (node, before) in [&mut one, &mut other].into_iter().zip(before) {
        node.after(1);
        assert_eq!(node.pass().await, before);
    }
    let restored = store.contents();
    assert_eq!(restored.claims, contents.claims, "the same names and times");
    assert_eq!((restored.nodes, restored.pools), (contents.nodes, contents.pools));
}

#[tokio::test]
async fn unknown_fields_of_a_claim_come_back_too() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let mine = node.pass().await.held[0].block;
    store.tamper(|contents| {
        let claim = contents.claims.get_mut(&mine).unwrap();
        claim.unknown.insert("future".to_owned(), serde_json::json!([1]));
    });
    node.pass().await;
    let before = store.contents().claims;
    store.empty();
    node.restart().await;
    node.pass().await;
    assert_eq!(store.contents().claims, before);
}

#[tokio::test]
async fn a_block_that_another_holds_is_lost_and_fenced() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let mine = node.pass().await.held[0].block;
    // A backup is restored in which another node holds the block.
    store.tamper(|contents| {
        contents.claims.insert(mine, claim_of(&mine.to_string(), "n2"));
    });
    let claims = node.pass().await;
    assert_eq!(kinds(&claims), [("BlockLost", mine.to_string().as_str())]);
    assert_eq!((claims.lost[0].block, claims.lost[0].holder.as_str()), (mine, "n2"));
    assert_eq!(claims.held.len(), 1, "another block takes its place");
    assert_ne!(claims.held[0].block, mine);
    assert_eq!(store.contents().claims[&mine].holder, Some(name("n2")), "which is left as it is");

    node.restart().await;
    let again = node.pass().await;
    assert_eq!((again.blocks(), kinds(&again)), (claims.blocks(), kinds(&claims)), "a restart knows it");

    // When the other gives it back, the block is nobody's: this node has what it needs.
    store.release(mine, &name("n2")).await.unwrap();
    let claims = node.pass().await;
    assert_eq!((claims.lost.len(), claims.held.len(), claims.conditions.len()), (0, 1, 0));
    // But if it needs one more, it takes this one, however short ago it was given back.
    assert_eq!(node.claim_more(None).await.unwrap(), [mine]);
}

#[tokio::test]
async fn a_lost_race_that_the_snapshot_does_not_show_is_found_in_the_store() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let mine = node.pass().await.held[0].block;
    store.empty();
    store.pause();
    store.claim(&claim_of(&mine.to_string(), "n2")).await.unwrap();
    let claims = node.pass().await;
    assert_eq!(claims.lost[0].holder, name("n2"));
    // The snapshot still shows no claim: that must not end the condition.
    assert_eq!(node.pass().await.lost.len(), 1);
    store.resume();
    assert_eq!(node.pass().await.lost.len(), 1);
}

#[tokio::test]
async fn a_node_without_memory_adopts_what_the_store_has_for_it() {
    let store = MemoryStore::new();
    store.claim(&claim_of("10.244.9.0/24", "n1")).await.unwrap();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    assert_eq!(node.pass().await.blocks(), [block("10.244.9.0/24")]);
    store.empty();
    assert_eq!(node.pass().await.held, [claim_of("10.244.9.0/24", "n1")], "and remembers it");
}

#[tokio::test]
async fn an_exhausted_pool_is_a_condition_that_ends() {
    let store = MemoryStore::new();
    let pool = "{ cidr: 10.244.0.0/23, blockPrefix: 24 }";
    let mut first = Node::new("n1", &store, &[pool]).await;
    first.pass().await;
    first.claim_more(None).await.unwrap();
    let refused = first.claim_more(Some("10.244.0.0/23")).await.unwrap_err();
    assert_eq!(refused.code, "exhausted");

    let mut late = Node::new("n2", &store, &[pool]).await;
    let claims = late.pass().await;
    assert_eq!(kinds(&claims), [("PoolExhausted", "ipv4")]);
    assert_eq!((claims.held.len(), claims.retry_after), (0, None), "the next snapshot wakes it");

    let freed = first.keeper.held()[1].block;
    store.set_time(at(1));
    store.release(freed, &name("n1")).await.unwrap();
    let claims = late.pass().await;
    assert_eq!(
        (claims.blocks(), claims.conditions),
        (vec![freed], vec![]),
        "released just now, but there is no other"
    );

    late.config = config(&[pool], "perNode: 2");
    let claims = late.pass().await;
    assert_eq!(
        (claims.blocks(), kinds(&claims)),
        (vec![freed], vec![("PoolExhausted", "ipv4")]),
        "what it has stays"
    );
}

#[tokio::test]
async fn pools_are_used_in_order_and_as_they_admit() {
    let store = MemoryStore::new();
    let pools = [
        "{ cidr: 10.1.0.0/24, blockPrefix: 26, disabled: true }",
        "{ cidr: 10.2.0.0/24, blockPrefix: 26, nodes: { rack: r9 } }",
        "{ cidr: 10.3.0.0/24, blockPrefix: 24, nodes: { zone: a } }",
        "{ cidr: 10.4.0.0/24, blockPrefix: 24 }",
    ];
    let mut node = Node::new("n1", &store, &pools).await;
    assert_eq!(node.pass().await.blocks(), [block("10.3.0.0/24")]);
    assert_eq!(
        node.claim_more(None).await.unwrap(),
        [block("10.4.0.0/24")],
        "the next pool when one is used up"
    );
    for (pool, code) in
        [("10.1.0.0/24", "disabled"), ("10.2.0.0/24", "not-permitted"), ("10.9.0.0/24", "not-found")]
    {
        assert_eq!(node.claim_more(Some(pool)).await.unwrap_err().code, code, "{pool}");
    }
    let recorded: Vec<String> = store.contents().pools.keys().map(ToString::to_string).collect();
    assert_eq!(recorded, ["10.3.0.0/24", "10.4.0.0/24"], "a pool has a record once it is claimed from");

    let mut other = Node::new("n2", &store, &pools[..2]).await;
    assert_eq!(kinds(&other.pass().await), [("NoPool", "ipv4")]);

    node.config = config(&["{ cidr: 10.3.0.0/24, blockPrefix: 24, disabled: true }", POOL], "perNode: 2");
    let claims = node.pass().await;
    assert_eq!(claims.blocks(), [block("10.3.0.0/24"), block("10.4.0.0/24")], "what is held stays");
    assert_eq!(kinds(&claims), [("PoolRemoved", "10.4.0.0/24")]);
}

#[tokio::test]
async fn a_pool_that_the_cluster_cuts_otherwise_is_not_claimed_from() {
    let mismatch = [("PoolMismatch", "10.244.0.0/16")];
    let record = |cidr, prefix| {
        MemoryStore::new().tampered(|contents| {
            contents.pools.insert(pool_of(cidr, prefix).cidr, pool_of(cidr, prefix));
            contents.claims.insert(block("10.244.0.0/26"), claim_of("10.244.0.0/26", "n9"));
        })
    };
    let claim_alone = MemoryStore::new().tampered(|contents| {
        contents.claims.insert(block("10.244.0.0/26"), claim_of("10.244.0.0/26", "n9"));
    });
    for store in
        [record("10.244.0.0/16", 26), record("10.244.0.0/17", 24), record("10.0.0.0/8", 24), claim_alone]
    {
        let mut node = Node::new("n1", &store, &[POOL]).await;
        let claims = node.pass().await;
        assert_eq!(
            (kinds(&claims), claims.held.len()),
            (mismatch.to_vec(), 0),
            "{:?}",
            store.contents().pools
        );
        assert_eq!(node.claim_more(None).await.unwrap_err().code, "mismatch");
        // With a pool that agrees it goes on.
        node.config = config(&[POOL, "{ cidr: 172.20.0.0/16, blockPrefix: 24 }"], "perNode: 1");
        let claims = node.pass().await;
        assert_eq!((kinds(&claims), claims.held.len()), (mismatch.to_vec(), 1));
    }
    // An odd claim under a record that agrees stops nobody, and its addresses are left alone.
    let mut node = Node::new("n1", &record("10.244.0.0/16", 24), &[POOL]).await;
    node.config = config(&[POOL], "perNode: 255");
    let mut claims = node.pass().await;
    for _ in 0..10 {
        claims = node.pass().await;
    }
    assert_eq!((claims.held.len(), kinds(&claims)), (255, vec![]));
    assert!(!claims.blocks().contains(&block("10.244.0.0/24")));
}

impl MemoryStore {
    fn tampered(self, change: impl FnOnce(&mut Snapshot)) -> Self {
        self.tamper(change);
        self
    }
}

#[tokio::test]
async fn the_record_of_a_pool_that_was_lost_alone_comes_back() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let claims = node.pass().await;
    let before = store.contents().pools;
    let cidr = "10.244.0.0/16".parse().unwrap();
    assert!(!store.remove_pool(cidr).await.unwrap(), "a block of it is claimed");
    store.tamper(|contents| drop(contents.pools.remove(&cidr)));
    assert_eq!(node.pass().await, claims);
    assert_eq!((before.len(), store.contents().pools), (1, before));
}

#[tokio::test]
async fn the_record_of_a_pool_that_nobody_wants_goes_after_a_while() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    node.pass().await;
    for pool in [pool_of("10.99.0.0/16", 24), pool_of("10.98.0.0/16", 24)] {
        store.ensure_pool(&pool).await.unwrap();
    }
    store.claim(&claim_of("10.98.7.0/24", "n2")).await.unwrap();
    let pools = || store.contents().pools.keys().map(ToString::to_string).collect::<Vec<_>>();
    node.pass().await;
    node.after(59);
    node.pass().await;
    assert_eq!(pools(), ["10.98.0.0/16", "10.99.0.0/16", "10.244.0.0/16"]);
    node.after(1);
    node.pass().await;
    assert_eq!(pools(), ["10.98.0.0/16", "10.244.0.0/16"], "the one with a claim stays");

    // So a pool whose blocks were all released can get another block prefix.
    let mine = node.keeper.held()[0].block;
    node.config = config(&["{ cidr: 10.244.0.0/16, blockPrefix: 26 }"], "perNode: 1");
    assert_eq!(node.pass().await.blocks(), [mine], "not before");
    release_own(&store, &name("n1"), node.directory.path(), Duration::ZERO).await.unwrap();
    node.restart().await;
    assert_eq!(kinds(&node.pass().await), [("PoolMismatch", "10.244.0.0/16")]);
    node.after(60);
    node.pass().await;
    let claims = node.pass().await;
    assert_eq!((claims.held[0].block.net().prefix_len(), claims.conditions), (26, vec![]));
}

#[tokio::test]
async fn what_fails_is_said_and_tried_again() {
    let cases: [(&str, &[(&str, &str)]); 3] = [
        ("publish", &[("RecordNotPublished", "n1")]),
        ("create the pool record", &[("BlockNotClaimed", "ipv4"), ("PoolNotRecorded", "10.244.0.0/16")]),
        ("claim", &[("BlockNotClaimed", "ipv4")]),
    ];
    for (operation, expected) in cases {
        let store = MemoryStore::new();
        let mut node = Node::new("n1", &store, &[POOL]).await;
        node.store.fail_next_of(operation, 1);
        let claims = node.pass().await;
        assert_eq!(kinds(&claims), expected, "{operation}");
        assert!(claims.retry_after.is_some_and(|pause| pause >= Duration::from_secs(1)));
        let claims = node.pass().await;
        assert_eq!(
            (claims.held.len(), claims.conditions, claims.retry_after),
            (1, vec![], None),
            "{operation}"
        );
    }
}

#[tokio::test]
async fn blocks_are_kept_while_the_store_fails() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let before = node.pass().await;
    store.empty();
    node.store.fail_next(1000);
    let claims = node.pass().await;
    assert_eq!(claims.held, before.held);
    let mine = before.held[0].block.to_string();
    let kinds = kinds(&claims);
    assert!(kinds.contains(&("ClaimNotStored", mine.as_str())), "{kinds:?}");
    node.store.fail_next(0);
    assert_eq!(node.pass().await, before);
}

#[tokio::test]
async fn an_answer_that_got_lost_leaves_one_claim() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    node.store.lose_next_answers(10);
    let first = node.pass().await;
    assert!(kinds(&first).contains(&("RecordNotPublished", "n1")), "{:?}", first.conditions);
    while node.pass().await.retry_after.is_some() {}
    assert_eq!(node.pass().await.conditions, [], "what stands in the store is no trouble any more");
    assert_eq!(store.contents().claims.len(), 1);
    assert_eq!(store.contents().blocks_of(&name("n1")), node.pass().await.blocks());
}

#[tokio::test]
async fn a_younger_block_never_looks_older() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let oldest = node.pass().await.held[0].block;
    node.after(-86_400);
    for _ in 0..3 {
        node.claim_more(None).await.unwrap();
    }
    let claims = node.pass().await;
    assert_eq!(claims.held.len(), 4);
    assert_eq!(claims.held[0].block, oldest, "it gives the tunnel address");
    assert_eq!(store.contents().blocks_of(&name("n1")), claims.blocks(), "peers see the same order");
}

#[tokio::test]
async fn a_block_that_vanished_is_left_alone_for_a_while() {
    let store = MemoryStore::new();
    let pool = "{ cidr: 10.244.0.0/22, blockPrefix: 24 }";
    let mut node = Node::new("n1", &store, &[pool]).await;
    let mine = node.pass().await.held[0].block;
    let theirs =
        *[block("10.244.0.0/24"), block("10.244.1.0/24")].iter().find(|block| **block != mine).unwrap();
    store.claim(&claim_of(&theirs.to_string(), "n2")).await.unwrap();
    node.pass().await;
    store.tamper(|contents| {
        contents.claims.remove(&theirs);
    });
    node.pass().await;
    node.after(599);
    let others = [node.claim_more(None).await.unwrap(), node.claim_more(None).await.unwrap()].concat();
    assert!(!others.contains(&theirs), "{others:?}");
    assert_eq!(node.claim_more(None).await.unwrap(), [theirs], "nothing else is free");
}

#[tokio::test]
async fn an_unreadable_claim_stays_ours_and_is_reported() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let before = node.pass().await;
    let mine = before.held[0].block;
    store.tamper(|contents| contents.claims.get_mut(&mine).unwrap().holder = None);
    let claims = node.pass().await;
    assert_eq!(
        (claims.held.as_slice(), kinds(&claims)),
        (before.held.as_slice(), vec![("ClaimUnreadable", mine.to_string().as_str())])
    );
    // As the condition advises.
    store.tamper(|contents| {
        contents.claims.remove(&mine);
    });
    assert_eq!(node.pass().await, before);

    // Or it waits: if nobody else has mended the record after a minute, it is this node's.
    store.tamper(|contents| contents.claims.get_mut(&mine).unwrap().holder = None);
    node.restart().await;
    node.pass().await;
    node.after(59);
    assert_eq!(kinds(&node.pass().await), [("ClaimUnreadable", mine.to_string().as_str())]);
    node.after(1);
    node.pass().await;
    assert_eq!(node.pass().await, before);
    assert_eq!(store.contents().claims[&mine].holder, Some(name("n1")));
}

#[tokio::test]
async fn a_record_of_ours_that_breaks_is_written_anew_at_once() {
    let store = MemoryStore::new();
    let (mut node, mut other) =
        (Node::new("n1", &store, &[POOL]).await, Node::new("n2", &store, &[POOL]).await);
    let before = node.pass().await;
    other.pass().await;
    let whole = store.contents().claims;
    let mine = before.held[0].block;
    // What stands in `claims` is the last good content.
    store.tamper(|contents| contents.unreadable.extend([mine]));
    let calls = other.store.calls();
    other.pass().await;
    assert_eq!(other.store.calls(), calls, "others never touch it");
    assert_eq!(node.pass().await, before);
    assert!(store.contents().unreadable.is_empty());
    assert_eq!(store.contents().claims, whole);
}

#[tokio::test]
async fn a_damaged_own_record_is_written_again() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    node.pass().await;
    // The last good content stands in the snapshot; the record itself is broken.
    store.tamper(|contents| {
        contents.problems.insert("nodes/n1".to_owned(), "not a record".to_owned());
    });
    node.after(20);
    let calls = node.store.calls();
    node.pass().await;
    assert_eq!(node.store.calls(), calls + 1);
}

#[tokio::test]
async fn two_agents_of_one_name_are_found_and_do_not_fight() {
    let store = MemoryStore::new();
    let (mut one, mut other) =
        (Node::new("n1", &store, &[POOL]).await, Node::new("n1", &store, &[POOL]).await);
    other.record.underlay.ipv4 = Some("192.0.2.99/24".parse().unwrap());
    let mut found = false;
    let calls = |one: &Node, other: &Node| one.store.calls() + other.store.calls();
    let before = calls(&one, &other);
    for _ in 0..60 {
        for node in [&mut one, &mut other] {
            node.after(1);
            found |= kinds(&node.pass().await).contains(&("NodeNameTaken", "n1"));
        }
    }
    assert!(found);
    assert!(calls(&one, &other) - before < 20, "{}", calls(&one, &other) - before);
}

#[tokio::test]
async fn a_change_of_the_own_record_is_published_once() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    node.pass().await;
    node.record.underlay.ipv4 = Some("192.0.2.8/24".parse().unwrap());
    store.pause();
    let calls = node.store.calls();
    node.pass().await;
    node.pass().await;
    assert_eq!(node.store.calls(), calls + 1, "a snapshot that lags is waited for");
    store.resume();
    let claims = node.pass().await;
    assert_eq!((claims.conditions, node.store.calls()), (vec![], calls + 1));
    assert_eq!(*store.contents().nodes[&name("n1")], node.record);
}

#[tokio::test]
async fn memory_that_can_not_be_read_is_put_aside() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let before = node.pass().await;
    for text in [
        "",
        "{\"version\": 1",
        "[]",
        "{\"version\":1,\"node\":\"n1\",\"former\":[\"10.0.0.0/99\"]}",
        "\u{1}\u{ff}",
    ] {
        std::fs::write(node.directory.path().join(FILE_NAME), text).unwrap();
        node.restart().await;
        let claims = node.pass().await;
        assert_eq!(kinds(&claims), [("StateUnreadable", "claims.json")], "{text:?}");
        assert_eq!(claims.held, before.held, "the store knows");
        assert_eq!(node.pass().await, before, "it was written anew");
        assert_eq!(
            std::fs::read_to_string(node.directory.path().join("claims.json.unreadable")).unwrap(),
            text
        );
        node.restart().await;
        assert_eq!(node.pass().await, before, "it was written anew");
    }
}

#[tokio::test]
async fn memory_that_the_disk_does_not_give_is_kept_and_fields_of_newer_versions_too() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let before = node.pass().await;
    let (file, aside) = {
        let path = |name: &str| node.directory.path().join(name);
        (path(FILE_NAME), path("claims.json.unreadable"))
    };
    // Reading a directory fails, as a broken disk does.
    std::fs::rename(&file, node.directory.path().join("kept")).unwrap();
    std::fs::create_dir(&file).unwrap();
    node.restart().await;
    let claims = node.pass().await;
    assert_eq!(kinds(&claims), [("StateUnreadable", "claims.json")]);
    assert_eq!(claims.held, before.held, "the store knows");
    assert!(aside.is_dir() && file.is_file(), "put aside, and written anew");

    let text = std::fs::read_to_string(&file).unwrap();
    let newer = text.replacen('{', "{\"sinceTomorrow\": [1, 2],", 1);
    std::fs::write(&file, newer).unwrap();
    node.restart().await;
    assert_eq!(node.pass().await, before);
    // Another write: a block more, when the first minute is over.
    node.config.blocks.per_node = 2;
    node.now = at(200);
    assert_eq!(node.pass().await.held.len(), 2);
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(written["sinceTomorrow"], serde_json::json!([1, 2]));
    assert_eq!(written["held"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn memory_that_can_not_be_written_is_a_condition() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let path = node.directory.path().join("in-the-way");
    std::fs::write(&path, "a file").unwrap();
    node.keeper = ClaimKeeper::open(name("n1"), path.clone()).await;
    let claims = node.pass().await;
    assert_eq!(claims.held.len(), 1);
    assert!(kinds(&claims).contains(&("StateNotSaved", "claims.json")), "{:?}", claims.conditions);
    std::fs::remove_file(&path).unwrap();
    let claims = node.pass().await;
    assert!(!kinds(&claims).contains(&("StateNotSaved", "claims.json")), "{:?}", claims.conditions);
    assert!(path.join(FILE_NAME).exists());
}

#[tokio::test]
async fn a_node_under_another_name_says_what_it_left_behind() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let old = node.pass().await.blocks();
    node.record = record_of("n2");
    node.restart().await;
    let claims = node.pass().await;
    assert_eq!(kinds(&claims), [("NodeRenamed", "n1")]);
    assert_ne!(claims.blocks(), old);

    let contents = store.contents();
    delete_node(&store, &contents, &name("n2"), &name("n1"), true, node.now).await.unwrap();
    assert_eq!(node.pass().await.conditions, [], "as it was told to");
}

#[test]
fn pools_change_only_as_far_as_nothing_is_held() {
    let pools = |texts: &[&str]| config(texts, "perNode: 1").pools;
    let snapshot = Snapshot {
        claims: [claim_of("10.1.7.0/24", "n2"), claim_of("10.1.8.0/24", "n3")]
            .map(|claim| (claim.block, claim))
            .into(),
        ..Snapshot::default()
    };
    let current = pools(&[
        "{ cidr: 10.1.0.0/16, blockPrefix: 24 }",
        "{ cidr: 10.2.0.0/16, blockPrefix: 24 }",
        "{ cidr: 10.3.0.0/16, blockPrefix: 24 }",
    ]);
    let held = [block("10.2.9.0/24")];
    let refused = |wanted: &[&str]| refused_changes(&snapshot, &held, &current, &pools(wanted));
    assert_eq!(
        // Block prefixes are the configuration's own matter.
        refused(&["{ cidr: 10.3.0.0/16, blockPrefix: 26 }", "{ cidr: 10.2.0.0/16, blockPrefix: 26 }"]),
        [
            "pool 10.1.0.0/16 can't be removed while 2 of its blocks are held (10.1.7.0/24 by n2, ...); set disabled: true on it, and give them back first (`pairway blocks release` on their nodes)",
        ]
    );
    let fine = [
        "{ cidr: 10.1.0.0/16, blockPrefix: 24, disabled: true }",
        "{ cidr: 10.2.0.0/16, blockPrefix: 24, nodes: { zone: b } }",
        "{ cidr: 10.4.0.0/16, blockPrefix: 28 }",
    ];
    assert_eq!(refused(&fine), [""; 0]);
}
