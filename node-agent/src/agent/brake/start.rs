//! The brake of the first passes, which know no earlier snapshot: the kernel tells what was there.

use std::collections::BTreeSet;

use tokio::time::Instant;
use vxlan::{NexthopId, Observed, RouteTarget, State};

use super::BrakeLimits;
use crate::agent::Agent;
use crate::plan::{Finding, Plan};

/// The brake of the first passes, which know no earlier snapshot: the kernel tells what was there.
#[derive(Debug, Clone, Copy)]
pub(in crate::agent) enum StartBrake {
    Armed,
    Holding(Instant),
    Off,
}

impl Agent {
    /// The first passes keep what they find of peers if most of them would go.
    pub(in crate::agent) fn brake_at_start(
        &mut self,
        plan: &Plan,
        observed: &Observed,
        now: Instant,
    ) -> State {
        let limits = self.limits.brake;
        let drops = drops_too_many(limits, &plan.dataplane, &observed.ours);
        let until = match (self.state.start_brake, drops) {
            (StartBrake::Armed, Some(_)) => now + limits.grace,
            (StartBrake::Holding(until), Some(_)) if now < until => until,
            (StartBrake::Armed | StartBrake::Holding(_) | StartBrake::Off, _) => {
                self.state.start_brake = StartBrake::Off;
                return plan.dataplane.clone();
            }
        };
        self.state.start_brake = StartBrake::Holding(until);
        self.state.wakes.push(until);
        let (gone, all) = drops.unwrap_or_default();
        self.state.findings.insert(Finding::new(
            "PeersVanished",
            "",
            format!("the store lacks {gone} of the {all} peers that the kernel has routes to: they are kept for a while; if they are gone for good nothing is to be done, else look at the store"),
        ));
        keep(&plan.dataplane, &observed.ours)
    }
}

/// How many of the peers that the kernel knows a plan would drop, and whether that is too many at once. Used
/// after a start, when no earlier snapshot is known.
pub(super) fn drops_too_many(limits: BrakeLimits, wanted: &State, found: &State) -> Option<(usize, usize)> {
    let all = found.nexthops.len();
    let gone = found.nexthops.keys().filter(|id| !wanted.nexthops.contains_key(id)).count();
    (gone >= limits.at_least && gone * 100 > limits.share * all).then_some((gone, all))
}

/// What is wanted, with what is found of peers beside it.
pub(super) fn keep(wanted: &State, found: &State) -> State {
    let mut state = wanted.clone();
    let ours = |link| !found.links.contains_key(link) || wanted.links.contains_key(link);
    for (key, mac) in found.neighbors.iter().filter(|(key, _)| ours(&key.link)) {
        state.neighbors.entry(key.clone()).or_insert(*mac);
    }
    for (key, remote) in found.fdb.iter().filter(|(key, _)| ours(&key.link)) {
        state.fdb.entry(key.clone()).or_insert(*remote);
    }
    for (id, nexthop) in found.nexthops.iter().filter(|(_, nexthop)| ours(&nexthop.link)) {
        state.nexthops.entry(*id).or_insert_with(|| nexthop.clone());
    }
    let kept: BTreeSet<NexthopId> =
        state.nexthops.keys().filter(|id| !wanted.nexthops.contains_key(id)).copied().collect();
    for (key, route) in &found.routes {
        if matches!(route.target, RouteTarget::Nexthop(id) if kept.contains(&id)) {
            state.routes.entry(*key).or_insert_with(|| route.clone());
        }
    }
    state
}
