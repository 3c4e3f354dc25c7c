//! Blocks that the controller manager gives out: `blocks.source: nodeSpec`.

use std::collections::BTreeMap;

use integration::eventually::eventually;
use integration::kubernetes::{self, Kubernetes};
use serde_json::Value as Json;

use super::{LIMIT, agents, all_is_well_again, claims, echo_pods, removal};

/// What goes before the pools of the manifest.
const SOURCE: &str = "    blocks: { source: nodeSpec }\n    pools:\n";

/// Pod CIDRs by node, as the Nodes have them.
fn pod_cidrs(cluster: &Kubernetes) -> BTreeMap<String, Vec<String>> {
    let list = cluster.json(&["get", "nodes"]).unwrap();
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|node| {
            let cidrs = node["spec"]["podCIDRs"].as_array().into_iter().flatten();
            let mut cidrs: Vec<String> = cidrs.map(text).collect();
            cidrs.sort();
            (text(&node["metadata"]["name"]), cidrs)
        })
        .collect()
}

/// Blocks by node, as the claims have them.
fn blocks(cluster: &Kubernetes) -> BTreeMap<String, Vec<String>> {
    let list = cluster.json(&["get", "blockclaims"]).unwrap();
    let mut blocks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for claim in list["items"].as_array().unwrap() {
        let text = |key: &str| claim["spec"][key].as_str().unwrap().to_owned();
        blocks.entry(text("holder")).or_default().push(text("block"));
    }
    blocks.values_mut().for_each(|blocks| blocks.sort());
    blocks
}

pub(crate) fn blocks_that_kubernetes_gives(cluster: &mut Kubernetes) {
    // What pods and their bridge had of other blocks goes, as with a reboot.
    for node in cluster.nodes() {
        cluster.power_cut(&node).unwrap();
    }
    cluster.give_out_pod_cidrs().unwrap();
    for node in cluster.nodes() {
        cluster.power_on(&node).unwrap();
    }
    let manifest = kubernetes::manifest().unwrap();
    let given = manifest.replace("    pools:\n", SOURCE);
    assert_ne!(given, manifest);
    cluster.install_from(&given).unwrap();
    agents::settled(cluster, &cluster.nodes());

    let cidrs = pod_cidrs(cluster);
    assert!(cidrs.len() == 4 && cidrs.values().all(|cidrs| cidrs.len() == 2), "{cidrs:?}");
    assert_eq!(blocks(cluster), cidrs, "each node has what its Node says, and nothing else");
    all_is_well_again(cluster);
    for pod in echo_pods(cluster) {
        for address in &pod.addresses {
            let inside = |cidr: &String| cidr.parse::<ipnet::IpNet>().unwrap().contains(address);
            assert!(cidrs[&pod.node].iter().any(inside), "{pod:?} of {:?}", cidrs[&pod.node]);
        }
    }

    // An agent that is started again takes the same, and a claim that is lost is made again.
    let (held, claim) = (claims(cluster), claims(cluster).remove(0));
    cluster.kubectl(&["delete", "blockclaim", &claim.0]).unwrap();
    cluster.kubectl(&["-n", "pairway", "rollout", "restart", "daemonset/pairway"]).unwrap();
    cluster.rolled_out("pairway", "daemonset/pairway").unwrap();
    eventually("the claims to be as they were", LIMIT, || {
        let now = claims(cluster);
        if now == held { Ok(()) } else { Err(format!("{now:?}, not {held:?}")) }
    })
    .unwrap();
    agents::settled(cluster, &cluster.nodes());
    for node in cluster.nodes() {
        assert!(!removal::traces(cluster, &node).is_empty(), "{node}: what Helm finds next");
    }
}
