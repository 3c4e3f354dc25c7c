//! What somebody else does to our objects is repaired, and what is not ours is never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use integration::cluster::{CONFIG, Cluster, STORE};
use integration::eventually::{eventually, timed};
use nix::sys::signal::Signal;

use crate::support::{AtEnd, SETTLE, kernel, pods, prove, prove_except, settled, uninstall};

/// A deleted object is back within this time.
const REPAIR: Duration = Duration::from_secs(3);

/// Between two changes of a record that changes all the time.
const BETWEEN: Duration = Duration::from_millis(50);

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
        (format!("ip route del {native}"), "route"),
        (format!("ip route del {tunnelled}"), "route"),
        (format!("ip -6 route del {tunnelled6}"), "route"),
        ("ip route del unreachable 10.244.0.0/16 metric 4294967295".to_owned(), "route"),
        (format!("bridge fdb del {} dev pairway-vx4", fdb[2]), "fdb"),
        (format!("ip neigh del {} dev pairway-vx4", neighbor[2]), "neighbor"),
        (format!("ip nexthop del id {}", nexthop[2]), "nexthop"),
        (format!("ip rule del priority {}", rule[1].trim_end_matches(':')), "rule"),
        (format!("ip addr del {} dev pairway-vx4", address[3]), "address"),
        ("ip link set pairway-vx4 mtu 1300".to_owned(), "link"),
        ("ip link set pairway-vx4 down".to_owned(), "link"),
        ("ip link del pairway-vx4".to_owned(), "link"),
        ("nft delete table inet pairway".to_owned(), "firewall"),
    ];
    for (damage, kind) in damages {
        repaired(&cluster, "n1", &before, &damage, kind);
    }
    // The IPv6 tunnel address is the subnet-router anycast address of the pods' bridge as well. The kernel asks the
    // route that was made first, and takes no TCP connections for an anycast address: a tunnel address that was lost
    // while the bridge was up does not get them back. UDP is answered, and nothing else of Pairway listens there.
    let status = cluster.status("n1").unwrap();
    let tunnel: std::net::IpAddr = status.tunnel_addresses["ipv6"].parse().unwrap();
    prove_except(&cluster, &nodes, |proof| proof.answer.target == tunnel && proof.answer.protocol == "tcp");
}

/// A node whose record changes all the time: its addresses, and what of a kernel's lines is about it.
struct Restless {
    store: PathBuf,
    record: String,
    changes: u64,
}

impl Restless {
    const BLOCK: &str = "10.244.77.0/24";
    const BLOCK6: &str = "fd10:244:0:77::/64";

    /// In the other subnet than `n1`, beside `n3`, whose record it is but for name and addresses.
    fn new(cluster: &Cluster) -> Self {
        let store = cluster.lab().bind_folder(STORE);
        let record = fs::read_to_string(store.join("nodes/n3.json")).unwrap();
        let record = record.replace("\"n3\"", "\"restless\"").replace("2001:db8:b::3/", "2001:db8:b::77/");
        assert!(record.contains("198.51.100.3/"), "{record}");
        let claims = fs::read_dir(store.join("claims")).unwrap();
        let example = fs::read_to_string(claims.flatten().next().unwrap().path()).unwrap();
        let mut example: serde_json::Value = serde_json::from_str(&example).unwrap();
        for (block, name) in [(Self::BLOCK, "10-244-77-0-24"), (Self::BLOCK6, "fd10-244-0-77---64")] {
            example["block"] = block.into();
            example["holder"] = "restless".into();
            fs::write(store.join(format!("claims/{name}.json")), example.to_string()).unwrap();
        }
        Self { store, record, changes: 0 }
    }

    /// Its address in the underlay after so many changes.
    fn address(changes: u64) -> String {
        format!("198.51.100.{}", 50 + changes % 20)
    }

    fn change(&mut self) {
        self.changes += 1;
        let record = self.record.replace("198.51.100.3/", &format!("{}/", Self::address(self.changes)));
        // At once, as agents write.
        let new = self.store.join(".restless");
        fs::write(&new, record).unwrap();
        fs::rename(new, self.store.join("nodes/restless.json")).unwrap();
    }

    fn is_of(line: &str) -> bool {
        let block = Self::BLOCK.trim_end_matches("0/24");
        let block6 = Self::BLOCK6.trim_end_matches("::/64");
        // Sets of known nodes are one line, with all of them.
        line.contains(block)
            || line.contains(block6)
            || line.contains("2001:db8:b::77")
            || (0..20).any(|changes| line.contains(&Self::address(changes)))
    }
}

/// Where one pass follows the other because records change all the time, the next goes by what the last has left. What
/// others do meanwhile is repaired all the same.
#[test]
fn what_is_deleted_comes_back_while_a_record_changes_all_the_time() {
    let (cluster, _, _) = settled("four-nodes", CONFIG);
    let without: BTreeSet<String> = kernel(&cluster, "n1");
    let mut restless = Restless::new(&cluster);
    restless.change();
    let lines =
        || kernel(&cluster, "n1").into_iter().filter(|line| !Restless::is_of(line)).collect::<BTreeSet<_>>();
    let leads_to = |address: &str| {
        let dst = format!("dst {address} ");
        kernel(&cluster, "n1")
            .iter()
            .any(|line| line.starts_with("fdb ") && format!("{line} ").contains(&dst))
    };
    eventually("the restless node to be a peer", SETTLE, || {
        if leads_to(&Restless::address(1)) { Ok(()) } else { Err(String::new()) }
    })
    .unwrap();
    let before = lines();
    let of = |word: &str| {
        let found = before.iter().find(|line| line.contains(word));
        found
            .unwrap_or_else(|| panic!("no {word} in {before:#?}"))
            .split(' ')
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let native = cluster.pair("n1", "n2", "ipv4").unwrap().blocks[0].clone();
    let tunnelled6 = cluster.pair("n1", "n3", "ipv6").unwrap().blocks[0].clone();
    let (fdb, neighbor, nexthop) = (of("dst 198.51.100.3"), of("lladdr"), of("via 10.244."));
    let damages = [
        (format!("ip route del {native}"), "route"),
        (format!("ip -6 route del {tunnelled6}"), "route"),
        (format!("ip route replace {native} via 192.0.2.254 dev eth1 metric 1120 proto 112"), "route"),
        (format!("bridge fdb del {} dev pairway-vx4", fdb[2]), "fdb"),
        (format!("bridge fdb replace {} dev pairway-vx4 dst 192.0.2.77 self permanent", fdb[2]), "fdb"),
        (format!("ip neigh del {} dev pairway-vx4", neighbor[2]), "neighbor"),
        (format!("ip nexthop del id {}", nexthop[2]), "nexthop"),
        (format!("ip nexthop replace id {} via 192.0.2.66 dev eth1 proto 112", nexthop[2]), "nexthop"),
        ("ip link set pairway-vx4 mtu 1300".to_owned(), "link"),
        ("ip link del pairway-vx4".to_owned(), "link"),
        ("nft delete table inet pairway".to_owned(), "firewall"),
    ];
    let done = AtomicBool::new(false);
    // Where the entry of the restless node leads.
    let led =
        || kernel(&cluster, "n1").into_iter().find(|line| line.starts_with("fdb ") && Restless::is_of(line));
    let mut restless = std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                restless.change();
                std::thread::sleep(BETWEEN);
            }
            restless
        });
        let _at_end = AtEnd(&done);
        for (damage, kind) in &damages {
            let before_it = led();
            repaired_beside(&cluster, "n1", &before, damage, kind, Restless::is_of);
            eventually("a change of the record", SETTLE, || {
                if led() == before_it { Err(format!("still {before_it:?}")) } else { Ok(()) }
            })
            .unwrap();
        }
        done.store(true, Ordering::Relaxed);
        churn.join().unwrap()
    });
    // The last change is there as well.
    restless.change();
    let last = Restless::address(restless.changes);
    eventually("the last change", SETTLE, || if leads_to(&last) { Ok(()) } else { Err(last.clone()) })
        .unwrap();
    // Nothing is left of it when it has gone.
    let program = cluster.programs().pairway.to_string_lossy();
    cluster.node("n1").run(&[&program, "node", "delete", "restless", "--force"]).unwrap();
    eventually("the restless node to be gone", SETTLE, || {
        let now = kernel(&cluster, "n1");
        if now == without { Ok(()) } else { Err(format!("{:#?}", now.symmetric_difference(&without))) }
    })
    .unwrap();
}

/// What is changed comes back as well: what stands on objects of ours, and each attribute of a device that we set. The
/// audit comes ten times as late as what is allowed here, so it is the kernel's notifications that tell.
#[test]
fn what_is_changed_is_changed_back() {
    let (cluster, nodes, _) = settled("four-nodes", CONFIG);
    let before: BTreeMap<&String, BTreeSet<String>> =
        nodes.iter().map(|node| (node, kernel(&cluster, node))).collect();
    let words = |node: &String, kind: &str, word: &str| {
        let mut lines = before[node].iter();
        let found = lines.find(|line| line.starts_with(&format!("{kind} ")) && line.contains(word));
        let line = found.unwrap_or_else(|| panic!("no {kind} with {word} in {:#?}", before[node]));
        line.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let n1 = &nodes[0];
    let native = cluster.pair("n1", "n2", "ipv4").unwrap().blocks[0].clone();
    let route = words(n1, "route", &format!(" {native} ")).join(" ");
    let nexthop_of = |line: &str| {
        let mut words = line.split(' ').skip_while(|word| *word != "nhid");
        words.nth(1).unwrap_or_else(|| panic!("no nexthop in {line}")).to_owned()
    };
    let nexthop = nexthop_of(&route);
    let fdb = words(n1, "fdb", "dst 198.51.100.3");
    let neighbor = words(n1, "neigh", "lladdr");
    let tunnel = words(n1, "nexthop", "via 10.244.");
    let of_n1 = [
        (format!("ip route del {native}; ip route add {native} nhid {nexthop} metric 77 proto 112"), "route"),
        (format!("ip route replace {native} via 192.0.2.254 dev eth1 metric 1120 proto 112"), "route"),
        (format!("ip route replace {native} nhid {nexthop} metric 1120 proto 112 mtu 1300"), "route"),
        (
            format!(
                "ip neigh replace {} lladdr 02:00:00:00:00:55 dev pairway-vx4 nud permanent",
                neighbor[2]
            ),
            "neighbor",
        ),
        ("ip neigh flush dev pairway-vx4 nud permanent || true".to_owned(), "neighbor"),
        (format!("bridge fdb replace {} dev pairway-vx4 dst 192.0.2.77 self permanent", fdb[2]), "fdb"),
        (format!("ip nexthop replace id {} via 192.0.2.66 dev eth1 proto 112", tunnel[2]), "nexthop"),
    ];
    for (damage, kind) in of_n1 {
        repaired(&cluster, n1, &before[n1], &damage, kind);
    }
    // One after the other on the four nodes: what happens to one device again and again would be a fight.
    let of_devices = [
        ("ip link set pairway-vx4 type vxlan learning", "link"),
        ("ip link set pairway-vx4 type vxlan ttl 9", "link"),
        ("ip link set pairway-vx4 type vxlan tos 4", "link"),
        ("ip link set pairway-vx4 type vxlan df set", "link"),
        ("ip link set pairway-vx4 type vxlan ageing 20", "link"),
        ("ip link set pairway-vx4 addrgenmode eui64", "link"),
        ("ip link set pairway-vx4 address 02:00:00:00:00:77", "link"),
        ("ip link set pairway-vx4 name stray0", "link"),
        ("sysctl -qw net.ipv4.conf.pairway-vx4.forwarding=0", "link"),
        ("sysctl -qw net.ipv4.conf.pairway-vx4.rp_filter=1", "rp_filter"),
    ];
    for ((damage, kind), node) in of_devices.into_iter().zip(nodes.iter().cycle()) {
        repaired(&cluster, node, &before[node], damage, kind);
    }
    // What is not ours to set is said at once.
    let forwarding = |value: u8| {
        cluster.node("n1").sh(&format!("sysctl -qw net.ipv4.ip_forward={value}")).unwrap();
        let ((), took) = timed(|| {
            eventually("the node to tell", SETTLE, || {
                let status = cluster.status("n1").map_err(|err| err.to_string())?;
                let said = status.conditions.iter().any(|found| found.kind == "ForwardingDisabled");
                if said == (value == 0) { Ok(()) } else { Err(format!("{status:?}")) }
            })
            .unwrap();
        });
        assert!(took < REPAIR, "forwarding {value}: told after {took:?}");
    };
    forwarding(0);
    forwarding(1);
}

/// `ip neigh flush` goes round until it finds nothing more, and meets what was put back meanwhile.
#[test]
fn a_flush_is_no_fight_and_who_does_it_again_and_again_is_named() {
    let (cluster, _, _) = settled("four-nodes", CONFIG);
    let before = kernel(&cluster, "n1");
    // It gives up, as a failure, where ten rounds have each met what was put back.
    let flush = "ip neigh flush dev pairway-vx4 nud permanent || true";
    let fought = || {
        let status = cluster.status("n1").unwrap();
        status.conditions.iter().any(|found| found.kind == "RepairLoop")
    };
    for _ in 0..2 {
        let passes = counter(&cluster, "n1", "pairway_passes_total");
        repaired(&cluster, "n1", &before, flush, "neighbor");
        // It is a pass that says who fights.
        eventually("a pass", SETTLE, || {
            let now = counter(&cluster, "n1", "pairway_passes_total");
            if now > passes { Ok(()) } else { Err(format!("{now} passes")) }
        })
        .unwrap();
        assert!(!fought(), "{:#?}", cluster.status("n1").unwrap().conditions);
    }
    let named = (0..10).any(|_| {
        // The pace of a program that sees to it, not one event.
        std::thread::sleep(Duration::from_millis(400));
        cluster.node("n1").sh(flush).unwrap();
        fought()
    });
    assert!(named, "the control: somebody who does it all the time");
    // What they leave alone comes back.
    eventually("the neighbours", SETTLE, || {
        let now = kernel(&cluster, "n1");
        if before.is_subset(&now) { Ok(()) } else { Err(format!("{:?}", before.difference(&now))) }
    })
    .unwrap();
}

/// Settings of our devices that `ip` does not show.
fn settings(cluster: &Cluster, node: &str) -> String {
    let script = "cd /proc/sys/net/ipv4/conf; for device in pairway-*; do \
         echo $device $(cat $device/rp_filter $device/forwarding); done";
    cluster.node(node).sh(script).unwrap()
}

/// Does a damage, which must show, and waits until it is repaired and counted under this kind.
fn repaired(cluster: &Cluster, node: &str, before: &BTreeSet<String>, damage: &str, kind: &str) {
    repaired_beside(cluster, node, before, damage, kind, |_| false);
}

/// The same beside lines of the kernel that come and go meanwhile.
fn repaired_beside(
    cluster: &Cluster,
    node: &str,
    before: &BTreeSet<String>,
    damage: &str,
    kind: &str,
    changes: impl Fn(&str) -> bool,
) {
    let set = settings(cluster, node);
    let counted = repairs(cluster, node, kind);
    let ((), took) = timed(|| {
        cluster.node(node).sh(damage).unwrap();
        // That it is counted shows that it was seen, also where it is repaired before we look.
        eventually(damage, SETTLE, || {
            let now = repairs(cluster, node, kind);
            if now > counted { Ok(()) } else { Err(format!("{now} repairs of kind {kind}")) }
        })
        .unwrap();
        eventually(damage, SETTLE, || {
            let now = kernel(cluster, node);
            let set_now = settings(cluster, node);
            let missing: Vec<&String> = before.difference(&now).collect();
            let new: Vec<&String> = now.difference(before).filter(|line| !changes(line)).collect();
            if missing.is_empty() && new.is_empty() && set_now == set {
                return Ok(());
            }
            Err(format!("missing {missing:#?}, new {new:#?}, settings {set_now} before {set}"))
        })
        .unwrap();
    });
    assert!(took < REPAIR, "{damage}: repaired after {took:?}");
}

/// How many objects of a kind a node has repaired so far.
fn repairs(cluster: &Cluster, node: &str, kind: &str) -> u64 {
    counter(cluster, node, &format!("pairway_kernel_repairs_total{{kind=\"{kind}\"}}"))
}

/// A counter of a node's metrics.
fn counter(cluster: &Cluster, node: &str, name: &str) -> u64 {
    let ask = "exec 3<>/dev/tcp/127.0.0.1/9474; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let text = cluster.node(node).run(&["bash", "-c", ask]).unwrap();
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
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
