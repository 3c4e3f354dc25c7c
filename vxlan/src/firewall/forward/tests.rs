use super::*;
use crate::firewall::table::{Base, BaseChain, octets};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn verdict(verdict: Verdict) -> Expression {
    Expression::Verdict(verdict)
}

/// `ip saddr NET` or `ip daddr NET`, with a mask.
fn matching(source: bool, text: &str) -> Vec<Expression> {
    let net = net(text);
    let (offset, length) = match (net.addr().is_ipv4(), source) {
        (true, true) => (12, 4),
        (true, false) => (16, 4),
        (false, true) => (8, 16),
        (false, false) => (24, 16),
    };
    vec![
        Expression::Payload { base: NETWORK, offset, length },
        Expression::Mask(octets(net.netmask())),
        Expression::Compare { equal: true, value: octets(net.network()) },
    ]
}

fn on_device(key: MetaKey, name: &str) -> Vec<Expression> {
    vec![Expression::Meta(key), Expression::equals([name.as_bytes(), &[0]].concat())]
}

fn rule(parts: &[Vec<Expression>], end: Expression) -> Rule {
    Rule::new(parts.iter().flatten().cloned().chain([Expression::Counter, end]).collect())
}

fn chain(name: &str, drops: Option<bool>, rules: Vec<Rule>) -> ForeignChain {
    let base = Base { kind: "filter".to_owned(), hook: hook::FORWARD, priority: 0 };
    ForeignChain {
        family: "ip".to_owned(),
        table: "filter".to_owned(),
        name: name.to_owned(),
        base: drops.map(|drops| BaseChain { base, drops }),
        rules,
    }
}

fn judged(chains: &[ForeignChain]) -> Option<bool> {
    let devices = ["cni0", "eth0", "pairway-vx4"].map(str::to_owned).into();
    let drops = forward_drops(chains, &[net("10.244.0.0/16"), net("fd10::/48")], &devices);
    assert!(drops.len() <= 1, "a chain of IPv4 says nothing of IPv6: {drops:?}");
    drops.first().map(|drop| drop.by_policy)
}

#[test]
fn a_chain_is_judged_by_what_it_does_to_pods() {
    let accept = || verdict(Verdict::Accept);
    let pods = |text| [true, false].map(|source| rule(&[matching(source, text)], accept())).to_vec();
    let policy = |rules| [chain("FORWARD", Some(true), rules)];
    let cases = [
        ("accepts all", [chain("FORWARD", Some(false), Vec::new())], None),
        ("drops all", policy(Vec::new()), Some(true)),
        ("accepts the pool", policy(pods("10.244.0.0/16")), None),
        ("accepts more", policy(pods("10.0.0.0/8")), None),
        ("accepts less", policy(pods("10.244.0.0/17")), Some(true)),
        ("accepts another", policy(pods("10.245.0.0/16")), Some(true)),
        (
            "accepts what comes from pods",
            policy(vec![rule(&[matching(true, "10.244.0.0/16")], accept())]),
            Some(true),
        ),
        (
            "accepts on pods' devices",
            policy(vec![rule(&[on_device(MetaKey::InputName, "cni0")], accept())]),
            None,
        ),
        (
            "accepts on others' devices",
            policy(vec![rule(&[on_device(MetaKey::InputName, "docker0")], accept())]),
            Some(true),
        ),
        (
            "accepts marked packets",
            policy(vec![rule(&[vec![Expression::Other("meta".to_owned())]], accept())]),
            Some(true),
        ),
        (
            "drops by a rule",
            [chain("FORWARD", Some(false), vec![rule(&[], Expression::Reject)])],
            Some(false),
        ),
        (
            "drops others by a rule",
            [chain(
                "FORWARD",
                Some(false),
                vec![rule(&[matching(true, "10.9.0.0/16")], verdict(Verdict::Drop))],
            )],
            None,
        ),
        (
            "drops some by a rule",
            [chain(
                "FORWARD",
                Some(false),
                vec![rule(&[matching(true, "10.244.7.0/24")], verdict(Verdict::Drop))],
            )],
            None,
        ),
        (
            "returns to the policy",
            policy([vec![rule(&[], verdict(Verdict::Return))], pods("10.244.0.0/16")].concat()),
            Some(true),
        ),
    ];
    for (name, chains, expected) in cases {
        assert_eq!(judged(&chains), expected, "{name}");
    }
}

#[test]
fn jumps_come_back_and_gotos_do_not() {
    let jump = |to: &str| rule(&[], verdict(Verdict::Jump(to.to_owned())));
    let goto = |to: &str| rule(&[], verdict(Verdict::Goto(to.to_owned())));
    let accept = || rule(&[], verdict(Verdict::Accept));
    let base = |rules| chain("FORWARD", Some(true), rules);
    let user = |rules| chain("USER", None, rules);
    assert_eq!(judged(&[base(vec![jump("USER")]), user(vec![accept()])]), None);
    assert_eq!(judged(&[base(vec![jump("USER"), accept()]), user(vec![])]), None);
    assert_eq!(judged(&[base(vec![goto("USER"), accept()]), user(vec![])]), Some(true));
    assert_eq!(judged(&[base(vec![jump("missing")])]), Some(true));
    // Nor is anything known of what is not read.
    let unread = || Rule::new(vec![Expression::Unread]);
    assert_eq!(judged(&[base(vec![unread()])]), None);
    assert_eq!(judged(&[base(vec![jump("USER")]), user(vec![unread()])]), None);
    // A loop, which the kernel refuses, is no end of us.
    assert_eq!(judged(&[base(vec![jump("USER")]), user(vec![jump("USER")])]), Some(true));
}

#[test]
fn families_and_the_remedy() {
    let mut inet = chain("forward", Some(true), Vec::new());
    inet.family = "inet".to_owned();
    let drops = forward_drops(&[inet], &[net("10.244.0.0/16"), net("fd10::/48")], &BTreeSet::new());
    let texts: Vec<String> = drops.iter().map(ForwardDrop::remedy).collect();
    assert_eq!(texts.len(), 2);
    assert!(texts[0].starts_with("nft insert rule inet filter forward ip saddr 10.244.0.0/16 accept && "));
    assert!(texts[1].contains("ip6 daddr fd10::/48 accept"));
}
