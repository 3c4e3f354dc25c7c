//! The loop: one level-triggered pass over whole values, whatever has woken it.
//!
//! A pass observes the kernel, makes the world, plans, tells the speaker, reconciles the kernel and publishes
//! what it did. Events only wake it, so first start, restart, lost event and repair are one code path. The loop
//! runs on a current-thread runtime; calls that block are on the data plane's thread ([`crate::dataplane`]),
//! and two kinds of tasks run beside it, owned by the loop's `JoinSet` and ended with it: the keeper of what
//! this node has in the store, and one short task for each command that asks the store.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bgp::Family;
use bgp::speaker::{Shutdown, SpeakerStatus};
use config::Config;
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use vxlan::{Dataplane, Observed, Report, State};

use crate::dataplane::{DataplaneThread, Gone};
use crate::liveness::Liveness;
use crate::node::{NodeName, NodeNameError, NodeRecord, Snapshot};
use crate::path::{Path, Reason};
use crate::plan::{self, Finding, Memory, Plan, World};
use crate::reload::{self, ConfigSource};
use crate::status::{
    AgentHandle, Command, Condition, Counters, Published, STORE_UNAVAILABLE, Status, rfc3339,
};
use crate::store::Store;
use crate::underlay::{self, Local};

mod backoff;
mod blocks;
mod brake;
mod commands;
mod conditions;
mod present;
mod publish;
mod speaker;
mod state_dir;

pub use brake::BrakeLimits;
pub use speaker::{Bgp, StartBgp, real as real_bgp};
pub use state_dir::{StateDir, StateDirError};

use backoff::Backoff;
use blocks::{Blocks, Keeper};
use brake::Brake;
use conditions::Conditions;
use speaker::{News, Running};

/// What an agent is made of.
pub struct AgentParts {
    /// Configuration of this node.
    pub config: Config,
    /// Where it comes from, to follow its changes; `None`: it never changes.
    pub source: Option<ConfigSource>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The kernel.
    pub dataplane: Box<dyn Dataplane>,
    /// Says that something of interest has changed in the kernel.
    pub kernel_events: Box<dyn KernelEvents>,
    /// Starts the BGP speaker.
    pub bgp: StartBgp,
    /// The loop's promise to be heard of.
    pub liveness: Liveness,
    /// Conditions of other parts of the process: an HTTP port in use.
    pub troubles: Vec<watch::Receiver<Option<Condition>>>,
    /// Times and shares.
    pub limits: Limits,
}

/// What wakes the loop when somebody changes the kernel.
#[async_trait]
pub trait KernelEvents: Send {
    /// Prefixes for which routes of others matter.
    fn watch(&mut self, prefixes: Vec<IpNet>);
    /// Waits for a change. Cancel-safe.
    async fn changed(&mut self) -> io::Result<()>;
}

/// Wakes that a task of somebody else's makes, which knows by itself what to watch.
#[async_trait]
impl KernelEvents for mpsc::Receiver<()> {
    fn watch(&mut self, _prefixes: Vec<IpNet>) {}

    async fn changed(&mut self) -> io::Result<()> {
        self.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

/// Times and shares that hold for every agent; tests shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// When peers that vanish at once are kept.
    pub brake: BrakeLimits,
    /// The kernel is looked at so often when nothing happens.
    pub audit: Duration,
    /// Events are gathered for so long.
    pub debounce: Duration,
    /// How long an underlay address may be away before it counts as gone, while the other family's stands.
    pub underlay_grace: Duration,
    /// A session that has not come up for so long is reported.
    pub session_patience: Duration,
    /// First and longest wait after a failure.
    pub retry: (Duration, Duration),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            brake: BrakeLimits::default(),
            audit: Duration::from_secs(30),
            debounce: Duration::from_millis(20),
            underlay_grace: Duration::from_secs(30),
            session_patience: Duration::from_secs(30),
            retry: (Duration::from_millis(250), Duration::from_secs(30)),
        }
    }
}

/// An agent that can't start, or has to end.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The name is none.
    #[error("can't start under this name")]
    Name(#[from] NodeNameError),
    /// The state directory.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// No thread for the data plane.
    #[error("can't start the data plane's thread")]
    Thread(#[source] io::Error),
    /// The data plane's thread has died.
    #[error(transparent)]
    Dataplane(#[from] Gone),
    /// A task of the agent has died.
    #[error("a task of the agent has ended: {0}")]
    Task(String),
}

/// An agent, ready to run.
pub struct Agent {
    name: NodeName,
    config: Arc<Config>,
    config_changes: watch::Sender<Arc<Config>>,
    source: Option<ConfigSource>,
    store: Arc<dyn Store>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    health: watch::Receiver<Result<(), String>>,
    dataplane: DataplaneThread,
    /// `None` once it has failed: then the audit alone finds what others change.
    kernel_events: Option<Box<dyn KernelEvents>>,
    bgp: Running,
    liveness: Liveness,
    troubles: Vec<watch::Receiver<Option<Condition>>>,
    limits: Limits,
    state_dir: StateDir,
    tasks: JoinSet<Task>,
    wanted_record: watch::Sender<Option<NodeRecord>>,
    blocks: watch::Receiver<Option<Blocks>>,
    block_requests: mpsc::Sender<blocks::Request>,
    commands: mpsc::Receiver<Command>,
    published: watch::Sender<Arc<Published>>,
    started_at: Timestamp,
    /// The speaker says at start that our forwarding state was kept.
    restarting: bool,
    /// Until when native pairs found in the kernel may wait for their sessions.
    hold_until: Instant,
    state: Between,
}

/// What one pass leaves to the next.
struct Between {
    local: Local,
    /// Since when an underlay address is away.
    away: BTreeMap<Family, Instant>,
    /// Since when a pair waits for the first life of its session.
    waiting: BTreeMap<(NodeName, Family), Instant>,
    brake: Brake,
    start_brake: StartBrake,
    memory: Memory,
    plan: Option<Plan>,
    present: State,
    sessions: Arc<SpeakerStatus>,
    revision: u64,
    conditions: Conditions,
    refused_config: Option<String>,
    findings: BTreeSet<Finding>,
    counters: Counters,
    failures: Vec<String>,
    /// The data plane has been applied without failure by the last pass.
    applied: bool,
    marked: bool,
    not_ready: Vec<String>,
    backoff: Backoff,
    wakes: Vec<Instant>,
}

/// The brake of the first passes, which know no earlier snapshot: the kernel tells what was there.
#[derive(Debug, Clone, Copy)]
enum StartBrake {
    Armed,
    Holding(Instant),
    Off,
}

/// Which task has ended.
enum Task {
    Keeper,
    Command,
}

enum Wake {
    Stop,
    Pass,
    Publish,
    Command(Command),
    Config,
    Deaf(io::Error),
    Ended(Result<Task, tokio::task::JoinError>),
}

impl Agent {
    /// Takes the lock of the state directory and makes an agent of its parts.
    ///
    /// # Errors
    /// The node's name is none, another agent runs with this state directory, or the system has no thread to give.
    pub fn new(parts: AgentParts) -> Result<(Self, AgentHandle), AgentError> {
        let name: NodeName = parts.config.node.name.parse()?;
        let state_dir = StateDir::lock(&parts.config.state_dir)?;
        let restarting = state_dir.ran_before();
        let dataplane = DataplaneThread::start(parts.dataplane).map_err(AgentError::Thread)?;
        let (command_sender, commands) = mpsc::channel(16);
        let (published, seen) = watch::channel(Arc::default());
        let now = Instant::now();
        let config = Arc::new(parts.config);
        let limits = parts.limits;
        let state = Between {
            local: Local::default(),
            away: BTreeMap::new(),
            waiting: BTreeMap::new(),
            brake: Brake::new(limits.brake),
            start_brake: StartBrake::Armed,
            memory: Memory::new(),
            plan: None,
            present: State::default(),
            sessions: Arc::default(),
            revision: 0,
            conditions: Conditions::default(),
            refused_config: None,
            findings: BTreeSet::new(),
            counters: Counters::default(),
            failures: Vec::new(),
            applied: false,
            marked: false,
            not_ready: vec!["starting".to_owned()],
            backoff: Backoff::new(limits.retry.0, limits.retry.1),
            wakes: Vec::new(),
        };
        let (block_requests, requests) = mpsc::channel(16);
        let (blocks_sender, blocks) = watch::channel(None);
        let (wanted_record, wanted) = watch::channel(None);
        let config_changes = watch::Sender::new(Arc::clone(&config));
        let keeper = Keeper {
            name: name.clone(),
            state_dir: config.state_dir.clone(),
            store: Arc::clone(&parts.store),
            config: config_changes.subscribe(),
            record: wanted,
            requests,
            blocks: blocks_sender,
        };
        let mut tasks = JoinSet::new();
        spawn(&mut tasks, async {
            keeper.run().await;
            Task::Keeper
        });
        let agent = Self {
            hold_until: now + config.bgp.restart_time,
            snapshots: parts.store.snapshots(),
            health: parts.store.health(),
            name,
            config,
            config_changes,
            source: parts.source,
            store: parts.store,
            dataplane,
            kernel_events: Some(parts.kernel_events),
            bgp: Running::new(parts.bgp),
            liveness: parts.liveness,
            troubles: parts.troubles,
            limits,
            state_dir,
            tasks,
            wanted_record,
            blocks,
            block_requests,
            commands,
            published,
            started_at: Timestamp::now(),
            restarting,
            state,
        };
        Ok((agent, AgentHandle { published: seen, commands: command_sender }))
    }

    /// Runs until `stop`: then sessions are closed without a word and the data plane is left as it is.
    ///
    /// # Errors
    /// The data plane's thread or a task has died. The process should end and be started again.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), AgentError> {
        tracing::info!(node = %self.name, restarting = self.restarting, "the agent runs");
        let result = self.passes(&stop).await;
        self.tasks.shutdown().await;
        self.bgp.shutdown(Shutdown::Silent).await;
        self.dataplane.close().await;
        tracing::info!("the agent ends; the data plane stays as it is");
        result
    }

    async fn passes(&mut self, stop: &CancellationToken) -> Result<(), AgentError> {
        self.pass().await?;
        loop {
            match self.wait(stop).await {
                Wake::Stop => return Ok(()),
                Wake::Pass => {
                    // What comes in a burst is looked at once.
                    if stop.run_until_cancelled(sleep(self.limits.debounce)).await.is_none() {
                        return Ok(());
                    }
                    self.pass().await?;
                }
                Wake::Publish => self.publish(),
                Wake::Command(command) => self.command(command),
                Wake::Config => {
                    self.reload();
                    self.pass().await?;
                }
                Wake::Deaf(error) => {
                    tracing::error!(%error, "the kernel's notifications have ended");
                    self.kernel_events = None;
                    self.pass().await?;
                }
                Wake::Ended(Ok(Task::Command)) => (),
                Wake::Ended(Ok(Task::Keeper)) => {
                    return Err(AgentError::Task("the keeper of the blocks has stopped".to_owned()));
                }
                Wake::Ended(Err(error)) => return Err(AgentError::Task(error.to_string())),
            }
        }
    }

    /// Waits for a reason to do something. Every arm only receives: what a cancelled arm has not received stays
    /// where it is.
    async fn wait(&mut self, stop: &CancellationToken) -> Wake {
        let now = Instant::now();
        let deadline = self.state.wakes.iter().copied().min().unwrap_or(now + self.limits.audit);
        self.liveness.promise(deadline.saturating_duration_since(now) + Duration::from_secs(60));
        {
            let config_wake = async {
                match &mut self.source {
                    Some(source) => source.wakes.recv().await,
                    None => None,
                }
            };
            let kernel_event = async {
                match &mut self.kernel_events {
                    Some(events) => events.changed().await,
                    None => std::future::pending().await,
                }
            };
            let trouble = any_changed(&mut self.troubles);
            tokio::select! {
                biased;
                () = stop.cancelled() => Wake::Stop,
                Some(command) = self.commands.recv() => Wake::Command(command),
                Some(ended) = self.tasks.join_next() => Wake::Ended(ended),
                Some(()) = config_wake => Wake::Config,
                Ok(()) = self.snapshots.changed() => Wake::Pass,
                Ok(()) = self.blocks.changed() => Wake::Pass,
                changed = kernel_event => match changed {
                    Ok(()) => Wake::Pass,
                    Err(error) => Wake::Deaf(error),
                },
                Ok(()) = self.health.changed() => Wake::Pass,
                () = trouble => Wake::Publish,
                news = self.bgp.changed() => match news {
                    News::Routes => Wake::Pass,
                    News::Status => {
                        let status = self.bgp.peek();
                        let same = speaker::gist(&status) == speaker::gist(&self.state.sessions);
                        if same { Wake::Publish } else { Wake::Pass }
                    }
                },
                () = sleep_until(deadline) => Wake::Pass,
            }
        }
    }

    async fn pass(&mut self) -> Result<(), Gone> {
        let began = Instant::now();
        self.state.findings.clear();
        self.state.wakes = vec![began + self.limits.audit];
        let outcome = self.look_and_act(began).await?;
        self.state.not_ready = outcome.not_ready;
        if outcome.failed {
            let wait = self.state.backoff.failed();
            self.state.wakes.push(Instant::now() + wait);
        } else {
            self.state.backoff.succeeded();
        }
        self.state.counters.record_pass(began.elapsed());
        self.publish();
        Ok(())
    }

    async fn look_and_act(&mut self, now: Instant) -> Result<Outcome, Gone> {
        let mut outcome = Outcome::default();
        let snapshot = self.snapshots.borrow_and_update().clone();
        let answering = self.store_findings(snapshot.as_deref());
        let nothing = Snapshot::default();
        let watched = plan::watched(&self.config, snapshot.as_deref().unwrap_or(&nothing));
        match &mut self.kernel_events {
            Some(events) => events.watch(watched.clone()),
            None => {
                self.state.findings.insert(Finding::new(
                    "KernelEventsLost",
                    "",
                    format!(
                        "the kernel's notifications can't be read any more: what others change is repaired only every {} s until the agent is restarted",
                        self.limits.audit.as_secs()
                    ),
                ));
            }
        }
        let observed = match self.dataplane.observe(watched).await? {
            Ok(observed) => Arc::new(observed),
            Err(error) => {
                let text = blocks::chain(&error);
                self.state.findings.insert(Finding::new(
                    "KernelUnreadable",
                    "",
                    format!("{text}: nothing is changed until it can be read"),
                ));
                return Ok(outcome.not_ready("dataplane").failed());
            }
        };
        let underlay_stands = self.settle_underlay(&observed, now);
        if !underlay_stands {
            outcome = outcome.not_ready("underlay");
        }
        let own = plan::own_record(&self.name, &self.config, &self.state.local);
        if !self.state.local.is_empty() {
            self.wanted_record.send_if_modified(|wanted| {
                let changed = wanted.as_ref() != Some(&own);
                *wanted = Some(own.clone());
                changed
            });
        }
        let Some(snapshot) = snapshot else { return Ok(outcome.not_ready("store")) };
        self.state.revision = snapshot.revision;
        if !blocks::stands(&own, &snapshot) {
            outcome = outcome.not_ready("record");
        }
        let Some(blocks) = self.blocks.borrow_and_update().clone() else {
            return Ok(outcome.not_ready("no-block"));
        };
        self.state.findings.extend(blocks.findings);
        if blocks.held.is_empty() {
            outcome = outcome.not_ready("no-block");
        }
        let braked = self.state.brake.pass(&self.name, &snapshot, now, answering);
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
        let holding = now < self.hold_until;
        if holding {
            self.state.wakes.push(self.hold_until);
        }
        let (sessions, learned) = self.bgp.learned();
        let plan = plan::plan(&World {
            own: &own,
            config: &self.config,
            snapshot: &braked.snapshot,
            held: &blocks.held,
            local: &self.state.local,
            observed: &observed,
            sessions: &sessions,
            learned: &learned,
            memory: &self.state.memory,
            holding,
        });
        self.state.sessions = sessions;
        if self.bgp.ensure(speaker::identity(&self.config, &own, self.restarting)).await {
            self.hold_until = Instant::now() + self.config.bgp.restart_time;
        }
        self.bgp.tell(&plan.peers, &plan.announce);
        self.plan_findings(&plan, now);
        self.count_flips(&plan);
        self.state.memory.clone_from(&plan.memory);
        if underlay_stands {
            outcome = self.program(observed, &plan, now, outcome).await?;
        } else {
            self.state.present = observed.ours.clone();
        }
        self.state.plan = Some(plan);
        Ok(outcome)
    }

    /// Brings the kernel to the plan.
    async fn program(
        &mut self,
        observed: Arc<Observed>,
        plan: &Plan,
        now: Instant,
        outcome: Outcome,
    ) -> Result<Outcome, Gone> {
        let wanted = self.brake_at_start(plan, &observed, now);
        if let Err(error) = self.state_dir.remember_originals(&observed, &wanted) {
            self.state.findings.insert(Finding::new(
                "StateDirUnwritable",
                "rp_filter",
                format!(
                    "can't write into stateDir ({error}): `pairway uninstall` will not restore rp_filter"
                ),
            ));
        }
        let report = self.dataplane.reconcile(Arc::clone(&observed), wanted).await?;
        self.state.present = present::present(&observed.ours, &report.applied);
        self.count_changes(&report, plan);
        for conflict in &report.conflicts {
            self.state.findings.insert(Finding::new(
                "Conflict",
                &conflict.wanted,
                format!("{} is in the way of {}: {}", conflict.found, conflict.wanted, conflict.hint),
            ));
        }
        let failures: Vec<String> = report
            .failures
            .iter()
            .map(|failure| format!("can't {}: {}", failure.change, failure.error))
            .collect();
        for failure in failures.iter().filter(|failure| !self.state.failures.contains(failure)) {
            tracing::warn!("{failure}");
        }
        self.state.failures = failures;
        self.state.applied = self.state.failures.is_empty();
        if !self.state.applied {
            return Ok(outcome.not_ready("dataplane").failed());
        }
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

    /// The first passes keep what they find of peers if most of them would go.
    fn brake_at_start(&mut self, plan: &Plan, observed: &Observed, now: Instant) -> State {
        let limits = self.limits.brake;
        let drops = brake::drops_too_many(limits, &plan.dataplane, &observed.ours);
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
        brake::keep(&plan.dataplane, &observed.ours)
    }

    /// Takes over the underlay as it is now. An address that is away keeps its place: for ever if it is the last,
    /// for a while if the other family stands. `false`: all of it is away, the data plane stays as it is.
    fn settle_underlay(&mut self, observed: &Observed, now: Instant) -> bool {
        let pools: Vec<_> = self.config.pools.iter().map(|pool| pool.cidr).collect();
        let choice = underlay::choose(&self.config.node.underlay, &pools, observed, &self.state.local);
        let stands = choice.problem.is_none();
        for family in Family::ALL {
            match (choice.local.of(family), self.state.local.of(family)) {
                (Some(found), _) => {
                    self.state.local.set(family, Some(found.clone()));
                    self.state.away.remove(&family);
                }
                (None, None) => (),
                (None, Some(known)) => {
                    let (known, since) = (known.address, *self.state.away.entry(family).or_insert(now));
                    let until = since + self.limits.underlay_grace;
                    if stands && now >= until {
                        self.state.local.set(family, None);
                        self.state.away.remove(&family);
                        continue;
                    }
                    if stands {
                        self.state.wakes.push(until);
                    }
                    self.state.findings.insert(Finding::new(
                        "UnderlayMissing",
                        family,
                        format!("the underlay address {known} is away: the data plane stays as it is"),
                    ));
                }
            }
        }
        if let Some(problem) = choice.problem {
            self.state.findings.insert(Finding::new("UnderlayMissing", "", problem));
        }
        stands
    }

    /// What the store says of itself. Whether it answers.
    fn store_findings(&mut self, snapshot: Option<&Snapshot>) -> bool {
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

    fn plan_findings(&mut self, plan: &Plan, now: Instant) {
        let findings = &mut self.state.findings;
        findings.extend(plan.findings.iter().cloned());
        for (address, error) in &self.state.sessions.listen_errors {
            findings.insert(Finding::new(
                "BgpPortInUse",
                address,
                format!("can't listen on {address} ({error}): sessions that this node opens and tunnels go on; set bgp.port or bgp.listen if another speaker has the port"),
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
                let error = session.and_then(|session| session.last_error.as_deref());
                let error = error.map_or_else(String::new, |error| format!(" ({error})"));
                findings.insert(Finding::new(
                    "BgpSessionDown",
                    &pair.peer,
                    format!("{}{error}", decision.detail),
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

    fn count_flips(&mut self, plan: &Plan) {
        for pair in &plan.pairs {
            let before = self.state.memory.get(&(pair.peer.clone(), pair.family)).map(|memory| memory.path);
            let (path, reason) = (pair.decision.path, pair.decision.reason);
            match before {
                Some(before) if before != path => {
                    tracing::info!(peer = %pair.peer, family = %pair.family, from = %before, to = %path, %reason, "path changes: {}", pair.decision.detail);
                    let key = (before.to_string(), path.to_string(), reason.to_string());
                    *self.state.counters.flips.entry(key).or_default() += 1;
                }
                Some(_) => (),
                None => {
                    tracing::debug!(peer = %pair.peer, family = %pair.family, %path, %reason, "pair: {}", pair.decision.detail);
                }
            }
        }
    }

    fn count_changes(&mut self, report: &Report, plan: &Plan) {
        let counters = &mut self.state.counters;
        for change in &report.applied {
            let (object, operation) = present::kind(change);
            tracing::debug!(?change, "kernel changed");
            *counters.changes.entry((object.to_owned(), operation.to_owned())).or_default() += 1;
        }
        for failure in &report.failures {
            let (object, _) = present::kind(&failure.change);
            *counters.change_failures.entry(object.to_owned()).or_default() += 1;
        }
        counters.objects_wanted = present::counts(&plan.dataplane)
            .into_iter()
            .map(|(kind, count)| (kind.to_owned(), u64::try_from(count).unwrap_or(u64::MAX)))
            .collect();
        counters.conflicts = u64::try_from(report.conflicts.len()).unwrap_or(u64::MAX);
    }

    /// Reads the configuration again, and takes it over or says why not.
    fn reload(&mut self) {
        let Some(source) = &self.source else { return };
        let loaded = (source.load)();
        let snapshot = self.snapshots.borrow().clone();
        let held = self.blocks.borrow().as_ref().map_or_else(Vec::new, |blocks| blocks.held.clone());
        let refused = match loaded {
            Err(problem) => Some(problem),
            Ok(new) => match reload::take_over(&self.config, &new, snapshot.as_deref(), &held) {
                Err(refused) => Some(refused.to_string()),
                Ok(changes) => {
                    for change in &changes {
                        tracing::info!(
                            key = change.key,
                            from = change.from,
                            to = change.to,
                            "configuration changes"
                        );
                    }
                    if !changes.is_empty() {
                        self.config = Arc::new(new);
                        self.config_changes.send_replace(Arc::clone(&self.config));
                    }
                    None
                }
            },
        };
        if let Some(refused) = &refused
            && self.state.refused_config.as_ref() != Some(refused)
        {
            tracing::error!("{refused}");
        }
        self.state.refused_config = refused;
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::ClaimBlock { pool, answer } => {
                commands::claim_block(&self.config, &self.block_requests, pool, answer);
            }
            Command::DeleteNode { name, force, answer } => {
                let (store, own) = (Arc::clone(&self.store), self.name.clone());
                spawn(&mut self.tasks, async move {
                    // Nobody waits any more if the client has gone.
                    drop(answer.send(commands::delete_node(store.as_ref(), &own, &name, force).await));
                    Task::Command
                });
            }
        }
    }

    /// Publishes what is known, with the sessions as they are now.
    fn publish(&mut self) {
        let sessions = self.bgp.peek();
        let mut findings = self.state.findings.clone();
        if let Some(refused) = &self.state.refused_config {
            findings.insert(Finding::new("ConfigRefused", "", refused.as_str()));
        }
        let mut conditions = self.state.conditions.update(findings, Timestamp::now());
        for trouble in &mut self.troubles {
            conditions.extend(trouble.borrow_and_update().clone());
        }
        conditions.sort();
        let state = &self.state;
        let blocks = self.blocks.borrow().as_ref().map_or_else(Vec::new, |blocks| blocks.held.clone());
        let local = &state.local;
        let health = self.health.borrow().clone();
        let status = Status {
            node: self.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            blocks: blocks.iter().map(ToString::to_string).collect(),
            ready: state.not_ready.is_empty(),
            not_ready_reasons: state.not_ready.clone(),
            conditions,
            revision: state.revision,
            underlay: Family::ALL
                .into_iter()
                .filter_map(|family| {
                    local.of(family).map(|found| (family.to_string(), found.address.to_string()))
                })
                .collect(),
            underlay_interface: local
                .ipv4
                .as_ref()
                .or(local.ipv6.as_ref())
                .map(|found| found.link.to_string()),
            tunnel_addresses: state
                .plan
                .iter()
                .flat_map(|plan| &plan.tunnel_addresses)
                .map(|(family, address)| (family.to_string(), address.to_string()))
                .collect(),
            store: store_text(&self.config.store, &health),
            pairs_by_path: state.plan.as_ref().map(publish::pairs_by_path).unwrap_or_default(),
            failures: state.failures.clone(),
            started_at: Some(rfc3339(self.started_at)),
        };
        let published = Published {
            status,
            pairs: state
                .plan
                .as_ref()
                .map(|plan| publish::pairs(&self.name, plan, &state.present))
                .unwrap_or_default(),
            routes: state.plan.as_ref().map(|plan| publish::routes(plan, &state.present)).unwrap_or_default(),
            neighbors: state
                .plan
                .as_ref()
                .map(|plan| publish::neighbors(plan, &sessions))
                .unwrap_or_default(),
            counters: state.counters.clone(),
        };
        self.published.send_replace(Arc::new(published));
    }
}

/// What a pass came to.
#[derive(Debug, Default)]
struct Outcome {
    not_ready: Vec<String>,
    failed: bool,
}

impl Outcome {
    fn not_ready(mut self, reason: &str) -> Self {
        self.not_ready.push(reason.to_owned());
        self
    }

    fn failed(mut self) -> Self {
        self.failed = true;
        self
    }
}

fn store_text(store: &config::Store, health: &Result<(), String>) -> String {
    let config::Store::File { path, .. } = store;
    match health {
        Ok(()) => format!("file {}", path.display()),
        Err(problem) => format!("file {}: {problem}", path.display()),
    }
}

async fn any_changed(troubles: &mut [watch::Receiver<Option<Condition>>]) {
    let mut waiting: futures_util::stream::FuturesUnordered<_> =
        troubles.iter_mut().map(watch::Receiver::changed).collect();
    loop {
        match futures_util::StreamExt::next(&mut waiting).await {
            Some(Ok(())) => return,
            // That part of the process has ended: it has no news any more.
            Some(Err(_)) => (),
            None => std::future::pending().await,
        }
    }
}

/// The one place where tasks are spawned: into the set that ends with the agent.
fn spawn(tasks: &mut JoinSet<Task>, task: impl Future<Output = Task> + Send + 'static) {
    tasks.spawn(task);
}

#[cfg(test)]
mod tests;
