//! Everything that servers and networks do to those who use them, in front of a real API server.

use std::path::PathBuf;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::proxy::{Fault, FaultyProxy};
use super::node::make_node;
use super::*;

mod proxy;

/// Nodes that live all the time, each with a block.
const STAY: u32 = 20;

/// The faults blow so long at least, in gusts of this length.
const GUSTS: u32 = 14;
const GUST: Duration = Duration::from_millis(700);

/// After the last fault everything is seen as it is within this time: a silent connection, and a pause of the longest kind.
const SEEN_WITHIN: Duration = Duration::from_secs(60);

/// Connections at once, whatever becomes of them: some for every feed and every operation that is under way.
const CONNECTIONS: usize = 24;

fn stays(number: u32) -> (String, String) {
    (format!("n{number}"), format!("10.244.{number}.0/24"))
}

/// Whether somebody was dropped who lives.
fn all_stand(shown: &Snapshot) -> bool {
    !shown.rebuilding
        && (0..STAY).map(stays).all(|(node, of)| {
            shown.nodes.contains_key(&name(&node))
                && shown.claims.get(&block(&of)).is_some_and(|claim| claim.holder == Some(name(&node)))
        })
}

/// Through the proxy, with little patience, so that nothing takes a test long.
fn through(proxy: &FaultyProxy, direct: &KubernetesOptions) -> KubernetesOptions {
    KubernetesOptions {
        kubeconfig: Some(proxy.kubeconfig()),
        silence: Duration::from_secs(3),
        remote: RemoteOptions { deadline: Duration::from_secs(3), ..direct.remote.clone() },
        ..direct.clone()
    }
}

/// Claims until it is done.
async fn claim_in_the_end(store: &KubernetesStore, text: &str, holder: &str) {
    eventually("the claim", || async {
        match store.claim(&claim_of(text, holder)).await {
            Ok(ClaimOutcome::Claimed) => Some(()),
            Ok(other) => panic!("{text}: {other:?}"),
            Err(_) => None,
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_befalls_requests_nothing_is_lost_and_nobody_is_dropped() {
    let server = off_runtime(shared_api_server).await;
    let direct = options_of_its_own().await;
    let proxy = FaultyProxy::before(admin(server).await).await;
    let other = KubernetesStore::open(direct.clone());
    other.ensure_pool(&pool_of("10.244.0.0/16", 24)).await.unwrap();
    for (node, of) in (0..STAY).map(stays) {
        other.publish(&record_of(&node)).await.unwrap();
        other.claim(&claim_of(&of, &node)).await.unwrap();
    }
    let store = KubernetesStore::open(through(&proxy, &direct));
    until(&store, "all", all_stand).await;

    // Every snapshot from now on is looked at.
    let (mut shown, over) = (store.snapshots(), watch::Sender::new(false));
    let (mut troubles, mut is_over) = (store.health(), over.subscribe());
    let mut looking = JoinSet::new();
    looking.spawn(async move {
        let mut had_trouble = false;
        loop {
            had_trouble |= troubles.borrow_and_update().is_err();
            let snapshot = shown.borrow_and_update().clone().unwrap();
            assert!(all_stand(&snapshot), "somebody was dropped: {snapshot:?}");
            tokio::select! {
                Ok(()) = shown.changed() => {}
                Ok(()) = troubles.changed() => {}
                _ = is_over.wait_for(|over| *over) => return had_trouble,
            }
        }
    });

    let seed = fastrand::u64(..);
    println!("seed {seed}");
    proxy.storm(seed);
    let enough = |proxy: &FaultyProxy| Fault::ALL.iter().all(|fault| proxy.met().get(fault) >= Some(&2));
    let (mut gust, mut asked) = (0, Vec::new());
    while gust < GUSTS || !enough(&proxy) {
        assert!(gust < GUSTS * 8, "not everything has happened: {:?}", proxy.met());
        // Others go on: one comes, one goes, one changes.
        let mut record = record_of("n0");
        record.labels.insert("gust".to_owned(), gust.to_string());
        other.publish(&record).await.unwrap();
        other.claim(&claim_of(&format!("10.245.{gust}.0/24"), "n1")).await.unwrap();
        if gust > 0 {
            other.release(block(&format!("10.245.{}.0/24", gust - 1)), &name("n1")).await.unwrap();
        }
        match gust {
            4 => proxy.expire_token(),
            6 => proxy.renew_token(),
            _ => {}
        }
        // It may fail, and it may have been done all the same.
        let own = format!("10.246.{gust}.0/24");
        let _ = tokio::time::timeout(GUST, store.claim(&claim_of(&own, "n2"))).await;
        asked.push(own);
        tokio::time::sleep(GUST).await;
        proxy.shake();
        gust += 1;
    }
    assert!(proxy.strangers() > 0, "the token was never too old");
    proxy.fair();
    for own in &asked {
        claim_in_the_end(&store, own, "n2").await;
    }

    let whole = KubernetesStore::open(direct);
    let expected = until(&whole, "all", |shown| all_stand(shown) && shown.claims.len() > asked.len()).await;
    let begun = Instant::now();
    let same = |shown: &Snapshot| Snapshot { revision: expected.revision, ..shown.clone() } == *expected;
    eventually("what the server has", || async {
        let shown = store.snapshots().borrow().clone();
        shown.filter(|shown| same(shown))
    })
    .await;
    assert!(begun.elapsed() < SEEN_WITHIN);
    health(&store, "well", Result::is_ok).await;
    over.send_replace(true);
    assert!(looking.join_next().await.unwrap().unwrap(), "of all that nothing was said");
    assert!(proxy.most_open() <= CONNECTIONS, "{} connections at once", proxy.most_open());

    // Who goes would have been missed.
    other.release(block("10.244.0.0/24"), &name("n0")).await.unwrap();
    until(&store, "who has gone", |shown| !all_stand(shown)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_is_asked_ever_more_seldom_and_by_each_at_another_time() {
    let server = off_runtime(shared_api_server).await;
    let client = admin(server).await;
    let direct = options_of_its_own().await;
    let own = format!("{}-busy", direct.group.replace('.', "-"));
    make_node(&client, &own, "a").await;
    let proxy = FaultyProxy::before(client).await;
    let remote = RemoteOptions { node: Some(name(&own)), ..RemoteOptions::default() };
    let options = KubernetesOptions { remote, ..through(&proxy, &direct) };
    proxy.only(Fault::Busy);
    let store = KubernetesStore::open(options);
    let told = health(&store, "busy", Result::is_err).await;
    assert!(told.contains("429"), "{told}");

    let resource = |plural: &str| format!("/apis/{}/v1alpha1/{plural}", direct.group);
    let mut paths: Vec<String> =
        ["noderecords", "blockclaims", "blockpools", "blockreleases"].map(resource).to_vec();
    paths.push("/api/v1/nodes".to_owned());
    let attempts = 5;
    let asked: Vec<Vec<Instant>> = eventually("some attempts", || async {
        let asked: Vec<_> = paths.iter().map(|path| proxy.asked(path)).collect();
        asked.iter().all(|asked| asked.len() >= attempts).then_some(asked)
    })
    .await;
    for (path, asked) in paths.iter().zip(&asked) {
        for (number, (at, next)) in asked.iter().zip(&asked[1..]).enumerate().take(attempts - 1) {
            // Half of 250 ms, of 500 ms and so on, at least.
            let least = Duration::from_millis(125) * (1 << number);
            assert!(next.duration_since(*at) >= least, "{path}: attempt {number} of {asked:?}");
        }
    }
    let last = asked.iter().map(|asked| asked[attempts - 1]);
    let spread = last.clone().max().unwrap().duration_since(last.min().unwrap());
    assert!(spread > Duration::from_millis(20), "all came at once: {asked:?}");

    // It has said that the next attempt is to come in an hour: nobody would hear of anything until then.
    proxy.fair();
    until(&store, "a list", |_| true).await;
    let mut facts = store.node_facts().unwrap();
    let known = facts.wait_for(|facts| facts.known);
    tokio::time::timeout(Duration::from_secs(30), known).await.unwrap().unwrap();
    health(&store, "well", Result::is_ok).await;
}
