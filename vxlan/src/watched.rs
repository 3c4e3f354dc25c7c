//! Which foreign routes matter: those that cover or equal a watched prefix, or lie inside of one.

use std::collections::BTreeSet;

use ipnet::IpNet;

/// Watched prefixes, in order, so that a route is judged by one search: a kernel may hold a million foreign routes, and
/// a cluster thousands of blocks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    sorted: Vec<IpNet>,
    /// Their lengths, by family.
    lengths: BTreeSet<(bool, u8)>,
}

impl Watched {
    pub(crate) fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let mut sorted: Vec<IpNet> = prefixes.into_iter().map(|prefix| prefix.trunc()).collect();
        sorted.sort_unstable();
        let lengths = sorted.iter().map(|net| (net.addr().is_ipv6(), net.prefix_len())).collect();
        Self { sorted, lengths }
    }

    /// Whether a route to this prefix covers or equals a watched one.
    ///
    /// Prefixes are sorted by address, then length: those inside of `route` follow it without a gap.
    pub(crate) fn covered_by(&self, route: &IpNet) -> bool {
        let next = self.sorted.partition_point(|prefix| prefix < route);
        self.sorted.get(next).is_some_and(|prefix| route.contains(prefix))
    }

    /// Whether a route to this prefix lies inside of a watched one: one search for each length that there is.
    pub(crate) fn encloses(&self, route: &IpNet) -> bool {
        let family = route.addr().is_ipv6();
        let lengths = self.lengths.range((family, 0)..(family, route.prefix_len()));
        lengths.into_iter().any(|(_, length)| {
            let above = IpNet::new(route.addr(), *length).map(|net| net.trunc());
            above.is_ok_and(|net| self.sorted.binary_search(&net).is_ok())
        })
    }

    /// Whether a route to this prefix covers, equals or lies inside of a watched one.
    pub(crate) fn touched_by(&self, route: &IpNet) -> bool {
        self.covered_by(route) || self.encloses(route)
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
            let within = watched.iter().any(|prefix| prefix.contains(&route) && *prefix != route);
            let watched = Watched::new(watched);
            prop_assert_eq!(watched.covered_by(&route), expected);
            prop_assert_eq!(watched.encloses(&route), within);
            prop_assert_eq!(watched.touched_by(&route), expected || within);
        }
    }
}
