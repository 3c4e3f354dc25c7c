use std::str::FromStr;

use config::PathRule;
use proptest::prelude::*;

use super::*;

fn policy() -> Paths {
    Paths {
        same_subnet: PathUse::Bgp,
        cross_subnet: PathUse::Vxlan,
        fallback: PathUse::Vxlan,
        rules: Vec::new(),
    }
}

fn node(name: &str, ipv4: Option<&str>, ipv6: Option<&str>) -> NodeRecord {
    NodeRecord {
        name: NodeName::from_str(name).unwrap(),
        underlay: Underlay {
            ipv4: ipv4.map(|net| net.parse().unwrap()),
            ipv6: ipv6.map(|net| net.parse().unwrap()),
        },
        asn: 64512,
        router_id: [192, 0, 2, 1].into(),
        bgp_port: 179,
        vni: 4096,
        vxlan_port: 4789,
        labels: BTreeMap::new(),
        capabilities: capabilities().into_iter().collect(),
        common_digest: "same".to_owned(),
        instance: None,
        contender: None,
        unknown: BTreeMap::new(),
    }
}

fn end(record: &NodeRecord) -> End<'_> {
    End { record, has_block: true }
}

/// `predicted -> path (reason)`, after checking that the other end says the same.
fn check(a: &NodeRecord, b: &NodeRecord, family: Family, policy: &Paths, evidence: Evidence) -> String {
    let decision = decide(end(a), end(b), family, policy, evidence);
    assert_eq!(decision, decide(end(b), end(a), family, policy, evidence));
    assert!(!decision.detail.is_empty());
    format!("{} -> {} ({})", decision.predicted, decision.path, decision.reason)
}

fn v4(name: &str, net: &str) -> NodeRecord {
    node(name, Some(net), None)
}

#[test]
fn class_follows_both_prefixes() {
    let table = [
        ("192.0.2.1/24", "192.0.2.2/24", Class::SameSubnet),
        ("192.0.2.1/24", "192.0.3.2/24", Class::CrossSubnet),
        // One end's prefix is not enough: the other would answer through a router.
        ("192.0.2.1/16", "192.0.3.2/24", Class::CrossSubnet),
        ("192.0.2.1/16", "192.0.2.2/24", Class::SameSubnet),
        ("192.0.2.1/32", "192.0.2.2/24", Class::HostPrefix),
        ("192.0.2.1/32", "192.0.2.2/32", Class::HostPrefix),
        ("192.0.2.0/31", "192.0.2.1/31", Class::SameSubnet),
    ];
    for (a, b, want) in table {
        let (a, b) = (v4("a", a).underlay, v4("b", b).underlay);
        assert_eq!(class(&a, &b, Family::Ipv4), Some(want), "{a:?} {b:?}");
        assert_eq!(class(&b, &a, Family::Ipv4), Some(want), "{b:?} {a:?}");
        assert_eq!(class(&a, &b, Family::Ipv6), None);
    }
}

#[test]
fn evidence_overrules_the_prediction() {
    let (a, b) = (v4("a", "192.0.2.1/24"), v4("b", "192.0.2.2/24"));
    let table = [
        (Evidence::Waiting, "native -> vxlan (bgp-waiting)"),
        (Evidence::Delivered, "native -> native (bgp)"),
        (Evidence::Restarting, "native -> native (bgp-restarting)"),
        (Evidence::Held, "native -> native (bgp-held)"),
        (Evidence::Missing, "native -> vxlan (bgp-no-route)"),
        (Evidence::NotNegotiated, "native -> vxlan (bgp-no-route)"),
        (Evidence::Down, "native -> vxlan (bgp-down)"),
    ];
    for (evidence, want) in table {
        assert_eq!(check(&a, &b, Family::Ipv4, &policy(), evidence), want);
    }
    let none = Paths { fallback: PathUse::None, ..policy() };
    assert_eq!(check(&a, &b, Family::Ipv4, &none, Evidence::Down), "native -> none (bgp-down)");
}

#[test]
fn policy_by_class() {
    let near = (v4("a", "192.0.2.1/24"), v4("b", "192.0.2.2/24"));
    let far = (v4("a", "192.0.2.1/24"), v4("b", "198.51.100.2/24"));
    let host = (v4("a", "192.0.2.1/24"), v4("b", "192.0.2.2/32"));
    let with = |same_subnet, cross_subnet| Paths { same_subnet, cross_subnet, ..policy() };
    let table = [
        (&near, with(PathUse::Direct, PathUse::Vxlan), "native -> native (direct)"),
        (&near, with(PathUse::Vxlan, PathUse::Vxlan), "vxlan -> vxlan (same-subnet)"),
        (&near, with(PathUse::None, PathUse::Vxlan), "none -> none (same-subnet)"),
        (&far, with(PathUse::Bgp, PathUse::Vxlan), "vxlan -> vxlan (cross-subnet)"),
        (&far, with(PathUse::Bgp, PathUse::None), "none -> none (cross-subnet)"),
        (&far, with(PathUse::Bgp, PathUse::Bgp), "vxlan -> vxlan (off-link)"),
        (&far, with(PathUse::Bgp, PathUse::Direct), "vxlan -> vxlan (off-link)"),
        (&host, with(PathUse::Bgp, PathUse::Vxlan), "vxlan -> vxlan (host-prefix)"),
        (&host, with(PathUse::Bgp, PathUse::Bgp), "vxlan -> vxlan (off-link)"),
    ];
    for ((a, b), policy, want) in table {
        assert_eq!(check(a, b, Family::Ipv4, &policy, Evidence::Delivered), want);
    }
    let sentence = decide(end(&host.0), end(&host.1), Family::Ipv4, &policy(), Evidence::Waiting).detail;
    assert!(sentence.contains("b has the address 192.0.2.2/32"), "{sentence}");
}

#[test]
fn rules_match_either_way_round_and_the_first_wins() {
    let mut a = v4("a", "192.0.2.1/24");
    a.labels.insert("zone".to_owned(), "x".to_owned());
    let b = v4("b", "192.0.2.2/24");
    let zone = NodeSelector { labels: a.labels.clone(), cidr: None };
    let net = NodeSelector { labels: BTreeMap::new(), cidr: Some("192.0.2.2/32".parse().unwrap()) };
    let rule = |x: &NodeSelector, y: &NodeSelector, use_| PathRule { between: [x.clone(), y.clone()], use_ };
    for rules in [
        vec![rule(&zone, &net, PathUse::None), rule(&net, &zone, PathUse::Direct)],
        vec![rule(&net, &zone, PathUse::None), rule(&NodeSelector::default(), &net, PathUse::Vxlan)],
    ] {
        let policy = Paths { rules, ..policy() };
        assert_eq!(check(&a, &b, Family::Ipv4, &policy, Evidence::Delivered), "none -> none (rule)");
    }
    // Both selectors on one end are no match.
    let policy = Paths { rules: vec![rule(&zone, &zone, PathUse::None)], ..policy() };
    assert_eq!(check(&a, &b, Family::Ipv4, &policy, Evidence::Delivered), "native -> native (bgp)");
}

#[test]
fn each_family_has_its_own_next_hop() {
    let a = node("a", Some("192.0.2.1/24"), Some("2001:db8::1/64"));
    let only4 = v4("b", "192.0.2.2/24");
    let only6 = node("b", None, Some("2001:db8::2/64"));
    let table = [
        (&only4, Family::Ipv4, "native -> native (bgp)"),
        // Pods of IPv6 over an underlay of IPv4: the tunnel, whatever the subnet.
        (&only4, Family::Ipv6, "vxlan -> vxlan (no-underlay-family)"),
        (&only6, Family::Ipv6, "native -> native (bgp)"),
        (&only6, Family::Ipv4, "vxlan -> vxlan (no-underlay-family)"),
    ];
    for (b, family, want) in table {
        assert_eq!(check(&a, b, family, &policy(), Evidence::Delivered), want);
    }
    assert_eq!(tunnel_underlay(&a, &only4), Ok(Family::Ipv4));
    assert_eq!(tunnel_underlay(&a, &only6), Ok(Family::Ipv6));
    assert_eq!(
        check(&only4, &node("c", None, Some("2001:db8::2/64")), Family::Ipv4, &policy(), Evidence::Waiting),
        "none -> none (no-common-underlay)"
    );
}

#[test]
fn what_the_ends_do_not_share_is_shown() {
    let a = v4("a", "192.0.2.1/24");
    let far = v4("b", "198.51.100.2/24");
    let near = v4("b", "192.0.2.2/24");
    let change = |record: &NodeRecord, f: &dyn Fn(&mut NodeRecord)| {
        let mut record = record.clone();
        record.common_digest = "other".to_owned();
        f(&mut record);
        record
    };
    let table = [
        (change(&near, &|_| ()), "native -> vxlan (policy-differs)"),
        (change(&far, &|_| ()), "vxlan -> vxlan (policy-differs)"),
        (change(&far, &|r| r.vni = 1), "none -> none (vni-differs)"),
        (change(&far, &|r| r.vxlan_port = 1), "none -> none (port-differs)"),
        (change(&near, &|r| r.vni = 1), "native -> native (vni-differs)"),
        (change(&far, &|r| r.capabilities.clear()), "none -> none (capability)"),
        (change(&far, &|r| r.underlay = a.underlay), "none -> none (same-address)"),
    ];
    for (b, want) in table {
        assert_eq!(check(&a, &b, Family::Ipv4, &policy(), Evidence::Delivered), want, "{b:?}");
    }
}

/// A new version that can more, or one that can less, is no other policy: each pair uses what both ends can.
#[test]
fn ends_that_can_different_things_use_what_both_can() {
    let a = v4("a", "192.0.2.1/24");
    let able = |record: &NodeRecord, words: &[&str]| NodeRecord {
        capabilities: words.iter().map(|word| (*word).to_owned()).collect(),
        ..record.clone()
    };
    let (near, far) = (v4("b", "192.0.2.2/24"), v4("b", "198.51.100.2/24"));
    let vxlan = Paths { same_subnet: PathUse::Vxlan, ..policy() };
    let table = [
        (able(&near, &[NATIVE, VXLAN, "ipip", "wireguard"]), policy(), "native -> native (bgp)"),
        (able(&far, &[NATIVE, VXLAN, "ipip"]), policy(), "vxlan -> vxlan (cross-subnet)"),
        (able(&near, &[VXLAN]), policy(), "vxlan -> vxlan (capability)"),
        (able(&near, &[NATIVE]), vxlan.clone(), "native -> native (capability)"),
        (able(&far, &[NATIVE]), vxlan.clone(), "none -> none (capability)"),
        (able(&near, &[]), vxlan, "none -> none (capability)"),
    ];
    for (b, policy, want) in table {
        assert_eq!(check(&a, &b, Family::Ipv4, &policy, Evidence::Delivered), want, "{b:?}");
    }
}

/// IP-in-IP where both ends can receive it, else what they both can, the same at both ends.
#[test]
fn ip_in_ip_needs_both_ends() {
    let able = |record: NodeRecord, words: &[&str]| {
        let more = words.iter().map(|word| (*word).to_owned());
        NodeRecord { capabilities: record.capabilities.iter().cloned().chain(more).collect(), ..record }
    };
    let a = able(node("a", Some("192.0.2.1/24"), Some("2001:db8:a::1/64")), &["ipip", "sit"]);
    let far = able(node("b", Some("198.51.100.2/24"), Some("2001:db8:b::2/64")), &["ipip", "sit"]);
    let near = able(v4("b", "192.0.2.2/24"), &["ipip"]);
    let cross = Paths { cross_subnet: PathUse::Ipip, ..policy() };
    let back = Paths { fallback: PathUse::Ipip, ..policy() };
    let alone = Paths { cross_subnet: PathUse::Ipip, fallback: PathUse::None, ..policy() };
    let lacks = |word: &str| {
        let mut record = far.clone();
        record.capabilities.remove(word);
        record
    };
    let (ipv4, ipv6) = (Family::Ipv4, Family::Ipv6);
    let only6 = able(node("b", None, Some("2001:db8:b::2/64")), &["ipip", "sit"]);
    let table = [
        (&far, ipv4, &cross, Evidence::Waiting, "ipip -> ipip (cross-subnet)"),
        (&far, ipv6, &cross, Evidence::Waiting, "ipip -> ipip (cross-subnet)"),
        // One family of pods may have it and the other not.
        (&lacks("sit"), ipv4, &cross, Evidence::Waiting, "ipip -> ipip (cross-subnet)"),
        (&lacks("sit"), ipv6, &cross, Evidence::Waiting, "vxlan -> vxlan (capability)"),
        (&lacks("ipip"), ipv4, &cross, Evidence::Waiting, "vxlan -> vxlan (capability)"),
        (&lacks("ipip"), ipv4, &alone, Evidence::Waiting, "none -> none (capability)"),
        (&only6, ipv6, &cross, Evidence::Waiting, "vxlan -> vxlan (no-common-underlay)"),
        (&near, ipv4, &back, Evidence::Down, "native -> ipip (bgp-down)"),
        (&near, ipv4, &back, Evidence::Delivered, "native -> native (bgp)"),
        // The fallback of the fallback is VXLAN.
        (&near, ipv6, &back, Evidence::Down, "vxlan -> vxlan (no-underlay-family)"),
        (&lacks("ipip"), ipv4, &back, Evidence::Down, "vxlan -> vxlan (cross-subnet)"),
    ];
    for (b, family, policy, evidence, want) in table {
        assert_eq!(check(&a, b, family, policy, evidence), want, "{b:?}");
    }
    let sentence = decide(end(&a), end(&lacks("ipip")), ipv4, &cross, Evidence::Waiting).detail;
    assert!(
        sentence.contains("b can't receive IP-in-IP for ipv4") && sentence.contains("ipip"),
        "{sentence}"
    );
    assert_eq!(serving_address(&far, &a, Path::Ipip, ipv6), Some("198.51.100.2".parse().unwrap()));
    // Neither knows what the other has been told to do: VXLAN, as ever.
    let other = NodeRecord { common_digest: "other".to_owned(), ..far.clone() };
    assert_eq!(check(&a, &other, ipv4, &cross, Evidence::Waiting), "ipip -> vxlan (policy-differs)");
}

#[test]
fn a_node_without_a_block_has_no_path() {
    let (a, b) = (v4("a", "192.0.2.1/24"), v4("b", "192.0.2.2/24"));
    let empty = End { record: &b, has_block: false };
    let decision = decide(end(&a), empty, Family::Ipv4, &policy(), Evidence::Delivered);
    assert_eq!((decision.path, decision.reason), (Path::None, Reason::NoBlock));
    assert_eq!(decision.detail, "b holds no ipv4 block");
    assert!(!decision.needs_session);
}

#[test]
fn the_digest_is_fixed_and_ignores_the_order_of_selectors() {
    let digest = |policy: &Paths, vni| common_digest(policy, vni, 4789);
    // Agents of all versions compare this: a change of the constant breaks every mixed cluster.
    assert_eq!(digest(&policy(), 4096), "5f9e8ed602a04d07");
    let zone = NodeSelector { labels: [("z".to_owned(), "a".to_owned())].into(), cidr: None };
    let any = NodeSelector::default();
    let ruled = |between| Paths { rules: vec![PathRule { between, use_: PathUse::None }], ..policy() };
    assert_eq!(
        digest(&ruled([zone.clone(), any.clone()]), 4096),
        digest(&ruled([any.clone(), zone.clone()]), 4096)
    );
    let all: BTreeSet<String> = [
        digest(&policy(), 4096),
        digest(&policy(), 4097),
        digest(&ruled([zone, any]), 4096),
        digest(&Paths { fallback: PathUse::None, ..policy() }, 4096),
    ]
    .into();
    assert_eq!(all.len(), 4);
}

fn any_use() -> impl Strategy<Value = PathUse> {
    prop_oneof![
        Just(PathUse::Bgp),
        Just(PathUse::Direct),
        Just(PathUse::Vxlan),
        Just(PathUse::Ipip),
        Just(PathUse::None)
    ]
}

fn any_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[xy]", "[ab]", 0..2)
}

fn any_net4() -> impl Strategy<Value = ipnet::Ipv4Net> {
    // Few addresses: equal ones, shared subnets and /32 must come up often.
    (0_u8..3, 0_u8..4, prop_oneof![Just(0_u8), Just(16), Just(24), Just(31), Just(32)])
        .prop_map(|(net, host, length)| ipnet::Ipv4Net::new([192, 0, net, host].into(), length).unwrap())
}

fn any_net6() -> impl Strategy<Value = ipnet::Ipv6Net> {
    (0_u16..2, 0_u16..4, prop_oneof![Just(48_u8), Just(64), Just(128)]).prop_map(|(net, host, length)| {
        ipnet::Ipv6Net::new([0x2001, 0xdb8, 0, net, 0, 0, 0, host].into(), length).unwrap()
    })
}

prop_compose! {
    fn any_record()(
        name in "[a-d]",
        ipv4 in prop::option::of(any_net4()),
        ipv6 in prop::option::of(any_net6()),
        labels in any_labels(),
        vni in 1_u32..3,
        port in 1_u16..3,
        digest in 0_u8..2,
        capabilities in prop::sample::subsequence(vec![NATIVE, VXLAN, "ipip", "sit"], 0..=4),
    ) -> NodeRecord {
        let mut record = node(&name, None, None);
        record.underlay = Underlay { ipv4, ipv6 };
        record.labels = labels;
        record.vni = vni;
        record.vxlan_port = port;
        record.common_digest = digest.to_string();
        record.capabilities = capabilities.into_iter().map(str::to_owned).collect();
        record
    }
}

fn any_selector() -> impl Strategy<Value = NodeSelector> {
    (any_labels(), prop::option::of(any_net4()))
        .prop_map(|(labels, cidr)| NodeSelector { labels, cidr: cidr.map(|net| IpNet::V4(net.trunc())) })
}

prop_compose! {
    fn any_policy()(
        same_subnet in any_use(),
        cross_subnet in any_use(),
        fallback in prop_oneof![Just(PathUse::Vxlan), Just(PathUse::Ipip), Just(PathUse::None)],
        rules in prop::collection::vec(
            (any_selector(), any_selector(), any_use())
                .prop_map(|(x, y, use_)| PathRule { between: [x, y], use_ }),
            0..3,
        ),
    ) -> Paths {
        Paths { same_subnet, cross_subnet, fallback, rules }
    }
}

proptest! {
    /// Invariant 5, for every policy, every record and every evidence; and what is decided can be received.
    #[test]
    fn symmetric_total_and_receivable(
        a in any_record(), b in any_record(), policy in any_policy(),
        has_block in any::<(bool, bool)>(), flipped in any::<bool>(),
    ) {
        // A node is no peer of itself.
        prop_assume!(a.name != b.name);
        for family in Family::ALL {
            for evidence in Evidence::ALL {
                let (x, y) = (End { record: &a, has_block: has_block.0 }, End { record: &b, has_block: has_block.1 });
                let decision = decide(x, y, family, &policy, evidence);
                prop_assert_eq!(&decision, &decide(y, x, family, &policy, evidence));
                let mut turned = policy.clone();
                if flipped {
                    for rule in &mut turned.rules {
                        rule.between.reverse();
                    }
                }
                prop_assert_eq!(&decision, &decide(x, y, family, &turned, evidence));
                match decision.path {
                    Path::Native => {
                        prop_assert_eq!(class(&a.underlay, &b.underlay, family), Some(Class::SameSubnet));
                        prop_assert!(a.capabilities.contains(NATIVE) && b.capabilities.contains(NATIVE));
                    }
                    Path::Vxlan => prop_assert!(tunnel_underlay(&a, &b).is_ok()),
                    Path::Ipip => prop_assert!(ipip_underlay(&a, &b, family).is_ok()),
                    Path::None => (),
                }
                if decision.path != Path::None {
                    prop_assert!(has_block.0 && has_block.1);
                    prop_assert!(serving_address(&a, &b, decision.path, family).is_some());
                }
                prop_assert!(!decision.detail.is_empty());
            }
        }
    }

    /// Two ends of different policies still agree: what they use while they differ depends on neither.
    #[test]
    fn differing_ends_agree(
        mut a in any_record(), mut b in any_record(), ours in any_policy(), theirs in any_policy(),
    ) {
        prop_assume!(a.name != b.name);
        a.common_digest = "a".to_owned();
        b.common_digest = "b".to_owned();
        for family in Family::ALL {
            let here = decide(end(&a), end(&b), family, &ours, Evidence::Delivered);
            let there = decide(end(&b), end(&a), family, &theirs, Evidence::Down);
            prop_assert_eq!(here.path, there.path);
            prop_assert_eq!(here.reason, there.reason);
        }
    }
}
