//! UPDATE (RFC 4271 §4.3): octets to [`Update`].

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::attribute::{self, Decoded, code};
use super::reader::Reader;
use super::{Codec, DecodeError, ErrorCode, Outcome, Reach, Update, prefix};
use crate::Family;

pub(super) fn decode(body: &[u8], codec: Codec) -> Result<Update, DecodeError> {
    // RFC 7606 §3 b: lengths that do not fit the message leave nothing to rely upon.
    let broken = || ErrorCode::MALFORMED_ATTRIBUTE_LIST.because("lengths of the UPDATE exceed the message");
    let mut reader = Reader::new(body);
    let length = reader.u16().ok_or_else(broken)?;
    let withdrawn = reader.take(usize::from(length)).ok_or_else(broken)?;
    let length = reader.u16().ok_or_else(broken)?;
    let attributes = reader.take(usize::from(length)).ok_or_else(broken)?;
    let nlri = reader.rest();
    let end_of_rib = withdrawn.is_empty() && attributes.is_empty() && nlri.is_empty();

    // RFC 7606 §5.3: prefixes that can't be read end the session.
    let unreadable = |reason| ErrorCode::INVALID_NETWORK_FIELD.because(reason);
    let withdrawn = prefix::decode(Family::Ipv4, withdrawn).map_err(unreadable)?;
    let nlri = prefix::decode(Family::Ipv4, nlri).map_err(unreadable)?;
    let decoded = attribute::decode(attributes, codec, !nlri.is_empty())?;

    let mut update = assemble(withdrawn, nlri, decoded)?;
    if end_of_rib {
        update.end_of_rib = Some(Family::Ipv4);
    }
    Ok(update)
}

fn assemble(withdrawn: Vec<IpNet>, nlri: Vec<IpNet>, mut decoded: Decoded) -> Result<Update, DecodeError> {
    let announces =
        !nlri.is_empty() || decoded.reach.as_ref().is_some_and(|reach| !reach.prefixes.is_empty());
    if announces {
        note_missing(&mut decoded, !nlri.is_empty());
    }
    let strongest = decoded.errors.iter().map(|error| error.outcome).max();
    // RFC 7606 §5.2: with attributes but no prefixes to withdraw we can't be sure that we saw all prefixes.
    if strongest == Some(Outcome::TreatAsWithdraw)
        && decoded.more_than_unreach
        && !announces
        && !decoded.foreign_reach
    {
        return Err(ErrorCode::MALFORMED_ATTRIBUTE_LIST.because("malformed attributes without prefixes"));
    }

    // RFC 4724 §2: nothing but an MP_UNREACH_NLRI without prefixes.
    let mut end_of_rib = None;
    let only_unreach = withdrawn.is_empty() && nlri.is_empty() && !decoded.more_than_unreach;
    let mut withdrawn = withdrawn;
    if let Some((family, prefixes)) = decoded.unreach {
        if only_unreach && prefixes.is_empty() && decoded.errors.is_empty() {
            end_of_rib = Some(family);
        }
        withdrawn.extend(prefixes);
    }

    let mut update = Update { withdrawn, end_of_rib, errors: decoded.errors, ..Update::default() };
    if strongest == Some(Outcome::TreatAsWithdraw) {
        update.withdrawn.extend(nlri);
        update.withdrawn.extend(decoded.reach.into_iter().flat_map(|reach| reach.prefixes));
        return Ok(update);
    }
    if let (Some(next_hop), false) = (decoded.next_hop, nlri.is_empty()) {
        update.reach.push(Reach { next_hop: IpAddr::V4(next_hop), link_local: None, prefixes: nlri });
    }
    if let Some(reach) = decoded.reach
        && let Some((next_hop, link_local)) = reach.next_hop
        && !reach.prefixes.is_empty()
    {
        update.reach.push(Reach { next_hop, link_local, prefixes: reach.prefixes });
    }
    if !update.reach.is_empty() {
        update.attributes = Some(Arc::new(decoded.attributes));
        drop_withdrawals_of_announced(&mut update);
    }
    Ok(update)
}

/// RFC 7606 §3 d: mandatory attributes that are not there. Those that are there and malformed are noted already.
fn note_missing(decoded: &mut Decoded, nlri: bool) {
    let mandatory = [
        (code::ORIGIN, true, "ORIGIN is missing"),
        (code::AS_PATH, true, "AS_PATH is missing"),
        (code::NEXT_HOP, nlri, "NEXT_HOP is missing"),
    ];
    for (code, wanted, reason) in mandatory {
        if wanted && !decoded.has(code) {
            decoded.note(code, Outcome::TreatAsWithdraw, reason);
        }
    }
}

/// RFC 4271 §4.3: a prefix that is both withdrawn and announced counts as announced.
fn drop_withdrawals_of_announced(update: &mut Update) {
    if update.withdrawn.is_empty() {
        return;
    }
    let announced: HashSet<IpNet> =
        update.reach.iter().flat_map(|reach| reach.prefixes.iter().copied()).collect();
    update.withdrawn.retain(|prefix| !announced.contains(prefix));
}
