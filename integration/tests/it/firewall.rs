//! Masquerade and guard between real kernels: what leaves the cluster is translated and nothing else is, and our tunnel
//! takes nothing from strangers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use integration::cluster::{CONFIG, Cluster, Pod};
use integration::echo::{self, Answer};
use integration::eventually::{eventually, timed};
use integration::lab::Running;
use integration::watch::Ping;
use nix::sys::signal::Signal;

use crate::support::{SETTLE, pod_of, pods, prove, settled, uninstall};

/// The router, which is no node: the outside.
const OUTSIDE: [&str; 2] = ["192.0.2.254", "2001:db8:a::254"];
/// The addresses of n1, which it shows there.
const NODE: [&str; 2] = ["192.0.2.1", "2001:db8:a::1"];

/// Something outside that says whose address it sees, until it is dropped; with a way back to the pods, so that also
/// those who show their own address are answered.
fn outside(cluster: &Cluster, pod: &Pod) -> Running {
    let routes: Vec<String> = pod
        .addresses
        .iter()
        .zip(NODE)
        .map(|(address, node)| format!("ip route replace {address} via {node}"))
        .collect();
    cluster.node("router").sh(&routes.join("; ")).unwrap();
    let program = cluster.programs().lab.to_string_lossy().into_owned();
    let log = cluster.lab().folder().join("respond-router.log");
    let responder =
        cluster.node("router").start(&[&program, "respond", OUTSIDE[0], OUTSIDE[1]], &log).unwrap();
    eventually("the outside to listen", SETTLE, || {
        let text = std::fs::read_to_string(&log).map_err(|err| err.to_string())?;
        if text.contains(echo::READY) { Ok(()) } else { Err(text) }
    })
    .unwrap();
    responder
}

/// Whose address the outside sees, over UDP and TCP and both families.
fn seen(cluster: &Cluster, pod: &Pod) -> Vec<String> {
    let program = cluster.programs().lab.to_string_lossy().into_owned();
    let text = cluster.run_in_pod(pod, &[&program, "probe", OUTSIDE[0], OUTSIDE[1]]).unwrap();
    let answers: Vec<Answer> = serde_json::from_str(&text).unwrap();
    let mut seen: Vec<String> = answers
        .into_iter()
        .map(|answer| answer.seen.map_or_else(|error| error, |address| address.to_string()))
        .collect();
    seen.dedup();
    seen
}

pub(crate) fn configured(cluster: &Cluster, node: &str, more: &str) {
    cluster.configure(node, &format!("{CONFIG}{more}")).unwrap();
}

fn until(cluster: &Cluster, pod: &Pod, expected: [String; 2], what: &str) {
    eventually(what, SETTLE, || {
        let mut seen = seen(cluster, pod);
        seen.sort();
        let mut expected = expected.clone();
        expected.sort();
        if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .unwrap();
}

pub(crate) fn status_has(cluster: &Cluster, node: &str, kind: &str, wanted: bool) {
    eventually(&format!("{kind} {wanted}"), SETTLE, || {
        let status = cluster.status(node).map_err(|err| err.to_string())?;
        if status.conditions.iter().any(|it| it.kind == kind) == wanted {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .unwrap();
}

#[test]
fn what_leaves_the_cluster_has_the_nodes_address_and_nothing_else_has() {
    let (mut cluster, nodes, _) = settled("four-nodes", CONFIG);
    let pods = pods(&mut cluster, &nodes);
    let pod = pod_of(&pods, "n1");
    let _outside = outside(&cluster, pod);
    let node = NODE.map(str::to_owned);
    until(&cluster, pod, node.clone(), "the node's address outside");
    // Pods, nodes, and pods and nodes see each other's own addresses, native and tunnelled.
    prove(&cluster, &nodes);

    // The file is taken over while the agent runs.
    let own = [false, true].map(|ipv6| pod.address(ipv6).unwrap().to_string());
    configured(&cluster, "n1", "masquerade: { enabled: false }\n");
    until(&cluster, pod, own.clone(), "the pod's address outside");
    configured(&cluster, "n1", &format!("masquerade: {{ exclude: [{}/32] }}\n", OUTSIDE[0]));
    until(&cluster, pod, [own[0].clone(), node[1].clone()], "the pod's address where it is excluded");
    configured(&cluster, "n1", "");
    until(&cluster, pod, node, "the node's address again");
    prove(&cluster, &nodes);
}

#[test]
fn a_flushed_ruleset_is_back_at_once_and_goes_with_uninstall() {
    let (mut cluster, nodes, _) = settled("four-nodes", CONFIG);
    let pods = pods(&mut cluster, &nodes);
    let pod = pod_of(&pods, "n1");
    let _outside = outside(&cluster, pod);
    cluster.node("n1").sh("nft add table inet other; nft add chain inet other c").unwrap();
    let table = |cluster: &Cluster| {
        cluster.node("n1").sh("nft -s list table inet pairway 2>/dev/null || true").unwrap()
    };
    let before = table(&cluster);
    assert!(before.contains("masquerade") && before.contains("drop"), "{before}");
    for damage in
        ["nft flush ruleset", "nft delete table inet pairway", "nft flush chain inet pairway postrouting"]
    {
        let ((), took) = timed(|| {
            cluster.node("n1").sh(damage).unwrap();
            eventually(damage, SETTLE, || {
                let now = table(&cluster);
                if now == before { Ok(()) } else { Err(now) }
            })
            .unwrap();
        });
        // Far below the audit's 30 s: a notification has told.
        assert!(took < Duration::from_secs(3), "{damage}: {took:?}");
    }
    until(&cluster, pod, NODE.map(str::to_owned), "masquerading after the repair");

    cluster.node("n1").sh("nft add table inet other; nft add chain inet other c").unwrap();
    cluster.stop("n1", Signal::SIGTERM).unwrap();
    assert_eq!(table(&cluster), before, "it stays when the agent ends");
    uninstall(&cluster, "n1");
    let tables = cluster.node("n1").sh("nft list tables").unwrap();
    assert!(!tables.contains("pairway") && tables.contains("other"), "{tables}");
}

/// Connections begin all the time while the table is written anew: a moment without it would show a pod's address.
#[test]
fn the_table_is_replaced_without_a_moment_without_it() {
    let (mut cluster, nodes, _) = settled("four-nodes", CONFIG);
    let pods = pods(&mut cluster, &nodes);
    let (pod, other) = (pod_of(&pods, "n1"), pod_of(&pods, "n3"));
    let _outside = outside(&cluster, pod);
    until(&cluster, pod, NODE.map(str::to_owned), "the node's address outside");
    let ping = Ping::begin(&cluster, pod, other.address(false).unwrap(), Duration::from_millis(1)).unwrap();
    let over = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut rounds = Vec::new();
            while !over.load(Ordering::Relaxed) {
                rounds.push(seen(&cluster, pod));
            }
            rounds
        });
        for round in 0..20 {
            let exclude = format!("203.0.113.{}", 100 + round);
            configured(&cluster, "n1", &format!("masquerade: {{ exclude: [{exclude}/32] }}\n"));
            eventually("the new table", SETTLE, || {
                let table =
                    cluster.node("n1").sh("nft list table inet pairway").map_err(|err| err.to_string())?;
                if table.contains(&exclude) { Ok(()) } else { Err(table) }
            })
            .unwrap();
        }
        over.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    assert!(rounds.len() > 10, "only {} rounds of questions", rounds.len());
    for round in rounds {
        assert!(round.iter().all(|address| NODE.contains(&address.as_str())), "{round:?}");
    }
    let result = ping.end_after(1000).unwrap();
    assert_eq!(result.lost, Vec::<u64>::new(), "of {}", result.sent);
}

/// Packets that a device has received.
pub(crate) fn received(cluster: &Cluster, node: &str, device: &str) -> u64 {
    let path = format!("cat /sys/class/net/{device}/statistics/rx_packets");
    cluster.node(node).sh(&path).unwrap().trim().parse().unwrap()
}

pub(crate) fn dropped(cluster: &Cluster, node: &str) -> u64 {
    let text = cluster.node(node).sh("nft -j list chain inet pairway guard").unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rules =
        json["nftables"].as_array().unwrap().iter().filter_map(|item| item["rule"]["expr"].as_array());
    rules.flatten().filter_map(|step| step["counter"]["packets"].as_u64()).sum()
}

#[test]
fn the_tunnel_takes_nothing_from_strangers() {
    let (mut cluster, nodes, _) = settled("four-nodes", CONFIG);
    pods(&mut cluster, &nodes);
    // A device of others with another number on our port, on the node and on the stranger.
    cluster.node("n1").sh("ip link add other type vxlan id 4097 dstport 4789 local 192.0.2.1 dev eth1; ip link set other up").unwrap();
    let stranger = |id: u32, port: u16| {
        let device = format!("vx{id}");
        // Broadcasts of its own making: ARP for an address that nobody has.
        let script = format!(
            "ip link add {device} type vxlan id {id} dstport {port} local 192.0.2.254 remote 192.0.2.1 dev eth1; \
             ip link set {device} up; ip addr add 10.77.{}.1/24 dev {device}; \
             ping -c 3 -i 0.2 -W 1 10.77.{}.2 >/dev/null 2>&1 || true; ip link del {device}",
            id % 200,
            id % 200
        );
        cluster.node("router").sh(&script).unwrap();
    };
    let (before, drops) = (received(&cluster, "n1", "pairway-vx4"), dropped(&cluster, "n1"));
    stranger(4096, 4789);
    assert!(dropped(&cluster, "n1") > drops, "the guard has counted");
    assert_eq!(received(&cluster, "n1", "pairway-vx4"), before, "nothing came through");
    let metrics = "exec 3<>/dev/tcp/127.0.0.1/9474; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    eventually("the drops to be counted in the metrics", SETTLE, || {
        let text = cluster.node("n1").run(&["bash", "-c", metrics]).map_err(|err| err.to_string())?;
        let count = text.lines().find_map(|line| line.strip_prefix("pairway_tunnel_guard_drops_total "));
        if count.is_some_and(|count| count != "0") { Ok(()) } else { Err(format!("{count:?}")) }
    })
    .unwrap();

    // Others' packets on the same port are none of our business.
    let (others, drops) = (received(&cluster, "n1", "other"), dropped(&cluster, "n1"));
    stranger(4097, 4789);
    assert!(received(&cluster, "n1", "other") > others, "another VNI passes");
    assert_eq!(dropped(&cluster, "n1"), drops);
    // Nodes' packets come through: the proof goes over the tunnel to n3 and n4.
    prove(&cluster, &nodes);
    assert_eq!(dropped(&cluster, "n1"), drops);

    // The control: without the guard the stranger's packets do come through.
    configured(&cluster, "n1", "vxlan: { guard: false }\n");
    eventually("the guard to go", SETTLE, || {
        let table = cluster.node("n1").sh("nft list table inet pairway").map_err(|err| err.to_string())?;
        if table.contains("chain guard") { Err(table) } else { Ok(()) }
    })
    .unwrap();
    let before = received(&cluster, "n1", "pairway-vx4");
    stranger(4096, 4789);
    assert!(received(&cluster, "n1", "pairway-vx4") > before, "nothing stops it now");
}

#[test]
fn a_node_that_joins_is_known_and_one_that_leaves_is_a_stranger() {
    let (mut cluster, _, _) = settled("four-nodes", CONFIG);
    let knows = |cluster: &Cluster, address: &str| {
        cluster
            .node("n1")
            .sh(&format!(
                "nft get element inet pairway nodes4 '{{ {address} }}' >/dev/null 2>&1 && echo yes || echo no"
            ))
            .unwrap()
            .trim()
            == "yes"
    };
    assert!(knows(&cluster, "198.51.100.3") && knows(&cluster, "192.0.2.1"));
    assert!(!knows(&cluster, "198.51.100.5"));
    configured(&cluster, "n5", "");
    cluster.start("n5").unwrap();
    eventually("n5 to be known", SETTLE, || if knows(&cluster, "198.51.100.5") { Ok(()) } else { Err("no") })
        .unwrap();
    cluster.stop("n5", Signal::SIGTERM).unwrap();
    assert!(knows(&cluster, "198.51.100.5"), "an agent that ends is a node still");
    uninstall(&cluster, "n5");
    eventually("n5 to be forgotten", SETTLE, || {
        if knows(&cluster, "198.51.100.5") { Err("yes") } else { Ok(()) }
    })
    .unwrap();
    assert!(knows(&cluster, "198.51.100.3"));
}

#[test]
fn drops_of_others_in_forward_are_reported_with_what_mends_them() {
    let (mut cluster, nodes, _) = settled("two-nodes", CONFIG);
    let pods = pods(&mut cluster, &nodes);
    let (n1, n2) = (pod_of(&pods, "n1"), pod_of(&pods, "n2"));
    status_has(&cluster, "n1", "ForwardDropped", false);
    cluster.node("n1").sh("iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP").unwrap();
    status_has(&cluster, "n1", "ForwardDropped", true);
    assert!(crate::support::ping(&cluster, n1, n2, false, 56).is_err(), "it really drops");
    let status = cluster.status("n1").unwrap();
    let messages: Vec<String> =
        status.conditions.into_iter().filter(|it| it.kind == "ForwardDropped").map(|it| it.message).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    for message in messages {
        let remedy = message.split_once("for a try: ").unwrap().1;
        cluster.node("n1").sh(remedy).unwrap();
    }
    crate::support::ping(&cluster, n1, n2, false, 56).unwrap();
    crate::support::ping(&cluster, n1, n2, true, 56).unwrap();
}

#[test]
fn a_restart_says_nothing_to_nftables() {
    let (mut cluster, nodes, _) = settled("two-nodes", CONFIG);
    pods(&mut cluster, &nodes);
    let log = cluster.lab().folder().join("nft-monitor.log");
    let _monitor = cluster.node("n1").start(&["nft", "monitor"], &log).unwrap();
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    let planted = |cluster: &Cluster, name: &str| {
        eventually("the planted table to be seen", SETTLE, || {
            cluster
                .node("n1")
                .sh(&format!("nft add table ip {name}; nft delete table ip {name}"))
                .map_err(|err| err.to_string())?;
            let text = text();
            if text.contains(name) { Ok(text.len()) } else { Err(text) }
        })
        .unwrap()
    };
    let begin = planted(&cluster, "begin");
    cluster.stop("n1", Signal::SIGKILL).unwrap();
    cluster.start("n1").unwrap();
    eventually("the new agent to be ready", SETTLE, || {
        let status = cluster.status("n1").map_err(|err| err.to_string())?;
        // The old one has ended: whoever answers is the new one.
        if status.ready { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .unwrap();
    planted(&cluster, "end");
    let heard = text()[begin..].to_owned();
    assert!(heard.contains("end") && !heard.contains("pairway"), "{heard}");
    // The control: a change of ours is heard.
    configured(&cluster, "n1", "masquerade: { enabled: false }\n");
    eventually("our change to be heard", SETTLE, || {
        let heard = text()[begin..].to_owned();
        if heard.contains("pairway") { Ok(()) } else { Err(heard) }
    })
    .unwrap();
}
