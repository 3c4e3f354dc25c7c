use proptest::prelude::*;

use super::*;

fn block(text: &str) -> Block {
    Block::new(text.parse().unwrap())
}

fn blocks(texts: &[&str]) -> BTreeSet<Block> {
    texts.iter().map(|text| block(text)).collect()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A request that owns what it points to.
#[derive(Debug, Clone)]
struct Case {
    node: NodeName,
    pool: IpNet,
    block_prefix: u8,
    taken: BTreeSet<Block>,
    cooling: BTreeMap<Block, Timestamp>,
    former: Vec<Block>,
    now: Timestamp,
    attempt: u32,
}

impl Case {
    fn new(pool: &str, block_prefix: u8) -> Self {
        Self {
            node: "n1".parse().unwrap(),
            pool: pool.parse().unwrap(),
            block_prefix,
            taken: BTreeSet::new(),
            cooling: BTreeMap::new(),
            former: Vec::new(),
            now: at(1000),
            attempt: 0,
        }
    }

    fn choose(&self) -> Option<Block> {
        choose(&Request {
            node: &self.node,
            pool: self.pool,
            block_prefix: self.block_prefix,
            taken: &self.taken,
            cooling: &self.cooling,
            reuse_after: Duration::from_secs(600),
            former: &self.former,
            now: self.now,
            attempt: self.attempt,
        })
    }
}

#[test]
fn a_node_prefers_what_it_held_before() {
    let mut case = Case::new("10.244.0.0/16", 24);
    case.former = vec![block("10.244.9.0/24"), block("10.244.8.0/24")];
    assert_eq!(case.choose(), Some(block("10.244.9.0/24")));
    case.cooling.insert(block("10.244.9.0/24"), at(999));
    assert_eq!(case.choose(), Some(block("10.244.9.0/24")), "its own absence needs no cooling");
    case.taken = blocks(&["10.244.9.128/25"]);
    assert_eq!(case.choose(), Some(block("10.244.8.0/24")), "part of the first is taken");
    case.former = vec![block("10.245.9.0/24"), block("10.244.9.0/26")];
    let chosen = case.choose().unwrap();
    assert!(case.pool.contains(&chosen.net()) && chosen.net().prefix_len() == 24, "neither fits: {chosen}");
}

#[test]
fn what_cools_is_taken_last_and_the_oldest_first() {
    let mut case = Case::new("10.244.0.0/22", 24);
    case.taken = blocks(&["10.244.1.0/24"]);
    case.cooling = BTreeMap::from([(block("10.244.0.0/24"), at(700)), (block("10.244.2.0/24"), at(600))]);
    assert_eq!(case.choose(), Some(block("10.244.3.0/24")), "the only one that never cooled");
    case.taken.insert(block("10.244.3.0/24"));
    assert_eq!(case.choose(), Some(block("10.244.2.0/24")), "all cool: the oldest");
    case.taken.insert(block("10.244.2.0/24"));
    assert_eq!(case.choose(), Some(block("10.244.0.0/24")));
    case.taken.insert(block("10.244.0.0/24"));
    assert_eq!(case.choose(), None);
    case.taken.remove(&block("10.244.0.0/24"));
    case.cooling.insert(block("10.244.0.0/24"), at(5000));
    assert_eq!(
        case.choose(),
        Some(block("10.244.0.0/24")),
        "released in the future: by a clock that was wrong"
    );
}

#[test]
fn cooling_ends() {
    let mut case = Case::new("10.244.0.0/23", 24);
    let preferred = case.choose().unwrap();
    case.cooling.insert(preferred, at(401));
    assert_ne!(case.choose(), Some(preferred), "599 s ago");
    case.cooling.insert(preferred, at(400));
    assert_eq!(case.choose(), Some(preferred), "600 s ago");
}

#[test]
fn claims_of_other_sizes_are_avoided() {
    let mut case = Case::new("10.244.0.0/16", 24);
    case.taken = blocks(&["10.244.0.0/17", "10.244.128.0/18", "10.244.192.0/19", "10.244.224.7/32"]);
    case.taken.extend((225..=254).map(|third| block(&format!("10.244.{third}.128/25"))));
    assert_eq!(case.choose(), Some(block("10.244.255.0/24")));
    case.taken.insert(block("0.0.0.0/0"));
    assert_eq!(case.choose(), None);
}

#[test]
fn the_widest_pools_have_a_first_and_a_last_block() {
    for (pool, length) in
        [("0.0.0.0/0", 32), ("0.0.0.0/0", 0), ("::/0", 128), ("::/0", 0), ("::/0", 64), ("10.0.0.0/8", 30)]
    {
        let mut case = Case::new(pool, length);
        let chosen = case.choose().unwrap();
        assert!(case.pool.contains(&chosen.net()) && chosen.net().prefix_len() == length, "{pool} {chosen}");
        case.taken.insert(chosen);
        assert_ne!(case.choose(), Some(chosen));
        assert_eq!(case.choose().is_none(), length == 0);
        // All but the very last block.
        let last = Block::new(IpNet::new(case.pool.broadcast(), length).unwrap());
        case.taken =
            gaps(vec![Numbers::new(case.pool, length).unwrap().range(last.net()).unwrap()], u128::MAX)
                .iter()
                .filter(|gap| gap.first == 0)
                .flat_map(|gap| cover(&case, *gap))
                .collect();
        assert_eq!(case.choose(), Some(last), "{pool} {length}");
    }
}

/// Prefixes that cover the blocks of a range that begins with block 0 and ends before the last one.
fn cover(case: &Case, range: Range) -> Vec<Block> {
    let numbers = Numbers::new(case.pool, case.block_prefix).unwrap();
    let mut first = range.first;
    let mut cover = Vec::new();
    let mut length = case.pool.prefix_len() + 1;
    while first <= range.last && length <= case.block_prefix {
        let net = IpNet::new(numbers.block(first).network(), length).unwrap();
        cover.push(Block::new(net));
        first = numbers.range(net).unwrap().last + 1;
        length += 1;
    }
    cover
}

#[test]
fn what_can_not_be_cut_is_not_chosen() {
    assert_eq!(Case::new("10.244.0.0/16", 15).choose(), None);
    assert_eq!(Case::new("10.244.0.0/16", 33).choose(), None);
}

#[test]
fn a_hundred_nodes_rarely_collide() {
    let chosen = |node: usize, attempt| {
        Case { node: format!("n{node}").parse().unwrap(), attempt, ..Case::new("10.244.0.0/16", 24) }
            .choose()
            .unwrap()
    };
    // 100 balls into 256 bins leave 83 bins occupied on average, with a deviation of 3.
    for attempt in 0..5 {
        let distinct: BTreeSet<Block> = (0..100).map(|node| chosen(node, attempt)).collect();
        assert!(distinct.len() >= 70, "{} in attempt {attempt}", distinct.len());
    }
}

fn pools() -> impl Strategy<Value = (IpNet, u8)> {
    let v4 = (any::<u32>(), 20u8..=28, 0u8..=4).prop_map(|(address, length, bits)| {
        (IpNet::new(Ipv4Addr::from_bits(address).into(), length).unwrap().trunc(), length + bits)
    });
    let v6 = (any::<u128>(), 0u8..=124, 0u8..=4).prop_map(|(address, length, bits)| {
        (IpNet::new(Ipv6Addr::from_bits(address).into(), length).unwrap().trunc(), length + bits)
    });
    prop_oneof![v4, v6]
}

/// Pools of at most 16 blocks, with claims and memories of all sizes in and around them.
fn cases() -> impl Strategy<Value = Case> {
    let pieces = || prop::collection::vec((any::<prop::sample::Index>(), -2i8..=2, 0i64..2000), 0..20);
    (pools(), pieces(), pieces(), any::<[u8; 4]>(), 0u32..4).prop_map(
        |((pool, block_prefix), taken, cooling, name, attempt)| {
            let numbers = Numbers::new(pool, block_prefix).unwrap();
            let piece = |(index, resize, second): (prop::sample::Index, i8, i64)| {
                let count = usize::try_from(numbers.last).unwrap() + 1;
                let block = numbers.block(index.index(count) as u128);
                let length = block_prefix.saturating_add_signed(resize).min(pool.max_prefix_len());
                (Block::new(IpNet::new(block.network(), length).unwrap()), at(second))
            };
            Case {
                node: format!("n{}", u32::from_be_bytes(name)).parse().unwrap(),
                pool,
                block_prefix,
                taken: taken.into_iter().map(|seed| piece(seed).0).collect(),
                former: cooling.iter().take(2).map(|seed| piece(*seed).0).collect(),
                cooling: cooling.into_iter().map(piece).collect(),
                now: at(1000),
                attempt,
            }
        },
    )
}

proptest! {
    #[test]
    fn a_choice_is_total_free_and_repeatable(case in cases()) {
        let numbers = Numbers::new(case.pool, case.block_prefix).unwrap();
        let all: Vec<Block> = (0..=numbers.last).map(|number| numbers.block(number)).collect();
        let is_free = |block: &Block| !case.taken.iter().any(|taken| overlap(taken.net(), block.net()));
        let chosen = case.choose();
        prop_assert_eq!(chosen, case.choose());
        match chosen {
            None => prop_assert!(!all.iter().any(is_free), "one was free"),
            Some(chosen) => {
                prop_assert!(all.contains(&chosen), "{} is no block of the pool", chosen);
                prop_assert!(is_free(&chosen), "{} is taken", chosen);
                let cools = |block: &Block| case.cooling.iter().any(|(other, at)| {
                    overlap(other.net(), block.net()) && case.now.duration_since(*at).as_secs() < 600
                });
                if cools(&chosen) && !case.former.contains(&chosen) {
                    prop_assert!(all.iter().filter(|block| is_free(block)).all(cools), "others were cool");
                }
            }
        }
    }

    #[test]
    fn one_after_the_other_exhausts_a_pool_exactly(case in cases()) {
        let mut case = Case { taken: BTreeSet::new(), ..case };
        let count = Numbers::new(case.pool, case.block_prefix).unwrap().last + 1;
        for _ in 0..count {
            let chosen = case.choose().expect("not all are taken");
            prop_assert!(case.taken.insert(chosen));
        }
        prop_assert_eq!(case.choose(), None);
    }
}
