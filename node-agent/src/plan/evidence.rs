//! What a pair's BGP session has shown.

use std::collections::BTreeSet;

use bgp::Family;
use bgp::speaker::SessionState;

use super::World;
use super::cluster::Cluster;
use crate::node::{Block, NodeName};
use crate::path::{self, Evidence, Path};

/// The evidence for a pair, and the blocks that the session has delivered.
pub(super) fn evidence(
    world: &World<'_>,
    cluster: &Cluster,
    name: &NodeName,
    family: Family,
) -> (Evidence, BTreeSet<Block>) {
    let Some(peer) = cluster.peers.get(name) else { return (Evidence::Waiting, BTreeSet::new()) };
    let blocks = peer.blocks_of(family);
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
        None => native_in_kernel(world, cluster, name, family),
    };
    let complete = delivered.len() == blocks.len();
    // A block that was claimed a moment ago is in the store before it is in BGP: a pair that is native stays
    // native meanwhile. One that had been delivered and is no more has been withdrawn.
    let growing = was_native
        && !delivered.is_empty()
        && memory.is_some_and(|memory| {
            memory.delivered.iter().all(|block| delivered.contains(block) || !blocks.contains(block))
        });
    let held = was_native && world.holding;
    let evidence = match world.sessions.peers.get(name.as_str()) {
        None if held => Evidence::Held,
        None => Evidence::Waiting,
        Some(session) if session.restarting => {
            if complete || growing {
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
            } else if complete || growing {
                Evidence::Delivered
            } else if finished {
                Evidence::Missing
            } else if held {
                Evidence::Held
            } else {
                Evidence::Waiting
            }
        }
        Some(session) if session.established_count == 0 => {
            if held {
                Evidence::Held
            } else {
                Evidence::Waiting
            }
        }
        Some(_) => Evidence::Down,
    };
    (evidence, delivered)
}

/// Whether our nexthop object for the peer leads to its underlay address at this moment: the decision of an
/// agent that ran before this one.
fn native_in_kernel(world: &World<'_>, cluster: &Cluster, name: &NodeName, family: Family) -> bool {
    let id = cluster.nexthops.get(&(name.clone(), family));
    let underlay = cluster.peers.get(name).and_then(|peer| path::address(&peer.record.underlay, family));
    let (Some(id), Some(underlay), Some(local)) = (id, underlay, world.local.of(family)) else {
        return false;
    };
    world
        .observed
        .ours
        .nexthops
        .get(id)
        .is_some_and(|found| found.link == local.link && found.gateway.address == underlay.addr())
}
