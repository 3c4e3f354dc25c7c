//! Bodies of the fuzz targets, plain functions of octets. `cargo test` replays the corpus through them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use bytes::BytesMut;
use ipnet::IpNet;

use crate::wire::{Attributes, Codec, Message, Outcome, Update, decode as decode_message};

/// The kinds of session that a codec tells apart.
const CODECS: [Codec; 4] = [
    Codec { four_octet_as: true, internal: true },
    Codec { four_octet_as: true, internal: false },
    Codec { four_octet_as: false, internal: true },
    Codec { four_octet_as: false, internal: false },
];

/// Whatever the octets, decoding ends, and what it yields keeps its promises.
pub fn decode(octets: &[u8]) {
    for codec in CODECS {
        let mut buffer = BytesMut::from(octets);
        while let Ok(Some(message)) = decode_message(&mut buffer, codec) {
            if let Message::Update(update) = message {
                check_update(&update);
            }
        }
    }
}

/// What can be decoded means the same after it has been encoded and decoded again.
pub fn roundtrip(octets: &[u8]) {
    for codec in CODECS {
        let mut buffer = BytesMut::from(octets);
        while let Ok(Some(message)) = decode_message(&mut buffer, codec) {
            let mut encoded = BytesMut::new();
            let count = message.encode(codec, &mut encoded);
            let again = decode_all(encoded, codec);
            assert_eq!(again.len(), count, "the number of messages is what encode says");
            if let Message::Update(update) = &message {
                let mut meaning = BTreeMap::new();
                for message in &again {
                    let Message::Update(update) = message else { panic!("an UPDATE became {message:?}") };
                    assert!(update.errors.is_empty(), "we encoded what we find malformed: {update:?}");
                    apply(update, &mut meaning);
                }
                let mut expected = BTreeMap::new();
                apply(update, &mut expected);
                // AS4_PATH is as long as the whole path and may not fit where a shorter one came in.
                let lost = !codec.four_octet_as && meaning.values().all(Option::is_none);
                assert!(lost || meaning == expected, "{meaning:?} is not {expected:?}");
            } else {
                assert_eq!(again, [message]);
            }
        }
    }
}

type Meaning = BTreeMap<IpNet, Option<(IpAddr, Option<Ipv6Addr>, Arc<Attributes>)>>;

/// What an UPDATE does to each prefix.
fn apply(update: &Update, meaning: &mut Meaning) {
    meaning.extend(update.withdrawn.iter().map(|prefix| (*prefix, None)));
    for reach in &update.reach {
        let attributes = update.attributes.as_ref().expect("prefixes come with attributes");
        for prefix in &reach.prefixes {
            meaning.insert(*prefix, Some((reach.next_hop, reach.link_local, Arc::clone(attributes))));
        }
    }
}

fn check_update(update: &Update) {
    assert_eq!(update.reach.is_empty(), update.attributes.is_none(), "attributes come with prefixes");
    assert!(update.reach.iter().all(|reach| !reach.prefixes.is_empty()), "a group has prefixes");
    let withdraw = update.errors.iter().any(|error| error.outcome == Outcome::TreatAsWithdraw);
    assert!(!withdraw || update.reach.is_empty(), "treat-as-withdraw announces nothing");
    assert!(
        update.end_of_rib.is_none() || update.reach.is_empty() && update.withdrawn.is_empty(),
        "End-of-RIB says nothing else"
    );
    for prefix in update.withdrawn.iter().chain(update.reach.iter().flat_map(|reach| &reach.prefixes)) {
        assert_eq!(*prefix, prefix.trunc(), "host bits are cleared");
    }
    for prefix in update.reach.iter().flat_map(|reach| &reach.prefixes) {
        assert!(!update.withdrawn.contains(prefix), "announced counts, not withdrawn");
    }
}

/// All messages in the octets, which are whole and well-formed.
pub(crate) fn decode_all(mut buffer: BytesMut, codec: Codec) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(message) = decode_message(&mut buffer, codec).expect("well-formed") {
        messages.push(message);
    }
    assert!(buffer.is_empty(), "octets are left over");
    messages
}

/// The corpus began with octets that BIRD sent and one message for each attribute; the fuzzer chose the rest as what
/// reaches further.
#[test]
fn corpus_is_survived() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/wire");
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let octets = std::fs::read(&path).unwrap();
        // The name tells which one it was if it fails.
        let outcome = std::panic::catch_unwind(|| {
            decode(&octets);
            roundtrip(&octets);
        });
        assert!(outcome.is_ok(), "{}", path.display());
        inputs += 1;
    }
    assert!(inputs > 50, "{inputs} inputs in {folder}: where is the corpus?");
}
