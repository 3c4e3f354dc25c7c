//! The decision process (RFC 4271 §9.1): which path is better.
//!
//! In this order, the first difference decides:
//!
//! 1. a path that its peer stands by, before one kept over a restart (RFC 4724 §4.2);
//! 2. the highest LOCAL_PREF, [`DEFAULT_LOCAL_PREF`] where there is none (§9.1.1);
//! 3. the shortest AS_PATH (§9.1.2.2 a);
//! 4. the lowest ORIGIN: IGP, EGP, incomplete (§9.1.2.2 b);
//! 5. among paths from the same neighbour AS the lowest MULTI_EXIT_DISC, 0 where there is none (§9.1.2.2 c);
//! 6. external before internal (§9.1.2.2 d);
//! 7. the lowest identifier of the peer, or of the originator where one is named (§9.1.2.2 f, RFC 4456 §9);
//! 8. the shortest CLUSTER_LIST (RFC 4456 §9);
//! 9. the lowest address of the peer (§9.1.2.2 g), then its name.
//!
//! The interior cost of §9.1.2.2 e is the same for all: next hops are neighbours.
//!
//! Rule 5 does not compare any two paths, so a comparison of pairs would not be an order. The order is that of
//! elimination: the best of all is first, the best of the others second, and so on.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::vec::IntoIter;

use super::LearnedRoute;
use crate::wire::{AsSegment, Attributes, Origin};
use crate::{Asn, RouterId};

/// LOCAL_PREF of a path that comes without.
pub(super) const DEFAULT_LOCAL_PREF: u32 = 100;

/// What the decision must know of a path's peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) external: bool,
    pub(super) router_id: Option<RouterId>,
    pub(super) address: IpAddr,
}

/// Rules 1 to 4.
type First = (bool, Reverse<u32>, usize, Origin);
/// Rules 6 to 9, but for the name.
type Last = (bool, Option<RouterId>, usize, IpAddr);

struct Candidate {
    first: First,
    neighbor: Option<Asn>,
    med: u32,
    last: Last,
    path: LearnedRoute,
}

impl Candidate {
    fn new(path: LearnedRoute, standing: Standing) -> Self {
        let attributes = path.attributes.as_ref();
        Self {
            first: (
                path.stale,
                Reverse(attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)),
                attributes.path_length(),
                attributes.origin,
            ),
            neighbor: neighbor_as(attributes),
            med: attributes.med.unwrap_or(0),
            last: (
                !standing.external,
                attributes.originator_id.or(standing.router_id),
                attributes.cluster_list.len(),
                standing.address,
            ),
            path,
        }
    }

    fn last(&self) -> (&Last, &str) {
        (&self.last, &self.path.peer)
    }
}

/// The AS that the path came through first; `None` for one that began in our own.
fn neighbor_as(attributes: &Attributes) -> Option<Asn> {
    match attributes.as_path.first()? {
        AsSegment::Sequence(asns) | AsSegment::Set(asns) => asns.first().copied(),
    }
}

/// Sorts the paths of a prefix, best first, whatever order they come in.
pub(super) fn rank(paths: &mut Vec<LearnedRoute>, standing: impl Fn(&str) -> Standing) {
    if paths.len() < 2 {
        return;
    }
    // Classes of paths that rules 1 to 4 don't tell apart, in them groups by neighbour AS.
    let mut classes: BTreeMap<First, BTreeMap<Option<Asn>, Vec<Candidate>>> = BTreeMap::new();
    for path in paths.drain(..) {
        let standing = standing(&path.peer);
        let candidate = Candidate::new(path, standing);
        classes.entry(candidate.first).or_default().entry(candidate.neighbor).or_default().push(candidate);
    }
    for groups in classes.into_values() {
        merge(groups.into_values(), paths);
    }
}

/// In a group rule 5 comes first; of the groups' best paths the later rules choose, again and again.
fn merge(groups: impl Iterator<Item = Vec<Candidate>>, ranked: &mut Vec<LearnedRoute>) {
    // The group's number in the key: no two heads are ever the same.
    let mut heads: BTreeMap<(Last, String, usize), (Candidate, IntoIter<Candidate>)> = BTreeMap::new();
    for (number, mut group) in groups.enumerate() {
        group.sort_by(|a, b| a.med.cmp(&b.med).then_with(|| a.last().cmp(&b.last())));
        let mut group = group.into_iter();
        if let Some(head) = group.next() {
            heads.insert((head.last, head.path.peer.clone(), number), (head, group));
        }
    }
    while let Some(((.., number), (best, mut group))) = heads.pop_first() {
        ranked.push(best.path);
        if let Some(head) = group.next() {
            heads.insert((head.last, head.path.peer.clone(), number), (head, group));
        }
    }
}
