//! The operations, made of creations, replacements and removals of single records.
//!
//! An answer may be lost after the server did what it was asked for. So whatever is tried again first reads how things
//! stand, and what already is as wanted is a success.

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::Value;

use super::RemoteStore;
use super::backend::{Backend, Failure, Key, Stored};
use super::tables::Tables;
use crate::node::{Block, Claim, NodeName, NodeRecord, PoolRecord};
use crate::store::kind::Kind;
use crate::store::{ClaimOutcome, FORGET_RELEASED_AFTER, PoolOutcome, overlap, record};

/// Between reading a record and writing it somebody else may write it; he does not do so again and again.
const ATTEMPTS: u32 = 8;

/// What a claim's record says of its holder.
enum Held {
    By(NodeName),
    ByNameAlone,
}

impl<B: Backend> RemoteStore<B> {
    pub(super) async fn do_publish(&self, key: &Key, record: &NodeRecord) -> Result<(), Failure> {
        for _ in 0..ATTEMPTS {
            let stored = self.backend.read(key).await?;
            let content =
                self.options.encoding.node(record, stored.as_ref().map(|stored| stored.content.as_slice()));
            let written = match &stored {
                Some(stored) if says_the_same(&stored.content, &content) => true,
                Some(stored) => self.backend.replace(key, &content, stored.version).await?,
                None => self.backend.create(key, &content).await?.is_some(),
            };
            if written {
                return self.backend.sign(&record.name).await;
            }
        }
        Err(busy())
    }

    pub(super) async fn do_heartbeat(&self, key: &Key, node: &NodeName) -> Result<(), Failure> {
        let is_known = self.shared.tables().nodes.version(&key.name).is_some();
        if !is_known && self.backend.read(key).await?.is_none() {
            return Err(Failure::record("there is no such record"));
        }
        self.backend.sign(node).await
    }

    pub(super) async fn do_last_seen(
        &self,
        key: &Key,
        node: &NodeName,
    ) -> Result<Option<Timestamp>, Failure> {
        let Some(stored) = self.backend.read(key).await? else { return Ok(None) };
        // One that never gave a sign of life has made its record at least.
        Ok(Some(self.backend.last_sign(node).await?.unwrap_or(stored.made)))
    }

    /// `mends`: what can't be read is written anew.
    pub(super) async fn do_claim(
        &self,
        key: &Key,
        claim: &Claim,
        mends: bool,
    ) -> Result<ClaimOutcome, Failure> {
        let Some(own) = &claim.holder else {
            return Err(Failure::record("a claim without a holder can't be made"));
        };
        let content = self.options.encoding.claim(claim);
        for _ in 0..ATTEMPTS {
            if let Some(stored) = self.backend.read(key).await? {
                match held(claim.block, &stored) {
                    Held::By(holder) if holder == *own => {
                        self.forget_release(claim.block).await;
                        return Ok(ClaimOutcome::Claimed);
                    }
                    Held::By(holder) => return Ok(ClaimOutcome::TakenBy(Some(holder))),
                    Held::ByNameAlone if !mends => return Ok(ClaimOutcome::TakenBy(None)),
                    Held::ByNameAlone => {
                        if self.backend.replace(key, &content, stored.version).await? {
                            return Ok(ClaimOutcome::Claimed);
                        }
                    }
                }
                continue;
            }
            if let Some(holder) = self.overlaps_a_claim(claim).await? {
                return Ok(ClaimOutcome::TakenBy(holder));
            }
            let Some(version) = self.backend.create(key, &content).await? else { continue };
            if let Some(holder) = self.overlaps_an_earlier_claim(key, claim, version).await? {
                // The name excludes the same block alone. Of two that overlap the later one goes.
                if !self.backend.remove(key, Some(version)).await? {
                    return Err(busy());
                }
                return Ok(ClaimOutcome::TakenBy(holder));
            }
            self.forget_release(claim.block).await;
            return Ok(ClaimOutcome::Claimed);
        }
        Err(busy())
    }

    pub(super) async fn do_release(
        &self,
        key: &Key,
        block: Block,
        holder: &NodeName,
    ) -> Result<bool, Failure> {
        let mut tried = false;
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.backend.read(key).await? else {
                // Perhaps by the attempt whose answer was lost.
                return Ok(tried);
            };
            if !matches!(held(block, &stored), Held::By(name) if name == *holder) {
                return Ok(tried);
            }
            // Remembered before the claim goes: a crash between the two leaves a claim, which wins.
            self.remember_release(block, Timestamp::now()).await?;
            tried = true;
            if self.backend.remove(key, Some(stored.version)).await? {
                self.forget_old_releases(Timestamp::now()).await;
                return Ok(true);
            }
        }
        Err(busy())
    }

    pub(super) async fn do_ensure_pool(&self, key: &Key, pool: &PoolRecord) -> Result<PoolOutcome, Failure> {
        for _ in 0..ATTEMPTS {
            if let Some(stored) = self.backend.read(key).await? {
                let stored = record::pool(pool.cidr, &stored.content)
                    .map_err(|error| Failure::record(format!("it stands there but {error}")))?;
                let prefix = stored.record.block_prefix;
                let agrees = prefix == pool.block_prefix;
                return Ok(if agrees {
                    PoolOutcome::Agreed
                } else {
                    PoolOutcome::BlockPrefixDiffers(prefix)
                });
            }
            if let Some(other) = self.overlaps_a_pool(pool.cidr, u64::MAX).await? {
                return Ok(PoolOutcome::Overlaps(other));
            }
            let content = self.options.encoding.pool(pool);
            let Some(version) = self.backend.create(key, &content).await? else { continue };
            let Some(other) = self.overlaps_a_pool(pool.cidr, version).await? else {
                return Ok(PoolOutcome::Agreed);
            };
            if !self.backend.remove(key, Some(version)).await? {
                return Err(busy());
            }
            return Ok(PoolOutcome::Overlaps(other));
        }
        Err(busy())
    }

    pub(super) async fn do_remove_pool(&self, key: &Key, cidr: IpNet) -> Result<bool, Failure> {
        let claims = self.backend.list(Kind::Claim).await?;
        // By its name alone, whatever the content.
        let mut claimed = claims.iter().filter_map(|(key, _)| Block::from_record_name(&key.name));
        if claimed.any(|block| overlap(block.net(), cidr)) {
            return Ok(false);
        }
        self.backend.remove(key, None).await?;
        Ok(true)
    }

    pub(super) async fn do_remove_node(&self, key: &Key, node: &NodeName) -> Result<bool, Failure> {
        let mut any = false;
        for (claim, stored) in self.backend.list(Kind::Claim).await? {
            let Some(block) = Block::from_record_name(&claim.name) else { continue };
            if matches!(held(block, &stored), Held::By(name) if name == *node) {
                any |= self.do_release(&claim, block, node).await?;
            }
        }
        // Last: as long as the record stands, an interrupted removal can be seen and done again.
        any |= self.backend.remove(key, None).await?;
        self.backend.forget_signs(node).await?;
        Ok(any)
    }

    /// Who else holds a part of the block, or a block around it. What a feed has told may be over by now.
    async fn overlaps_a_claim(&self, claim: &Claim) -> Result<Option<Option<NodeName>>, Failure> {
        let candidates: Vec<Block> = overlapping_claims(&self.shared.tables(), claim, u64::MAX);
        for block in candidates {
            let Some(stored) = self.backend.read(&Key::claim(block)).await? else { continue };
            match held(block, &stored) {
                Held::By(holder) if claim.holder.as_ref() == Some(&holder) => {}
                Held::By(holder) => return Ok(Some(Some(holder))),
                Held::ByNameAlone => return Ok(Some(None)),
            }
        }
        Ok(None)
    }

    /// A pool's record, older than `version`, that overlaps. There are few of them.
    async fn overlaps_a_pool(&self, cidr: IpNet, version: u64) -> Result<Option<IpNet>, Failure> {
        let others = self.backend.list(Kind::Pool).await?;
        Ok(others.iter().filter(|(_, stored)| stored.version < version).find_map(|(other, _)| {
            let other = Block::from_record_name(&other.name)?.net();
            (other != cidr && overlap(other, cidr)).then_some(other)
        }))
    }

    /// Who else held a part of the block, or a block around it, when this claim was made; `Some(None)` if that can't be
    /// read. What is told of a kind is told in order: when our own claim has been told, every earlier one has.
    async fn overlaps_an_earlier_claim(
        &self,
        key: &Key,
        claim: &Claim,
        version: u64,
    ) -> Result<Option<Option<NodeName>>, Failure> {
        if self.wait_until_told(key, version).await {
            let tables = self.shared.tables();
            let earlier = overlapping_claims(&tables, claim, version);
            return Ok(earlier
                .first()
                .map(|block| tables.claims.good(block).and_then(|other| other.holder.clone())));
        }
        for (other, stored) in self.backend.list(Kind::Claim).await? {
            let Some(block) = Block::from_record_name(&other.name) else { continue };
            if stored.version >= version || block == claim.block || !overlap(block.net(), claim.block.net()) {
                continue;
            }
            match held(block, &stored) {
                Held::By(holder) if claim.holder.as_ref() == Some(&holder) => {}
                Held::By(holder) => return Ok(Some(Some(holder))),
                Held::ByNameAlone => return Ok(Some(None)),
            }
        }
        Ok(None)
    }

    /// Waits until the feed has told what was just written. `false`: it did not come, for the feed is cut.
    async fn wait_until_told(&self, key: &Key, version: u64) -> bool {
        let mut told = self.shared.told.subscribe();
        let arrives = async {
            loop {
                {
                    let tables = self.shared.tables();
                    let seen = match key.kind {
                        Kind::Claim => tables.claims.version(&key.name),
                        Kind::Pool => tables.pools.version(&key.name),
                        Kind::Node => tables.nodes.version(&key.name),
                        Kind::Released => tables.released.version(&key.name),
                    };
                    if tables.is_whole() && seen.is_some_and(|seen| seen >= version) {
                        return;
                    }
                }
                if told.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(self.options.deadline / 4, arrives).await.is_ok()
    }

    async fn remember_release(&self, block: Block, now: Timestamp) -> Result<(), Failure> {
        let key = Key::released(block);
        let content = self.options.encoding.released(block, now);
        for _ in 0..ATTEMPTS {
            let written = match self.backend.read(&key).await? {
                Some(stored) => self.backend.replace(&key, &content, stored.version).await?,
                None => self.backend.create(&key, &content).await?.is_some(),
            };
            if written {
                return Ok(());
            }
        }
        Err(busy())
    }

    /// A claim makes the memory of a release pointless. If it stays, nothing is wrong: the claim wins.
    async fn forget_release(&self, block: Block) {
        let key = Key::released(block);
        if let Err(error) = self.backend.remove(&key, None).await {
            tracing::debug!(%block, %error, "the memory of an earlier release can't be removed");
        }
    }

    async fn forget_old_releases(&self, now: Timestamp) {
        let old: Vec<(Key, u64)> = {
            let tables = self.shared.tables();
            let old = tables
                .released
                .records()
                .filter(|(_, at, _)| at.is_some_and(|at| now.duration_since(*at) >= FORGET_RELEASED_AFTER));
            old.map(|(block, _, version)| (Key::released(*block), version)).collect()
        };
        for (key, version) in old {
            if let Err(error) = self.backend.remove(&key, Some(version)).await {
                tracing::debug!(%key, %error, "the memory of an old release can't be removed");
                return;
            }
        }
    }
}

/// Somebody else changes the same record again and again.
fn busy() -> Failure {
    Failure::record("the record comes and goes; try again")
}

fn held(block: Block, stored: &Stored) -> Held {
    let holder = record::claim(block, &stored.content).ok().and_then(|decoded| decoded.record.holder);
    holder.map_or(Held::ByNameAlone, Held::By)
}

/// The same record, however it is laid out.
fn says_the_same(stored: &[u8], content: &[u8]) -> bool {
    let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    stored == content || value(stored).is_some_and(|stored| Some(stored) == value(content))
}

/// Claims of others that overlap this one, of those older than `version`.
fn overlapping_claims(tables: &Tables, claim: &Claim, version: u64) -> Vec<Block> {
    let overlapping = tables.claims.records().filter(|(block, other, made)| {
        *made < version
            && **block != claim.block
            && overlap(block.net(), claim.block.net())
            && other.is_none_or(|other| other.holder.is_none() || other.holder != claim.holder)
    });
    overlapping.map(|(block, ..)| *block).collect()
}
