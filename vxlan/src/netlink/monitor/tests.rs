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
    Relevance { marks, writer: WRITER, watched, devices: [4].into() }
}

fn concerns(request: &Request) -> bool {
    let message = Message { kind: request.kind, flags: 0, sequence: 0, port: 0, body: &request.body };
    relevance().concerns(&message)
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

#[test]
fn what_cannot_be_read_might_concern_us() {
    assert!(relevance().judge(&[1, 2, 3]));
    assert!(relevance().judge(&[]));
}

#[test]
fn devices_are_learned_from_whoever_makes_them_and_our_own_don_t_wake_us() {
    let mut relevance = relevance();
    let link = crate::testing::vx4().links.into_values().next().unwrap();
    let mut request = link::create(&"vx4".parse().unwrap(), 9, &link, 3, "pairway", false).remove(0);
    let mut told = |request: &Request, kind, port| {
        let concerned =
            relevance.concerns(&Message { kind, flags: 0, sequence: 0, port, body: &request.body });
        (concerned, relevance.devices.contains(&9))
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
