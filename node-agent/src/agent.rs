//! The loop: one level-triggered pass over whole values, whatever has woken it.
//!
//! A pass observes the kernel, makes the world, plans, tells the speaker, reconciles the kernel and publishes
//! what it did. Events only wake it, so first start, restart, lost event and repair are one code path. The loop
//! runs on a current-thread runtime; calls that block are on the data plane's thread ([`crate::dataplane`]),
//! and two kinds of tasks run beside it, owned by the loop's `JoinSet` and ended with it: the keeper of what
//! this node has in the store, and one short task for each command that asks the store.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bgp::speaker::Shutdown;
use config::Config;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dataplane::{DataplaneThread, Gone};
use crate::liveness::Liveness;
use crate::node::{NodeName, NodeNameError, NodeRecord, Snapshot};
use crate::reload::ConfigSource;
use crate::status::{AgentHandle, Command, Condition, Published};
use crate::store::{Health, NodeFacts, Store};

mod backoff;
mod between;
mod blocks;
mod brake;
mod cni;
mod commands;
mod conditions;
mod counts;
mod findings;
mod firewall;
mod in_use;
mod known;
mod mend;
mod name;
mod parts;
mod pass;
mod planned;
mod present;
mod publish;
mod reconfigure;
mod refused;
mod repairs;
mod speaker;
mod state_dir;
mod tunnels;
mod underlay;
mod wait;

pub use parts::{AgentParts, KernelEvents, Limits};
pub use speaker::{Bgp, StartBgp, real as real_bgp};
pub use state_dir::{StateDir, StateDirError};

use between::{Between, Deaf};
use blocks::{Blocks, Keeper};
use name::NameGate;
use speaker::Running;
use state_dir::Runs;
use wait::Wake;

/// After a pass nothing is done for so many times as long as it took, as far as the limits allow.
const IDLE_BETWEEN_PASSES: u32 = 6;
/// The same before a pass that repairs.
const IDLE_BEFORE_REPAIRS: u32 = 2;

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
    health: watch::Receiver<Health>,
    facts: Option<watch::Receiver<NodeFacts>>,
    dataplane: DataplaneThread,
    kernel_events: Box<dyn KernelEvents>,
    bgp: Running,
    liveness: Liveness,
    troubles: Vec<watch::Receiver<Option<Condition>>>,
    cni_watch: crate::cni::Watch,
    limits: Limits,
    state_dir: StateDir,
    runs: Runs,
    tasks: JoinSet<Task>,
    wanted_record: watch::Sender<Option<NodeRecord>>,
    blocks: watch::Receiver<Option<Blocks>>,
    block_requests: mpsc::Sender<blocks::Request>,
    commands: mpsc::Receiver<Command>,
    published: watch::Sender<Arc<Published>>,
    started_at: Timestamp,
    /// The speaker says at start that our forwarding state was kept.
    restarting: bool,
    /// Until when native pairs found in the kernel may wait for their sessions; begins with the first snapshot.
    hold_until: Option<Instant>,
    state: Between,
}

/// Which task has ended.
enum Task {
    Keeper,
    Command,
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
        let runs = state_dir.begin_run(Timestamp::now());
        let dataplane = DataplaneThread::start(parts.dataplane).map_err(AgentError::Thread)?;
        let (command_sender, commands) = mpsc::channel(16);
        let (published, seen) = watch::channel(Arc::default());
        let config = Arc::new(parts.config);
        let limits = parts.limits;
        let mut state = Between::new(&limits);
        state.cni_places = state_dir.cni_places();
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
            gate: NameGate::new(runs.ids.clone(), limits.name_patience),
            facts: None,
        };
        let mut tasks = JoinSet::new();
        spawn(&mut tasks, async {
            keeper.run().await;
            Task::Keeper
        });
        let agent = Self {
            hold_until: None,
            snapshots: parts.store.snapshots(),
            health: parts.store.health(),
            facts: parts.store.node_facts(),
            name,
            config,
            config_changes,
            source: parts.source,
            store: parts.store,
            dataplane,
            kernel_events: parts.kernel_events,
            bgp: Running::new(parts.bgp),
            liveness: parts.liveness,
            troubles: parts.troubles,
            cni_watch: crate::cni::Watch::default(),
            limits,
            state_dir,
            runs,
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
                Wake::Pass => self.pass_soon(),
                Wake::Due => self.pass().await?,
                Wake::Heard => self.heard(Vec::new()).await?,
                Wake::Publish => self.publish(),
                Wake::Command(command) => self.command(command).await?,
                Wake::Config => {
                    self.reload();
                    self.pass().await?;
                }
                Wake::Deaf(error) => {
                    self.deafen(&error);
                    self.pass().await?;
                }
                Wake::Hearing => {
                    tracing::info!("the kernel's notifications can be read again");
                    self.state.deaf = None;
                    self.state.deaf_backoff.succeeded();
                    // What happened in between is unknown.
                    self.state.known = None;
                    self.pass().await?;
                }
                Wake::Dead(what) => return Err(AgentError::Task(what.to_owned())),
                Wake::Ended(Ok(Task::Command)) => (),
                Wake::Ended(Ok(Task::Keeper)) => {
                    return Err(AgentError::Task("the keeper of the blocks has stopped".to_owned()));
                }
                Wake::Ended(Err(error)) => return Err(AgentError::Task(error.to_string())),
            }
        }
    }

    /// What comes in a burst is looked at together.
    fn pass_soon(&mut self) {
        let gather = self.gather();
        self.state.due.get_or_insert_with(|| Instant::now() + gather);
    }

    /// What others did to ours waits for less, whatever else is waited for.
    fn repair_soon(&mut self) {
        let (least, most) = self.limits.debounce;
        let due = Instant::now() + (self.state.took * IDLE_BEFORE_REPAIRS).clamp(least, most);
        self.state.due = Some(self.state.due.map_or(due, |soonest| soonest.min(due)));
    }

    /// How long a pass waits for what else comes.
    fn gather(&self) -> Duration {
        let (least, most) = self.limits.debounce;
        (self.state.took * IDLE_BETWEEN_PASSES).clamp(least, most)
    }

    /// The kernel's notifications can't be read: they are listened for again later.
    fn deafen(&mut self, error: &io::Error) {
        let wait = self.state.deaf_backoff.failed();
        tracing::warn!(%error, again_in = ?wait, "the kernel's notifications can't be read");
        self.state.deaf = Some(Deaf { error: error.to_string(), again_at: Instant::now() + wait });
        self.state.known = None;
    }
}

/// The one place where tasks are spawned: into the set that ends with the agent.
fn spawn(tasks: &mut JoinSet<Task>, task: impl Future<Output = Task> + Send + 'static) {
    tasks.spawn(task);
}

#[cfg(test)]
mod tests;
