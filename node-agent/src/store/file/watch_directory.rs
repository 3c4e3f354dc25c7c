//! The task that turns the directory into snapshots.
//!
//! Events only wake it, and say by name where to look: among ten thousand files that takes a hundredth of the time. The
//! whole directory is read at the first round, after whatever else has woken it and once in a while, so an event that
//! was lost, a queue that overflowed or a directory that was exchanged costs a delay of at most one rescan. That something is mounted over the
//! directory is no event at all: whether the path still leads to it is asked once in a while.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use inotify::{Event, EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};
use jiff::Timestamp;
use nix::unistd::{AccessFlags, access};
use tokio::time::Instant;

use super::filesystem::{self, Trouble, UnfitDirectory};
use super::home::identity;
use super::scan::{Names, Scanner};
use super::{FileOptions, Kind, Shared};
use crate::node::Snapshot;
use crate::store::last_good::LastGood;
use crate::store::rebuild::Rebuild;

/// However long a scan takes, changes wait no longer than this.
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(1);

/// While the store is filled again it is looked at so often, to see that it is whole.
const REBUILDING_POLL: Duration = Duration::from_millis(200);

/// Makes the directories and tries what claims rest on. The root itself must be there. `shown` is its path for people.
pub(super) fn prepare(root: &Path, shown: &Path, allow_network: bool) -> Result<(), Trouble> {
    if !allow_network {
        refuse_network(root, shown)?;
    }
    for kind in Kind::ALL {
        let directory = root.join(kind.directory());
        match std::fs::create_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists || directory.is_dir() => {}
            Err(error) => return Err(error.into()),
        }
        // Each may be a mount of its own.
        if !allow_network {
            refuse_network(&directory, &shown.join(kind.directory()))?;
        }
    }
    let claims = Kind::Claim.directory();
    filesystem::try_semantics(&root.join(claims), &shown.join(claims))
}

fn refuse_network(path: &Path, shown: &Path) -> Result<(), Trouble> {
    match filesystem::network_filesystem(path)? {
        Some(kind) => Err(UnfitDirectory::Network { path: shown.to_owned(), kind }.into()),
        None => Ok(()),
    }
}

/// Until the store is dropped.
pub(super) async fn run(shared: Arc<Shared>, options: FileOptions, prepared: bool) {
    let mut watcher = Watcher {
        scanner: None,
        watch: None,
        prepared,
        said_that_it_polls: false,
        last_scan: Duration::ZERO,
        last_whole: None,
        rebuild: Rebuild::default(),
        shared,
        options,
    };
    let mut names = None;
    loop {
        watcher.round(names).await;
        names = watcher.wait().await;
    }
}

struct Watcher {
    shared: Arc<Shared>,
    options: FileOptions,
    /// Away while a scan runs; made anew at first, and if that panicked.
    scanner: Option<Scanner>,
    watch: Option<Watch>,
    /// The directories are there and were tried.
    prepared: bool,
    said_that_it_polls: bool,
    last_scan: Duration,
    /// When everything was looked at last.
    last_whole: Option<Instant>,
    rebuild: Rebuild,
}

type Events = EventStream<[u8; 4096]>;

/// Which directory's watch is which.
type Kinds = Vec<(WatchDescriptor, Kind)>;

/// A watch of these very directories, not of others that bear their names now.
struct Watch {
    events: Events,
    kinds: Kinds,
    identities: Vec<Identity>,
}

/// Device and inode of a directory; `None` if it is not there.
type Identity = Option<super::home::Identity>;

/// What a round found.
struct Found {
    prepared: Result<(), Trouble>,
    snapshot: io::Result<Snapshot>,
    writable: io::Result<()>,
    identities: Vec<Identity>,
}

impl Watcher {
    /// Watches first and reads then, so that no change falls between the two. `names`: what may have changed, if no more.
    async fn round(&mut self, names: Option<Names>) {
        let watched = self.watch.is_some();
        if self.watch.is_none() && !self.options.allow_network_filesystem {
            self.watch = self.start_watch();
        }
        let needs_preparation = !self.prepared || self.shared.cannot_write();
        let allow_network = self.options.allow_network_filesystem;
        let scanner = self.scanner.take();
        let (last_good, every) = (self.options.last_good.clone(), self.options.last_good_every);
        let shared = self.shared.clone();
        let began = Instant::now();
        let names = names.filter(|_| watched && scanner.is_some() && !needs_preparation);
        if names.is_none() {
            self.last_whole = Some(began);
        }
        let mut scan = tokio::task::spawn_blocking(move || {
            let mut scanner = scanner.unwrap_or_else(|| Scanner::new(LastGood::load(last_good, every)));
            let found = look(&shared, &mut scanner, names.as_ref(), needs_preparation, allow_network);
            (scanner, found)
        });
        let found = match tokio::time::timeout(self.options.deadline, &mut scan).await {
            Ok(found) => found,
            Err(_) => {
                // The last snapshot stands. A second scan would only hang beside the first.
                self.shared.reading(Err(&super::hangs(self.options.deadline)));
                scan.await
            }
        };
        self.last_scan = began.elapsed();
        match found {
            Ok((scanner, found)) => {
                self.scanner = Some(scanner);
                self.take_in(found, needs_preparation);
            }
            Err(panic) => self.shared.reading(Err(&io::Error::other(panic))),
        }
    }

    fn take_in(&mut self, found: Found, needed_preparation: bool) {
        match found.prepared {
            Ok(()) => {
                self.prepared = found.snapshot.is_ok();
                if needed_preparation || found.writable.is_err() {
                    self.shared.writing(found.writable.as_ref().map(|_| ()));
                }
            }
            Err(Trouble::Unfit(unfit)) => {
                self.prepared = false;
                self.shared.unfit(&unfit);
                return;
            }
            Err(Trouble::Io(error)) => {
                self.prepared = false;
                self.shared.writing(Err(&error));
            }
        }
        if self.watch.as_ref().is_some_and(|watch| watch.identities != found.identities) {
            // Directories were exchanged or made meanwhile: watch those, and read them again.
            self.watch = None;
            self.shared.written.notify_one();
        }
        match found.snapshot {
            Ok(snapshot) => {
                self.shared.reading(Ok(()));
                self.show(snapshot);
            }
            Err(error) => self.shared.reading(Err(&error)),
        }
    }

    fn show(&mut self, mut snapshot: Snapshot) {
        let home = self.shared.records.home();
        let rebuilding = self.rebuild.look(home.own().as_ref(), &snapshot, Instant::now());
        snapshot.rebuilding = rebuilding;
        home.held(&snapshot);
        self.shared.snapshots.send_if_modified(|shown| {
            let last = shown.as_ref().map_or(0, |shown| shown.revision);
            snapshot.revision = last;
            if shown.as_deref() == Some(&snapshot) {
                return false;
            }
            snapshot.revision = last + 1;
            *shown = Some(Arc::new(snapshot));
            true
        });
        if !rebuilding && let Some(shown) = &*self.shared.snapshots.borrow() {
            self.rebuild.remember(shown);
        }
    }

    fn start_watch(&mut self) -> Option<Watch> {
        let root = self.shared.records.root();
        let identities = identities(root);
        match watch(root) {
            Ok((events, kinds)) => {
                if std::mem::take(&mut self.said_that_it_polls) {
                    tracing::info!(path = %root.display(), "changes of the store are watched again");
                }
                Some(Watch { events, kinds, identities })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                if !self.said_that_it_polls {
                    tracing::warn!(path = %root.display(), %error, poll = ?self.options.poll,
                        "changes of the store can't be watched, it is polled; {}", filesystem::watch_advice(&error));
                }
                self.said_that_it_polls = true;
                None
            }
        }
    }

    /// Until something may have changed, and then a little longer, so that what comes together is read together. What may
    /// have changed, if it is known.
    async fn wait(&mut self) -> Option<Names> {
        let usable = self.prepared && !self.shared.cannot_write();
        let mut longest =
            if self.watch.is_some() && usable { self.options.rescan } else { self.options.poll };
        if self.rebuild.is_under_way() {
            longest = longest.min(REBUILDING_POLL);
        }
        let deadline = self.last_whole.unwrap_or_else(Instant::now) + longest;
        let mut names = Names::new();
        let mut next_look = Instant::now() + self.options.poll;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return None,
                () = self.shared.written.notified() => return None,
                () = tokio::time::sleep_until(next_look) => {
                    if self.has_moved().await {
                        return None;
                    }
                    next_look = Instant::now() + self.options.poll;
                },
                seen = next(&mut self.watch) => match seen {
                    Seen::Nothing => {}
                    Seen::Change(kind, name) => {
                        names.entry(kind).or_default().insert(name);
                        break;
                    }
                    Seen::Lost => {
                        self.watch = None;
                        return None;
                    }
                },
            }
        }
        let debounce = self.options.debounce.max(self.last_scan * 2).min(LONGEST_DEBOUNCE);
        tokio::time::sleep(debounce).await;
        while let Some(seen) = next(&mut self.watch).now_or_never() {
            match seen {
                Seen::Nothing => {}
                Seen::Change(kind, name) => drop(names.entry(kind).or_default().insert(name)),
                Seen::Lost => {
                    self.watch = None;
                    return None;
                }
            }
        }
        Some(names).filter(|_| Instant::now() < deadline)
    }

    /// Does the path lead elsewhere than to what is watched? A disk that does not answer is the next round's to tell.
    async fn has_moved(&self) -> bool {
        let Some(watch) = &self.watch else { return false };
        let root = self.shared.records.root().to_owned();
        let look = tokio::task::spawn_blocking(move || identity_of(&root));
        match tokio::time::timeout(self.options.deadline, look).await {
            Ok(Ok(found)) => watch.identities.first() != Some(&found),
            Ok(Err(_)) | Err(_) => true,
        }
    }
}

fn look(
    shared: &Shared,
    scanner: &mut Scanner,
    names: Option<&Names>,
    prepare_it: bool,
    allow_network: bool,
) -> Found {
    let shown = shared.records.root();
    let place = match shared.records.enter() {
        Ok(place) => place,
        Err(error) => {
            return Found {
                prepared: Ok(()),
                snapshot: Err(error),
                writable: Ok(()),
                identities: identities(shown),
            };
        }
    };
    let root = place.path();
    let prepared = if prepare_it { prepare(root, shown, allow_network) } else { Ok(()) };
    // What is refused is not read either.
    let scanned = match prepared {
        Err(Trouble::Unfit(_)) => Err(io::ErrorKind::Unsupported.into()),
        Ok(()) | Err(Trouble::Io(_)) => {
            shared.records.before_scan().and_then(|()| scanner.scan(root, names, Timestamp::now()))
        }
    };
    // A directory that went away meanwhile looks like an emptied one.
    let snapshot = scanned.and_then(|snapshot| shared.records.enter().map(|_| snapshot));
    if let Ok(snapshot) = &snapshot {
        scanner.keep(snapshot);
    }
    // Directories that are missing are made by whoever writes there first: to make them here would race with an
    // operator who is removing them.
    let writable = std::iter::once(root.to_owned())
        .chain(Kind::ALL.iter().map(|kind| root.join(kind.directory())).filter(|path| path.exists()))
        .try_for_each(|path| access(&path, AccessFlags::W_OK))
        .map_err(io::Error::from);
    Found { prepared, snapshot, writable, identities: identities(root) }
}

fn identities(root: &Path) -> Vec<Identity> {
    let below = Kind::ALL.iter().map(|kind| identity_of(&root.join(kind.directory())));
    std::iter::once(identity_of(root)).chain(below).collect()
}

fn identity_of(path: &Path) -> Identity {
    std::fs::metadata(path).ok().map(|metadata| identity(&metadata))
}

/// Attributes are not watched: a node's sign of life wakes nobody.
pub(super) fn watch(root: &Path) -> io::Result<(Events, Kinds)> {
    let gone = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ONLYDIR;
    let names = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
    let inotify = Inotify::init()?;
    inotify.watches().add(root, gone | names)?;
    let mut kinds = Vec::new();
    for kind in Kind::ALL {
        let added = inotify.watches().add(root.join(kind.directory()), gone | names | WatchMask::CLOSE_WRITE);
        match added {
            // Its creation is seen in the root.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => kinds.push((other?, kind)),
        }
    }
    Ok((inotify.into_event_stream([0; 4096])?, kinds))
}

pub(super) enum Seen {
    /// Temporary files and the like.
    Nothing,
    /// A record of this kind and name.
    Change(Kind, String),
    /// What was watched is gone, or events were.
    Lost,
}

/// Never ends without a watch.
async fn next(watch: &mut Option<Watch>) -> Seen {
    match watch {
        None => std::future::pending().await,
        Some(watch) => match watch.events.next().await {
            Some(Ok(event)) => meaning(&watch.kinds, &event),
            Some(Err(_)) | None => Seen::Lost,
        },
    }
}

pub(super) fn meaning(kinds: &[(WatchDescriptor, Kind)], event: &Event<std::ffi::OsString>) -> Seen {
    let name = event.name.as_ref().map(|name| name.to_string_lossy());
    if name.as_ref().is_some_and(|name| name.starts_with('.')) {
        return Seen::Nothing;
    }
    let lost = EventMask::DELETE_SELF
        | EventMask::MOVE_SELF
        | EventMask::UNMOUNT
        | EventMask::IGNORED
        | EventMask::Q_OVERFLOW
        | EventMask::ISDIR;
    if event.mask.intersects(lost) {
        return Seen::Lost;
    }
    // Of the directory itself only what is in `lost` matters: it holds nothing but directories.
    let kind = kinds.iter().find(|(watch, _)| *watch == event.wd).map(|(_, kind)| *kind);
    let name = name.as_ref().and_then(|name| name.strip_suffix(".json"));
    kind.zip(name).map_or(Seen::Nothing, |(kind, name)| Seen::Change(kind, name.to_owned()))
}
