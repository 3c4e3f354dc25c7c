//! Follows the records by one watch.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::messages::{
    Compare, DELETED, KeyValue, PutRequest, RangeRequest, Request, RequestOp, Target, TxnRequest,
    TxnResponse, VERSION, WatchCreateRequest,
};
use super::{Etcd, first_value, range_end};
use crate::store::kind::Kind;
use crate::store::remote::backend::{Event, Failure};

/// Everything is listed again this often, whatever the watch tells; up to as much again at random.
const LIST_AGAIN: Duration = Duration::from_secs(600);

/// A watch that stands says so within this time.
const STANDS_WITHIN: Duration = Duration::from_secs(5);

/// How far the watch has come, and in which database.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Every event up to this revision was told; 0: nothing was listed yet.
    revision: i64,
    /// Value of the identity's key and the revision in which it was made.
    identity: Option<(Vec<u8>, i64)>,
    listed_at: Option<Instant>,
}

impl Etcd {
    fn followed(&self) -> std::sync::MutexGuard<'_, Followed> {
        // Each change is an assignment.
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what happens until something fails.
    pub(super) async fn follow_records(&self, events: &mpsc::Sender<Event>) -> Failure {
        loop {
            let listed_at = match self.begin(events).await {
                Ok(listed_at) => listed_at,
                Err(failure) => return failure,
            };
            let again = listed_at + LIST_AGAIN.mul_f64(1.0 + fastrand::f64());
            if let Err(failure) = self.watch_until(again, events).await {
                self.client.leave();
                return failure;
            }
        }
    }

    /// Lists everything, unless what was told before still holds.
    async fn begin(&self, events: &mpsc::Sender<Event>) -> Result<Instant, Failure> {
        let (identity, revision) = self.identity().await?;
        let is_same = {
            let followed = self.followed();
            // A revision that goes back is a database that was restored.
            followed.revision > 0
                && followed.revision <= revision
                && followed.identity.as_ref() == Some(&identity)
        };
        let recent = self.followed().listed_at.filter(|at| is_same && at.elapsed() < LIST_AGAIN);
        if let Some(listed_at) = recent {
            return Ok(listed_at);
        }
        let (records, revision) = self.range(&self.records()).await?;
        let now = Instant::now();
        *self.followed() = Followed { revision, identity: Some(identity), listed_at: Some(now) };
        tell(events, Event::Listed { kinds: Kind::ALL.to_vec(), records }).await?;
        Ok(now)
    }

    /// The value of the identity's key and the revision in which it was made, and the revision of the database now. Where
    /// it is missing an agent makes it; who only looks makes nothing.
    async fn identity(&self) -> Result<((Vec<u8>, i64), i64), Failure> {
        let key = format!("{}/identity", self.prefix).into_bytes();
        let value = format!("{:032x}", fastrand::u128(..)).into_bytes();
        let question = TxnRequest {
            compare: vec![Compare { target: VERSION, key: key.clone(), to: Some(Target::Version(0)) }],
            success: if self.makes_identity {
                let put = PutRequest { key: key.clone(), value: value.clone(), lease: 0 };
                vec![RequestOp { request: Some(Request::Put(put)) }]
            } else {
                Vec::new()
            },
            failure: vec![RequestOp {
                request: Some(Request::Range(RangeRequest { key, ..RangeRequest::default() })),
            }],
        };
        let answer: TxnResponse = self.client.call("/etcdserverpb.KV/Txn", question).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        if answer.succeeded {
            let made = if self.makes_identity { (value, revision) } else { (Vec::new(), 0) };
            return Ok((made, revision));
        }
        let KeyValue { value, create_revision, .. } = first_value(answer).unwrap_or_default();
        Ok(((value, create_revision), revision))
    }

    /// Until it is time to list again.
    async fn watch_until(&self, again: Instant, events: &mpsc::Sender<Event>) -> Result<(), Failure> {
        let prefix = self.records();
        let create = WatchCreateRequest {
            range_end: range_end(prefix.as_bytes()),
            key: prefix.into_bytes(),
            start_revision: self.followed().revision + 1,
            progress_notify: true,
        };
        let mut answers = self.client.watch(create).await?;
        let mut stands = false;
        loop {
            let deadline = if stands { again } else { Instant::now() + STANDS_WITHIN };
            let answer = match timeout_at(deadline, answers.message()).await {
                Ok(Ok(Some(answer))) => answer,
                Ok(Ok(None)) => return Err(Failure::server("etcd has ended the watch; it is begun again")),
                Ok(Err(status)) => {
                    return Err(Failure::server(format!(
                        "the watch of etcd was cut ({}); it is begun again",
                        status.message()
                    )));
                }
                Err(_) if stands => return Ok(()),
                Err(_) => {
                    return Err(Failure::server(format!(
                        "etcd did not begin to watch within {STANDS_WITHIN:?}; it is tried again"
                    )));
                }
            };
            let revision = answer.header.map_or(0, |header| header.revision);
            if answer.compact_revision > 0 {
                // What was missed is not told any more.
                self.followed().revision = 0;
                tracing::info!(compacted = answer.compact_revision, "etcd is listed again");
                return Ok(());
            }
            if answer.canceled {
                self.followed().revision = 0;
                return Err(Failure::server(format!("etcd has ended the watch: {}", answer.cancel_reason)));
            }
            if answer.created {
                if revision < self.followed().revision {
                    self.followed().revision = 0;
                    return Ok(());
                }
                stands = true;
                tell(events, Event::Well).await?;
                // Its revision says what etcd has, not what was told.
                continue;
            }
            // While a watch catches up the header is ahead of the events: they alone say how far it has come.
            let mut reached = 0;
            if answer.events.is_empty() {
                reached = revision;
                tell(events, Event::Well).await?;
            }
            for event in answer.events {
                let Some(kv) = event.kv else { continue };
                reached = reached.max(kv.mod_revision);
                let Some(key) = self.key(&kv.key) else { continue };
                let told =
                    if event.kind == DELETED { Event::Gone(key) } else { Event::Set(key, Self::stored(kv)) };
                tell(events, told).await?;
            }
            let mut followed = self.followed();
            followed.revision = followed.revision.max(reached);
        }
    }
}

async fn tell(events: &mpsc::Sender<Event>, event: Event) -> Result<(), Failure> {
    events.send(event).await.map_err(|_| Failure::server("nobody listens any more"))
}
