//! Packet filters of others on the way of forwarded packets.

use std::collections::BTreeSet;
use std::net::IpAddr;

use vxlan::Interface;
use vxlan::firewall::{Arrival, Arriving, ForeignChain, forward_drops, input_drops};

use super::super::Check;
use super::super::facts::Facts;
use super::{finding, findings_or, known, not_checked, ok};
use crate::plan;

const FORWARD: &str = "forward-policy";
const INPUT: &str = "input";
const NFTABLES: &str = "nftables";

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = match &facts.netfilter {
        Err(why) => [NFTABLES, FORWARD].map(|name| not_checked(name, "nftables", why.clone())).into(),
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
    let nftables = facts.netfilter.as_ref().map(|netfilter| netfilter.input.as_slice());
    let mut checks = judged("nftables", nftables, false);
    checks.extend(judged("iptables-legacy", facts.legacy_input.as_deref(), true));
    checks
}

/// Packets of the other nodes, as far as the store knows these; else of nodes like this one.
fn arrivals(facts: &Facts) -> Vec<Arrival> {
    let known = facts.records.iter().flatten().filter(|record| record.name != facts.node);
    let others: BTreeSet<IpAddr> =
        known.flat_map(|record| record.addresses.iter().map(|net| net.addr())).collect();
    let mut arrivals = Vec::new();
    for own in facts.underlay_addresses() {
        let to = own.address.addr();
        let mut from: BTreeSet<IpAddr> =
            others.iter().copied().filter(|ip| ip.is_ipv4() == to.is_ipv4()).collect();
        if from.is_empty() {
            from.insert(to);
        }
        let bgp = facts.wants_bgp.then_some(Arriving::Tcp(facts.ports.bgp));
        let tunnels = facts.modules.asked.iter().filter(|_| to.is_ipv4());
        let interfaces = facts.interfaces.as_ref().ok();
        let index = interfaces.and_then(|all| all.get(&own.link)).map_or(0, |interface| interface.index);
        let what = [Arriving::Udp(facts.ports.vxlan)].into_iter().chain(bgp);
        arrivals.extend(
            what.chain(tunnels.map(|kind| Arriving::Protocol(kind.protocol()))).map(|what| Arrival {
                what,
                device: (own.link.to_string(), index),
                to,
                from: from.clone(),
            }),
        );
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
