//! Power cuts, an API server that is away, Nodes that come and go.

use std::time::Duration;

use integration::eventually::{eventually, soon};
use integration::kubernetes::Kubernetes;
use serde_json::Value as Json;

use super::{LIMIT, agents, all_is_well_again, claims, echo_pods, everybody_reaches, pods::Pod};

/// The API server stays away for two minutes: beyond every patience with it, and the time after which nodes count as dead.
const HALF_AWAY: Duration = Duration::from_secs(60);

pub(crate) fn a_power_cut(cluster: &mut Kubernetes) {
    let before = claims(cluster);
    cluster.power_cut("n3").unwrap();
    let rest: Vec<Pod> = echo_pods(cluster).into_iter().filter(|pod| pod.node != "n3").collect();
    assert_eq!(rest.len(), 3);
    everybody_reaches(cluster, &rest).unwrap();
    let links = cluster.lab().node("n3").run(&["ip", "-o", "link"]).unwrap();
    assert!(!links.contains("pairway-vx4"), "a cut leaves no device: {links}");
    cluster.power_on("n3").unwrap();
    eventually("the node to come back with its agent", LIMIT, || agents::process(cluster, "n3")).unwrap();
    agents::settled(cluster, &cluster.nodes());
    all_is_well_again(cluster);
    assert_eq!(claims(cluster), before, "every node has the blocks that it had");
}

pub(crate) fn the_api_server_away(cluster: &mut Kubernetes) {
    let pods = echo_pods(cluster);
    let before = claims(cluster);
    cluster.stop_api_server();
    assert!(cluster.kubectl(&["get", "nodes", "--request-timeout=2s"]).is_err(), "it is away");
    // Agents of both subnets are started again at once, the others when it has been away for a minute.
    restart_as_after_a_crash(cluster, &["n1", "n4"]);
    all_say_that_it_is_away(cluster);
    // One answer may be late on a busy machine; what fell stays away.
    let fell = || everybody_reaches(cluster, &pods).is_err() && everybody_reaches(cluster, &pods).is_err();
    assert!(!soon(fell, HALF_AWAY), "pods don't reach each other while the API server is away");
    restart_as_after_a_crash(cluster, &["n2", "n3"]);
    all_say_that_it_is_away(cluster);
    assert!(!soon(fell, HALF_AWAY), "pods don't reach each other after agents were started again");
    assert!(cluster.kubectl(&["get", "nodes", "--request-timeout=2s"]).is_err(), "it is still away");
    cluster.start_api_server().unwrap();
    for node in cluster.nodes() {
        eventually("the agent to have its store again", LIMIT, || {
            let status = agents::ask(cluster, &node, &["status"])?;
            match agents::conditions(&status).iter().find(|kind| kind.starts_with("Store")) {
                None => Ok(()),
                Some(kind) => Err(format!("{node} says {kind}")),
            }
        })
        .unwrap();
    }
    agents::settled(cluster, &cluster.nodes());
    the_controllers_watch_nodes(cluster);
    all_is_well_again(cluster);
    assert_eq!(claims(cluster), before);
}

/// Kills agents and waits for kubelet to start them again, which it does by itself.
fn restart_as_after_a_crash(cluster: &Kubernetes, nodes: &[&str]) {
    let killed: Vec<_> = nodes.iter().map(|node| (node, agents::process(cluster, node).unwrap())).collect();
    for (node, process) in &killed {
        cluster.lab().node(node).sh(&format!("kill -KILL {process}")).unwrap();
    }
    for (node, process) in &killed {
        eventually("kubelet to start the agent again", LIMIT, || match agents::process(cluster, node) {
            Ok(new) if new != *process => Ok(()),
            Ok(_) => Err(format!("{node} has the old one")),
            Err(error) => Err(error),
        })
        .unwrap();
    }
}

/// Waits until every agent says that its store is away, and that its node is ready all the same: also those that were
/// started meanwhile, for readiness is about the node.
fn all_say_that_it_is_away(cluster: &Kubernetes) {
    for node in cluster.nodes() {
        eventually("the agent to say that it is ready and its store away", LIMIT, || {
            let status = agents::ask(cluster, &node, &["status"])?;
            if status["ready"] == true
                && agents::conditions(&status).iter().any(|kind| kind == "StoreUnavailable")
            {
                return Ok(());
            }
            Err(format!("{node}: {status}"))
        })
        .unwrap();
    }
}

/// A Node is deleted and made again under its name, as cloud controllers do: its pods keep their addresses.
pub(crate) fn a_node_made_again(cluster: &mut Kubernetes) {
    let before = claims(cluster);
    let pods = all_is_well_again(cluster);
    let node = cluster.json(&["get", "node", "n2"]).unwrap();
    let uid = |object: &Json| object["metadata"]["uid"].as_str().unwrap().to_owned();
    let old = uid(&node);
    let agent = agents::process(cluster, "n2").unwrap();
    let mut made = node;
    for key in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        made["metadata"].as_object_mut().unwrap().remove(key);
    }
    cluster.kubectl(&["delete", "node", "n2"]).unwrap();
    cluster.kubectl_with(&["create", "-f", "-"], &made.to_string()).unwrap();
    let new = uid(&cluster.json(&["get", "node", "n2"]).unwrap());
    assert_ne!(old, new);
    let owners = || -> Vec<(String, String)> {
        let list = cluster.json(&["get", "noderecords,blockclaims"]).unwrap();
        let items = list["items"].as_array().unwrap().iter();
        let ours = items.filter(|item| item["metadata"]["name"] == "n2" || item["spec"]["holder"] == "n2");
        ours.map(|item| {
            let owner = &item["metadata"]["ownerReferences"][0]["uid"];
            (
                item["metadata"]["name"].as_str().unwrap().to_owned(),
                owner.as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect()
    };
    eventually("everything of the node's to belong to the new Node", LIMIT, || {
        let owners = owners();
        // Its record, and a block of each family.
        if owners.len() == 3 && owners.iter().all(|(_, owner)| *owner == new) {
            return Ok(());
        }
        Err(format!("{owners:?}, the new one is {new}"))
    })
    .unwrap();
    // The garbage collector has looked at everything that belonged to the old one by when it has taken this.
    let canary = format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: canary, namespace: default, ownerReferences: \
         [{{apiVersion: v1, kind: Node, name: n2, uid: {old}}}]}}}}"
    );
    cluster.apply(&canary).unwrap();
    eventually("the garbage collector to come by", LIMIT, || {
        match cluster.kubectl(&["get", "configmap", "canary", "--ignore-not-found"]) {
            Ok(found) if found.trim().is_empty() => Ok(()),
            Ok(found) => Err(found),
            Err(error) => Err(error.to_string()),
        }
    })
    .unwrap();
    eventually("the claims to stand as they were", LIMIT, || {
        let now = claims(cluster);
        if now == before { Ok(()) } else { Err(format!("{now:?}, not {before:?}")) }
    })
    .unwrap();
    assert_eq!(agents::process(cluster, "n2").unwrap(), agent, "the agent has run all the time");
    agents::settled(cluster, &cluster.nodes());
    assert_eq!(all_is_well_again(cluster), pods, "with the addresses that they had");
}

/// Waits until the controller manager has its watch of Nodes again, after the API server was away.
///
/// It tries again ever more rarely. One that lists Nodes anew takes another Node under the same name for a change of the
/// one that it knew, and the garbage collector holds on to what belonged to the one that is gone; and it calls nodes not
/// ready that it has not heard of for so long. What shows that it watches is its TTL controller, which puts an annotation
/// back.
fn the_controllers_watch_nodes(cluster: &Kubernetes) {
    const TTL: &str = "node.alpha.kubernetes.io/ttl";
    cluster.kubectl(&["annotate", "node", "n2", &format!("{TTL}-")]).unwrap();
    eventually("the controllers to watch Nodes", LIMIT, || {
        let node = cluster.json(&["get", "node", "n2"]).map_err(|error| error.to_string())?;
        let annotations = &node["metadata"]["annotations"];
        if annotations[TTL].is_string() { Ok(()) } else { Err(annotations.to_string()) }
    })
    .unwrap();
}
