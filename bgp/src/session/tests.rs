//! A complete transition table, a simulated network between two sessions, and properties of random histories.

mod pair;
mod properties;
mod simulation;
mod table;

use std::net::Ipv4Addr;
use std::time::Duration;

use super::reason::cease;
use super::*;
use crate::wire::{Capability, ErrorCode, GracefulRestart, Open};

pub(super) const OURS: Asn = Asn(64512);
pub(super) const THEIRS: Asn = Asn(4_200_000_001);

pub(super) fn router_id(last: u8) -> RouterId {
    RouterId(Ipv4Addr::new(192, 0, 2, last))
}

pub(super) fn config(role: Role) -> SessionConfig {
    SessionConfig {
        asn: OURS,
        router_id: router_id(1),
        peer_asn: THEIRS,
        peer_router_id: None,
        hold_time: Duration::from_secs(9),
        restart_time: Duration::from_secs(120),
        families: Family::ALL.into(),
        role,
    }
}

/// The other end of [`config`].
pub(super) fn mirrored(role: Role) -> SessionConfig {
    SessionConfig { asn: THEIRS, router_id: router_id(2), peer_asn: OURS, ..config(role) }
}

/// What the peer of [`config`] says.
pub(super) fn peer_open() -> Open {
    negotiate::our_open(&mirrored(Role::Accept), false, true)
}

/// Any instant: only differences matter.
#[expect(clippy::disallowed_methods, reason = "a virtual clock must start somewhere")]
pub(super) fn start() -> Instant {
    Instant::now()
}

/// A NOTIFICATION without data.
pub(super) fn notification(code: u8, subcode: u8) -> Notification {
    ErrorCode { code, subcode }.into()
}

pub(super) fn drain(session: &mut Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll_output()).collect()
}

mod open {
    use super::*;

    fn judge(change: impl FnOnce(&mut SessionConfig, &mut Open)) -> Result<Negotiated, OpenError> {
        let (mut config, mut open) = (config(Role::Dial), peer_open());
        change(&mut config, &mut open);
        negotiate::negotiate(&config, &open)
    }

    fn code(result: Result<Negotiated, OpenError>) -> Option<(u8, u8, Vec<u8>)> {
        result.err().map(|error| {
            let notification = error.notification();
            (notification.code, notification.subcode, notification.data.to_vec())
        })
    }

    #[test]
    fn a_plain_open_is_accepted() {
        let negotiated = judge(|_, _| {}).unwrap();
        assert_eq!(negotiated.families, Family::ALL.into());
        assert_eq!(negotiated.hold_time, Duration::from_secs(9));
        assert!(negotiated.four_octet_as && negotiated.route_refresh && !negotiated.internal);
        let restart = negotiated.restart.unwrap();
        assert!(restart.notification && !restart.restarting);
        assert_eq!(restart.restart_time, Duration::from_secs(120));
    }

    #[test]
    fn errors_have_their_notification() {
        assert_eq!(code(judge(|_, open| open.asn = Asn(1))), Some((2, 2, vec![])));
        // RFC 7607, even if someone configured it.
        let zero = judge(|config, open| (config.peer_asn, open.asn) = (Asn(0), Asn(0)));
        assert_eq!(code(zero), Some((2, 2, vec![])));
        let unspecified = RouterId(Ipv4Addr::UNSPECIFIED);
        assert_eq!(code(judge(|_, open| open.router_id = unspecified)), Some((2, 3, vec![])));
        assert_eq!(code(judge(|config, _| config.peer_router_id = Some(router_id(9)))), Some((2, 3, vec![])));
        for seconds in [1, 2] {
            assert_eq!(code(judge(|_, open| open.hold_time_secs = seconds)), Some((2, 6, vec![])));
        }
        assert_eq!(
            code(judge(|config, open| {
                config.families = [Family::Ipv6].into();
                open.capabilities.retain(|c| *c != Capability::Multiprotocol(Family::Ipv6));
            })),
            Some((2, 7, vec![1, 4, 0, 2, 0, 1]))
        );
    }

    #[test]
    fn our_own_identifier_is_refused_only_within_our_as() {
        // RFC 6286 §2.2.
        let ours = router_id(1);
        assert!(judge(|_, open| open.router_id = ours).is_ok());
        let internal = judge(|config, open| {
            (config.peer_asn, open.asn, open.router_id) = (OURS, OURS, ours);
        });
        assert_eq!(code(internal), Some((2, 3, vec![])));
    }

    #[test]
    fn the_smaller_hold_time_counts_and_zero_is_the_smallest() {
        for (ours, theirs, agreed) in [(9, 90, 9), (90, 9, 9), (0, 90, 0), (90, 0, 0), (2, 90, 3)] {
            let negotiated = judge(|config, open| {
                config.hold_time = Duration::from_secs(ours);
                open.hold_time_secs = theirs;
            })
            .unwrap();
            assert_eq!(negotiated.hold_time, Duration::from_secs(agreed), "{ours} {theirs}");
        }
    }

    #[test]
    fn a_speaker_without_capabilities_speaks_ipv4() {
        let negotiated = judge(|_, open| open.capabilities.clear()).unwrap();
        assert_eq!(negotiated.families, [Family::Ipv4].into());
        assert!(!negotiated.four_octet_as && !negotiated.route_refresh);
        assert_eq!(negotiated.restart, None);
        // But one that names only families that we don't know has none in common.
        let unknown = Capability::Unknown { code: 1, value: bytes::Bytes::from_static(&[0, 25, 0, 70]) };
        assert!(judge(|_, open| open.capabilities = vec![unknown]).is_err());
    }

    #[test]
    fn graceful_restart_needs_both_sides_and_covers_negotiated_families_only() {
        assert_eq!(judge(|config, _| config.restart_time = Duration::ZERO).unwrap().restart, None);
        let restart = judge(|config, open| {
            config.families = [Family::Ipv4].into();
            open.capabilities = vec![
                Capability::Multiprotocol(Family::Ipv4),
                Capability::GracefulRestart(GracefulRestart {
                    restarting: true,
                    notification: false,
                    restart_time_secs: 7,
                    families: vec![(Family::Ipv4, true), (Family::Ipv6, true)],
                }),
            ];
        })
        .unwrap()
        .restart
        .unwrap();
        assert!(restart.restarting && !restart.notification);
        assert_eq!(restart.families, [(Family::Ipv4, true)].into());
    }
}
