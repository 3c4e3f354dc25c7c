//! Nodes come and go, and the configuration changes, while packets flow.

use std::time::Duration;

use integration::cluster::{CONFIG, Cluster};
use integration::eventually::eventually;
use integration::watch::Ping;
use nix::sys::signal::Signal;

use crate::support::{SETTLE, kernel, pod_of, pods, prove, settle, settled};

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
    let program = cluster.programs().pairway.clone();
    let config = cluster.config_path("n4");
    let words = [&*program.to_string_lossy(), "uninstall", "--config", &*config.to_string_lossy()];
    cluster.node("n4").run(&words).unwrap();
    assert_eq!(kernel(&cluster, "n4"), std::collections::BTreeSet::new());
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
