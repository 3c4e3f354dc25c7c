//! Keeps this node's record and claims in the store.
//!
//! [`ClaimKeeper::pass`] is called with every snapshot: it compares what the store shows with what this node
//! remembers and with the configuration, and does what is missing. A claim that is gone is made again at once
//! under the same name and with the same time; a block that another node holds by then is lost, which fences
//! it (DESIGN, invariant 13). A record of ours that can't be read is written anew: for all others the name alone holds
//! the block. Nothing here ever gives a block back by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use config::{BlockSource, Config, Pool};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp, TimestampRound, Unit};

pub use self::commands::{FRESH, GivenBack, HEARTBEAT, delete_node, release_own};
pub use self::conditions::Condition;
use self::conditions::{NoBlock, block_lost, not_stored, renamed, unreadable};
pub use self::own_record::NODE_NAME_TAKEN;
use self::own_record::OwnRecord;
use self::pass::{FAMILIES, Pass, is_ipv6};
pub use self::pools::refused_changes;
pub use self::release::{Release, Released};
pub use self::state::{ASIDE_NAME, FILE_NAME, LostBlock, remembered};
use self::state::{Loaded, State, StateFile};
use crate::claim::{Request, choose};
use crate::node::{Block, Claim, NodeName, NodeRecord, Snapshot};
use crate::status::CommandError;
use crate::store::{ClaimOutcome, Store, overlap};
use crate::telemetry::chain;

mod commands;
mod conditions;
mod given;
mod own_record;
mod pass;
mod pools;
mod release;
mod state;

/// Races lost in one pass before the next pass goes on.
const ATTEMPTS: u32 = 24;

/// Blocks claimed in one pass at most, so that a pass stays short.
const CLAIMS_PER_PASS: usize = 32;

/// A pool record that nothing speaks for is removed after this.
const UNWANTED_POOL_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// A lost block whose other claim never appears in a snapshot counts as free after this.
const LOST_UNSEEN_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// A claim that this node remembers as its own, and whose record nobody could read since the start, is its own after
/// this: another holder who lives would have written it anew.
const UNREADABLE_OURS_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// What a pass found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    /// Claims of this node, the oldest first. They may be ahead of the snapshot.
    pub held: Vec<Claim>,
    /// Blocks that were this node's until another node held them.
    pub lost: Vec<LostBlock>,
    /// What an operator should know.
    pub conditions: Vec<Condition>,
    /// There is more to do, this soon, even if nothing changes.
    pub retry_after: Option<Duration>,
}

impl Claims {
    /// The blocks held, the oldest first.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block> {
        self.held.iter().map(|claim| claim.block).collect()
    }
}

/// Keeps one node's record and claims.
#[derive(Debug)]
pub struct ClaimKeeper {
    state: State,
    file: StateFile,
    own_record: OwnRecord,
    /// What was wrong with the state file at start.
    at_start: Option<AtStart>,
    /// Claims of the last snapshot and their times, and those met since, to see what vanishes without having been
    /// released.
    seen: BTreeMap<Block, Timestamp>,
    vanished: BTreeMap<Block, Timestamp>,
    /// An agent ran here before. This one can't know what has vanished meanwhile.
    ran_before: bool,
    /// When the first pass was.
    first_pass: Option<Timestamp>,
    /// Blocks that this node remembers as its own and whose record says nothing, and since when.
    nameless: BTreeMap<Block, Timestamp>,
    unwanted_pools: BTreeMap<IpNet, Timestamp>,
    /// Blocks whose claim was asked for and not answered: perhaps they are this node's, so they come before any other.
    unanswered: BTreeSet<Block>,
    /// Races lost in a row; spreads the next choice.
    attempt: u32,
}

impl ClaimKeeper {
    /// Reads what the node remembers from its state directory. What can't be read is a condition; the store knows
    /// the claims too.
    pub async fn open(node: NodeName, state_directory: PathBuf) -> Self {
        let (directory, name) = (state_directory.clone(), node.clone());
        let loaded = tokio::task::spawn_blocking(move || state::load(&directory, &name))
            .await
            .unwrap_or_else(|panic| Loaded::Unreadable(panic.to_string()));
        let ran_before = matches!(loaded, Loaded::State(_) | Loaded::Unreadable(_));
        let (state, saved, at_start) = match loaded {
            Loaded::Nothing => (State::new(node), None, None),
            Loaded::State(state) => (state.clone(), Some(state), None),
            Loaded::OtherNode(other) => {
                let condition = renamed(&node, &other);
                let left = condition.map(|condition| AtStart::Renamed { from: other.node, condition });
                (State::new(node), None, left)
            }
            Loaded::Unreadable(message) => {
                let subject = FILE_NAME.to_owned();
                let message = format!("{message}; this node's blocks are taken from the store");
                let condition = Condition { kind: "StateUnreadable", subject, message };
                (State::new(node), None, Some(AtStart::Unreadable(condition)))
            }
        };
        Self {
            state,
            file: StateFile::new(state_directory, saved),
            own_record: OwnRecord::default(),
            at_start,
            seen: BTreeMap::new(),
            vanished: BTreeMap::new(),
            ran_before,
            first_pass: None,
            nameless: BTreeMap::new(),
            unwanted_pools: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            attempt: 0,
        }
    }

    /// Does what is missing in the store: own record, pool records, claims. Never called before the first
    /// complete snapshot.
    pub async fn pass(
        &mut self,
        store: &dyn Store,
        config: &Config,
        record: &NodeRecord,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Claims {
        self.first_pass.get_or_insert(now);
        self.watch_others(config, snapshot, now);
        let mut pass = Pass::new(store, config, record, snapshot, now);
        let is_published = self.own_record.keep(store, record, snapshot, now).await;
        self.forget_given_back(&pass);
        self.keep_held(&mut pass).await;
        self.settle_lost(&pass);
        let mut unfinished = match config.blocks.source {
            BlockSource::Claim => self.claim_missing(&mut pass, config.blocks.per_node.into()).await,
            // What is missing while a store is filled again are the claims of others who live.
            BlockSource::NodeSpec if snapshot.rebuilding => false,
            BlockSource::NodeSpec => self.claim_given(&mut pass).await,
        };
        self.remove_unwanted_pools(&mut pass).await;
        let at_start = self.at_start.as_ref().and_then(|left| left.shown(snapshot)).cloned();
        self.file.save(&self.state).await;
        if self.file.trouble.is_none() {
            // It was written anew, and is shown once more.
            self.at_start.take_if(|left| matches!(left, AtStart::Unreadable(_)));
        }

        let rested = self.resting(&pass).into_values().chain(self.coming_back(now).into_values());
        let rested = rested.chain(self.silence(now)).min();
        let Pass { mut conditions, failed, .. } = pass;
        let is_short =
            conditions.iter().any(|condition| ["PoolExhausted", "BlockNotClaimed"].contains(&condition.kind));
        conditions.extend(self.own_record.conditions(record, now));
        conditions.extend(pools::homeless(self.state.held.keys(), &config.pools));
        conditions.extend(self.state.lost.values().map(block_lost));
        conditions.extend(at_start);
        conditions.extend(self.file.trouble.clone().map(|message| Condition {
            kind: "StateNotSaved",
            subject: FILE_NAME.to_owned(),
            message,
        }));
        conditions.sort();
        conditions.dedup();
        let has_failed = failed || !is_published || self.file.trouble.is_some();
        unfinished |= has_failed;
        Claims {
            held: self.held(),
            lost: self.state.lost.values().cloned().collect(),
            conditions,
            retry_after: if unfinished {
                Some(self.pause(has_failed, now))
            } else {
                // What it leaves alone for a while is free for it then.
                rested.filter(|_| is_short)
            },
        }
    }

    /// `pairway blocks claim [POOL]`: one more block per family, or one from this pool. They are kept like the others.
    /// Answers with the blocks.
    pub async fn claim_more(
        &mut self,
        store: &dyn Store,
        config: &Config,
        record: &NodeRecord,
        snapshot: &Snapshot,
        pool: Option<IpNet>,
        now: Timestamp,
    ) -> Result<Vec<Block>, CommandError> {
        if snapshot.rebuilding {
            let message = "the store has lost its contents, which the nodes are writing again".to_owned();
            return Err(commands::refusal("busy", message, "try again in a moment"));
        }
        if config.blocks.source == BlockSource::NodeSpec {
            let message =
                "this node's blocks are the podCIDRs of its Node object (blocks.source: nodeSpec)".to_owned();
            return Err(commands::refusal(
                "given",
                message,
                "set blocks.source to claim, and restart the agent",
            ));
        }
        self.watch_others(config, snapshot, now);
        let mut pass = Pass::new(store, config, record, snapshot, now);
        let wishes: Vec<Vec<&Pool>> = match pool {
            Some(cidr) => vec![vec![pass.claimable(cidr)?]],
            None => FAMILIES
                .iter()
                .map(|family| pass.pools_of(family.is_ipv6).collect::<Vec<_>>())
                .filter(|pools| !pools.is_empty())
                .collect(),
        };
        let mut claimed = Vec::new();
        let mut refused = None;
        for pools in wishes {
            match self.claim_one(&mut pass, &pools, Wish::Ordered).await {
                Ok(block) => claimed.push(block),
                Err(none) => refused = Some(none.refusal(&pools)),
            }
        }
        self.file.save(&self.state).await;
        match refused {
            None => Ok(claimed),
            Some(error) if claimed.is_empty() => Err(error),
            Some(error) => {
                let claimed: Vec<String> = claimed.iter().map(ToString::to_string).collect();
                Err(CommandError {
                    message: format!("{} ({} was claimed)", error.message, claimed.join(", ")),
                    ..error
                })
            }
        }
    }

    /// Whether this node remembers blocks of its own: it has run under this name before.
    #[must_use]
    pub fn remembers(&self) -> bool {
        !self.state.held.is_empty()
    }

    /// Claims of this node as it knows them, the oldest first.
    #[must_use]
    pub fn held(&self) -> Vec<Claim> {
        let mut held: Vec<Claim> = self.state.held.values().cloned().collect();
        held.sort_by_key(|claim| (claim.claimed_at, claim.block));
        held
    }

    /// Blocks that vanish without a release are left alone for a while, like those that were given back.
    fn watch_others(&mut self, config: &Config, snapshot: &Snapshot, now: Timestamp) {
        for (block, claimed_at) in &self.seen {
            // An older release is one of before the claim: a backup was restored.
            let is_released = snapshot.released.get(block).is_some_and(|at| at >= claimed_at);
            if !snapshot.claims.contains_key(block) && !is_released {
                self.vanished.entry(*block).or_insert(now);
            }
        }
        self.vanished.retain(|block, at| {
            let is_over = Duration::try_from(now.duration_since(*at))
                .is_ok_and(|age| age >= config.blocks.reuse_after && age >= FRESH.unsigned_abs());
            !is_over && !snapshot.claims.contains_key(block)
        });
        self.seen = snapshot.claims.values().map(|claim| (claim.block, claim.claimed_at)).collect();
    }

    /// Blocks whose claims vanished so short a time ago that a holder who lives may not have made them again yet, and
    /// for how long they are nobody else's.
    fn coming_back(&self, now: Timestamp) -> BTreeMap<Block, Duration> {
        self.vanished.iter().filter_map(|(block, at)| Some((*block, left_of_fresh(*at, now)?))).collect()
    }

    /// For so long this agent claims nothing more of its own accord: it can't know what has vanished before its first
    /// snapshot.
    fn silence(&self, now: Timestamp) -> Option<Duration> {
        self.first_pass.filter(|_| self.ran_before).and_then(|first| left_of_fresh(first, now))
    }

    /// Every block that is ours stands in the store under our name, or is lost.
    async fn keep_held(&mut self, pass: &mut Pass<'_>) {
        let snapshot = pass.snapshot;
        for claim in snapshot.claims.values() {
            if claim.holder.as_ref() == Some(&self.state.node) {
                if self.is_given_back(claim) {
                    self.give_back_again(pass, claim.block).await;
                    continue;
                }
                self.state.given_back.remove(&claim.block);
                self.state.lost.remove(&claim.block);
                // Peers see the store's time, so it is the one that counts.
                self.state.held.insert(claim.block, claim.clone());
            }
        }
        self.unanswered.retain(|block| !snapshot.claims.contains_key(block));
        self.nameless
            .retain(|block, _| snapshot.claims.get(block).is_some_and(|claim| claim.holder.is_none()));
        for claim in self.held() {
            match snapshot.claims.get(&claim.block).map(|stored| stored.holder.as_ref()) {
                // A record that was lost without its claims comes back too: it fixes the block prefix.
                Some(Some(holder)) if *holder == self.state.node => {
                    pass.record_pool_of(claim.block).await;
                    if snapshot.unreadable.contains(&claim.block) {
                        self.mend(pass, &claim).await;
                    }
                }
                Some(None) => {
                    let since = *self.nameless.entry(claim.block).or_insert(pass.now);
                    if pass.now.duration_since(since) >= UNREADABLE_OURS_AFTER {
                        self.mend(pass, &claim).await;
                    } else {
                        pass.conditions.push(unreadable(claim.block));
                    }
                }
                // By its own account another's: the store itself decides, a snapshot may lag.
                Some(Some(_)) | None => self.claim_again(pass, claim).await,
            }
        }
    }

    /// Writes a record of ours anew that can't be read. No other node ever touches it.
    async fn mend(&mut self, pass: &mut Pass<'_>, claim: &Claim) {
        let block = claim.block;
        if pass.failed {
            return pass.conditions.push(unreadable(block));
        }
        match pass.store.mend_claim(claim).await {
            Ok(ClaimOutcome::Claimed) => {
                tracing::warn!(%block, "the record of this node's claim could not be read; it is written anew");
            }
            Ok(ClaimOutcome::TakenBy(Some(holder))) => self.lose(block, holder, pass.now),
            Ok(ClaimOutcome::TakenBy(None)) => pass.conditions.push(unreadable(block)),
            Err(error) => {
                pass.failed = true;
                pass.conditions.push(not_stored(block, &chain(&error)));
            }
        }
    }

    async fn claim_again(&mut self, pass: &mut Pass<'_>, claim: Claim) {
        let block = claim.block;
        if let Some(pool) = pass.pools.iter().find(|pool| pool.cidr.contains(&block.net())) {
            // Before the claim, as the first time: the record may have gone with it.
            pass.stand(pool).await;
        }
        let overlapping = pass.snapshot.claims.values().find(|other| {
            other.block != block
                && overlap(other.block.net(), block.net())
                && other.holder.as_ref() != Some(&self.state.node)
        });
        if let Some(Claim { holder: Some(holder), .. }) = overlapping {
            return self.lose(block, holder.clone(), pass.now);
        }
        match pass.claim(&claim).await {
            // Right after a claim the snapshot may lag behind it: no news then.
            Some(Ok(ClaimOutcome::Claimed)) if self.vanished.contains_key(&block) => {
                tracing::info!(%block, "the claim was not in the store; it stands there again");
            }
            Some(Ok(ClaimOutcome::Claimed)) => {}
            Some(Ok(ClaimOutcome::TakenBy(Some(holder)))) => self.lose(block, holder, pass.now),
            Some(Ok(ClaimOutcome::TakenBy(None))) => pass.conditions.push(unreadable(block)),
            Some(Err(why)) => pass.conditions.push(not_stored(block, &why)),
            None => pass.conditions.push(not_stored(block, "the store failed before")),
        }
    }

    fn lose(&mut self, block: Block, holder: NodeName, now: Timestamp) {
        tracing::error!(%block, %holder, "a block of this node is held by another; it is fenced");
        self.state.held.remove(&block);
        let seen = self.seen.contains_key(&block);
        self.state.lost.insert(block, LostBlock { block, holder, since: now, seen });
    }

    /// A block stays lost for as long as the other node holds it.
    fn settle_lost(&mut self, pass: &Pass<'_>) {
        let mut free = Vec::new();
        for lost in self.state.lost.values_mut() {
            match pass.snapshot.claims.get(&lost.block) {
                Some(claim) => {
                    lost.seen = true;
                    if let Some(holder) = &claim.holder {
                        lost.holder = holder.clone();
                    }
                }
                None if lost.seen || pass.now.duration_since(lost.since) >= LOST_UNSEEN_AFTER => {
                    free.push(lost.block);
                }
                None => {}
            }
        }
        for block in free {
            self.state.lost.remove(&block);
            self.state.remember_former(block);
        }
    }

    /// `blocks.perNode` blocks of each family that has pools. `true` if there is more to do.
    async fn claim_missing(&mut self, pass: &mut Pass<'_>, per_node: usize) -> bool {
        if pass.snapshot.rebuilding {
            // What is missing are the claims of others who live. The snapshot of the whole store wakes the next pass.
            return false;
        }
        let mut left = CLAIMS_PER_PASS;
        for family in FAMILIES {
            if !pass.pools.iter().any(|pool| is_ipv6(pool.cidr) == family.is_ipv6) {
                continue;
            }
            let held = self.state.held.keys().filter(|block| is_ipv6(block.net()) == family.is_ipv6).count();
            let pools: Vec<&Pool> = pass.pools_of(family.is_ipv6).collect();
            for _ in held..per_node {
                if left == 0 {
                    return true;
                }
                left -= 1;
                match self.claim_one(pass, &pools, Wish::OwnAccord).await {
                    Ok(_) => {}
                    Err(none) => {
                        none.report(&family, held, per_node, &pools, &mut pass.conditions);
                        if matches!(none, NoBlock::RacesLost | NoBlock::Store(_)) {
                            return true;
                        }
                        break;
                    }
                }
            }
        }
        false
    }

    /// One block from the first of these pools that has one: a former block before any other.
    async fn claim_one(
        &mut self,
        pass: &mut Pass<'_>,
        pools: &[&Pool],
        wish: Wish,
    ) -> Result<Block, NoBlock> {
        let mut usable = Vec::new();
        for pool in pools {
            if pass.stand(pool).await {
                usable.push(*pool);
            }
        }
        if usable.is_empty() {
            let why =
                if pass.failed { NoBlock::Store("the store failed".to_owned()) } else { NoBlock::NoPool };
            return Err(why);
        }
        let mut taken: BTreeSet<Block> = pass.snapshot.claims.keys().copied().collect();
        taken.extend(self.state.held.keys());
        taken.extend(self.state.lost.keys());
        // Even if nothing else is free.
        taken.extend(self.coming_back(pass.now).into_keys());
        let mut cooling = self.vanished.clone();
        cooling.extend(&pass.snapshot.released);
        match wish {
            // Where an operator asks for more, what was given back is the last choice, as for every node.
            Wish::Ordered => cooling.extend(&self.state.given_back),
            Wish::OwnAccord => taken.extend(self.resting(pass).into_keys()),
        }
        while let Some(block) =
            self.unanswered(&usable, &taken).or_else(|| self.choose(pass, &usable, &taken, &cooling))
        {
            if pass.races_lost >= ATTEMPTS {
                return Err(NoBlock::RacesLost);
            }
            if wish == Wish::OwnAccord && self.silence(pass.now).is_some() {
                return Err(NoBlock::NotYet);
            }
            let claim = own_claim(block, &self.state.node, self.next_time(pass.now));
            let outcome = pass.claim(&claim).await;
            match outcome {
                Some(Err(_)) => drop(self.unanswered.insert(block)),
                Some(Ok(_)) => drop(self.unanswered.remove(&block)),
                None => {}
            }
            match outcome {
                Some(Ok(ClaimOutcome::Claimed)) => {
                    tracing::info!(%block, "claimed");
                    self.attempt = 0;
                    self.state.former.retain(|former| *former != block);
                    self.state.given_back.remove(&block);
                    self.state.held.insert(block, claim);
                    // At once: whoever is killed now still knows what it holds.
                    self.file.save(&self.state).await;
                    return Ok(block);
                }
                Some(Ok(ClaimOutcome::TakenBy(_))) => {
                    pass.races_lost += 1;
                    self.attempt = self.attempt.wrapping_add(1);
                    // Known before any snapshot shows it: if none ever does, it has vanished.
                    self.seen.entry(block).or_insert(pass.now);
                    taken.insert(block);
                }
                Some(Err(why)) => return Err(NoBlock::Store(why)),
                None => return Err(NoBlock::Store("the store failed".to_owned())),
            }
        }
        Err(NoBlock::Exhausted)
    }

    /// A block of these pools whose claim was not answered: to claim another one instead could make two of one.
    fn unanswered(&self, pools: &[&Pool], taken: &BTreeSet<Block>) -> Option<Block> {
        let fits = |block: &Block| {
            pools
                .iter()
                .any(|pool| pool.cidr.contains(&block.net()) && pool.block_prefix == block.net().prefix_len())
        };
        self.unanswered.iter().find(|block| !taken.contains(block) && fits(block)).copied()
    }

    fn choose(
        &self,
        pass: &Pass<'_>,
        pools: &[&Pool],
        taken: &BTreeSet<Block>,
        cooling: &BTreeMap<Block, Timestamp>,
    ) -> Option<Block> {
        let request = |pool: &Pool| {
            choose(&Request {
                node: &self.state.node,
                pool: pool.cidr,
                block_prefix: pool.block_prefix,
                taken,
                cooling,
                reuse_after: pass.reuse_after,
                former: &self.state.former,
                now: pass.now,
                attempt: self.attempt,
            })
        };
        let chosen: Vec<Block> = pools.iter().filter_map(|pool| request(pool)).collect();
        let former = self.state.former.iter().find(|former| chosen.contains(former));
        former.or(chosen.first()).copied()
    }

    /// A younger block must never look older than one that we hold: the oldest gives the tunnel address, even if
    /// the clock was set back.
    fn next_time(&self, now: Timestamp) -> Timestamp {
        let now = now.round(TimestampRound::new().smallest(Unit::Millisecond)).unwrap_or(now);
        let newest = self.state.held.values().map(|claim| claim.claimed_at).max();
        match newest.and_then(|newest| newest.checked_add(SignedDuration::from_millis(1)).ok()) {
            Some(after) => now.max(after),
            None => now,
        }
    }

    async fn remove_unwanted_pools(&mut self, pass: &mut Pass<'_>) {
        let unwanted = pools::unwanted(pass.snapshot, pass.pools);
        self.unwanted_pools.retain(|cidr, _| unwanted.contains(cidr));
        for cidr in unwanted {
            let is_ours = self.state.held.keys().any(|block| overlap(block.net(), cidr));
            let since = *self.unwanted_pools.entry(cidr).or_insert(pass.now);
            if !is_ours && !pass.failed && pass.now.duration_since(since) >= UNWANTED_POOL_AFTER {
                match pass.store.remove_pool(cidr).await {
                    Ok(true) => {
                        tracing::info!(%cidr, "the record of a pool that is not configured was removed")
                    }
                    // Somebody was faster than the snapshot.
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%cidr, error = chain(&error), "the record of an old pool can't be removed");
                        pass.failed = true;
                    }
                }
            }
        }
    }

    /// Spread, so that those who lost a race to each other don't meet again.
    fn pause(&self, after_failure: bool, now: Timestamp) -> Duration {
        let name =
            self.state.node.as_str().bytes().fold(17u64, |sum, byte| sum.wrapping_mul(31) ^ u64::from(byte));
        let salt = name ^ u64::from(now.subsec_nanosecond().unsigned_abs()) ^ u64::from(self.attempt);
        let jitter = fastrand::Rng::with_seed(salt).u64(0..100);
        Duration::from_millis(if after_failure { 1000 + 10 * jitter } else { 20 + 2 * jitter })
    }
}

/// A node's claim of a block.
fn own_claim(block: Block, holder: &NodeName, claimed_at: Timestamp) -> Claim {
    Claim { block, holder: Some(holder.clone()), claimed_at, unknown: BTreeMap::new() }
}

/// What the state file said when the agent started, other than what this node holds.
#[derive(Debug)]
enum AtStart {
    /// This node had another name, and held blocks under it.
    Renamed { from: NodeName, condition: Condition },
    /// It could not be read.
    Unreadable(Condition),
}

impl AtStart {
    /// The old name matters for as long as the store knows it.
    fn shown(&self, snapshot: &Snapshot) -> Option<&Condition> {
        match self {
            Self::Renamed { from, condition } => {
                let is_known = snapshot.nodes.contains_key(from) || !snapshot.blocks_of(from).is_empty();
                is_known.then_some(condition)
            }
            Self::Unreadable(condition) => Some(condition),
        }
    }
}

/// How much is left of the time in which a live holder makes its claim again that was missing at `since`.
fn left_of_fresh(since: Timestamp, now: Timestamp) -> Option<Duration> {
    let left = FRESH.checked_sub(now.duration_since(since))?;
    // A clock that was set back must not make it longer.
    Duration::try_from(left.min(FRESH)).ok().filter(|left| !left.is_zero())
}

/// Why a block is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// `blocks.perNode` asks for it.
    OwnAccord,
    /// An operator does.
    Ordered,
}

#[cfg(test)]
pub(crate) mod tests;
