//! Conversions on bytes: what a kernel sent, and what we write read by another decoder.

#![expect(clippy::wildcard_enum_match_arm, reason = "the enums of the library are never complete")]

mod captured;

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::NetlinkDeserializable;
use netlink_packet_core::NetlinkHeader;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{AfSpecInet, AfSpecUnspec, LinkAttribute};
use proptest::prelude::*;

use super::neighbor::Entry;
use super::request::Request;
use super::{address, attributes, channel, link, neighbor, netconf, nexthop, route, rule};
use crate::state::{
    Gateway, IpTunnel, Mac, NexthopId, Route, RouteKey, RouteTarget, Rule, Settings, TunnelId, TunnelKind,
    TunnelLink, Vni, Vxlan, VxlanId,
};

const PEER: Mac = Mac([2, 0, 0, 0, 1, 7]);
const PROTOCOL: u8 = 155;
const ID: NexthopId = NexthopId(0x5000_000e);

/// The bytes of a captured message; numbers in it are little-endian.
fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn key(prefix: &str) -> RouteKey {
    RouteKey { table: 254, prefix: net(prefix), metric: 0 }
}

/// What we write, as `netlink-packet-route` reads it.
fn oracle(request: &Request) -> RouteNetlinkMessage {
    let mut header = NetlinkHeader::default();
    header.message_type = request.kind;
    RouteNetlinkMessage::deserialize(&header, &request.body).unwrap()
}

fn tunnel() -> TunnelLink {
    TunnelLink {
        kind: TunnelKind::Vxlan(Vxlan {
            vni: Vni(4096),
            port: 4789,
            underlay: "eth0".parse().unwrap(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
        }),
        local: ip("192.0.2.1"),
        mtu: 1450,
        up: true,
        settings: Settings::Ours,
    }
}

fn ipip() -> TunnelLink {
    TunnelLink { kind: TunnelKind::Ip(IpTunnel::Ipip), mtu: 1480, ..tunnel() }
}

/// A message of a device as one of ours.
fn as_ours(body: &[u8]) -> TunnelLink {
    let found = link::decode(body).unwrap();
    found.as_ours(|index| (index == 3).then(|| "eth0".parse().unwrap()), true).unwrap()
}

#[test]
fn a_captured_device_is_read() {
    let found = link::decode(&bytes(captured::VXLAN_LINK)).unwrap();
    assert_eq!((found.index, found.name.as_str(), found.alias.as_str()), (4, "vx4", "pairway"));
    assert_eq!((found.kind.as_str(), found.mtu, found.mac), ("vxlan", 1450, Some(Mac([2, 0, 0, 0, 0, 1]))));
    assert!(found.up && found.carrier && found.ipv6);
    assert_eq!(found.rp_filter, Some(2));
    assert_eq!(found.id(), Some(TunnelId::Vxlan(VxlanId { vni: Vni(4096), port: 4789, ipv6: false })));
    // accept_ra was 1 when this was captured.
    assert!(found.accepts_routers && !found.generates_addresses);
    assert_eq!(as_ours(&bytes(captured::VXLAN_LINK)), TunnelLink { settings: Settings::Bent, ..tunnel() });
    let unwritable = found.as_ours(|_| "eth0".parse().ok(), false);
    assert_eq!(unwritable, Some(tunnel()), "what can't be written is not asked for again and again");
}

#[test]
fn captured_addresses_are_read() {
    let read = |hex| address::decode(&bytes(hex)).unwrap();
    let (index, found) = read(captured::IPV4_TUNNEL_ADDRESS);
    assert_eq!(
        (index, found.address, found.unfit, found.local_scope),
        (4, net("10.244.1.0/32"), false, false)
    );
    assert_eq!(read(captured::IPV6_TUNNEL_ADDRESS).1.address, net("fd10:244:0:1::/128"));
    assert_eq!(read(captured::IPV4_UNDERLAY_ADDRESS).1.address, net("192.0.2.1/24"));
}

#[test]
fn captured_neighbours_and_fdb_entries_are_read() {
    let read = |hex| neighbor::decode(&bytes(hex));
    let address = |text| Entry::Neighbor { index: 4, address: ip(text), mac: PEER, protocol: PROTOCOL };
    assert_eq!(read(captured::NEIGHBOR), Some(address("10.244.7.0")));
    assert_eq!(read(captured::NEIGHBOR6), Some(address("fe80::ff:fe00:107")));
    assert_eq!(read(captured::MULTICAST_NEIGHBOR), None, "not permanent");
    assert_eq!(read(captured::FDB), Some(Entry::Fdb { index: 4, mac: PEER, remote: ip("192.0.2.7") }));
    for (kind, value) in [(6, &[0x27, 0x0f][..]), (7, &[9, 0, 0, 0]), (8, &[3, 0, 0, 0]), (13, &[7, 0, 0, 0])]
    {
        let mut body = bytes(captured::FDB);
        attributes::put(&mut body, kind, value);
        assert_eq!(
            neighbor::decode(&body),
            Some(Entry::Fdb { index: 4, mac: PEER, remote: crate::state::ELSEWHERE })
        );
    }
}

#[test]
fn captured_nexthops_are_read() {
    let read = |hex| nexthop::decode(&bytes(hex)).unwrap();
    let onlink = Gateway { address: ip("10.244.7.0"), onlink: true };
    let expected = nexthop::Object { id: ID, protocol: PROTOCOL, plain: Some((onlink, 4)) };
    assert_eq!(read(captured::NEXTHOP), expected);
    let link_local = Gateway { address: ip("fe80::ff:fe00:107"), onlink: false };
    assert_eq!(read(captured::NEXTHOP6).plain, Some((link_local, 4)));
    let group = read(captured::NEXTHOP_GROUP);
    assert_eq!((group.id, group.plain), (NexthopId(77), None));
}

#[test]
fn captured_routes_are_read() {
    let read = |hex| route::decode(&bytes(hex)).unwrap();
    let found = read(captured::ROUTE);
    assert_eq!((found.key, found.protocol, found.unicast), (key("10.244.7.0/24"), PROTOCOL, true));
    let expected =
        Route { target: RouteTarget::Nexthop(ID), source: Some(ip("10.244.1.0")), mtu: Some(1400) };
    assert_eq!(found.route, expected);
    // Beside the object the kernel names what it leads to.
    assert_eq!(found.link, Some(4));

    let found = read(captured::ROUTE6);
    assert_eq!(found.key, RouteKey { metric: 1024, ..key("fd10:244:0:7::/64") });
    assert_eq!(found.route.target, RouteTarget::Nexthop(NexthopId(ID.0 + 1)));
    let found = read(captured::UNREACHABLE);
    assert_eq!(found.key, RouteKey { metric: u32::MAX, ..key("10.244.0.0/16") });
    assert_eq!((found.route.target, found.unicast), (RouteTarget::Unreachable, false));
    assert_eq!(read(captured::TABLE_9000).key, RouteKey { table: 9000, ..key("192.0.2.7/32") });

    let found = read(captured::MULTIPATH);
    assert_eq!((found.route.target, found.protocol), (RouteTarget::Other, 12));
    assert_eq!((found.link, found.gateway), (Some(3), Some(ip("192.0.2.9"))), "the first path");
    let found = read(captured::VIA_IPV6);
    assert_eq!((found.route.target, found.gateway), (RouteTarget::Other, Some(ip("fe80::1"))));
    assert_eq!(route::decode(&bytes(captured::LOCAL)), None);
    // Local, broadcast, anycast, multicast.
    for kind in 2..=5 {
        let mut body = bytes(captured::VIA_IPV6);
        body[7] = kind;
        let found = route::decode(&body).unwrap();
        assert_eq!((found.route.target, found.unicast), (RouteTarget::Other, false));
    }
}

#[test]
fn captured_rules_and_settings_are_read() {
    let expected = Rule { priority: 110, from: net("10.244.0.0/16"), table: 9000 };
    assert_eq!(rule::decode(&bytes(captured::RULE)), Some((expected, PROTOCOL)));
    assert_eq!(rule::decode(&bytes(captured::MARK_RULE)), None, "not of a form that we write");
    assert_eq!(netconf::rp_filter(&bytes(captured::NETCONF)), Some(1));
}

#[test]
fn what_is_written_reads_back() {
    let gateways =
        [("10.244.7.0", true), ("192.0.2.7", false), ("fe80::ff:fe00:107", false), ("2001:db8::7", true)];
    for (address, onlink) in gateways {
        let gateway = Gateway { address: ip(address), onlink };
        for request in [nexthop::add(ID, gateway, 4, PROTOCOL), nexthop::replace(ID, gateway, 4, PROTOCOL)] {
            let expected = nexthop::Object { id: ID, protocol: PROTOCOL, plain: Some((gateway, 4)) };
            assert_eq!(nexthop::decode(&request.body), Some(expected));
        }
    }
    for (prefix, source) in [("10.244.7.0/24", "10.244.1.0"), ("fd10:244:0:7::/64", "fd10:244:0:1::")] {
        for (target, mtu) in [(RouteTarget::Nexthop(ID), Some(1400)), (RouteTarget::Unreachable, None)] {
            let written = Route { target, source: Some(ip(source)), mtu };
            let key = RouteKey { table: 9000, metric: 7, ..key(prefix) };
            let request = route::add(key, &written, PROTOCOL).unwrap();
            let found = route::decode(&request.body).unwrap();
            assert_eq!((found.key, found.route, found.protocol), (key, written, PROTOCOL));
        }
    }
    let rule = Rule { priority: 110, from: net("fd10:244::/48"), table: 9000 };
    assert_eq!(rule::decode(&rule::add(&rule, PROTOCOL).body), Some((rule, PROTOCOL)));
    for address in [ip("10.244.7.0"), PEER.link_local().into()] {
        let expected = Entry::Neighbor { index: 4, address, mac: PEER, protocol: PROTOCOL };
        assert_eq!(neighbor::decode(&neighbor::set(4, address, PEER, PROTOCOL).body), Some(expected));
    }
    let expected = Entry::Fdb { index: 4, mac: PEER, remote: ip("2001:db8::7") };
    assert_eq!(neighbor::decode(&neighbor::set_fdb(4, PEER, ip("2001:db8::7")).body), Some(expected));
    for text in ["10.244.1.0/32", "fd10:244:0:1::/128"] {
        let (index, found) = address::decode(&address::add(4, net(text)).body).unwrap();
        assert_eq!((index, found.address), (4, net(text)));
    }
    let created = link::create(&"vx4".parse().unwrap(), 9, &tunnel(), 3, "pairway", true);
    assert_eq!(created.len(), 3, "made, marked, quiet");
    assert_eq!(link::decode(&created[0].body).unwrap().index, 9);
    assert_eq!(as_ours(&created[0].body), TunnelLink { up: false, ..tunnel() });
    let created = link::create(&"ipip0".parse().unwrap(), 9, &ipip(), 0, "pairway", true);
    assert_eq!(created.len(), 4, "made, marked, sized, quiet");
    assert_eq!(as_ours(&created[0].body), TunnelLink { up: false, ..ipip() });
}

/// A metric of 0 is never written to IPv6, which would make 1024 of it.
#[test]
fn the_metric_of_ipv6_is_written_as_it_will_be_shown() {
    let route = Route { target: RouteTarget::Unreachable, source: None, mtu: None };
    let request = route::add(key("fd10:244::/48"), &route, PROTOCOL).unwrap();
    assert_eq!(route::decode(&request.body).unwrap().key.metric, 1024);
}

#[test]
fn a_route_of_another_form_is_never_written() {
    let route = Route { target: RouteTarget::Other, source: None, mtu: None };
    assert_eq!(route::add(key("10.244.7.0/24"), &route, PROTOCOL), None);
}

#[test]
fn a_change_of_a_device_says_only_what_differs() {
    let now = link::decode(&bytes(captured::VXLAN_LINK)).unwrap();
    let names = |requests: &[Request]| -> Vec<Vec<&str>> {
        let name = |attribute: &LinkAttribute| match attribute {
            LinkAttribute::LinkInfo(_) => "tunnel",
            LinkAttribute::Address(_) => "mac",
            LinkAttribute::Mtu(_) => "mtu",
            other => panic!("{other:?}"),
        };
        let read = |request| match oracle(request) {
            RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::SetLink(message) => message,
            other => panic!("{other:?}"),
        };
        requests.iter().map(|request| read(request).attributes.iter().map(name).collect()).collect()
    };
    let smaller = TunnelLink { mtu: 1400, ..tunnel() };
    // The same MAC written again would flush the neighbours.
    assert_eq!(names(&link::change(&now, &smaller, 3)), [vec!["mtu"]]);
    let mut moved = TunnelLink { local: ip("192.0.2.9"), ..tunnel() };
    moved.vxlan_mut().unwrap().mac = PEER;
    assert_eq!(names(&link::change(&now, &moved, 3)), [vec!["tunnel"], vec!["mac", "mtu"]]);
}

/// Every setting that somebody can bend, and every one that only a new device can have otherwise.
#[test]
fn settings_that_are_not_as_made_are_seen() {
    let with = |link: &TunnelLink, kind: u16, value: &[u8]| {
        let mut body = vec![0; 16];
        attributes::put(&mut body, 3, b"x\0");
        attributes::put(&mut body, 1, &[2, 0, 0, 0, 0, 1]);
        let created = link::create(&"x".parse().unwrap(), 9, link, 3, "", false).remove(0).body;
        let info = attributes::attribute(&created[16..], 18).unwrap();
        attributes::put_nested(&mut body, 18, |new| {
            attributes::put(new, 1, attributes::attribute(info, 1).unwrap());
            attributes::put_nested(new, 2, |data| {
                let old = attributes::attributes(attributes::attribute(info, 2).unwrap());
                old.filter(|(k, _)| *k != kind).for_each(|(kind, value)| attributes::put(data, kind, value));
                attributes::put(data, kind, value);
            });
        });
        as_ours(&body).settings
    };
    let (bent, alien, ours) = (Settings::Bent, Settings::Alien, Settings::Ours);
    let of_vxlan: [(&str, u16, &[u8], Settings); 13] = [
        ("an unknown one", 99, &[7], ours),
        ("ttl", 5, &[9], bent),
        ("tos", 6, &[4], bent),
        ("learning", 7, &[1], bent),
        ("ageing", 8, &[1, 0, 0, 0], bent),
        ("label", 26, &[0, 0, 0, 5], bent),
        ("df", 29, &[1], bent),
        ("a remote", 2, &[192, 0, 2, 9], alien),
        ("no UDP checksum", 18, &[0], alien),
        ("proxy", 11, &[1], alien),
        ("group policy", 23, &[], alien),
        ("external", 25, &[1], alien),
        ("an inherited ttl", 28, &[1], alien),
    ];
    for (what, kind, value, expected) in of_vxlan {
        assert_eq!(with(&tunnel(), kind, value), expected, "{what}");
    }
    let of_ipip: [(&str, u16, &[u8], Settings); 9] = [
        ("an unknown one", 99, &[7], ours),
        ("an underlay device", 1, &[3, 0, 0, 0], bent),
        ("an inherited ttl", 4, &[0], bent),
        ("tos", 5, &[4], bent),
        ("another protocol", 9, &[0], bent),
        ("no path MTU discovery", 10, &[0], bent),
        ("a mark", 20, &[1, 0, 0, 0], bent),
        ("a remote", 3, &[192, 0, 2, 9], alien),
        ("an encapsulation", 15, &[1, 0], alien),
    ];
    for (what, kind, value, expected) in of_ipip {
        assert_eq!(with(&ipip(), kind, value), expected, "{what}");
    }
}

#[test]
fn rp_filter_is_written_even_if_it_is_zero() {
    for value in 0..3 {
        let request = link::set_rp_filter(4, value);
        assert_eq!(attributes::u32_at(&request.body, 4), Some(4));
        let spec = attributes::attribute(&request.body[16..], 26).unwrap();
        let conf = attributes::attribute(attributes::attribute(spec, 2).unwrap(), 1).unwrap();
        let written = attributes::attribute(conf, 8).and_then(|value| attributes::u32_at(value, 0));
        assert_eq!(written, Some(u32::from(value)));
        assert_eq!(attributes::attributes(conf).count(), 1);
    }
    // The decoder of the library agrees on where the setting is in what the kernel shows.
    let request = Request { kind: link::RTM_NEWLINK, flags: 0, body: bytes(captured::VXLAN_LINK) };
    let RouteNetlinkMessage::NewLink(message) = oracle(&request) else { panic!("a link") };
    let settings = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::AfSpecUnspec(specs) => specs.iter().find_map(|spec| match spec {
            AfSpecUnspec::Inet(inet) => inet.iter().find_map(|inet| match inet {
                AfSpecInet::DevConf(conf) => Some(conf.rp_filter),
                _ => None,
            }),
            _ => None,
        }),
        _ => None,
    });
    assert_eq!(settings, Some(2));
}

proptest! {
    /// Nothing that a message can hold makes us panic.
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        read_as_everything(&body);
    }

    /// Nor does a message of the kernel's with some bytes bent or the end cut off.
    #[test]
    fn no_bent_message_panics(
        which in 0usize..8,
        cut in any::<prop::sample::Index>(),
        bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let sources = [
            captured::VXLAN_LINK,
            captured::IPV6_TUNNEL_ADDRESS,
            captured::NEIGHBOR6,
            captured::FDB,
            captured::NEXTHOP,
            captured::MULTIPATH,
            captured::RULE,
            captured::NETCONF,
        ];
        let mut body = bytes(sources[which]);
        for (at, value) in bends {
            let at = at.index(body.len());
            body[at] = value;
        }
        body.truncate(cut.index(body.len() + 1));
        read_as_everything(&body);
    }
}

fn read_as_everything(body: &[u8]) {
    let _ = (link::decode(body), address::decode(body), neighbor::decode(body), nexthop::decode(body));
    let _ = (route::decode(body), rule::decode(body), netconf::rp_filter(body));
    for message in channel::messages(body) {
        assert!(message.body.len() < body.len());
    }
}
