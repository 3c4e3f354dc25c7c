//! A store in memory, shared by the agents of one process: for tests, with failures to order.
//!
//! Every agent has a view of its own ([`MemoryStore::another_view`]); failures are ordered per view, contents are
//! shared. It keeps the promises that [`Store`] makes and no others: in particular, snapshots may lag
//! ([`MemoryStore::pause`]) and the contents may be rolled back or emptied at any time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    ClaimOutcome, FORGET_RELEASED_AFTER, Health, NodeFacts, PoolOutcome, Store, StoreError, overlap,
};
use crate::node::{Block, Claim, NodeName, NodeRecord, PoolRecord, Snapshot};

/// One agent's view of a store in memory. Clones are the same view.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    view: Arc<View>,
}

#[derive(Debug)]
struct Shared {
    contents: Mutex<Contents>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
}

#[derive(Debug, Default)]
struct Contents {
    snapshot: Snapshot,
    seen: BTreeMap<NodeName, Timestamp>,
    paused: bool,
    now: Option<Timestamp>,
}

#[derive(Debug)]
struct View {
    faults: Mutex<Faults>,
    health: watch::Sender<Health>,
    facts: watch::Sender<NodeFacts>,
}

#[derive(Debug, Default)]
struct Faults {
    fail: u32,
    fail_operation: Option<(&'static str, u32)>,
    fail_after: u32,
    delay: Duration,
    calls: u64,
}

/// What a failure that was ordered says.
#[derive(Debug, thiserror::Error)]
#[error("this failure was ordered")]
struct Ordered;

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store whose first snapshot stands.
    #[must_use]
    pub fn new() -> Self {
        let store = Self::unlisted();
        store.resume();
        store
    }

    /// An empty store that has not given a snapshot yet; [`MemoryStore::resume`] gives the first.
    #[must_use]
    pub fn unlisted() -> Self {
        let contents = Contents { paused: true, ..Contents::default() };
        let shared = Shared { contents: Mutex::new(contents), snapshots: watch::Sender::new(None) };
        Self { shared: Arc::new(shared), view: Arc::default() }
    }

    /// The same contents seen by another agent, with failures of its own.
    #[must_use]
    pub fn another_view(&self) -> Self {
        Self { shared: self.shared.clone(), view: Arc::default() }
    }

    /// The next `count` calls through this view fail and do nothing.
    pub fn fail_next(&self, count: u32) {
        lock(&self.view.faults).fail = count;
    }

    /// The same for calls of one operation alone, as [`StoreError::operation`] names it: `claim`, `publish`.
    pub fn fail_next_of(&self, operation: &'static str, count: u32) {
        lock(&self.view.faults).fail_operation = Some((operation, count));
    }

    /// The next `count` calls through this view are carried out, and then reported as failed: an answer got lost.
    pub fn lose_next_answers(&self, count: u32) {
        lock(&self.view.faults).fail_after = count;
    }

    /// Every call through this view waits this long first.
    pub fn delay(&self, delay: Duration) {
        lock(&self.view.faults).delay = delay;
    }

    /// Number of calls through this view that could have changed the store, heartbeats aside.
    #[must_use]
    pub fn calls(&self) -> u64 {
        lock(&self.view.faults).calls
    }

    /// What [`Store::health`] of this view says.
    pub fn set_health(&self, health: Result<(), String>) {
        self.report(health.map_err(Into::into));
    }

    /// The same, with all that can be said.
    pub fn report(&self, health: Health) {
        drop(self.view.health.send_replace(health));
    }

    /// What [`Store::node_facts`] of this view says; nothing before the first call.
    pub fn set_node_facts(&self, facts: NodeFacts) {
        drop(self.view.facts.send_replace(facts));
    }

    /// Snapshots stop; the contents still change.
    pub fn pause(&self) {
        lock(&self.shared.contents).paused = true;
    }

    /// Snapshots go on, with the contents as they are now.
    pub fn resume(&self) {
        let mut contents = lock(&self.shared.contents);
        contents.paused = false;
        self.show(&contents);
    }

    /// The contents as they are, even while snapshots are paused.
    #[must_use]
    pub fn contents(&self) -> Snapshot {
        lock(&self.shared.contents).snapshot.clone()
    }

    /// Replaces all contents: a backup was restored. The revision still grows.
    pub fn roll_back(&self, to: Snapshot) {
        let mut contents = lock(&self.shared.contents);
        let revision = contents.snapshot.revision;
        contents.seen.retain(|node, _| to.nodes.contains_key(node));
        contents.snapshot = Snapshot { revision: revision + 1, ..to };
        self.show(&contents);
    }

    /// Removes everything.
    pub fn empty(&self) {
        self.roll_back(Snapshot::default());
    }

    /// Changes the contents by hand, as an operator or a broken disk would.
    pub fn tamper(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut contents = lock(&self.shared.contents);
        change(&mut contents.snapshot);
        contents.snapshot.revision += 1;
        self.show(&contents);
    }

    /// From now on it is `now`; before the first call the clock of the machine is used.
    pub fn set_time(&self, now: Timestamp) {
        lock(&self.shared.contents).now = Some(now);
    }

    fn show(&self, contents: &Contents) {
        if !contents.paused {
            self.shared.snapshots.send_if_modified(|shown| {
                let is_new = shown.as_deref() != Some(&contents.snapshot);
                if is_new {
                    *shown = Some(Arc::new(contents.snapshot.clone()));
                }
                is_new
            });
        }
    }

    /// Runs one call: waits, fails if that was ordered, changes the contents, and shows them if they changed.
    async fn call<T>(
        &self,
        operation: &'static str,
        record: impl ToString,
        change: impl FnOnce(&mut Contents, Timestamp) -> Result<T, Box<dyn std::error::Error + Send + Sync>>,
    ) -> Result<T, StoreError> {
        let delay = lock(&self.view.faults).delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let (fails, loses_answer) = {
            let mut faults = lock(&self.view.faults);
            faults.calls += 1;
            let mut fails = faults.fail > 0;
            if let Some((name, left)) = &mut faults.fail_operation
                && *name == operation
                && *left > 0
            {
                *left -= 1;
                fails = true;
            }
            let loses_answer = !fails && faults.fail_after > 0;
            faults.fail = faults.fail.saturating_sub(1);
            faults.fail_after = faults.fail_after.saturating_sub(u32::from(loses_answer));
            (fails, loses_answer)
        };
        let error = |source| StoreError { operation, record: record.to_string(), source };
        if fails {
            return Err(error(Box::new(Ordered)));
        }
        let mut contents = lock(&self.shared.contents);
        let now = contents.now.unwrap_or_else(Timestamp::now);
        let before = contents.snapshot.clone();
        let result = change(&mut contents, now).map_err(error)?;
        if contents.snapshot != before {
            contents.snapshot.revision += 1;
            self.show(&contents);
        }
        if loses_answer { Err(error(Box::new(Ordered))) } else { Ok(result) }
    }
}

impl Default for View {
    fn default() -> Self {
        Self { faults: Mutex::default(), health: watch::Sender::new(Ok(())), facts: watch::Sender::default() }
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.shared.snapshots.subscribe()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.view.health.subscribe()
    }

    fn node_facts(&self) -> Option<watch::Receiver<NodeFacts>> {
        let facts = self.view.facts.subscribe();
        let known = facts.borrow().known;
        known.then_some(facts)
    }

    async fn publish(&self, record: &NodeRecord) -> Result<(), StoreError> {
        self.call("publish", &record.name, |contents, now| {
            let mut record = record.clone();
            if let Some(stored) = contents.snapshot.nodes.remove(&record.name) {
                for (key, value) in &stored.unknown {
                    record.unknown.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
            contents.seen.insert(record.name.clone(), now);
            contents.snapshot.nodes.insert(record.name.clone(), Arc::new(record));
            Ok(())
        })
        .await
    }

    async fn heartbeat(&self, node: &NodeName) -> Result<(), StoreError> {
        self.call("heartbeat", node, |contents, now| {
            if !contents.snapshot.nodes.contains_key(node) {
                return Err("there is no such record".into());
            }
            contents.seen.insert(node.clone(), now);
            Ok(())
        })
        .await?;
        // A sign of life is no change.
        lock(&self.view.faults).calls -= 1;
        Ok(())
    }

    async fn last_seen(&self, node: &NodeName) -> Result<Option<Timestamp>, StoreError> {
        let contents = lock(&self.shared.contents);
        Ok(contents.seen.get(node).copied().filter(|_| contents.snapshot.nodes.contains_key(node)))
    }

    async fn claim(&self, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        self.call("claim", claim.block, |contents, _| {
            if claim.holder.is_none() {
                return Err("a claim without a holder can't be made".into());
            }
            if let Some(stored) = contents.snapshot.claims.get(&claim.block) {
                let is_ours = stored.holder == claim.holder;
                return Ok(if is_ours {
                    ClaimOutcome::Claimed
                } else {
                    ClaimOutcome::TakenBy(stored.holder.clone())
                });
            }
            let mut others = contents.snapshot.claims.values().filter(|other| other.holder != claim.holder);
            if let Some(other) = others.find(|other| overlap(other.block.net(), claim.block.net())) {
                return Ok(ClaimOutcome::TakenBy(other.holder.clone()));
            }
            contents.snapshot.claims.insert(claim.block, claim.clone());
            contents.snapshot.released.remove(&claim.block);
            Ok(ClaimOutcome::Claimed)
        })
        .await
    }

    async fn release(&self, block: Block, holder: &NodeName) -> Result<bool, StoreError> {
        self.call("release", block, |contents, now| {
            let is_theirs = contents
                .snapshot
                .claims
                .get(&block)
                .is_some_and(|claim| claim.holder.as_ref() == Some(holder));
            if is_theirs {
                contents.release(block, now);
            }
            Ok(is_theirs)
        })
        .await
    }

    async fn mend_claim(&self, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        self.call("mend", claim.block, |contents, _| {
            if claim.holder.is_none() {
                return Err("a claim without a holder can't be made".into());
            }
            let snapshot = &mut contents.snapshot;
            let stored = snapshot.claims.get(&claim.block);
            let holder = stored.and_then(|stored| stored.holder.clone());
            let is_readable = stored.is_some() && !snapshot.unreadable.contains(&claim.block);
            if let Some(holder) = holder.filter(|_| is_readable) {
                let is_ours = claim.holder.as_ref() == Some(&holder);
                return Ok(if is_ours { ClaimOutcome::Claimed } else { ClaimOutcome::TakenBy(Some(holder)) });
            }
            snapshot.unreadable.remove(&claim.block);
            snapshot.claims.insert(claim.block, claim.clone());
            snapshot.released.remove(&claim.block);
            Ok(ClaimOutcome::Claimed)
        })
        .await
    }

    async fn ensure_pool(&self, pool: &PoolRecord) -> Result<PoolOutcome, StoreError> {
        self.call("create the pool record", pool.cidr, |contents, _| {
            let pools = &mut contents.snapshot.pools;
            if let Some(stored) = pools.get(&pool.cidr) {
                return Ok(if stored.block_prefix == pool.block_prefix {
                    PoolOutcome::Agreed
                } else {
                    PoolOutcome::BlockPrefixDiffers(stored.block_prefix)
                });
            }
            if let Some(other) = pools.keys().find(|other| overlap(**other, pool.cidr)) {
                return Ok(PoolOutcome::Overlaps(*other));
            }
            pools.insert(pool.cidr, pool.clone());
            Ok(PoolOutcome::Agreed)
        })
        .await
    }

    async fn remove_pool(&self, cidr: IpNet) -> Result<bool, StoreError> {
        self.call("remove the pool record", cidr, |contents, _| {
            let is_claimed = contents.snapshot.claims.keys().any(|block| overlap(block.net(), cidr));
            if !is_claimed {
                contents.snapshot.pools.remove(&cidr);
            }
            Ok(!is_claimed)
        })
        .await
    }

    async fn remove_node(&self, node: &NodeName) -> Result<bool, StoreError> {
        self.call("remove the node record", node, |contents, now| {
            let blocks = contents.snapshot.blocks_of(node);
            for block in &blocks {
                contents.release(*block, now);
            }
            contents.seen.remove(node);
            Ok(contents.snapshot.nodes.remove(node).is_some() || !blocks.is_empty())
        })
        .await
    }
}

impl Contents {
    fn release(&mut self, block: Block, now: Timestamp) {
        self.snapshot.claims.remove(&block);
        self.snapshot.unreadable.remove(&block);
        self.snapshot.released.retain(|_, at| now.duration_since(*at) < FORGET_RELEASED_AFTER);
        self.snapshot.released.insert(block, now);
    }
}

/// A panic in a test leaves nothing half done here: each change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
