//! Whether the loop is alive: it promises when it will be heard of next, and `/livez` looks whether it kept that.
//!
//! A promise instead of "a pass in the last minute": an agent that waits for its store for an hour is alive as
//! long as it says so, and one that hangs in a pass is not, whatever its period is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The loop's promise; clones share it.
#[derive(Debug, Clone)]
pub struct Liveness {
    epoch: Instant,
    /// Milliseconds after `epoch` until which the promise holds.
    until: Arc<AtomicU64>,
}

impl Liveness {
    /// Begins with the promise to be heard of within `first`.
    #[must_use]
    pub fn new(first: Duration) -> Self {
        let liveness = Self { epoch: Instant::now(), until: Arc::default() };
        liveness.promise(first);
        liveness
    }

    /// To be called again within this time; each call replaces the promise before.
    pub fn promise(&self, within: Duration) {
        let until = self.epoch.elapsed().saturating_add(within);
        self.until.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long the promise has been broken; `None` while it is kept.
    #[must_use]
    pub fn overdue(&self) -> Option<Duration> {
        let until = Duration::from_millis(self.until.load(Ordering::Relaxed));
        self.epoch.elapsed().checked_sub(until).filter(|late| !late.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn alive_until_the_promise_is_broken_and_again_after_the_next() {
        let liveness = Liveness::new(Duration::from_secs(10));
        let seen_by_http = liveness.clone();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(seen_by_http.overdue(), None);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(seen_by_http.overdue(), Some(Duration::from_secs(3)));
        liveness.promise(Duration::from_secs(1));
        assert_eq!(seen_by_http.overdue(), None);
        liveness.promise(Duration::MAX);
        assert_eq!(seen_by_http.overdue(), None, "an endless promise does not overflow");
    }
}
