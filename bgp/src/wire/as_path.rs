//! AS_PATH in two and four octets, and how both become one (RFC 6793 §4.2).

use bytes::{BufMut, BytesMut};

use super::reader::Reader;
use super::{AS_TRANS, AsSegment};
use crate::Asn;

const SET: u8 = 1;
const SEQUENCE: u8 = 2;
const CONFED_SEQUENCE: u8 = 3;
const CONFED_SET: u8 = 4;

/// Octets of an AS number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Two,
    Four,
}

/// RFC 7606 §7.2: a segment of unknown type, one that is cut off, and an empty one are malformed. So are those of
/// a confederation (RFC 5065 §4) and AS 0 (RFC 7607 §2).
pub(super) fn decode(value: &[u8], width: Width) -> Result<Vec<AsSegment>, &'static str> {
    decode_segments(value, width, |kind| {
        if matches!(kind, CONFED_SEQUENCE | CONFED_SET) {
            Err("AS_PATH has a confederation segment")
        } else {
            Ok(true)
        }
    })
}

/// AS4_PATH: as AS_PATH, but segments of a confederation are left out (RFC 6793 §6).
pub(super) fn decode_as4(value: &[u8]) -> Result<Vec<AsSegment>, &'static str> {
    decode_segments(value, Width::Four, |kind| Ok(!matches!(kind, CONFED_SEQUENCE | CONFED_SET)))
}

fn decode_segments(
    value: &[u8],
    width: Width,
    keep: impl Fn(u8) -> Result<bool, &'static str>,
) -> Result<Vec<AsSegment>, &'static str> {
    let mut reader = Reader::new(value);
    let mut segments = Vec::new();
    while let Some(kind) = reader.u8() {
        let count = reader.u8().ok_or("AS_PATH segment is cut off")?;
        if count == 0 {
            return Err("AS_PATH segment is empty");
        }
        let asns = (0..count)
            .map(|_| {
                Some(Asn(match width {
                    Width::Two => u32::from(reader.u16()?),
                    Width::Four => reader.u32()?,
                }))
            })
            .collect::<Option<Vec<_>>>()
            .ok_or("AS_PATH segment is cut off")?;
        if !(SET..=CONFED_SET).contains(&kind) {
            return Err("AS_PATH segment of unknown type");
        }
        if !keep(kind)? {
            continue;
        }
        if asns.contains(&Asn(0)) {
            return Err("AS_PATH contains AS 0");
        }
        segments.push(if kind == SET { AsSegment::Set(asns) } else { AsSegment::Sequence(asns) });
    }
    Ok(segments)
}

/// ASes in a path as the decision process counts them: a set is one (RFC 4271 §9.1.2.2 a).
pub(super) fn hops(path: &[AsSegment]) -> usize {
    path.iter().map(segment_hops).sum()
}

fn segment_hops(segment: &AsSegment) -> usize {
    match segment {
        AsSegment::Sequence(asns) => asns.len(),
        AsSegment::Set(_) => 1,
    }
}

pub(super) fn has_set(path: &[AsSegment]) -> bool {
    path.iter().any(|segment| matches!(segment, AsSegment::Set(_)))
}

/// RFC 6793 §4.2.3: what AS_PATH has more than AS4_PATH goes before it; an AS4_PATH that is longer than AS_PATH
/// is not used.
pub(super) fn merge(as_path: Vec<AsSegment>, as4_path: Vec<AsSegment>) -> Vec<AsSegment> {
    let (hops2, hops4) = (hops(&as_path), hops(&as4_path));
    if hops2 < hops4 {
        return as_path;
    }
    let mut missing = hops2 - hops4;
    let mut merged = Vec::new();
    for mut segment in as_path {
        if missing == 0 {
            break;
        }
        if let AsSegment::Sequence(asns) = &mut segment {
            asns.truncate(missing);
        }
        missing -= segment_hops(&segment);
        merged.push(segment);
    }
    let mut as4_path = as4_path.into_iter();
    match (merged.last_mut(), as4_path.next()) {
        // Where the two meet a sequence goes on.
        (Some(AsSegment::Sequence(before)), Some(AsSegment::Sequence(after)))
            if before.len() + after.len() <= 255 =>
        {
            before.extend(after);
        }
        (_, first) => merged.extend(first),
    }
    merged.extend(as4_path);
    merged
}

/// Segments as octets. A sequence longer than a segment can say (255) becomes several; empty ones are left out.
pub(super) fn encode(path: &[AsSegment], width: Width, out: &mut BytesMut) {
    for segment in path {
        let (kind, asns) = match segment {
            AsSegment::Set(asns) => (SET, asns),
            AsSegment::Sequence(asns) => (SEQUENCE, asns),
        };
        for asns in asns.chunks(255) {
            out.put_u8(kind);
            out.put_u8(u8::try_from(asns.len()).unwrap_or(u8::MAX));
            for asn in asns {
                match width {
                    Width::Two => out.put_u16(u16::try_from(asn.0).unwrap_or(AS_TRANS)),
                    Width::Four => out.put_u32(asn.0),
                }
            }
        }
    }
}

/// Whether two octets can't say it all (RFC 6793 §4.2.2).
pub(super) fn needs_four_octets(path: &[AsSegment]) -> bool {
    path.iter().any(|segment| match segment {
        AsSegment::Set(asns) | AsSegment::Sequence(asns) => {
            asns.iter().any(|asn| u16::try_from(asn.0).is_err())
        }
    })
}
