//! One pass: observe the kernel, make the world, plan, tell the speaker, reconcile the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::time::Instant;
use vxlan::{ObserveError, Observed, Report, State};

use super::between::{Outcome, Watched};
use super::brake::Held;
use super::known::Done;
use super::planned::{self, Shared};
use super::repairs::{self, Before};
use super::{Agent, blocks, firewall, in_use, present, refused, speaker};
use crate::dataplane::Gone;
use crate::node::{NodeName, NodeRecord, Snapshot};
use crate::plan::{self, Finding, PairMemory, Plan, World};
use crate::store::NodeFacts;
use crate::telemetry::chain;

/// The labels of the configuration, over those of the Node object. Until that has been read, over those of the last run.
fn labels(
    configured: &BTreeMap<String, String>,
    facts: &NodeFacts,
    stored: Option<&NodeRecord>,
) -> BTreeMap<String, String> {
    let mut labels = match stored {
        Some(stored) if !facts.known => stored.labels.clone(),
        Some(_) | None => facts.labels.clone(),
    };
    labels.extend(configured.clone());
    labels
}

impl Agent {
    /// Looks, acts, and publishes what came of it.
    pub(super) async fn pass(&mut self) -> Result<(), Gone> {
        let began = Instant::now();
        self.state.due = None;
        self.state.asked = None;
        self.state.findings.clear();
        self.state.wakes = vec![began + self.limits.audit];
        self.reconsider();
        let outcome = self.look_and_act(began).await?;
        self.state.not_ready = outcome.not_ready;
        self.settle_cni();
        if outcome.failed {
            let wait = self.state.backoff.failed();
            self.state.wakes.push(Instant::now() + wait);
        } else {
            self.state.backoff.succeeded();
        }
        self.state.took = began.elapsed();
        self.state.counters.record_pass(self.state.took);
        self.publish();
        let written = std::mem::take(&mut self.state.written);
        self.catch_up(written).await
    }

    async fn look_and_act(&mut self, now: Instant) -> Result<Outcome, Gone> {
        let mut outcome = Outcome::default();
        if let Some(problem) = &self.runs.problem {
            self.state.findings.insert(Finding::new(
                "StateDirUnwritable",
                "runs",
                format!("can't write into stateDir ({problem}): with another address this agent would not know its own record again after a restart, and wait a minute"),
            ));
        }
        let snapshot = self.snapshots.borrow_and_update().clone();
        let answering = self.store_findings(snapshot.as_deref());
        if self.health.borrow().as_ref().is_err_and(|trouble| trouble.detached) {
            outcome = outcome.not_ready("store");
        }
        let watched = self.watch(snapshot.as_ref());
        let looked = self.look(watched, now).await?;
        if let Some(deaf) = &self.state.deaf {
            self.state.findings.insert(Finding::new(
                "KernelEventsLost",
                "",
                format!(
                    "the kernel's notifications can't be read ({}): what others change is repaired only every {} s until they can; it is tried again and again",
                    deaf.error,
                    self.limits.audit.as_secs()
                ),
            ));
        }
        let observed = match looked {
            Ok(observed) => Arc::new(observed),
            Err(error) => return Ok(self.unreadable(&error, outcome)),
        };
        let underlay_stands = self.settle_underlay(&observed, now);
        if !underlay_stands {
            outcome = outcome.not_ready("underlay");
        }
        if let Err(error) = self.settle_tunnels(&observed, snapshot.as_deref(), now).await? {
            return Ok(self.unreadable(&error, outcome));
        }
        let mut own =
            plan::own_record(&self.name, &self.config, &self.state.local, &self.state.tunnels.offered);
        own.instance = self.runs.ids.first().cloned();
        if let Some(facts) = &self.facts {
            let stored =
                snapshot.as_ref().and_then(|snapshot| snapshot.nodes.get(&self.name)).map(AsRef::as_ref);
            own.labels = labels(&own.labels, &facts.borrow(), stored);
        }
        if !self.state.local.is_empty() {
            self.wanted_record.send_if_modified(|wanted| {
                let changed = wanted.as_ref() != Some(&own);
                *wanted = Some(own.clone());
                changed
            });
        }
        let Some(snapshot) = snapshot else { return Ok(outcome.not_ready("store")) };
        self.state.revision = snapshot.revision;
        // What is remembered tells nothing of what became of the node while it was off.
        let may_be_old = snapshot.rebuilding && !self.restarting;
        let runs = self.runs.ids.iter().take(if may_be_old { 1 } else { usize::MAX });
        if !blocks::stands(&own, runs, &snapshot) {
            outcome = outcome.not_ready("record");
        }
        let Some(blocks) = self.blocks.borrow_and_update().clone() else {
            return Ok(outcome.not_ready("no-block"));
        };
        self.state.findings.extend(blocks.findings);
        if blocks.name_taken {
            return Ok(outcome.not_ready("name"));
        }
        if blocks.held.is_empty() {
            outcome = outcome.not_ready("no-block");
        }
        let braked = self.state.brake.pass(&self.config.brake, &self.name, &snapshot, now, answering);
        self.state.wakes.extend(braked.until);
        if !braked.held.is_empty() {
            let names: Vec<&str> = braked.held.iter().map(NodeName::as_str).collect();
            self.state.findings.insert(Finding::new(
                "PeersVanished",
                "",
                format!("{} vanished from the store at once and are kept for a while: if they are gone for good nothing is to be done, else look at the store", names.join(", ")),
            ));
        }
        if !underlay_stands && self.state.local.is_empty() {
            // Never known since the start: nothing can be planned, and nothing is removed.
            return Ok(outcome);
        }
        // Sessions have their time from now on: before, nobody knew whom to have them with.
        let hold_until = *self.hold_until.get_or_insert(now + self.config.bgp.restart_time);
        let holding = now < hold_until;
        if holding {
            self.state.wakes.push(hold_until);
        }
        let (sessions, learned) = self.bgp.learned();
        let shared = Shared {
            config: Arc::clone(&self.config),
            snapshot: Arc::clone(&braked.snapshot),
            sessions: Arc::clone(&sessions),
            learned: Arc::clone(&learned),
        };
        let world = World {
            own: &own,
            config: &self.config,
            snapshot: &braked.snapshot,
            held: &blocks.held,
            local: &self.state.local,
            ip_tunnels: &self.state.tunnels.wanted,
            observed: &observed,
            sessions: &sessions,
            learned: &learned,
            memory: &self.state.memory,
            judged: &self.state.judged,
            now,
            holding,
            cordoned: self.facts.as_ref().is_some_and(|facts| facts.borrow().cordoned),
        };
        let plan = planned::plan(&mut self.state.planned, &world, shared);
        self.state.sessions = sessions;
        if self.bgp.ensure(speaker::identity(&self.config, &own, self.restarting)) {
            self.hold_until = Some(now + self.config.bgp.restart_time);
            // The sessions are others now than those that were planned with.
            self.state.wakes.push(now);
        }
        self.bgp.tell(&plan);
        self.plan_findings(&plan, now);
        if self.state.plan.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &plan)) {
            self.count_flips(&plan);
        }
        self.state.memory = Arc::clone(&plan.memory);
        self.state.judged = Arc::clone(&plan.judged);
        let wakes = plan.memory.values().filter_map(PairMemory::wake).filter(|wake| *wake > now);
        self.state.wakes.extend(wakes);
        self.forwarding_findings(&observed, &blocks.held);
        if underlay_stands {
            outcome = self.program(observed, &plan, answering, now, outcome).await?;
        } else {
            self.state.repairs.forget();
            self.state.present = Arc::new(Arc::unwrap_or_clone(observed).ours);
        }
        self.state.plan = Some(plan);
        Ok(outcome)
    }

    /// Prefixes for which routes of others matter.
    fn watch(&mut self, snapshot: Option<&Arc<Snapshot>>) -> Arc<[IpNet]> {
        if let Some(watched) = &self.state.watched
            && Arc::ptr_eq(&watched.config, &self.config)
            && watched.snapshot.as_ref().map(Arc::as_ptr) == snapshot.map(Arc::as_ptr)
        {
            return Arc::clone(&watched.prefixes);
        }
        let nothing = Snapshot::default();
        let prefixes = plan::watched(&self.config, snapshot.map_or(&nothing, AsRef::as_ref));
        let watched = Watched {
            config: Arc::clone(&self.config),
            snapshot: snapshot.cloned(),
            prefixes: prefixes.as_slice().into(),
        };
        self.kernel_events.watch(prefixes);
        Arc::clone(&self.state.watched.insert(watched).prefixes)
    }

    /// Without a whole look at the kernel nothing is done.
    fn unreadable(&mut self, error: &ObserveError, outcome: Outcome) -> Outcome {
        self.state.findings.insert(Finding::new(
            "KernelUnreadable",
            "",
            format!("{}: nothing is changed until it can be read", chain(error)),
        ));
        outcome.not_ready("dataplane").failed()
    }

    /// The first passes keep what they find of peers if too much of it would go.
    fn brake_at_start(
        &mut self,
        plan: &Plan,
        observed: &Observed,
        answering: bool,
        now: Instant,
    ) -> Arc<State> {
        let pools: Vec<_> = self.config.pools.iter().map(|pool| pool.cidr).collect();
        let (limits, found) = (&self.config.brake, &observed.ours);
        let started = self.state.start_brake.pass(limits, &pools, &plan.dataplane, found, now, answering);
        if let Some(Held { gone, all, until }) = started.held {
            self.state.wakes.extend(until);
            self.state.findings.insert(Finding::new(
                "PeersVanished",
                "",
                format!("the store lacks blocks of {gone} of the {all} peers that the kernel has routes to: all of them are kept for a while; if they are gone for good nothing is to be done, else look at the store"),
            ));
        }
        started.state
    }

    /// Counts and logs what was undone by others, and looks out for who does it again and again.
    fn note_repairs(&mut self, plan: &Plan, observed: &Observed, report: &Report, now: Instant) {
        let state = &mut self.state;
        let before =
            state.plan.as_ref().map(|last| Before { wanted: &last.dataplane, present: &state.present });
        let (found, wanted, audit) = (&observed.ours, &plan.dataplane, self.limits.audit);
        let repaired = state.repairs.note(before, found, wanted, report, now, audit);
        repairs::log(&repaired);
        for change in repaired {
            let (object, _) = present::kind(change);
            *state.counters.repairs.entry(object.to_owned()).or_default() += 1;
        }
        state.findings.extend(state.repairs.findings(observed));
        state.wakes.extend(state.repairs.wakes(now, audit));
    }

    /// Brings the kernel to the plan.
    async fn program(
        &mut self,
        observed: Arc<Observed>,
        plan: &Plan,
        answering: bool,
        now: Instant,
        outcome: Outcome,
    ) -> Result<Outcome, Gone> {
        let wanted = self.brake_at_start(plan, &observed, answering, now);
        if let Err(error) = self.state_dir.remember_originals(&observed, &wanted) {
            self.state.findings.insert(Finding::new(
                "StateDirUnwritable",
                "rp_filter",
                format!(
                    "can't write into stateDir ({error}): `pairway uninstall` will not restore rp_filter"
                ),
            ));
        }
        let wanted = self.state.repairs.restrain(wanted, &observed.ours, now);
        self.expect(&wanted);
        let report = self.dataplane.reconcile(Arc::clone(&observed), Arc::clone(&wanted)).await?;
        self.note_repairs(plan, &observed, &report, now);
        self.count_firewall(&observed.netfilter);
        let mut rest = Arc::unwrap_or_clone(observed);
        let found = std::mem::take(&mut rest.ours);
        let rp_filter = found.rp_filter.clone();
        self.state.present = present::present(found, &rest.interfaces, &report.applied, &wanted);
        if *self.state.diverted != report.diverted {
            self.state.diverted = Arc::new(report.diverted.clone());
        }
        self.offer_tunnels(now);
        self.count_changes(&report, plan);
        let lost = self.blocks.borrow().as_ref().map_or_else(Vec::new, |blocks| blocks.lost.clone());
        for conflict in &report.conflicts {
            self.state.findings.insert(Finding::new(
                "Conflict",
                &conflict.wanted,
                format!(
                    "{} is in the way of {}: {}",
                    conflict.found,
                    conflict.wanted,
                    in_use::hint(conflict, &lost)
                ),
            ));
        }
        let (missing, refused): (Vec<_>, Vec<_>) =
            report.failures.iter().partition(|failure| firewall::lacks_support(failure));
        for failure in missing {
            self.state.findings.insert(plan::firewall_unavailable(&failure.error.to_string()));
        }
        let failures: Vec<String> = refused
            .into_iter()
            .map(|failure| format!("can't {}: {}", failure.change, failure.error))
            .collect();
        for failure in failures.iter().filter(|failure| !self.state.failures.contains(failure)) {
            tracing::warn!("{failure}");
        }
        if let Some(first) = failures.first() {
            self.state.findings.insert(Finding::new(
                "KernelRefused",
                "",
                format!(
                    "the kernel refuses {} of the changes that are needed, the first: {first}; they are tried again, `pairway status` lists them{}",
                    failures.len(),
                    refused::advice(&report.failures)
                ),
            ));
        }
        self.state.written = report.applied;
        self.state.failures = failures;
        self.state.applied = self.state.failures.is_empty();
        if !self.state.applied {
            return Ok(outcome.not_ready("dataplane").failed());
        }
        let (present, written) = (Arc::clone(&self.state.present), std::mem::take(&mut self.state.written));
        self.know(Done { rest, rp_filter, asked: &wanted, present: &present, written: &written });
        self.state.written = written;
        self.state.asked = Some(wanted);
        if !self.state.marked {
            match self.state_dir.mark_run() {
                Ok(()) => self.state.marked = true,
                Err(error) => {
                    self.state.findings.insert(Finding::new(
                        "StateDirUnwritable",
                        "",
                        format!("can't write into stateDir ({error}): the next restart will not be silent"),
                    ));
                }
            }
        }
        Ok(outcome)
    }
}
