//! What is not of this node's configuration: speakers outside of the cluster, pools of other nodes.

use config::BgpPeer;

use super::*;
use crate::node::PoolRecord;

fn outside(import: &[&str]) -> BgpPeer {
    BgpPeer {
        name: "tor".to_owned(),
        address: "192.0.2.254".parse().unwrap(),
        asn: 65000,
        port: 179,
        nodes: BTreeMap::new(),
        import: import.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        export: None,
        graceful_shutdown: false,
    }
}

/// Judging others' filters is left out where neither they nor what must arrive has changed, and where it is not, what is
/// said is the same as from the beginning.
#[test]
fn what_others_filters_drop_is_judged_once() {
    use vxlan::Interface;
    use vxlan::firewall::{Base, BaseChain, ForeignChain, hook};

    let closed = |drops| {
        let base = Base { kind: "filter".to_owned(), hook: hook::INPUT, priority: 0 };
        Arc::new(vec![ForeignChain {
            family: "ip".to_owned(),
            table: "filter".to_owned(),
            name: "INPUT".to_owned(),
            base: Some(BaseChain { base, drops }),
            rules: Vec::new(),
        }])
    };
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &["n2 192.0.2.2/24 10.244.2.0/24"]);
    let eth0 = Interface {
        index: 2,
        kind: String::new(),
        alias: String::new(),
        up: true,
        carrier: true,
        mtu: 1500,
        mac: None,
        tunnel: None,
        ends: None,
        forwards: None,
        addresses: Vec::new(),
    };
    scene.observed.interfaces.insert("eth0".parse().unwrap(), eth0);
    let said = |plan: &Plan| plan.findings.iter().filter(|found| found.kind == "InputDropped").count();
    let mut go_on = |change: &dyn Fn(&mut Scene)| {
        change(&mut scene);
        let before = Arc::clone(&scene.judged);
        let plan = scene.plan();
        scene.judged = Arc::default();
        assert_eq!(scene.plan(), plan, "as judged anew");
        scene.judged = Arc::clone(&plan.judged);
        (said(&plan), Arc::ptr_eq(&before, &plan.judged))
    };
    assert_eq!(go_on(&|scene| scene.observed.netfilter.input = closed(true)), (1, false));
    assert_eq!(go_on(&|_| ()), (1, true));
    // The same chains, read again, and a change that is none for them.
    assert_eq!(go_on(&|scene| scene.observed.netfilter.input = closed(true)), (1, true));
    assert_eq!(go_on(&|scene| scene.established("n2", &["10.244.2.0/24"])), (1, true));
    // Another sender, and another chain.
    assert_eq!(go_on(&|scene| scene.add("n3 192.0.2.3/24 10.244.3.0/24")), (1, false));
    assert_eq!(go_on(&|scene| scene.observed.netfilter.input = closed(false)), (0, false));
    assert_eq!(go_on(&|_| ()), (0, true));
    assert_eq!(go_on(&|scene| scene.observed.netfilter.input = Arc::default()), (0, false));
}

#[test]
fn routes_from_outside_keep_out_of_the_cluster() {
    let mut scene = Scene::new(
        "n1 192.0.2.1/24 10.244.1.0/24",
        &["n2 192.0.2.2/24 10.244.2.0/24", "n3 198.51.100.3/24 10.244.3.0/24"],
    );
    scene.config.bgp.peers.push(outside(&["0.0.0.0/0"]));
    scene.established("tor", &[]);
    // A pool that only other nodes have in their configuration.
    let cidr = "172.20.0.0/16".parse().unwrap();
    scene.snapshot.pools.insert(cidr, PoolRecord { cidr, block_prefix: 24, unknown: BTreeMap::new() });
    for (prefix, next_hop) in [
        ("0.0.0.0/0", "192.0.2.254"),
        ("172.20.7.0/24", "192.0.2.254"),
        ("203.0.113.0/24", "192.0.2.254"),
        ("203.0.114.0/24", "203.0.113.1"),
        ("203.0.115.0/24", "192.0.2.2"),
        ("10.244.2.0/25", "192.0.2.254"),
        ("10.0.0.0/8", "192.0.2.254"),
        ("198.51.100.0/25", "192.0.2.254"),
    ] {
        scene.learn("tor", prefix, next_hop);
    }
    let plan = scene.plan();
    let accepted: Vec<String> = plan
        .owners()
        .iter()
        .filter(|(_, owner)| **owner == "tor")
        .map(|(key, _)| key.prefix.to_string())
        .collect();
    assert_eq!(accepted, ["0.0.0.0/0", "203.0.113.0/24"]);
    let refused: Vec<String> =
        plan.refused["tor"].iter().map(|refused| format!("{} {}", refused.prefix, refused.reason)).collect();
    assert_eq!(
        refused,
        [
            "10.0.0.0/8 not-imported",
            "10.244.2.0/25 not-imported",
            "172.20.7.0/24 not-imported",
            "198.51.100.0/25 not-imported",
            "203.0.114.0/24 next-hop",
            "203.0.115.0/24 next-hop",
        ]
    );
    assert_eq!(kinds(&plan), ["PrefixRefused"]);
}

#[test]
fn pools_that_hold_no_pods_are_no_exception_of_the_masquerade() {
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &["n2 192.0.2.2/24 10.244.2.0/24"]);
    let cidr = "172.20.0.0/16".parse().unwrap();
    let text =
        |scene: &mut Scene| scene.plan().dataplane.firewall.as_ref().unwrap().to_nft("pairway", "pairway");
    scene.snapshot.pools.insert(cidr, PoolRecord { cidr, block_prefix: 24, unknown: BTreeMap::new() });
    assert!(!text(&mut scene).contains("172.20."), "the record alone is what a pool leaves behind");
    scene.claim("172.20.7.0/24".parse().unwrap(), &name("n2"));
    let table = text(&mut scene);
    assert!(table.contains("172.20.0.0/16"), "{table}");
}

#[test]
fn a_cordoned_node_says_so_to_the_speakers_that_are_to_know() {
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &["n2 192.0.2.2/24 10.244.2.0/24"]);
    let told = BgpPeer { graceful_shutdown: true, ..outside(&[]) };
    let other = BgpPeer { name: "other".to_owned(), address: "192.0.2.253".parse().unwrap(), ..outside(&[]) };
    scene.config.bgp.peers = vec![told, other];
    let peers = |scene: &Scene| -> Vec<(String, bool)> {
        let plan = scene.plan();
        plan.peers.iter().map(|(name, peer)| (name.clone(), peer.graceful_shutdown)).collect()
    };
    let all =
        |tor| [("n2", false), ("other", false), ("tor", tor)].map(|(name, marked)| (name.to_owned(), marked));
    assert_eq!(peers(&scene), all(false));
    scene.cordoned = true;
    assert_eq!(peers(&scene), all(true));
    scene.cordoned = false;
    assert_eq!(peers(&scene), all(false));
}

#[test]
fn outside_speakers_are_chosen_by_label_and_yield_to_nodes() {
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &["n2 192.0.2.2/24 10.244.2.0/24"]);
    let mut rack = outside(&[]);
    rack.nodes.insert("rack".to_owned(), "a".to_owned());
    scene.config.bgp.peers = vec![rack.clone()];
    assert!(!scene.plan().peers.contains_key("tor"));
    scene.config.node.labels.insert("rack".to_owned(), "a".to_owned());
    let plan = scene.plan();
    assert_eq!(plan.peers["tor"].role, Role::Dial);
    assert!(plan.peers["tor"].import.rules.is_empty());
    scene.config.bgp.peers = vec![BgpPeer { name: "n2".to_owned(), ..rack.clone() }];
    assert_eq!(kinds(&scene.plan()), ["BgpPeerTaken"]);
    scene.config.bgp.peers = vec![BgpPeer { address: "192.0.2.2".parse().unwrap(), ..rack }];
    assert_eq!(kinds(&scene.plan()), ["BgpPeerTaken"]);
}
