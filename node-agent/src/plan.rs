//! What follows from the world: BGP peers, announcements and the wanted kernel state. Pure.
//!
//! [`plan()`] is the only place where a pod block's route is decided, native or tunnelled. It reads the world
//! in four steps, one module each: `cluster` (who is a member, with which blocks, and what is refused),
//! `evidence` with [`crate::path`] (the path of each pair), `sessions` (BGP peers and routes from outside),
//! `objects` (devices, neighbours, nexthops, routes, rules), with `firewall` (the nftables table) and `arrivals` (what
//! others' filters must let in). `identity` holds the
//! functions of a name, `nexthop_ids` those that also look at the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp::Family;
use bgp::speaker::{Peer, PeerName, Routes, SpeakerStatus};
use config::Config;
use ipnet::IpNet;
use tokio::time::Instant;
use vxlan::{FdbKey, IpTunnel, LinkName, NeighborKey, NexthopId, Observed, RouteKey, State};

use crate::node::{Block, NodeName, NodeRecord, Snapshot};
use crate::path::{self, Decision, End, Path};
use crate::status::RefusedPrefix;
use crate::underlay::Local;

mod arrivals;
mod cluster;
mod evidence;
mod external;
mod firewall;
mod identity;
mod nexthop_ids;
mod objects;
mod sessions;

pub use arrivals::Judged;
pub(crate) use arrivals::effect as input_effect;
pub(crate) use firewall::{
    MODULES as FIREWALL_MODULES, remedy as forward_remedy, unavailable as firewall_unavailable,
};
pub use identity::{device_name, ip_device_name, router_id, vtep_mac};

use cluster::Cluster;

/// Routing table `main`.
pub const MAIN_TABLE: u32 = 254;
/// RFC 8200 §5, bytes.
pub(crate) const IPV6_MIN_MTU: u32 = 1280;
/// Metric of the pool-wide `unreachable` routes: the worst there is.
pub const UNREACHABLE_METRIC: u32 = u32::MAX;

/// Everything that a plan follows from.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// This node's own record.
    pub own: &'a NodeRecord,
    /// Configuration.
    pub config: &'a Config,
    /// What the store holds.
    pub snapshot: &'a Snapshot,
    /// Blocks that this node holds, oldest first; a lost one is not among them.
    pub held: &'a [Block],
    /// This node's own underlay.
    pub local: &'a Local,
    /// Kinds of IP tunnel that the kernel can make, of those that are asked for ([`ip_tunnels`]).
    pub ip_tunnels: &'a BTreeSet<IpTunnel>,
    /// What the kernel holds.
    pub observed: &'a Observed,
    /// The state of the BGP sessions.
    pub sessions: &'a SpeakerStatus,
    /// What they have delivered.
    pub learned: &'a Routes,
    /// What the last plan decided, empty after a start.
    pub memory: &'a Memory,
    /// What the last plan has judged of others' filters.
    pub judged: &'a Arc<Judged>,
    /// Now: some evidence holds for a while only.
    pub now: Instant,
    /// The agent has started not long ago: a pair that is native in the kernel stays native until its session
    /// has delivered or has shown that it does not.
    pub holding: bool,
    /// This node is to be emptied: speakers outside of the cluster are told, where they are configured so.
    pub cordoned: bool,
}

/// What one plan leaves to the next.
pub type Memory = BTreeMap<(NodeName, Family), PairMemory>;

/// What is remembered of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairMemory {
    /// The path decided.
    pub path: Path,
    /// Blocks that the session had delivered.
    pub delivered: BTreeSet<Block>,
    /// Underlay addresses of the family, ours and the peer's.
    pub ends: Option<(IpAddr, IpAddr)>,
    /// Since when the session has not delivered blocks that were claimed while the pair was native.
    pub growing_since: Option<Instant>,
    /// An end has moved to another address: until when the session may take to come up there.
    pub moved_until: Option<Instant>,
}

impl PairMemory {
    /// When its evidence is to be looked at again, if nothing happens before.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        let grown = self.growing_since.map(|since| since + evidence::GROWTH);
        [grown, self.moved_until].into_iter().flatten().min()
    }
}

/// What follows from a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// BGP peers wanted.
    pub peers: BTreeMap<PeerName, Peer>,
    /// Prefixes to announce.
    pub announce: BTreeSet<IpNet>,
    /// Kernel state wanted. Shared: it is asked for, compared with and shown.
    pub dataplane: Arc<State>,
    /// The pairs, sorted by peer, then family.
    pub pairs: Vec<PairPlan>,
    /// Routes that come from speakers outside of the cluster, and from which. Those to nodes are among the needs of
    /// their pairs.
    pub external: BTreeMap<RouteKey, PeerName>,
    /// Accepted by the speaker and refused here, by peer.
    pub refused: BTreeMap<PeerName, Vec<RefusedPrefix>>,
    /// What an operator should know, sorted.
    pub findings: BTreeSet<Finding>,
    /// For the next plan.
    pub memory: Arc<Memory>,
    /// For the next plan, too.
    pub judged: Arc<Judged>,
    /// Our tunnel addresses.
    pub tunnel_addresses: BTreeMap<Family, IpAddr>,
}

impl Plan {
    /// Whose routes they are: the node, or the outside speaker. The pools' are nobody's.
    #[must_use]
    pub fn owners(&self) -> BTreeMap<&RouteKey, &str> {
        let of_nodes =
            self.pairs.iter().flat_map(|pair| pair.needs.routes.iter().map(|key| (key, pair.peer.as_str())));
        of_nodes.chain(self.external.iter().map(|(key, peer)| (key, peer.as_str()))).collect()
    }
}

/// A pair of this node with a peer, for one family of pod addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairPlan {
    /// The peer.
    pub peer: NodeName,
    /// Family of the pod addresses.
    pub family: Family,
    /// The path and why.
    pub decision: Decision,
    /// The peer's blocks of this family, oldest first.
    pub blocks: Vec<Block>,
    /// Our underlay address that serves the pair.
    pub local: Option<IpAddr>,
    /// The peer's.
    pub remote: Option<IpAddr>,
    /// Largest packet in bytes that the path's device takes.
    pub mtu: u32,
    /// What the kernel must hold for this path.
    pub needs: Needs,
}

/// Keys of kernel objects that a path needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// Tunnel device.
    pub link: Option<LinkName>,
    /// Neighbour of the tunnel next hop.
    pub neighbor: Option<NeighborKey>,
    /// Forwarding entry.
    pub fdb: Option<FdbKey>,
    /// Nexthop object.
    pub nexthop: Option<NexthopId>,
    /// Routes of the blocks and of the peer's underlay address.
    pub routes: Vec<RouteKey>,
}

impl Needs {
    /// Whether `present` holds all of it as `wanted` has it.
    #[must_use]
    pub fn met(&self, wanted: &State, present: &State) -> bool {
        self.unmet(wanted, present).is_none()
    }

    /// The first of it that `present` does not hold as `wanted` has it.
    #[must_use]
    pub fn unmet(&self, wanted: &State, present: &State) -> Option<String> {
        fn same<K: Ord, V: PartialEq>(key: &K, wanted: &BTreeMap<K, V>, present: &BTreeMap<K, V>) -> bool {
            wanted.get(key).is_some_and(|value| present.get(key) == Some(value))
        }
        if let Some(link) = self.link.iter().find(|key| !same(*key, &wanted.links, &present.links)) {
            return Some(format!("device {link}"));
        }
        if let Some(key) = self.neighbor.iter().find(|key| !same(*key, &wanted.neighbors, &present.neighbors))
        {
            return Some(format!("neighbour {} dev {}", key.address, key.link));
        }
        if let Some(key) = self.fdb.iter().find(|key| !same(*key, &wanted.fdb, &present.fdb)) {
            return Some(format!("forwarding entry {} dev {}", key.mac, key.link));
        }
        if let Some(id) = self.nexthop.iter().find(|key| !same(*key, &wanted.nexthops, &present.nexthops)) {
            return Some(format!("nexthop {}", id.0));
        }
        let route = self.routes.iter().find(|key| !same(*key, &wanted.routes, &present.routes));
        route.map(|key| format!("route {} table {}", key.prefix, key.table))
    }
}

/// The command that mends a refusal of the kernel because a device, or every device, has no IPv6.
#[must_use]
pub fn enable_ipv6(device: &str) -> String {
    format!("sysctl -w net.ipv6.conf.{device}.disable_ipv6=0")
}

/// Something that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// A stable word.
    pub kind: &'static str,
    /// What it is about; empty for the node itself.
    pub subject: String,
    /// A sentence with what to do.
    pub message: String,
}

impl Finding {
    /// A finding.
    #[must_use]
    pub fn new(kind: &'static str, subject: impl ToString, message: impl Into<String>) -> Self {
        Self { kind, subject: subject.to_string(), message: message.into() }
    }
}

/// Makes the plan.
#[must_use]
pub fn plan(world: &World<'_>) -> Plan {
    let mut findings = BTreeSet::new();
    let cluster = Cluster::read(world, &mut findings);
    let (pairs, memory) = pairs(world, &cluster);
    let mut sessions = sessions::sessions(world, &cluster, &pairs, &mut findings);
    let external = external::routes(world, &cluster, &mut sessions.refused, &mut findings);
    let mut objects = objects::objects(world, &cluster, pairs, &external);
    objects.state.firewall = firewall::table(world, &cluster, &objects.state);
    firewall::report(world, &cluster, &objects.state, &mut findings);
    let judged = arrivals::report(world, &cluster, &objects.state, &sessions.peers, &mut findings);
    objects::report(world, &objects.state, &mut findings);
    Plan {
        peers: sessions.peers,
        announce: world.held.iter().map(|block| block.net()).collect(),
        dataplane: Arc::new(objects.state),
        pairs: objects.pairs,
        external: objects.external,
        refused: sessions.refused,
        findings,
        memory: Arc::new(memory),
        judged,
        tunnel_addresses: cluster.own.tunnel_addresses(),
    }
}

/// Prefixes for which routes of others matter: pools and blocks, and the nodes' addresses, which have routes of ours in
/// the table for packets from pods.
#[must_use]
pub fn watched(config: &Config, snapshot: &Snapshot) -> Vec<IpNet> {
    let pools = config.pools.iter().map(|pool| pool.cidr);
    let blocks = snapshot.claims.keys().map(|block| block.net());
    let underlays = snapshot.nodes.values().flat_map(|node| {
        let addresses = Family::ALL.into_iter().filter_map(|family| path::address(&node.underlay, family));
        addresses.map(|net| IpNet::from(net.addr()))
    });
    pools.chain(blocks).chain(underlays).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Families of pod addresses that the configuration has pools of.
#[must_use]
pub fn families(config: &Config) -> BTreeSet<Family> {
    config.pools.iter().map(|pool| Family::of(pool.cidr)).collect()
}

/// Kinds of IP tunnel that the configuration asks for, one per family of pods, on a node with an IPv4 underlay address.
#[must_use]
pub fn ip_tunnels(config: &Config, local: &Local) -> BTreeSet<IpTunnel> {
    let Some(ipv4) = local.ipv4.as_ref().filter(|_| config.paths.uses_ipip()) else { return BTreeSet::new() };
    families(config).into_iter().map(path::ip_tunnel).filter(|kind| fits(*kind, ipv4.mtu)).collect()
}

/// Whether an underlay of this MTU has room for such a tunnel: what carries IPv6 takes IPv6's smallest packet, or the
/// kernel does not make it.
fn fits(kind: IpTunnel, underlay_mtu: u32) -> bool {
    match kind {
        IpTunnel::Ipip => true,
        IpTunnel::Sit => underlay_mtu >= IPV6_MIN_MTU + 20,
    }
}

/// What this node says of itself. `offered`: the kinds of IP tunnel for which its devices stand.
#[must_use]
pub fn own_record(
    name: &NodeName,
    config: &Config,
    local: &Local,
    offered: &BTreeSet<IpTunnel>,
) -> NodeRecord {
    let underlay = local.underlay();
    NodeRecord {
        name: name.clone(),
        underlay,
        asn: config.bgp.asn,
        router_id: router_id(name, config.bgp.router_id, &underlay),
        bgp_port: config.bgp.port,
        vni: config.vxlan.vni,
        vxlan_port: config.vxlan.port,
        labels: config.node.labels.clone(),
        common_digest: path::common_digest(&config.paths, config.vxlan.vni, config.vxlan.port),
        capabilities: path::capabilities()
            .into_iter()
            .chain(offered.iter().map(ToString::to_string))
            .collect(),
        instance: None,
        contender: None,
        unknown: BTreeMap::new(),
    }
}

/// Decides every pair. What the kernel must hold for it is filled in by `objects`.
fn pairs(world: &World<'_>, cluster: &Cluster) -> (Vec<PairPlan>, Memory) {
    // Rarely is there a pair for more than one family of each peer, and none of what is kept is to be half empty.
    let mut pairs = Vec::with_capacity(cluster.peers.len());
    let mut memory = Vec::with_capacity(cluster.peers.len());
    for (name, peer) in &cluster.peers {
        for family in Family::ALL {
            let blocks = peer.blocks_of(family);
            let has_block = cluster.own.has_block(family);
            if blocks.is_empty() && !has_block {
                continue;
            }
            let seen = evidence::evidence(world, name, peer, &blocks, family);
            let ends = (
                End { record: &cluster.own.record, has_block },
                End { record: &peer.record, has_block: !blocks.is_empty() },
            );
            let decision = path::decide(ends.0, ends.1, family, &world.config.paths, seen.evidence);
            let (own, other) = (&cluster.own.record, &peer.record);
            memory.push(((name.clone(), family), seen.memory(decision.path)));
            pairs.push(PairPlan {
                peer: name.clone(),
                family,
                blocks,
                local: path::serving_address(own, other, decision.path, family),
                remote: path::serving_address(other, own, decision.path, family),
                mtu: 0,
                needs: Needs::default(),
                decision,
            });
        }
    }
    pairs.shrink_to_fit();
    (pairs, memory.into_iter().collect())
}

#[cfg(test)]
pub(crate) mod tests;
