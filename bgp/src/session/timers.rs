//! The timer table (RFC 4271 §10, RFC 9687) and jitter.
//!
//! | timer | RFC default | here |
//! |---|---|---|
//! | ConnectRetryTimer | 120 s | in Connect [`CONNECT_TIMEOUT`]; in Active [`RETRY_MIN`] to [`RETRY_MAX`], doubling |
//! | IdleHoldTimer | not given | [`RETRY_MIN`] to [`RETRY_MAX`], doubling |
//! | HoldTimer | 90 s; 4 min before the OPEN | as negotiated; [`OPEN_HOLD_TIME`] before |
//! | KeepaliveTimer | hold time / 3 | the same, with jitter |
//! | SendHoldTimer | max(8 min, 2 x hold time) | the same |
//! | restart timer (RFC 4724) | as the peer says | the same, and once more until its End-of-RIB |
//!
//! MinRouteAdvertisementInterval and MinASOriginationInterval are 0: changes are coalesced per batch, and a node's
//! routes should move at once.

use std::time::Duration;

use fastrand::Rng;

/// How long a connection attempt may take before a fresh one replaces it; a lost SYN is not waited for longer.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause before another attempt. RFC 4271 suggests 120 s, which is too long for nodes that boot together.
pub const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest pause before another attempt.
pub const RETRY_MAX: Duration = Duration::from_secs(30);
/// HoldTimer from the connection to the peer's OPEN (RFC 4271 §8.2.2: a large value, 4 minutes).
pub const OPEN_HOLD_TIME: Duration = Duration::from_secs(240);
/// An established session younger than this is not replaced by a new connection of a peer with graceful restart:
/// that connection is the late half of a collision, not a restart.
pub const COLLISION_WINDOW: Duration = Duration::from_secs(3);
/// Smallest SendHoldTimer (RFC 9687 §4).
const SEND_HOLD_MIN: Duration = Duration::from_secs(8 * 60);

/// RFC 4271 §10: a factor between 0.75 and 1.0, so that timers of many peers don't fall into step.
pub(super) fn jitter(duration: Duration, rng: &mut Rng) -> Duration {
    duration.mul_f64(0.75 + 0.25 * rng.f64())
}

/// The pause before attempt number `attempts` + 1; `attempts` is at least 1.
pub(super) fn backoff(attempts: u32, rng: &mut Rng) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    jitter(RETRY_MIN.saturating_mul(1 << doublings).min(RETRY_MAX), rng)
}

/// KeepaliveTimer for a hold time (RFC 4271 §4.4: a third, never more often than once a second).
pub(super) fn keepalive(hold_time: Duration, rng: &mut Rng) -> Duration {
    jitter((hold_time / 3).max(Duration::from_secs(1)), rng)
}

/// SendHoldTimer for a hold time (RFC 9687 §4).
pub(super) fn send_hold(hold_time: Duration) -> Duration {
    (hold_time * 2).max(SEND_HOLD_MIN)
}
