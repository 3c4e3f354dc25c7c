use super::*;
use crate::netlink::request::Request;
use crate::netlink::rule;
use crate::state::{Gateway, NexthopId, Route, RouteKey, RouteTarget};

const WRITER: u32 = 4711;

fn relevance() -> Relevance {
    let marks = Marks {
        route_protocol: 155,
        ifalias: "pairway".into(),
        nexthop_base: 0x5000_0000,
        firewall_table: "pairway".into(),
    };
    let watched = Watched::new(["10.244.7.0/24".parse().unwrap()]);
    let devices = [(4, crate::testing::link("vx4"))].into();
    Relevance { marks, writer: WRITER, watched, wanted: None, devices }
}

fn concerns(request: &Request) -> bool {
    let message = Message { kind: request.kind, flags: 0, sequence: 0, port: 0, body: &request.body };
    relevance().verdict(&message) != Verdict::Nothing
}

#[test]
fn what_concerns_us() {
    let route = Route { target: RouteTarget::Unreachable, source: None, mtu: None };
    let to = |prefix: &str, protocol| {
        let key = RouteKey { table: 254, prefix: prefix.parse().unwrap(), metric: 0 };
        route::add(key, &route, protocol).unwrap()
    };
    let gateway = Gateway { address: "192.0.2.7".parse().unwrap(), onlink: false };
    let mac = crate::state::Mac([2, 0, 0, 0, 0, 7]);
    let from = crate::state::Rule { priority: 1, from: "10.0.0.0/8".parse().unwrap(), table: 9 };
    let cases = [
        ("a route of ours", to("198.51.100.0/24", 155), true),
        ("a foreign route elsewhere", to("198.51.100.0/24", 12), false),
        ("a foreign route of a watched prefix", to("10.244.7.0/24", 12), true),
        ("a foreign route over a watched prefix", to("10.0.0.0/8", 12), true),
        ("a foreign route inside of a watched prefix", to("10.244.7.0/25", 12), true),
        ("a default route", to("0.0.0.0/0", 3), true),
        ("a nexthop in our range", nexthop::add(NexthopId(0x5000_0001), gateway, 3, 12), true),
        ("a nexthop elsewhere", nexthop::add(NexthopId(1), gateway, 3, 155), false),
        ("a neighbour on our device", neighbor::set(4, gateway.address, mac, 0), true),
        ("a neighbour on another", neighbor::set(3, gateway.address, mac, 155), false),
        ("an FDB entry of our device", neighbor::set_fdb(4, mac, gateway.address), true),
        ("an FDB entry of another", neighbor::set_fdb(3, mac, gateway.address), false),
        ("a rule", rule::add(&from, 0), true),
    ];
    for (what, request, expected) in cases {
        assert_eq!(concerns(&request), expected, "{what}");
    }
}

/// What is wanted, and what is heard of it: the kernel signs none of this.
#[test]
fn what_is_as_it_is_wanted_wakes_nobody_and_what_was_taken_away_is_named() {
    let link = crate::testing::link("vx4");
    let (mac, other) = (crate::state::Mac([2, 0, 0, 0, 0, 7]), crate::state::Mac([2, 0, 0, 0, 0, 8]));
    let [remote, inner, elsewhere] = ["192.0.2.7", "10.244.7.0", "192.0.2.99"].map(|ip| ip.parse().unwrap());
    let route = Route { target: RouteTarget::Nexthop(NexthopId(0x5000_0001)), source: None, mtu: None };
    let moved = Route { target: RouteTarget::Nexthop(NexthopId(0x5000_0002)), source: None, mtu: None };
    let key = |prefix: &str| RouteKey { table: 254, prefix: prefix.parse().unwrap(), metric: 7 };
    let (block, stray) = (key("10.244.7.0/24"), key("10.244.9.0/24"));
    let gateway = Gateway { address: inner, onlink: true };
    let (neighbor_key, fdb_key) =
        (NeighborKey { link: link.clone(), address: inner }, FdbKey { link: link.clone(), mac });
    let mut wanted = State::default();
    wanted.fdb.insert(fdb_key.clone(), remote);
    wanted.neighbors.insert(neighbor_key.clone(), mac);
    wanted.routes.insert(block, route.clone());
    wanted.nexthops.insert(NexthopId(0x5000_0001), crate::state::Nexthop { gateway, link });
    let mut relevance = Relevance { wanted: Some(Arc::new(wanted)), ..relevance() };
    let new = |request: Request| request;
    let gone = |kind: u16, request: Request| Request { kind, ..request };
    let (neigh, routes, hops) = (neighbor::RTM_DELNEIGH, route::RTM_DELROUTE, nexthop::RTM_DELNEXTHOP);
    let mut failed = neighbor::set(4, inner, mac, 155);
    failed.body[8..10].copy_from_slice(&0x20u16.to_ne_bytes());
    let add = |key, route| route::add(key, route, 155).unwrap();
    let hop = |id| nexthop::add(NexthopId(id), gateway, 4, 155);
    for (what, request, expected) in [
        ("our entry", new(neighbor::set_fdb(4, mac, remote)), Verdict::Nothing),
        ("it leads elsewhere", new(neighbor::set_fdb(4, mac, elsewhere)), Verdict::Anything),
        ("nobody's entry", new(neighbor::set_fdb(4, other, remote)), Verdict::Anything),
        ("our entry goes", gone(neigh, neighbor::set_fdb(4, mac, remote)), Verdict::Fdb(fdb_key)),
        ("one of its places goes", gone(neigh, neighbor::set_fdb(4, mac, elsewhere)), Verdict::Anything),
        ("nobody's entry goes", gone(neigh, neighbor::set_fdb(4, other, remote)), Verdict::Nothing),
        // Linux 6.1 tells of it once more, without saying where it leads.
        ("it is told again", gone(neighbor::RTM_NEWNEIGH, neighbor::delete_fdb(4, mac)), Verdict::Nothing),
        ("its end is told again", gone(neigh, neighbor::delete_fdb(4, mac)), Verdict::Nothing),
        ("our neighbour", new(neighbor::set(4, inner, mac, 155)), Verdict::Nothing),
        ("the same of somebody else", new(neighbor::set(4, inner, mac, 0)), Verdict::Anything),
        ("another address of it", new(neighbor::set(4, inner, other, 155)), Verdict::Anything),
        (
            "our neighbour goes",
            gone(neigh, neighbor::delete(4, inner)),
            Verdict::Neighbor(neighbor_key.clone()),
        ),
        ("it is about to go", failed, Verdict::Neighbor(neighbor_key)),
        ("nobody's neighbour goes", gone(neigh, neighbor::delete(4, elsewhere)), Verdict::Nothing),
        ("our route", new(add(block, &route)), Verdict::Nothing),
        ("it leads elsewhere", new(add(block, &moved)), Verdict::Anything),
        ("our route goes", gone(routes, add(block, &route)), Verdict::Route(block)),
        ("a stray route", new(add(stray, &route)), Verdict::Anything),
        ("a stray route goes", gone(routes, add(stray, &route)), Verdict::Nothing),
        ("a foreign route goes", gone(routes, route::add(block, &route, 12).unwrap()), Verdict::Anything),
        ("our nexthop goes", gone(hops, hop(0x5000_0001)), Verdict::Anything),
        ("a stray nexthop goes", gone(hops, hop(0x5000_0009)), Verdict::Nothing),
        ("a stray nexthop", new(hop(0x5000_0009)), Verdict::Anything),
    ] {
        let message = Message { kind: request.kind, flags: 0, sequence: 0, port: 0, body: &request.body };
        assert_eq!(relevance.verdict(&message), expected, "{what}");
    }
}

#[test]
fn few_losses_are_named_and_more_or_other_news_are_not() {
    let key = |number: u32| {
        let net = ipnet::Ipv4Net::new((0x0af4_0000 + (number << 8)).into(), 24).unwrap();
        RouteKey { table: 254, prefix: net.into(), metric: 7 }
    };
    let hear = |count: u32, then: Option<Verdict>| {
        let mut heard = Heard::Nothing;
        heard.hear(Verdict::Nothing);
        for verdict in (0..count).map(|number| Verdict::Route(key(number))).chain(then) {
            heard.hear(verdict);
        }
        match heard {
            Heard::Nothing => Some(0),
            Heard::Lost(lost) => Some(lost.routes.len()),
            Heard::Anything => None,
        }
    };
    let most = u32::try_from(MOST_LOST).unwrap();
    assert_eq!([hear(0, None), hear(3, None), hear(most, None)], [Some(0), Some(3), Some(MOST_LOST)]);
    assert_eq!(hear(3, Some(Verdict::Nothing)), Some(3));
    assert_eq!([hear(most + 1, None), hear(3, Some(Verdict::Anything))], [None, None]);
}

#[test]
fn what_cannot_be_read_might_concern_us() {
    assert!(relevance().judge(&[1, 2, 3], &mut Heard::Nothing));
    assert!(relevance().judge(&[], &mut Heard::Nothing));
}

#[test]
fn devices_are_learned_from_whoever_makes_them_and_our_own_don_t_wake_us() {
    let mut relevance = relevance();
    let link = crate::testing::vx4().links.into_values().next().unwrap();
    let mut request = link::create(&"vx4".parse().unwrap(), 9, &link, 3, "pairway", false).remove(0);
    let mut told = |request: &Request, kind, port| {
        let concerned =
            relevance.verdict(&Message { kind, flags: 0, sequence: 0, port, body: &request.body });
        (concerned != Verdict::Nothing, relevance.devices.contains_key(&9))
    };
    assert_eq!(told(&request, link::RTM_NEWLINK, WRITER), (false, false), "not yet marked");
    crate::netlink::attributes::put(&mut request.body, 20, b"pairway\0");
    assert_eq!(told(&request, link::RTM_NEWLINK, WRITER), (false, true));
    assert_eq!(told(&request, link::RTM_DELLINK, 0), (true, false));
}

/// More events than fit the buffer: none of them concerns us, but those that got lost might.
#[test]
fn lost_notifications_are_a_change() {
    let woken = |receive_buffer: usize| {
        let thread = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
                .expect("a network namespace: this test needs root");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let writer = Ports { route: WRITER, netfilter: None };
                let mut monitor = Monitor::subscribe(relevance().marks, writer, receive_buffer).unwrap();
                let route = Route { target: RouteTarget::Unreachable, source: None, mtu: None };
                let foreign = |n: u32| {
                    let prefix = ipnet::Ipv4Net::new((0xc633_0000 + (n << 4)).into(), 28).unwrap();
                    let key = RouteKey { table: 254, prefix: IpNet::V4(prefix), metric: 0 };
                    route::add(key, &route, 12).unwrap()
                };
                let requests: Vec<_> = (0..4000).map(foreign).collect();
                let results = Channel::open().unwrap().send_all(&requests);
                assert!(results.iter().all(Result::is_ok));
                tokio::time::timeout(std::time::Duration::from_millis(200), monitor.changed()).await.is_ok()
            })
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    };
    assert!(woken(8 * 1024), "the buffer ran over");
    assert!(!woken(RECEIVE_BUFFER), "it did not");
}
