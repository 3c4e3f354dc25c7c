//! Keeps this node's record in the store as it should be, and notices another agent that does the same under
//! the same name.

use jiff::{SignedDuration, Timestamp};

use super::Condition;
use super::commands::node_record;
use crate::node::{NodeRecord, Snapshot};
use crate::store::Store;

/// A snapshot that lags shows the old record this long before it is written again.
const LAG: SignedDuration = SignedDuration::from_secs(5);

/// Two agents of one name overwrite each other no more often than this.
const OVERWRITE_PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// They are reported for this long after the last time.
const OVERWRITE_MEMORY: SignedDuration = SignedDuration::from_secs(60);

/// What became of our record.
#[derive(Debug, Default)]
pub(super) struct OwnRecord {
    published: Option<(NodeRecord, Timestamp)>,
    /// A snapshot has shown it since.
    shown: bool,
    overwritten: Option<(u32, Timestamp)>,
    failure: Option<String>,
}

impl OwnRecord {
    /// Publishes the record if the store does not show it; `false` if that failed.
    pub(super) async fn keep(
        &mut self,
        store: &dyn Store,
        record: &NodeRecord,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> bool {
        if !self.is_due(record, snapshot, now) {
            return true;
        }
        match store.publish(record).await {
            Ok(()) => {
                self.published = Some((record.clone(), now));
                self.shown = false;
                self.failure = None;
                true
            }
            Err(error) => {
                self.failure = Some(format!("{error}: {}", error.source));
                false
            }
        }
    }

    fn is_due(&mut self, record: &NodeRecord, snapshot: &Snapshot, now: Timestamp) -> bool {
        let shown = snapshot.nodes.get(&record.name);
        let is_damaged = snapshot.problems.contains_key(&node_record(&record.name));
        let since_published = match &self.published {
            Some((published, at)) if published == record => Some(now.duration_since(*at)),
            Some(_) | None => None,
        };
        if shown.is_some_and(|shown| says_the_same(shown, record)) && !is_damaged {
            self.shown = true;
            return false;
        }
        let Some(since_published) = since_published else { return true };
        if !self.shown {
            return since_published >= LAG;
        }
        if shown.is_none() {
            // The store was lost: at once.
            return true;
        }
        // It was there, and now it is another: somebody wrote it, or a backup was restored.
        if since_published < OVERWRITE_PAUSE {
            return false;
        }
        if !is_damaged {
            let times = match self.overwritten {
                Some((times, last)) if now.duration_since(last) < OVERWRITE_MEMORY => times + 1,
                Some(_) | None => 1,
            };
            self.overwritten = Some((times, now));
        }
        true
    }

    pub(super) fn conditions(&self, record: &NodeRecord, now: Timestamp) -> Vec<Condition> {
        let mut conditions = Vec::new();
        if let Some(failure) = &self.failure {
            conditions.push(Condition {
                kind: "RecordNotPublished",
                subject: record.name.to_string(),
                message: format!("other nodes don't learn of changes of this node: {failure}"),
            });
        }
        if let Some((times, last)) = self.overwritten
            && times >= 2
            && now.duration_since(last) < OVERWRITE_MEMORY
        {
            conditions.push(Condition {
                kind: "NodeNameTaken",
                subject: record.name.to_string(),
                message: format!(
                    "another agent runs under the name {} and overwrites its record; give one of them another node.name",
                    record.name
                ),
            });
        }
        conditions
    }
}

/// Unknown fields are not ours to compare.
fn says_the_same(shown: &NodeRecord, record: &NodeRecord) -> bool {
    let bare =
        |record: &NodeRecord| NodeRecord { unknown: std::collections::BTreeMap::new(), ..record.clone() };
    bare(shown) == bare(record)
}
