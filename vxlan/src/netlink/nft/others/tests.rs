use std::net::IpAddr;

use super::*;
use crate::firewall::{Base, BaseChain, Chain, SetKey};
use crate::netlink::channel::Dumped;
use crate::netlink::request::Request;

/// A kernel with one table `theirs`, which counts what is asked of it.
struct Theirs {
    chains: Vec<(&'static str, Chain)>,
    elements: u32,
    asked: Vec<(u8, usize)>,
}

impl Source for Theirs {
    fn read(&mut self, kind: u16, body: &[u8], most: usize) -> io::Result<Part> {
        let [message, _] = kind.to_le_bytes();
        let messages: Vec<Request> = match message {
            message::GET_CHAIN => {
                self.chains.iter().map(|(name, chain)| encode::new_chain("theirs", name, chain)).collect()
            }
            message::GET_RULE => {
                let asked = |name: &str| body == encode::in_chain(INET, "theirs", name);
                let (name, chain) = self.chains.iter().find(|(name, _)| asked(name)).expect("a known chain");
                chain.rules.iter().map(|rule| encode::new_rule("theirs", name, rule)).collect()
            }
            message::GET_SET => vec![encode::new_set("theirs", "many", SetKey::Ipv4, 1)],
            message::GET_ELEMENTS => {
                let all: Vec<IpAddr> =
                    (0..self.elements).map(|n| IpAddr::from((0xcb00_0000 + n).to_be_bytes())).collect();
                all.chunks(500).map(|some| encode::add_elements("theirs", "many", some)).collect()
            }
            other => panic!("message {other} is not expected"),
        };
        let (mut bytes, mut read) = (0, Vec::new());
        let mut whole = true;
        for request in messages {
            if bytes > most {
                whole = false;
                break;
            }
            bytes += request.body.len();
            read.push((request.kind, request.body));
        }
        self.asked.push((message, bytes));
        Ok(Part { dumped: Dumped::of(&read), bytes, whole })
    }
}

fn chain(at: u32, rules: Vec<Rule>) -> Chain {
    let base = Base { kind: "filter".to_owned(), hook: at, priority: 0 };
    Chain { base: Some(BaseChain { base, drops: true }), rules }
}

/// Asks the set so many times.
fn asking(times: usize) -> Vec<Rule> {
    let expressions = vec![
        Expression::Payload { base: 1, offset: 12, length: 4 },
        Expression::Lookup { set: "many".to_owned(), absent: false },
        Expression::Verdict(Verdict::Accept),
    ];
    vec![Rule::new(expressions); times]
}

fn of_elements(theirs: &Theirs) -> Vec<usize> {
    theirs.asked.iter().filter(|(kind, _)| *kind == message::GET_ELEMENTS).map(|(_, bytes)| *bytes).collect()
}

fn known(chain: &ForeignChain) -> usize {
    let expressions = chain.rules.iter().flat_map(|rule| &rule.expressions);
    expressions.filter(|expression| matches!(expression, Expression::Among { .. })).count()
}

#[test]
fn a_set_is_read_once_and_only_for_what_must_arrive() {
    let chains =
        vec![("forward", chain(hook::FORWARD, asking(40))), ("input", chain(hook::INPUT, asking(40)))];
    let mut theirs = Theirs { chains: chains.clone(), elements: 1000, asked: Vec::new() };
    let others = read(&mut theirs, "pairway").unwrap();
    assert_eq!(of_elements(&theirs).len(), 1);
    assert_eq!((known(&others.input[0]), known(&others.forward[0])), (40, 0));
    assert_eq!((others.input[0].rules.len(), others.forward[0].rules.len()), (40, 40));

    // A large one is given up, and not tried again.
    let mut theirs = Theirs { chains: chains.clone(), elements: 100_000, asked: Vec::new() };
    let others = read(&mut theirs, "pairway").unwrap();
    let read_of_it = of_elements(&theirs);
    assert_eq!(read_of_it.len(), 1);
    assert!(read_of_it[0] < 2 * MOST_OF_SET, "{read_of_it:?}");
    assert_eq!(known(&others.input[0]), 0);

    // Nobody asks it whose answer matters.
    let mut theirs = Theirs { chains: chains[..1].to_vec(), elements: 1000, asked: Vec::new() };
    assert_eq!(read(&mut theirs, "pairway").unwrap().forward.len(), 1);
    assert!(of_elements(&theirs).is_empty());
    assert!(theirs.asked.iter().all(|(kind, _)| *kind != message::GET_SET));
}

#[test]
fn what_is_not_read_leaves_a_mark() {
    let unread = Rule::new(vec![Expression::Unread]);
    let read_of = |rules: usize| {
        let rules = vec![Rule::new(vec![Expression::Verdict(Verdict::Continue)]); rules];
        let chains = vec![("input", chain(hook::INPUT, rules))];
        let mut theirs = Theirs { chains, elements: 0, asked: Vec::new() };
        read(&mut theirs, "pairway").unwrap().input[0].rules.clone()
    };
    let all = read_of(MOST_RULES);
    assert!(all.len() == MOST_RULES && !all.contains(&unread));
    for many in [MOST_RULES + 1, 100_000] {
        let some = read_of(many);
        assert_eq!((some.len(), some.last()), (MOST_RULES + 1, Some(&unread)));
    }
    // However much all of it is.
    let long = Rule::new(vec![Expression::Other("x".repeat(60_000))]);
    let chains = vec![("input", chain(hook::INPUT, vec![long; 1000])); 30];
    let mut theirs = Theirs { chains, elements: 0, asked: Vec::new() };
    let others = read(&mut theirs, "pairway").unwrap();
    assert_eq!(others.input.len(), 30);
    assert_eq!(others.input[29].rules, [unread]);
    let bytes: usize = theirs.asked.iter().map(|(_, bytes)| bytes).sum();
    assert!(bytes < 2 * MOST_OF_ALL, "{bytes}");
}

#[test]
fn elements_of_another_width_are_not_known() {
    let set = PlainSet { name: "many".to_owned(), width: 4, intervals: false };
    let element = |key: &[u8]| decode::Element { key: key.to_vec(), begins: true, verdict: None };
    let ranges = |elements: Vec<decode::Element>| {
        Elements::of(elements.into_iter(), &set).map(|elements| elements.ranges.to_vec())
    };
    let one = |byte: u8| (vec![byte; 4], vec![byte; 4]);
    assert_eq!(ranges(vec![element(&[9; 4]), element(&[2; 4])]), Some(vec![one(2), one(9)]));
    assert_eq!(ranges(vec![element(&[9; 4]), element(&[2; 8])]), None);
    // The one for all others.
    assert_eq!(ranges(vec![element(&[9; 4]), element(&[])]), Some(vec![(vec![0; 4], vec![0xff; 4])]));
}
