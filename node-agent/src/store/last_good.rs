//! What records said when they could be read last, kept beside the agent: a record that breaks keeps its last good
//! content (DESIGN, invariant 14), also if the agent is restarted before it is mended.
//!
//! It is a memory and no truth: it only ever speaks for a record whose name stands in the store and whose content
//! can't be read. It is written seldom, and may be that much older than what broke.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::kind::Kind;
use crate::durable;
use crate::node::{Block, Snapshot};
use crate::store::record::{self, Encoding};

/// Name of the file in the state directory.
pub const FILE_NAME: &str = "records.json";

/// By record name, as in `nodes/n1`.
pub(super) type Records = BTreeMap<String, Value>;

/// The file, and what it held when the agent started.
#[derive(Debug)]
pub(super) struct LastGood {
    /// `None`: nothing is kept.
    path: Option<PathBuf>,
    every: Duration,
    /// Read when the first record turns out to be broken; nobody is asked for any more once a snapshot was whole.
    recalled: OnceLock<Records>,
    next: Instant,
    /// Hash of what was written last.
    written: Option<u64>,
    /// The trouble was told.
    told: bool,
}

impl LastGood {
    /// A file that is not there, or is not ours, says nothing.
    pub(super) fn load(path: Option<PathBuf>, every: Duration) -> Self {
        Self {
            path,
            every,
            recalled: OnceLock::new(),
            next: Instant::now() + every,
            written: None,
            told: false,
        }
    }

    /// What the record said.
    pub(super) fn recall(&self, kind: Kind, stem: &str) -> Option<Vec<u8>> {
        self.recalled().get(&kind.record(stem)).map(|value| value.to_string().into_bytes())
    }

    /// What the file held when the agent started. Blocks when it is asked for first.
    pub(super) fn recalled(&self) -> &Records {
        self.recalled.get_or_init(|| {
            let Some(path) = &self.path else { return Records::new() };
            read(path).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error,
                    "what records said before the agent started can't be read, and is needed now");
                Records::new()
            })
        })
    }

    /// Everything that was known when the agent ended; `None` if nothing was.
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        let mut snapshot = Snapshot::default();
        for (name, value) in self.recalled() {
            let Some((directory, stem)) = name.split_once('/') else { continue };
            let bytes = value.to_string().into_bytes();
            let block = Block::from_record_name(stem);
            match (Kind::of_directory(directory), block) {
                (Some(Kind::Node), _) => {
                    if let Ok(name) = stem.parse()
                        && let Ok(decoded) = record::node(&name, &bytes)
                    {
                        snapshot.nodes.insert(name, decoded.record.into());
                    }
                }
                (Some(Kind::Claim), Some(block)) => {
                    if let Ok(decoded) = record::claim(block, &bytes) {
                        snapshot.claims.insert(block, decoded.record);
                    }
                }
                (Some(Kind::Pool), Some(block)) => {
                    if let Ok(decoded) = record::pool(block.net(), &bytes) {
                        snapshot.pools.insert(block.net(), decoded.record);
                    }
                }
                (Some(Kind::Claim | Kind::Pool | Kind::Released) | None, _) => {}
            }
        }
        let is_empty = snapshot.nodes.is_empty() && snapshot.claims.is_empty() && snapshot.pools.is_empty();
        (!is_empty).then_some(snapshot)
    }

    /// When the file may be written again.
    pub(super) fn next_write(&self) -> Instant {
        self.next
    }

    /// Takes note of a whole snapshot.
    pub(super) fn keep(&mut self, snapshot: &Snapshot, now: Instant) {
        self.recalled = OnceLock::from(Records::new());
        let Some(path) = self.path.as_deref().filter(|_| now >= self.next) else { return };
        self.next = now + self.every;
        let hash = hash(snapshot);
        if self.written == Some(hash) {
            return;
        }
        match durable::replace_by(path, |file| content(snapshot, |part| file.write_all(part))) {
            Ok(()) => (self.written, self.told) = (Some(hash), false),
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(path = %path.display(), %error,
                        "what records say can't be kept: one that is broken when the agent starts anew will have no content");
                }
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Records> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Records::new()),
        Err(error) => Err(error),
    }
}

/// Of all that would be written.
fn hash(snapshot: &Snapshot) -> u64 {
    let mut hasher = DefaultHasher::new();
    // It never fails to take them in.
    let _ = content(snapshot, |part| {
        hasher.write(part);
        Ok(())
    });
    hasher.finish()
}

/// All that has a content, in the form of the records themselves, piece by piece: whole it would be the largest thing
/// in memory.
fn content(snapshot: &Snapshot, mut put: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let encoding = Encoding::default();
    let nodes = snapshot
        .nodes
        .values()
        .map(|node| (Kind::Node.record(node.name.as_str()), encoding.node(node, None)));
    let claims = snapshot.claims.values().filter(|claim| claim.holder.is_some());
    let claims = claims.map(|claim| (Kind::Claim.record(&claim.block.record_name()), encoding.claim(claim)));
    let pools = snapshot.pools.values();
    let pools =
        pools.map(|pool| (Kind::Pool.record(&Block::new(pool.cidr).record_name()), encoding.pool(pool)));
    put(b"{")?;
    for (index, (name, record)) in nodes.chain(claims).chain(pools).enumerate() {
        put(if index == 0 { b"\n" } else { b",\n" })?;
        put(Value::String(name).to_string().as_bytes())?;
        put(b": ")?;
        put(record.trim_ascii_end())?;
    }
    put(b"\n}\n")
}
