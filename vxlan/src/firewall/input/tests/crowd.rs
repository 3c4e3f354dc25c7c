//! Many rules and many senders: counted in steps, of which a judge that asks each rule about each sender takes the
//! product.

use std::net::Ipv4Addr;

use super::super::walk::MOST_STEPS;
use super::*;

const SENDERS: u16 = 5_000;
const RULES: u16 = 1_000;

fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 1, high, low)
}

fn everybody() -> Arrival {
    Arrival {
        from: (0..SENDERS).map(|number| address(number).into()).collect(),
        ..arrival(Arriving::Udp(4789))
    }
}

/// The senders that are dropped, and the steps that it took to know.
fn dropped(rules: Vec<Rule>) -> (BTreeSet<IpAddr>, usize) {
    let (drops, steps) = judged(&[chain("INPUT", Some(true), rules)], &[everybody()]);
    (drops.into_iter().flat_map(|drop| drop.from).collect(), steps)
}

fn set_of(numbers: impl Iterator<Item = u16>) -> Rule {
    let elements = numbers.map(|number| {
        let key = address(number).octets().to_vec();
        (key.clone(), key)
    });
    let ranges = elements.collect();
    let load = Expression::Payload { base: NETWORK, offset: 12, length: 4 };
    rule(&[vec![load, Expression::Among { ranges, absent: false }]], accept())
}

#[test]
fn a_rule_for_each_of_a_thousand_nodes() {
    let rules = (0..RULES).map(|number| rule(&[from(&format!("{}/32", address(number * 3)))], accept()));
    let (found, steps) = dropped(rules.collect());
    assert_eq!(found.len(), usize::from(SENDERS - RULES));
    assert!(!found.contains(&IpAddr::from(address(3))) && found.contains(&IpAddr::from(address(4))));
    let product = usize::from(SENDERS) * usize::from(RULES);
    assert!(steps < product / 10, "{steps} steps");
    // Twice the rules are twice the work.
    let rules = (0..2 * RULES).map(|number| rule(&[from(&format!("{}/32", address(number)))], accept()));
    let (found, twice) = dropped(rules.collect());
    assert_eq!(found.len(), usize::from(SENDERS - 2 * RULES));
    assert!(twice < steps * 5 / 2, "{twice} steps for twice the rules, {steps} before");
}

#[test]
fn a_set_of_all_nodes() {
    let all_but_one = || set_of((0..SENDERS).filter(|number| *number != 77));
    let (found, steps) = dropped(vec![all_but_one()]);
    assert_eq!(found, BTreeSet::from([address(77).into()]));
    assert!(steps < usize::from(SENDERS) * 64, "{steps} steps");
    let few = set_of([7, 77, 4_999, 6_000].into_iter());
    let (found, few) = dropped(vec![few]);
    assert_eq!(found.len(), usize::from(SENDERS) - 3);
    assert!(few < 2_000, "{few} steps for four elements");
}

/// Past the last step nothing is claimed of those who could still be let in; what was certain before stays so.
#[test]
fn there_is_a_last_step() {
    let none_of_them = || set_of((0..SENDERS).map(|number| number + 20_000));
    let refused = rule(&[from("10.1.0.0/31")], verdict(Verdict::Drop));
    let many = |count: usize| {
        let odd = Expression::Mask(vec![255, 0, 0, 255]);
        let load = Expression::Payload { base: NETWORK, offset: 12, length: 4 };
        let slow = rule(&[vec![load, odd, Expression::equals([10, 0, 0, 254])]], accept());
        [refused.clone(), none_of_them()].into_iter().chain(vec![slow; count]).collect::<Vec<_>>()
    };
    let (found, steps) = dropped(many(10));
    assert_eq!(found.len(), usize::from(SENDERS) - 19);
    assert!(steps < MOST_STEPS);
    let (found, steps) = dropped(many(1_000));
    assert_eq!(found, BTreeSet::from([address(0).into(), address(1).into()]));
    assert_eq!(steps, MOST_STEPS);
}
