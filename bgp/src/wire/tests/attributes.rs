//! Malformed attributes against what RFC 7606 wants done, one row for each way of being wrong.

use super::*;

// Well-formed attributes, as they lie in a message.
const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 192, 0, 2, 1];
const MANDATORY: &[&[u8]] = &[ORIGIN, AS_PATH, NEXT_HOP];
/// 2001:db8::/32 by 2001:db8::1.
const MP_REACH: &[u8] = &[
    0x80, 14, 26, 0, 2, 1, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 32, 0x20, 1, 0xd,
    0xb8,
];
/// 2001:db8::/32 is gone.
const MP_UNREACH: &[u8] = &[0x80, 15, 8, 0, 2, 1, 32, 0x20, 1, 0xd, 0xb8];
/// 10.244.1.0/24.
const NLRI: &[u8] = &[24, 10, 244, 1];

fn update(withdrawn: &[u8], attributes: &[&[u8]], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let length = |octets: &[u8]| u16::try_from(octets.len()).unwrap().to_be_bytes();
    message(
        TYPE_UPDATE,
        &[&length(withdrawn)[..], withdrawn, &length(&attributes), &attributes, nlri].concat(),
    )
}

fn decoded(octets: &[u8], codec: Codec) -> Update {
    let Message::Update(update) = decode_one(octets, codec).unwrap().unwrap() else {
        panic!("not an UPDATE")
    };
    update
}

fn prefixes(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// The clause, the attributes and what is to become of the route.
type Row<'a> = (&'static str, &'a [&'a [u8]], Verdict);

/// What became of 10.244.1.0/24, which came with all that is mandatory and these attributes besides.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Announced; nothing is said against it.
    Fine,
    /// Announced, an attribute was left out.
    Discard,
    /// Withdrawn.
    Withdraw,
    /// The session ends.
    Reset(ErrorCode),
}

fn verdict(attributes: &[&[u8]], codec: Codec) -> Verdict {
    let update = match decode_one(&update(&[], attributes, NLRI), codec) {
        Ok(Some(Message::Update(update))) => update,
        Ok(other) => panic!("{other:?}"),
        Err(error) => return Verdict::Reset(error.notification.error()),
    };
    let net: IpNet = "10.244.1.0/24".parse().unwrap();
    let announced = update.reach.iter().any(|reach| reach.prefixes.contains(&net));
    assert_ne!(announced, update.withdrawn.contains(&net), "{update:?}");
    match update.errors.iter().map(|error| error.outcome).max() {
        None if announced => Verdict::Fine,
        Some(Outcome::AttributeDiscard) if announced => Verdict::Discard,
        Some(Outcome::TreatAsWithdraw) if !announced => Verdict::Withdraw,
        _ => panic!("{update:?}"),
    }
}

#[test]
fn rfc_7606_rows() {
    use Verdict::{Discard, Fine, Reset, Withdraw};
    const LIST: ErrorCode = ErrorCode::MALFORMED_ATTRIBUTE_LIST;
    const OPTIONAL: ErrorCode = ErrorCode::OPTIONAL_ATTRIBUTE_ERROR;
    const NETWORK: ErrorCode = ErrorCode::INVALID_NETWORK_FIELD;

    // The clause, the sessions, the attributes beside the mandatory ones, what is to become of the route.
    let beside: &[(&[Codec], Row<'_>)] = &[
        (&[INTERNAL, EXTERNAL], ("nothing is wrong", &[], Fine)),
        (&[INTERNAL], ("3 c: MED is not transitive", &[&[0xc0, 4, 4, 0, 0, 0, 1]], Withdraw)),
        (&[INTERNAL], ("3 c: LOCAL_PREF is not optional", &[&[0xc0, 5, 4, 0, 0, 0, 1]], Withdraw)),
        (&[INTERNAL], ("3 c: COMMUNITIES is transitive", &[&[0x80, 8, 4, 0, 0, 0, 1]], Withdraw)),
        (&[INTERNAL], ("3 c: ATOMIC_AGGREGATE is not optional", &[&[0xc0, 6, 0]], Withdraw)),
        (&[INTERNAL], ("3 c: the partial bit is not judged", &[&[0xe0, 8, 4, 0, 0, 0, 1]], Fine)),
        (&[INTERNAL], ("3 c: nor are the unused bits", &[&[0xcf & !0x10, 8, 4, 0, 0, 0, 1]], Fine)),
        (&[INTERNAL], ("3 c: MP_UNREACH_NLRI is not transitive", &[&[0xc0, 15, 3, 0, 2, 1]], Withdraw)),
        (
            &[INTERNAL],
            ("3 c: MP_REACH_NLRI is not transitive", &[&[&[0xc0], &MP_REACH[1..]].concat()], Withdraw),
        ),
        (
            &[INTERNAL],
            (
                "3 g: first of two MED counts",
                &[&[0x80, 4, 4, 0, 0, 0, 1], &[0x80, 4, 4, 0, 0, 0, 2]],
                Discard,
            ),
        ),
        (
            &[INTERNAL],
            ("3 g: and the second may be malformed", &[&[0x80, 4, 4, 0, 0, 0, 1], &[0x80, 4, 1, 0]], Discard),
        ),
        (&[INTERNAL], ("3 g: unknown ones too", &[&[0xc0, 99, 0], &[0xc0, 99, 0]], Discard)),
        (&[INTERNAL], ("3 g: two MP_REACH_NLRI", &[MP_REACH, MP_REACH], Reset(LIST))),
        (&[INTERNAL], ("3 g: two MP_UNREACH_NLRI", &[MP_UNREACH, MP_UNREACH], Reset(LIST))),
        (&[INTERNAL], ("3 h: the strongest counts", &[&[0x40, 6, 1, 0], &[0x80, 4, 1, 0]], Withdraw)),
        (&[INTERNAL], ("3 h: in any order", &[&[0x80, 4, 1, 0], &[0x40, 6, 1, 0]], Withdraw)),
        (&[INTERNAL], ("4: one octet is left", &[&[0x80]], Withdraw)),
        (&[INTERNAL], ("4: two octets are left", &[&[0x80, 4]], Withdraw)),
        (&[INTERNAL], ("4: half an extended length is left", &[&[0x90, 4, 0]], Withdraw)),
        (&[INTERNAL], ("4: longer than the field", &[&[0x80, 4, 5, 0, 0, 0, 1]], Withdraw)),
        (&[INTERNAL], ("4: unknown and longer than the field", &[&[0xc0, 99, 200, 0]], Withdraw)),
        (&[INTERNAL], ("4: prefixes would be lost", &[&[0x80, 14, 99, 0, 2]], Reset(LIST))),
        (&[INTERNAL], ("4: extended length where one octet would do", &[&[0x90, 4, 0, 4, 0, 0, 0, 1]], Fine)),
        (&[INTERNAL, EXTERNAL], ("7.4: MED of three octets", &[&[0x80, 4, 3, 0, 0, 0]], Withdraw)),
        (&[INTERNAL], ("7.4: MED of none", &[&[0x80, 4, 0]], Withdraw)),
        (&[INTERNAL], ("7.5: LOCAL_PREF of five octets", &[&[0x40, 5, 5, 0, 0, 0, 0, 1]], Withdraw)),
        (&[EXTERNAL, OLD], ("7.5: LOCAL_PREF from outside", &[&[0x40, 5, 4, 0, 0, 0, 1]], Discard)),
        (&[EXTERNAL], ("7.5: the same, malformed", &[&[0xc0, 5, 1, 0]], Discard)),
        (&[INTERNAL], ("7.6: ATOMIC_AGGREGATE with a value", &[&[0x40, 6, 1, 0]], Discard)),
        (
            &[INTERNAL, EXTERNAL],
            ("7.7: AGGREGATOR of six octets", &[&[0xc0, 7, 6, 0, 1, 192, 0, 2, 1]], Discard),
        ),
        (&[OLD], ("7.7: which is right without four-octet AS", &[&[0xc0, 7, 6, 0, 1, 192, 0, 2, 1]], Fine)),
        (&[OLD], ("7.7: where eight octets are not", &[&[0xc0, 7, 8, 0, 0, 0, 1, 192, 0, 2, 1]], Discard)),
        (&[INTERNAL], ("7.8: COMMUNITIES of five octets", &[&[0xc0, 8, 5, 0, 0, 0, 1, 0]], Withdraw)),
        (&[INTERNAL], ("7.8: COMMUNITIES of none", &[&[0xc0, 8, 0]], Withdraw)),
        (&[INTERNAL], ("7.9: ORIGINATOR_ID of three octets", &[&[0x80, 9, 3, 1, 2, 3]], Withdraw)),
        (&[EXTERNAL], ("7.9: ORIGINATOR_ID from outside", &[&[0x80, 9, 4, 1, 2, 3, 4]], Discard)),
        (&[EXTERNAL], ("7.9: the same, malformed", &[&[0x80, 9, 3, 1, 2, 3]], Discard)),
        (&[INTERNAL], ("7.10: CLUSTER_LIST of none", &[&[0x80, 10, 0]], Withdraw)),
        (&[INTERNAL], ("7.10: CLUSTER_LIST of six octets", &[&[0x80, 10, 6, 1, 2, 3, 4, 5, 6]], Withdraw)),
        (&[EXTERNAL], ("7.10: CLUSTER_LIST from outside", &[&[0x80, 10, 4, 1, 2, 3, 4]], Discard)),
        (
            &[INTERNAL],
            (
                "7.11: next hop of fifteen octets",
                &[&[&[0x80, 14, 21, 0, 2, 1, 15], &[0; 17][..]].concat()[..]],
                Reset(OPTIONAL),
            ),
        ),
        (
            &[INTERNAL],
            (
                "7.11: IPv4 with a next hop of IPv6",
                &[&[&[0x80, 14, 21, 0, 1, 1, 16], &[0x20; 17][..]].concat()[..]],
                Reset(OPTIONAL),
            ),
        ),
        (
            &[INTERNAL],
            ("7.11: next hop beyond the attribute", &[&[0x80, 14, 6, 0, 2, 1, 16, 0x20, 1]], Reset(OPTIONAL)),
        ),
        (&[INTERNAL], ("7.11: no next hop length", &[&[0x80, 14, 3, 0, 2, 1]], Reset(OPTIONAL))),
        (
            &[INTERNAL],
            ("7.11: no reserved octet", &[&[0x80, 14, 8, 0, 1, 1, 4, 192, 0, 2, 1]], Reset(OPTIONAL)),
        ),
        (&[INTERNAL], ("7.12: no SAFI", &[&[0x80, 15, 2, 0, 2]], Reset(OPTIONAL))),
        (
            &[INTERNAL],
            (
                "5.3: MP_REACH_NLRI with a prefix of 129 bits",
                &[&[&[0x80, 14, 39, 0, 2, 1, 16], &[0x20; 17][..], &[129], &[0; 17]].concat()[..]],
                Reset(NETWORK),
            ),
        ),
        (
            &[INTERNAL],
            ("5.3: MP_UNREACH_NLRI with half a prefix", &[&[0x80, 15, 5, 0, 2, 1, 16, 0x20]], Reset(NETWORK)),
        ),
        (
            &[INTERNAL],
            (
                "a family that was not negotiated is not read",
                &[&[0x80, 14, 7, 0, 25, 70, 4, 1, 2, 3], &[0x80, 15, 4, 0, 25, 70, 255]],
                Fine,
            ),
        ),
        (
            &[INTERNAL],
            ("7.14: EXTENDED_COMMUNITIES of seven octets", &[&[0xc0, 16, 7, 0, 0, 0, 0, 0, 0, 0]], Withdraw),
        ),
        (&[INTERNAL], ("7.14: EXTENDED_COMMUNITIES of none", &[&[0xc0, 16, 0]], Withdraw)),
        (
            &[INTERNAL],
            (
                "7.15: IPv6 extended communities of eight octets",
                &[&[0xc0, 25, 8, 0, 0, 0, 0, 0, 0, 0, 0]],
                Withdraw,
            ),
        ),
        (
            &[INTERNAL],
            (
                "RFC 8092 6: LARGE_COMMUNITY of eight octets",
                &[&[0xc0, 32, 8, 0, 0, 0, 0, 0, 0, 0, 0]],
                Withdraw,
            ),
        ),
        (
            &[INTERNAL, EXTERNAL],
            ("RFC 6793 4.1: AS4_PATH from a new speaker", &[&[0xc0, 17, 6, 2, 1, 0, 0, 0, 1]], Discard),
        ),
        (
            &[INTERNAL],
            (
                "RFC 6793 4.1: AS4_AGGREGATOR from a new speaker",
                &[&[0xc0, 18, 8, 0, 0, 0, 1, 1, 2, 3, 4]],
                Discard,
            ),
        ),
        (
            &[INTERNAL],
            ("RFC 7607 2: AGGREGATOR with AS 0", &[&[0xc0, 7, 8, 0, 0, 0, 0, 192, 0, 2, 1]], Discard),
        ),
        (
            &[INTERNAL],
            (
                "RFC 4271 6.3: unknown well-known",
                &[&[0x40, 99, 1, 7]],
                Reset(ErrorCode::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE),
            ),
        ),
        (&[INTERNAL], ("RFC 4271 5: unknown optional", &[&[0xc0, 99, 1, 7], &[0x80, 100, 1, 7]], Fine)),
    ];
    for (codecs, (clause, attributes, expected)) in beside {
        for codec in *codecs {
            // An OLD session reads AS_PATH in two octets.
            let path: &[u8] = if codec.four_octet_as { AS_PATH } else { &[0x40, 2, 4, 2, 1, 0xfd, 0xe9] };
            let all = [&[ORIGIN, path, NEXT_HOP], *attributes].concat();
            assert_eq!(verdict(&all, *codec), *expected, "{clause}, {codec:?}");
        }
    }

    // The clause and attributes in place of the mandatory ones.
    let instead: &[Row<'_>] = &[
        ("3 b: no attributes at all", &[], Withdraw),
        ("3 d: without ORIGIN", &[AS_PATH, NEXT_HOP], Withdraw),
        ("3 d: without AS_PATH", &[ORIGIN, NEXT_HOP], Withdraw),
        ("3 d: without NEXT_HOP", &[ORIGIN, AS_PATH], Withdraw),
        ("3 d: an unknown one only", &[&[0xc0, 99, 0]], Withdraw),
        ("3 d: MP_UNREACH_NLRI only", &[MP_UNREACH], Withdraw),
        ("3 c: ORIGIN is not optional", &[&[0xc0, 1, 1, 0], AS_PATH, NEXT_HOP], Withdraw),
        ("3 c: AS_PATH is transitive", &[ORIGIN, &[0, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9], NEXT_HOP], Withdraw),
        ("7.1: ORIGIN 3", &[&[0x40, 1, 1, 3], AS_PATH, NEXT_HOP], Withdraw),
        ("7.1: ORIGIN of two octets", &[&[0x40, 1, 2, 0, 0], AS_PATH, NEXT_HOP], Withdraw),
        ("7.1: ORIGIN of none", &[&[0x40, 1, 0], AS_PATH, NEXT_HOP], Withdraw),
        ("7.2: empty AS_PATH is none", &[ORIGIN, &[0x40, 2, 0], NEXT_HOP], Fine),
        ("7.2: segment type 5", &[ORIGIN, &[0x40, 2, 6, 5, 1, 0, 0, 0, 1], NEXT_HOP], Withdraw),
        ("7.2: segment type 0", &[ORIGIN, &[0x40, 2, 6, 0, 1, 0, 0, 0, 1], NEXT_HOP], Withdraw),
        ("7.2: segment of a confederation", &[ORIGIN, &[0x40, 2, 6, 3, 1, 0, 0, 0, 1], NEXT_HOP], Withdraw),
        (
            "7.2: segment longer than the attribute",
            &[ORIGIN, &[0x40, 2, 6, 2, 2, 0, 0, 0, 1], NEXT_HOP],
            Withdraw,
        ),
        ("7.2: one octet is left", &[ORIGIN, &[0x40, 2, 7, 2, 1, 0, 0, 0, 1, 2], NEXT_HOP], Withdraw),
        ("7.2: empty segment", &[ORIGIN, &[0x40, 2, 2, 2, 0], NEXT_HOP], Withdraw),
        ("7.2: numbers of two octets", &[ORIGIN, &[0x40, 2, 4, 2, 1, 0, 1], NEXT_HOP], Withdraw),
        ("RFC 7607 2: AS 0", &[ORIGIN, &[0x40, 2, 6, 2, 1, 0, 0, 0, 0], NEXT_HOP], Withdraw),
        ("RFC 9774 3: AS_SET", &[ORIGIN, &[0x40, 2, 6, 1, 1, 0, 0, 0, 1], NEXT_HOP], Withdraw),
        ("7.3: NEXT_HOP of three octets", &[ORIGIN, AS_PATH, &[0x40, 3, 3, 192, 0, 2]], Withdraw),
        (
            "7.3: NEXT_HOP of sixteen octets",
            &[ORIGIN, AS_PATH, &[&[0x40, 3, 16], &[0x20; 16][..]].concat()[..]],
            Withdraw,
        ),
        ("RFC 4271 6.3: next hop 0.0.0.0", &[ORIGIN, AS_PATH, &[0x40, 3, 4, 0, 0, 0, 0]], Withdraw),
        ("RFC 4271 6.3: next hop 127.0.0.1", &[ORIGIN, AS_PATH, &[0x40, 3, 4, 127, 0, 0, 1]], Withdraw),
        ("RFC 4271 6.3: next hop 224.0.0.5", &[ORIGIN, AS_PATH, &[0x40, 3, 4, 224, 0, 0, 5]], Withdraw),
        (
            "RFC 4271 6.3: next hop 255.255.255.255",
            &[ORIGIN, AS_PATH, &[0x40, 3, 4, 255, 255, 255, 255]],
            Withdraw,
        ),
    ];
    for (clause, attributes, expected) in instead {
        assert_eq!(verdict(attributes, INTERNAL), *expected, "{clause}");
    }
}

/// RFC 7606 §3 b: lengths of the message's own fields.
#[test]
fn lengths_beyond_the_message() {
    for body in [
        &[0, 5, 0, 0][..],
        &[0, 0, 0, 5],
        &[0, 1, 0, 0],
        &[0xff, 0xff, 0, 0, 1, 2],
        &[0, 2, 8, 10, 0xff, 0xff],
    ] {
        let error = decode_one(&message(TYPE_UPDATE, body), INTERNAL).unwrap_err();
        assert_eq!(error.notification.error(), ErrorCode::MALFORMED_ATTRIBUTE_LIST, "{body:?}");
    }
}

/// RFC 7606 §5.2: there are attributes, one is malformed, and no prefix shows that all prefixes were seen.
#[test]
fn malformed_without_prefixes_ends_the_session() {
    let reset = |withdrawn: &[u8], attributes: &[&[u8]]| {
        decode_one(&update(withdrawn, attributes, &[]), INTERNAL).unwrap_err().notification.error()
    };
    assert_eq!(reset(&[], &[&[0x40, 1, 1, 9]]), ErrorCode::MALFORMED_ATTRIBUTE_LIST);
    assert_eq!(reset(NLRI, &[&[0x40, 1, 1, 9]]), ErrorCode::MALFORMED_ATTRIBUTE_LIST);
    assert_eq!(reset(&[], &[MP_UNREACH, &[0x80]]), ErrorCode::MALFORMED_ATTRIBUTE_LIST);
    // A discarded attribute is no reason, nor is one that is missing.
    let update = decoded(&update(NLRI, &[ORIGIN, &[0x40, 6, 1, 0]], &[]), INTERNAL);
    assert_eq!(update.withdrawn, prefixes(&["10.244.1.0/24"]));
    assert_eq!(update.errors.len(), 1);
}

/// RFC 7606 §3 i: what is withdrawn is withdrawn whatever else is wrong; the IPv6 prefixes share the verdict.
#[test]
fn treat_as_withdraw_concerns_all_prefixes() {
    let octets = update(&[16, 10, 1], &[&[0x40, 1, 1, 9], AS_PATH, NEXT_HOP, MP_REACH], NLRI);
    let update = decoded(&octets, INTERNAL);
    assert_eq!(update.withdrawn, prefixes(&["10.1.0.0/16", "10.244.1.0/24", "2001:db8::/32"]));
    assert_eq!(update.attributes, None);
    assert_eq!(
        update.errors,
        [AttributeError {
            code: 1,
            outcome: Outcome::TreatAsWithdraw,
            reason: "ORIGIN has an undefined value"
        }]
    );
}

#[test]
fn both_families_in_one_message() {
    let octets = update(&[16, 10, 1], &[MP_REACH, ORIGIN, AS_PATH, NEXT_HOP], NLRI);
    let update = decoded(&octets, EXTERNAL);
    assert_eq!(update.withdrawn, prefixes(&["10.1.0.0/16"]));
    let reach = |next_hop: &str, prefix| Reach {
        next_hop: next_hop.parse().unwrap(),
        link_local: None,
        prefixes: prefixes(&[prefix]),
    };
    assert_eq!(update.reach, [reach("192.0.2.1", "10.244.1.0/24"), reach("2001:db8::1", "2001:db8::/32")]);
    assert_eq!(update.errors, []);
}

#[test]
fn announced_counts_where_also_withdrawn() {
    let octets = update(NLRI, MANDATORY, &[NLRI, NLRI].concat());
    let update = decoded(&octets, INTERNAL);
    assert_eq!(update.withdrawn, []);
    assert_eq!(update.reach[0].prefixes, prefixes(&["10.244.1.0/24", "10.244.1.0/24"]));
}

#[test]
fn prefixes_are_judged_and_cleaned() {
    for nlri in [&[33, 10, 0, 0, 0, 0][..], &[24, 10, 1], &[255], &[8]] {
        for octets in [update(&[], MANDATORY, nlri), update(nlri, &[], &[])] {
            let error = decode_one(&octets, INTERNAL).unwrap_err();
            assert_eq!(error.notification.error(), ErrorCode::INVALID_NETWORK_FIELD, "{nlri:?}");
        }
    }
    let update = decoded(&update(&[], MANDATORY, &[20, 10, 1, 0xff, 0, 32, 10, 0, 0, 1]), INTERNAL);
    assert_eq!(update.reach[0].prefixes, prefixes(&["10.1.240.0/20", "0.0.0.0/0", "10.0.0.1/32"]));
}

#[test]
fn end_of_rib_is_nothing_else() {
    let end = |withdrawn: &[u8], attributes: &[&[u8]], nlri: &[u8]| {
        decoded(&update(withdrawn, attributes, nlri), INTERNAL).end_of_rib
    };
    assert_eq!(end(&[], &[], &[]), Some(Family::Ipv4));
    assert_eq!(end(&[], &[&[0x80, 15, 3, 0, 2, 1]], &[]), Some(Family::Ipv6));
    assert_eq!(end(&[], &[&[0x80, 15, 3, 0, 1, 1]], &[]), Some(Family::Ipv4));
    // A family that we don't know, an unknown attribute, prefixes besides.
    assert_eq!(end(&[], &[&[0x80, 15, 3, 0, 25, 70]], &[]), None);
    assert_eq!(end(&[], &[&[0xc0, 99, 0]], &[]), None);
    assert_eq!(end(NLRI, &[], &[]), None);
    assert_eq!(end(NLRI, &[&[0x80, 15, 3, 0, 2, 1]], &[]), None);
    assert_eq!(end(&[], &[MP_UNREACH], &[]), None);
    assert_eq!(end(&[], &[&[0x80, 15, 3, 0, 2, 1], ORIGIN], &[]), None);
}

#[test]
fn unknown_attributes_are_kept_if_transitive() {
    let octets = update(
        &[],
        &[
            ORIGIN,
            AS_PATH,
            NEXT_HOP,
            &[0xc0, 200, 1, 7],
            &[0x80, 100, 1, 7],
            &[0xd0, 99, 0, 0],
            &[0xc0, 16, 8, 0, 2, 0, 0, 0, 0, 0, 0],
        ],
        NLRI,
    );
    let attributes = decoded(&octets, EXTERNAL).attributes.unwrap();
    let kept: Vec<_> =
        attributes.unknown.iter().map(|unknown| (unknown.flags, unknown.code, unknown.value.len())).collect();
    // Sorted; the partial bit on those that we don't understand.
    assert_eq!(kept, [(0xc0, 16, 8), (0xe0, 99, 0), (0xe0, 200, 1)]);
}

#[test]
fn ipv6_next_hops() {
    let global = "2001:db8::1";
    let next_hop = |addresses: &[&str]| {
        let octets: Vec<u8> =
            addresses.iter().flat_map(|text| text.parse::<Ipv6Addr>().unwrap().octets()).collect();
        let mut value = vec![0, 2, 1, u8::try_from(octets.len()).unwrap()];
        value.extend(octets);
        value.extend([0, 32, 0x20, 1, 0xd, 0xb8]);
        let attribute = [&[0x80, 14, u8::try_from(value.len()).unwrap()], &value[..]].concat();
        let update = decoded(&update(&[], &[&attribute, ORIGIN, AS_PATH], &[]), EXTERNAL);
        update
            .reach
            .first()
            .map(|reach| (reach.next_hop.to_string(), reach.link_local.map(|address| address.to_string())))
    };
    let both = |next_hop: &str, link_local: Option<&str>| {
        Some((next_hop.to_owned(), link_local.map(ToOwned::to_owned)))
    };
    assert_eq!(next_hop(&[global]), both(global, None));
    assert_eq!(next_hop(&[global, "fe80::1"]), both(global, Some("fe80::1")));
    assert_eq!(next_hop(&["::", "fe80::1"]), both("fe80::1", Some("fe80::1")));
    assert_eq!(next_hop(&["fe80::1"]), both("fe80::1", None));
    assert_eq!(next_hop(&[global, "::"]), both(global, None));
    assert_eq!(next_hop(&[global, "2001:db8::2"]), both(global, None));
    for refused in [&["::"][..], &["::1"], &["ff02::1"], &["::ffff:192.0.2.1"], &["::", "::"]] {
        assert_eq!(next_hop(refused), None, "{refused:?}");
    }
}

/// RFC 6793 §4.2.3.
#[test]
fn two_and_four_octets_become_one() {
    const AS4: [u8; 2] = [0x5b, 0xa0]; // AS_TRANS
    let merged = |path: &[u8], beside: &[&[u8]]| {
        let path = [&[0x40, 2, u8::try_from(path.len()).unwrap()], path].concat();
        let all = [&[beside[0], ORIGIN, &path, NEXT_HOP][..], &beside[1..]].concat();
        let update = decoded(&update(&[], &all, NLRI), OLD);
        update.attributes.map(|attributes| {
            let asns = attributes.as_path.iter().flat_map(|segment| match segment {
                AsSegment::Sequence(asns) | AsSegment::Set(asns) => {
                    asns.iter().map(|asn| asn.0).collect::<Vec<_>>()
                }
            });
            (asns.collect::<Vec<_>>(), attributes.aggregator.map(|(asn, _)| asn.0))
        })
    };
    let as4_path: &[u8] = &[0xc0, 17, 10, 2, 2, 0, 1, 0, 1, 0, 1, 0, 2];
    let nothing: &[u8] = &[0x80, 100, 0];
    let trans2 = [&[2, 2], &AS4[..], &AS4].concat();
    let trans3 = [&[2, 3, 0, 7], &AS4[..], &AS4].concat();
    assert_eq!(merged(&trans2, &[nothing]), Some((vec![23456, 23456], None)));
    // In whatever order they come.
    assert_eq!(merged(&trans2, &[as4_path]), Some((vec![65537, 65538], None)));
    assert_eq!(merged(&trans2, &[nothing, as4_path]), Some((vec![65537, 65538], None)));
    // What AS_PATH has more goes before.
    assert_eq!(merged(&trans3, &[as4_path]), Some((vec![7, 65537, 65538], None)));
    // AS4_PATH is longer than AS_PATH: somebody dropped a part. AS_PATH counts.
    assert_eq!(merged(&[2, 1, 0, 7], &[as4_path]), Some((vec![7], None)));
    // Malformed, empty, AS 0: AS4_PATH is not used. A confederation's segment in it is left out.
    for as4_path in
        [&[0xc0, 17, 5, 2, 1, 0, 1, 0][..], &[0xc0, 17, 2, 2, 0], &[0xc0, 17, 6, 2, 1, 0, 0, 0, 0]]
    {
        assert_eq!(merged(&trans2, &[as4_path]), Some((vec![23456, 23456], None)), "{as4_path:?}");
    }
    let confederation: &[u8] = &[0xc0, 17, 12, 3, 1, 0, 1, 0, 9, 2, 1, 0, 1, 0, 2];
    assert_eq!(merged(&trans2, &[confederation]), Some((vec![23456, 65538], None)));
    // RFC 9774 §3.
    assert_eq!(merged(&trans2, &[&[0xc0, 17, 6, 1, 1, 0, 1, 0, 1]]), None);

    let aggregator = |asn: [u8; 2]| [&[0xc0, 7, 6], &asn[..], &[192, 0, 2, 1]].concat();
    let as4_aggregator: &[u8] = &[0xc0, 18, 8, 0, 1, 0, 3, 192, 0, 2, 1];
    assert_eq!(
        merged(&trans2, &[&aggregator(AS4), as4_aggregator, as4_path]),
        Some((vec![65537, 65538], Some(65539)))
    );
    // AGGREGATOR of an AS that two octets can say: both AS4 attributes are out of date.
    assert_eq!(
        merged(&trans2, &[&aggregator([0, 7]), as4_aggregator, as4_path]),
        Some((vec![23456, 23456], Some(7)))
    );
    assert_eq!(merged(&trans2, &[as4_aggregator]), Some((vec![23456, 23456], None)));
}
