//! A whole Kubernetes cluster in a lab: a control plane, and nodes with containerd, kubelet and kube-proxy.
//!
//! Its programs are built from their Go modules (`integration/cluster/programs.sh`), its images hold one static
//! program each. The nodes are the lab's; inside of each runs a machine (`integration/cluster/machine.sh`) in
//! namespaces of its own, so that its power can be cut while the node's network and disks stay.
//!
//! The cluster comes without anything that would route pods: nodes stay NotReady until somebody writes a CNI
//! configuration.

mod control_plane;
mod error;
mod machine;
mod pki;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::lab::{Lab, Running};

use control_plane::ControlPlane;
pub use error::KubernetesError;
use machine::Machine;
use pki::Authority;

/// Node of the topology that holds the control plane.
const CONTROL_PLANE: &str = "cp";

/// Folder of the cluster in its lab's.
const FOLDER: &str = "kubernetes";

/// Interface of every node on its underlay.
const UNDERLAY: &str = "eth1";

/// Addresses of Services; the first of each is the API server's.
const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd10:96::/112"];

/// Address of the API server's Service.
const API_SERVICE: &str = "10.96.0.1";

/// Address of the cluster's DNS.
const DNS_SERVICE: &str = "10.96.0.10";

/// Addresses of pods, for kube-proxy, which tells pods from strangers by them.
const PODS: &str = "10.244.0.0/16,fd10:244::/48";

/// A cluster. Unless left, it ends when this is dropped.
#[derive(Debug)]
pub struct Kubernetes {
    // Programs end before their nodes: fields are dropped in this order.
    machines: BTreeMap<String, Machine>,
    control_plane: ControlPlane,
    authority: Authority,
    site: Site,
    lab: Lab,
}

/// Where things are.
#[derive(Debug, Clone)]
struct Site {
    /// Kubernetes' programs.
    programs: PathBuf,
    /// What the cluster writes: certificates, configurations, logs.
    folder: PathBuf,
    /// `machine.sh`
    script: PathBuf,
    /// Control groups of the cluster's machines are below this name in every hierarchy.
    cgroup: String,
    /// The API server, from everywhere.
    server: String,
}

impl Kubernetes {
    /// Starts a cluster in a lab of the topology `kubernetes`. Returns when the API server answers and every node has
    /// registered itself.
    pub fn start(lab: Lab) -> Result<Self, KubernetesError> {
        let programs = programs()?;
        let folder = lab.folder().join(FOLDER);
        fs::create_dir_all(&folder).map_err(KubernetesError::file(&folder))?;
        let address = addresses(&lab, CONTROL_PLANE)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/machine.sh");
        let cgroup = control_group(lab.folder());
        let server = format!("https://{}:6443", address[0]);
        let site = Site { programs, folder, script, cgroup, server };
        let authority = Authority::new()?;
        let control_plane = ControlPlane::start(&site, &authority, lab.node(CONTROL_PLANE), &address)?;
        let mut cluster = Self { machines: BTreeMap::new(), control_plane, authority, site, lab };
        for node in cluster.nodes() {
            let addresses = addresses(&cluster.lab, &node)?;
            machine::prepare(&cluster.site, &cluster.authority, &node, &addresses)?;
            cluster.power_on(&node)?;
        }
        cluster.control_plane.registered(cluster.lab.node(CONTROL_PLANE), &cluster.nodes())?;
        Ok(cluster)
    }

    /// Names of the nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        let is_node =
            |labels: &BTreeMap<String, String>| labels.get("role").is_some_and(|role| role == "node");
        let nodes = self.lab.topology().nodes.iter().filter(|(_, node)| is_node(&node.labels));
        nodes.map(|(name, _)| name.clone()).collect()
    }

    /// The lab below.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Cuts a node's power: all of its processes end at once, and what they had made in its network is gone as after a
    /// reboot. Its disks stay.
    pub fn power_cut(&mut self, node: &str) -> Result<(), KubernetesError> {
        self.machines.remove(node);
        Ok(machine::forget_network(self.lab.node(node))?)
    }

    /// Starts the machine of a node.
    pub fn power_on(&mut self, node: &str) -> Result<(), KubernetesError> {
        let machine = Machine::start(&self.site, self.lab.node(node))?;
        self.machines.insert(node.to_owned(), machine);
        Ok(())
    }

    /// Ends the API server, as a crash would.
    pub fn stop_api_server(&mut self) {
        self.control_plane.stop_api_server();
    }

    /// Starts the API server again and waits until it answers.
    pub fn start_api_server(&mut self) -> Result<(), KubernetesError> {
        self.control_plane.start_api_server(self.lab.node(CONTROL_PLANE))
    }

    /// Runs `kubectl` as the cluster's administrator; what it prints.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, KubernetesError> {
        self.control_plane.kubectl(self.lab.node(CONTROL_PLANE), arguments)
    }

    /// What `kubectl ... -o json` prints.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value, KubernetesError> {
        let text = self.kubectl(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).map_err(|err| KubernetesError::Answer {
            command: arguments.join(" "),
            problem: format!("not JSON: {err}"),
        })
    }

    /// `kubectl apply` of objects written as YAML.
    pub fn apply(&self, objects: &str) -> Result<String, KubernetesError> {
        let mut kubectl = self.control_plane.command(self.lab.node(CONTROL_PLANE), &["apply", "-f", "-"]);
        feed(&mut kubectl, objects)
    }

    /// From now on everything outlives this value; it ends with its lab.
    pub fn leave(mut self) {
        std::mem::take(&mut self.machines).into_values().for_each(Machine::leave);
        self.control_plane.leave();
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        let left = self.machines.is_empty();
        self.machines.clear();
        if !left {
            machine::remove_control_groups(&self.site.cgroup);
        }
    }
}

/// Name of the control groups of a lab's machines in every hierarchy. They are the one thing that does not go with the lab.
fn control_group(folder: &Path) -> String {
    format!("pairway-{}", folder.file_name().unwrap_or_default().to_string_lossy())
}

/// Removes what a cluster that was left has made outside of its lab, once that has ended.
pub fn sweep(folder: &Path) {
    machine::remove_control_groups(&control_group(folder));
}

/// Runs `kubectl` in a cluster that was left; its exit status.
pub fn kubectl(lab: &Lab, arguments: &[String]) -> Result<i32, KubernetesError> {
    let kubeconfig = control_plane::admin(&lab.folder().join(FOLDER));
    let mut kubectl = lab.node(CONTROL_PLANE).command(programs()?.join("kubectl"));
    let status = kubectl.arg("--kubeconfig").arg(kubeconfig).args(arguments).status();
    let fail = |err: std::io::Error| KubernetesError::Answer {
        command: "kubectl".to_owned(),
        problem: err.to_string(),
    };
    Ok(status.map_err(fail)?.code().unwrap_or(1))
}

/// Where `programs.sh` puts what it builds.
fn programs() -> Result<PathBuf, KubernetesError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
    let programs = root.join("target/cluster");
    if programs.join("images").is_dir() {
        return Ok(programs);
    }
    Err(KubernetesError::NotBuilt { folder: programs })
}

/// Addresses of a node on its underlay, IPv4 first.
fn addresses(lab: &Lab, node: &str) -> Result<Vec<IpAddr>, KubernetesError> {
    let json = lab.node(node).json(&["ip", "-j", "addr", "show", "dev", UNDERLAY, "scope", "global"])?;
    let infos = json[0]["addr_info"].as_array().cloned().unwrap_or_default();
    let mut addresses: Vec<IpAddr> =
        infos.iter().filter_map(|info| info["local"].as_str()?.parse().ok()).collect();
    addresses.sort();
    if addresses.is_empty() {
        return Err(KubernetesError::NoAddress { node: node.to_owned() });
    }
    Ok(addresses)
}

/// Runs a command with something to read; what it prints.
fn feed(command: &mut Command, input: &str) -> Result<String, KubernetesError> {
    let line = format!("{command:?}");
    let fail = |problem: String| KubernetesError::Answer { command: line.clone(), problem };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|err| fail(err.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(|err| fail(err.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|err| fail(err.to_string()))?;
    if !output.status.success() {
        return Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts a program of the control plane or a machine in a node.
fn start(lab_node: &crate::lab::Node, words: &[String], log: &Path) -> Result<Running, KubernetesError> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Ok(lab_node.start(&words, log)?)
}
