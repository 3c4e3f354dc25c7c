//! More nodes than blocks: who has none waits for one, and whatever the store loses is not free.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use super::*;
use crate::store::file::{FileOptions, FileStore};

const TWO_BLOCKS: &str = "{ cidr: 10.244.0.0/23, blockPrefix: 24 }";

/// Two with a block each, and one without.
async fn three(store: &MemoryStore) -> [Node; 3] {
    let mut nodes = [
        Node::new("n1", store, &[TWO_BLOCKS]).await,
        Node::new("n2", store, &[TWO_BLOCKS]).await,
        Node::new("n3", store, &[TWO_BLOCKS]).await,
    ];
    for _ in 0..2 {
        for node in &mut nodes {
            node.pass().await;
        }
    }
    nodes
}

impl Node {
    /// A pass that claims nothing, and the kinds of conditions that say why.
    async fn short_of(&mut self) -> Vec<String> {
        let claims = self.pass().await;
        assert_eq!(claims.held, []);
        claims.conditions.iter().map(|condition| condition.kind.to_owned()).collect()
    }

    /// A pass that keeps the one block, and has nothing to say.
    async fn whole(&mut self) {
        let claims = self.pass().await;
        assert_eq!((claims.held.len(), claims.lost.len(), kinds(&claims)), (1, 0, vec![]));
    }
}

#[tokio::test]
async fn what_a_store_has_lost_is_not_free() {
    let store = MemoryStore::new();
    let [mut one, mut two, mut hungry] = three(&store).await;
    assert_eq!(hungry.short_of().await, ["PoolExhausted"]);
    for _ in 0..3 {
        store.empty();
        assert_eq!(hungry.short_of().await, ["PoolExhausted"], "it is the first to look");
        assert_eq!(hungry.claim_more(None).await.unwrap_err().code, "exhausted", "nor by order");
        one.whole().await;
        two.whole().await;
        hungry.short_of().await;
    }
    // One file removed by hand.
    let block = one.keeper.held()[0].block;
    store.tamper(|contents| drop(contents.claims.remove(&block)));
    hungry.short_of().await;
    one.whole().await;

    // Whoever does not make it again within a minute does not live.
    store.tamper(|contents| drop(contents.claims.remove(&block)));
    hungry.short_of().await;
    hungry.after(59);
    let claims = hungry.pass().await;
    assert_eq!((claims.held.len(), claims.retry_after), (0, Some(Duration::from_secs(1))));
    hungry.after(1);
    assert_eq!(hungry.pass().await.blocks(), [block]);
}

#[tokio::test]
async fn what_was_given_back_is_free_at_once_where_nothing_else_is() {
    let store = MemoryStore::new();
    let [one, _two, mut hungry] = three(&store).await;
    let block = one.keeper.held()[0].block;
    let backup = store.contents();
    store.release(block, &name("n1")).await.unwrap();
    assert_eq!(hungry.pass().await.blocks(), [block]);

    // An older copy that shows the release but not the claim since is another matter.
    let mut late = Node::new("n4", &store, &[TWO_BLOCKS]).await;
    late.pass().await;
    hungry.after(10);
    store.tamper(|contents| {
        contents.claims.get_mut(&block).unwrap().claimed_at = at(9);
    });
    hungry.whole().await;
    late.short_of().await;
    let mut older = backup;
    older.claims.remove(&block);
    older.released.insert(block, at(0));
    store.roll_back(older);
    late.short_of().await;
    hungry.whole().await;
}

#[tokio::test]
async fn an_agent_that_is_started_again_waits_before_it_claims() {
    let store = MemoryStore::new();
    let [mut one, mut two, mut hungry] = three(&store).await;
    store.empty();
    hungry.restart().await;
    assert_eq!(hungry.short_of().await, ["BlockNotClaimed"]);
    one.whole().await;
    two.whole().await;
    assert_eq!(hungry.short_of().await, ["PoolExhausted"]);

    // What is free then is its own.
    let block = one.keeper.held()[0].block;
    store.release(block, &name("n1")).await.unwrap();
    hungry.after(59);
    let claims = hungry.pass().await;
    assert_eq!(
        (kinds(&claims), claims.retry_after),
        (vec![("BlockNotClaimed", "ipv4")], Some(Duration::from_secs(1)))
    );
    hungry.after(1);
    assert_eq!(hungry.pass().await.blocks(), [block]);
}

#[tokio::test]
async fn nothing_is_claimed_from_a_store_that_is_being_filled_again() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    store.tamper(|contents| contents.rebuilding = true);
    assert_eq!(node.short_of().await, [""; 0]);
    assert_eq!(node.claim_more(None).await.unwrap_err().code, "busy");
    store.tamper(|contents| contents.rebuilding = false);
    node.whole().await;
}

/// An agent's loop, as far as claims go, until it is told to end. Every block that it loses is written down, and it counts
/// itself as settled once it has a block or knows that none is left.
async fn keep(
    store: FileStore,
    node: String,
    state: PathBuf,
    losses: Arc<Mutex<Vec<String>>>,
    settled: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
) {
    let mut counted = false;
    let mut keeper = ClaimKeeper::open(name(&node), state).await;
    let config = config(&[TWO_BLOCKS], "perNode: 1");
    let mut snapshots = store.snapshots();
    while !end.load(Ordering::Relaxed) {
        let snapshot = snapshots.borrow_and_update().clone();
        let mut pause = Duration::from_millis(200);
        if let Some(snapshot) = snapshot {
            let claims = keeper.pass(&store, &config, &record_of(&node), &snapshot, Timestamp::now()).await;
            losses.lock().unwrap().extend(claims.lost.iter().map(|lost| format!("{node} lost {lost:?}")));
            let exhausted = claims.conditions.iter().any(|condition| condition.kind == "PoolExhausted");
            if !counted && (exhausted || !claims.held.is_empty()) {
                counted = true;
                settled.fetch_add(1, Ordering::Relaxed);
            }
            pause = claims.retry_after.unwrap_or(pause).min(pause);
        }
        drop(tokio::time::timeout(pause, snapshots.changed()).await);
    }
}

async fn until(wanted: impl Fn() -> bool, told: impl Fn() -> String) {
    let waiting = async {
        while !wanted() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let came = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    assert!(came.is_ok(), "{}", told());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_directory_that_is_emptied_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    let losses = Arc::new(Mutex::new(Vec::new()));
    let (settled, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut agents = JoinSet::new();
    for number in 0..4 {
        let node = format!("n{number}");
        let store = FileStore::open(&root, FileOptions::default()).await.unwrap();
        let state = directory.path().join(&node);
        let (losses, settled, end) = (Arc::clone(&losses), Arc::clone(&settled), Arc::clone(&end));
        agents.spawn(keep(store, node, state, losses, settled, end));
    }
    let claims = || -> BTreeMap<_, _> {
        let files = std::fs::read_dir(root.join("claims")).into_iter().flatten().flatten();
        let records = files.filter(|file| !file.file_name().as_encoded_bytes().starts_with(b"."));
        records.filter_map(|file| Some((file.path(), std::fs::read_to_string(file.path()).ok()?))).collect()
    };
    let records = || std::fs::read_dir(root.join("nodes")).into_iter().flatten().count();
    until(|| claims().len() == 2 && records() == 4, || format!("2 claims: {:?}", claims())).await;
    // A wish that is on its way to the store knows nothing of what happens to it meanwhile.
    until(|| settled.load(Ordering::Relaxed) == 4, || "all to know where they stand".to_owned()).await;
    let before = claims();
    for _ in 0..10 {
        // As rm does it: one after the other, the claims first.
        for folder in ["claims", "nodes", "pools", "released"] {
            drop(std::fs::remove_dir_all(root.join(folder)));
        }
        until(|| claims() == before && records() == 4, || format!("{before:?} again: {:?}", claims())).await;
        std::fs::remove_file(before.keys().next().unwrap()).unwrap();
        until(|| claims() == before, || format!("{before:?} after one was removed: {:?}", claims())).await;
    }
    end.store(true, Ordering::Relaxed);
    agents.join_all().await;
    assert_eq!(losses.lock().unwrap().as_slice(), [""; 0]);
}
