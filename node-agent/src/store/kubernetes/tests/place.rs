//! A database that is of an earlier time than what was heard of it.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_has_not_come_as_far_is_listed_anew() {
    let mut server = off_runtime(ApiServer::start).await;
    let proxy = Proxy::to(server.port()).await;
    let direct = options_on(&server, GROUP).await;
    let store = KubernetesStore::open(KubernetesOptions {
        kubeconfig: Some(server.kubeconfig_through(proxy.port, ADMIN_TOKEN)),
        ..direct.clone()
    });
    let place = async || -> u64 {
        let api = Kubernetes::new(direct.clone()).api(Kind::Claim).await.unwrap();
        let list = api.list(&ListParams::default()).await.unwrap();
        list.metadata.resource_version.unwrap().parse().unwrap()
    };
    let other = KubernetesStore::open(direct.clone());
    // So much happens that a new database takes long to come as far.
    let mut record = record_of("n1");
    for round in 0..400 {
        record.labels.insert("round".to_owned(), round.to_string());
        other.publish(&record).await.unwrap();
    }
    other.claim(&claim_of("10.244.1.0/24", "n1")).await.unwrap();
    let far = place().await;
    until(&store, "all", |shown| {
        shown.claims.len() == 1 && shown.nodes.values().any(|node| node.labels["round"] == "399")
    })
    .await;

    // What becomes of it nobody sees who goes by the proxy.
    proxy.set(Way::Cut);
    health(&store, "a trouble", Result::is_err).await;
    drop(other);
    server = off_runtime(move || {
        server.kill();
        server.etcd.wipe();
        server.etcd.restart();
        server.restart();
        server
    })
    .await;
    install(&admin(&server).await, GROUP).await;
    let other = KubernetesStore::open(direct.clone());
    let claimed = async { while other.claim(&claim_of("10.244.2.0/24", "n2")).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), claimed).await.unwrap();
    let behind = place().await;
    assert!(behind < far, "the new database is at {behind}, the old one was at {far}");
    proxy.set(Way::Open);
    until(&store, "what there is now", |shown| shown.claims.keys().eq([&block("10.244.2.0/24")])).await;
    // And it goes on from there.
    other.claim(&claim_of("10.244.3.0/24", "n2")).await.unwrap();
    until(&store, "what happens now", |shown| shown.claims.len() == 2).await;
    assert!(place().await < far, "it was heard of though the old place was not come to");
    off_runtime(move || drop(server)).await;
}
