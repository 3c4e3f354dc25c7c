//! Settings of the IPv4 stack that no device has (`linux/netconf.h`).

use super::attributes::{attribute, put, u32_at};
use super::request::Request;

pub(super) const RTM_NEWNETCONF: u16 = 80;
const RTM_GETNETCONF: u16 = 82;

/// `struct netconfmsg`, a single byte, aligned.
const HEADER: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_RP_FILTER: u16 = 3;
const ALL: i32 = -1;
const AF_INET: u8 = 2;

/// Asks for the settings of `net.ipv4.conf.all`.
pub(super) fn get_all() -> Request {
    let mut body = vec![AF_INET, 0, 0, 0];
    put(&mut body, NETCONFA_IFINDEX, &ALL.to_ne_bytes());
    Request { kind: RTM_GETNETCONF, flags: 0, body }
}

/// Reads `rp_filter`.
pub(super) fn rp_filter(body: &[u8]) -> Option<u8> {
    let value = attribute(body.get(HEADER..)?, NETCONFA_RP_FILTER)?;
    u8::try_from(u32_at(value, 0)?).ok()
}
