//! Packet filters of others on the way of forwarded packets.

use std::collections::BTreeSet;

use vxlan::Interface;
use vxlan::firewall::forward_drops;

use super::super::Check;
use super::super::facts::Facts;
use super::{finding, findings_or, known, not_checked, ok};
use crate::plan;

const FORWARD: &str = "forward-policy";
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
    checks.push(bridge_filter(facts));
    checks
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
