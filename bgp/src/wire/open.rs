//! OPEN (RFC 4271 §4.2) with its capabilities (RFC 5492) in either form of optional parameters (RFC 9072).

use std::net::Ipv4Addr;

use bytes::{BufMut, Bytes, BytesMut};

use super::prefix::{afi_safi, family};
use super::reader::Reader;
use super::{AS_TRANS, Capability, DecodeError, ErrorCode, GracefulRestart, MAX_MESSAGE, Open};
use crate::{Asn, RouterId};

const VERSION: u8 = 4;
/// Optional parameter: capabilities (RFC 5492 §4).
const PARAMETER_CAPABILITIES: u8 = 2;
/// Optional parameter type that announces two-octet lengths (RFC 9072 §2).
const PARAMETER_EXTENDED: u8 = 255;

const CODE_MULTIPROTOCOL: u8 = 1;
const CODE_ROUTE_REFRESH: u8 = 2;
const CODE_GRACEFUL_RESTART: u8 = 64;
const CODE_FOUR_OCTET_AS: u8 = 65;

/// Fixed fields of OPEN after the header, without the optional parameters.
const FIXED: usize = 10;

pub(super) fn decode(body: &[u8]) -> Result<Open, DecodeError> {
    let malformed = |reason| ErrorCode::OPEN_UNSPECIFIC.because(reason);
    let mut reader = Reader::new(body);
    let short = || malformed("OPEN is too short");
    let version = reader.u8().ok_or_else(short)?;
    if version != VERSION {
        return Err(ErrorCode::UNSUPPORTED_VERSION_NUMBER.because_of(&[0, VERSION], "BGP version is not 4"));
    }
    let two_octet_as = reader.u16().ok_or_else(short)?;
    let hold_time_secs = reader.u16().ok_or_else(short)?;
    let router_id = Ipv4Addr::from(reader.u32().ok_or_else(short)?);
    let mut parameters_len = usize::from(reader.u8().ok_or_else(short)?);

    // RFC 9072 §2: the type octet of the first parameter tells; the one-octet length is then irrelevant unless 0.
    let mut ahead = reader;
    let extended = parameters_len != 0 && ahead.u8() == Some(PARAMETER_EXTENDED);
    if extended {
        parameters_len = usize::from(
            ahead.u16().ok_or_else(|| malformed("extended optional parameters length is cut off"))?,
        );
        reader = ahead;
    }
    if parameters_len != reader.len() {
        return Err(malformed("optional parameters length does not fit the message"));
    }

    let mut capabilities = Vec::new();
    while let Some(kind) = reader.u8() {
        let cut = || malformed("optional parameter is cut off");
        let length = if extended { reader.u16().map(usize::from) } else { reader.u8().map(usize::from) };
        let value = reader.take(length.ok_or_else(cut)?).ok_or_else(cut)?;
        if kind != PARAMETER_CAPABILITIES {
            return Err(
                ErrorCode::UNSUPPORTED_OPTIONAL_PARAMETER.because("optional parameter is not capabilities")
            );
        }
        decode_capabilities(value, &mut capabilities)?;
    }

    // RFC 6793 §4.1: the capability's number counts. Of several the last one does.
    let four_octet_as = capabilities.iter().rev().find_map(|capability| match capability {
        Capability::FourOctetAs(asn) => Some(*asn),
        Capability::Multiprotocol(_)
        | Capability::RouteRefresh
        | Capability::GracefulRestart(_)
        | Capability::Unknown { .. } => None,
    });
    let asn = four_octet_as.unwrap_or(Asn(u32::from(two_octet_as)));
    // RFC 7607 §2.
    if asn.0 == 0 || two_octet_as == 0 {
        return Err(ErrorCode::BAD_PEER_AS.because("the peer's AS is 0"));
    }
    // RFC 4271 §6.2.
    if matches!(hold_time_secs, 1 | 2) {
        return Err(ErrorCode::UNACCEPTABLE_HOLD_TIME.because("hold time of 1 or 2 seconds"));
    }
    // RFC 6286 §2.2.
    if router_id.is_unspecified() {
        return Err(ErrorCode::BAD_BGP_IDENTIFIER.because("BGP identifier is 0"));
    }
    Ok(Open { asn, hold_time_secs, router_id: RouterId(router_id), capabilities })
}

fn decode_capabilities(field: &[u8], capabilities: &mut Vec<Capability>) -> Result<(), DecodeError> {
    let mut reader = Reader::new(field);
    while let Some(code) = reader.u8() {
        let cut = || ErrorCode::OPEN_UNSPECIFIC.because("capability is cut off");
        let length = reader.u8().ok_or_else(cut)?;
        let value = reader.take(usize::from(length)).ok_or_else(cut)?;
        capabilities.push(decode_capability(code, value)?);
    }
    Ok(())
}

/// A capability whose value does not have the form that its code asks for counts as one that we don't know;
/// only the AS number is too important for that.
fn decode_capability(code: u8, value: &[u8]) -> Result<Capability, DecodeError> {
    let known = match code {
        CODE_MULTIPROTOCOL => decode_multiprotocol(value),
        CODE_ROUTE_REFRESH => value.is_empty().then_some(Capability::RouteRefresh),
        CODE_GRACEFUL_RESTART => decode_graceful_restart(value).map(Capability::GracefulRestart),
        CODE_FOUR_OCTET_AS => {
            let octets: [u8; 4] = value.try_into().map_err(|_| {
                ErrorCode::OPEN_UNSPECIFIC.because("four-octet AS capability has a wrong length")
            })?;
            Some(Capability::FourOctetAs(Asn(u32::from_be_bytes(octets))))
        }
        _ => None,
    };
    Ok(known.unwrap_or_else(|| Capability::Unknown { code, value: Bytes::copy_from_slice(value) }))
}

/// RFC 4760 §8: AFI, a reserved octet, SAFI.
fn decode_multiprotocol(value: &[u8]) -> Option<Capability> {
    let [afi_high, afi_low, _reserved, safi] = *value else { return None };
    family(u16::from_be_bytes([afi_high, afi_low]), safi).map(Capability::Multiprotocol)
}

/// RFC 4724 §3; families that we don't know are left out.
fn decode_graceful_restart(value: &[u8]) -> Option<GracefulRestart> {
    let mut reader = Reader::new(value);
    let flags_and_time = reader.u16()?;
    let mut families = Vec::new();
    while !reader.is_empty() {
        let (afi, safi, flags) = (reader.u16()?, reader.u8()?, reader.u8()?);
        families.extend(family(afi, safi).map(|family| (family, flags & 0x80 != 0)));
    }
    Some(GracefulRestart {
        restarting: flags_and_time & 0x8000 != 0,
        notification: flags_and_time & 0x4000 != 0,
        restart_time_secs: flags_and_time & 0x0fff,
        families,
    })
}

/// Writes what follows the header. Capabilities that can't be said on the wire (a value above 255 octets, or
/// more than fit into a message) are left out.
pub(super) fn encode(open: &Open, out: &mut BytesMut) {
    let mut capabilities = BytesMut::new();
    for capability in &open.capabilities {
        let mut one = BytesMut::new();
        encode_capability(capability, &mut one);
        // Header of the message, fixed fields and the longest form of one parameter's header.
        if capabilities.len() + one.len() <= MAX_MESSAGE - super::HEADER - FIXED - 6 {
            capabilities.put_slice(&one);
        }
    }
    out.put_u8(VERSION);
    out.put_u16(u16::try_from(open.asn.0).unwrap_or(AS_TRANS));
    out.put_u16(open.hold_time_secs);
    out.put_slice(&open.router_id.0.octets());
    let length = capabilities.len();
    match (u8::try_from(length), u8::try_from(length + 2)) {
        (Ok(0), _) => out.put_u8(0),
        (Ok(length), Ok(parameters)) => {
            out.put_slice(&[parameters, PARAMETER_CAPABILITIES, length]);
        }
        _ => {
            // RFC 9072 §2. The length fits: it is bounded by the message's above.
            out.put_slice(&[255, PARAMETER_EXTENDED]);
            out.put_u16(u16::try_from(length + 3).unwrap_or(u16::MAX));
            out.put_u8(PARAMETER_CAPABILITIES);
            out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
        }
    }
    out.put_slice(&capabilities);
}

fn encode_capability(capability: &Capability, out: &mut BytesMut) {
    match capability {
        Capability::Multiprotocol(family) => {
            let (afi, safi) = afi_safi(*family);
            out.put_slice(&[CODE_MULTIPROTOCOL, 4]);
            out.put_u16(afi);
            out.put_slice(&[0, safi]);
        }
        Capability::RouteRefresh => out.put_slice(&[CODE_ROUTE_REFRESH, 0]),
        Capability::GracefulRestart(restart) => {
            let families = &restart.families[..restart.families.len().min(63)];
            out.put_u8(CODE_GRACEFUL_RESTART);
            out.put_u8(u8::try_from(2 + 4 * families.len()).unwrap_or(u8::MAX));
            let flags = u16::from(restart.restarting) << 15 | u16::from(restart.notification) << 14;
            out.put_u16(flags | restart.restart_time_secs.min(0x0fff));
            for (family, forwarding) in families {
                let (afi, safi) = afi_safi(*family);
                out.put_u16(afi);
                out.put_slice(&[safi, u8::from(*forwarding) << 7]);
            }
        }
        Capability::FourOctetAs(asn) => {
            out.put_slice(&[CODE_FOUR_OCTET_AS, 4]);
            out.put_u32(asn.0);
        }
        Capability::Unknown { code, value } => {
            if let Ok(length) = u8::try_from(value.len()) {
                out.put_slice(&[*code, length]);
                out.put_slice(value);
            }
        }
    }
}
