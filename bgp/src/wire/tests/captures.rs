//! Octets that BIRD 2.0.12 sent over loopback, AS 4200000009 with identifier 192.0.2.9: two IPv4 and two IPv6
//! prefixes to an external peer, an internal one, and one without four-octet AS numbers.

use std::sync::Arc;

use super::*;

/// OPEN of all three sessions.
const OPEN: &str = "ffffffffffffffffffffffffffffffff 0043 01 04 5ba0 00f0 c0000209 26
    0224 010400010001 010400020001 0200 400a0078 00010100 00020100 4104fa56ea09 4600 4700";
const CEASE: &str = "ffffffffffffffffffffffffffffffff 0022 03 0602 0c 7261636b2034206d6f766573";
const END_OF_RIB_IPV4: &str = "ffffffffffffffffffffffffffffffff 0017 02 0000 0000";
const END_OF_RIB_IPV6: &str = "ffffffffffffffffffffffffffffffff 001d 02 0000 0006 800f03000201";

fn capture(text: &str, codec: Codec) -> Message {
    decode_one(&hex(text), codec).unwrap().unwrap()
}

fn update(text: &str, codec: Codec) -> Update {
    let Message::Update(update) = capture(text, codec) else { panic!("not an UPDATE") };
    assert_eq!(update.errors, []);
    // What we say in its place means the same to BIRD as to us: it decodes to the same again.
    let mut out = BytesMut::new();
    Message::Update(update.clone()).encode(codec, &mut out);
    assert_eq!(decode_one(&out, codec).unwrap().unwrap(), Message::Update(update.clone()));
    update
}

fn nets(prefixes: &[&str]) -> Vec<IpNet> {
    prefixes.iter().map(|text| text.parse().unwrap()).collect()
}

fn sequence(asns: &[u32]) -> Vec<AsSegment> {
    vec![AsSegment::Sequence(asns.iter().copied().map(Asn).collect())]
}

#[test]
fn open() {
    let families = vec![(Family::Ipv4, false), (Family::Ipv6, false)];
    let expected = Open {
        asn: Asn(4_200_000_009),
        hold_time_secs: 240,
        router_id: RouterId(Ipv4Addr::new(192, 0, 2, 9)),
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv4),
            Capability::Multiprotocol(Family::Ipv6),
            Capability::RouteRefresh,
            Capability::GracefulRestart(GracefulRestart {
                restart_time_secs: 120,
                families,
                ..GracefulRestart::default()
            }),
            Capability::FourOctetAs(Asn(4_200_000_009)),
            Capability::Unknown { code: 70, value: Bytes::new() },
            Capability::Unknown { code: 71, value: Bytes::new() },
        ],
    };
    assert_eq!(capture(OPEN, EXTERNAL), Message::Open(expected.clone()));
    // All capabilities in one parameter: our octets are BIRD's.
    let mut out = BytesMut::new();
    Message::Open(expected).encode(EXTERNAL, &mut out);
    assert_eq!(out, hex(OPEN));
}

#[test]
fn cease() {
    let Message::Notification(notification) = capture(CEASE, EXTERNAL) else { panic!("not a NOTIFICATION") };
    assert_eq!(notification.to_string(), "6/2 administrative shutdown: \"rack 4 moves\"");
    let ours = Notification::with_communication(ErrorCode::ADMINISTRATIVE_SHUTDOWN, "rack 4 moves");
    assert_eq!(ours, notification);
}

#[test]
fn end_of_rib() {
    for (text, family) in [(END_OF_RIB_IPV4, Family::Ipv4), (END_OF_RIB_IPV6, Family::Ipv6)] {
        let marker = Update { end_of_rib: Some(family), ..Update::default() };
        assert_eq!(update(text, EXTERNAL), marker);
        let mut out = BytesMut::new();
        assert_eq!(encode_update(&marker, EXTERNAL, &mut out), 1);
        assert_eq!(out, hex(text));
    }
}

#[test]
fn ipv4_to_an_external_peer() {
    let text = "ffffffffffffffffffffffffffffffff 0034 02 0000 0018 40010102 40020a0202fa56ea09fa56ea01
        400304c0000209 190af40000";
    let update = update(text, EXTERNAL);
    let reach = Reach {
        next_hop: "192.0.2.9".parse().unwrap(),
        link_local: None,
        prefixes: nets(&["10.244.0.0/25"]),
    };
    assert_eq!(update.reach, [reach]);
    let attributes = Attributes {
        origin: Origin::Incomplete,
        as_path: sequence(&[4_200_000_009, 4_200_000_001]),
        ..Attributes::default()
    };
    assert_eq!(update.attributes, Some(Arc::new(attributes)));
    let mut out = BytesMut::new();
    encode_update(&update, EXTERNAL, &mut out);
    assert_eq!(out, hex(text));
}

#[test]
fn ipv4_to_an_internal_peer_with_communities() {
    let text =
        "ffffffffffffffffffffffffffffffff 0058 02 0000 003d 40010100 400200 400304c0000209 80040400000032
        40050400000064 c00804fc000064 c010080002fc0000000007 c0200c0000fc000000000100000002 180af401";
    let update = update(text, INTERNAL);
    let value = |text| Bytes::from(hex(text));
    let attributes = Attributes {
        med: Some(50),
        local_pref: Some(100),
        communities: vec![64512 << 16 | 100],
        unknown: vec![
            UnknownAttribute { flags: 0xc0, code: 16, value: value("0002fc0000000007") },
            UnknownAttribute { flags: 0xc0, code: 32, value: value("0000fc000000000100000002") },
        ],
        ..Attributes::default()
    };
    assert_eq!(update.attributes, Some(Arc::new(attributes)));
    let mut out = BytesMut::new();
    encode_update(&update, INTERNAL, &mut out);
    assert_eq!(out, hex(text));
}

#[test]
fn ipv6() {
    let text = "ffffffffffffffffffffffffffffffff 004c 02 0000 0035 900e0024 0002 01 10
        20010db8000000000000000000000009 00 2120010db800 40fd10024400000001 40010100 4002060201fa56ea09";
    let update = update(text, EXTERNAL);
    let reach = Reach {
        next_hop: "2001:db8::9".parse().unwrap(),
        link_local: None,
        prefixes: nets(&["2001:db8::/33", "fd10:244:0:1::/64"]),
    };
    assert_eq!(update.reach, [reach]);
}

#[test]
fn from_a_speaker_of_two_octets() {
    let text =
        "ffffffffffffffffffffffffffffffff 003d 02 0000 0021 40010102 400206 02025ba05ba0 400304c0000209
        c0110a0202fa56ea09fa56ea01 190af40000";
    let update = update(text, OLD);
    assert_eq!(update.attributes.as_ref().unwrap().as_path, sequence(&[4_200_000_009, 4_200_000_001]));
    let mut out = BytesMut::new();
    encode_update(&update, OLD, &mut out);
    assert_eq!(out, hex(text));
}
