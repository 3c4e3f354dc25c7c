//! Two connections with one peer (RFC 4271 §6.8, RFC 6286 §2.3, RFC 4724 §4.2).

use std::time::Instant;

use super::SessionConfig;
use super::state::{Link, Origin};
use super::timers::COLLISION_WINDOW;
use crate::{Asn, RouterId};

/// Which connection stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is too early to say.
    Both,
    /// The one that just got its OPEN.
    New,
    /// The other.
    Old,
    /// The new one; the old, established one is what the peer left behind when it restarted.
    Restarted,
}

/// `new` has just got its OPEN, `old` is the other connection.
pub(super) fn resolve(config: &SessionConfig, old: &Link, new: &Link, now: Instant) -> Verdict {
    let Some(peer) = new.peer_router_id() else { return Verdict::Both };
    match old {
        // Deviates from RFC 4271 §6.8 (may examine OpenSent if the identifier is known by other means): the
        // question comes up again when that connection gets its OPEN.
        Link::OpenSent(_) => Verdict::Both,
        Link::OpenConfirm(_) => {
            if new.origin() == old.origin() {
                return Verdict::New;
            }
            let keep = keep((config.router_id, config.asn), (peer, config.peer_asn));
            if new.origin() == keep { Verdict::New } else { Verdict::Old }
        }
        Link::Established(established) => {
            // An established connection is never dropped for a collision, but with graceful restart a new one
            // means that the peer has restarted and that TCP has not noticed yet. Deviates from RFC 4724 §4.2 in
            // waiting for a valid OPEN: a bare connection does not prove a BGP speaker.
            let helper = established.negotiated.restart.as_ref().is_some_and(|r| !r.families.is_empty());
            let aged = now.saturating_duration_since(established.since) >= COLLISION_WINDOW;
            if helper && aged && new.origin() == Origin::Theirs { Verdict::Restarted } else { Verdict::Old }
        }
    }
}

/// RFC 4271 §6.8: the connection that the higher identifier opened stays; RFC 6286 §2.3: between equal
/// identifiers (of different AS) the higher AS decides.
fn keep(ours: (RouterId, Asn), theirs: (RouterId, Asn)) -> Origin {
    let number = |(id, asn): (RouterId, Asn)| (u32::from(id.0), asn);
    if number(ours) < number(theirs) { Origin::Theirs } else { Origin::Ours }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_higher_identifier_keeps_its_connection_and_both_ends_agree() {
        let id = |n: u32| RouterId(Ipv4Addr::from(n));
        for (a, b) in [
            ((id(1), Asn(1)), (id(2), Asn(1))),
            ((id(0x0a00_0001), Asn(9)), (id(0x0900_0002), Asn(1))),
            // As numbers, not as text or by their last octet.
            ((id(0x0a00_00ff), Asn(1)), (id(0x0a00_0100), Asn(1))),
            // RFC 6286: the same identifier in two AS.
            ((id(7), Asn(64512)), (id(7), Asn(4_200_000_000))),
        ] {
            let (of_a, of_b) = (keep(a, b), keep(b, a));
            assert_ne!(of_a, of_b, "both ends keep the same connection: {a:?} {b:?}");
            let a_is_higher = (u32::from(a.0.0), a.1.0) > (u32::from(b.0.0), b.1.0);
            assert_eq!(of_a == Origin::Ours, a_is_higher);
        }
    }
}
