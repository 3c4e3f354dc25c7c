//! Agents that are started anew, node after node, under traffic.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use integration::cluster::Programs;
use integration::echo;
use integration::eventually::eventually;
use integration::kubernetes::Kubernetes;
use integration::lab::Running;
use integration::stream::Streamed;

use super::{LIMIT, agents, echo_pods, pods};
use crate::support::AtEnd;

/// Datagrams a second.
const RATE: &str = "1000";

/// Seconds of one stream; they follow each other at once for as long as the rollout takes.
const SECONDS: &str = "5";

/// Who sends to whom: by BGP and through the tunnel; every node is an end of some.
const PAIRS: [(&str, &str); 4] = [("n1", "n2"), ("n1", "n3"), ("n4", "n2"), ("n4", "n3")];

/// A command line of `lab` in the network of a node's echo pod.
fn in_pod(cluster: &Kubernetes, node: &str, arguments: &[&str]) -> Vec<String> {
    let lab = Programs::built().unwrap().lab.canonicalize().unwrap();
    let process = pods::process(cluster, node);
    let words = ["nsenter", "--target", &process, "--net", "--", lab.to_str().unwrap()];
    words.iter().chain(arguments).map(|word| (*word).to_owned()).collect()
}

/// Answers in a node's echo pod; it ends with the value.
fn respond(cluster: &Kubernetes, node: &str, address: &str) -> Running {
    let words = in_pod(cluster, node, &["respond", address]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let log = cluster.lab().folder().join(format!("{node}.respond.log"));
    let running = cluster.lab().node(node).start(&words, &log).unwrap();
    eventually("the responder to listen", LIMIT, || {
        let said = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        if said.contains(echo::READY) { Ok(()) } else { Err(said) }
    })
    .unwrap();
    running
}

/// Sends from the echo pod of a node for some seconds.
fn stream(cluster: &Kubernetes, from: &str, to: &str, seconds: &str) -> Streamed {
    let flags = ["stream", to, "--seconds", seconds, "--udp", RATE, "--bytes", "100"];
    let words = in_pod(cluster, from, &flags);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = cluster.lab().node(from).run(&words).unwrap();
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Datagrams that the sockets of all echo pods have thrown away, for their programs were late: a busy machine's loss, and
/// not the network's.
fn thrown_away(cluster: &Kubernetes) -> u64 {
    let of = |node: &String| {
        let line = format!("nsenter --target {} --net -- cat /proc/net/snmp", pods::process(cluster, node));
        let text = cluster.lab().node(node).sh(&line).unwrap();
        let mut udp = text.lines().filter_map(|line| line.strip_prefix("Udp: ")).map(str::split_whitespace);
        let (names, values) = (udp.next().unwrap(), udp.next().unwrap());
        let errors = names.zip(values).filter(|(name, _)| ["RcvbufErrors", "SndbufErrors"].contains(name));
        errors.map(|(_, value)| value.parse::<u64>().unwrap()).sum::<u64>()
    };
    cluster.nodes().iter().map(of).sum()
}

pub(crate) fn a_rolling_restart_loses_no_packet(cluster: &mut Kubernetes) {
    let cluster = &*cluster;
    loses_no_packet(cluster, || {
        cluster.kubectl(&["-n", "pairway", "rollout", "restart", "daemonset/pairway"]).unwrap();
    });
    the_same_traffic_shows_a_loss(cluster);
}

/// Sends between pods while the agents of all nodes are replaced, which `change` asks for: none of it is lost.
pub(crate) fn loses_no_packet(cluster: &Kubernetes, change: impl FnOnce()) {
    let nodes = cluster.nodes();
    agents::settled(cluster, &nodes);
    let before: Vec<String> = nodes.iter().map(|node| agents::process(cluster, node).unwrap()).collect();
    let pods = echo_pods(cluster);
    let address = |node: &str| pods.iter().find(|pod| pod.node == node).unwrap().addresses[0].to_string();
    let _responders = ["n2", "n3"].map(|node| respond(cluster, node, &address(node)));

    let thrown_before = thrown_away(cluster);
    let over = AtomicBool::new(false);
    let streamed: Vec<Streamed> = thread::scope(|scope| {
        let streams = PAIRS.map(|(from, to)| {
            let (to, over) = (address(to), &over);
            scope.spawn(move || {
                let mut sum = Streamed::default();
                // What was begun before the end of the rollout is counted to its own end.
                while !over.load(Ordering::Relaxed) {
                    let one = stream(cluster, from, &to, SECONDS);
                    sum.sent += one.sent;
                    sum.arrived += one.arrived;
                }
                sum
            })
        });
        // Also when it fails.
        let end = AtEnd(&over);
        change();
        cluster.rolled_out("pairway", "daemonset/pairway").unwrap();
        agents::settled(cluster, &nodes);
        drop(end);
        streams.into_iter().map(|stream| stream.join().unwrap()).collect()
    });
    for (node, before) in nodes.iter().zip(&before) {
        assert_ne!(&agents::process(cluster, node).unwrap(), before, "{node} has a new agent");
    }
    for ((from, to), streamed) in PAIRS.iter().zip(&streamed) {
        assert!(streamed.sent >= 4_000, "{from} to {to}: {streamed:?}");
    }
    let thrown = thrown_away(cluster) - thrown_before;
    let lost: u64 = streamed.iter().map(Streamed::lost).sum();
    assert!(lost <= thrown, "{lost} were lost, sockets threw {thrown} away: {streamed:?} of {PAIRS:?}");
}

/// What a rollout is measured with does see what is lost.
fn the_same_traffic_shows_a_loss(cluster: &Kubernetes) {
    let target =
        echo_pods(cluster).into_iter().find(|pod| pod.node == "n2").unwrap().addresses[0].to_string();
    let _responder = respond(cluster, "n2", &target);
    let thrown_before = thrown_away(cluster);
    let node = cluster.lab().node("n2");
    node.sh(
        "nft add table inet fault; nft add chain inet fault forward '{ type filter hook forward priority 0; }'; \
         nft add rule inet fault forward udp dport 7007 numgen random mod 100 '<' 5 drop",
    )
    .unwrap();
    let lossy = stream(cluster, "n1", &target, "1");
    node.sh("nft delete table inet fault").unwrap();
    let thrown = thrown_away(cluster) - thrown_before;
    assert!(lossy.lost() > thrown, "{lossy:?}, {thrown} thrown away");
}
