//! IP-in-IP: who has it uses it, who lacks it falls back at both ends, and it comes and goes without a gap.

use std::collections::BTreeSet;

use config::PathUse;
use vxlan::fake::Event;
use vxlan::{Change, IpTunnel, LinkName};

use super::harness::{Cluster, Node};
use crate::plan::tests::pool;
use crate::status::{Pair, Published};

const N1: (&str, &str) = ("n1", "192.0.2.11/24");
const N2: (&str, &str) = ("n2", "192.0.2.12/24");
const N3: (&str, &str) = ("n3", "198.51.100.13/24");

fn devices(node: &Node) -> Vec<String> {
    node.kernel.state().links.keys().map(ToString::to_string).collect()
}

fn offers(cluster: &Cluster, node: &str) -> BTreeSet<String> {
    let contents = cluster.store.contents();
    let record = &contents.nodes[&node.parse().unwrap()];
    record.capabilities.iter().filter(|word| ["ipip", "sit"].contains(&word.as_str())).cloned().collect()
}

/// Nodes that want IP-in-IP between subnets and as the fallback, with pods of both families.
async fn cluster(prepare: impl Fn(&Cluster)) -> Cluster {
    let mut cluster = Cluster::new();
    for (name, address) in [N1, N2, N3] {
        cluster.add(name, &[address]);
        let mut config = cluster.node(name).config.lock().unwrap();
        let config = config.as_mut().unwrap();
        config.paths.cross_subnet = PathUse::Ipip;
        config.paths.fallback = PathUse::Ipip;
        config.pools.push(pool("fd10:244::/48", 64));
    }
    prepare(&cluster);
    for (name, _) in [N1, N2, N3] {
        cluster.start(name);
    }
    for (name, _) in [N1, N2, N3] {
        // Not that both ends agree: a node knows what it offers before its peers have read it.
        let ready = |pair: &Pair| pair.ready && pair.reason != "bgp-waiting";
        let all = |published: &Published| published.pairs.len() == 4 && published.pairs.iter().all(ready);
        cluster.node(name).until("every pair", |published| published.status.ready && all(published)).await;
    }
    cluster
}

#[tokio::test]
async fn both_families_go_in_ip_where_both_ends_can() {
    let cluster = cluster(|_| ()).await;
    cluster.path("n1", "n3", "ipip", "cross-subnet").await;
    cluster.path("n3", "n1", "ipip", "cross-subnet").await;
    cluster.path("n1", "n2", "native", "bgp").await;
    let n1 = cluster.node("n1");
    n1.until("IPv6 in IP", |published| {
        let ipv6: Vec<_> = published.pairs.iter().filter(|pair| pair.family == "ipv6").collect();
        // Within the subnet too: the underlay has no IPv6.
        ipv6.len() == 2 && ipv6.iter().all(|pair| pair.path == "ipip" && pair.ready && pair.mtu == 1480)
    })
    .await;
    assert_eq!(n1.pair("n3", "ipv4").mtu, 1480);
    // Ready beside VXLAN, for whatever comes.
    assert_eq!(devices(n1), ["pairway-ipip", "pairway-sit", "pairway-vx4"]);
    assert_eq!(n1.kernel.state().fdb.len(), 2);
    let published = n1.published();
    assert_eq!(published.status.conditions, []);
    assert_eq!(published.status.pairs_by_path["ipip"], 3);
    assert!(published.routes.iter().any(|route| route.kind == "ipip" && route.state == "installed"));

    // A lost session falls back on it, in one message, and comes back.
    n1.kernel.clear_events();
    cluster.fabric.cut("192.0.2.12");
    cluster.path("n1", "n2", "ipip", "bgp-down").await;
    cluster.path("n2", "n1", "ipip", "bgp-down").await;
    let changes = n1.changes();
    assert!(matches!(changes.as_slice(), [Event::Applied(Change::SetNexthop(..))]), "{changes:#?}");
    cluster.fabric.mend("192.0.2.12");
    cluster.path("n1", "n2", "native", "bgp").await;
}

#[tokio::test]
async fn who_lacks_a_module_says_so_and_both_ends_fall_back() {
    let cluster = cluster(|cluster| cluster.node("n3").kernel.set_module(IpTunnel::Ipip, false)).await;
    let n3 = cluster.node("n3");
    cluster.path("n1", "n3", "vxlan", "capability").await;
    cluster.path("n3", "n1", "vxlan", "capability").await;
    // The other family has what it needs.
    n3.until("IPv6 in IP", |published| {
        published.pairs.iter().any(|pair| pair.family == "ipv6" && pair.path == "ipip" && pair.ready)
    })
    .await;
    assert_eq!(offers(&cluster, "n3"), ["sit".to_owned()].into());
    assert_eq!(devices(n3), ["pairway-sit", "pairway-vx4"]);
    n3.until_condition("ModuleMissing").await;
    let condition = n3.published().status.conditions[0].clone();
    assert!(condition.message.contains("modprobe ipip"), "{}", condition.message);
    assert!(!cluster.node("n1").conditions().contains(&"ModuleMissing".to_owned()));
    assert!(cluster.node("n1").pair("n3", "ipv4").detail.contains("n3 can't receive IP-in-IP"));

    // It is loaded: nobody has to be told.
    n3.kernel.set_module(IpTunnel::Ipip, true);
    cluster.path("n1", "n3", "ipip", "cross-subnet").await;
    cluster.path("n3", "n1", "ipip", "cross-subnet").await;
    n3.until_no_condition("ModuleMissing").await;
}

#[tokio::test]
async fn a_restart_is_silent_and_a_device_that_goes_comes_back_without_a_flip() {
    let mut cluster = cluster(|_| ()).await;
    cluster.path("n3", "n1", "ipip", "cross-subnet").await;
    cluster.path("n1", "n3", "ipip", "cross-subnet").await;
    for node in cluster.nodes.values() {
        node.passes().await;
        node.kernel.clear_events();
    }
    cluster.stop("n1").await;
    cluster.start("n1");
    cluster.converged().await;
    for (name, node) in &cluster.nodes {
        node.passes().await;
        assert_eq!(node.changes(), [], "{name}");
    }
    let flips = |name: &str| cluster.node(name).published().counters.flips.clone();
    let before = flips("n3");
    cluster.node("n1").kernel.remove_interface("pairway-ipip");
    cluster.node("n1").until("repaired", |published| published.counters.repairs.contains_key("link")).await;
    cluster.converged().await;
    assert_ne!(cluster.node("n1").changes(), []);
    assert_eq!(offers(&cluster, "n1").len(), 2);
    cluster.node("n3").passes().await;
    assert_eq!(flips("n3"), before, "the peer has not noticed");
}

#[tokio::test]
async fn a_device_stays_until_nobody_can_send_through_it_any_more() {
    let cluster = cluster(|_| ()).await;
    cluster.path("n1", "n3", "ipip", "cross-subnet").await;
    cluster.path("n3", "n1", "ipip", "cross-subnet").await;
    let without = |name: &str| {
        cluster.node(name).kernel.clear_events();
        cluster.node(name).reconfigure(|config| {
            config.paths.cross_subnet = PathUse::Vxlan;
            config.paths.fallback = PathUse::Vxlan;
        });
    };
    without("n1");
    cluster.path("n1", "n3", "vxlan", "policy-differs").await;
    cluster.path("n3", "n1", "vxlan", "policy-differs").await;
    cluster.node("n1").passes().await;
    assert_eq!(offers(&cluster, "n1"), BTreeSet::new());
    assert_eq!(devices(cluster.node("n1")), ["pairway-ipip", "pairway-sit", "pairway-vx4"]);
    without("n2");
    without("n3");
    for (name, _) in [N1, N2, N3] {
        let node = cluster.node(name);
        node.until("VXLAN alone", |published| {
            published.pairs.iter().all(|pair| pair.path != "ipip" && pair.reason != "policy-differs")
        })
        .await;
        super::reload::eventually(|| devices(node) == ["pairway-vx4"]).await;
        // What leads through a device leaves it before it goes.
        let gone = |event: &Event| matches!(event, Event::Applied(Change::DeleteLink(name)) if is_ip(name));
        let led = |event: &Event| matches!(event, Event::Applied(Change::SetNexthop(..)));
        let changes = node.changes();
        let last_led = changes.iter().rposition(led).unwrap();
        assert!(changes.iter().position(gone).unwrap() > last_led, "{name}: {changes:#?}");
    }
    cluster.converged().await;
}

fn is_ip(name: &LinkName) -> bool {
    ["pairway-ipip", "pairway-sit"].contains(&name.as_str())
}
