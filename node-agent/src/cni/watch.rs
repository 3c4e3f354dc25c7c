//! Notices what others do to the files for CNI plugins: their folders are watched, as an editor or an installer renames a
//! new file into place.
//!
//! What is heard says "look again" and nothing more. A folder that is not there, or whose parent is moved, is not watched:
//! then the pass that comes anyway finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::time::{Instant, sleep_until};

use super::Places;

/// Somebody who changes a file all the time is answered so often at most.
const BETWEEN: Duration = Duration::from_millis(250);
/// Room for some ten events.
const BUFFER: usize = 4096;

/// A watch over files, and over nothing at first.
#[derive(Default)]
pub struct Watch {
    events: Option<EventStream<Vec<u8>>>,
    folders: BTreeMap<PathBuf, WatchDescriptor>,
    names: BTreeSet<OsString>,
    /// Something was heard that has not been said yet.
    heard: bool,
    /// When it may be said.
    not_before: Option<Instant>,
    trouble: Option<io::ErrorKind>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("folders", &self.folders).finish_non_exhaustive()
    }
}

impl Watch {
    /// Watches these files from now on. Whether a folder is among them that was not watched before: what happened there
    /// until now is unknown.
    pub fn follow(&mut self, places: &Places) -> bool {
        self.names = places.values().filter_map(|path| path.file_name().map(Into::into)).collect();
        let wanted: BTreeSet<&Path> = places.values().filter_map(|path| path.parent()).collect();
        if wanted.is_empty() {
            *self = Self::default();
            return false;
        }
        self.forget(|folder, _| !wanted.contains(folder.as_path()));
        let missing = wanted.into_iter().filter(|folder| !self.folders.contains_key(*folder));
        let missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        let mut added = false;
        for folder in missing {
            match self.add(&folder) {
                Ok(descriptor) => {
                    self.folders.insert(folder, descriptor);
                    self.trouble = None;
                    added = true;
                }
                // It is made with the file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => (),
                Err(error) => {
                    if self.trouble != Some(error.kind()) {
                        tracing::warn!(
                            folder = %folder.display(),
                            %error,
                            "can't watch the folder of a file for CNI plugins: what others do there is found later"
                        );
                    }
                    self.trouble = Some(error.kind());
                }
            }
        }
        added
    }

    /// Waits until one of the files may have changed. Cancel-safe: what was heard is kept until it is said.
    pub async fn changed(&mut self) {
        loop {
            if self.heard {
                if let Some(not_before) = self.not_before {
                    sleep_until(not_before).await;
                }
                self.heard = false;
                self.not_before = Some(Instant::now() + BETWEEN);
                return;
            }
            let Some(events) = &mut self.events else { return std::future::pending().await };
            match events.next().await {
                Some(Ok(event)) => self.hear(&event),
                // The next pass watches anew.
                Some(Err(_)) | None => {
                    self.events = None;
                    self.folders.clear();
                    self.heard = true;
                }
            }
        }
    }

    fn hear(&mut self, event: &EventOwned) {
        let gone = EventMask::IGNORED | EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT;
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            self.heard = true;
        } else if self.folders.values().any(|descriptor| *descriptor == event.wd) {
            let gone = event.mask.intersects(gone);
            self.heard |= gone || event.name.as_ref().is_some_and(|name| self.names.contains(name));
            if gone {
                self.forget(|_, descriptor| *descriptor == event.wd);
            }
        }
    }

    fn add(&mut self, folder: &Path) -> io::Result<WatchDescriptor> {
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let events = match self.events.take() {
            Some(events) => events,
            None => Inotify::init()?.into_event_stream(vec![0; BUFFER])?,
        };
        self.events.insert(events).watches().add(folder, mask)
    }

    fn forget(&mut self, unwanted: impl Fn(&PathBuf, &WatchDescriptor) -> bool) {
        let mut watches = self.events.as_ref().map(EventStream::watches);
        self.folders.retain(|folder, descriptor| {
            let gone = unwanted(folder, descriptor);
            if gone && let Some(watches) = &mut watches {
                // One whose folder is gone has ended by itself.
                let _ = watches.remove(descriptor.clone());
            }
            !gone
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use tokio::time::timeout;

    use super::super::Kind;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn places(folder: &Path) -> Places {
        [(Kind::Conflist, folder.join("10-pairway.conflist")), (Kind::SubnetEnv, folder.join("subnet.env"))]
            .into()
    }

    async fn heard(watch: &mut Watch, what: &str) {
        timeout(PATIENCE, watch.changed()).await.unwrap_or_else(|_| panic!("{what} is not heard"));
    }

    #[tokio::test]
    async fn whatever_is_done_to_a_file_is_heard() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("net.d");
        let places = places(&folder);
        let path = &places[&Kind::Conflist];
        let mut watch = Watch::default();
        assert!(!watch.follow(&places), "there is no such folder");
        fs::create_dir(&folder).unwrap();
        assert!(watch.follow(&places));
        assert!(!watch.follow(&places), "it is watched already");

        fs::write(path, "theirs").unwrap();
        heard(&mut watch, "a file that is written").await;
        fs::remove_file(path).unwrap();
        heard(&mut watch, "a file that is removed").await;
        fs::create_dir(path).unwrap();
        heard(&mut watch, "a folder in its place").await;
        fs::rename(path, folder.join("elsewhere")).unwrap();
        heard(&mut watch, "it is moved away").await;
        fs::write(folder.join("new"), "theirs").unwrap();
        fs::rename(folder.join("new"), &places[&Kind::SubnetEnv]).unwrap();
        heard(&mut watch, "a file that is moved there").await;
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        // What was in the folder goes first, then the folder, then the watch.
        while !watch.follow(&places) {
            heard(&mut watch, "its folder is removed").await;
        }
        fs::write(path, "theirs").unwrap();
        heard(&mut watch, "the file in the new folder").await;
    }

    /// Files of others in the same folder are no reason, and one who writes ours all the time is heard now and then.
    #[tokio::test]
    async fn it_is_not_said_more_often_than_needed() {
        let root = tempfile::tempdir().unwrap();
        let places = places(root.path());
        let path = places[&Kind::Conflist].clone();
        let mut watch = Watch::default();
        watch.follow(&places);
        for number in 0..100 {
            fs::write(root.path().join(format!("{number}.conflist")), "theirs").unwrap();
        }
        // The queue has an order: were they a reason, they would be heard before this one.
        fs::write(&path, "theirs").unwrap();
        heard(&mut watch, "ours among theirs").await;
        let began = Instant::now();
        let writer = thread::spawn(move || {
            for _ in 0..2_000 {
                fs::write(&path, "theirs").unwrap();
            }
        });
        let mut times = 0_u32;
        while timeout(2 * BETWEEN, watch.changed()).await.is_ok() {
            times += 1;
        }
        writer.join().unwrap();
        assert!(times > 0, "the positive control");
        let most = began.elapsed().as_millis() / BETWEEN.as_millis() + 1;
        assert!(u128::from(times) <= most, "{times} times in {:?}", began.elapsed());
    }

    #[tokio::test]
    async fn nothing_to_watch_is_nothing_to_hear() {
        let root = tempfile::tempdir().unwrap();
        let places = places(root.path());
        let mut watch = Watch::default();
        watch.follow(&places);
        fs::write(&places[&Kind::Conflist], "theirs").unwrap();
        heard(&mut watch, "as long as it is wanted").await;
        assert!(!watch.follow(&Places::new()));
        fs::write(&places[&Kind::Conflist], "theirs").unwrap();
        assert!(timeout(2 * BETWEEN, watch.changed()).await.is_err());
    }
}
