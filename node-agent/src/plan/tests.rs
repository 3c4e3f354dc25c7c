use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bgp::Asn;
use bgp::speaker::{LearnedRoute, MessageCounters, PeerStatus, Role, SessionState};
use config::{Blocks, PathUse, Paths, Pool};
use expect_test::{Expect, expect};
use jiff::Timestamp;
use vxlan::{IpTunnel, RouteTarget, TunnelKind, TunnelLink, Vxlan};

use super::*;
use crate::node::Claim;
use crate::path::Reason;
use crate::underlay::LocalAddress;

mod evidence;
mod laws;
mod outside;

/// The configuration of a node with the pool 10.244.0.0/16 and defaults for the rest.
pub(crate) fn config(name: &str) -> Config {
    Config {
        node: config::Node {
            name: name.to_owned(),
            underlay: config::Underlay::Auto,
            labels: BTreeMap::new(),
        },
        store: config::Store::File { path: "/nowhere".into(), allow_network_filesystem: false },
        pools: vec![pool("10.244.0.0/16", 24)],
        blocks: Blocks {
            source: config::BlockSource::Claim,
            per_node: 1,
            reuse_after: Duration::from_secs(600),
        },
        paths: Paths {
            same_subnet: PathUse::Bgp,
            cross_subnet: PathUse::Vxlan,
            fallback: PathUse::Vxlan,
            rules: Vec::new(),
        },
        bgp: config::Bgp {
            asn: 64512,
            port: 179,
            listen: Vec::new(),
            hold_time: Duration::from_secs(9),
            restart_time: Duration::from_secs(120),
            router_id: None,
            max_prefixes: 10_000,
            peers: Vec::new(),
        },
        brake: config::Brake::default(),
        vxlan: config::Vxlan { vni: 4096, port: 4789, guard: true },
        masquerade: config::Masquerade { enabled: true, exclude: Vec::new() },
        cni: config::Cni::default(),
        http: ([127, 0, 0, 1], 0).into(),
        api_socket: "/nowhere/api.sock".into(),
        state_dir: "/nowhere".into(),
        kernel: config::Kernel {
            route_protocol: 112,
            route_metric: 1120,
            table: 1120,
            rule_priority: 1120,
            nexthop_base: 0x7000_0000,
            device_prefix: "pairway".to_owned(),
            firewall_table: "pairway".to_owned(),
        },
    }
}

pub(crate) fn pool(cidr: &str, block_prefix: u8) -> Pool {
    Pool { cidr: cidr.parse().unwrap(), block_prefix, nodes: BTreeMap::new(), disabled: false }
}

fn block(text: &str) -> Block {
    Block::new(text.parse().unwrap())
}

fn name(text: &str) -> NodeName {
    NodeName::from_str(text).unwrap()
}

/// A world that can be owned, seen from its first node.
pub(crate) struct Scene {
    pub config: Config,
    pub snapshot: Snapshot,
    pub local: Local,
    pub ip_tunnels: BTreeSet<IpTunnel>,
    pub observed: Observed,
    pub sessions: SpeakerStatus,
    pub learned: Routes,
    pub memory: Memory,
    pub judged: Arc<Judged>,
    pub holding: bool,
    pub cordoned: bool,
    pub now: Instant,
    held: Vec<Block>,
}

impl Scene {
    /// `own` and `peers`: name, underlay addresses and blocks, all separated by blanks.
    pub(crate) fn new(own: &str, peers: &[&str]) -> Self {
        let mut words = own.split(' ');
        let mut scene = Self {
            config: config(words.next().unwrap()),
            snapshot: Snapshot { revision: 1, ..Snapshot::default() },
            local: Local::default(),
            ip_tunnels: BTreeSet::new(),
            observed: Observed::default(),
            sessions: SpeakerStatus::default(),
            learned: Routes::default(),
            memory: Memory::new(),
            judged: Arc::default(),
            holding: false,
            cordoned: false,
            now: Instant::now(),
            held: Vec::new(),
        };
        for net in words.map(|word| word.parse::<IpNet>().unwrap()) {
            if scene.is_block(net) {
                scene.held.push(Block::new(net));
            } else {
                let link = "eth0".parse().unwrap();
                scene.local.set(Family::of(net), Some(LocalAddress { address: net, link, mtu: 1500 }));
            }
        }
        for peer in peers {
            scene.add(peer);
        }
        scene
    }

    fn is_block(&self, net: IpNet) -> bool {
        let pools = ["10.244.0.0/16", "fd10:244::/48"];
        net == net.trunc() && pools.iter().any(|pool| pool.parse::<IpNet>().unwrap().contains(&net))
    }

    pub(crate) fn add(&mut self, peer: &str) {
        let mut words = peer.split(' ');
        let holder = name(words.next().unwrap());
        let mut local = Local::default();
        for net in words.map(|word| word.parse::<IpNet>().unwrap()) {
            if self.is_block(net) {
                self.claim(net, &holder);
            } else {
                let link = "eth0".parse().unwrap();
                local.set(Family::of(net), Some(LocalAddress { address: net, link, mtu: 1500 }));
            }
        }
        let record = own_record(&holder, &self.config, &local, &self.ip_tunnels);
        self.snapshot.nodes.insert(holder, record.into());
    }

    fn claim(&mut self, net: IpNet, holder: &NodeName) {
        let block = Block::new(net);
        let claimed_at = Timestamp::from_second(i64::try_from(self.snapshot.claims.len()).unwrap()).unwrap();
        let claim = Claim { block, holder: Some(holder.clone()), claimed_at, unknown: BTreeMap::new() };
        self.snapshot.claims.insert(block, claim);
    }

    /// The session with a peer is up and has delivered these prefixes.
    pub(crate) fn established(&mut self, peer: &str, prefixes: &[&str]) {
        let status = PeerStatus {
            address: "192.0.2.99".parse().unwrap(),
            asn: Asn(64512),
            state: SessionState::Established,
            families: Family::ALL.into(),
            hold_time: Duration::from_secs(9),
            end_of_rib: Family::ALL.into(),
            restarting: false,
            since: Duration::ZERO,
            established_count: 1,
            last_error: None,
            accepted: BTreeMap::new(),
            refused: BTreeMap::new(),
            refused_prefixes: Vec::new(),
            announced: BTreeMap::new(),
            messages: MessageCounters::default(),
            attribute_errors: 0,
        };
        self.sessions.peers.insert(peer.to_owned(), status);
        for prefix in prefixes {
            self.learn(peer, prefix, "192.0.2.99");
        }
    }

    fn learn(&mut self, peer: &str, prefix: &str, next_hop: &str) {
        let route = LearnedRoute {
            peer: peer.to_owned(),
            next_hop: next_hop.parse().unwrap(),
            attributes: Arc::default(),
            stale: false,
        };
        self.learned.routes.entry(prefix.parse().unwrap()).or_default().push(route);
    }

    fn session(&mut self, peer: &str) -> &mut PeerStatus {
        self.sessions.peers.get_mut(peer).unwrap()
    }

    pub(crate) fn plan(&self) -> Plan {
        self.world(plan)
    }

    /// Does something with the world.
    pub(crate) fn world<T>(&self, with: impl FnOnce(&World<'_>) -> T) -> T {
        let own = own_record(&name(&self.config.node.name), &self.config, &self.local, &self.ip_tunnels);
        with(&World {
            own: &own,
            config: &self.config,
            snapshot: &self.snapshot,
            held: &self.held,
            local: &self.local,
            ip_tunnels: &self.ip_tunnels,
            observed: &self.observed,
            sessions: &self.sessions,
            learned: &self.learned,
            memory: &self.memory,
            judged: &self.judged,
            now: self.now,
            holding: self.holding,
            cordoned: self.cordoned,
        })
    }

    /// Plans and lets the world go on from there: the kernel holds what was wanted.
    fn step(&mut self) -> Plan {
        let plan = self.plan();
        self.memory.clone_from(&plan.memory);
        self.observed.ours = State::clone(&plan.dataplane);
        plan
    }
}

/// One line per pair.
fn pairs_text(plan: &Plan) -> String {
    plan.pairs.iter().fold(String::new(), |mut text, pair| {
        let decision = &pair.decision;
        let _ = writeln!(text, "{} {}: {} ({})", pair.peer, pair.family, decision.path, decision.reason);
        text
    })
}

/// The kernel state as a person would list it.
fn state_text(state: &State) -> String {
    let mut text = String::new();
    for (name, TunnelLink { kind, local, mtu, .. }) in &state.links {
        let TunnelKind::Vxlan(Vxlan { vni, port, underlay, mac }) = kind else {
            let _ = writeln!(text, "link {name} kind {} local {local} mtu {mtu}", kind.as_str());
            continue;
        };
        let _ = writeln!(
            text,
            "link {name} vni {} port {port} local {local} dev {underlay} mac {mac} mtu {mtu}",
            vni.0
        );
    }
    for address in &state.addresses {
        let _ = writeln!(text, "address {} dev {}", address.address, address.link);
    }
    for (key, mac) in &state.neighbors {
        let _ = writeln!(text, "neighbor {} dev {} mac {mac}", key.address, key.link);
    }
    for (key, remote) in &state.fdb {
        let _ = writeln!(text, "fdb {} dev {} dst {remote}", key.mac, key.link);
    }
    for nexthop in state.nexthops.values() {
        let onlink = if nexthop.gateway.onlink { " onlink" } else { "" };
        let _ = writeln!(text, "nexthop {} dev {}{onlink}", nexthop.gateway.address, nexthop.link);
    }
    for (key, route) in &state.routes {
        let target = match route.target {
            RouteTarget::Unreachable => "unreachable".to_owned(),
            RouteTarget::Other => unreachable!("only ever observed"),
            RouteTarget::Nexthop(id) => format!("via {}", state.nexthops[&id].gateway.address),
        };
        let _ = writeln!(text, "route {} table {} metric {} {target}", key.prefix, key.table, key.metric);
    }
    for rule in &state.rules {
        let _ = writeln!(text, "rule {} from {} table {}", rule.priority, rule.from, rule.table);
    }
    for (link, value) in &state.rp_filter {
        let _ = writeln!(text, "rp_filter {link} {value}");
    }
    text
}

fn kinds(plan: &Plan) -> Vec<&'static str> {
    plan.findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn a_new_pair_in_one_subnet_starts_in_the_tunnel_and_becomes_native() {
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &["n2 192.0.2.2/24 10.244.2.0/24"]);
    let first = scene.step();
    assert_eq!(pairs_text(&first), "n2 ipv4: vxlan (bgp-waiting)\n");
    let peer = &first.peers["n2"];
    assert_eq!((peer.role, peer.address), (Role::Dial, "192.0.2.2".parse().unwrap()));
    assert_eq!(peer.import.rules.len(), 1);
    assert_eq!(first.announce, [block("10.244.1.0/24").net()].into());
    scene.established("n2", &["10.244.2.0/24"]);
    let second = scene.step();
    assert_eq!(pairs_text(&second), "n2 ipv4: native (bgp)\n");
    // One message moves the peer: its nexthop object is all that differs.
    let mut moved = State::clone(&second.dataplane);
    moved.nexthops = first.dataplane.nexthops.clone();
    assert_eq!(moved, *first.dataplane);
    assert_ne!(second.dataplane.nexthops, first.dataplane.nexthops);
    assert_eq!((first.pairs[0].mtu, second.pairs[0].mtu), (1450, 1500));
    assert_eq!(first.peers, second.peers, "what is learned does not change who is asked");
}

#[test]
fn objects_of_a_mixed_cluster() {
    let mut scene = Scene::new(
        "n1 192.0.2.1/24 10.244.1.0/24",
        &["n2 192.0.2.2/24 10.244.2.0/24 10.244.7.0/24", "n3 198.51.100.3/24 10.244.3.0/24"],
    );
    scene.established("n2", &["10.244.2.0/24", "10.244.7.0/24"]);
    check_state(
        &scene.plan(),
        &expect![[r#"
        link pairway-vx4 vni 4096 port 4789 local 192.0.2.1 dev eth0 mac da:5e:ba:39:b8:42 mtu 1450
        address 10.244.1.0/32 dev pairway-vx4
        neighbor 10.244.2.0 dev pairway-vx4 mac 86:7a:e2:94:06:5a
        neighbor 10.244.3.0 dev pairway-vx4 mac e2:51:72:86:d0:ed
        fdb 86:7a:e2:94:06:5a dev pairway-vx4 dst 192.0.2.2
        fdb e2:51:72:86:d0:ed dev pairway-vx4 dst 198.51.100.3
        nexthop 10.244.3.0 dev pairway-vx4 onlink
        nexthop 192.0.2.2 dev eth0
        route 10.244.0.0/16 table 254 metric 4294967295 unreachable
        route 10.244.2.0/24 table 254 metric 1120 via 192.0.2.2
        route 10.244.3.0/24 table 254 metric 1120 via 10.244.3.0
        route 10.244.7.0/24 table 254 metric 1120 via 192.0.2.2
        route 192.0.2.2/32 table 1120 metric 1120 via 192.0.2.2
        route 198.51.100.3/32 table 1120 metric 1120 via 10.244.3.0
        rule 1120 from 10.244.0.0/16 table 1120
        rp_filter pairway-vx4 2
    "#]],
    );
}

#[test]
fn objects_of_two_families_over_one() {
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24 fd10:244:0:1::/64", &[]);
    scene.config.pools.push(pool("fd10:244::/48", 64));
    scene.add("n2 192.0.2.2/24 10.244.2.0/24 fd10:244:0:2::/64");
    scene.established("n2", &["10.244.2.0/24"]);
    let plan = scene.plan();
    assert_eq!(pairs_text(&plan), "n2 ipv4: native (bgp)\nn2 ipv6: vxlan (no-underlay-family)\n");
    assert_eq!(plan.peers["n2"].families, [Family::Ipv4].into());
    check_state(
        &plan,
        &expect![[r#"
        link pairway-vx4 vni 4096 port 4789 local 192.0.2.1 dev eth0 mac da:5e:ba:39:b8:42 mtu 1450
        address 10.244.1.0/32 dev pairway-vx4
        address fd10:244:0:1::/128 dev pairway-vx4
        neighbor 10.244.2.0 dev pairway-vx4 mac 86:7a:e2:94:06:5a
        neighbor fe80::847a:e2ff:fe94:65a dev pairway-vx4 mac 86:7a:e2:94:06:5a
        fdb 86:7a:e2:94:06:5a dev pairway-vx4 dst 192.0.2.2
        nexthop 192.0.2.2 dev eth0
        nexthop fe80::847a:e2ff:fe94:65a dev pairway-vx4
        route 10.244.0.0/16 table 254 metric 4294967295 unreachable
        route 10.244.2.0/24 table 254 metric 1120 via 192.0.2.2
        route fd10:244::/48 table 254 metric 4294967295 unreachable
        route fd10:244:0:2::/64 table 254 metric 1120 via fe80::847a:e2ff:fe94:65a
        route 192.0.2.2/32 table 1120 metric 1120 via 192.0.2.2
        rule 1120 from 10.244.0.0/16 table 1120
        rule 1120 from fd10:244::/48 table 1120
        rp_filter pairway-vx4 2
    "#]],
    );
}

#[test]
fn objects_of_ip_in_ip() {
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24 fd10:244:0:1::/64", &[]);
    scene.config.pools.push(pool("fd10:244::/48", 64));
    scene.config.paths.cross_subnet = PathUse::Ipip;
    scene.ip_tunnels = IpTunnel::ALL.into();
    scene.add("n2 192.0.2.2/24 10.244.2.0/24");
    scene.add("n3 198.51.100.3/24 10.244.3.0/24 fd10:244:0:3::/64");
    scene.established("n2", &["10.244.2.0/24"]);
    let plan = scene.step();
    assert_eq!(
        pairs_text(&plan),
        "n2 ipv4: native (bgp)\nn2 ipv6: none (no-block)\nn3 ipv4: ipip (cross-subnet)\nn3 ipv6: ipip (cross-subnet)\n"
    );
    check_state(
        &plan,
        &expect![[r#"
        link pairway-ipip kind ipip local 192.0.2.1 mtu 1480
        link pairway-sit kind sit local 192.0.2.1 mtu 1480
        link pairway-vx4 vni 4096 port 4789 local 192.0.2.1 dev eth0 mac da:5e:ba:39:b8:42 mtu 1450
        address 10.244.1.0/32 dev pairway-ipip
        address fd10:244:0:1::/128 dev pairway-sit
        address 10.244.1.0/32 dev pairway-vx4
        address fd10:244:0:1::/128 dev pairway-vx4
        neighbor 10.244.2.0 dev pairway-vx4 mac 86:7a:e2:94:06:5a
        neighbor 10.244.3.0 dev pairway-vx4 mac e2:51:72:86:d0:ed
        neighbor fe80::e051:72ff:fe86:d0ed dev pairway-vx4 mac e2:51:72:86:d0:ed
        fdb 86:7a:e2:94:06:5a dev pairway-vx4 dst 192.0.2.2
        fdb e2:51:72:86:d0:ed dev pairway-vx4 dst 198.51.100.3
        nexthop 198.51.100.3 dev pairway-ipip onlink
        nexthop 192.0.2.2 dev eth0
        nexthop ::c633:6403 dev pairway-sit onlink
        route 10.244.0.0/16 table 254 metric 4294967295 unreachable
        route 10.244.2.0/24 table 254 metric 1120 via 192.0.2.2
        route 10.244.3.0/24 table 254 metric 1120 via 198.51.100.3
        route fd10:244::/48 table 254 metric 4294967295 unreachable
        route fd10:244:0:3::/64 table 254 metric 1120 via ::c633:6403
        route 192.0.2.2/32 table 1120 metric 1120 via 192.0.2.2
        route 198.51.100.3/32 table 1120 metric 1120 via 198.51.100.3
        rule 1120 from 10.244.0.0/16 table 1120
        rule 1120 from fd10:244::/48 table 1120
        rp_filter pairway-ipip 2
        rp_filter pairway-sit 2
        rp_filter pairway-vx4 2
    "#]],
    );
    // The underlay can't carry an IPv6 packet of the smallest size in IP: no such device, and the others as before.
    scene.local.ipv4.as_mut().unwrap().mtu = 1299;
    let small: Vec<String> = scene.plan().dataplane.links.keys().map(ToString::to_string).collect();
    assert_eq!(small, ["pairway-ipip", "pairway-vx4"]);
}

fn check_state(plan: &Plan, want: &Expect) {
    want.assert_eq(&state_text(&plan.dataplane));
    assert_eq!(plan.findings, BTreeSet::new());
}

#[test]
fn both_families_over_one_session() {
    let mut scene = Scene::new("n2 192.0.2.2/24 2001:db8::2/64 10.244.2.0/24 fd10:244:0:2::/64", &[]);
    scene.config.pools.push(pool("fd10:244::/48", 64));
    scene.add("n1 192.0.2.1/24 2001:db8::1/64 10.244.1.0/24 fd10:244:0:1::/64");
    let plan = scene.plan();
    let peer = &plan.peers["n1"];
    assert_eq!(peer.role, Role::Accept);
    assert_eq!(peer.address, "192.0.2.1".parse::<IpAddr>().unwrap());
    assert_eq!(peer.local_address, Some("192.0.2.2".parse().unwrap()));
    assert_eq!(peer.next_hops[&Family::Ipv6], "2001:db8::2".parse::<IpAddr>().unwrap());
    let rules: Vec<String> = peer
        .import
        .rules
        .iter()
        .map(|rule| format!("{} {:?}", rule.prefix, rule.next_hops.as_ref().unwrap()))
        .collect();
    assert_eq!(rules, ["10.244.1.0/24 {192.0.2.1}", "fd10:244:0:1::/64 {2001:db8::1}"]);
}

#[test]
fn nothing_is_believed_that_would_take_an_address_of_ours() {
    let own = "n1 192.0.2.1/24 10.244.1.0/24";
    let check = |peer: &str, kind: &str| {
        let plan = Scene::new(own, &[peer]).plan();
        assert!(kinds(&plan).contains(&kind), "{peer}: {:?}", plan.findings);
        assert_eq!(plan.dataplane.routes.len(), 1, "{peer}: the pool's unreachable route alone");
        assert_eq!(plan.peers.len(), 0, "{peer}");
    };
    check("n2 192.0.2.2/24 10.244.1.128/25", "BlockOverlap");
    check("n2 192.0.2.1/24 10.244.2.0/24", "UnderlayAddressDuplicate");
    check("n2 10.244.5.5/24 10.244.2.0/24", "UnderlayInPool");
}

#[test]
fn blocks_outside_of_the_pools_get_no_route() {
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &["n2 192.0.2.2/24"]);
    scene.claim("192.0.2.0/24".parse().unwrap(), &name("n2"));
    scene.claim("0.0.0.0/0".parse().unwrap(), &name("n2"));
    scene.claim("10.244.8.0/24".parse().unwrap(), &name("ghost"));
    let plan = scene.plan();
    assert_eq!(kinds(&plan), ["BlockOutsidePools", "BlockOverlap", "HolderUnknown"]);
    assert_eq!(plan.dataplane.routes.len(), 1, "the pool's unreachable route alone");
}

#[test]
fn a_claim_that_can_not_be_read_gets_no_route() {
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &["n2 192.0.2.2/24 10.244.2.0/24"]);
    scene.snapshot.claims.get_mut(&block("10.244.2.0/24")).unwrap().holder = None;
    let plan = scene.plan();
    assert_eq!(pairs_text(&plan), "n2 ipv4: none (no-block)\n");
    assert!(!plan.dataplane.routes.keys().any(|key| key.prefix == block("10.244.2.0/24").net()));
    assert!(plan.peers.is_empty());
}

#[test]
fn a_node_without_a_block_has_no_pairs_and_no_devices() {
    let scene = Scene::new("n1 192.0.2.1/24", &["n2 192.0.2.2/24 10.244.2.0/24"]);
    let plan = scene.plan();
    assert_eq!(pairs_text(&plan), "n2 ipv4: none (no-block)\n");
    assert!(plan.dataplane.links.is_empty() && plan.peers.is_empty() && plan.announce.is_empty());
    assert_eq!(plan.dataplane.routes.len(), 1, "the pool stays closed");
}

#[test]
fn a_pool_around_our_own_address_is_left_open_and_reported() {
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &[]);
    scene.config.pools.push(pool("192.0.0.0/16", 24));
    let plan = scene.plan();
    assert_eq!(kinds(&plan), ["PoolContainsUnderlay"]);
    assert_eq!(plan.dataplane.rules.len(), 1);
}

#[test]
fn of_two_nodes_at_one_address_the_younger_lives() {
    let mut scene = Scene::new(
        "n1 192.0.2.1/24 10.244.1.0/24",
        &["old 192.0.2.2/24 10.244.2.0/24", "new 192.0.2.2/24 10.244.3.0/24"],
    );
    scene.established("new", &["10.244.3.0/24"]);
    let plan = scene.plan();
    assert_eq!(pairs_text(&plan), "new ipv4: native (bgp)\nold ipv4: vxlan (bgp-waiting)\n");
    assert_eq!(plan.peers.keys().collect::<Vec<_>>(), ["new"]);
    assert_eq!(kinds(&plan), ["RouterIdDuplicate", "UnderlayAddressDuplicate"]);
    let owners = plan.owners();
    let host = owners.iter().find(|(key, _)| key.table == scene.config.kernel.table);
    assert_eq!(*host.unwrap().1, "new");
}

#[test]
fn reverse_path_filter_is_loosened_only_where_strict_is_in_effect() {
    // all, device -> what is wanted of the device
    let table = [
        (0, 0, None),
        (0, 1, Some(2)),
        (0, 2, None),
        (1, 0, Some(2)),
        (1, 1, Some(2)),
        (1, 2, None),
        (2, 0, None),
        (2, 1, None),
    ];
    for (all, device, want) in table {
        let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &[]);
        let eth0: LinkName = "eth0".parse().unwrap();
        scene.observed.rp_filter_all = all;
        scene.observed.ours.rp_filter.insert(eth0.clone(), device);
        let plan = scene.plan();
        assert_eq!(plan.dataplane.rp_filter.get(&eth0).copied(), want, "all {all} device {device}");
        assert_eq!(plan.dataplane.rp_filter[&"pairway-vx4".parse().unwrap()], 2);
    }
}

#[test]
fn a_node_that_moves_to_another_subnet_changes_path_and_next_hop() {
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &["n2 192.0.2.2/24 10.244.2.0/24"]);
    scene.established("n2", &["10.244.2.0/24"]);
    let before = scene.step();
    scene.snapshot.nodes.clear();
    scene.snapshot.claims.clear();
    scene.add("n2 198.51.100.2/24 10.244.2.0/24");
    let after = scene.step();
    assert_eq!(pairs_text(&after), "n2 ipv4: vxlan (cross-subnet)\n");
    assert!(after.peers.is_empty());
    assert_eq!(
        after.dataplane.fdb.values().collect::<Vec<_>>(),
        [&"198.51.100.2".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(
        before.dataplane.nexthops.keys().collect::<Vec<_>>(),
        after.dataplane.nexthops.keys().collect::<Vec<_>>(),
        "the object stays, its gateway moves"
    );
}

#[test]
fn routes_of_others_for_the_nodes_addresses_matter_too() {
    let scene =
        Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &["n2 192.0.2.2/24 2001:db8::2/64 10.244.2.0/24"]);
    let watched: Vec<String> =
        watched(&scene.config, &scene.snapshot).iter().map(ToString::to_string).collect();
    for prefix in ["10.244.0.0/16", "10.244.2.0/24", "192.0.2.2/32", "2001:db8::2/128"] {
        assert!(watched.contains(&prefix.to_owned()), "{prefix}: {watched:?}");
    }
}

#[test]
fn a_plan_is_a_function_of_its_world() {
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &[]);
    for index in 2..40 {
        scene.add(&format!("n{index} 192.0.2.{index}/24 10.244.{index}.0/24"));
    }
    let first = scene.step();
    assert_eq!(first.pairs.len(), 38);
    assert_eq!(first.dataplane, scene.plan().dataplane, "the kernel's state feeds nothing back");
    let unready =
        first.pairs.iter().filter(|pair| !pair.needs.met(&first.dataplane, &first.dataplane)).count();
    assert_eq!(unready, 0);
    assert!(!first.pairs[0].needs.met(&first.dataplane, &State::default()));
}
