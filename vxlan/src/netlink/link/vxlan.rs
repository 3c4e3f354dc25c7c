//! VXLAN devices: `IFLA_VXLAN_*` (`linux/if_link.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::attributes::{attribute, attributes, ip, octets, put, u16_at, u32_at};
use crate::state::{Settings, TunnelLink, Vni, Vxlan, VxlanId};

const ID: u16 = 1;
const GROUP: u16 = 2;
const LINK: u16 = 3;
const LOCAL: u16 = 4;
const TTL: u16 = 5;
const TOS: u16 = 6;
const LEARNING: u16 = 7;
const AGEING: u16 = 8;
const PORT: u16 = 15;
const GROUP6: u16 = 16;
const LOCAL6: u16 = 17;
const UDP_CSUM: u16 = 18;
const LABEL: u16 = 26;
const DF: u16 = 29;
const LOCALBYPASS: u16 = 31;

/// What can be set on a living device, as a new device has it.
const CHANGEABLE: [(u16, &[u8]); 7] = [
    (TTL, &[0]),
    (TOS, &[0]),
    (LEARNING, &[0]),
    (AGEING, &300u32.to_ne_bytes()),
    (LABEL, &[0; 4]),
    (DF, &[0]),
    (LOCALBYPASS, &[1]),
];
/// Numbers and switches that are zero on a device of ours and can't be changed on a living one: limit, port range, proxy,
/// short circuit, miss notifications, checksums over IPv6, remote checksum offload, metadata, TTL inheritance,
/// filter of network identifiers, policy of flow labels.
const ZERO: [u16; 14] = [9, 10, 11, 12, 13, 14, 19, 20, 21, 22, 25, 28, 30, 32];
/// Extensions, there or not: group policy, no partial checksums, generic protocol.
const ABSENT: [u16; 3] = [23, 24, 27];

/// What is special to a VXLAN device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: VxlanId,
    /// Unspecified if there is none.
    pub(crate) local: IpAddr,
    /// Index of the underlay device; 0 is none.
    pub(crate) underlay: u32,
    pub(crate) settings: Settings,
}

pub(super) fn decode(data: &[u8]) -> Option<Found> {
    let vni = attribute(data, ID).and_then(|value| u32_at(value, 0))?;
    // The only number of a VXLAN device in network byte order.
    let port = attribute(data, PORT).and_then(|value| u16_at(value, 0)).map(u16::from_be)?;
    let local = attribute(data, LOCAL).or_else(|| attribute(data, LOCAL6)).and_then(ip);
    let ipv6 = local.map_or_else(|| attribute(data, GROUP6).is_some(), |local| local.is_ipv6());
    let unset = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    Some(Found {
        id: VxlanId { vni: Vni(vni), port, ipv6 },
        local: local.unwrap_or(unset),
        underlay: attribute(data, LINK).and_then(|value| u32_at(value, 0)).unwrap_or(0),
        settings: settings(data),
    })
}

fn settings(data: &[u8]) -> Settings {
    let judge = |(kind, value): (u16, &[u8])| match kind {
        // A remote address for what the forwarding database does not know.
        GROUP | GROUP6 if value.iter().any(|byte| *byte != 0) => Settings::Alien,
        UDP_CSUM if value != [1] => Settings::Alien,
        _ if ABSENT.contains(&kind) => Settings::Alien,
        _ if ZERO.contains(&kind) && value.iter().any(|byte| *byte != 0) => Settings::Alien,
        _ if CHANGEABLE.iter().any(|(k, ours)| *k == kind && *ours != value) => Settings::Bent,
        _ => Settings::Ours,
    };
    attributes(data).map(judge).max().unwrap_or_default()
}

/// The attributes of a new device.
pub(super) fn create(data: &mut Vec<u8>, link: &TunnelLink, vxlan: &Vxlan, underlay: u32) {
    put(data, ID, &vxlan.vni.0.to_ne_bytes());
    put(data, PORT, &vxlan.port.to_be_bytes());
    put(data, LEARNING, &[0]);
    put(data, LINK, &underlay.to_ne_bytes());
    local(data, link.local);
}

/// What must be written to a living device, if anything.
pub(super) fn change(data: &mut Vec<u8>, now: &Found, link: &TunnelLink, underlay: u32) {
    if now.underlay != underlay {
        put(data, LINK, &underlay.to_ne_bytes());
    }
    if now.local != link.local {
        local(data, link.local);
    }
    if now.settings == Settings::Bent {
        // A kernel before 6.4 ignores what it does not know.
        for (kind, value) in CHANGEABLE {
            put(data, kind, value);
        }
    }
}

fn local(data: &mut Vec<u8>, ip: IpAddr) {
    put(data, if ip.is_ipv4() { LOCAL } else { LOCAL6 }, &octets(ip));
}
