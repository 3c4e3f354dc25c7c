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

    /// Publishes what is due. The status never runs ahead of the routes: whoever reads first the status and then the
    /// routes sees at least the routes that an End-of-RIB in the status speaks of.
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
        if !self.routes_changed && self.status_deadline().is_none_or(|at| at <= now) {
            self.status.send_replace(Arc::new(status()));
            self.status_changed = false;
            self.status_after = Some(now + STATUS_PAUSE);
        }
    }

    /// When there is something to publish.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.routes_changed { self.routes_after } else { self.status_deadline() }
    }

    fn status_deadline(&self) -> Option<Instant> {
        let after = self.status_after?;
        Some(if self.status_changed { after } else { after + STATUS_PERIOD - STATUS_PAUSE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_status_waits_for_the_routes() {
        let (routes, seen_routes) = watch::channel(Arc::default());
        let (status, mut seen_status) = watch::channel(Arc::default());
        let mut publisher = Publisher::new(routes, status);
        let mut table = Routes::default();
        for last in 0..100_u8 {
            let prefix = std::net::Ipv4Addr::new(10, 244, last, 0);
            table.routes.insert(ipnet::Ipv4Net::new_assert(prefix, 24).into(), Vec::new());
        }
        let start = Instant::now();
        publisher.routes_changed();
        publisher.publish(start, || Arc::new(table.clone()), SpeakerStatus::default);
        assert_eq!(seen_routes.borrow().routes.len(), 100);
        seen_status.mark_unchanged();
        // More routes, and an End-of-RIB with them, while the pause after the first still lasts.
        let soon = start + STATUS_PAUSE;
        publisher.routes_after = Some(soon + Duration::from_millis(1));
        publisher.routes_changed();
        publisher.status_changed();
        publisher.publish(soon, || unreachable!("not due"), SpeakerStatus::default);
        assert!(!seen_status.has_changed().unwrap());
        let due = publisher.deadline().unwrap();
        assert!(due > soon);
        publisher.publish(due, || Arc::new(Routes::default()), SpeakerStatus::default);
        assert!(seen_routes.borrow().routes.is_empty() && seen_status.has_changed().unwrap());
    }
}
