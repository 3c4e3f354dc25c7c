//! What watches the tests is watched itself: a capture, a monitor and a ping see what they are to see.

use std::time::Duration;

use integration::cluster::Pod;
use integration::lab::Lab;
use integration::watch::{Capture, Monitor, Packets, Ping, about_us};

use crate::support::{programs, topology};

#[test]
fn a_capture_tells_native_from_vxlan() {
    let lab = Lab::up(topology("two-nodes")).unwrap();
    for (node, own, peer) in [("n1", "1", "2"), ("n2", "2", "1")] {
        let script = format!(
            "ip addr add 10.244.{own}.1/32 dev lo; ip route add 10.244.{peer}.1/32 via 192.0.2.{peer} src 10.244.{own}.1; \
             ip link add vx type vxlan id 4096 dstport 4789 local 192.0.2.{own} remote 192.0.2.{peer} dev eth1; \
             ip link set vx up; ip addr add 10.244.100.{own}/24 dev vx"
        );
        lab.node(node).sh(&script).unwrap();
    }
    let capture = Capture::begin(&lab, "n1", "eth1").unwrap();
    lab.node("n1").run(&["ping", "-c", "1", "-W", "2", "10.244.2.1"]).unwrap();
    lab.node("n1").run(&["ping", "-c", "1", "-W", "2", "10.244.100.2"]).unwrap();
    let packets = capture.end(&lab, "192.0.2.2").unwrap();
    let between = |packets: &[String], a: &str, b: &str| {
        Packets::between(packets, a.parse().unwrap(), b.parse().unwrap())
    };
    assert!(between(&packets.native, "10.244.1.1", "10.244.2.1"), "{packets:?}");
    assert!(!between(&packets.vxlan, "10.244.1.1", "10.244.2.1"), "{packets:?}");
    assert!(between(&packets.vxlan, "10.244.100.1", "10.244.100.2"), "{packets:?}");
    assert!(!between(&packets.native, "10.244.100.1", "10.244.100.2"), "{packets:?}");
}

#[test]
fn a_monitor_sees_every_kind_of_object() {
    let lab = Lab::up(topology("two-nodes")).unwrap();
    let monitor = Monitor::begin(&lab, "n1", "eth1").unwrap();
    let changes = "ip link add pairway-vx4 type vxlan id 4096 dstport 4789 dev eth1; ip link set pairway-vx4 up; \
         ip addr add 10.244.1.0/32 dev pairway-vx4; \
         ip neigh add 10.244.2.0 lladdr 02:00:00:00:00:02 dev pairway-vx4 nud permanent; \
         bridge fdb add 02:00:00:00:00:02 dev pairway-vx4 dst 192.0.2.2 self permanent; \
         ip nexthop add id 1879048192 via 192.0.2.2 dev eth1 proto 112; \
         ip route add 10.244.2.0/24 nhid 1879048192 proto 112; \
         ip rule add from 10.244.0.0/16 lookup 1120 priority 1120 protocol 112";
    lab.node("n1").sh(changes).unwrap();
    let events = monitor.end(&lab, "eth1").unwrap();
    let ours = about_us(&events);
    for kind in ["[LINK]", "[ADDR]", "[NEIGH]", "[NEXTHOP]", "[ROUTE]", "[RULE]", "dst 192.0.2.2 self"] {
        assert!(ours.iter().any(|event| event.contains(kind)), "no {kind} in {ours:#?}");
    }
}

#[test]
fn a_ping_counts_what_is_lost() {
    let lab = Lab::up(topology("two-nodes")).unwrap();
    lab.node("n1").run(&["ip", "netns", "attach", "p1", "1"]).unwrap();
    let cluster = integration::cluster::Cluster::attach(lab, programs());
    let from = Pod { node: "n1".to_owned(), name: "p1".to_owned(), addresses: Vec::new() };
    let begin =
        || Ping::begin(&cluster, &from, "192.0.2.2".parse().unwrap(), Duration::from_millis(5)).unwrap();
    let ping = begin();
    assert_eq!(ping.end().unwrap().lost, Vec::<u64>::new());
    let ping = begin();
    let drop = "nft add table bridge faults; \
         nft 'add chain bridge faults forward { type filter hook forward priority 0 ; }'; \
         nft add rule bridge faults forward icmp type echo-request counter drop; \
         until nft list table bridge faults | grep -q 'packets [3-9]'; do sleep 0.01; done; \
         nft delete table bridge faults";
    cluster.node("sw").sh(drop).unwrap();
    let lost = ping.end().unwrap().lost;
    assert!(lost.len() >= 3, "{lost:?}");
}
