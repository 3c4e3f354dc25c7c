//! A whole Kubernetes cluster in a lab: a control plane, and nodes with containerd, kubelet and kube-proxy.
//!
//! Its programs are built from their Go modules (`integration/kubernetes/programs.sh`), its images hold one static
//! program each. The nodes are the lab's; inside of each runs a machine (`integration/kubernetes/machine.sh`) in
//! namespaces of its own, so that its power can be cut while the node's network and disks stay.
//!
//! The cluster comes without anything that would route pods: nodes stay NotReady until somebody writes a CNI
//! configuration.

mod control_plane;
mod error;
mod machine;
mod pki;
mod programs;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::eventually::eventually;
use crate::lab::{Lab, Running};

use control_plane::ControlPlane;
pub use error::KubernetesError;
use machine::Machine;
use pki::Authority;
use programs::Programs;

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

/// The pool of the manifest, and what is added.
const POOL: &str = "      - { cidr: 10.244.0.0/16, blockPrefix: 24 }\n";
const MORE_POOLS: &str = "      - { cidr: \"fd10:244::/48\", blockPrefix: 64 }\n";

/// How long a rollout may take: far beyond what a busy machine needs.
const ROLLOUT: &str = "--timeout=240s";

/// How long the controller manager may take for what it does to every Node.
const NODES_LIMIT: Duration = Duration::from_secs(120);

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
    /// Kubernetes' programs, and images of what runs in pods.
    programs: Programs,
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
        let programs = Programs::built()?;
        let folder = lab.folder().join(FOLDER);
        fs::create_dir_all(&folder).map_err(KubernetesError::file(&folder))?;
        let address = addresses(&lab, CONTROL_PLANE)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/machine.sh");
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

    /// Runs `kubectl` as the cluster's administrator with something to read; what it prints.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String, KubernetesError> {
        feed(&mut self.control_plane.command(self.lab.node(CONTROL_PLANE), arguments), input)
    }

    /// `kubectl apply` of objects written as YAML.
    pub fn apply(&self, objects: &str) -> Result<String, KubernetesError> {
        self.kubectl_with(&["apply", "-f", "-"], objects)
    }

    /// Runs `helm` as the cluster's administrator; what it prints. What it keeps of its own lies in the lab's folder.
    pub fn helm(&self, arguments: &[&str]) -> Result<String, KubernetesError> {
        let program = self.program("helm");
        if !program.exists() {
            return Err(KubernetesError::NotBuilt { path: program, target: "kubernetes" });
        }
        let mut helm = self.lab.node(CONTROL_PLANE).command(program);
        helm.env("KUBECONFIG", control_plane::admin(&self.site.folder));
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(variable, self.site.folder.join("helm"));
        }
        feed(helm.args(arguments), "")
    }

    /// Runs `kubectl` as the bearer of a token, with something to read; what it prints.
    pub fn kubectl_as(
        &self,
        token: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, KubernetesError> {
        let mut kubectl = self.lab.node(CONTROL_PLANE).command(self.program("kubectl"));
        kubectl.args(["--kubeconfig=/dev/null", "--server", &self.site.server, "--token", token]);
        kubectl.arg("--certificate-authority").arg(self.authority()).args(arguments);
        feed(&mut kubectl, input)
    }

    /// A program of Kubernetes.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.site.programs.program(name)
    }

    /// The archive of the agent's image.
    #[must_use]
    pub fn agent_image(&self) -> PathBuf {
        self.site.programs.agent_image()
    }

    /// Loads the image of the build after this one into a node, as docs/install.md has an upgrade begin. Its tag is
    /// that of this build with `-next`.
    pub fn load_next_image(&self, node: &str) -> Result<(), KubernetesError> {
        let image = self.site.programs.next_image();
        if !image.exists() {
            return Err(KubernetesError::NotBuilt { path: image, target: "lab-cluster-image" });
        }
        let inside =
            "nsenter --target \"$(pgrep -o -x kubelet)\" --mount -- ctr --namespace k8s.io images import";
        self.lab.node(node).sh(&format!("{inside} '{}'", image.display()))?;
        Ok(())
    }

    /// From now on the controller manager gives every Node a pod CIDR of each family, as with kubeadm's
    /// `--pod-network-cidr`. Returns when every Node has them.
    pub fn give_out_pod_cidrs(&mut self) -> Result<(), KubernetesError> {
        self.control_plane.give_out_pod_cidrs(self.lab.node(CONTROL_PLANE), PODS)?;
        eventually("every Node to have its pod CIDRs", NODES_LIMIT, || {
            let list = self.json(&["get", "nodes"]).map_err(|error| error.to_string())?;
            let given = |node: &serde_json::Value| node["spec"]["podCIDRs"].as_array().map_or(0, Vec::len);
            match list["items"].as_array().into_iter().flatten().find(|node| given(node) != 2) {
                None => Ok(()),
                Some(node) => Err(format!("{} has {}", node["metadata"]["name"], node["spec"]["podCIDRs"])),
            }
        })?;
        Ok(())
    }

    /// The certificate of the cluster's authority (PEM).
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.site.authority()
    }

    /// Installs Pairway as docs/install.md says, with a pool of each family, and waits until every node is Ready.
    pub fn install(&self) -> Result<(), KubernetesError> {
        self.install_from(&manifest()?)
    }

    /// The same from a manifest that was changed.
    pub fn install_from(&self, manifest: &str) -> Result<(), KubernetesError> {
        if !self.agent_image().exists() {
            return Err(KubernetesError::NotBuilt { path: self.agent_image(), target: "lab-cluster-image" });
        }
        self.apply(manifest)?;
        self.rolled_out("pairway", "daemonset/pairway")?;
        self.kubectl(&["wait", "--for=condition=Ready", "node", "--all", ROLLOUT])?;
        Ok(())
    }

    /// Waits until what was applied runs everywhere.
    pub fn rolled_out(&self, namespace: &str, what: &str) -> Result<(), KubernetesError> {
        self.kubectl(&["-n", namespace, "rollout", "status", ROLLOUT, what]).map(drop).map_err(|error| {
            let look = |arguments: &[&str]| self.kubectl(arguments).unwrap_or_else(|error| error.to_string());
            KubernetesError::NotRolledOut {
                what: what.to_owned(),
                problem: error.to_string(),
                pods: look(&["get", "pods", "--all-namespaces", "-o", "wide"]),
                said: look(&["-n", namespace, "logs", what, "--tail=20", "--all-containers"]),
            }
        })
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

/// The manifest of the installation, with a pool of each family.
pub fn manifest() -> Result<String, KubernetesError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/deploy/pairway.yaml");
    let text = fs::read_to_string(&path).map_err(KubernetesError::file(&path))?;
    Ok(text.replace(POOL, &format!("{POOL}{MORE_POOLS}")))
}

/// A program that was built for a cluster, without one.
pub fn program(name: &str) -> Result<PathBuf, KubernetesError> {
    let path = Programs::built()?.program(name);
    if path.exists() { Ok(path) } else { Err(KubernetesError::NotBuilt { path, target: "kubernetes" }) }
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
    let mut kubectl = lab.node(CONTROL_PLANE).command(Programs::built()?.program("kubectl"));
    let status = kubectl.arg("--kubeconfig").arg(kubeconfig).args(arguments).status();
    let fail = |err: std::io::Error| KubernetesError::Answer {
        command: "kubectl".to_owned(),
        problem: err.to_string(),
    };
    Ok(status.map_err(fail)?.code().unwrap_or(1))
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
