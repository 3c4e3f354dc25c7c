//! The wanted kernel state.
//!
//! Tunnel devices, forwarding and neighbour entries stand for every peer, native ones too: both forms are
//! always received (invariant 6) and moving a peer is one message to its nexthop object.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::Family;
use bgp::speaker::PeerName;
use ipnet::IpNet;
use vxlan::{
    Address, FdbKey, Gateway, IpTunnel, LinkName, NeighborKey, Nexthop, NexthopId, Route, RouteKey,
    RouteTarget, Rule, Settings, State, TunnelKind, TunnelLink, Vni, Vxlan,
};

use super::cluster::{Cluster, Member};
use super::external::ExternalRoute;
use super::{
    Finding, IPV6_MIN_MTU, MAIN_TABLE, PairPlan, UNREACHABLE_METRIC, World, device_name, families, fits,
    ip_device_name, ip_tunnels, vtep_mac,
};
use crate::path::{self, Path};
use crate::underlay::LocalAddress;

pub(super) struct Objects {
    pub state: State,
    pub pairs: Vec<PairPlan>,
    pub external: BTreeMap<RouteKey, PeerName>,
}

pub(super) fn objects(
    world: &World<'_>,
    cluster: &Cluster,
    mut pairs: Vec<PairPlan>,
    external: &BTreeMap<IpNet, ExternalRoute>,
) -> Objects {
    let mut build = Build { world, cluster, state: State::default(), external: BTreeMap::new() };
    build.pools();
    // A node without a block has no tunnel address and no pairs.
    if !cluster.own.blocks.is_empty() {
        build.devices();
        build.ip_devices();
        for pair in &mut pairs {
            build.pair(pair);
        }
        build.hosts(&mut pairs);
    }
    build.external(external);
    build.reverse_path_filter();
    Objects { state: dense(build.state), pairs, external: build.external }
}

/// The same with its large maps made anew in one go: one that has grown entry by entry is half empty, and the plan stays
/// in memory.
fn dense(state: State) -> State {
    State {
        neighbors: state.neighbors.into_iter().collect(),
        fdb: state.fdb.into_iter().collect(),
        nexthops: state.nexthops.into_iter().collect(),
        routes: state.routes.into_iter().collect(),
        ..state
    }
}

/// Whether a device of this MTU carries packets of a family: below IPv6's smallest the kernel has none on it, and refuses
/// all that is to do with it.
const fn carries(mtu: u32, family: Family) -> bool {
    match family {
        Family::Ipv4 => true,
        Family::Ipv6 => mtu >= IPV6_MIN_MTU,
    }
}

/// Says which tunnels the underlay has no room for.
pub(super) fn report(world: &World<'_>, state: &State, findings: &mut BTreeSet<Finding>) {
    if !families(world.config).contains(&Family::Ipv6) {
        return;
    }
    let mut say = |link: &LinkName, kind: &str, underlay: &LocalAddress, overhead: u32| {
        let (has, needs) = (underlay.mtu, IPV6_MIN_MTU + overhead);
        findings.insert(Finding::new(
            "MtuTooSmall",
            link,
            format!(
                "{} has an MTU of {has} bytes, {kind} takes {overhead} of them, and IPv6 needs {IPV6_MIN_MTU}: IPv6 pods are not carried by {link}; raise the MTU of the underlay to {needs} or more on every node (`ip link set {} mtu {needs}`, and in the machine's own configuration), or remove the IPv6 pool",
                underlay.link, underlay.link
            ),
        ));
    };
    for (name, device) in &state.links {
        let underlay = Family::ALL.into_iter().filter_map(|family| world.local.of(family));
        let underlay = underlay.into_iter().find(|local| local.address.addr() == device.local);
        if let (TunnelKind::Vxlan(_), Some(underlay), false) =
            (&device.kind, underlay, carries(device.mtu, Family::Ipv6))
        {
            say(name, "VXLAN", underlay, device.kind.overhead(device.local));
        }
    }
    if let Some(underlay) = &world.local.ipv4
        && world.config.paths.uses_ipip()
        && !ip_tunnels(world.config, world.local).contains(&IpTunnel::Sit)
        && let Some(name) = ip_device_name(&world.config.kernel.device_prefix, IpTunnel::Sit)
    {
        let kind = TunnelKind::Ip(IpTunnel::Sit);
        say(&name, "IP-in-IP", underlay, kind.overhead(underlay.address.addr()));
    }
}

struct Build<'a> {
    world: &'a World<'a>,
    cluster: &'a Cluster,
    state: State,
    external: BTreeMap<RouteKey, PeerName>,
}

/// How to reach a peer through the tunnel.
struct Tunnel<'a> {
    link: LinkName,
    device: &'a TunnelLink,
    remote: IpAddr,
}

impl Build<'_> {
    /// What stops packets for missing blocks from leaving by the default route (invariant 9), and what leads
    /// packets from pods to nodes into our table.
    fn pools(&mut self) {
        let kernel = &self.world.config.kernel;
        for pool in &self.cluster.pools {
            self.state.routes.insert(
                RouteKey { table: MAIN_TABLE, prefix: *pool, metric: UNREACHABLE_METRIC },
                Route { target: RouteTarget::Unreachable, source: None, mtu: None },
            );
            self.state.rules.insert(Rule {
                priority: kernel.rule_priority,
                from: *pool,
                table: kernel.table,
            });
        }
    }

    /// One device per underlay family that any pair's tunnel uses: IPv4 where both ends have it.
    fn devices(&mut self) {
        let needs_ipv6 =
            self.cluster.peers.values().any(|peer| {
                path::tunnel_underlay(&self.cluster.own.record, &peer.record) == Ok(Family::Ipv6)
            });
        for family in Family::ALL {
            let Some(local) = self.world.local.of(family) else { continue };
            if family == Family::Ipv6 && self.world.local.ipv4.is_some() && !needs_ipv6 {
                continue;
            }
            self.device(family, local);
        }
    }

    fn device(&mut self, family: Family, local: &LocalAddress) {
        let config = self.world.config;
        let Some(link) = device_name(&config.kernel.device_prefix, family) else { return };
        let address = local.address.addr();
        let kind = TunnelKind::Vxlan(Vxlan {
            vni: Vni(config.vxlan.vni),
            port: config.vxlan.port,
            underlay: local.link.clone(),
            mac: vtep_mac(&self.world.own.name),
        });
        let mtu = local.mtu.saturating_sub(kind.overhead(address));
        let device = TunnelLink { kind, local: address, mtu, up: true, settings: Settings::Ours };
        self.state.links.insert(link.clone(), device);
        let carried =
            self.cluster.own.tunnel_addresses().into_iter().filter(|(family, _)| carries(mtu, *family));
        for (_, address) in carried {
            self.state.addresses.insert(Address { link: link.clone(), address: IpNet::from(address) });
        }
    }

    /// One device per kind of IP tunnel that is asked for and that the kernel has: what is received is received whether
    /// any pair uses it or not. The tunnel address is on it too, so that the node itself speaks by it.
    fn ip_devices(&mut self) {
        let config = self.world.config;
        let Some(local) = &self.world.local.ipv4 else { return };
        let address = local.address.addr();
        for family in Family::ALL {
            let kind = path::ip_tunnel(family);
            let name = ip_device_name(&config.kernel.device_prefix, kind);
            let wanted = self.world.ip_tunnels.contains(&kind) && fits(kind, local.mtu);
            let Some(link) = name.filter(|_| wanted) else { continue };
            let kind = TunnelKind::Ip(kind);
            let mtu = local.mtu.saturating_sub(kind.overhead(address));
            let device = TunnelLink { kind, local: address, mtu, up: true, settings: Settings::Ours };
            self.state.links.insert(link.clone(), device);
            if let Some(address) = self.cluster.own.tunnel_address(family) {
                self.state.addresses.insert(Address { link, address: IpNet::from(address) });
            }
        }
    }

    /// The device for IP-in-IP of a family of pods, if it stands.
    fn ip_device(&self, family: Family) -> Option<(LinkName, &TunnelLink)> {
        let link = ip_device_name(&self.world.config.kernel.device_prefix, path::ip_tunnel(family))?;
        let device = self.state.links.get(&link)?;
        Some((link, device))
    }

    fn pair(&mut self, pair: &mut PairPlan) {
        let Some(peer) = self.cluster.peers.get(&pair.peer) else { return };
        let tunnel = self.tunnel(peer, pair.family);
        let mac = peer.mac;
        if let Some(Tunnel { link, device, remote }) = &tunnel
            && let Some(via) = Self::tunnel_gateway(peer, pair.family)
        {
            let fdb = FdbKey { link: link.clone(), mac };
            let neighbor = NeighborKey { link: link.clone(), address: via.address };
            if pair.decision.path == Path::Vxlan {
                pair.mtu = device.mtu;
                pair.needs.link = Some(link.clone());
                pair.needs.fdb = Some(fdb.clone());
                pair.needs.neighbor = Some(neighbor.clone());
            }
            let remote = *remote;
            self.state.fdb.insert(fdb, remote);
            self.state.neighbors.insert(neighbor, mac);
        }
        let Some(nexthop) = self.nexthop(pair, peer) else { return };
        let Some(id) = peer.nexthop(pair.family) else { return };
        if let (Path::Ipip, Some((link, device))) = (pair.decision.path, self.ip_device(pair.family)) {
            pair.mtu = device.mtu;
            pair.needs.link = Some(link);
        }
        if pair.decision.path == Path::Native {
            pair.mtu = self.world.local.of(pair.family).map_or(0, |local| local.mtu);
        }
        self.state.nexthops.insert(id, nexthop);
        pair.needs.nexthop = Some(id);
        // And one to the peer's address.
        pair.needs.routes.reserve_exact(pair.blocks.len() + 1);
        for block in &pair.blocks {
            let key = self.block_route(block.net(), id);
            pair.needs.routes.push(key);
        }
    }

    /// The tunnel to a peer for pods of a family.
    fn tunnel(&self, peer: &Member, pods: Family) -> Option<Tunnel<'_>> {
        let family = path::tunnel_underlay(&self.cluster.own.record, &peer.record).ok()?;
        let link = device_name(&self.world.config.kernel.device_prefix, family)?;
        let device = self.state.links.get(&link).filter(|device| carries(device.mtu, pods))?;
        let remote = path::address(&peer.record.underlay, family)?.addr();
        Some(Tunnel { link, device, remote })
    }

    fn tunnel_gateway(peer: &Member, family: Family) -> Option<Gateway> {
        let address = peer.tunnel_gateway(family)?;
        Some(Gateway { address, onlink: family == Family::Ipv4 })
    }

    fn nexthop(&self, pair: &PairPlan, peer: &Member) -> Option<Nexthop> {
        match pair.decision.path {
            Path::None => None,
            Path::Native => Some(Nexthop {
                gateway: Gateway {
                    address: path::address(&peer.record.underlay, pair.family)?.addr(),
                    onlink: false,
                },
                link: self.world.local.of(pair.family)?.link.clone(),
            }),
            Path::Ipip => {
                let remote = peer.record.underlay.ipv4?.addr();
                let address = path::ip_tunnel(pair.family).gateway(remote);
                let (link, _) = self.ip_device(pair.family)?;
                Some(Nexthop { gateway: Gateway { address, onlink: true }, link })
            }
            Path::Vxlan => Some(Nexthop {
                gateway: Self::tunnel_gateway(peer, pair.family)?,
                link: self.tunnel(peer, pair.family)?.link,
            }),
        }
    }

    fn block_route(&mut self, prefix: IpNet, id: NexthopId) -> RouteKey {
        let key = RouteKey { table: MAIN_TABLE, prefix, metric: self.world.config.kernel.route_metric };
        self.state.routes.insert(key, Route { target: RouteTarget::Nexthop(id), source: None, mtu: None });
        key
    }

    /// In the table that packets from pods look into: each peer's underlay address, on the nexthop object of its
    /// blocks. An address that several nodes claim belongs to the one that lives.
    fn hosts(&mut self, pairs: &mut [PairPlan]) {
        let kernel = &self.world.config.kernel;
        for pair in pairs {
            let (Some(id), Some(peer)) = (pair.needs.nexthop, self.cluster.peers.get(&pair.peer)) else {
                continue;
            };
            let Some(address) = path::address(&peer.record.underlay, pair.family) else { continue };
            if self.cluster.at.get(&address.addr()) != Some(&pair.peer) {
                continue;
            }
            let prefix = IpNet::from(address.addr());
            let key = RouteKey { table: kernel.table, prefix, metric: kernel.route_metric };
            self.state
                .routes
                .insert(key, Route { target: RouteTarget::Nexthop(id), source: None, mtu: None });
            pair.needs.routes.push(key);
        }
    }

    fn external(&mut self, external: &BTreeMap<IpNet, ExternalRoute>) {
        for (prefix, route) in external {
            let local = self.world.local.of(Family::of(*prefix));
            let (Some(id), Some(local)) = (self.cluster.gateways.get(&route.gateway), local) else {
                continue;
            };
            let gateway = Gateway { address: route.gateway, onlink: false };
            self.state.nexthops.insert(*id, Nexthop { gateway, link: local.link.clone() });
            let key = self.block_route(*prefix, *id);
            self.external.insert(key, route.peer.clone());
        }
    }

    /// Loose on the tunnel devices; on the underlay device of IPv4 only where strict is in effect, which is the
    /// larger of `all` and the device's own value. There it would drop the other form of a peer's packets
    /// (invariant 6).
    fn reverse_path_filter(&mut self) {
        let tunnels: Vec<LinkName> = self.state.links.keys().cloned().collect();
        for link in tunnels {
            self.state.rp_filter.insert(link, 2);
        }
        let observed = self.world.observed;
        if let Some(local) = &self.world.local.ipv4 {
            let own = observed.ours.rp_filter.get(&local.link).copied().unwrap_or(0);
            if own.max(observed.rp_filter_all) == 1 {
                self.state.rp_filter.insert(local.link.clone(), 2);
            }
        }
    }
}
