//! What a cluster without faults does.

use integration::eventually::eventually;
use integration::kubernetes::Kubernetes;

use super::{LIMIT, agents, echo_pods, everybody_reaches, pods};

/// Which subnet a node of the topology is in.
fn subnet(node: &str) -> char {
    if ["n1", "n2"].contains(&node) { 'a' } else { 'b' }
}

pub(crate) fn everybody_reaches_everybody(cluster: &mut Kubernetes) {
    let pods = echo_pods(cluster);
    assert_eq!(pods.len(), 4);
    assert!(pods.iter().all(|pod| pod.addresses.len() == 2), "both families: {pods:?}");
    everybody_reaches(cluster, &pods).unwrap();

    // Native inside a subnet, VXLAN across: by what the agents say,
    for node in cluster.nodes() {
        eventually("every pair on its best path", LIMIT, || {
            let pairs = agents::ask(cluster, &node, &["pairs"])?;
            let pairs = pairs.as_array().ok_or("no list")?;
            let wrong = pairs.iter().find(|pair| {
                let peer = pair["peer"].as_str().unwrap_or_default();
                let expected = if subnet(&node) == subnet(peer) { "native" } else { "vxlan" };
                pair["path"] != expected || pair["ready"] != true
            });
            match wrong {
                None if pairs.len() == 6 => Ok(()),
                None => Err(format!("{node} has {} pairs", pairs.len())),
                Some(pair) => Err(format!("{node}: {pair}")),
            }
        })
        .unwrap();
    }
    // and by what the tunnel devices count.
    let from = &pods[0];
    for to in &pods[1..] {
        let tunnelled = subnet(&from.node) != subnet(&to.node);
        for address in &to.addresses {
            let before = pods::tunnel_packets(cluster, &from.node);
            for _ in 0..10 {
                pods::dial(cluster, from, &address.to_string(), pods::PORT, "clientip").unwrap();
            }
            let counted = pods::tunnel_packets(cluster, &from.node) - before;
            // A question takes several packets; others of the cluster talk meanwhile, a little.
            assert_eq!(
                counted >= 40,
                tunnelled,
                "{} to {address}: {counted} packets in the tunnel",
                from.node
            );
        }
    }
}

pub(crate) fn services(cluster: &mut Kubernetes) {
    let pods = echo_pods(cluster);
    let service = cluster.json(&["get", "service", "echo"]).unwrap();
    let cluster_ip = service["spec"]["clusterIP"].as_str().unwrap();
    for pod in &pods {
        pods::dial(cluster, pod, cluster_ip, 80, "hostname").expect("the service by its address");
        pods::dial(cluster, pod, "echo.default.svc.cluster.local", 80, "hostname")
            .expect("the service by its name");
    }
    for from in cluster.nodes() {
        for to in cluster.nodes() {
            let address = pods::node_addresses(cluster, &to)[0];
            pods::get(cluster, &from, &format!("http://{address}:30080/hostname")).expect("the node port");
        }
    }
}

pub(crate) fn what_an_administrator_sees(cluster: &mut Kubernetes) {
    // kubectl remembers for hours what the API server had; this has it look again.
    cluster.kubectl(&["api-resources", "--api-group=pairway.dev"]).unwrap();
    let all = cluster.kubectl(&["get", "pairway", "-o", "wide"]).unwrap();
    for node in cluster.nodes() {
        let named = format!("/{node}");
        let is_own = |line: &&str| line.split_whitespace().any(|word| word == node || word.ends_with(&named));
        let own: Vec<&str> = all.lines().filter(is_own).collect();
        assert!(own.iter().any(|line| line.contains("noderecord")), "{node} in {all}");
        // A block of each family.
        assert_eq!(own.iter().filter(|line| line.contains("blockclaim")).count(), 2, "{node} in {all}");
    }
    for node in cluster.nodes() {
        eventually("the Node and its record to tell that its network is ready", LIMIT, || {
            let told = cluster.kubectl(&["describe", "node", &node]).map_err(|error| error.to_string())?;
            let condition = told.lines().find(|line| line.trim_start().starts_with("NetworkUnavailable "));
            let words: Vec<&str> = condition.unwrap_or_default().split_whitespace().collect();
            if words.get(1) != Some(&"False") || !words.contains(&"PairwayReady") {
                return Err(told);
            }
            let record = cluster.kubectl(&["get", "noderecord", &node]).map_err(|error| error.to_string())?;
            let row: Vec<&str> = record.lines().nth(1).unwrap_or_default().split_whitespace().collect();
            if row.get(..2) == Some(&[&*node, "True"]) { Ok(()) } else { Err(record) }
        })
        .unwrap();
    }
    let exec = ["-n", "pairway", "exec", "daemonset/pairway", "--", "/pairway", "status"];
    let status = cluster.kubectl(&exec).unwrap();
    assert!(status.contains("Ready"), "{status}");
}
