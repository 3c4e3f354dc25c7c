//! The rights and the policy of the installation, tried on the API server by who an agent is to it.

use hyper::http::{Method, Request};
use serde_json::{Value, json};

use super::node::{make_node, nodes};
use super::*;

const DEFAULT_EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

/// Creates what a manifest of the installation holds.
async fn create_all(client: &Client, manifest: &str) {
    let path = format!("{}/../config/deploy/kubernetes/{manifest}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    for object in objects {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let types = object.types.clone().unwrap();
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let lower = types.kind.to_lowercase();
        let plural = lower.strip_suffix('y').map_or_else(|| format!("{lower}s"), |stem| format!("{stem}ies"));
        let resource = kube::api::ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: types.api_version.clone(),
            kind: types.kind.clone(),
            plural,
        };
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        api.create(&PostParams::default(), &object)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", types.kind));
    }
}

/// An agent, by the token of its pod.
struct Agent<'a> {
    client: &'a Client,
    /// The node that the token is bound to.
    node: Option<&'a str>,
}

impl Agent<'_> {
    async fn send(&self, method: Method, path: &str, content: &str, body: &Value) -> Result<Value, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", content)
            .header("Impersonate-User", "system:serviceaccount:pairway:pairway");
        if let Some(node) = self.node {
            request = request.header("Impersonate-Extra-authentication.kubernetes.io%2fnode-name", node);
        }
        let request = request.body(serde_json::to_vec(body).unwrap()).unwrap();
        self.client.request(request).await.map_err(|error| error.to_string())
    }

    async fn patch(&self, path: &str, patch: Value) -> Result<Value, String> {
        let is_ours = path.contains(GROUP);
        // Our resources know no strategic merge.
        let content =
            if is_ours { "application/merge-patch+json" } else { "application/strategic-merge-patch+json" };
        self.send(Method::PATCH, path, content, &patch).await
    }

    async fn create(&self, path: &str, object: Value) -> Result<Value, String> {
        self.send(Method::POST, path, "application/json", &object).await
    }
}

/// Refused, and for the reason that is meant.
fn refused(result: Result<Value, String>, reason: &str) {
    match result {
        Ok(done) => panic!("it was done: {done}"),
        Err(error) => assert!(error.contains(reason), "{error}, not {reason}"),
    }
}

fn condition(kind: &str) -> Value {
    json!({"status": {"conditions": [{"type": kind, "status": "False", "reason": "PairwayReady"}]}})
}

fn event(name: &str, node: &str, controller: &str) -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name, "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": controller, "reportingInstance": node,
        "regarding": {"apiVersion": "v1", "kind": "Node", "name": node}, "reason": "Tried", "action": "Began",
        "note": "tried", "type": "Normal",
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_tells_of_its_own_node_alone_and_of_that_its_network() {
    let server = off_runtime(shared_api_server).await;
    let client = admin(server).await;
    install(&client, GROUP).await;
    let (own, other) = ("policy-n1", "policy-n2");
    let uid = make_node(&client, own, "a").await;
    make_node(&client, other, "a").await;
    for manifest in ["namespace.yaml", "rbac.yaml", "policy.yaml"] {
        create_all(&client, manifest).await;
    }
    let agent = Agent { client: &client, node: Some(own) };
    let status = |node: &str| format!("/api/v1/nodes/{node}/status");
    // Roles and policies need a moment to be in force.
    eventually("the rights", || async {
        agent.patch(&status(own), condition("NetworkUnavailable")).await.ok()
    })
    .await;
    eventually("the policy", || async {
        let result = agent.patch(&status(other), condition("NetworkUnavailable")).await;
        result.err().filter(|error| error.contains("is not this node"))
    })
    .await;

    // The Node: one condition.
    let only = "an agent writes nothing but the condition NetworkUnavailable";
    refused(agent.patch(&status(own), condition("Ready")).await, only);
    refused(agent.patch(&status(own), json!({"metadata": {"labels": {"zone": "b"}}})).await, only);
    refused(agent.patch(&status(own), json!({"metadata": {"annotations": {"a": "b"}}})).await, only);
    refused(agent.patch(&status(own), json!({"metadata": {"finalizers": ["example.org/stay"]}})).await, only);
    let address = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.9"}]}});
    refused(agent.patch(&status(own), address).await, only);
    refused(agent.patch(&status(own), json!({"status": {"capacity": {"cpu": "9"}}})).await, only);
    let kubelet = json!({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}});
    refused(agent.patch(&status(own), kubelet).await, only);
    let unbound = Agent { client: &client, node: None };
    refused(unbound.patch(&status(own), condition("NetworkUnavailable")).await, "bound to no node");
    let spec = json!({"spec": {"unschedulable": true}});
    refused(agent.patch(&format!("/api/v1/nodes/{own}"), spec).await, "cannot patch resource");
    // What others have written there is no obstacle.
    let change = json!({"metadata": {"finalizers": ["example.org/stay"], "ownerReferences": []}});
    let (params, change) = (kube::api::PatchParams::default(), kube::api::Patch::Merge(change));
    nodes(&client).patch(own, &params, &change).await.unwrap();
    agent.patch(&status(own), condition("NetworkUnavailable")).await.unwrap();
    let free = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    nodes(&client).patch(own, &params, &free).await.unwrap();

    // Events.
    let controller = "pairway.dev/agent";
    let name = event("policy-1", own, controller);
    agent.create(DEFAULT_EVENTS, name).await.unwrap();
    refused(
        agent.create(DEFAULT_EVENTS, event("policy-2", other, controller)).await,
        "tells of its own Node",
    );
    refused(agent.create(DEFAULT_EVENTS, event("policy-3", own, "kubelet")).await, "tells of its own Node");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}});
    let of_other = Agent { client: &client, node: Some(other) };
    let path = format!("{DEFAULT_EVENTS}/policy-1");
    refused(of_other.patch(&path, series.clone()).await, "tells of its own Node");
    agent.patch(&path, series).await.unwrap();
    let elsewhere = DEFAULT_EVENTS.replace("/default/", "/kube-system/");
    refused(agent.create(&elsewhere, event("policy-4", own, controller)).await, "cannot create resource");

    // The status of the record.
    let records = format!("/apis/{GROUP}/v1alpha1/noderecords");
    let spec = json!({
        "version": 1, "name": own, "asn": 64512, "routerId": "192.0.2.1", "bgpPort": 179, "vni": 4096, "vxlanPort": 4789,
    });
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": own, "uid": uid}]);
    let record = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "NodeRecord", "metadata": {"name": own, "ownerReferences": owner},
        "spec": spec,
    });
    agent.create(&records, record).await.unwrap();
    let path = format!("{records}/{own}/status");
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    refused(of_other.patch(&path, ready.clone()).await, "is not of this node");
    let patched = agent.patch(&path, ready).await.unwrap();
    assert_eq!(patched["status"]["conditions"][0]["status"], "True");

    for node in [own, other] {
        nodes(&client).delete(node, &DeleteParams::default()).await.unwrap();
    }
}
