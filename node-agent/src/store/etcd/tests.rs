//! What can befall etcd: compaction, a member or all of them lost, everything lost, TLS and users.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::store::servers::{EtcdServer, Proxy, Way, shared_etcd};
use crate::store::tests::{block, claim_of, name, pool_of, record_of, until};

pub(crate) fn options(endpoints: Vec<String>) -> EtcdOptions {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    EtcdOptions {
        endpoints,
        prefix: format!("/pairway-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        ca_file: None,
        cert_file: None,
        key_file: None,
        server_name: None,
        username: None,
        password_file: None,
        remote: RemoteOptions { node: Some(name("observer")), ..RemoteOptions::default() },
    }
}

/// A part of the shared etcd that no other test looks at.
pub(crate) async fn options_of_its_own() -> EtcdOptions {
    let endpoints = tokio::task::spawn_blocking(|| shared_etcd().endpoints()).await.unwrap();
    options(endpoints)
}

mod raw;
mod users;

/// Forgets every revision but the last.
pub(crate) async fn compact(endpoints: Vec<String>) {
    raw::compact(&Etcd::new(options(endpoints))).await;
}

async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Waits, bounded, for the store's health, and says what is wrong with it.
async fn health(store: &dyn Store, what: &str, wanted: impl Fn(&Health) -> bool) -> String {
    let mut health = store.health();
    let found = tokio::time::timeout(Duration::from_secs(60), health.wait_for(|shown| wanted(shown))).await;
    match found {
        Ok(shown) => shown.unwrap().clone().err().map(|trouble| trouble.text).unwrap_or_default(),
        Err(_) => panic!("health is not {what}: {:?}", store.health().borrow()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_readable_and_of_the_prefix() {
    let options = options_of_its_own().await;
    let store = EtcdStore::open(options.clone());
    store.publish(&record_of("n1")).await.unwrap();
    store.claim(&claim_of("fd10:244:0:7::/64", "n1")).await.unwrap();
    let etcd = Etcd::new(options.clone());
    let question = RangeRequest {
        key: options.prefix.clone().into_bytes(),
        range_end: range_end(options.prefix.as_bytes()),
        ..RangeRequest::default()
    };
    let answer: RangeResponse = etcd.client.call("/etcdserverpb.KV/Range", question).await.unwrap();
    let keys: Vec<String> = answer
        .kvs
        .iter()
        .map(|kv| String::from_utf8(kv.key.clone()).unwrap().replacen(&options.prefix, "", 1))
        .collect();
    assert_eq!(keys, ["/identity", "/life/n1", "/records/claims/fd10-244-0-7---64", "/records/nodes/n1"]);
}

/// `pairway doctor` is such a one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_looks_makes_nothing() {
    let options = options_of_its_own().await;
    let looker = EtcdStore::open(EtcdOptions { remote: RemoteOptions::default(), ..options.clone() });
    let shown = until(&looker, "anything", |_| true).await;
    assert!(shown.nodes.is_empty());
    let etcd = Etcd::new(options.clone());
    let question =
        RangeRequest { key: format!("{}/identity", options.prefix).into(), ..RangeRequest::default() };
    let count = async || {
        let answer: RangeResponse =
            etcd.client.call("/etcdserverpb.KV/Range", question.clone()).await.unwrap();
        answer.kvs.len()
    };
    assert_eq!(count().await, 0);
    // An agent makes it, and the looker goes on.
    EtcdStore::open(options).publish(&record_of("n1")).await.unwrap();
    until(&looker, "n1", |shown| shown.nodes.len() == 1).await;
    assert_eq!(count().await, 1);
}

#[test]
fn a_range_ends_after_its_prefix() {
    assert_eq!(range_end(b"/pairway/"), b"/pairway0");
    assert_eq!(range_end(b"a\xff\xff"), b"b");
    assert_eq!(range_end(b"\xff"), [0]);
}

/// A database that has forgotten what the watch missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compacted_is_listed_again() {
    let server = off_runtime(EtcdServer::start).await;
    let proxy = Proxy::to(server.port()).await;
    let direct = options(server.endpoints());
    let store = EtcdStore::open(EtcdOptions {
        endpoints: vec![format!("http://127.0.0.1:{}", proxy.port)],
        ..direct.clone()
    });
    let other = EtcdStore::open(direct.clone());
    other.claim(&claim_of("10.244.1.0/24", "n1")).await.unwrap();
    other.claim(&claim_of("10.244.2.0/24", "n2")).await.unwrap();
    until(&store, "both", |shown| shown.claims.len() == 2).await;
    proxy.set(Way::Cut);
    health(&store, "a trouble", Result::is_err).await;

    // One goes and one comes, unseen, and etcd forgets how.
    other.release(block("10.244.1.0/24"), &name("n1")).await.unwrap();
    other.claim(&claim_of("10.244.3.0/24", "n3")).await.unwrap();
    raw::compact(&Etcd::new(direct)).await;
    assert_eq!(store.snapshots().borrow().as_ref().unwrap().claims.len(), 2, "the last snapshot stands");

    proxy.set(Way::Open);
    let shown = until(&store, "the third", |shown| shown.claims.contains_key(&block("10.244.3.0/24"))).await;
    assert!(!shown.claims.contains_key(&block("10.244.1.0/24")), "what went is gone");
    health(&store, "well", Result::is_ok).await;
    // And it goes on.
    other.claim(&claim_of("10.244.4.0/24", "n4")).await.unwrap();
    until(&store, "the fourth", |shown| shown.claims.contains_key(&block("10.244.4.0/24"))).await;
}

/// Connections that stand while nothing passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_that_is_clogged_is_noticed_and_left() {
    let server = off_runtime(EtcdServer::start).await;
    let proxy = Proxy::to(server.port()).await;
    let options = options(vec![format!("http://127.0.0.1:{}", proxy.port)]);
    let store = EtcdStore::open(EtcdOptions {
        remote: RemoteOptions { deadline: Duration::from_secs(3), ..options.remote.clone() },
        ..options
    });
    store.claim(&claim_of("10.244.1.0/24", "n1")).await.unwrap();
    proxy.set(Way::Clogged);
    store.claim(&claim_of("10.244.2.0/24", "n1")).await.expect_err("nothing passes");
    assert!(store.health().borrow().is_err());
    proxy.set(Way::Open);
    let claimed = async { while store.claim(&claim_of("10.244.2.0/24", "n1")).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), claimed).await.unwrap();
    health(&store, "well", Result::is_ok).await;
    until(&store, "both", |shown| shown.claims.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_members_one_may_be_lost_and_two_stop_everything_for_a_while() {
    let mut server = off_runtime(|| EtcdServer::start_with(3, false)).await;
    let (one, other) = {
        let options = options(server.endpoints());
        (EtcdStore::open(options.clone()), EtcdStore::open(options))
    };
    one.publish(&record_of("n1")).await.unwrap();
    until(&other, "n1", |shown| shown.nodes.len() == 1).await;
    for member in 0..3 {
        server = off_runtime(move || {
            server.kill_member(member);
            server
        })
        .await;
        let text = format!("10.244.{member}.0/24");
        // Perhaps while a leader is elected.
        let claimed = async { while one.claim(&claim_of(&text, "n1")).await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(60), claimed).await.unwrap();
        until(&other, "the claim", |shown| shown.claims.len() == member + 1).await;
        server = off_runtime(move || {
            server.restart();
            server
        })
        .await;
    }
    server = off_runtime(move || {
        server.kill_member(0);
        server.kill_member(1);
        server
    })
    .await;
    one.claim(&claim_of("10.244.9.0/24", "n1")).await.expect_err("there is no majority");
    let told = health(&one, "a trouble", Result::is_err).await;
    assert!(told.contains("etcd"), "{told}");
    assert_eq!(other.snapshots().borrow().as_ref().unwrap().claims.len(), 3, "the last snapshot stands");
    let server = off_runtime(move || {
        server.restart();
        server
    })
    .await;
    let claimed = async { while one.claim(&claim_of("10.244.9.0/24", "n1")).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), claimed).await.unwrap();
    for store in [&one, &other] {
        health(store, "well", Result::is_ok).await;
    }
    until(&other, "the fourth", |shown| shown.claims.len() == 4).await;
    off_runtime(move || drop(server)).await;
}

/// Another database under the same address, whose revisions begin anew and overtake the old ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_lost_is_noticed_and_filled_again() {
    let mut server = off_runtime(EtcdServer::start).await;
    let options = options(server.endpoints());
    let store = EtcdStore::open(options.clone());
    store.publish(&record_of("n1")).await.unwrap();
    store.claim(&claim_of("10.244.1.0/24", "n1")).await.unwrap();
    store.claim(&claim_of("10.244.2.0/24", "n2")).await.unwrap();
    until(&store, "all", |shown| shown.claims.len() == 2 && shown.nodes.len() == 1).await;
    let server = off_runtime(move || {
        server.wipe();
        server.restart();
        server
    })
    .await;
    let etcd = Etcd::new(EtcdOptions { prefix: "/elsewhere".to_owned(), ..options });
    for number in 0..50 {
        etcd.create(&Key::node(&name(&format!("n{number}"))), b"{}").await.unwrap();
    }
    let lost = until(&store, "the loss", |shown| shown.claims.is_empty()).await;
    assert!(lost.rebuilding, "who is missing has not gone");
    store.publish(&record_of("n1")).await.unwrap();
    store.claim(&claim_of("10.244.1.0/24", "n1")).await.unwrap();
    let whole = until(&store, "what is whole again", |shown| !shown.rebuilding).await;
    assert_eq!((whole.nodes.len(), whole.claims.len()), (1, 1));
    off_runtime(move || drop(server)).await;
}

/// Whoever lives writes its own again, and nobody takes a block of another's meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_lost_is_filled_by_the_agents_that_live() {
    const AGENTS: usize = 12;
    let mut server = off_runtime(EtcdServer::start).await;
    let options = options(server.endpoints());
    let directory = tempfile::tempdir().unwrap();
    let mut agents = tokio::task::JoinSet::new();
    for number in 0..AGENTS {
        let (options, node) = (options.clone(), format!("n{number}"));
        let state = directory.path().join(&node);
        agents.spawn(async move {
            let store = EtcdStore::open(options);
            // Sixteen blocks for twelve: a block that looked free would soon be another's.
            crate::claims::tests::keep_claims(&store, &node, state, "10.244.0.0/20").await;
        });
    }
    let watcher = EtcdStore::open(options);
    let all = |shown: &Snapshot| {
        (shown.claims.len(), shown.nodes.len(), shown.pools.len()) == (AGENTS, AGENTS, 1) && !shown.rebuilding
    };
    let before = until(&watcher, "every claim", all).await;
    for _ in 0..2 {
        server = off_runtime(move || {
            server.wipe();
            server.restart();
            server
        })
        .await;
        until(&watcher, "the loss", |shown| shown.claims.len() < AGENTS).await;
        let after = until(&watcher, "every claim again", all).await;
        assert_eq!(after.claims, before.claims, "the same blocks, of the same nodes, as old as before");
    }
    agents.shutdown().await;
    off_runtime(move || drop(server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_signs_of_life_and_nothing_else() {
    let options = options_of_its_own().await;
    let store = EtcdStore::open(options.clone());
    store.publish(&record_of("n1")).await.unwrap();
    store.claim(&claim_of("10.244.1.0/24", "n1")).await.unwrap();
    assert!(store.last_seen(&name("n1")).await.unwrap().unwrap() > Timestamp::UNIX_EPOCH);
    let etcd = Etcd::new(options);
    raw::revoke(&etcd, etcd.stored_lease(&name("n1")).await.unwrap().unwrap()).await;
    // As if it had run out.
    assert_eq!(etcd.stored_lease(&name("n1")).await.unwrap(), None);
    assert_eq!(store.last_seen(&name("n1")).await.unwrap(), Some(Timestamp::UNIX_EPOCH), "long ago");
    store.claim(&claim_of("10.244.2.0/24", "n1")).await.unwrap();
    let shown = until(&store, "both", |shown| shown.claims.len() == 2).await;
    assert!(shown.nodes.contains_key(&name("n1")));
    store.heartbeat(&name("n1")).await.unwrap();
    assert!(store.last_seen(&name("n1")).await.unwrap().unwrap() > Timestamp::UNIX_EPOCH, "it lives again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_can_not_be_read_keep_their_last_good_content() {
    let options = options_of_its_own().await;
    let store = EtcdStore::open(options.clone());
    store.publish(&record_of("n1")).await.unwrap();
    store.claim(&claim_of("10.244.1.0/24", "n1")).await.unwrap();
    store.ensure_pool(&pool_of("10.244.0.0/16", 24)).await.unwrap();
    let whole =
        until(&store, "all", |shown| shown.nodes.len() + shown.claims.len() + shown.pools.len() == 3).await;
    let etcd = Etcd::new(options);
    let claim = Key::claim(block("10.244.1.0/24"));
    for key in [Key::node(&name("n1")), claim.clone(), Key::pool("10.244.0.0/16".parse().unwrap())] {
        let stored = etcd.read(&key).await.unwrap().unwrap();
        assert!(etcd.replace(&key, b"half", stored.version).await.unwrap());
    }
    let shown = until(&store, "the problems", |shown| shown.problems.len() == 3).await;
    assert_eq!((&shown.nodes, &shown.claims, &shown.pools), (&whole.nodes, &whole.claims, &whole.pools));
    let mine = claim_of("10.244.1.0/24", "n1");
    assert_eq!(store.claim(&mine).await.unwrap(), ClaimOutcome::TakenBy(None));
    assert!(!store.release(mine.block, &name("n1")).await.unwrap());
    assert_eq!(*store.health().borrow(), Ok(()));
    assert_eq!(store.mend_claim(&mine).await.unwrap(), ClaimOutcome::Claimed);
    store.publish(&record_of("n1")).await.unwrap();
    until(&store, "the pool alone", |shown| shown.problems.len() == 1).await;
}
