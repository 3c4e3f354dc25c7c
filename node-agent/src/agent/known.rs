//! What the kernel holds after a pass that got all it wanted is known for a moment, and need not be looked at again as
//! long as nobody else changes anything.
//!
//! Where records of thousands of peers change all the time one pass follows the other, and the look at the kernel would be
//! most of what each costs. What a pass has left is taken for what the kernel holds where nothing failed, nothing of
//! others stood in the way, and only such objects were written as change no others; and where the notifications, asked
//! before it is used, tell of nothing since. Any notification, lost ones, a failure, other prefixes to watch, or doubt of
//! another kind lead to a look. One follows in any case, [`TRUSTED`] after the last: what no notification tells is not
//! missed for longer than it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;
use vxlan::{Change, LinkName, ObserveError, Observed, State};

use super::Agent;
use crate::dataplane::Gone;

/// A look at the kernel is good for so long.
const TRUSTED: Duration = Duration::from_secs(2);

/// What the kernel holds.
#[derive(Debug)]
pub(super) struct Known {
    /// What is ours.
    ours: Arc<State>,
    /// `rp_filter` of all devices.
    rp_filter: BTreeMap<LinkName, u8>,
    /// The rest, as it was seen.
    rest: Observed,
    /// The prefixes for which routes of others were looked for.
    watched: Arc<[IpNet]>,
    /// When the kernel was looked at.
    looked: Instant,
}

/// What a pass has done.
#[derive(Debug)]
pub(super) struct Done<'a> {
    /// What was observed, without what is ours.
    pub(super) rest: Observed,
    /// `rp_filter` of all devices, as observed.
    pub(super) rp_filter: BTreeMap<LinkName, u8>,
    /// What it asked for, of which nothing was refused.
    pub(super) asked: &'a Arc<State>,
    /// What stands now.
    pub(super) present: &'a Arc<State>,
    /// The changes.
    pub(super) written: &'a [Change],
}

impl Known {
    /// What is known after a pass that began with a look at this time.
    fn after(done: Done<'_>, watched: Arc<[IpNet]>, looked: Instant) -> Option<Self> {
        let Done { rest, rp_filter, asked, present, written } = done;
        // Where both are equal they are one. Else something of others is in the way.
        let all_stands = Arc::ptr_eq(asked, present);
        (all_stands && written.iter().all(changes_no_other)).then(|| Self {
            ours: Arc::clone(present),
            rp_filter,
            rest,
            watched,
            looked,
        })
    }

    /// Whether it serves a pass that begins now and watches these prefixes.
    fn serves(&self, watched: &[IpNet], now: Instant) -> bool {
        now.saturating_duration_since(self.looked) < TRUSTED && same_networks(&self.watched, watched)
    }

    fn observed(self) -> Observed {
        let ours = State { rp_filter: self.rp_filter, ..State::clone(&self.ours) };
        Observed { ours, ..self.rest }
    }
}

/// Whether two lists of prefixes hold the same networks. Single addresses are those of nodes, which change as nodes come
/// and go: a route of others that takes just one of them is found by the next look.
fn same_networks(one: &Arc<[IpNet]>, other: &[IpNet]) -> bool {
    let networks = |prefix: &&IpNet| prefix.prefix_len() < prefix.max_prefix_len();
    one.iter().filter(networks).eq(other.iter().filter(networks))
}

/// Whether a change does to the kernel what it says and no more. A nexthop object takes its routes along, which is
/// reckoned with.
const fn changes_no_other(change: &Change) -> bool {
    match change {
        Change::SetNeighbor(..)
        | Change::DeleteNeighbor(_)
        | Change::SetFdb(..)
        | Change::DeleteFdb(_)
        | Change::AddNexthop(..)
        | Change::SetNexthop(..)
        | Change::DeleteNexthop(_)
        | Change::AddRoute(..)
        | Change::SetRoute(..)
        | Change::DeleteRoute(_)
        | Change::ChangeSets(_) => true,
        Change::AddLink(..)
        | Change::SetLink(..)
        | Change::DeleteLink(_)
        | Change::SetRpFilter(..)
        | Change::AddAddress(_)
        | Change::DeleteAddress(_)
        | Change::AddRule(_)
        | Change::DeleteRule(_)
        | Change::SetFirewall(_)
        | Change::DeleteFirewall => false,
    }
}

impl Agent {
    /// What the kernel holds: by a look, unless it is known.
    pub(super) async fn look(
        &mut self,
        watched: Arc<[IpNet]>,
        now: Instant,
    ) -> Result<Result<Observed, ObserveError>, Gone> {
        let known = self.state.known.take();
        let quiet = self.nothing_heard();
        if let Some(known) = known.filter(|known| quiet && known.serves(&watched, now)) {
            self.state.wakes.push(known.looked + TRUSTED);
            self.state.looked = Some((known.looked, Arc::clone(&known.watched)));
            return Ok(Ok(known.observed()));
        }
        self.state.looked = Some((now, Arc::clone(&watched)));
        self.dataplane.observe(watched).await
    }

    /// Whether the notifications tell of nothing that this pass has not been woken for. What they tell is served by it.
    fn nothing_heard(&mut self) -> bool {
        if self.state.deaf.is_some() {
            return false;
        }
        let heard = self.kernel_events.hear();
        let _ = self.kernel_events.lost();
        match heard {
            Ok(heard) => !heard,
            Err(error) => {
                self.deafen(&error);
                false
            }
        }
    }

    /// Takes note of a pass of which nothing has failed.
    pub(super) fn know(&mut self, done: Done<'_>) {
        // What others do while nobody listens is not known.
        let looked = self.state.looked.take().filter(|_| self.state.deaf.is_none());
        self.state.known = looked.and_then(|(looked, watched)| Known::after(done, watched, looked));
    }
}

#[cfg(test)]
mod tests;
