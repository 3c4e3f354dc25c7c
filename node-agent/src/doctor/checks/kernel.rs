//! The kernel: version, modules, forwarding, reverse paths, neighbours, clock.

use std::collections::BTreeSet;

use bgp::Family;
use vxlan::{Interface, LinkName};

use super::super::Check;
use super::super::facts::{ClockState, Facts, ModuleState};
use super::{finding, findings_or, known, not_checked, ok};
use crate::plan;

/// Protocol of routes that router advertisements make (`RTPROT_RA`).
const PROTOCOL_RA: u8 = 9;

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![match &facts.kernel {
        Ok(release) => ok("kernel", "", format!("Linux {release} will do")),
        Err(why) => finding("kernel", "", why.clone(), "boot a newer kernel"),
    }];
    checks.push(module("module-vxlan", "vxlan", &facts.modules.vxlan, "no tunnel can be made"));
    checks.extend(facts.modules.ip.iter().map(|(kind, state)| {
        let name = format!("module-{kind}");
        let asked = facts.modules.asked.contains(kind);
        if *state == ModuleState::Missing && !asked {
            return ok(&name, kind.as_str(), "not there, and not used: paths over IP-in-IP need it");
        }
        module(&name, kind.as_str(), state, "no IP-in-IP tunnel can be made, and pairs use another path")
    }));
    checks.extend(facts.families().map(|family| forwarding(facts, family)));
    checks.extend(device_forwarding(facts));
    checks.extend(ipv6_disabled(facts));
    checks.extend(router_advertisements(facts));
    checks.extend(rp_filter(facts));
    checks.extend(neighbors(facts));
    checks.push(known("clock", &facts.clock, |state| match state {
        ClockState::Synchronised => ok("clock", "", "kept by a time server"),
        ClockState::Free => finding(
            "clock",
            "",
            "kept by nobody: ages in the store (signs of life, blocks given back) and times in logs drift between nodes",
            "timedatectl set-ntp true",
        ),
    }));
    checks
}

fn module(name: &str, module: &str, state: &ModuleState, else_: &str) -> Check {
    match state {
        ModuleState::Present => ok(name, module, "in the kernel"),
        ModuleState::OnDisk => ok(name, module, "can be loaded, and is when it is needed"),
        ModuleState::Missing => finding(
            name,
            module,
            format!("the running kernel has no module {module}: {else_}"),
            format!(
                "modprobe {module}; if that fails, install the kernel's extra modules (linux-modules-extra, kernel-modules)"
            ),
        ),
        ModuleState::Unknown(why) => not_checked(name, module, why.clone()),
    }
}

fn forwarding(facts: &Facts, family: Family) -> Check {
    let (name, key) = match family {
        Family::Ipv4 => ("ip-forward", "net.ipv4.ip_forward"),
        Family::Ipv6 => ("ipv6-forward", "net.ipv6.conf.all.forwarding"),
    };
    match facts.forwarding.get(&family) {
        Some(Ok(true)) => ok(name, "", format!("{key} is 1")),
        Some(Ok(false)) => finding(
            name,
            "",
            format!("{key} is 0: no packet of a pod leaves this node or comes in"),
            format!("sysctl -w {key}=1, and the same line in /etc/sysctl.d/90-pairway.conf to keep it"),
        ),
        Some(Err(why)) => not_checked(name, "", why.clone()),
        None => not_checked(name, "", format!("{key} was not read")),
    }
}

/// Forwarding may be off for single devices: the underlay's, or those with addresses of pods.
fn device_forwarding(facts: &Facts) -> Vec<Check> {
    let on = matches!(facts.forwarding.get(&Family::Ipv4), Some(Ok(true)));
    let pods = |interface: &Interface| {
        let mut addresses = interface.addresses.iter().map(|found| found.address.addr());
        addresses.any(|ip| facts.pools.iter().any(|pool| pool.contains(&ip)))
    };
    let interfaces = facts.interfaces.iter().flatten();
    let of_pods = interfaces
        .filter(|(name, interface)| !facts.ours.contains(*name) && pods(interface))
        .map(|(name, _)| name.clone());
    let links: BTreeSet<LinkName> = facts.underlay_links().into_iter().chain(of_pods).collect();
    let off = links
        .iter()
        .filter(|link| on && facts.devices.get(*link).is_some_and(|device| device.forwarding == Some(false)));
    off.map(|link| {
        finding(
            "ip-forward",
            link,
            format!("net.ipv4.conf.{link}.forwarding is 0 though forwarding is on: packets of and for pods that come in here are dropped"),
            format!("sysctl -w net.ipv4.conf.{link}.forwarding=1"),
        )
    })
    .collect()
}

/// A device without IPv6 takes none of its addresses, routes and neighbours.
fn ipv6_disabled(facts: &Facts) -> Vec<Check> {
    const NAME: &str = "ipv6";
    if facts.families().all(|family| family != Family::Ipv6) {
        return vec![ok(NAME, "", "there is no IPv6 pool")];
    }
    let effect = "the kernel refuses what IPv6 pods need there";
    let mut found = Vec::new();
    match facts.ipv6_disabled {
        Err(ref why) => return vec![not_checked(NAME, "", why.clone())],
        Ok(None) => {
            let message = "this kernel has no IPv6, and a pool does: nothing is routed for it";
            return vec![finding(
                NAME,
                "",
                message,
                "boot without ipv6.disable=1, or leave the IPv6 pools out of the configuration",
            )];
        }
        // Written for all it was written for each: it is taken back in the same way. Alone it says nothing.
        Ok(Some((true, true))) => {
            return vec![finding(
                NAME,
                "",
                format!("net.ipv6.conf.all.disable_ipv6 is 1, for every device: {effect}"),
                plan::enable_ipv6("all"),
            )];
        }
        Ok(Some((false, true))) => {
            let message = format!(
                "net.ipv6.conf.default.disable_ipv6 is 1, for devices that are made from now on: {effect}"
            );
            found.push(finding(NAME, "default", message, plan::enable_ipv6("default")));
        }
        Ok(Some((_, false))) => {}
    }
    let is_off =
        |link: &&LinkName| facts.devices.get(*link).and_then(|device| device.ipv6_disabled) == Some(true);
    found.extend(facts.ours.iter().filter(is_off).map(|link| {
        let message = format!("net.ipv6.conf.{link}.disable_ipv6 is 1: {effect}");
        finding(NAME, link, message, plan::enable_ipv6(link.as_str()))
    }));
    findings_or(found, || ok(NAME, "", "not disabled"))
}

/// A kernel that forwards IPv6 hears router advertisements only where accept_ra is 2.
fn router_advertisements(facts: &Facts) -> Vec<Check> {
    const NAME: &str = "accept-ra";
    let wants = facts.families().any(|family| family == Family::Ipv6)
        || matches!(facts.forwarding.get(&Family::Ipv6), Some(Ok(true)));
    if !wants {
        return vec![ok(NAME, "", "IPv6 is not forwarded")];
    }
    let advertised = facts
        .default_routes
        .iter()
        .filter(|route| route.protocol == PROTOCOL_RA && Family::of(route.key.prefix) == Family::Ipv6);
    let found = advertised
        .filter_map(|route| route.link.as_ref())
        .filter(|link| facts.devices.get(*link).is_some_and(|device| device.accept_ra == Some(1)))
        .map(|link| {
            finding(
                NAME,
                link,
                format!(
                    "the IPv6 default route on {link} comes from router advertisements, which a forwarding kernel does \
                     not hear with accept_ra=1: the route goes when it runs out"
                ),
                format!("sysctl -w net.ipv6.conf.{link}.accept_ra=2"),
            )
        });
    findings_or(found.collect(), || ok(NAME, "", "no default route hangs on advertisements that go unheard"))
}

/// The kernel takes the larger of the two settings.
fn rp_filter(facts: &Facts) -> Vec<Check> {
    const NAME: &str = "rp-filter";
    let strict = |link: &LinkName| {
        facts.devices.get(link).and_then(|device| device.rp_filter).unwrap_or(0).max(facts.rp_filter_all) == 1
    };
    let links = facts.underlay_links();
    let strict_ones = links.into_iter().filter(strict);
    let running = !facts.ours.is_empty();
    let checks = strict_ones.map(|link| {
        if running {
            finding(
                NAME,
                &link,
                format!("strict on {link}, and our devices are there: packets of pods by the other path are dropped while a pair moves"),
                format!("restart the agent, which sets it; or sysctl -w net.ipv4.conf.{link}.rp_filter=2"),
            )
        } else {
            ok(NAME, &link, format!("strict on {link}: the agent makes it loose (2) while it runs, `pairway uninstall` restores it"))
        }
    });
    findings_or(checks.collect(), || ok(NAME, "", "packets by either path are accepted"))
}

fn neighbors(facts: &Facts) -> Vec<Check> {
    const NAME: &str = "neighbor-limit";
    let Ok(records) = &facts.records else { return Vec::new() };
    let mut checks = Vec::new();
    for address in facts.underlay_addresses() {
        let family = Family::of(address.address);
        let native = records
            .iter()
            .filter(|record| record.name != facts.node)
            .filter(|record| record.addresses.iter().any(|other| address.address.contains(&other.addr())))
            .count() as u64;
        let key = match family {
            Family::Ipv4 => "net.ipv4.neigh.default.gc_thresh3",
            Family::Ipv6 => "net.ipv6.neigh.default.gc_thresh3",
        };
        checks.push(match facts.neighbor_limit.get(&family) {
            Some(Ok(limit)) if *limit <= native => finding(
                NAME,
                family,
                format!("{key} is {limit}, and {native} nodes share the subnet {}: the kernel forgets neighbours, and packets to them are lost", address.address.trunc()),
                format!("sysctl -w {key}={}", (native * 4).next_power_of_two()),
            ),
            Some(Ok(limit)) => ok(NAME, family, format!("{key} is {limit}, for {native} nodes in the subnet")),
            Some(Err(why)) => not_checked(NAME, family, why.clone()),
            None => not_checked(NAME, family, format!("{key} was not read")),
        });
    }
    checks
}
