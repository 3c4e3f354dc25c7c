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
        Family::Ipv6 => {
            write_message(&[], &mp_attribute(code::MP_UNREACH_NLRI, &afi_safi(family), &[]), &[], out)
        }
    }
}

fn write_withdrawals(family: Family, withdrawn: &[IpNet], out: &mut BytesMut) -> usize {
    let prefixes = withdrawn.iter().copied().filter(|prefix| Family::of(*prefix) == family);
    match family {
        Family::Ipv4 => for_each_filling(prefixes, ROOM, |field| write_message(field, &[], &[], out)),
        Family::Ipv6 => {
            let head = afi_safi(family);
            for_each_filling(prefixes, mp_room(ROOM, head.len()), |field| {
                write_message(&[], &mp_attribute(code::MP_UNREACH_NLRI, &head, field), &[], out);
            })
        }
    }
}

/// Announcements with everything but their prefixes encoded.
struct Group<'a> {
    prefixes: &'a [IpNet],
    /// MP_REACH_NLRI up to its prefixes, if they go there.
    mp_reach: Option<BytesMut>,
    attributes: BytesMut,
    /// Octets of prefixes that a message holds.
    room: usize,
}

impl<'a> Group<'a> {
    fn new(reach: &'a Reach, attributes: &Attributes, codec: Codec) -> Option<Self> {
        let family = Family::of_address(reach.next_hop);
        let longest = reach.prefixes.iter().map(|prefix| prefix::encoded_len(*prefix)).max()?;
        if reach.prefixes.iter().any(|prefix| Family::of(*prefix) != family) {
            return None;
        }
        let (next_hop, mp_reach) = match reach.next_hop {
            IpAddr::V4(next_hop) => (Some(next_hop.octets()), None),
            IpAddr::V6(next_hop) => (None, Some(mp_reach_head(next_hop, reach.link_local))),
        };
        let mut encoded = BytesMut::new();
        encode_attributes(attributes, next_hop, codec, &mut encoded)?;
        let room = ROOM.checked_sub(encoded.len())?;
        let room = mp_reach.as_ref().map_or(room, |head| mp_room(room, head.len()));
        (longest <= room).then_some(Self { prefixes: &reach.prefixes, mp_reach, attributes: encoded, room })
    }

    fn write(&self, out: &mut BytesMut) -> usize {
        for_each_filling(self.prefixes.iter().copied(), self.room, |field| match &self.mp_reach {
            None => write_message(&[], &self.attributes, field, out),
            Some(head) => {
                // RFC 7606 §5.1: first of all attributes, so that it is found whatever follows.
                let mut attributes = mp_attribute(code::MP_REACH_NLRI, head, field);
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

fn afi_safi(family: Family) -> [u8; 3] {
    let (afi, safi) = prefix::afi_safi(family);
    let [high, low] = afi.to_be_bytes();
    [high, low, safi]
}

/// MP_REACH_NLRI of IPv6 up to its prefixes (RFC 4760 §3, RFC 2545 §3).
fn mp_reach_head(next_hop: Ipv6Addr, link_local: Option<Ipv6Addr>) -> BytesMut {
    let mut head = BytesMut::new();
    head.put_slice(&afi_safi(Family::Ipv6));
    head.put_u8(if link_local.is_some() { 32 } else { 16 });
    head.put_slice(&next_hop.octets());
    if let Some(link_local) = link_local {
        head.put_slice(&link_local.octets());
    }
    head.put_u8(0);
    head
}

/// MP_REACH_NLRI or MP_UNREACH_NLRI.
fn mp_attribute(code: u8, head: &[u8], prefixes: &[u8]) -> BytesMut {
    let value = [head, prefixes].concat();
    let mut out = BytesMut::with_capacity(value.len() + 4);
    // Never refused: a message is shorter than what an attribute's length can say.
    let _ = put(flag::OPTIONAL, code, &value, &mut out);
    out
}

/// Octets of prefixes that an MP attribute holds which has `room` with its header and its `head`. The header takes
/// three octets up to a length of 255, then four.
fn mp_room(room: usize, head: usize) -> usize {
    let short = room.saturating_sub(3 + head).min(255_usize.saturating_sub(head));
    short.max(room.saturating_sub(4 + head))
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
