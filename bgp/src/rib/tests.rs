//! By example; against models in files of their own.

mod decision;
mod model;
mod outbound;

use super::*;
use crate::wire::{AsSegment, Reach};

const OUR_ASN: Asn = Asn(64512);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn id(last: u8) -> RouterId {
    RouterId([192, 0, 2, last].into())
}

fn rule(prefix: &str, lengths: (u8, u8)) -> ImportRule {
    ImportRule { prefix: net(prefix), lengths, next_hops: None }
}

fn neighbor(address: &str, rules: Vec<ImportRule>) -> Neighbor {
    Neighbor {
        address: address.parse().unwrap(),
        external: false,
        import: ImportFilter { rules },
        max_prefixes: 1000,
    }
}

/// A RIB of 192.0.2.1 with one peer that is up.
fn rib_with(peer: &str, neighbor: Neighbor) -> Rib {
    let mut rib = Rib::new(OUR_ASN, id(1));
    assert_eq!(rib.set_peer(peer, neighbor), []);
    assert_eq!(rib.peer_up(peer, id(2), BTreeSet::from(Family::ALL)), []);
    rib
}

fn announce(next_hop: &str, prefixes: &[&str]) -> Update {
    announce_with(own_attributes(OUR_ASN, false), next_hop, prefixes)
}

fn announce_with(attributes: Attributes, next_hop: &str, prefixes: &[&str]) -> Update {
    let prefixes = prefixes.iter().map(|text| net(text)).collect();
    Update {
        reach: vec![Reach { next_hop: next_hop.parse().unwrap(), link_local: None, prefixes }],
        attributes: Some(Arc::new(attributes)),
        ..Update::default()
    }
}

fn withdraw(prefixes: &[&str]) -> Update {
    Update { withdrawn: prefixes.iter().map(|text| net(text)).collect(), ..Update::default() }
}

#[test]
fn limit_counts_refused_prefixes_too() {
    let mut neighbor = neighbor("192.0.2.2", vec![rule("10.0.0.0/8", (8, 32))]);
    neighbor.max_prefixes = 3;
    let mut rib = rib_with("n2", neighbor);
    let update = announce("192.0.2.2", &["10.1.0.0/24", "172.16.0.0/24", "10.2.0.0/24"]);
    rib.update("n2", &update).unwrap();
    // At the limit, what is known may be said again, and one may go for another.
    assert_eq!(rib.update("n2", &update), Ok(vec![]));
    rib.update("n2", &withdraw(&["172.16.0.0/24"])).unwrap();
    assert_eq!(rib.update("n2", &announce("192.0.2.2", &["10.3.0.0/24"])), Ok(vec![net("10.3.0.0/24")]));
    let mut last_straw = announce("192.0.2.2", &["10.4.0.0/24"]);
    assert_eq!(rib.update("n2", &last_straw), Err(PrefixLimitExceeded { limit: 3, changed: vec![] }));
    last_straw.withdrawn = vec![net("10.1.0.0/24")];
    last_straw.reach[0].prefixes.push(net("10.5.0.0/24"));
    assert_eq!(
        rib.update("n2", &last_straw),
        Err(PrefixLimitExceeded { limit: 3, changed: vec![net("10.1.0.0/24"), net("10.4.0.0/24")] })
    );
    rib.peer_down("n2");
    assert_eq!(*rib.routes(), Routes::default());
    assert_eq!(rib.inventory("n2"), Inventory::default());
}

#[test]
fn each_refusal_has_its_reason() {
    let mut rib = rib_with("n2", neighbor("192.0.2.2", vec![rule("10.244.2.0/24", (24, 24))]));
    rib.set_own(BTreeSet::from([net("10.244.1.0/24")]));
    let mut looped = own_attributes(Asn(64513), true);
    looped.as_path.push(AsSegment::Sequence(vec![OUR_ASN]));
    let mut reflected = own_attributes(OUR_ASN, false);
    reflected.originator_id = Some(id(1));
    let cases = [
        (announce("192.0.2.2", &["10.244.2.0/24"]), None),
        (announce("192.0.2.2", &["10.244.3.0/24"]), Some(Refusal::NotPermitted)),
        // Within and around the block are not the block.
        (announce("192.0.2.2", &["10.244.2.0/25"]), Some(Refusal::NotPermitted)),
        (announce("192.0.2.2", &["10.244.2.0/23"]), Some(Refusal::NotPermitted)),
        (announce("192.0.2.2", &["0.0.0.0/0"]), Some(Refusal::NotPermitted)),
        (announce("192.0.2.3", &["10.244.2.0/24"]), Some(Refusal::NextHop)),
        (announce("192.0.2.2", &["10.244.1.0/24"]), Some(Refusal::OwnPrefix)),
        (announce_with(looped, "192.0.2.2", &["10.244.2.0/24"]), Some(Refusal::Loop)),
        (announce_with(reflected, "192.0.2.2", &["10.244.2.0/24"]), Some(Refusal::Loop)),
    ];
    for (update, refusal) in cases {
        let prefix = update.reach[0].prefixes[0];
        rib.update("n2", &update).unwrap();
        let inventory = rib.inventory("n2");
        let expected = refusal.map(|refusal| (prefix, refusal));
        assert_eq!(inventory.refused_prefixes, Vec::from_iter(expected), "{update:?}");
        assert_eq!(inventory.refused, BTreeMap::from_iter(refusal.map(|refusal| (refusal, 1))));
        assert_eq!(inventory.accepted.contains_key(&Family::Ipv4), refusal.is_none());
        assert_eq!(rib.routes().routes.contains_key(&prefix), refusal.is_none());
        rib.update("n2", &Update { withdrawn: vec![prefix], ..Update::default() }).unwrap();
    }
}

#[test]
fn link_local_peers_are_known_by_their_link_local_next_hop() {
    let mut rib = rib_with("n2", neighbor("fe80::2", vec![rule("fd10:244::/48", (64, 64))]));
    let mut update = announce("2001:db8::2", &["fd10:244:0:2::/64"]);
    rib.update("n2", &update).unwrap();
    assert_eq!(rib.inventory("n2").refused, BTreeMap::from([(Refusal::NextHop, 1)]));
    update.reach[0].link_local = Some("fe80::2".parse().unwrap());
    rib.update("n2", &update).unwrap();
    let routes = rib.routes();
    assert_eq!(
        routes.routes[&net("fd10:244:0:2::/64")][0].next_hop,
        "2001:db8::2".parse::<IpAddr>().unwrap()
    );
}

#[test]
fn refusals_shown_are_bounded() {
    let mut rib = rib_with("n2", neighbor("192.0.2.2", vec![]));
    let texts: Vec<String> = (0..=250).map(|n| format!("10.0.{n}.0/24")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    rib.update("n2", &announce("192.0.2.2", &texts)).unwrap();
    let inventory = rib.inventory("n2");
    assert_eq!(inventory.refused, BTreeMap::from([(Refusal::NotPermitted, 251)]));
    assert_eq!(inventory.refused_prefixes.len(), REFUSED_SHOWN);
}

/// RFC 4724 §4.2: kept and used over a restart; what is not told again goes; a second restart is not waited for.
#[test]
fn restart_of_a_peer() {
    let mut rib = rib_with("n2", neighbor("192.0.2.2", vec![rule("10.0.0.0/8", (24, 24))]));
    let [kept, gone] = ["10.1.0.0/24", "10.2.0.0/24"];
    rib.update("n2", &announce("192.0.2.2", &[kept, gone])).unwrap();
    assert_eq!(rib.mark_stale("n2", Family::Ipv4), [net(kept), net(gone)]);
    assert!(rib.routes().routes.values().flatten().all(|route| route.stale));
    rib.peer_up("n2", id(2), BTreeSet::from(Family::ALL));
    assert_eq!(rib.update("n2", &announce("192.0.2.2", &[kept])), Ok(vec![net(kept)]));
    assert!(!rib.routes().routes[&net(kept)][0].stale);
    assert!(rib.routes().routes[&net(gone)][0].stale);

    // It goes again before its End-of-RIB: what was stale is dropped, the rest is kept once more.
    assert_eq!(rib.mark_stale("n2", Family::Ipv4), [net(kept), net(gone)]);
    assert_eq!(rib.routes().routes.keys().copied().collect::<Vec<_>>(), [net(kept)]);
    // It comes back without the family.
    assert_eq!(rib.peer_up("n2", id(2), BTreeSet::from([Family::Ipv6])), [net(kept)]);
    assert_eq!(*rib.routes(), Routes::default());
}

#[test]
fn families_that_the_session_does_not_have_are_passed_over() {
    let mut rib = rib_with("n2", neighbor("192.0.2.2", vec![rule("10.0.0.0/8", (24, 24))]));
    rib.peer_up("n2", id(2), BTreeSet::from([Family::Ipv6]));
    assert_eq!(rib.update("n2", &announce("192.0.2.2", &["10.1.0.0/24"])), Ok(vec![]));
    assert_eq!(rib.inventory("n2"), Inventory::default());
}

#[test]
fn a_published_value_does_not_change() {
    let mut rib = rib_with("n2", neighbor("192.0.2.2", vec![rule("10.0.0.0/8", (24, 24))]));
    rib.update("n2", &announce("192.0.2.2", &["10.1.0.0/24"])).unwrap();
    let published = rib.routes();
    // What says nothing new leaves the value itself alone.
    rib.update("n2", &announce("192.0.2.2", &["10.1.0.0/24"])).unwrap();
    assert!(Arc::ptr_eq(&published, &rib.routes()));
    rib.peer_down("n2");
    assert!(published.routes.contains_key(&net("10.1.0.0/24")));
    assert_eq!(*rib.routes(), Routes::default());
}

#[test]
fn attributes_are_shared_and_freed() {
    let mut rib = rib_with("n2", neighbor("192.0.2.2", vec![rule("10.0.0.0/8", (24, 24))]));
    rib.set_peer("n3", neighbor("192.0.2.3", vec![rule("10.0.0.0/8", (24, 24))]));
    rib.peer_up("n3", id(3), BTreeSet::from(Family::ALL));
    rib.update("n2", &announce("192.0.2.2", &["10.1.0.0/24"])).unwrap();
    rib.update("n3", &announce("192.0.2.3", &["10.1.0.0/24"])).unwrap();
    assert_eq!(rib.attribute_sets(), 1);
    let routes = rib.routes();
    let paths = &routes.routes[&net("10.1.0.0/24")];
    assert!(Arc::ptr_eq(&paths[0].attributes, &paths[1].attributes));

    // A peer that never says the same twice: the table does not grow with it.
    for med in 0..5000 {
        let attributes = Attributes { med: Some(med), ..own_attributes(OUR_ASN, false) };
        rib.update("n2", &announce_with(attributes, "192.0.2.2", &["10.1.0.0/24"])).unwrap();
        assert!(rib.attribute_sets() < 200);
    }
}
