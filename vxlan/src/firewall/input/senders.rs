//! Many senders at once: their addresses as ascending integers, and groups of them as bits.
//!
//! A filter asks for an address, a network, a range or a set of those: each is a run of ascending integers, found by two
//! binary searches, however many senders there are.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Bits of a word of a group.
const BITS: usize = 64;
/// Steps of a binary search, rounded up.
const SEARCH: usize = 16;

/// How much has been done, and how much may be. A step is about a word that is read, combined or compared.
#[derive(Debug)]
pub(super) struct Steps {
    used: Cell<usize>,
    most: usize,
}

impl Steps {
    pub(super) fn new(most: usize) -> Self {
        Self { used: Cell::new(0), most }
    }

    /// Whether there are so many left: they are used then.
    pub(super) fn take(&self, steps: usize) -> bool {
        let used = self.used.get().saturating_add(steps);
        let enough = used <= self.most;
        self.used.set(if enough { used } else { self.most });
        enough
    }

    pub(super) fn used(&self) -> usize {
        self.used.get()
    }
}

/// Senders of one family. The first byte of an integer is the first of the address, so that both have one order; an
/// IPv4 address has zeros behind it.
#[derive(Debug)]
pub(super) struct Senders {
    keys: Vec<u128>,
    ipv4: bool,
}

impl Senders {
    /// Those of the family.
    pub(super) fn new(addresses: &BTreeSet<IpAddr>, ipv4: bool) -> Self {
        let keys = addresses.iter().filter_map(|address| match address {
            IpAddr::V4(address) if ipv4 => Some(first_bytes(&address.octets())),
            IpAddr::V6(address) if !ipv4 => Some(first_bytes(&address.octets())),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        });
        Self { keys: keys.collect(), ipv4 }
    }

    /// Bytes of an address.
    pub(super) fn width(&self) -> usize {
        if self.ipv4 { 4 } else { 16 }
    }

    /// Words of a group.
    pub(super) fn words(&self) -> usize {
        self.keys.len().div_ceil(BITS)
    }

    pub(super) fn none(&self) -> Group {
        Group { words: vec![0; self.words()] }
    }

    pub(super) fn all(&self) -> Group {
        let mut all = self.none();
        all.insert(0..self.keys.len());
        all
    }

    pub(super) fn addresses(&self, group: &Group) -> BTreeSet<IpAddr> {
        let members = self.keys.iter().enumerate().filter(|(index, _)| group.has(*index));
        let address = |key: u128| -> IpAddr {
            match (self.ipv4, key.to_be_bytes()) {
                (true, [a, b, c, d, ..]) => Ipv4Addr::new(a, b, c, d).into(),
                (false, bytes) => Ipv6Addr::from(bytes).into(),
            }
        };
        members.map(|(_, key)| address(*key)).collect()
    }

    /// Those whose bits under the mask lie between two values, ends included. Nothing where there are no steps left.
    pub(super) fn between(&self, mask: u128, from: u128, to: u128, steps: &Steps) -> Option<Group> {
        let mut group = self.none();
        if is_prefix(mask) {
            steps.take(2 * SEARCH + self.words()).then_some(())?;
            group.insert(self.run(mask, 0, from, to));
        } else {
            // The order is lost with bits in the middle.
            steps.take(self.keys.len()).then_some(())?;
            for (index, key) in self.keys.iter().enumerate() {
                if (from..=to).contains(&(key & mask)) {
                    group.insert(index..index + 1);
                }
            }
        }
        Some(group)
    }

    /// Those whose bits under the mask lie in one of the ranges, which ascend and are apart from each other. Nothing
    /// where there are no steps left.
    pub(super) fn among(&self, mask: u128, ranges: &[(Vec<u8>, Vec<u8>)], steps: &Steps) -> Option<Group> {
        let mut group = self.none();
        if !is_prefix(mask) {
            steps.take(SEARCH * self.keys.len()).then_some(())?;
            for (index, key) in self.keys.iter().enumerate() {
                let key = key & mask;
                let after = ranges.partition_point(|(from, _)| first_bytes(from) <= key);
                let range = after.checked_sub(1).and_then(|last| ranges.get(last));
                if range.is_some_and(|(_, to)| key <= first_bytes(to)) {
                    group.insert(index..index + 1);
                }
            }
            return Some(group);
        }
        steps.take(self.words()).then_some(())?;
        // From range to sender and from sender to range: as many turns as the fewer of the two.
        let (mut at, mut rest) = (0, ranges);
        while let Some(key) = self.keys.get(at) {
            steps.take(3 * SEARCH).then_some(())?;
            let passed = rest.partition_point(|(_, to)| first_bytes(to) < key & mask);
            rest = rest.get(passed..).unwrap_or_default();
            let Some((from, to)) = rest.first() else { break };
            let run = self.run(mask, at, first_bytes(from), first_bytes(to));
            at = run.end;
            group.insert(run);
        }
        Some(group)
    }

    /// The run of those, from a place on.
    fn run(&self, mask: u128, at: usize, from: u128, to: u128) -> Range<usize> {
        let rest = self.keys.get(at..).unwrap_or_default();
        let begin = rest.partition_point(|key| key & mask < from);
        let end = rest.partition_point(|key| key & mask <= to);
        at + begin..at + end.max(begin)
    }
}

/// Some of the senders. Groups of the same senders alone are combined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    words: Vec<u64>,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    fn has(&self, index: usize) -> bool {
        self.words.get(index / BITS).is_some_and(|word| word >> (index % BITS) & 1 == 1)
    }

    fn insert(&mut self, run: Range<usize>) {
        let mut at = run.start;
        while at < run.end {
            let (word, first) = (at / BITS, at % BITS);
            let many = (run.end - at).min(BITS - first);
            // `many` is from 1 to BITS.
            let bits = (u64::MAX >> (BITS - many)) << first;
            if let Some(word) = self.words.get_mut(word) {
                *word |= bits;
            }
            at += many;
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.combine(other, |own, other| own | other);
    }

    pub(super) fn keep(&mut self, other: &Self) {
        self.combine(other, |own, other| own & other);
    }

    pub(super) fn remove(&mut self, other: &Self) {
        self.combine(other, |own, other| own & !other);
    }

    fn combine(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        for (own, other) in self.words.iter_mut().zip(&other.words) {
            *own = with(*own, *other);
        }
    }
}

/// Bytes as the first of an integer; what is longer is cut.
pub(super) fn first_bytes(bytes: &[u8]) -> u128 {
    let mut whole = [0; 16];
    for (byte, given) in whole.iter_mut().zip(bytes) {
        *byte = *given;
    }
    u128::from_be_bytes(whole)
}

/// The mask of so many bytes.
pub(super) fn bytes_mask(length: usize) -> u128 {
    match length {
        0 => 0,
        1..16 => u128::MAX << (128 - 8 * length),
        _ => u128::MAX,
    }
}

/// Whether no bit follows one that is not set.
const fn is_prefix(mask: u128) -> bool {
    mask.leading_ones() + mask.trailing_zeros() >= 128
}
