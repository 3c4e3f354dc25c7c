//! `pairway blocks release BLOCK`: one block given back by order.
//!
//! The order is written down before the store is asked, so that a crash between the two ends in the block being free,
//! and it is remembered: a snapshot that lags, or a store that was rolled back, shows the claim again and must not make
//! the block ours again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use config::{Config, Pool};
use jiff::Timestamp;

use super::commands::{not_done, refusal};
use super::pass::{FAMILIES, Pass, is_ipv6};
use super::{ClaimKeeper, Claims};
use crate::node::{Block, Claim, NodeName, NodeRecord, Snapshot};
use crate::status::CommandError;
use crate::store::{FORGET_RELEASED_AFTER, Store};

/// The order to give a block back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// The block.
    pub block: Block,
    /// Also if another one is claimed in its place at once, or if it is the last one.
    pub force: bool,
}

/// A block that was given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The block.
    pub block: Block,
    /// It was not held any more: another node has it, and this one has forgotten that it ever was its own.
    pub lost_to: Option<NodeName>,
    /// Blocks claimed in its place, because of `blocks.perNode`.
    pub claimed: Vec<Block>,
    /// The tunnel address that went with it, and the one that takes its place, if any.
    pub tunnel_address: Option<(IpAddr, Option<IpAddr>)>,
    /// Other nodes leave it alone for so long, unless nothing else is free.
    pub reuse_after: Duration,
    /// What of others on this node still has its addresses, if it was given back all the same.
    pub in_use: Vec<String>,
}

impl Released {
    /// Adds what has come of it meanwhile: `before` and `after` are this node's claims, the oldest first.
    #[must_use]
    pub fn followed_by(mut self, before: &[Claim], after: &Claims) -> Self {
        let was_held = |claim: &&Claim| before.iter().any(|other| other.block == claim.block);
        self.claimed = after.held.iter().filter(|claim| !was_held(claim)).map(|claim| claim.block).collect();
        let tunnel = |claims: &[Claim]| {
            let of_family = |claim: &&Claim| is_ipv6(claim.block.net()) == is_ipv6(self.block.net());
            claims.iter().find(of_family).map(|claim| claim.block.network())
        };
        let (old, new) = (tunnel(before), tunnel(&after.held));
        self.tunnel_address = old.filter(|old| Some(*old) != new).map(|old| (old, new));
        self
    }
}

impl ClaimKeeper {
    /// Gives one block back, or forgets one that was lost to another node. The next pass claims in its place what
    /// `blocks.perNode` asks for, but not the same block before `blocks.reuseAfter`.
    pub async fn release(
        &mut self,
        store: &dyn Store,
        config: &Config,
        record: &NodeRecord,
        snapshot: &Snapshot,
        order: Release,
        now: Timestamp,
    ) -> Result<Released, CommandError> {
        let Release { block, force } = order;
        let released = |lost_to| Released {
            block,
            lost_to,
            claimed: Vec::new(),
            tunnel_address: None,
            reuse_after: config.blocks.reuse_after,
            in_use: Vec::new(),
        };
        if let Some(lost) = self.state.lost.remove(&block) {
            tracing::info!(%block, holder = %lost.holder, "forgotten: it was lost to another node");
            self.file.save(&self.state).await;
            return Ok(released(Some(lost.holder)));
        }
        let Some(claim) = self.state.held.get(&block).cloned() else { return Err(not_held(block, snapshot)) };
        if !force {
            self.refuse_if_needed(&Pass::new(store, config, record, snapshot, now), block, config)?;
        }
        self.state.held.remove(&block);
        // Not before the claim itself, whose time may be ahead of a clock that was set back.
        self.state.given_back.insert(block, now.max(claim.claimed_at));
        self.file.save(&self.state).await;
        if let Some(trouble) = self.file.trouble.clone() {
            self.keep_after_all(claim).await;
            return Err(refusal(
                "state",
                trouble,
                "a restart would claim the block again; nothing was changed",
            ));
        }
        match store.release(block, &self.state.node).await {
            Ok(true) => tracing::info!(%block, "given back by order"),
            Ok(false) if snapshot.unreadable.contains(&block) => {
                self.keep_after_all(claim).await;
                return Err(refusal(
                    "unreadable",
                    format!("the record of the claim of {block} can't be read"),
                    "it is written anew in a moment: try again then",
                ));
            }
            // It was not there, or another node has it: in either case it is not ours any more.
            Ok(false) => tracing::info!(%block, "given back by order; its claim was not in the store"),
            Err(error) => {
                self.keep_after_all(claim).await;
                return Err(not_done(&error));
            }
        }
        Ok(released(None))
    }

    /// The order is taken back. If the store has carried it out nevertheless, the next pass claims the block again.
    async fn keep_after_all(&mut self, claim: Claim) {
        self.state.given_back.remove(&claim.block);
        self.state.held.insert(claim.block, claim);
        self.file.save(&self.state).await;
    }

    fn refuse_if_needed(&self, pass: &Pass<'_>, block: Block, config: &Config) -> Result<(), CommandError> {
        let per_node = usize::from(config.blocks.per_node);
        let wants_ipv6 = is_ipv6(block.net());
        let family =
            FAMILIES.iter().find(|family| family.is_ipv6 == wants_ipv6).map_or("", |family| family.name);
        let held = self.state.held.keys().filter(|held| is_ipv6(held.net()) == wants_ipv6).count();
        if held > per_node {
            return Ok(());
        }
        let open: Vec<&Pool> = pass.pools_of(wants_ipv6).collect();
        let gives_more =
            |pool: &&Pool| pool.cidr.contains(&block.net()) && pool.block_prefix == block.net().prefix_len();
        if open.iter().any(gives_more) {
            let last = if held == 1 { "its last one, which gives the tunnel address; " } else { "" };
            let lower = if per_node > 1 { "lower blocks.perNode first, or " } else { "" };
            return Err(refusal(
                "needed",
                format!(
                    "this node holds {held} {family} of blocks.perNode: {per_node}, {last}another block would be claimed in \
                     place of {block} at once"
                ),
                &format!("{lower}`pairway blocks claim` one more first; --force exchanges it for another"),
            ));
        }
        if held == 1 && open.is_empty() {
            return Err(refusal(
                "last-block",
                format!(
                    "{block} is this node's last {family} block and no pool is open for another: without one it has no \
                     {family} pairs"
                ),
                "add or enable a pool first; --force gives the block back all the same",
            ));
        }
        Ok(())
    }

    /// A claim of ours that the store shows although the block was given back: a snapshot that lags, an order that a
    /// crash cut short, or a backup that was restored.
    pub(super) fn is_given_back(&self, claim: &Claim) -> bool {
        self.state.given_back.get(&claim.block).is_some_and(|at| claim.claimed_at <= *at)
    }

    pub(super) async fn give_back_again(&mut self, pass: &mut Pass<'_>, block: Block) {
        if pass.failed {
            return;
        }
        match pass.store.release(block, &self.state.node).await {
            Ok(true) => tracing::info!(%block, "given back again: it was by order before"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%block, error = crate::telemetry::chain(&error), "can't be given back; this is tried again");
                pass.failed = true;
            }
        }
    }

    /// Forgets orders that are settled.
    pub(super) fn forget_given_back(&mut self, pass: &Pass<'_>) {
        let node = &self.state.node;
        self.state.given_back.retain(|block, at| {
            let other = pass.snapshot.claims.get(block).and_then(|claim| claim.holder.as_ref());
            other.is_none_or(|holder| holder == node) && pass.now.duration_since(*at) < FORGET_RELEASED_AFTER
        });
    }

    /// Blocks that were given back so short a time ago that this node does not take them by itself, and for how long.
    pub(super) fn resting(&self, pass: &Pass<'_>) -> BTreeMap<Block, Duration> {
        let rest = |at: &Timestamp| {
            let age = Duration::try_from(pass.now.duration_since(*at)).unwrap_or_default();
            pass.reuse_after.checked_sub(age).filter(|rest| !rest.is_zero())
        };
        self.state.given_back.iter().filter_map(|(block, at)| Some((*block, rest(at)?))).collect()
    }
}

fn not_held(block: Block, snapshot: &Snapshot) -> CommandError {
    let hint = "`pairway blocks list --own` shows this node's blocks; each node gives back its own";
    match snapshot.claims.get(&block).map(|claim| claim.holder.as_ref()) {
        Some(Some(holder)) => {
            refusal("not-held", format!("{block} is not this node's: {holder} holds it"), hint)
        }
        Some(None) => refusal(
            "not-held",
            format!("{block} is not this node's, and the record of its claim can't be read"),
            hint,
        ),
        None => refusal("not-held", format!("{block} is not this node's: nobody holds it"), hint),
    }
}
