//! The Node object as the owner of what its agent makes.

use serde_json::json;

use super::*;

pub(super) fn nodes(client: &Client) -> Api<DynamicObject> {
    let resource = kube::api::ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        plural: "nodes".to_owned(),
    };
    Api::all_with(client.clone(), &resource)
}

pub(super) async fn make_node(client: &Client, node: &str, zone: &str) -> String {
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": {"zone": zone}},
        "spec": {"podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24", "fd10:244:0:7::/64"]}});
    let object = serde_json::from_value(object).unwrap();
    nodes(client).create(&PostParams::default(), &object).await.unwrap().metadata.uid.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_makes_belongs_to_its_node_object_also_when_that_is_made_anew() {
    let server = off_runtime(shared_api_server).await;
    let client = admin(server).await;
    let base = options_of_its_own().await;
    // Nodes are shared by all tests of the server.
    let own = base.group.replace('.', "-");
    let remote = RemoteOptions { node: Some(name(&own)), ..RemoteOptions::default() };
    let options = KubernetesOptions { remote, ..base.clone() };
    let store = KubernetesStore::open(options.clone());
    until(&store, "a list", |_| true).await;

    // Without a Node nothing is made: it would stay for ever.
    let claim = claim_of("10.244.7.0/24", &own);
    let told = eventually("the refusal", || async {
        let error = store.claim(&claim).await.expect_err("there is no Node");
        let told = crate::telemetry::chain(&error);
        told.contains("there is no Node object named").then_some(told)
    })
    .await;
    assert!(told.contains(&own), "{told}");
    assert_eq!(*store.health().borrow(), Ok(()), "the store is well");

    let uid = make_node(&client, &own, "a").await;
    let mut facts = store.node_facts().unwrap();
    let known = facts.wait_for(|facts| facts.known).await.unwrap().clone();
    assert_eq!(known.labels["zone"], "a");
    assert_eq!(known.blocks, [block("10.244.7.0/24"), block("fd10:244:0:7::/64")]);
    store.publish(&record_of(&own)).await.unwrap();
    assert_eq!(store.claim(&claim).await.unwrap(), ClaimOutcome::Claimed);
    // Another's is not given to our Node.
    store.claim(&claim_of("10.244.8.0/24", "n8")).await.unwrap();

    let kubernetes = Kubernetes::new(base.clone());
    let owner = async |key: &Key| {
        let object = kubernetes.stored_object(key).await.unwrap().unwrap();
        objects::owner(&object.metadata)
    };
    let ours = [Key::node(&name(&own)), Key::claim(claim.block)];
    for key in &ours {
        assert_eq!(owner(key).await, Some(uid.clone()), "{key}");
    }
    assert_eq!(owner(&Key::claim(block("10.244.8.0/24"))).await, None);

    // Deleted and made anew while the agent runs: it is faster than any garbage collector is meant to be.
    nodes(&client).delete(&own, &DeleteParams::default()).await.unwrap();
    let uid = make_node(&client, &own, "b").await;
    for key in &ours {
        eventually("the new owner", || async { (owner(key).await.as_ref() == Some(&uid)).then_some(()) })
            .await;
    }
    facts.wait_for(|facts| facts.labels["zone"] == "b").await.unwrap();

    // And while it does not run.
    drop(store);
    nodes(&client).delete(&own, &DeleteParams::default()).await.unwrap();
    let uid = make_node(&client, &own, "c").await;
    let store = KubernetesStore::open(options);
    for key in &ours {
        eventually("the new owner", || async { (owner(key).await.as_ref() == Some(&uid)).then_some(()) })
            .await;
    }
    let shown = until(&store, "both claims", |shown| shown.claims.len() == 2).await;
    assert_eq!(shown.claims[&claim.block], claim, "the claim itself is what it was");
    nodes(&client).delete(&own, &DeleteParams::default()).await.unwrap();
}
