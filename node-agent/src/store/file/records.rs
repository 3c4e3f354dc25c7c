//! The operations on the directory, one function each. All of them block.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::Kind;
use super::home::{Home, Place};
use super::read::{self, Content, Stamp};
use super::write::{Gate, Step, Writer};
use crate::node::{Block, Claim, NodeName, NodeRecord, PoolRecord};
use crate::store::record::{self, Encoding};
use crate::store::{ClaimOutcome, FORGET_RELEASED_AFTER, PoolOutcome, overlap};

/// Held by whoever takes records away, or must look at several before it writes one.
const LOCK: &str = ".lock";

/// Others hold the lock for milliseconds; one that is stopped while it holds it must not stop everybody.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The records of one directory.
pub(super) struct Records {
    home: Home,
    encoding: Encoding,
    writer: Writer,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("home", &self.home).finish_non_exhaustive()
    }
}

impl Records {
    pub(super) fn new(root: PathBuf, encoding: Encoding, gate: Option<Gate>) -> Self {
        Self { home: Home::new(root), encoding, writer: Writer::new(gate) }
    }

    /// The directory as it was configured.
    pub(super) fn root(&self) -> &Path {
        self.home.path()
    }

    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    /// The directory itself, for as long as the value lives.
    pub(super) fn enter(&self) -> io::Result<Place> {
        self.home.enter()
    }

    /// Before the directory is read.
    pub(super) fn before_scan(&self) -> io::Result<()> {
        self.writer.before(Step::Scan)
    }

    /// Does one operation in the directory.
    fn within<T>(&self, work: impl FnOnce(&Open<'_>) -> io::Result<T>) -> io::Result<T> {
        let place = self.enter()?;
        let open = Open { records: self, root: place.path() };
        work(&open).map_err(|error| self.home.named(error, &place))
    }

    pub(super) fn publish(&self, record: &NodeRecord) -> io::Result<()> {
        self.home.belongs_to(&record.name);
        self.within(|open| open.publish(record))
    }

    /// Sets the time stamps alone, which wakes no watch of ours.
    pub(super) fn touch(&self, node: &NodeName) -> io::Result<()> {
        self.within(|open| open.touch(node))
    }

    pub(super) fn last_seen(&self, node: &NodeName) -> io::Result<Option<Timestamp>> {
        self.within(|open| Ok(read::stamp(&open.path(Kind::Node, node.as_str()))?.map(Stamp::modified)))
    }

    pub(super) fn claim(&self, claim: &Claim) -> io::Result<ClaimOutcome> {
        is_held(claim)?;
        self.within(|open| open.claim(claim))
    }

    pub(super) fn mend_claim(&self, claim: &Claim) -> io::Result<ClaimOutcome> {
        is_held(claim)?;
        self.within(|open| open.mend_claim(claim))
    }

    pub(super) fn release(&self, block: Block, holder: &NodeName, now: Timestamp) -> io::Result<bool> {
        self.within(|open| open.release(block, holder, now))
    }

    pub(super) fn remove_node(&self, node: &NodeName, now: Timestamp) -> io::Result<bool> {
        self.within(|open| open.remove_node(node, now))
    }

    pub(super) fn ensure_pool(&self, pool: &PoolRecord) -> io::Result<PoolOutcome> {
        self.within(|open| open.ensure_pool(pool))
    }

    pub(super) fn remove_pool(&self, cidr: IpNet) -> io::Result<bool> {
        self.within(|open| open.remove_pool(cidr))
    }
}

fn is_held(claim: &Claim) -> io::Result<()> {
    match claim.holder {
        Some(_) => Ok(()),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "a claim without a holder can't be made")),
    }
}

/// The records, in a directory that was entered.
struct Open<'a> {
    records: &'a Records,
    root: &'a Path,
}

impl Open<'_> {
    fn publish(&self, record: &NodeRecord) -> io::Result<()> {
        let directory = self.directory(Kind::Node)?;
        let name = file_name(record.name.as_str());
        let stored = match read::record(&directory.join(&name))? {
            Content::Bytes(bytes, _) => Some(bytes),
            Content::Absent | Content::Unfit(..) => None,
        };
        let content = self.records.encoding.node(record, stored.as_deref());
        if stored.as_ref() == Some(&content) {
            self.touch(&record.name)
        } else {
            self.records.writer.replace(&directory, &name, &content)
        }
    }

    fn touch(&self, node: &NodeName) -> io::Result<()> {
        let path = self.path(Kind::Node, node.as_str());
        let now = &TimeSpec::UTIME_NOW;
        Ok(utimensat(AT_FDCWD, &path, now, now, UtimensatFlags::NoFollowSymlink)?)
    }

    fn claim(&self, claim: &Claim) -> io::Result<ClaimOutcome> {
        let directory = self.directory(Kind::Claim)?;
        let name = file_name(&claim.block.record_name());
        let content = self.records.encoding.claim(claim);
        // Between a creation that failed and the look at who was first, the claim may be released.
        for _ in 0..8 {
            match self.holder(claim.block)? {
                Held::Free => {}
                Held::By(holder) if claim.holder.as_ref() == Some(&holder) => {
                    // Perhaps by ourselves in an earlier life that ended before this line.
                    self.records.writer.sync_directory(&directory)?;
                    self.forget_release(claim.block);
                    return Ok(ClaimOutcome::Claimed);
                }
                Held::By(holder) => return Ok(ClaimOutcome::TakenBy(Some(holder))),
                Held::ByNameAlone => return Ok(ClaimOutcome::TakenBy(None)),
            }
            // The name excludes the same block alone; blocks of another length are excluded by looking.
            let _lock = self.lock()?;
            if let Some(holder) = self.overlapping(claim)? {
                return Ok(ClaimOutcome::TakenBy(holder));
            }
            if self.records.writer.create(&directory, &name, &content)? {
                self.forget_release(claim.block);
                return Ok(ClaimOutcome::Claimed);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "the claim comes and goes; try again"))
    }

    /// Who else holds a part of the block, or a block around it; `Some(None)` if the record can't be read.
    fn overlapping(&self, claim: &Claim) -> io::Result<Option<Option<NodeName>>> {
        for stem in self.stems(Kind::Claim)? {
            let Some(other) = Block::from_record_name(&stem) else { continue };
            if other == claim.block || !overlap(other.net(), claim.block.net()) {
                continue;
            }
            match self.holder(other)? {
                Held::By(holder) if claim.holder.as_ref() != Some(&holder) => return Ok(Some(Some(holder))),
                Held::ByNameAlone => return Ok(Some(None)),
                Held::By(_) | Held::Free => {}
            }
        }
        Ok(None)
    }

    fn mend_claim(&self, claim: &Claim) -> io::Result<ClaimOutcome> {
        {
            let _lock = self.lock()?;
            if matches!(self.holder(claim.block)?, Held::ByNameAlone) {
                let name = file_name(&claim.block.record_name());
                let content = self.records.encoding.claim(claim);
                self.records.writer.replace(&self.directory(Kind::Claim)?, &name, &content)?;
                return Ok(ClaimOutcome::Claimed);
            }
        }
        self.claim(claim)
    }

    fn release(&self, block: Block, holder: &NodeName, now: Timestamp) -> io::Result<bool> {
        let _lock = self.lock()?;
        let is_theirs = matches!(self.holder(block)?, Held::By(name) if name == *holder);
        if is_theirs {
            self.release_locked(block, now)?;
        }
        Ok(is_theirs)
    }

    fn remove_node(&self, node: &NodeName, now: Timestamp) -> io::Result<bool> {
        let _lock = self.lock()?;
        let mut any = false;
        for stem in self.stems(Kind::Claim)? {
            let Some(block) = Block::from_record_name(&stem) else { continue };
            if matches!(self.holder(block)?, Held::By(name) if name == *node) {
                self.release_locked(block, now)?;
                any = true;
            }
        }
        // Last: as long as the record stands, an interrupted removal can be seen and done again.
        any |= self.records.writer.remove(&self.directory(Kind::Node)?, &file_name(node.as_str()))?;
        Ok(any)
    }

    fn ensure_pool(&self, pool: &PoolRecord) -> io::Result<PoolOutcome> {
        let directory = self.directory(Kind::Pool)?;
        let stem = Block::new(pool.cidr).record_name();
        if let Some(outcome) = self.stored_pool(pool)? {
            return Ok(outcome);
        }
        let _lock = self.lock()?;
        let others = self.stems(Kind::Pool)?.into_iter().filter_map(|other| Block::from_record_name(&other));
        if let Some(other) =
            others.map(Block::net).find(|other| *other != pool.cidr && overlap(*other, pool.cidr))
        {
            return Ok(PoolOutcome::Overlaps(other));
        }
        self.records.writer.create(&directory, &file_name(&stem), &self.records.encoding.pool(pool))?;
        match self.stored_pool(pool)? {
            Some(outcome) => Ok(outcome),
            None => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "the pool's record comes and goes; try again",
            )),
        }
    }

    /// What takes the last claim away and what looks for claims exclude each other.
    fn remove_pool(&self, cidr: IpNet) -> io::Result<bool> {
        let _lock = self.lock()?;
        let claimed = self.stems(Kind::Claim)?.into_iter().filter_map(|stem| Block::from_record_name(&stem));
        // By its name alone, whatever the content.
        if claimed.into_iter().any(|block| overlap(block.net(), cidr)) {
            return Ok(false);
        }
        self.records
            .writer
            .remove(&self.directory(Kind::Pool)?, &file_name(&Block::new(cidr).record_name()))?;
        Ok(true)
    }

    fn stored_pool(&self, pool: &PoolRecord) -> io::Result<Option<PoolOutcome>> {
        let path = self.path(Kind::Pool, &Block::new(pool.cidr).record_name());
        let unreadable =
            |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("it stands there but {why}"));
        match read::record(&path)? {
            Content::Absent => Ok(None),
            Content::Unfit(why, _) => Err(unreadable(why)),
            Content::Bytes(bytes, _) => {
                let stored =
                    record::pool(pool.cidr, &bytes).map_err(|error| unreadable(error.to_string()))?;
                let prefix = stored.record.block_prefix;
                let agrees = prefix == pool.block_prefix;
                Ok(Some(if agrees { PoolOutcome::Agreed } else { PoolOutcome::BlockPrefixDiffers(prefix) }))
            }
        }
    }

    fn holder(&self, block: Block) -> io::Result<Held> {
        match read::record(&self.path(Kind::Claim, &block.record_name()))? {
            Content::Absent => Ok(Held::Free),
            Content::Unfit(..) => Ok(Held::ByNameAlone),
            Content::Bytes(bytes, _) => {
                let holder = record::claim(block, &bytes).ok().and_then(|decoded| decoded.record.holder);
                Ok(holder.map_or(Held::ByNameAlone, Held::By))
            }
        }
    }

    /// The release is remembered before the claim goes: a crash between the two leaves a claim, which wins.
    fn release_locked(&self, block: Block, now: Timestamp) -> io::Result<()> {
        let name = file_name(&block.record_name());
        let released = self.directory(Kind::Released)?;
        self.records.writer.replace(&released, &name, &self.records.encoding.released(block, now))?;
        self.records.writer.remove(&self.directory(Kind::Claim)?, &name)?;
        self.forget_old_releases(now)
    }

    fn forget_old_releases(&self, now: Timestamp) -> io::Result<()> {
        for stem in self.stems(Kind::Released)? {
            let Some(block) = Block::from_record_name(&stem) else { continue };
            let path = self.path(Kind::Released, &stem);
            let at = match read::record(&path)? {
                Content::Absent => continue,
                Content::Bytes(bytes, stamp) => match record::released(block, &bytes) {
                    Ok(decoded) => decoded.record,
                    Err(_) => stamp.modified(),
                },
                Content::Unfit(_, stamp) => stamp.modified(),
            };
            if now.duration_since(at) >= FORGET_RELEASED_AFTER {
                self.records.writer.remove(&self.directory(Kind::Released)?, &file_name(&stem))?;
            }
        }
        Ok(())
    }

    /// A claim makes the memory of a release pointless. If it stays, nothing is wrong: the claim wins.
    fn forget_release(&self, block: Block) {
        let name = file_name(&block.record_name());
        let path = self.root.join(Kind::Released.directory());
        if path.join(&name).exists()
            && let Err(error) = self.records.writer.remove(&path, &name)
        {
            tracing::debug!(%block, %error, "the memory of an earlier release can't be removed");
        }
    }

    fn stems(&self, kind: Kind) -> io::Result<Vec<String>> {
        let mut stems = BTreeMap::new();
        let entries = match std::fs::read_dir(self.root.join(kind.directory())) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            if let Some(stem) = entry?.file_name().to_string_lossy().strip_suffix(".json") {
                stems.insert(stem.to_owned(), ());
            }
        }
        Ok(stems.into_keys().collect())
    }

    /// The directory of a kind, made if need be. Its parent is not: if that is away, something is amiss.
    fn directory(&self, kind: Kind) -> io::Result<PathBuf> {
        let path = self.root.join(kind.directory());
        match std::fs::create_dir(&path) {
            Ok(()) => self.records.writer.sync_directory(self.root)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists || path.is_dir() => {}
            Err(error) => return Err(error),
        }
        Ok(path)
    }

    fn path(&self, kind: Kind, stem: &str) -> PathBuf {
        self.root.join(kind.directory()).join(file_name(stem))
    }

    /// The kernel takes the lock back when its holder dies.
    fn lock(&self) -> io::Result<File> {
        // Whatever stands in its place must not make this wait, nor lead elsewhere.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true).custom_flags(flags.bits());
        let file = options.open(self.root.join(LOCK))?;
        for _ in 0..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        let text =
            format!("{} is held by another process; end it if it hangs", self.root.join(LOCK).display());
        Err(io::Error::new(io::ErrorKind::ResourceBusy, text))
    }
}

enum Held {
    Free,
    By(NodeName),
    ByNameAlone,
}

fn file_name(stem: &str) -> String {
    format!("{stem}.json")
}
