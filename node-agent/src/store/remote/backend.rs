//! What a server of records must be able to do. Everything else is the same for all of them, and stands in [`super`].

use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::node::{Block, NodeName};
use crate::store::kind::Kind;

/// The name of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Key {
    pub kind: Kind,
    /// As [`Block::record_name`] or a node's name.
    pub name: String,
}

impl Key {
    pub(in crate::store) fn node(node: &NodeName) -> Self {
        Self { kind: Kind::Node, name: node.to_string() }
    }

    pub(in crate::store) fn claim(block: Block) -> Self {
        Self { kind: Kind::Claim, name: block.record_name() }
    }

    pub(in crate::store) fn pool(cidr: ipnet::IpNet) -> Self {
        Self { kind: Kind::Pool, name: Block::new(cidr).record_name() }
    }

    pub(in crate::store) fn released(block: Block) -> Self {
        Self { kind: Kind::Released, name: block.record_name() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind.record(&self.name))
    }
}

/// A record as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Stored {
    /// JSON.
    pub content: Vec<u8>,
    /// Which content this is: another one has another version, and a later one of a kind a greater one.
    pub version: u64,
    /// When it was made, where the server tells; only used where the content does not tell a time.
    pub made: Timestamp,
}

/// Something that the server did not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::store) enum Failure {
    /// The server can't be reached, or does not let us in: with what to do.
    #[error("{0}")]
    Server(String),
    /// It is this record that it does not take.
    #[error("{0}")]
    Record(String),
}

impl Failure {
    pub(in crate::store) fn server(text: impl Into<String>) -> Self {
        Self::Server(text.into())
    }

    pub(in crate::store) fn record(text: impl Into<String>) -> Self {
        Self::Record(text.into())
    }
}

/// What a feed tells.
#[derive(Debug)]
pub(in crate::store) enum Event {
    /// All records of these kinds.
    Listed { kinds: Vec<Kind>, records: Vec<(Key, Stored)> },
    /// A record was made or changed.
    Set(Key, Stored),
    /// A record is gone.
    Gone(Key),
    /// The server answers, and nothing is missing.
    Well,
}

/// Which records a feed is about. A backend says in how many parts it can be followed.
pub(in crate::store) type Feed = &'static [Kind];

/// A server of records. Methods may be called at any time and from any task.
#[async_trait]
pub(in crate::store) trait Backend: Send + Sync + 'static {
    /// The feeds that together tell everything.
    fn feeds(&self) -> &'static [Feed];

    /// Tells the events of a feed, the complete list first (or what has changed since an earlier call that failed),
    /// until something fails.
    async fn follow(&self, feed: usize, events: &mpsc::Sender<Event>) -> Failure;

    /// A record as it is now, not as a cache remembers it.
    async fn read(&self, key: &Key) -> Result<Option<Stored>, Failure>;

    /// All records of a kind as they are now.
    async fn list(&self, kind: Kind) -> Result<Vec<(Key, Stored)>, Failure>;

    /// Creates a record; `None` if there is one of this name.
    async fn create(&self, key: &Key, content: &[u8]) -> Result<Option<u64>, Failure>;

    /// Replaces the content of this version; `false` if there is another one by now, or none.
    async fn replace(&self, key: &Key, content: &[u8], version: u64) -> Result<bool, Failure>;

    /// Removes a record, of this version alone or whatever stands there; `false` if there is another one, or none.
    async fn remove(&self, key: &Key, version: Option<u64>) -> Result<bool, Failure>;

    /// A sign of life of a node.
    async fn sign(&self, node: &NodeName) -> Result<(), Failure>;

    /// When the last sign of life was, by this machine's clock, whatever the clocks of others say; `None` if none is
    /// remembered.
    async fn last_sign(&self, node: &NodeName) -> Result<Option<Timestamp>, Failure>;

    /// A node's signs of life need not be remembered any more.
    async fn forget_signs(&self, node: &NodeName) -> Result<(), Failure>;
}
