//! The status of this node's record: whether the node is ready, and if not why, for `kubectl get noderecords`.
//!
//! Whoever watches records is told of it too, which are all agents: so it is written seldom, when something has changed and
//! stays so for some seconds. No agent reads it. It has no `observedGeneration`: the record's `spec` is what the same agent
//! says of the node, no order that would be carried out.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::announce::{NotWritten, Pace, Part, Refusals, in_time, longest_after, until};
use super::network_condition::{NOT_READY, READY, say_nothing};
use super::{Kubernetes, failure};
use crate::node::NodeName;
use crate::status::{Published, Status, rfc3339};
use crate::store::kind::Kind;
use crate::store::remote::backend::{Failure, Key};

/// What does not last so long is not written. Each agent adds a share of its own.
const LASTS: Duration = Duration::from_secs(5);
const LASTS_AT_RANDOM: Duration = Duration::from_secs(5);

/// What the status says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RecordStatus {
    ready: bool,
    message: String,
    blocks: Vec<String>,
    agent_version: String,
}

impl RecordStatus {
    /// `None`: whatever it says may stand.
    fn of(status: &Status) -> Option<Self> {
        let reasons = &status.not_ready_reasons;
        if !status.ready && say_nothing(reasons) {
            return None;
        }
        let message = if status.ready { String::new() } else { format!("not ready: {}", reasons.join(", ")) };
        Some(Self {
            ready: status.ready,
            message,
            blocks: status.blocks.clone(),
            agent_version: status.version.clone(),
        })
    }

    /// The record's status; `None` if the record says so already.
    fn of_record(&self, record: &DynamicObject, now: Timestamp) -> Option<Value> {
        let old = record.data.get("status").cloned().unwrap_or_default();
        let (status, reason) = if self.ready { ("True", READY) } else { ("False", NOT_READY) };
        let conditions = old["conditions"].as_array();
        let before = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
        let turned_at = before
            .filter(|condition| condition["status"] == status)
            .and_then(|condition| condition["lastTransitionTime"].as_str())
            .map_or_else(|| rfc3339(now), str::to_owned);
        let new = json!({
            "agentVersion": self.agent_version,
            "blocks": self.blocks,
            "conditions": [{
                "type": "Ready",
                "status": status,
                "reason": reason,
                "message": self.message,
                "lastTransitionTime": turned_at,
            }],
        });
        // What agents of a later version write besides is theirs.
        let same = ["agentVersion", "blocks", "conditions"].iter().all(|key| old[*key] == new[*key]);
        (!same).then_some(new)
    }
}

/// What is to be written, once it has lasted.
#[derive(Debug, Default)]
struct News {
    /// What the record says, as far as this run has written it.
    written: Option<RecordStatus>,
    /// What it should say, and since when.
    wanted: Option<(RecordStatus, Instant)>,
}

impl News {
    fn look(&mut self, status: &Status, now: Instant) {
        match RecordStatus::of(status) {
            Some(wanted) if self.written.as_ref() != Some(&wanted) => {
                if self.wanted.as_ref().is_none_or(|(last, _)| *last != wanted) {
                    self.wanted = Some((wanted, now));
                }
            }
            Some(_) | None => self.wanted = None,
        }
    }
}

impl Kubernetes {
    /// Keeps the status of this node's record as it should be until nothing is published any more.
    pub(super) async fn keep_record_status(
        &self,
        node: &NodeName,
        mut published: watch::Receiver<Arc<Published>>,
        refusals: &Refusals,
    ) {
        let lasts = LASTS + LASTS_AT_RANDOM.mul_f64(fastrand::f64());
        let (mut news, mut pace) = (News::default(), Pace::default());
        loop {
            let current = Arc::clone(&published.borrow_and_update());
            let now = Instant::now();
            news.look(&current.status, now);
            let mut wake = None;
            if let Some((wanted, since)) = news.wanted.clone() {
                let due = (since + lasts).max(pace.not_before(&wanted, now).unwrap_or(now));
                if due <= now {
                    let result = in_time(self.write_record_status(node, &wanted)).await;
                    refusals.note(Part::RecordStatus, &result);
                    match result {
                        Ok(()) => {
                            pace.written(wanted.clone(), Instant::now());
                            news.written = Some(wanted);
                        }
                        Err(not_written) => {
                            tracing::debug!(why = %not_written.why, "the status of this node's record is not written");
                            pace.failed(longest_after(&not_written), fastrand::f64(), Instant::now());
                        }
                    }
                    continue;
                }
                wake = Some(due);
            }
            // Every arm only receives.
            tokio::select! {
                changed = published.changed() => if changed.is_err() { return },
                // A record that was made anew has no status.
                () = self.record_made.notified() => news.written = None,
                () = until(wake) => {}
            }
        }
    }

    async fn write_record_status(&self, node: &NodeName, wanted: &RecordStatus) -> Result<(), NotWritten> {
        let key = Key::node(node);
        let no_record = || NotWritten::from(Failure::record("this node has no record yet"));
        let record = self.stored_object(&key).await?.ok_or_else(no_record)?;
        let Some(status) = wanted.of_record(&record, Timestamp::now()) else { return Ok(()) };
        let patch = Patch::Merge(json!({ "status": status }));
        match self.api(Kind::Node).await?.patch_status(&key.name, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(error) if failure::is_absent(&error) => Err(no_record()),
            // The definition is of a version that had no status.
            Err(error) if failure::has_code(&error, 404) => Ok(()),
            Err(error) => Err(self.not_written("write the status of this node's record", &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(reasons: &[&str]) -> Status {
        Status {
            ready: reasons.is_empty(),
            not_ready_reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
            blocks: vec!["10.244.7.0/24".to_owned()],
            version: "0.1.0".to_owned(),
            ..Status::default()
        }
    }

    fn record(status: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "pairway.dev/v1alpha1", "kind": "NodeRecord", "metadata": {"name": "n1"}, "spec": {}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn it_is_written_when_it_changes_and_remembers_when_it_turned() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ready = RecordStatus::of(&status(&[])).unwrap();
        let first = ready.of_record(&record(&Value::Null), at(10)).unwrap();
        assert_eq!(first["conditions"][0]["status"], "True");
        assert_eq!(first["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:10Z");
        assert_eq!(first["blocks"], json!(["10.244.7.0/24"]));
        assert_eq!(ready.of_record(&record(&first), at(20)), None, "it says so already");
        let mut of_later_version = first.clone();
        of_later_version["more"] = json!(1);
        assert_eq!(ready.of_record(&record(&of_later_version), at(20)), None);

        let upgraded = RecordStatus { agent_version: "0.2.0".to_owned(), ..ready };
        let second = upgraded.of_record(&record(&first), at(30)).unwrap();
        assert_eq!(second["conditions"], first["conditions"], "it has not turned");
        let unready = RecordStatus::of(&status(&["underlay"])).unwrap();
        let third = unready.of_record(&record(&second), at(40)).unwrap();
        assert_eq!(third["conditions"][0]["status"], "False");
        assert_eq!(third["conditions"][0]["message"], "not ready: underlay");
        assert_eq!(third["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:40Z");
    }

    #[test]
    fn who_starts_waits_for_its_store_or_has_no_name_says_nothing() {
        for reasons in [&["starting"][..], &["store"], &["record"], &["name"], &["name", "underlay"]] {
            assert_eq!(RecordStatus::of(&status(reasons)), None, "{reasons:?}");
        }
        assert_eq!(RecordStatus::of(&Status::default()), None);
        assert!(RecordStatus::of(&status(&["store", "underlay"])).is_some());
    }

    #[test]
    fn what_changes_back_is_no_news() {
        let begin = Instant::now();
        let later = |seconds| begin + Duration::from_secs(seconds);
        let mut news = News::default();
        news.look(&status(&[]), begin);
        news.look(&status(&[]), later(1));
        let (ready, since) = news.wanted.clone().unwrap();
        assert_eq!(since, begin, "it counts from its beginning");
        news.written = Some(ready.clone());
        news.look(&status(&[]), later(2));
        assert_eq!(news.wanted, None);
        news.look(&status(&["underlay"]), later(3));
        assert_eq!(news.wanted.as_ref().unwrap().1, later(3));
        news.look(&status(&[]), later(4));
        assert_eq!(news.wanted, None);
        // A record that was made anew.
        news.written = None;
        news.look(&status(&[]), later(5));
        assert_eq!(news.wanted, Some((ready, later(5))));
    }
}
