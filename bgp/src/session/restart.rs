//! Graceful restart, the helper's side (RFC 4724 §4.2, RFC 8538): what is kept, and for how long.

use std::collections::BTreeSet;
use std::time::Instant;

use super::negotiate::Negotiated;
use super::reason::Reason;
use crate::Family;

/// Families whose routes are kept while the peer is away or has not sent its End-of-RIB yet.
#[derive(Debug, Default)]
pub(super) struct Helper {
    stale: BTreeSet<Family>,
    deadline: Option<Instant>,
}

impl Helper {
    pub(super) fn stale(&self) -> &BTreeSet<Family> {
        &self.stale
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The session went down: which families are kept. What was stale before is not kept a second time; the
    /// driver deletes it before it marks the rest.
    pub(super) fn lost(
        &mut self,
        negotiated: &Negotiated,
        reason: &Reason,
        now: Instant,
    ) -> BTreeSet<Family> {
        self.clear();
        if let Some(restart) = &negotiated.restart
            && !restart.restart_time.is_zero()
            && reason.graceful(restart.notification)
        {
            self.stale = restart.families.keys().copied().collect();
            self.deadline = (!self.stale.is_empty()).then(|| now + restart.restart_time);
        }
        self.stale.clone()
    }

    /// The session is back: which families are not kept any longer, because the peer lost their forwarding state
    /// or does not speak of them (RFC 4724 §4.2). For the rest the timer starts again, as the bound on the wait
    /// for End-of-RIB.
    pub(super) fn up(&mut self, negotiated: &Negotiated, now: Instant) -> BTreeSet<Family> {
        let (kept, swept) = std::mem::take(&mut self.stale).into_iter().partition(|family| {
            negotiated.restart.as_ref().is_some_and(|restart| restart.families.get(family) == Some(&true))
        });
        self.stale = kept;
        self.deadline = match &negotiated.restart {
            Some(restart) if !self.stale.is_empty() => Some(now + restart.restart_time),
            Some(_) | None => None,
        };
        swept
    }

    /// End-of-RIB: whether stale routes of the family are to be swept.
    pub(super) fn end_of_rib(&mut self, family: Family) -> bool {
        let was_stale = self.stale.remove(&family);
        if self.stale.is_empty() {
            self.deadline = None;
        }
        was_stale
    }

    /// The families whose time is over.
    pub(super) fn timeout(&mut self, now: Instant) -> BTreeSet<Family> {
        if self.deadline.is_some_and(|deadline| deadline <= now) { self.clear() } else { BTreeSet::new() }
    }

    /// Keeps nothing any longer; what was kept.
    pub(super) fn clear(&mut self) -> BTreeSet<Family> {
        self.deadline = None;
        std::mem::take(&mut self.stale)
    }
}
