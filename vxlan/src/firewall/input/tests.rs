use super::*;
use crate::firewall::foreign::{Extension, Ports};
use crate::firewall::table::{
    Base, BaseChain, Choice, Expression, MetaKey, NETWORK, Rule, TRANSPORT, Verdict,
};

mod crowd;
mod simple;

const PEERS: [&str; 3] = ["192.0.2.7", "192.0.2.8", "198.51.100.9"];

fn arrival(what: Arriving) -> Arrival {
    Arrival {
        what,
        device: ("eth1".to_owned(), 7),
        to: "192.0.2.1".parse().unwrap(),
        from: PEERS.iter().map(|ip| ip.parse().unwrap()).collect(),
    }
}

fn verdict(verdict: Verdict) -> Expression {
    Expression::Verdict(verdict)
}

fn accept() -> Expression {
    verdict(Verdict::Accept)
}

fn jump(to: &str) -> Rule {
    rule(&[], verdict(Verdict::Jump(to.to_owned())))
}

fn rule(parts: &[Vec<Expression>], end: Expression) -> Rule {
    Rule::new(parts.iter().flatten().cloned().chain([Expression::Counter, end]).collect())
}

fn chain(name: &str, drops: Option<bool>, rules: Vec<Rule>) -> ForeignChain {
    let base = Base { kind: "filter".to_owned(), hook: hook::INPUT, priority: 0 };
    ForeignChain {
        family: "ip".to_owned(),
        table: "filter".to_owned(),
        name: name.to_owned(),
        base: drops.map(|drops| BaseChain { base, drops }),
        rules,
    }
}

fn protocol(number: u8) -> Vec<Expression> {
    vec![Expression::Meta(MetaKey::TransportProtocol), Expression::equals([number])]
}

fn port(number: u16) -> Vec<Expression> {
    vec![
        Expression::Payload { base: TRANSPORT, offset: 2, length: 2 },
        Expression::equals(number.to_be_bytes()),
    ]
}

fn from(net: &str) -> Vec<Expression> {
    let net: ipnet::Ipv4Net = net.parse().unwrap();
    vec![
        Expression::Payload { base: NETWORK, offset: 12, length: 4 },
        Expression::Mask(net.netmask().octets().to_vec()),
        Expression::equals(net.network().octets()),
    ]
}

/// `ct state established,related`, as `nft` writes it.
fn established() -> Vec<Expression> {
    vec![
        Expression::ConnectionState,
        Expression::Mask(6u32.to_ne_bytes().to_vec()),
        Expression::Compare { equal: false, value: vec![0; 4] },
    ]
}

fn device(name: &str) -> Vec<Expression> {
    vec![Expression::Meta(MetaKey::InputName), Expression::equals([name.as_bytes(), &[0]].concat())]
}

/// A rule that decides by a map.
fn rule_of_map(load: Expression, elements: &[(&[u8], Verdict)]) -> Rule {
    let choice = |(key, verdict): &(&[u8], Verdict)| Choice {
        from: key.to_vec(),
        to: key.to_vec(),
        verdict: verdict.clone(),
    };
    let choices = Some(elements.iter().map(choice).collect());
    Rule::new(vec![load, Expression::VerdictMap { map: "__map0".to_owned(), choices }])
}

/// Ranges in ascending order.
fn among(ranges: &[(&[u8], &[u8])], absent: bool) -> Expression {
    let ranges = ranges.iter().map(|(from, to)| (from.to_vec(), to.to_vec())).collect();
    Expression::Among { ranges, absent }
}

/// What is dropped of UDP 4789, TCP 179 and protocol 4.
fn dropped(chains: &[ForeignChain]) -> Vec<String> {
    let arrivals = [Arriving::Udp(4789), Arriving::Tcp(179), Arriving::Protocol(4)].map(arrival);
    input_drops(chains, &arrivals).iter().map(|drop| drop.what.to_string()).collect()
}

const UDP: &str = "UDP port 4789";
const TCP: &str = "TCP port 179";
const IPIP: &str = "IP protocol 4";

#[test]
fn a_chain_is_judged_by_what_it_does_to_what_must_arrive() {
    let policy = |rules: Vec<Rule>| vec![chain("INPUT", Some(true), rules)];
    let limit = || vec![Expression::Other("limit".to_owned())];
    let cases: Vec<(&str, Vec<ForeignChain>, &[&str])> = vec![
        ("accepts all", vec![chain("INPUT", Some(false), vec![])], &[]),
        ("drops all", policy(vec![]), &[UDP, TCP, IPIP]),
        (
            "accepts what belongs to a connection",
            policy(vec![rule(&[established()], accept())]),
            &[UDP, TCP, IPIP],
        ),
        ("accepts the loopback", policy(vec![rule(&[device("lo")], accept())]), &[UDP, TCP, IPIP]),
        ("accepts our device", policy(vec![rule(&[device("eth1")], accept())]), &[]),
        ("accepts a port", policy(vec![rule(&[protocol(17), port(4789)], accept())]), &[TCP, IPIP]),
        (
            "accepts the port of TCP",
            policy(vec![rule(&[protocol(6), port(4789)], accept())]),
            &[UDP, TCP, IPIP],
        ),
        ("accepts a protocol", policy(vec![rule(&[protocol(4)], accept())]), &[UDP, TCP]),
        ("accepts everybody's network", policy(vec![rule(&[from("192.0.0.0/4")], accept())]), &[]),
        (
            "accepts another network",
            policy(vec![rule(&[from("203.0.113.0/24")], accept())]),
            &[UDP, TCP, IPIP],
        ),
        ("accepts now and then", policy(vec![rule(&[limit()], accept())]), &[]),
        ("logs", policy(vec![rule(&[], Expression::Note)]), &[UDP, TCP, IPIP]),
        ("may do anything", policy(vec![rule(&[], Expression::Other("queue".to_owned()))]), &[]),
        (
            "drops now and then",
            vec![chain("INPUT", Some(false), vec![rule(&[limit()], verdict(Verdict::Drop))])],
            &[],
        ),
        (
            "rejects",
            vec![chain("INPUT", Some(false), vec![rule(&[], Expression::Reject)])],
            &[UDP, TCP, IPIP],
        ),
        (
            "rejects after an accept",
            vec![chain(
                "INPUT",
                Some(false),
                vec![rule(&[protocol(6), port(179)], accept()), rule(&[], Expression::Reject)],
            )],
            &[UDP, IPIP],
        ),
        (
            "asks a set of ports",
            policy(vec![rule(
                &[vec![
                    Expression::Payload { base: TRANSPORT, offset: 2, length: 2 },
                    among(&[(&[0, 22], &[0, 22]), (&[0, 179], &[18, 181])], false),
                ]],
                accept(),
            )]),
            // 4789 is 0x12b5, the last of the range. A protocol without ports is not asked for certain.
            &[],
        ),
        (
            "asks a set of states",
            policy(vec![rule(
                &[vec![
                    Expression::ConnectionState,
                    among(&[(&2u32.to_ne_bytes(), &2u32.to_ne_bytes())], false),
                ]],
                accept(),
            )]),
            &[UDP, TCP, IPIP],
        ),
        (
            "accepts what is not tracked",
            policy(vec![rule(
                &[vec![
                    Expression::ConnectionState,
                    Expression::Mask((6u32 | 64).to_ne_bytes().to_vec()),
                    Expression::Compare { equal: false, value: vec![0; 4] },
                ]],
                accept(),
            )]),
            &[],
        ),
        (
            "maps what is not tracked",
            policy(vec![rule_of_map(
                Expression::ConnectionState,
                &[(&64u32.to_ne_bytes(), Verdict::Accept)],
            )]),
            &[],
        ),
        (
            "maps states",
            policy(vec![rule_of_map(Expression::ConnectionState, &[(&2u32.to_ne_bytes(), Verdict::Accept)])]),
            &[UDP, TCP, IPIP],
        ),
        (
            "maps protocols",
            policy(vec![rule_of_map(
                Expression::Meta(MetaKey::TransportProtocol),
                &[(&[6], Verdict::Accept), (&[17], Verdict::Continue)],
            )]),
            &[UDP, IPIP],
        ),
        ("maps something unknown", policy(vec![rule_of_map(Expression::Other("meta".to_owned()), &[])]), &[]),
        (
            "asks a set of something else",
            policy(vec![rule(
                &[vec![Expression::Meta(MetaKey::TransportProtocol), among(&[(&[1, 2], &[1, 2])], false)]],
                accept(),
            )]),
            &[],
        ),
        (
            "asks a set that can't be read",
            policy(vec![rule(
                &[vec![Expression::Lookup { set: "trusted".to_owned(), absent: false }]],
                accept(),
            )]),
            &[],
        ),
        ("has more rules than are read", policy(vec![rule(&[], Expression::Unread)]), &[]),
        (
            "accepts all but an address",
            policy(vec![rule(
                &[vec![
                    Expression::Payload { base: NETWORK, offset: 16, length: 4 },
                    Expression::Compare { equal: false, value: vec![192, 0, 2, 1] },
                ]],
                accept(),
            )]),
            &[UDP, TCP, IPIP],
        ),
    ];
    for (name, chains, expected) in cases {
        assert_eq!(dropped(&chains), expected, "{name}");
    }
}

#[test]
fn the_extensions_of_iptables_are_understood() {
    let all = Ports { first: 0, last: u16::MAX, invert: false };
    let one = |port: u16, invert| Ports { first: port, last: port, invert };
    let cases: Vec<(Extension, &[&str])> = vec![
        (Extension::Comment, &[]),
        (Extension::State { bits: 6, invert: false }, &[UDP, TCP, IPIP]),
        (Extension::State { bits: 1, invert: true }, &[]),
        // Perhaps the packets are not tracked: raw tables have `notrack` for tunnels.
        (Extension::State { bits: 6 | 64, invert: false }, &[]),
        (Extension::Ports { source: all, destination: one(4789, false) }, &[TCP]),
        (Extension::Ports { source: all, destination: one(4789, true) }, &[UDP]),
        (Extension::Ports { source: one(5, false), destination: one(4789, false) }, &[TCP]),
        (
            Extension::ManyPorts { destination: true, source: false, ranges: vec![(1, 200)], invert: false },
            &[UDP],
        ),
        (
            Extension::ManyPorts { destination: true, source: true, ranges: vec![(179, 179)], invert: true },
            &[TCP],
        ),
        (Extension::DestinationKind { bits: 4, invert: false }, &[]),
        (Extension::DestinationKind { bits: 32, invert: false }, &[UDP, TCP, IPIP]),
    ];
    for (extension, expected) in cases {
        let rules = vec![rule(&[vec![Expression::Extension(extension.clone())]], accept())];
        assert_eq!(dropped(&[chain("INPUT", Some(true), rules)]), expected, "{extension:?}");
    }
}

#[test]
fn senders_that_rules_tell_apart_are_judged_apart() {
    let rules = vec![rule(&[from("192.0.2.8/32")], accept()), rule(&[from("198.51.100.0/24")], accept())];
    let drops = input_drops(&[chain("INPUT", Some(true), rules)], &[arrival(Arriving::Udp(4789))]);
    let drop = drops.first().expect("one peer's packets are dropped");
    assert_eq!(drop.from, BTreeSet::from(["192.0.2.7".parse().unwrap()]));
    assert!(!drop.everybody && drop.by_policy);
    assert_eq!(
        drop.to_string(),
        "chain INPUT of the nftables table ip filter drops UDP port 4789 to 192.0.2.1 by its policy, from 192.0.2.7"
    );
    assert_eq!(drop.remedy(), "iptables -I INPUT -s 192.0.2.7 -p udp --dport 4789 -j ACCEPT");
}

/// A few are named, the others counted, and the legacy iptables have programs of their own.
#[test]
fn a_command_lets_a_few_in_and_counts_the_rest() {
    let mut asked = arrival(Arriving::Udp(4789));
    asked.from = (1..=20).map(|last| std::net::Ipv4Addr::new(192, 0, 2, last).into()).collect();
    let remedy = |many: u8| {
        let rules = (many + 1..=20).map(|last| rule(&[from(&format!("192.0.2.{last}/32"))], accept()));
        let drops = input_drops(&[chain("INPUT", Some(true), rules.collect())], std::slice::from_ref(&asked));
        let drop = drops.first().unwrap().clone();
        assert_eq!(drop.from.len(), usize::from(many));
        (drop.remedy(), drop.legacy_remedy())
    };
    let one = |last: u8| format!("iptables -I INPUT -s 192.0.2.{last} -p udp --dport 4789 -j ACCEPT");
    let eight: Vec<String> = (1..=8).map(one).collect();
    assert_eq!(remedy(8).0, eight.join(" && "));
    assert_eq!(remedy(11).0, format!("{} # and the same for 3 more", eight.join(" && ")));
    assert_eq!(remedy(20).0, "iptables -I INPUT -p udp --dport 4789 -j ACCEPT");
    assert_eq!(remedy(1).1, "iptables-legacy -I INPUT -s 192.0.2.1 -p udp --dport 4789 -j ACCEPT");

    let mut ipv6 = chain("INPUT", Some(true), vec![]);
    ipv6.family = "ip6".to_owned();
    let asked = Arrival {
        to: "2001:db8::1".parse().unwrap(),
        from: BTreeSet::from(["2001:db8::7".parse().unwrap()]),
        ..asked
    };
    let drops = input_drops(&[ipv6], &[asked]);
    let drop = drops.first().unwrap();
    assert_eq!(drop.legacy_remedy(), "ip6tables-legacy -I INPUT -p udp --dport 4789 -j ACCEPT");
    assert_eq!(drop.remedy(), "ip6tables -I INPUT -p udp --dport 4789 -j ACCEPT");
}

/// As ufw has them: what may come back from one chain decides in the next, and what is only perhaps dropped is still
/// dropped by the policy.
#[test]
fn ways_part_and_meet_again() {
    let mut not_local = vec![rule(&[vec![Expression::Other("match".to_owned())]], verdict(Verdict::Return))];
    not_local.push(rule(&[], verdict(Verdict::Drop)));
    let user = |rules| chain("ufw-user-input", None, rules);
    let chains = |rules| {
        vec![
            chain("INPUT", Some(true), vec![jump("ufw-before-input"), jump("ufw-user-input")]),
            chain("ufw-before-input", None, vec![jump("ufw-not-local")]),
            chain("ufw-not-local", None, not_local.clone()),
            user(rules),
        ]
    };
    assert_eq!(dropped(&chains(vec![])), [UDP, TCP, IPIP]);
    let drops = input_drops(&chains(vec![]), &[arrival(Arriving::Udp(4789))]);
    let remedy = drops.first().unwrap().remedy();
    assert_eq!(remedy, "ufw allow proto udp from any to 192.0.2.1 port 4789");
    // An accept is one, if only perhaps.
    assert_eq!(dropped(&chains(vec![rule(&[protocol(17)], accept())])), [TCP, IPIP]);

    let goto = |to: &str| rule(&[], verdict(Verdict::Goto(to.to_owned())));
    let base = |rules| chain("INPUT", Some(true), rules);
    let all = [UDP, TCP, IPIP];
    assert_eq!(dropped(&[base(vec![goto("U"), rule(&[], accept())]), chain("U", None, vec![])]), all);
    assert_eq!(dropped(&[base(vec![jump("U"), rule(&[], accept())]), chain("U", None, vec![])]), [""; 0]);
    assert_eq!(dropped(&[base(vec![jump("missing")])]), [""; 0]);
    // A loop, which the kernel refuses, is no end of us.
    assert_eq!(dropped(&[base(vec![jump("U")]), chain("U", None, vec![jump("U")])]), [""; 0]);
}

#[test]
fn families_and_remedies() {
    let mut theirs = chain("filter_INPUT", Some(false), vec![rule(&[], Expression::Reject)]);
    theirs.family = "inet".to_owned();
    theirs.table = "firewalld".to_owned();
    let ipv6 = Arrival {
        to: "2001:db8::1".parse().unwrap(),
        from: BTreeSet::from(["2001:db8::7".parse().unwrap()]),
        ..arrival(Arriving::Udp(4789))
    };
    let drops = input_drops(&[theirs.clone()], &[arrival(Arriving::Protocol(4)), ipv6.clone()]);
    let remedies: Vec<String> = drops.iter().map(InputDrop::remedy).collect();
    assert_eq!(remedies, ["firewall-cmd --add-port=4789/udp", "firewall-cmd --add-protocol=ipencap"]);
    theirs.table = "mine".to_owned();
    let drops = input_drops(&[theirs], &[arrival(Arriving::Protocol(41))]);
    assert_eq!(
        drops.first().unwrap().remedy(),
        "nft insert rule inet mine filter_INPUT meta l4proto 41 accept"
    );
    // A chain of IPv4 says nothing of IPv6.
    assert!(input_drops(&[chain("INPUT", Some(true), vec![])], &[ipv6]).is_empty());
}

/// However many rules there are, and however they branch, it ends.
#[test]
fn it_ends() {
    let perhaps = || vec![Expression::Other("limit".to_owned())];
    let many: Vec<ForeignChain> = (0..16)
        .map(|depth| {
            let to = format!("C{}", depth + 1);
            let rules = vec![rule(&[perhaps()], verdict(Verdict::Jump(to))); 10];
            chain(&format!("C{depth}"), (depth == 0).then_some(true), rules)
        })
        .collect();
    assert!(input_drops(&many, &[arrival(Arriving::Udp(4789))]).is_empty());
}
