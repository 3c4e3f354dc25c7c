//! Devices: what the kernel says of them, and the requests that make and change ours.

mod ip_tunnel;
mod vxlan;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};

use crate::state::{IpTunnel, LinkName, Mac, Settings, TunnelEnds, TunnelId, TunnelKind, TunnelLink, Vxlan};

use super::attributes::{attribute, attributes, put, put_nested, text, u8_at, u32_at};
use super::request::{CREATE, EXCL, Request};

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const HEADER: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_CONF: u16 = 2;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
/// `IN6_ADDR_GEN_MODE_NONE`.
const NO_ADDRESSES: u8 = 1;
/// `DEVCONF_ACCEPT_RA`, counted from zero.
const ACCEPT_RA: usize = 3;
/// `IPV4_DEVCONF_FORWARDING` and `IPV4_DEVCONF_RP_FILTER`, counted from one.
const FORWARDING: u16 = 1;
const RP_FILTER: u16 = 8;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;

/// A device as a link message describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: LinkName,
    pub(super) kind: String,
    pub(super) alias: String,
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) mtu: u32,
    pub(super) mac: Option<Mac>,
    pub(super) rp_filter: Option<u8>,
    /// Whether IPv4 packets that come in by the device are forwarded.
    pub(super) forwards: Option<bool>,
    /// Whether the device has IPv6 at all: not with an MTU below 1280, nor where IPv6 is not in the kernel.
    pub(super) ipv6: bool,
    /// Whether the device takes router advertisements (`accept_ra`), whatever forwarding says.
    pub(super) accepts_routers: bool,
    /// Whether the device makes itself link-local addresses.
    pub(super) generates_addresses: bool,
    /// It is a port of a bridge or in a VRF: what arrives is theirs, and our routes don't see it.
    pub(super) enslaved: bool,
    pub(super) tunnel: Option<Tunnel>,
}

/// What is special to a tunnel device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tunnel {
    Vxlan(vxlan::Found),
    Ip(ip_tunnel::Found),
}

impl Link {
    /// What the device claims for itself alone.
    pub(super) fn id(&self) -> Option<TunnelId> {
        match self.tunnel.as_ref()? {
            Tunnel::Vxlan(found) => Some(TunnelId::Vxlan(found.id)),
            Tunnel::Ip(found) => {
                let id = TunnelId::Ip { kind: found.kind, local: found.local };
                found.open.then_some(id)
            }
        }
    }

    /// The ends of an IP tunnel to one remote address.
    pub(super) fn ends(&self) -> Option<TunnelEnds> {
        match self.tunnel.as_ref()? {
            Tunnel::Vxlan(_) => None,
            Tunnel::Ip(found) => found.ends.clone(),
        }
    }

    /// The device as one of ours; `underlay` names a device by its index. What it lacks has a value that nobody wants, so
    /// that it is mended. `sysctl`: whether we could mend what only a file of `/proc/sys` can.
    pub(super) fn as_ours(
        &self,
        underlay: impl Fn(u32) -> Option<LinkName>,
        sysctl: bool,
    ) -> Option<TunnelLink> {
        let (kind, local, settings) = match self.tunnel.as_ref()? {
            Tunnel::Vxlan(found) => {
                let (vni, port) = (found.id.vni, found.id.port);
                let kind = TunnelKind::Vxlan(Vxlan {
                    vni,
                    port,
                    underlay: underlay(found.underlay)?,
                    mac: self.mac?,
                });
                (kind, found.local, found.settings)
            }
            Tunnel::Ip(found) => (TunnelKind::Ip(found.kind), found.local, found.settings),
        };
        let bent = self.enslaved || self.generates_addresses || self.accepts_routers && sysctl;
        let settings = settings.max(if bent { Settings::Bent } else { Settings::Ours });
        Some(TunnelLink { kind, local, mtu: self.mtu, up: self.up, settings })
    }
}

/// The body of a dump request that leaves the counters out.
pub(super) fn dump() -> Vec<u8> {
    let mut body = vec![0; HEADER];
    put(&mut body, IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    body
}

/// Reads an `ifinfomsg`.
pub(super) fn decode(body: &[u8]) -> Option<Link> {
    let index = u32_at(body, 4)?;
    let flags = u32_at(body, 8)?;
    let rest = body.get(HEADER..)?;
    let mut link = Link {
        index,
        name: attribute(rest, IFLA_IFNAME).map(text)?.parse().ok()?,
        kind: String::new(),
        alias: String::new(),
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        mtu: 0,
        mac: None,
        rp_filter: None,
        forwards: None,
        ipv6: false,
        accepts_routers: false,
        generates_addresses: false,
        enslaved: false,
        tunnel: None,
    };
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_IFALIAS => link.alias = text(value),
            IFLA_MASTER => link.enslaved = u32_at(value, 0)? != 0,
            IFLA_LINKINFO => {
                link.kind = attribute(value, IFLA_INFO_KIND).map(text).unwrap_or_default();
                link.tunnel = attribute(value, IFLA_INFO_DATA).and_then(|data| tunnel(&link.kind, data));
            }
            IFLA_AF_SPEC => {
                // A row of u32, one per setting.
                let settings = attribute(value, AF_INET).and_then(|inet| attribute(inet, IFLA_INET_CONF));
                let rp_filter = settings.and_then(|row| u32_at(row, 4 * usize::from(RP_FILTER - 1)));
                link.rp_filter = rp_filter.and_then(|value| u8::try_from(value).ok());
                let forwarding = settings.and_then(|row| u32_at(row, 4 * usize::from(FORWARDING - 1)));
                link.forwards = forwarding.map(|value| value != 0);
                if let Some(inet6) = attribute(value, AF_INET6) {
                    link.ipv6 = true;
                    let mode = attribute(inet6, IFLA_INET6_ADDR_GEN_MODE).and_then(|mode| u8_at(mode, 0));
                    link.generates_addresses = mode.is_some_and(|mode| mode != NO_ADDRESSES);
                    let accept = attribute(inet6, IFLA_INET6_CONF).and_then(|row| u32_at(row, 4 * ACCEPT_RA));
                    link.accepts_routers = accept.is_some_and(|accept| accept != 0);
                }
            }
            _ => {}
        }
    }
    Some(link)
}

fn tunnel(kind: &str, data: &[u8]) -> Option<Tunnel> {
    if kind == "vxlan" {
        return vxlan::decode(data).map(Tunnel::Vxlan);
    }
    ip_tunnel::kind(kind).map(|kind| Tunnel::Ip(ip_tunnel::decode(kind, data)))
}

/// The requests that make a device, in order, with this index; it is not up yet. `underlay` is the index of a VXLAN
/// device's underlay.
///
/// The index is ours to choose, so that the second and third request can't meet a foreign device that has the name:
/// the kernel takes alias and `addrgenmode` only of a device that exists. All go in one send, so that a crash can't
/// leave a device without our mark.
pub(super) fn create(
    name: &LinkName,
    index: u32,
    link: &TunnelLink,
    underlay: u32,
    alias: &str,
    ipv6: bool,
) -> Vec<Request> {
    let mut body = header(index);
    let mut text = name.as_str().as_bytes().to_vec();
    text.push(0);
    put(&mut body, IFLA_IFNAME, &text);
    put(&mut body, IFLA_MTU, &link.mtu.to_ne_bytes());
    if let Some(mac) = link.mac() {
        put(&mut body, IFLA_ADDRESS, &mac.0);
    }
    put_info(&mut body, &link.kind, |data| match &link.kind {
        TunnelKind::Vxlan(vxlan) => vxlan::create(data, link, vxlan, underlay),
        TunnelKind::Ip(kind) => ip_tunnel::write(data, *kind, link.local),
    });
    let create = Request { kind: RTM_NEWLINK, flags: CREATE | EXCL, body };

    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    let mark = Request::new(&RouteNetlinkMessage::SetLink(message), 0);
    let quiet = ipv6.then(|| no_address_generation(index));
    // An IP tunnel takes no MTU that does not suit it, and some kernels none at all, at creation and without a word.
    let mtu = link.vxlan().is_none().then(|| set(index, None, link.mtu));
    [create, mark].into_iter().chain(mtu).chain(quiet).collect()
}

/// Asks for a device of a kind with an attribute that no kind takes: the kernel first looks for the kind, and loads its
/// module, then refuses the attribute (`nla_parse` in `rtnl_newlink`), so that nothing is made.
pub(super) fn probe(kind: IpTunnel) -> Request {
    let mut body = header(0);
    put_info(&mut body, &TunnelKind::Ip(kind), ip_tunnel::malformed);
    Request { kind: RTM_NEWLINK, flags: CREATE | EXCL, body }
}

/// Frees the device, changes underlay, source address and bent settings where they differ, then Ethernet address and MTU: the kernel
/// refuses an MTU in the request that changes the tunnel.
pub(super) fn change(now: &Link, link: &TunnelLink, underlay: u32) -> Vec<Request> {
    let mut data = Vec::new();
    match (&link.kind, &now.tunnel) {
        (TunnelKind::Vxlan(_), Some(Tunnel::Vxlan(now))) => vxlan::change(&mut data, now, link, underlay),
        (TunnelKind::Ip(kind), Some(Tunnel::Ip(now))) => {
            if now.local != link.local || now.settings == Settings::Bent {
                ip_tunnel::write(&mut data, *kind, link.local);
            }
        }
        (TunnelKind::Vxlan(_) | TunnelKind::Ip(_), _) => {}
    }
    let mut requests = Vec::new();
    if now.enslaved {
        let mut body = header(now.index);
        put(&mut body, IFLA_MASTER, &0_u32.to_ne_bytes());
        requests.push(Request { kind: RTM_SETLINK, flags: 0, body });
    }
    if !data.is_empty() {
        let mut body = header(now.index);
        put_info(&mut body, &link.kind, |info| info.extend(&data));
        requests.push(Request { kind: RTM_NEWLINK, flags: 0, body });
    }
    // Writing the same Ethernet address again would flush the neighbours.
    let mac = link.mac().filter(|mac| now.mac != Some(*mac));
    requests.push(set(now.index, mac, link.mtu));
    requests
}

fn header(index: u32) -> Vec<u8> {
    let mut body = vec![0; HEADER];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body
}

fn put_info(body: &mut Vec<u8>, kind: &TunnelKind, fill: impl FnOnce(&mut Vec<u8>)) {
    put_nested(body, IFLA_LINKINFO, |info| {
        put(info, IFLA_INFO_KIND, kind.as_str().as_bytes());
        put_nested(info, IFLA_INFO_DATA, fill);
    });
}

fn set(index: u32, mac: Option<Mac>, mtu: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.push(LinkAttribute::Mtu(mtu));
    Request::new(&RouteNetlinkMessage::SetLink(message), 0)
}

/// No link-local address by itself: nothing needs one, and it would come after duplicate address detection.
pub(super) fn no_address_generation(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let inet6 = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![inet6])]));
    Request::new(&RouteNetlinkMessage::SetLink(message), 0)
}

pub(super) fn set_up(index: u32, up: bool) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    Request::new(&RouteNetlinkMessage::SetLink(message), 0)
}

pub(super) fn delete(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Request::new(&RouteNetlinkMessage::DelLink(message), 0)
}

/// Sets `rp_filter` without `/proc`. Written by hand: the library leaves zeros out.
pub(super) fn set_rp_filter(index: u32, value: u8) -> Request {
    set_ipv4(index, RP_FILTER, value.into())
}

/// Forwards IPv4 packets that come in by the device.
pub(super) fn set_forwarding(index: u32) -> Request {
    set_ipv4(index, FORWARDING, 1)
}

fn set_ipv4(index: u32, setting: u16, value: u32) -> Request {
    let mut body = header(index);
    put_nested(&mut body, IFLA_AF_SPEC, |spec| {
        put_nested(spec, AF_INET, |inet| {
            put_nested(inet, IFLA_INET_CONF, |conf| put(conf, setting, &value.to_ne_bytes()));
        });
    });
    Request { kind: RTM_SETLINK, flags: 0, body }
}

/// Family of an `ifinfomsg`: bridges send theirs as `AF_BRIDGE`.
pub(super) fn family(body: &[u8]) -> Option<u8> {
    u8_at(body, 0)
}
