//! Where node records and claims live.
//!
//! In every store a claim is "create the record named after the block", so the store's own uniqueness is the
//! lock. Losing the race is an outcome, not an error.

pub mod file;
pub mod memory;
pub mod record;

use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::node::{Block, Claim, NodeName, NodeRecord, PoolRecord, Snapshot};

/// A store. Methods may be called at any time and from any task.
#[async_trait]
pub trait Store: Send + Sync {
    /// Snapshots; `None` until the first complete list. A store that fails keeps the last snapshot and says so in [`Store::health`].
    fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>>;

    /// `Ok` while the store answers; else what is wrong, for people.
    fn health(&self) -> watch::Receiver<Result<(), String>>;

    /// Creates or replaces the record of a node. Unknown fields of the stored record are kept.
    async fn publish(&self, record: &NodeRecord) -> Result<(), StoreError>;

    /// Says that the node lives, without changing its record and without a new snapshot.
    async fn heartbeat(&self, node: &NodeName) -> Result<(), StoreError>;

    /// When the node last gave a sign of life; `None` if it has no record.
    async fn last_seen(&self, node: &NodeName) -> Result<Option<Timestamp>, StoreError>;

    /// Creates the record of a claim.
    async fn claim(&self, claim: &Claim) -> Result<ClaimOutcome, StoreError>;

    /// Removes a claim if `holder` holds it; remembers when. `Ok(false)` if it is not held by `holder`.
    async fn release(&self, block: Block, holder: &NodeName) -> Result<bool, StoreError>;

    /// Creates the pool's record, or says what stands there.
    async fn ensure_pool(&self, pool: &PoolRecord) -> Result<PoolOutcome, StoreError>;

    /// Removes a pool's record; the caller has made sure that no block of it is held.
    async fn remove_pool(&self, cidr: IpNet) -> Result<(), StoreError>;

    /// Releases all claims of a node and removes its record. `Ok(false)` if there was neither.
    async fn remove_node(&self, node: &NodeName) -> Result<bool, StoreError>;
}

/// After this a store forgets that a block was given back: far more than any sensible `blocks.reuseAfter`.
pub const FORGET_RELEASED_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// Do two prefixes share an address?
#[must_use]
pub fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The record is ours (created now, or before by the same holder).
    Claimed,
    /// Somebody else has it; `None` if the record can't be read.
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
pub(crate) mod tests;
