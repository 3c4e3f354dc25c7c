//! What every store promises, asked of each of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::etcd::EtcdStore;
use super::file::{FileOptions, FileStore};
use super::kubernetes::KubernetesStore;
use super::memory::MemoryStore;
use super::*;
use crate::node::Underlay;

pub(crate) fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

pub(crate) fn block(text: &str) -> Block {
    Block::new(text.parse().unwrap())
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(crate) fn claim_of(text: &str, holder: &str) -> Claim {
    Claim { block: block(text), holder: Some(name(holder)), claimed_at: at(0), unknown: BTreeMap::new() }
}

pub(crate) fn pool_of(cidr: &str, block_prefix: u8) -> PoolRecord {
    PoolRecord { cidr: cidr.parse().unwrap(), block_prefix, unknown: BTreeMap::new() }
}

pub(crate) fn record_of(node: &str) -> NodeRecord {
    NodeRecord {
        name: name(node),
        underlay: Underlay {
            ipv4: Some("192.0.2.7/24".parse().unwrap()),
            ipv6: Some("2001:db8::7/64".parse().unwrap()),
        },
        asn: 64512,
        router_id: "192.0.2.7".parse().unwrap(),
        bgp_port: 179,
        vni: 4096,
        vxlan_port: 4789,
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        capabilities: ["native", "vxlan"].map(str::to_owned).into_iter().collect(),
        common_digest: "d1".to_owned(),
        instance: None,
        contender: None,
        unknown: BTreeMap::new(),
    }
}

/// Waits, bounded, for a snapshot that is as wanted.
pub(crate) async fn until(
    store: &dyn Store,
    what: &str,
    wanted: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    let mut snapshots = store.snapshots();
    let found = tokio::time::timeout(Duration::from_secs(30), async {
        let found = snapshots.wait_for(|shown| shown.as_deref().is_some_and(&wanted)).await.unwrap();
        found.clone().unwrap()
    })
    .await;
    match found {
        Ok(snapshot) => snapshot,
        Err(_) => {
            let shown = format!("{:?}", store.snapshots().borrow());
            panic!("no snapshot with {what}: {}", shown.chars().take(2000).collect::<String>())
        }
    }
}

/// Two agents' views of one store.
struct Two {
    one: Arc<dyn Store>,
    other: Arc<dyn Store>,
    _directory: Option<tempfile::TempDir>,
}

async fn in_etcd() -> Two {
    let options = etcd::tests::options_of_its_own().await;
    let (one, other) = (EtcdStore::open(options.clone()), EtcdStore::open(options));
    Two { one: Arc::new(one), other: Arc::new(other), _directory: None }
}

async fn in_kubernetes() -> Two {
    let options = kubernetes::tests::options_of_its_own().await;
    let (one, other) = (KubernetesStore::open(options.clone()), KubernetesStore::open(options));
    Two { one: Arc::new(one), other: Arc::new(other), _directory: None }
}

async fn file() -> Two {
    let directory = tempfile::tempdir().unwrap();
    let open = || FileStore::open(directory.path().join("store"), FileOptions::default());
    let (one, other) = (open().await.unwrap(), open().await.unwrap());
    Two { one: Arc::new(one), other: Arc::new(other), _directory: Some(directory) }
}

async fn memory() -> Two {
    let one = MemoryStore::new();
    let other = one.another_view();
    std::future::ready(Two { one: Arc::new(one), other: Arc::new(other), _directory: None }).await
}

/// Each promise becomes a test of each store.
macro_rules! promises {
    ($($promise:ident)*) => {
        mod of_file { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(super::file().await).await; }
        )* }
        mod of_etcd { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(super::in_etcd().await).await; }
        )* }
        mod of_kubernetes { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(super::in_kubernetes().await).await; }
        )* }
        mod of_memory { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(super::memory().await).await; }
        )* }
    };
}

promises! {
    an_empty_store_has_a_snapshot
    what_one_publishes_the_other_sees
    republishing_keeps_unknown_fields
    publishing_the_same_again_is_no_change
    a_claim_is_made_once
    of_many_racers_one_wins
    only_its_holder_releases_a_claim
    a_release_is_remembered_until_the_next_claim
    a_heartbeat_is_seen_and_is_no_change
    a_pool_has_one_block_prefix
    pools_do_not_overlap
    a_removed_node_leaves_nothing_but_memories
    a_claim_without_holder_is_refused
    what_can_be_read_is_not_mended
    revisions_grow
    blocks_of_two_nodes_never_overlap
}

async fn an_empty_store_has_a_snapshot(two: Two) {
    let snapshot = until(&*two.one, "anything", |_| true).await;
    assert!(snapshot.nodes.is_empty() && snapshot.claims.is_empty() && snapshot.problems.is_empty());
    assert_eq!(*two.one.health().borrow(), Ok(()));
}

async fn what_one_publishes_the_other_sees(two: Two) {
    two.one.publish(&record_of("n1")).await.unwrap();
    let snapshot = until(&*two.other, "n1", |shown| shown.nodes.contains_key(&name("n1"))).await;
    assert_eq!(*snapshot.nodes[&name("n1")], record_of("n1"));

    let bare = NodeRecord { underlay: Underlay::default(), labels: BTreeMap::new(), ..record_of("n1") };
    two.one.publish(&bare).await.unwrap();
    until(&*two.other, "the new record", |shown| *shown.nodes[&name("n1")] == bare).await;
}

async fn republishing_keeps_unknown_fields(two: Two) {
    let newer = NodeRecord {
        unknown: BTreeMap::from([("future".to_owned(), serde_json::json!({"deep": [1, 2]}))]),
        ..record_of("n1")
    };
    two.one.publish(&newer).await.unwrap();
    two.other.publish(&NodeRecord { asn: 64999, ..record_of("n1") }).await.unwrap();
    let snapshot = until(&*two.one, "AS 64999", |shown| {
        shown.nodes.get(&name("n1")).is_some_and(|node| node.asn == 64999)
    })
    .await;
    assert_eq!(snapshot.nodes[&name("n1")].unknown, newer.unknown);
}

async fn publishing_the_same_again_is_no_change(two: Two) {
    two.one.publish(&record_of("n1")).await.unwrap();
    let before = until(&*two.other, "n1", |shown| shown.nodes.contains_key(&name("n1"))).await;
    two.one.publish(&record_of("n1")).await.unwrap();
    // The control: a change that is one arrives, and it is the next.
    two.one.publish(&record_of("n2")).await.unwrap();
    let after = until(&*two.other, "n2", |shown| shown.nodes.contains_key(&name("n2"))).await;
    assert_eq!(after.revision, before.revision + 1);
}

async fn blocks_of_two_nodes_never_overlap(two: Two) {
    two.one.claim(&claim_of("10.244.1.0/24", "n1")).await.unwrap();
    for (part, nobodys) in [("10.244.1.64/26", "10.244.2.64/26"), ("10.244.0.0/23", "10.244.4.0/23")] {
        let taken = ClaimOutcome::TakenBy(Some(name("n1")));
        assert_eq!(two.other.claim(&claim_of(part, "n2")).await.unwrap(), taken, "{part}");
        assert_eq!(two.other.claim(&claim_of(nobodys, "n2")).await.unwrap(), ClaimOutcome::Claimed);
    }
    assert!(two.one.release(block("10.244.1.0/24"), &name("n1")).await.unwrap());
    let outcome = two.other.claim(&claim_of("10.244.1.64/26", "n2")).await.unwrap();
    assert_eq!(outcome, ClaimOutcome::Claimed, "it was given back");
}

async fn a_claim_is_made_once(two: Two) {
    let mine = claim_of("10.244.7.0/24", "n1");
    assert_eq!(two.one.claim(&mine).await.unwrap(), ClaimOutcome::Claimed);
    assert_eq!(two.one.claim(&mine).await.unwrap(), ClaimOutcome::Claimed, "by the same holder");
    let theirs = claim_of("10.244.7.0/24", "n2");
    assert_eq!(two.other.claim(&theirs).await.unwrap(), ClaimOutcome::TakenBy(Some(name("n1"))));
    let snapshot = until(&*two.other, "the claim", |shown| !shown.claims.is_empty()).await;
    assert_eq!(snapshot.claims[&mine.block], mine);
}

async fn of_many_racers_one_wins(two: Two) {
    for round in 0..10 {
        let mut racers = JoinSet::new();
        for racer in 0..16 {
            let store = if racer % 2 == 0 { two.one.clone() } else { two.other.clone() };
            let claim = claim_of(&format!("10.244.{round}.0/24"), &format!("n{racer}"));
            racers.spawn(async move { (store.claim(&claim).await.unwrap(), claim) });
        }
        let outcomes = racers.join_all().await;
        let winners: Vec<_> =
            outcomes.iter().filter(|(outcome, _)| *outcome == ClaimOutcome::Claimed).collect();
        assert_eq!(winners.len(), 1);
        let winner = winners[0].1.holder.clone();
        let losers = outcomes.iter().filter(|(outcome, _)| *outcome == ClaimOutcome::TakenBy(winner.clone()));
        assert_eq!(losers.count(), 15, "{outcomes:?}");
    }
}

async fn only_its_holder_releases_a_claim(two: Two) {
    let claim = claim_of("fd10:244:0:7::/64", "n1");
    assert!(!two.one.release(claim.block, &name("n1")).await.unwrap(), "there is none");
    two.one.claim(&claim).await.unwrap();
    assert!(!two.other.release(claim.block, &name("n2")).await.unwrap());
    assert_eq!(
        two.other.claim(&claim_of("fd10:244:0:7::/64", "n2")).await.unwrap(),
        ClaimOutcome::TakenBy(Some(name("n1")))
    );
    assert!(two.other.release(claim.block, &name("n1")).await.unwrap(), "whoever asks in its name");
    assert_eq!(two.other.claim(&claim_of("fd10:244:0:7::/64", "n2")).await.unwrap(), ClaimOutcome::Claimed);
}

async fn a_release_is_remembered_until_the_next_claim(two: Two) {
    let claim = claim_of("10.244.7.0/24", "n1");
    two.one.claim(&claim).await.unwrap();
    let before = Timestamp::now();
    two.one.release(claim.block, &name("n1")).await.unwrap();
    let snapshot = until(&*two.other, "the release", |shown| {
        shown.released.contains_key(&claim.block) && shown.claims.is_empty()
    })
    .await;
    assert!((before..=Timestamp::now()).contains(&snapshot.released[&claim.block]));
    two.other.claim(&claim_of("10.244.7.0/24", "n2")).await.unwrap();
    until(&*two.one, "the claim alone", |shown| shown.claims.len() == 1 && shown.released.is_empty()).await;
}

async fn a_heartbeat_is_seen_and_is_no_change(two: Two) {
    assert_eq!(two.one.last_seen(&name("n1")).await.unwrap(), None);
    two.one.heartbeat(&name("n1")).await.expect_err("there is no record");
    assert_eq!(*two.one.health().borrow(), Ok(()), "which is not the store's fault");
    two.one.publish(&record_of("n1")).await.unwrap();
    let before = until(&*two.other, "n1", |shown| shown.nodes.contains_key(&name("n1"))).await;
    let published = two.other.last_seen(&name("n1")).await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            two.one.heartbeat(&name("n1")).await.unwrap();
            if two.other.last_seen(&name("n1")).await.unwrap().unwrap() > published {
                return;
            }
        }
    })
    .await
    .expect("the sign of life moves on");
    two.one.publish(&record_of("n2")).await.unwrap();
    let after = until(&*two.other, "n2", |shown| shown.nodes.contains_key(&name("n2"))).await;
    assert_eq!(after.revision, before.revision + 1);
}

async fn a_pool_has_one_block_prefix(two: Two) {
    let pool = pool_of("10.244.0.0/16", 24);
    assert_eq!(two.one.ensure_pool(&pool).await.unwrap(), PoolOutcome::Agreed);
    assert_eq!(two.other.ensure_pool(&pool).await.unwrap(), PoolOutcome::Agreed);
    let other = pool_of("10.244.0.0/16", 26);
    assert_eq!(two.other.ensure_pool(&other).await.unwrap(), PoolOutcome::BlockPrefixDiffers(24));
    let snapshot = until(&*two.other, "the pool", |shown| !shown.pools.is_empty()).await;
    assert_eq!(snapshot.pools[&pool.cidr], pool);
    let claim = claim_of("10.244.7.0/24", "n1");
    two.other.claim(&claim).await.unwrap();
    assert!(!two.one.remove_pool(pool.cidr).await.unwrap(), "a block of it is claimed");
    assert_eq!(two.other.ensure_pool(&other).await.unwrap(), PoolOutcome::BlockPrefixDiffers(24));
    two.other.release(claim.block, &name("n1")).await.unwrap();
    two.other.claim(&claim_of("10.245.7.0/24", "n1")).await.unwrap();
    assert!(two.one.remove_pool(pool.cidr).await.unwrap(), "none of its blocks");
    assert_eq!(two.other.ensure_pool(&other).await.unwrap(), PoolOutcome::Agreed);
}

async fn pools_do_not_overlap(two: Two) {
    two.one.ensure_pool(&pool_of("10.244.0.0/16", 24)).await.unwrap();
    for cidr in ["10.0.0.0/8", "10.244.128.0/17"] {
        let outcome = two.other.ensure_pool(&pool_of(cidr, 26)).await.unwrap();
        assert_eq!(outcome, PoolOutcome::Overlaps("10.244.0.0/16".parse().unwrap()), "{cidr}");
    }
    assert_eq!(two.other.ensure_pool(&pool_of("10.245.0.0/16", 26)).await.unwrap(), PoolOutcome::Agreed);
    assert_eq!(two.other.ensure_pool(&pool_of("fd10:244::/48", 64)).await.unwrap(), PoolOutcome::Agreed);
}

async fn a_removed_node_leaves_nothing_but_memories(two: Two) {
    two.one.publish(&record_of("n1")).await.unwrap();
    two.one.publish(&record_of("n2")).await.unwrap();
    for (block, holder) in [("10.244.1.0/24", "n1"), ("fd10:244:0:1::/64", "n1"), ("10.244.2.0/24", "n2")] {
        two.one.claim(&claim_of(block, holder)).await.unwrap();
    }
    assert!(two.other.remove_node(&name("n1")).await.unwrap());
    let snapshot =
        until(&*two.one, "n2 alone", |shown| shown.nodes.len() == 1 && shown.claims.len() == 1).await;
    assert_eq!(snapshot.blocks_of(&name("n2")), [block("10.244.2.0/24")]);
    let released: Vec<Block> = snapshot.released.keys().copied().collect();
    assert_eq!(released, [block("10.244.1.0/24"), block("fd10:244:0:1::/64")]);
    assert_eq!(two.one.last_seen(&name("n1")).await.unwrap(), None);
    assert!(!two.other.remove_node(&name("n1")).await.unwrap(), "once more changes nothing");
}

async fn what_can_be_read_is_not_mended(two: Two) {
    let (mine, theirs) = (claim_of("10.244.7.0/24", "n1"), claim_of("10.244.7.0/24", "n2"));
    assert_eq!(
        two.one.mend_claim(&mine).await.unwrap(),
        ClaimOutcome::Claimed,
        "where nothing stands it is a claim"
    );
    let outcome = two.other.mend_claim(&theirs).await.unwrap();
    assert_eq!(outcome, ClaimOutcome::TakenBy(Some(name("n1"))));
    let shown = until(&*two.other, "the claim", |shown| !shown.claims.is_empty()).await;
    assert_eq!(shown.claims[&mine.block], mine);
    two.one.mend_claim(&Claim { holder: None, ..mine }).await.expect_err("nobody would hold it");
}

async fn a_claim_without_holder_is_refused(two: Two) {
    let claim = Claim { holder: None, ..claim_of("10.244.7.0/24", "n1") };
    two.one.claim(&claim).await.expect_err("nobody would hold it");
    assert_eq!(two.one.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap(), ClaimOutcome::Claimed);
}

async fn revisions_grow(two: Two) {
    let mut last = until(&*two.other, "anything", |_| true).await.revision;
    for number in 0..5 {
        two.one.claim(&claim_of(&format!("10.244.{number}.0/24"), "n1")).await.unwrap();
        let snapshot = until(&*two.other, "one more", |shown| shown.claims.len() == number + 1).await;
        assert!(snapshot.revision > last);
        last = snapshot.revision;
    }
}
