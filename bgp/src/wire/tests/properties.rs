//! What holds for all messages and all octets.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::fuzzing::{self, decode_all};

fn asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1..=70_000u32, 1..=u32::MAX].prop_map(Asn)
}

fn router_id() -> impl Strategy<Value = RouterId> {
    (1..=u32::MAX).prop_map(|id| RouterId(Ipv4Addr::from(id)))
}

fn octets(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=most).prop_map(Bytes::from)
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)]
}

fn capability() -> impl Strategy<Value = Capability> {
    let restart = (any::<bool>(), any::<bool>(), 0..=4095u16, vec((family(), any::<bool>()), 0..3));
    prop_oneof![
        family().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        restart.prop_map(|(restarting, notification, restart_time_secs, families)| {
            Capability::GracefulRestart(GracefulRestart {
                restarting,
                notification,
                restart_time_secs,
                families,
            })
        }),
        (66..=255u8, octets(255)).prop_map(|(code, value)| Capability::Unknown { code, value }),
    ]
}

fn open() -> impl Strategy<Value = Open> {
    let hold_time = prop_oneof![Just(0), 3..=u16::MAX];
    (asn(), hold_time, router_id(), vec(capability(), 0..12)).prop_map(
        |(asn, hold_time_secs, router_id, mut capabilities)| {
            capabilities.push(Capability::FourOctetAs(asn));
            Open { asn, hold_time_secs, router_id, capabilities }
        },
    )
}

fn ipv4_net() -> impl Strategy<Value = IpNet> {
    (any::<u32>(), 0..=32u8).prop_map(|(address, length)| {
        IpNet::V4(Ipv4Net::new(Ipv4Addr::from(address), length).unwrap().trunc())
    })
}

fn ipv6_net() -> impl Strategy<Value = IpNet> {
    (any::<u128>(), 0..=128u8).prop_map(|(address, length)| {
        IpNet::V6(Ipv6Net::new(Ipv6Addr::from(address), length).unwrap().trunc())
    })
}

fn some(prefix: impl Strategy<Value = IpNet>, most: usize) -> impl Strategy<Value = Vec<IpNet>> {
    btree_set(prefix, 1..most).prop_map(|prefixes| prefixes.into_iter().collect())
}

fn reach(most: usize) -> impl Strategy<Value = Reach> {
    let ipv4 = (1 << 24..127u32 << 24, some(ipv4_net(), most)).prop_map(|(next_hop, prefixes)| Reach {
        next_hop: IpAddr::V4(Ipv4Addr::from(next_hop)),
        link_local: None,
        prefixes,
    });
    let link_local = option::of(any::<u64>().prop_map(|id| Ipv6Addr::from(0xfe80 << 112 | u128::from(id))));
    let ipv6 =
        (any::<u64>(), link_local, some(ipv6_net(), most)).prop_map(|(id, link_local, prefixes)| Reach {
            next_hop: IpAddr::V6(Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(id))),
            link_local,
            prefixes,
        });
    prop_oneof![ipv4, ipv6]
}

/// Attributes that a session of this kind has.
fn attributes(codec: Codec) -> impl Strategy<Value = Attributes> {
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let path = prop_oneof![
        4 => vec(vec(asn(), 1..5), 0..3),
        1 => vec(vec(asn(), 200..=255), 0..2),
    ];
    let unknown =
        (33..=255u8, octets(300)).prop_map(|(code, value)| UnknownAttribute { flags: 0xe0, code, value });
    let first = (origin, path, option::of(any::<u32>()), option::of(any::<u32>()), any::<bool>());
    let aggregator = option::of((asn(), any::<u32>().prop_map(Ipv4Addr::from)));
    let second = (
        aggregator,
        vec(any::<u32>(), 0..80),
        option::of(router_id()),
        vec(any::<u32>().prop_map(Ipv4Addr::from), 0..4),
        vec(unknown, 0..3),
    );
    (first, second).prop_map(move |((origin, path, med, local_pref, atomic_aggregate), second)| {
        let (aggregator, communities, originator_id, cluster_list, mut unknown) = second;
        unknown.sort_by_key(|attribute| attribute.code);
        unknown.dedup_by_key(|attribute| attribute.code);
        Attributes {
            origin,
            as_path: path.into_iter().map(AsSegment::Sequence).collect(),
            med,
            local_pref: local_pref.filter(|_| codec.internal),
            atomic_aggregate,
            aggregator,
            communities,
            originator_id: originator_id.filter(|_| codec.internal),
            cluster_list: if codec.internal { cluster_list } else { Vec::new() },
            unknown,
        }
    })
}

fn codec() -> impl Strategy<Value = Codec> {
    (any::<bool>(), any::<bool>()).prop_map(|(four_octet_as, internal)| Codec { four_octet_as, internal })
}

/// An UPDATE that fits into one message, as it would be decoded.
fn small_update(codec: Codec) -> impl Strategy<Value = Update> {
    let announcement = (reach(20), attributes(codec)).prop_map(|(reach, attributes)| Update {
        reach: vec![reach],
        attributes: Some(Arc::new(attributes)),
        ..Update::default()
    });
    let withdrawal = |withdrawn| Update { withdrawn, ..Update::default() };
    prop_oneof![
        4 => announcement,
        1 => some(ipv4_net(), 50).prop_map(withdrawal),
        1 => some(ipv6_net(), 50).prop_map(withdrawal),
        1 => family().prop_map(|family| Update { end_of_rib: Some(family), ..Update::default() }),
    ]
}

fn any_message(codec: Codec) -> impl Strategy<Value = Message> {
    prop_oneof![
        2 => open().prop_map(Message::Open),
        6 => small_update(codec).prop_map(Message::Update),
        1 => (any::<u8>(), any::<u8>(), octets(300))
            .prop_map(|(code, subcode, data)| Message::Notification(Notification { code, subcode, data })),
        1 => Just(Message::Keepalive),
        1 => family().prop_map(Message::RouteRefresh),
    ]
}

fn with_codec<T: std::fmt::Debug, S: Strategy<Value = T>>(
    strategy: impl Fn(Codec) -> S,
) -> impl Strategy<Value = (Codec, T)> {
    codec().prop_flat_map(move |codec| (Just(codec), strategy(codec)))
}

fn encoded(message: &Message, codec: Codec) -> BytesMut {
    let mut out = BytesMut::new();
    message.encode(codec, &mut out);
    out
}

/// All that comes out of these octets when they arrive in pieces of this size, up to the first error.
fn fed(octets: &[u8], piece: usize, codec: Codec) -> (Vec<Message>, Option<DecodeError>) {
    let mut buffer = BytesMut::new();
    let mut messages = Vec::new();
    for piece in octets.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match decode(&mut buffer, codec) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

proptest! {
    #[test]
    fn decoding_undoes_encoding((codec, message) in with_codec(any_message)) {
        let octets = encoded(&message, codec);
        prop_assert!(octets.len() <= MAX_MESSAGE);
        prop_assert_eq!(decode_all(octets, codec), [message]);
    }

    /// As large and as mixed as an UPDATE can be: the messages are legal, full, and together say the same.
    #[test]
    fn large_updates_are_split(
        (codec, attributes) in with_codec(attributes),
        reach in vec(reach(1500), 0..3),
        withdrawn in some(prop_oneof![ipv4_net(), ipv6_net()], 2000),
    ) {
        let announced: std::collections::BTreeSet<_> =
            reach.iter().flat_map(|reach| reach.prefixes.clone()).collect();
        let withdrawn: Vec<_> = withdrawn.into_iter().filter(|prefix| !announced.contains(prefix)).collect();
        let attributes = (!reach.is_empty()).then(|| Arc::new(attributes));
        let update = Update { withdrawn, reach, attributes, ..Update::default() };
        let octets = encoded(&Message::Update(update.clone()), codec);
        let mut least = 0;
        let mut again = Update::default();
        for message in decode_all(octets.clone(), codec) {
            let Message::Update(part) = message else { panic!("not an UPDATE") };
            prop_assert_eq!(part.errors, []);
            prop_assert!(part.end_of_rib.is_none());
            again.withdrawn.extend(part.withdrawn);
            for reach in part.reach {
                prop_assert_eq!(&part.attributes, &update.attributes);
                match again.reach.last_mut().filter(|last| {
                    last.next_hop == reach.next_hop && last.link_local == reach.link_local
                }) {
                    Some(last) => last.prefixes.extend(reach.prefixes),
                    None => again.reach.push(reach),
                }
            }
            least += 1;
        }
        prop_assert_eq!(again.reach, update.reach);
        again.withdrawn.sort_unstable();
        prop_assert_eq!(again.withdrawn, update.withdrawn);
        // No more messages than full ones and one that is begun for each of two withdrawals and two groups.
        prop_assert!(least <= octets.len() / (MAX_MESSAGE - 17) + 4);
    }

    #[test]
    fn pieces_do_not_matter(
        (codec, messages) in with_codec(|codec| vec(any_message(codec), 1..4)),
        damage in option::of((any::<prop::sample::Index>(), any::<u8>())),
        piece in 1..64usize,
    ) {
        let mut octets = BytesMut::new();
        for message in &messages {
            message.encode(codec, &mut octets);
        }
        if let Some((at, value)) = damage {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        let whole = fed(&octets, octets.len(), codec);
        prop_assert_eq!(&fed(&octets, 1, codec), &whole);
        prop_assert_eq!(&fed(&octets, piece, codec), &whole);
    }

    #[test]
    fn any_octets_are_survived(octets in vec(any::<u8>(), 0..200), kind in 1..=5u8) {
        fuzzing::decode(&octets);
        fuzzing::decode(&message(kind, &octets));
        fuzzing::roundtrip(&message(kind, &octets));
    }

    #[test]
    fn damaged_messages_are_survived(
        (codec, message) in with_codec(any_message),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut octets = encoded(&message, codec);
        for (at, value) in damage {
            // Beyond the header: what the header says is judged first.
            if octets.len() > HEADER {
                let at = HEADER + at.index(octets.len() - HEADER);
                octets[at] = value;
            }
        }
        fuzzing::decode(&octets);
        fuzzing::roundtrip(&octets);
        // Cut anywhere, with a header that says so.
        let body = &octets[HEADER..];
        let cut = &body[..cut.index(body.len() + 1)];
        fuzzing::decode(&super::message(octets[18], cut));
        fuzzing::roundtrip(&super::message(octets[18], cut));
    }
}

/// What can't be announced is withdrawn, never announced in part.
#[test]
fn attributes_that_fit_no_message() {
    let prefix: IpNet = "10.244.0.0/24".parse().unwrap();
    let reach =
        Reach { next_hop: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), link_local: None, prefixes: vec![prefix] };
    let update = |communities: usize, reach: Reach| Update {
        reach: vec![reach],
        attributes: Some(Arc::new(Attributes { communities: vec![1; communities], ..Attributes::default() })),
        ..Update::default()
    };
    let fates = |update: Update| match decode_all(encoded(&Message::Update(update), EXTERNAL), EXTERNAL).pop()
    {
        Some(Message::Update(update)) => (update.reach.len(), update.withdrawn),
        other => panic!("{other:?}"),
    };
    // 4096 - 23 octets for ORIGIN (4), AS_PATH (3), NEXT_HOP (7), the header of COMMUNITIES (4) and the prefix (4).
    assert_eq!(fates(update(1012, reach.clone())), (1, vec![]));
    assert_eq!(fates(update(1013, reach.clone())), (0, vec![prefix]));
    assert_eq!(fates(update(20_000, reach.clone())), (0, vec![prefix]));
    // IPv4 by way of IPv6 is RFC 8950, which is not negotiated.
    let foreign = Reach { next_hop: "2001:db8::1".parse().unwrap(), ..reach };
    assert_eq!(fates(update(1, foreign)), (0, vec![prefix]));
}
