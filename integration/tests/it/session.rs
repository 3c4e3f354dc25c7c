//! A session that is lost moves its pairs to the fallback and takes no connectivity (invariant 7).

use std::time::Duration;

use integration::cluster::{CONFIG, Cluster};
use integration::eventually::{eventually, timed};
use integration::watch::Ping;

use crate::support::{SETTLE, pods, prove, settle, settled};

/// Drops BGP on the switch between two nodes.
fn cut_bgp(cluster: &Cluster) {
    let rules = "nft add table bridge faults; \
         nft 'add chain bridge faults forward { type filter hook forward priority 0 ; }'; \
         nft add rule bridge faults forward tcp dport 179 counter drop; \
         nft add rule bridge faults forward tcp sport 179 counter drop";
    cluster.node("sw").sh(rules).unwrap();
}

fn mend(cluster: &Cluster) {
    cluster.node("sw").sh("nft delete table bridge faults").unwrap();
}

/// The path and reason of the pair n1 - n2, which both ends and both families must share.
fn path(cluster: &Cluster) -> Result<(String, String), String> {
    let mut all = Vec::new();
    for (node, peer) in [("n1", "n2"), ("n2", "n1")] {
        for family in ["ipv4", "ipv6"] {
            let pair = cluster.pair(node, peer, family).map_err(|err| err.to_string())?;
            all.push((pair.path, pair.reason));
        }
    }
    all.dedup();
    if let [one] = &all[..] { Ok(one.clone()) } else { Err(format!("{all:?}")) }
}

fn wait_for_path(cluster: &Cluster, wanted: &str, reason: &str) -> Duration {
    let (result, took) = timed(|| {
        eventually("the pair's path", SETTLE, || {
            let now = path(cluster)?;
            if now == (wanted.to_owned(), reason.to_owned()) { Ok(()) } else { Err(format!("{now:?}")) }
        })
    });
    result.unwrap();
    took
}

#[test]
fn a_lost_session_falls_back_within_the_hold_time_and_comes_back() {
    let config = format!("{CONFIG}bgp: {{ holdTime: 3s, restartTime: 0s }}\n");
    let (mut cluster, nodes, _) = settled("two-nodes", &config);
    let pods = pods(&mut cluster, &nodes);
    let pace = Duration::from_millis(5);
    let pings = [false, true]
        .map(|ipv6| Ping::begin(&cluster, &pods[0], pods[1].address(ipv6).unwrap(), pace).unwrap());

    cut_bgp(&cluster);
    let took = wait_for_path(&cluster, "vxlan", "bgp-down");
    assert!(took < Duration::from_secs(5), "a hold time of 3 s, and the fallback came after {took:?}");
    prove(&cluster, &nodes);
    for neighbor in cluster.neighbors("n1").unwrap() {
        assert!(
            neighbor.last_error.is_some_and(|error| error.contains("hold timer")),
            "no word of the reason"
        );
    }
    mend(&cluster);
    wait_for_path(&cluster, "native", "bgp");
    prove(&cluster, &nodes);
    for ping in pings {
        let result = ping.end().unwrap();
        assert_eq!(result.lost, Vec::<u64>::new(), "of {}", result.sent);
    }
}

#[test]
fn graceful_restart_delays_the_fallback_by_the_restart_time() {
    let config = format!("{CONFIG}bgp: {{ holdTime: 3s, restartTime: 6s }}\n");
    let (cluster, _, _) = settled("two-nodes", &config);
    cut_bgp(&cluster);
    let took = wait_for_path(&cluster, "vxlan", "bgp-down");
    // RFC 8538: the end of the hold time is met like a restart.
    assert!(took > Duration::from_secs(6), "after {took:?}");
    assert!(took < Duration::from_secs(12), "after {took:?}");
    mend(&cluster);
    wait_for_path(&cluster, "native", "bgp");
}

#[test]
fn a_pair_without_any_session_uses_the_fallback_from_the_start() {
    let mut cluster = crate::support::cluster("two-nodes", CONFIG);
    cut_bgp(&cluster);
    let nodes = cluster.start_all().unwrap();
    wait_for_path(&cluster, "vxlan", "bgp-waiting");
    pods(&mut cluster, &nodes);
    prove(&cluster, &nodes);
    for node in &nodes {
        // Readiness is about the node itself (invariant 8).
        eventually("the node to be ready", SETTLE, || {
            let status = cluster.status(node).map_err(|err| err.to_string())?;
            if status.ready { Ok(()) } else { Err(format!("{:?}", status.not_ready_reasons)) }
        })
        .unwrap();
    }
    mend(&cluster);
    settle(&cluster, &nodes);
    wait_for_path(&cluster, "native", "bgp");
}
