//! What others do on a node beside us: filters, rules and routes that stand in our way are said, and never touched.

use std::sync::Arc;

use config::PathUse;
use vxlan::firewall::{Base, BaseChain, Expression, ForeignChain, MetaKey, Rule, Verdict, hook};
use vxlan::{
    ForeignRule, Forwarding, InstalledRoute, IpTunnel, NexthopId, RouteKey, RouteTarget, RuleAction,
    TunnelEnds,
};

use super::harness::{Cluster, Node};
use crate::plan::tests::pool;
use crate::status::{Condition, Published, Severity};

const N1: (&str, &str) = ("n1", "192.0.2.11/24");
const N2: (&str, &str) = ("n2", "192.0.2.12/24");
const N3: (&str, &str) = ("n3", "198.51.100.13/24");

fn of_kind(published: &Published, kind: &str) -> Vec<Condition> {
    published.status.conditions.iter().filter(|condition| condition.kind == kind).cloned().collect()
}

/// Waits until there are exactly so many conditions of a kind.
async fn until_count(node: &Node, kind: &str, count: usize) -> Vec<Condition> {
    let published = node.until(kind, |published| of_kind(published, kind).len() == count).await;
    of_kind(&published, kind)
}

fn closed(rules: Vec<Rule>) -> ForeignChain {
    let base = Base { kind: "filter".to_owned(), hook: hook::INPUT, priority: 0 };
    ForeignChain {
        family: "ip".to_owned(),
        table: "filter".to_owned(),
        name: "INPUT".to_owned(),
        base: Some(BaseChain { base, drops: true }),
        rules,
    }
}

fn accept(protocol: u8) -> Rule {
    let protocol = Expression::Compare { equal: true, value: vec![protocol] };
    Rule::new(vec![
        Expression::Meta(MetaKey::TransportProtocol),
        protocol,
        Expression::Verdict(Verdict::Accept),
    ])
}

#[tokio::test]
async fn what_must_come_in_and_is_dropped_is_said() {
    let cluster = Cluster::of(&[N1, N2, N3]).await;
    let set = |node: &Node, chains: Vec<ForeignChain>| {
        node.kernel.set_netfilter("input chains", move |netfilter| netfilter.input = chains.into());
    };
    // The node with the smaller name opens the session: only the other must let it in.
    let (mut accepting, mut opening) = (cluster.node("n1"), cluster.node("n2"));
    if crate::path::dials(&"n1".parse().unwrap(), &"n2".parse().unwrap()) {
        std::mem::swap(&mut accepting, &mut opening);
    }
    for node in [accepting, opening] {
        set(node, vec![ForeignChain { name: "forward".to_owned(), base: None, ..closed(vec![]) }]);
        node.passes().await;
        assert_eq!(of_kind(&node.published(), "InputDropped"), []);
        set(node, vec![closed(vec![])]);
    }
    let found = until_count(accepting, "InputDropped", 2).await;
    assert!(found[0].subject.starts_with("TCP port 179 to 192.0.2.1"), "{found:?}");
    assert!(found[1].subject.starts_with("UDP port 4789 to 192.0.2.1"), "{found:?}");
    assert!(found[1].message.contains("iptables -I INPUT -p udp --dport 4789 -j ACCEPT"), "{found:?}");
    assert!(found.iter().all(|condition| condition.severity == Severity::Error));
    let found = until_count(opening, "InputDropped", 1).await;
    assert!(found[0].subject.starts_with("UDP"), "{found:?}");

    set(accepting, vec![closed(vec![accept(17)])]);
    let found = until_count(accepting, "InputDropped", 1).await;
    assert!(found[0].subject.starts_with("TCP"), "{found:?}");
    set(accepting, vec![closed(vec![accept(17), accept(6)])]);
    until_count(accepting, "InputDropped", 0).await;
    // It is no matter of this node's readiness, and nothing is touched.
    assert!(accepting.published().status.ready && opening.published().status.ready);
}

#[tokio::test]
async fn the_protocols_of_ip_in_ip_are_asked_for_where_it_is_used_and_guarded() {
    let mut cluster = Cluster::new();
    for (name, address) in [N1, N3] {
        cluster.add(name, &[address]);
        let mut config = cluster.node(name).config.lock().unwrap();
        let config = config.as_mut().unwrap();
        config.paths.cross_subnet = PathUse::Ipip;
        config.pools.push(pool("fd10:244::/48", 64));
    }
    for (name, _) in [N1, N3] {
        cluster.start(name);
    }
    cluster.path("n1", "n3", "ipip", "cross-subnet").await;
    let node = cluster.node("n1");
    let others = |set: &str| {
        let table = node.kernel.state().firewall.expect("a table");
        table.sets.get(set).map(|set| set.elements.clone())
    };
    node.until("the guard", |_| others("others_ipip").is_some() && others("others_sit").is_some()).await;
    assert_eq!(others("others_ipip"), Some([].into()));
    let ends = |local: &str, remote: &str| TunnelEnds {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        kinds: [IpTunnel::Ipip].into(),
    };
    node.kernel.add_one_to_one_tunnel("theirs", IpTunnel::Ipip, ends("192.0.2.11", "203.0.113.9"));
    node.kernel.add_one_to_one_tunnel("any", IpTunnel::Ipip, ends("0.0.0.0", "203.0.113.10"));
    node.kernel.add_one_to_one_tunnel("elsewhere", IpTunnel::Ipip, ends("192.0.2.77", "203.0.113.11"));
    let expected = || ["203.0.113.9", "203.0.113.10"].map(|ip| ip.parse().unwrap()).into();
    node.until("their other ends", |_| others("others_ipip") == Some(expected())).await;
    assert_eq!(others("others_sit"), Some([].into()));
    node.kernel.remove_interface("theirs");
    let expected = || ["203.0.113.10"].map(|ip| ip.parse().unwrap()).into();
    node.until("the other left", |_| others("others_ipip") == Some(expected())).await;

    node.kernel.set_netfilter("closed", |netfilter| {
        netfilter.input = vec![closed(vec![accept(17), accept(6)])].into()
    });
    let found = until_count(node, "InputDropped", 2).await;
    assert!(
        found[0].subject.starts_with("IP protocol 4 to") && found[1].subject.starts_with("IP protocol 41 to")
    );
}

fn rule(priority: u32, table: u32) -> ForeignRule {
    ForeignRule {
        ipv6: false,
        priority,
        from: Some("10.244.0.0/16".parse().unwrap()),
        to: None,
        input: None,
        asks_more: false,
        action: RuleAction::Lookup { table, suppress: None },
        protocol: 0,
    }
}

fn states(node: &Node) -> Vec<String> {
    let published: Arc<Published> = node.published();
    published.routes.iter().map(|route| route.state.clone()).collect()
}

#[tokio::test]
async fn a_rule_that_comes_before_ours_is_one_conflict_and_over_when_it_goes() {
    let cluster = Cluster::of(&[N1, N3]).await;
    let node = cluster.node("n1");
    let key = |prefix: &str| RouteKey { table: 77, prefix: prefix.parse().unwrap(), metric: 0 };
    let theirs = InstalledRoute {
        key: key("0.0.0.0/0"),
        protocol: 4,
        link: Some("eth0".parse().unwrap()),
        gateway: Some("192.0.2.77".parse().unwrap()),
    };
    // A rule that leads to an empty table is nobody's trouble.
    node.kernel.add_foreign_rule(rule(100, 77));
    node.passes().await;
    assert_eq!(of_kind(&node.published(), "Conflict"), []);
    assert!(states(node).iter().all(|state| state == "installed"));
    node.kernel.clear_events();
    node.kernel.add_foreign_route(theirs);
    let found = until_count(node, "Conflict", 2).await;
    assert!(found[0].message.contains("rule 100 from 10.244.0.0/16 lookup 77"), "{found:?}");
    assert!(found.iter().any(|condition| condition.subject.contains("table 1120")), "{found:?}");
    let published = node.published();
    assert_eq!(published.counters.conflicts, 2);
    let pair = node.pair("n3", "ipv4");
    assert!(!pair.ready && pair.not_ready.as_ref().unwrap().contains("rule 100"), "{pair:?}");
    let diverted = published.routes.iter().filter(|route| route.state == "diverted");
    assert!(
        diverted.clone().count() == 2 && diverted.into_iter().all(|route| route.detail.contains("rule 100"))
    );
    assert!(published.status.ready, "it is a matter of the pairs");
    assert_eq!(node.changes(), [], "nothing is touched");
    node.kernel.remove_foreign_rules(100);
    until_count(node, "Conflict", 0).await;
    node.until("all is well", |published| published.pairs[0].ready).await;
    assert!(states(node).iter().all(|state| state == "installed"));
}

#[tokio::test]
async fn a_route_inside_of_a_peers_block_and_a_better_one_to_its_node_are_conflicts() {
    let cluster = Cluster::of(&[N1, N3]).await;
    let node = cluster.node("n1");
    let block: ipnet::IpNet = node.pair("n3", "ipv4").blocks[0].parse().unwrap();
    let own: ipnet::IpNet = node.published().status.blocks[0].parse().unwrap();
    let inside = |block: ipnet::IpNet| ipnet::IpNet::new(block.addr(), 26).unwrap();
    let route = |table: u32, prefix: ipnet::IpNet| InstalledRoute {
        key: RouteKey { table, prefix, metric: 0 },
        protocol: 12,
        link: Some("eth0".parse().unwrap()),
        gateway: Some("192.0.2.77".parse().unwrap()),
    };
    // A pod's route in our own block is our container network's.
    node.kernel.add_foreign_route(route(254, inside(own)));
    node.passes().await;
    assert_eq!(of_kind(&node.published(), "Conflict"), []);
    let host: ipnet::IpNet = "198.51.100.13/32".parse().unwrap();
    for (table, prefix, what) in [(254, inside(block), "a part of it"), (1120, host, "comes before ours")] {
        node.kernel.add_foreign_route(route(table, prefix));
        until_count(node, "Conflict", 1).await;
        let pair = node.pair("n3", "ipv4");
        assert!(!pair.ready && pair.not_ready.as_ref().unwrap().contains(what), "{pair:?}");
        let published = node.published();
        let diverted: Vec<_> = published.routes.iter().filter(|route| route.state == "diverted").collect();
        assert!(diverted.len() == 1 && diverted[0].detail.contains("(bird)"), "{diverted:?}");
        node.kernel.remove_foreign_route(RouteKey { table, prefix, metric: 0 });
        until_count(node, "Conflict", 0).await;
    }
    node.until("all is well", |published| published.pairs[0].ready).await;
}

#[tokio::test]
async fn routes_over_a_nexthop_that_somebody_has_taken_are_diverted() {
    let cluster = Cluster::of(&[N1, N3]).await;
    let node = cluster.node("n1");
    let state = node.kernel.state();
    let target = state.routes.values().find_map(|route| match route.target {
        RouteTarget::Nexthop(id) => Some(id),
        RouteTarget::Unreachable | RouteTarget::Other => None,
    });
    let id: NexthopId = target.expect("a route to the peer");
    node.kernel.add_foreign_nexthop(id);
    until_count(node, "Conflict", 1).await;
    let published = node.published();
    let over: Vec<_> = published.routes.iter().filter(|route| route.kind != "unreachable").collect();
    assert!(!over.is_empty());
    for route in over {
        assert!(route.state == "diverted" && route.detail.contains("somebody else's"), "{route:?}");
    }
    assert!(!published.pairs[0].ready);
    node.kernel.remove_foreign_nexthop(id);
    until_count(node, "Conflict", 0).await;
    node.until("all is well", |published| {
        published.pairs[0].ready && published.routes.iter().all(|route| route.state == "installed")
    })
    .await;
}

#[tokio::test]
async fn a_device_that_does_not_forward_is_said_where_pods_packets_go_through_it() {
    let cluster = Cluster::of(&[N1, N3]).await;
    let node = cluster.node("n1");
    node.kernel.set_forwarding(Forwarding { ipv4: Some(true), ipv6: None });
    let block: ipnet::IpNet = node.published().status.blocks[0].parse().unwrap();
    let gateway = ipnet::IpNet::new(block.hosts().next().unwrap(), 24).unwrap().to_string();
    node.kernel.add_interface("cni0", "bridge", 1500, &[&gateway]);
    node.kernel.add_interface("other0", "veth", 1500, &["203.0.113.1/24"]);
    node.kernel.set_device_forwarding("other0", false);
    node.passes().await;
    assert_eq!(of_kind(&node.published(), "ForwardingDisabled"), [], "a device of nobody's pods");
    for (device, effect) in [("cni0", "that pods send"), ("eth0", "for pods that come in")] {
        node.kernel.set_device_forwarding(device, false);
        let found = until_count(node, "ForwardingDisabled", 1).await;
        assert_eq!(found[0].subject, format!("ipv4 {device}"));
        assert!(found[0].message.contains(effect), "{found:?}");
        assert!(found[0].message.contains(&format!("sysctl -w net.ipv4.conf.{device}.forwarding=1")));
        node.kernel.set_device_forwarding(device, true);
        until_count(node, "ForwardingDisabled", 0).await;
    }
}

#[tokio::test]
async fn an_underlay_too_small_for_ipv6_is_said_with_the_numbers_and_nothing_is_refused() {
    let mut cluster = Cluster::new();
    for (name, address) in [N1, N3] {
        cluster.add(name, &[address]);
        cluster.node(name).kernel.set_mtu("eth0", 1320);
        cluster.node(name).config.lock().unwrap().as_mut().unwrap().pools.push(pool("fd10:244::/48", 64));
    }
    for (name, _) in [N1, N3] {
        cluster.start(name);
    }
    let node = cluster.node("n1");
    let found = until_count(node, "MtuTooSmall", 1).await;
    assert_eq!(found[0].subject, "pairway-vx4");
    for word in ["eth0 has an MTU of 1320", "takes 50 of them", "needs 1280", "mtu 1330"] {
        assert!(found[0].message.contains(word), "{found:?}");
    }
    node.until("IPv4 goes on", |published| {
        let ready = |family: &str| published.pairs.iter().any(|pair| pair.family == family && pair.ready);
        published.status.ready && ready("ipv4") && !ready("ipv6")
    })
    .await;
    let published = node.published();
    assert_eq!(published.status.failures, [""; 0]);
    let ipv6 = published.pairs.iter().find(|pair| pair.family == "ipv6").unwrap();
    assert!(ipv6.not_ready.as_ref().unwrap().contains("can't be built"), "{ipv6:?}");
    assert_eq!(of_kind(&published, "KernelRefused"), []);
    // It grows, and IPv6 goes.
    for name in ["n1", "n3"] {
        cluster.node(name).kernel.set_mtu("eth0", 1330);
    }
    until_count(node, "MtuTooSmall", 0).await;
    node.until("both families", |published| {
        published.pairs.len() == 2 && published.pairs.iter().all(|pair| pair.ready)
    })
    .await;
    // And shrinks while all of it stands.
    node.kernel.set_mtu("eth0", 1329);
    until_count(node, "MtuTooSmall", 1).await;
    node.until("IPv4 goes on", |published| {
        published.status.failures.is_empty()
            && published.pairs.iter().any(|pair| pair.family == "ipv4" && pair.ready)
    })
    .await;
}
