//! Which path a pair uses, proven by captured packets.

use integration::cluster::CONFIG;
use integration::watch::{Capture, Packets};

use crate::support::{Tunnel, cluster, ping, pod_of, pods, prove, settle, settled};

#[test]
fn two_nodes_in_one_subnet_are_native_at_full_size() {
    let (mut cluster, nodes, pairs) = settled("two-nodes", CONFIG);
    for pair in &pairs {
        assert_eq!((&*pair.path, &*pair.reason, pair.mtu), ("native", "bgp", 1500), "{pair:?}");
    }
    let pods = pods(&mut cluster, &nodes);
    let capture = Capture::begin(cluster.lab(), "n1", "eth1").unwrap();
    prove(&cluster, &nodes);
    ping(&cluster, &pods[0], &pods[1], false, 1472).unwrap();
    ping(&cluster, &pods[1], &pods[0], true, 1452).unwrap();
    let packets = capture.end(cluster.lab(), "192.0.2.2").unwrap();
    assert_eq!(packets.vxlan, Vec::<String>::new());
    for ipv6 in [false, true] {
        let (a, b) = (pods[0].address(ipv6).unwrap(), pods[1].address(ipv6).unwrap());
        assert!(Packets::between(&packets.native, a, b), "no native packet between {a} and {b}");
    }
}

#[test]
fn four_nodes_are_native_inside_and_tunnelled_between_subnets() {
    native_inside_and_tunnelled_between_subnets(Tunnel::Vxlan);
}

pub(crate) fn native_inside_and_tunnelled_between_subnets(tunnel: Tunnel) {
    let (mut cluster, nodes, pairs) = settled("four-nodes", &tunnel.config(""));
    let same_subnet =
        |a: &str, b: &str| matches!((a, b), ("n1" | "n2", "n1" | "n2") | ("n3" | "n4", "n3" | "n4"));
    for pair in &pairs {
        let wanted = if same_subnet(&pair.local, &pair.peer) {
            ("native", "bgp", 1500)
        } else {
            (tunnel.word(), "cross-subnet", tunnel.mtu())
        };
        assert_eq!((&*pair.path, &*pair.reason, pair.mtu), wanted, "{pair:?}");
    }
    let pods = pods(&mut cluster, &nodes);
    let capture = Capture::begin(cluster.lab(), "n1", "eth1").unwrap();
    prove(&cluster, &nodes);
    let packets = capture.end(cluster.lab(), "192.0.2.2").unwrap();
    let n1 = pod_of(&pods, "n1");
    for other in &pods[1..] {
        for ipv6 in [false, true] {
            let (a, b) = (n1.address(ipv6).unwrap(), other.address(ipv6).unwrap());
            let native = Packets::between(&packets.native, a, b);
            let (this_way, another) = tunnel.packets(&packets);
            let tunnelled = Packets::between(this_way, a, b);
            assert_eq!(another, [""; 0], "another tunnel was used");
            let wanted = same_subnet("n1", &other.node);
            assert_eq!((native, tunnelled), (wanted, !wanted), "n1 - {} ipv6 {ipv6}", other.node);
        }
    }
    // Nothing that should have been encapsulated came by the router.
    let rules = cluster.node("router").run(&["nft", "list", "table", "inet", "fabric"]).unwrap();
    assert_eq!(rules.matches("counter packets 0 bytes 0 drop").count(), 2, "{rules}");

    // What is too large for the tunnel is answered, what fits gets through.
    let n3 = pod_of(&pods, "n3");
    let mtu = tunnel.mtu();
    ping(&cluster, n1, n3, false, mtu - 28).unwrap();
    ping(&cluster, n1, n3, true, mtu - 48).unwrap();
    let err = ping(&cluster, n1, n3, false, 1472).unwrap_err();
    assert!(err.contains(&format!("mtu = {mtu}")) || err.contains(&format!("mtu={mtu}")), "{err}");
}

#[test]
fn a_node_with_a_32_is_in_nobodys_subnet() {
    let (mut cluster, nodes, pairs) = settled("three-subnets", CONFIG);
    for pair in &pairs {
        assert_eq!(pair.path, "vxlan", "{pair:?}");
        let ends = [&*pair.local, &*pair.peer];
        if pair.family == "ipv4" && ends.contains(&"n3") {
            assert_eq!(pair.reason, "host-prefix", "{pair:?}");
        }
    }
    pods(&mut cluster, &nodes);
    prove(&cluster, &nodes);
}

#[test]
fn a_policy_of_vxlan_alone_needs_no_sessions() {
    let config = format!("{CONFIG}paths: {{ sameSubnet: vxlan }}\n");
    let (mut cluster, nodes, pairs) = settled("two-nodes", &config);
    for pair in &pairs {
        assert_eq!((&*pair.path, &*pair.reason), ("vxlan", "same-subnet"), "{pair:?}");
    }
    assert_eq!(cluster.neighbors("n1").unwrap(), []);
    let pods = pods(&mut cluster, &nodes);
    let capture = Capture::begin(cluster.lab(), "n1", "eth1").unwrap();
    prove(&cluster, &nodes);
    let packets = capture.end(cluster.lab(), "192.0.2.2").unwrap();
    assert_eq!(packets.native, Vec::<String>::new());
    let (a, b) = (pods[0].address(false).unwrap(), pods[1].address(false).unwrap());
    assert!(Packets::between(&packets.vxlan, a, b));
}

#[test]
fn a_policy_of_direct_is_native_without_sessions() {
    let config = format!("{CONFIG}paths: {{ sameSubnet: direct }}\n");
    let (mut cluster, nodes, pairs) = settled("two-nodes", &config);
    for pair in &pairs {
        assert_eq!((&*pair.path, &*pair.reason), ("native", "direct"), "{pair:?}");
    }
    assert_eq!(cluster.neighbors("n1").unwrap(), []);
    let pods = pods(&mut cluster, &nodes);
    let capture = Capture::begin(cluster.lab(), "n1", "eth1").unwrap();
    prove(&cluster, &nodes);
    let packets = capture.end(cluster.lab(), "192.0.2.2").unwrap();
    assert_eq!(packets.vxlan, Vec::<String>::new());
    let (a, b) = (pods[0].address(false).unwrap(), pods[1].address(false).unwrap());
    assert!(Packets::between(&packets.native, a, b));
}

#[test]
fn a_rule_overrules_the_subnet() {
    let rule =
        "paths:\n  rules:\n    - { between: [{ cidr: 192.0.2.1/32 }, { cidr: 192.0.2.2/32 }], use: vxlan }\n";
    let mut cluster = cluster("two-nodes", &format!("{CONFIG}{rule}"));
    let nodes = cluster.start_all().unwrap();
    for pair in settle(&cluster, &nodes) {
        assert_eq!((&*pair.path, &*pair.reason), ("vxlan", "rule"), "{pair:?}");
    }
}
