//! Deleting the manifest leaves the data plane; removing leaves nothing.

use integration::eventually::eventually;
use integration::kubernetes::Kubernetes;

use super::{LIMIT, agents, all_is_well_again, claims, echo_pods, everybody_reaches, integration, read};

/// What of Pairway's there is on a node, in a line for each thing.
pub(crate) fn traces(cluster: &Kubernetes, node: &str) -> Vec<String> {
    let look = "
        ip -o link show | grep -o 'pairway-[a-z0-9]*' || true
        for family in -4 -6; do
          ip $family route show table all proto 112
          ip $family rule show | grep 'lookup 1120' || true
          ip $family nexthop show proto 112
        done
        nft list tables | grep pairway || true
        for folder in /etc/cni/net.d /var/lib/pairway; do
          [ ! -d $folder ] || find $folder -type f
        done
    ";
    let mut found: Vec<String> =
        cluster.lab().node(node).sh(look).unwrap().lines().map(str::to_owned).collect();
    // What lies in the machine's own /run, as kubelet's volumes do.
    let machine =
        "nsenter --target \"$(pgrep -o -x kubelet)\" --mount -- find /run/pairway /run/flannel -not -type d";
    found.extend(cluster.lab().node(node).sh(machine).unwrap().lines().map(str::to_owned));
    found.retain(|line| !line.trim().is_empty());
    found
}

pub(crate) fn removal(cluster: &mut Kubernetes) {
    let deploy = integration().join("../config/deploy");
    let manifest = deploy.join("pairway.yaml").canonicalize().unwrap();
    let delete = ["delete", "--timeout=120s", "-f", manifest.to_str().unwrap()];
    let nodes = cluster.nodes();

    // The manifest alone: the agents and all objects go, the data plane stays.
    let pods = echo_pods(cluster);
    let before = claims(cluster);
    cluster.kubectl(&delete).unwrap();
    eventually("the agents to end", LIMIT, || {
        let left: Vec<String> = nodes.iter().filter_map(|node| agents::process(cluster, node).ok()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .unwrap();
    assert!(cluster.kubectl(&["get", "blockclaims"]).is_err(), "the definitions are gone");
    everybody_reaches(cluster, &pods).unwrap();

    // It comes back to what it left.
    cluster.install().unwrap();
    agents::settled(cluster, &nodes);
    all_is_well_again(cluster);
    assert_eq!(claims(cluster), before, "every node has the blocks that it had");
    for node in &nodes {
        let there = traces(cluster, node);
        for trace in [
            "pairway-vx4",
            "lookup 1120",
            "table inet pairway",
            "10-pairway.conflist",
            "claims.json",
            "subnet.env",
            "api.sock",
        ] {
            assert!(there.iter().any(|line| line.contains(trace)), "{trace} on {node}: {there:#?}");
        }
        assert!(there.iter().any(|line| line.starts_with("10.244.")), "routes on {node}: {there:#?}");
    }

    // Removed, it leaves nothing.
    cluster.apply(&read(&deploy.join("remove.yaml"))).unwrap();
    cluster.rolled_out("pairway", "daemonset/pairway").unwrap();
    every_node_is_clean(cluster);
    cluster.kubectl(&delete).unwrap();
    nothing_is_left(cluster);
    let namespaces = cluster.kubectl(&["get", "namespace", "-o", "name"]).unwrap();
    assert!(!namespaces.contains("pairway") && namespaces.contains("kube-system"), "{namespaces}");
}

/// Nodes have nothing of ours, and the API nothing of the nodes'.
pub(crate) fn every_node_is_clean(cluster: &Kubernetes) {
    for node in cluster.nodes() {
        assert_eq!(traces(cluster, &node), Vec::<String>::new(), "on {node}");
    }
    for kind in ["noderecords", "blockclaims", "leases.coordination.k8s.io"] {
        let left = cluster.kubectl(&["-n", "pairway", "get", kind, "-o", "name"]).unwrap();
        assert_eq!(left.trim(), "", "{kind}");
    }
}

/// The cluster has nothing of ours outside of namespaces.
pub(crate) fn nothing_is_left(cluster: &Kubernetes) {
    for kind in
        ["crd", "clusterrole", "clusterrolebinding", "validatingadmissionpolicy", "role", "rolebinding"]
    {
        let left = cluster.kubectl(&["get", kind, "--all-namespaces", "-o", "name"]).unwrap();
        assert!(!left.contains("pairway"), "{left}");
        assert!(kind != "clusterrole" || left.contains("clusterrole"), "the same look finds those of others");
    }
}
