//! The codec: bytes to messages and back; pure, total, allocation bounded by the message (4,096 octets).
//!
//! A [`DecodeError`] knows the NOTIFICATION that answers it (RFC 4271 §6); errors inside of path attributes
//! that leave the session up (RFC 7606) come with the decoded [`Update`] instead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;

use crate::{Asn, Family, RouterId};

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
