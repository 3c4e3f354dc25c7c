//! IP tunnels: `IFLA_IPTUN_*` (`linux/if_tunnel.h`). The two kinds share the numbers.

use std::net::{IpAddr, Ipv4Addr};

use crate::netlink::attributes::{attributes, ip, octets, put, u8_at};
use crate::state::{IpTunnel, Settings, TunnelEnds};

const LINK: u16 = 1;
const LOCAL: u16 = 2;
const REMOTE: u16 = 3;
const TTL: u16 = 4;
const TOS: u16 = 5;
const FLAGS: u16 = 8;
const PROTO: u16 = 9;
const PMTUDISC: u16 = 10;
const ENCAP_TYPE: u16 = 15;
const COLLECT_METADATA: u16 = 19;
const FWMARK: u16 = 20;

/// Outer packets live as long as any; an inherited TTL would let packets die on the underlay that are meant to live for
/// the one hop to the peer. The kernel takes a TTL of its own only together with path MTU discovery.
const HOPS: u8 = 64;

/// What is special to an IP tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) kind: IpTunnel,
    /// Unspecified if there is none.
    pub(crate) local: IpAddr,
    /// No remote address and no underlay device: then no other can have the kind and the local address.
    pub(crate) open: bool,
    /// The other end, if there is one alone.
    pub(crate) ends: Option<TunnelEnds>,
    pub(crate) settings: Settings,
}

pub(super) fn kind(name: &str) -> Option<IpTunnel> {
    IpTunnel::ALL.into_iter().find(|kind| kind.as_str() == name)
}

pub(super) fn decode(kind: IpTunnel, data: &[u8]) -> Found {
    let unset = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let zero = |value: &[u8]| value.iter().all(|byte| *byte == 0);
    let (mut local, mut open, mut settings) = (unset, true, Settings::Ours);
    let (mut remote, mut carried) = (None, kind.protocol());
    for (attribute, value) in attributes(data) {
        let found = match attribute {
            LOCAL => {
                local = ip(value).unwrap_or(unset);
                Settings::Ours
            }
            // A living device of many peers can't become one of a single peer, nor the other way round.
            REMOTE if !zero(value) => {
                open = false;
                remote = ip(value);
                Settings::Alien
            }
            LINK if !zero(value) => {
                open = false;
                Settings::Bent
            }
            ENCAP_TYPE if !zero(value) => Settings::Alien,
            COLLECT_METADATA => Settings::Alien,
            TTL if u8_at(value, 0) != Some(HOPS) => Settings::Bent,
            TOS | FLAGS | FWMARK if !zero(value) => Settings::Bent,
            PROTO if u8_at(value, 0) != Some(kind.protocol()) => {
                carried = u8_at(value, 0).unwrap_or(0);
                Settings::Bent
            }
            PMTUDISC if zero(value) => Settings::Bent,
            _ => Settings::Ours,
        };
        settings = settings.max(found);
    }
    // A tunnel of protocol 0 carries all.
    let kinds = IpTunnel::ALL.into_iter().filter(|kind| carried == 0 || carried == kind.protocol());
    let ends = remote.map(|remote| TunnelEnds { local, remote, kinds: kinds.collect() });
    Found { kind, local, open, ends, settings }
}

/// The attributes of a device. A change says all of them too: what it does not name becomes zero.
pub(super) fn write(data: &mut Vec<u8>, kind: IpTunnel, local: IpAddr) {
    put(data, LOCAL, &octets(local));
    put(data, TTL, &[HOPS]);
    put(data, PROTO, &[kind.protocol()]);
    put(data, PMTUDISC, &[1]);
}

/// A time to live of no length.
pub(super) fn malformed(data: &mut Vec<u8>) {
    put(data, TTL, &[]);
}
