//! Path attributes: octets to [`Attributes`], with RFC 7606's outcome for each way of being wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use ipnet::IpNet;

use super::as_path::{self, Width};
use super::reader::Reader;
use super::{
    AS_TRANS, AsSegment, AttributeError, Attributes, Codec, DecodeError, ErrorCode, Origin, Outcome,
    UnknownAttribute, prefix,
};
use crate::{Asn, Family, RouterId};

/// Type codes (RFC 4271 §5 and IANA's register).
pub(super) mod code {
    pub(in crate::wire) const ORIGIN: u8 = 1;
    pub(in crate::wire) const AS_PATH: u8 = 2;
    pub(in crate::wire) const NEXT_HOP: u8 = 3;
    pub(in crate::wire) const MULTI_EXIT_DISC: u8 = 4;
    pub(in crate::wire) const LOCAL_PREF: u8 = 5;
    pub(in crate::wire) const ATOMIC_AGGREGATE: u8 = 6;
    pub(in crate::wire) const AGGREGATOR: u8 = 7;
    pub(in crate::wire) const COMMUNITIES: u8 = 8;
    pub(in crate::wire) const ORIGINATOR_ID: u8 = 9;
    pub(in crate::wire) const CLUSTER_LIST: u8 = 10;
    pub(in crate::wire) const MP_REACH_NLRI: u8 = 14;
    pub(in crate::wire) const MP_UNREACH_NLRI: u8 = 15;
    pub(in crate::wire) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(in crate::wire) const AS4_PATH: u8 = 17;
    pub(in crate::wire) const AS4_AGGREGATOR: u8 = 18;
    pub(in crate::wire) const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub(in crate::wire) const LARGE_COMMUNITIES: u8 = 32;
}

/// Flag octet (RFC 4271 §4.3).
pub(super) mod flag {
    pub(in crate::wire) const OPTIONAL: u8 = 0x80;
    pub(in crate::wire) const TRANSITIVE: u8 = 0x40;
    pub(in crate::wire) const PARTIAL: u8 = 0x20;
    pub(in crate::wire) const EXTENDED_LENGTH: u8 = 0x10;

    pub(in crate::wire) const WELL_KNOWN: u8 = TRANSITIVE;
    pub(in crate::wire) const OPTIONAL_TRANSITIVE: u8 = OPTIONAL | TRANSITIVE;
}

/// What the attributes of one UPDATE say.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) attributes: Attributes,
    /// NEXT_HOP, for the NLRI field.
    pub(super) next_hop: Option<Ipv4Addr>,
    /// MP_REACH_NLRI of a family that we know.
    pub(super) reach: Option<MpReach>,
    /// MP_UNREACH_NLRI of a family that we know.
    pub(super) unreach: Option<(Family, Vec<IpNet>)>,
    /// MP_REACH_NLRI of a family that we don't know, and so never negotiated, is there: it is not read.
    pub(super) foreign_reach: bool,
    /// Attributes other than MP_UNREACH_NLRI are there.
    pub(super) more_than_unreach: bool,
    pub(super) errors: Vec<AttributeError>,
    /// Type codes that were there, malformed or not.
    seen: Seen,
    as4_path: Option<Vec<AsSegment>>,
    as4_aggregator: Option<(Asn, Ipv4Addr)>,
}

/// MP_REACH_NLRI (RFC 4760 §3). `next_hop` is `None` where the address can't be one.
#[derive(Debug)]
pub(super) struct MpReach {
    pub(super) next_hop: Option<(IpAddr, Option<Ipv6Addr>)>,
    pub(super) prefixes: Vec<IpNet>,
}

#[derive(Debug, Default)]
struct Seen([u64; 4]);

impl Seen {
    /// Notes a type code; false if it was there already.
    fn insert(&mut self, code: u8) -> bool {
        let (word, bit) = (usize::from(code / 64), 1 << (code % 64));
        let first = self.0[word] & bit == 0;
        self.0[word] |= bit;
        first
    }

    fn contains(&self, code: u8) -> bool {
        self.0[usize::from(code / 64)] & (1 << (code % 64)) != 0
    }
}

/// An attribute as it lies in the message.
struct Raw<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    /// Flags, code, length and value: what a NOTIFICATION shows.
    whole: &'a [u8],
}

/// What one attribute's value may be wrong with.
enum Fault {
    /// RFC 7606 §2, session reset.
    Reset(DecodeError),
    /// The session goes on.
    Keep(Outcome, &'static str),
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::Reset(error)
    }
}

fn withdraw(reason: &'static str) -> Fault {
    Fault::Keep(Outcome::TreatAsWithdraw, reason)
}

fn discard(reason: &'static str) -> Fault {
    Fault::Keep(Outcome::AttributeDiscard, reason)
}

/// Reads the attribute field of an UPDATE. `nlri` tells whether the NLRI field has prefixes: only then NEXT_HOP
/// means something (RFC 4760 §3).
pub(super) fn decode(field: &[u8], codec: Codec, nlri: bool) -> Result<Decoded, DecodeError> {
    let mut decoded = Decoded::default();
    let mut reader = Reader::new(field);
    while !reader.is_empty() {
        let Some(raw) = decode_raw(&mut reader, field) else {
            // RFC 7606 §4: what remains is too short for an attribute, or for the length that it states. The
            // field's own length tells where the NLRI begins; only prefixes in the attribute itself would be lost.
            decoded.cut_off(field, &reader)?;
            break;
        };
        decoded.more_than_unreach |= raw.code != code::MP_UNREACH_NLRI;
        if !decoded.seen.insert(raw.code) {
            // RFC 7606 §3 g.
            if matches!(raw.code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI) {
                return Err(ErrorCode::MALFORMED_ATTRIBUTE_LIST
                    .because("MP_REACH_NLRI or MP_UNREACH_NLRI is there twice"));
            }
            decoded.note(
                raw.code,
                Outcome::AttributeDiscard,
                "attribute is there twice; the first one counts",
            );
            continue;
        }
        match decoded.attribute(&raw, codec, nlri) {
            Ok(()) => {}
            Err(Fault::Keep(outcome, reason)) => decoded.note(raw.code, outcome, reason),
            Err(Fault::Reset(error)) => return Err(error),
        }
    }
    decoded.merge_four_octet_as();
    // Equal sets of attributes are to be equal values in whatever order they came.
    decoded.attributes.unknown.sort_by_key(|attribute| attribute.code);
    Ok(decoded)
}

fn decode_raw<'a>(reader: &mut Reader<'a>, field: &'a [u8]) -> Option<Raw<'a>> {
    let start = field.len() - reader.len();
    let mut ahead = *reader;
    let (flags, code) = (ahead.u8()?, ahead.u8()?);
    let length =
        if flags & flag::EXTENDED_LENGTH == 0 { usize::from(ahead.u8()?) } else { usize::from(ahead.u16()?) };
    let value = ahead.take(length)?;
    *reader = ahead;
    Some(Raw { flags, code, value, whole: &field[start..field.len() - reader.len()] })
}

impl Decoded {
    /// Whether an attribute of this type was there, malformed or not.
    pub(super) fn has(&self, code: u8) -> bool {
        self.seen.contains(code)
    }

    pub(super) fn note(&mut self, code: u8, outcome: Outcome, reason: &'static str) {
        self.errors.push(AttributeError { code, outcome, reason });
    }

    fn cut_off(&mut self, field: &[u8], rest: &Reader<'_>) -> Result<(), DecodeError> {
        let rest = &field[field.len() - rest.len()..];
        let code = rest.get(1).copied().unwrap_or(0);
        if matches!(code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI) {
            // RFC 7606 §3 j: its prefixes can't be found.
            return Err(
                ErrorCode::MALFORMED_ATTRIBUTE_LIST.because("MP_REACH_NLRI or MP_UNREACH_NLRI is cut off")
            );
        }
        self.more_than_unreach = true;
        self.note(code, Outcome::TreatAsWithdraw, "attribute is longer than the attribute field");
        Ok(())
    }

    fn attribute(&mut self, raw: &Raw<'_>, codec: Codec, nlri: bool) -> Result<(), Fault> {
        let value = raw.value;
        match raw.code {
            code::ORIGIN => {
                check_flags(raw, flag::WELL_KNOWN)?;
                // RFC 7606 §7.1.
                self.attributes.origin = match value {
                    [0] => Origin::Igp,
                    [1] => Origin::Egp,
                    [2] => Origin::Incomplete,
                    [_] => return Err(withdraw("ORIGIN has an undefined value")),
                    _ => return Err(withdraw("ORIGIN is not one octet")),
                };
            }
            code::AS_PATH => {
                check_flags(raw, flag::WELL_KNOWN)?;
                let width = if codec.four_octet_as { Width::Four } else { Width::Two };
                let path = as_path::decode(value, width).map_err(withdraw)?;
                // RFC 9774 §3.
                if as_path::has_set(&path) {
                    return Err(withdraw("AS_PATH contains an AS_SET"));
                }
                self.attributes.as_path = path;
            }
            code::NEXT_HOP if !nlri => {
                // RFC 4760 §3: ignored where the NLRI field is empty, right or wrong.
            }
            code::NEXT_HOP => {
                check_flags(raw, flag::WELL_KNOWN)?;
                // RFC 7606 §7.3.
                let octets: [u8; 4] =
                    value.try_into().map_err(|_| withdraw("NEXT_HOP is not four octets"))?;
                let address = Ipv4Addr::from(octets);
                // RFC 4271 §6.3: syntactically, then semantically incorrect; both leave the session up.
                if !can_be_next_hop(IpAddr::V4(address)) {
                    return Err(withdraw("NEXT_HOP is not the address of a host"));
                }
                self.next_hop = Some(address);
            }
            code::MULTI_EXIT_DISC => {
                check_flags(raw, flag::OPTIONAL)?;
                // RFC 7606 §7.4.
                self.attributes.med =
                    Some(number(value).ok_or_else(|| withdraw("MULTI_EXIT_DISC is not four octets"))?);
            }
            code::LOCAL_PREF => {
                check_internal(codec, "LOCAL_PREF from an external peer")?;
                check_flags(raw, flag::WELL_KNOWN)?;
                // RFC 7606 §7.5.
                self.attributes.local_pref =
                    Some(number(value).ok_or_else(|| withdraw("LOCAL_PREF is not four octets"))?);
            }
            code::ATOMIC_AGGREGATE => {
                check_flags(raw, flag::WELL_KNOWN)?;
                // RFC 7606 §7.6.
                if !value.is_empty() {
                    return Err(discard("ATOMIC_AGGREGATE is not empty"));
                }
                self.attributes.atomic_aggregate = true;
            }
            code::AGGREGATOR => {
                check_flags(raw, flag::OPTIONAL_TRANSITIVE)?;
                self.attributes.aggregator = Some(decode_aggregator(value, codec.four_octet_as)?);
            }
            code::COMMUNITIES => {
                check_flags(raw, flag::OPTIONAL_TRANSITIVE)?;
                // RFC 7606 §7.8.
                check_multiple(value, 4, "COMMUNITIES is not a multiple of four octets")?;
                self.attributes.communities = value.chunks_exact(4).filter_map(number).collect();
            }
            code::ORIGINATOR_ID => {
                check_internal(codec, "ORIGINATOR_ID from an external peer")?;
                check_flags(raw, flag::OPTIONAL)?;
                // RFC 7606 §7.9.
                let id = number(value).ok_or_else(|| withdraw("ORIGINATOR_ID is not four octets"))?;
                self.attributes.originator_id = Some(RouterId(Ipv4Addr::from(id)));
            }
            code::CLUSTER_LIST => {
                check_internal(codec, "CLUSTER_LIST from an external peer")?;
                check_flags(raw, flag::OPTIONAL)?;
                // RFC 7606 §7.10.
                check_multiple(value, 4, "CLUSTER_LIST is not a multiple of four octets")?;
                self.attributes.cluster_list =
                    value.chunks_exact(4).filter_map(number).map(Ipv4Addr::from).collect();
            }
            code::MP_REACH_NLRI => {
                self.mp_reach(raw)?;
                // After the prefixes are known, so that they can be withdrawn.
                check_flags(raw, flag::OPTIONAL)?;
            }
            code::MP_UNREACH_NLRI => {
                self.mp_unreach(raw)?;
                check_flags(raw, flag::OPTIONAL)?;
            }
            code::EXTENDED_COMMUNITIES => {
                // RFC 7606 §7.14.
                self.opaque(raw, 8, "EXTENDED_COMMUNITIES is not a multiple of eight octets")?;
            }
            code::IPV6_EXTENDED_COMMUNITIES => {
                // RFC 7606 §7.15.
                self.opaque(raw, 20, "IPv6 extended communities are not a multiple of twenty octets")?;
            }
            code::LARGE_COMMUNITIES => {
                // RFC 8092 §6.
                self.opaque(raw, 12, "LARGE_COMMUNITY is not a multiple of twelve octets")?;
            }
            code::AS4_PATH | code::AS4_AGGREGATOR if codec.four_octet_as => {
                // RFC 6793 §4.1.
                return Err(discard(
                    "AS4_PATH or AS4_AGGREGATOR from a peer that speaks four-octet AS numbers",
                ));
            }
            code::AS4_PATH => {
                // RFC 6793 §6, RFC 7607 §2: malformed is discarded.
                let path = as_path::decode_as4(value).map_err(discard)?;
                if as_path::has_set(&path) {
                    return Err(withdraw("AS4_PATH contains an AS_SET"));
                }
                self.as4_path = Some(path);
            }
            code::AS4_AGGREGATOR => self.as4_aggregator = Some(decode_aggregator(value, true)?),
            _ if raw.flags & flag::OPTIONAL == 0 => {
                // RFC 4271 §6.3.
                return Err(ErrorCode::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE
                    .because_of(raw.whole, "well-known attribute of unknown type")
                    .into());
            }
            _ if raw.flags & flag::TRANSITIVE != 0 => {
                // RFC 4271 §5: passed on as it is, marked as not understood by somebody on the way.
                self.keep(raw, flag::OPTIONAL_TRANSITIVE | flag::PARTIAL);
            }
            // RFC 4271 §5: quietly ignored.
            _ => {}
        }
        Ok(())
    }

    /// Known by name and length only.
    fn opaque(&mut self, raw: &Raw<'_>, unit: usize, reason: &'static str) -> Result<(), Fault> {
        check_flags(raw, flag::OPTIONAL_TRANSITIVE)?;
        check_multiple(raw.value, unit, reason)?;
        self.keep(raw, flag::OPTIONAL_TRANSITIVE | raw.flags & flag::PARTIAL);
        Ok(())
    }

    fn keep(&mut self, raw: &Raw<'_>, flags: u8) {
        let value = Bytes::copy_from_slice(raw.value);
        self.attributes.unknown.push(UnknownAttribute { flags, code: raw.code, value });
    }

    /// RFC 4760 §3, RFC 2545 §3.
    fn mp_reach(&mut self, raw: &Raw<'_>) -> Result<(), Fault> {
        let broken = |reason| ErrorCode::OPTIONAL_ATTRIBUTE_ERROR.because_of(raw.whole, reason);
        let short = || broken("MP_REACH_NLRI is too short");
        let mut reader = Reader::new(raw.value);
        let (afi, safi) = (reader.u16().ok_or_else(short)?, reader.u8().ok_or_else(short)?);
        let Some(family) = prefix::family(afi, safi) else {
            self.foreign_reach = true;
            return Ok(());
        };
        let length = reader.u8().ok_or_else(short)?;
        let address = reader.take(usize::from(length)).ok_or_else(short)?;
        // RFC 7606 §7.11: a length that the family does not have is a reset.
        let next_hop = match (family, address.len()) {
            (Family::Ipv4, 4) => number(address).map(|v4| (IpAddr::V4(Ipv4Addr::from(v4)), None)),
            (Family::Ipv6, 16 | 32) => decode_ipv6_next_hop(address),
            _ => return Err(broken("MP_REACH_NLRI has a next hop of a wrong length").into()),
        };
        let next_hop = next_hop.filter(|(address, _)| can_be_next_hop(*address));
        // RFC 4760 §3: one octet that is to be ignored.
        let _reserved = reader.u8().ok_or_else(short)?;
        let prefixes = prefix::decode(family, reader.rest())
            .map_err(|reason| ErrorCode::INVALID_NETWORK_FIELD.because(reason))?;
        let usable = next_hop.is_some();
        self.reach = Some(MpReach { next_hop, prefixes });
        if usable {
            Ok(())
        } else {
            Err(withdraw("MP_REACH_NLRI has a next hop that is not the address of a host"))
        }
    }

    /// RFC 4760 §4.
    fn mp_unreach(&mut self, raw: &Raw<'_>) -> Result<(), Fault> {
        let mut reader = Reader::new(raw.value);
        let (Some(afi), Some(safi)) = (reader.u16(), reader.u8()) else {
            return Err(ErrorCode::OPTIONAL_ATTRIBUTE_ERROR
                .because_of(raw.whole, "MP_UNREACH_NLRI is too short")
                .into());
        };
        if let Some(family) = prefix::family(afi, safi) {
            let prefixes = prefix::decode(family, reader.rest())
                .map_err(|reason| ErrorCode::INVALID_NETWORK_FIELD.because(reason))?;
            self.unreach = Some((family, prefixes));
        }
        Ok(())
    }

    /// RFC 6793 §4.2.3; both are there only from a peer with two-octet numbers.
    fn merge_four_octet_as(&mut self) {
        let as4_path = self.as4_path.take();
        if let (Some((asn, _)), Some(four)) = (self.attributes.aggregator, self.as4_aggregator.take()) {
            if asn != Asn(u32::from(AS_TRANS)) {
                // Somebody on the way aggregated who does not know of four octets: both are of no use.
                return;
            }
            self.attributes.aggregator = Some(four);
        }
        if let Some(as4_path) = as4_path {
            self.attributes.as_path = as_path::merge(std::mem::take(&mut self.attributes.as_path), as4_path);
        }
    }
}

/// RFC 7606 §3 c: the Optional and Transitive bits must be what the type says.
fn check_flags(raw: &Raw<'_>, expected: u8) -> Result<(), Fault> {
    if raw.flags & flag::OPTIONAL_TRANSITIVE == expected {
        Ok(())
    } else {
        Err(withdraw("attribute has flags that its type does not have"))
    }
}

/// RFC 7606 §7.5, 7.9, 7.10: attributes of internal sessions are discarded elsewhere, well-formed or not.
fn check_internal(codec: Codec, reason: &'static str) -> Result<(), Fault> {
    if codec.internal { Ok(()) } else { Err(discard(reason)) }
}

fn check_multiple(value: &[u8], unit: usize, reason: &'static str) -> Result<(), Fault> {
    if !value.is_empty() && value.len().is_multiple_of(unit) { Ok(()) } else { Err(withdraw(reason)) }
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// RFC 7606 §7.7, RFC 7607 §2.
fn decode_aggregator(value: &[u8], four_octets: bool) -> Result<(Asn, Ipv4Addr), Fault> {
    let mut reader = Reader::new(value);
    let asn = if four_octets { reader.u32() } else { reader.u16().map(u32::from) };
    let (Some(asn), Some(address), true) = (asn, reader.u32(), reader.is_empty()) else {
        return Err(discard("AGGREGATOR has a wrong length"));
    };
    if asn == 0 {
        return Err(discard("AGGREGATOR has AS 0"));
    }
    Ok((Asn(asn), Ipv4Addr::from(address)))
}

/// RFC 2545 §3: a global address, then perhaps a link-local one. Some speakers without a global address send
/// `::` in its place: then the link-local one is the next hop. A second address of another kind is not used.
fn decode_ipv6_next_hop(octets: &[u8]) -> Option<(IpAddr, Option<Ipv6Addr>)> {
    let mut reader = Reader::new(octets);
    let first = Ipv6Addr::from(reader.array::<16>()?);
    let link_local = reader.array::<16>().map(Ipv6Addr::from).filter(Ipv6Addr::is_unicast_link_local);
    let global = if first.is_unspecified() { link_local.unwrap_or(first) } else { first };
    Some((IpAddr::V6(global), link_local))
}

/// RFC 4271 §6.3: an address that a host can have.
fn can_be_next_hop(address: IpAddr) -> bool {
    match address {
        // 0/8 and 127/8 name this host; 224/3 are groups, reserved, and the broadcast address.
        IpAddr::V4(v4) => !matches!(v4.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(v6) => {
            !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast() && v6.to_ipv4_mapped().is_none()
        }
    }
}
