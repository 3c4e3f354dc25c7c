//! The records as the feeds have told them so far.
//!
//! A record that can't be read keeps its last good content for as long as something stands under its name (invariant
//! 14), over restarts too ([`LastGood`]).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::backend::{Event, Key, Stored};
use crate::node::{Block, Claim, NodeName, NodeRecord, PoolRecord, Snapshot, Words};
use crate::store::kind::Kind;
use crate::store::last_good::LastGood;
use crate::store::record::{self, Decoded, MAX_BYTES, RecordError};
use crate::store::snapshot::{Standing, snapshot};

/// Everything that was told.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) nodes: Table<NodeName, Arc<NodeRecord>>,
    pub(super) claims: Table<Block, Claim>,
    pub(super) pools: Table<IpNet, PoolRecord>,
    pub(super) released: Table<Block, Timestamp>,
    /// Kinds whose list was complete once.
    listed: BTreeSet<Kind>,
    /// The capabilities of the node that was told last: most nodes have the same, and share them.
    words: RefCell<Option<Words>>,
}

/// The records of one kind, by name.
#[derive(Debug)]
pub(super) struct Table<K, R> {
    rows: BTreeMap<String, Row<K, R>>,
}

#[derive(Debug)]
pub(super) struct Row<K, R> {
    /// What the name means; `None` for a name that means nothing.
    key: Option<K>,
    version: u64,
    made: Timestamp,
    good: Option<R>,
    /// `good` is what stands there now.
    readable: bool,
    problem: Option<String>,
}

impl Tables {
    /// Takes in what was told. `true` if something may be another than before.
    pub(super) fn take(&mut self, event: Event, recall: &LastGood) -> bool {
        match event {
            Event::Listed { kinds, records } => {
                let names: BTreeSet<&Key> = records.iter().map(|(key, _)| key).collect();
                for kind in &kinds {
                    let absent = |name: &String| !names.contains(&Key { kind: *kind, name: name.clone() });
                    match kind {
                        Kind::Node => self.nodes.remove_if(absent),
                        Kind::Claim => self.claims.remove_if(absent),
                        Kind::Pool => self.pools.remove_if(absent),
                        Kind::Released => self.released.remove_if(absent),
                    }
                }
                drop(names);
                for (key, stored) in records {
                    self.set(key, stored, recall);
                }
                self.listed.extend(kinds);
                true
            }
            Event::Set(key, stored) => {
                self.set(key, stored, recall);
                true
            }
            Event::Gone(key) => {
                match key.kind {
                    Kind::Node => self.nodes.rows.remove(&key.name).is_some(),
                    Kind::Claim => self.claims.rows.remove(&key.name).is_some(),
                    Kind::Pool => self.pools.rows.remove(&key.name).is_some(),
                    Kind::Released => self.released.rows.remove(&key.name).is_some(),
                };
                true
            }
            Event::Well => false,
        }
    }

    fn set(&mut self, key: Key, stored: Stored, recall: &LastGood) {
        let recalled = || recall.recall(key.kind, &key.name);
        match key.kind {
            Kind::Node => {
                let words = &self.words;
                let decode = |name: &NodeName, bytes: &[u8]| {
                    let Decoded { mut record, newer } = record::node(name, bytes)?;
                    if let Some(last) = &*words.borrow() {
                        record.capabilities.share(last);
                    }
                    words.replace(Some(record.capabilities.clone()));
                    Ok(Decoded { record: Arc::new(record), newer })
                };
                self.nodes.set(&key.name, &stored, |name| name.parse().ok(), decode, recalled);
            }
            Kind::Claim => {
                let decode = |block: &Block, bytes: &[u8]| record::claim(*block, bytes);
                self.claims.set(&key.name, &stored, Block::from_record_name, decode, recalled);
            }
            Kind::Pool => {
                let cidr = |name: &str| Block::from_record_name(name).map(Block::net);
                let decode = |cidr: &IpNet, bytes: &[u8]| record::pool(*cidr, bytes);
                self.pools.set(&key.name, &stored, cidr, decode, recalled);
            }
            Kind::Released => {
                let decode = |block: &Block, bytes: &[u8]| record::released(*block, bytes);
                self.released.set(&key.name, &stored, Block::from_record_name, decode, || None);
            }
        }
    }

    /// Every kind was listed: what is missing does not exist.
    pub(super) fn is_whole(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.listed.contains(kind))
    }

    /// Everything, with revision 0.
    pub(super) fn snapshot(&self) -> Snapshot {
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

impl<K, R> Table<K, R> {
    fn set(
        &mut self,
        name: &str,
        stored: &Stored,
        key: impl FnOnce(&str) -> Option<K>,
        decode: impl Fn(&K, &[u8]) -> Result<Decoded<R>, RecordError>,
        recall: impl FnOnce() -> Option<Vec<u8>>,
    ) {
        let row = self.rows.entry(name.to_owned()).or_insert_with(|| Row {
            key: key(name),
            version: 0,
            made: stored.made,
            good: None,
            readable: false,
            problem: None,
        });
        row.version = stored.version;
        row.made = stored.made;
        row.readable = false;
        let Some(key) = &row.key else {
            row.problem = Some("this is no name of a record; remove it".to_owned());
            return;
        };
        let is_large = u64::try_from(stored.content.len()).is_ok_and(|bytes| bytes > MAX_BYTES);
        let decoded = if is_large {
            Err(format!(
                "it has {} bytes, more than the {MAX_BYTES} of any record of ours",
                stored.content.len()
            ))
        } else {
            decode(key, &stored.content).map_err(|error| error.to_string())
        };
        match decoded {
            Ok(decoded) => {
                row.good = Some(decoded.record);
                row.readable = true;
                row.problem = decoded.newer.map(|newer| {
                    format!(
                        "written by a newer version ({newer}, this agent knows {}); what it knows is used",
                        record::version()
                    )
                });
            }
            Err(why) => {
                if row.good.is_none() {
                    let recalled = recall().and_then(|bytes| decode(key, &bytes).ok());
                    row.good = recalled.map(|decoded| decoded.record);
                }
                let kept = if row.good.is_some() { "; its last good content stands" } else { "" };
                row.problem = Some(format!("{why}{kept}"));
            }
        }
    }

    fn remove_if(&mut self, absent: impl Fn(&String) -> bool) {
        self.rows.retain(|name, _| !absent(name));
    }

    /// The version that stands under a name.
    pub(super) fn version(&self, name: &str) -> Option<u64> {
        self.rows.get(name).map(|row| row.version)
    }

    /// Records whose name means something, with what they say if that can be read, and their version.
    pub(super) fn records(&self) -> impl Iterator<Item = (&K, Option<&R>, u64)> {
        self.keyed().map(|(key, row)| (key, row.good.as_ref(), row.version))
    }

    /// What the record of a key says, or said when it could be read.
    pub(super) fn good(&self, key: &K) -> Option<&R>
    where
        K: PartialEq,
    {
        self.keyed().find(|(other, _)| *other == key).and_then(|(_, row)| row.good.as_ref())
    }

    fn keyed(&self) -> impl Iterator<Item = (&K, &Row<K, R>)> {
        self.rows.values().filter_map(|row| Some((row.key.as_ref()?, row)))
    }

    fn standing(&self) -> impl Iterator<Item = Standing<'_, K, R>> {
        self.keyed().map(|(key, row)| {
            let (good, readable, made) = (row.good.as_ref(), row.readable, row.made);
            Standing { key, good, readable, made }
        })
    }

    fn report(&self, kind: Kind, problems: &mut BTreeMap<String, String>) {
        for (name, row) in &self.rows {
            if let Some(problem) = &row.problem {
                problems.insert(kind.record(name), problem.clone());
            }
        }
    }
}
