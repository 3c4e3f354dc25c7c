//! What the claims say to an operator: kinds of conditions and refusals, with their sentences. Pure.

use config::Pool;

use super::commands;
use super::pass::Family;
use super::state::{LostBlock, State};
use crate::node::{Block, NodeName};
use crate::status::CommandError;

/// A condition; the agent knows since when it holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// A stable word.
    pub kind: &'static str,
    /// A block, a pool, a node; `ipv4` or `ipv6` for a family.
    pub subject: String,
    /// A sentence with what to do.
    pub message: String,
}

/// Why no block was claimed.
pub(super) enum NoBlock {
    NoPool,
    Exhausted,
    RacesLost,
    /// The agent has just started, and waits.
    NotYet,
    Store(String),
}

impl NoBlock {
    pub(super) fn report(
        &self,
        family: &Family,
        held: usize,
        per_node: usize,
        pools: &[&Pool],
        conditions: &mut Vec<Condition>,
    ) {
        let (kind, message) = match self {
            // A pool that can't be used says so itself.
            Self::NoPool if !pools.is_empty() => return,
            Self::NoPool => (
                "NoPool",
                "no pool of this family is open to this node: each is disabled or asks for other labels; add one, or \
                 enable one"
                    .to_owned(),
            ),
            Self::Exhausted => (
                "PoolExhausted",
                format!(
                    "no block is free in {}; this node has {held} of {per_node} and routes what it has: add a pool, or \
                     delete nodes that are gone for good (`pairway node delete NAME`)",
                    list(pools)
                ),
            ),
            // The next pass goes on in a moment.
            Self::RacesLost => return,
            Self::NotYet => (
                "BlockNotClaimed",
                format!(
                    "the agent was started again a moment ago and holds {held} of {per_node}: a block that looks free may be \
                     that of a node which is writing its claim again, so it waits for a minute (`pairway blocks claim` does not)"
                ),
            ),
            Self::Store(why) => ("BlockNotClaimed", format!("{why}; this is tried again")),
        };
        conditions.push(Condition { kind, subject: family.name.to_owned(), message });
    }

    pub(super) fn refusal(&self, pools: &[&Pool]) -> CommandError {
        let pools = list(pools);
        match self {
            Self::NoPool => commands::refusal(
                "mismatch",
                format!("nothing can be claimed from {pools}: the cluster's record of it differs"),
                "`pairway status` says how",
            ),
            Self::Exhausted => commands::refusal(
                "exhausted",
                format!("no block is free in {pools}"),
                "add a pool, or delete nodes that are gone for good (`pairway node delete NAME`)",
            ),
            // Only what the agent does by itself waits.
            Self::RacesLost | Self::NotYet => commands::refusal(
                "busy",
                format!("other nodes were faster each time in {pools}"),
                "try again",
            ),
            Self::Store(why) => commands::refusal("store", why.clone(), "mend the store and try again"),
        }
    }
}

pub(super) fn list(pools: &[&Pool]) -> String {
    let names: Vec<String> = pools.iter().map(|pool| pool.cidr.to_string()).collect();
    names.join(", ")
}

pub(super) fn renamed(node: &NodeName, other: &State) -> Option<Condition> {
    let held: Vec<String> = other.held.keys().map(ToString::to_string).collect();
    (!held.is_empty()).then(|| Condition {
        kind: "NodeRenamed",
        subject: other.node.to_string(),
        message: format!(
            "this node was {} and held {}; as {node} it claims other blocks: set node.name back, or free the old ones \
             with `pairway node delete {}`",
            other.node,
            held.join(", "),
            other.node
        ),
    })
}

pub(super) fn block_lost(lost: &LostBlock) -> Condition {
    Condition {
        kind: "BlockLost",
        subject: lost.block.to_string(),
        message: format!(
            "{} was this node's and is held by {} now: it is not announced here any more, and pods with its addresses \
             can't be reached from other nodes; restart them, and leave the routes of the container network to them until \
             then (`pairway blocks release {}` forgets the block)",
            lost.block, lost.holder, lost.block
        ),
    }
}

pub(super) fn unreadable(block: Block) -> Condition {
    Condition {
        kind: "ClaimUnreadable",
        subject: block.to_string(),
        message: format!(
            "the record of this node's claim can't be read, so other nodes may not route {block}: it is written anew when \
             nobody else has done so for a minute, or at once if you remove it"
        ),
    }
}

pub(super) fn not_stored(block: Block, why: &str) -> Condition {
    Condition {
        kind: "ClaimNotStored",
        subject: block.to_string(),
        message: format!("the claim of {block} is not in the store and can't be made again: {why}"),
    }
}
