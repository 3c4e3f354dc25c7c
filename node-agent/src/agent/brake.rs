//! The brake: a store that suddenly lacks many peers keeps the data plane as it is for a while (invariant 3).
//!
//! A peer vanishes, wholly or in part, when its record goes or a claim of it that no other takes the place of.
//! If more than a share of all peers vanish within a short time (`brake` in the configuration), they are kept with
//! what was last known of them, until it is back, a later snapshot confirms the loss or a grace time is over. Where
//! this node's own record or claims vanish with them, one peer is enough, of however many: then it is the store that
//! lost something. A store that has lost everything gets the records of the living back within that time: one by one,
//! a peer's claims too, and what has not come back yet is kept as long as what is away altogether.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::Brake as Limits;
use tokio::time::Instant;

use crate::node::{Claim, NodeName, NodeRecord, Snapshot};

mod start;

pub(super) use start::{Held, StartBrake};

/// What is known of the peers.
#[derive(Debug, Default)]
pub(super) struct Brake {
    /// What was believed last.
    last: Option<Arc<Snapshot>>,
    vanished: BTreeMap<NodeName, Vanished>,
    /// The last snapshot had this node's own record and claims.
    own: bool,
    /// When they vanished.
    own_lost: Option<Instant>,
    /// The last snapshot of a store that was not being filled again.
    whole: Option<Arc<Snapshot>>,
}

#[derive(Debug, Clone)]
struct Known {
    record: Arc<NodeRecord>,
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
    /// What to believe of a snapshot at this time. `answering`: the store is well.
    pub(super) fn pass(
        &mut self,
        limits: &Limits,
        own: &NodeName,
        snapshot: &Arc<Snapshot>,
        now: Instant,
        answering: bool,
    ) -> Braked {
        let snapshot = if snapshot.rebuilding {
            // Whoever is missing afterwards went with our own.
            self.own_lost = Some(now);
            &self.whole.clone().unwrap_or_else(|| Arc::clone(snapshot))
        } else {
            self.whole = Some(Arc::clone(snapshot));
            snapshot
        };
        let own_present = snapshot.nodes.contains_key(own)
            && snapshot.claims.values().any(|claim| claim.holder.as_ref() == Some(own));
        if std::mem::replace(&mut self.own, own_present) && !own_present {
            self.own_lost = Some(now);
        }
        let last = self.last.replace(Arc::clone(snapshot)).filter(|last| !same_claims(last, snapshot));
        if last.is_none() && self.vanished.is_empty() {
            return Braked { snapshot: Arc::clone(snapshot), held: BTreeSet::new(), until: None };
        }
        let present = peers(own, snapshot);
        for (name, known) in last.map(|last| peers(own, &last)).unwrap_or_default() {
            let lost = !known.missing(present.get(&name)).is_empty();
            // One that is held stays so, with all that was known of it before its first loss.
            if lost && self.vanished.get(&name).is_none_or(|vanished| !vanished.held) {
                let vanished = Vanished { known, since: now, revision: snapshot.revision, held: false };
                self.vanished.insert(name, vanished);
            }
        }
        self.vanished.retain(|name, vanished| {
            let age = now.duration_since(vanished.since);
            let confirmed = snapshot.revision > vanished.revision && age >= limits.confirm_after;
            let over = if vanished.held {
                answering && (confirmed || age >= limits.grace)
            } else {
                age >= limits.within
            };
            !over && !vanished.known.missing(present.get(name)).is_empty()
        });
        self.hold(limits, &present, now);
        let held: BTreeSet<NodeName> = self
            .vanished
            .iter()
            .filter(|(_, vanished)| vanished.held)
            .map(|(name, _)| name.clone())
            .collect();
        Braked { snapshot: self.kept(snapshot, &present, &held), until: self.until(limits, now), held }
    }

    /// Decides about those that have vanished within the window: if they are too many, those that went first come
    /// back with the others. A decision taken stands.
    fn hold(&mut self, limits: &Limits, present: &BTreeMap<NodeName, Known>, now: Instant) {
        let gone = self.vanished.len();
        let all = present.len() + self.vanished.keys().filter(|name| !present.contains_key(*name)).count();
        let store_lost = self.own_lost.is_some_and(|since| now.duration_since(since) < limits.within);
        let (share, at_least) = if store_lost { (0, 1) } else { (limits.share, limits.at_least) };
        if too_many(share, at_least, gone, all) {
            for vanished in self.vanished.values_mut() {
                vanished.held = true;
            }
        }
    }

    fn kept(
        &self,
        snapshot: &Arc<Snapshot>,
        present: &BTreeMap<NodeName, Known>,
        held: &BTreeSet<NodeName>,
    ) -> Arc<Snapshot> {
        if held.is_empty() {
            return Arc::clone(snapshot);
        }
        let mut kept = Snapshot::clone(snapshot);
        for (name, vanished) in self.vanished.iter().filter(|(_, vanished)| vanished.held) {
            kept.nodes.entry(name.clone()).or_insert_with(|| vanished.known.record.clone());
            for claim in vanished.known.missing(present.get(name)) {
                // Whoever has claimed the block since has it.
                kept.claims.entry(claim.block).or_insert_with(|| claim.clone());
            }
        }
        Arc::new(kept)
    }

    fn until(&self, limits: &Limits, now: Instant) -> Option<Instant> {
        let ends = self.vanished.values().filter(|vanished| vanished.held);
        // After the grace time only the store's answer is waited for, which wakes the loop by itself.
        ends.flat_map(|vanished| [limits.confirm_after, limits.grace].map(|after| vanished.since + after))
            .filter(|end| *end > now)
            .min()
    }
}

/// Whether so many of all are more than the share, and enough to count.
fn too_many(share: u8, at_least: u32, gone: usize, all: usize) -> bool {
    let at_least = usize::try_from(at_least).unwrap_or(usize::MAX);
    gone >= at_least && gone.saturating_mul(100) > usize::from(share).saturating_mul(all)
}

/// Whether nobody can have lost anything between two snapshots: they have the same nodes, and each the same claims.
fn same_claims(one: &Arc<Snapshot>, other: &Arc<Snapshot>) -> bool {
    Arc::ptr_eq(one, other)
        || one.claims.len() == other.claims.len()
            && one
                .claims
                .values()
                .zip(other.claims.values())
                .all(|(a, b)| a.block == b.block && a.holder == b.holder)
            && one.nodes.keys().eq(other.nodes.keys())
}

fn peers(own: &NodeName, snapshot: &Snapshot) -> BTreeMap<NodeName, Known> {
    let mut peers: BTreeMap<NodeName, Known> = BTreeMap::new();
    for claim in snapshot.claims.values() {
        let Some(holder) = claim.holder.as_ref().filter(|holder| *holder != own) else { continue };
        if let Some(record) = snapshot.nodes.get(holder) {
            peers
                .entry(holder.clone())
                .or_insert_with(|| Known { record: Arc::clone(record), claims: Vec::new() })
                .claims
                .push(claim.clone());
        }
    }
    peers
}

#[cfg(test)]
mod tests;
