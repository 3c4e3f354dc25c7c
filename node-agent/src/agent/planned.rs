//! The plan of the pass before is kept while nothing that it follows from has changed.
//!
//! Most passes look whether the kernel still holds what is wanted, and nothing else is new. What a plan follows from is
//! compared as a whole, by value or by being the same shared value; nobody says what has changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use bgp::speaker::{Routes, SpeakerStatus};
use config::Config;
use vxlan::firewall::Netfilter;
use vxlan::{Interface, IpTunnel, Observed, State};

use super::speaker;
use crate::node::{Block, NodeRecord, Snapshot};
use crate::plan::{self, PairMemory, Plan, World};
use crate::underlay::Local;

/// What a world borrows of the shared values.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) config: Arc<Config>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) sessions: Arc<SpeakerStatus>,
    pub(super) learned: Arc<Routes>,
}

/// A plan that a plan from what it has made comes to again, and what it follows from.
#[derive(Debug)]
pub(super) struct Planned {
    plan: Arc<Plan>,
    shared: Shared,
    own: NodeRecord,
    held: Vec<Block>,
    local: Local,
    ip_tunnels: BTreeSet<IpTunnel>,
    observed: Observed,
    holding: bool,
    cordoned: bool,
}

/// The plan for a world: the one before if it still is.
pub(super) fn plan(before: &mut Option<Planned>, world: &World<'_>, shared: Shared) -> Arc<Plan> {
    let observed = decisive(world.observed);
    if let Some(planned) = before
        && planned.follows_from(world, &shared, &observed)
    {
        planned.shared = shared;
        #[cfg(test)]
        tests::judge(&planned.plan, world);
        return Arc::clone(&planned.plan);
    }
    let plan = Arc::new(plan::plan(world));
    // With what it leaves to the next, in the kernel and in memory, that one might be another; and some evidence holds
    // for a while only.
    let settled = *world.memory == *plan.memory
        && world.observed.ours.nexthops == plan.dataplane.nexthops
        && plan.memory.values().all(|memory| PairMemory::wake(memory).is_none());
    *before = settled.then(|| Planned {
        plan: Arc::clone(&plan),
        shared,
        own: world.own.clone(),
        held: world.held.to_vec(),
        local: world.local.clone(),
        ip_tunnels: world.ip_tunnels.clone(),
        observed,
        holding: world.holding,
        cordoned: world.cordoned,
    });
    plan
}

impl Planned {
    fn follows_from(&self, world: &World<'_>, new: &Shared, observed: &Observed) -> bool {
        let World { own, config: _, snapshot: _, held, local, ip_tunnels, .. } = *world;
        // What is kept of judgements is the same again where all else is.
        let World { observed: whole, sessions: _, learned: _, memory, judged: _, now: _, holding, .. } =
            *world;
        let old = &self.shared;
        Arc::ptr_eq(&old.config, &new.config)
            && Arc::ptr_eq(&old.snapshot, &new.snapshot)
            && (Arc::ptr_eq(&old.learned, &new.learned) || old.learned == new.learned)
            && (self.holding, self.cordoned) == (holding, world.cordoned)
            && (self.own == *own
                && self.held == held
                && self.local == *local
                && self.ip_tunnels == *ip_tunnels)
            && self.observed == *observed
            && whole.ours.nexthops == self.plan.dataplane.nexthops
            && *memory == *self.plan.memory
            && (Arc::ptr_eq(&old.sessions, &new.sessions)
                || speaker::gist(&old.sessions) == speaker::gist(&new.sessions))
    }
}

/// What of the kernel a plan may look at, the nexthop objects aside. Of our own objects it decides what they should be,
/// routes and rules of others are the diff's business, and counters decide nothing. Nor do devices of others without an
/// address that others can reach: those of pods come and go.
fn decisive(observed: &Observed) -> Observed {
    let Observed {
        ours,
        interfaces,
        foreign_routes: _,
        foreign_rules: _,
        foreign_nexthops,
        default_routes: _,
        rp_filter_all,
        forwarding,
        netfilter,
    } = observed;
    let State {
        links,
        addresses,
        neighbors: _,
        fdb: _,
        nexthops: _,
        routes: _,
        rules,
        rp_filter,
        firewall: _,
    } = ours;
    let Netfilter { unavailable, foreign_table, masqueraded: _, guarded: _, unread: _, forward, input } =
        netfilter;
    Observed {
        ours: State {
            links: links.clone(),
            addresses: addresses.clone(),
            rules: rules.clone(),
            rp_filter: rp_filter.clone(),
            ..State::default()
        },
        interfaces: interfaces
            .iter()
            .filter(|(name, interface)| links.contains_key(*name) || matters(interface))
            .map(|(name, interface)| (name.clone(), interface.clone()))
            .collect(),
        foreign_nexthops: foreign_nexthops.clone(),
        rp_filter_all: *rp_filter_all,
        forwarding: *forwarding,
        netfilter: Netfilter {
            unavailable: unavailable.clone(),
            foreign_table: *foreign_table,
            forward: forward.clone(),
            input: input.clone(),
            ..Netfilter::default()
        },
        ..Observed::default()
    }
}

fn matters(interface: &Interface) -> bool {
    interface.ends.is_some()
        || interface.tunnel.is_some()
        || interface.addresses.iter().any(|address| !address.local_scope)
}

#[cfg(test)]
mod tests;
