//! Events about the Node: the errors among the conditions of its agent (docs/conditions.md), when they begin and when they
//! are over.
//!
//! Warnings are not told: they are about others, and a node that dies would be told of by every other one. Nothing is
//! queued (`desk`): what stands is told as soon as it may be, and what has come and gone meanwhile is left out. While the API
//! server is away nothing is told; that a condition stood meanwhile is told when it is over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use self::desk::{Desk, Note, Turn};
use super::announce::{NotWritten, Pace, Part, Refusals, in_time, longest_after, until};
use super::{Kubernetes, failure};
use crate::node::NodeName;
use crate::status::Published;
use crate::store::remote::backend::Failure;

mod desk;

/// Events about what is in no namespace are in this one (`legacyValidateEvent` of the API server asks for it).
const NAMESPACE: &str = "default";

/// Who says it.
const CONTROLLER: &str = "pairway.dev/agent";

/// The most bytes that the API server takes of a note, and of the name of who reports (events.k8s.io/v1).
const NOTE_BYTES: usize = 1024;
const INSTANCE_BYTES: usize = 128;

/// What is said again within this time is counted in the Event that said it first. Events live for an hour.
const SERIES: Duration = Duration::from_secs(1800);

/// So many Events are remembered for that.
const REMEMBERED: usize = 16;

/// An Event that was written.
#[derive(Debug)]
struct Written {
    name: String,
    note: Note,
    count: u32,
    at: Instant,
}

/// The Events that were written last, the newest at the end.
#[derive(Debug, Default)]
struct Recent(VecDeque<Written>);

impl Recent {
    /// Takes out the Event that says the same, if it is not too old.
    fn take(&mut self, note: &Note, now: Instant) -> Option<Written> {
        self.0.retain(|written| now.duration_since(written.at) < SERIES);
        let index = self.0.iter().position(|written| written.note.says_the_same(note))?;
        self.0.remove(index)
    }

    fn put(&mut self, written: Written) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(written);
    }
}

pub(super) fn resource() -> ApiResource {
    ApiResource {
        group: "events.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "events.k8s.io/v1".to_owned(),
        kind: "Event".to_owned(),
        plural: "events".to_owned(),
    }
}

/// A new Event.
fn event(name: &str, node: &NodeName, uid: &str, note: &Note, now: Timestamp) -> Value {
    let (kind, action) = match note.turn {
        Turn::Begins => ("Warning", "Began"),
        Turn::Ends => ("Normal", "Ended"),
    };
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "eventTime": micro_time(now),
        "reportingController": CONTROLLER,
        "reportingInstance": cut(node.as_str(), INSTANCE_BYTES),
        "regarding": { "apiVersion": "v1", "kind": "Node", "name": node.as_str(), "uid": uid },
        "reason": note.reason(),
        "action": action,
        "note": cut(&note.text, NOTE_BYTES),
        "type": kind,
    })
}

/// `metav1.MicroTime`.
fn micro_time(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// The beginning of a text, of so many bytes at most.
fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let dots = "...";
    let end = (0..=bytes - dots.len()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}{dots}", &text[..end])
}

impl Kubernetes {
    /// Tells of conditions until nothing is published any more.
    pub(super) async fn tell_events(
        &self,
        node: &NodeName,
        mut published: watch::Receiver<Arc<Published>>,
        refusals: &Refusals,
    ) {
        let mut desk = Desk::new(fastrand::f64());
        let (mut recent, mut pace) = (Recent::default(), Pace::<()>::default());
        loop {
            let current = Arc::clone(&published.borrow_and_update());
            let now = Instant::now();
            desk.look(&current.status.conditions, now);
            let paused = pace.not_before(&(), now);
            if paused.is_none()
                && let Some(note) = desk.due(now)
            {
                let result = in_time(self.write_event(node, &note, &mut recent)).await;
                refusals.note(Part::Events, &result);
                match result {
                    Ok(()) => pace = Pace::default(),
                    Err(not_written) => {
                        tracing::debug!(why = %not_written.why, reason = note.reason(), "an Event is not written");
                        desk.take_back(note);
                        pace.failed(longest_after(&not_written), fastrand::f64(), Instant::now());
                    }
                }
                continue;
            }
            let wake = desk.next(now).map(|at| paused.map_or(at, |paused| at.max(paused)));
            // Every arm only receives.
            tokio::select! {
                changed = published.changed() => if changed.is_err() { return },
                () = until(wake) => {}
            }
        }
    }

    async fn write_event(&self, node: &NodeName, note: &Note, recent: &mut Recent) -> Result<(), NotWritten> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.connected().await?.client, NAMESPACE, &resource());
        let failed = |error: &kube::Error| self.not_written("write Events about this Node", error);
        let now = Instant::now();
        if let Some(before) = recent.take(note, now) {
            let count = before.count.saturating_add(1);
            let series =
                json!({ "series": { "count": count, "lastObservedTime": micro_time(Timestamp::now()) } });
            match api.patch(&before.name, &PatchParams::default(), &Patch::Merge(&series)).await {
                Ok(_) => {
                    recent.put(Written { count, at: now, ..before });
                    return Ok(());
                }
                // It was too old, or somebody has removed it.
                Err(error) if failure::is_absent(&error) => {}
                Err(error) => {
                    let not_written = failed(&error);
                    recent.put(before);
                    return Err(not_written);
                }
            }
        }
        let Some(uid) = self.own.uid() else {
            return Err(Failure::record(format!("there is no Node object named {node} to tell of")).into());
        };
        let name = format!("pairway-{:016x}", fastrand::u64(..));
        let object: DynamicObject = serde_json::from_value(event(&name, node, &uid, note, Timestamp::now()))
            .map_err(|error| Failure::record(error.to_string()))?;
        api.create(&PostParams::default(), &object).await.map_err(|error| failed(&error))?;
        recent.put(Written { name, note: note.clone(), count: 1, at: now });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("short", 1024), "short");
        let long = "ä".repeat(1000);
        let short = cut(&long, NOTE_BYTES);
        assert!(short.len() <= NOTE_BYTES && short.len() >= NOTE_BYTES - 1, "{}", short.len());
        assert!(short.ends_with("ä..."), "{short}");
    }

    #[test]
    fn an_event_has_what_the_api_server_asks_for() {
        let made = |turn| {
            let note = Note::new(turn, "BlockLost", Vec::new(), &"x".repeat(5000));
            event("pairway-1", &"n1".parse().unwrap(), "u", &note, Timestamp::UNIX_EPOCH)
        };
        let begins = made(Turn::Begins);
        assert_eq!(begins["eventTime"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(begins["note"].as_str().unwrap().len(), NOTE_BYTES);
        assert_eq!((&begins["reason"], &begins["type"]), (&json!("BlockLost"), &json!("Warning")));
        let ends = made(Turn::Ends);
        assert_eq!((&ends["reason"], &ends["type"]), (&json!("BlockLostOver"), &json!("Normal")));
        assert_eq!(ends["regarding"]["uid"], "u");
    }

    #[test]
    fn the_same_is_counted_for_half_an_hour() {
        let (begin, mut recent) = (Instant::now(), Recent::default());
        let note = |text: &str| Note::new(Turn::Begins, "BlockLost", Vec::new(), text);
        for number in 0..REMEMBERED + 1 {
            let note = note(&number.to_string());
            recent.put(Written { name: String::new(), note, count: 1, at: begin });
        }
        assert_eq!(recent.0.len(), REMEMBERED);
        assert!(recent.take(&note("0"), begin).is_none(), "the oldest is forgotten");
        assert!(recent.take(&note("1"), begin).is_some());
        assert!(recent.take(&note("2"), begin + SERIES).is_none(), "it is too old");
    }
}
