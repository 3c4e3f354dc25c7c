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

/// Kind of the condition that two agents have one name.
pub const NODE_NAME_TAKEN: &str = "NodeNameTaken";

/// What became of our record.
#[derive(Debug, Default)]
pub(super) struct OwnRecord {
    published: Option<(NodeRecord, Timestamp)>,
    /// A snapshot has shown it since.
    shown: bool,
    overwritten: Option<(u32, Timestamp)>,
    /// Where another agent of this name is, and when we learned of it last.
    contender: Option<(String, Timestamp)>,
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
        let shown = snapshot.nodes.get(&record.name).map(AsRef::as_ref);
        let is_damaged = snapshot.problems.contains_key(&node_record(&record.name));
        let since_published = match &self.published {
            Some((published, at)) if published == record => Some(now.duration_since(*at)),
            Some(_) | None => None,
        };
        if shown.is_some_and(|shown| says_the_same(shown, record)) && !is_damaged {
            self.shown = true;
            // It stands, whatever was answered: the answer to an attempt may have been lost.
            self.failure = None;
            return false;
        }
        let Some(since_published) = since_published else { return true };
        if self.shown && self.is_contended(record, shown, now) {
            return true;
        }
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

    /// Another agent has left a note, or has begun after us and written its own record over ours. `true`: to be
    /// answered at once, which is how it learns that we live.
    fn is_contended(&mut self, record: &NodeRecord, shown: Option<&NodeRecord>, now: Timestamp) -> bool {
        let Some(shown) = shown else { return false };
        if let Some(contender) = &shown.contender {
            self.contender = Some((contender.clone(), now));
            return true;
        }
        // A backup holds runs of the past only.
        if shown.instance > record.instance && record.instance.is_some() {
            let underlay = shown.underlay;
            let address = underlay.ipv4.map(|net| net.addr().to_string());
            let address = address.or_else(|| underlay.ipv6.map(|net| net.addr().to_string()));
            self.contender = Some((address.unwrap_or_else(|| "an unknown address".to_owned()), now));
        }
        false
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
        if let Some((address, last)) = &self.contender
            && now.duration_since(*last) < OVERWRITE_MEMORY
        {
            conditions.push(Condition {
                kind: NODE_NAME_TAKEN,
                subject: record.name.to_string(),
                message: format!(
                    "another agent, at {address}, wants to run under the name {} too; give one of them another node.name",
                    record.name
                ),
            });
        } else if let Some((times, last)) = self.overwritten
            && times >= 2
            && now.duration_since(last) < OVERWRITE_MEMORY
        {
            conditions.push(Condition {
                kind: NODE_NAME_TAKEN,
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
