//! Packet filters of others on the way of forwarded packets.

use ipnet::IpNet;

use super::super::Check;
use super::super::facts::{Chain, Facts};
use super::{finding, findings_or, known, not_checked, ok};

const FORWARD: &str = "forward-policy";

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = match &facts.ruleset {
        Err(why) => {
            vec![not_checked(FORWARD, "nftables", why.clone()), not_checked("firewalld", "", why.clone())]
        }
        Ok(ruleset) => {
            let mut checks: Vec<Check> =
                findings_or(ruleset.drops.iter().filter_map(|chain| drops(facts, chain)).collect(), || {
                    ok(FORWARD, "nftables", "no chain drops forwarded packets by its policy")
                });
            checks.push(if ruleset.tables.contains("firewalld") {
                let sources: Vec<String> =
                    facts.pools.iter().map(|pool| format!("--add-source={pool}")).collect();
                finding(
                    "firewalld",
                    "",
                    "firewalld is active: what it forwards between zones it rejects, packets of pods among them",
                    format!(
                        "firewall-cmd --permanent --zone=trusted {}; firewall-cmd --permanent --add-port={}/udp --add-port={}/tcp; firewall-cmd --reload",
                        sources.join(" "),
                        facts.ports.vxlan,
                        facts.ports.bgp
                    ),
                )
            } else {
                ok("firewalld", "", "it has no rules here")
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
            accept_with("iptables-legacy", facts),
        ),
        Ok(Some(policy)) => ok(FORWARD, "iptables-legacy", format!("the policy of FORWARD is {policy}")),
        Ok(None) => ok(FORWARD, "iptables-legacy", "not in use"),
    });
    checks.push(bridge_filter(facts));
    checks
}

/// A finding, unless the table accepts every pool that the chain sees.
fn drops(facts: &Facts, chain: &Chain) -> Option<Check> {
    let sees = |pool: &&IpNet| match chain.family.as_str() {
        "ip" => matches!(pool, IpNet::V4(_)),
        "ip6" => matches!(pool, IpNet::V6(_)),
        _ => true,
    };
    let missing: Vec<String> = facts
        .pools
        .iter()
        .filter(sees)
        .filter(|pool| !chain.accepts.iter().any(|accepted| accepted.contains(*pool)))
        .map(ToString::to_string)
        .collect();
    let Chain { family, table, name, .. } = chain;
    let program = match (family.as_str(), table.as_str(), name.as_str()) {
        ("ip", "filter", "FORWARD") => Some("iptables"),
        ("ip6", "filter", "FORWARD") => Some("ip6tables"),
        _ => None,
    };
    let remedy = match program {
        Some(program) => accept_with(program, facts),
        None => missing
            .iter()
            .map(|pool| {
                let ip = if pool.contains(':') { "ip6" } else { "ip" };
                format!("nft insert rule {family} {table} {name} {ip} saddr {pool} accept; nft insert rule {family} {table} {name} {ip} daddr {pool} accept")
            })
            .collect::<Vec<_>>()
            .join("; "),
    };
    (!missing.is_empty()).then(|| {
        finding(
            FORWARD,
            format!("{family} {table} {name}"),
            format!(
                "the chain {name} of table {family} {table} drops what no rule accepts, and no rule accepts {}: pods of \
                 different nodes don't reach each other",
                missing.join(", ")
            ),
            remedy,
        )
    })
}

fn accept_with(program: &str, facts: &Facts) -> String {
    let wants_v6 = program.starts_with("ip6");
    let pools = facts.pools.iter().filter(|pool| matches!(pool, IpNet::V6(_)) == wants_v6);
    pools
        .map(|pool| {
            format!("{program} -I FORWARD -s {pool} -j ACCEPT; {program} -I FORWARD -d {pool} -j ACCEPT")
        })
        .collect::<Vec<_>>()
        .join("; ")
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
