//! The scenarios of VXLAN with IP-in-IP. Not every kernel has it: `integration/test.sh` runs these in its virtual
//! machine, which is slow, so that nothing here asks how long something takes.

use std::collections::BTreeSet;
use std::time::Duration;

use integration::cluster::{CONFIG, Cluster};
use integration::eventually::eventually;
use integration::watch::Ping;
use nix::sys::signal::Signal;

use crate::firewall::{configured, dropped, received};
use crate::load::{self, Pace};
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

/// An emulated machine carries less, and takes longer to change a path: what it can't carry by far would be lost without a
/// change, too.
const LOAD: Pace = Pace { run: 20, rate: 50, tcp: 100_000, least: 100_000, stall: None };

#[test]
#[ignore = "needs the modules ipip and sit: integration/test.sh runs it in a virtual machine"]
fn a_switch_loses_no_packet_of_a_ping_at_1_khz() {
    for here in ["native", "vxlan"] {
        load::loses_no_packet_of_a_ping([here, "ipip"], 1);
    }
}

#[test]
#[ignore = "needs the modules ipip and sit: integration/test.sh runs it in a virtual machine"]
fn a_switch_under_load_loses_no_more_than_a_run_without_one() {
    for here in ["native", "vxlan"] {
        println!("{}", load::loses_no_more_than_without([here, "ipip"], LOAD));
    }
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

/// IP-in-IP has no identifier: without the guard all of it that is sent to a node arrives in its pods' network. A tunnel that
/// somebody else has on the same machine keeps what comes from its other end.
#[test]
#[ignore = "needs the modules ipip and sit: integration/test.sh runs it in a virtual machine"]
fn strangers_stay_out_and_tunnels_of_others_keep_what_is_theirs() {
    let ipip = "paths: { sameSubnet: ipip }\n";
    let (mut cluster, nodes, _) = settled("two-nodes", &format!("{CONFIG}{ipip}"));
    pods(&mut cluster, &nodes);
    // A stranger on the machine of n2, under an address that no record has.
    let stranger = "\
        ip addr add 192.0.2.77/24 dev eth1; \
        ip link add strange type ipip local 192.0.2.77 remote 192.0.2.1; ip link set strange up; \
        ip route add 10.77.0.2/32 dev strange";
    cluster.node("n2").sh(stranger).unwrap();
    let send = |cluster: &Cluster| {
        cluster
            .node("n2")
            .sh("ping -c 3 -i 0.2 -W 1 -I 192.0.2.77 10.77.0.2 >/dev/null 2>&1 || true")
            .unwrap();
    };
    let counts = |cluster: &Cluster| (dropped(cluster, "n1"), received(cluster, "n1", "pairway-ipip"));
    let (drops, came) = counts(&cluster);
    send(&cluster);
    let now = counts(&cluster);
    assert!(now.0 >= drops + 3, "the guard has counted: {drops} {now:?}");
    assert_eq!(now.1, came, "nothing came through");
    prove(&cluster, &nodes);
    assert_eq!(dropped(&cluster, "n1"), now.0, "nodes are let in");

    let listed = |cluster: &Cluster, wanted: bool| {
        eventually("the set of others' ends to follow", SETTLE, || {
            let set = cluster
                .node("n1")
                .sh("nft list set inet pairway others_ipip")
                .map_err(|err| err.to_string())?;
            if set.contains("192.0.2.77") == wanted { Ok(()) } else { Err(set) }
        })
        .unwrap();
    };
    listed(&cluster, false);
    let theirs = "ip link add theirs type ipip local 192.0.2.1 remote 192.0.2.77; ip link set theirs up";
    cluster.node("n1").sh(theirs).unwrap();
    listed(&cluster, true);
    let (drops, came) = counts(&cluster);
    let others = received(&cluster, "n1", "theirs");
    send(&cluster);
    assert!(received(&cluster, "n1", "theirs") >= others + 3, "their tunnel gets what is theirs");
    assert_eq!(counts(&cluster), (drops, came));
    cluster.node("n1").sh("ip link del theirs").unwrap();
    listed(&cluster, false);
    send(&cluster);
    assert!(dropped(&cluster, "n1") >= drops + 3, "a stranger again");

    // The control: without the guard all of it arrives by our device.
    configured(&cluster, "n1", &format!("{ipip}vxlan: {{ guard: false }}\n"));
    eventually("the guard to go", SETTLE, || {
        let table = cluster.node("n1").sh("nft list table inet pairway").map_err(|err| err.to_string())?;
        if table.contains("chain guard") { Err(table) } else { Ok(()) }
    })
    .unwrap();
    let came = received(&cluster, "n1", "pairway-ipip");
    send(&cluster);
    assert!(received(&cluster, "n1", "pairway-ipip") >= came + 3, "nothing stops it now");
}
