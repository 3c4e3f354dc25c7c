//! Who may do what, and tokens that run out.

use serde_json::json;

use super::*;

async fn create(client: &Client, group: &str, kind: &str, plural: &str, object: serde_json::Value) {
    let resource = kube::api::ApiResource {
        group: group.to_owned(),
        version: "v1".to_owned(),
        api_version: format!("{group}/v1"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_missing_and_tokens_that_ran_out_are_told_and_mended() {
    let mut server = off_runtime(ApiServer::start).await;
    let admin_client = admin(&server).await;
    // The definitions are missing yet.
    let options = KubernetesOptions {
        kubeconfig: Some(server.kubeconfig("agent-token")),
        ..KubernetesOptions::default()
    };
    let tokens = [(ADMIN_TOKEN, "admin", "system:masters"), ("agent-token", "agent", "agents")];
    server = off_runtime(move || {
        server.set_tokens(&tokens);
        server.kill();
        server.restart();
        server
    })
    .await;
    install(&admin_client, GROUP).await;
    let store = KubernetesStore::open(options);
    let told = health(&store, "forbidden", |health| {
        health.as_ref().is_err_and(|trouble| trouble.text.contains("forbids"))
    })
    .await;
    assert!(told.contains("pairway.dev"), "it says what: {told}");
    assert_eq!(*store.snapshots().borrow(), None, "what may not be seen is not empty");

    let rbac = "rbac.authorization.k8s.io";
    let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let role = json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": "agents"}, "rules": everything});
    create(&admin_client, rbac, "ClusterRole", "clusterroles", role).await;
    let binding = json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "agents"},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "agents"},
        "subjects": [{"kind": "Group", "name": "agents", "apiGroup": rbac}]});
    create(&admin_client, rbac, "ClusterRoleBinding", "clusterrolebindings", binding).await;
    health(&store, "well", Result::is_ok).await;
    store.publish(&record_of("n1")).await.unwrap();
    until(&store, "n1", |shown| shown.nodes.len() == 1).await;

    // The token has run out; the new one lies in its file a little later, as the kubelet does it.
    server = off_runtime(move || {
        server.set_tokens(&[(ADMIN_TOKEN, "admin", "system:masters"), ("renewed", "agent", "agents")]);
        server.kill();
        server.restart();
        server
    })
    .await;
    health(&store, "unknown", |health| health.as_ref().is_err_and(|trouble| trouble.text.contains("401")))
        .await;
    store.claim(&claim_of("10.244.1.0/24", "n1")).await.expect_err("nobody knows us");
    assert_eq!(store.snapshots().borrow().as_ref().unwrap().nodes.len(), 1, "the last snapshot stands");
    std::fs::write(server.token_file("agent-token"), "renewed").unwrap();
    let claimed = async { while store.claim(&claim_of("10.244.1.0/24", "n1")).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), claimed).await.unwrap();
    health(&store, "well", Result::is_ok).await;
    until(&store, "the claim", |shown| shown.claims.len() == 1).await;
    off_runtime(move || drop(server)).await;
}
