//! What can befall an API server and those who use it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::store::servers::{ADMIN_TOKEN, ApiServer, Proxy, Way, shared_api_server};
use crate::store::tests::{block, claim_of, name, pool_of, record_of, until};

/// Waits, bounded, until it comes true.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A client that may do everything.
async fn admin(server: &ApiServer) -> Client {
    let options = KubernetesOptions {
        kubeconfig: Some(server.kubeconfig(ADMIN_TOKEN)),
        ..KubernetesOptions::default()
    };
    Kubernetes::new(options).connected().await.unwrap().client
}

fn definitions(client: &Client) -> Api<DynamicObject> {
    let resource = kube::api::ApiResource {
        group: "apiextensions.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "apiextensions.k8s.io/v1".to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        plural: "customresourcedefinitions".to_owned(),
    };
    Api::all_with(client.clone(), &resource)
}

/// Applies the definitions and waits until the server takes objects.
async fn install(client: &Client, group: &str) {
    let api = definitions(client);
    for definition in crds::of_group(group) {
        let object: DynamicObject = serde_json::from_value(definition).unwrap();
        eventually("the definition", || async {
            match api.create(&PostParams::default(), &object).await {
                Ok(_) => Some(()),
                Err(error) if failure::has_code(&error, 409) => Some(()),
                // It may be starting.
                Err(kube::Error::Api(status)) if status.code < 500 && status.code != 403 => {
                    panic!("{status:?}")
                }
                Err(_) => None,
            }
        })
        .await;
    }
    for kind in Kind::ALL {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &objects::resource(group, kind));
        eventually("the resource", || async { api.list(&ListParams::default()).await.ok().map(drop) }).await;
    }
}

fn group_of_its_own() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}.pairway.dev", NEXT.fetch_add(1, Ordering::Relaxed))
}

async fn options_on(server: &ApiServer, group: &str) -> KubernetesOptions {
    install(&admin(server).await, group).await;
    KubernetesOptions {
        kubeconfig: Some(server.kubeconfig(ADMIN_TOKEN)),
        // Leases have no group of ours.
        namespace: None,
        group: group.to_owned(),
        ..KubernetesOptions::default()
    }
}

/// A part of the shared API server that no other test looks at.
pub(crate) async fn options_of_its_own() -> KubernetesOptions {
    let server = tokio::task::spawn_blocking(shared_api_server).await.unwrap();
    let group = group_of_its_own();
    let options = options_on(server, &group).await;
    let namespace = group.replace('.', "-");
    let namespaces: Api<DynamicObject> = Api::all_with(
        admin(server).await,
        &kube::api::ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: "Namespace".to_owned(),
            plural: "namespaces".to_owned(),
        },
    );
    let object =
        serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    namespaces.create(&PostParams::default(), &object).await.unwrap();
    KubernetesOptions { namespace: Some(namespace), ..options }
}

mod announce;
mod faults;
mod node;
mod place;
mod policy;
mod race;
mod rights;

async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Waits, bounded, for the store's health, and says what is wrong with it.
async fn health(store: &dyn Store, what: &str, wanted: impl Fn(&Health) -> bool) -> String {
    let mut health = store.health();
    let found = tokio::time::timeout(Duration::from_secs(90), health.wait_for(|shown| wanted(shown))).await;
    match found {
        Ok(shown) => shown.unwrap().clone().err().map(|trouble| trouble.text).unwrap_or_default(),
        Err(_) => panic!("health is not {what}: {:?}", store.health().borrow()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_watch_misses_nothing() {
    let server = off_runtime(shared_api_server).await;
    let proxy = Proxy::to(server.port()).await;
    let direct = options_of_its_own().await;
    let store = KubernetesStore::open(KubernetesOptions {
        kubeconfig: Some(server.kubeconfig_through(proxy.port, ADMIN_TOKEN)),
        ..direct.clone()
    });
    let other = KubernetesStore::open(direct);
    other.publish(&record_of("n1")).await.unwrap();
    for number in 1..3 {
        other.claim(&claim_of(&format!("10.244.{number}.0/24"), "n1")).await.unwrap();
    }
    until(&store, "all", |shown| shown.claims.len() == 2 && shown.nodes.len() == 1).await;
    for round in 0..3 {
        proxy.set(Way::Cut);
        let told = health(&store, "a trouble", Result::is_err).await;
        assert!(told.contains("does not answer"), "{told}");
        // One goes and one comes, unseen.
        other.release(block(&format!("10.244.{}.0/24", round + 1)), &name("n1")).await.unwrap();
        other.claim(&claim_of(&format!("10.244.{}.0/24", round + 3), "n1")).await.unwrap();
        assert_eq!(store.snapshots().borrow().as_ref().unwrap().claims.len(), 2, "the last snapshot stands");
        proxy.set(Way::Open);
        until(&store, "what happened", |shown| {
            shown.claims.len() == 2
                && shown.claims.contains_key(&block(&format!("10.244.{}.0/24", round + 3)))
                && shown.released.contains_key(&block(&format!("10.244.{}.0/24", round + 1)))
        })
        .await;
        health(&store, "well", Result::is_ok).await;
    }
}

/// A list in pages, for a server that can't send it with the watch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_in_pages_says_the_same() {
    let options = options_of_its_own().await;
    let other = KubernetesStore::open(options.clone());
    other.publish(&record_of("n1")).await.unwrap();
    other.claim(&claim_of("10.244.1.0/24", "n1")).await.unwrap();
    let kubernetes = Kubernetes::new(options.clone());
    for position in &kubernetes.positions {
        position.lock().unwrap().use_pages();
    }
    let store = RemoteStore::start(Arc::new(kubernetes), "the Kubernetes API", options.remote);
    until(&store, "all", |shown| shown.claims.len() == 1 && shown.nodes.len() == 1).await;
    other.claim(&claim_of("10.244.2.0/24", "n1")).await.unwrap();
    until(&store, "the second", |shown| shown.claims.len() == 2).await;
}

/// A server that answers, but not in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_slow_is_a_trouble_that_passes() {
    let server = off_runtime(shared_api_server).await;
    let proxy = Proxy::to(server.port()).await;
    let store = KubernetesStore::open(KubernetesOptions {
        kubeconfig: Some(server.kubeconfig_through(proxy.port, ADMIN_TOKEN)),
        remote: RemoteOptions { deadline: Duration::from_secs(2), ..RemoteOptions::default() },
        ..options_of_its_own().await
    });
    until(&store, "a list", |_| true).await;
    proxy.set(Way::Clogged);
    let error = store.claim(&claim_of("10.244.1.0/24", "n1")).await.expect_err("nothing passes");
    let told = crate::telemetry::chain(&error);
    assert!(told.contains("no answer from the Kubernetes API"), "{told}");
    proxy.set(Way::Open);
    let claimed = async { while store.claim(&claim_of("10.244.1.0/24", "n1")).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), claimed).await.unwrap();
    health(&store, "well", Result::is_ok).await;
    until(&store, "the claim", |shown| shown.claims.len() == 1).await;
}

/// An API server that was killed, that has forgotten what a watch has missed (410), and that lost everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_becomes_of_the_server_nothing_is_lost_and_nothing_pruned() {
    let mut server = off_runtime(ApiServer::start).await;
    let state = tempfile::tempdir().unwrap();
    let proxy = Proxy::to(server.port()).await;
    let direct = options_on(&server, GROUP).await;
    let options = KubernetesOptions {
        kubeconfig: Some(server.kubeconfig_through(proxy.port, ADMIN_TOKEN)),
        remote: RemoteOptions {
            last_good: Some(state.path().join("records.json")),
            last_good_every: Duration::from_millis(100),
            patience: Duration::from_millis(500),
            ..RemoteOptions::default()
        },
        ..direct.clone()
    };
    let store = KubernetesStore::open(options.clone());
    let other = KubernetesStore::open(direct.clone());
    store.publish(&record_of("n1")).await.unwrap();
    store.claim(&claim_of("10.244.1.0/24", "n1")).await.unwrap();
    store.ensure_pool(&pool_of("10.244.0.0/16", 24)).await.unwrap();
    let all = |shown: &Snapshot| shown.nodes.len() == 1 && shown.claims.len() == 1 && shown.pools.len() == 1;
    let before = until(&store, "all", all).await;

    // Killed.
    server = off_runtime(move || {
        server.kill();
        server
    })
    .await;
    let told = health(&store, "a trouble", Result::is_err).await;
    assert!(told.contains("KUBERNETES_SERVICE_HOST"), "{told}");
    assert_eq!(store.snapshots().borrow().as_ref(), Some(&before));

    // An agent that starts meanwhile goes by what it remembers, and says so.
    drop(store);
    let store = KubernetesStore::open(options.clone());
    let stale = until(&store, "what is remembered", all).await;
    assert!(stale.rebuilding);
    assert_eq!((&stale.nodes, &stale.claims, &stale.pools), (&before.nodes, &before.claims, &before.pools));
    health(&store, "by memory", |health| {
        health.as_ref().is_err_and(|trouble| trouble.text.ends_with("what it remembers of its last run"))
    })
    .await;
    // One that remembers nothing shows nothing.
    let fresh = KubernetesStore::open(KubernetesOptions {
        remote: RemoteOptions { last_good: None, ..options.remote.clone() },
        ..options.clone()
    });
    health(&fresh, "a trouble", Result::is_err).await;
    assert_eq!(*fresh.snapshots().borrow(), None, "no snapshot before a complete list");
    drop(fresh);
    server = off_runtime(move || {
        server.restart();
        server
    })
    .await;
    until(&store, "the whole", |shown| !shown.rebuilding && all(shown)).await;
    store.publish(&record_of("n1")).await.unwrap();
    health(&store, "well", Result::is_ok).await;

    // What a watch has missed is not told any more.
    proxy.set(Way::Cut);
    health(&store, "a trouble", Result::is_err).await;
    let claimed = async { while other.claim(&claim_of("10.244.2.0/24", "n2")).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), claimed).await.unwrap();
    other.release(block("10.244.1.0/24"), &name("n1")).await.unwrap();
    crate::store::etcd::tests::compact(server.etcd.endpoints()).await;
    server = off_runtime(move || {
        server.kill();
        server.restart();
        server
    })
    .await;
    proxy.set(Way::Open);
    until(&store, "what happened", |shown| {
        assert!(!shown.rebuilding, "what was given back is no loss, though two watches tell of it");
        shown.claims.keys().eq([&block("10.244.2.0/24")]) && shown.released.len() == 1
    })
    .await;
    health(&store, "well", Result::is_ok).await;

    // Everything lost, the definitions with it: that is no empty store.
    let last = store.snapshots().borrow().clone();
    server = off_runtime(move || {
        server.kill();
        server.etcd.wipe();
        server.etcd.restart();
        server.restart();
        server
    })
    .await;
    health(&store, "no resources", |health| {
        health.as_ref().is_err_and(|trouble| trouble.text.contains("kubectl apply -f config/deploy/crds"))
    })
    .await;
    assert_eq!(*store.snapshots().borrow(), last);
    install(&admin(&server).await, GROUP).await;
    let lost = until(&store, "the loss", |shown| shown.claims.is_empty()).await;
    assert!(lost.rebuilding, "who is missing has not gone");
    store.publish(&record_of("n1")).await.unwrap();
    health(&store, "well", Result::is_ok).await;
    off_runtime(move || drop(server)).await;
}

/// What the definitions refuse, and what they keep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_checks_records() {
    let options = options_of_its_own().await;
    let kubernetes = Kubernetes::new(options.clone());
    let claim = br#"{"version": 1, "block": "10.244.7.0/24", "holder": "n1", "claimedAt": "2026-01-01T00:00:00Z", "future": {"deep": 1}}"#;
    let key = Key::claim(block("10.244.7.0/24"));
    let misnamed = Key::claim(block("10.244.8.0/24"));
    let refused = kubernetes.create(&misnamed, claim).await.unwrap_err();
    assert!(matches!(&refused, Failure::Record(text) if text.contains("named after its block")), "{refused}");
    let version = kubernetes.create(&key, claim).await.unwrap().unwrap();
    assert_eq!(kubernetes.create(&key, claim).await.unwrap(), None, "it stands there");
    let text = String::from_utf8(kubernetes.read(&key).await.unwrap().unwrap().content).unwrap();
    assert!(text.contains(r#""future":{"deep":1}"#), "fields of newer versions are kept: {text}");
    let stolen = String::from_utf8(claim.to_vec()).unwrap().replace("\"n1\"", "\"n2\"");
    let refused = kubernetes.replace(&key, stolen.as_bytes(), version).await.unwrap_err();
    assert!(
        matches!(&refused, Failure::Record(text) if text.contains("a claim is never changed")),
        "{refused}"
    );
    assert!(!kubernetes.remove(&key, Some(version + 1000)).await.unwrap(), "of another version");
    assert!(kubernetes.remove(&key, Some(version)).await.unwrap());

    let nobodys = br#"{"version": 1, "block": "10.244.7.0/24", "claimedAt": "2026-01-01T00:00:00Z"}"#;
    let refused = kubernetes.create(&key, nobodys).await.unwrap_err();
    assert!(matches!(&refused, Failure::Record(text) if text.contains("spec.holder")), "{refused}");
    let node = Key::node(&name("n1"));
    let mut record: serde_json::Value =
        serde_json::from_slice(&crate::store::record::Encoding::default().node(&record_of("n1"), None))
            .unwrap();
    record["vni"] = serde_json::json!(16_777_216);
    let refused = kubernetes.create(&node, record.to_string().as_bytes()).await.unwrap_err();
    assert!(matches!(&refused, Failure::Record(text) if text.contains("spec.vni")), "{refused}");
}
