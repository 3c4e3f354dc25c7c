//! The tasks that turn what the server tells into snapshots.
//!
//! Each feed is followed by a task of its own, which tries again after a failure, ever more slowly and at random times,
//! so that the agents of a cluster don't come all at once. One task more puts together what they hear.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::backend::{Backend, Event};
use super::{RemoteOptions, Shared};
use crate::store::last_good::LastGood;
use crate::store::rebuild::Rebuild;

/// While the store is filled again it is looked at so often, to see that it is whole.
const REBUILDING_POLL: Duration = Duration::from_millis(200);

/// However much changes, it is shown no later than this.
const LONGEST_DEBOUNCE: Duration = Duration::from_millis(500);

/// A claim that goes is shown this much later at most, so that the memory of its release, which a feed of its own may tell, is
/// shown with it; and while that feed fails, so much later.
const RELEASE_WITHIN: Duration = Duration::from_millis(500);
const RELEASE_WITHIN_TROUBLE: Duration = Duration::from_secs(20);
const HELD_POLL: Duration = Duration::from_millis(50);

/// Pauses between attempts to follow a feed grow up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// A feed that went well for so long begins again with the first pause.
const WENT_WELL: Duration = Duration::from_secs(10);

/// Follows one feed until the store is dropped.
pub(super) async fn follow<B: Backend>(
    backend: Arc<B>,
    shared: Arc<Shared>,
    feed: usize,
    events: mpsc::Sender<Event>,
) {
    let mut pause = FIRST_PAUSE;
    let mut recovered = shared.recovered.subscribe();
    loop {
        recovered.mark_unchanged();
        let began = Instant::now();
        let (told, mut hears) = mpsc::channel(256);
        let forward = async {
            while let Some(event) = hears.recv().await {
                // Only what tells that the feed is complete or goes on is good news.
                shared.feed_is_well(feed);
                if events.send(event).await.is_err() {
                    return;
                }
            }
        };
        let following = async {
            let failure = backend.follow(feed, &told).await;
            drop(told);
            failure
        };
        let (failure, ()) = tokio::join!(following, forward);
        if began.elapsed() >= WENT_WELL {
            pause = FIRST_PAUSE;
        }
        tracing::debug!(feed, %failure, "the store is not followed any more; trying again");
        shared.feed_failed(feed, &failure);
        // Between half of it and all of it.
        let pausing = tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0));
        tokio::select! {
            () = pausing => {}
            // The server is back, as another feed has found: what they tell belongs together.
            Ok(()) = recovered.changed() => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Puts the feeds together until the store is dropped.
pub(super) async fn assemble(shared: Arc<Shared>, options: RemoteOptions, mut events: mpsc::Receiver<Event>) {
    let mut last_good = load(options.last_good.clone(), options.last_good_every).await;
    let mut rebuild = Rebuild::default();
    let opened = Instant::now();
    // What is not written down yet.
    let mut unwritten = false;
    // Since when a change is held back.
    let mut held: Option<Instant> = None;
    loop {
        let stale_at = (shared.is_empty_handed()).then(|| opened + options.patience);
        let poll = rebuild.is_under_way().then(|| Instant::now() + REBUILDING_POLL);
        let write_at = unwritten.then(|| last_good.next_write());
        let held_poll = held.map(|_| Instant::now() + HELD_POLL);
        let wake = [stale_at, poll, write_at, held_poll].into_iter().flatten().min();
        let event = tokio::select! {
            event = events.recv() => match event {
                Some(event) => Some(event),
                None => return,
            },
            () = until(wake) => None,
        };
        let changed = match event {
            Some(event) => {
                let mut changed = shared.take(event, &last_good);
                if changed {
                    changed |= take_more(&shared, &last_good, &mut events, options.debounce).await;
                }
                changed
            }
            None => held.is_some(),
        };
        if changed && options.waits_for_releases && shared.lacks_releases() {
            let since = *held.get_or_insert_with(Instant::now);
            let longest = if shared.releases_fail() { RELEASE_WITHIN_TROUBLE } else { RELEASE_WITHIN };
            if since.elapsed() < longest {
                continue;
            }
        }
        held = None;
        if shared.show_whole(&mut rebuild, changed) {
            unwritten = true;
        } else if shared.is_empty_handed() && opened.elapsed() >= options.patience {
            shared.show_stale(&last_good);
        }
        if unwritten && Instant::now() >= last_good.next_write() {
            let shown = shared.snapshots.borrow().clone();
            if let Some(snapshot) = shown.filter(|snapshot| !snapshot.rebuilding) {
                last_good = keep(last_good, snapshot).await;
                unwritten = false;
            }
        }
    }
}

/// What comes together is shown together.
async fn take_more(
    shared: &Shared,
    last_good: &LastGood,
    events: &mut mpsc::Receiver<Event>,
    debounce: Duration,
) -> bool {
    let mut changed = false;
    let longest = Instant::now() + LONGEST_DEBOUNCE;
    while let Ok(Some(event)) =
        tokio::time::timeout_at((Instant::now() + debounce).min(longest), events.recv()).await
    {
        changed |= shared.take(event, last_good);
        if Instant::now() >= longest {
            break;
        }
    }
    changed
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

async fn load(path: Option<PathBuf>, every: Duration) -> LastGood {
    let loading = tokio::task::spawn_blocking(move || {
        let last_good = LastGood::load(path, every);
        // Off the runtime's threads, before anybody asks.
        last_good.recalled();
        last_good
    });
    loading.await.unwrap_or_else(|_| LastGood::load(None, every))
}

/// Off the runtime's threads.
async fn keep(mut last_good: LastGood, snapshot: Arc<crate::node::Snapshot>) -> LastGood {
    let writing = tokio::task::spawn_blocking(move || {
        last_good.keep(&snapshot, Instant::now());
        last_good
    });
    writing.await.unwrap_or_else(|_| LastGood::load(None, LONGEST_PAUSE))
}
