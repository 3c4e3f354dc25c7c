//! What one peer is to be told, and what it has been told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Export;
use super::decision::DEFAULT_LOCAL_PREF;
use crate::wire::{AsSegment, Attributes, Origin, Reach, Update};
use crate::{Asn, Family};

/// How our prefixes are told to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// Next hop by family. A family without one, or with an address of the other family, is not announced.
    pub next_hops: BTreeMap<Family, IpAddr>,
    /// Which prefixes go to it.
    pub export: Export,
    /// Attributes of all of them.
    pub attributes: Arc<Attributes>,
}

/// The attributes of our own prefixes: to a peer in our AS with LOCAL_PREF and an empty AS_PATH, to others with
/// our AS in it (RFC 4271 §5.1.2, §5.1.5).
#[must_use]
pub fn own_attributes(asn: Asn, external: bool) -> Attributes {
    Attributes {
        origin: Origin::Igp,
        as_path: if external { vec![AsSegment::Sequence(vec![asn])] } else { Vec::new() },
        local_pref: (!external).then_some(DEFAULT_LOCAL_PREF),
        ..Attributes::default()
    }
}

/// The same for a speaker that is about to go: with GRACEFUL_SHUTDOWN, and within an AS with the LOCAL_PREF that whoever
/// knows the community gives such paths (RFC 8326 §4.1, §4.2).
#[must_use]
pub fn graceful_shutdown_attributes(attributes: Attributes) -> Attributes {
    Attributes {
        communities: vec![GRACEFUL_SHUTDOWN],
        local_pref: attributes.local_pref.map(|_| 0),
        ..attributes
    }
}

/// GRACEFUL_SHUTDOWN, 65535:0 (RFC 8326 §3).
pub const GRACEFUL_SHUTDOWN: u32 = 0xffff_0000;

/// What a peer was told of a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    next_hop: IpAddr,
    attributes: Arc<Attributes>,
}

/// Adj-RIB-Out of one peer: the difference between what it should know and what it was told.
///
/// Changes only note which prefixes to look at; [`AdjRibOut::poll`] makes messages of what is different then. A
/// peer that reads slowly is spared what has changed back meanwhile, if it is polled only when there is room.
#[derive(Debug)]
pub struct AdjRibOut {
    outbound: Outbound,
    prefixes: Arc<BTreeSet<IpNet>>,
    /// Negotiated; empty without a session.
    families: BTreeSet<Family>,
    told: BTreeMap<IpNet, Told>,
    unsettled: BTreeSet<IpNet>,
    /// To be told again though they are as told.
    again: BTreeSet<IpNet>,
    end_of_rib_due: BTreeSet<Family>,
}

impl AdjRibOut {
    /// Without a session and with nothing to tell.
    #[must_use]
    pub fn new(outbound: Outbound) -> Self {
        Self {
            outbound,
            prefixes: Arc::default(),
            families: BTreeSet::new(),
            told: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            again: BTreeSet::new(),
            end_of_rib_due: BTreeSet::new(),
        }
    }

    /// The whole set of our prefixes.
    pub fn set_prefixes(&mut self, prefixes: Arc<BTreeSet<IpNet>>) {
        if Arc::ptr_eq(&self.prefixes, &prefixes) {
            return;
        }
        if !self.families.is_empty() {
            self.unsettled.extend(self.prefixes.symmetric_difference(&prefixes));
        }
        self.prefixes = prefixes;
    }

    /// How they are told.
    pub fn set_outbound(&mut self, outbound: Outbound) {
        if self.outbound != outbound {
            self.outbound = outbound;
            self.unsettle_all();
        }
    }

    /// The session is established: the peer knows nothing. What it should know is followed by End-of-RIB for
    /// every family (RFC 4724 §2).
    pub fn session_up(&mut self, families: BTreeSet<Family>) {
        self.told.clear();
        self.unsettled.clear();
        self.again.clear();
        self.end_of_rib_due = families.clone();
        self.families = families;
        self.unsettle_all();
    }

    /// The session is gone.
    pub fn session_down(&mut self) {
        self.session_up(BTreeSet::new());
    }

    /// The peer wants to be told everything of a family again (RFC 2918 §4).
    pub fn refresh(&mut self, family: Family) {
        // What it was told stays on record: what it should not know any more is still to be withdrawn.
        let told: Vec<IpNet> =
            self.told.keys().copied().filter(|prefix| Family::of(*prefix) == family).collect();
        self.unsettled.extend(&told);
        self.again.extend(told);
    }

    /// What to send now, withdrawals first. The peer counts as told.
    #[must_use = "the peer counts as told"]
    pub fn poll(&mut self) -> Vec<Update> {
        let mut withdrawn = Vec::new();
        let again = std::mem::take(&mut self.again);
        let mut announced: BTreeMap<IpAddr, Vec<IpNet>> = BTreeMap::new();
        for prefix in std::mem::take(&mut self.unsettled) {
            match self.next_hop_for(prefix) {
                Some(next_hop) => {
                    let told = Told { next_hop, attributes: Arc::clone(&self.outbound.attributes) };
                    if self.told.get(&prefix) != Some(&told) || again.contains(&prefix) {
                        self.told.insert(prefix, told);
                        announced.entry(next_hop).or_default().push(prefix);
                    }
                }
                None => {
                    if self.told.remove(&prefix).is_some() {
                        withdrawn.push(prefix);
                    }
                }
            }
        }
        let mut updates = Vec::new();
        if !withdrawn.is_empty() {
            updates.push(Update { withdrawn, ..Update::default() });
        }
        updates.extend(announced.into_iter().map(|(next_hop, prefixes)| Update {
            reach: vec![Reach { next_hop, link_local: None, prefixes }],
            attributes: Some(Arc::clone(&self.outbound.attributes)),
            ..Update::default()
        }));
        updates.extend(
            std::mem::take(&mut self.end_of_rib_due)
                .into_iter()
                .map(|family| Update { end_of_rib: Some(family), ..Update::default() }),
        );
        updates
    }

    /// Whether [`AdjRibOut::poll`] has something to look at.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty() || !self.end_of_rib_due.is_empty()
    }

    /// Prefixes that the peer was told, by family.
    #[must_use]
    pub fn announced(&self) -> BTreeMap<Family, usize> {
        let mut counts = BTreeMap::new();
        for prefix in self.told.keys() {
            *counts.entry(Family::of(*prefix)).or_default() += 1;
        }
        counts
    }

    /// With what next hop the peer should know a prefix; `None` if not at all.
    fn next_hop_for(&self, prefix: IpNet) -> Option<IpAddr> {
        let family = Family::of(prefix);
        let wanted = self.families.contains(&family)
            && self.prefixes.contains(&prefix)
            && self.outbound.export.permits(prefix);
        let next_hop =
            self.outbound.next_hops.get(&family).filter(|next_hop| Family::of_address(**next_hop) == family);
        next_hop.copied().filter(|_| wanted)
    }

    fn unsettle_all(&mut self) {
        if !self.families.is_empty() {
            self.unsettled.extend(self.prefixes.iter());
            self.unsettled.extend(self.told.keys());
        }
    }
}
