//! The same judgement made one sender at a time, without a bound: chains that are made up are judged by both.

use fastrand::Rng;

use super::*;
use crate::firewall::table::octets;

/// What becomes of one sender's packets.
#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    accept: bool,
    drop: bool,
    back: bool,
}

const ANY: Fate = Fate { accept: true, drop: true, back: true };

/// Whether a rule matches: `None` where that is not known.
type Match = Option<bool>;

struct Simple<'a> {
    chains: &'a [ForeignChain],
    arrival: &'a Arrival,
    sender: IpAddr,
}

impl Simple<'_> {
    fn follow(&self, name: &str) -> Fate {
        let mut fate = Fate::default();
        let Some(chain) = self.chains.iter().find(|chain| chain.name == name) else { return ANY };
        for rule in &chain.rules {
            let (matches, end) = self.judge(rule);
            if matches == Some(false) {
                continue;
            }
            let (then, goes_on) = match end {
                None | Some(Expression::Verdict(Verdict::Continue)) => continue,
                Some(Expression::Reject | Expression::Verdict(Verdict::Drop)) => {
                    (Fate { drop: true, ..Fate::default() }, false)
                }
                Some(Expression::Verdict(Verdict::Accept)) => {
                    (Fate { accept: true, ..Fate::default() }, false)
                }
                Some(Expression::Verdict(Verdict::Return)) => (Fate { back: true, ..Fate::default() }, false),
                Some(Expression::Verdict(Verdict::Goto(name))) => (self.follow(name), false),
                Some(Expression::Verdict(Verdict::Jump(name))) => {
                    let inside = self.follow(name);
                    (Fate { back: false, ..inside }, inside.back)
                }
                Some(_) => (ANY, true),
            };
            fate.accept |= then.accept;
            fate.drop |= then.drop;
            fate.back |= then.back;
            if matches == Some(true) && !goes_on {
                return fate;
            }
        }
        fate.back = true;
        fate
    }

    fn judge<'r>(&self, rule: &'r Rule) -> (Match, Option<&'r Expression>) {
        let mut matches = Some(true);
        let mut loaded: Option<Vec<u8>> = None;
        for expression in &rule.expressions {
            let found = match expression {
                Expression::Payload { base: NETWORK, offset: 12, length } => {
                    let mut bytes = octets(self.sender);
                    bytes.truncate(usize::try_from(*length).unwrap());
                    loaded = Some(bytes);
                    continue;
                }
                Expression::Meta(MetaKey::TransportProtocol) => {
                    loaded = Some(vec![self.arrival.what.protocol()]);
                    continue;
                }
                Expression::Mask(mask) => {
                    for (at, byte) in loaded.iter_mut().flatten().enumerate() {
                        *byte &= mask.get(at).unwrap_or(&0);
                    }
                    continue;
                }
                Expression::Counter | Expression::Note => continue,
                Expression::Compare { equal, value } => {
                    loaded.as_ref().and_then(|bytes| Some((bytes.get(..value.len())? == value) == *equal))
                }
                Expression::Range { equal, from, to } => loaded.as_ref().and_then(|bytes| {
                    let bytes = bytes.get(..from.len())?;
                    Some((from.as_slice() <= bytes && bytes <= to.as_slice()) == *equal)
                }),
                Expression::Among { ranges, absent } => loaded.as_ref().and_then(|bytes| {
                    let same = ranges.iter().all(|(from, _)| from.len() == bytes.len());
                    same.then(|| ranges.iter().any(|(from, to)| from <= bytes && bytes <= to) != *absent)
                }),
                Expression::Other(name) if name == "limit" => {
                    loaded = None;
                    None
                }
                Expression::Verdict(_) | Expression::Reject => return (matches, Some(expression)),
                Expression::Other(_) | Expression::Unread => return (None, Some(expression)),
                Expression::Meta(_)
                | Expression::Payload { .. }
                | Expression::AddressKind
                | Expression::Lookup { .. }
                | Expression::Masquerade { .. }
                | Expression::ConnectionState
                | Expression::VerdictMap { .. }
                | Expression::Extension(_) => panic!("made up {expression:?}"),
            };
            matches = match (matches, found) {
                (_, Some(false)) => return (Some(false), None),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            };
        }
        (matches, None)
    }
}

fn dropped(chains: &[ForeignChain], arrival: &Arrival) -> BTreeSet<IpAddr> {
    let drops = chains[0].base.as_ref().unwrap().drops;
    let all = arrival.from.iter().copied();
    all.filter(|sender| {
        let fate = Simple { chains, arrival, sender: *sender }.follow("C0");
        let (accepted, dropped) = (fate.accept || fate.back && !drops, fate.drop || fate.back && drops);
        dropped && !accepted
    })
    .collect()
}

fn bytes(rng: &mut Rng) -> [u8; 4] {
    [10, rng.u8(0..2), rng.u8(0..3), rng.u8(0..6)]
}

/// A question about the sender.
fn about_the_sender(rng: &mut Rng) -> Vec<Expression> {
    let length = *rng.choice([4, 4, 4, 3, 8].as_slice()).unwrap();
    let mut asked = vec![Expression::Payload { base: NETWORK, offset: 12, length }];
    if rng.bool() {
        let mask = match rng.u8(0..4) {
            0 => vec![255, 0, 0, 255],
            1 => vec![255, 255],
            _ => (u32::MAX << rng.u32(0..=20)).to_be_bytes().to_vec(),
        };
        asked.push(Expression::Mask(mask));
    }
    let width = *rng.choice([4, 4, 4, 4, 3, 2, 8].as_slice()).unwrap();
    let value = |rng: &mut Rng| {
        let mut value = bytes(rng).to_vec();
        value.resize(width, 0);
        value
    };
    asked.push(match rng.u8(0..4) {
        0 | 1 => Expression::Compare { equal: rng.u8(0..4) > 0, value: value(rng) },
        2 => {
            let (one, other) = (value(rng), value(rng));
            Expression::Range {
                equal: rng.u8(0..4) > 0,
                from: one.clone().min(other.clone()),
                to: one.max(other),
            }
        }
        _ => {
            let mut ends: Vec<Vec<u8>> = (0..rng.usize(0..5) * 2).map(|_| value(rng)).collect();
            ends.sort();
            ends.dedup();
            let ranges = ends.chunks_exact(2).map(|ends| (ends[0].clone(), ends[1].clone())).collect();
            Expression::Among { ranges, absent: rng.u8(0..4) == 0 }
        }
    });
    asked
}

fn made_up(rng: &mut Rng, index: usize) -> Rule {
    let mut parts = Vec::new();
    for _ in 0..rng.u8(0..3) {
        parts.push(match rng.u8(0..8) {
            0 => vec![Expression::Other("limit".to_owned())],
            1 => protocol(*rng.choice([6, 17].as_slice()).unwrap()),
            2 => vec![Expression::Note],
            _ => about_the_sender(rng),
        });
    }
    let below = |rng: &mut Rng| format!("C{}", index + rng.usize(1..3));
    let end = match rng.u8(0..12) {
        0..3 => accept(),
        3..5 => verdict(Verdict::Drop),
        5 => Expression::Reject,
        6 => verdict(Verdict::Return),
        7 | 8 => verdict(Verdict::Jump(below(rng))),
        9 => verdict(Verdict::Goto(below(rng))),
        10 => verdict(Verdict::Continue),
        _ => Expression::Other("queue".to_owned()),
    };
    rule(&parts, end)
}

#[test]
fn many_senders_at_once_are_judged_as_one_after_the_other() {
    let (mut some, mut all, mut none) = (0, 0, 0);
    for seed in 0..6_000 {
        let rng = &mut Rng::with_seed(seed);
        let arrival = Arrival {
            to: "10.0.0.99".parse().unwrap(),
            from: (0..rng.usize(1..150)).map(|_| bytes(rng).into()).collect(),
            ..arrival(Arriving::Udp(4789))
        };
        // C3 and C4 may be jumped to, and are missing or empty.
        let chains: Vec<ForeignChain> = (0..=3)
            .map(|index| {
                let rules = if index == 3 { 0 } else { rng.usize(0..6) };
                let rules = (0..rules).map(|_| made_up(rng, index)).collect();
                chain(&format!("C{index}"), (index == 0).then(|| rng.u8(0..3) > 0), rules)
            })
            .collect();
        let expected = dropped(&chains, &arrival);
        let found: BTreeSet<IpAddr> = input_drops(&chains, std::slice::from_ref(&arrival))
            .into_iter()
            .flat_map(|drop| drop.from)
            .collect();
        assert_eq!(found, expected, "seed {seed}: {chains:#?}\nfrom {:?}", arrival.from);
        match expected.len() {
            0 => none += 1,
            len if len == arrival.from.len() => all += 1,
            _ => some += 1,
        }
    }
    // Chains that decide nothing would show nothing.
    assert!(some > 500 && all > 500 && none > 500, "{some} tell senders apart, {all} drop all, {none} none");
}
