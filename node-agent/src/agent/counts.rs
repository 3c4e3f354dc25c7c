//! What a pass adds to the counters.

use vxlan::Report;

use super::{Agent, present};
use crate::plan::Plan;

impl Agent {
    /// Counts and logs the pairs whose path changes.
    pub(super) fn count_flips(&mut self, plan: &Plan) {
        for pair in &plan.pairs {
            let before = self.state.memory.get(&(pair.peer.clone(), pair.family)).map(|memory| memory.path);
            let (path, reason) = (pair.decision.path, pair.decision.reason);
            match before {
                Some(before) if before != path => {
                    tracing::info!(peer = %pair.peer, family = %pair.family, from = %before, to = %path, %reason, "path changes: {}", pair.decision.detail);
                    let key = (before.to_string(), path.to_string(), reason.to_string());
                    *self.state.counters.flips.entry(key).or_default() += 1;
                }
                Some(_) => (),
                None => {
                    tracing::debug!(peer = %pair.peer, family = %pair.family, %path, %reason, "pair: {}", pair.decision.detail);
                }
            }
        }
    }

    /// Counts what the kernel accepted and refused.
    pub(super) fn count_changes(&mut self, report: &Report, plan: &Plan) {
        let counters = &mut self.state.counters;
        for change in &report.applied {
            let (object, operation) = present::kind(change);
            tracing::debug!(?change, "kernel changed");
            *counters.changes.entry((object.to_owned(), operation.to_owned())).or_default() += 1;
        }
        for failure in &report.failures {
            let (object, _) = present::kind(&failure.change);
            *counters.change_failures.entry(object.to_owned()).or_default() += 1;
        }
        counters.objects_wanted = present::counts(&plan.dataplane)
            .into_iter()
            .map(|(kind, count)| (kind.to_owned(), u64::try_from(count).unwrap_or(u64::MAX)))
            .collect();
        counters.conflicts = u64::try_from(report.conflicts.len()).unwrap_or(u64::MAX);
    }
}
