//! Lists and watches the objects of one resource.
//!
//! The list comes as the beginning of the watch where the server can do that, else in pages. A watch that ends is begun
//! again where it was; one whose place is not remembered any more (410) is begun with a new list. Bookmarks keep the place
//! fresh while nothing happens, and show that the server lives.
//!
//! A server whose database was lost, or restored from a backup, may not have come as far as the place. It would take the
//! watch all the same, and tell nothing until it has passed that place: what was written meanwhile would never be heard of. So
//! after a watch that has ended before its time the server is asked how far it has come.

use std::pin::pin;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use kube::Api;
use kube::api::{DynamicObject, ListParams, VersionMatch, WatchEvent, WatchParams};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Kubernetes, PAGE, objects};
use crate::store::kind::Kind;
use crate::store::remote::backend::{Event, Failure, Key, Stored};

/// The server begins to answer within this time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// The server ends a watch after this many seconds by itself; each at another time, so that they don't come back all
/// at once.
const WATCH_SECONDS: std::ops::Range<u32> = 240..295;

/// A watch that ends sooner than this is not begun again at once.
const TOO_SHORT: Duration = Duration::from_secs(1);

/// The bookmark that ends the list at the beginning of a watch.
const LIST_ENDS: &str = "k8s.io/initial-events-end";

/// How far the watch of a resource has come.
#[derive(Debug, Default)]
pub(super) struct Position {
    /// Every event up to this one was told; `None`: a list is needed.
    version: Option<String>,
    /// The last watch has ended before its time: the server may have another database by now.
    doubted: bool,
    /// The server does not send the list with the watch.
    pages: bool,
}

#[cfg(test)]
impl Position {
    pub(super) fn use_pages(&mut self) {
        self.pages = true;
    }
}

impl Kubernetes {
    fn position(&self, kind: Kind) -> MutexGuard<'_, Position> {
        let index = Kind::ALL.iter().position(|other| *other == kind).unwrap_or_default();
        // Each change is an assignment.
        self.positions[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what happens until something fails.
    pub(super) async fn follow_kind(&self, kind: Kind, events: &mpsc::Sender<Event>) -> Failure {
        loop {
            let began = Instant::now();
            let watched = self.watch(kind, events).await;
            if began.elapsed() < Duration::from_secs(WATCH_SECONDS.start.into()) {
                self.position(kind).doubted = true;
            }
            if let Err(failure) = watched {
                return failure;
            }
            if began.elapsed() < TOO_SHORT {
                tokio::time::sleep(TOO_SHORT.mul_f64(0.5 + fastrand::f64())).await;
            }
        }
    }

    /// One watch, with a list before it if need be. `Ok`: it ended as watches do.
    async fn watch(&self, kind: Kind, events: &mpsc::Sender<Event>) -> Result<(), Failure> {
        let api = self.api(kind).await?;
        self.check_place(kind, &api).await?;
        let (needs_list, pages) = {
            let position = self.position(kind);
            (position.version.is_none(), position.pages)
        };
        if needs_list && pages {
            self.list_pages(kind, &api, events).await?;
        }
        let streams_list = needs_list && !pages;
        let params = WatchParams {
            timeout: Some(fastrand::u32(WATCH_SECONDS)),
            send_initial_events: streams_list,
            ..WatchParams::default()
        };
        let version = self.position(kind).version.clone().unwrap_or_else(|| "0".to_owned());
        // An empty version: no older list than what the server has now.
        let version = if streams_list { String::new() } else { version };
        let stream = match answered(api.watch(&params, &version)).await? {
            Ok(stream) => stream,
            Err(error) if streams_list && refuses_streaming(&error) => {
                tracing::debug!(
                    resource = objects::names(kind).plural,
                    "the server sends no list with a watch; it is read in pages"
                );
                self.position(kind).pages = true;
                return Ok(());
            }
            Err(error) => return Err(self.lost(kind, &error)),
        };
        let mut stream = pin!(stream);
        let mut listing = streams_list.then(Vec::new);
        if listing.is_none() {
            tell(events, Event::Well).await?;
        }
        while let Some(event) = stream.next().await {
            let event = event.map_err(|error| self.lost(kind, &error))?;
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let version = object.metadata.resource_version.clone();
                    let Some((key, stored)) = self.seen(kind, &object) else { continue };
                    match &mut listing {
                        Some(listing) => listing.push((key, stored)),
                        None => {
                            tell(events, Event::Set(key, stored)).await?;
                            self.position(kind).version = version;
                        }
                    }
                }
                WatchEvent::Deleted(object) => {
                    let Some(key) = objects::key(kind, &object) else { continue };
                    self.gone(&key);
                    match &mut listing {
                        Some(listing) => listing.retain(|(other, _)| *other != key),
                        None => {
                            tell(events, Event::Gone(key)).await?;
                            self.position(kind).version = object.metadata.resource_version;
                        }
                    }
                }
                WatchEvent::Bookmark(bookmark) => {
                    let ends_list =
                        bookmark.metadata.annotations.get(LIST_ENDS).is_some_and(|end| end == "true");
                    if ends_list && let Some(records) = listing.take() {
                        self.listed(kind, &records);
                        tell(events, Event::Listed { kinds: vec![kind], records }).await?;
                    } else if listing.is_none() {
                        tell(events, Event::Well).await?;
                    }
                    if listing.is_none() {
                        self.position(kind).version = Some(bookmark.metadata.resource_version);
                    }
                }
                WatchEvent::Error(status) => {
                    let failure = self.lost(kind, &kube::Error::Api(status));
                    // Where a list follows, that is news enough.
                    return if self.position(kind).version.is_none() { Ok(()) } else { Err(failure) };
                }
            }
        }
        Ok(())
    }

    /// Forgets a place that the server has not come to.
    async fn check_place(&self, kind: Kind, api: &Api<DynamicObject>) -> Result<(), Failure> {
        let version = {
            let position = self.position(kind);
            position.version.clone().filter(|_| position.doubted)
        };
        if let Some(version) = version {
            let page = ListParams::default().limit(1).at(&version).matching(VersionMatch::NotOlderThan);
            if let Err(error) = answered(api.list(&page)).await? {
                let failure = self.lost(kind, &error);
                if self.position(kind).version.is_some() {
                    return Err(failure);
                }
                tracing::warn!(
                    resource = objects::names(kind).plural,
                    "the API server has not come as far as it was: everything is listed anew"
                );
            }
        }
        self.position(kind).doubted = false;
        Ok(())
    }

    async fn list_pages(
        &self,
        kind: Kind,
        api: &Api<DynamicObject>,
        events: &mpsc::Sender<Event>,
    ) -> Result<(), Failure> {
        let (mut records, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
        loop {
            let list = answered(api.list(&page)).await?.map_err(|error| self.lost(kind, &error))?;
            records.extend(list.items.iter().filter_map(|object| self.seen(kind, object)));
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
                None => {
                    self.listed(kind, &records);
                    tell(events, Event::Listed { kinds: vec![kind], records }).await?;
                    self.position(kind).version = list.metadata.resource_version;
                    return Ok(());
                }
            }
        }
    }

    /// The watch is over. Where its place is not known to the server any more (410, or one of another database, 504), or
    /// what it sent made no sense, the next one begins with a list.
    fn lost(&self, kind: Kind, error: &kube::Error) -> Failure {
        let makes_no_sense =
            matches!(error, kube::Error::SerdeError(_) | kube::Error::LinesCodecMaxLineLengthExceeded);
        let is_out_of_place = matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 410)
            || status.message.contains("Too large resource version")
            || status.message.contains("too old resource version"));
        let needs_list = makes_no_sense || is_out_of_place;
        if needs_list {
            self.position(kind).version = None;
        }
        self.failed("watch", error)
    }

    fn seen(&self, kind: Kind, object: &DynamicObject) -> Option<(Key, Stored)> {
        let (key, stored) = (objects::key(kind, object)?, objects::stored(object));
        self.note_owner(&key, &stored.content, &object.metadata);
        Some((key, stored))
    }

    fn listed(&self, kind: Kind, records: &[(Key, Stored)]) {
        self.ours().retain(|key, _| key.kind != kind || records.iter().any(|(other, _)| other == key));
    }

    fn gone(&self, key: &Key) {
        self.ours().remove(key);
    }
}

/// What the server answers, if it begins to in time.
pub(super) async fn answered<T>(
    asked: impl Future<Output = Result<T, kube::Error>> + Send,
) -> Result<Result<T, kube::Error>, Failure> {
    tokio::time::timeout(ANSWERS_WITHIN, asked).await.map_err(|_| {
        Failure::server(format!(
            "the Kubernetes API server did not answer within {ANSWERS_WITHIN:?}: is it overloaded or cut off?"
        ))
    })
}

/// A server that does not know the parameter, or may not use it.
fn refuses_streaming(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 422)
        || status.message.contains("sendInitialEvents"))
}

pub(super) async fn tell(events: &mpsc::Sender<Event>, event: Event) -> Result<(), Failure> {
    events.send(event).await.map_err(|_| Failure::server("nobody listens any more"))
}
