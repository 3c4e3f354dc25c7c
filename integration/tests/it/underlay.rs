//! The world changes under the nodes: addresses, prefixes, interfaces, blocks; with an agent that sees it and without.

use integration::cluster::{CONFIG, Cluster};
use integration::eventually::eventually;
use integration::watch::{Monitor, about_us};
use nix::sys::signal::Signal;

use crate::support::{SETTLE, kernel, pods, prove, settle, settled};

/// A whole look by a new agent finds nothing to add, nothing to change and nothing that was left over. What is planted
/// while none runs is: it does look.
fn nothing_is_stale(cluster: &mut Cluster, nodes: &[String], of: &[&str]) {
    for node in of {
        let before = kernel(cluster, node);
        cluster.stop(node, Signal::SIGTERM).unwrap();
        let plant = "ip route add unreachable 10.244.250.0/24 proto 112 metric 1120";
        cluster.node(node).sh(plant).unwrap();
        let planted = kernel(cluster, node);
        assert_eq!(planted.difference(&before).count(), 1, "{planted:#?}");
        let monitor = Monitor::begin(cluster.lab(), node, "cni0").unwrap();
        cluster.start(node).unwrap();
        settle(cluster, nodes);
        eventually("what was planted to go", SETTLE, || {
            let now = kernel(cluster, node);
            if now == before { Ok(()) } else { Err(format!("{:#?}", now.symmetric_difference(&before))) }
        })
        .unwrap();
        let events = monitor.end(cluster.lab(), "cni0").unwrap();
        let events = about_us(&events);
        assert!(events.iter().all(|event| event.contains("10.244.250.0/24")), "{node}: {events:#?}");
        assert!(!events.is_empty(), "{node}: the end of what was planted was not heard");
    }
}

/// Waits for what a node says of its pair.
fn pair_is(cluster: &Cluster, node: &str, peer: &str, path: &str, reason: &str) {
    eventually("the pair", SETTLE, || {
        let pair = cluster.pair(node, peer, "ipv4").map_err(|err| err.to_string())?;
        let is = pair.ready && pair.path == path && pair.reason == reason;
        if is { Ok(()) } else { Err(format!("{pair:?}")) }
    })
    .unwrap();
}

fn underlay_is(cluster: &Cluster, node: &str, interface: &str) {
    eventually("the underlay", SETTLE, || {
        let status = cluster.status(node).map_err(|err| err.to_string())?;
        let is = status.ready && status.underlay_interface.as_deref() == Some(interface);
        if is { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .unwrap();
}

/// As clouds give addresses: the gateway is reached by a route of its own.
const HOST_PREFIX: &str = "ip addr del 192.0.2.2/24 dev eth1; ip addr add 192.0.2.2/32 dev eth1; \
    ip route replace 192.0.2.254 dev eth1; ip route replace default via 192.0.2.254";
const SUBNET: &str = "ip addr del 192.0.2.2/32 dev eth1; ip addr add 192.0.2.2/24 dev eth1; \
    ip route replace default via 192.0.2.254";

#[test]
fn a_peer_leaves_our_subnet_and_comes_back_with_another_card() {
    let (mut cluster, nodes, _) = settled("four-nodes", CONFIG);
    pods(&mut cluster, &nodes);
    cluster.node("n2").sh(HOST_PREFIX).unwrap();
    for (node, peer) in [("n1", "n2"), ("n2", "n1")] {
        pair_is(&cluster, node, peer, "vxlan", "host-prefix");
    }
    settle(&cluster, &nodes);
    prove(&cluster, &nodes);

    cluster.node("n2").sh(SUBNET).unwrap();
    let card = "ip link set eth1 down; ip link set eth1 address 02:00:00:00:22:22; ip link set eth1 up; \
        ip addr replace 2001:db8:a::2/64 dev eth1 nodad; ip route replace default via 192.0.2.254; \
        ip -6 route replace default via 2001:db8:a::254";
    cluster.node("n2").sh(card).unwrap();
    // Who spoke with the old card finds that it is gone within seconds; a driver that announces itself spares them that.
    for node in ["n1", "router"] {
        cluster.node(node).sh("ip neigh flush dev eth1; ip -6 neigh flush dev eth1").unwrap();
    }
    for (node, peer) in [("n1", "n2"), ("n2", "n1")] {
        pair_is(&cluster, node, peer, "native", "bgp");
    }
    settle(&cluster, &nodes);
    prove(&cluster, &nodes);
    nothing_is_stale(&mut cluster, &nodes, &["n1", "n2"]);
}

#[test]
fn what_changes_while_an_agent_is_away_is_right_when_it_is_back() {
    let (mut cluster, nodes, _) = settled("four-nodes", CONFIG);
    let block = cluster.status("n4").unwrap().blocks.into_iter().find(|block| block.contains('.')).unwrap();
    cluster.stop("n1", Signal::SIGKILL).unwrap();
    // One node leaves the subnet, one has another address, one another block.
    cluster.node("n2").sh(HOST_PREFIX).unwrap();
    let renumber = "ip addr del 198.51.100.3/24 dev eth1; ip addr add 198.51.100.33/24 dev eth1; \
        ip route replace default via 198.51.100.254";
    cluster.node("n3").sh(renumber).unwrap();
    let program = cluster.programs().pairway.to_string_lossy().into_owned();
    cluster.node("n4").run(&[&program, "blocks", "release", &block, "--force"]).unwrap();
    let others = &nodes[1..];
    eventually("the others to know", SETTLE, || {
        let pairs = others.iter().map(|node| cluster.pairs(node)).collect::<Result<Vec<_>, _>>();
        let pairs = pairs.map_err(|err| err.to_string())?.concat();
        let old = pairs.iter().find(|pair| {
            pair.peer != "n1" && (pair.underlay.peer == "198.51.100.3" || pair.blocks.contains(&block))
        });
        let blocks = cluster.status("n4").map_err(|err| err.to_string())?.blocks;
        match old {
            None if blocks.len() == 2 && !blocks.contains(&block) => Ok(()),
            _ => Err(format!("{old:?} {blocks:?}")),
        }
    })
    .unwrap();
    let is_old = |line: &&String| {
        let words = || line.split([' ', '/']);
        words().any(|word| word == "198.51.100.3") || line.contains(&format!("{block} "))
    };
    let stale = kernel(&cluster, "n1");
    assert!(stale.iter().filter(is_old).count() > 1, "nobody was there to mend it: {stale:#?}");

    cluster.start("n1").unwrap();
    pair_is(&cluster, "n1", "n2", "vxlan", "host-prefix");
    settle(&cluster, &nodes);
    eventually("nothing old to be left", SETTLE, || {
        let now = kernel(&cluster, "n1");
        let old: Vec<&String> = now.iter().filter(is_old).collect();
        if old.is_empty() { Ok(()) } else { Err(format!("{old:#?}")) }
    })
    .unwrap();
    pods(&mut cluster, &nodes);
    prove(&cluster, &nodes);
    nothing_is_stale(&mut cluster, &nodes, &["n1"]);
}

#[test]
fn the_own_underlay_is_renamed_and_replaced_and_a_lease_renewed() {
    let (mut cluster, nodes, _) = settled("four-nodes", CONFIG);
    pods(&mut cluster, &nodes);
    cluster.node("n1").sh("ip link set eth1 name ens7").unwrap();
    underlay_is(&cluster, "n1", "ens7");
    settle(&cluster, &nodes);
    prove(&cluster, &nodes);

    let replace = "ip link add link ens7 name eth9 type macvlan mode bridge; ip addr flush dev ens7; \
        ip link set eth9 up; ip addr add 192.0.2.1/24 dev eth9; ip addr add 2001:db8:a::1/64 dev eth9 nodad; \
        ip route replace default via 192.0.2.254; ip -6 route replace default via 2001:db8:a::254";
    cluster.node("n1").sh(replace).unwrap();
    underlay_is(&cluster, "n1", "eth9");
    settle(&cluster, &nodes);
    prove(&cluster, &nodes);

    // As a DHCP client does it again and again: the address stays, its time begins anew.
    let before = kernel(&cluster, "n1");
    let monitor = Monitor::begin(cluster.lab(), "n1", "ens7").unwrap();
    for _ in 0..3 {
        let renew = "ip addr change 192.0.2.1/24 dev eth9 valid_lft 3600 preferred_lft 3600";
        cluster.node("n1").sh(renew).unwrap();
    }
    let events = monitor.end(cluster.lab(), "ens7").unwrap();
    assert!(events.iter().any(|event| event.contains("192.0.2.1/24")), "the renewal was seen: {events:?}");
    assert_eq!(about_us(&events), Vec::<&str>::new());
    assert_eq!(kernel(&cluster, "n1"), before);
    nothing_is_stale(&mut cluster, &nodes, &["n1"]);
}
