//! Machines: what runs inside of a lab's node and ends when its power is cut.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::error::KubernetesError;
use super::pki::{self, Authority};
use super::{DNS_SERVICE, PODS, Site, UNDERLAY, start};
use crate::eventually::soon;
use crate::lab::{CommandError, Node, Running};

/// How long the kernel may take to let go of a dead machine's control groups.
const CGROUP_LIMIT: Duration = Duration::from_secs(5);

/// Protocol of Pairway's routes and rules.
const OURS: &str = "112";

/// A machine that runs. Its power is cut when this is dropped, unless left.
#[derive(Debug)]
pub(super) struct Machine(Running);

/// Writes what the machine of a node reads.
pub(super) fn prepare(
    site: &Site,
    authority: &Authority,
    node: &str,
    addresses: &[IpAddr],
) -> Result<(), KubernetesError> {
    let folder = site.machine(node);
    fs::create_dir_all(&folder).map_err(KubernetesError::file(&folder))?;
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(KubernetesError::file(&path))
    };
    let ca = site.authority();
    let user = format!("system:node:{node}");
    let client = authority.client(&folder, &user, Some("system:nodes"))?;
    pki::kubeconfig(&folder.join("kubelet.kubeconfig"), &site.server, &ca, &client)?;
    let proxy = authority.client(&folder, "system:kube-proxy", None)?;
    let proxy_config = folder.join("kube-proxy.kubeconfig");
    pki::kubeconfig(&proxy_config, &site.server, &ca, &proxy)?;
    let serving = authority.server(&folder, node, &[node], addresses)?;
    // For pods that use the node's resolver: there is none.
    write("resolv.conf", "nameserver 127.0.0.1\n".to_owned())?;
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false }, "webhook": { "enabled": true }, "x509": { "clientCAFile": ca },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": serving.certificate,
        "tlsPrivateKeyFile": serving.key,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "failSwapOn": false,
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_SERVICE],
        "resolvConf": folder.join("resolv.conf"),
        "serializeImagePulls": false,
        "nodeLeaseDurationSeconds": 20,
        // Images come from archives alone: none may be collected.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
            "imagefs.available": "0%", "imagefs.inodesFree": "0%",
        },
    });
    write("kubelet.yaml", kubelet.to_string())?;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let flags = [format!("--hostname-override={node}"), format!("--node-ip={}", addresses.join(","))];
    write("kubelet.flags", flags.join("\n") + "\n")?;
    let proxy = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": proxy_config },
        "mode": "nftables",
        "clusterCIDR": PODS,
        "hostnameOverride": node,
        // Machine-wide limits, which a namespace can't set.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        "nftables": { "minSyncPeriod": "0.2s" },
    });
    write("kube-proxy.yaml", proxy.to_string())
}

impl Machine {
    pub(super) fn start(site: &Site, node: &Node) -> Result<Self, KubernetesError> {
        let folder = site.machine(node.name());
        let words = [
            "env".to_owned(),
            format!("KUBELET={}", site.programs.program("kubelet").display()),
            format!("KUBE_PROXY={}", site.programs.program("kube-proxy").display()),
            format!("IMAGES={}", site.programs.images().display()),
            format!("AGENT_IMAGE={}", site.programs.agent_image().display()),
            site.script.display().to_string(),
            folder.display().to_string(),
            format!("{}/{}", site.cgroup, node.name()),
        ];
        Ok(Self(start(node, &words, &folder.join("machine.log"))?))
    }

    /// From now on it outlives this value; it ends with its node.
    pub(super) fn leave(self) {
        self.0.leave();
    }
}

/// Removes the devices and rules that a dead machine has left in its node's network, as a reboot would.
pub(super) fn forget_network(node: &Node) -> Result<(), CommandError> {
    let links = node.json(&["ip", "-j", "link"])?;
    for link in links.as_array().into_iter().flatten() {
        let name = link["ifname"].as_str().unwrap_or_default();
        if !["lo", UNDERLAY].contains(&name) {
            // The other end of a pair goes with the first.
            let _ = node.run(&["ip", "link", "del", name]);
        }
    }
    for family in ["-4", "-6"] {
        node.run(&["ip", family, "nexthop", "flush"])?;
        node.run(&["ip", family, "route", "flush", "table", "all", "protocol", OURS]).or_else(absent)?;
        node.run(&["ip", family, "rule", "flush", "protocol", OURS]).or_else(absent)?;
    }
    node.run(&["nft", "flush", "ruleset"])?;
    Ok(())
}

/// `ip` calls it a failure to flush what is not there.
fn absent(_nothing: CommandError) -> Result<String, CommandError> {
    Ok(String::new())
}

/// Removes a cluster's control groups from every hierarchy.
pub(super) fn remove_control_groups(name: &str) {
    let hierarchies: Vec<_> = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().collect();
    let removed = || {
        hierarchies.iter().map(|hierarchy| hierarchy.path().join(name)).filter(|group| group.exists()).all(
            |group| {
                remove_below(&group);
                !group.exists()
            },
        )
    };
    // What the kernel does not let go in time is empty and costs nothing.
    let _ = soon(removed, CGROUP_LIMIT);
}

fn remove_below(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    // Busy ones are tried again.
    let _ = fs::remove_dir(group);
}
