//! Which id a nexthop object gets.
//!
//! A hash of the key, the next free one where two keys meet: no allocator, the same after a reboot. But an id that is in
//! use stays: with a new node a hash that was alone may meet another, and to move an object that stands means to move
//! all routes over it, not in one message. So the kernel is asked first who has which id, and told apart by gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sha2::{Digest, Sha256};
use vxlan::{Marks, Nexthop, NexthopId};

/// A use of a nexthop object: its key and the gateways that it can have.
#[derive(Debug, Clone)]
pub(super) struct Use {
    pub key: String,
    /// In order.
    pub gateways: [Option<IpAddr>; 3],
}

/// Gives every use an id, distinct, out of our range, in the order of `uses`. `present` is what the kernel holds of ours.
pub(super) fn assign(base: u32, uses: &[Use], present: &BTreeMap<NexthopId, Nexthop>) -> Vec<NexthopId> {
    let present = present.iter().map(|(id, nexthop)| (id.0.wrapping_sub(base), nexthop.gateway.address));
    let offsets = offsets(Marks::NEXTHOP_IDS, uses, &present.collect(), preferred);
    offsets.into_iter().map(|offset| NexthopId(base.wrapping_add(offset))).collect()
}

/// The first four bytes of SHA-256 over `pairway nexthop` and the key.
fn preferred(key: &str) -> u32 {
    let mut digest = Sha256::new();
    digest.update("pairway nexthop");
    digest.update([0]);
    digest.update(key);
    let [a, b, c, d, ..] = <[u8; 32]>::from(digest.finalize());
    u32::from_be_bytes([a, b, c, d])
}

/// `present`: offsets in use with the gateway of each.
fn offsets(
    space: u32,
    uses: &[Use],
    present: &BTreeMap<u32, IpAddr>,
    preferred: impl Fn(&str) -> u32,
) -> Vec<u32> {
    let mut of_gateway: Vec<(IpAddr, u32)> =
        present.iter().map(|(offset, gateway)| (*gateway, *offset)).collect();
    of_gateway.sort_unstable();
    let standing = |gateway: IpAddr| {
        let first = of_gateway.partition_point(|(other, _)| *other < gateway);
        of_gateway[first..].iter().take_while(move |(other, _)| *other == gateway).map(|(_, offset)| *offset)
    };
    let places: Vec<u32> = uses.iter().map(|wanted| preferred(&wanted.key) % space).collect();
    let mut taken = BTreeSet::new();
    let mut given: Vec<Option<u32>> = vec![None; uses.len()];
    // Several uses may have a gateway in common: each first looks at its own place.
    for own_place in [true, false] {
        for ((wanted, place), given) in uses.iter().zip(&places).zip(&mut given) {
            if given.is_some() {
                continue;
            }
            let mut found = wanted.gateways.iter().flatten().flat_map(|gateway| standing(*gateway));
            *given = found.find(|offset| (offset == place || !own_place) && !taken.contains(offset));
            taken.extend(*given);
        }
    }
    let rest = given.into_iter().zip(places).map(|(given, place)| {
        if let Some(offset) = given {
            return offset;
        }
        // Its own place also if an object stands there that nobody knows: its own, with a gateway of before.
        let mut offset = place;
        while taken.contains(&offset) || offset != place && present.contains_key(&offset) {
            offset = (offset + 1) % space;
            if offset == place {
                // More objects than ids: there are 2^28.
                break;
            }
        }
        taken.insert(offset);
        offset
    });
    rest.collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;
    use vxlan::Gateway;

    use super::*;

    /// Few places, so that keys meet.
    const SPACE: u32 = 64;

    fn uses(numbers: &BTreeSet<u8>) -> Vec<Use> {
        let gateway = |path: u8, number: u8| IpAddr::V4(Ipv4Addr::new(10, path, 0, number));
        let gateways = |n: u8| [0, 1, 2].map(|path| Some(gateway(path, n)));
        let one = |n: &u8| Use { key: format!("n{n}"), gateways: gateways(*n) };
        numbers.iter().map(one).collect()
    }

    fn give(numbers: &BTreeSet<u8>, present: &BTreeMap<u32, IpAddr>) -> BTreeMap<String, u32> {
        // Neighbours meet at every fourth place.
        let uses = uses(numbers);
        let given = offsets(SPACE, &uses, present, |key| key[1..].parse::<u32>().unwrap() / 4);
        uses.into_iter().map(|wanted| wanted.key).zip(given).collect()
    }

    /// What the kernel holds afterwards, each object on one of its paths.
    fn made(numbers: &BTreeSet<u8>, given: &BTreeMap<String, u32>, path: usize) -> BTreeMap<u32, IpAddr> {
        let gateway = |wanted: Use| wanted.gateways[path].unwrap();
        uses(numbers).into_iter().map(|wanted| (given[&wanted.key], gateway(wanted))).collect()
    }

    proptest! {
        #[test]
        fn ids_are_distinct_and_those_in_use_stay(
            before in prop::collection::btree_set(any::<u8>(), 0..20),
            after in prop::collection::btree_set(any::<u8>(), 0..20),
            path in 0_usize..3,
        ) {
            let first = give(&before, &BTreeMap::new());
            let present = made(&before, &first, path);
            prop_assert_eq!(present.len(), before.len());
            prop_assert_eq!(&give(&before, &present), &first, "with nothing new nothing moves");
            let second = give(&after, &present);
            for (key, offset) in &second {
                prop_assert!(*offset < SPACE);
                if let Some(old) = first.get(key) {
                    prop_assert_eq!(old, offset, "{} moves", key);
                } else {
                    let free = *offset == key[1..].parse::<u32>().unwrap() / 4 || !present.contains_key(offset);
                    prop_assert!(free, "{} takes the place of one that goes", key);
                }
            }
            let distinct: BTreeSet<u32> = second.values().copied().collect();
            prop_assert_eq!(distinct.len(), after.len());
        }
    }

    #[test]
    fn a_smaller_name_that_meets_another_does_not_push_it_away() {
        let late = give(&BTreeSet::from([5]), &BTreeMap::new());
        let present = made(&BTreeSet::from([5]), &late, 0);
        let both = BTreeSet::from([4, 5]);
        assert_eq!(give(&both, &present)["n5"], late["n5"]);
        assert_ne!(give(&both, &BTreeMap::new())["n5"], late["n5"], "in an empty kernel it does");
    }

    #[test]
    fn ids_are_as_they_have_always_been() {
        let wanted = Use { key: "n1/ipv4".to_owned(), gateways: [None; 3] };
        let given = assign(0x7000_0000, &[wanted], &BTreeMap::new());
        assert_eq!(given[0], NexthopId(0x7000_0000 + preferred("n1/ipv4") % Marks::NEXTHOP_IDS));
        let marks = Marks {
            route_protocol: 1,
            ifalias: String::new(),
            nexthop_base: 0x7000_0000,
            firewall_table: String::new(),
        };
        assert!(marks.owns_nexthop(given[0]));
        // A peer that got another address keeps its object: it is moved by one message.
        let id = given[0];
        let gateway = Gateway { address: "192.0.2.9".parse().unwrap(), onlink: false };
        let present = BTreeMap::from([(id, Nexthop { gateway, link: "eth0".parse().unwrap() })]);
        let gateways = [Some("192.0.2.7".parse().unwrap()), None, None];
        let wanted = Use { key: "n1/ipv4".to_owned(), gateways };
        assert_eq!(assign(0x7000_0000, &[wanted], &present), [id]);
    }
}
