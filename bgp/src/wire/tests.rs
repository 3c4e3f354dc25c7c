//! Header, OPEN and NOTIFICATION by example; attributes, captures and properties in files of their own.

mod attributes;
mod captures;
mod properties;

use super::*;

pub(super) const INTERNAL: Codec = Codec { four_octet_as: true, internal: true };
pub(super) const EXTERNAL: Codec = Codec { four_octet_as: true, internal: false };
pub(super) const OLD: Codec = Codec { four_octet_as: false, internal: false };

/// A message of this type with a right header.
pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER + body.len()).unwrap();
    [&MARKER[..], &length.to_be_bytes(), &[kind], body].concat()
}

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// The one message in these octets.
pub(super) fn decode_one(octets: &[u8], codec: Codec) -> Result<Option<Message>, DecodeError> {
    let mut buffer = BytesMut::from(octets);
    let message = decode(&mut buffer, codec);
    if let Ok(Some(_)) = message {
        assert!(buffer.is_empty(), "octets left over");
    }
    message
}

fn refused(octets: &[u8]) -> (ErrorCode, Vec<u8>) {
    let error = decode_one(octets, INTERNAL).unwrap_err();
    assert!(!error.reason.is_empty());
    (error.notification.error(), error.notification.data.to_vec())
}

#[test]
fn header_is_judged_at_nineteen_octets() {
    let keepalive = message(TYPE_KEEPALIVE, &[]);
    assert_eq!(decode_one(&keepalive, INTERNAL), Ok(Some(Message::Keepalive)));
    assert_eq!(decode_one(&keepalive[..18], INTERNAL), Ok(None));

    let with = |at: usize, value: u8| {
        let mut octets = keepalive.clone();
        octets[at] = value;
        octets
    };
    assert_eq!(refused(&with(0, 0)), (ErrorCode::CONNECTION_NOT_SYNCHRONIZED, vec![]));
    assert_eq!(refused(&with(15, 0xfe)), (ErrorCode::CONNECTION_NOT_SYNCHRONIZED, vec![]));
    assert_eq!(refused(&with(17, 18)), (ErrorCode::BAD_MESSAGE_LENGTH, vec![0, 18]));
    assert_eq!(refused(&with(17, 20)), (ErrorCode::BAD_MESSAGE_LENGTH, vec![0, 20]));
    assert_eq!(refused(&with(16, 0x10)), (ErrorCode::BAD_MESSAGE_LENGTH, vec![0x10, 19]));
    assert_eq!(refused(&with(18, 0)), (ErrorCode::BAD_MESSAGE_TYPE, vec![0]));
    // 6 was to be the CAPABILITY message, which never became a standard.
    assert_eq!(refused(&with(18, 6)), (ErrorCode::BAD_MESSAGE_TYPE, vec![6]));
    for kind in [TYPE_OPEN, TYPE_UPDATE, TYPE_NOTIFICATION, TYPE_ROUTE_REFRESH] {
        assert_eq!(refused(&with(18, kind)).0, ErrorCode::BAD_MESSAGE_LENGTH, "type {kind}");
    }
    // 4096 is still a message; the rest of it has yet to come.
    let mut largest = message(TYPE_UPDATE, &[]);
    largest[16..18].copy_from_slice(&4096u16.to_be_bytes());
    assert_eq!(decode_one(&largest, INTERNAL), Ok(None));
}

/// OPEN of AS 65001, hold time 90, identifier 192.0.2.1 with these optional parameters.
fn open_with(parameters: &[u8]) -> Vec<u8> {
    let length = u8::try_from(parameters.len()).unwrap();
    let fixed = [4, 0xfd, 0xe9, 0, 90, 192, 0, 2, 1, length];
    message(TYPE_OPEN, &[&fixed, parameters].concat())
}

fn capabilities(octets: &[u8]) -> Vec<Capability> {
    let Message::Open(open) = decode_one(octets, INTERNAL).unwrap().unwrap() else { panic!("not an OPEN") };
    open.capabilities
}

#[test]
fn open_fields_are_judged() {
    let with = |at: usize, values: &[u8]| {
        let mut octets = open_with(&[]);
        octets[HEADER + at..HEADER + at + values.len()].copy_from_slice(values);
        octets
    };
    assert_eq!(capabilities(&with(0, &[4])), []);
    assert_eq!(refused(&with(0, &[3])), (ErrorCode::UNSUPPORTED_VERSION_NUMBER, vec![0, 4]));
    assert_eq!(refused(&with(1, &[0, 0])).0, ErrorCode::BAD_PEER_AS);
    assert_eq!(refused(&with(3, &[0, 1])).0, ErrorCode::UNACCEPTABLE_HOLD_TIME);
    assert_eq!(refused(&with(3, &[0, 2])).0, ErrorCode::UNACCEPTABLE_HOLD_TIME);
    assert!(decode_one(&with(3, &[0, 0]), INTERNAL).is_ok());
    assert!(decode_one(&with(3, &[0, 3]), INTERNAL).is_ok());
    assert_eq!(refused(&with(5, &[0, 0, 0, 0])).0, ErrorCode::BAD_BGP_IDENTIFIER);
    // RFC 6286: any other number will do, also one that is no host's address.
    assert!(decode_one(&with(5, &[255, 255, 255, 255]), INTERNAL).is_ok());
    assert_eq!(refused(&with(9, &[1])).0, ErrorCode::OPEN_UNSPECIFIC);
}

#[test]
fn optional_parameters_in_both_forms() {
    let one = [2, 2, CODE_RR, 0];
    const CODE_RR: u8 = 2;
    assert_eq!(capabilities(&open_with(&one)), [Capability::RouteRefresh]);
    // Several parameters, several capabilities in one.
    let many = [2, 4, 2, 0, 70, 0, 2, 2, 2, 0];
    let unknown = Capability::Unknown { code: 70, value: Bytes::new() };
    assert_eq!(
        capabilities(&open_with(&many)),
        [Capability::RouteRefresh, unknown, Capability::RouteRefresh]
    );

    // RFC 9072: the same with lengths of two octets; the one-octet length says nothing as long as it is not 0.
    let extended = [255, 0, 5, 2, 0, 2, 2, 0];
    assert_eq!(capabilities(&open_with(&extended)), [Capability::RouteRefresh]);
    let mut wrong = open_with(&extended);
    wrong[HEADER + 9] = 255;
    assert_eq!(capabilities(&wrong), [Capability::RouteRefresh]);

    let malformed: [&[u8]; 11] = [
        &[2],                        // no length
        &[2, 3, 2, 0],               // parameter longer than the field
        &[2, 1, 2],                  // capability without length
        &[2, 3, 2, 2, 0],            // capability longer than its parameter
        &[255],                      // extended, no length
        &[255, 0],                   // extended, half a length
        &[255, 0, 9, 2, 0, 2, 2, 0], // extended length beyond the message
        &[255, 0, 2, 2, 0, 2, 2, 0], // extended length short of the message
        &[255, 0, 2, 2, 0],          // extended parameter with half a length
        &[255, 0, 5, 2, 0, 3, 2, 0], // extended parameter longer than the field
        &[2, 5, 65, 3, 0, 0, 1],     // four-octet AS of three octets
    ];
    for parameters in malformed {
        assert_eq!(refused(&open_with(parameters)).0, ErrorCode::OPEN_UNSPECIFIC, "{parameters:?}");
    }
    // Authentication information, long deprecated.
    assert_eq!(refused(&open_with(&[1, 1, 0])).0, ErrorCode::UNSUPPORTED_OPTIONAL_PARAMETER);
}

#[test]
fn malformed_capabilities_count_as_unknown() {
    let unknown = |code, value: &[u8]| Capability::Unknown { code, value: Bytes::copy_from_slice(value) };
    let cases: [(u8, &[u8]); 7] = [
        (1, &[0, 1, 0]),          // short
        (1, &[0, 25, 0, 65]),     // L2VPN
        (2, &[1]),                // route refresh has no value
        (64, &[0]),               // graceful restart without time
        (64, &[0, 120, 0, 1, 1]), // half a family
        (71, &[0, 1]),            // long-lived graceful restart
        (75, &[0; 200]),          // software version
    ];
    for (code, value) in cases {
        let length = u8::try_from(value.len()).unwrap();
        let parameters = [&[2, length + 2, code, length], value].concat();
        assert_eq!(capabilities(&open_with(&parameters)), [unknown(code, value)]);
    }
}

#[test]
fn four_octet_as_counts() {
    let asn = |parameters: &[u8]| {
        let Message::Open(open) = decode_one(&open_with(parameters), INTERNAL).unwrap().unwrap() else {
            panic!("not an OPEN")
        };
        open.asn
    };
    assert_eq!(asn(&[]), Asn(65001));
    assert_eq!(asn(&[2, 6, 65, 4, 0xfa, 0x56, 0xea, 1]), Asn(4_200_000_001));
    assert_eq!(refused(&open_with(&[2, 6, 65, 4, 0, 0, 0, 0])).0, ErrorCode::BAD_PEER_AS);
}

#[test]
fn capabilities_beyond_255_octets_use_the_long_form() {
    let capabilities: Vec<Capability> =
        (0..20).map(|n| Capability::Unknown { code: 100 + n, value: Bytes::from(vec![n; 200]) }).collect();
    let open = Open {
        asn: Asn(65001),
        hold_time_secs: 9,
        router_id: RouterId(Ipv4Addr::new(192, 0, 2, 1)),
        capabilities,
    };
    let mut out = BytesMut::new();
    Message::Open(open.clone()).encode(INTERNAL, &mut out);
    assert_eq!(decode_one(&out, INTERNAL), Ok(Some(Message::Open(open.clone()))));
    // More than a message holds: what does not fit is left out.
    let mut more = open;
    more.capabilities
        .extend((0..20).map(|n| Capability::Unknown { code: n + 130, value: Bytes::from(vec![n; 255]) }));
    let mut out = BytesMut::new();
    Message::Open(more.clone()).encode(INTERNAL, &mut out);
    let Ok(Some(Message::Open(decoded))) = decode_one(&out, INTERNAL) else { panic!("not an OPEN") };
    assert!(decoded.capabilities.len() >= 20 && more.capabilities.starts_with(&decoded.capabilities));
}

#[test]
fn route_refresh_is_for_families_that_we_know() {
    let mut buffer = BytesMut::new();
    for body in [
        &[0, 1, 0, 1][..],
        &[0, 2, 0, 1],
        &[0, 1, 1, 1],              // beginning of a refresh (RFC 7313)
        &[0, 1, 2, 1],              // its end
        &[0, 25, 0, 70],            // EVPN
        &[0, 1, 0, 1, 1, 64, 0, 9], // outbound route filter with a length beyond the message
    ] {
        buffer.extend_from_slice(&message(TYPE_ROUTE_REFRESH, body));
    }
    let mut families = Vec::new();
    while let Some(Message::RouteRefresh(family)) = decode(&mut buffer, INTERNAL).unwrap() {
        families.push(family);
    }
    assert_eq!(families, [Family::Ipv4, Family::Ipv6, Family::Ipv4]);
    assert!(buffer.is_empty());
}

#[test]
fn notifications_in_words() {
    let shutdown = Notification::with_communication(ErrorCode::ADMINISTRATIVE_SHUTDOWN, "rack 4 moves");
    assert_eq!(shutdown.to_string(), "6/2 administrative shutdown: \"rack 4 moves\"");
    assert_eq!(
        shutdown.into_hard_reset().to_string(),
        "6/9 hard reset because of 6/2 administrative shutdown: \"rack 4 moves\""
    );
    assert_eq!(ErrorCode { code: 6, subcode: 77 }.to_string(), "6/77 cease");
    assert_eq!(ErrorCode { code: 99, subcode: 1 }.to_string(), "99/1 unknown error");
}

/// RFC 9003 §2, and the over-read that CVE-2019-16159 was.
#[test]
fn communication_stays_within_its_message() {
    let communication = |data: &[u8]| {
        let notification = ErrorCode::ADMINISTRATIVE_RESET.with(Bytes::copy_from_slice(data));
        notification.communication().map(ToOwned::to_owned)
    };
    assert_eq!(communication(b"\x02hi"), Some("hi".into()));
    assert_eq!(communication(b"\x02hi and more"), Some("hi".into()));
    assert_eq!(communication(b"\x03hi"), None);
    assert_eq!(communication(b"\xffhi"), None);
    assert_eq!(communication(b"\x00"), None);
    assert_eq!(communication(b""), None);
    assert_eq!(communication(b"\x02\xc3\x28"), None);
    // Only where RFC 9003 puts one.
    assert_eq!(ErrorCode::PEER_DECONFIGURED.with(&b"\x02hi"[..]).communication(), None);

    let long = "ä".repeat(200);
    let cut = Notification::with_communication(ErrorCode::ADMINISTRATIVE_SHUTDOWN, &long);
    assert_eq!(cut.communication(), Some("ä".repeat(127).as_str()));
    // Control characters of a peer don't reach a terminal.
    let nasty = Notification::with_communication(ErrorCode::ADMINISTRATIVE_SHUTDOWN, "\x1b[2J");
    assert!(!nasty.to_string().contains('\x1b'));
}
