//! What the cluster is told of a node's network.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::node::{make_node, nodes};
use super::*;
use crate::status::{Condition, Published, Severity, Status};
use crate::store::kubernetes::events;

fn published(conditions: Vec<Condition>) -> Arc<Published> {
    let status = Status {
        ready: true,
        blocks: vec!["10.244.7.0/24".to_owned()],
        version: "0.1.0".to_owned(),
        conditions,
        ..Status::default()
    };
    Arc::new(Published { status, ..Published::default() })
}

fn condition(kind: &str, subject: &str) -> Condition {
    Condition {
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        message: "what to do".to_owned(),
        since: "2026-01-01T00:00:00Z".to_owned(),
        severity: Severity::of(kind),
    }
}

/// A condition of an object.
fn of_type(object: &DynamicObject, kind: &str) -> Option<Value> {
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind).cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_is_told_whether_a_node_has_its_network_and_what_is_wrong() {
    let server = off_runtime(shared_api_server).await;
    let client = admin(server).await;
    let base = options_of_its_own().await;
    // Nodes are shared by all tests of the server.
    let own = base.group.replace('.', "-");
    make_node(&client, &own, "a").await;
    let say = async |kind: &str, status: &str, reason: &str| {
        let condition = json!({"type": kind, "status": status, "reason": reason});
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        nodes(&client).patch_status(&own, &PatchParams::default(), &patch).await.unwrap();
    };
    // As a cloud does with a node that it has no route to yet.
    say("NetworkUnavailable", "True", "NoRouteCreated").await;
    say("Ready", "True", "KubeletReady").await;

    let remote = RemoteOptions { node: Some(name(&own)), ..RemoteOptions::default() };
    let store = Arc::new(KubernetesStore::open(KubernetesOptions { remote, ..base.clone() }));
    eventually("its record", || async { store.publish(&record_of(&own)).await.ok() }).await;
    let (news, seen) = watch::channel(Arc::<Published>::default());
    let (trouble, troubles) = watch::channel(None);
    let mut tasks = JoinSet::new();
    let telling = Arc::clone(&store);
    tasks.spawn(async move { telling.announce(seen, trouble).await });
    let network = || async { of_type(&nodes(&client).get(&own).await.unwrap(), "NetworkUnavailable") };
    let is_well = || async {
        network()
            .await
            .filter(|condition| condition["status"] == "False" && condition["reason"] == "PairwayReady")
    };
    assert_eq!(network().await.unwrap()["reason"], "NoRouteCreated", "an agent that starts says nothing");

    news.send_replace(published(Vec::new()));
    let told = eventually("the condition", is_well).await;
    assert!(told["message"].as_str().unwrap().contains("10.244.7.0/24"), "{told}");
    let turned_at = told["lastTransitionTime"].as_str().unwrap().to_owned();
    assert!(turned_at.starts_with("20"), "{turned_at}");
    // Somebody else says otherwise, and is put right; what else the Node says is not ours.
    say("NetworkUnavailable", "True", "NoRouteCreated").await;
    eventually("the condition again", is_well).await;
    let node = nodes(&client).get(&own).await.unwrap();
    assert_eq!(of_type(&node, "Ready").unwrap()["reason"], "KubeletReady");

    // The record.
    let kubernetes = Kubernetes::new(base);
    let key = Key::node(&name(&own));
    let record_is = |status: &'static str| {
        let (kubernetes, key) = (&kubernetes, &key);
        move || async move {
            let record = kubernetes.stored_object(key).await.unwrap()?;
            of_type(&record, "Ready").filter(|ready| ready["status"] == status).map(|_| record)
        }
    };
    let record = eventually("the status", record_is("True")).await;
    assert_eq!(record.data["status"]["blocks"], json!(["10.244.7.0/24"]));
    assert_eq!(record.data["status"]["agentVersion"], "0.1.0");
    // What the agent publishes in the record does not take its status away.
    let mut changed = record_of(&own);
    changed.labels.insert("rack".to_owned(), "r1".to_owned());
    store.publish(&changed).await.unwrap();
    let record = record_is("True")().await.unwrap();
    assert_eq!(record.data["spec"]["labels"]["rack"], "r1");

    // Events: of errors alone, when they begin and when they are over.
    let events: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &events::resource());
    let event = |reason: &'static str| {
        let (events, own) = (&events, &own);
        move || async move {
            let all = events.list(&ListParams::default()).await.unwrap();
            let ours = all.items.into_iter().filter(|event| event.data["regarding"]["name"] == *own.as_str());
            let mut found = ours.filter(|event| event.data["reason"] == reason);
            found.next().map(|event| event.data)
        }
    };
    news.send_replace(published(vec![
        condition("BgpSessionDown", "n2"),
        condition("BlockLost", "10.244.7.0/24"),
    ]));
    let begun = eventually("the Event", event("BlockLost")).await;
    assert_eq!((&begun["type"], &begun["note"]), (&json!("Warning"), &json!("10.244.7.0/24: what to do")));
    assert_eq!(begun["regarding"]["uid"], json!(node.metadata.uid.unwrap()));
    news.send_replace(published(Vec::new()));
    eventually("the end", event("BlockLostOver")).await;
    assert_eq!(event("BgpSessionDown")().await, None, "a warning is not told");
    // It comes again: the Event counts.
    news.send_replace(published(vec![condition("BlockLost", "10.244.7.0/24")]));
    let counted = || async { event("BlockLost")().await.filter(|event| event["series"]["count"] == 2) };
    eventually("the count", counted).await;

    // The Node is made anew: the new one is told, too.
    nodes(&client).delete(&own, &DeleteParams::default()).await.unwrap();
    make_node(&client, &own, "b").await;
    eventually("the condition of the new Node", is_well).await;
    assert_eq!(*troubles.borrow(), None, "nothing was refused");

    // Nobody publishes any more.
    drop(news);
    tokio::time::timeout(Duration::from_secs(20), tasks.join_next()).await.unwrap().unwrap().unwrap();
    nodes(&client).delete(&own, &DeleteParams::default()).await.unwrap();
}
