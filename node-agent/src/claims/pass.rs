//! One pass over the claims: what it works with, and its dealings with the store.

use std::collections::BTreeMap;
use std::time::Duration;

use config::{Config, Pool};
use ipnet::IpNet;
use jiff::Timestamp;

use super::Condition;
use super::commands;
use super::pools::{self, Standing};
use crate::node::{Block, Claim, NodeRecord, Snapshot};
use crate::status::CommandError;
use crate::store::{ClaimOutcome, Store};
use crate::telemetry::chain;

/// What one pass works with.
pub(super) struct Pass<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) pools: &'a [Pool],
    pub(super) reuse_after: Duration,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: Timestamp,
    pub(super) conditions: Vec<Condition>,
    /// May blocks be claimed from it? As far as it was asked.
    pub(super) standings: BTreeMap<IpNet, bool>,
    /// The store failed: nothing more is tried in this pass, each try may last until its deadline.
    pub(super) failed: bool,
    pub(super) races_lost: u32,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        store: &'a dyn Store,
        config: &'a Config,
        record: &'a NodeRecord,
        snapshot: &'a Snapshot,
        now: Timestamp,
    ) -> Self {
        Self {
            store,
            pools: &config.pools,
            reuse_after: config.blocks.reuse_after,
            labels: &record.labels,
            snapshot,
            now,
            conditions: Vec::new(),
            standings: BTreeMap::new(),
            failed: false,
            races_lost: 0,
        }
    }

    /// Pools of a family that this node may claim from, in the order of the configuration.
    pub(super) fn pools_of(&self, is_ipv6_wanted: bool) -> impl Iterator<Item = &'a Pool> {
        let labels = self.labels;
        self.pools.iter().filter(move |pool| {
            is_ipv6(pool.cidr) == is_ipv6_wanted && !pool.disabled && admits(pool, labels)
        })
    }

    pub(super) fn claimable(&self, cidr: IpNet) -> Result<&'a Pool, CommandError> {
        let Some(pool) = self.pools.iter().find(|pool| pool.cidr == cidr) else {
            let known: Vec<String> = self.pools.iter().map(|pool| pool.cidr.to_string()).collect();
            let hint = format!("the pools are {}", known.join(", "));
            return Err(commands::refusal("not-found", format!("{cidr} is not a configured pool"), &hint));
        };
        if pool.disabled {
            let message = format!("pool {cidr} is disabled: no new claims");
            return Err(commands::refusal(
                "disabled",
                message,
                "remove `disabled: true`, or take another pool",
            ));
        }
        if !admits(pool, self.labels) {
            let message = format!("pool {cidr} does not admit this node");
            return Err(commands::refusal(
                "not-permitted",
                message,
                "its `nodes` labels differ from this node's",
            ));
        }
        Ok(pool)
    }

    /// Makes sure that the pool has a record that agrees; `false` if it must not be claimed from.
    pub(super) async fn stand(&mut self, pool: &Pool) -> bool {
        if let Some(may) = self.standings.get(&pool.cidr) {
            return *may;
        }
        let standing = match pools::standing(pool, self.snapshot) {
            Standing::Unrecorded if self.failed => return false,
            Standing::Unrecorded => match self.store.ensure_pool(&pools::record(pool)).await {
                Ok(outcome) => pools::outcome(pool, &outcome),
                Err(error) => {
                    self.failed = true;
                    self.conditions.push(Condition {
                        kind: "PoolNotRecorded",
                        subject: pool.cidr.to_string(),
                        message: format!("nothing is claimed from this pool: {}", chain(&error)),
                    });
                    return false;
                }
            },
            known @ (Standing::Agreed | Standing::Mismatch(_)) => known,
        };
        let may = standing == Standing::Agreed;
        if let Standing::Mismatch(message) = standing {
            self.conditions.push(Condition { kind: "PoolMismatch", subject: pool.cidr.to_string(), message });
        }
        self.standings.insert(pool.cidr, may);
        may
    }

    /// Makes the record of a held block's pool, if there is none.
    pub(super) async fn record_pool_of(&mut self, block: Block) {
        let pool = self.pools.iter().find(|pool| pool.cidr.contains(&block.net()));
        if let Some(pool) = pool.filter(|pool| !self.snapshot.pools.contains_key(&pool.cidr)) {
            self.stand(pool).await;
        }
    }

    /// `None` if the store failed before.
    pub(super) async fn claim(&mut self, claim: &Claim) -> Option<Result<ClaimOutcome, String>> {
        if self.failed {
            return None;
        }
        let outcome = self.store.claim(claim).await;
        self.failed = outcome.is_err();
        Some(outcome.map_err(|error| chain(&error)))
    }
}

fn admits(pool: &Pool, labels: &BTreeMap<String, String>) -> bool {
    pool.nodes.iter().all(|(key, value)| labels.get(key) == Some(value))
}

pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) is_ipv6: bool,
}

pub(super) const FAMILIES: [Family; 2] =
    [Family { name: "ipv4", is_ipv6: false }, Family { name: "ipv6", is_ipv6: true }];

pub(super) fn is_ipv6(net: IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}
