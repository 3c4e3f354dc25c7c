//! Which foreign routes matter: those that cover or equal a watched prefix.

use ipnet::IpNet;

/// Watched prefixes, in order, so that a route is judged by one search: a kernel may hold a million foreign routes, and
/// a cluster thousands of blocks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched(Vec<IpNet>);

impl Watched {
    pub(crate) fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let mut sorted: Vec<IpNet> = prefixes.into_iter().map(|prefix| prefix.trunc()).collect();
        sorted.sort_unstable();
        Self(sorted)
    }

    /// Whether a route to this prefix covers or equals a watched one.
    ///
    /// Prefixes are sorted by address, then length: those inside of `route` follow it without a gap.
    pub(crate) fn covered_by(&self, route: &IpNet) -> bool {
        let next = self.0.partition_point(|prefix| prefix < route);
        self.0.get(next).is_some_and(|prefix| route.contains(prefix))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Prefixes that often lie inside of one another.
    fn prefix() -> impl Strategy<Value = IpNet> {
        (any::<bool>(), 0u32..32, 0u8..6).prop_map(|(ipv6, high, length)| {
            let ip = if ipv6 {
                IpAddr::V6(Ipv6Addr::from(u128::from(high) << 123))
            } else {
                IpAddr::V4(Ipv4Addr::from(high << 27))
            };
            IpNet::new(ip, length).expect("a short length").trunc()
        })
    }

    proptest! {
        #[test]
        fn a_search_finds_what_looking_at_each_finds(
            watched in prop::collection::vec(prefix(), 0..12),
            route in prefix(),
        ) {
            let expected = watched.iter().any(|prefix| route.contains(prefix));
            prop_assert_eq!(Watched::new(watched).covered_by(&route), expected);
        }
    }
}
