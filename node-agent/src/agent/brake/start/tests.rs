use std::time::Duration;

use vxlan::{
    Address, FdbKey, Gateway, IpTunnel, NeighborKey, Nexthop, NexthopId, Route, RouteKey, RouteTarget,
    Settings, State, TunnelKind, TunnelLink, Vni, Vxlan,
};

use super::*;

const POOLS: [&str; 2] = ["10.244.0.0/16", "fd10:244::/48"];

fn pools() -> Vec<IpNet> {
    POOLS.map(|pool| pool.parse().unwrap()).into()
}

fn tunnel() -> LinkName {
    "pairway-vx4".parse().unwrap()
}

/// Peers with a block of both families each; odd ones are native in IPv4.
fn kernel(peers: &[u8]) -> State {
    let mut state = State::default();
    let kind = TunnelKind::Vxlan(Vxlan {
        vni: Vni(4096),
        port: 4789,
        underlay: "eth0".parse().unwrap(),
        mac: Mac([2, 0, 0, 0, 0, 0]),
    });
    let local = [192, 0, 2, 1].into();
    let device = TunnelLink { kind, local, mtu: 1450, up: true, settings: Settings::Ours };
    state.links.insert(tunnel(), device);
    state.addresses.insert(Address { link: tunnel(), address: "10.244.0.0/32".parse().unwrap() });
    state.rp_filter.insert(tunnel(), 2);
    for peer in peers.iter().copied() {
        let mac = Mac([2, 0, 0, 0, 0, peer]);
        let underlay = IpAddr::from([192, 0, 2, peer]);
        let inner = IpAddr::from([10, 244, peer, 0]);
        state.fdb.insert(FdbKey { link: tunnel(), mac }, underlay);
        for address in [inner, mac.link_local().into()] {
            state.neighbors.insert(NeighborKey { link: tunnel(), address }, mac);
        }
        let tunnelled = |address, onlink| Nexthop { gateway: Gateway { address, onlink }, link: tunnel() };
        let native =
            Nexthop { gateway: Gateway { address: underlay, onlink: false }, link: "eth0".parse().unwrap() };
        let ipv4 = if peer % 2 == 1 { native } else { tunnelled(inner, true) };
        for (offset, prefix, nexthop) in [
            (0, format!("10.244.{peer}.0/24"), ipv4),
            (100, format!("fd10:244:0:{peer}::/64"), tunnelled(mac.link_local().into(), false)),
        ] {
            let id = NexthopId(u32::from(peer) + offset);
            state.nexthops.insert(id, nexthop);
            state.routes.insert(key(&prefix), over(id));
        }
    }
    state
}

fn key(prefix: &str) -> RouteKey {
    RouteKey { table: 254, prefix: prefix.parse().unwrap(), metric: 1120 }
}

fn over(id: NexthopId) -> Route {
    Route { target: RouteTarget::Nexthop(id), source: None, mtu: None }
}

struct Seen {
    state: State,
    held: Option<Held>,
}

struct Test {
    limits: Limits,
    brake: StartBrake,
    start: Instant,
}

impl Test {
    fn new() -> Self {
        Self { limits: Limits::default(), brake: StartBrake::default(), start: Instant::now() }
    }

    fn at(&mut self, seconds: u64, wanted: &State, found: &State, answering: bool) -> Seen {
        let now = self.start + Duration::from_secs(seconds);
        let started =
            self.brake.pass(&self.limits, &pools(), &Arc::new(wanted.clone()), found, now, answering);
        let until = started.held.and_then(|held| held.until);
        assert!(until.is_none_or(|until| until > now), "a deadline in the past is a busy loop");
        Seen { state: State::clone(&started.state), held: started.held }
    }
}

/// Its IPv6 pods are reached through a gateway that holds its IPv4 address.
#[test]
fn a_peer_behind_ipv6_in_ipv4_is_no_second_peer() {
    let mut found = kernel(&[2, 3]);
    for (id, nexthop) in &mut found.nexthops {
        if let Some(peer) = id.0.checked_sub(100) {
            let peer = u8::try_from(peer).unwrap();
            let address = IpTunnel::Sit.gateway([192, 0, 2, peer].into());
            let link = "pairway-sit".parse().unwrap();
            *nexthop = Nexthop { gateway: Gateway { address, onlink: true }, link };
        }
    }
    assert_eq!(losses(&pools(), &State::default(), &found), (2, 2));
    assert_eq!(losses(&pools(), &found, &found), (0, 2));
}

/// Peers are counted, not objects; as configured, and all of them at any number.
#[test]
fn too_many_peers_at_once_are_not_believed_to_be_gone() {
    for (share, at_least, found, wanted, held) in [
        (50, 2, &[1, 2, 3, 4][..], &[1, 2][..], None),
        (50, 2, &[1, 2, 3, 4], &[1], Some((3, 4))),
        (50, 2, &[1, 2], &[1], None),
        (50, 2, &[1, 2], &[], Some((2, 2))),
        (50, 2, &[1], &[], Some((1, 1))),
        (50, 9, &[1, 2], &[], Some((2, 2))),
        (50, 9, &[1, 2, 3], &[1], None),
        (100, 1, &[1, 2], &[], None),
        (20, 1, &[1, 2, 3, 4], &[1, 2, 3], Some((1, 4))),
        (50, 2, &[], &[1], None),
        (50, 2, &[1, 2, 3], &[1, 2, 3, 4], None),
    ] {
        let mut test = Test::new();
        test.limits = Limits { share, at_least, ..test.limits };
        let (found, wanted) = (kernel(found), kernel(wanted));
        let started = test.at(0, &wanted, &found, true);
        let counted = started.held.map(|held| (held.gone, held.all));
        assert_eq!(counted, held, "{share} % {at_least} {:?}", wanted.fdb);
        let expected = if held.is_some() { keep(&wanted, &found) } else { wanted };
        assert_eq!(started.state, expected);
    }
}

#[test]
fn what_is_kept_is_everything_with_the_devices_that_it_stands_on() {
    let found = kernel(&[1, 2, 3]);
    // This node's own blocks are not there either: then no device is wanted.
    let started = Test::new().at(0, &State::default(), &found, true);
    assert_eq!(started.state, found);
    // What is wanted otherwise wins over what is found.
    let mut wanted = kernel(&[4]);
    let (link, id) = (tunnel(), NexthopId(1));
    wanted.links.get_mut(&link).unwrap().mtu = 8950;
    wanted.nexthops.insert(id, kernel(&[2]).nexthops[&NexthopId(2)].clone());
    let kept = keep(&wanted, &found);
    assert_eq!(kept.links, wanted.links);
    assert_eq!(kept.nexthops[&id], wanted.nexthops[&id]);
    assert!(!kept.routes.contains_key(&key("10.244.1.0/24")), "its nexthop leads to another peer by now");
    assert!(kept.routes.contains_key(&key("10.244.2.0/24")));
    assert!(kept.routes.contains_key(&key("10.244.4.0/24")));
    // A device by another name that wants the same network identifier takes its place.
    let mut renamed = State::default();
    renamed.links.insert("other-vx4".parse().unwrap(), found.links[&link].clone());
    let kept = keep(&renamed, &found);
    assert_eq!(kept.links, renamed.links);
    assert!(kept.fdb.is_empty() && kept.neighbors.is_empty());
}

#[test]
fn a_part_of_many_peers_is_a_loss_too() {
    let found = kernel(&[1, 2, 3]);
    let mut wanted = found.clone();
    for peer in 1..=2 {
        wanted.routes.remove(&key(&format!("fd10:244:0:{peer}::/64")));
        wanted.nexthops.remove(&NexthopId(100 + peer));
    }
    let started = Test::new().at(0, &wanted, &found, true);
    assert_eq!(started.held.map(|held| (held.gone, held.all)), Some((2, 3)));
    assert_eq!(started.state, found);
    // Other blocks than before are no loss.
    let mut moved = found.clone();
    for peer in 1..=3 {
        let route = moved.routes.remove(&key(&format!("10.244.{peer}.0/24"))).unwrap();
        moved.routes.insert(key(&format!("10.244.{}.0/24", peer + 100)), route);
    }
    assert_eq!(Test::new().at(0, &moved, &found, true).held, None);
}

#[test]
fn routes_from_outside_of_the_cluster_are_no_peers() {
    let mut found = kernel(&[1, 2]);
    for outside in 0..20 {
        let id = NexthopId(1000 + outside);
        let gateway = Gateway { address: "192.0.2.254".parse().unwrap(), onlink: false };
        found.nexthops.insert(id, Nexthop { gateway, link: "eth0".parse().unwrap() });
        found.routes.insert(key(&format!("172.16.{outside}.0/24")), over(id));
    }
    assert_eq!(Test::new().at(0, &kernel(&[1, 2]), &found, true).held, None);
}

#[test]
fn it_holds_until_all_are_back_or_the_time_is_over_and_the_store_answers() {
    let found = kernel(&[1, 2, 3, 4]);
    let mut test = Test::new();
    assert_eq!(test.at(0, &State::default(), &found, true).state, found);
    // Three of four are back: that would be no reason to hold, but the fourth may come too.
    let started = test.at(5, &kernel(&[1, 2, 3]), &found, true);
    assert_eq!((started.state, started.held.unwrap().gone), (found.clone(), 1));
    assert_eq!(test.at(29, &kernel(&[1, 2, 3]), &found, true).state, found);
    let waiting = test.at(31, &kernel(&[1, 2, 3]), &found, false);
    assert_eq!((waiting.state, waiting.held.unwrap().until), (found.clone(), None), "the store is silent");
    assert_eq!(test.at(40, &kernel(&[1, 2, 3]), &found, true).state, kernel(&[1, 2, 3]));
    assert_eq!(test.at(41, &State::default(), &found, true).held, None, "the other brake has taken over");

    let mut test = Test::new();
    test.at(0, &State::default(), &found, true);
    assert_eq!(test.at(1, &found, &found, true).held, None);
    assert_eq!(test.at(2, &kernel(&[1]), &found, true).state, kernel(&[1]));
}
