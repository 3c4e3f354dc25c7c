//! From one state of a node to another: what an agent goes through, and what others do to it meanwhile.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::fake::FakeKernel;
use crate::firewall::{Firewall, Guard, Masquerade};
use crate::reconcile::{Dataplane as _, reconcile};
use crate::state::{
    Address, ELSEWHERE, FdbKey, Gateway, InstalledRoute, IpTunnel, Mac, NeighborKey, Nexthop, NexthopId,
    Route, RouteKey, RouteTarget, Rule, Settings, State, TunnelKind, TunnelLink, Vni, Vxlan,
};
use crate::testing::{link, route_key};

/// What happens in a scenario.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) from: State,
    /// What somebody else does before the pass.
    pub(super) event: fn(&FakeKernel),
    pub(super) to: State,
}

impl Scenario {
    /// A kernel that holds `from` and what others have, after the event.
    pub(super) fn begin(&self) -> FakeKernel {
        let kernel = FakeKernel::node(&["192.0.2.1/24", "2001:db8::1/64"], 1500);
        kernel.add_interface("eth1", "veth", 1500, &["192.0.2.3/24"]);
        kernel.add_interface("br0", "bridge", 1500, &["10.244.1.1/24"]);
        kernel.set_rp_filter("br0", 1);
        kernel.add_foreign_vxlan("flannel.1", crate::state::VxlanId { vni: Vni(1), port: 8472, ipv6: false });
        kernel.add_foreign_nexthop(NexthopId(7));
        kernel.add_foreign_route(InstalledRoute {
            key: RouteKey { metric: 5000, ..route_key("10.244.0.0/15") },
            protocol: 4,
            link: Some(link("eth1")),
            gateway: Some([192, 0, 2, 254].into()),
        });
        let mut handle = kernel.clone();
        let observed = handle.observe(&[]).unwrap();
        let report = reconcile(&mut handle, &observed, &self.from);
        assert!(report.failures.is_empty() && report.conflicts.is_empty(), "{}: {report:#?}", self.name);
        (self.event)(&kernel);
        kernel
    }
}

/// How packets get to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Native,
    Vxlan,
    Ipip,
}

#[derive(Debug, Clone, Copy)]
struct Peer {
    path: Path,
    /// Third number of its block.
    block: u8,
    mac: u8,
    host: u8,
    /// Which of two sets of nexthop ids it has.
    ids: u32,
    mtu: Option<u32>,
}

/// A node in few numbers.
#[derive(Debug, Clone)]
struct Site {
    peers: BTreeMap<u8, Peer>,
    ip_tunnels: bool,
    underlay: &'static str,
    host: u8,
    mtu: u32,
    own_block: u8,
    vni: u32,
    table: u32,
    masquerade: bool,
    /// Source of the routes is the tunnel address.
    sourced: bool,
}

fn site() -> Site {
    let peer =
        |number, path| (number, Peer { path, block: number, mac: number, host: number, ids: 0, mtu: None });
    Site {
        peers: [peer(12, Path::Native), peer(13, Path::Vxlan), peer(14, Path::Ipip)].into(),
        ip_tunnels: true,
        underlay: "eth0",
        host: 1,
        mtu: 1500,
        own_block: 1,
        vni: 4096,
        table: 1120,
        masquerade: true,
        sourced: false,
    }
}

impl Site {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> State {
        change(&mut self);
        self.state()
    }

    fn state(&self) -> State {
        let mut state = State::default();
        let local = IpAddr::from([192, 0, 2, self.host]);
        let mut add = |name: &str, kind, overhead| {
            let name = link(name);
            let mtu = self.mtu - overhead;
            state
                .links
                .insert(name.clone(), TunnelLink { kind, local, mtu, up: true, settings: Settings::Ours });
            state.rp_filter.insert(name.clone(), 2);
            for address in
                [format!("10.244.{}.0/32", self.own_block), format!("fd10:244:0:{}::/128", self.own_block)]
            {
                state.addresses.insert(Address { link: name.clone(), address: address.parse().unwrap() });
            }
        };
        let (vni, mac) = (Vni(self.vni), Mac([2, 0, 0, 0, 0, self.own_block]));
        add("vx4", TunnelKind::Vxlan(Vxlan { vni, port: 4789, underlay: link(self.underlay), mac }), 50);
        if self.ip_tunnels {
            add("ipip", TunnelKind::Ip(IpTunnel::Ipip), 20);
            add("sit", TunnelKind::Ip(IpTunnel::Sit), 20);
        }
        state.rp_filter.insert(link(self.underlay), 2);
        for (number, peer) in &self.peers {
            self.add_peer(&mut state, *number, peer);
        }
        for pool in ["10.244.0.0/16", "fd10:244::/48"] {
            let key = RouteKey { metric: u32::MAX, ..route_key(pool) };
            state.routes.insert(key, Route { target: RouteTarget::Unreachable, source: None, mtu: None });
            state.rules.insert(Rule { priority: self.table, from: pool.parse().unwrap(), table: self.table });
        }
        let nodes = self.peers.values().map(|peer| peer.host).chain([self.host]);
        let firewall = Firewall {
            pools: vec!["10.244.0.0/16".parse().unwrap()],
            nodes: nodes.map(|host| IpAddr::from([192, 0, 2, host])).collect(),
            masquerade: self.masquerade.then(Masquerade::default),
            guard: Some(Guard { vni, port: 4789 }),
            ip_guard: None,
        };
        state.firewall = firewall.table();
        state.normalised()
    }

    fn add_peer(&self, state: &mut State, number: u8, peer: &Peer) {
        let mac = Mac([2, 0, 0, 1, 0, peer.mac]);
        let vx4 = link("vx4");
        let underlay = Ipv4Addr::new(192, 0, 2, peer.host);
        let tunnel: [IpAddr; 2] = [[10, 244, peer.block, 0].into(), mac.link_local().into()];
        for address in tunnel {
            state.neighbors.insert(NeighborKey { link: vx4.clone(), address }, mac);
        }
        state.fdb.insert(FdbKey { link: vx4.clone(), mac }, underlay.into());
        let via = |address, onlink, link: &str| Nexthop {
            gateway: Gateway { address, onlink },
            link: crate::testing::link(link),
        };
        let ipv6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(peer.host));
        let nexthops = match peer.path {
            Path::Native => {
                [via(underlay.into(), false, self.underlay), via(ipv6.into(), false, self.underlay)]
            }
            Path::Vxlan => [via(tunnel[0], true, "vx4"), via(tunnel[1], false, "vx4")],
            Path::Ipip => [
                via(IpTunnel::Ipip.gateway(underlay), true, "ipip"),
                via(IpTunnel::Sit.gateway(underlay), true, "sit"),
            ],
        };
        let block4 = format!("10.244.{}.0/24", peer.block);
        let block6 = format!("fd10:244:0:{}::/64", peer.block);
        for (index, (nexthop, block)) in (0..).zip(nexthops.into_iter().zip([block4, block6])) {
            let id = NexthopId(100 + 4 * u32::from(number) + 2 * peer.ids + index);
            state.nexthops.insert(id, nexthop);
            let own = ["10.244", "fd10:244:0"][usize::from(index == 1)];
            let source = match index {
                0 => format!("{own}.{}.0", self.own_block),
                _ => format!("{own}:{}::", self.own_block),
            };
            let source = self.sourced.then(|| source.parse().unwrap());
            let route = Route { target: RouteTarget::Nexthop(id), source, mtu: peer.mtu };
            state.routes.insert(route_key(&block), route.clone());
            let host = [format!("{underlay}/32"), format!("{ipv6}/128")][usize::from(index == 1)].clone();
            let key = RouteKey { table: self.table, ..route_key(&host) };
            state.routes.insert(key, Route { source: None, ..route });
        }
    }
}

fn nothing(_: &FakeKernel) {}

/// Every peer's path changes.
fn on(path: Path) -> impl FnOnce(&mut Site) {
    move |site| site.peers.values_mut().for_each(|peer| peer.path = path)
}

pub(super) fn all() -> Vec<Scenario> {
    let settled = || site().state();
    let scenario = |name, from, event, to| Scenario { name, from, event, to };
    let changed = |name, to: State| Scenario { name, from: site().state(), event: nothing, to };
    let moved = |name, from, to| Scenario {
        name,
        from: site().with(on(from)),
        event: nothing,
        to: site().with(on(to)),
    };
    vec![
        scenario("from empty", State::default(), nothing, settled()),
        moved("native to vxlan", Path::Native, Path::Vxlan),
        moved("vxlan to native", Path::Vxlan, Path::Native),
        moved("native to ipip", Path::Native, Path::Ipip),
        moved("ipip to native", Path::Ipip, Path::Native),
        moved("vxlan to ipip", Path::Vxlan, Path::Ipip),
        moved("ipip to vxlan", Path::Ipip, Path::Vxlan),
        changed("a peer's block changes", site().with(|site| site.peers.get_mut(&13).unwrap().block = 93)),
        changed(
            "peers get other hardware and another address",
            site().with(|site| {
                for peer in site.peers.values_mut() {
                    peer.mac += 50;
                    peer.host += 50;
                }
            }),
        ),
        changed(
            "blocks change their holders",
            site().with(|site| {
                site.peers.get_mut(&12).unwrap().block = 13;
                site.peers.get_mut(&13).unwrap().block = 14;
                site.peers.get_mut(&14).unwrap().block = 12;
            }),
        ),
        changed(
            "peers get other nexthop objects",
            site().with(|site| site.peers.values_mut().for_each(|peer| peer.ids = 1)),
        ),
        changed(
            "a peer goes",
            site().with(|site| {
                site.peers.remove(&13);
            }),
        ),
        changed("all peers go", site().with(|site| site.peers.clear())),
        scenario(
            "a peer comes",
            site().with(|site| {
                site.peers.remove(&13);
            }),
            nothing,
            settled(),
        ),
        changed(
            "routes get a smaller MTU",
            site().with(|site| site.peers.get_mut(&13).unwrap().mtu = Some(1300)),
        ),
        scenario(
            "routes get a larger MTU with another path",
            site().with(|site| {
                site.peers.get_mut(&13).unwrap().mtu = Some(1300);
                site.peers.get_mut(&14).unwrap().mtu = Some(1450);
            }),
            nothing,
            site().with(|site| {
                *site.peers.get_mut(&13).unwrap() =
                    Peer { path: Path::Native, mtu: Some(1490), ..site.peers[&13] };
                site.peers.get_mut(&14).unwrap().path = Path::Native;
            }),
        ),
        scenario(
            "the underlay's MTU shrinks",
            settled(),
            |kernel| kernel.set_mtu("eth0", 1400),
            site().with(|site| site.mtu = 1400),
        ),
        scenario(
            "the underlay gets another address",
            settled(),
            |kernel| kernel.set_addresses("eth0", &["192.0.2.9/24", "2001:db8::9/64"]),
            site().with(|site| site.host = 9),
        ),
        changed(
            "another underlay device",
            site().with(|site| {
                site.underlay = "eth1";
                site.host = 3;
                on(Path::Vxlan)(site);
            }),
        ),
        scenario(
            "this node gets another block",
            site().with(|site| site.sourced = true),
            nothing,
            site().with(|site| {
                site.sourced = true;
                site.own_block = 9;
            }),
        ),
        changed("another VNI", site().with(|site| site.vni = 5000)),
        changed("another table", site().with(|site| site.table = 1121)),
        changed("no masquerade", site().with(|site| site.masquerade = false)),
        changed(
            "IP-in-IP is wanted no more",
            site().with(|site| {
                on(Path::Vxlan)(site);
                site.ip_tunnels = false;
            }),
        ),
        changed("uninstalled", State { rp_filter: [(link("eth0"), 0)].into(), ..State::default() }),
        scenario(
            "a device down and up",
            settled(),
            |kernel| {
                kernel.set_up("vx4", false);
                kernel.set_up("vx4", true);
            },
            settled(),
        ),
        scenario("a device deleted", settled(), |kernel| kernel.remove_interface("vx4"), settled()),
        scenario(
            "everything bent",
            settled(),
            |kernel| {
                kernel.tamper("bent", |state| {
                    state.routes.retain(|key, _| key.table == 254 && key.prefix.prefix_len() > 16);
                    state.fdb.values_mut().for_each(|remote| *remote = [192, 0, 2, 250].into());
                    state.fdb.values_mut().take(1).for_each(|remote| *remote = ELSEWHERE);
                    state.rules.clear();
                    state.rp_filter.values_mut().for_each(|value| *value = 1);
                    state.links.values_mut().for_each(|link| link.settings = Settings::Bent);
                    if let Some(table) = &mut state.firewall {
                        table.chains.clear();
                    }
                });
                kernel.set_rp_filter("br0", 1);
            },
            settled(),
        ),
    ]
}
