//! Nodes of a test: each a whole agent with a kernel of its own, on one store and one fabric.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use config::Config;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vxlan::Lost;
use vxlan::fake::{Event, FakeKernel};

use super::super::state_dir::{RAN_IN_BOOT, StateDir};
use super::super::{Agent, AgentError, AgentParts, KernelEvents, Limits};
use super::fabric::Fabric;
use crate::liveness::Liveness;
use crate::plan::tests::config;
use crate::reload::ConfigSource;
use crate::status::{AgentHandle, Pair, Published};
use crate::store::memory::MemoryStore;

/// How long anything may take. Only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Cluster {
    pub store: MemoryStore,
    pub fabric: Fabric,
    pub nodes: BTreeMap<String, Node>,
}

pub(super) struct Node {
    pub kernel: FakeKernel,
    pub store: MemoryStore,
    pub config: Arc<Mutex<Result<Config, String>>>,
    pub limits: Limits,
    /// Whether the kernel's notifications fail.
    pub fault: watch::Sender<bool>,
    /// What they say was taken away, with the next change.
    lost: Arc<Mutex<Option<Lost>>>,
    /// What they say was taken away while the next pass writes.
    late: Arc<Mutex<Option<Lost>>>,
    /// What somebody does when they are asked next.
    at_hear: Arc<Mutex<Option<Deed>>>,
    running: Option<Running>,
    state_dir: TempDir,
}

struct Running {
    handle: AgentHandle,
    stop: CancellationToken,
    task: JoinSet<Result<(), AgentError>>,
    reload: mpsc::Sender<()>,
}

/// Short times, so that nothing that is due makes a test wait.
pub(super) fn limits() -> Limits {
    Limits {
        audit: Duration::from_secs(2),
        debounce: (Duration::from_millis(2), Duration::from_millis(2)),
        underlay_grace: Duration::from_millis(500),
        session_patience: Duration::from_millis(300),
        name_patience: Duration::from_millis(800),
        module_patience: Duration::from_millis(100),
        retry: (Duration::from_millis(5), Duration::from_millis(50)),
    }
}

fn brake() -> config::Brake {
    config::Brake {
        confirm_after: Duration::from_millis(600),
        grace: Duration::from_millis(1500),
        ..config::Brake::default()
    }
}

impl Cluster {
    pub(super) fn new() -> Self {
        Self { store: MemoryStore::new(), fabric: Fabric::default(), nodes: BTreeMap::new() }
    }

    /// Nodes that run, by name and underlay address, converged.
    pub(super) async fn of(nodes: &[(&str, &str)]) -> Self {
        let mut cluster = Self::new();
        for (name, address) in nodes {
            cluster.add(name, &[address]);
            cluster.start(name);
        }
        cluster.converged().await;
        cluster
    }

    pub(super) fn add(&mut self, name: &str, addresses: &[&str]) {
        self.add_as(name, name, addresses);
    }

    /// A node that says that it is called `name`.
    pub(super) fn add_as(&mut self, key: &str, name: &str, addresses: &[&str]) {
        let state_dir = tempfile::tempdir().unwrap();
        let config = Config { state_dir: state_dir.path().to_owned(), brake: brake(), ..config(name) };
        let node = Node {
            kernel: FakeKernel::node(addresses, 1500),
            store: self.store.another_view(),
            config: Arc::new(Mutex::new(Ok(config))),
            limits: limits(),
            fault: watch::Sender::new(false),
            lost: Arc::default(),
            late: Arc::default(),
            at_hear: Arc::default(),
            running: None,
            state_dir,
        };
        self.nodes.insert(key.to_owned(), node);
    }

    pub(super) fn start(&mut self, name: &str) {
        let fabric = self.fabric.clone();
        self.nodes.get_mut(name).unwrap().start(&fabric);
    }

    pub(super) fn node(&self, name: &str) -> &Node {
        &self.nodes[name]
    }

    /// Ends an agent as SIGTERM does.
    pub(super) async fn stop(&mut self, name: &str) {
        self.nodes.get_mut(name).unwrap().stop().await;
    }

    /// Every running agent is ready, sees all the others, and each pair is the same at both ends.
    pub(super) async fn converged(&self) {
        let running: Vec<&String> =
            self.nodes.iter().filter(|(_, node)| node.running.is_some()).map(|(name, _)| name).collect();
        for name in &running {
            self.node(name)
                .until("converged", |published| {
                    let others = running.iter().filter(|other| other != &name);
                    published.status.ready
                        && others.clone().all(|other| {
                            published.pairs.iter().any(|pair| pair.peer == **other && pair.ready)
                        })
                        && published.pairs.iter().all(settled)
                })
                .await;
        }
        self.symmetric();
    }

    /// Invariant 5, as far as both ends have settled.
    pub(super) fn symmetric(&self) {
        for (name, node) in self.nodes.iter().filter(|(_, node)| node.running.is_some()) {
            for pair in &node.published().pairs {
                let Some(other) = self.nodes.get(&pair.peer).filter(|node| node.running.is_some()) else {
                    continue;
                };
                let there = other.pair(name, &pair.family);
                assert_eq!((&pair.path, &pair.reason), (&there.path, &there.reason), "{pair:?}\n{there:?}");
            }
        }
    }

    pub(super) async fn path(&self, from: &str, to: &str, path: &str, reason: &str) {
        self.node(from)
            .until(&format!("{from} to {to}: {path} ({reason})"), |published| {
                let pair = published.pairs.iter().find(|pair| pair.peer == to);
                pair.is_some_and(|pair| pair.path == path && pair.reason == reason && pair.ready)
            })
            .await;
    }
}

/// A pair that waits for its session is on its way.
fn settled(pair: &Pair) -> bool {
    !["bgp-waiting", "bgp-held", "bgp-restarting"].contains(&pair.reason.as_str())
}

/// Notifications that can fail, by the kernel or as a whole.
struct Ears {
    kernel: FakeKernel,
    listening: bool,
    changes: mpsc::Receiver<()>,
    fault: watch::Receiver<bool>,
    lost: Arc<Mutex<Option<Lost>>>,
    late: Arc<Mutex<Option<Lost>>>,
    came_late: bool,
    at_hear: Arc<Mutex<Option<Deed>>>,
}

/// What somebody does at a moment.
type Deed = Box<dyn FnOnce() + Send>;

#[async_trait::async_trait]
impl KernelEvents for Ears {
    fn watch(&mut self, _prefixes: Vec<ipnet::IpNet>) {}

    fn expect(&mut self, _wanted: &Arc<vxlan::State>) {
        if let Some(late) = self.late.lock().unwrap().take() {
            *self.lost.lock().unwrap() = Some(late);
            self.came_late = true;
        }
    }

    fn lost(&mut self) -> Option<Lost> {
        self.lost.lock().unwrap().take()
    }

    fn hear(&mut self) -> std::io::Result<bool> {
        if !self.listening || *self.fault.borrow() {
            return Err(std::io::ErrorKind::NotConnected.into());
        }
        let deed = self.at_hear.lock().unwrap().take();
        if let Some(deed) = deed {
            deed();
        }
        if self.changes.try_recv().is_err() {
            return Ok(std::mem::take(&mut self.came_late));
        }
        let heard = self.kernel.hear();
        self.listening = heard.is_ok();
        heard.map(|()| true)
    }

    async fn changed(&mut self) -> std::io::Result<()> {
        if !self.listening {
            self.kernel.listen()?;
            self.listening = true;
            return Ok(());
        }
        if self.fault.has_changed().unwrap_or(false) && !*self.fault.borrow_and_update() {
            // As a subscription that works again does, it says that anything may have happened.
            return Ok(());
        }
        tokio::select! {
            biased;
            Ok(_) = self.fault.wait_for(|fault| *fault) => Err(std::io::Error::from_raw_os_error(24)),
            Some(()) = self.changes.recv() => {
                let heard = self.kernel.hear();
                self.listening = heard.is_ok();
                heard
            }
        }
    }
}

impl Node {
    fn start(&mut self, fabric: &Fabric) {
        assert!(self.running.is_none());
        let (agent, handle, reload) = self.make(fabric).unwrap();
        let mut task = JoinSet::new();
        let stop = CancellationToken::new();
        task.spawn(agent.run(stop.clone()));
        self.running = Some(Running { handle, stop, task, reload });
    }

    fn make(&self, fabric: &Fabric) -> Result<(Agent, AgentHandle, mpsc::Sender<()>), AgentError> {
        let (reload, wakes) = mpsc::channel(1);
        let config = Arc::clone(&self.config);
        let (events, kernel_events) = mpsc::channel(1);
        self.kernel.on_change(move || {
            let _ = events.try_send(());
        });
        let (agent, handle) = Agent::new(AgentParts {
            config: self.config.lock().unwrap().clone().unwrap(),
            source: Some(ConfigSource { load: Box::new(move || config.lock().unwrap().clone()), wakes }),
            store: Arc::new(self.store.clone()),
            dataplane: Box::new(self.kernel.clone()),
            kernel_events: Box::new(Ears {
                kernel: self.kernel.clone(),
                listening: true,
                changes: kernel_events,
                fault: self.fault.subscribe(),
                lost: Arc::clone(&self.lost),
                late: Arc::clone(&self.late),
                came_late: false,
                at_hear: Arc::clone(&self.at_hear),
            }),
            bgp: fabric.speakers(),
            liveness: Liveness::new(PATIENCE),
            troubles: Vec::new(),
            limits: self.limits.clone(),
        })?;
        Ok((agent, handle, reload))
    }

    /// The machine was off: nothing of this boot has been programmed. (What the kernel holds is left as it is.)
    pub(super) fn boot(&self) {
        std::fs::remove_file(self.state_dir.path().join(RAN_IN_BOOT)).unwrap();
    }

    /// A second agent beside the one that runs.
    pub(super) fn second(&self) -> AgentError {
        self.make(&Fabric::default()).err().unwrap()
    }

    pub(super) async fn stop(&mut self) {
        let mut running = self.running.take().unwrap();
        running.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, running.task.join_next()).await;
        ended.expect("the agent does not end").unwrap().unwrap().unwrap();
    }

    /// Waits until the agent ends by itself.
    pub(super) async fn ended(&mut self) -> AgentError {
        let mut running = self.running.take().unwrap();
        let ended = tokio::time::timeout(PATIENCE, running.task.join_next()).await;
        ended.expect("the agent does not end").unwrap().unwrap().unwrap_err()
    }

    /// What the node kept across restarts is lost.
    pub(super) fn lose_state(&mut self) {
        assert!(self.running.is_none());
        self.state_dir = tempfile::tempdir().unwrap();
        self.config.lock().unwrap().as_mut().unwrap().state_dir = self.state_dir.path().to_owned();
    }

    /// The agent dies without a chance to do anything.
    pub(super) fn kill(&mut self) {
        drop(self.running.take());
    }

    pub(super) fn handle(&self) -> &AgentHandle {
        &self.running.as_ref().unwrap().handle
    }

    pub(super) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.handle().published.borrow())
    }

    pub(super) fn pair(&self, peer: &str, family: &str) -> Pair {
        let published = self.published();
        let pair = published.pairs.iter().find(|pair| pair.peer == peer && pair.family == family);
        pair.unwrap_or_else(|| panic!("no pair with {peer}: {:#?}", published.pairs)).clone()
    }

    pub(super) fn conditions(&self) -> Vec<String> {
        self.published().status.conditions.iter().map(|condition| condition.kind.clone()).collect()
    }

    /// Changes the configuration and lets the agent look at it.
    pub(super) fn reconfigure(&self, change: impl FnOnce(&mut Config)) {
        let mut config = self.config.lock().unwrap();
        change(config.as_mut().unwrap());
        drop(config);
        self.reload();
    }

    pub(super) fn reload(&self) {
        let _ = self.running.as_ref().unwrap().reload.try_send(());
    }

    /// Waits until what is published is as wanted, and says what it was if it never is.
    pub(super) async fn until(&self, what: &str, wanted: impl FnMut(&Published) -> bool) -> Arc<Published> {
        let mut seen = self.handle().published.clone();
        let mut wanted = wanted;
        let found = tokio::time::timeout(PATIENCE, seen.wait_for(|published| wanted(published))).await;
        match found {
            Ok(published) => Arc::clone(&published.expect("the agent has ended")),
            Err(_) => panic!("never {what}: {:#?}", self.handle().published.borrow()),
        }
    }

    pub(super) async fn until_condition(&self, kind: &str) {
        self.until(kind, |published| published.status.conditions.iter().any(|c| c.kind == kind)).await;
    }

    pub(super) async fn until_no_condition(&self, kind: &str) {
        self.until(&format!("without {kind}"), |published| {
            published.status.conditions.iter().all(|c| c.kind != kind)
        })
        .await;
    }

    /// Somebody takes objects away, and the kernel's notifications say which.
    pub(super) fn lose(&self, lost: Lost) {
        let gone = lost.clone();
        *self.lost.lock().unwrap() = Some(lost);
        self.kernel.tamper("objects taken away", |state| {
            state.neighbors.retain(|key, _| !gone.neighbors.contains(key));
            state.fdb.retain(|key, _| !gone.fdb.contains(key));
            state.routes.retain(|key, _| !gone.routes.contains(key));
        });
    }

    /// Does it when the notifications are asked next without waiting.
    pub(super) fn at_hear(&self, deed: impl FnOnce() + Send + 'static) {
        *self.at_hear.lock().unwrap() = Some(Box::new(deed));
    }

    /// The next pass, when it writes, is told that these objects were taken away.
    pub(super) fn tell_late(&self, lost: Lost) {
        *self.late.lock().unwrap() = Some(lost);
    }

    /// Waits for two passes that begin after this call.
    pub(super) async fn passes(&self) {
        for _ in 0..2 {
            let before = self.published().counters.passes;
            self.kernel.tamper("nothing", |_| ());
            self.until("another pass", |published| published.counters.passes > before).await;
        }
    }

    /// What this agent did to its kernel since the last [`FakeKernel::clear_events`].
    pub(super) fn changes(&self) -> Vec<Event> {
        let events = self.kernel.events();
        events.into_iter().filter(|event| !matches!(event, Event::Foreign(_))).collect()
    }

    /// Whether an agent holds the lock of the state directory.
    pub(super) fn locked(&self) -> bool {
        StateDir::lock(self.state_dir.path()).is_err()
    }
}
