//! What a pair's BGP session has shown.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use bgp::Family;
use bgp::speaker::SessionState;
use tokio::time::Instant;

use super::cluster::Member;
use super::{PairMemory, World};
use crate::node::{Block, NodeName};
use crate::path::{self, Evidence, Path};

/// A block is in the store before it is in BGP, by a moment; one that does not come within this time is not announced.
pub(super) const GROWTH: Duration = Duration::from_secs(15);

/// What the session of a pair that was native may take to come up where an end has moved to.
const MOVE: Duration = Duration::from_secs(15);

/// What is to be seen of a pair.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) evidence: Evidence,
    delivered: BTreeSet<Block>,
    ends: Option<(IpAddr, IpAddr)>,
    growing_since: Option<Instant>,
    moved_until: Option<Instant>,
}

impl Seen {
    /// What the next plan should know of it.
    pub(super) fn memory(self, path: Path) -> PairMemory {
        let Self { delivered, ends, growing_since, moved_until, .. } = self;
        // Only a native pair has something to lose.
        let native = path == Path::Native;
        PairMemory {
            path,
            delivered,
            ends,
            growing_since: growing_since.filter(|_| native),
            moved_until: moved_until.filter(|_| native),
        }
    }
}

/// The evidence for a pair.
pub(super) fn evidence(
    world: &World<'_>,
    name: &NodeName,
    peer: &Member,
    blocks: &[Block],
    family: Family,
) -> Seen {
    let delivered: BTreeSet<Block> = blocks
        .iter()
        .copied()
        .filter(|block| {
            world
                .learned
                .routes
                .get(&block.net())
                .is_some_and(|paths| paths.iter().any(|path| path.peer == name.as_str()))
        })
        .collect();
    let memory = world.memory.get(&(name.clone(), family));
    let was_native = match memory {
        Some(memory) => memory.path == Path::Native,
        None => native_in_kernel(world, peer, family),
    };
    let ends = ends(world, peer, family);
    let moved_until = memory.filter(|_| was_native).and_then(|memory| {
        let moved = memory.ends.is_some() && ends.is_some() && memory.ends != ends;
        if moved { Some(world.now + MOVE) } else { memory.moved_until.filter(|until| world.now < *until) }
    });
    let complete = delivered.len() == blocks.len();
    // A block that was claimed a moment ago is in the store before it is in BGP: a pair that is native stays
    // native meanwhile. One that had been delivered and is no more has been withdrawn.
    let growing_since = memory
        .filter(|memory| {
            let kept =
                memory.delivered.iter().all(|block| delivered.contains(block) || !blocks.contains(block));
            // Also if all that it had delivered has another block in its place.
            let any = !delivered.is_empty() || !memory.delivered.is_empty() || memory.growing_since.is_some();
            was_native && !complete && any && kept
        })
        .map(|memory| memory.growing_since.unwrap_or(world.now));
    let growing = growing_since.is_some_and(|since| world.now < since + GROWTH);
    let held = was_native && (world.holding || moved_until.is_some());
    let evidence = shown(world, name, family, complete || growing, held);
    Seen { evidence, delivered, ends, growing_since, moved_until }
}

/// What the session shows. `delivered`: all that it should bring is there; `held`: a native path may wait for it.
fn shown(world: &World<'_>, name: &NodeName, family: Family, delivered: bool, held: bool) -> Evidence {
    let session = world.sessions.peers.get(name.as_str());
    match session {
        Some(session) if session.restarting => {
            if delivered {
                Evidence::Restarting
            } else if held {
                Evidence::Held
            } else {
                Evidence::Down
            }
        }
        Some(session) if session.state == SessionState::Established => {
            let finished = session.end_of_rib.contains(&family);
            if !session.families.contains(&family) {
                Evidence::NotNegotiated
            } else if delivered {
                Evidence::Delivered
            } else if finished {
                Evidence::Missing
            } else if held {
                Evidence::Held
            } else {
                Evidence::Waiting
            }
        }
        Some(session) if session.established_count > 0 => Evidence::Down,
        Some(_) | None if held => Evidence::Held,
        Some(_) | None => Evidence::Waiting,
    }
}

/// Underlay addresses of both ends, ours first.
fn ends(world: &World<'_>, peer: &Member, family: Family) -> Option<(IpAddr, IpAddr)> {
    let own = world.local.of(family)?.address.addr();
    Some((own, path::address(&peer.record.underlay, family)?.addr()))
}

/// Whether our nexthop object for the peer leads to its underlay address at this moment: the decision of an
/// agent that ran before this one.
fn native_in_kernel(world: &World<'_>, peer: &Member, family: Family) -> bool {
    let id = peer.nexthop(family);
    let underlay = path::address(&peer.record.underlay, family);
    let (Some(id), Some(underlay), Some(local)) = (id, underlay, world.local.of(family)) else {
        return false;
    };
    world
        .observed
        .ours
        .nexthops
        .get(&id)
        .is_some_and(|found| found.link == local.link && found.gateway.address == underlay.addr())
}
