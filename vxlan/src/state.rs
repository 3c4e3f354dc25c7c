//! The values of the data plane: one type for wanted and observed state, keyed as the kernel keys it.
//!
//! Devices are named, not numbered: an interface index belongs to one boot of one kernel, a name is what
//! the operator reads. The netlink layer translates.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use crate::firewall::{Netfilter, Table};

mod link;

pub use link::{IpTunnel, Settings, TunnelEnds, TunnelId, TunnelKind, TunnelLink, Vni, Vxlan, VxlanId};

/// How objects of ours are recognised in the kernel. Nothing without its mark is ever changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// `rtm_protocol` of our routes, rules, neighbours (`NDA_PROTOCOL`) and nexthop objects.
    pub route_protocol: u8,
    /// `ifalias` of our devices, and comment of our nftables table.
    pub ifalias: String,
    /// First id of our range of nexthop objects; the range has [`Marks::NEXTHOP_IDS`] ids.
    pub nexthop_base: u32,
    /// Name of our nftables table, of family `inet`.
    pub firewall_table: String,
}

impl Marks {
    /// Size of our range of nexthop ids.
    pub const NEXTHOP_IDS: u32 = 1 << 28;

    /// Whether a nexthop id lies in our range.
    #[must_use]
    pub fn owns_nexthop(&self, id: NexthopId) -> bool {
        id.0.wrapping_sub(self.nexthop_base) < Self::NEXTHOP_IDS
    }
}

/// A device name: 1 to 15 bytes, no `/`, no white space (`dev_valid_name` in the kernel).
///
/// Filled up with zero bytes, so that there is nothing to allocate: it stands in every neighbour, entry and nexthop.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName([u8; LONGEST_NAME]);

/// `IFNAMSIZ` without the zero byte at the end.
const LONGEST_NAME: usize = 15;

/// A name that the kernel would refuse for a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a device name: 1 to 15 bytes without '/', ':' or white space")]
pub struct LinkNameError(pub String);

impl LinkName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(LONGEST_NAME);
        // It was text when it was made.
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

impl FromStr for LinkName {
    type Err = LinkNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let legal = (1..=LONGEST_NAME).contains(&name.len())
            && name != "."
            && name != ".."
            && !name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace());
        if !legal {
            return Err(LinkNameError(name.to_owned()));
        }
        let mut bytes = [0; LONGEST_NAME];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self(bytes))
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LinkName").field(&self.as_str()).finish()
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The link-local address that follows from this Ethernet address (modified EUI-64, RFC 4291 appendix A).
    ///
    /// It is the IPv6 tunnel next hop of the peer that owns the address: the kernel refuses a gateway that lies
    /// inside of a block while that block is routed natively, and never looks a link-local one up.
    #[must_use]
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The id of a nexthop object; one space per network namespace, shared with everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NexthopId(pub u32);

/// Everything that the agent owns in one kernel, or wants to own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Tunnel devices by name.
    pub links: BTreeMap<LinkName, TunnelLink>,
    /// Addresses on our devices.
    pub addresses: BTreeSet<Address>,
    /// Permanent neighbours on our VXLAN devices: protocol address to Ethernet address.
    pub neighbors: BTreeMap<NeighborKey, Mac>,
    /// Forwarding database of our VXLAN devices: inner Ethernet address to the remote underlay address (`NTF_SELF`,
    /// `NUD_PERMANENT`). [`ELSEWHERE`] is only ever observed: it is deleted, and made anew where
    /// we want an entry.
    pub fdb: BTreeMap<FdbKey, IpAddr>,
    /// Nexthop objects.
    pub nexthops: BTreeMap<NexthopId, Nexthop>,
    /// Routes, native and tunnelled.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Policy rules.
    pub rules: BTreeSet<Rule>,
    /// `rp_filter` of devices, ours and the underlay's, by device: the value we want. Observed: the device's own value.
    /// The only setting of a foreign device that is ever changed.
    pub rp_filter: BTreeMap<LinkName, u8>,
    /// Our nftables table. One that carries our mark in any other form is observed as it is, and replaced.
    pub firewall: Option<Table>,
}

impl State {
    /// The same state as the kernel will show it: a metric of 0 is 1024 in IPv6 (`IP6_RT_PRIO_USER`).
    #[must_use]
    pub fn normalised(mut self) -> Self {
        if !self.routes.keys().all(RouteKey::is_normalised) {
            self.routes = self.routes.into_iter().map(|(key, route)| (key.normalised(), route)).collect();
        }
        self
    }

    /// What a wanted state must not hold and the kernel would take: routes over one nexthop object with different MTUs,
    /// and routes or nexthops that lean on something that is not wanted.
    #[must_use]
    pub fn flaws(&self) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        let mut mtus: BTreeMap<NexthopId, (RouteKey, Option<u32>)> = BTreeMap::new();
        for (key, route) in &self.routes {
            let RouteTarget::Nexthop(id) = route.target else { continue };
            if !self.nexthops.contains_key(&id) {
                flaws.push(Flaw::NexthopMissing { route: *key, id });
            }
            let (first, mtu) = *mtus.entry(id).or_insert((*key, route.mtu));
            if mtu != route.mtu {
                flaws.push(Flaw::MtusDiffer { id, routes: [first, *key] });
            }
        }
        let on = |link: &LinkName| self.links.get(link).is_some_and(|link| link.vxlan().is_some());
        let neighbors = self.neighbors.keys().map(|key| &key.link);
        let entries = neighbors.chain(self.fdb.keys().map(|key| &key.link));
        let stray: BTreeSet<&LinkName> = entries.filter(|link| !on(link)).collect();
        flaws.extend(stray.into_iter().map(|link| Flaw::NoVxlanDevice { link: link.clone() }));
        flaws
    }
}

/// Something wrong with a wanted state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A route leads to a nexthop object that is not wanted.
    #[error("route {} leads to nexthop {}, which is not wanted", route.prefix, id.0)]
    NexthopMissing {
        /// The route.
        route: RouteKey,
        /// Its nexthop object.
        id: NexthopId,
    },
    /// Two routes over one nexthop object have different MTUs: IPv4 would use that of whichever sends first.
    #[error("routes {} and {} over nexthop {} have different MTUs", routes[0].prefix, routes[1].prefix, id.0)]
    MtusDiffer {
        /// The nexthop object.
        id: NexthopId,
        /// The routes.
        routes: [RouteKey; 2],
    },
    /// Neighbours or forwarding entries on a device that is no wanted VXLAN device.
    #[error("neighbours or forwarding entries on {link}, which is no wanted VXLAN device")]
    NoVxlanDevice {
        /// The device.
        link: LinkName,
    },
}

/// An address on a device of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The device.
    pub link: LinkName,
    /// Address and prefix length; a tunnel address is a /32 or a /128 (set with `nodad`).
    pub address: IpNet,
}

/// Key of a neighbour entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeighborKey {
    /// The device.
    pub link: LinkName,
    /// Protocol address.
    pub address: IpAddr,
}

/// Where an observed forwarding database entry leads that names a port, a network or a device of its own: our entries name
/// none, and lead to no such address.
pub const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Key of a forwarding database entry of a VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FdbKey {
    /// The VXLAN device.
    pub link: LinkName,
    /// Inner destination Ethernet address.
    pub mac: Mac,
}

/// A gateway and how the kernel should look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gateway {
    /// Address of the gateway.
    pub address: IpAddr,
    /// `RTNH_F_ONLINK`: take the gateway as a neighbour on the device, whatever the routes say.
    pub onlink: bool,
}

/// A nexthop object (`ip nexthop`), one per peer and family: moving the peer is one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nexthop {
    /// Family of the object, as of the routes that may use it. (A route of IPv4 may use an object with an IPv6 gateway.)
    pub gateway: Gateway,
    /// Device that packets leave by.
    pub link: LinkName,
}

/// Key of a route: the kernel holds one route per table, prefix and metric (TOS is always 0 here).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    /// Routing table; 254 is `main`.
    pub table: u32,
    /// Destination, host bits zero.
    pub prefix: IpNet,
    /// `RTA_PRIORITY`; smaller is better.
    pub metric: u32,
}

impl RouteKey {
    /// The key as the kernel will show it: a metric of 0 is 1024 in IPv6 (`IP6_RT_PRIO_USER`).
    #[must_use]
    pub fn normalised(mut self) -> Self {
        if !self.is_normalised() {
            self.metric = 1024;
        }
        self
    }

    pub(crate) fn is_normalised(&self) -> bool {
        self.metric != 0 || matches!(self.prefix, IpNet::V4(_))
    }
}

/// What a route says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where packets go.
    pub target: RouteTarget,
    /// Preferred source address (`RTA_PREFSRC`).
    pub source: Option<IpAddr>,
    /// `RTAX_MTU` in bytes, only where smaller than the device's. Routes over one nexthop object have the
    /// same ([`State::flaws`]): IPv4 keeps one cached destination per object, with the metrics of the route that was
    /// used first.
    pub mtu: Option<u32>,
}

/// Where a route sends packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// To a nexthop object.
    Nexthop(NexthopId),
    /// Nowhere, with an ICMP unreachable to the sender (`RTN_UNREACHABLE`).
    Unreachable,
    /// Anything else that carries our mark (a plain gateway, several paths, a blackhole). Only ever observed: it is
    /// replaced where we want a route and deleted where we don't.
    Other,
}

/// A policy rule: packets from a prefix look into a table of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// `FRA_PRIORITY`; smaller is looked at first.
    pub priority: u32,
    /// Source prefix; its family is the rule's.
    pub from: IpNet,
    /// Table to look into.
    pub table: u32,
}

/// What one complete, uninterrupted look at the kernel found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// What carries our mark.
    pub ours: State,
    /// All interfaces of the namespace, ours included, by name.
    pub interfaces: BTreeMap<LinkName, Interface>,
    /// Routes of others (and the kernel's own), default routes of `main` excepted, that cover, equal or lie inside of one of
    /// the `watched` prefixes: see [`crate::Dataplane::observe`].
    pub foreign_routes: Vec<InstalledRoute>,
    /// Policy rules of others and the kernel's own, those of IPv4 first, in the order in which the kernel asks them.
    pub foreign_rules: Vec<ForeignRule>,
    /// Nexthop ids in our range that carry somebody else's protocol, or ours in a form that we never write (a group).
    pub foreign_nexthops: BTreeSet<NexthopId>,
    /// Default routes of `main`, best first: device and gateway.
    pub default_routes: Vec<InstalledRoute>,
    /// `net.ipv4.conf.all.rp_filter`.
    pub rp_filter_all: u8,
    /// Whether the kernel forwards packets.
    pub forwarding: Forwarding,
    /// nftables beside our table.
    pub netfilter: Netfilter,
}

/// Whether the kernel forwards packets, by family; `None` if it has no such family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// `net.ipv4.ip_forward`.
    pub ipv4: Option<bool>,
    /// `net.ipv6.conf.all.forwarding`.
    pub ipv6: Option<bool>,
}

/// A route as the kernel holds it, with what an operator needs to find its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledRoute {
    /// Its key.
    pub key: RouteKey,
    /// `rtm_protocol`.
    pub protocol: u8,
    /// Output device, if it has one.
    pub link: Option<LinkName>,
    /// Gateway, if it has one.
    pub gateway: Option<IpAddr>,
}

impl fmt::Display for InstalledRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {}", self.key.prefix)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(link) = &self.link {
            write!(f, " dev {link}")?;
        }
        write!(f, " table {} metric {} proto {}", self.key.table, self.key.metric, self.protocol)?;
        match protocol_name(self.protocol) {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

/// A policy rule of somebody else's, or the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignRule {
    /// A rule of IPv6.
    pub ipv6: bool,
    /// `FRA_PRIORITY`; smaller is looked at first.
    pub priority: u32,
    /// Source prefix, if it asks for one.
    pub from: Option<IpNet>,
    /// Destination prefix, if it asks for one.
    pub to: Option<IpNet>,
    /// Name of the device that packets come in by, if it asks for one.
    pub input: Option<String>,
    /// It asks for more than these: a mark, ports, the negation of it all.
    pub asks_more: bool,
    /// What it does.
    pub action: RuleAction,
    /// Its protocol (`FRA_PROTOCOL`).
    pub protocol: u8,
}

/// What a policy rule does with packets that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// Looks into a table, and goes on if that has no route.
    Lookup {
        /// The table.
        table: u32,
        /// Routes with prefixes of this length and shorter don't count (`suppress_prefixlength`).
        suppress: Option<u32>,
    },
    /// Ends them (`blackhole`, `unreachable`, `prohibit`).
    End,
    /// Anything else (`goto`).
    Other,
}

impl fmt::Display for ForeignRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {} from ", self.priority)?;
        match self.from {
            Some(from) => write!(f, "{from}")?,
            None => f.write_str("all")?,
        }
        if let Some(to) = self.to {
            write!(f, " to {to}")?;
        }
        if let Some(input) = &self.input {
            write!(f, " iif {input}")?;
        }
        match self.action {
            RuleAction::Lookup { table, suppress } => {
                write!(f, " lookup {table}")?;
                suppress.map_or(Ok(()), |length| write!(f, " suppress_prefixlength {length}"))
            }
            RuleAction::End => f.write_str(" that ends packets"),
            RuleAction::Other => Ok(()),
        }
    }
}

/// Names of `rtm_protocol` as iproute2 shows them.
fn protocol_name(protocol: u8) -> Option<&'static str> {
    Some(match protocol {
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        9 => "ra",
        11 => "zebra",
        12 => "bird",
        16 => "dhcp",
        17 => "mrouted",
        18 => "keepalived",
        42 => "babel",
        80 => "calico",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        _ => return None,
    })
}

/// An interface as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Interface index.
    pub index: u32,
    /// `IFLA_INFO_KIND`: `vxlan`, `ipip`, `veth`, `bridge`; empty for a physical device.
    pub kind: String,
    /// `ifalias`, empty if there is none.
    pub alias: String,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Ethernet address, if it is an Ethernet device.
    pub mac: Option<Mac>,
    /// What it claims for itself alone, if it is a tunnel device.
    pub tunnel: Option<TunnelId>,
    /// The ends of an IP tunnel to one remote address.
    pub ends: Option<TunnelEnds>,
    /// Whether IPv4 packets that come in by it are forwarded (`net.ipv4.conf.DEVICE.forwarding`). For IPv6 the setting for
    /// all devices decides.
    pub forwards: Option<bool>,
    /// Addresses.
    pub addresses: Vec<InterfaceAddress>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// Address and prefix length.
    pub address: IpNet,
    /// Secondary, temporary, deprecated, tentative or failed duplicate address detection: not to be used as underlay.
    pub unfit: bool,
    /// Link scope (`fe80::/10`, 169.254/16) or host scope.
    pub local_scope: bool,
}

#[cfg(test)]
mod tests;
