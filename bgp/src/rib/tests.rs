use super::*;
use crate::wire::Reach;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn neighbor(address: &str) -> Neighbor {
    let rule = ImportRule { prefix: net("10.0.0.0/8"), lengths: (8, 32), next_hops: None };
    Neighbor {
        address: address.parse().unwrap(),
        external: false,
        import: ImportFilter { rules: vec![rule] },
        max_prefixes: 3,
    }
}

fn announcement(next_hop: &str, prefixes: &[&str]) -> Update {
    Update {
        reach: vec![Reach {
            next_hop: next_hop.parse().unwrap(),
            link_local: None,
            prefixes: prefixes.iter().map(|text| net(text)).collect(),
        }],
        attributes: Some(Arc::new(own_attributes(Asn(64512), false))),
        ..Update::default()
    }
}

#[test]
fn limit_counts_refused_prefixes_too() {
    let mut rib = Rib::new(Asn(64512), RouterId([192, 0, 2, 1].into()));
    rib.set_peer("n2", neighbor("192.0.2.2"));
    rib.peer_up("n2", RouterId([192, 0, 2, 2].into()), BTreeSet::from(Family::ALL));
    let update = announcement("192.0.2.2", &["10.1.0.0/24", "172.16.0.0/24", "10.2.0.0/24", "10.3.0.0/24"]);
    let error = rib.update("n2", &update).unwrap_err();
    assert_eq!(
        error,
        PrefixLimitExceeded { limit: 3, changed: vec![net("10.1.0.0/24"), net("10.2.0.0/24")] }
    );
    assert_eq!(rib.inventory("n2").refused, BTreeMap::from([(Refusal::NotPermitted, 1)]));
    rib.peer_down("n2");
    assert_eq!(*rib.routes(), Routes::default());
    assert_eq!(rib.inventory("n2"), Inventory::default());
}
