//! What the speaker shows: whole values in watch channels, not more often than they are worth.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Routes, SpeakerStatus};

/// Counters are never older than this.
const STATUS_PERIOD: Duration = Duration::from_secs(1);
/// A state change is shown at once, but many at a time make one value.
const STATUS_PAUSE: Duration = Duration::from_millis(10);
/// Pause between two values of the routes, per route: a value is a copy of the table, so this bounds the share of
/// time that goes into copies. A node's routes are hundreds, and the pause is less than a millisecond.
const ROUTES_PAUSE_PER_ROUTE: Duration = Duration::from_micros(1);

/// Decides when a new value is due, and publishes it.
#[derive(Debug)]
pub(super) struct Publisher {
    routes: watch::Sender<Arc<Routes>>,
    status: watch::Sender<Arc<SpeakerStatus>>,
    routes_after: Option<Instant>,
    routes_changed: bool,
    status_after: Option<Instant>,
    status_changed: bool,
}

impl Publisher {
    pub(super) fn new(routes: watch::Sender<Arc<Routes>>, status: watch::Sender<Arc<SpeakerStatus>>) -> Self {
        Self {
            routes,
            status,
            routes_after: None,
            routes_changed: false,
            status_after: None,
            status_changed: true,
        }
    }

    /// The routes are not what they were.
    pub(super) fn routes_changed(&mut self) {
        self.routes_changed = true;
    }

    /// The status changed in more than its counters.
    pub(super) fn status_changed(&mut self) {
        self.status_changed = true;
    }

    /// Publishes what is due.
    pub(super) fn publish(
        &mut self,
        now: Instant,
        routes: impl FnOnce() -> Arc<Routes>,
        status: impl FnOnce() -> SpeakerStatus,
    ) {
        let due = |after: Option<Instant>| after.is_none_or(|after| after <= now);
        if self.routes_changed && due(self.routes_after) {
            let routes = routes();
            let pause = ROUTES_PAUSE_PER_ROUTE * u32::try_from(routes.routes.len()).unwrap_or(u32::MAX);
            self.routes.send_replace(routes);
            self.routes_changed = false;
            self.routes_after = Some(now + pause);
        }
        if self.status_deadline().is_none_or(|at| at <= now) {
            self.status.send_replace(Arc::new(status()));
            self.status_changed = false;
            self.status_after = Some(now + STATUS_PAUSE);
        }
    }

    /// When there is something to publish.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let routes = if self.routes_changed { self.routes_after } else { None };
        [routes, self.status_deadline()].into_iter().flatten().min()
    }

    fn status_deadline(&self) -> Option<Instant> {
        let after = self.status_after?;
        Some(if self.status_changed { after } else { after + STATUS_PERIOD - STATUS_PAUSE })
    }
}
