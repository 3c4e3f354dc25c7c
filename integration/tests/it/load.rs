//! A pair's path changes under load: what is lost is compared with as long a run without a change.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use integration::cluster::{CONFIG, Cluster, Pod};
use integration::echo::READY;
use integration::eventually::eventually;
use integration::stream::Streamed;
use integration::watch::Ping;

use crate::support::{SETTLE, pods, settled};

/// How long streams run: two changes of path take about a second each.
const RUN: u64 = 6;

/// Datagrams a second, and their size: they fit into the tunnel.
const RATE: u32 = 500;

/// MTU of pods whose packets fit into a VXLAN tunnel over 1500 bytes.
const FITTING: u32 = 1450;

fn tunnelled() -> String {
    format!("{CONFIG}paths: {{ sameSubnet: vxlan }}\n")
}

/// Both ends on this policy, and both families of the pair on its path.
fn switch(cluster: &Cluster, nodes: &[String], config: &str, path: &str) {
    for node in nodes {
        cluster.configure(node, config).unwrap();
    }
    eventually("the path", SETTLE, || {
        let pairs = nodes.iter().map(|node| cluster.pairs(node)).collect::<Result<Vec<_>, _>>();
        let pairs = pairs.map_err(|err| err.to_string())?.concat();
        let there = pairs.iter().filter(|pair| pair.ready && pair.path == path).count();
        if there == 4 { Ok(()) } else { Err(format!("{pairs:?}")) }
    })
    .unwrap();
}

fn there_and_back(cluster: &Cluster, nodes: &[String]) {
    switch(cluster, nodes, &tunnelled(), "vxlan");
    switch(cluster, nodes, CONFIG, "native");
}

/// The second pod takes streams and answers datagrams.
fn listen(cluster: &Cluster, pod: &Pod) {
    let lab = cluster.programs().lab.to_string_lossy().into_owned();
    let addresses: Vec<String> = pod.addresses.iter().map(IpAddr::to_string).collect();
    for command in ["sink", "respond"] {
        let log = cluster.lab().folder().join(format!("{command}.log"));
        let mut words = vec!["ip", "netns", "exec", &pod.name, &lab, command];
        words.extend(addresses.iter().map(String::as_str));
        // It ends with its node.
        cluster.node(&pod.node).start(&words, &log).unwrap().leave();
        eventually("a listener", SETTLE, || {
            let text = std::fs::read_to_string(&log).map_err(|err| err.to_string())?;
            if text.contains(READY) { Ok(()) } else { Err(text) }
        })
        .unwrap();
    }
}

fn stream(cluster: &Cluster, from: &Pod, target: IpAddr, more: &[&str]) -> Streamed {
    let lab = cluster.programs().lab.to_string_lossy().into_owned();
    let (target, seconds) = (target.to_string(), RUN.to_string());
    let words = [&[&*lab, "stream", &target, "--seconds", &seconds], more].concat();
    serde_json::from_str(&cluster.run_in_pod(from, &words).unwrap()).unwrap()
}

/// TCP segments that a pod has sent again so far.
fn retransmitted(cluster: &Cluster, pod: &Pod) -> u64 {
    let text = cluster.run_in_pod(pod, &["cat", "/proc/net/snmp"]).unwrap();
    let mut tcp = text.lines().filter(|line| line.starts_with("Tcp: ")).map(|line| line.split(' '));
    let (mut names, mut values) = (tcp.next().unwrap(), tcp.next().unwrap());
    let index = names.position(|name| name == "RetransSegs").unwrap();
    values.nth(index).unwrap().parse().unwrap()
}

/// What one run has shown.
#[derive(Debug)]
struct Run {
    /// By family.
    tcp: Vec<Streamed>,
    udp: Vec<Streamed>,
    retransmitted: u64,
}

impl Run {
    fn lost(&self) -> u64 {
        self.udp.iter().map(Streamed::lost).sum()
    }
}

/// Streams by TCP and UDP over both families, while something is done.
fn run(cluster: &Cluster, pods: &[Pod], meanwhile: impl FnOnce()) -> Run {
    let before = retransmitted(cluster, &pods[0]);
    let rate = RATE.to_string();
    let protocols: [&[&str]; 2] = [&[], &["--udp", &rate]];
    let (tcp, udp) = thread::scope(|scope| {
        let mut running = Vec::new();
        for more in protocols {
            for ipv6 in [false, true] {
                let target = pods[1].address(ipv6).unwrap();
                running.push(scope.spawn(move || stream(cluster, &pods[0], target, more)));
            }
        }
        thread::sleep(Duration::from_secs(1));
        meanwhile();
        let mut streamed: Vec<Streamed> = running.into_iter().map(|run| run.join().unwrap()).collect();
        let udp = streamed.split_off(2);
        (streamed, udp)
    });
    Run { tcp, udp, retransmitted: retransmitted(cluster, &pods[0]) - before }
}

/// Nothing gets through to the second node's pods for a moment: the control that a loss is seen.
fn cut(cluster: &Cluster, pod: &Pod) {
    let cut = "nft add table inet cut; nft 'add chain inet cut forward { type filter hook forward priority 0; policy drop; }'; \
        sleep 0.3; nft delete table inet cut";
    cluster.node(&pod.node).sh(cut).unwrap();
}

fn set_mtu(cluster: &Cluster, pods: &[Pod], mtu: u32) {
    for pod in pods {
        cluster.run_in_pod(pod, &["ip", "link", "set", "eth0", "mtu", &mtu.to_string()]).unwrap();
    }
}

#[test]
fn a_switch_loses_no_packet_of_a_ping_at_1_khz() {
    let (mut cluster, nodes, _) = settled("two-nodes", CONFIG);
    let pods = pods(&mut cluster, &nodes);
    let pings = [false, true].map(|ipv6| {
        Ping::begin(&cluster, &pods[0], pods[1].address(ipv6).unwrap(), Duration::from_millis(1)).unwrap()
    });
    for _ in 0..8 {
        there_and_back(&cluster, &nodes);
    }
    for ping in pings {
        let result = ping.end().unwrap();
        assert!(result.sent > 500, "{result:?}");
        assert_eq!(result.lost, Vec::<u64>::new(), "of {}", result.sent);
    }
    let control =
        Ping::begin(&cluster, &pods[0], pods[1].address(false).unwrap(), Duration::from_millis(1)).unwrap();
    cut(&cluster, &pods[1]);
    assert!(!control.end().unwrap().lost.is_empty(), "a loss would have been seen");
}

#[test]
fn a_switch_under_load_loses_no_more_than_a_run_without_one() {
    let (mut cluster, nodes, _) = settled("two-nodes", CONFIG);
    let pods = pods(&mut cluster, &nodes);
    listen(&cluster, &pods[1]);

    // Packets that fit into both paths.
    set_mtu(&cluster, &pods, FITTING);
    let control = run(&cluster, &pods, || ());
    let switched = run(&cluster, &pods, || there_and_back(&cluster, &nodes));
    let all_arrived = |run: &Run| run.tcp.iter().all(|tcp| tcp.sent > 1_000_000 && tcp.lost() == 0);
    assert!(all_arrived(&control) && all_arrived(&switched), "{control:?} {switched:?}");
    assert!(control.udp.iter().all(|udp| udp.sent > 1000), "{control:?}");
    assert!(switched.lost() <= control.lost(), "{switched:?}, and without a switch {control:?}");

    // Full ones: the tunnel's smaller MTU is told to the senders, and TCP goes on.
    set_mtu(&cluster, &pods, 1500);
    let full = run(&cluster, &pods, || there_and_back(&cluster, &nodes));
    assert!(all_arrived(&full), "{full:?}");
    assert!(full.tcp.iter().all(|tcp| tcp.longest_stall_ms < 3000), "{full:?}");
    assert!(full.lost() <= control.lost(), "datagrams fit: {full:?}, and without a switch {control:?}");
    let seen = run(&cluster, &pods, || cut(&cluster, &pods[1]));
    assert!(seen.udp.iter().all(|udp| udp.lost() > 0), "a loss would have been seen: {seen:?}");
    println!(
        "segments sent again: {} without a switch, {} with one, {} with one and full packets",
        control.retransmitted, switched.retransmitted, full.retransmitted
    );
}
