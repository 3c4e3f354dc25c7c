//! What the cluster is told of this node's network, beside the records: the Node's condition, Events about the Node, and
//! the status of the node's record.
//!
//! All of it follows from what the agent publishes, in one task of its own: nothing here makes a pass wait, and what
//! can't be written is tried again as long as it is true. Nothing of it is ever read by an agent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Kubernetes, failure};
use crate::status::{Condition, Published, Severity, rfc3339};
use crate::store::remote::backend::Failure;

/// A condition of the agent while the API server refuses what is told here.
const REFUSED: &str = "NodeStatusRefused";

/// The server takes what is written within this time.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `NetworkUnavailable` of the Node.
    Condition,
    /// Events about the Node.
    Events,
    /// The status of the node's record.
    RecordStatus,
}

impl Part {
    const COUNT: usize = 3;
}

/// Something that was not written.
#[derive(Debug)]
pub(super) struct NotWritten {
    pub(super) why: Failure,
    /// The server is well, and will not take it before somebody changes something.
    pub(super) refused: bool,
}

impl From<Failure> for NotWritten {
    fn from(why: Failure) -> Self {
        Self { why, refused: false }
    }
}

/// What the server refuses, as a condition of the agent.
#[derive(Debug)]
pub(super) struct Refusals {
    why: Mutex<[Option<String>; Part::COUNT]>,
    trouble: watch::Sender<Option<Condition>>,
}

impl Refusals {
    fn new(trouble: watch::Sender<Option<Condition>>) -> Self {
        Self { why: Mutex::default(), trouble }
    }

    /// A part was written, or could not be.
    pub(super) fn note(&self, part: Part, result: &Result<(), NotWritten>) {
        let mut why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => why[part as usize] = None,
            Err(not_written) if not_written.refused => why[part as usize] = Some(not_written.why.to_string()),
            // Of a server that is away the store's own condition speaks.
            Err(_) => return,
        }
        let message = why.iter().flatten().next().map(|why| {
            format!(
                "what `kubectl describe node` says of this node's network may be old, or is not there: {why}"
            )
        });
        self.trouble.send_if_modified(|shown| {
            if shown.as_ref().map(|shown| &shown.message) == message.as_ref() {
                return false;
            }
            let since = shown.as_ref().map(|shown| shown.since.clone());
            *shown = message.map(|message| {
                tracing::warn!(condition = REFUSED, "{message}");
                Condition {
                    severity: Severity::of(REFUSED),
                    kind: REFUSED.to_owned(),
                    subject: String::new(),
                    message,
                    since: since.unwrap_or_else(|| rfc3339(Timestamp::now())),
                }
            });
            true
        });
    }
}

impl Kubernetes {
    /// Tells until nothing is published any more.
    pub(super) async fn announce(
        &self,
        published: watch::Receiver<Arc<Published>>,
        trouble: watch::Sender<Option<Condition>>,
    ) {
        let Some(node) = self.own.name() else { return };
        let refusals = Refusals::new(trouble);
        tokio::join!(
            self.keep_network_condition(node, published.clone(), &refusals),
            self.keep_record_status(node, published.clone(), &refusals),
            self.tell_events(node, published, &refusals),
        );
    }

    /// Something that was tried in vain. `what` is a verb of the API with its object.
    pub(super) fn not_written(&self, what: &str, error: &kube::Error) -> NotWritten {
        NotWritten { refused: failure::is_refusal(error), why: self.failed(what, error) }
    }
}

/// Does it, or says that it took too long.
pub(super) async fn in_time(
    work: impl Future<Output = Result<(), NotWritten>> + Send,
) -> Result<(), NotWritten> {
    let late =
        || Failure::server(format!("no answer from the Kubernetes API server within {WRITTEN_WITHIN:?}"));
    tokio::time::timeout(WRITTEN_WITHIN, work).await.unwrap_or_else(|_| Err(late().into()))
}

/// When something that is written again and again may be written next: pure. What changes by itself comes at once; what
/// somebody else undoes, and what fails, ever more seldom.
#[derive(Debug)]
pub(super) struct Pace<T> {
    pause: Duration,
    next: Option<Instant>,
    last: Option<(T, Instant)>,
    has_failed: bool,
}

impl<T> Default for Pace<T> {
    fn default() -> Self {
        Self { pause: SHORTEST, next: None, last: None, has_failed: false }
    }
}

/// Between two writings.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(300);

/// What was written so long ago and does not stand any more was undone for another reason. Longer than [`LONGEST`], so that
/// the pauses grow while somebody undoes it.
const ANOTHER_MATTER: Duration = Duration::from_secs(900);

/// A server that is back is told within this time.
const LONGEST_AFTER_FAILURE: Duration = Duration::from_secs(60);

impl<T: PartialEq> Pace<T> {
    /// Before this time it is not written; `None`: at once.
    pub(super) fn not_before(&self, wanted: &T, now: Instant) -> Option<Instant> {
        let at = match &self.last {
            Some((last, at)) if last != wanted && !self.has_failed => Some(*at + SHORTEST),
            Some(_) | None => self.next,
        };
        at.filter(|at| *at > now)
    }

    /// It was written. `true`: as it was the last time, so somebody has undone it.
    pub(super) fn written(&mut self, wanted: T, now: Instant) -> bool {
        let undone = self
            .last
            .as_ref()
            .is_some_and(|(last, at)| *last == wanted && now.duration_since(*at) < ANOTHER_MATTER);
        self.pause = if undone && !self.has_failed { (self.pause * 2).min(LONGEST) } else { SHORTEST };
        self.has_failed = false;
        self.next = Some(now + self.pause);
        self.last = Some((wanted, now));
        undone
    }

    /// It was not. `share`: a random number from 0 to 1.
    pub(super) fn failed(&mut self, longest: Option<Duration>, share: f64, now: Instant) {
        self.has_failed = true;
        self.pause = (self.pause * 2).min(longest.unwrap_or(LONGEST_AFTER_FAILURE));
        self.next = Some(now + self.pause.mul_f64(0.5 + share / 2.0));
    }
}

/// How long what was refused may wait: it takes an administrator to change that.
pub(super) fn longest_after(not_written: &NotWritten) -> Option<Duration> {
    not_written.refused.then_some(LONGEST)
}

/// Waits until then; for ever without a time.
pub(super) async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_undoes_is_written_ever_more_seldom_and_news_at_once() {
        let begin = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.not_before(&"ready", begin), None);
        assert!(!pace.written("ready", begin));
        let mut now = begin;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let next = pace.not_before(&"ready", now).unwrap();
            pauses.push(next.duration_since(now).as_secs());
            now = next;
            assert_eq!(pace.not_before(&"ready", now), None);
            assert!(pace.written("ready", now), "somebody has undone it");
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
        // The truth has changed.
        assert_eq!(pace.not_before(&"not ready", now), Some(now + SHORTEST));
        assert_eq!(pace.not_before(&"not ready", now + SHORTEST), None);
        // Long afterwards it is another matter.
        assert!(!pace.written("ready", now + ANOTHER_MATTER));
    }

    #[test]
    fn failures_wait_ever_longer_whatever_the_truth_is_meanwhile() {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.written("ready", now);
        for _ in 0..10 {
            pace.failed(None, 1.0, now);
        }
        assert_eq!(pace.not_before(&"not ready", now), Some(now + LONGEST_AFTER_FAILURE));
        assert_eq!(pace.not_before(&"ready", now), Some(now + LONGEST_AFTER_FAILURE));
        pace.failed(None, 0.0, now);
        assert_eq!(pace.not_before(&"ready", now), Some(now + LONGEST_AFTER_FAILURE / 2), "at random times");
        pace.written("not ready", now);
        assert_eq!(pace.not_before(&"not ready", now), Some(now + SHORTEST));
    }

    #[test]
    fn only_refusals_are_a_condition_and_it_goes_with_the_last_one() {
        let (trouble, shown) = watch::channel(None);
        let refusals = Refusals::new(trouble);
        let not_written = |refused| NotWritten { why: Failure::server("forbidden"), refused };
        refusals.note(Part::Events, &Err(not_written(false)));
        assert_eq!(*shown.borrow(), None, "the store's own condition says that");
        refusals.note(Part::Events, &Err(not_written(true)));
        refusals.note(Part::Condition, &Err(not_written(true)));
        refusals.note(Part::Events, &Ok(()));
        let condition = shown.borrow().clone().unwrap();
        assert_eq!((condition.kind.as_str(), condition.severity), (REFUSED, Severity::Warning));
        assert!(condition.message.contains("forbidden"), "{}", condition.message);
        refusals.note(Part::Condition, &Ok(()));
        assert_eq!(*shown.borrow(), None);
    }
}
