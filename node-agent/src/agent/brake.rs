//! The brake: a store that suddenly lacks many peers keeps the data plane as it is for a while (invariant 3).
//!
//! A peer vanishes, wholly or in part, when its record goes or a claim of it that no other takes the place of.
//! If more than a share of all peers vanish within a short time, they are kept with what was last known of them,
//! until it is back, a later snapshot confirms the loss or a grace time is over. Where this node's own record or
//! claims vanish with them, one peer is enough: then it is the store that lost something, also in a cluster of
//! two. A store that has lost everything gets the records of the living back within that time: one by one, a
//! peer's claims too, and what has not come back yet is kept as long as what is away altogether.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::node::{Claim, NodeName, NodeRecord, Snapshot};

mod start;

pub(super) use start::StartBrake;

/// When the brake acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrakeLimits {
    /// More than this share of the peers in percent...
    pub share: usize,
    /// ... and at least so many of them...
    pub at_least: usize,
    /// ... within this time.
    pub window: Duration,
    /// A snapshot confirms the loss if it is later than this...
    pub confirm: Duration,
    /// ... and without one the loss is believed after this time.
    pub grace: Duration,
}

impl Default for BrakeLimits {
    fn default() -> Self {
        Self {
            share: 50,
            at_least: 2,
            window: Duration::from_secs(5),
            confirm: Duration::from_secs(10),
            grace: Duration::from_secs(30),
        }
    }
}

/// What is known of the peers.
#[derive(Debug)]
pub(super) struct Brake {
    limits: BrakeLimits,
    known: BTreeMap<NodeName, Known>,
    vanished: BTreeMap<NodeName, Vanished>,
    /// The last snapshot had this node's own record and claims.
    own: bool,
    /// When they vanished.
    own_lost: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Known {
    record: NodeRecord,
    claims: Vec<Claim>,
}

impl Known {
    /// Claims that are not there any more. A family with as many claims as before misses none: it has others now.
    fn missing(&self, now: Option<&Self>) -> Vec<&Claim> {
        let now = now.map_or(&[][..], |known| &known.claims);
        let of_family = |claims: &[Claim], ipv4: bool| {
            claims.iter().filter(|claim| claim.block.network().is_ipv4() == ipv4).count()
        };
        let absent = |claim: &&Claim| {
            let ipv4 = claim.block.network().is_ipv4();
            of_family(now, ipv4) < of_family(&self.claims, ipv4)
                && now.iter().all(|other| other.block != claim.block)
        };
        self.claims.iter().filter(absent).collect()
    }
}

#[derive(Debug)]
struct Vanished {
    known: Known,
    since: Instant,
    revision: u64,
    /// Kept; otherwise only counted.
    held: bool,
}

/// A snapshot behind the brake.
#[derive(Debug, Clone)]
pub(super) struct Braked {
    /// The snapshot, with what is kept.
    pub snapshot: Arc<Snapshot>,
    /// Peers that are kept.
    pub held: BTreeSet<NodeName>,
    /// When to look again at the latest.
    pub until: Option<Instant>,
}

impl Brake {
    pub(super) const fn new(limits: BrakeLimits) -> Self {
        Self { limits, known: BTreeMap::new(), vanished: BTreeMap::new(), own: false, own_lost: None }
    }

    /// What to believe of a snapshot at this time. `answering`: the store is well.
    pub(super) fn pass(
        &mut self,
        own: &NodeName,
        snapshot: &Arc<Snapshot>,
        now: Instant,
        answering: bool,
    ) -> Braked {
        let present = peers(own, snapshot);
        let own_present = snapshot.nodes.contains_key(own)
            && snapshot.claims.values().any(|claim| claim.holder.as_ref() == Some(own));
        if std::mem::replace(&mut self.own, own_present) && !own_present {
            self.own_lost = Some(now);
        }
        for (name, known) in std::mem::take(&mut self.known) {
            let lost = !known.missing(present.get(&name)).is_empty();
            // One that is held stays so, with all that was known of it before its first loss.
            if lost && self.vanished.get(&name).is_none_or(|vanished| !vanished.held) {
                let vanished = Vanished { known, since: now, revision: snapshot.revision, held: false };
                self.vanished.insert(name, vanished);
            }
        }
        self.known = present;
        let limits = self.limits;
        self.vanished.retain(|name, vanished| {
            let age = now.duration_since(vanished.since);
            let confirmed = snapshot.revision > vanished.revision && age >= limits.confirm;
            let over = if vanished.held {
                answering && (confirmed || age >= limits.grace)
            } else {
                age >= limits.window
            };
            !over && !vanished.known.missing(self.known.get(name)).is_empty()
        });
        self.hold(now);
        let held: BTreeSet<NodeName> = self
            .vanished
            .iter()
            .filter(|(_, vanished)| vanished.held)
            .map(|(name, _)| name.clone())
            .collect();
        Braked { snapshot: self.kept(snapshot, &held), until: self.until(now), held }
    }

    /// Decides about those that have vanished in this pass; a decision taken stands.
    fn hold(&mut self, now: Instant) {
        let gone = self.vanished.len();
        let all = self.known.keys().chain(self.vanished.keys()).collect::<BTreeSet<_>>().len();
        let store_lost = self.own_lost.is_some_and(|since| now.duration_since(since) < self.limits.window);
        let at_least = if store_lost { 1 } else { self.limits.at_least };
        if gone >= at_least && gone * 100 > self.limits.share * all {
            // What the store lost a moment before our own records belongs to them.
            for vanished in self.vanished.values_mut().filter(|v| store_lost || v.since == now) {
                vanished.held = true;
            }
        }
    }

    fn kept(&self, snapshot: &Arc<Snapshot>, held: &BTreeSet<NodeName>) -> Arc<Snapshot> {
        if held.is_empty() {
            return Arc::clone(snapshot);
        }
        let mut kept = Snapshot::clone(snapshot);
        for (name, vanished) in self.vanished.iter().filter(|(_, vanished)| vanished.held) {
            kept.nodes.entry(name.clone()).or_insert_with(|| vanished.known.record.clone());
            for claim in vanished.known.missing(self.known.get(name)) {
                // Whoever has claimed the block since has it.
                kept.claims.entry(claim.block).or_insert_with(|| claim.clone());
            }
        }
        Arc::new(kept)
    }

    fn until(&self, now: Instant) -> Option<Instant> {
        let ends = self.vanished.values().filter(|vanished| vanished.held);
        // After the grace time only the store's answer is waited for, which wakes the loop by itself.
        ends.flat_map(|vanished| [self.limits.confirm, self.limits.grace].map(|after| vanished.since + after))
            .filter(|end| *end > now)
            .min()
    }
}

fn peers(own: &NodeName, snapshot: &Snapshot) -> BTreeMap<NodeName, Known> {
    let mut peers: BTreeMap<NodeName, Known> = BTreeMap::new();
    for claim in snapshot.claims.values() {
        let Some(holder) = claim.holder.as_ref().filter(|holder| *holder != own) else { continue };
        if let Some(record) = snapshot.nodes.get(holder) {
            peers
                .entry(holder.clone())
                .or_insert_with(|| Known { record: record.clone(), claims: Vec::new() })
                .claims
                .push(claim.clone());
        }
    }
    peers
}

#[cfg(test)]
mod tests;
