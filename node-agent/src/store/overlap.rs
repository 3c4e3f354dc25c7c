//! Prefixes that share addresses.

use ipnet::IpNet;

use super::kind::Kind;
use crate::node::{Block, Snapshot};

/// Do two prefixes share an address?
#[must_use]
pub fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// Claims that overlap can't come from us; whoever made them must know.
pub(super) fn report_overlaps(snapshot: &mut Snapshot) {
    let mut outer: Option<Block> = None;
    // In this order a prefix comes right before those that it contains.
    for block in snapshot.claims.keys() {
        match outer {
            Some(outer) if outer.net().contains(&block.net()) => {
                let text = format!(
                    "{block} lies within {outer}, which is claimed too; give one of them back (`pairway blocks release`)"
                );
                snapshot.problems.entry(Kind::Claim.record(&block.record_name())).or_insert(text);
            }
            _ => outer = Some(*block),
        }
    }
}
