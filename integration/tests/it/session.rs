//! A session that is lost moves its pairs to the fallback and takes no connectivity (invariant 7).

use std::time::Duration;

use integration::cluster::{CONFIG, Cluster, Pod};
use integration::eventually::{eventually, timed};
use integration::watch::Ping;
use nix::sys::signal::Signal;

use crate::support::{SETTLE, Tunnel, pods, prove, settle, settled};

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
    let took = falls_back_and_comes_back(Tunnel::Vxlan, Duration::from_millis(5));
    assert!(took < Duration::from_secs(5), "a hold time of 3 s, and the fallback came after {took:?}");
}

/// How long the fallback took. No ping of this pace is lost.
pub(crate) fn falls_back_and_comes_back(tunnel: Tunnel, pace: Duration) -> Duration {
    // Graceful restart is on, with its default time: silence is no restart.
    let (mut cluster, nodes, _) = settled("two-nodes", &tunnel.config("bgp: { holdTime: 3s }\n"));
    let pods = pods(&mut cluster, &nodes);
    let pings = [false, true]
        .map(|ipv6| Ping::begin(&cluster, &pods[0], pods[1].address(ipv6).unwrap(), pace).unwrap());

    cut_bgp(&cluster);
    let took = wait_for_path(&cluster, tunnel.word(), "bgp-down");
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
    took
}

#[test]
fn an_agent_that_stays_away_is_waited_for_as_long_as_its_restart_time() {
    let config = format!("{CONFIG}bgp: {{ restartTime: 6s }}\n");
    let (mut cluster, nodes, _) = settled("two-nodes", &config);
    let pods = pods(&mut cluster, &nodes);
    let pace = Duration::from_millis(5);
    let ping = Ping::begin(&cluster, &pods[0], pods[1].address(false).unwrap(), pace).unwrap();
    let of_n1 = |cluster: &Cluster| {
        let pair = cluster.pair("n1", "n2", "ipv4").map_err(|err| err.to_string())?;
        Ok::<_, String>((pair.path, pair.reason))
    };
    cluster.stop("n2", Signal::SIGKILL).unwrap();
    let (result, took) = timed(|| {
        eventually("the fallback", SETTLE, || match of_n1(&cluster)? {
            (path, reason) if path == "native" && ["bgp", "bgp-restarting"].contains(&&*reason) => {
                Err("it is native".to_owned())
            }
            other => Ok(other),
        })
    });
    assert_eq!(result.unwrap(), ("vxlan".to_owned(), "bgp-down".to_owned()));
    assert!(took > Duration::from_secs(5), "a restart time of 6 s, and the fallback came after {took:?}");
    assert!(took < Duration::from_secs(9), "a restart time of 6 s, and the fallback came after {took:?}");
    // n2's kernel serves on, and receives either form.
    prove_from_n1(&cluster, &pods);
    cluster.start("n2").unwrap();
    wait_for_path(&cluster, "native", "bgp");
    let result = ping.end().unwrap();
    assert_eq!(result.lost, Vec::<u64>::new(), "of {}", result.sent);
}

fn prove_from_n1(cluster: &Cluster, pods: &[Pod]) {
    for ipv6 in [false, true] {
        crate::support::ping(cluster, &pods[0], &pods[1], ipv6, 1300).unwrap();
    }
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

#[test]
fn a_taken_port_179_is_a_condition_and_tunnels_go_on() {
    let mut cluster = crate::support::cluster("two-nodes", CONFIG);
    let log = cluster.lab().folder().join("squatter.log");
    let lab = cluster.programs().lab.to_string_lossy().into_owned();
    // The responder on n2's address takes the port of BGP there.
    let words = [&*lab, "respond", "--port", "179", "192.0.2.2", "2001:db8:a::2"];
    let mut squatter = cluster.node("n2").start(&words, &log).unwrap();
    eventually("the port to be taken", SETTLE, || {
        let text = std::fs::read_to_string(&log).unwrap();
        if text.contains("responding") { Ok(()) } else { Err(text) }
    })
    .unwrap();
    let nodes = cluster.start_all().unwrap();
    eventually("the condition", SETTLE, || {
        let status = cluster.status("n2").map_err(|err| err.to_string())?;
        let known = status.conditions.iter().any(|it| it.kind == "BgpPortInUse");
        let other = cluster.status("n1").map_err(|err| err.to_string())?;
        let pair = cluster.pair("n1", "n2", "ipv4").map_err(|err| err.to_string())?;
        if known && status.ready && other.ready && pair.ready {
            Ok(())
        } else {
            Err(format!("{status:?} {pair:?}"))
        }
    })
    .unwrap();
    pods(&mut cluster, &nodes);
    let pair = cluster.pair("n1", "n2", "ipv4").unwrap();
    assert_eq!(pair.path, "vxlan", "{pair:?}");
    prove(&cluster, &nodes);
    squatter.end(Signal::SIGTERM).unwrap();
    wait_for_path(&cluster, "native", "bgp");
    let conditions = cluster.status("n2").unwrap().conditions;
    assert!(conditions.iter().all(|it| it.kind != "BgpPortInUse"), "{conditions:?}");
}
