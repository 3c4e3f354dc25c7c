//! Why a connection or a session ended, and what follows from it.

use std::fmt;

use super::negotiate::Negotiated;
use crate::wire::{ErrorCode, Notification};

/// Why a connection or a session ended; displays as a phrase for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// We were told to stop.
    Stopped,
    /// Our own parameters of the session changed.
    Reconfigured,
    /// Closed or reset, by the peer or by the network.
    ConnectionLost,
    /// A new connection of the restarted peer took its place (RFC 4724 §4.2).
    Replaced,
    /// Event 10.
    HoldTimerExpired,
    /// The peer took nothing from us for too long (RFC 9687).
    SendHoldTimerExpired,
    /// The peer ended it.
    NotificationReceived(Notification),
    /// We ended it because of what the peer sent, with the reason for people.
    NotificationSent(Notification, &'static str),
}

impl Reason {
    /// Whether the session rests in Idle before the next attempt (RFC 4271 §8.1, DampPeerOscillations): only after
    /// protocol errors, which would come again at once.
    pub(super) fn damped(&self) -> bool {
        match self {
            Self::NotificationSent(n, _) => {
                let within = n.hard_reset_reason();
                !is_cease(n) || within.as_ref().unwrap_or(n).error() == ErrorCode::MAXIMUM_PREFIXES
            }
            Self::NotificationReceived(n) => {
                !is_cease(n)
                    && !matches!(
                        n.error(),
                        ErrorCode::HOLD_TIMER_EXPIRED | ErrorCode::SEND_HOLD_TIMER_EXPIRED
                    )
            }
            Self::Stopped
            | Self::Reconfigured
            | Self::ConnectionLost
            | Self::Replaced
            | Self::HoldTimerExpired
            | Self::SendHoldTimerExpired => false,
        }
    }

    /// Whether the peer's routes are kept over it (RFC 4724 §4.2, RFC 8538 §3), given the N bit of both sides.
    ///
    /// Deviates from RFC 8538 §4: an expired hold timer keeps nothing, ours or the peer's. Nothing was heard for the
    /// whole hold time, which says that the path between the two is gone; a speaker that restarts closes its
    /// connection. Whoever has another path should take it now, not after the restart time.
    pub(super) fn graceful(&self, notification_bit: bool) -> bool {
        match self {
            Self::ConnectionLost | Self::Replaced => true,
            Self::Reconfigured => notification_bit,
            Self::NotificationReceived(n) | Self::NotificationSent(n, _) => {
                let lost = [
                    ErrorCode::HARD_RESET,
                    ErrorCode::HOLD_TIMER_EXPIRED,
                    ErrorCode::SEND_HOLD_TIMER_EXPIRED,
                ];
                notification_bit && !lost.contains(&n.error())
            }
            Self::Stopped | Self::HoldTimerExpired | Self::SendHoldTimerExpired => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Reconfigured => f.write_str("session parameters changed"),
            Self::ConnectionLost => f.write_str("connection closed"),
            Self::Replaced => f.write_str("replaced by a new connection of the restarted peer"),
            Self::HoldTimerExpired => f.write_str("hold timer expired"),
            Self::SendHoldTimerExpired => f.write_str("send hold timer expired"),
            Self::NotificationReceived(n) => write!(f, "NOTIFICATION received: {n}"),
            Self::NotificationSent(n, why) => write!(f, "NOTIFICATION sent: {n}: {why}"),
        }
    }
}

/// Cease with this subcode (RFC 4486) and no data.
pub(super) fn cease(subcode: u8) -> Notification {
    ErrorCode { subcode, ..ErrorCode::CEASE }.into()
}

/// Wraps a Cease into a Hard Reset where the peer would otherwise keep our routes (RFC 8538 §3.1): whoever says
/// Cease wants them gone, except when the session comes back at once.
pub(super) fn hard(notification: Notification, negotiated: &Negotiated) -> Notification {
    let understood = negotiated.restart.as_ref().is_some_and(|restart| restart.notification);
    let comes_back = matches!(
        notification.error(),
        ErrorCode::ADMINISTRATIVE_RESET | ErrorCode::OTHER_CONFIGURATION_CHANGE | ErrorCode::HARD_RESET
    );
    if is_cease(&notification) && understood && !comes_back {
        notification.into_hard_reset()
    } else {
        notification
    }
}

fn is_cease(notification: &Notification) -> bool {
    notification.code == ErrorCode::CEASE.code
}
