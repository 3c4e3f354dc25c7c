//! From plan, kernel and sessions to what programs read; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::Family;
use bgp::speaker::{PeerStatus, Refusal, SessionState, SpeakerStatus};
use vxlan::{NexthopId, RouteKey, RouteTarget, State, TunnelKind};

use crate::node::{Block, NodeName, Snapshot};
use crate::path::{Path, Reason};
use crate::plan::{PairPlan, Plan};
use crate::status::{BgpNeighbor, BlockEntry, Pair, PairUnderlay, RefusedPrefix, RouteEntry};

/// Routes of ours that packets don't follow because of something of others, and what.
type Diverted = BTreeMap<RouteKey, String>;

pub(super) fn pairs(own: &NodeName, plan: &Plan, present: &State, diverted: &Diverted) -> Vec<Pair> {
    plan.pairs.iter().map(|pair| pair_entry(own, plan, present, diverted, pair)).collect()
}

/// Why the kernel does not send the pair's packets by its path.
fn not_ready(plan: &Plan, present: &State, diverted: &Diverted, pair: &PairPlan) -> Option<String> {
    let decision = &pair.decision;
    match decision.path {
        // Where no path is wanted there is nothing to wait for.
        Path::None if decision.predicted == Path::None && decision.reason != Reason::NoBlock => None,
        Path::None => Some(decision.detail.clone()),
        Path::Native | Path::Vxlan | Path::Ipip if pair.needs.nexthop.is_none() => {
            Some("it can't be built; `pairway status` says why".to_owned())
        }
        Path::Native | Path::Vxlan | Path::Ipip => match pair.needs.unmet(&plan.dataplane, present) {
            Some(object) => Some(format!("{object} is missing in the kernel or different")),
            None => {
                let of_pair =
                    |key| diverted.get(key).map(|why| format!("packets don't follow its routes: {why}"));
                pair.needs.routes.iter().find_map(of_pair)
            }
        },
    }
}

fn pair_entry(own: &NodeName, plan: &Plan, present: &State, diverted: &Diverted, pair: &PairPlan) -> Pair {
    let decision = &pair.decision;
    let text = |address: Option<IpAddr>| address.map_or_else(String::new, |address| address.to_string());
    let not_ready = not_ready(plan, present, diverted, pair);
    Pair {
        local: own.to_string(),
        peer: pair.peer.to_string(),
        family: pair.family.to_string(),
        path: decision.path.to_string(),
        predicted: decision.predicted.to_string(),
        reason: decision.reason.to_string(),
        detail: decision.detail.clone(),
        blocks: pair.blocks.iter().map(Block::to_string).collect(),
        underlay: PairUnderlay { local: text(pair.local), peer: text(pair.remote) },
        mtu: pair.mtu,
        ready: not_ready.is_none(),
        not_ready,
    }
}

/// Every block that the store shows as held, and this node's own, which may be ahead of it; sorted by address.
pub(super) fn blocks(own: &NodeName, held: &[Block], snapshot: Option<&Snapshot>) -> Vec<BlockEntry> {
    let mut holders: BTreeMap<Block, String> = BTreeMap::new();
    for claim in snapshot.into_iter().flat_map(|snapshot| snapshot.claims.values()) {
        // A claim of this node's that it does not know of (yet) is about to go, or to be known.
        if claim.holder.as_ref() != Some(own) {
            let holder = claim.holder.as_ref().map_or_else(String::new, ToString::to_string);
            holders.insert(claim.block, holder);
        }
    }
    holders.extend(held.iter().map(|block| (*block, own.to_string())));
    holders
        .into_iter()
        .map(|(block, node)| BlockEntry {
            block: block.to_string(),
            family: Family::of(block.net()).to_string(),
            own: held.contains(&block),
            node,
        })
        .collect()
}

pub(super) fn pairs_by_path(plan: &Plan) -> BTreeMap<String, u64> {
    let mut count: BTreeMap<String, u64> =
        [Path::Native, Path::Vxlan, Path::Ipip, Path::None].map(|path| (path.to_string(), 0)).into();
    for pair in &plan.pairs {
        *count.entry(pair.decision.path.to_string()).or_default() += 1;
    }
    count
}

/// Every route that we own or want, sorted by table and prefix.
pub(super) fn routes(plan: &Plan, present: &State, diverted: &Diverted) -> Vec<RouteEntry> {
    let wanted: &State = &plan.dataplane;
    let owners = plan.owners();
    let keys: BTreeSet<&RouteKey> = wanted.routes.keys().chain(present.routes.keys()).collect();
    keys.into_iter()
        .map(|key| {
            let (state, route, of) = match (wanted.routes.get(key), present.routes.get(key)) {
                (Some(want), Some(found)) if want == found => ("installed", want, wanted),
                (Some(want), _) => ("missing", want, wanted),
                (None, Some(found)) => ("stale", found, present),
                (None, None) => unreachable!("the key is one of theirs"),
            };
            let nexthop = match route.target {
                RouteTarget::Nexthop(id) => nexthop(of, present, id),
                RouteTarget::Unreachable | RouteTarget::Other => None,
            };
            let elsewhere = match route.target {
                _ if state != "installed" => None,
                RouteTarget::Nexthop(id) if wanted.nexthops.get(&id) != present.nexthops.get(&id) => {
                    let own = || format!("nexthop object {} is not as it should be", id.0);
                    Some(diverted.get(key).cloned().unwrap_or_else(own))
                }
                RouteTarget::Nexthop(_) | RouteTarget::Unreachable | RouteTarget::Other => {
                    diverted.get(key).cloned()
                }
            };
            let device = |nexthop: &vxlan::Nexthop| {
                let link = wanted.links.get(&nexthop.link).or_else(|| present.links.get(&nexthop.link))?;
                Some(&link.kind)
            };
            let kind = match (&route.target, nexthop.and_then(device)) {
                (RouteTarget::Unreachable, _) => "unreachable",
                (RouteTarget::Other, _) => "other",
                (RouteTarget::Nexthop(_), Some(TunnelKind::Vxlan(_))) => Path::Vxlan.as_str(),
                (RouteTarget::Nexthop(_), Some(TunnelKind::Ip(_))) => Path::Ipip.as_str(),
                (RouteTarget::Nexthop(_), None) => Path::Native.as_str(),
            };
            RouteEntry {
                prefix: key.prefix.to_string(),
                table: key.table,
                kind: kind.to_owned(),
                node: owners.get(key).copied().unwrap_or_default().to_owned(),
                via: nexthop.map_or_else(String::new, |nexthop| nexthop.gateway.address.to_string()),
                device: nexthop.map_or_else(String::new, |nexthop| nexthop.link.to_string()),
                state: if elsewhere.is_some() { "diverted" } else { state }.to_owned(),
                detail: elsewhere.unwrap_or_default(),
            }
        })
        .collect()
}

fn nexthop<'a>(first: &'a State, second: &'a State, id: NexthopId) -> Option<&'a vxlan::Nexthop> {
    first.nexthops.get(&id).or_else(|| second.nexthops.get(&id))
}

/// The BGP peers wanted, with what is known of their sessions, sorted by name.
pub(super) fn neighbors(plan: &Plan, sessions: &SpeakerStatus) -> Vec<BgpNeighbor> {
    let nodes: BTreeSet<&str> = plan.pairs.iter().map(|pair| pair.peer.as_str()).collect();
    plan.peers
        .iter()
        .map(|(name, peer)| {
            let status = sessions.peers.get(name);
            let refused = plan.refused.get(name).cloned().unwrap_or_default();
            let is_node = nodes.contains(name.as_str());
            BgpNeighbor {
                name: name.clone(),
                kind: if is_node { "node" } else { "external" }.to_owned(),
                address: peer.address.to_string(),
                asn: peer.asn.0,
                state: status.map_or("idle", |status| state_word(status.state)).to_owned(),
                since_seconds: status.map_or(0, |status| status.since.as_secs()),
                hold_time_seconds: status.map_or(0, |status| status.hold_time.as_secs()),
                families: status
                    .map_or_else(Vec::new, |status| status.families.iter().map(Family::to_string).collect()),
                restarting: status.is_some_and(|status| status.restarting),
                accepted: status.map_or(0, |status| sum(&status.accepted)),
                announced: status.map_or(0, |status| sum(&status.announced)),
                refused_by_reason: refused_by_reason(&refused, status),
                refused,
                established_count: status.map_or(0, |status| status.established_count),
                last_error: status.and_then(|status| status.last_error.clone()),
                messages_received: status.map_or(0, |status| status.messages.received),
                messages_sent: status.map_or(0, |status| status.messages.sent),
            }
        })
        .collect()
}

/// By reason. The speaker lists only some of the prefixes that it refuses, and counts all: what is not listed is
/// counted under the commonest word for its kind.
fn refused_by_reason(refused: &[RefusedPrefix], status: Option<&PeerStatus>) -> BTreeMap<String, u64> {
    let mut count: BTreeMap<String, u64> = BTreeMap::new();
    for prefix in refused {
        *count.entry(prefix.reason.clone()).or_default() += 1;
    }
    let Some(status) = status else { return count };
    for (refusal, all) in &status.refused {
        let listed = status.refused_prefixes.iter().filter(|(_, listed)| listed == refusal).count();
        let unlisted = u64::try_from(all.saturating_sub(listed)).unwrap_or(u64::MAX);
        if unlisted > 0 {
            *count.entry(common_word(*refusal, refused).to_owned()).or_default() += unlisted;
        }
    }
    count
}

fn common_word(refusal: Refusal, refused: &[RefusedPrefix]) -> &'static str {
    match refusal {
        Refusal::NotPermitted => {
            if refused.iter().any(|prefix| prefix.reason == "not-imported") {
                "not-imported"
            } else {
                "not-claimed"
            }
        }
        Refusal::NextHop => "next-hop",
        Refusal::Loop => "loop",
        Refusal::OwnPrefix => "own-prefix",
    }
}

fn sum(by_family: &BTreeMap<Family, usize>) -> u64 {
    by_family.values().map(|count| u64::try_from(*count).unwrap_or(u64::MAX)).sum()
}

const fn state_word(state: SessionState) -> &'static str {
    match state {
        SessionState::Idle => "idle",
        SessionState::Connect => "connect",
        SessionState::Active => "active",
        SessionState::OpenSent => "opensent",
        SessionState::OpenConfirm => "openconfirm",
        SessionState::Established => "established",
    }
}
