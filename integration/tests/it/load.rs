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

/// How fast things go on a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Seconds that streams run at least: two changes of path take about a second each.
    pub(crate) run: u64,
    /// Datagrams a second; they fit into the tunnel.
    pub(crate) rate: u32,
    /// Bytes a second of each stream of TCP.
    pub(crate) tcp: u32,
    /// Bytes that a stream of TCP carries at least.
    pub(crate) least: u64,
    /// Milliseconds that a stream of full packets may stand still; an emulated machine is not asked.
    pub(crate) stall: Option<u64>,
}

const HERE: Pace = Pace { run: 6, rate: 500, tcp: 20_000_000, least: 1_000_000, stall: Some(3000) };

/// MTU of pods whose packets fit into any tunnel over 1500 bytes.
const FITTING: u32 = 1450;

/// The policy of two nodes in one subnet that use this path.
fn policy(path: &str) -> String {
    let word = if path == "native" { "bgp" } else { path };
    format!("{CONFIG}paths: {{ sameSubnet: {word} }}\n")
}

/// Both ends on this path, and both families of the pair.
fn switch(cluster: &Cluster, nodes: &[String], path: &str) {
    for node in nodes {
        cluster.configure(node, &policy(path)).unwrap();
    }
    eventually("the path", SETTLE, || {
        let pairs = nodes.iter().map(|node| cluster.pairs(node)).collect::<Result<Vec<_>, _>>();
        let pairs = pairs.map_err(|err| err.to_string())?.concat();
        let there = pairs.iter().filter(|pair| pair.ready && pair.path == path).count();
        if there == 4 { Ok(()) } else { Err(format!("{pairs:?}")) }
    })
    .unwrap();
}

fn there_and_back(cluster: &Cluster, nodes: &[String], [here, there]: [&str; 2]) {
    switch(cluster, nodes, there);
    switch(cluster, nodes, here);
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

fn stream(cluster: &Cluster, from: &Pod, target: IpAddr, seconds: u64, more: &[&str]) -> Streamed {
    let lab = cluster.programs().lab.to_string_lossy().into_owned();
    let (target, seconds) = (target.to_string(), seconds.to_string());
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
fn run(cluster: &Cluster, pods: &[Pod], pace: Pace, meanwhile: impl FnOnce()) -> Run {
    let before = retransmitted(cluster, &pods[0]);
    let (tcp, rate) = (pace.tcp.to_string(), pace.rate.to_string());
    let protocols: [&[&str]; 2] = [&["--rate", &tcp], &["--udp", &rate]];
    let (tcp, udp) = thread::scope(|scope| {
        let mut running = Vec::new();
        for more in protocols {
            for ipv6 in [false, true] {
                let target = pods[1].address(ipv6).unwrap();
                running.push(scope.spawn(move || stream(cluster, &pods[0], target, pace.run, more)));
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
    loses_no_packet_of_a_ping(["native", "vxlan"], 8);
}

/// So many times there and back.
pub(crate) fn loses_no_packet_of_a_ping(paths: [&str; 2], times: usize) {
    let (mut cluster, nodes, _) = settled("two-nodes", &policy(paths[0]));
    let pods = pods(&mut cluster, &nodes);
    let pings = [false, true].map(|ipv6| {
        Ping::begin(&cluster, &pods[0], pods[1].address(ipv6).unwrap(), Duration::from_millis(1)).unwrap()
    });
    for _ in 0..times {
        there_and_back(&cluster, &nodes, paths);
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
    println!("{}", loses_no_more_than_without(["native", "vxlan"], HERE));
}

/// How many segments were sent again.
pub(crate) fn loses_no_more_than_without(paths: [&str; 2], pace: Pace) -> String {
    let (mut cluster, nodes, _) = settled("two-nodes", &policy(paths[0]));
    let pods = pods(&mut cluster, &nodes);
    listen(&cluster, &pods[1]);

    // Packets that fit into both paths.
    set_mtu(&cluster, &pods, FITTING);
    let switching = || there_and_back(&cluster, &nodes, paths);
    let control = run(&cluster, &pods, pace, || ());
    let switched = run(&cluster, &pods, pace, switching);
    let all_arrived = |run: &Run| run.tcp.iter().all(|tcp| tcp.sent > pace.least && tcp.lost() == 0);
    assert!(all_arrived(&control) && all_arrived(&switched), "{control:?} {switched:?}");
    let datagrams = u64::from(pace.rate) * pace.run / 3;
    assert!(control.udp.iter().all(|udp| udp.sent > datagrams), "{control:?}");
    assert!(switched.lost() <= control.lost(), "{switched:?}, and without a switch {control:?}");

    // Full ones: the tunnel's smaller MTU is told to the senders, and TCP goes on.
    set_mtu(&cluster, &pods, 1500);
    let full = run(&cluster, &pods, pace, switching);
    assert!(all_arrived(&full), "{full:?}");
    let stands = |limit| full.tcp.iter().any(|tcp| tcp.longest_stall_ms >= limit);
    assert!(!pace.stall.is_some_and(stands), "{full:?}");
    assert!(full.lost() <= control.lost(), "datagrams fit: {full:?}, and without a switch {control:?}");
    let seen = run(&cluster, &pods, pace, || cut(&cluster, &pods[1]));
    assert!(seen.udp.iter().all(|udp| udp.lost() > 0), "a loss would have been seen: {seen:?}");
    format!(
        "{paths:?}, segments sent again: {} without a switch, {} with one, {} with one and full packets",
        control.retransmitted, switched.retransmitted, full.retransmitted
    )
}
