//! In which order a list of changes is sent.
//!
//! As it is given, but for many routes in a row: those go through each other. The kernel's trie grows and shrinks its
//! nodes as routes come and go beside each other, so that a million in ascending order take half as long again to add,
//! and ten times as long to delete, as the same in an order that looks like chance. Routes next to each other in the
//! list are of one kind and don't lean on one another. Pure.

use std::mem::discriminant;

use crate::diff::Change;

/// Fewer stay as they are: there is nothing to gain.
const MANY: usize = 2048;

/// The positions of `changes` in the order in which they are to be sent.
pub(super) fn order(changes: &[Change]) -> impl Iterator<Item = usize> {
    let mut begin = 0;
    let runs = changes.chunk_by(alike);
    runs.flat_map(move |run| {
        let (first, length) = (begin, run.len());
        begin += length;
        scattered(length).map(move |place| first + place)
    })
}

/// Whether two changes may change places.
fn alike(one: &Change, other: &Change) -> bool {
    let route = matches!(one, Change::AddRoute(..) | Change::SetRoute(..) | Change::DeleteRoute(_));
    route && discriminant(one) == discriminant(other)
}

/// The numbers below `length`, each once, far from its neighbours where there are many.
fn scattered(length: usize) -> impl Iterator<Item = usize> {
    // A step of the golden section of the whole, without a common divisor, meets all.
    let step = if length < MANY { 1 } else { coprime(length / 1000 * 618 + 1, length) };
    (0..length).scan(0, move |at, _| {
        let this = *at;
        *at = (*at + step) % length;
        Some(this)
    })
}

/// The next number from `from` on that has no common divisor with `of`.
fn coprime(from: usize, of: usize) -> usize {
    const fn divisor(mut a: usize, mut b: usize) -> usize {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    }
    (from..).find(|number| divisor(*number, of) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::state::{NexthopId, Route, RouteKey, RouteTarget};

    use super::*;

    fn routes(count: u32) -> impl Iterator<Item = RouteKey> {
        (0..count).map(|number| {
            let address = std::net::Ipv4Addr::from(number << 8);
            let prefix = ipnet::Ipv4Net::new(address, 24).unwrap().into();
            RouteKey { table: 254, prefix, metric: 0 }
        })
    }

    fn all(adds: u32, deletes: u32) -> Vec<Change> {
        let route = Route { target: RouteTarget::Nexthop(NexthopId(1)), source: None, mtu: None };
        let mut changes = vec![Change::DeleteNexthop(NexthopId(7)), Change::DeleteNexthop(NexthopId(8))];
        changes.extend(routes(adds).map(|key| Change::AddRoute(key, route.clone())));
        changes.extend(routes(deletes).map(Change::DeleteRoute));
        changes.push(Change::DeleteNexthop(NexthopId(1)));
        changes
    }

    #[test]
    fn few_changes_keep_their_order() {
        let changes = all(100, 100);
        assert!(order(&changes).eq(0..changes.len()));
    }

    #[test]
    fn many_routes_lie_far_apart() {
        let changes = all(10_000, 0);
        let places: Vec<usize> = order(&changes).filter(|place| (2..10_002).contains(place)).collect();
        assert!(places.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 1000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_change_is_sent_once_and_kinds_do_not_mix(adds in 0u32..9000, deletes in 0u32..9000) {
            let changes = all(adds, deletes);
            let order: Vec<usize> = order(&changes).collect();
            let sent = order.iter().map(|place| discriminant(&changes[*place]));
            prop_assert!(sent.eq(changes.iter().map(discriminant)));
            let mut sorted = order;
            sorted.sort_unstable();
            prop_assert!(sorted.into_iter().eq(0..changes.len()));
        }
    }
}
