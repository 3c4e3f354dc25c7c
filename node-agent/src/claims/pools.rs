//! What the cluster's pool records mean for the configured pools. Pure.

use std::collections::BTreeMap;

use config::Pool;
use ipnet::IpNet;

use super::Condition;
use crate::node::{Block, Claim, NodeName, PoolRecord, Snapshot};
use crate::store::{PoolOutcome, overlap};

/// May blocks be claimed from a pool?
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its record says what the configuration says.
    Agreed,
    /// It has no record yet.
    Unrecorded,
    /// The cluster says otherwise, and this is how.
    Mismatch(String),
}

/// The record of a configured pool.
pub(super) fn record(pool: &Pool) -> PoolRecord {
    PoolRecord { cidr: pool.cidr, block_prefix: pool.block_prefix, unknown: BTreeMap::new() }
}

/// What the snapshot says of a configured pool.
pub(super) fn standing(pool: &Pool, snapshot: &Snapshot) -> Standing {
    if let Some(record) = snapshot.pools.get(&pool.cidr) {
        return outcome(
            pool,
            &if record.block_prefix == pool.block_prefix {
                PoolOutcome::Agreed
            } else {
                PoolOutcome::BlockPrefixDiffers(record.block_prefix)
            },
        );
    }
    if let Some(other) = snapshot.pools.keys().find(|other| overlap(**other, pool.cidr)) {
        return outcome(pool, &PoolOutcome::Overlaps(*other));
    }
    // The record was lost, but not what was claimed under it.
    let odd = snapshot
        .claims
        .keys()
        .find(|block| overlap(block.net(), pool.cidr) && block.net().prefix_len() != pool.block_prefix);
    match odd {
        Some(block) => outcome(pool, &PoolOutcome::BlockPrefixDiffers(block.net().prefix_len())),
        None => Standing::Unrecorded,
    }
}

/// What the store's answer means.
pub(super) fn outcome(pool: &Pool, outcome: &PoolOutcome) -> Standing {
    match outcome {
        PoolOutcome::Agreed => Standing::Agreed,
        PoolOutcome::BlockPrefixDiffers(stored) => Standing::Mismatch(format!(
            "the cluster cuts blocks of /{stored} from {}, the configuration says blockPrefix: {}; nothing is claimed \
             from it: set it back to {stored}, or release every block of the pool first (`pairway blocks release`)",
            pool.cidr, pool.block_prefix
        )),
        PoolOutcome::Overlaps(other) => Standing::Mismatch(format!(
            "{} overlaps the cluster's pool {other}; nothing is claimed from it: configure {other}, or release every \
             block of it first (`pairway blocks release`)",
            pool.cidr
        )),
    }
}

/// Blocks of ours that no configured pool covers any more.
pub(super) fn homeless<'a>(
    held: impl Iterator<Item = &'a Block>,
    pools: &[Pool],
) -> impl Iterator<Item = Condition> {
    held.filter(|block| !pools.iter().any(|pool| pool.cidr.contains(&block.net()))).map(|block| Condition {
        kind: "PoolRemoved",
        subject: block.to_string(),
        message: format!(
            "this node holds {block}, which no configured pool covers; it stays and is routed: configure its pool again \
             (disabled: true stops new claims), or give it back (`pairway blocks release {block}`)"
        ),
    })
}

/// Records that nothing speaks for: not configured so, and without a claim.
pub(super) fn unwanted(snapshot: &Snapshot, pools: &[Pool]) -> Vec<IpNet> {
    snapshot
        .pools
        .values()
        .filter(|record| {
            let is_configured =
                pools.iter().any(|pool| pool.cidr == record.cidr && pool.block_prefix == record.block_prefix);
            let is_claimed = snapshot.claims.keys().any(|block| overlap(block.net(), record.cidr));
            !is_configured && !is_claimed
        })
        .map(|record| record.cidr)
        .collect()
}

/// Why pools can't go with a new list of them: one sentence per pool that blocks are held of. (That a pool's block
/// prefix never changes is the configuration's to say.)
///
/// `held` are this node's own blocks, which may not be in the snapshot yet.
#[must_use]
pub fn refused_changes(
    snapshot: &Snapshot,
    held: &[Block],
    current: &[Pool],
    wanted: &[Pool],
) -> Vec<String> {
    let holders = |pool: &Pool| -> BTreeMap<Block, Option<&NodeName>> {
        let own = held.iter().map(|block| (*block, None));
        let claimed = snapshot.claims.values().map(|claim: &Claim| (claim.block, claim.holder.as_ref()));
        own.chain(claimed).filter(|(block, _)| overlap(block.net(), pool.cidr)).collect()
    };
    let mut refused = Vec::new();
    for pool in current {
        if wanted.iter().any(|other| other.cidr == pool.cidr) {
            continue;
        }
        let holders = holders(pool);
        if let Some((block, holder)) = holders.first_key_value() {
            let holder = holder.map_or_else(|| "this node".to_owned(), ToString::to_string);
            refused.push(format!(
                "pool {} can't be removed while {} ({block} by {holder}{}); set disabled: true on it, and give them back first (`pairway blocks release` on their nodes)",
                pool.cidr,
                match holders.len() {
                    1 => "1 of its blocks is held".to_owned(),
                    several => format!("{several} of its blocks are held"),
                },
                if holders.len() > 1 { ", ..." } else { "" },
            ));
        }
    }
    refused
}
