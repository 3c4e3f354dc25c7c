//! Which block to claim next: a pure function of the pool, what is taken, and the node.
//!
//! A node prefers what it held before, then the block that its name hashes to, so that a node that lost
//! everything comes back to the same addresses and two nodes rarely want the same. What was given back or
//! vanished a moment ago is left alone while anything else is free: routes and connections may still lead there.
//!
//! Pools may hold 2^128 blocks, so blocks are never enumerated: what is taken is turned into ranges of block
//! numbers, and the choice is made among the gaps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::node::{Block, NodeName};
use crate::store::overlap;

/// What a choice depends on.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Who asks.
    pub node: &'a NodeName,
    /// Where from.
    pub pool: IpNet,
    /// Length of the pool's blocks, between the pool's own and that of an address.
    pub block_prefix: u8,
    /// Blocks that are claimed, of any size and pool.
    pub taken: &'a BTreeSet<Block>,
    /// Blocks that were given back or vanished, and when.
    pub cooling: &'a BTreeMap<Block, Timestamp>,
    /// How long those are left alone.
    pub reuse_after: Duration,
    /// Blocks that the node held before, the best first.
    pub former: &'a [Block],
    /// The time.
    pub now: Timestamp,
    /// Races lost so far in this endeavour: each makes another choice.
    pub attempt: u32,
}

/// The block to claim; `None` if none is free.
#[must_use]
pub fn choose(request: &Request<'_>) -> Option<Block> {
    let numbers = Numbers::new(request.pool, request.block_prefix)?;
    if let Some(former) = former(request, &numbers) {
        return Some(former);
    }
    let taken: Vec<Range> = request.taken.iter().filter_map(|block| numbers.range(block.net())).collect();
    let still_cooling = |at: &Timestamp| {
        Duration::try_from(request.now.duration_since(*at)).map_or(true, |age| age < request.reuse_after)
    };
    let cooling: Vec<(Timestamp, Range)> = request
        .cooling
        .iter()
        .filter(|(_, at)| still_cooling(at))
        .filter_map(|(block, at)| Some((*at, numbers.range(block.net())?)))
        .collect();

    let avoided = taken.iter().copied().chain(cooling.iter().map(|(_, range)| *range)).collect();
    let number = fresh(request, &numbers, &gaps(avoided, numbers.last))
        .or_else(|| cooled_longest(request, &gaps(taken, numbers.last), cooling))?;
    Some(numbers.block(number))
}

/// The first of the node's former blocks that fits and is free; its own absence needs no cooling.
fn former(request: &Request<'_>, numbers: &Numbers) -> Option<Block> {
    let fits = |block: &&Block| {
        block.net().prefix_len() == numbers.block_prefix
            && numbers.pool.contains(&block.net())
            && !request.taken.iter().any(|taken| overlap(taken.net(), block.net()))
    };
    request.former.iter().find(fits).copied()
}

/// At first the block that the name means; after a lost race any, so that the losers spread.
fn fresh(request: &Request<'_>, numbers: &Numbers, gaps: &[Range]) -> Option<u128> {
    let preferred = hash(request, 0) & numbers.last;
    let is_free = gaps.iter().any(|gap| gap.first <= preferred && preferred <= gap.last);
    if request.attempt == 0 && is_free {
        Some(preferred)
    } else {
        nth(gaps, hash(request, 1 + request.attempt))
    }
}

/// At first the one that was given back the longest ago; after a lost race any.
fn cooled_longest(
    request: &Request<'_>,
    gaps: &[Range],
    mut cooling: Vec<(Timestamp, Range)>,
) -> Option<u128> {
    let pick = hash(request, 1 + request.attempt);
    if request.attempt == 0 {
        cooling.sort_by_key(|(at, range)| (*at, range.first, range.last));
        let oldest = cooling.iter().find_map(|(_, range)| nth(&within(gaps, *range), pick));
        if oldest.is_some() {
            return oldest;
        }
    }
    nth(gaps, pick)
}

/// Block numbers from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    first: u128,
    last: u128,
}

/// What the ranges leave free between 0 and `last`, in order.
fn gaps(mut ranges: Vec<Range>, last: u128) -> Vec<Range> {
    ranges.sort_unstable();
    let mut gaps = Vec::new();
    let mut free_from = 0;
    for range in ranges {
        if range.first > free_from {
            gaps.push(Range { first: free_from, last: range.first - 1 });
        }
        if range.last >= last {
            return gaps;
        }
        free_from = free_from.max(range.last + 1);
    }
    gaps.push(Range { first: free_from, last });
    gaps
}

fn within(gaps: &[Range], limits: Range) -> Vec<Range> {
    gaps.iter()
        .map(|gap| Range { first: gap.first.max(limits.first), last: gap.last.min(limits.last) })
        .filter(|gap| gap.first <= gap.last)
        .collect()
}

/// One of the numbers in these ranges, each as likely as any other.
fn nth(ranges: &[Range], pick: u128) -> Option<u128> {
    // Only a free pool of 2^128 blocks has more than fit, and one block less to choose from is no loss.
    let size = |range: &Range| (range.last - range.first).saturating_add(1);
    let total = ranges.iter().fold(0u128, |total, range| total.saturating_add(size(range)));
    let mut left = pick.checked_rem(total)?;
    for range in ranges {
        if left < size(range) {
            return Some(range.first + left);
        }
        left -= size(range);
    }
    None
}

fn hash(request: &Request<'_>, salt: u32) -> u128 {
    let mut hash = Sha256::new();
    hash.update(request.node.as_str());
    hash.update([0]);
    hash.update(request.pool.trunc().to_string());
    hash.update(salt.to_be_bytes());
    let bytes: [u8; 32] = hash.finalize().into();
    bytes.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Blocks of a pool as numbers, from 0.
struct Numbers {
    pool: IpNet,
    block_prefix: u8,
    /// Number of the last block: all ones.
    last: u128,
}

impl Numbers {
    /// `None` if blocks of this length can't be cut from the pool.
    fn new(pool: IpNet, block_prefix: u8) -> Option<Self> {
        if block_prefix > pool.max_prefix_len() {
            return None;
        }
        let bits = block_prefix.checked_sub(pool.prefix_len())?;
        let last = u128::MAX.checked_shr(128 - u32::from(bits)).unwrap_or(0);
        Some(Self { pool: pool.trunc(), block_prefix, last })
    }

    /// The blocks that a prefix touches; `None` if it is outside of the pool.
    fn range(&self, net: IpNet) -> Option<Range> {
        if !overlap(self.pool, net) {
            return None;
        }
        let first = bits(self.pool.network()).max(bits(net.network()));
        let last = bits(self.pool.broadcast()).min(bits(net.broadcast()));
        Some(Range { first: self.number(first), last: self.number(last) })
    }

    fn number(&self, address: u128) -> u128 {
        (address - bits(self.pool.network())).checked_shr(self.host_bits()).unwrap_or(0)
    }

    fn block(&self, number: u128) -> Block {
        let address = bits(self.pool.network()) + number.checked_shl(self.host_bits()).unwrap_or(0);
        let address = match self.pool {
            IpNet::V4(_) => IpAddr::from(Ipv4Addr::from_bits(
                u32::try_from(address).expect("a number of the pool lies in the pool, which is IPv4"),
            )),
            IpNet::V6(_) => IpAddr::from(Ipv6Addr::from_bits(address)),
        };
        let net = IpNet::new(address, self.block_prefix).expect("the length was checked with the pool");
        Block::new(net)
    }

    fn host_bits(&self) -> u32 {
        u32::from(self.pool.max_prefix_len() - self.block_prefix)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests;
