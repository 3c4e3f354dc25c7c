//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::state::{NexthopId, Route, RouteKey, RouteTarget};

use super::attributes::{attribute, attributes, ip, put, put_nested, u8_at, u16_at, u32_at};
#[cfg(test)]
use super::request::{CREATE, EXCL, Request};

pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;

pub(super) const HEADER: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
const RTAX_MTU: u16 = 2;
const RTM_F_CLONED: u32 = 0x200;
const RTN_UNSPEC: u8 = 0;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RTN_THROW: u8 = 9;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_NOWHERE: u8 = 255;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RT_TABLE_LOCAL: u32 = 255;

/// A route as an `rtmsg` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installed {
    pub(super) key: RouteKey,
    pub(super) protocol: u8,
    /// As one of ours.
    pub(super) route: Route,
    /// Index of the output device of the first path.
    pub(super) link: Option<u32>,
    /// Gateway of the first path.
    pub(super) gateway: Option<IpAddr>,
    pub(super) unicast: bool,
    /// It sends packets on to the next policy rule.
    pub(super) throws: bool,
}

/// The protocol of an `rtmsg`.
pub(super) fn protocol(body: &[u8]) -> Option<u8> {
    u8_at(body, 5)
}

/// Reads an `rtmsg`; nothing if it is no route in our sense: of the local table, of a type of service, a cached clone.
/// Those of other types than ours (`local`, `multicast`) stand in the way as any other.
pub(super) fn decode(body: &[u8]) -> Option<Installed> {
    let (family, length, tos) = (u8_at(body, 0)?, u8_at(body, 1)?, u8_at(body, 3)?);
    let (table, protocol, kind, flags) =
        (u8_at(body, 4)?, u8_at(body, 5)?, u8_at(body, 7)?, u32_at(body, 8)?);
    if !(RTN_UNICAST..=RTN_THROW).contains(&kind) || tos != 0 || flags & RTM_F_CLONED != 0 {
        return None;
    }
    let mut destination = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut key_table = u32::from(table);
    let (mut metric, mut nexthop, mut several) = (0, None, false);
    let (mut source, mut mtu, mut link, mut gateway) = (None, None, None, None);
    for (kind, value) in attributes(body.get(HEADER..)?) {
        match kind {
            RTA_DST => destination = ip(value)?,
            RTA_TABLE => key_table = u32_at(value, 0)?,
            RTA_PRIORITY => metric = u32_at(value, 0)?,
            RTA_NH_ID => nexthop = u32_at(value, 0),
            RTA_PREFSRC => source = ip(value),
            RTA_METRICS => mtu = attribute(value, RTAX_MTU).and_then(|mtu| u32_at(mtu, 0)),
            RTA_OIF => link = u32_at(value, 0),
            RTA_GATEWAY => gateway = ip(value),
            RTA_VIA => gateway = via(value),
            RTA_MULTIPATH => {
                several = true;
                (link, gateway) = first_path(value);
            }
            _ => {}
        }
    }
    if key_table == RT_TABLE_LOCAL {
        return None;
    }
    let target = match (kind, nexthop) {
        (RTN_UNICAST, Some(id)) if !several => RouteTarget::Nexthop(NexthopId(id)),
        (RTN_UNREACHABLE, None) => RouteTarget::Unreachable,
        _ => RouteTarget::Other,
    };
    Some(Installed {
        key: RouteKey { table: key_table, prefix: IpNet::new(destination, length).ok()?, metric },
        protocol,
        route: Route { target, source, mtu },
        link,
        gateway,
        unicast: kind == RTN_UNICAST,
        throws: kind == RTN_THROW,
    })
}

/// A `struct rtvia`: family and address.
fn via(value: &[u8]) -> Option<IpAddr> {
    value.get(2..).and_then(ip)
}

/// The first `struct rtnexthop`: length, flags, hops, index, attributes.
fn first_path(value: &[u8]) -> (Option<u32>, Option<IpAddr>) {
    let link = u32_at(value, 4);
    let attributes =
        u16_at(value, 0).and_then(|length| value.get(8..usize::from(length))).unwrap_or_default();
    let gateway = attribute(attributes, RTA_GATEWAY).and_then(ip);
    (link, gateway.or_else(|| attribute(attributes, RTA_VIA).and_then(via)))
}

/// Creates a route; fails if the key is taken, by whomever.
#[cfg(test)]
pub(super) fn add(key: RouteKey, route: &Route, protocol: u8) -> Option<Request> {
    let mut body = Vec::new();
    is_writable(route).then(|| put_route(&mut body, key, route, protocol, Metrics::Said))?;
    Some(Request { kind: RTM_NEWROUTE, flags: CREATE | EXCL, body })
}

/// Whether a route is of a form that we write.
pub(super) fn is_writable(route: &Route) -> bool {
    match route.target {
        RouteTarget::Nexthop(_) | RouteTarget::Unreachable => true,
        RouteTarget::Other => false,
    }
}

/// Whether a request says what metrics the route has, be they none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metrics {
    /// As a rule: IPv4 takes the metrics of another route of the same nexthop object, metric and table for a request that
    /// says nothing of them (`fib_find_info_nh`), so that an MTU would never go again.
    Said,
    /// The kernel does that in half the time: in IPv4 the route shares what is kept of its nexthop object, and nothing is
    /// made for it. Only for a route without an MTU over an object whose other routes have none.
    Unsaid,
}

/// Appends the body of a request that makes or changes a writable route.
pub(super) fn put_route(buffer: &mut Vec<u8>, key: RouteKey, route: &Route, protocol: u8, metrics: Metrics) {
    let kind = match route.target {
        RouteTarget::Nexthop(_) => RTN_UNICAST,
        RouteTarget::Unreachable | RouteTarget::Other => RTN_UNREACHABLE,
    };
    put_key(buffer, key, protocol, RT_SCOPE_UNIVERSE, kind);
    if let RouteTarget::Nexthop(id) = route.target {
        put(buffer, RTA_NH_ID, &id.0.to_ne_bytes());
    }
    if let Some(source) = route.source {
        put_ip(buffer, RTA_PREFSRC, source);
    }
    if metrics == Metrics::Said {
        put_nested(buffer, RTA_METRICS, |inner| {
            if let Some(mtu) = route.mtu {
                put(inner, RTAX_MTU, &mtu.to_ne_bytes());
            }
        });
    }
}

/// Appends the body of a request that deletes a route if it carries our protocol.
pub(super) fn put_deletion(buffer: &mut Vec<u8>, key: RouteKey, protocol: u8) {
    // The kernel takes this kind and this scope for any.
    put_key(buffer, key, protocol, RT_SCOPE_NOWHERE, RTN_UNSPEC);
}

/// An `rtmsg` with destination, table and priority. Written by hand: there may be a million of them, and a library
/// that makes each of parts of its own takes as long as the kernel.
fn put_key(buffer: &mut Vec<u8>, key: RouteKey, protocol: u8, scope: u8, kind: u8) {
    let family = if key.prefix.addr().is_ipv4() { AF_INET } else { AF_INET6 };
    // Tables beyond 255 stand in the attribute alone.
    buffer.extend([family, key.prefix.prefix_len(), 0, 0, 0, protocol, scope, kind, 0, 0, 0, 0]);
    put_ip(buffer, RTA_DST, key.prefix.network());
    put(buffer, RTA_TABLE, &key.table.to_ne_bytes());
    put(buffer, RTA_PRIORITY, &key.normalised().metric.to_ne_bytes());
}

fn put_ip(body: &mut Vec<u8>, kind: u16, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => put(body, kind, &ip.octets()),
        IpAddr::V6(ip) => put(body, kind, &ip.octets()),
    }
}
