//! BIRD as a real BGP peer: as a speaker outside of the cluster, and standing in for a node.

use std::fs;
use std::time::Duration;

use integration::cluster::{CONFIG, Cluster, Pod, STORE};
use integration::eventually::eventually;
use integration::lab::Running;
use integration::watch::{Capture, Packets};
use nix::sys::signal::Signal;

use crate::support::{SETTLE, ping, prove, settled};

/// A BIRD in a node, with a configuration.
struct Bird {
    running: Running,
    node: String,
}

impl Bird {
    fn start(cluster: &Cluster, node: &str, config: &str) -> Self {
        let path = cluster.lab().folder().join(format!("bird-{node}.conf"));
        fs::write(&path, config).unwrap();
        let log = cluster.lab().folder().join(format!("bird-{node}.log"));
        let path = path.to_string_lossy().into_owned();
        cluster.node(node).run(&["bird", "-p", "-c", &path]).unwrap();
        let running =
            cluster.node(node).start(&["bird", "-f", "-c", &path, "-s", "/run/bird.ctl"], &log).unwrap();
        let bird = Self { running, node: node.to_owned() };
        eventually("BIRD to answer", SETTLE, || bird.ask(cluster, &["show", "status"])).unwrap();
        bird
    }

    fn ask(&self, cluster: &Cluster, words: &[&str]) -> Result<String, String> {
        let all = [&["birdc", "-s", "/run/bird.ctl"], words].concat();
        cluster.node(&self.node).run(&all).map_err(|err| err.to_string())
    }

    /// Waits until a table or protocol of BIRD's shows something, or does not any more.
    fn shows(&self, cluster: &Cluster, words: &[&str], text: &str, wanted: bool) {
        eventually("BIRD to see it", SETTLE, || {
            let shown = self.ask(cluster, words)?;
            if shown.contains(text) == wanted { Ok(()) } else { Err(shown) }
        })
        .unwrap();
    }

    /// Waits until the way back is there: BIRD has put all blocks of n1 into its node's kernel.
    fn has_learned(&self, cluster: &Cluster) {
        for block in cluster.status("n1").unwrap().blocks {
            self.shows(cluster, &["show", "route", "protocol", "n1"], &block, true);
            let family = if block.contains(':') { "-6" } else { "-4" };
            eventually("BIRD's route in the kernel", SETTLE, || {
                let shown =
                    cluster.node(&self.node).run(&["ip", family, "route", "show", &block, "proto", "bird"]);
                let shown = shown.map_err(|err| err.to_string())?;
                if shown.contains("192.0.2.1") || shown.contains("2001:db8:a::1") {
                    Ok(())
                } else {
                    Err(shown)
                }
            })
            .unwrap();
        }
    }

    fn end(mut self, signal: Signal) {
        self.running.end(signal).unwrap();
    }
}

/// Waits for a session in this state.
fn wait_for_session(cluster: &Cluster, node: &str, name: &str, established: bool) {
    eventually("the session", SETTLE, || {
        let neighbor = cluster.neighbor(node, name).map_err(|err| err.to_string())?;
        if (neighbor.state == "established") == established { Ok(()) } else { Err(format!("{neighbor:?}")) }
    })
    .unwrap();
}

fn wait_for_path(cluster: &Cluster, family: &str, path: &str) {
    eventually("the pair's path", SETTLE, || {
        let pair = cluster.pair("n1", "n2", family).map_err(|err| err.to_string())?;
        if pair.path == path && pair.ready { Ok(()) } else { Err(format!("{pair:?}")) }
    })
    .unwrap();
}

fn wait_for_route(cluster: &Cluster, node: &str, prefix: &str, text: Option<&str>) {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    eventually("the kernel's route", SETTLE, || {
        let shown = cluster.node(node).run(&["ip", family, "route", "show", prefix]);
        let shown = shown.map_err(|err| err.to_string())?;
        let good = match text {
            Some(text) => shown.contains(text) && shown.contains("proto 112"),
            None => shown.is_empty(),
        };
        if good { Ok(()) } else { Err(format!("{prefix}: {shown:?}")) }
    })
    .unwrap();
}

/// The block of the node that BIRD stands in for.
const BLOCK: &str = "10.244.77.0/24";
const BLOCK6: &str = "fd10:244:0:77::/64";

/// BIRD as node n2: the record and the claims of a node, a pod, and a configuration.
fn stand_in(cluster: &Cluster) -> Pod {
    let store = cluster.lab().bind_folder(STORE);
    let record = fs::read_to_string(store.join("nodes/n1.json")).unwrap();
    let record = record
        .replace("\"n1\"", "\"n2\"")
        .replace("192.0.2.1", "192.0.2.2")
        .replace("2001:db8:a::1/", "2001:db8:a::2/");
    let claims = fs::read_dir(store.join("claims")).unwrap();
    let example = fs::read_to_string(claims.flatten().next().unwrap().path()).unwrap();
    let mut example: serde_json::Value = serde_json::from_str(&example).unwrap();
    for (block, name) in [(BLOCK, "10-244-77-0-24"), (BLOCK6, "fd10-244-0-77---64")] {
        example["block"] = block.into();
        example["holder"] = "n2".into();
        fs::write(store.join(format!("claims/{name}.json")), example.to_string()).unwrap();
    }
    fs::write(store.join("nodes/n2.json"), record).unwrap();

    let script = "ip link add cni0 type bridge; ip link set cni0 up; \
         ip addr add 10.244.77.1/24 dev cni0; ip addr add fd10:244:0:77::1/64 dev cni0 nodad; \
         ip netns add p1; ip link add veth2 type veth peer name eth0 netns p1; ip link set veth2 master cni0 up; \
         ip -n p1 link set eth0 up; \
         ip -n p1 addr add 10.244.77.2/24 dev eth0; ip -n p1 addr add fd10:244:0:77::2/64 dev eth0 nodad; \
         ip -n p1 route add default via 10.244.77.1; ip -n p1 -6 route add default via fd10:244:0:77::1";
    cluster.node("n2").sh(script).unwrap();
    let addresses = vec!["10.244.77.2".parse().unwrap(), "fd10:244:0:77::2".parse().unwrap()];
    Pod { node: "n2".to_owned(), name: "p1".to_owned(), addresses }
}

/// n2's configuration; `extra` are more static routes of IPv4.
fn stand_in_config(extra: &str) -> String {
    format!(
        "router id 192.0.2.2;\n\
         protocol device {{ scan time 2; }}\n\
         protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n\
         protocol kernel {{ ipv6 {{ import none; export where source = RTS_BGP; }}; }}\n\
         protocol static own4 {{ ipv4; route {BLOCK} via \"cni0\"; {extra} }}\n\
         protocol static own6 {{ ipv6; route {BLOCK6} via \"cni0\"; }}\n\
         protocol bgp n1 {{\n\
           local 192.0.2.2 as 64512; neighbor 192.0.2.1 as 64512; direct;\n\
           hold time 9; connect retry time 1; connect delay time 1; error wait time 1, 2;\n\
           ipv4 {{ gateway direct; import all; export where source = RTS_STATIC; next hop self; }};\n\
           ipv6 {{ gateway direct; import all; export where source = RTS_STATIC; next hop address 2001:db8:a::2; }};\n\
         }}\n"
    )
}

#[test]
fn bird_stands_in_for_a_node() {
    let mut cluster = crate::support::cluster("two-nodes", CONFIG);
    cluster.start("n1").unwrap();
    eventually("n1 to hold a block", SETTLE, || cluster.add_pod("n1", "p1")).unwrap();
    let n1 = cluster.pods()[0].clone();
    let n2 = stand_in(&cluster);
    // Without a session the pair is on its fallback.
    wait_for_path(&cluster, "ipv4", "vxlan");

    let bird = Bird::start(&cluster, "n2", &stand_in_config(""));
    wait_for_session(&cluster, "n1", "n2", true);
    wait_for_path(&cluster, "ipv4", "native");
    wait_for_path(&cluster, "ipv6", "native");
    wait_for_native_route(&cluster, BLOCK);
    bird.has_learned(&cluster);
    // Both ways, without encapsulation.
    let capture = Capture::begin(cluster.lab(), "n1", "eth1").unwrap();
    for ipv6 in [false, true] {
        ping(&cluster, &n1, &n2, ipv6, 1400).unwrap();
        ping(&cluster, &n2, &n1, ipv6, 1400).unwrap();
    }
    let packets = capture.end(cluster.lab(), "192.0.2.2").unwrap();
    assert_eq!(packets.vxlan, Vec::<String>::new());
    assert!(Packets::between(&packets.native, n1.address(false).unwrap(), n2.address(false).unwrap()));

    // Withdrawn, and announced again.
    bird.ask(&cluster, &["disable", "own4"]).unwrap();
    wait_for_path(&cluster, "ipv4", "vxlan");
    assert_eq!(cluster.pair("n1", "n2", "ipv6").unwrap().path, "native", "only IPv4 was withdrawn");
    assert_eq!(cluster.pair("n1", "n2", "ipv4").unwrap().reason, "bgp-no-route");
    bird.ask(&cluster, &["enable", "own4"]).unwrap();
    wait_for_path(&cluster, "ipv4", "native");

    // Killed: the pair falls back. Started: it is native again.
    bird.end(Signal::SIGKILL);
    wait_for_session(&cluster, "n1", "n2", false);
    wait_for_path(&cluster, "ipv4", "vxlan");
    let bird = Bird::start(&cluster, "n2", &stand_in_config(""));
    wait_for_path(&cluster, "ipv4", "native");
    bird.has_learned(&cluster);
    ping(&cluster, &n1, &n2, false, 1400).unwrap();
    // Ended in order, with a Cease.
    bird.end(Signal::SIGTERM);
    wait_for_path(&cluster, "ipv4", "vxlan");
}

/// The route to a block leaves by the underlay, not by the tunnel.
fn wait_for_native_route(cluster: &Cluster, block: &str) {
    eventually("a native route", SETTLE, || {
        let address = block.replace("0/24", "2");
        let shown =
            cluster.node("n1").run(&["ip", "route", "get", &address]).map_err(|err| err.to_string())?;
        if shown.contains("via 192.0.2.2 dev eth1") { Ok(()) } else { Err(shown) }
    })
    .unwrap();
}

#[test]
fn what_a_node_announces_beyond_its_claim_is_refused_and_counted() {
    let mut cluster = crate::support::cluster("two-nodes", CONFIG);
    cluster.start("n1").unwrap();
    eventually("n1 to hold a block", SETTLE, || cluster.add_pod("n1", "p1")).unwrap();
    let own = cluster.status("n1").unwrap().blocks;
    let own4 = own.iter().find(|block| block.contains('.')).unwrap().clone();
    stand_in(&cluster);
    let extra = format!(
        "route {own4} blackhole; route 10.244.200.0/24 blackhole; route 10.244.77.0/25 blackhole; \
         route 0.0.0.0/0 blackhole; route 8.8.8.0/24 blackhole;"
    );
    let bird = Bird::start(&cluster, "n2", &stand_in_config(&extra));
    wait_for_path(&cluster, "ipv4", "native");
    let refused = [&*own4, "10.244.200.0/24", "10.244.77.0/25", "0.0.0.0/0", "8.8.8.0/24"];
    eventually("the refusals to be counted", SETTLE, || {
        let neighbor = cluster.neighbor("n1", "n2").map_err(|err| err.to_string())?;
        let named = |prefix: &&str| neighbor.refused.iter().any(|it| it.prefix == **prefix);
        let count: u64 = neighbor.refused_by_reason.values().sum();
        if refused.iter().all(named) && count == 5 && neighbor.accepted == 2 {
            Ok(())
        } else {
            Err(format!("{neighbor:?}"))
        }
    })
    .unwrap();
    let neighbor = cluster.neighbor("n1", "n2").unwrap();
    let reason = |prefix: &str| neighbor.refused.iter().find(|it| it.prefix == prefix).map(|it| &*it.reason);
    assert_eq!(reason("10.244.200.0/24"), Some("not-claimed"));
    assert_eq!(reason(&own4), Some("own-prefix"));
    // None of them is in the kernel.
    let routes = cluster.node("n1").run(&["ip", "route"]).unwrap();
    for prefix in ["10.244.200.0/24", "10.244.77.0/25", "8.8.8.0/24"] {
        assert!(!routes.contains(prefix), "{routes}");
    }
    bird.end(Signal::SIGTERM);
}

#[test]
fn a_session_with_bird_survives_bad_weather() {
    let mut cluster = crate::support::cluster("two-nodes", CONFIG);
    cluster.start("n1").unwrap();
    eventually("n1 to hold a block", SETTLE, || cluster.add_pod("n1", "p1")).unwrap();
    let n1 = cluster.pods()[0].clone();
    let n2 = stand_in(&cluster);
    let bird = Bird::start(&cluster, "n2", &stand_in_config(""));
    wait_for_path(&cluster, "ipv4", "native");

    // A third of all segments is lost while routes come and go.
    let storm = "nft add table bridge faults; \
         nft 'add chain bridge faults forward { type filter hook forward priority 0 ; }'; \
         nft add rule bridge faults forward tcp dport 179 numgen random mod 100 '<' 30 counter drop; \
         nft add rule bridge faults forward tcp sport 179 numgen random mod 100 '<' 30 counter drop";
    cluster.node("sw").sh(storm).unwrap();
    let mut flaps = 0;
    eventually("segments to be lost either way", SETTLE, || {
        for (command, path) in [("disable", "vxlan"), ("enable", "native")] {
            bird.ask(&cluster, &[command, "own4"]).unwrap();
            wait_for_path(&cluster, "ipv4", path);
        }
        flaps += 1;
        let faults = cluster.node("sw").run(&["nft", "list", "table", "bridge", "faults"]).unwrap();
        if flaps >= 3 && !faults.contains("counter packets 0 ") { Ok(()) } else { Err(faults) }
    })
    .unwrap();
    cluster.node("sw").sh("nft delete table bridge faults").unwrap();
    bird.ask(&cluster, &["enable", "own4"]).unwrap();
    wait_for_session(&cluster, "n1", "n2", true);
    wait_for_path(&cluster, "ipv4", "native");
    bird.has_learned(&cluster);
    ping(&cluster, &n1, &n2, false, 1400).unwrap();
    bird.end(Signal::SIGTERM);
}

/// BIRD on the router, as the rack's speaker.
fn rack_config() -> String {
    "router id 192.0.2.254;\n\
     protocol device { scan time 2; }\n\
     protocol static offer { ipv4; route 203.0.113.0/24 blackhole; route 198.18.0.0/24 blackhole; \
       route 10.244.250.0/24 blackhole; }\n\
     protocol bgp node1 {\n\
       local 192.0.2.254 as 65000; neighbor 192.0.2.1 as 64512;\n\
       hold time 9; connect retry time 1; connect delay time 1; error wait time 1, 2;\n\
       ipv4 { import all; export where source = RTS_STATIC; next hop self; };\n\
     }\n"
    .to_owned()
}

#[test]
fn bird_outside_of_the_cluster_exchanges_routes_with_a_node() {
    let (mut cluster, nodes, _) = settled("four-nodes", CONFIG);
    for node in &nodes {
        cluster.add_pod(node, "p1").unwrap();
    }
    let bird = Bird::start(&cluster, "router", &rack_config());
    let peers =
        "bgp:\n  peers:\n    - { name: tor, address: 192.0.2.254, asn: 65000, import: [203.0.113.0/24] }\n";
    cluster.configure("n1", &format!("{CONFIG}{peers}")).unwrap();
    wait_for_session(&cluster, "n1", "tor", true);
    assert_eq!(cluster.neighbor("n1", "tor").unwrap().kind, "external");

    // What the import list names comes in; the rest, and routes to pods above all, does not.
    wait_for_route(&cluster, "n1", "203.0.113.0/24", Some("via 192.0.2.254"));
    wait_for_route(&cluster, "n1", "198.18.0.0/24", None);
    wait_for_route(&cluster, "n1", "10.244.250.0/24", None);
    eventually("the counts of the session", SETTLE, || {
        let neighbor = cluster.neighbor("n1", "tor").map_err(|err| err.to_string())?;
        if (neighbor.accepted, neighbor.refused.len()) == (1, 2) {
            Ok(())
        } else {
            Err(format!("{neighbor:?}"))
        }
    })
    .unwrap();
    let block = cluster.status("n1").unwrap().blocks.into_iter().find(|block| block.contains('.')).unwrap();
    bird.shows(&cluster, &["show", "route", "protocol", "node1"], &block, true);
    // The pairs are as they were.
    crate::support::settle(&cluster, &nodes);
    prove(&cluster, &nodes);

    bird.ask(&cluster, &["disable", "offer"]).unwrap();
    wait_for_route(&cluster, "n1", "203.0.113.0/24", None);
    bird.ask(&cluster, &["enable", "offer"]).unwrap();
    wait_for_route(&cluster, "n1", "203.0.113.0/24", Some("via 192.0.2.254"));
    bird.end(Signal::SIGTERM);
    wait_for_session(&cluster, "n1", "tor", false);
    wait_for_route(&cluster, "n1", "203.0.113.0/24", None);
    let bird = Bird::start(&cluster, "router", &rack_config());
    wait_for_route(&cluster, "n1", "203.0.113.0/24", Some("via 192.0.2.254"));

    // The peer is taken out of the configuration, live.
    cluster.configure("n1", CONFIG).unwrap();
    wait_for_route(&cluster, "n1", "203.0.113.0/24", None);
    bird.shows(&cluster, &["show", "route", "protocol", "node1"], &block, false);
    eventually("the peer to be forgotten", Duration::from_secs(10), || match cluster.neighbor("n1", "tor") {
        Ok(neighbor) => Err(format!("{neighbor:?}")),
        Err(_) => Ok(()),
    })
    .unwrap();
}
