//! What the token of an agent may write: tried against the API server, each beside one that it may.

use integration::kubernetes::Kubernetes;
use serde_json::{Value as Json, json};

use super::agents;

/// The token that the agent of a node uses itself.
pub(crate) fn token(cluster: &Kubernetes, node: &str) -> String {
    let process = agents::process(cluster, node).unwrap();
    let path = format!("/proc/{process}/root/var/run/secrets/kubernetes.io/serviceaccount/token");
    cluster.lab().node(node).sh(&format!("cat {path}")).unwrap().trim().to_owned()
}

/// Somebody with a token.
struct Bearer<'a> {
    cluster: &'a Kubernetes,
    token: String,
}

impl Bearer<'_> {
    fn try_to(&self, words: &str, input: &str) -> Result<String, String> {
        let words: Vec<&str> = words.split_whitespace().collect();
        self.cluster.kubectl_as(&self.token, &words, input).map_err(|error| error.to_string())
    }

    fn may(&self, words: &str, input: &Json) {
        self.try_to(words, &input.to_string()).unwrap_or_else(|error| panic!("{words}: {error}"));
    }

    /// Refused, and for the reason that is meant.
    fn may_not(&self, words: &str, input: &Json, reason: &str) {
        match self.try_to(words, &input.to_string()) {
            Ok(done) => panic!("{words} {input} was done: {done}"),
            Err(error) => assert!(error.contains(reason), "{words}: {error}, not {reason}"),
        }
    }
}

/// A claim of a block that nobody has.
fn claim(block: &str, holder: &str, owner: Option<&Json>) -> Json {
    let mut claim = json!({
        "apiVersion": "pairway.dev/v1alpha1",
        "kind": "BlockClaim",
        "metadata": { "name": block.replace(['.', '/'], "-") },
        "spec": { "version": 1, "block": block, "holder": holder, "claimedAt": "2026-01-01T00:00:00Z" },
    });
    if let Some(owner) = owner {
        claim["metadata"]["ownerReferences"] = json!([owner]);
    }
    claim
}

pub(crate) fn a_token_writes_for_its_own_node_alone(cluster: &mut Kubernetes) {
    let owner = |node: &str| {
        let object = cluster.json(&["get", "node", node]).unwrap();
        json!({ "apiVersion": "v1", "kind": "Node", "name": node, "uid": object["metadata"]["uid"] })
    };
    let (own, other) = (owner("n1"), owner("n2"));
    let of = |node: &str| {
        let claims = super::claims(cluster);
        claims.into_iter().find(|(_, holder)| holder == node).unwrap().0
    };
    let (own_claim, other_claim) = (of("n1"), of("n2"));
    let agent = Bearer { cluster, token: token(cluster, "n1") };
    let nothing = Json::Null;

    // Its record.
    agent.may("annotate noderecord n1 tried=yes", &nothing);
    agent.may("annotate noderecord n1 tried-", &nothing);
    agent.may_not("annotate noderecord n2 tried=yes", &nothing, "the record of n2 is not of this node, n1");
    agent.may_not("delete noderecord n2", &nothing, "the record of n2 is not of this node, n1");
    let mut record = cluster.json(&["get", "noderecord", "n2"]).unwrap();
    record["metadata"] = json!({ "name": "n9", "ownerReferences": [own] });
    record["spec"]["name"] = json!("n9");
    agent.may_not("create -f -", &record, "the record of n9 is not of this node, n1");
    let change = |patch: Json| format!("--type=merge --patch={patch}");
    let finalizer = change(json!({ "metadata": { "finalizers": ["example.org/stay"] } }));
    agent.may_not(&format!("patch noderecord n1 {finalizer}"), &nothing, "an agent sets no finalizers");
    let stranger = change(json!({ "metadata": { "ownerReferences": [other] } }));
    agent.may_not(&format!("patch noderecord n1 {stranger}"), &nothing, "must belong to the Node n1");
    let orphan = change(json!({ "metadata": { "ownerReferences": null } }));
    agent.may_not(&format!("patch noderecord n1 {orphan}"), &nothing, "must belong to the Node n1");

    // Claims.
    let free = "10.244.250.0/24";
    agent.may_not("create -f -", &claim(free, "n2", Some(&own)), "is not of this node, n1");
    agent.may_not("create -f -", &claim(free, "n1", Some(&other)), "must belong to the Node n1");
    agent.may_not("create -f -", &claim(free, "n1", None), "must belong to the Node n1");
    agent.may_not(&format!("delete blockclaim {other_claim}"), &nothing, "is not of this node, n1");
    agent.may_not(
        &format!("annotate blockclaim {other_claim} tried=yes"),
        &nothing,
        "is not of this node, n1",
    );
    let taken = change(json!({ "spec": { "holder": "n1" } }));
    agent.may_not(&format!("patch blockclaim {other_claim} {taken}"), &nothing, "a claim is never changed");
    let given = change(json!({ "spec": { "holder": "n2" } }));
    agent.may_not(&format!("patch blockclaim {own_claim} {given}"), &nothing, "a claim is never changed");
    agent.may("create --dry-run=server -f -", &claim(free, "n1", Some(&own)));
    agent.may(&format!("annotate blockclaim {own_claim} tried=yes"), &nothing);
    agent.may(&format!("annotate blockclaim {own_claim} tried-"), &nothing);
    agent.may(&format!("delete --dry-run=server blockclaim {own_claim}"), &nothing);

    // Pools: an administrator's, but for the first claim.
    let pool = "10-244-0-0-16";
    agent.may_not(&format!("annotate blockpool {pool} tried=yes"), &nothing, "cannot patch resource");
    let range = json!({
        "apiVersion": "pairway.dev/v1alpha1", "kind": "BlockPool", "metadata": { "name": "10-99-0-0-16" },
        "spec": { "version": 1, "cidr": "10.99.0.0/16", "blockPrefix": 24 },
    });
    agent.may("create --dry-run=server -f -", &range);

    // Signs of life.
    agent.may("-n pairway annotate lease pairway-n1 tried=yes", &nothing);
    agent.may_not("-n pairway annotate lease pairway-n2 tried=yes", &nothing, "is not of this node, n1");
    agent.may_not("-n pairway delete lease pairway-n2", &nothing, "is not of this node, n1");

    // Of Nodes: one condition of its own. (From a file, because no agent may get a Node, which kubectl would do first.)
    let of_node = |node: &str| json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node } });
    let status = |patch: Json| format!("patch -f - --subresource=status --patch={patch}");
    let condition = |kind: &str| {
        let conditions = json!([{ "type": kind, "status": "False", "reason": "PairwayReady" }]);
        status(json!({ "status": { "conditions": conditions } }))
    };
    agent.may(&condition("NetworkUnavailable"), &of_node("n1"));
    let others = "the Node n2 is not this node, n1";
    agent.may_not(&condition("NetworkUnavailable"), &of_node("n2"), others);
    for patch in [
        json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } }),
        json!({ "status": { "addresses": [{ "type": "InternalIP", "address": "198.51.100.99" }] } }),
        json!({ "status": { "daemonEndpoints": { "kubeletEndpoint": { "Port": 1 } } } }),
        json!({ "metadata": { "labels": { "zone": "tried" } } }),
    ] {
        let reason = "writes nothing but the condition NetworkUnavailable";
        agent.may_not(&status(patch), &of_node("n1"), reason);
    }

    // Events about its own Node, as itself.
    let event = |name: &str, node: &str, controller: &str| {
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": { "name": name, "namespace": "default" },
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": controller,
            "reportingInstance": node, "regarding": { "apiVersion": "v1", "kind": "Node", "name": node },
            "reason": "Tried", "action": "Began", "note": "tried", "type": "Normal",
        })
    };
    let ours = "pairway.dev/agent";
    agent.may("create -f -", &event("tried", "n1", ours));
    agent.may_not("create -f -", &event("tried-2", "n2", ours), "tells of its own Node, n1");
    agent.may_not("create -f -", &event("tried-3", "n1", "kubelet"), "tells of its own Node, n1");
    agent.may_not("-n default delete events.events.k8s.io tried", &nothing, "cannot delete resource");

    // The status of its record.
    let of_record = |node: &str| json!({ "apiVersion": "pairway.dev/v1alpha1", "kind": "NodeRecord", "metadata": { "name": node } });
    let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
    let ready = format!("{} --type=merge --dry-run=server", status(ready));
    agent.may(&ready, &of_record("n1"));
    agent.may_not(&ready, &of_record("n2"), "the record of n2 is not of this node, n1");

    // What no agent is for.
    for words in [
        "delete --raw /apis/pairway.dev/v1alpha1/blockclaims",
        "-n kube-system get secrets",
        "get pods --all-namespaces",
        "-n pairway get configmaps",
        "annotate node n1 tried=yes",
        "-n kube-node-lease get leases",
        "get validatingadmissionpolicies",
    ] {
        agent.may_not(words, &nothing, "orbidden");
    }
    // The other agents are as they were.
    assert!(
        cluster.json(&["get", "noderecord", "n2"]).unwrap()["metadata"]["annotations"]["tried"].is_null()
    );

    // A token that is bound to no node reads, and writes nothing, its own node's things neither.
    let made = cluster.kubectl(&["-n", "pairway", "create", "token", "pairway"]).unwrap();
    let unbound = Bearer { cluster, token: made.trim().to_owned() };
    unbound.may("get noderecords", &nothing);
    unbound.may_not("annotate noderecord n1 tried=yes", &nothing, "bound to no node");
    unbound.may_not("create -f -", &claim(free, "n1", Some(&own)), "bound to no node");
}
