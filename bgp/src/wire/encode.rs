//! [`Update`] to as few UPDATE messages as hold it.

use std::net::{IpAddr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use ipnet::IpNet;

use super::as_path::{self, Width};
use super::attribute::{code, flag};
use super::{
    AS_TRANS, Attributes, Codec, HEADER, MAX_MESSAGE, Origin, Reach, TYPE_UPDATE, Update, begin, finish,
    prefix,
};
use crate::Family;

/// Octets of an UPDATE that its three fields share: the message without header and the two length fields.
const ROOM: usize = MAX_MESSAGE - HEADER - 4;

/// Appends `update` as one or more messages and says how many. Each carries one kind of prefixes only (RFC 7606
/// §5.1), withdrawals first, then announcements that share their attributes; each is filled up before the next.
///
/// What can't be said is not announced: routes whose attributes exceed a message are withdrawn instead, and so are
/// prefixes of one family with a next hop of the other. Of attributes only those are written that the session
/// has (RFC 4271 §5.1.5, RFC 4456 §8).
pub fn encode_update(update: &Update, codec: Codec, out: &mut BytesMut) -> usize {
    let mut messages = 0;
    if let Some(family) = update.end_of_rib {
        write_end_of_rib(family, out);
        messages += 1;
    }
    let attributes = update.attributes.as_deref();
    let mut groups = Vec::new();
    let mut withdrawn = update.withdrawn.clone();
    for reach in &update.reach {
        match attributes.and_then(|attributes| Group::new(reach, attributes, codec)) {
            Some(group) => groups.push(group),
            None => withdrawn.extend(&reach.prefixes),
        }
    }
    for family in Family::ALL {
        messages += write_withdrawals(family, &withdrawn, out);
    }
    for group in groups {
        messages += group.write(out);
    }
    messages
}

fn write_end_of_rib(family: Family, out: &mut BytesMut) {
    match family {
        Family::Ipv4 => write_message(&[], &[], &[], out),
        Family::Ipv6 => write_message(&[], &mp_unreach_header(family, 0), &[], out),
    }
}

fn write_withdrawals(family: Family, withdrawn: &[IpNet], out: &mut BytesMut) -> usize {
    let prefixes = withdrawn.iter().copied().filter(|prefix| Family::of(*prefix) == family);
    match family {
        Family::Ipv4 => for_each_filling(prefixes, ROOM, |field| write_message(field, &[], &[], out)),
        Family::Ipv6 => {
            let room = ROOM - mp_unreach_header(family, 0).len();
            for_each_filling(prefixes, room, |field| {
                let mut attributes = mp_unreach_header(family, field.len());
                attributes.put_slice(field);
                write_message(&[], &attributes, &[], out);
            })
        }
    }
}

/// Announcements with everything but their prefixes encoded.
struct Group<'a> {
    reach: &'a Reach,
    family: Family,
    attributes: BytesMut,
}

impl<'a> Group<'a> {
    fn new(reach: &'a Reach, attributes: &Attributes, codec: Codec) -> Option<Self> {
        let family = Family::of_address(reach.next_hop);
        if reach.prefixes.iter().any(|prefix| Family::of(*prefix) != family) {
            return None;
        }
        let mut encoded = BytesMut::new();
        let next_hop = match reach.next_hop {
            IpAddr::V4(next_hop) => Some(next_hop.octets()),
            IpAddr::V6(_) => None,
        };
        encode_attributes(attributes, next_hop, codec, &mut encoded)?;
        let group = Self { reach, family, attributes: encoded };
        // Any one prefix must fit: 17 octets are the longest.
        (group.overhead() + 17 <= ROOM).then_some(group)
    }

    fn overhead(&self) -> usize {
        match self.family {
            Family::Ipv4 => self.attributes.len(),
            Family::Ipv6 => self.attributes.len() + mp_reach_header(self.reach, 0).len(),
        }
    }

    fn write(&self, out: &mut BytesMut) -> usize {
        let prefixes = self.reach.prefixes.iter().copied();
        for_each_filling(prefixes, ROOM - self.overhead(), |field| match self.family {
            Family::Ipv4 => write_message(&[], &self.attributes, field, out),
            Family::Ipv6 => {
                // RFC 7606 §5.1: first of all attributes, so that it is found whatever follows.
                let mut attributes = mp_reach_header(self.reach, field.len());
                attributes.put_slice(field);
                attributes.put_slice(&self.attributes);
                write_message(&[], &attributes, &[], out);
            }
        })
    }
}

/// Calls `write` with as many encoded prefixes as `room` holds, until all are written; says how often.
fn for_each_filling(
    prefixes: impl Iterator<Item = IpNet>,
    room: usize,
    mut write: impl FnMut(&[u8]),
) -> usize {
    let mut field = BytesMut::with_capacity(room);
    let mut count = 0;
    for prefix in prefixes {
        if field.len() + prefix::encoded_len(prefix) > room {
            write(&field);
            count += 1;
            field.clear();
        }
        prefix::encode(prefix, &mut field);
    }
    if !field.is_empty() {
        write(&field);
        count += 1;
    }
    count
}

fn write_message(withdrawn: &[u8], attributes: &[u8], nlri: &[u8], out: &mut BytesMut) {
    let start = begin(out);
    for field in [withdrawn, attributes] {
        // Never cut: ROOM bounds what gets here.
        out.put_u16(u16::try_from(field.len()).unwrap_or(u16::MAX));
        out.put_slice(field);
    }
    out.put_slice(nlri);
    finish(out, start, TYPE_UPDATE);
}

/// MP_REACH_NLRI up to its prefixes, which take `octets`.
fn mp_reach_header(reach: &Reach, octets: usize) -> BytesMut {
    let mut next_hop = BytesMut::new();
    match reach.next_hop {
        IpAddr::V4(address) => next_hop.put_slice(&address.octets()),
        IpAddr::V6(address) => {
            next_hop.put_slice(&address.octets());
            next_hop.put_slice(reach.link_local.as_ref().map(Ipv6Addr::octets).as_ref().map_or(&[], |l| l));
        }
    }
    let (afi, safi) = prefix::afi_safi(Family::of_address(reach.next_hop));
    let mut out = BytesMut::new();
    put_extended_header(code::MP_REACH_NLRI, 5 + next_hop.len() + octets, &mut out);
    out.put_u16(afi);
    out.put_u8(safi);
    out.put_u8(u8::try_from(next_hop.len()).unwrap_or(u8::MAX));
    out.put_slice(&next_hop);
    out.put_u8(0);
    out
}

/// MP_UNREACH_NLRI up to its prefixes, which take `octets`.
fn mp_unreach_header(family: Family, octets: usize) -> BytesMut {
    let (afi, safi) = prefix::afi_safi(family);
    let mut out = BytesMut::new();
    put_extended_header(code::MP_UNREACH_NLRI, 3 + octets, &mut out);
    out.put_u16(afi);
    out.put_u8(safi);
    out
}

fn put_extended_header(code: u8, length: usize, out: &mut BytesMut) {
    out.put_slice(&[flag::OPTIONAL | flag::EXTENDED_LENGTH, code]);
    out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
}

/// All attributes but the MP ones, in the order of their codes (RFC 4271 §5); `None` if one is longer than its
/// length field can say.
fn encode_attributes(
    attributes: &Attributes,
    next_hop: Option<[u8; 4]>,
    codec: Codec,
    out: &mut BytesMut,
) -> Option<()> {
    let origin = match attributes.origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    };
    put(flag::WELL_KNOWN, code::ORIGIN, &[origin], out)?;

    let width = if codec.four_octet_as { Width::Four } else { Width::Two };
    let mut path = BytesMut::new();
    as_path::encode(&attributes.as_path, width, &mut path);
    put(flag::WELL_KNOWN, code::AS_PATH, &path, out)?;

    if let Some(next_hop) = next_hop {
        put(flag::WELL_KNOWN, code::NEXT_HOP, &next_hop, out)?;
    }
    if let Some(med) = attributes.med {
        put(flag::OPTIONAL, code::MULTI_EXIT_DISC, &med.to_be_bytes(), out)?;
    }
    if let (Some(local_pref), true) = (attributes.local_pref, codec.internal) {
        put(flag::WELL_KNOWN, code::LOCAL_PREF, &local_pref.to_be_bytes(), out)?;
    }
    if attributes.atomic_aggregate {
        put(flag::WELL_KNOWN, code::ATOMIC_AGGREGATE, &[], out)?;
    }
    if let Some((asn, address)) = attributes.aggregator {
        let mut value = BytesMut::new();
        match width {
            Width::Two => value.put_u16(u16::try_from(asn.0).unwrap_or(AS_TRANS)),
            Width::Four => value.put_u32(asn.0),
        }
        value.put_slice(&address.octets());
        put(flag::OPTIONAL_TRANSITIVE, code::AGGREGATOR, &value, out)?;
    }
    if !attributes.communities.is_empty() {
        let value: Vec<u8> =
            attributes.communities.iter().flat_map(|community| community.to_be_bytes()).collect();
        put(flag::OPTIONAL_TRANSITIVE, code::COMMUNITIES, &value, out)?;
    }
    if let (Some(originator), true) = (attributes.originator_id, codec.internal) {
        put(flag::OPTIONAL, code::ORIGINATOR_ID, &originator.0.octets(), out)?;
    }
    if codec.internal && !attributes.cluster_list.is_empty() {
        let value: Vec<u8> = attributes.cluster_list.iter().flat_map(|cluster| cluster.octets()).collect();
        put(flag::OPTIONAL, code::CLUSTER_LIST, &value, out)?;
    }
    if !codec.four_octet_as {
        encode_as4(attributes, out)?;
    }
    for unknown in &attributes.unknown {
        put(unknown.flags & !flag::EXTENDED_LENGTH, unknown.code, &unknown.value, out)?;
    }
    Some(())
}

/// RFC 6793 §4.2.2: what two octets can't say goes beside.
fn encode_as4(attributes: &Attributes, out: &mut BytesMut) -> Option<()> {
    if as_path::needs_four_octets(&attributes.as_path) {
        let mut path = BytesMut::new();
        as_path::encode(&attributes.as_path, Width::Four, &mut path);
        put(flag::OPTIONAL_TRANSITIVE, code::AS4_PATH, &path, out)?;
    }
    if let Some((asn, address)) = attributes.aggregator
        && u16::try_from(asn.0).is_err()
    {
        let mut value = BytesMut::new();
        value.put_u32(asn.0);
        value.put_slice(&address.octets());
        put(flag::OPTIONAL_TRANSITIVE, code::AS4_AGGREGATOR, &value, out)?;
    }
    Some(())
}

fn put(flags: u8, code: u8, value: &[u8], out: &mut BytesMut) -> Option<()> {
    match u8::try_from(value.len()) {
        Ok(length) => out.put_slice(&[flags, code, length]),
        Err(_) => {
            out.put_slice(&[flags | flag::EXTENDED_LENGTH, code]);
            out.put_u16(u16::try_from(value.len()).ok()?);
        }
    }
    out.put_slice(value);
    Some(())
}
