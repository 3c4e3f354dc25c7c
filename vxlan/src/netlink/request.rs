//! A request to the kernel: message type, flags and body, without the header that the channel adds.

use netlink_packet_core::NetlinkSerializable;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::IpAddr;

/// `NLM_F_REPLACE`: change what is there.
pub(super) const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`: fail if it is there.
pub(super) const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`: make it if it is not there.
pub(super) const CREATE: u16 = 0x400;

/// What to ask of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn new(message: &RouteNetlinkMessage, flags: u16) -> Self {
        let mut body = vec![0; message.buffer_len()];
        message.serialize(&mut body);
        Self { kind: message.message_type(), flags, body }
    }
}

pub(super) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
