//! The demonstration: four nodes in two subnets, from nothing to proven reachability, and one node that goes
//! while another comes.

mod live;
mod matrix;

use std::path::Path;
use std::time::Duration;

use node_agent::status::Pair;

use crate::cluster::{CONFIG, Cluster, ClusterError, Programs};
use crate::interrupt;
use crate::lab::Lab;
use crate::reach::{self, Proof};
use crate::screen::{Step, say};
use crate::topology::Topology;

/// Everybody has everybody on the predicted path within this time, on a slow machine too.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(90);

/// Pods on each node.
const PODS: [&str; 2] = ["p1", "p2"];

/// The node that leaves, and the machine that joins.
const LEAVES: &str = "n4";
const JOINS: &str = "n5";

/// Runs it. Whatever way it ends, nothing is left.
pub fn run(topology: &Path) -> Result<(), ClusterError> {
    let programs = Programs::built()?;
    let topology = Topology::load(topology).map_err(crate::lab::LabError::from)?;
    say("Pairway: every pair of nodes gets the best path that works.\n");

    let step = Step::begin("machines, switches and a router");
    let lab = Lab::up(topology)?;
    step.end(format!("{} namespaces, no container engine", lab.nodes().len()));
    interrupt::check()?;

    let mut cluster = Cluster::new(lab, programs, CONFIG)?;
    let step = Step::begin("agents, one per node, on a store of files");
    let mut nodes = cluster.start_all()?;
    step.end(nodes.join(", "));

    let pairs = converge(&cluster, &nodes)?;
    make_pods(&mut cluster, &nodes)?;
    say(format!("\n{}\n", matrix::nodes(&cluster, &nodes)?));
    say(format!("{}\n", matrix::pairs(&nodes, &pairs)));
    matrix::check(&cluster, &pairs)?;
    prove(&cluster, &nodes)?;

    say(format!("\nNow {LEAVES} leaves for good, and {JOINS} joins. n1 and n3 keep talking.\n"));
    let talk = live::Talk::begin(&cluster, "n1", "n3")?;
    live::leave(&mut cluster, &mut nodes, LEAVES)?;
    cluster.start(JOINS)?;
    nodes.push(JOINS.to_owned());
    let pairs = converge(&cluster, &nodes)?;
    make_pods(&mut cluster, &[JOINS.to_owned()])?;
    talk.end()?;
    say(format!("\n{}\n", matrix::pairs(&nodes, &pairs)));
    prove(&cluster, &nodes)?;

    let step = Step::begin("clean up");
    drop(cluster);
    step.end("nothing is left");
    Ok(())
}

fn converge(cluster: &Cluster, nodes: &[String]) -> Result<Vec<Pair>, ClusterError> {
    let step = Step::begin("every pair on its path");
    let pairs =
        cluster.converged(nodes, CONVERGENCE_LIMIT, |good, all| step.at(format!("{good} of {all}")))?;
    let native = pairs.iter().filter(|pair| pair.path == "native").count();
    step.end(format!("{} native, {} tunnelled, as seen from both ends", native, pairs.len() - native));
    Ok(pairs)
}

fn make_pods(cluster: &mut Cluster, nodes: &[String]) -> Result<(), ClusterError> {
    let step = Step::begin("pods");
    for node in nodes {
        for pod in PODS {
            cluster.add_pod(node, pod)?;
        }
    }
    step.end(format!("{} on each of {}", PODS.len(), nodes.join(", ")));
    interrupt::check()
}

fn prove(cluster: &Cluster, nodes: &[String]) -> Result<(), ClusterError> {
    let step = Step::begin("who reaches whom, and sees whose address");
    let sites = reach::sites(cluster, nodes)?;
    let proofs: Vec<Proof> = reach::prove(cluster, &sites)?;
    step.end(format!("{} questions asked over UDP and TCP", proofs.len()));
    say(format!("\n{}", matrix::proofs(&proofs)));
    interrupt::check()?;
    reach::verdict(&proofs)
}
