//! Two maps side by side: one walk over both, where a search in one for each key of the other takes several times as long.

use std::collections::BTreeMap;

/// The entries of `one` in order, each with the value that its key has in `other`. Without any in `one` there is no walk.
pub(super) fn beside<'a, K: Ord, V>(
    one: &'a BTreeMap<K, V>,
    other: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V, Option<&'a V>)> {
    let mut other = other.iter().peekable();
    one.iter().map(move |(key, value)| {
        while other.next_if(|(before, _)| *before < key).is_some() {}
        let found = other.next_if(|(same, _)| *same == key);
        (key, value, found.map(|(_, value)| value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_key_comes_with_what_a_search_finds(
            one in prop::collection::btree_map(0u8..40, any::<u8>(), 0..20),
            other in prop::collection::btree_map(0u8..40, any::<u8>(), 0..20),
        ) {
            let found: Vec<_> = beside(&one, &other).collect();
            let expected: Vec<_> = one.iter().map(|(key, value)| (key, value, other.get(key))).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
