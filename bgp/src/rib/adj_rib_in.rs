//! What one peer told us, before the import filter, with the verdict on each prefix.

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::{Inventory, LearnedRoute, Neighbor, REFUSED_SHOWN, Refusal};
use crate::wire::{AsSegment, Attributes, Reach};
use crate::{Asn, Family, RouterId};

/// What holds for the verdicts on all peers' prefixes.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) asn: Asn,
    pub(super) router_id: RouterId,
    pub(super) own: &'a BTreeSet<IpNet>,
}

impl Context<'_> {
    /// RFC 4271 §9.1.2, RFC 4456 §8: we are on the path already.
    fn loops(&self, attributes: &Attributes) -> bool {
        attributes.originator_id == Some(self.router_id)
            || attributes.as_path.iter().any(|segment| match segment {
                AsSegment::Sequence(asns) | AsSegment::Set(asns) => asns.contains(&self.asn),
            })
    }
}

/// The peer's accepted path of a prefix is now this one, or none.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) prefix: IpNet,
    pub(super) path: Option<Path>,
}

/// An accepted path.
#[derive(Debug)]
pub(super) struct Path {
    next_hop: IpAddr,
    attributes: Arc<Attributes>,
    stale: bool,
}

impl Path {
    pub(super) fn into_route(self, peer: &str) -> LearnedRoute {
        let Self { next_hop, attributes, stale } = self;
        LearnedRoute { peer: peer.to_owned(), next_hop, attributes, stale }
    }
}

/// One more prefix than the peer may have.
#[derive(Debug)]
pub(super) struct LimitReached;

/// One prefix as told.
#[derive(Debug)]
pub(super) struct Entry {
    next_hop: IpAddr,
    link_local: Option<Ipv6Addr>,
    attributes: Arc<Attributes>,
    /// Kept over a restart of the peer and not told again since.
    pub(super) stale: bool,
    loops: bool,
    verdict: Result<(), Refusal>,
}

impl Entry {
    fn path(&self) -> Option<Path> {
        self.verdict.is_ok().then(|| Path {
            next_hop: self.next_hop,
            attributes: Arc::clone(&self.attributes),
            stale: self.stale,
        })
    }
}

#[derive(Debug)]
pub(super) struct AdjRibIn {
    pub(super) neighbor: Neighbor,
    /// Of the last session.
    pub(super) router_id: Option<RouterId>,
    /// Negotiated in the last session.
    pub(super) families: BTreeSet<Family>,
    entries: BTreeMap<IpNet, Entry>,
    accepted: BTreeMap<Family, usize>,
    refused: BTreeMap<IpNet, Refusal>,
    refused_count: BTreeMap<Refusal, usize>,
    /// Entries dropped or replaced since [`AdjRibIn::take_released`].
    released: usize,
}

impl AdjRibIn {
    pub(super) fn new(neighbor: Neighbor) -> Self {
        Self {
            neighbor,
            router_id: None,
            families: BTreeSet::new(),
            entries: BTreeMap::new(),
            accepted: BTreeMap::new(),
            refused: BTreeMap::new(),
            refused_count: BTreeMap::new(),
            released: 0,
        }
    }

    /// References to attributes that were given up since the last call.
    pub(super) fn take_released(&mut self) -> usize {
        std::mem::take(&mut self.released)
    }

    pub(super) fn inventory(&self) -> Inventory {
        Inventory {
            accepted: self.accepted.clone(),
            refused: self.refused_count.clone(),
            refused_prefixes: self
                .refused
                .iter()
                .map(|(prefix, why)| (*prefix, *why))
                .take(REFUSED_SHOWN)
                .collect(),
        }
    }

    pub(super) fn accepted(&self) -> impl Iterator<Item = IpNet> {
        self.entries.iter().filter(|(_, entry)| entry.verdict.is_ok()).map(|(prefix, _)| *prefix)
    }

    pub(super) fn withdraw(&mut self, prefixes: &[IpNet], changes: &mut Vec<Change>) {
        for prefix in prefixes {
            if self.families.contains(&Family::of(*prefix)) {
                self.remove(*prefix, changes);
            }
        }
    }

    pub(super) fn announce(
        &mut self,
        groups: &[Reach],
        attributes: &Arc<Attributes>,
        context: &Context<'_>,
        changes: &mut Vec<Change>,
    ) -> Result<(), LimitReached> {
        let loops = context.loops(attributes);
        for reach in groups {
            for prefix in &reach.prefixes {
                if self.families.contains(&Family::of(*prefix)) {
                    self.insert(*prefix, reach, attributes, loops, context, changes)?;
                }
            }
        }
        Ok(())
    }

    fn insert(
        &mut self,
        prefix: IpNet,
        reach: &Reach,
        attributes: &Arc<Attributes>,
        loops: bool,
        context: &Context<'_>,
        changes: &mut Vec<Change>,
    ) -> Result<(), LimitReached> {
        let full = self.entries.len() >= self.neighbor.max_prefixes;
        let verdict = judge(&self.neighbor, context, prefix, reach.next_hop, reach.link_local, loops);
        let entry = Entry {
            next_hop: reach.next_hop,
            link_local: reach.link_local,
            attributes: Arc::clone(attributes),
            stale: false,
            loops,
            verdict,
        };
        let path = entry.path();
        let before = match self.entries.entry(prefix) {
            MapEntry::Vacant(_) if full => return Err(LimitReached),
            MapEntry::Vacant(place) => {
                place.insert(entry);
                None
            }
            MapEntry::Occupied(mut place) => Some(place.insert(entry)),
        };
        let same = before.as_ref().is_some_and(|before| {
            before.verdict == verdict
                && !before.stale
                && before.next_hop == reach.next_hop
                // Interned: equal sets are one set.
                && Arc::ptr_eq(&before.attributes, attributes)
        });
        self.released += usize::from(before.is_some());
        let accepted_before = before.as_ref().is_some_and(|before| before.verdict.is_ok());
        self.recount(prefix, before.map(|before| before.verdict), Some(verdict));
        if !same && (accepted_before || path.is_some()) {
            changes.push(Change { prefix, path });
        }
        Ok(())
    }

    fn remove(&mut self, prefix: IpNet, changes: &mut Vec<Change>) {
        if let Some(entry) = self.entries.remove(&prefix) {
            self.released += 1;
            self.recount(prefix, Some(entry.verdict), None);
            if entry.verdict.is_ok() {
                changes.push(Change { prefix, path: None });
            }
        }
    }

    /// Drops the entries of a family that `keep` does not want.
    pub(super) fn retain(
        &mut self,
        family: Family,
        keep: impl Fn(&Entry) -> bool,
        changes: &mut Vec<Change>,
    ) {
        let gone: Vec<IpNet> = self
            .entries
            .iter()
            .filter(|(prefix, entry)| Family::of(**prefix) == family && !keep(entry))
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in gone {
            self.remove(prefix, changes);
        }
    }

    /// RFC 4724 §4.2: marks all of a family; what is marked already is dropped.
    pub(super) fn mark_stale(&mut self, family: Family, changes: &mut Vec<Change>) {
        self.retain(family, |entry| !entry.stale, changes);
        for (prefix, entry) in self.entries.iter_mut().filter(|(prefix, _)| Family::of(**prefix) == family) {
            entry.stale = true;
            if let Some(path) = entry.path() {
                changes.push(Change { prefix: *prefix, path: Some(path) });
            }
        }
    }

    /// Judges everything again: the filter has changed.
    pub(super) fn judge_all(&mut self, context: &Context<'_>, changes: &mut Vec<Change>) {
        let prefixes: Vec<IpNet> = self.entries.keys().copied().collect();
        for prefix in prefixes {
            self.judge_one(prefix, context, changes);
        }
    }

    /// Judges one prefix again.
    pub(super) fn judge_one(&mut self, prefix: IpNet, context: &Context<'_>, changes: &mut Vec<Change>) {
        let Some(entry) = self.entries.get_mut(&prefix) else { return };
        let verdict = judge(&self.neighbor, context, prefix, entry.next_hop, entry.link_local, entry.loops);
        let before = std::mem::replace(&mut entry.verdict, verdict);
        if before == verdict {
            return;
        }
        let path = entry.path();
        if before.is_ok() || path.is_some() {
            changes.push(Change { prefix, path });
        }
        self.recount(prefix, Some(before), Some(verdict));
    }

    /// Keeps the counts and the list of refusals in line with a verdict that came, went or changed.
    fn recount(
        &mut self,
        prefix: IpNet,
        before: Option<Result<(), Refusal>>,
        after: Option<Result<(), Refusal>>,
    ) {
        if before == after {
            return;
        }
        match before {
            Some(Ok(())) => decrement(&mut self.accepted, Family::of(prefix)),
            Some(Err(refusal)) => {
                decrement(&mut self.refused_count, refusal);
                self.refused.remove(&prefix);
            }
            None => {}
        }
        match after {
            Some(Ok(())) => *self.accepted.entry(Family::of(prefix)).or_default() += 1,
            Some(Err(refusal)) => {
                *self.refused_count.entry(refusal).or_default() += 1;
                self.refused.insert(prefix, refusal);
            }
            None => {}
        }
    }
}

fn judge(
    neighbor: &Neighbor,
    context: &Context<'_>,
    prefix: IpNet,
    next_hop: IpAddr,
    link_local: Option<Ipv6Addr>,
    loops: bool,
) -> Result<(), Refusal> {
    if loops {
        return Err(Refusal::Loop);
    }
    if context.own.contains(&prefix) {
        return Err(Refusal::OwnPrefix);
    }
    neighbor.import.judge(neighbor.address, prefix, next_hop, link_local)
}

/// A count that comes to nothing is no longer there.
fn decrement<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let MapEntry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}
