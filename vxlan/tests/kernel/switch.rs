//! A pair changes its path: one message, and no packet is lost.

use std::net::UdpSocket;

use vxlan::{Change, State};

use crate::namespace::{
    add_peer, in_namespace, ip, ip_json, kernel, native, node, pass, peer_mac, settle, tunnel,
};

const ROUNDS: u64 = 20;
const PACKETS: u64 = 50;

fn sent(device: &str) -> u64 {
    ip_json(&format!("-s -j link show dev {device}"))[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
}

fn ipv4(mut state: State) -> State {
    state.nexthops.retain(|_, nexthop| nexthop.gateway.address.is_ipv4());
    state.routes.retain(|key, _| key.prefix.addr().is_ipv4());
    state
}

#[test]
fn every_packet_leaves_one_way_or_the_other_and_a_switch_is_one_message() {
    in_namespace(|| {
        // Who the peer is on the underlay is known, so that no packet waits for an answer that nobody gives.
        ip(&format!("neigh add 192.0.2.7 lladdr {} dev eth0 nud permanent", peer_mac(77)));
        let mut wanted = [node(), node()];
        add_peer(&mut wanted[0], 7, tunnel(7));
        add_peer(&mut wanted[1], 7, native(7));
        let wanted = wanted.map(ipv4);
        let mut kernel = kernel();
        settle(&mut kernel, &wanted[1]);
        let socket = UdpSocket::bind("10.244.1.0:0").unwrap();
        let (tunnelled, all) = (sent("vx4"), sent("eth0"));
        for round in 0..ROUNDS {
            let report = pass(&mut kernel, &wanted[usize::from(round % 2 == 1)]);
            assert!(report.failures.is_empty(), "{:#?}", report.failures);
            assert!(matches!(report.applied.as_slice(), [Change::SetNexthop(..)]), "{:#?}", report.applied);
            for _ in 0..PACKETS {
                socket.send_to(b"through whichever path", "10.244.7.9:9").expect("a route");
            }
        }
        assert_eq!(sent("vx4") - tunnelled, ROUNDS / 2 * PACKETS, "half of them in the tunnel");
        // The underlay also carries what IPv6 says of itself.
        assert!(sent("eth0") - all >= ROUNDS * PACKETS, "all of them on the underlay");
    });
}

#[test]
fn ipv6_switches_while_the_block_is_routed_natively() {
    in_namespace(|| {
        let mut wanted = [node(), node()];
        add_peer(&mut wanted[0], 7, native(7));
        add_peer(&mut wanted[1], 7, tunnel(7));
        let mut kernel = kernel();
        settle(&mut kernel, &wanted[0]);
        for _ in 0..3 {
            for wanted in [&wanted[1], &wanted[0]] {
                let applied = settle(&mut kernel, wanted);
                assert!(
                    matches!(applied.as_slice(), [Change::SetNexthop(..), Change::SetNexthop(..)]),
                    "{applied:#?}"
                );
                let device = &wanted.nexthops.values().next().unwrap().link;
                let get = ip_json("-6 -j route get fd10:244:0:7::9");
                assert_eq!(get[0]["dev"], device.as_str());
            }
        }
    });
}

#[test]
fn routes_stay_when_all_peers_change_at_once() {
    in_namespace(|| {
        let mut wanted = [node(), node()];
        for peer in 2..200 {
            add_peer(&mut wanted[0], peer, tunnel(peer));
            add_peer(&mut wanted[1], peer, native(peer));
        }
        let mut kernel = kernel();
        settle(&mut kernel, &wanted[0]);
        let applied = settle(&mut kernel, &wanted[1]);
        assert!(applied.iter().all(|change| matches!(change, Change::SetNexthop(..))), "{applied:#?}");
        assert_eq!(applied.len(), 2 * 198);
        assert_eq!(ip("route show proto 155").matches("dev eth0").count(), 198);
    });
}
