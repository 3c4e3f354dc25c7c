//! Pairway in a whole cluster: installed from its own manifest, used by pods, hurt, and removed.
//!
//! A cluster takes half a minute to come up and half of the machine's processors to live: one serves all scenarios, in
//! the order in which they leave it whole.

mod access;
mod agents;
mod chart;
mod given;
mod helm;
mod image;
mod outage;
mod paths;
mod pods;
mod privileges;
mod release;
mod removal;
mod rollout;
mod upgrade;

use std::path::{Path, PathBuf};
use std::time::Duration;

use integration::eventually::{eventually, timed};
use integration::kubernetes::Kubernetes;
use integration::lab::Lab;
use integration::topology::Topology;

use pods::{Pod, echo_pods};

/// How long the cluster may take to come to what it should be: far beyond what a busy machine needs.
const LIMIT: Duration = Duration::from_secs(180);

fn integration() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is tried, in words, and how.
type Scenario = (&'static str, fn(&mut Kubernetes));

#[test]
#[ignore = "a whole cluster takes all processors: integration/test.sh runs it alone, after the others"]
fn a_whole_cluster_from_installation_to_removal() {
    let scenarios: [Scenario; 14] = [
        ("everybody reaches everybody, by the best path", paths::everybody_reaches_everybody),
        ("services, DNS and node ports", paths::services),
        ("an administrator sees it", paths::what_an_administrator_sees),
        ("no more privileges than promised", privileges::no_more_than_promised),
        ("a token writes for its own node alone", access::a_token_writes_for_its_own_node_alone),
        ("names and certificates from inside of the image", image::names_and_certificates),
        ("a rolling restart loses no packet", rollout::a_rolling_restart_loses_no_packet),
        ("an upgrade and the way back lose no packet", upgrade::an_upgrade_and_the_way_back_lose_no_packet),
        ("a power cut", outage::a_power_cut),
        ("the API server away for two minutes", outage::the_api_server_away),
        ("a Node made again", outage::a_node_made_again),
        ("removal", removal::removal),
        ("blocks that Kubernetes gives", given::blocks_that_kubernetes_gives),
        ("by Helm from installation to removal", helm::from_installation_to_removal),
    ];
    let topology = Topology::load(&integration().join("topologies/kubernetes.clab.yml")).unwrap();
    let mut cluster = Kubernetes::start(Lab::up(topology).unwrap()).unwrap();
    let unready = cluster.kubectl(&["get", "nodes", "--no-headers"]).unwrap();
    assert_eq!(unready.matches("NotReady").count(), 4, "nobody else makes a network: {unready}");
    cluster.install().unwrap();
    cluster.apply(&read(&integration().join("kubernetes/workloads.yaml"))).unwrap();
    cluster.rolled_out("kube-system", "deployment/coredns").unwrap();
    cluster.rolled_out("default", "daemonset/echo").unwrap();
    for (name, scenario) in scenarios {
        let ((), took) = timed(|| scenario(&mut cluster));
        // Shown when one of them fails: which it was, and what had gone before.
        println!("{:6.1} s  {name}", took.as_secs_f64());
    }
}

/// Every pod, and the host of every node, reaches every other pod and host, both families, with its own address.
fn everybody_reaches(cluster: &Kubernetes, pods: &[Pod]) -> Result<(), String> {
    let failures = pods::unreached(cluster, pods);
    match failures.first() {
        None => Ok(()),
        Some(first) => Err(format!("{} unreached, the first: {first}", failures.len())),
    }
}

/// Waits until all four echo pods are ready and everybody reaches everybody; the pods.
fn all_is_well_again(cluster: &Kubernetes) -> Vec<Pod> {
    eventually("everybody to reach everybody again", LIMIT, || {
        let pods = echo_pods(cluster);
        if pods.len() != cluster.nodes().len() {
            return Err(format!("ready pods on {:?}", pods.iter().map(|pod| &pod.node).collect::<Vec<_>>()));
        }
        everybody_reaches(cluster, &pods).map(|()| pods)
    })
    .unwrap()
}

/// Names of all claims, and who holds them.
fn claims(cluster: &Kubernetes) -> Vec<(String, String)> {
    let list = cluster.json(&["get", "blockclaims"]).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let items = list["items"].as_array().unwrap().iter();
    let mut claims: Vec<_> =
        items.map(|claim| (text(&claim["metadata"]["name"]), text(&claim["spec"]["holder"]))).collect();
    claims.sort();
    claims
}
