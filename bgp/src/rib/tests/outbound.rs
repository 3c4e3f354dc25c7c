//! Adj-RIB-Out against what its peer understands.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

const PREFIXES: [&str; 6] =
    ["10.0.0.0/16", "10.0.1.0/24", "10.0.2.0/24", "172.16.0.0/24", "fd10::/64", "fd10:0:0:1::/64"];

fn outbound(next_hops: &[(Family, &str)], export: Export, med: Option<u32>) -> Outbound {
    Outbound {
        next_hops: next_hops.iter().map(|(family, text)| (*family, text.parse().unwrap())).collect(),
        export,
        attributes: Arc::new(Attributes { med, ..own_attributes(OUR_ASN, false) }),
    }
}

fn prefixes(texts: &[&str]) -> Arc<BTreeSet<IpNet>> {
    Arc::new(texts.iter().map(|text| net(text)).collect())
}

#[test]
fn a_session_from_beginning_to_end() {
    let mut out = AdjRibOut::new(outbound(&[(Family::Ipv4, "192.0.2.1")], Export::All, None));
    out.set_prefixes(prefixes(&["10.0.1.0/24", "fd10::/64"]));
    assert!(!out.is_unsettled(), "there is nobody to tell");
    assert_eq!(out.poll(), []);

    out.session_up(BTreeSet::from(Family::ALL));
    assert!(out.is_unsettled());
    let end = |family| Update { end_of_rib: Some(family), ..Update::default() };
    // No next hop for IPv6: nothing to say, which is said.
    let first = announce("192.0.2.1", &["10.0.1.0/24"]);
    assert_eq!(out.poll(), [first.clone(), end(Family::Ipv4), end(Family::Ipv6)]);
    assert_eq!(out.announced(), BTreeMap::from([(Family::Ipv4, 1)]));
    assert!(!out.is_unsettled());

    out.set_prefixes(prefixes(&["10.0.2.0/24"]));
    assert_eq!(out.poll(), [withdraw(&["10.0.1.0/24"]), announce("192.0.2.1", &["10.0.2.0/24"])]);
    // There and back before it was said.
    out.set_prefixes(prefixes(&["10.0.1.0/24"]));
    out.set_prefixes(prefixes(&["10.0.2.0/24"]));
    assert_eq!(out.poll(), []);

    out.refresh(Family::Ipv6);
    assert_eq!(out.poll(), []);
    out.refresh(Family::Ipv4);
    assert_eq!(out.poll(), [announce("192.0.2.1", &["10.0.2.0/24"])]);
    // A refresh does not forget that a withdrawal is due, whichever came first.
    out.refresh(Family::Ipv4);
    out.set_prefixes(prefixes(&[]));
    out.refresh(Family::Ipv4);
    assert_eq!(out.poll(), [withdraw(&["10.0.2.0/24"])]);

    out.session_down();
    out.set_prefixes(prefixes(&["10.0.1.0/24"]));
    assert_eq!(out.poll(), []);
    assert_eq!(out.announced(), BTreeMap::new());
    out.session_up(BTreeSet::from([Family::Ipv4]));
    assert_eq!(out.poll(), [first, end(Family::Ipv4)]);
}

#[test]
fn own_attributes_of_each_kind_of_session() {
    let internal = own_attributes(OUR_ASN, false);
    assert_eq!((internal.path_length(), internal.local_pref), (0, Some(100)));
    let external = own_attributes(OUR_ASN, true);
    assert_eq!(external.as_path, [AsSegment::Sequence(vec![OUR_ASN])]);
    assert_eq!(external.local_pref, None);

    // RFC 8326: what is about to go says so, and is the last choice within the AS.
    let leaving = graceful_shutdown_attributes(internal);
    assert_eq!((leaving.local_pref, leaving.communities.as_slice()), (Some(0), &[0xffff_0000][..]));
    let leaving = graceful_shutdown_attributes(external.clone());
    assert_eq!(leaving, Attributes { communities: vec![GRACEFUL_SHUTDOWN], ..external });
}

#[test]
fn who_is_about_to_go_tells_everything_anew_without_a_withdrawal() {
    let outbound = |attributes| Outbound {
        next_hops: [(Family::Ipv4, "192.0.2.1".parse().unwrap())].into(),
        export: Export::All,
        attributes: Arc::new(attributes),
    };
    let stays = own_attributes(OUR_ASN, true);
    let mut out = AdjRibOut::new(outbound(stays.clone()));
    out.set_prefixes(prefixes(&["10.0.1.0/24"]));
    out.session_up(BTreeSet::from([Family::Ipv4]));
    let told = out.poll();
    for (attributes, what) in
        [(graceful_shutdown_attributes(stays.clone()), "goes"), (stays, "stays after all")]
    {
        out.set_outbound(outbound(attributes.clone()));
        let updates = out.poll();
        assert_eq!(updates.len(), 1, "{what}");
        assert!(updates[0].withdrawn.is_empty(), "{what}");
        assert_eq!(updates[0].reach, told[0].reach, "{what}");
        assert_eq!(updates[0].attributes.as_deref(), Some(&attributes), "{what}");
        assert!(out.poll().is_empty(), "{what}: told once");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Prefixes(Arc<BTreeSet<IpNet>>),
    Outbound(Outbound),
    Up(BTreeSet<Family>),
    Down,
    Refresh(Family),
    Poll,
}

fn step() -> impl Strategy<Value = Step> {
    let some = subsequence(PREFIXES.to_vec(), 0..=PREFIXES.len());
    let next_hops = subsequence(
        vec![
            (Family::Ipv4, "192.0.2.1"),
            (Family::Ipv4, "192.0.2.2"),
            (Family::Ipv6, "2001:db8::1"),
            // Of the other family: can't be said.
            (Family::Ipv6, "192.0.2.1"),
        ],
        0..=4,
    );
    let export = prop_oneof![
        2 => Just(Export::All),
        1 => Just(Export::Within(vec![net("10.0.0.0/16")])),
        1 => Just(Export::Within(vec![net("10.0.1.0/24"), net("fd10::/16")])),
    ];
    let families = subsequence(Family::ALL.to_vec(), 0..=2);
    prop_oneof![
        4 => some.prop_map(|texts| Step::Prefixes(prefixes(&texts))),
        2 => (next_hops, export, select(vec![None, Some(1)]))
            .prop_map(|(next_hops, export, med)| Step::Outbound(outbound(&next_hops, export, med))),
        1 => families.prop_map(|families| Step::Up(families.into_iter().collect())),
        1 => Just(Step::Down),
        1 => select(&Family::ALL[..]).prop_map(Step::Refresh),
        6 => Just(Step::Poll),
    ]
}

/// The other end, and what it should know.
#[derive(Default)]
struct World {
    prefixes: Arc<BTreeSet<IpNet>>,
    families: BTreeSet<Family>,
    knows: BTreeMap<IpNet, (IpAddr, Arc<Attributes>)>,
    /// Asked for again.
    again: BTreeSet<Family>,
    end_of_rib_due: BTreeSet<Family>,
}

impl World {
    fn wanted(&self, outbound: &Outbound) -> BTreeMap<IpNet, (IpAddr, Arc<Attributes>)> {
        let told = self.prefixes.iter().filter_map(|prefix| {
            let family = Family::of(*prefix);
            let next_hop = *outbound.next_hops.get(&family)?;
            let permitted = match &outbound.export {
                Export::All => true,
                Export::Within(nets) => nets.iter().any(|net| net.contains(prefix)),
            };
            (self.families.contains(&family) && permitted && Family::of_address(next_hop) == family)
                .then(|| (*prefix, (next_hop, Arc::clone(&outbound.attributes))))
        });
        told.collect()
    }

    /// Takes a message in; nothing is to be said that is known.
    fn receive(&mut self, update: Update) {
        for prefix in update.withdrawn {
            assert!(self.knows.remove(&prefix).is_some(), "{prefix} is withdrawn without need");
        }
        for reach in update.reach {
            for prefix in reach.prefixes {
                let said = (reach.next_hop, Arc::clone(update.attributes.as_ref().unwrap()));
                let known = self.knows.insert(prefix, said.clone());
                assert!(
                    known != Some(said) || self.again.contains(&Family::of(prefix)),
                    "{prefix} is announced without need"
                );
            }
        }
        if let Some(family) = update.end_of_rib {
            assert!(self.end_of_rib_due.remove(&family), "End-of-RIB twice");
        }
    }
}

proptest! {
    #[test]
    fn peer_knows_what_it_should(steps in vec(step(), 1..40)) {
        let mut current = outbound(&[(Family::Ipv4, "192.0.2.1"), (Family::Ipv6, "2001:db8::1")], Export::All, None);
        let mut out = AdjRibOut::new(current.clone());
        let mut world = World::default();
        for step in steps.into_iter().chain([Step::Poll]) {
            match step {
                Step::Prefixes(prefixes) => {
                    out.set_prefixes(Arc::clone(&prefixes));
                    world.prefixes = prefixes;
                }
                Step::Outbound(outbound) => {
                    out.set_outbound(outbound.clone());
                    current = outbound;
                }
                Step::Up(families) => {
                    out.session_up(families.clone());
                    let end_of_rib_due = families.clone();
                    world = World { prefixes: world.prefixes, families, end_of_rib_due, ..World::default() };
                }
                Step::Down => {
                    out.session_down();
                    world = World { prefixes: world.prefixes, ..World::default() };
                }
                Step::Refresh(family) => {
                    out.refresh(family);
                    world.again.insert(family);
                }
                Step::Poll => {
                    let known_before: BTreeSet<IpNet> = world.knows.keys().copied().collect();
                    let updates = out.poll();
                    let said: BTreeSet<IpNet> = updates
                        .iter()
                        .flat_map(|update| update.reach.iter().flat_map(|reach| &reach.prefixes))
                        .copied()
                        .collect();
                    for update in updates {
                        world.receive(update);
                    }
                    prop_assert_eq!(&world.knows, &world.wanted(&current));
                    prop_assert_eq!(&world.end_of_rib_due, &BTreeSet::new());
                    // What was asked for again has been said again.
                    for prefix in known_before.iter().filter(|prefix| world.again.contains(&Family::of(**prefix))) {
                        prop_assert!(said.contains(prefix) || !world.knows.contains_key(prefix));
                    }
                    world.again.clear();
                    let mut counts = BTreeMap::new();
                    for prefix in world.knows.keys() {
                        *counts.entry(Family::of(*prefix)).or_default() += 1;
                    }
                    prop_assert_eq!(out.announced(), counts);
                    prop_assert!(!out.is_unsettled());
                    prop_assert_eq!(out.poll(), []);
                }
            }
        }
    }
}
