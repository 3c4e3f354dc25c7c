//! Two OPENs make a session, or an error (RFC 4271 §6.2, RFC 5492, RFC 4760, RFC 6793, RFC 6286, RFC 4724).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::SessionConfig;
use crate::wire::{Capability, Codec, ErrorCode, GracefulRestart, Notification, Open};
use crate::{Asn, Family, RouterId};

/// What both sides agreed upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's identifier.
    pub router_id: RouterId,
    /// The peer's AS.
    pub asn: Asn,
    /// The peer is in our AS.
    pub internal: bool,
    /// Families that both sides speak.
    pub families: BTreeSet<Family>,
    /// The smaller of both hold times; zero: no keepalives, no hold timer.
    pub hold_time: Duration,
    /// Both sides speak four-octet AS numbers (RFC 6793); we always do.
    pub four_octet_as: bool,
    /// The peer answers ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// Graceful restart, if both sides speak it.
    pub restart: Option<PeerRestart>,
}

/// What the peer said of graceful restart (RFC 4724 §3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRestart {
    /// It has restarted.
    pub restarting: bool,
    /// Both sides understand RFC 8538.
    pub notification: bool,
    /// How long its routes are to be kept when it is gone.
    pub restart_time: Duration,
    /// Negotiated families that it keeps forwarding over a restart, and whether it did over the last one.
    pub families: BTreeMap<Family, bool>,
}

impl Negotiated {
    /// What the codec must know.
    #[must_use]
    pub fn codec(&self) -> Codec {
        Codec { four_octet_as: self.four_octet_as, internal: self.internal }
    }
}

/// An OPEN that we can't accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// 2/2, Bad Peer AS.
    BadPeerAs,
    /// 2/3, Bad BGP Identifier: zero, ours within our AS, or not the expected one.
    BadIdentifier,
    /// 2/6, Unacceptable Hold Time.
    UnacceptableHoldTime,
    /// 2/7, Unsupported Capability: no family in common; with the capabilities that we need.
    NoCommonFamily(Bytes),
}

impl OpenError {
    /// The answer on the wire.
    #[must_use]
    pub fn notification(&self) -> Notification {
        match self {
            Self::BadPeerAs => ErrorCode::BAD_PEER_AS.into(),
            Self::BadIdentifier => ErrorCode::BAD_BGP_IDENTIFIER.into(),
            Self::UnacceptableHoldTime => ErrorCode::UNACCEPTABLE_HOLD_TIME.into(),
            Self::NoCommonFamily(data) => ErrorCode::UNSUPPORTED_CAPABILITY.with(data.clone()),
        }
    }

    /// The reason as a phrase that lives for ever.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::BadPeerAs => "the peer's AS is not the configured one",
            Self::BadIdentifier => "the peer's BGP identifier is zero, our own, or not the expected one",
            Self::UnacceptableHoldTime => "the peer's hold time is 1 s or 2 s",
            Self::NoCommonFamily(_) => "the peer speaks none of our address families",
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for OpenError {}

/// Our OPEN. `restarting` sets the R bit; `forwarding` the F bits: our routes in the kernel outlive the session.
pub(super) fn our_open(config: &SessionConfig, restarting: bool, forwarding: bool) -> Open {
    let mut capabilities: Vec<_> = config.families.iter().copied().map(Capability::Multiprotocol).collect();
    capabilities.push(Capability::RouteRefresh);
    capabilities.push(Capability::FourOctetAs(config.asn));
    let restart_time_secs = restart_time_secs(config);
    if restart_time_secs > 0 {
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarting,
            notification: true,
            restart_time_secs,
            families: config.families.iter().map(|family| (*family, forwarding)).collect(),
        }));
    }
    Open {
        asn: config.asn,
        hold_time_secs: hold_time_secs(config),
        router_id: config.router_id,
        capabilities,
    }
}

/// Judges the peer's OPEN.
pub(super) fn negotiate(config: &SessionConfig, open: &Open) -> Result<Negotiated, OpenError> {
    if open.asn != config.peer_asn || open.asn.0 == 0 {
        return Err(OpenError::BadPeerAs);
    }
    let internal = config.asn == config.peer_asn;
    // RFC 6286 §2.2: any non-zero number, but not our own from within our AS.
    if open.router_id.0.is_unspecified()
        || (internal && open.router_id == config.router_id)
        || config.peer_router_id.is_some_and(|expected| expected != open.router_id)
    {
        return Err(OpenError::BadIdentifier);
    }
    if matches!(open.hold_time_secs, 1 | 2) {
        return Err(OpenError::UnacceptableHoldTime);
    }
    let families: BTreeSet<_> = families_of(open).intersection(&config.families).copied().collect();
    if families.is_empty() {
        return Err(OpenError::NoCommonFamily(wanted_families(&config.families)));
    }
    let restart = open.capabilities.iter().find_map(|capability| match capability {
        Capability::GracefulRestart(restart) => Some(restart),
        Capability::Multiprotocol(_)
        | Capability::RouteRefresh
        | Capability::FourOctetAs(_)
        | Capability::Unknown { .. } => None,
    });
    Ok(Negotiated {
        router_id: open.router_id,
        asn: open.asn,
        internal,
        hold_time: Duration::from_secs(hold_time_secs(config).min(open.hold_time_secs).into()),
        four_octet_as: speaks_four_octet_as(open),
        route_refresh: open.capabilities.contains(&Capability::RouteRefresh),
        restart: restart.filter(|_| restart_time_secs(config) > 0).map(|restart| PeerRestart {
            restarting: restart.restarting,
            notification: restart.notification,
            restart_time: Duration::from_secs(restart.restart_time_secs.into()),
            families: restart
                .families
                .iter()
                .copied()
                .filter(|(family, _)| families.contains(family))
                .collect(),
        }),
        families,
    })
}

/// Whether the sender of this OPEN speaks four-octet AS numbers (RFC 6793).
pub(crate) fn speaks_four_octet_as(open: &Open) -> bool {
    open.capabilities.iter().any(|capability| matches!(capability, Capability::FourOctetAs(_)))
}

/// RFC 4760 §8: a speaker without any Multiprotocol capability speaks IPv4 unicast alone.
fn families_of(open: &Open) -> BTreeSet<Family> {
    let mut none = true;
    let mut families = BTreeSet::new();
    for capability in &open.capabilities {
        match capability {
            Capability::Multiprotocol(family) => {
                none = false;
                families.insert(*family);
            }
            // Of a family that we don't know.
            Capability::Unknown { code: 1, .. } => none = false,
            Capability::RouteRefresh
            | Capability::GracefulRestart(_)
            | Capability::FourOctetAs(_)
            | Capability::Unknown { .. } => {}
        }
    }
    if none { BTreeSet::from([Family::Ipv4]) } else { families }
}

/// The data of 2/7 (RFC 5492 §5): the capabilities that we need, each as code, length and value.
fn wanted_families(families: &BTreeSet<Family>) -> Bytes {
    let mut data = BytesMut::new();
    for family in families {
        let afi = match family {
            Family::Ipv4 => 1,
            Family::Ipv6 => 2,
        };
        data.put_slice(&[1, 4]);
        data.put_u16(afi);
        data.put_slice(&[0, 1]);
    }
    data.freeze()
}

fn hold_time_secs(config: &SessionConfig) -> u16 {
    match config.hold_time.as_secs() {
        0 if config.hold_time.is_zero() => 0,
        seconds => u16::try_from(seconds.max(3)).unwrap_or(u16::MAX),
    }
}

/// Twelve bits on the wire.
fn restart_time_secs(config: &SessionConfig) -> u16 {
    u16::try_from(config.restart_time.as_secs().min(4095)).unwrap_or(4095)
}
