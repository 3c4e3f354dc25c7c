use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::node::Block;
use crate::plan::{self, tests::config};
use crate::underlay::Local;

fn name(index: u8) -> NodeName {
    NodeName::from_str(&format!("n{index}")).unwrap()
}

fn snapshot(revision: u64, nodes: &[u8]) -> Arc<Snapshot> {
    let mut snapshot = Snapshot { revision, ..Snapshot::default() };
    for index in nodes {
        let record = plan::own_record(&name(*index), &config("any"), &Local::default(), &BTreeSet::new());
        snapshot.nodes.insert(name(*index), record.into());
        let block = Block::new(format!("10.244.{index}.0/24").parse().unwrap());
        let claim = Claim {
            block,
            holder: Some(name(*index)),
            claimed_at: Timestamp::UNIX_EPOCH,
            unknown: BTreeMap::new(),
        };
        snapshot.claims.insert(block, claim);
    }
    Arc::new(snapshot)
}

struct Test {
    limits: Limits,
    brake: Brake,
    start: Instant,
}

impl Test {
    fn new() -> Self {
        Self { limits: Limits::default(), brake: Brake::default(), start: Instant::now() }
    }

    /// Peers believed in at this second; node 0 is the own one.
    fn at(&mut self, seconds: u64, snapshot: &Arc<Snapshot>) -> Vec<u8> {
        self.answering(seconds, snapshot, true)
    }

    fn answering(&mut self, seconds: u64, snapshot: &Arc<Snapshot>, answering: bool) -> Vec<u8> {
        let now = self.start + Duration::from_secs(seconds);
        let braked = self.brake.pass(&self.limits, &name(0), snapshot, now, answering);
        assert!(braked.until.is_none_or(|until| until > now), "a deadline in the past is a busy loop");
        let routed = |index: &u8| {
            braked.snapshot.nodes.contains_key(&name(*index))
                && !braked.snapshot.blocks_of(&name(*index)).is_empty()
        };
        (1..10).filter(routed).collect()
    }
}

#[test]
fn one_peer_may_go_at_any_time() {
    let mut test = Test::new();
    assert_eq!(test.at(0, &snapshot(1, &[0, 1, 2])), [1, 2]);
    assert_eq!(test.at(1, &snapshot(2, &[0, 1])), [1]);
    // The other a while later: not at once.
    assert_eq!(test.at(10, &snapshot(3, &[0])), Vec::<u8>::new());
}

#[test]
fn a_store_that_is_being_filled_again_says_nothing_of_who_is_gone() {
    let mut test = Test::new();
    let rebuilding = |revision, nodes: &[u8]| {
        Arc::new(Snapshot { rebuilding: true, ..Snapshot::clone(&snapshot(revision, nodes)) })
    };
    test.at(0, &snapshot(1, &[0, 1, 2, 3, 4]));
    assert_eq!(test.at(1, &rebuilding(2, &[])), [1, 2, 3, 4]);
    // All are back but one, which alone would go at once.
    assert_eq!(test.at(1, &rebuilding(3, &[0, 1, 2, 4])), [1, 2, 3, 4]);
    assert_eq!(test.at(2, &snapshot(4, &[0, 1, 2, 4])), [1, 2, 3, 4], "it went with our own");
    assert_eq!(test.at(40, &snapshot(5, &[0, 1, 2, 4])), [1, 2, 4]);
    // The control: outside of that time it goes.
    assert_eq!(test.at(60, &snapshot(6, &[0, 1, 2])), [1, 2]);
}

#[test]
fn the_only_peer_is_kept_if_our_own_records_vanish_with_it() {
    let mut test = Test::new();
    test.at(0, &snapshot(1, &[0, 1]));
    assert_eq!(test.at(1, &snapshot(2, &[])), [1]);
    // Our own are back at once, the peer's agent takes a moment.
    assert_eq!(test.at(2, &snapshot(3, &[0])), [1]);
    assert_eq!(test.at(12, &snapshot(4, &[0])), Vec::<u8>::new());

    let mut test = Test::new();
    test.at(0, &snapshot(1, &[0, 1]));
    assert_eq!(test.at(1, &snapshot(2, &[0])), Vec::<u8>::new(), "a node that is deleted goes at once");
    assert_eq!(test.at(2, &snapshot(3, &[])), [1], "it was the store that lost it");
}

#[test]
fn many_at_once_are_kept_until_the_grace_time_is_over() {
    let mut test = Test::new();
    test.at(0, &snapshot(1, &[0, 1, 2, 3, 4]));
    let empty = snapshot(2, &[]);
    assert_eq!(test.at(1, &empty), [1, 2, 3, 4]);
    assert_eq!(test.at(30, &empty), [1, 2, 3, 4]);
    assert_eq!(
        test.answering(32, &empty, false),
        [1, 2, 3, 4],
        "a store that does not answer confirms nothing"
    );
    assert_eq!(test.at(33, &empty), Vec::<u8>::new());
}

#[test]
fn a_later_snapshot_confirms() {
    let mut test = Test::new();
    test.at(0, &snapshot(1, &[0, 1, 2, 3]));
    assert_eq!(test.at(1, &snapshot(2, &[0, 3])), [1, 2, 3]);
    assert_eq!(test.at(2, &snapshot(3, &[0, 3])), [1, 2, 3], "too early to be a confirmation");
    assert_eq!(test.at(12, &snapshot(4, &[0, 3])), [3]);
}

#[test]
fn those_that_come_back_are_believed_as_they_are_now() {
    let mut test = Test::new();
    test.at(0, &snapshot(1, &[0, 1, 2, 3]));
    test.at(1, &snapshot(2, &[]));
    assert_eq!(test.at(2, &snapshot(3, &[0, 1])), [1, 2, 3]);
    // Peer 2 holds another block now; its former one is not kept beside it.
    let mut moved = Snapshot::clone(&snapshot(4, &[0, 1, 2, 3]));
    let former = Block::new("10.244.2.0/24".parse().unwrap());
    let mut claim = moved.claims.remove(&former).unwrap();
    claim.block = Block::new("10.244.99.0/24".parse().unwrap());
    moved.claims.insert(claim.block, claim);
    let braked =
        test.brake.pass(&test.limits, &name(0), &Arc::new(moved), test.start + Duration::from_secs(3), true);
    assert!(braked.held.is_empty());
    assert!(!braked.snapshot.claims.contains_key(&former));
}

/// Each node with a block of both families, without the claims of `lost`.
fn dual_stack(revision: u64, nodes: &[u8], lost: &[Block]) -> Arc<Snapshot> {
    let mut snapshot = Snapshot::clone(&snapshot(revision, nodes));
    for index in nodes {
        let block = ipv6_block(*index);
        let claim = Claim {
            block,
            holder: Some(name(*index)),
            claimed_at: Timestamp::UNIX_EPOCH,
            unknown: BTreeMap::new(),
        };
        snapshot.claims.insert(block, claim);
    }
    snapshot.claims.retain(|block, _| !lost.contains(block));
    Arc::new(snapshot)
}

fn ipv6_block(index: u8) -> Block {
    Block::new(format!("fd10:244:0:{index}::/64").parse().unwrap())
}

#[test]
fn those_that_come_back_piece_by_piece_keep_what_is_not_back_yet() {
    let mut test = Test::new();
    test.at(0, &dual_stack(1, &[0, 1, 2, 3], &[]));
    test.at(1, &snapshot(2, &[]));
    // 1 is back with its IPv4 claim alone; the others are not.
    let partly = dual_stack(3, &[0, 1], &[ipv6_block(1)]);
    let braked = test.brake.pass(&test.limits, &name(0), &partly, test.start + Duration::from_secs(2), true);
    assert_eq!(braked.snapshot.blocks_of(&name(1)).len(), 2);
    assert_eq!(braked.held.len(), 3);
    let whole = dual_stack(4, &[0, 1, 2, 3], &[]);
    let braked = test.brake.pass(&test.limits, &name(0), &whole, test.start + Duration::from_secs(3), true);
    assert!(braked.held.is_empty());
    assert_eq!(braked.snapshot, whole);
    // What does not come back is believed to be gone in the end.
    test.at(4, &snapshot(5, &[]));
    let partly = dual_stack(6, &[0, 1, 2, 3], &[ipv6_block(1)]);
    let braked = test.brake.pass(&test.limits, &name(0), &partly, test.start + Duration::from_secs(15), true);
    assert!(braked.held.is_empty());
    assert_eq!(braked.snapshot, partly);
}

#[test]
fn a_part_of_many_peers_lost_at_once_is_kept_too() {
    let mut test = Test::new();
    test.at(0, &dual_stack(1, &[0, 1, 2, 3], &[]));
    let lost = dual_stack(2, &[0, 1, 2, 3], &[ipv6_block(1), ipv6_block(2)]);
    let braked = test.brake.pass(&test.limits, &name(0), &lost, test.start + Duration::from_secs(1), true);
    assert_eq!(braked.held, BTreeSet::from([name(1), name(2)]));
    for index in 1..=3 {
        assert_eq!(braked.snapshot.blocks_of(&name(index)).len(), 2);
    }
    // One peer gives a block back: that is nothing unusual.
    let mut test = Test::new();
    test.at(0, &dual_stack(1, &[0, 1, 2, 3], &[]));
    let given_back = dual_stack(2, &[0, 1, 2, 3], &[ipv6_block(1)]);
    let braked =
        test.brake.pass(&test.limits, &name(0), &given_back, test.start + Duration::from_secs(1), true);
    assert_eq!((braked.held.len(), &braked.snapshot), (0, &given_back));
}

#[test]
fn a_slow_trickle_within_the_window_is_noticed() {
    let mut test = Test::new();
    test.at(0, &snapshot(1, &[0, 1, 2, 3]));
    assert_eq!(test.at(1, &snapshot(2, &[0, 1, 2])), [1, 2]);
    assert_eq!(test.at(2, &snapshot(3, &[0, 1])), [1, 2, 3], "the second of three within a moment");
    // Each for as long as it is away.
    assert_eq!(test.at(11, &snapshot(4, &[0, 1])), [1, 2]);
    assert_eq!(test.at(12, &snapshot(5, &[0, 1])), [1]);

    let mut test = Test::new();
    test.at(0, &snapshot(1, &[0, 1, 2, 3]));
    assert_eq!(test.at(1, &snapshot(2, &[0, 1, 2])), [1, 2]);
    assert_eq!(test.at(6, &snapshot(3, &[0, 1])), [1], "the window is over");
}

/// Share and number decide together, as configured; what is configured holds from the next pass on.
#[test]
fn the_share_is_the_configured_one() {
    let all: Vec<u8> = (0..=8).collect();
    for (share, at_least, gone, held) in [
        (50, 2, 4, false),
        (50, 2, 5, true),
        (0, 2, 1, false),
        (0, 2, 2, true),
        (0, 1, 1, true),
        (25, 4, 3, false),
        (25, 4, 4, true),
        (100, 1, 8, false),
        (99, 1, 8, true),
    ] {
        let mut test = Test::new();
        test.at(0, &snapshot(1, &all));
        test.limits = Limits { share, at_least, ..test.limits };
        let left: Vec<u8> = (0..=8 - gone).collect();
        let believed = test.at(1, &snapshot(2, &left)).len();
        assert_eq!(believed, if held { 8 } else { usize::from(8 - gone) }, "{share} % {at_least} {gone}");
    }
}

#[test]
fn the_times_are_the_configured_ones() {
    let mut test = Test::new();
    let seconds = Duration::from_secs;
    test.limits = Limits { within: seconds(2), confirm_after: seconds(3), grace: seconds(6), ..test.limits };
    test.at(0, &snapshot(1, &[0, 1, 2, 3]));
    test.at(1, &snapshot(2, &[0, 3]));
    assert_eq!(test.at(3, &snapshot(3, &[0, 3])), [1, 2, 3]);
    assert_eq!(test.at(4, &snapshot(4, &[0, 3])), [3], "confirmed");
    let mut test = Test { limits: test.limits, ..Test::new() };
    test.at(0, &snapshot(1, &[0, 1, 2, 3]));
    let lost = snapshot(2, &[0, 3]);
    test.at(1, &lost);
    assert_eq!(test.at(6, &lost), [1, 2, 3]);
    assert_eq!(test.at(7, &lost), [3], "the grace time is over");
}

#[test]
fn a_block_taken_by_another_is_not_kept_for_the_former_holder() {
    let mut test = Test::new();
    test.at(0, &snapshot(1, &[0, 1, 2, 3]));
    let mut taken = Snapshot::clone(&snapshot(2, &[0, 3]));
    let block = Block::new("10.244.1.0/24".parse().unwrap());
    let claim =
        Claim { block, holder: Some(name(3)), claimed_at: Timestamp::UNIX_EPOCH, unknown: BTreeMap::new() };
    taken.claims.insert(block, claim);
    let braked =
        test.brake.pass(&test.limits, &name(0), &Arc::new(taken), test.start + Duration::from_secs(1), true);
    assert_eq!(braked.held.len(), 2);
    assert_eq!(braked.snapshot.claims[&block].holder, Some(name(3)));
}

proptest! {
    /// Whatever comes and goes: who is in the snapshot is believed, and nobody is kept for ever.
    #[test]
    fn keeps_no_ghost(steps in prop::collection::vec((prop::collection::btree_set(1_u8..6, 0..6), 0_u64..8), 1..12)) {
        let mut test = Test::new();
        let mut now = 0;
        let mut last = snapshot(0, &[]);
        for (revision, (nodes, wait)) in (1..).zip(steps) {
            now += wait;
            let nodes: Vec<u8> = nodes.into_iter().collect();
            last = snapshot(revision, &nodes);
            let believed = test.at(now, &last);
            prop_assert!(nodes.iter().all(|node| believed.contains(node)));
        }
        let present: Vec<u8> = (1..6).filter(|index| last.nodes.contains_key(&name(*index))).collect();
        prop_assert_eq!(test.at(now + 31, &last), present);
    }
}
