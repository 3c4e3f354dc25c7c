//! Tunnel devices: VXLAN, and the two kinds of IP in IPv4.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::{LinkName, Mac};

/// A VXLAN network identifier, 24 bits (RFC 7348 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(pub u32);

/// What two VXLAN devices of one namespace can't share: the kernel refuses the second with `EEXIST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VxlanId {
    /// Network identifier.
    pub vni: Vni,
    /// UDP destination port.
    pub port: u16,
    /// Whether the outer packets are IPv6; devices of different underlay families don't collide.
    pub ipv6: bool,
}

/// What two tunnel devices of one namespace can't share: the kernel refuses the second with `EEXIST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelId {
    /// Of VXLAN devices.
    Vxlan(VxlanId),
    /// Of IP tunnels without a remote address and without an underlay device. The fallback device of the kernel's module
    /// (`tunl0`) has no local address either, and is nobody's rival.
    Ip {
        /// Kind of tunnel.
        kind: IpTunnel,
        /// Local address.
        local: IpAddr,
    },
}

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vxlan(VxlanId { vni, port, .. }) => write!(f, "VNI {} and port {port}", vni.0),
            Self::Ip { kind, local } => write!(f, "kind {kind}, local address {local} and no remote"),
        }
    }
}

/// The ends of an IP tunnel to one remote address: what comes from there is that tunnel's, whatever other tunnels have the
/// same local address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelEnds {
    /// Local address; unspecified for any.
    pub local: IpAddr,
    /// The other end.
    pub remote: IpAddr,
    /// What it carries.
    pub kinds: BTreeSet<IpTunnel>,
}

/// A tunnel device of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelLink {
    /// What kind, with what only that kind has.
    pub kind: TunnelKind,
    /// Underlay address of this node; its family is the device's and can't be changed on a living device.
    pub local: IpAddr,
    /// MTU in bytes of the inner IP packet.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// All that no other field names.
    pub settings: Settings,
}

/// Kind of a tunnel device; can't be changed on a living device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelKind {
    /// RFC 7348, `drivers/net/vxlan`; `nolearning`.
    Vxlan(Vxlan),
    /// An IP header before an IP packet. Without a remote address: a route's gateway is the peer's underlay address, as it
    /// is or, for IPv6 in IPv4, as the last four bytes of an IPv6 address ([`IpTunnel::gateway`]). No Ethernet, so
    /// neither neighbours nor forwarding entries.
    Ip(IpTunnel),
}

/// What a VXLAN device has of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// Network identifier; can't be changed on a living device.
    pub vni: Vni,
    /// UDP destination port; can't be changed on a living device.
    pub port: u16,
    /// Underlay device.
    pub underlay: LinkName,
    /// Ethernet address of this VTEP.
    pub mac: Mac,
}

/// Kind of an IP tunnel. There is none over IPv6: `ip6tnl` takes the outer destination from a route's gateway, and the
/// kernel refuses an IPv6 gateway that another route of `main` leads to over another device, be it on-link or not
/// (`ip6_route_check_nh_onlink`). A peer's underlay address always is such a one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpTunnel {
    /// IPv4 in IPv4 (RFC 2003; `net/ipv4/ipip.c`).
    Ipip,
    /// IPv6 in IPv4 (RFC 4213; `net/ipv6/sit.c`).
    Sit,
}

impl IpTunnel {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Ipip, Self::Sit];

    /// Protocol number of its packets (RFC 2003 §3.1, RFC 4213 §3).
    #[must_use]
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Ipip => 4,
            Self::Sit => 41,
        }
    }

    /// Name of the kind in the kernel (`IFLA_INFO_KIND`), and of the module that has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Sit => "sit",
        }
    }

    /// The gateway of a route through the tunnel to a peer's underlay address: that address. For IPv6 in IPv4 the
    /// IPv4-compatible address (RFC 4291 §2.5.5.1), out of which the kernel takes it.
    #[must_use]
    pub fn gateway(self, remote: Ipv4Addr) -> IpAddr {
        match self {
            Self::Ipip => remote.into(),
            Self::Sit => {
                let [a, b, c, d] = remote.octets();
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])
            }
        }
    }
}

impl fmt::Display for IpTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The settings of a device that nothing of ours ever varies: learning, time to live, type of service, "don't fragment",
/// checksums, extensions, router advertisements, generated addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Settings {
    /// As we make them: the only ones that are wanted.
    #[default]
    Ours,
    /// Somebody changed one that can be set back on the living device.
    Bent,
    /// One of them can only be had right on a new device. Only ever observed, as is `Bent`.
    Alien,
}

impl TunnelLink {
    /// What must be unique in the namespace.
    #[must_use]
    pub fn id(&self) -> TunnelId {
        match &self.kind {
            TunnelKind::Vxlan(Vxlan { vni, port, .. }) => {
                TunnelId::Vxlan(VxlanId { vni: *vni, port: *port, ipv6: self.local.is_ipv6() })
            }
            TunnelKind::Ip(kind) => TunnelId::Ip { kind: *kind, local: self.local },
        }
    }

    /// Whether a living device can be changed into `wanted`; else it is deleted and made anew.
    #[must_use]
    pub fn can_become(&self, wanted: &Self) -> bool {
        let same = match (&self.kind, &wanted.kind) {
            (TunnelKind::Vxlan(_), TunnelKind::Vxlan(_)) => self.id() == wanted.id(),
            (TunnelKind::Ip(now), TunnelKind::Ip(wanted)) => now == wanted,
            (TunnelKind::Vxlan(_), TunnelKind::Ip(_)) | (TunnelKind::Ip(_), TunnelKind::Vxlan(_)) => false,
        };
        same && self.settings != Settings::Alien
    }

    /// What only a VXLAN device has.
    #[must_use]
    pub fn vxlan(&self) -> Option<&Vxlan> {
        match &self.kind {
            TunnelKind::Vxlan(vxlan) => Some(vxlan),
            TunnelKind::Ip(_) => None,
        }
    }

    /// The same, to change it.
    pub fn vxlan_mut(&mut self) -> Option<&mut Vxlan> {
        match &mut self.kind {
            TunnelKind::Vxlan(vxlan) => Some(vxlan),
            TunnelKind::Ip(_) => None,
        }
    }

    /// The Ethernet address, of a device that has one.
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        self.vxlan().map(|vxlan| vxlan.mac)
    }
}

impl Vxlan {
    /// Bytes that VXLAN adds to an inner IP packet over an underlay of this address's family: inner Ethernet 14, VXLAN 8,
    /// UDP 8, outer IP 20 or 40 (RFC 7348 §5).
    #[must_use]
    pub const fn overhead(underlay: IpAddr) -> u32 {
        14 + 8 + 8 + outer(underlay)
    }
}

/// Bytes of the outer IP header.
const fn outer(underlay: IpAddr) -> u32 {
    if underlay.is_ipv4() { 20 } else { 40 }
}

impl TunnelKind {
    /// Name of the kind in the kernel (`IFLA_INFO_KIND`).
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Vxlan(_) => "vxlan",
            Self::Ip(kind) => kind.as_str(),
        }
    }

    /// Bytes that the tunnel adds to an inner IP packet over an underlay of this address's family. IP in IP: the outer
    /// header, 20 bytes (40, were there any over IPv6).
    #[must_use]
    pub const fn overhead(&self, underlay: IpAddr) -> u32 {
        match self {
            Self::Vxlan(_) => Vxlan::overhead(underlay),
            Self::Ip(_) => outer(underlay),
        }
    }
}
