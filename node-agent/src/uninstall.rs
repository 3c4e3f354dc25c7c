//! `pairway uninstall`: takes away what carries our mark on this node, and what the store knows of it.
//!
//! The store comes first: peers stop sending before the kernel stops forwarding. Each step is done whatever
//! became of the one before, and doing all of it again does no harm.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use vxlan::{Dataplane, State, diff, reconcile};

use crate::api::reply::Uninstalled;
use crate::claims;
use crate::cni;
use crate::node::NodeName;
use crate::originals::{self, Originals};
use crate::store::Store;
use crate::telemetry::chain;

/// How long the store may take for its first answer.
const STORE_WITHIN: Duration = Duration::from_secs(15);

/// The kernel takes things along by itself: what is left after so many rounds stays.
const ROUNDS: usize = 3;

/// What is to be taken away, and from where.
pub struct Uninstall<'a> {
    /// This node.
    pub node: &'a NodeName,
    /// Its state directory, locked by the caller unless this is a rehearsal.
    pub state_dir: &'a Path,
    /// The store; `None`: there is none any more.
    pub store: Option<&'a dyn Store>,
    /// Where files for CNI plugins are.
    pub cni: &'a config::Cni,
    /// The kernel.
    pub dataplane: &'a mut dyn Dataplane,
    /// Only say what would be done.
    pub dry_run: bool,
}

impl Uninstall<'_> {
    /// Does it.
    pub async fn run(mut self) -> Uninstalled {
        let mut outcome = Uninstalled {
            node: self.node.to_string(),
            dry_run: self.dry_run,
            released: Vec::new(),
            record: false,
            kernel: Vec::new(),
            files: Vec::new(),
            state_dir: None,
            failures: Vec::new(),
        };
        self.store(&mut outcome).await;
        // Before the routes go: no pod is to start on a node without them.
        self.files(&mut outcome);
        self.kernel(&mut outcome);
        outcome
    }

    async fn store(&self, outcome: &mut Uninstalled) {
        let Some(store) = self.store else { return };
        if self.dry_run {
            let mut snapshots = store.snapshots();
            let first = snapshots.wait_for(Option::is_some);
            match tokio::time::timeout(STORE_WITHIN, first).await {
                Ok(Ok(snapshot)) => {
                    let blocks = snapshot.as_ref().map(|snapshot| snapshot.blocks_of(self.node));
                    outcome.released = blocks.iter().flatten().map(ToString::to_string).collect();
                    outcome.record =
                        snapshot.as_ref().is_some_and(|snapshot| snapshot.nodes.contains_key(self.node));
                }
                Ok(Err(_)) | Err(_) => outcome.failures.push("the store does not answer".to_owned()),
            }
            return;
        }
        match claims::release_own(store, self.node, self.state_dir, STORE_WITHIN).await {
            Ok(given_back) => {
                outcome.released = given_back.blocks.iter().map(ToString::to_string).collect();
                outcome.record = given_back.record;
            }
            Err(error) => outcome.failures.push(format!("{}: {}", error.message, error.hint)),
        }
    }

    fn files(&self, outcome: &mut Uninstalled) {
        // Where they are asked for, and where they were before that changed.
        let mut places: BTreeSet<_> = cni::places(self.cni).into_iter().collect();
        match cni::remembered(self.state_dir) {
            Ok(remembered) => places.extend(remembered),
            Err(error) => outcome.failures.push(format!(
                "{}: {error}: files for CNI plugins may be left where an earlier configuration had them",
                self.state_dir.join(cni::FILE_NAME).display()
            )),
        }
        for (kind, path) in &places {
            let kind = *kind;
            let removed = if self.dry_run {
                cni::find(kind, path).map(|found| matches!(found, cni::Found::Ours(_)))
            } else {
                cni::withdraw(kind, path)
            };
            match removed {
                Ok(true) => outcome.files.push(path.display().to_string()),
                Ok(false) => (),
                Err(error) => outcome.failures.push(format!("{}: {error}", path.display())),
            }
        }
    }

    fn kernel(&mut self, outcome: &mut Uninstalled) {
        let originals = Originals::load(self.state_dir);
        if let Err(error) = &originals {
            let file = self.state_dir.join(originals::FILE_NAME);
            outcome.failures.push(format!(
                "{}: {error}: rp_filter of the underlay device stays as the agent has set it; set it by hand",
                file.display()
            ));
        }
        for round in 1..=ROUNDS {
            let observed = match self.dataplane.observe(&[]) {
                Ok(observed) => observed,
                Err(error) => {
                    outcome.failures.push(chain(&error));
                    return;
                }
            };
            let rp_filter = originals.as_ref().map(|o| o.to_restore(&observed)).unwrap_or_default();
            let nothing = State { rp_filter, ..State::default() };
            if self.dry_run {
                outcome.kernel = diff(&observed, &nothing).changes.iter().map(ToString::to_string).collect();
                return;
            }
            let report = reconcile(self.dataplane, &observed, &nothing);
            outcome.kernel.extend(report.applied.iter().map(ToString::to_string));
            if report.failures.is_empty() && report.applied.is_empty() {
                return;
            }
            if round == ROUNDS {
                let failures = report.failures.iter();
                outcome
                    .failures
                    .extend(failures.map(|failure| format!("can't {}: {}", failure.change, failure.error)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
