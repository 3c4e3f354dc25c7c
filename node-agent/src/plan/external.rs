//! Routes from speakers outside of the cluster: imported as their lists say, never into the pools and never
//! over an address of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::Family;
use bgp::speaker::{LearnedRoute, PeerName};
use ipnet::IpNet;

use super::cluster::{Cluster, overlap};
use super::{Finding, World};
use crate::path;
use crate::status::RefusedPrefix;

/// A route to program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExternalRoute {
    pub peer: PeerName,
    pub gateway: IpAddr,
}

pub(super) fn routes(
    world: &World<'_>,
    cluster: &Cluster,
    refused: &mut BTreeMap<PeerName, Vec<RefusedPrefix>>,
    findings: &mut BTreeSet<Finding>,
) -> BTreeMap<IpNet, ExternalRoute> {
    let outside: BTreeSet<&str> = world.config.bgp.peers.iter().map(|peer| peer.name.as_str()).collect();
    let is_node = |name: &str| cluster.peer_named(name).is_some();
    let mut routes = BTreeMap::new();
    for (prefix, paths) in &world.learned.routes {
        for path in paths.iter().filter(|path| outside.contains(path.peer.as_str()) && !is_node(&path.peer)) {
            match accept(world, cluster, *prefix, path) {
                Ok(()) => {
                    // Paths are sorted, best first.
                    routes
                        .entry(*prefix)
                        .or_insert_with(|| ExternalRoute { peer: path.peer.clone(), gateway: path.next_hop });
                }
                Err((reason, detail)) => refused.entry(path.peer.clone()).or_default().push(RefusedPrefix {
                    prefix: prefix.to_string(),
                    reason: reason.to_owned(),
                    detail,
                }),
            }
        }
    }
    if let Some(peer) = refused.iter().find(|(name, _)| outside.contains(name.as_str())).map(|(name, _)| name)
    {
        findings.insert(Finding::new(
            "PrefixRefused",
            peer,
            format!("{peer} sends prefixes that are refused: `pairway bgp neighbors` shows which and why"),
        ));
    }
    routes
}

fn accept(
    world: &World<'_>,
    cluster: &Cluster,
    prefix: IpNet,
    path: &LearnedRoute,
) -> Result<(), (&'static str, String)> {
    // Blocks of pools that only others have configured, and our own without a pool, are routed too.
    let pools = world.config.pools.iter().map(|pool| pool.cidr);
    let pools = pools.chain(world.snapshot.pools.keys().copied());
    let own_blocks = world.held.iter().map(|block| block.net());
    let own = world.own.underlay;
    // A default route covers everything and overrules nothing: the pools have routes of their own.
    let default = prefix.prefix_len() == 0;
    if !default && let Some(pool) = pools.into_iter().find(|pool| overlap(*pool, prefix)) {
        return Err((
            "not-imported",
            format!("{prefix} overlaps the pool {pool}: blocks come from the store only"),
        ));
    }
    if !default && let Some(block) = own_blocks.into_iter().find(|block| overlap(*block, prefix)) {
        return Err(("not-imported", format!("{prefix} overlaps {block}, a block of this node")));
    }
    if !default && let Some(address) = cluster.at.keys().find(|address| prefix.contains(*address)) {
        return Err((
            "not-imported",
            format!("{prefix} covers {address}, an underlay address of the cluster"),
        ));
    }
    let on_link = path::address(&own, Family::of_address(path.next_hop))
        .is_some_and(|net| net.contains(&path.next_hop) && net.addr() != path.next_hop);
    if !on_link || Family::of_address(path.next_hop) != Family::of(prefix) {
        return Err((
            "next-hop",
            format!("the next hop {} of {prefix} is not on this node's link", path.next_hop),
        ));
    }
    if cluster.is_underlay(path.next_hop) {
        return Err((
            "next-hop",
            format!("the next hop {} of {prefix} is a node of the cluster", path.next_hop),
        ));
    }
    Ok(())
}
