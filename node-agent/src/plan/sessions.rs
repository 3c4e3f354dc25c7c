//! BGP peers: the nodes whose pair wants a session, and the configured speakers outside of the cluster.
//!
//! Peers follow from the store and the configuration alone, never from what was learned: no feedback loop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::speaker::{Export, ImportFilter, ImportRule, Peer, PeerName, Refusal, Role};
use bgp::{Asn, Family, RouterId};
use ipnet::IpNet;

use super::cluster::{Cluster, Member};
use super::{Finding, PairPlan, World, families};
use crate::node::{Block, NodeName};
use crate::path;
use crate::status::RefusedPrefix;

pub(super) struct Sessions {
    pub peers: BTreeMap<PeerName, Peer>,
    pub refused: BTreeMap<PeerName, Vec<RefusedPrefix>>,
}

pub(super) fn sessions(
    world: &World<'_>,
    cluster: &Cluster,
    pairs: &[PairPlan],
    findings: &mut BTreeSet<Finding>,
) -> Sessions {
    let mut wanted: BTreeMap<&NodeName, BTreeSet<Family>> = BTreeMap::new();
    for pair in pairs.iter().filter(|pair| pair.decision.needs_session) {
        wanted.entry(&pair.peer).or_default().insert(pair.family);
    }
    let mut peers = BTreeMap::new();
    for (name, families) in wanted {
        if let Some(member) = cluster.peers.get(name)
            && let Some(peer) = node_peer(world, cluster, name, member, &families)
        {
            peers.insert(name.to_string(), peer);
        }
    }
    for (name, peer) in outside_peers(world, cluster, findings) {
        peers.insert(name, peer);
    }
    let refused = refused(world, cluster);
    Sessions { peers, refused }
}

fn node_peer(
    world: &World<'_>,
    cluster: &Cluster,
    name: &NodeName,
    member: &Member,
    families: &BTreeSet<Family>,
) -> Option<Peer> {
    let own = &world.own.underlay;
    let at = |family| path::address(&member.record.underlay, family).map(|net| net.addr());
    // One session carries both families; it runs over the first that both ends have in one subnet.
    let transport = *families.iter().next()?;
    let address = at(transport)?;
    // Of two nodes at one address only the living one can have the session.
    if cluster.at.get(&address) != Some(name) {
        return None;
    }
    let rules = member
        .blocks
        .iter()
        .filter(|block| families.contains(&Family::of(block.net())))
        .map(|block| block_rule(*block, at(Family::of(block.net()))))
        .collect();
    let router_id = member.record.router_id;
    Some(Peer {
        address,
        port: member.record.bgp_port,
        local_address: path::address(own, transport).map(|net| net.addr()),
        asn: Asn(member.record.asn),
        router_id: (!router_id.is_unspecified()).then_some(RouterId(router_id)),
        role: if path::dials(&world.own.name, name) { Role::Dial } else { Role::Accept },
        families: families.clone(),
        next_hops: next_hops(world, families),
        import: ImportFilter { rules },
        export: Export::All,
        // The pair's path does not follow from what a session prefers.
        graceful_shutdown: false,
        max_prefixes: usize::try_from(world.config.bgp.max_prefixes).unwrap_or(usize::MAX),
    })
}

/// Exactly this block, with the holder's underlay address as next hop (invariant 10).
fn block_rule(block: Block, next_hop: Option<IpAddr>) -> ImportRule {
    let prefix = block.net();
    ImportRule {
        prefix,
        lengths: (prefix.prefix_len(), prefix.prefix_len()),
        next_hops: Some(next_hop.into_iter().collect()),
    }
}

fn next_hops(world: &World<'_>, families: &BTreeSet<Family>) -> BTreeMap<Family, IpAddr> {
    families
        .iter()
        .filter_map(|family| path::address(&world.own.underlay, *family).map(|net| (*family, net.addr())))
        .collect()
}

/// The configured speakers that this node's labels choose.
fn outside_peers(
    world: &World<'_>,
    cluster: &Cluster,
    findings: &mut BTreeSet<Finding>,
) -> BTreeMap<PeerName, Peer> {
    let mut peers = BTreeMap::new();
    for wanted in &world.config.bgp.peers {
        if !path::has_labels(&world.own.labels, &wanted.nodes) {
            continue;
        }
        let taken =
            cluster.peer_named(&wanted.name).map(|name| format!("a node is called {name}")).or_else(|| {
                cluster
                    .at
                    .get(&wanted.address)
                    .map(|name| format!("{} is the underlay address of {name}", wanted.address))
            });
        if let Some(why) = taken {
            findings.insert(Finding::new(
                "BgpPeerTaken",
                &wanted.name,
                format!("bgp.peers has {}, but {why}: the nodes peer among themselves, give the speaker another name and address", wanted.name),
            ));
            continue;
        }
        let mut negotiate = families(world.config);
        negotiate.extend(wanted.import.iter().map(|prefix| Family::of(*prefix)));
        let own = path::address(&world.own.underlay, Family::of_address(wanted.address));
        let rules = wanted
            .import
            .iter()
            .map(|prefix| ImportRule {
                prefix: *prefix,
                lengths: (prefix.prefix_len(), prefix.max_prefix_len()),
                next_hops: None,
            })
            .collect();
        peers.insert(
            wanted.name.clone(),
            Peer {
                address: wanted.address,
                port: wanted.port,
                local_address: own.filter(|net| net.contains(&wanted.address)).map(|net| net.addr()),
                asn: Asn(wanted.asn),
                router_id: None,
                role: Role::Dial,
                next_hops: next_hops(world, &negotiate),
                families: negotiate,
                import: ImportFilter { rules },
                export: wanted.export.clone().map_or(Export::All, Export::Within),
                graceful_shutdown: wanted.graceful_shutdown && world.cordoned,
                max_prefixes: usize::try_from(world.config.bgp.max_prefixes).unwrap_or(usize::MAX),
            },
        );
    }
    peers
}

/// What the speaker refused, in the words of an operator.
fn refused(world: &World<'_>, cluster: &Cluster) -> BTreeMap<PeerName, Vec<RefusedPrefix>> {
    let mut refused = BTreeMap::new();
    for (name, status) in &world.sessions.peers {
        let node = cluster.peer_named(name);
        let list: Vec<RefusedPrefix> = status
            .refused_prefixes
            .iter()
            .map(|(prefix, refusal)| refused_prefix(world, node, name, *prefix, *refusal))
            .collect();
        if !list.is_empty() {
            refused.insert(name.clone(), list);
        }
    }
    refused
}

fn refused_prefix(
    world: &World<'_>,
    node: Option<&NodeName>,
    name: &str,
    prefix: IpNet,
    refusal: Refusal,
) -> RefusedPrefix {
    let (reason, detail) = match (refusal, node) {
        (Refusal::NextHop, _) => {
            ("next-hop", format!("{name} sends {prefix} with a next hop that is not its own address"))
        }
        (Refusal::Loop, _) => ("loop", format!("{prefix} has been at this node before")),
        (Refusal::OwnPrefix, _) => ("own-prefix", format!("this node announces {prefix} itself")),
        (Refusal::NotPermitted, None) => {
            ("not-imported", format!("the import list of {name} does not hold {prefix}"))
        }
        (Refusal::NotPermitted, Some(node)) => match world.snapshot.claims.get(&Block::new(prefix)) {
            Some(claim) if claim.holder.as_ref() != Some(node) => {
                let holder =
                    claim.holder.as_ref().map_or("a node whose claim can't be read", NodeName::as_str);
                ("claimed-by-other", format!("{prefix} is claimed by {holder}, not by {name}"))
            }
            Some(_) | None => ("not-claimed", format!("{name} has not claimed {prefix} in the store")),
        },
    };
    RefusedPrefix { prefix: prefix.to_string(), reason: reason.to_owned(), detail }
}
