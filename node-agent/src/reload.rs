//! Changes of the configuration while the agent runs: when to read the file again, and what of it to take over.
//!
//! A file is taken over as a whole or not at all: half a file is nobody's intention. What can't change while
//! the agent runs is refused with the key and what to do, and the running configuration stays.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{ChangeMode, Config, KeyChange};
use futures_util::StreamExt;
use inotify::{EventMask, Inotify, WatchMask};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::claims;
use crate::node::{Block, Snapshot};

/// Editors and ConfigMaps change a file in several steps: it is read when they have been quiet for so long.
const QUIET: Duration = Duration::from_millis(100);
/// A folder that can't be watched (it was removed, or the system has no watch left) is tried again.
const WATCH_AGAIN: Duration = Duration::from_secs(10);

/// Reads the configuration of this node anew: `Err` is the text for people, every mistake with its place.
pub type LoadConfig = Box<dyn Fn() -> Result<Config, String> + Send>;

/// Where the configuration comes from.
pub struct ConfigSource {
    /// Reads it.
    pub load: LoadConfig,
    /// Says that it may have changed.
    pub wakes: mpsc::Receiver<()>,
}

impl std::fmt::Debug for ConfigSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigSource").finish_non_exhaustive()
    }
}

/// A change that is not taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the changed configuration is not taken over: {}", reasons.join("; "))]
pub struct Refused {
    /// One sentence per key.
    pub reasons: Vec<String>,
}

/// What changes from `old` to `new`, if a running agent can take it over.
///
/// # Errors
/// The keys that it can't take over, and what to do about each.
pub fn take_over(
    old: &Config,
    new: &Config,
    snapshot: Option<&Snapshot>,
    held: &[Block],
) -> Result<Vec<KeyChange>, Refused> {
    let changes = old.changes(new);
    let mut reasons: Vec<String> = changes
        .iter()
        .filter_map(|change| match &change.mode {
            ChangeMode::Live => None,
            ChangeMode::Restart => Some(format!(
                "{} changes from {} to {} only when the agent starts again: restart it",
                change.key, change.from, change.to
            )),
            ChangeMode::Refused(why) => Some(format!("{} can't change: {why}", change.key)),
        })
        .collect();
    // Before the store has answered, this node's own blocks are all that is known.
    let nothing = Snapshot::default();
    reasons.extend(claims::refused_changes(snapshot.unwrap_or(&nothing), held, &old.pools, &new.pools));
    if reasons.is_empty() { Ok(changes) } else { Err(Refused { reasons }) }
}

/// Watches a file and the signal SIGHUP until `stop`, or until nobody listens. The folder is watched, not the
/// file: an editor renames a new file into place, and a ConfigMap swaps a symbolic link beside it.
///
/// # Errors
/// The signal can't be received.
pub async fn watch(file: PathBuf, wakes: mpsc::Sender<()>, stop: CancellationToken) -> io::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut buffer = [0; 4096];
    while !stop.is_cancelled() {
        let watched = watched(folder);
        if let Err(error) = &watched {
            tracing::warn!(folder = %folder.display(), %error, "can't watch the configuration's folder; SIGHUP still works");
        }
        let mut events = watched.and_then(|inotify| inotify.into_event_stream(&mut buffer)).ok();
        loop {
            let next = async {
                match &mut events {
                    Some(events) => events.next().await,
                    None => {
                        tokio::time::sleep(WATCH_AGAIN).await;
                        None
                    }
                }
            };
            // Each arm only receives. An event that is lost with a cancelled `next` is no loss: events say "look
            // again" and the file is read whole.
            let seen = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangups.recv() => Seen::Signal,
                event = next => match event {
                    // The folder itself is gone, and the watch with it.
                    Some(Ok(event)) if event.mask.contains(EventMask::IGNORED) => Seen::End,
                    Some(Ok(_)) => Seen::Event,
                    Some(Err(_)) | None => Seen::End,
                },
            };
            if matches!(seen, Seen::Event) {
                tokio::time::sleep(QUIET).await;
            }
            // A full channel holds a wake already.
            if let Err(mpsc::error::TrySendError::Closed(())) = wakes.try_send(()) {
                return Ok(());
            }
            if matches!(seen, Seen::End) {
                break;
            }
        }
    }
    Ok(())
}

enum Seen {
    Signal,
    Event,
    End,
}

fn watched(folder: &Path) -> io::Result<Inotify> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_TO
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::ONLYDIR;
    inotify.watches().add(folder, mask)?;
    Ok(inotify)
}

/// The wakes of a file, and the task that makes them: the caller runs it beside the agent.
pub fn watch_file(
    file: &Path,
    stop: CancellationToken,
) -> (mpsc::Receiver<()>, impl Future<Output = io::Result<()>> + Send + use<>) {
    let (sender, wakes) = mpsc::channel(1);
    (wakes, watch(file.to_owned(), sender, stop))
}

#[cfg(test)]
mod tests;
