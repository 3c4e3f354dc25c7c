//! The codec: bytes to messages and back; pure, total, allocation bounded by the message (4,096 octets).
//!
//! A [`DecodeError`] knows the NOTIFICATION that answers it (RFC 4271 §6); errors inside of path attributes
//! that leave the session up (RFC 7606) come with the decoded [`Update`] instead.
//!
//! Spoken are RFC 4271 with its revisions 6286, 6608, 6793, 7606, 7607 and 9774; IPv4 and IPv6 unicast by 4760 and
//! 2545; capabilities by 5492 and 9072; 1997, 2918, 4456 and 4724 with 8538; Cease by 4486, 9003 and 9384.
//! Extended (4360, 5701) and large communities (8092) are checked for their length and kept as they are. Other
//! families, 8950 and 8654 are not negotiated and so not spoken.

mod as_path;
mod attribute;
mod encode;
mod notification;
mod open;
mod prefix;
mod reader;
#[cfg(test)]
mod tests;
mod update;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ipnet::IpNet;

pub use self::encode::encode_update;
pub use self::notification::ErrorCode;
use self::reader::Reader;
use crate::{Asn, Family, RouterId};

/// Octets of a message's header (RFC 4271 §4.1).
pub const HEADER: usize = 19;
/// Octets of a message at most, header included (RFC 4271 §4.1).
pub const MAX_MESSAGE: usize = 4096;
/// What stands for an AS number above 65535 where only two octets are understood (RFC 6793 §9).
pub const AS_TRANS: u16 = 23456;

const MARKER: [u8; 16] = [0xff; 16];

const TYPE_OPEN: u8 = 1;
const TYPE_UPDATE: u8 = 2;
const TYPE_NOTIFICATION: u8 = 3;
const TYPE_KEEPALIVE: u8 = 4;
const TYPE_ROUTE_REFRESH: u8 = 5;

/// Takes the first whole message off the front of `buffer`; `None` asks for more octets. The header is judged
/// as soon as it is there. Messages that are to be ignored (ROUTE-REFRESH of a family or subtype that we don't
/// know) are passed over. After an error the buffer is of no further use: the session ends.
///
/// # Errors
///
/// Octets that end the session, with the NOTIFICATION to send (RFC 4271 §6).
pub fn decode(buffer: &mut BytesMut, codec: Codec) -> Result<Option<Message>, DecodeError> {
    loop {
        let Some((kind, length)) = decode_header(buffer)? else { return Ok(None) };
        if buffer.len() < length {
            return Ok(None);
        }
        let mut message = buffer.split_to(length);
        message.advance(HEADER);
        return Ok(Some(match kind {
            Kind::Open => Message::Open(open::decode(&message)?),
            Kind::Update => Message::Update(update::decode(&message, codec)?),
            Kind::Notification => {
                let [code, subcode] = [message[0], message[1]];
                message.advance(2);
                // A copy: the message's slice would keep the whole receive buffer alive.
                Message::Notification(ErrorCode { code, subcode }.with(message.to_vec()))
            }
            Kind::Keepalive => Message::Keepalive,
            Kind::RouteRefresh => match decode_route_refresh(&message) {
                Some(family) => Message::RouteRefresh(family),
                None => continue,
            },
        }));
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Open,
    Update,
    Notification,
    Keepalive,
    RouteRefresh,
}

/// RFC 4271 §6.1: marker, then length, then type.
fn decode_header(buffer: &[u8]) -> Result<Option<(Kind, usize)>, DecodeError> {
    let mut reader = Reader::new(buffer);
    let (Some(marker), Some(length), Some(kind)) = (reader.array(), reader.u16(), reader.u8()) else {
        return Ok(None);
    };
    if marker != MARKER {
        return Err(ErrorCode::CONNECTION_NOT_SYNCHRONIZED.because("the message's marker is not all ones"));
    }
    let bad_length = |reason| Err(ErrorCode::BAD_MESSAGE_LENGTH.because_of(&length.to_be_bytes(), reason));
    let octets = usize::from(length);
    if !(HEADER..=MAX_MESSAGE).contains(&octets) {
        return bad_length("message length is not 19 to 4096");
    }
    let (kind, least) = match kind {
        TYPE_OPEN => (Kind::Open, 29),
        TYPE_UPDATE => (Kind::Update, 23),
        TYPE_NOTIFICATION => (Kind::Notification, 21),
        TYPE_KEEPALIVE => (Kind::Keepalive, HEADER),
        TYPE_ROUTE_REFRESH => (Kind::RouteRefresh, 23),
        unknown => return Err(ErrorCode::BAD_MESSAGE_TYPE.because_of(&[unknown], "unknown message type")),
    };
    if octets < least {
        return bad_length("message is too short for its type");
    }
    if matches!(kind, Kind::Keepalive) && octets != HEADER {
        return bad_length("KEEPALIVE is longer than its header");
    }
    Ok(Some((kind, octets)))
}

/// RFC 2918 §3 with RFC 7313 §3.2: a subtype other than 0 needs a capability that we don't offer and is ignored,
/// like a family that we don't know. Filters that may follow (RFC 5291) need a capability too: they are not read.
fn decode_route_refresh(body: &[u8]) -> Option<Family> {
    let mut reader = Reader::new(body);
    let (afi, subtype, safi) = (reader.u16()?, reader.u8()?, reader.u8()?);
    if subtype == 0 { prefix::family(afi, safi) } else { None }
}

/// A BGP message (RFC 4271 §4, RFC 2918).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// OPEN.
    Open(Open),
    /// UPDATE.
    Update(Update),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH (RFC 2918); for a family that we know.
    RouteRefresh(Family),
}

impl Message {
    /// Appends the message to `out` and says how many messages that made: an UPDATE that is too large for one is
    /// split, as [`encode_update`] says; all others make one.
    pub fn encode(&self, codec: Codec, out: &mut BytesMut) -> usize {
        let (kind, start) = match self {
            Self::Update(update) => return encode_update(update, codec, out),
            Self::Open(_) => (TYPE_OPEN, begin(out)),
            Self::Notification(_) => (TYPE_NOTIFICATION, begin(out)),
            Self::Keepalive => (TYPE_KEEPALIVE, begin(out)),
            Self::RouteRefresh(_) => (TYPE_ROUTE_REFRESH, begin(out)),
        };
        match self {
            Self::Open(open) => open::encode(open, out),
            Self::Notification(notification) => {
                let Notification { code, subcode, data } = notification;
                out.put_slice(&[*code, *subcode]);
                out.put_slice(&data[..data.len().min(MAX_MESSAGE - HEADER - 2)]);
            }
            Self::RouteRefresh(family) => {
                let (afi, safi) = prefix::afi_safi(*family);
                out.put_u16(afi);
                out.put_slice(&[0, safi]);
            }
            Self::Keepalive | Self::Update(_) => {}
        }
        finish(out, start, kind);
        1
    }
}

/// Leaves room for a header; says where.
fn begin(out: &mut BytesMut) -> usize {
    let start = out.len();
    out.put_bytes(0xff, HEADER);
    start
}

/// Writes the header of the message that began at `start` and ends here.
fn finish(out: &mut BytesMut, start: usize, kind: u8) {
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
    out[start + 18] = kind;
}

/// OPEN (RFC 4271 §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS: the capability's number if there is one (RFC 6793), else the two octets.
    pub asn: Asn,
    /// Proposed hold time in seconds: 0 or at least 3.
    pub hold_time_secs: u16,
    /// The sender's identifier.
    pub router_id: RouterId,
    /// Capabilities (RFC 5492) in the order sent.
    pub capabilities: Vec<Capability>,
}

/// A capability (RFC 5492).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    /// Code 1 (RFC 4760).
    Multiprotocol(Family),
    /// Code 2 (RFC 2918).
    RouteRefresh,
    /// Code 64 (RFC 4724, RFC 8538).
    GracefulRestart(GracefulRestart),
    /// Code 65 (RFC 6793).
    FourOctetAs(Asn),
    /// Any other, or a family that we don't know: kept as it came.
    Unknown {
        /// Capability code.
        code: u8,
        /// Capability value.
        value: Bytes,
    },
}

/// The Graceful Restart capability (RFC 4724 §3, RFC 8538 §2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GracefulRestart {
    /// R bit: the sender has restarted; do not wait for its End-of-RIB before sending yours.
    pub restarting: bool,
    /// N bit: graceful restart also after a NOTIFICATION or hold timer expiry (RFC 8538).
    pub notification: bool,
    /// Restart time in seconds, 12 bits.
    pub restart_time_secs: u16,
    /// Families, each with its F bit: forwarding state preserved.
    pub families: Vec<(Family, bool)>,
}

/// UPDATE (RFC 4271 §4.3, RFC 4760), all families in one shape.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update {
    /// Prefixes withdrawn, of either family. After treat-as-withdraw (RFC 7606) also what the message announced.
    pub withdrawn: Vec<IpNet>,
    /// Prefixes announced, grouped by next hop: at most one group from the IPv4 NLRI field and one from MP_REACH_NLRI.
    pub reach: Vec<Reach>,
    /// Attributes of everything in `reach`; `None` where nothing is announced.
    pub attributes: Option<Arc<Attributes>>,
    /// Set if the message is an End-of-RIB marker (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
    /// Attributes that were malformed and what was done about it (RFC 7606); empty when encoding.
    pub errors: Vec<AttributeError>,
}

/// Prefixes with their next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Global next hop.
    pub next_hop: IpAddr,
    /// Link-local next hop of IPv6 (RFC 2545).
    pub link_local: Option<Ipv6Addr>,
    /// Prefixes of one family.
    pub prefixes: Vec<IpNet>,
}

/// Path attributes other than next hops and prefixes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH, AS4_PATH merged in (RFC 6793).
    pub as_path: Vec<AsSegment>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<(Asn, Ipv4Addr)>,
    /// COMMUNITIES (RFC 1997).
    pub communities: Vec<u32>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<RouterId>,
    /// CLUSTER_LIST (RFC 4456).
    pub cluster_list: Vec<Ipv4Addr>,
    /// Optional transitive attributes that we don't know, with flags (partial bit set when passed on).
    pub unknown: Vec<UnknownAttribute>,
}

impl Attributes {
    /// Length of AS_PATH as the decision process counts it: a set is one (RFC 4271 §9.1.2.2 a).
    #[must_use]
    pub fn path_length(&self) -> usize {
        as_path::hops(&self.as_path)
    }
}

/// ORIGIN (RFC 4271 §5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Origin {
    /// 0
    #[default]
    Igp,
    /// 1
    Egp,
    /// 2
    Incomplete,
}

/// A segment of AS_PATH.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AsSegment {
    /// AS_SEQUENCE.
    Sequence(Vec<Asn>),
    /// AS_SET; deprecated (RFC 9774): an update with one is treated as withdraw.
    Set(Vec<Asn>),
}

/// An attribute kept as it came.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownAttribute {
    /// Flag octet.
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// Value.
    pub value: Bytes,
}

/// A malformed attribute and its RFC 7606 outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeError {
    /// Attribute type code.
    pub code: u8,
    /// What was done.
    pub outcome: Outcome,
    /// What is wrong with it, for people.
    pub reason: &'static str,
}

/// RFC 7606 §2, the outcomes that keep the session up. The strongest of a message wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The attribute is dropped, the routes stay.
    AttributeDiscard,
    /// The routes of the message count as withdrawn.
    TreatAsWithdraw,
}

/// NOTIFICATION (RFC 4271 §4.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Error code and subcode.
    pub code: u8,
    /// Error subcode; 0 is unspecific.
    pub subcode: u8,
    /// Data; for Cease 2 and 4 a shutdown communication (RFC 9003).
    pub data: Bytes,
}

/// What the decoder must know of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codec {
    /// Both sides sent the four-octet AS capability (RFC 6793).
    pub four_octet_as: bool,
    /// The peer is in our AS: LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST mean something (RFC 7606 §7.5, 7.9, 7.10).
    pub internal: bool,
}

/// Bytes that end the session, with the NOTIFICATION that says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct DecodeError {
    /// The answer on the wire.
    pub notification: Notification,
    /// What is wrong, for people.
    pub reason: &'static str,
}
