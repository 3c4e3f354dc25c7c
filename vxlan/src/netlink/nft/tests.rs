use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::firewall::{Expression, Firewall, Guard, IpGuard, Masquerade, Rule, SetKey, Verdict};
use crate::netlink::channel::Message;
use crate::netlink::request::Request;
use crate::state::{IpTunnel, Vni};

fn table() -> crate::firewall::Table {
    let firewall = Firewall {
        pools: ["10.244.0.0/16", "10.99.0.0/17", "fd10:244::/48"].map(|net| net.parse().unwrap()).into(),
        nodes: ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap()).into(),
        masquerade: Some(Masquerade { exclude: vec!["198.51.100.0/24".parse().unwrap()] }),
        guard: Some(Guard { vni: Vni(4096), port: 4789 }),
        ip_guard: Some(IpGuard {
            local: "192.0.2.1".parse().unwrap(),
            kinds: [(IpTunnel::Ipip, ["192.0.2.9".parse().unwrap()].into()), (IpTunnel::Sit, [].into())]
                .into(),
        }),
    };
    firewall.table().unwrap()
}

/// What we write reads back as what it was, piece by piece.
#[test]
fn what_is_written_is_read() {
    let table = table();
    for (name, chain) in &table.chains {
        let request = encode::new_chain("pairway", name, chain);
        let found = decode::chain(request.kind, &request.body).unwrap();
        assert_eq!((found.table.as_str(), &found.name, &found.base), ("pairway", name, &chain.base));
        for rule in &chain.rules {
            let request = encode::new_rule("pairway", name, rule);
            let found = decode::rule(request.kind, &request.body).unwrap();
            assert_eq!((&found.chain, &found.rule), (name, rule));
        }
    }
    for (name, set) in &table.sets {
        let request = encode::new_set("pairway", name, set.key, 1);
        let found = decode::set(request.kind, &request.body).unwrap();
        assert_eq!((&found.name, found.key), (name, set.key));
        let elements: Vec<IpAddr> = set.elements.iter().copied().collect();
        let request = encode::add_elements("pairway", name, &elements);
        assert_eq!(decode::elements(request.kind, &request.body), elements);
    }
    let request = encode::new_table("pairway", "ours");
    let found = decode::table(request.kind, &request.body).unwrap();
    assert_eq!((found.family, found.name.as_str(), found.comment.as_str()), (INET, "pairway", "ours"));
    let request = encode::any_table("pairway");
    assert_eq!(decode::table(request.kind, &request.body).unwrap().comment, "");
}

#[test]
fn every_verdict_and_what_only_others_write() {
    let verdicts = [
        Verdict::Accept,
        Verdict::Drop,
        Verdict::Return,
        Verdict::Continue,
        Verdict::Jump("a".to_owned()),
        Verdict::Goto("b".to_owned()),
    ];
    let steps = [
        Expression::Reject,
        Expression::Masquerade { fully_random: false },
        Expression::Other("nonsense".to_owned()),
    ];
    for expression in verdicts.map(Expression::Verdict).into_iter().chain(steps) {
        let rule = Rule::new(vec![expression]);
        let request = encode::new_rule("t", "c", &rule);
        assert_eq!(decode::rule(request.kind, &request.body).unwrap().rule, rule);
    }
}

fn notification(request: &Request) -> Message<'_> {
    Message { kind: request.kind, flags: 0, sequence: 0, port: 0, body: &request.body }
}

#[test]
fn what_concerns_us() {
    let table = table();
    let rule = &table.chains["guard"].rules[0];
    let mut output = table.chains["guard"].clone();
    if let Some(base) = &mut output.base {
        base.base.hook = 3;
    }
    let mut forward = table.chains["guard"].clone();
    if let Some(base) = &mut forward.base {
        base.base.hook = crate::firewall::hook::FORWARD;
    }
    let cases = [
        ("our rule", encode::new_rule("pairway", "guard", rule), true),
        ("our table", encode::delete_table("pairway"), true),
        ("our elements", encode::delete_elements("pairway", "nodes4", &[]), true),
        ("another's rule", encode::new_rule("filter", "guard", rule), false),
        ("another's output chain", encode::new_chain("filter", "output", &output), false),
        ("another's input chain", encode::new_chain("filter", "input", &table.chains["guard"]), true),
        ("another's forward chain", encode::new_chain("filter", "forward", &forward), true),
        ("a generation", encode::generation(), false),
    ];
    for (name, request, expected) in cases {
        assert_eq!(decode::concerns(&notification(&request), "pairway"), expected, "{name}");
    }
    let told = |request: &Request| decode::told_chain(&notification(request));
    let mut told_of = encode::new_chain("filter", "forward", &forward);
    let key = (INET, "filter".to_owned(), "forward".to_owned());
    assert_eq!(told(&told_of), Some((message::NEW_CHAIN, key.clone())));
    told_of.kind = kind(message::DELETE_CHAIN);
    assert_eq!(told(&told_of), Some((message::DELETE_CHAIN, key)));
    assert_eq!(told(&encode::new_chain("filter", "output", &output)), None);
    let of_rule = encode::new_rule("filter", "forward", rule);
    assert_eq!(
        decode::told_rule(&notification(&of_rule)),
        Some((INET, "filter".to_owned(), "forward".to_owned()))
    );
    assert_eq!(decode::told_rule(&notification(&told_of)), None);
}

#[test]
fn a_large_set_goes_in_several_messages_of_one_transaction() {
    let mut table = table();
    table.sets.get_mut("nodes4").unwrap().elements =
        (0..2500u32).map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes())).collect();
    let requests = write::replace("pairway", "ours", &table);
    let of_elements: Vec<_> =
        requests.iter().filter(|request| request.kind == kind(message::NEW_ELEMENTS)).collect();
    assert_eq!(of_elements.len(), 3 + 1 + 1);
    assert!(requests.iter().all(|request| request.body.len() < usize::from(u16::MAX)));
    assert_eq!(table.sets["nodes4"].key, SetKey::Ipv4);
}

#[test]
fn elements_become_ranges() {
    let keys = |list: &[(u8, bool)]| {
        let element = |(byte, ends): &(u8, bool)| decode::Element {
            key: vec![1, *byte],
            begins: !ends,
            verdict: (!ends).then_some(Verdict::Accept),
        };
        list.iter().map(element).collect::<Vec<_>>()
    };
    let range = |from: u8, to: u8| (vec![1, from], vec![1, to], Some(Verdict::Accept));
    assert_eq!(decode::ranges(keys(&[(7, false), (3, false)]), false), [range(7, 7), range(3, 3)]);
    // As the kernel shows them: the end of what lies before the first, neighbours, and one without an end.
    let shown = [(0, true), (20, false), (5, false), (9, true), (9, false), (12, true)];
    let mut expected = vec![range(5, 8), range(9, 11)];
    expected.push((vec![1, 20], vec![0xff, 0xff], Some(Verdict::Accept)));
    assert_eq!(decode::ranges(keys(&shown), true), expected);
    assert_eq!(decode::next(vec![1, 0xff], true), Some(vec![2, 0]));
    assert_eq!(decode::next(vec![1, 0], false), Some(vec![0, 0xff]));
    assert_eq!((decode::next(vec![0xff], true), decode::next(vec![0], false)), (None, None));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(
        kind in prop::sample::select(vec![0u8, 3, 6, 9, 12, 15]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let kind = super::kind(kind);
        let _ = decode::table(kind, &bytes);
        let _ = decode::chain(kind, &bytes);
        let _ = decode::rule(kind, &bytes);
        let _ = decode::set(kind, &bytes);
        let _ = decode::elements(kind, &bytes);
        let _ = decode::generation(kind, &bytes);
        let message = Message { kind, flags: 0, sequence: 0, port: 0, body: &bytes };
        let _ = decode::concerns(&message, "pairway");
        let _ = decode::told_chain(&message);
        let _ = decode::told_rule(&message);
        let _ = decode::plain_set(kind, &bytes);
        let _ = decode::keys(kind, &bytes);
    }

    /// A rule with bytes changed is another rule, or the same: never a panic.
    #[test]
    fn damaged_rules_are_read_without_a_panic(at in 0usize..400, value in any::<u8>()) {
        for chain in table().chains.values() {
            for rule in &chain.rules {
                let mut request = encode::new_rule("pairway", "c", rule);
                let length = request.body.len();
                request.body[at % length] = value;
                let _ = decode::rule(request.kind, &request.body);
            }
        }
    }
}
