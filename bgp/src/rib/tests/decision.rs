//! The decision process: each rule by example, the order as a whole against elimination as RFC 4271 puts it.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::rib::decision::{Standing, rank};
use crate::wire::Origin;

/// RFC 4271 §9.1.2.2 taken literally: start with all, remove what a rule removes, go on until one is left; then
/// the same with the others.
pub(super) fn naive_rank(paths: &[LearnedRoute], standing: impl Fn(&str) -> Standing) -> Vec<LearnedRoute> {
    let mut rest = paths.to_vec();
    let mut ranked = Vec::new();
    while !rest.is_empty() {
        let mut left: Vec<&LearnedRoute> = rest.iter().collect();
        keep_least(&mut left, |path| path.stale);
        keep_least(&mut left, |path| u32::MAX - path.attributes.local_pref.unwrap_or(100));
        keep_least(&mut left, |path| path.attributes.path_length());
        keep_least(&mut left, |path| path.attributes.origin);
        let neighbor = |path: &LearnedRoute| match path.attributes.as_path.first() {
            Some(AsSegment::Sequence(asns) | AsSegment::Set(asns)) => asns.first().copied(),
            None => None,
        };
        let med = |path: &LearnedRoute| path.attributes.med.unwrap_or(0);
        let all = left.clone();
        left.retain(|path| {
            !all.iter().any(|other| neighbor(other) == neighbor(path) && med(other) < med(path))
        });
        keep_least(&mut left, |path| !standing(&path.peer).external);
        keep_least(&mut left, |path| path.attributes.originator_id.or(standing(&path.peer).router_id));
        keep_least(&mut left, |path| path.attributes.cluster_list.len());
        keep_least(&mut left, |path| standing(&path.peer).address);
        keep_least(&mut left, |path| path.peer.clone());
        let best = left[0].clone();
        rest.retain(|path| path.peer != best.peer);
        ranked.push(best);
    }
    ranked
}

fn keep_least<K: Ord>(paths: &mut Vec<&LearnedRoute>, key: impl Fn(&LearnedRoute) -> K) {
    if let Some(least) = paths.iter().map(|path| key(path)).min() {
        paths.retain(|path| key(path) == least);
    }
}

fn path(peer: &str, attributes: Attributes) -> LearnedRoute {
    LearnedRoute {
        peer: peer.to_owned(),
        next_hop: "192.0.2.1".parse().unwrap(),
        attributes: Arc::new(attributes),
        stale: false,
    }
}

/// Peers whose names are numbers: e1 is external, i2 internal, with that identifier and address.
fn standing(peer: &str) -> Standing {
    let number: u8 = peer[1..].parse().unwrap();
    Standing {
        external: peer.starts_with('e'),
        router_id: Some(id(number / 10)),
        address: [192, 0, 2, number].into(),
    }
}

fn by(asns: &[u32]) -> Attributes {
    let asns: Vec<Asn> = asns.iter().copied().map(Asn).collect();
    Attributes { as_path: vec![AsSegment::Sequence(asns)], ..Attributes::default() }
}

#[test]
fn each_rule_decides() {
    let base = || by(&[1, 2]);
    let stale = |path: LearnedRoute| LearnedRoute { stale: true, ..path };
    // The better one first; every earlier rule finds no difference, a later one would choose the other.
    let pairs = [
        ("stale", path("i99", by(&[1, 2, 3])), stale(path("e11", base()))),
        (
            "LOCAL_PREF",
            path("i99", Attributes { local_pref: Some(101), ..by(&[1, 2, 3]) }),
            path("e11", base()),
        ),
        (
            "no LOCAL_PREF is 100",
            path("e11", base()),
            path("e12", Attributes { local_pref: Some(99), ..by(&[1]) }),
        ),
        ("AS_PATH", path("i99", Attributes { origin: Origin::Egp, ..by(&[1]) }), path("e11", base())),
        (
            "ORIGIN",
            path("i99", Attributes { med: Some(9), ..base() }),
            path("e11", Attributes { origin: Origin::Egp, ..base() }),
        ),
        ("MED", path("i99", base()), path("e11", Attributes { med: Some(1), ..base() })),
        (
            "MED of other AS is not compared",
            path("e11", Attributes { med: Some(9), ..by(&[1, 2]) }),
            path("i99", by(&[2, 1])),
        ),
        ("external", path("e99", base()), path("i11", base())),
        (
            "identifier",
            path("e19", Attributes { cluster_list: vec![[1, 1, 1, 1].into()], ..base() }),
            path("e21", base()),
        ),
        (
            "originator in its place",
            path(
                "i99",
                Attributes { originator_id: Some(id(1)), cluster_list: vec![[1, 1, 1, 1].into()], ..base() },
            ),
            path("i21", base()),
        ),
        (
            "CLUSTER_LIST",
            path("e12", base()),
            path("e11", Attributes { cluster_list: vec![[1, 1, 1, 1].into()], ..base() }),
        ),
        ("address", path("e11", base()), path("e12", base())),
    ];
    for (rule, better, worse) in pairs {
        for mut paths in [vec![better.clone(), worse.clone()], vec![worse.clone(), better.clone()]] {
            rank(&mut paths, standing);
            assert_eq!(paths, [better.clone(), worse.clone()], "{rule}");
        }
    }
}

/// Comparing pairs goes in a circle here: each of a, b, c is better than the next, c better than a.
#[test]
fn med_does_not_go_in_a_circle() {
    let a = path("e10", Attributes { med: Some(10), ..by(&[1]) });
    let b = path("e20", by(&[2]));
    let c = path("e30", Attributes { med: Some(5), ..by(&[1]) });
    for order in [[&a, &b, &c], [&b, &c, &a], [&c, &a, &b], [&c, &b, &a], [&b, &a, &c], [&a, &c, &b]] {
        let mut paths: Vec<_> = order.into_iter().cloned().collect();
        rank(&mut paths, standing);
        assert_eq!(paths, [b.clone(), c.clone(), a.clone()]);
    }
}

fn paths() -> impl Strategy<Value = Vec<LearnedRoute>> {
    let one = (any::<bool>(), any::<bool>(), model::attributes());
    vec(one, 0..7).prop_map(|all| {
        let numbered = all.into_iter().zip(10u8..);
        numbered
            .map(|((stale, external, attributes), number)| {
                let peer = format!("{}{}", if external { 'e' } else { 'i' }, number * 5);
                LearnedRoute { stale, ..path(&peer, attributes) }
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn order_is_total((paths, shuffled) in paths().prop_flat_map(|paths| (Just(paths.clone()), Just(paths).prop_shuffle()))) {
        let ranked = |paths: &[LearnedRoute]| {
            let mut paths = paths.to_vec();
            rank(&mut paths, standing);
            paths
        };
        let order = ranked(&paths);
        prop_assert_eq!(&order, &naive_rank(&paths, standing));
        // Whatever order they come in.
        prop_assert_eq!(&ranked(&shuffled), &order);
        prop_assert_eq!(&ranked(&order), &order);
        // Without the best the others keep their order.
        if let Some((_, others)) = order.split_first() {
            prop_assert_eq!(ranked(others), others);
        }
    }
}
