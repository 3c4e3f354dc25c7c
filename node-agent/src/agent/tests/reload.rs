//! Changes of the configuration while agents run.

use std::net::IpAddr;
use std::time::Duration;

use bgp::speaker::Shutdown;
use config::{BgpPeer, Config, PathUse};

use super::blocks::release;
use super::harness::{Cluster, Node};
use crate::node::Block;
use crate::plan::tests::pool;
use crate::status::Published;

const N1: (&str, &str) = ("n1", "192.0.2.11/24");
const N2: (&str, &str) = ("n2", "192.0.2.12/24");

fn path_is(path: &str, reason: &str) -> impl Fn(&Published) -> bool {
    move |published| {
        let pair = published.pairs.iter().find(|pair| pair.family == "ipv4");
        pair.is_some_and(|pair| pair.path == path && pair.reason == reason)
    }
}

/// Every key that can change while the agent runs, and what shows that it has.
#[tokio::test]
async fn each_live_key_takes_effect() {
    let cluster = Cluster::of(&[N1, N2]).await;
    let node = cluster.node("n1");
    let both = |change: &dyn Fn(&mut Config)| {
        for node in cluster.nodes.values() {
            node.reconfigure(change);
        }
    };
    both(&|config| config.paths.same_subnet = PathUse::Vxlan);
    node.until("paths.sameSubnet", path_is("vxlan", "same-subnet")).await;
    both(&|config| config.paths.same_subnet = PathUse::Direct);
    node.until("paths.sameSubnet", path_is("native", "direct")).await;
    both(&|config| config.paths.same_subnet = PathUse::Bgp);
    node.until("paths.sameSubnet", path_is("native", "bgp")).await;

    cluster.fabric.cut("192.0.2.12");
    node.until("a lost session", path_is("vxlan", "bgp-down")).await;
    both(&|config| config.paths.fallback = PathUse::None);
    node.until("paths.fallback", path_is("none", "bgp-down")).await;
    both(&|config| config.paths.fallback = PathUse::Vxlan);
    cluster.fabric.mend("192.0.2.12");
    node.until("all as before", path_is("native", "bgp")).await;

    node.reconfigure(|config| drop(config.node.labels.insert("zone".to_owned(), "a".to_owned())));
    until_stored(&cluster, |cluster| {
        cluster.store.contents().nodes[&"n1".parse().unwrap()].labels.contains_key("zone")
    })
    .await;

    node.reconfigure(|config| config.blocks.per_node = 2);
    let published = node.until("blocks.perNode", |published| published.status.blocks.len() == 2).await;
    let second = published.status.blocks[1].clone();
    cluster
        .node("n2")
        .until("the second block", |published| published.pairs[0].blocks.contains(&second))
        .await;
    cluster.converged().await;

    both(&|config| config.pools.push(pool("fd10:244::/48", 64)));
    node.until("pools", |published| published.pairs.iter().any(|pair| pair.family == "ipv6" && pair.ready))
        .await;
    both(&|config| config.pools[0].disabled = true);
    node.passes().await;
    assert_eq!(node.published().status.blocks.len(), 4, "what is held stays");
    node.reconfigure(|config| config.blocks.reuse_after = Duration::from_secs(1));

    let tor = BgpPeer {
        name: "tor".to_owned(),
        address: "192.0.2.254".parse().unwrap(),
        asn: 65000,
        port: 179,
        nodes: [].into(),
        import: Vec::new(),
        export: None,
        graceful_shutdown: false,
    };
    node.reconfigure(|config| config.bgp.peers.push(tor));
    node.until("bgp.peers", |published| published.neighbors.iter().any(|peer| peer.kind == "external")).await;
    node.reconfigure(|config| config.bgp.peers.clear());
    node.until("bgp.peers", |published| published.neighbors.len() == 1).await;
    node.reconfigure(|config| config.bgp.max_prefixes = 5);

    let (starts, ends) = cluster.fabric.history();
    assert_eq!((starts.len(), ends.len()), (2, 0), "none of that has touched the speakers");
    node.reconfigure(|config| config.bgp.hold_time = Duration::from_secs(30));
    eventually(|| cluster.fabric.history().0.last().unwrap().hold_time == Duration::from_secs(30)).await;
    assert_eq!(cluster.fabric.history().1, [Shutdown::Cease(6)]);
    assert!(cluster.fabric.history().0.last().unwrap().restarting, "its forwarding state is kept");
    // This fabric knows no graceful restart after a Cease.
    cluster.path("n2", "n1", "native", "bgp").await;
    cluster.converged().await;
    assert!(!node.conditions().contains(&"ConfigRefused".to_owned()));
}

/// Every key that can't: it is named, nothing changes, and the next good file ends the condition.
#[tokio::test]
async fn each_other_key_is_refused_and_the_running_state_is_kept() {
    let cluster = Cluster::of(&[N1, N2]).await;
    let node = cluster.node("n1");
    let before = node.kernel.state();
    let address: IpAddr = "192.0.2.11".parse().unwrap();
    type Change = Box<dyn Fn(&mut Config)>;
    let changes: Vec<(&str, Change)> = vec![
        ("node.name", Box::new(|config| config.node.name = "other".to_owned())),
        ("node.underlay", Box::new(|config| config.node.underlay = config::Underlay::Select(Vec::new()))),
        (
            "store.file",
            Box::new(|config| {
                config.store =
                    config::Store::File { path: "/elsewhere".into(), allow_network_filesystem: false };
            }),
        ),
        ("blockPrefix", Box::new(|config| config.pools[0].block_prefix = 26)),
        ("pool 10.244.0.0/16", Box::new(|config| config.pools = vec![pool("10.99.0.0/16", 24)])),
        ("bgp.asn", Box::new(|config| config.bgp.asn = 64999)),
        ("bgp.port", Box::new(|config| config.bgp.port = 1179)),
        ("bgp.listen", Box::new(move |config| config.bgp.listen = vec![address])),
        ("bgp.restartTime", Box::new(|config| config.bgp.restart_time = Duration::from_secs(60))),
        ("bgp.routerId", Box::new(|config| config.bgp.router_id = Some([9, 9, 9, 9].into()))),
        ("vxlan.vni", Box::new(|config| config.vxlan.vni = 7)),
        ("vxlan.port", Box::new(|config| config.vxlan.port = 8472)),
        ("http.address", Box::new(|config| config.http = ([127, 0, 0, 1], 99).into())),
        ("api.socket", Box::new(|config| config.api_socket = "/elsewhere.sock".into())),
        ("stateDir", Box::new(|config| config.state_dir = "/elsewhere".into())),
        ("kernel.routeProtocol", Box::new(|config| config.kernel.route_protocol = 113)),
        ("kernel.routeMetric", Box::new(|config| config.kernel.route_metric = 99)),
        ("kernel.table", Box::new(|config| config.kernel.table = 99)),
        ("kernel.rulePriority", Box::new(|config| config.kernel.rule_priority = 99)),
        ("kernel.nexthopBase", Box::new(|config| config.kernel.nexthop_base = 1 << 20)),
        ("kernel.devicePrefix", Box::new(|config| config.kernel.device_prefix = "other".to_owned())),
        ("kernel.firewallTable", Box::new(|config| config.kernel.firewall_table = "other".to_owned())),
    ];
    let good = node.config.lock().unwrap().clone().unwrap();
    for (key, change) in changes {
        node.reconfigure(|config| {
            change(config);
            // What could be taken over alone is refused with it: a file is taken whole or not at all.
            config.paths.same_subnet = PathUse::None;
        });
        refused(node, key).await;
        assert_eq!(node.pair("n2", "ipv4").path, "native", "{key}");
        *node.config.lock().unwrap() = Ok(good.clone());
        node.reload();
        node.until_no_condition("ConfigRefused").await;
    }
    *node.config.lock().unwrap() = Err("pairway.yaml:3:7: unknown key `pool`".to_owned());
    node.reload();
    refused(node, "pairway.yaml:3:7").await;
    assert!(node.published().status.ready);
    assert_eq!(node.kernel.state(), before);
    assert_eq!(cluster.fabric.history().1, []);
}

/// What was refused for a block is taken over once the block is given back, whoever held it, without a word from the
/// file. What has another reason stays refused.
#[tokio::test]
async fn a_refusal_ends_with_its_cause() {
    let cluster = Cluster::of(&[N1, N2]).await;
    let nodes = [cluster.node("n1"), cluster.node("n2")];
    let held = |published: &Published| {
        let blocks = published.status.blocks.iter().filter(|block| block.starts_with("10.99."));
        blocks.map(|block| Block::new(block.parse().unwrap())).next()
    };
    for node in nodes {
        node.reconfigure(|config| {
            config.pools.push(pool("10.99.0.0/16", 24));
            config.blocks.per_node = 2;
            config.pools[0].disabled = true;
        });
    }
    for node in nodes {
        node.until("a block of the new pool", |published| held(published).is_some()).await;
    }
    for node in nodes {
        node.reconfigure(|config| {
            config.blocks.per_node = 1;
            config.pools[0].disabled = false;
            config.pools[1].disabled = true;
        });
        node.passes().await;
        assert!(!node.conditions().contains(&"ConfigRefused".to_owned()));
    }
    nodes[0].reconfigure(|config| {
        config.pools.truncate(1);
    });
    nodes[1].reconfigure(|config| {
        config.pools.truncate(1);
        config.bgp.asn = 64_999;
    });
    let both = |published: &Published| {
        let mut found = published.status.conditions.iter().filter(|found| found.kind == "ConfigRefused");
        found.any(|found| found.message.contains("2 of its blocks are held"))
    };
    for node in nodes {
        node.until("both blocks in the way", both).await;
    }
    // The files are gone: what is taken over is what was read before.
    let unreadable = || Err("the file is read again".to_owned());
    for node in nodes {
        *node.config.lock().unwrap() = unreadable();
    }
    let first = held(&nodes[0].published()).unwrap();
    release(nodes[0], first, true).await.unwrap();
    for node in nodes {
        refused(node, "1 of its blocks is held").await;
    }
    let second = held(&nodes[1].published()).unwrap();
    release(nodes[1], second, true).await.unwrap();
    nodes[0].until_no_condition("ConfigRefused").await;
    refused(nodes[1], "bgp.asn").await;
    nodes[1]
        .until("no block in the way", |published| {
            let mut found = published.status.conditions.iter();
            found.any(|found| found.kind == "ConfigRefused" && !found.message.contains("10.99.0.0/16"))
        })
        .await;
    // It has been taken over: a change of the pool is one of nothing.
    assert!(held(&nodes[0].published()).is_none());
}

async fn refused(node: &Node, key: &str) {
    node.until(&format!("{key} refused"), |published| {
        let mut refused = published.status.conditions.iter().filter(|found| found.kind == "ConfigRefused");
        refused.any(|found| found.message.contains(key))
    })
    .await;
}

async fn until_stored(cluster: &Cluster, wanted: impl Fn(&Cluster) -> bool) {
    eventually(|| wanted(cluster)).await;
}

pub(super) async fn eventually(wanted: impl Fn() -> bool) {
    let found = async {
        while !wanted() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.unwrap();
}
