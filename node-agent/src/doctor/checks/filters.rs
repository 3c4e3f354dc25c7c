//! Packet filters of others on the way of forwarded packets.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bgp::Family;
use vxlan::Interface;
use vxlan::firewall::{Arrival, Arriving, ForeignChain, forward_drops, input_drops};

use super::super::Check;
use super::super::facts::{Facts, Record};
use super::{finding, findings_or, known, not_checked, ok};
use crate::{path, plan};

const FORWARD: &str = "forward-policy";
const INPUT: &str = "input";
const NFTABLES: &str = "nftables";

/// Why nothing is said of filters that are there.
const UNREAD: &str = "filters of others change faster than they can be read";

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = match &facts.netfilter {
        Err(why) => [NFTABLES, FORWARD].map(|name| not_checked(name, "nftables", why.clone())).into(),
        Ok(netfilter) if netfilter.unread => {
            vec![not_checked(FORWARD, "nftables", UNREAD), not_checked(NFTABLES, "", UNREAD)]
        }
        Ok(netfilter) => {
            let found = forward_drops(&netfilter.forward, &facts.pools, &devices(facts));
            let found = found.iter().map(|drop| {
                let subject = format!("{} {} {}", drop.family, drop.table, drop.chain);
                let message = format!("the {drop}: pods of different nodes don't reach each other");
                finding(FORWARD, subject, message, plan::forward_remedy(drop))
            });
            let mut checks = findings_or(found.collect(), || {
                ok(FORWARD, "nftables", "no chain drops what is forwarded for pods")
            });
            checks.push(match &netfilter.unavailable {
                Some(why) if facts.wants_firewall => finding(
                    NFTABLES,
                    "",
                    format!("the kernel refuses nftables ({why}): nothing is masqueraded, and the tunnel is not guarded"),
                    plan::FIREWALL_MODULES,
                ),
                Some(_) => ok(NFTABLES, "", "not there, and not asked for"),
                None => ok(NFTABLES, "", "the kernel has it"),
            });
            checks
        }
    };
    checks.push(match &facts.legacy_forward {
        Err(why) => not_checked(FORWARD, "iptables-legacy", why.clone()),
        Ok(Some(policy)) if policy == "DROP" => finding(
            FORWARD,
            "iptables-legacy",
            "the policy of FORWARD is DROP: packets of pods pass only where a rule accepts them",
            accept_in_legacy(facts),
        ),
        Ok(Some(policy)) => ok(FORWARD, "iptables-legacy", format!("the policy of FORWARD is {policy}")),
        Ok(None) => ok(FORWARD, "iptables-legacy", "not in use"),
    });
    checks.extend(input(facts));
    checks.push(bridge_filter(facts));
    checks
}

/// What must come in from the nodes, and is dropped by a chain of others.
fn input(facts: &Facts) -> Vec<Check> {
    let arrivals = arrivals(facts);
    let judged = |subject: &str, chains: Result<&[ForeignChain], &String>, legacy: bool| match chains {
        Err(why) => vec![not_checked(INPUT, subject, why.clone())],
        Ok(chains) => {
            let drops = input_drops(chains, &arrivals);
            let found = drops.iter().map(|drop| {
                let subject = format!("{}: {} {} {}", drop.what, drop.family, drop.table, drop.chain);
                let (message, remedy) = if legacy {
                    // The chains look the same, and another program keeps them.
                    let message = drop.to_string().replacen("nftables table", "legacy iptables table", 1);
                    (message, drop.legacy_remedy())
                } else {
                    (drop.to_string(), drop.remedy())
                };
                finding(INPUT, subject, format!("the {message}: {}", plan::input_effect(drop.what)), remedy)
            });
            findings_or(found.collect(), || {
                ok(INPUT, subject, "nothing that must come in is seen to be dropped")
            })
        }
    };
    let unread = UNREAD.to_owned();
    let nftables = match &facts.netfilter {
        Ok(netfilter) if netfilter.unread => Err(&unread),
        Ok(netfilter) => Ok(netfilter.input.as_slice()),
        Err(why) => Err(why),
    };
    let mut checks = judged("nftables", nftables, false);
    checks.extend(judged("iptables-legacy", facts.legacy_input.as_deref(), true));
    checks
}

/// Packets of the other nodes, as far as the store knows these; else of nodes like this one. `None` stands for such a node.
fn arrivals(facts: &Facts) -> Vec<Arrival> {
    let others = || facts.records.iter().flatten().filter(|record| record.name != facts.node);
    let mut nodes: Vec<Option<&Record>> = others().map(Some).collect();
    if nodes.is_empty() {
        nodes.push(None);
    }
    let is_common = |family: &Family, node: Option<&Record>| {
        facts.underlay.local.of(*family).is_some()
            && node.is_none_or(|record| record.address(*family).is_some())
    };
    let interfaces = facts.interfaces.as_ref().ok();
    let mut arrivals = Vec::new();
    for own in facts.underlay_addresses() {
        let (to, family) = (own.address.addr(), Family::of(own.address));
        let index = interfaces.and_then(|all| all.get(&own.link)).map_or(0, |interface| interface.index);
        let mut expect = |what: Arriving, sends: &dyn Fn(Option<&Record>) -> bool| {
            let senders = nodes.iter().copied().filter(|node| sends(*node));
            let from: BTreeSet<IpAddr> =
                senders.filter_map(|node| node.map_or(Some(to), |record| record.address(family))).collect();
            if !from.is_empty() {
                arrivals.push(Arrival { what, device: (own.link.to_string(), index), to, from });
            }
        };
        // A tunnel runs over the first family that both ends have.
        expect(Arriving::Udp(facts.ports.vxlan), &|node| {
            Family::ALL.iter().find(|family| is_common(family, node)) == Some(&family)
        });
        // A session runs over the first family of pods; the node with the smaller name opens it.
        if facts.wants_bgp {
            expect(Arriving::Tcp(facts.ports.bgp), &|node| {
                facts.families().find(|family| is_common(family, node)) == Some(family)
                    && node.is_none_or(|record| path::dials(&record.name, &facts.node))
            });
        }
        for kind in facts.modules.asked.iter().filter(|_| family == Family::Ipv4) {
            expect(Arriving::Protocol(kind.protocol()), &|node| is_common(&family, node));
        }
    }
    arrivals
}

/// Devices that packets of pods come and go by.
fn devices(facts: &Facts) -> BTreeSet<String> {
    let in_pool = |interface: &Interface| {
        interface.addresses.iter().any(|a| facts.pools.iter().any(|pool| pool.contains(&a.address.addr())))
    };
    let interfaces = facts.interfaces.iter().flatten();
    let of_pods = interfaces.filter(|(_, interface)| in_pool(interface)).map(|(name, _)| name.to_string());
    let others = facts.underlay_links().into_iter().chain(facts.ours.iter().cloned());
    others.map(|link| link.to_string()).chain(of_pods).collect()
}

/// Of IPv4: what is looked at is `iptables-legacy`.
fn accept_in_legacy(facts: &Facts) -> String {
    let rules = facts.pools.iter().filter(|pool| pool.addr().is_ipv4()).map(|pool| {
        format!(
            "iptables-legacy -I FORWARD -s {pool} -j ACCEPT; iptables-legacy -I FORWARD -d {pool} -j ACCEPT"
        )
    });
    rules.collect::<Vec<_>>().join("; ")
}

/// kube-proxy translates a Service's address in iptables. Packets between pods of one bridge pass these only with
/// br_netfilter; without it the answer of a pod on the same node comes back untranslated.
fn bridge_filter(facts: &Facts) -> Check {
    const NAME: &str = "br-netfilter";
    let interfaces = facts.interfaces.as_ref().map_err(Clone::clone);
    known(NAME, &interfaces, |interfaces| {
        let bridge = interfaces.iter().find(|(name, interface)| {
            interface.kind == "bridge"
                && !facts.ours.contains(*name)
                && interface
                    .addresses
                    .iter()
                    .any(|found| facts.pools.iter().any(|pool| pool.contains(&found.address.addr())))
        });
        let Some((name, _)) = bridge else { return ok(NAME, "", "no bridge carries pods here") };
        if !facts.bridge_filter.kube_proxy {
            return ok(NAME, name, "not needed: no kube-proxy runs here");
        }
        match facts.bridge_filter.calls_iptables {
            Some(true) => ok(NAME, name, "bridged packets pass iptables, as kube-proxy needs"),
            Some(false) | None => finding(
                NAME,
                name,
                format!(
                    "packets between pods on {name} do not pass iptables: a Service with a backend on the same node does not answer"
                ),
                "modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
            ),
        }
    })
}
