//! Settings of IPv4 and IPv6 that no device has (`linux/netconf.h`).

use super::attributes::{attribute, put, u32_at};
use super::request::Request;

pub(super) const RTM_NEWNETCONF: u16 = 80;
const RTM_GETNETCONF: u16 = 82;

/// `struct netconfmsg`, a single byte, aligned.
const HEADER: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;
const ALL: i32 = -1;

/// Asks for the settings of `net.ipv4.conf.all` or, with `AF_INET6`, of `net.ipv6.conf.all`.
pub(super) fn get_all(family: u8) -> Request {
    let mut body = vec![family, 0, 0, 0];
    put(&mut body, NETCONFA_IFINDEX, &ALL.to_ne_bytes());
    Request { kind: RTM_GETNETCONF, flags: 0, body }
}

/// Reads `rp_filter`.
pub(super) fn rp_filter(body: &[u8]) -> Option<u8> {
    let value = attribute(body.get(HEADER..)?, NETCONFA_RP_FILTER)?;
    u8::try_from(u32_at(value, 0)?).ok()
}

/// Reads `forwarding`.
pub(super) fn forwarding(body: &[u8]) -> Option<bool> {
    let value = attribute(body.get(HEADER..)?, NETCONFA_FORWARDING)?;
    u32_at(value, 0).map(|value| value != 0)
}
