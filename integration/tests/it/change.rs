//! Nodes come and go, and the configuration changes, while packets flow.

use std::collections::BTreeSet;
use std::time::Duration;

use integration::cluster::{CONFIG, Cluster, STORE};
use integration::eventually::eventually;
use integration::watch::{Monitor, Ping, about_us};
use nix::sys::signal::Signal;

use crate::support::{SETTLE, kernel, pod_of, pods, prove, settle, settled, uninstall};

const PACE: Duration = Duration::from_millis(5);

/// Waits until a node knows nothing of another.
fn forgotten(cluster: &Cluster, node: &str, gone: &str, blocks: &[String]) {
    eventually("the node to be forgotten", SETTLE, || {
        let pairs = cluster.pairs(node).map_err(|err| err.to_string())?;
        let kernel = kernel(cluster, node);
        let held = |block: &&String| kernel.iter().any(|line| line.contains(&format!("{block} ")));
        if pairs.iter().any(|pair| pair.peer == gone) || blocks.iter().any(|block| held(&block)) {
            return Err(format!("{pairs:?} {kernel:#?}"));
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_node_that_leaves_is_forgotten_and_another_joins() {
    let (mut cluster, mut nodes, _) = settled("four-nodes", CONFIG);
    let pods = pods(&mut cluster, &nodes);
    let blocks = cluster.status("n4").unwrap().blocks;
    let (n1, n2, n3) = (pod_of(&pods, "n1"), pod_of(&pods, "n2"), pod_of(&pods, "n3"));
    let pings = [n2, n3].map(|to| Ping::begin(&cluster, n1, to.address(false).unwrap(), PACE).unwrap());

    cluster.stop("n4", Signal::SIGTERM).unwrap();
    uninstall(&cluster, "n4");
    assert_eq!(kernel(&cluster, "n4"), BTreeSet::new());
    cluster.forget_pods("n4");
    nodes.retain(|node| node != "n4");
    for node in &nodes {
        forgotten(&cluster, node, "n4", &blocks);
    }

    cluster.start("n5").unwrap();
    nodes.push("n5".to_owned());
    settle(&cluster, &nodes);
    let taken = cluster.status("n5").unwrap().blocks;
    assert!(taken.iter().all(|block| !blocks.contains(block)), "{taken:?} were n4's a moment ago");
    cluster.add_pod("n5", "p1").unwrap();
    prove(&cluster, &nodes);
    for ping in pings {
        let result = ping.end().unwrap();
        assert_eq!(result.lost, Vec::<u64>::new(), "of {}", result.sent);
    }
}

#[test]
fn a_stopped_agent_is_no_removed_node_and_delete_is_refused_while_it_is_fresh() {
    let (mut cluster, nodes, _) = settled("two-nodes", CONFIG);
    pods(&mut cluster, &nodes);
    let blocks = cluster.status("n2").unwrap().blocks;
    let delete = |cluster: &Cluster, more: &[&str]| {
        let program = cluster.programs().pairway.to_string_lossy().into_owned();
        let words = [&[&*program, "node", "delete", "n2"], more].concat();
        cluster.node("n1").run(&words)
    };
    let refused = delete(&cluster, &[]).unwrap_err();
    assert_eq!(refused.code, Some(1), "{refused}");
    cluster.stop("n2", Signal::SIGTERM).unwrap();
    // It stopped a moment ago: its record is fresh, and its data plane serves on.
    delete(&cluster, &[]).unwrap_err();
    assert_eq!(cluster.pairs("n1").unwrap().len(), 2);
    cluster.start("n2").unwrap();
    settle(&cluster, &nodes);
    assert_eq!(cluster.status("n2").unwrap().blocks, blocks, "it takes the block that it held");

    cluster.stop("n2", Signal::SIGKILL).unwrap();
    delete(&cluster, &["--force"]).unwrap();
    forgotten(&cluster, "n1", "n2", &blocks);
}

#[test]
fn a_policy_changes_live_and_loses_no_packet() {
    let (mut cluster, nodes, _) = settled("two-nodes", CONFIG);
    let pods = pods(&mut cluster, &nodes);
    let pings = [false, true]
        .map(|ipv6| Ping::begin(&cluster, &pods[0], pods[1].address(ipv6).unwrap(), PACE).unwrap());
    let tunnelled = format!("{CONFIG}paths: {{ sameSubnet: vxlan }}\n");
    for (config, path, reason) in [(&*tunnelled, "vxlan", "same-subnet"), (CONFIG, "native", "bgp")] {
        // One after the other: in between the ends are configured differently and must still agree on a path.
        for node in &nodes {
            cluster.configure(node, config).unwrap();
        }
        eventually("the new policy's path", SETTLE, || {
            let pairs = nodes.iter().map(|node| cluster.pairs(node)).collect::<Result<Vec<_>, _>>();
            let pairs = pairs.map_err(|err| err.to_string())?.concat();
            let wanted = pairs.iter().filter(|pair| pair.ready && pair.path == path && pair.reason == reason);
            if wanted.count() == 4 { Ok(()) } else { Err(format!("{pairs:?}")) }
        })
        .unwrap();
        prove(&cluster, &nodes);
    }
    for ping in pings {
        let result = ping.end().unwrap();
        assert_eq!(result.lost, Vec::<u64>::new(), "of {}", result.sent);
    }
}

#[test]
fn a_bad_configuration_is_refused_and_the_running_one_kept() {
    let (mut cluster, nodes, _) = settled("two-nodes", CONFIG);
    pods(&mut cluster, &nodes);
    let before = kernel(&cluster, "n1");
    let bad = [
        "version: 1\npools: []\n",
        "not: a configuration\n",
        "version: 1\npools: [{ cidr: 10.244.0.0/16, blockPrefix: 26 }]\n",
    ];
    for config in bad {
        cluster.configure("n1", config).unwrap();
        eventually("the refusal to be shown", SETTLE, || {
            let status = cluster.status("n1").map_err(|err| err.to_string())?;
            let shown = status.conditions.iter().any(|it| it.kind.starts_with("Config"));
            if shown { Ok(()) } else { Err(format!("{:?}", status.conditions)) }
        })
        .unwrap();
        assert_eq!(kernel(&cluster, "n1"), before);
        cluster.configure("n1", CONFIG).unwrap();
        eventually("the refusal to end", SETTLE, || {
            let status = cluster.status("n1").map_err(|err| err.to_string())?;
            let shown = status.conditions.iter().any(|it| it.kind.starts_with("Config"));
            if shown { Err(format!("{:?}", status.conditions)) } else { Ok(()) }
        })
        .unwrap();
    }
    prove(&cluster, &nodes);
}

#[test]
fn a_node_that_left_while_an_agent_was_away_is_forgotten_when_it_is_back() {
    let (mut cluster, mut nodes, _) = settled("four-nodes", CONFIG);
    let blocks = cluster.status("n4").unwrap().blocks;
    cluster.stop("n1", Signal::SIGTERM).unwrap();
    cluster.stop("n4", Signal::SIGTERM).unwrap();
    uninstall(&cluster, "n4");
    nodes.retain(|node| node != "n4");
    forgotten(&cluster, "n2", "n4", &blocks);
    let held = |kernel: &BTreeSet<String>| kernel.iter().any(|line| line.contains(&blocks[0]));
    assert!(held(&kernel(&cluster, "n1")), "nobody was there to take it away");
    cluster.start("n1").unwrap();
    settle(&cluster, &nodes);
    forgotten(&cluster, "n1", "n4", &blocks);
    let fdb = kernel(&cluster, "n1");
    assert!(!fdb.iter().any(|line| line.contains("198.51.100.4")), "{fdb:#?}");
}

#[test]
fn a_node_that_moves_to_another_address_is_followed() {
    let (mut cluster, nodes, _) = settled("four-nodes", CONFIG);
    pods(&mut cluster, &nodes);
    let renumber = "ip addr del 198.51.100.3/24 dev eth1; ip addr add 198.51.100.33/24 dev eth1; \
         ip route replace default via 198.51.100.254";
    cluster.node("n3").sh(renumber).unwrap();
    for node in ["n1", "n2", "n4"] {
        eventually("the new address", SETTLE, || {
            let pair = cluster.pair(node, "n3", "ipv4").map_err(|err| err.to_string())?;
            let kernel = kernel(&cluster, node);
            let old = kernel.iter().find(|line| line.split([' ', '/']).any(|word| word == "198.51.100.3"));
            if pair.underlay.peer == "198.51.100.33" && old.is_none() {
                return Ok(());
            }
            Err(format!("{pair:?} {old:?}"))
        })
        .unwrap();
    }
    eventually("the node itself to say so", SETTLE, || {
        let underlay = cluster.status("n3").map_err(|err| err.to_string())?.underlay;
        if underlay["ipv4"] == "198.51.100.33/24" { Ok(()) } else { Err(format!("{underlay:?}")) }
    })
    .unwrap();
    settle(&cluster, &nodes);
    prove(&cluster, &nodes);
}

#[test]
fn the_tunnel_follows_the_mtu_of_the_underlay() {
    let (mut cluster, nodes, _) = settled("two-nodes", &format!("{CONFIG}paths: {{ sameSubnet: vxlan }}\n"));
    pods(&mut cluster, &nodes);
    for (underlay, tunnel) in [(1400, 1350), (1450, 1400)] {
        for node in &nodes {
            cluster.node(node).sh(&format!("ip link set eth1 mtu {underlay}")).unwrap();
        }
        for node in &nodes {
            eventually("the tunnel's MTU", SETTLE, || {
                let device = cluster.node(node).sh("cat /sys/class/net/pairway-vx4/mtu");
                let device = device.map_err(|err| err.to_string())?;
                let pairs = cluster.pairs(node).map_err(|err| err.to_string())?;
                let told = pairs.iter().all(|pair| pair.mtu == tunnel && pair.ready);
                if device.trim() == tunnel.to_string() && told {
                    Ok(())
                } else {
                    Err(format!("{device} {pairs:?}"))
                }
            })
            .unwrap();
        }
        prove(&cluster, &nodes);
    }
}

#[test]
fn an_emptied_store_gets_everything_back_and_nothing_moves() {
    let (mut cluster, nodes, _) = settled("four-nodes", CONFIG);
    let pods = pods(&mut cluster, &nodes);
    let store = cluster.lab().bind_folder(STORE);
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(store.join(folder)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.starts_with('.')).collect()
    };
    let before = ["nodes", "claims", "pools"].map(names);
    assert_eq!(before.each_ref().map(BTreeSet::len), [4, 8, 2]);
    let (n1, n3) = (pod_of(&pods, "n1"), pod_of(&pods, "n3"));
    let ping = Ping::begin(&cluster, n1, n3.address(false).unwrap(), PACE).unwrap();
    let monitors = ["n1", "n3"].map(|node| (node, Monitor::begin(cluster.lab(), node, "eth1").unwrap()));

    for folder in ["nodes", "claims", "pools"] {
        for name in names(folder) {
            std::fs::remove_file(store.join(folder).join(name)).unwrap();
        }
    }
    eventually("everything to be back", SETTLE, || {
        let now = ["nodes", "claims", "pools"].map(names);
        if now == before { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .unwrap();
    settle(&cluster, &nodes);
    for (node, monitor) in monitors {
        let events = monitor.end(cluster.lab(), "eth1").unwrap();
        assert_eq!(about_us(&events), Vec::<&str>::new(), "{node}");
    }
    assert_eq!(ping.end().unwrap().lost, Vec::<u64>::new());
    prove(&cluster, &nodes);
}
