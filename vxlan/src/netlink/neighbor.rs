//! Neighbours of our devices, and their forwarding databases: the kernel has one message for both.

use std::net::IpAddr;

use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteProtocol, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::state::{ELSEWHERE, Mac};

use super::attributes::{attribute, ip, put, u8_at, u16_at, u32_at};
use super::request::{CREATE, REPLACE, Request, family};

pub(super) const RTM_NEWNEIGH: u16 = 28;
pub(super) const RTM_DELNEIGH: u16 = 29;
pub(super) const RTM_GETNEIGH: u16 = 30;

const HEADER: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_CACHEINFO: u16 = 3;
const NDA_PORT: u16 = 6;
const NDA_VNI: u16 = 7;
const NDA_IFINDEX: u16 = 8;
const NDA_PROTOCOL: u16 = 12;
const NDA_NH_ID: u16 = 13;
const AF_BRIDGE: u8 = 7;
const NUD_FAILED: u16 = 0x20;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 0x02;
const NTF_EXT_LEARNED: u8 = 0x10;

/// An entry as an `ndmsg` describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// A permanent neighbour that carries this protocol number.
    Neighbor { index: u32, address: IpAddr, mac: Mac, protocol: u8 },
    /// A permanent forwarding database entry of a tunnel device; `remote` is [`ELSEWHERE`] where it does not lead there by
    /// the device's own port, network and underlay, or by a nexthop object.
    Fdb { index: u32, mac: Mac, remote: IpAddr },
}

/// The body of a dump request for one device.
pub(super) fn dump(family: u8, index: u32) -> Vec<u8> {
    let mut body = vec![0; HEADER];
    body[0] = family;
    if family == AF_BRIDGE {
        body[4..8].copy_from_slice(&index.to_ne_bytes());
    } else {
        put(&mut body, NDA_IFINDEX, &index.to_ne_bytes());
    }
    body
}

/// Families to dump: IPv4, IPv6, forwarding database.
pub(super) const FAMILIES: [u8; 3] = [2, 10, AF_BRIDGE];

/// Index of the device of an `ndmsg`.
pub(super) fn index(body: &[u8]) -> Option<u32> {
    u32_at(body, 4)
}

/// Reads an `ndmsg`; nothing if it is of no kind that we write.
pub(super) fn decode(body: &[u8]) -> Option<Entry> {
    let index = index(body)?;
    let (state, flags) = (u16_at(body, 8)?, u8_at(body, 10)?);
    if state & NUD_PERMANENT == 0 {
        return None;
    }
    let rest = body.get(HEADER..)?;
    let mac = attribute(rest, NDA_LLADDR).and_then(|value| value.try_into().ok()).map(Mac)?;
    let address = attribute(rest, NDA_DST).and_then(ip);
    if u8_at(body, 0)? == AF_BRIDGE {
        let ours = flags & NTF_SELF != 0 && flags & NTF_EXT_LEARNED == 0;
        // The kernel names these where they differ from the device's (`vxlan_fdb_info`), and a nexthop object in place of
        // an address.
        let others = [NDA_PORT, NDA_VNI, NDA_IFINDEX, NDA_NH_ID];
        let own = others.iter().all(|kind| attribute(rest, *kind).is_none());
        let remote = address.filter(|_| own).unwrap_or(ELSEWHERE);
        return ours.then_some(Entry::Fdb { index, mac, remote });
    }
    let address = address?;
    let protocol = attribute(rest, NDA_PROTOCOL).and_then(|value| u8_at(value, 0)).unwrap_or(0);
    Some(Entry::Neighbor { index, address, mac, protocol })
}

/// What an `ndmsg` is about, also where it says that it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A neighbour.
    Neighbor(IpAddr),
    /// A forwarding database entry, and where it leads.
    Fdb(Mac, Option<IpAddr>),
}

/// Reads of an `ndmsg` what it is about.
pub(super) fn place(body: &[u8]) -> Option<Place> {
    let rest = body.get(HEADER..)?;
    let address = attribute(rest, NDA_DST).and_then(ip);
    if u8_at(body, 0)? == AF_BRIDGE {
        let mac = attribute(rest, NDA_LLADDR).and_then(|value| value.try_into().ok()).map(Mac)?;
        return Some(Place::Fdb(mac, address));
    }
    address.map(Place::Neighbor)
}

/// Whether an `ndmsg` of a forwarding database entry is a second one that says less: older kernels (Linux 6.1) let the
/// device tell of it (`vxlan_fdb_notify`), and then tell of its address alone (`rtnl_fdb_notify`).
pub(super) fn is_told_again(body: &[u8]) -> bool {
    let rest = body.get(HEADER..).unwrap_or_default();
    let more = [NDA_CACHEINFO, NDA_DST, NDA_NH_ID];
    u8_at(body, 0) == Some(AF_BRIDGE) && more.iter().all(|kind| attribute(rest, *kind).is_none())
}

/// Whether an `ndmsg` tells of a neighbour without an Ethernet address: the kernel says so of one that is deleted, before
/// it forgets it.
pub(super) fn is_failed(body: &[u8]) -> bool {
    u8_at(body, 0) != Some(AF_BRIDGE) && u16_at(body, 8).is_some_and(|state| state & NUD_FAILED != 0)
}

pub(super) fn set(index: u32, address: IpAddr, mac: Mac, protocol: u8) -> Request {
    let mut message = neighbor(index, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::from(protocol)));
    Request::new(&RouteNetlinkMessage::NewNeighbour(message), CREATE | REPLACE)
}

pub(super) fn delete(index: u32, address: IpAddr) -> Request {
    Request::new(&RouteNetlinkMessage::DelNeighbour(neighbor(index, address)), 0)
}

pub(super) fn set_fdb(index: u32, mac: Mac, remote: IpAddr) -> Request {
    let mut message = fdb(index, mac);
    message.attributes.push(NeighbourAttribute::Destination(remote.into()));
    Request::new(&RouteNetlinkMessage::NewNeighbour(message), CREATE | REPLACE)
}

pub(super) fn delete_fdb(index: u32, mac: Mac) -> Request {
    Request::new(&RouteNetlinkMessage::DelNeighbour(fdb(index, mac)), 0)
}

fn neighbor(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

fn fdb(index: u32, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}
