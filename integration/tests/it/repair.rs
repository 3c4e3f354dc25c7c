//! What somebody else does to our objects is repaired, and what is not ours is never touched.

use std::collections::BTreeSet;
use std::time::Duration;

use integration::cluster::{CONFIG, Cluster};
use integration::eventually::{eventually, timed};
use nix::sys::signal::Signal;

use crate::support::{SETTLE, kernel, pods, prove, prove_except, settled, uninstall};

/// A deleted object is back within this time.
const REPAIR: Duration = Duration::from_secs(3);

#[test]
fn what_is_deleted_comes_back() {
    let (mut cluster, nodes, _) = settled("four-nodes", CONFIG);
    pods(&mut cluster, &nodes);
    let before = kernel(&cluster, "n1");
    let object = |kind: &str, word: &str| {
        let found = before.iter().find(|line| line.starts_with(&format!("{kind} ")) && line.contains(word));
        let line = found.unwrap_or_else(|| panic!("no {kind} with {word} in {before:#?}"));
        line.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let native = cluster.pair("n1", "n2", "ipv4").unwrap().blocks[0].clone();
    let tunnelled = cluster.pair("n1", "n3", "ipv4").unwrap().blocks[0].clone();
    let tunnelled6 = cluster.pair("n1", "n3", "ipv6").unwrap().blocks[0].clone();
    let fdb = object("fdb", "dst 198.51.100.3");
    let neighbor = object("neigh", "lladdr");
    let nexthop = object("nexthop", "pairway-vx4");
    let rule = object("rule", "lookup");
    let address = object("addr", "inet ");
    let damages = [
        format!("ip route del {native}"),
        format!("ip route del {tunnelled}"),
        format!("ip -6 route del {tunnelled6}"),
        "ip route del unreachable 10.244.0.0/16 metric 4294967295".to_owned(),
        format!("bridge fdb del {} dev pairway-vx4", fdb[2]),
        format!("ip neigh del {} dev pairway-vx4", neighbor[2]),
        format!("ip nexthop del id {}", nexthop[2]),
        format!("ip rule del priority {}", rule[1].trim_end_matches(':')),
        format!("ip addr del {} dev pairway-vx4", address[3]),
        "ip link set pairway-vx4 mtu 1300".to_owned(),
        "ip link set pairway-vx4 down".to_owned(),
        "ip link del pairway-vx4".to_owned(),
        "sysctl -qw net.ipv4.conf.pairway-vx4.rp_filter=1".to_owned(),
    ];
    for damage in damages {
        let ((), took) = timed(|| {
            cluster.node("n1").sh(&damage).unwrap();
            if !damage.starts_with("sysctl") {
                restored(&cluster, &before, &damage);
            }
        });
        assert!(took < REPAIR, "{damage}: repaired after {took:?}");
    }
    // The IPv6 tunnel address is the subnet-router anycast address of the pods' bridge as well. The kernel asks the
    // route that was made first, and takes no TCP connections for an anycast address: a tunnel address that was lost
    // while the bridge was up does not get them back. UDP is answered, and nothing else of Pairway listens there.
    let status = cluster.status("n1").unwrap();
    let tunnel: std::net::IpAddr = status.tunnel_addresses["ipv6"].parse().unwrap();
    prove_except(&cluster, &nodes, |proof| proof.answer.target == tunnel && proof.answer.protocol == "tcp");
}

fn restored(cluster: &Cluster, before: &BTreeSet<String>, damage: &str) {
    eventually(damage, SETTLE, || {
        let now = kernel(cluster, "n1");
        if now == *before {
            return Ok(());
        }
        let missing: Vec<&String> = before.difference(&now).collect();
        let new: Vec<&String> = now.difference(before).collect();
        Err(format!("missing {missing:#?}, new {new:#?}"))
    })
    .unwrap();
}

#[test]
fn the_underlay_going_down_and_up_leaves_everything_as_it_was() {
    let (mut cluster, nodes, _) = settled("four-nodes", CONFIG);
    pods(&mut cluster, &nodes);
    let before = kernel(&cluster, "n1");
    // The default routes go with the link: whoever owns them makes them again.
    let flap = "ip link set eth1 down; ip link set eth1 up; \
         ip addr replace 2001:db8:a::1/64 dev eth1 nodad; \
         ip route replace default via 192.0.2.254; ip -6 route replace default via 2001:db8:a::254";
    cluster.node("n1").sh(flap).unwrap();
    restored(&cluster, &before, "the underlay's flap");
    crate::support::settle(&cluster, &nodes);
    prove(&cluster, &nodes);
}

/// Objects of others: near ours in every respect.
const FOREIGN: &str = "\
    ip link add pairwise type bridge; ip link set pairwise up; \
    ip link add other-vx type vxlan id 4097 dstport 8472 local 192.0.2.1 dev eth1 nolearning; \
    ip link set other-vx up; \
    bridge fdb add 02:00:00:00:00:01 dev other-vx dst 192.0.2.2 self permanent; \
    ip neigh add 192.168.77.1 lladdr 02:00:00:00:00:01 dev other-vx nud permanent; \
    ip route add 10.99.0.0/24 dev pairwise proto 80; \
    ip route add 10.99.1.0/24 dev pairwise proto static table 1120; \
    ip nexthop add id 7 dev pairwise proto static; \
    ip rule add from 10.99.0.0/16 lookup 100 priority 1121";

fn foreign(cluster: &Cluster) -> String {
    let show = "ip -o link show pairwise | sed 's/^[0-9]*//'; ip -o -d link show other-vx | sed 's/^[0-9]*//'; \
         bridge fdb show dev other-vx; ip neigh show dev other-vx nud permanent; \
         ip route show table all proto 80; ip route show table all proto static; ip nexthop show id 7; \
         ip rule show priority 1121";
    cluster.node("n1").sh(show).unwrap()
}

#[test]
fn what_is_not_ours_is_never_touched() {
    let mut cluster = crate::support::cluster("two-nodes", CONFIG);
    cluster.node("n1").sh(FOREIGN).unwrap();
    let before = foreign(&cluster);
    assert_eq!(before.lines().count(), 8, "{before}");
    let nodes = cluster.start_all().unwrap();
    crate::support::settle(&cluster, &nodes);
    pods(&mut cluster, &nodes);
    prove(&cluster, &nodes);
    assert_eq!(foreign(&cluster), before);

    cluster.stop("n1", Signal::SIGTERM).unwrap();
    uninstall(&cluster, "n1");
    assert_eq!(foreign(&cluster), before);
    assert_eq!(kernel(&cluster, "n1"), BTreeSet::new());
}

#[test]
fn a_foreign_route_in_our_way_is_a_conflict_and_stays() {
    let (mut cluster, nodes, _) = settled("two-nodes", CONFIG);
    let block = cluster.pair("n1", "n2", "ipv4").unwrap().blocks[0].clone();
    let ours = kernel(&cluster, "n1");
    let line = ours.iter().find(|line| line.starts_with(&format!("route {block} "))).unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let metric = words[words.iter().position(|word| *word == "metric").unwrap() + 1];

    cluster.stop("n1", Signal::SIGTERM).unwrap();
    let n1 = cluster.node("n1");
    n1.sh(&format!(
        "ip route del {block} proto 112; ip route add {block} via 192.0.2.2 metric {metric} proto static"
    ))
    .unwrap();
    cluster.start("n1").unwrap();
    eventually("the conflict to be reported", SETTLE, || {
        let status = cluster.status("n1").map_err(|err| err.to_string())?;
        let named = status.conditions.iter().any(|it| it.kind == "Conflict" && it.message.contains(&block));
        if named { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .unwrap();
    let route = cluster.node("n1").run(&["ip", "route", "show", &block]).unwrap();
    assert!(route.contains("proto static"), "{route}");

    // It goes, and ours takes its place.
    cluster.node("n1").run(&["ip", "route", "del", &block, "proto", "static"]).unwrap();
    restored(&cluster, &ours, "the foreign route to go");
    eventually("the conflict to end", SETTLE, || {
        let status = cluster.status("n1").map_err(|err| err.to_string())?;
        if status.conditions.iter().any(|it| it.kind == "Conflict") {
            Err(format!("{status:?}"))
        } else {
            Ok(())
        }
    })
    .unwrap();
    crate::support::settle(&cluster, &nodes);
}
