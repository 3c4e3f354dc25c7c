//! A restart is silent: no event about an object of ours, no packet lost (invariant 4).

use std::time::Duration;

use integration::eventually::eventually;
use integration::watch::{Monitor, Ping, about_us};
use nix::sys::signal::Signal;

use crate::support::{SETTLE, Tunnel, kernel, pod_of, pods, settled};

const KILOHERTZ: Duration = Duration::from_millis(1);

#[test]
fn a_restart_by_sigterm_is_silent() {
    restart_is_silent(Signal::SIGTERM, Tunnel::Vxlan, KILOHERTZ);
}

#[test]
fn a_restart_by_sigkill_is_silent() {
    restart_is_silent(Signal::SIGKILL, Tunnel::Vxlan, KILOHERTZ);
}

/// `pace`: of the pings, a thousand answers at the least.
pub(crate) fn restart_is_silent(signal: Signal, tunnel: Tunnel, pace: Duration) {
    let (mut cluster, nodes, _) = settled("four-nodes", &tunnel.config(""));
    let pods = pods(&mut cluster, &nodes);
    let (n1, n2, n3) = (pod_of(&pods, "n1"), pod_of(&pods, "n2"), pod_of(&pods, "n3"));
    let before = kernel(&cluster, "n1");

    let lab = cluster.lab();
    let monitors = ["n1", "n2", "n3"].map(|node| (node, Monitor::begin(lab, node, "eth1").unwrap()));
    let pings = [
        Ping::begin(&cluster, n1, n2.address(false).unwrap(), pace).unwrap(),
        Ping::begin(&cluster, n1, n3.address(false).unwrap(), pace).unwrap(),
        Ping::begin(&cluster, n2, n1.address(true).unwrap(), pace).unwrap(),
    ];
    cluster.stop("n1", signal).unwrap();
    assert_eq!(kernel(&cluster, "n1"), before, "the data plane of a stopped agent has changed");
    cluster.start("n1").unwrap();
    // It has come all the way back: a new process, every pair, and a session that delivers again.
    eventually("the new agent to have every pair for the usual reason", SETTLE, || {
        let status = cluster.status("n1").map_err(|err| err.to_string())?;
        let pairs = cluster.pairs("n1").map_err(|err| err.to_string())?;
        let usual = pairs.iter().filter(|pair| {
            let reason = if pair.peer == "n2" { "bgp" } else { "cross-subnet" };
            pair.ready && pair.reason == reason
        });
        // The old one has ended: whoever answers is the new one.
        if status.ready && usual.count() == 6 {
            return Ok(());
        }
        Err(format!("{status:?} {pairs:?}"))
    })
    .unwrap();
    for ping in pings {
        let result = ping.end_after(1000).unwrap();
        assert_eq!(result.lost, Vec::<u64>::new(), "of {}", result.sent);
    }
    for (node, monitor) in monitors {
        let events = monitor.end(cluster.lab(), "eth1").unwrap();
        assert_eq!(about_us(&events), Vec::<&str>::new(), "{node}");
    }
    assert_eq!(kernel(&cluster, "n1"), before);
}
