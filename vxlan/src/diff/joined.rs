//! Two maps side by side: one walk over both, where a search in one for each key of the other takes several times as long.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;

/// The keys of both maps in order, each with the value that it has in the first and in the second.
pub(super) fn joined<'a, K: Ord, V>(one: &'a BTreeMap<K, V>, other: &'a BTreeMap<K, V>) -> Joined<'a, K, V> {
    Joined { one: one.iter().peekable(), other: other.iter().peekable() }
}

/// See [`joined`].
pub(super) struct Joined<'a, K, V> {
    one: Peekable<btree_map::Iter<'a, K, V>>,
    other: Peekable<btree_map::Iter<'a, K, V>>,
}

impl<'a, K: Ord, V> Iterator for Joined<'a, K, V> {
    type Item = (&'a K, Option<&'a V>, Option<&'a V>);

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.one.peek(), self.other.peek()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let one = if order.is_le() { self.one.next() } else { None };
        let other = if order.is_ge() { self.other.next() } else { None };
        let key = one.or(other)?.0;
        Some((key, one.map(|(_, value)| value), other.map(|(_, value)| value)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_key_comes_once_with_what_a_search_finds(
            one in prop::collection::btree_map(0u8..40, any::<u8>(), 0..20),
            other in prop::collection::btree_map(0u8..40, any::<u8>(), 0..20),
        ) {
            let found: Vec<_> = joined(&one, &other).collect();
            let keys: BTreeSet<&u8> = one.keys().chain(other.keys()).collect();
            let expected: Vec<_> = keys.into_iter().map(|key| (key, one.get(key), other.get(key))).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
