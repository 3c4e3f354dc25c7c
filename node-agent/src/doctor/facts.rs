//! What was seen of a machine: values alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use bgp::Family;
use ipnet::IpNet;
use vxlan::firewall::{ForeignChain, Netfilter};
use vxlan::{Conflict, InstalledRoute, Interface, IpTunnel, LinkName};

use crate::node::NodeName;
use crate::status::Condition;
use crate::underlay::Choice;

/// Something that was seen, or why it could not be.
pub type Known<T> = Result<T, String>;

/// Everything that the checks look at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Name of this node.
    pub node: NodeName,
    /// Pools that blocks are cut from.
    pub pools: Vec<IpNet>,
    /// The kernel's release, or why it will not do.
    pub kernel: Known<String>,
    /// `net.ipv4.ip_forward` and `net.ipv6.conf.all.forwarding`.
    pub forwarding: BTreeMap<Family, Known<bool>>,
    /// Interfaces by name, ours included.
    pub interfaces: Known<BTreeMap<LinkName, Interface>>,
    /// What of others is in the way of what stands of ours, or leads packets past it; where nothing of ours stands, what
    /// would be.
    pub conflicts: Known<Vec<Conflict>>,
    /// Conditions of the running agent; empty where none is reached.
    pub conditions: Vec<Condition>,
    /// `net.ipv6.conf.all.disable_ipv6` and `net.ipv6.conf.default.disable_ipv6`; `None`: the kernel has no IPv6.
    pub ipv6_disabled: Known<Option<(bool, bool)>>,
    /// Names of our own devices.
    pub ours: BTreeSet<LinkName>,
    /// Settings of interfaces.
    pub devices: BTreeMap<LinkName, Device>,
    /// `net.ipv4.conf.all.rp_filter`.
    pub rp_filter_all: u8,
    /// Default routes, best first.
    pub default_routes: Vec<InstalledRoute>,
    /// The underlay that the agent would choose.
    pub underlay: Choice,
    /// `net.bridge.bridge-nf-call-iptables`; `None`: the module is not there.
    pub bridge_filter: BridgeFilter,
    /// Kernel modules.
    pub modules: Modules,
    /// Ports that we listen on, and who has them.
    pub ports: Ports,
    /// nftables, as far as it concerns pods.
    pub netfilter: Known<Netfilter>,
    /// The configuration asks for a table of ours.
    pub wants_firewall: bool,
    /// Policy of the FORWARD chain of the legacy iptables, `None` where these are not in use.
    pub legacy_forward: Known<Option<String>>,
    /// Chains of the legacy iptables that packets for this machine go through, empty where these are not in use.
    pub legacy_input: Known<Vec<ForeignChain>>,
    /// Pairs or speakers outside of the cluster use BGP.
    pub wants_bgp: bool,
    /// Whether the clock is kept by something.
    pub clock: Known<ClockState>,
    /// `net.ipv4.neigh.default.gc_thresh3` and its IPv6 twin: neighbours that the machine remembers at most.
    pub neighbor_limit: BTreeMap<Family, Known<u64>>,
    /// The nodes that the store knows.
    pub records: Known<Vec<Record>>,
    /// Directories that the agent writes to.
    pub folders: Vec<Folder>,
}

/// Settings of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Device {
    /// `net.ipv4.conf.DEVICE.forwarding`.
    pub forwarding: Option<bool>,
    /// `net.ipv4.conf.DEVICE.rp_filter`.
    pub rp_filter: Option<u8>,
    /// `net.ipv6.conf.DEVICE.accept_ra`.
    pub accept_ra: Option<u8>,
    /// `net.ipv6.conf.DEVICE.disable_ipv6`.
    pub ipv6_disabled: Option<bool>,
}

/// Whether bridged packets pass iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeFilter {
    /// `net.bridge.bridge-nf-call-iptables`; `None`: br_netfilter is not loaded.
    pub calls_iptables: Option<bool>,
    /// kube-proxy runs on this machine.
    pub kube_proxy: bool,
}

/// The modules that we need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modules {
    /// vxlan
    pub vxlan: ModuleState,
    /// ipip and sit.
    pub ip: BTreeMap<IpTunnel, ModuleState>,
    /// Which of the two the configuration asks for.
    pub asked: BTreeSet<IpTunnel>,
}

/// Whether the kernel has a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleState {
    /// It is in use, loaded or built in.
    Present,
    /// It can be loaded.
    OnDisk,
    /// The running kernel has none.
    Missing,
    /// There is no list of its modules.
    Unknown(String),
}

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// UDP port of our tunnel.
    pub vxlan: u16,
    /// VXLAN network identifier.
    pub vni: u32,
    /// TCP port of our speaker.
    pub bgp: u16,
    /// Addresses that it would listen on.
    pub bgp_addresses: Vec<IpAddr>,
    /// All that listen on one of them.
    pub owners: Known<Vec<PortOwner>>,
}

/// Somebody who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    /// Protocol.
    pub proto: Proto,
    /// Address, unspecified for all of its family.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Who.
    pub owner: Owner,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proto {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// The owner of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A process.
    Process {
        /// Its id.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// No process that we may look at: the kernel, or somebody else's.
    Unseen,
}

/// Whether the clock is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockState {
    /// By a time server.
    Synchronised,
    /// By nobody.
    Free,
}

/// A node of the store, as far as the checks look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub name: NodeName,
    /// Its underlay addresses.
    pub addresses: Vec<IpNet>,
}

impl Record {
    /// Its underlay address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().find(|net| Family::of(**net) == family).map(IpNet::addr)
    }
}

/// A directory that the agent writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// What for.
    pub purpose: Purpose,
    /// Where.
    pub path: PathBuf,
    /// Why the agent could not write there, if it could not.
    pub trouble: Option<String>,
}

/// What a directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `stateDir`
    State,
    /// `store.file.path`
    Store,
    /// The folder of `api.socket`
    Socket,
}
