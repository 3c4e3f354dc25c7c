//! What the operator writes: one strict YAML file, the same for every node.
//!
//! [`ConfigFile::parse`] reads and validates all of it, every override included; [`ConfigFile::for_node`] gives
//! the [`Config`] of one node: validated, with no `Option` for anything that has a default. No environment, no
//! host name and no clock: what is not in the file is an argument.
//!
//! From text to value, each step a module:
//!
//! - `tree`: YAML with the place of every value.
//! - `schema`, from the types of `raw`: what each key may be by itself; `check` holds a tree against it.
//! - `validate`: what keys must be to each other, and the way to [`Config`].
//! - `file`: the same for the file merged with each of its overrides.
//! - `changes`: what a new configuration changes, and whether a running agent can take it over.
//! - `render`: back to YAML.

mod changes;
mod check;
pub mod defaults;
mod duration;
mod error;
mod file;
mod format;
mod glob;
mod later;
mod limits;
mod name;
mod raw;
mod render;
mod schema;
mod tree;
mod validate;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use crate::changes::{ChangeMode, KeyChange};
pub use crate::error::{ConfigError, ConfigErrors};
pub use crate::file::{ConfigFile, NodeNameError};
pub use crate::schema::schema;

/// The effective configuration of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The node itself.
    pub node: Node,
    /// Where records and claims live.
    pub store: Store,
    /// Pools that blocks are cut from, at least one, none overlapping.
    pub pools: Vec<Pool>,
    /// How many blocks, and when one is taken again.
    pub blocks: Blocks,
    /// Path policy.
    pub paths: Paths,
    /// BGP.
    pub bgp: Bgp,
    /// VXLAN.
    pub vxlan: Vxlan,
    /// When nodes that vanish from the store at once are kept.
    pub brake: Brake,
    /// Masquerading.
    pub masquerade: Masquerade,
    /// What is written for CNI plugins.
    pub cni: Cni,
    /// Address of `/metrics`, `/livez`, `/readyz`.
    pub http: SocketAddr,
    /// Unix socket of the local API.
    pub api_socket: PathBuf,
    /// What a node keeps across restarts; a lock in it refuses a second agent.
    pub state_dir: PathBuf,
    /// Marks of ownership in the kernel.
    pub kernel: Kernel,
}

impl Config {
    /// What is legal and may not do what its author thinks: sentences for people, with their key.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let native = |use_| matches!(use_, PathUse::Bgp | PathUse::Direct);
        let rules = self.paths.rules.iter().enumerate().filter(|(_, rule)| native(rule.use_));
        rules
            .map(|(index, _)| {
                format!(
                    "paths.rules[{index}].use: a native path holds for pairs in one subnet; others that the rule \
                     matches use paths.fallback, with the reason off-link"
                )
            })
            .collect()
    }
}

/// `node:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name; resolved: `auto` has become the name that [`ConfigFile::for_node`] was given.
    pub name: String,
    /// Where the underlay addresses come from.
    pub underlay: Underlay,
    /// Labels that rules match.
    pub labels: BTreeMap<String, String>,
}

/// `node.underlay`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Underlay {
    /// The default route's interface.
    Auto,
    /// The first fit address per family on these, in order.
    Select(Vec<UnderlaySelector>),
}

/// An entry of `node.underlay`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnderlaySelector {
    /// An interface by name.
    Interface(String),
    /// Any address within.
    Cidr(IpNet),
}

/// `store:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// A directory.
    File {
        /// The directory.
        path: PathBuf,
        /// Accept a network filesystem and poll it.
        allow_network_filesystem: bool,
    },
    /// The Kubernetes API.
    Kubernetes {
        /// Where it is and who we are; `None`: as a pod is told.
        kubeconfig: Option<PathBuf>,
        /// A context of that file.
        context: Option<String>,
        /// Of the Leases.
        namespace: Option<String>,
    },
    /// etcd.
    Etcd(Etcd),
}

/// `store.etcd:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// URLs of the members.
    pub endpoints: Vec<String>,
    /// What keys begin with, without a slash at the end.
    pub prefix: String,
    /// Authorities of the members' certificates.
    pub ca_file: Option<PathBuf>,
    /// Our certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The name in the members' certificates.
    pub server_name: Option<String>,
    /// Who we are.
    pub username: Option<String>,
    /// The file with the password.
    pub password_file: Option<PathBuf>,
}

/// An entry of `pools:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Addresses, host bits zero.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_prefix: u8,
    /// Labels that a node must have to claim from it; empty: every node.
    pub nodes: BTreeMap<String, String>,
    /// No new claims.
    pub disabled: bool,
}

/// `blocks:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// Where they come from.
    pub source: BlockSource,
    /// Blocks per node and family, at least 1.
    pub per_node: u16,
    /// How long a vanished block is left alone.
    pub reuse_after: Duration,
}

/// `blocks.source`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockSource {
    /// Claimed from the pools.
    Claim,
    /// The pod CIDRs of the node's Node object.
    NodeSpec,
}

/// `paths:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// For pairs in one subnet.
    pub same_subnet: PathUse,
    /// For the others.
    pub cross_subnet: PathUse,
    /// Where the path asked for does not work: `Vxlan`, `Ipip` or `None`.
    pub fallback: PathUse,
    /// First match wins.
    pub rules: Vec<PathRule>,
}

/// What a policy can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathUse {
    /// Native, learned over BGP.
    Bgp,
    /// Native, from the store.
    Direct,
    /// VXLAN.
    Vxlan,
    /// IP-in-IP, over underlay addresses of IPv4.
    Ipip,
    /// No path.
    None,
}

impl Paths {
    /// Whether any pair may be asked to use IP-in-IP.
    #[must_use]
    pub fn uses_ipip(&self) -> bool {
        self.uses(PathUse::Ipip)
    }

    /// Whether any pair may be asked to use BGP.
    #[must_use]
    pub fn uses_bgp(&self) -> bool {
        self.uses(PathUse::Bgp)
    }

    fn uses(&self, asked: PathUse) -> bool {
        let uses = [self.same_subnet, self.cross_subnet, self.fallback];
        uses.into_iter().chain(self.rules.iter().map(|rule| rule.use_)).any(|use_| use_ == asked)
    }
}

/// An entry of `paths.rules`: matches a pair if one end matches one selector and the other end the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// The two selectors, unordered.
    pub between: [NodeSelector; 2],
    /// What such pairs use.
    pub use_: PathUse,
}

/// Selects nodes; what is given must all hold. Empty selects every node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeSelector {
    /// Labels that the node has.
    pub labels: BTreeMap<String, String>,
    /// The node's underlay address of either family lies within.
    pub cidr: Option<IpNet>,
}

/// `bgp:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bgp {
    /// AS of this node, 1 to 4294967294, not 23456.
    pub asn: u32,
    /// TCP port, ours and the other nodes'.
    pub port: u16,
    /// Addresses to listen on; empty: the underlay addresses.
    pub listen: Vec<IpAddr>,
    /// Proposed hold time: 0 or 3 s and more.
    pub hold_time: Duration,
    /// Graceful restart time.
    pub restart_time: Duration,
    /// BGP identifier; `None`: the underlay's IPv4 address, else a hash of the name.
    pub router_id: Option<Ipv4Addr>,
    /// More prefixes than this from one peer end its session.
    pub max_prefixes: u32,
    /// Speakers outside of the cluster.
    pub peers: Vec<BgpPeer>,
}

/// An entry of `bgp.peers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BgpPeer {
    /// Name, unique.
    pub name: String,
    /// Address, unique.
    pub address: IpAddr,
    /// Its AS.
    pub asn: u32,
    /// Its port.
    pub port: u16,
    /// Labels of the nodes that peer with it; empty: every node.
    pub nodes: BTreeMap<String, String>,
    /// Prefixes accepted from it, with everything more specific.
    pub import: Vec<IpNet>,
    /// Of our blocks, those within these; `None`: all of them.
    pub export: Option<Vec<IpNet>>,
    /// Our blocks are announced to it with GRACEFUL_SHUTDOWN (RFC 8326) while this node's Node is cordoned.
    pub graceful_shutdown: bool,
}

/// `vxlan:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// Network identifier, 1 to 16777215.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Drop packets with our VNI from addresses that are no node's.
    pub guard: bool,
}

/// `masquerade:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masquerade {
    /// Packets of pods that leave the cluster get the node's address.
    pub enabled: bool,
    /// Destinations that see pod addresses all the same.
    pub exclude: Vec<IpNet>,
}

/// `cni:`, files for the plugins that wire pods.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cni {
    /// This node's subnets in flannel's format.
    pub subnet_env: Option<PathBuf>,
    /// A CNI configuration of ours.
    pub conflist: Option<PathBuf>,
}

/// `brake:`, when nodes that vanish from the store at once are kept for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brake {
    /// More than this share of the other nodes, in percent, 0 to 100...
    pub share: u8,
    /// ... and at least so many of them, at least 1...
    pub at_least: u32,
    /// ... within this time.
    pub within: Duration,
    /// A snapshot confirms the loss if it is later than this, at most `grace`...
    pub confirm_after: Duration,
    /// ... and without one the loss is believed after this time.
    pub grace: Duration,
}

impl Default for Brake {
    fn default() -> Self {
        Self {
            share: defaults::BRAKE_SHARE,
            at_least: defaults::BRAKE_AT_LEAST,
            within: defaults::BRAKE_WITHIN,
            confirm_after: defaults::BRAKE_CONFIRM_AFTER,
            grace: defaults::BRAKE_GRACE,
        }
    }
}

/// `kernel:`, the marks of ownership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Route protocol number.
    pub route_protocol: u8,
    /// Metric of block routes.
    pub route_metric: u32,
    /// Table of the peers' underlay addresses for packets from pods.
    pub table: u32,
    /// Priority of the rules that lead there.
    pub rule_priority: u32,
    /// First of 2^28 nexthop ids.
    pub nexthop_base: u32,
    /// Device names begin with this: `pairway-vx4`, `pairway-vx6`.
    pub device_prefix: String,
    /// Name of our nftables table, of family `inet`.
    pub firewall_table: String,
}
