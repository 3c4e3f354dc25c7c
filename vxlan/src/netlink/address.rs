//! Addresses of devices.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

use crate::state::InterfaceAddress;

use super::attributes::{attribute, ip, u8_at, u32_at};
use super::request::{CREATE, EXCL, Request, family};

pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_GETADDR: u16 = 22;

pub(super) const HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// Secondary in IPv4, temporary in IPv6.
const SECONDARY: u32 = 0x01;
const DAD_FAILED: u32 = 0x08;
const DEPRECATED: u32 = 0x20;
const TENTATIVE: u32 = 0x40;
const RT_SCOPE_LINK: u8 = 253;

/// Reads an `ifaddrmsg`: index of the device and the address.
pub(super) fn decode(body: &[u8]) -> Option<(u32, InterfaceAddress)> {
    let prefix = u8_at(body, 1)?;
    let scope = u8_at(body, 3)?;
    let index = u32_at(body, 4)?;
    let rest = body.get(HEADER..)?;
    // With a peer address IFA_ADDRESS is the peer's.
    let own = attribute(rest, IFA_LOCAL).or_else(|| attribute(rest, IFA_ADDRESS)).and_then(ip)?;
    let flags =
        attribute(rest, IFA_FLAGS).and_then(|value| u32_at(value, 0)).unwrap_or(u32::from(u8_at(body, 2)?));
    let link_local = match own {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let address = InterfaceAddress {
        address: IpNet::new(own, prefix).ok()?,
        unfit: flags & (SECONDARY | DAD_FAILED | DEPRECATED | TENTATIVE) != 0,
        local_scope: scope >= RT_SCOPE_LINK || link_local,
    };
    Some((index, address))
}

/// Adds a tunnel address. IPv6 without duplicate address detection (nobody else can have it, and the address would be
/// of no use for a second) and without a route of its own, which the local table has anyway.
pub(super) fn add(index: u32, address: IpNet) -> Request {
    let mut message = message(index, address);
    if address.addr().is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute));
    }
    Request::new(&RouteNetlinkMessage::NewAddress(message), CREATE | EXCL)
}

pub(super) fn delete(index: u32, address: IpNet) -> Request {
    Request::new(&RouteNetlinkMessage::DelAddress(message(index, address)), 0)
}

fn message(index: u32, address: IpNet) -> AddressMessage {
    let ip = address.addr();
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}
