//! States for tests: small worlds that are legal in a kernel, as values and as a strategy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use crate::fake::FakeKernel;
use crate::firewall::{Firewall, Guard, IpGuard, Masquerade};
use crate::state::{
    Address, FdbKey, Gateway, IpTunnel, LinkName, Mac, NeighborKey, Nexthop, NexthopId, Route, RouteKey,
    RouteTarget, Rule, Settings, State, TunnelKind, TunnelLink, Vni, Vxlan,
};

pub(crate) fn link(name: &str) -> LinkName {
    name.parse().unwrap()
}

pub(crate) fn route_key(prefix: &str) -> RouteKey {
    RouteKey { table: 254, prefix: prefix.parse().unwrap(), metric: 0 }
}

/// A tunnel device with its address and nothing else.
pub(crate) fn vx4() -> State {
    let kind = TunnelKind::Vxlan(Vxlan {
        vni: Vni(4096),
        port: 4789,
        underlay: link("eth0"),
        mac: Mac([2, 0, 0, 0, 0, 1]),
    });
    let local = "192.0.2.1".parse().unwrap();
    let device = TunnelLink { kind, local, mtu: 1450, up: true, settings: Settings::Ours };
    let address = Address { link: link("vx4"), address: "10.244.1.0/32".parse().unwrap() };
    State { links: [(link("vx4"), device)].into(), addresses: [address].into(), ..State::default() }
}

/// A node's wishes in few numbers.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    devices: [Option<Device>; 2],
    ip_tunnels: [Option<IpDevice>; 2],
    peers: BTreeMap<u8, Peer>,
    rules: BTreeSet<u8>,
    unreachable: bool,
    rp_filter: Option<u8>,
    /// Nodes known, masquerade, guard.
    firewall: (BTreeSet<u8>, bool, bool),
}

#[derive(Debug, Clone)]
struct Device {
    name: u8,
    vni: u8,
    port: u8,
    local: u8,
    mac: u8,
    mtu: u32,
    up: bool,
    ipv4: BTreeSet<u8>,
    ipv6: bool,
}

/// One of each kind of IP tunnel.
#[derive(Debug, Clone)]
struct IpDevice {
    name: u8,
    local: u8,
    mtu: u32,
    up: bool,
}

#[derive(Debug, Clone)]
struct Peer {
    /// 0 and 1: over that device; 2: native; 3: IP in IP.
    path: u8,
    ids: u8,
    mac: u8,
    remote: u8,
    blocks: BTreeSet<u8>,
    ipv4_over_ipv6: bool,
    sourced: bool,
    metric: u32,
    mtu: Option<u32>,
}

pub(crate) fn arbitrary_spec() -> impl Strategy<Value = Spec> {
    let devices = (prop::option::weighted(0.8, device()), prop::option::weighted(0.5, device()));
    let peers = prop::collection::btree_map(1u8..6, peer(), 0..5);
    let rules = prop::collection::btree_set(0u8..3, 0..3);
    let rp_filter = prop::option::of(prop_oneof![Just(0u8), Just(1), Just(2)]);
    let firewall = (prop::collection::btree_set(1u8..6, 0..5), any::<bool>(), any::<bool>());
    let ip = || prop::option::weighted(0.6, ip_device());
    (devices, (ip(), ip()), peers, rules, any::<bool>(), rp_filter, firewall).prop_map(
        |((a, b), (ipip, sit), peers, rules, unreachable, rp_filter, firewall)| Spec {
            devices: [a, b],
            ip_tunnels: [ipip, sit],
            peers,
            rules,
            unreachable,
            rp_filter,
            firewall,
        },
    )
}

fn device() -> impl Strategy<Value = Device> {
    let rare = || prop_oneof![4 => Just(0u8), 1 => Just(1u8)];
    let mtu = prop_oneof![Just(1430u32), Just(1400), Just(1300)];
    let up = prop::bool::weighted(0.9);
    let ipv4 = prop::collection::btree_set(0u8..3, 0..3);
    (rare(), rare(), rare(), rare(), rare(), mtu, up, ipv4, any::<bool>()).prop_map(
        |(name, vni, port, local, mac, mtu, up, ipv4, ipv6)| Device {
            name,
            vni,
            port,
            local,
            mac,
            mtu,
            up,
            ipv4,
            ipv6,
        },
    )
}

fn ip_device() -> impl Strategy<Value = IpDevice> {
    let rare = || prop_oneof![4 => Just(0u8), 1 => Just(1u8)];
    (rare(), rare(), prop_oneof![Just(1480u32), Just(1400)], prop::bool::weighted(0.9))
        .prop_map(|(name, local, mtu, up)| IpDevice { name, local, mtu, up })
}

fn peer() -> impl Strategy<Value = Peer> {
    let rare = || prop_oneof![4 => Just(0u8), 1 => Just(1u8)];
    let metric = prop_oneof![3 => Just(0u32), 1 => Just(50)];
    let mtu = prop::option::of(prop_oneof![Just(1380u32), Just(1290)]);
    let blocks = prop::collection::btree_set(0u8..3, 0..3);
    (0u8..4, rare(), rare(), rare(), blocks, any::<bool>(), any::<bool>(), metric, mtu).prop_map(
        |(path, ids, mac, remote, blocks, ipv4_over_ipv6, sourced, metric, mtu)| Peer {
            path,
            ids,
            mac,
            remote,
            blocks,
            ipv4_over_ipv6,
            sourced,
            metric,
            mtu,
        },
    )
}

impl Spec {
    /// The kernel in which these states are legal.
    pub(crate) fn node() -> FakeKernel {
        FakeKernel::node(&["192.0.2.1/24", "2001:db8::1/64"], 1500)
    }

    /// The same wishes, but with nothing that needs another device or moves an id to another family.
    pub(crate) fn keeping_devices_and_ids_of(mut self, other: &Self) -> Self {
        for (mine, theirs) in self.devices.iter_mut().zip(&other.devices) {
            *mine = theirs.clone().map(|theirs| {
                let Device { name, vni, port, up, .. } = theirs;
                Device { name, vni, port, up, ..mine.clone().unwrap_or(theirs) }
            });
        }
        for (mine, theirs) in self.ip_tunnels.iter_mut().zip(&other.ip_tunnels) {
            *mine = theirs.clone().map(|theirs| IpDevice {
                local: mine.as_ref().map_or(theirs.local, |mine| mine.local),
                mtu: mine.as_ref().map_or(theirs.mtu, |mine| mine.mtu),
                ..theirs
            });
        }
        for (number, peer) in &mut self.peers {
            peer.ids = other.peers.get(number).map_or(peer.ids, |theirs| theirs.ids);
        }
        self
    }

    pub(crate) fn state(&self) -> State {
        let mut state = State::default();
        for (index, device) in self.devices.iter().enumerate() {
            if let Some(device) = device {
                device.add_to(&mut state, index);
            }
        }
        for (kind, device) in IpTunnel::ALL.into_iter().zip(&self.ip_tunnels) {
            if let Some(device) = device {
                let link = TunnelLink {
                    kind: TunnelKind::Ip(kind),
                    local: underlay(false, 1 + device.local),
                    mtu: device.mtu,
                    up: device.up,
                    settings: Settings::Ours,
                };
                state.links.insert(device.link(kind), link);
            }
        }
        for (number, peer) in &self.peers {
            self.add_peer(&mut state, *number, peer);
        }
        for rule in &self.rules {
            let from = ["10.244.0.0/16", "10.245.0.0/16", "fd10:244::/48"][usize::from(*rule)];
            state.rules.insert(Rule { priority: 110, from: from.parse().unwrap(), table: 9000 });
        }
        if self.unreachable {
            for pool in ["10.244.0.0/16", "fd10:244::/48"] {
                let key = RouteKey { metric: u32::MAX, ..route_key(pool) };
                state.routes.insert(key, Route { target: RouteTarget::Unreachable, source: None, mtu: None });
            }
        }
        if let Some(value) = self.rp_filter {
            state.rp_filter.insert(link("eth0"), value);
            for name in state.links.keys() {
                state.rp_filter.insert(name.clone(), 2);
            }
        }
        let (nodes, masquerade, guard) = &self.firewall;
        let firewall = Firewall {
            pools: vec!["10.244.0.0/16".parse().unwrap()],
            nodes: nodes.iter().flat_map(|host| [underlay(false, *host), underlay(true, *host)]).collect(),
            masquerade: masquerade.then(Masquerade::default),
            guard: guard.then_some(Guard { vni: Vni(4096), port: 4789 }),
            // Whether there are such devices or not: the rules lean on none.
            ip_guard: guard.then(|| IpGuard {
                local: Ipv4Addr::new(192, 0, 2, 1),
                kinds: BTreeMap::from([
                    (
                        IpTunnel::Ipip,
                        nodes.iter().map(|host| underlay(false, host.wrapping_add(1))).collect(),
                    ),
                    (IpTunnel::Sit, BTreeSet::new()),
                ]),
            }),
        };
        state.firewall = firewall.table();
        state
    }

    fn add_peer(&self, state: &mut State, number: u8, peer: &Peer) {
        let mac = Mac([2, 0, 0, 1, peer.mac, number]);
        let tunnel4 = IpAddr::V4(Ipv4Addr::new(10, 244, number, 0));
        let link_local = IpAddr::V6(mac.link_local());
        for (index, device) in self.devices.iter().enumerate() {
            let Some(device) = device else { continue };
            let on = |address| NeighborKey { link: device.link(index), address };
            state.neighbors.insert(on(tunnel4), mac);
            state.neighbors.insert(on(link_local), mac);
            let remote = underlay(index == 1, 10 + number + 100 * peer.remote);
            state.fdb.insert(FdbKey { link: device.link(index), mac }, remote);
        }
        let (via4, via6) = match self.devices.get(usize::from(peer.path)) {
            Some(Some(device)) if device.up => {
                let name = device.link(usize::from(peer.path));
                let via =
                    |address, onlink| Nexthop { gateway: Gateway { address, onlink }, link: name.clone() };
                (via(tunnel4, true), via(link_local, false))
            }
            Some(_) => return,
            None if peer.path == 3 => {
                let [Some(ipip), Some(sit)] = &self.ip_tunnels else { return };
                if !ipip.up || !sit.up {
                    return;
                }
                let via = |kind: IpTunnel, device: &IpDevice| {
                    let address = kind.gateway(Ipv4Addr::new(192, 0, 2, 10 + number));
                    Nexthop { gateway: Gateway { address, onlink: true }, link: device.link(kind) }
                };
                (via(IpTunnel::Ipip, ipip), via(IpTunnel::Sit, sit))
            }
            None => {
                let via = |ipv6| {
                    let gateway = Gateway { address: underlay(ipv6, 10 + number), onlink: false };
                    Nexthop { gateway, link: link("eth0") }
                };
                (via(false), via(true))
            }
        };
        let id = |ipv6: bool| NexthopId(100 + 2 * u32::from(number) + u32::from(ipv6 != (peer.ids == 1)));
        state.nexthops.insert(id(false), via4);
        state.nexthops.insert(id(true), via6);
        for block in &peer.blocks {
            let second = 244 + block;
            let prefix4 = format!("10.{second}.{number}.0/24");
            let prefix6 = format!("fd10:{second}:0:{number}::/64");
            let source = |ipv6| {
                let found = state.addresses.iter().map(|a| a.address.addr()).find(|ip| ip.is_ipv6() == ipv6);
                found.filter(|_| peer.sourced)
            };
            let route = |ipv6: bool, id| Route {
                target: RouteTarget::Nexthop(id),
                source: source(ipv6),
                mtu: peer.mtu,
            };
            let (route4, route6) = (route(false, id(peer.ipv4_over_ipv6)), route(true, id(true)));
            let table = if *block == 2 { 9000 } else { 254 };
            let key = |prefix: &str| RouteKey { table, metric: peer.metric, ..route_key(prefix) };
            state.routes.insert(key(&prefix4), route4);
            state.routes.insert(key(&prefix6), route6);
        }
    }
}

impl IpDevice {
    fn link(&self, kind: IpTunnel) -> LinkName {
        let names = match kind {
            IpTunnel::Ipip => ["ipip", "ipiq"],
            IpTunnel::Sit => ["sit", "siu"],
        };
        link(names[usize::from(self.name)])
    }
}

impl Device {
    fn link(&self, index: usize) -> LinkName {
        link([["vx4", "vy4"], ["vx6", "vy6"]][index][usize::from(self.name)])
    }

    fn add_to(&self, state: &mut State, index: usize) {
        let name = self.link(index);
        let kind = TunnelKind::Vxlan(Vxlan {
            vni: Vni(4096 + u32::from(self.vni)),
            port: 4789 + u16::from(self.port),
            underlay: link("eth0"),
            mac: Mac([2, 0, 0, 0, self.mac, 1]),
        });
        let local = underlay(index == 1, 1 + self.local);
        let device = TunnelLink { kind, local, mtu: self.mtu, up: self.up, settings: Settings::Ours };
        for last in &self.ipv4 {
            let address = Ipv4Addr::new(10, 244, 200 + last, 0);
            state.addresses.insert(Address { link: name.clone(), address: IpAddr::V4(address).into() });
        }
        if self.ipv6 && self.up {
            let address: Ipv6Addr = "fd10:244:0:200::".parse().unwrap();
            state.addresses.insert(Address { link: name.clone(), address: IpAddr::V6(address).into() });
        }
        state.links.insert(name, device);
    }
}

fn underlay(ipv6: bool, host: u8) -> IpAddr {
    if ipv6 {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)))
    } else {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, host))
    }
}
