//! Addresses and MTUs of the underlay.

use std::collections::BTreeMap;

use bgp::Family;
use ipnet::IpNet;
use vxlan::{Interface, LinkName, Vxlan};

use super::super::Check;
use super::super::facts::Facts;
use super::{finding, findings_or, not_checked, ok};

/// Smallest MTU of IPv6 (RFC 8200 §5) and of IPv4 as hosts have to take it (RFC 791 §3.1).
const fn least_mtu(family: Family) -> u32 {
    match family {
        Family::Ipv4 => 576,
        Family::Ipv6 => 1280,
    }
}

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let interfaces = match &facts.interfaces {
        Ok(interfaces) => interfaces,
        Err(why) => {
            return ["underlay", "host-prefix", "nics", "mtu"]
                .map(|name| not_checked(name, "", why.clone()))
                .into();
        }
    };
    let mut checks = vec![underlay(facts)];
    checks.extend(host_prefix(facts));
    checks.extend(several_nics(facts, interfaces));
    checks.extend(mtu(facts, interfaces));
    checks
}

fn underlay(facts: &Facts) -> Check {
    match &facts.underlay.problem {
        Some(problem) => finding("underlay", "", problem.clone(), "give it an address, or set node.underlay"),
        None => {
            let addresses: Vec<String> = facts
                .underlay_addresses()
                .map(|found| format!("{} on {}", found.address, found.link))
                .collect();
            ok("underlay", "", addresses.join(", "))
        }
    }
}

fn host_prefix(facts: &Facts) -> Vec<Check> {
    const NAME: &str = "host-prefix";
    let found = facts
        .underlay_addresses()
        .filter(|found| found.address.prefix_len() == found.address.max_prefix_len());
    let checks = found.map(|found| {
        finding(
            NAME,
            found.address,
            format!(
                "{} on {} has the prefix of a single host: no other node shares its subnet, so every pair is tunnelled",
                found.address, found.link
            ),
            "give the address its subnet's prefix length if the nodes reach each other directly; on a fabric that \
             routes single hosts this is as it should be",
        )
    });
    findings_or(checks.collect(), || ok(NAME, "", "the underlay addresses have subnets"))
}

/// Two interfaces in one subnet answer ARP for each other, and replies leave by either.
fn several_nics(facts: &Facts, interfaces: &BTreeMap<LinkName, Interface>) -> Vec<Check> {
    const NAME: &str = "nics";
    let mut by_subnet: BTreeMap<IpNet, Vec<&LinkName>> = BTreeMap::new();
    for (name, interface) in interfaces {
        if !interface.up || facts.ours.contains(name) {
            continue;
        }
        for address in &interface.addresses {
            let net = address.address;
            if address.local_scope || net.prefix_len() == net.max_prefix_len() {
                continue;
            }
            let links = by_subnet.entry(net.trunc()).or_default();
            if !links.contains(&name) {
                links.push(name);
            }
        }
    }
    let checks = by_subnet.iter().filter(|(_, links)| links.len() > 1).map(|(subnet, links)| {
        let names: Vec<&str> = links.iter().map(|link| link.as_str()).collect();
        let remedy = format!(
            "set node.underlay to one of them; and sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2, or put {} into another subnet",
            names[1..].join(", ")
        );
        finding(
            NAME,
            subnet,
            format!("{} are all in {subnet}: either answers for the other, and replies may leave by the wrong one", names.join(" and ")),
            remedy,
        )
    });
    findings_or(checks.collect(), || ok(NAME, "", "each subnet is on one interface"))
}

fn mtu(facts: &Facts, interfaces: &BTreeMap<LinkName, Interface>) -> Vec<Check> {
    const NAME: &str = "mtu";
    let mut found = Vec::new();
    let Some(tunnel) = facts.underlay_addresses().next() else {
        return vec![not_checked(NAME, "", "there is no underlay")];
    };
    let overhead = Vxlan::overhead(tunnel.address.addr());
    let in_tunnel = tunnel.mtu.saturating_sub(overhead);
    for family in facts.families().filter(|family| in_tunnel < least_mtu(*family)) {
        found.push(finding(
            NAME,
            &tunnel.link,
            format!(
                "{} has an MTU of {}, which leaves {in_tunnel} bytes in a tunnel: {family} needs {}",
                tunnel.link,
                tunnel.mtu,
                least_mtu(family)
            ),
            format!(
                "ip link set {} mtu {} (or more, on every node, and in the machine's own configuration){}",
                tunnel.link,
                least_mtu(family) + overhead,
                if family == Family::Ipv6 { ", or remove the IPv6 pool" } else { "" }
            ),
        ));
    }
    for (name, interface) in interfaces {
        let carries_pods = interface.kind == "bridge"
            && interface
                .addresses
                .iter()
                .any(|found| facts.pools.iter().any(|pool| pool.contains(&found.address.addr())));
        if carries_pods && interface.mtu > tunnel.mtu {
            found.push(finding(
                NAME,
                name,
                format!(
                    "pods on {name} send packets of up to {} bytes, and {} carries {}: each large one is answered by \
                     \"fragmentation needed\" first, and lost where something drops that answer",
                    interface.mtu, tunnel.link, tunnel.mtu
                ),
                format!("set the CNI plugin's mtu to {} and start the pods again", tunnel.mtu),
            ));
        }
    }
    findings_or(found, || {
        ok(NAME, &tunnel.link, format!("{} bytes on {}, {in_tunnel} in a tunnel", tunnel.mtu, tunnel.link))
    })
}
