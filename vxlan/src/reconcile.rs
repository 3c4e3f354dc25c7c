//! Observe, diff, apply.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use ipnet::IpNet;

use crate::diff::{Change, Conflict, Ground, diff_of_normal, normal, removals};
use crate::standing::standing;
use crate::state::{IpTunnel, Observed, RouteKey, State};

/// A kernel, real or fake. Calls block: the agent runs them on a thread of their own, because a single send
/// can take a second where there are many routes.
pub trait Dataplane: Send {
    /// A complete look at the kernel. `watched` are prefixes (pools and blocks) for which routes of others matter.
    ///
    /// # Errors
    /// The kernel refused a dump, or it was interrupted (`NLM_F_DUMP_INTR`) more often than we retry.
    fn observe(&mut self, watched: &[IpNet]) -> Result<Observed, ObserveError>;

    /// Which of these kinds of IP tunnel there can be: those that the kernel has, or gets from a module that it loads when
    /// asked. Loading one makes its fallback device (`tunl0`, `sit0`), so ask only for what is to be used.
    ///
    /// # Errors
    /// The kernel did not tell: what it lacks is no error.
    fn ip_tunnels(&mut self, asked: &BTreeSet<IpTunnel>) -> Result<BTreeSet<IpTunnel>, ObserveError>;

    /// Applies changes in order, going on after a failure.
    fn apply(&mut self, changes: &[Change]) -> Refused;
}

/// A look at the kernel that failed.
#[derive(Debug, thiserror::Error)]
#[error("can't read {what} from the kernel")]
pub struct ObserveError {
    /// Which dump.
    pub what: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// A change that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (errno {errno})")]
pub struct ApplyError {
    /// The kernel's error number, positive.
    pub errno: i32,
    /// The kernel's extended-ack text if it sent one, else the text of the error number.
    pub message: String,
}

/// What was refused of a list of changes, by its position in the list. Of a million changes few are.
pub type Refused = BTreeMap<usize, ApplyError>;

/// A change that failed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The change.
    pub change: Change,
    /// The kernel's answer.
    pub error: ApplyError,
}

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Report {
    /// Changes that the kernel accepted, in order.
    pub applied: Vec<Change>,
    /// Changes that it refused.
    pub failures: Vec<Failure>,
    /// Foreign objects in our way.
    pub conflicts: Vec<Conflict>,
    /// See [`crate::Diff::diverted`].
    pub diverted: BTreeMap<RouteKey, String>,
}

/// Applies what differs between `observed` and `wanted`.
///
/// In stages, each of which stands on those before. Where something fails, what leans on it waits, and what still stands in
/// for it is not removed: a fault makes nothing worse than it was.
pub fn reconcile(dataplane: &mut dyn Dataplane, observed: &Observed, wanted: &State) -> Report {
    let wanted = normal(wanted);
    let diff = diff_of_normal(observed, &wanted);
    let stages = diff.stages();
    let mut report = Report { conflicts: diff.conflicts, diverted: diff.diverted, ..Report::default() };
    // A million changes are not copied: they are sent from where they are, and are the report if nothing fails.
    let mut changes = diff.changes;
    for (number, stage) in stages.iter().enumerate() {
        let refused = apply(dataplane, &changes[stage.clone()]);
        if !refused.is_empty() {
            let mut rest = changes.split_off(stage.end).into_iter();
            let troubled = changes.split_off(stage.start);
            report.applied = changes;
            report.note(troubled, refused);
            for (number, stage) in stages.iter().enumerate().skip(number + 1) {
                let stage = rest.by_ref().take(stage.len()).collect();
                let last = number + 1 == stages.len();
                let stage = report.what_still_can_be(stage, last, observed, &wanted);
                let refused = apply(dataplane, &stage);
                report.note(stage, refused);
            }
            return report;
        }
    }
    report.applied = changes;
    report
}

fn apply(dataplane: &mut dyn Dataplane, changes: &[Change]) -> Refused {
    if changes.is_empty() { Refused::new() } else { dataplane.apply(changes) }
}

impl Report {
    /// What of a stage can be done though something before it has failed.
    fn what_still_can_be(
        &self,
        mut stage: Vec<Change>,
        last: bool,
        observed: &Observed,
        wanted: &State,
    ) -> Vec<Change> {
        let standing = standing(observed.ours.clone(), &observed.interfaces, &self.applied);
        if last {
            return removals(observed, &standing, wanted);
        }
        let ground = Ground::new(&standing, wanted);
        stage.retain(|change| ground.bears(change));
        stage
    }

    fn note(&mut self, changes: Vec<Change>, mut refused: Refused) {
        for (position, change) in changes.into_iter().enumerate() {
            match refused.remove(&position) {
                None => self.applied.push(change),
                Some(error) => self.failures.push(Failure { change, error }),
            }
        }
    }
}

#[cfg(test)]
mod tests;
