//! Devices: what the kernel says of them, and the requests that make and change ours.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};

use crate::state::{LinkName, Mac, Vni, VxlanId, VxlanLink};

use super::attributes::{attribute, attributes, ip, put, put_nested, text, u8_at, u16_at, u32_at};
use super::request::{CREATE, EXCL, Request};

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const HEADER: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_GROUP6: u16 = 16;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IFLA_INET_CONF: u16 = 1;
/// `IPV4_DEVCONF_RP_FILTER`, counted from one.
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
    /// Whether the device has IPv6 at all: not with an MTU below 1280, nor where IPv6 is not in the kernel.
    pub(super) ipv6: bool,
    pub(super) vxlan: Option<Vxlan>,
}

/// What is special to a VXLAN device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vxlan {
    pub(super) id: VxlanId,
    pub(super) local: Option<IpAddr>,
    /// Index of the underlay device; 0 is none.
    pub(super) underlay: u32,
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
        ipv6: false,
        vxlan: None,
    };
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_IFALIAS => link.alias = text(value),
            IFLA_LINKINFO => {
                link.kind = attribute(value, IFLA_INFO_KIND).map(text).unwrap_or_default();
                if link.kind == "vxlan" {
                    link.vxlan = attribute(value, IFLA_INFO_DATA).and_then(vxlan);
                }
            }
            IFLA_AF_SPEC => {
                // A row of u32, one per setting.
                let settings = attribute(value, AF_INET).and_then(|inet| attribute(inet, IFLA_INET_CONF));
                let rp_filter = settings.and_then(|row| u32_at(row, 4 * usize::from(RP_FILTER - 1)));
                link.rp_filter = rp_filter.and_then(|value| u8::try_from(value).ok());
                link.ipv6 = attribute(value, AF_INET6).is_some();
            }
            _ => {}
        }
    }
    Some(link)
}

fn vxlan(data: &[u8]) -> Option<Vxlan> {
    let vni = attribute(data, IFLA_VXLAN_ID).and_then(|value| u32_at(value, 0))?;
    // The only number of a VXLAN device in network byte order.
    let port = attribute(data, IFLA_VXLAN_PORT).and_then(|value| u16_at(value, 0)).map(u16::from_be)?;
    let local = attribute(data, IFLA_VXLAN_LOCAL).or_else(|| attribute(data, IFLA_VXLAN_LOCAL6)).and_then(ip);
    let ipv6 = local.map_or_else(|| attribute(data, IFLA_VXLAN_GROUP6).is_some(), |local| local.is_ipv6());
    let underlay = attribute(data, IFLA_VXLAN_LINK).and_then(|value| u32_at(value, 0)).unwrap_or(0);
    Some(Vxlan { id: VxlanId { vni: Vni(vni), port, ipv6 }, local, underlay })
}

/// The requests that make a device, in order, with this index.
///
/// The index is ours to choose, so that the second and third request can't meet a foreign device that has the name:
/// the kernel takes alias and `addrgenmode` only of a device that exists. All go in one send, so that a crash can't
/// leave a device without our mark.
pub(super) fn create(
    name: &LinkName,
    index: u32,
    link: &VxlanLink,
    underlay: u32,
    alias: &str,
    ipv6: bool,
) -> Vec<Request> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![
        LinkAttribute::IfName(name.as_str().to_owned()),
        LinkAttribute::Mtu(link.mtu),
        LinkAttribute::Address(link.mac.0.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(vec![
                InfoVxlan::Id(link.vni.0),
                InfoVxlan::Port(link.port),
                InfoVxlan::Learning(false),
                InfoVxlan::Link(underlay),
                local(link.local),
            ])),
        ]),
    ];
    let create = Request::new(&RouteNetlinkMessage::NewLink(message), CREATE | EXCL);

    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    let mark = Request::new(&RouteNetlinkMessage::SetLink(message), 0);
    let quiet = ipv6.then(|| no_address_generation(index));
    [create, mark].into_iter().chain(quiet).chain(link.up.then(|| set_up(index, true))).collect()
}

/// Changes underlay and source address where they differ, then Ethernet address and MTU: the kernel refuses an MTU in
/// the request that changes the tunnel.
pub(super) fn change(now: &Link, link: &VxlanLink, underlay: u32) -> Vec<Request> {
    let mut data = Vec::new();
    if now.vxlan.is_none_or(|vxlan| vxlan.underlay != underlay) {
        data.push(InfoVxlan::Link(underlay));
    }
    if now.vxlan.is_none_or(|vxlan| vxlan.local != Some(link.local)) {
        data.push(local(link.local));
    }
    let mut requests = Vec::new();
    if !data.is_empty() {
        let mut message = LinkMessage::default();
        message.header.index = now.index;
        let info = vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))];
        message.attributes.push(LinkAttribute::LinkInfo(info));
        requests.push(Request::new(&RouteNetlinkMessage::NewLink(message), 0));
    }
    let mut message = LinkMessage::default();
    message.header.index = now.index;
    // Writing the same Ethernet address again would flush the neighbours.
    if now.mac != Some(link.mac) {
        message.attributes.push(LinkAttribute::Address(link.mac.0.to_vec()));
    }
    message.attributes.push(LinkAttribute::Mtu(link.mtu));
    requests.push(Request::new(&RouteNetlinkMessage::SetLink(message), 0));
    requests
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
    let mut body = vec![0; HEADER];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    put_nested(&mut body, IFLA_AF_SPEC, |spec| {
        put_nested(spec, AF_INET, |inet| {
            put_nested(inet, IFLA_INET_CONF, |conf| put(conf, RP_FILTER, &u32::from(value).to_ne_bytes()));
        });
    });
    Request { kind: RTM_SETLINK, flags: 0, body }
}

fn local(ip: IpAddr) -> InfoVxlan {
    match ip {
        IpAddr::V4(ip) => InfoVxlan::Local(ip),
        IpAddr::V6(ip) => InfoVxlan::Local6(ip),
    }
}

/// Family of an `ifinfomsg`: bridges send theirs as `AF_BRIDGE`.
pub(super) fn family(body: &[u8]) -> Option<u8> {
    u8_at(body, 0)
}
