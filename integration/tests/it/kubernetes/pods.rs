//! Pods of the cluster, and who reaches whom.

use std::net::{IpAddr, SocketAddr};

use integration::eventually::eventually;
use integration::kubernetes::Kubernetes;
use serde_json::Value as Json;

use super::LIMIT;

/// Where the pods' server listens.
pub(crate) const PORT: u16 = 8080;

/// Where a server in the host's network listens while somebody asks.
const HOST_PORT: u16 = 18080;

/// A pod that says whom it sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) node: String,
    /// IPv4 first.
    pub(crate) addresses: Vec<IpAddr>,
}

/// The pods of the DaemonSet `echo` that are ready, by node.
pub(crate) fn echo_pods(cluster: &Kubernetes) -> Vec<Pod> {
    let list = cluster.json(&["get", "pods", "-l=app=echo"]).unwrap();
    let ready = |pod: &&Json| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let is_ready = conditions
            .into_iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        is_ready && pod["metadata"]["deletionTimestamp"].is_null()
    };
    let mut pods: Vec<Pod> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(ready)
        .map(|pod| {
            let addresses = pod["status"]["podIPs"].as_array().into_iter().flatten();
            let mut addresses: Vec<IpAddr> =
                addresses.filter_map(|address| address["ip"].as_str()?.parse().ok()).collect();
            addresses.sort();
            Pod { node: pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned(), addresses }
        })
        .collect();
    pods.sort_by(|a, b| a.node.cmp(&b.node));
    pods
}

/// A process of the echo pod on a node, as the node numbers it.
pub(crate) fn process(cluster: &Kubernetes, node: &str) -> String {
    let line = "pgrep -o -f '^/agnhost netexec --http-port=8080'";
    cluster.lab().node(node).sh(line).unwrap().trim().to_owned()
}

/// What a node's host gets from a URL.
pub(crate) fn get(cluster: &Kubernetes, node: &str, url: &str) -> Result<String, String> {
    let curl = ["curl", "--silent", "--show-error", "--fail", "--globoff", "--max-time", "5", url];
    cluster.lab().node(node).run(&curl).map_err(|error| error.to_string())
}

/// What a pod gets from a host (address or name); it is asked to do so by the host that it runs on.
pub(crate) fn dial(
    cluster: &Kubernetes,
    from: &Pod,
    host: &str,
    port: u16,
    request: &str,
) -> Result<String, String> {
    let own = from.addresses[0];
    let url =
        format!("http://{own}:{PORT}/dial?host={host}&port={port}&request={request}&protocol=http&tries=1");
    let text = get(cluster, &from.node, &url)?;
    let answer: Json = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    match answer["responses"][0].as_str() {
        Some(response) => Ok(response.to_owned()),
        None => Err(format!("{from:?} to {host}:{port}: {answer}")),
    }
}

/// Addresses of a node's underlay, IPv4 first.
pub(crate) fn node_addresses(cluster: &Kubernetes, node: &str) -> Vec<IpAddr> {
    let mut addresses = addresses(cluster, node, "eth1");
    addresses.sort();
    addresses
}

fn addresses(cluster: &Kubernetes, node: &str, device: &str) -> Vec<IpAddr> {
    let show = ["ip", "-j", "addr", "show", "dev", device, "scope", "global"];
    let json = cluster.lab().node(node).json(&show).unwrap();
    let infos = json[0]["addr_info"].as_array().cloned().unwrap_or_default();
    infos.iter().filter_map(|info| info["local"].as_str()?.parse().ok()).collect()
}

/// Packets that a node has sent through its VXLAN device.
pub(crate) fn tunnel_packets(cluster: &Kubernetes, node: &str) -> u64 {
    let link = cluster.lab().node(node).json(&["ip", "-j", "-s", "link", "show", "pairway-vx4"]).unwrap();
    link[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
}

/// Every question of a pod or a host to another pod or host that was not answered, or answered to somebody else's
/// address: between pods of different nodes, from hosts to pods, and from pods to hosts.
pub(crate) fn unreached(cluster: &Kubernetes, pods: &[Pod]) -> Vec<String> {
    let agnhost = cluster.program("agnhost").canonicalize().unwrap();
    // They end with this function.
    let _servers: Vec<_> = pods
        .iter()
        .map(|pod| {
            let port = format!("--http-port={HOST_PORT}");
            let log = cluster.lab().folder().join(format!("{}.netexec.log", pod.node));
            let words = [agnhost.to_str().unwrap(), "netexec", &port, "--udp-port=-1"];
            cluster.lab().node(&pod.node).start(&words, &log).unwrap()
        })
        .collect();
    for pod in pods {
        eventually("the server of the host to listen", LIMIT, || {
            get(cluster, &pod.node, &format!("http://127.0.0.1:{HOST_PORT}/hostname"))
        })
        .unwrap();
    }
    let asked = std::thread::scope(|scope| {
        let asking: Vec<_> =
            pods.iter().map(|from| scope.spawn(move || questions(cluster, pods, from))).collect();
        asking.into_iter().flat_map(|asking| asking.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(asked.len(), 3 * 2 * pods.len() * pods.len().saturating_sub(1), "every pair, both families");
    asked.into_iter().filter_map(Result::err).collect()
}

/// What one pod and its host learn of all others.
fn questions(cluster: &Kubernetes, pods: &[Pod], from: &Pod) -> Vec<Result<(), String>> {
    let mut host_own = node_addresses(cluster, &from.node);
    host_own.extend(addresses(cluster, &from.node, "pairway-vx4"));
    let mut asked = Vec::new();
    let mut expect = |what: String, seen: Result<String, String>, own: &[IpAddr]| {
        let seen = seen.and_then(|text| text.trim().parse::<SocketAddr>().map_err(|_| text));
        asked.push(match seen {
            Ok(seen) if own.contains(&seen.ip()) => Ok(()),
            Ok(seen) => Err(format!("{what} as {seen}, not {own:?}")),
            Err(error) => Err(format!("{what}: {error}")),
        });
    };
    for to in pods.iter().filter(|to| to.node != from.node) {
        let nodes = node_addresses(cluster, &to.node);
        for (address, node) in to.addresses.iter().zip(&nodes) {
            let name = |address: &IpAddr| match address {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            };
            let seen = dial(cluster, from, &address.to_string(), PORT, "clientip");
            expect(format!("pod of {} to pod {address} of {}", from.node, to.node), seen, &from.addresses);
            let seen = get(cluster, &from.node, &format!("http://{}:{PORT}/clientip", name(address)));
            expect(format!("{} to pod {address} of {}", from.node, to.node), seen, &host_own);
            let seen = dial(cluster, from, &node.to_string(), HOST_PORT, "clientip");
            expect(format!("pod of {} to node {} ({node})", from.node, to.node), seen, &from.addresses);
        }
    }
    asked
}
