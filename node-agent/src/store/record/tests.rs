use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::store::tests::{at, block, claim_of, name, pool_of, record_of};

const ENCODING: Encoding = Encoding { version: 1 };

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn records_are_written_so() {
    let texts = [
        ENCODING.node(&record_of("n1"), None),
        ENCODING.claim(&claim_of("fd10:244:0:7::/64", "n1")),
        ENCODING.pool(&pool_of("10.244.0.0/16", 24)),
        ENCODING.released(block("10.244.7.0/24"), at(0)),
    ];
    // Agents of other versions read this: fields may be added, and that is all.
    expect![[r#"
        {
          "version": 1,
          "name": "n1",
          "underlayIpv4": "192.0.2.7/24",
          "underlayIpv6": "2001:db8::7/64",
          "asn": 64512,
          "routerId": "192.0.2.7",
          "bgpPort": 179,
          "vni": 4096,
          "vxlanPort": 4789,
          "labels": {
            "zone": "a"
          },
          "capabilities": [
            "native",
            "vxlan"
          ],
          "commonDigest": "d1"
        }
        {
          "version": 1,
          "block": "fd10:244:0:7::/64",
          "holder": "n1",
          "claimedAt": "2027-01-15T08:00:00Z"
        }
        {
          "version": 1,
          "cidr": "10.244.0.0/16",
          "blockPrefix": 24
        }
        {
          "version": 1,
          "block": "10.244.7.0/24",
          "releasedAt": "2027-01-15T08:00:00Z"
        }
    "#]]
    .assert_eq(&texts.iter().map(|bytes| text(bytes)).collect::<String>());
}

#[test]
fn what_was_written_is_read() {
    let unknown = BTreeMap::from([("future".to_owned(), serde_json::json!({"a": [1, null]}))]);
    let record = NodeRecord { unknown: unknown.clone(), ..record_of("n1") };
    assert_eq!(node(&name("n1"), &ENCODING.node(&record, None)).unwrap(), Decoded { record, newer: None });
    let record = Claim { unknown: unknown.clone(), ..claim_of("10.244.7.0/24", "n1") };
    assert_eq!(claim(record.block, &ENCODING.claim(&record)).unwrap(), Decoded { record, newer: None });
    let record = PoolRecord { unknown, ..pool_of("10.244.0.0/16", 24) };
    assert_eq!(pool(record.cidr, &ENCODING.pool(&record)).unwrap(), Decoded { record, newer: None });
    let bytes = ENCODING.released(block("10.244.7.0/24"), at(5));
    assert_eq!(released(block("10.244.7.0/24"), &bytes).unwrap(), Decoded { record: at(5), newer: None });
}

#[test]
fn a_newer_record_is_read_for_what_we_know() {
    let newer = Encoding { version: VERSION + 1 };
    let written = NodeRecord {
        unknown: BTreeMap::from([("future".to_owned(), serde_json::json!(true))]),
        ..record_of("n1")
    };
    let decoded = node(&name("n1"), &newer.node(&written, None)).unwrap();
    assert_eq!(decoded.newer, Some(VERSION + 1));
    assert_eq!(decoded.record.unknown["future"], serde_json::json!(true));
    assert_eq!(decoded.record.underlay, written.underlay);
    assert_eq!(
        claim(block("10.244.7.0/24"), &newer.claim(&claim_of("10.244.7.0/24", "n1"))).unwrap().newer,
        Some(VERSION + 1)
    );
}

#[test]
fn rewriting_keeps_what_we_do_not_know_and_drops_what_we_do() {
    let stored = br#"{"version": 9, "name": "n1", "underlayIpv6": "2001:db8::9/64", "asn": 1, "routerId": "1.1.1.1", "bgpPort": 1,
        "vni": 1, "vxlanPort": 1, "labels": {"gone": "x"}, "future": {"deep": [1]}, "other": null}"#;
    let mut record = record_of("n1");
    record.underlay.ipv6 = None;
    record.unknown = BTreeMap::from([
        ("other".to_owned(), serde_json::json!(2)),
        // Neither may hide nor resurrect a field that we know.
        ("asn".to_owned(), serde_json::json!(666)),
        ("underlayIpv6".to_owned(), serde_json::json!("2001:db8::666/64")),
    ]);
    let written = ENCODING.node(&record, Some(stored));
    let decoded = node(&name("n1"), &written).unwrap().record;
    assert_eq!(
        (decoded.asn, decoded.underlay.ipv6, decoded.labels.contains_key("gone")),
        (64512, None, false)
    );
    let unknown: Vec<&String> = decoded.unknown.keys().collect();
    assert_eq!(unknown, ["future", "other"]);
    assert_eq!(ENCODING.node(&record, Some(&written)), written, "and again, it stays the same");
    assert_eq!(ENCODING.node(&record_of("n1"), Some(b"\x00garbage")), ENCODING.node(&record_of("n1"), None));
}

/// A good record with one field replaced, or removed.
fn with(field: &str, value: Option<Value>) -> Vec<u8> {
    let mut object: serde_json::Map<String, Value> =
        serde_json::from_slice(&ENCODING.node(&record_of("n1"), None)).unwrap();
    match value {
        Some(value) => drop(object.insert(field.to_owned(), value)),
        None => drop(object.remove(field).unwrap()),
    }
    serde_json::to_vec(&object).unwrap()
}

#[test]
fn values_that_can_not_be_right_are_refused_by_field() {
    use serde_json::json;
    let absurd = [
        (
            "underlayIpv4",
            vec![
                json!("127.0.0.1/8"),
                json!("224.0.0.5/24"),
                json!("0.0.0.0/0"),
                json!("0.1.2.3/8"),
                json!("255.255.255.255/32"),
                json!("240.0.0.1/8"),
                json!("192.0.2.0/24"),
                json!("192.0.2.255/24"),
                json!("192.0.2.7/0"),
                json!("192.0.2.7/33"),
                json!("192.0.2.7"),
                json!("2001:db8::7/64"),
                json!(""),
                json!("192.0.2.7/24 "),
            ],
        ),
        (
            "underlayIpv6",
            vec![
                json!("::1/128"),
                json!("::/64"),
                json!("ff02::1/64"),
                json!("fe80::1/64"),
                json!("::ffff:192.0.2.7/128"),
                json!("2001:db8::7/0"),
                json!("2001:db8::7/129"),
                json!("192.0.2.7/24"),
            ],
        ),
        ("asn", vec![json!(0), json!(23456), json!(4_294_967_295u64), json!(4_294_967_296u64)]),
        ("routerId", vec![json!("0.0.0.0"), json!("n1"), json!("2001:db8::7")]),
        ("bgpPort", vec![json!(0), json!(65536)]),
        ("vxlanPort", vec![json!(0), json!(65536)]),
        ("vni", vec![json!(0), json!(16_777_216), json!(u64::MAX)]),
        ("version", vec![json!(0)]),
    ];
    for (field, values) in absurd {
        for value in values {
            match node(&name("n1"), &with(field, Some(value.clone()))) {
                Err(RecordError::Value { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{field} = {value}: {other:?}"),
            }
        }
    }
    for (field, value) in [
        ("asn", json!(-1)),
        ("asn", json!("64512")),
        ("version", json!(1.5)),
        ("labels", json!([])),
        ("version", json!(4_294_967_296u64)),
    ] {
        let result = node(&name("n1"), &with(field, Some(value.clone())));
        assert!(matches!(result, Err(RecordError::Json(_))), "{field} = {value}: {result:?}");
    }
    for required in ["version", "name", "asn", "routerId", "bgpPort", "vni", "vxlanPort"] {
        assert!(matches!(node(&name("n1"), &with(required, None)), Err(RecordError::Json(_))), "{required}");
    }
    for optional in ["underlayIpv4", "underlayIpv6", "labels", "capabilities", "commonDigest"] {
        node(&name("n1"), &with(optional, None)).unwrap_or_else(|error| panic!("{optional}: {error}"));
    }
    for fine in ["192.0.2.7/32", "192.0.2.6/31", "192.0.2.7/31", "10.0.0.1/8", "169.254.3.4/16"] {
        node(&name("n1"), &with("underlayIpv4", Some(json!(fine))))
            .unwrap_or_else(|error| panic!("{fine}: {error}"));
    }
}

#[test]
fn a_record_speaks_of_what_its_name_says() {
    let other = node(&name("n2"), &ENCODING.node(&record_of("n1"), None)).unwrap_err();
    assert_eq!(other.to_string(), "it is named n2 but speaks of n1");
    let moved = ENCODING.claim(&claim_of("10.244.7.0/24", "n1"));
    assert!(matches!(claim(block("10.244.8.0/24"), &moved), Err(RecordError::Name { .. })));
    assert!(matches!(
        pool("10.0.0.0/8".parse().unwrap(), &ENCODING.pool(&pool_of("10.244.0.0/16", 24))),
        Err(RecordError::Name { .. })
    ));
    assert!(matches!(
        released(block("10.244.8.0/24"), &ENCODING.released(block("10.244.7.0/24"), at(0))),
        Err(RecordError::Name { .. })
    ));
}

#[test]
fn claims_and_pools_are_checked_too() {
    let seven = block("10.244.7.0/24");
    for (text, wrong) in [
        (r#"{"version":1,"block":"10.244.7.0/24","claimedAt":"2027-01-15T08:00:00Z"}"#, "holder"),
        (
            r#"{"version":1,"block":"10.244.7.0/24","holder":"../etc","claimedAt":"2027-01-15T08:00:00Z"}"#,
            "holder",
        ),
        (r#"{"version":1,"block":"10.244.7.0/24","holder":"n1","claimedAt":"soon"}"#, "claimedAt"),
    ] {
        match claim(seven, text.as_bytes()) {
            Err(RecordError::Value { field, .. }) => assert_eq!(field, wrong),
            other => panic!("{text}: {other:?}"),
        }
    }
    for prefix in [15, 33, 300] {
        let text = format!(r#"{{"version":1,"cidr":"10.244.0.0/16","blockPrefix":{prefix}}}"#);
        let result = pool("10.244.0.0/16".parse().unwrap(), text.as_bytes());
        assert!(matches!(result, Err(RecordError::Value { field: "blockPrefix", .. })), "{result:?}");
    }
}

#[test]
fn errors_are_one_short_line() {
    let long = "x".repeat(10_000);
    let error =
        node(&name("n1"), &with("routerId", Some(Value::String(format!("{long}\n{long}"))))).unwrap_err();
    assert!(error.to_string().len() < 300 && !error.to_string().contains('\n'), "{error}");
}

#[test]
fn deep_nesting_is_an_error() {
    let deep = format!(r#"{{"version":1,"a":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    assert!(matches!(node(&name("n1"), deep.as_bytes()), Err(RecordError::Json(_))));
}

proptest! {
    #[test]
    fn garbage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(node(&name("n1"), &bytes).is_err());
        prop_assert!(claim(block("10.244.7.0/24"), &bytes).is_err());
        prop_assert!(pool("10.244.0.0/16".parse().unwrap(), &bytes).is_err());
    }

    #[test]
    fn a_truncated_record_is_an_error(cut in any::<prop::sample::Index>()) {
        let whole = ENCODING.node(&record_of("n1"), None);
        let end = whole.len() - 2; // without the last brace
        prop_assert!(node(&name("n1"), &whole[..cut.index(end)]).is_err());
    }

    #[test]
    fn a_mutated_record_never_panics(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = ENCODING.node(&record_of("n1"), None);
        let position = position.index(bytes.len());
        bytes[position] = byte;
        drop(node(&name("n1"), &bytes));
    }
}
