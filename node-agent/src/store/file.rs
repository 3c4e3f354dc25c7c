//! A directory as a store: for the agents of one machine, or of a lab that mounts it into each node.
//!
//! ```text
//! nodes/NAME.json      node records         claims/BLOCK.json    claims, named after the block
//! pools/CIDR.json      pool records         released/BLOCK.json  blocks that were given back, and when
//! ```
//!
//! The directory is the only truth. A claim is link(2) of a whole temporary file to the block's name, so the
//! filesystem's own uniqueness is the lock. Whatever takes a claim away holds the lock file, so that what was
//! read is still there when it is removed. A sign of life is the time stamp of the node's file, which the watch
//! does not look at. The directory is known by device and inode (`home`): a mount that goes or comes while the
//! agent runs makes the store unavailable, and never a new one. All work on the filesystem happens off the runtime's threads.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use self::filesystem::Trouble;
pub use self::filesystem::UnfitDirectory;
use self::records::Records;
use super::kind::Kind;
use super::record::Encoding;
use super::{ClaimOutcome, Health, PoolOutcome, Store, StoreError, StoreTrouble};
use crate::node::{Block, Claim, NodeName, NodeRecord, PoolRecord, Snapshot};

mod filesystem;
mod home;
pub(crate) mod peek;
mod read;
mod records;
mod scan;
mod watch_directory;
mod write;

/// How the directory is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// Use a network filesystem all the same; it is polled.
    pub allow_network_filesystem: bool,
    /// Everything is read again this often even if no change was seen.
    pub rescan: Duration,
    /// The same where changes can't be seen, and while the directory can't be used.
    pub poll: Duration,
    /// Changes that come within this time are read together.
    pub debounce: Duration,
    /// An operation that takes longer has failed: the disk hangs.
    pub deadline: Duration,
    /// How records are written.
    pub encoding: Encoding,
    /// Where the last good content of records is kept for the next start; `None` keeps it for this run only.
    pub last_good: Option<PathBuf>,
    /// How often that is written, at most.
    pub last_good_every: Duration,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            allow_network_filesystem: false,
            rescan: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            debounce: Duration::from_millis(20),
            deadline: Duration::from_secs(10),
            encoding: Encoding::default(),
            last_good: None,
            last_good_every: Duration::from_secs(60),
        }
    }
}

/// A store in a directory. Dropping it ends its watch.
#[derive(Debug)]
pub struct FileStore {
    shared: Arc<Shared>,
    deadline: Duration,
    /// Owns the task that watches.
    _watch: JoinSet<()>,
}

/// What the operations and the watch have in common.
#[derive(Debug)]
struct Shared {
    records: Records,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    health: watch::Sender<Health>,
    troubles: Mutex<Troubles>,
    /// Something was written: look at once.
    written: Notify,
}

/// What does not work. Reading and writing fail and mend independently.
#[derive(Debug, Default)]
struct Troubles {
    reading: Option<StoreTrouble>,
    writing: Option<StoreTrouble>,
}

/// Is there a directory that has been a store? Only looks.
#[must_use]
pub fn holds_records(path: &Path) -> bool {
    Kind::ALL.iter().any(|kind| path.join(kind.directory()).is_dir())
}

/// Does the directory have a record of this node, or claims of one of these blocks? Only looks.
#[must_use]
pub fn knows(path: &Path, node: &NodeName, blocks: &[Block]) -> bool {
    let has = |kind: Kind, stem: &str| path.join(kind.directory()).join(format!("{stem}.json")).exists();
    has(Kind::Node, node.as_str()) || blocks.iter().any(|block| has(Kind::Claim, &block.record_name()))
}

impl FileStore {
    /// Opens the store, making the directory if need be, and begins to watch it.
    ///
    /// Fails only if the directory can never be a store. If it can't be used now (read-only, full, not mounted), the
    /// store says so in its health and goes on trying.
    pub async fn open(path: impl Into<PathBuf>, options: FileOptions) -> Result<Self, UnfitDirectory> {
        Self::open_with(path.into(), options, None).await
    }

    async fn open_with(
        path: PathBuf,
        options: FileOptions,
        gate: Option<write::Gate>,
    ) -> Result<Self, UnfitDirectory> {
        let shared = Arc::new(Shared {
            records: Records::new(path.clone(), options.encoding, gate),
            snapshots: watch::Sender::new(None),
            health: watch::Sender::new(Ok(())),
            troubles: Mutex::default(),
            written: Notify::new(),
        });
        let allow_network = options.allow_network_filesystem;
        let preparing = shared.clone();
        let preparation = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&path).map_err(|error| not_a_directory(&path, error))?;
            let place = preparing.records.enter()?;
            watch_directory::prepare(place.path(), &path, allow_network)
        });
        let prepared = match tokio::time::timeout(options.deadline, preparation).await {
            Ok(prepared) => prepared.unwrap_or_else(|panic| Err(Trouble::Io(io::Error::other(panic)))),
            Err(_) => Err(Trouble::Io(hangs(options.deadline))),
        };
        let prepared = match prepared {
            Ok(()) => true,
            Err(Trouble::Unfit(unfit)) => return Err(unfit),
            Err(Trouble::Io(error)) => {
                shared.writing(Err(&error));
                false
            }
        };
        let deadline = options.deadline;
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_directory::run(shared.clone(), options, prepared));
        Ok(Self { shared, deadline, _watch: tasks })
    }

    /// Does blocking work within the deadline; what comes of it is this store's health.
    async fn operation<T: Send + 'static>(
        &self,
        operation: &'static str,
        record: String,
        work: impl FnOnce(&Records) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || work(&shared.records));
        let result = match tokio::time::timeout(self.deadline, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(io::Error::other(panic)),
            Err(_) => Err(hangs(self.deadline)),
        };
        if let Err(error) = &result {
            if home::is_away(error) {
                self.shared.reading(Err(error));
                self.shared.written.notify_one();
            } else if is_of_the_store(error) {
                self.shared.writing(Err(error));
            }
        }
        result.map_err(|source| StoreError { operation, record, source: Box::new(source) })
    }

    /// The same for what writes: the watch looks at once, also whether a trouble is over.
    async fn change<T: Send + 'static>(
        &self,
        operation: &'static str,
        record: String,
        work: impl FnOnce(&Records) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let result = self.operation(operation, record, work).await;
        self.shared.written.notify_one();
        result
    }
}

fn hangs(deadline: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {deadline:?}: the disk hangs"))
}

fn not_a_directory(path: &Path, error: io::Error) -> Trouble {
    let is_other = path.exists() && !path.is_dir();
    if is_other { UnfitDirectory::NotADirectory { path: path.to_owned() }.into() } else { error.into() }
}

/// Errors that are about the record, not about the disk, leave the store healthy. (That the whole directory is
/// missing is found by the watch.)
fn is_of_the_store(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, NotFound, ResourceBusy};
    !matches!(error.kind(), InvalidData | InvalidInput | NotFound | ResourceBusy)
}

impl Shared {
    fn reading(&self, result: Result<(), &io::Error>) {
        let trouble = result.err().map(|error| self.told(error));
        self.trouble(|troubles| troubles.reading = trouble);
    }

    fn writing(&self, result: Result<(), &io::Error>) {
        let trouble = result.err().map(|error| self.told(error));
        self.trouble(|troubles| troubles.writing = trouble);
    }

    fn told(&self, error: &io::Error) -> StoreTrouble {
        let detached = home::is_away(error);
        let text = if detached { error.to_string() } else { filesystem::advice(self.records.root(), error) };
        StoreTrouble { text, detached }
    }

    fn unfit(&self, unfit: &UnfitDirectory) {
        self.trouble(|troubles| troubles.reading = Some(unfit.to_string().into()));
    }

    fn cannot_write(&self) -> bool {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).writing.is_some()
    }

    fn trouble(&self, change: impl FnOnce(&mut Troubles)) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut troubles);
        let health = match troubles.reading.as_ref().or(troubles.writing.as_ref()) {
            Some(trouble) => Err(trouble.clone()),
            None => Ok(()),
        };
        self.health.send_if_modified(|shown| {
            let is_new = *shown != health;
            if is_new {
                *shown = health;
            }
            is_new
        });
    }
}

#[async_trait]
impl Store for FileStore {
    fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.shared.snapshots.subscribe()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    async fn publish(&self, record: &NodeRecord) -> Result<(), StoreError> {
        let record = record.clone();
        let name = Kind::Node.record(record.name.as_str());
        self.change("publish", name, move |records| records.publish(&record)).await
    }

    async fn heartbeat(&self, node: &NodeName) -> Result<(), StoreError> {
        let (name, node) = (Kind::Node.record(node.as_str()), node.clone());
        self.operation("touch", name, move |records| records.touch(&node)).await
    }

    async fn last_seen(&self, node: &NodeName) -> Result<Option<Timestamp>, StoreError> {
        let (name, node) = (Kind::Node.record(node.as_str()), node.clone());
        self.operation("look at", name, move |records| records.last_seen(&node)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        let claim = claim.clone();
        let name = Kind::Claim.record(&claim.block.record_name());
        self.change("claim", name, move |records| records.claim(&claim)).await
    }

    async fn release(&self, block: Block, holder: &NodeName) -> Result<bool, StoreError> {
        let (name, holder) = (Kind::Claim.record(&block.record_name()), holder.clone());
        self.change("release", name, move |records| records.release(block, &holder, Timestamp::now())).await
    }

    async fn mend_claim(&self, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        let claim = claim.clone();
        let name = Kind::Claim.record(&claim.block.record_name());
        self.change("mend", name, move |records| records.mend_claim(&claim)).await
    }

    async fn ensure_pool(&self, pool: &PoolRecord) -> Result<PoolOutcome, StoreError> {
        let pool = pool.clone();
        let name = Kind::Pool.record(&Block::new(pool.cidr).record_name());
        self.change("create", name, move |records| records.ensure_pool(&pool)).await
    }

    async fn remove_pool(&self, cidr: IpNet) -> Result<bool, StoreError> {
        let name = Kind::Pool.record(&Block::new(cidr).record_name());
        self.change("remove", name, move |records| records.remove_pool(cidr)).await
    }

    async fn remove_node(&self, node: &NodeName) -> Result<bool, StoreError> {
        let (name, node) = (Kind::Node.record(node.as_str()), node.clone());
        self.change("remove", name, move |records| records.remove_node(&node, Timestamp::now())).await
    }
}

#[cfg(test)]
mod tests;
