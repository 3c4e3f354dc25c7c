//! Who is a member of the cluster, with which blocks: the snapshot as far as it is believed (invariant 10).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp::Family;
use ipnet::IpNet;
use jiff::Timestamp;
use vxlan::{Mac, NexthopId};

use super::nexthop_ids::{self, Use};
use super::{Finding, World, vtep_mac};
use crate::node::{Block, Claim, NodeName, NodeRecord};
use crate::path::{self, Class};

/// A member.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Its record, without the underlay addresses that are not believed.
    pub record: Arc<NodeRecord>,
    /// Its blocks, oldest first.
    pub blocks: Vec<Block>,
    /// Its Ethernet address in the tunnel.
    pub mac: Mac,
    /// Ids of its nexthop objects, by family; none for a family in which it makes no pair with this node.
    pub nexthops: [Option<NexthopId>; Family::ALL.len()],
    /// When the youngest of its claims was made: of two nodes with one address, the later one lives.
    pub youngest_claim: Timestamp,
}

impl Member {
    fn new(record: Arc<NodeRecord>, blocks: Vec<Block>, youngest_claim: Timestamp) -> Self {
        let mac = vtep_mac(&record.name);
        Self { record, blocks, mac, nexthops: [None; Family::ALL.len()], youngest_claim }
    }

    /// Id of its nexthop object for a family.
    pub(super) fn nexthop(&self, family: Family) -> Option<NexthopId> {
        Family::ALL.iter().zip(self.nexthops).find(|(of, _)| **of == family).and_then(|(_, id)| id)
    }

    pub(super) fn blocks_of(&self, family: Family) -> Vec<Block> {
        let of_family = |block: &&Block| Family::of(block.net()) == family;
        // Kept with the pair: one that grows has room for four.
        let mut blocks = Vec::with_capacity(self.blocks.iter().filter(of_family).count());
        blocks.extend(self.blocks.iter().filter(of_family));
        blocks
    }

    pub(super) fn has_block(&self, family: Family) -> bool {
        self.blocks.iter().any(|block| Family::of(block.net()) == family)
    }

    /// The network address of the oldest block of the family (invariant 11).
    pub(super) fn tunnel_address(&self, family: Family) -> Option<IpAddr> {
        self.blocks.iter().find(|block| Family::of(block.net()) == family).map(|block| block.network())
    }

    pub(super) fn tunnel_addresses(&self) -> BTreeMap<Family, IpAddr> {
        Family::ALL
            .into_iter()
            .filter_map(|family| self.tunnel_address(family).map(|address| (family, address)))
            .collect()
    }

    /// The gateway of the tunnel for this family: the tunnel address in IPv4. In IPv6 the link-local address that follows
    /// from the Ethernet address: the kernel refuses a gateway inside of a block that is routed natively at that moment.
    pub(super) fn tunnel_gateway(&self, family: Family) -> Option<IpAddr> {
        let tunnel = self.tunnel_address(family)?;
        Some(match family {
            Family::Ipv4 => tunnel,
            Family::Ipv6 => self.mac.link_local().into(),
        })
    }

    /// Every gateway that the nexthop object for this family can have.
    fn gateways(&self, family: Family) -> [Option<IpAddr>; 3] {
        let native = path::address(&self.record.underlay, family).map(|net| net.addr());
        let ipip = self.record.underlay.ipv4.map(|net| path::ip_tunnel(family).gateway(net.addr()));
        let mut all = [native, self.tunnel_gateway(family), ipip];
        all.sort_unstable();
        all
    }

    pub(super) fn underlay_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        Family::ALL
            .into_iter()
            .filter_map(|family| path::address(&self.record.underlay, family))
            .map(|net| net.addr())
    }
}

/// The cluster as this node sees it.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    /// This node.
    pub own: Member,
    /// The others.
    pub peers: BTreeMap<NodeName, Member>,
    /// Pools that get their routes and rules: those without an underlay address of this node.
    pub pools: Vec<IpNet>,
    /// Which node answers at an underlay address.
    pub at: BTreeMap<IpAddr, NodeName>,
    /// Ids of the nexthop objects of gateways outside of the cluster.
    pub gateways: BTreeMap<IpAddr, NexthopId>,
}

impl Cluster {
    pub(super) fn read(world: &World<'_>, findings: &mut BTreeSet<Finding>) -> Self {
        let own = Member::new(Arc::new(world.own.clone()), world.held.to_vec(), Timestamp::MAX);
        let mut peers: BTreeMap<NodeName, Member> = world
            .snapshot
            .nodes
            .iter()
            .filter(|(name, _)| **name != world.own.name)
            // The name of the record is the node's name, whatever its content says.
            .map(|(name, record)| {
                let mut record = Arc::clone(record);
                if record.name != *name {
                    Arc::make_mut(&mut record).name = name.clone();
                }
                (name.clone(), Member::new(record, Vec::new(), Timestamp::MIN))
            })
            .collect();
        for peer in peers.values_mut() {
            disbelieve_pool_addresses(world, peer, findings);
        }
        give_blocks(world, &mut peers, findings);
        let gateways = give_nexthop_ids(world, &own, &mut peers);
        let cluster = Self {
            gateways,
            pools: pools_without(world, findings),
            at: addresses(&own, &peers, findings),
            own,
            peers,
        };
        cluster.report(world, findings);
        cluster
    }

    /// Every underlay address of the cluster.
    pub(super) fn is_underlay(&self, address: IpAddr) -> bool {
        self.at.contains_key(&address)
    }

    /// The peer whose node is called so, if there is one.
    pub(super) fn peer_named(&self, name: &str) -> Option<&NodeName> {
        let name: NodeName = name.parse().ok()?;
        self.peers.get_key_value(&name).map(|(name, _)| name)
    }

    fn report(&self, world: &World<'_>, findings: &mut BTreeSet<Finding>) {
        let members = || self.peers.values().chain([&self.own]);
        let identifiers =
            shared(members().map(|member| ((member.record.asn, member.record.router_id), member)));
        let macs = shared(members().map(|member| (member.mac, member)));
        for ((_, identifier), names) in &identifiers {
            findings.insert(Finding::new(
                "RouterIdDuplicate",
                identifier,
                format!(
                    "{} have the same BGP identifier and can't peer with each other, so that their pairs use the fallback: set bgp.routerId on all but one of them",
                    listed(names)
                ),
            ));
        }
        for (mac, names) in &macs {
            findings.insert(Finding::new(
                "VtepMacDuplicate",
                mac,
                format!("the names of {} give the same Ethernet address in the tunnel, so that packets for either go to one of them: rename one", listed(names)),
            ));
        }
        for (name, peer) in &self.peers {
            if peer.record.common_digest != world.own.common_digest {
                findings.insert(Finding::new(
                    "PolicyDiffers",
                    name,
                    format!(
                        "{name} is configured differently (`paths` or `vxlan`): the pair uses a path that both can receive until the files are the same"
                    ),
                ));
            }
            if let Some(Class::HostPrefix) = Family::ALL
                .into_iter()
                .find_map(|family| path::class(&world.own.underlay, &peer.record.underlay, family))
            {
                findings.insert(Finding::new(
                    "HostPrefix",
                    name,
                    format!(
                        "{} and {name} can't share a subnet because one of them has an address with the prefix of a single host: the pair counts as one of different subnets; give the address its subnet's prefix length if they reach each other directly",
                        world.own.name
                    ),
                ));
            }
        }
    }
}

/// What several members have in common, and who has it.
fn shared<'a, K: Ord + Copy>(of: impl Iterator<Item = (K, &'a Member)>) -> Vec<(K, Vec<&'a NodeName>)> {
    let mut all: Vec<(K, &NodeName)> = of.map(|(key, member)| (key, &member.record.name)).collect();
    all.sort_unstable();
    let same = all.chunk_by(|(one, _), (other, _)| one == other).filter(|same| same.len() > 1);
    same.map(|same| (same[0].0, same.iter().map(|(_, name)| *name).collect())).collect()
}

/// Ids for the peers' objects, one for each family in which they make a pair with this node, and for those of every
/// gateway that outside speakers name.
fn give_nexthop_ids(
    world: &World<'_>,
    own: &Member,
    peers: &mut BTreeMap<NodeName, Member>,
) -> BTreeMap<IpAddr, NexthopId> {
    let pairs = |peer: &Member, family: Family| own.has_block(family) || peer.has_block(family);
    let gateways: BTreeSet<IpAddr> =
        world.learned.routes.values().flatten().map(|route| route.next_hop).collect();
    let mut uses = Vec::with_capacity(peers.len() + gateways.len());
    for peer in peers.values() {
        for family in Family::ALL.into_iter().filter(|family| pairs(peer, *family)) {
            let key = format!("{}/{family}", peer.record.name);
            uses.push(Use { key, gateways: peer.gateways(family) });
        }
    }
    // Peers first: what a node announces has its own address for a next hop.
    let outside = |ip: &IpAddr| Use { key: format!("gateway {ip}"), gateways: [Some(*ip), None, None] };
    uses.extend(gateways.iter().map(outside));
    let mut ids = nexthop_ids::assign(world.config.kernel.nexthop_base, &uses, &world.observed.ours.nexthops)
        .into_iter();
    for peer in peers.values_mut() {
        let wanted = Family::ALL.map(|family| pairs(peer, family));
        for (id, wanted) in peer.nexthops.iter_mut().zip(wanted) {
            *id = if wanted { ids.next() } else { None };
        }
    }
    gateways.into_iter().zip(ids).collect()
}

/// An underlay address out of a pool would be reached through itself: it counts as missing.
fn disbelieve_pool_addresses(world: &World<'_>, peer: &mut Member, findings: &mut BTreeSet<Finding>) {
    let in_pool =
        |address: IpAddr| world.config.pools.iter().find(|pool| pool.cidr.contains(&address)).map(|p| p.cidr);
    let name = peer.record.name.clone();
    let mut report = |address: IpAddr, pool: IpNet| {
        findings.insert(Finding::new(
            "UnderlayInPool",
            &name,
            format!("the underlay address {address} of {name} lies in the pool {pool} and is not used: pools must not contain addresses of nodes"),
        ));
    };
    let underlay = peer.record.underlay;
    if let Some(net) = underlay.ipv4
        && let Some(pool) = in_pool(net.addr().into())
    {
        report(net.addr().into(), pool);
        Arc::make_mut(&mut peer.record).underlay.ipv4 = None;
    }
    if let Some(net) = underlay.ipv6
        && let Some(pool) = in_pool(net.addr().into())
    {
        report(net.addr().into(), pool);
        Arc::make_mut(&mut peer.record).underlay.ipv6 = None;
    }
}

/// Gives each peer the blocks whose claims name it, as far as they can be believed.
fn give_blocks(world: &World<'_>, peers: &mut BTreeMap<NodeName, Member>, findings: &mut BTreeSet<Finding>) {
    let pools: BTreeSet<IpNet> =
        world.config.pools.iter().map(|pool| pool.cidr).chain(world.snapshot.pools.keys().copied()).collect();
    let underlays: BTreeSet<IpAddr> = peers
        .values()
        .flat_map(|peer| peer.underlay_addresses().collect::<Vec<_>>())
        .chain(Family::ALL.iter().filter_map(|f| path::address(&world.own.underlay, *f)).map(|n| n.addr()))
        .collect();
    let mut claims: Vec<&Claim> = world.snapshot.claims.values().collect();
    claims.sort_by_key(|claim| (claim.claimed_at, claim.block));
    for claim in claims {
        let Some(holder) = claim.holder.as_ref().filter(|holder| **holder != world.own.name) else {
            continue;
        };
        let net = claim.block.net();
        let refuse = if let Some(own) = world.held.iter().find(|own| overlap(own.net(), net)) {
            Some((
                "BlockOverlap",
                format!(
                    "{net}, claimed by {holder}, overlaps this node's block {own}: it gets no route; give one of them back (`pairway blocks release`)"
                ),
            ))
        } else if !pools.iter().any(|pool| pool.contains(&net)) {
            Some((
                "BlockOutsidePools",
                format!(
                    "{net}, claimed by {holder}, is in no pool of this node's configuration: it gets no route and its pods can't be reached from here; all nodes should have the same pools"
                ),
            ))
        } else {
            underlays.range(net.network()..=net.broadcast()).next().map(|address| {
                ("BlockOverlap", format!("{net}, claimed by {holder}, contains the underlay address {address}: it gets no route"))
            })
        };
        if let Some((kind, message)) = refuse {
            findings.insert(Finding::new(kind, net, message));
            continue;
        }
        match peers.get_mut(holder) {
            Some(peer) => {
                peer.blocks.push(claim.block);
                peer.youngest_claim = peer.youngest_claim.max(claim.claimed_at);
            }
            None => {
                findings.insert(Finding::new(
                    "HolderUnknown",
                    net,
                    format!("{net} is claimed by {holder}, which has no record: it gets no route; if the node is gone for good, `pairway node delete {holder}` frees its blocks"),
                ));
            }
        }
    }
}

fn pools_without(world: &World<'_>, findings: &mut BTreeSet<Finding>) -> Vec<IpNet> {
    let own: Vec<IpAddr> = Family::ALL
        .into_iter()
        .filter_map(|family| path::address(&world.own.underlay, family))
        .map(|net| net.addr())
        .collect();
    let mut pools = Vec::new();
    for pool in &world.config.pools {
        match own.iter().find(|address| pool.cidr.contains(*address)) {
            None => pools.push(pool.cidr),
            Some(address) => {
                findings.insert(Finding::new(
                    "PoolContainsUnderlay",
                    pool.cidr,
                    format!("the pool {} contains this node's underlay address {address}: it gets no unreachable route and no rule; choose a pool apart from the nodes' addresses", pool.cidr),
                ));
            }
        }
    }
    pools
}

/// Who answers at which address. Of several nodes with one address the one with the youngest claim does: the
/// others are left over from a node that was renamed or gave the address away.
fn addresses(
    own: &Member,
    peers: &BTreeMap<NodeName, Member>,
    findings: &mut BTreeSet<Finding>,
) -> BTreeMap<IpAddr, NodeName> {
    let mut all: Vec<(IpAddr, Timestamp, &NodeName)> = Vec::with_capacity(peers.len() + 1);
    for member in peers.values().chain([own]) {
        all.extend(member.underlay_addresses().map(|at| (at, member.youngest_claim, &member.record.name)));
    }
    all.sort_unstable();
    let mut at = Vec::with_capacity(all.len());
    for members in all.chunk_by(|(one, ..), (other, ..)| one == other) {
        let address = members[0].0;
        if members.len() > 1 {
            let names: Vec<&NodeName> = members.iter().map(|(.., name)| *name).collect();
            findings.insert(Finding::new(
                "UnderlayAddressDuplicate",
                address,
                format!("{} have the same underlay address {address}: correct one of them, or `pairway node delete` the one that is gone", listed(&names)),
            ));
        }
        at.extend(members.last().map(|(.., name)| (address, (*name).clone())));
    }
    at.into_iter().collect()
}

fn listed(names: &[&NodeName]) -> String {
    let mut names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    names.sort_unstable();
    names.join(" and ")
}

pub(super) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}
