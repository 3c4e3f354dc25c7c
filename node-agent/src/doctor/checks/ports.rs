//! The two ports that we need.

use std::net::IpAddr;

use vxlan::TunnelId;

use super::super::Check;
use super::super::facts::{Facts, Owner, PortOwner, Proto};
use super::{finding, findings_or, not_checked, ok};

/// Name of our own process.
const OWN: &str = "pairway";

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let owners = match &facts.ports.owners {
        Ok(owners) => owners,
        Err(why) => return ["port-bgp", "port-vxlan"].map(|name| not_checked(name, "", why.clone())).into(),
    };
    [bgp(facts, owners), vxlan(facts, owners)].into_iter().flatten().collect()
}

fn bgp(facts: &Facts, owners: &[PortOwner]) -> Vec<Check> {
    const NAME: &str = "port-bgp";
    let port = facts.ports.bgp;
    let wanted = &facts.ports.bgp_addresses;
    let found = owners.iter().filter(|owner| {
        owner.proto == Proto::Tcp
            && owner.port == port
            && wanted.iter().any(|address| meets(owner.address, *address))
    });
    let checks = found.filter_map(|owner| {
        let who = match &owner.owner {
            Owner::Process { name, .. } if name == OWN => return None,
            Owner::Process { pid, name } => format!("{name} (process {pid})"),
            Owner::Unseen => "a process that can't be named (run this as root)".to_owned(),
        };
        Some(finding(
            NAME,
            port,
            format!("{who} listens on TCP port {port} of {}: other nodes can't open sessions to this one, and pairs that need one are tunnelled", owner.address),
            "end it (another BGP daemon? `ss -ltnp` shows it), or set bgp.port, or bgp.listen to an address that it leaves free",
        ))
    });
    findings_or(checks.collect(), || ok(NAME, port, format!("TCP port {port} is free, or ours")))
}

fn vxlan(facts: &Facts, owners: &[PortOwner]) -> Vec<Check> {
    const NAME: &str = "port-vxlan";
    let (port, vni) = (facts.ports.vxlan, facts.ports.vni);
    let mut checks = Vec::new();
    let mut on_device = false;
    for (name, interface) in facts.interfaces.as_ref().into_iter().flatten() {
        let Some(TunnelId::Vxlan(id)) = interface.tunnel else { continue };
        if id.port != port {
            continue;
        }
        on_device = true;
        if !facts.ours.contains(name) && id.vni.0 == vni {
            checks.push(finding(
                NAME,
                name,
                format!("the device {name} has our VXLAN network identifier {vni} and port {port}: the kernel refuses ours beside it"),
                format!("uninstall what has made it and `ip link delete {name}`, or set vxlan.vni or vxlan.port on all nodes"),
            ));
        }
    }
    for owner in owners.iter().filter(|owner| owner.proto == Proto::Udp && owner.port == port) {
        let who = match &owner.owner {
            Owner::Process { pid, name } => format!("{name} (process {pid})"),
            // The kernel's own socket belongs to no process.
            Owner::Unseen if on_device => continue,
            Owner::Unseen => "a process that can't be named (run this as root)".to_owned(),
        };
        checks.push(finding(
            NAME,
            port,
            format!("{who} has UDP port {port}: the tunnel device can't be set up"),
            format!("end it (`ss -lunp sport = :{port}` shows it), or set vxlan.port on all nodes"),
        ));
    }
    findings_or(checks, || ok(NAME, port, format!("UDP port {port} is free, or ours")))
}

/// Whether a socket on `bound` is in the way of one on `wanted`.
fn meets(bound: IpAddr, wanted: IpAddr) -> bool {
    // A socket on [::] takes IPv4 as well, unless it was told not to.
    bound == wanted || (bound.is_unspecified() && (bound.is_ipv6() || wanted.is_ipv4()))
}
