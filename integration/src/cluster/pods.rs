//! Pods: a network namespace on a bridge `cni0`, with an address of the node's block, as the bridge and
//! host-local CNI plugins make them.

use std::net::IpAddr;
use std::process::Command;

use ipnet::IpNet;

use super::{Cluster, ClusterError};
use crate::lab::CommandError;

/// First host number of a block that pods get: .0 is the node's tunnel address, .1 the bridge.
const FIRST_HOST: u32 = 2;

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its node.
    pub node: String,
    /// Its name, unique on its node.
    pub name: String,
    /// Its addresses, one of each family that the node has a block of.
    pub addresses: Vec<IpAddr>,
}

impl Pod {
    /// Its address of a family.
    #[must_use]
    pub fn address(&self, ipv6: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv6() == ipv6)
    }
}

impl Cluster {
    /// Makes a pod on a node, which must have a block.
    pub fn add_pod(&mut self, node: &str, name: &str) -> Result<Pod, ClusterError> {
        let status = self.status(node)?;
        let mut blocks: Vec<IpNet> = Vec::new();
        for block in status.blocks.iter().filter_map(|block| block.parse::<IpNet>().ok()) {
            if !blocks.iter().any(|other| other.addr().is_ipv4() == block.addr().is_ipv4()) {
                blocks.push(block);
            }
        }
        if blocks.is_empty() {
            return Err(ClusterError::NoBlock { node: node.to_owned() });
        }
        let number = self.pods.iter().filter(|pod| pod.node == node).count() as u32 + FIRST_HOST;
        let mtu = match &status.underlay_interface {
            Some(interface) => self.node(node).sh(&format!("cat /sys/class/net/{interface}/mtu"))?,
            None => "1500".to_owned(),
        };
        let mtu = mtu.trim();
        let mut lines = vec![
            format!("ip link show cni0 >/dev/null 2>&1 || ip link add cni0 mtu {mtu} type bridge"),
            "ip link set cni0 up".to_owned(),
            format!("ip netns add {name}"),
            format!("ip link add veth{number} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {name}"),
            format!("ip link set veth{number} master cni0 up"),
            format!("ip -n {name} link set lo up"),
            format!("ip netns exec {name} sysctl -qw net.ipv6.conf.eth0.accept_dad=0"),
            format!("ip -n {name} link set eth0 up"),
        ];
        let mut addresses = Vec::new();
        for block in blocks {
            let length = block.prefix_len();
            let (gateway, address) = (host(block, 1), host(block, number));
            let (family, nodad) = if block.addr().is_ipv6() { ("-6", " nodad") } else { ("-4", "") };
            lines.push(format!("ip {family} addr replace {gateway}/{length} dev cni0{nodad}"));
            lines.push(format!("ip -n {name} {family} addr add {address}/{length} dev eth0{nodad}"));
            lines.push(format!("ip -n {name} {family} route add default via {gateway}"));
            addresses.push(address);
        }
        self.node(node).sh(&lines.join("\n"))?;
        let pod = Pod { node: node.to_owned(), name: name.to_owned(), addresses };
        self.pods.push(pod.clone());
        Ok(pod)
    }

    /// Pods that were made, in order.
    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Forgets the pods of a node that leaves. Their namespaces stay until the lab ends.
    pub fn forget_pods(&mut self, node: &str) {
        self.pods.retain(|pod| pod.node != node);
    }

    /// A command that will run in a pod.
    #[must_use]
    pub fn pod_command(&self, pod: &Pod, program: &str) -> Command {
        let mut command = self.node(&pod.node).command("ip");
        command.args(["netns", "exec", &pod.name, program]);
        command
    }

    /// Runs a command in a pod to its end.
    pub fn run_in_pod(&self, pod: &Pod, words: &[&str]) -> Result<String, CommandError> {
        let mut all = vec!["ip", "netns", "exec", &pod.name];
        all.extend(words);
        self.node(&pod.node).run(&all)
    }
}

/// An address of a block by its host number.
fn host(block: IpNet, number: u32) -> IpAddr {
    match block.network() {
        IpAddr::V4(network) => IpAddr::V4((u32::from(network) + number).into()),
        IpAddr::V6(network) => IpAddr::V6((u128::from(network) + u128::from(number)).into()),
    }
}
