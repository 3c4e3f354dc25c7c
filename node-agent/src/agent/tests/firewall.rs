//! The nftables table of whole agents: what is in it, what happens when the kernel can't have it, and others' chains.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use vxlan::Change;
use vxlan::fake::{Event, Kind, errno};
use vxlan::firewall::{Base, BaseChain, Chain, Count, ForeignChain, NODES_IPV4, Table, hook};

use super::harness::{Cluster, Node};
use crate::store::Store as _;

const N1: (&str, &str) = ("n1", "192.0.2.11/24");
const N2: (&str, &str) = ("n2", "192.0.2.12/24");
const N3: (&str, &str) = ("n3", "198.51.100.13/24");

fn table(node: &Node) -> Table {
    node.kernel.state().firewall.expect("a table")
}

fn known(node: &Node) -> BTreeSet<IpAddr> {
    table(node).sets[NODES_IPV4].elements.clone()
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn all_nodes_are_known_and_a_new_one_is_one_change_of_a_set() {
    let mut cluster = Cluster::of(&[N1, N2]).await;
    assert_eq!(known(cluster.node("n1")), addresses(&["192.0.2.11", "192.0.2.12"]));
    cluster.node("n1").kernel.clear_events();
    cluster.add(N3.0, &[N3.1]);
    cluster.start(N3.0);
    cluster.converged().await;
    let all = addresses(&["192.0.2.11", "192.0.2.12", "198.51.100.13"]);
    cluster.node("n1").until("n3 is known", |_| known(cluster.node("n1")) == all).await;
    let whole = |event: &Event| matches!(event, Event::Applied(Change::SetFirewall(_)));
    assert!(!cluster.node("n1").changes().iter().any(whole), "the table is not written anew");
}

#[tokio::test]
async fn damage_is_repaired_and_the_counters_go_on() {
    let cluster = Cluster::of(&[N1, N2]).await;
    let node = cluster.node("n1");
    let whole = table(node);
    node.kernel.set_netfilter("the guard drops", |netfilter| {
        netfilter.guarded = Count { packets: 7, bytes: 700 };
        netfilter.masqueraded = Count { packets: 3, bytes: 300 };
    });
    node.until("the drops are counted", |published| published.counters.guarded.total == 7).await;
    let damages: [fn(&mut Option<Table>); 4] = [
        |table| *table = None,
        |table| drop(table.as_mut().unwrap().chains.remove("postrouting")),
        |table| {
            drop(
                table
                    .as_mut()
                    .unwrap()
                    .chains
                    .insert("stray".to_owned(), Chain { base: None, rules: Vec::new() }),
            )
        },
        |table| table.as_mut().unwrap().sets.get_mut(NODES_IPV4).unwrap().elements.clear(),
    ];
    for damage in damages {
        node.kernel.tamper("damage", |state| damage(&mut state.firewall));
        node.until("repaired", |_| node.kernel.state().firewall.as_ref() == Some(&whole)).await;
    }
    // A table that is written anew counts from zero.
    node.kernel
        .set_netfilter("counts anew", |netfilter| netfilter.guarded = Count { packets: 2, bytes: 200 });
    let published = node.until("both are summed up", |published| published.counters.guarded.total == 9).await;
    assert_eq!(published.counters.masqueraded.total, 3);
}

#[tokio::test]
async fn a_kernel_without_nf_tables_is_a_condition_and_everything_else_goes_on() {
    let mut cluster = Cluster::new();
    for (name, address) in [N1, N3] {
        cluster.add(name, &[address]);
    }
    let node = cluster.node("n1");
    node.kernel.set_netfilter("no nf_tables", |netfilter| {
        netfilter.unavailable = Some("Invalid argument".to_owned())
    });
    cluster.start("n1");
    cluster.start("n3");
    cluster.converged().await;
    let node = cluster.node("n1");
    node.until_condition("FirewallUnavailable").await;
    let published = node.published();
    let condition = published.status.conditions.iter().find(|c| c.kind == "FirewallUnavailable").unwrap();
    assert!(condition.message.contains("modprobe -a nf_tables"), "{}", condition.message);
    assert!(published.status.ready && published.status.failures.is_empty());
    assert_eq!(node.kernel.state().firewall, None);
    // It comes, and so does the table.
    node.kernel.set_netfilter("modprobe", |netfilter| netfilter.unavailable = None);
    node.until_no_condition("FirewallUnavailable").await;
    node.until("a table", |_| node.kernel.state().firewall.is_some()).await;
    // Nothing wanted, nothing missing.
    node.kernel.set_netfilter("gone again", |netfilter| netfilter.unavailable = Some("gone".to_owned()));
    node.until_condition("FirewallUnavailable").await;
    node.reconfigure(|config| {
        config.masquerade.enabled = false;
        config.vxlan.guard = false;
    });
    node.until_no_condition("FirewallUnavailable").await;
}

#[tokio::test]
async fn a_part_that_is_missing_is_the_same_condition_and_other_errors_are_failures() {
    let mut cluster = Cluster::new();
    for (name, address) in [N1, N3] {
        cluster.add(name, &[address]);
    }
    cluster.node("n1").kernel.fail_kind(Kind::Firewall, usize::MAX, errno::ENOENT);
    cluster.start("n1");
    cluster.start("n3");
    cluster.converged().await;
    let node = cluster.node("n1");
    node.until_condition("FirewallUnavailable").await;
    assert!(node.published().status.ready);
    node.kernel.heal();
    node.kernel.fail_kind(Kind::Firewall, usize::MAX, errno::ENOMEM);
    node.passes().await;
    let failing = node.until("a failure", |published| !published.status.failures.is_empty()).await;
    assert_eq!(failing.status.not_ready_reasons, ["dataplane"]);
    node.kernel.heal();
    cluster.converged().await;
    node.until_no_condition("FirewallUnavailable").await;
}

#[tokio::test]
async fn masquerade_and_guard_follow_the_configuration() {
    let cluster = Cluster::of(&[N1, N2]).await;
    let node = cluster.node("n1");
    let chains = |node: &Node| table(node).chains.into_keys().collect::<Vec<_>>();
    assert_eq!(chains(node), ["guard", "leaving4", "postrouting"]);
    node.reconfigure(|config| config.masquerade.enabled = false);
    node.until("only the guard", |_| chains(node) == ["guard"]).await;
    node.reconfigure(|config| {
        config.masquerade.enabled = true;
        config.vxlan.guard = false;
    });
    node.until("only the masquerade", |_| chains(node) == ["leaving4", "postrouting"]).await;
    let before = table(node).chains["leaving4"].rules.len();
    node.reconfigure(|config| config.masquerade.exclude = vec!["203.0.113.0/24".parse().unwrap()]);
    node.until("one more rule", |_| table(node).chains["leaving4"].rules.len() == before + 1).await;
    node.reconfigure(|config| config.masquerade.enabled = false);
    node.until("no table", |_| node.kernel.state().firewall.is_none()).await;
    assert!(node.conditions().is_empty(), "{:?}", node.conditions());
}

#[tokio::test]
async fn a_table_of_our_name_that_is_not_ours_is_a_conflict() {
    let cluster = Cluster::of(&[N1, N2]).await;
    let node = cluster.node("n1");
    node.kernel.set_netfilter("a foreign table", |netfilter| netfilter.foreign_table = true);
    node.until_condition("Conflict").await;
    assert!(node.published().status.ready);
    assert_eq!(node.kernel.state().firewall, None);
    node.kernel.set_netfilter("it goes", |netfilter| netfilter.foreign_table = false);
    node.until_no_condition("Conflict").await;
    node.until("a table", |_| node.kernel.state().firewall.is_some()).await;
}

#[tokio::test]
async fn chains_of_others_that_drop_pods_are_reported() {
    let cluster = Cluster::of(&[N1, N2]).await;
    let node = cluster.node("n1");
    let base = Base { kind: "filter".to_owned(), hook: hook::FORWARD, priority: 0 };
    let chain = |drops| ForeignChain {
        family: "ip".to_owned(),
        table: "filter".to_owned(),
        name: "FORWARD".to_owned(),
        base: Some(BaseChain { base: base.clone(), drops }),
        rules: Vec::new(),
    };
    node.kernel
        .set_netfilter("a chain that accepts", |netfilter| netfilter.forward = vec![chain(false)].into());
    node.passes().await;
    assert!(!node.conditions().contains(&"ForwardDropped".to_owned()));
    node.kernel
        .set_netfilter("iptables -P FORWARD DROP", |netfilter| netfilter.forward = vec![chain(true)].into());
    node.until_condition("ForwardDropped").await;
    let published = node.published();
    let condition = published.status.conditions.iter().find(|c| c.kind == "ForwardDropped").unwrap();
    assert!(condition.message.contains("iptables -I FORWARD -s 10."), "{}", condition.message);
    node.kernel.set_netfilter("it goes", |netfilter| netfilter.forward = Arc::default());
    node.until_no_condition("ForwardDropped").await;
}

/// Nodes that vanish from the store all at once are no strangers yet.
#[tokio::test]
async fn nodes_that_vanish_together_stay_known_for_a_while() {
    let mut cluster = Cluster::of(&[N1, N2, N3]).await;
    cluster.stop("n2").await;
    cluster.stop("n3").await;
    let node = cluster.node("n1");
    let all = known(node);
    assert_eq!(all.len(), 3);
    cluster.store.pause();
    for name in ["n2", "n3"] {
        cluster.store.remove_node(&name.parse().unwrap()).await.unwrap();
    }
    cluster.store.resume();
    node.until_condition("PeersVanished").await;
    assert_eq!(known(node), all);
    node.until_no_condition("PeersVanished").await;
    node.until("the others are strangers", |_| known(node) == addresses(&["192.0.2.11"])).await;
}
