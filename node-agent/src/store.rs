//! Where node records and claims live.
//!
//! In every store a claim is "create the record named after the block", so the store's own uniqueness is the
//! lock. Losing the race is an outcome, not an error.

pub mod etcd;
pub mod file;
mod kind;
pub mod kubernetes;
mod last_good;
pub mod memory;
mod overlap;
mod rebuild;
pub mod record;
mod remote;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

pub use self::last_good::FILE_NAME as LAST_GOOD_FILE_NAME;
pub use self::overlap::overlap;
use crate::node::{Block, Claim, NodeName, NodeRecord, PoolRecord, Snapshot};
use crate::status::{Condition, Published};

/// A store. Methods may be called at any time and from any task.
#[async_trait]
pub trait Store: Send + Sync {
    /// Snapshots; `None` until the first complete list. A store that fails keeps the last snapshot and says so in [`Store::health`].
    fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>>;

    /// `Ok` while the store answers; else what is wrong.
    fn health(&self) -> watch::Receiver<Health>;

    /// Creates or replaces the record of a node. Unknown fields of the stored record are kept.
    async fn publish(&self, record: &NodeRecord) -> Result<(), StoreError>;

    /// Says that the node lives, without changing its record and without a new snapshot.
    async fn heartbeat(&self, node: &NodeName) -> Result<(), StoreError>;

    /// When the node last gave a sign of life; `None` if it has no record.
    async fn last_seen(&self, node: &NodeName) -> Result<Option<Timestamp>, StoreError>;

    /// Creates the record of a claim, unless another node holds the block, a part of it or one around it.
    async fn claim(&self, claim: &Claim) -> Result<ClaimOutcome, StoreError>;

    /// Removes a claim if `holder` holds it; remembers when. `Ok(false)` if it is not held by `holder`.
    async fn release(&self, block: Block, holder: &NodeName) -> Result<bool, StoreError>;

    /// Writes the record of a claim anew if what stands under its name can't be read. What can be read stays as it is.
    /// Only for the node that knows the claim to be its own: for everybody else the name alone holds the block.
    async fn mend_claim(&self, claim: &Claim) -> Result<ClaimOutcome, StoreError>;

    /// Creates the pool's record, or says what stands there.
    async fn ensure_pool(&self, pool: &PoolRecord) -> Result<PoolOutcome, StoreError>;

    /// What else the store knows of this node; `None` for stores that know only what agents write.
    fn node_facts(&self) -> Option<watch::Receiver<NodeFacts>> {
        None
    }

    /// Tells those who look at the cluster and not at the store what becomes of this node's network, until nothing is
    /// published any more. Stores without such a place end at once. While what is told is refused, `trouble` holds a
    /// condition that says why.
    async fn announce(
        &self,
        _published: watch::Receiver<Arc<Published>>,
        _trouble: watch::Sender<Option<Condition>>,
    ) {
    }

    /// Removes a pool's record; `Ok(false)` if a claim within the pool forbids that.
    async fn remove_pool(&self, cidr: IpNet) -> Result<bool, StoreError>;

    /// Releases all claims of a node and removes its record. `Ok(false)` if there was neither.
    async fn remove_node(&self, node: &NodeName) -> Result<bool, StoreError>;
}

/// After this a store forgets that a block was given back: the most that `blocks.reuseAfter` may be.
pub const FORGET_RELEASED_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// `Ok` while a store answers.
pub type Health = Result<(), StoreTrouble>;

/// What is wrong with a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct StoreTrouble {
    /// For people, with what to do.
    pub text: String,
    /// It is this node that has lost the store, which other nodes may go on using: a mount is missing here.
    pub detached: bool,
}

impl From<String> for StoreTrouble {
    fn from(text: String) -> Self {
        Self { text, detached: false }
    }
}

/// What a store knows of this agent's node besides its records: its Node object's labels and pod CIDRs, and whether it is cordoned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// It has been read.
    pub known: bool,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// The blocks that were given to it, in order.
    pub blocks: Vec<Block>,
    /// It is cordoned: new pods go elsewhere (`spec.unschedulable`).
    pub cordoned: bool,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The record is ours (created now, or before by the same holder).
    Claimed,
    /// Somebody else has it, or what overlaps it; `None` if the record can't be read.
    TakenBy(Option<NodeName>),
}

/// What became of a pool record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolOutcome {
    /// It stands as wanted.
    Agreed,
    /// It stands with another block prefix.
    BlockPrefixDiffers(u8),
    /// It overlaps this other pool's record.
    Overlaps(IpNet),
}

/// An operation that the store did not do.
#[derive(Debug, thiserror::Error)]
#[error("can't {operation} {record}")]
pub struct StoreError {
    /// What was tried: `claim`, `publish`.
    pub operation: &'static str,
    /// On which record.
    pub record: String,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

#[cfg(test)]
pub(crate) mod servers;
#[cfg(test)]
pub(crate) mod tests;
