//! Paths: joining, leaving, losing sessions, moving.

use bgp::speaker::Shutdown;
use config::{NodeSelector, PathRule, PathUse};

use super::harness::Cluster;
use crate::plan::tests::pool;

const N1: (&str, &str) = ("n1", "192.0.2.11/24");
const N2: (&str, &str) = ("n2", "192.0.2.12/24");
const N3: (&str, &str) = ("n3", "198.51.100.13/24");

#[tokio::test]
async fn neighbours_are_native_and_the_others_are_tunnelled() {
    let cluster = Cluster::of(&[N1, N2, N3]).await;
    cluster.path("n1", "n2", "native", "bgp").await;
    cluster.path("n2", "n1", "native", "bgp").await;
    cluster.path("n1", "n3", "vxlan", "cross-subnet").await;
    cluster.path("n3", "n2", "vxlan", "cross-subnet").await;
    let published = cluster.node("n1").published();
    assert_eq!(published.status.pairs_by_path["native"], 1);
    assert_eq!(published.status.underlay["ipv4"], "192.0.2.11/24");
    assert_eq!(published.status.underlay_interface.as_deref(), Some("eth0"));
    assert_eq!(published.status.conditions, []);
    assert_eq!(published.neighbors.len(), 1);
    assert!(published.routes.iter().all(|route| route.state == "installed"), "{:#?}", published.routes);
    assert_eq!(cluster.node("n1").pair("n2", "ipv4").mtu, 1500);
    assert_eq!(cluster.node("n1").pair("n3", "ipv4").mtu, 1450);
    // Both forms stand ready for every peer.
    assert_eq!(cluster.node("n1").kernel.state().fdb.len(), 2);
}

#[tokio::test]
async fn a_peer_that_joins_is_reached_and_one_that_is_deleted_is_forgotten() {
    let mut cluster = Cluster::of(&[N1, N2]).await;
    cluster.add("n3", &["198.51.100.13/24"]);
    cluster.start("n3");
    cluster.converged().await;
    cluster.stop("n3").await;
    // A stopped agent is not a removed node.
    cluster.node("n1").passes().await;
    cluster.path("n1", "n3", "vxlan", "cross-subnet").await;
    let (answer, answered) = tokio::sync::oneshot::channel();
    let delete = |force, answer| crate::status::Command::DeleteNode { name: "n3".to_owned(), force, answer };
    cluster.node("n1").handle().commands.send(delete(false, answer)).await.unwrap();
    assert_eq!(answered.await.unwrap().unwrap_err().code, "fresh");
    let (answer, answered) = tokio::sync::oneshot::channel();
    cluster.node("n1").handle().commands.send(delete(true, answer)).await.unwrap();
    assert_eq!(answered.await.unwrap().unwrap().len(), 1);
    for name in ["n1", "n2"] {
        cluster.node(name).until("without n3", |published| published.pairs.len() == 1).await;
        let state = cluster.node(name).kernel.state();
        assert_eq!((state.fdb.len(), state.neighbors.len(), state.nexthops.len()), (1, 1, 1));
    }
}

#[tokio::test]
async fn a_lost_session_moves_its_pair_to_the_tunnel_and_back() {
    let cluster = Cluster::of(&[N1, N2]).await;
    cluster.node("n1").kernel.clear_events();
    cluster.fabric.cut("192.0.2.12");
    cluster.path("n1", "n2", "vxlan", "bgp-down").await;
    cluster.path("n2", "n1", "vxlan", "bgp-down").await;
    cluster.node("n1").until_condition("BgpSessionDown").await;
    assert!(cluster.node("n1").published().status.ready, "a dead peer is no unready agent");
    assert_eq!(cluster.node("n1").changes().len(), 1, "one message moves a peer");
    cluster.fabric.mend("192.0.2.12");
    cluster.path("n1", "n2", "native", "bgp").await;
    cluster.path("n2", "n1", "native", "bgp").await;
    cluster.node("n1").until_no_condition("BgpSessionDown").await;
    let flips = &cluster.node("n1").published().counters.flips;
    assert!(flips.contains_key(&("native".into(), "vxlan".into(), "bgp-down".into())), "{flips:?}");
}

#[tokio::test]
async fn a_session_that_comes_up_without_routes_leaves_the_pair_in_the_tunnel() {
    let mut cluster = Cluster::new();
    cluster.fabric.mute("192.0.2.12", true);
    for (name, address) in [N1, N2] {
        cluster.add(name, &[address]);
        cluster.start(name);
    }
    cluster.path("n2", "n1", "native", "bgp").await;
    cluster.path("n1", "n2", "vxlan", "bgp-waiting").await;
    cluster.fabric.mute("192.0.2.12", false);
    cluster.path("n1", "n2", "native", "bgp").await;
}

#[tokio::test]
async fn a_session_that_never_comes_up_is_reported() {
    let mut cluster = Cluster::new();
    cluster.fabric.cut("192.0.2.12");
    for (name, address) in [N1, N2] {
        cluster.add(name, &[address]);
        cluster.start(name);
    }
    cluster.path("n1", "n2", "vxlan", "bgp-waiting").await;
    cluster.node("n1").until_condition("BgpSessionDown").await;
    cluster.fabric.mend("192.0.2.12");
    cluster.converged().await;
    cluster.node("n1").until_no_condition("BgpSessionDown").await;
}

#[tokio::test]
async fn a_node_that_moves_to_another_subnet_takes_its_paths_along() {
    let cluster = Cluster::of(&[N1, N2]).await;
    let before = cluster.node("n1").pair("n2", "ipv4").blocks;
    cluster.node("n2").kernel.set_addresses("eth0", &["198.51.100.12/24"]);
    cluster.path("n1", "n2", "vxlan", "cross-subnet").await;
    cluster.path("n2", "n1", "vxlan", "cross-subnet").await;
    let pair = cluster.node("n1").pair("n2", "ipv4");
    assert_eq!((pair.underlay.peer.as_str(), pair.blocks), ("198.51.100.12", before));
    let fdb = cluster.node("n1").kernel.state().fdb;
    assert_eq!(fdb.into_values().collect::<Vec<_>>(), ["198.51.100.12".parse::<std::net::IpAddr>().unwrap()]);
    // And back, with another address.
    cluster.node("n2").kernel.set_addresses("eth0", &["192.0.2.99/24"]);
    cluster.path("n1", "n2", "native", "bgp").await;
    cluster.path("n2", "n1", "native", "bgp").await;
    let (_, ends) = cluster.fabric.history();
    assert!(ends.contains(&Shutdown::Silent), "the speaker's addresses are its identity: {ends:?}");
}

#[tokio::test]
async fn a_node_that_moves_within_its_subnet_keeps_its_native_paths() {
    let cluster = Cluster::of(&[N1, N2]).await;
    cluster.path("n1", "n2", "native", "bgp").await;
    cluster.path("n2", "n1", "native", "bgp").await;
    let flips = |name: &str| cluster.node(name).published().counters.flips.clone();
    let before = (flips("n1"), flips("n2"));
    cluster.fabric.last_words(std::time::Duration::from_millis(300));
    cluster.node("n2").kernel.set_addresses("eth0", &["192.0.2.99/24"]);
    cluster
        .node("n1")
        .until("the new address", |published| {
            published.pairs.iter().any(|pair| pair.underlay.peer == "192.0.2.99" && pair.reason == "bgp")
        })
        .await;
    cluster.path("n2", "n1", "native", "bgp").await;
    assert_eq!((flips("n1"), flips("n2")), before, "no pair has left its native path");
    let gateways: Vec<_> = cluster
        .node("n1")
        .kernel
        .state()
        .nexthops
        .into_values()
        .map(|nexthop| nexthop.gateway.address)
        .collect();
    assert_eq!(gateways, ["192.0.2.99".parse::<std::net::IpAddr>().unwrap()]);
}

#[tokio::test]
async fn a_speaker_that_starts_anew_holds_nothing_up() {
    let cluster = Cluster::of(&[N1, N2]).await;
    cluster.path("n1", "n2", "native", "bgp").await;
    let node = cluster.node("n1");
    let flips = node.published().counters.flips.clone();
    let (want, starts) = (node.kernel.state(), cluster.fabric.history().0.len());
    cluster.fabric.last_words(std::time::Duration::from_secs(2));
    node.reconfigure(|config| config.bgp.hold_time = std::time::Duration::from_secs(30));
    cluster.path("n1", "n2", "native", "bgp-held").await;
    node.kernel.tamper("our routes go", |state| state.routes.clear());
    node.until("repaired", |_| node.kernel.state() == want).await;
    assert_eq!(cluster.fabric.history().0.len(), starts, "the former one is still at its last words");
    cluster.path("n1", "n2", "native", "bgp").await;
    assert_eq!(cluster.fabric.history().0.len(), starts + 1);
    assert_eq!(node.published().counters.flips, flips);
}

#[tokio::test]
async fn a_host_prefix_is_said() {
    let mut cluster = Cluster::of(&[N1]).await;
    cluster.add("n2", &["192.0.2.12/32"]);
    cluster.node("n2").kernel.set_default_route("eth0", "192.0.2.1".parse().unwrap());
    cluster.start("n2");
    cluster.converged().await;
    cluster.path("n1", "n2", "vxlan", "host-prefix").await;
    assert!(cluster.node("n1").conditions().contains(&"HostPrefix".to_owned()));
}

#[tokio::test]
async fn rules_hold_at_both_ends_and_a_rollout_never_cuts_a_pair() {
    let cluster = Cluster::of(&[N1, N2]).await;
    let rule = PathRule {
        between: [
            NodeSelector { labels: [].into(), cidr: Some("192.0.2.12/32".parse().unwrap()) },
            NodeSelector::default(),
        ],
        use_: PathUse::Direct,
    };
    let change = |config: &mut config::Config| config.paths.rules.push(rule.clone());
    cluster.node("n1").reconfigure(change);
    // While one end has the rule and the other has not, both use what both receive.
    cluster.path("n1", "n2", "vxlan", "policy-differs").await;
    cluster.path("n2", "n1", "vxlan", "policy-differs").await;
    cluster.node("n2").until_condition("PolicyDiffers").await;
    cluster.node("n2").reconfigure(change);
    cluster.path("n1", "n2", "native", "direct").await;
    cluster.path("n2", "n1", "native", "direct").await;
    cluster.node("n1").until_no_condition("PolicyDiffers").await;
    assert!(cluster.node("n1").published().neighbors.is_empty(), "direct needs no session");
}

#[tokio::test]
async fn two_families_have_their_own_paths() {
    let mut cluster = Cluster::new();
    for (name, addresses) in [
        ("n1", &["192.0.2.11/24", "2001:db8::11/64"][..]),
        ("n2", &["192.0.2.12/24", "2001:db8::12/64"]),
        ("n3", &["192.0.2.13/24"]),
    ] {
        cluster.add(name, addresses);
        cluster.node(name).config.lock().unwrap().as_mut().unwrap().pools.push(pool("fd10:244::/48", 64));
        cluster.start(name);
    }
    cluster.converged().await;
    let path = |from: &str, to: &str, family: &str| cluster.node(from).pair(to, family).path;
    assert_eq!(path("n1", "n2", "ipv4"), "native");
    assert_eq!(path("n1", "n2", "ipv6"), "native");
    assert_eq!(path("n1", "n3", "ipv4"), "native");
    assert_eq!(path("n1", "n3", "ipv6"), "vxlan");
    cluster.symmetric();
}

#[tokio::test]
async fn a_change_of_the_underlays_mtu_is_followed() {
    let cluster = Cluster::of(&[N1, N3]).await;
    cluster.node("n1").kernel.set_mtu("eth0", 9000);
    cluster.node("n1").until("the new MTU", |published| published.pairs[0].mtu == 8950).await;
    let links = cluster.node("n1").kernel.state().links;
    assert_eq!(links.into_values().map(|link| link.mtu).collect::<Vec<_>>(), [8950]);
}
