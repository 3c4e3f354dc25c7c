//! The scenarios of VXLAN with IP-in-IP. Not every kernel has it: `integration/test.sh` runs these in its virtual
//! machine, which is slow, so that nothing here asks how long something takes.

use std::collections::BTreeSet;
use std::time::Duration;

use integration::cluster::{CONFIG, Cluster};
use integration::eventually::eventually;
use integration::watch::Ping;
use nix::sys::signal::Signal;

use crate::support::{SETTLE, Tunnel, kernel, pods, prove, settled};
use crate::{paths, restart, session};

/// An emulated machine sends no faster.
const PACE: Duration = Duration::from_millis(20);

#[test]
#[ignore = "needs the modules ipip and sit: integration/test.sh runs it in a virtual machine"]
fn four_nodes_are_native_inside_and_in_ip_between_subnets() {
    paths::native_inside_and_tunnelled_between_subnets(Tunnel::Ipip);
}

#[test]
#[ignore = "needs the modules ipip and sit: integration/test.sh runs it in a virtual machine"]
fn a_lost_session_falls_back_on_ip_in_ip_and_comes_back() {
    let took = session::falls_back_and_comes_back(Tunnel::Ipip, PACE);
    println!("the fallback came after {took:?}");
}

#[test]
#[ignore = "needs the modules ipip and sit: integration/test.sh runs it in a virtual machine"]
fn a_restart_is_silent() {
    restart::restart_is_silent(Signal::SIGKILL, Tunnel::Ipip, PACE);
}

/// From VXLAN to IP-in-IP and back while the configuration changes on one node after the other; and what somebody
/// breaks of it is mended.
#[test]
#[ignore = "needs the modules ipip and sit: integration/test.sh runs it in a virtual machine"]
fn a_change_of_the_tunnel_loses_no_packet_and_leaves_nothing() {
    let config = |word: &str| format!("{CONFIG}paths: {{ sameSubnet: {word} }}\n");
    let (mut cluster, nodes, _) = settled("two-nodes", &config("vxlan"));
    let pods = pods(&mut cluster, &nodes);
    let before = kernel(&cluster, "n1");
    let pings = [false, true]
        .map(|ipv6| Ping::begin(&cluster, &pods[0], pods[1].address(ipv6).unwrap(), PACE).unwrap());
    let change = |tunnel: Tunnel| {
        for node in &nodes {
            cluster.configure(node, &config(tunnel.word())).unwrap();
        }
        eventually("every pair in the tunnel that is asked for", SETTLE, || {
            for node in &nodes {
                let pairs = cluster.pairs(node).map_err(|err| err.to_string())?;
                let there = |pair: &&node_agent::status::Pair| {
                    pair.path == tunnel.word() && pair.reason == "same-subnet" && pair.ready
                };
                if let Some(pair) = pairs.iter().find(|pair| !there(pair)) {
                    return Err(format!("{pair:?}"));
                }
            }
            Ok(())
        })
        .unwrap();
    };
    change(Tunnel::Ipip);
    prove(&cluster, &nodes);
    change(Tunnel::Vxlan);
    for ping in pings {
        let result = ping.end().unwrap();
        assert_eq!(result.lost, Vec::<u64>::new(), "of {}", result.sent);
    }
    restored(&cluster, &before, "the devices for IP-in-IP to go");

    change(Tunnel::Ipip);
    let before = kernel(&cluster, "n1");
    for damage in [
        "ip link del pairway-ipip",
        "ip link set pairway-sit down",
        "ip link set pairway-ipip type ipip local 192.0.2.1 ttl 3",
        "ip link set pairway-ipip mtu 1300",
        "ip addr flush dev pairway-ipip",
    ] {
        cluster.node("n1").sh(damage).unwrap();
        restored(&cluster, &before, damage);
    }
    let ask = "exec 3<>/dev/tcp/127.0.0.1/9474; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let repairs = cluster.node("n1").run(&["bash", "-c", ask]).unwrap();
    let counted = repairs.lines().filter(|line| line.starts_with("pairway_kernel_repairs_total{")).count();
    assert!(counted >= 2, "links and addresses were repaired: {repairs}");
}

fn restored(cluster: &Cluster, before: &BTreeSet<String>, what: &str) {
    eventually(what, SETTLE, || {
        let now = kernel(cluster, "n1");
        if now == *before { Ok(()) } else { Err(format!("{:#?}", now.symmetric_difference(before))) }
    })
    .unwrap();
}
