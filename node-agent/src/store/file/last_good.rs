//! What records said when they could be read last, kept beside the agent: a record that breaks keeps its last good
//! content (DESIGN, invariant 14), also if the agent is restarted before it is mended.
//!
//! It is a memory and no truth: it only ever speaks for a record whose name stands in the store and whose content
//! can't be read. It is written seldom, and may be that much older than what broke.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::Kind;
use crate::durable;
use crate::node::{Block, Snapshot};
use crate::store::record::Encoding;

/// Name of the file in the state directory.
pub const FILE_NAME: &str = "records.json";

/// By record name, as in `nodes/n1`.
type Records = BTreeMap<String, Value>;

/// The file, and what it held when the agent started.
#[derive(Debug)]
pub(super) struct LastGood {
    /// `None`: nothing is kept.
    path: Option<PathBuf>,
    every: Duration,
    /// Until the first snapshot is whole.
    recalled: Records,
    next: Instant,
    /// Hash of what was written last.
    written: Option<u64>,
    /// The trouble was told.
    told: bool,
}

impl LastGood {
    /// A file that is not there, or is not ours, says nothing.
    pub(super) fn load(path: Option<PathBuf>, every: Duration) -> Self {
        let recalled = path.as_deref().map_or_else(Records::new, |path| {
            read(path).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error,
                    "what records said before the agent started can't be read; it matters only where one is broken now");
                Records::new()
            })
        });
        Self { path, every, recalled, next: Instant::now() + every, written: None, told: false }
    }

    /// What the record said.
    pub(super) fn recall(&self, kind: Kind, stem: &str) -> Option<Vec<u8>> {
        self.recalled.get(&kind.record(stem)).map(|value| value.to_string().into_bytes())
    }

    /// Takes note of a whole snapshot.
    pub(super) fn keep(&mut self, snapshot: &Snapshot, now: Instant) {
        self.recalled.clear();
        let Some(path) = self.path.as_deref().filter(|_| now >= self.next) else { return };
        self.next = now + self.every;
        let content = content(snapshot);
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let hash = hasher.finish();
        if self.written == Some(hash) {
            return;
        }
        match durable::replace(path, &content) {
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

/// All that has a content, in the form of the records themselves.
fn content(snapshot: &Snapshot) -> Vec<u8> {
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
    let mut content = b"{".to_vec();
    for (index, (name, record)) in nodes.chain(claims).chain(pools).enumerate() {
        content.extend(if index == 0 { "\n" } else { ",\n" }.bytes());
        content.extend(Value::String(name).to_string().bytes());
        content.extend(b": ");
        content.extend(record.trim_ascii_end());
    }
    content.extend(b"\n}\n");
    content
}
