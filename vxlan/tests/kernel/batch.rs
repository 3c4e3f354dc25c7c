//! Many changes at once: the kernel's speed, and errors that find their change.

use ipnet::{IpNet, Ipv4Net};
use vxlan::{Change, Dataplane, RouteKey, State};

use crate::namespace::{id, ids, in_namespace, ip, kernel, mesh, route_key, settle, via};

const ROUTES: u32 = 10_000;

fn block(number: u32) -> RouteKey {
    let network = std::net::Ipv4Addr::from(0x0a00_0000 + (number << 6));
    let prefix = IpNet::V4(Ipv4Net::new(network, 26).unwrap());
    RouteKey { prefix, ..route_key("0.0.0.0/0") }
}

#[test]
fn ten_thousand_routes_with_errors_among_them() {
    in_namespace(|| {
        let mut kernel = kernel();
        settle(&mut kernel, &mesh([7]));
        // A foreign route, a nexthop that is not there, a device that is not there: each in the middle of a batch.
        let taken = block(5000);
        ip(&format!("route add {} via 192.0.2.9 dev eth0", taken.prefix));
        let mut changes: Vec<Change> =
            (0..ROUTES).map(|n| Change::AddRoute(block(n), via(ids(7)[0]))).collect();
        changes[2222] = Change::AddRoute(block(2222), via(id(999)));
        let key = vxlan::NeighborKey { link: "vx9".parse().unwrap(), address: "10.0.0.1".parse().unwrap() };
        changes[3333] = Change::DeleteNeighbor(key);
        let refused = kernel.apply(&changes);
        let told: Vec<_> =
            refused.iter().map(|(n, error)| (*n, error.errno, error.message.as_str())).collect();
        assert_eq!(
            told,
            [
                (2222, libc::EINVAL, "Nexthop id does not exist"),
                (3333, libc::ENODEV, "there is no device vx9"),
                (5000, libc::EEXIST, "File exists"),
            ]
        );
        let there = ip("route show proto 155").lines().count();
        assert_eq!(there, ROUTES as usize - 3 + 1, "all others and the peer's block");
        assert!(ip(&format!("route show {}", taken.prefix)).contains("192.0.2.9"));
        // One object moves them all, and takes them all along.
        settle(&mut kernel, &State::default());
        assert_eq!(ip("route show proto 155"), "");
    });
}

#[test]
fn a_batch_that_fails_as_a_whole_is_answered_as_a_whole() {
    in_namespace(|| {
        let changes: Vec<Change> = (0..ROUTES).map(|n| Change::AddRoute(block(n), via(id(n)))).collect();
        let refused = kernel().apply(&changes);
        let told = |error: &vxlan::ApplyError| {
            error.errno == libc::EINVAL && error.message == "Nexthop id does not exist"
        };
        assert!(refused.len() == changes.len() && refused.values().all(told));
    });
}

#[test]
fn a_large_state_is_read_back_as_it_was_written() {
    in_namespace(|| {
        let mut wanted = mesh(2..=250);
        wanted.routes.extend((0..ROUTES).map(|n| (RouteKey { table: 9000, ..block(n) }, via(ids(7)[0]))));
        let mut kernel = kernel();
        settle(&mut kernel, &wanted);
        wanted.routes.retain(|key, _| key.table != 9000);
        assert_eq!(settle(&mut kernel, &wanted).len(), ROUTES as usize);
    });
}
