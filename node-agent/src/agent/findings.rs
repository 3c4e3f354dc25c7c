//! What an operator should know of store and plan.

use std::collections::{BTreeMap, BTreeSet};

use bgp::Family;
use bgp::speaker::SessionState;
use ipnet::IpNet;
use tokio::time::Instant;
use vxlan::{LinkName, Observed};

use super::Agent;
use crate::node::{Block, Snapshot};
use crate::path::{Path, Reason};
use crate::plan::{self, Finding, Plan};
use crate::status::STORE_UNAVAILABLE;

impl Agent {
    /// What the store says of itself. Whether it answers.
    pub(super) fn store_findings(&mut self, snapshot: Option<&Snapshot>) -> bool {
        let health = self.health.borrow_and_update().clone();
        if let Err(problem) = &health {
            self.state.findings.insert(Finding::new(
                STORE_UNAVAILABLE,
                "",
                format!("the store does not answer, the last snapshot holds: {problem}"),
            ));
        }
        for (record, problem) in snapshot.into_iter().flat_map(|snapshot| &snapshot.problems) {
            self.state.findings.insert(Finding::new("RecordProblem", record, problem.as_str()));
        }
        health.is_ok()
    }

    /// Whether the kernel forwards packets of the families that this node has blocks of.
    pub(super) fn forwarding_findings(&mut self, observed: &Observed, held: &[Block]) {
        let families = [
            (Family::Ipv4, observed.forwarding.ipv4, "net.ipv4.ip_forward=1", ""),
            (
                Family::Ipv6,
                observed.forwarding.ipv6,
                "net.ipv6.conf.all.forwarding=1",
                " (where the default route comes from router advertisements, set accept_ra=2 on that interface first, or the route goes)",
            ),
        ];
        for (family, forwards, setting, first) in families {
            if forwards == Some(false) && held.iter().any(|block| Family::of(block.net()) == family) {
                self.state.findings.insert(Finding::new(
                    "ForwardingDisabled",
                    family,
                    format!("the kernel does not forward {family}: packets between pods of this node and other nodes are dropped; `sysctl -w {setting}` turns it on, a file in /etc/sysctl.d keeps it{first}"),
                ));
            }
        }
        self.devices_forward(observed, held);
    }

    /// Devices that don't forward though the kernel does. Ours are mended; the underlay's and those of pods are not ours to
    /// set. (IPv6 has no such setting that would count.)
    fn devices_forward(&mut self, observed: &Observed, held: &[Block]) {
        if observed.forwarding.ipv4 != Some(true) {
            return;
        }
        let underlay = self.state.local.ipv4.as_ref().map(|local| &local.link);
        let own = |net: IpNet| held.iter().any(|block| block.net().contains(&net));
        let routed: BTreeSet<&LinkName> = observed
            .foreign_routes
            .iter()
            .filter(|route| route.key.table == plan::MAIN_TABLE && own(route.key.prefix))
            .filter_map(|route| route.link.as_ref())
            .collect();
        for (name, interface) in &observed.interfaces {
            let addressed = || interface.addresses.iter().any(|found| own(IpNet::from(found.address.addr())));
            let of_pods = routed.contains(name) || addressed();
            let concerns = (of_pods || underlay == Some(name)) && !observed.ours.links.contains_key(name);
            if interface.forwards != Some(false) || !concerns {
                continue;
            }
            let effect = if of_pods {
                "packets that pods send to other nodes and to the outside are dropped"
            } else {
                "packets for pods that come in by it without a tunnel are dropped"
            };
            self.state.findings.insert(Finding::new(
                "ForwardingDisabled",
                format!("{} {name}", Family::Ipv4),
                format!("net.ipv4.conf.{name}.forwarding is 0, though the kernel forwards: {effect}; `sysctl -w net.ipv4.conf.{name}.forwarding=1` turns it on, a file in /etc/sysctl.d keeps it"),
            ));
        }
    }

    /// What the plan found, and the sessions and paths that do not come up.
    pub(super) fn plan_findings(&mut self, plan: &Plan, now: Instant) {
        let findings = &mut self.state.findings;
        findings.extend(plan.findings.iter().cloned());
        for (address, error) in &self.state.sessions.listen_errors {
            let (kind, advice) = if error.in_use {
                ("BgpPortInUse", "; set bgp.port or bgp.listen if another speaker has the port")
            } else {
                ("BgpNotListening", "")
            };
            findings.insert(Finding::new(
                kind,
                address,
                format!("can't listen on {address} ({error}): sessions that this node opens and tunnels go on, those that others open do not come up{advice}"),
            ));
        }
        let mut waiting = BTreeMap::new();
        for pair in &plan.pairs {
            let decision = &pair.decision;
            let mut overdue = false;
            if decision.reason == Reason::BgpWaiting {
                let key = (pair.peer.clone(), pair.family);
                let since = self.state.waiting.get(&key).copied().unwrap_or(now);
                overdue = now.duration_since(since) >= self.limits.session_patience;
                if !overdue {
                    self.state.wakes.push(since + self.limits.session_patience);
                }
                waiting.insert(key, since);
            }
            if overdue || matches!(decision.reason, Reason::BgpDown | Reason::BgpNoRoute) {
                let session = self.state.sessions.peers.get(pair.peer.as_str());
                // Of a session that stands it is an old one.
                let session = session.filter(|session| session.state != SessionState::Established);
                let error = session.and_then(|session| session.last_error.as_deref());
                let error = error.map_or_else(String::new, |error| format!(" ({error})"));
                findings.insert(Finding::new(
                    "BgpSessionDown",
                    &pair.peer,
                    format!("{}{error}; `pairway bgp neighbors` shows the session", decision.detail),
                ));
            } else if decision.path == Path::None
                && decision.reason != Reason::NoBlock
                && decision.predicted != Path::None
            {
                findings.insert(Finding::new("NoPath", &pair.peer, decision.detail.as_str()));
            }
        }
        self.state.waiting = waiting;
    }
}
