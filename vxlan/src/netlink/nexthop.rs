//! Nexthop objects (`linux/nexthop.h`). No library has their messages: both ways are written here.

use std::net::IpAddr;

use crate::state::{Gateway, NexthopId};

use super::attributes::{attributes, ip, octets, put, u8_at, u32_at};
use super::request::{CREATE, EXCL, REPLACE, Request};

pub(super) const RTM_NEWNEXTHOP: u16 = 104;
pub(super) const RTM_DELNEXTHOP: u16 = 105;
pub(super) const RTM_GETNEXTHOP: u16 = 106;

/// `struct nhmsg`: family, scope, protocol, reserved, flags.
pub(super) const HEADER: usize = 8;
const NHA_ID: u16 = 1;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
/// Attributes that a plain nexthop doesn't have: group, blackhole, encapsulation, master, FDB.
const SPECIAL: [u16; 6] = [2, 4, 7, 8, 10, 11];
const RTNH_F_ONLINK: u32 = 4;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A nexthop object as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) id: NexthopId,
    pub(super) protocol: u8,
    /// Gateway and index of the device, if it is of the form that we write.
    pub(super) plain: Option<(Gateway, u32)>,
}

/// Reads an `nhmsg`.
pub(super) fn decode(body: &[u8]) -> Option<Object> {
    let protocol = u8_at(body, 2)?;
    let flags = u32_at(body, 4)?;
    let (mut id, mut link, mut gateway, mut special) = (None, None, None, false);
    for (kind, value) in attributes(body.get(HEADER..)?) {
        match kind {
            NHA_ID => id = u32_at(value, 0),
            NHA_OIF => link = u32_at(value, 0),
            NHA_GATEWAY => gateway = ip(value),
            _ => special |= SPECIAL.contains(&kind),
        }
    }
    let onlink = flags & RTNH_F_ONLINK != 0;
    let plain = gateway.zip(link).filter(|_| !special);
    Some(Object {
        id: NexthopId(id?),
        protocol,
        plain: plain.map(|(address, link)| (Gateway { address, onlink }, link)),
    })
}

/// Creates an object; fails if the id is taken, by whomever.
pub(super) fn add(id: NexthopId, gateway: Gateway, index: u32, protocol: u8) -> Request {
    Request { kind: RTM_NEWNEXTHOP, flags: CREATE | EXCL, body: body(id, gateway, index, protocol) }
}

/// Changes an object. The kernel lets anyone replace anyone's: whose it is was checked before.
pub(super) fn replace(id: NexthopId, gateway: Gateway, index: u32, protocol: u8) -> Request {
    Request { kind: RTM_NEWNEXTHOP, flags: REPLACE, body: body(id, gateway, index, protocol) }
}

pub(super) fn delete(id: NexthopId) -> Request {
    let mut body = vec![0; HEADER];
    put(&mut body, NHA_ID, &id.0.to_ne_bytes());
    Request { kind: RTM_DELNEXTHOP, flags: 0, body }
}

fn body(id: NexthopId, gateway: Gateway, index: u32, protocol: u8) -> Vec<u8> {
    let family = match gateway.address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    };
    let flags = if gateway.onlink { RTNH_F_ONLINK } else { 0 };
    let mut body = vec![family, 0, protocol, 0];
    body.extend(flags.to_ne_bytes());
    put(&mut body, NHA_ID, &id.0.to_ne_bytes());
    put(&mut body, NHA_OIF, &index.to_ne_bytes());
    put(&mut body, NHA_GATEWAY, &octets(gateway.address));
    body
}
