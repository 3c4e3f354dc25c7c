//! Reads the directory into a snapshot; what did not change is not read again.
//!
//! Level-triggered: nothing here believes events. Where they say which names may have changed, those alone are looked at,
//! as they are then; everything is looked at once in a while. A record that can't be read keeps its last good content for as
//! long as something stands under its name (DESIGN, invariant 14), over restarts too ([`LastGood`]).

use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::read::{self, Content, Stamp};
use super::{Kind, write};
use crate::node::{Block, Claim, NodeName, NodeRecord, PoolRecord, Snapshot, Words};
use crate::store::last_good::LastGood;
use crate::store::record::{self, Decoded, RecordError};
use crate::store::snapshot::{Standing, snapshot};

/// A temporary file older than this is nobody's any more.
const LEFTOVER_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// A file that changed less than this long ago may change again with the same time stamp.
const STAMP_GRANULARITY: SignedDuration = SignedDuration::from_secs(2);

/// Names of records that may have changed, without `.json`.
pub(super) type Names = BTreeMap<Kind, BTreeSet<String>>;

/// What was read, and of what.
#[derive(Debug)]
pub(super) struct Scanner {
    nodes: Table<NodeName, Arc<NodeRecord>>,
    claims: Table<Block, Claim>,
    pools: Table<IpNet, PoolRecord>,
    released: Table<Block, Timestamp>,
    last_good: LastGood,
}

/// The records of one kind, by file name.
#[derive(Debug)]
struct Table<K, R> {
    rows: BTreeMap<Box<str>, Row<K, R>>,
}

#[derive(Debug)]
struct Row<K, R> {
    /// What the name means; `None` for a name that means nothing.
    key: Option<K>,
    stamp: Stamp,
    /// The stamp is old enough to believe that an equal one means equal content.
    settled: bool,
    good: Option<R>,
    /// `good` is what stands there now.
    readable: bool,
    problem: Option<String>,
}

impl Scanner {
    pub(super) fn new(last_good: LastGood) -> Self {
        Self {
            last_good,
            nodes: Table::default(),
            claims: Table::default(),
            pools: Table::default(),
            released: Table::default(),
        }
    }

    /// Everything that the directory `root` holds, with revision 0. An error says nothing of what it holds. `names`: only
    /// these are looked at, and of all others is believed what was read before.
    pub(super) fn scan(
        &mut self,
        root: &Path,
        names: Option<&Names>,
        now: Timestamp,
    ) -> io::Result<Snapshot> {
        let none = BTreeSet::new();
        let only = |kind: Kind| names.map(|names| names.get(&kind).unwrap_or(&none));
        let directory = |kind: Kind| root.join(kind.directory());
        let recall = |kind: Kind| {
            let last_good = &self.last_good;
            move |stem: &str| last_good.recall(kind, stem)
        };
        let last: RefCell<Option<Words>> = RefCell::default();
        self.nodes.scan(
            &directory(Kind::Node),
            only(Kind::Node),
            now,
            |name| name.parse().ok(),
            |name, bytes| {
                let Decoded { mut record, newer } = record::node(name, bytes)?;
                if let Some(last) = &*last.borrow() {
                    record.capabilities.share(last);
                }
                last.replace(Some(record.capabilities.clone()));
                Ok(Decoded { record: Arc::new(record), newer })
            },
            recall(Kind::Node),
        )?;
        self.claims.scan(
            &directory(Kind::Claim),
            only(Kind::Claim),
            now,
            Block::from_record_name,
            |block, bytes| record::claim(*block, bytes),
            recall(Kind::Claim),
        )?;
        self.pools.scan(
            &directory(Kind::Pool),
            only(Kind::Pool),
            now,
            cidr_from_record_name,
            |cidr, bytes| record::pool(*cidr, bytes),
            recall(Kind::Pool),
        )?;
        self.released.scan(
            &directory(Kind::Released),
            only(Kind::Released),
            now,
            Block::from_record_name,
            |block, bytes| record::released(*block, bytes),
            |_| None,
        )?;
        Ok(self.snapshot())
    }

    /// After a scan that was whole.
    pub(super) fn keep(&mut self, snapshot: &Snapshot) {
        self.last_good.keep(snapshot, Instant::now());
    }

    fn snapshot(&self) -> Snapshot {
        let mut problems = BTreeMap::new();
        self.nodes.report(Kind::Node, &mut problems);
        self.claims.report(Kind::Claim, &mut problems);
        self.pools.report(Kind::Pool, &mut problems);
        self.released.report(Kind::Released, &mut problems);
        let Self { nodes, claims, pools, released, .. } = self;
        snapshot(problems, nodes.standing(), claims.standing(), pools.standing(), released.standing())
    }
}

impl<K, R> Default for Table<K, R> {
    fn default() -> Self {
        Self { rows: BTreeMap::new() }
    }
}

impl<K: Clone, R> Table<K, R> {
    /// `recall`: what a record said in an earlier run of the agent.
    fn scan(
        &mut self,
        directory: &Path,
        only: Option<&BTreeSet<String>>,
        now: Timestamp,
        key: impl Fn(&str) -> Option<K>,
        decode: impl Fn(&K, &[u8]) -> Result<Decoded<R>, RecordError>,
        recall: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> io::Result<()> {
        let listed = match only {
            Some(names) => names.clone(),
            None => self.list(directory, now)?,
        };
        let known = self.rows.len();
        for stem in listed {
            let Entry::Vacant(vacant) = self.rows.entry(stem.into()) else { continue };
            let key = key(vacant.key());
            vacant.insert(Row {
                key,
                stamp: Stamp::default(),
                settled: false,
                good: None,
                readable: false,
                problem: None,
            });
        }
        if self.rows.len() > known * 2 {
            // A map that has grown row by row is half empty.
            self.rows = std::mem::take(&mut self.rows).into_iter().collect();
        }
        let mut gone = Vec::new();
        let mut refresh = |stem: &str, row: &mut Row<K, R>| -> io::Result<()> {
            if !row.refresh(&file(directory, stem), now, &decode, || recall(stem))? {
                gone.push(Box::<str>::from(stem));
            }
            Ok(())
        };
        match only {
            None => self.rows.iter_mut().try_for_each(|(stem, row)| refresh(stem, row))?,
            Some(names) => {
                for stem in names {
                    self.rows.get_mut(stem.as_str()).map_or(Ok(()), |row| refresh(stem, row))?;
                }
            }
        }
        for stem in gone {
            self.rows.remove(&stem);
        }
        Ok(())
    }

    /// All names that are there. Forgets those that are not.
    fn list(&mut self, directory: &Path, now: Timestamp) -> io::Result<BTreeSet<String>> {
        let listed = list(directory, now)?;
        // A file that is replaced while the directory is read may be missed: what vanished is asked for by name.
        let mut gone = Vec::new();
        for stem in self.rows.keys().filter(|stem| !listed.contains(&***stem)) {
            if read::stamp(&file(directory, stem))?.is_none() {
                gone.push(stem.clone());
            }
        }
        for stem in gone {
            self.rows.remove(&stem);
        }
        Ok(listed)
    }

    fn standing(&self) -> impl Iterator<Item = Standing<'_, K, R>> {
        self.rows.values().filter_map(|row| {
            let (good, readable, made) = (row.good.as_ref(), row.readable, row.stamp.modified());
            Some(Standing { key: row.key.as_ref()?, good, readable, made })
        })
    }

    fn report(&self, kind: Kind, problems: &mut BTreeMap<String, String>) {
        for (stem, row) in &self.rows {
            if let Some(problem) = &row.problem {
                problems.insert(kind.record(stem), problem.clone());
            }
        }
    }
}

impl<K, R> Row<K, R> {
    /// Reads the record if it may have changed; `false` if it is gone.
    fn refresh(
        &mut self,
        path: &Path,
        now: Timestamp,
        decode: impl Fn(&K, &[u8]) -> Result<Decoded<R>, RecordError>,
        recall: impl FnOnce() -> Option<Vec<u8>>,
    ) -> io::Result<bool> {
        let Some(key) = &self.key else {
            self.problem = Some("this is no name of a record; move the file elsewhere".to_owned());
            return Ok(read::stamp(path)?.is_some());
        };
        if self.settled && read::stamp(path)? == Some(self.stamp) {
            return Ok(true);
        }
        self.readable = false;
        let broken = |why: String| {
            if self.good.is_none() {
                self.good = recall().and_then(|bytes| decode(key, &bytes).ok()).map(|decoded| decoded.record);
            }
            let kept = if self.good.is_some() { "; its last good content stands" } else { "" };
            Some(format!("{why}{kept}"))
        };
        let (stamp, problem) = match read::record(path)? {
            Content::Absent => return Ok(false),
            Content::Unfit(why, stamp) => (stamp, broken(why)),
            Content::Bytes(bytes, stamp) => match decode(key, &bytes) {
                Ok(decoded) => {
                    self.good = Some(decoded.record);
                    self.readable = true;
                    let note = |newer| {
                        format!(
                            "written by a newer version ({newer}, this agent knows {}); what it knows is used",
                            record::version()
                        )
                    };
                    (stamp, decoded.newer.map(note))
                }
                Err(error) => (stamp, broken(error.to_string())),
            },
        };
        self.stamp = stamp;
        self.settled = now.duration_since(stamp.changed()) > STAMP_GRANULARITY;
        self.problem = problem;
        Ok(true)
    }
}

/// File names without `.json`. Other files are none of our business, except for our own old leftovers.
fn list(directory: &Path, now: Timestamp) -> io::Result<BTreeSet<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let mut stems = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(write::TEMPORARY) {
            sweep(&directory.join(name), now);
        } else if let Some(stem) = name.strip_suffix(".json").filter(|stem| !stem.starts_with('.')) {
            stems.insert(stem.to_owned());
        }
    }
    Ok(stems)
}

/// Removes what an agent left that was killed while it wrote. Failing is no trouble: the next scan tries again.
fn sweep(path: &Path, now: Timestamp) {
    let Ok(Some(stamp)) = read::stamp(path) else { return };
    if now.duration_since(stamp.modified()) > LEFTOVER_AFTER
        && std::fs::remove_file(path).is_err()
        && let Err(error) = std::fs::remove_dir_all(path)
    {
        tracing::debug!(path = %path.display(), %error, "a leftover can't be removed");
    }
}

fn file(directory: &Path, stem: &str) -> PathBuf {
    directory.join(format!("{stem}.json"))
}

/// Pools are named as blocks are.
fn cidr_from_record_name(name: &str) -> Option<IpNet> {
    Block::from_record_name(name).map(Block::net)
}
