//! A snapshot of what a store has read: the same for every store that reads records one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::overlap::report_overlaps;
use crate::node::{Block, Claim, NodeName, NodeRecord, PoolRecord, Snapshot};

/// What stands under the name of a record.
pub(super) struct Standing<'a, K, R> {
    /// What the name says.
    pub(super) key: &'a K,
    /// The last content that could be read.
    pub(super) good: Option<&'a R>,
    /// It is what stands there now.
    pub(super) readable: bool,
    /// When the record was made or changed, as the store says.
    pub(super) made: Timestamp,
}

/// Everything, with revision 0. `problems`: what can't be read, by record name.
pub(super) fn snapshot<'a>(
    problems: BTreeMap<String, String>,
    nodes: impl Iterator<Item = Standing<'a, NodeName, Arc<NodeRecord>>>,
    claims: impl Iterator<Item = Standing<'a, Block, Claim>>,
    pools: impl Iterator<Item = Standing<'a, IpNet, PoolRecord>>,
    released: impl Iterator<Item = Standing<'a, Block, Timestamp>>,
) -> Snapshot {
    let mut unreadable = BTreeSet::new();
    // Collected, not inserted one by one, which would leave the maps half empty.
    let claims = claims.map(|found| {
        if !found.readable {
            unreadable.insert(*found.key);
        }
        // The name alone holds the block, whatever the content.
        let nameless =
            || Claim { block: *found.key, holder: None, claimed_at: found.made, unknown: BTreeMap::new() };
        (*found.key, found.good.cloned().unwrap_or_else(nameless))
    });
    let mut snapshot = Snapshot {
        claims: claims.collect(),
        nodes: nodes.filter_map(|found| Some((found.key.clone(), Arc::clone(found.good?)))).collect(),
        pools: pools.filter_map(|found| Some((*found.key, found.good?.clone()))).collect(),
        released: released.map(|found| (*found.key, found.good.copied().unwrap_or(found.made))).collect(),
        problems,
        ..Snapshot::default()
    };
    snapshot.unreadable = unreadable;
    report_overlaps(&mut snapshot);
    snapshot
}
