use std::collections::BTreeSet;
use std::net::IpAddr;

use expect_test::expect;
use proptest::prelude::*;

use super::*;

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn nodes(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn both() -> Firewall {
    Firewall {
        pools: nets(&["10.244.0.0/16", "10.99.0.0/17", "fd10:244::/48"]),
        nodes: nodes(&["192.0.2.1", "2001:db8::1"]),
        masquerade: Some(Masquerade { exclude: nets(&["198.51.100.7/32", "198.51.100.0/24", "0.0.0.0/0"]) }),
        guard: Some(Guard { vni: Vni(0x01_02_03), port: 8472 }),
        ip_guard: None,
    }
}

#[test]
fn nothing_wanted_is_no_table() {
    let neither = Firewall { masquerade: None, guard: None, ..both() };
    assert_eq!(neither.table(), None);
}

#[test]
fn the_table_as_people_read_it() {
    let firewall = Firewall {
        masquerade: Some(Masquerade { exclude: nets(&["198.51.100.7/32", "198.51.100.0/24"]) }),
        ..both()
    };
    expect![[r#"
        table inet pairway {
        	comment "pairway"
        	set nodes4 {
        		type ipv4_addr
        		elements = { 192.0.2.1 }
        	}
        	set nodes6 {
        		type ipv6_addr
        		elements = { 2001:db8::1 }
        	}
        	chain guard {
        		type filter hook input priority -10; policy accept;
        		meta l4proto udp th dport 8472 @th,96,24 66051 meta nfproto ipv4 ip saddr != @nodes4 counter drop comment "our VNI from an unknown node"
        		meta l4proto udp th dport 8472 @th,96,24 66051 meta nfproto ipv6 ip6 saddr != @nodes6 counter drop comment "our VNI from an unknown node"
        	}
        	chain leaving4 {
        		meta nfproto ipv4 ip daddr 10.99.0.0/17 return
        		meta nfproto ipv4 ip daddr 10.244.0.0/16 return
        		meta nfproto ipv4 ip daddr 198.51.100.0/24 return
        		meta nfproto ipv4 ip daddr @nodes4 return
        		fib daddr type local return
        		fib daddr type broadcast return
        		fib daddr type multicast return
        		counter masquerade fully-random comment "leaves the cluster"
        	}
        	chain leaving6 {
        		meta nfproto ipv6 ip6 daddr fd10:244::/48 return
        		meta nfproto ipv6 ip6 daddr @nodes6 return
        		fib daddr type local return
        		fib daddr type broadcast return
        		fib daddr type multicast return
        		counter masquerade fully-random comment "leaves the cluster"
        	}
        	chain postrouting {
        		type nat hook postrouting priority 110; policy accept;
        		meta nfproto ipv4 ip saddr 10.99.0.0/17 jump leaving4
        		meta nfproto ipv4 ip saddr 10.244.0.0/16 jump leaving4
        		meta nfproto ipv6 ip6 saddr fd10:244::/48 jump leaving6
        	}
        }
    "#]].assert_eq(&firewall.table().unwrap().to_nft("pairway", "pairway"));
}

#[test]
fn ip_in_ip_has_rules_and_sets_of_its_own() {
    let kinds = BTreeMap::from([
        (IpTunnel::Ipip, nodes(&["192.0.2.9", "2001:db8::9"])),
        (IpTunnel::Sit, BTreeSet::new()),
    ]);
    let ip_guard = Some(IpGuard { local: "192.0.2.1".parse().unwrap(), kinds });
    let text =
        Firewall { masquerade: None, guard: None, ip_guard, ..both() }.table().unwrap().to_nft("t", "t");
    assert!(text.contains("set others_ipip {\n\t\ttype ipv4_addr\n\t\telements = { 192.0.2.9 }\n"), "{text}");
    for (number, set) in [(4, "others_ipip"), (41, "others_sit")] {
        let rule = format!(
            "meta l4proto {number} meta nfproto ipv4 ip daddr 192.0.2.1 ip saddr != @nodes4 ip saddr != @{set} counter drop comment"
        );
        assert!(text.contains(&rule), "{text}");
    }
}

#[test]
fn what_covers_everything_needs_no_address() {
    let text = both().table().unwrap().to_nft("t", "t");
    assert!(text.contains("\t\tmeta nfproto ipv4 return\n"), "{text}");
    assert!(!text.contains("198.51.100"), "it lies within");
}

#[test]
fn without_a_pool_there_is_nothing_to_masquerade() {
    let table = Firewall { pools: Vec::new(), ..both() }.table().unwrap();
    assert_eq!(table.chains.keys().collect::<Vec<_>>(), ["guard"]);
}

#[test]
fn only_elements_differ_or_more_does() {
    let table = both().table().unwrap();
    let other = Firewall { nodes: nodes(&["192.0.2.9"]), ..both() }.table().unwrap();
    assert!(table.same_but_elements(&other) && table != other);
    let other = Firewall { guard: None, ..both() }.table().unwrap();
    assert!(!table.same_but_elements(&other));
    let mut other = table.clone();
    other.sets.get_mut(NODES_IPV4).unwrap().key = SetKey::Other;
    assert!(!table.same_but_elements(&other) && !other.same_but_elements(&other));
}

/// What a chain of the masquerade says of a packet: whether it is translated. A machine of its own, so that the
/// expressions are judged and not the words they came from.
fn masquerades(table: &Table, source: IpAddr, destination: IpAddr, kind: u32) -> bool {
    fn run(table: &Table, chain: &str, packet: (IpAddr, IpAddr, u32)) -> Option<bool> {
        let (source, destination, kind) = packet;
        'rules: for rule in &table.chains[chain].rules {
            let mut register: Vec<u8> = Vec::new();
            for expression in &rule.expressions {
                match expression {
                    Expression::Meta(MetaKey::NetworkProtocol) => {
                        register = vec![if source.is_ipv4() { 2 } else { 10 }];
                    }
                    Expression::Payload { base: 1, offset, length } => {
                        let mut header = vec![0; if source.is_ipv4() { 12 } else { 8 }];
                        header.extend(table::octets(source));
                        header.extend(table::octets(destination));
                        let from = *offset as usize;
                        register = header[from..from + *length as usize].to_vec();
                    }
                    Expression::AddressKind => register = kind.to_ne_bytes().to_vec(),
                    Expression::Mask(mask) => {
                        register.iter_mut().zip(mask).for_each(|(byte, mask)| *byte &= mask);
                    }
                    Expression::Compare { equal, value } => {
                        if (register == *value) != *equal {
                            continue 'rules;
                        }
                    }
                    Expression::Lookup { set, absent } => {
                        let found = table.sets[set].elements.iter().any(|ip| table::octets(*ip) == register);
                        if found == *absent {
                            continue 'rules;
                        }
                    }
                    Expression::Counter => {}
                    Expression::Masquerade { .. } => return Some(true),
                    Expression::Verdict(Verdict::Return) => return None,
                    Expression::Verdict(Verdict::Jump(chain)) => {
                        if let Some(outcome) = run(table, chain, packet) {
                            return Some(outcome);
                        }
                    }
                    other @ (Expression::Meta(_)
                    | Expression::Payload { .. }
                    | Expression::Reject
                    | Expression::ConnectionState
                    | Expression::Range { .. }
                    | Expression::Among { .. }
                    | Expression::VerdictMap { .. }
                    | Expression::Unread
                    | Expression::Note
                    | Expression::Extension(_)
                    | Expression::Verdict(_)
                    | Expression::Other(_)) => panic!("{other:?} in a chain of the masquerade"),
                }
            }
        }
        None
    }
    run(table, POSTROUTING, (source, destination, kind)).unwrap_or(false)
}

fn address() -> impl Strategy<Value = IpAddr> {
    let ipv4 = prop_oneof![
        Just([10, 244, 0, 0]),
        Just([10, 99, 0, 0]),
        Just([10, 99, 128, 0]),
        Just([192, 0, 2, 0]),
        Just([198, 51, 100, 0]),
        Just([203, 0, 113, 0]),
    ];
    let ipv6 = prop_oneof![
        Just([0xfd10, 0x244, 0, 0, 0, 0, 0, 0]),
        Just([0xfd10, 0x245, 0, 0, 0, 0, 0, 0]),
        Just([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0]),
    ];
    let low = 0u8..4;
    prop_oneof![
        (ipv4, low.clone()).prop_map(|([a, b, c, _], d)| IpAddr::from([a, b, c, d])),
        (ipv6, low).prop_map(|(mut words, last)| {
            words[7] = u16::from(last);
            IpAddr::from(words)
        }),
    ]
}

proptest! {
    #[test]
    fn masqueraded_is_what_leaves_the_cluster_and_nothing_else(
        source in address(),
        destination in address(),
        kind in prop_oneof![3 => Just(1u32), 1 => Just(2), 1 => Just(3), 1 => Just(5)],
        nodes in prop::collection::btree_set(address(), 0..5),
        exclude in prop::collection::vec((address(), 1u8..=32), 0..3),
    ) {
        prop_assume!(source.is_ipv4() == destination.is_ipv4());
        let exclude: Vec<IpNet> =
            exclude.into_iter().map(|(ip, length)| IpNet::new(ip, length).unwrap().trunc()).collect();
        let firewall = Firewall { nodes: nodes.clone(), masquerade: Some(Masquerade { exclude: exclude.clone() }), ..both() };
        let table = firewall.table().unwrap();
        let pod = |ip| firewall.pools.iter().any(|pool| pool.contains(&ip));
        let expected = pod(source)
            && !pod(destination)
            && !nodes.contains(&destination)
            && !exclude.iter().any(|net| net.contains(&destination))
            && kind == 1;
        prop_assert_eq!(masquerades(&table, source, destination, kind), expected);
    }
}
