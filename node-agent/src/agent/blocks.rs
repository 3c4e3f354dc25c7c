//! The keeper of what this node has in the store: its record, its claims and its signs of life. A task of its
//! own, because a store may take its time; it ends when the agent's tasks are ended.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::Config;
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::name::NameGate;
use crate::claims::{ClaimKeeper, Claims, HEARTBEAT, Release, Released};
use crate::node::{Block, NodeName, NodeRecord, Snapshot};
use crate::plan::Finding;
use crate::status::CommandError;
use crate::store::{NodeFacts, Store};
use crate::telemetry::chain;

/// A sign of life that failed is given again after this time.
const SIGN_AGAIN: Duration = Duration::from_secs(2);

/// What the loop sees of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Blocks {
    /// Blocks held, oldest first; a lost one is not among them.
    pub held: Vec<Block>,
    /// Those that other nodes have by now.
    pub lost: Vec<Block>,
    /// What an operator should know.
    pub findings: BTreeSet<Finding>,
    /// Another agent has this node's name: nothing else is known, and nothing is to be touched.
    pub name_taken: bool,
}

/// What is asked of the keeper.
#[derive(Debug)]
pub(super) enum Request {
    /// One more block per family, or one from this pool.
    Claim { pool: Option<IpNet>, answer: oneshot::Sender<Result<Vec<String>, CommandError>> },
    /// Give this block back.
    Release {
        block: Block,
        force: bool,
        /// What of others still has its addresses.
        in_use: Vec<String>,
        answer: oneshot::Sender<Result<Released, CommandError>>,
    },
}

impl Request {
    /// Answers that it is not done.
    pub(super) fn refuse(self, error: CommandError) {
        // Nobody waits any more if the client has gone.
        match self {
            Self::Claim { answer, .. } => drop(answer.send(Err(error))),
            Self::Release { answer, .. } => drop(answer.send(Err(error))),
        }
    }
}

/// What the keeper reads and writes.
pub(super) struct Keeper {
    pub name: NodeName,
    pub state_dir: PathBuf,
    pub store: Arc<dyn Store>,
    pub config: watch::Receiver<Arc<Config>>,
    pub record: watch::Receiver<Option<NodeRecord>>,
    pub requests: mpsc::Receiver<Request>,
    pub blocks: watch::Sender<Option<Blocks>>,
    pub gate: NameGate,
    /// What the store knows of the node; asked for when the keeper runs.
    pub facts: Option<watch::Receiver<NodeFacts>>,
}

impl Keeper {
    /// Keeps until nobody listens any more.
    pub(super) async fn run(mut self) {
        let mut claims = ClaimKeeper::open(self.name.clone(), self.state_dir.clone()).await;
        let mut snapshots = self.store.snapshots();
        self.facts = self.store.node_facts();
        let mut next_sign = Instant::now();
        let mut sign_problem = None;
        let mut request: Option<Request> = None;
        loop {
            let mut wake;
            let config = Arc::clone(&self.config.borrow_and_update());
            let record = self.record.borrow_and_update().clone();
            let snapshot = snapshots.borrow_and_update().clone();
            if let (Some(record), Some(snapshot)) = (&record, &snapshot) {
                let store = self.store.as_ref();
                if let Some(taken) = self.gate.look(store, record, claims.remembers(), snapshot).await {
                    if let Some(request) = request.take() {
                        request.refuse(name_taken(&taken.finding.message));
                    }
                    wake = Instant::now() + taken.again_in;
                    self.show(Blocks {
                        held: Vec::new(),
                        lost: Vec::new(),
                        findings: [taken.finding].into(),
                        name_taken: true,
                    });
                    if self.wait(&mut snapshots, &mut request, wake).await {
                        continue;
                    }
                    return;
                }
                let before = claims.held();
                let mut release = None;
                match request.take() {
                    Some(Request::Claim { pool, answer }) => {
                        let more =
                            claims.claim_more(store, &config, record, snapshot, pool, Timestamp::now()).await;
                        let texts = more.map(|blocks| blocks.iter().map(Block::to_string).collect());
                        // Nobody waits any more if the client has gone.
                        drop(answer.send(texts));
                    }
                    Some(Request::Release { block, force, in_use, answer }) => {
                        let now = Timestamp::now();
                        let order = Release { block, force };
                        let result = claims.release(store, &config, record, snapshot, order, now).await;
                        release = Some((result.map(|released| Released { in_use, ..released }), answer));
                    }
                    None => (),
                }
                let found = claims.pass(store, &config, record, snapshot, Timestamp::now()).await;
                if let Some((result, answer)) = release {
                    // What takes its place belongs to the answer.
                    drop(answer.send(result.map(|released| released.followed_by(&before, &found))));
                }
                if Instant::now() >= next_sign {
                    let sign = store.heartbeat(&self.name).await;
                    sign_problem = sign.err().map(|error| chain(&error));
                    // One that failed is tried again soon, so that the condition goes with its cause.
                    next_sign = Instant::now() + if sign_problem.is_none() { HEARTBEAT } else { SIGN_AGAIN };
                }
                wake = next_sign;
                if let Some(after) = found.retry_after {
                    wake = wake.min(Instant::now() + after);
                }
                self.tell(&found, sign_problem.as_deref());
            } else {
                // Nothing to do before both are known.
                wake = Instant::now() + HEARTBEAT;
                if let Some(request) = request.take() {
                    request.refuse(not_yet(snapshot.is_some()));
                }
            }
            if !self.wait(&mut snapshots, &mut request, wake).await {
                return;
            }
        }
    }

    /// Waits for a reason to look again. `false`: nobody listens any more. Every arm only receives.
    async fn wait(
        &mut self,
        snapshots: &mut watch::Receiver<Option<Arc<Snapshot>>>,
        request: &mut Option<Request>,
        wake: Instant,
    ) -> bool {
        tokio::select! {
            Ok(()) = snapshots.changed() => true,
            Ok(()) = self.config.changed() => true,
            Some(()) = news(&mut self.facts) => true,
            changed = self.record.changed() => changed.is_ok(),
            next = self.requests.recv() => {
                *request = next;
                request.is_some()
            }
            () = sleep_until(wake) => true,
        }
    }

    fn tell(&self, claims: &Claims, sign_problem: Option<&str>) {
        let mut findings: BTreeSet<Finding> = claims
            .conditions
            .iter()
            .map(|condition| Finding::new(condition.kind, &condition.subject, condition.message.as_str()))
            .collect();
        if let Some(problem) = sign_problem {
            findings.insert(Finding::new(
                "HeartbeatFailed",
                "",
                format!("can't give a sign of life, other nodes may take this one for gone: {problem}"),
            ));
        }
        self.show(Blocks {
            held: claims.blocks(),
            lost: claims.lost.iter().map(|lost| lost.block).collect(),
            findings,
            name_taken: false,
        });
    }

    fn show(&self, blocks: Blocks) {
        let new = Some(blocks);
        self.blocks.send_if_modified(|old| {
            let changed = *old != new;
            *old = new;
            changed
        });
    }
}

/// What the store knows of this node has changed; `None` from a store that knows nothing of nodes.
pub(super) async fn news(facts: &mut Option<watch::Receiver<NodeFacts>>) -> Option<()> {
    match facts {
        Some(facts) => facts.changed().await.ok(),
        None => None,
    }
}

fn name_taken(message: &str) -> CommandError {
    CommandError {
        code: "not-ready".to_owned(),
        message: message.to_owned(),
        hint: "give one of the two another node.name".to_owned(),
    }
}

fn not_yet(listed: bool) -> CommandError {
    let message =
        if listed { "this node has no underlay address yet" } else { "the store has not answered yet" };
    CommandError {
        code: "not-ready".to_owned(),
        message: message.to_owned(),
        hint: "`pairway status` says what is missing".to_owned(),
    }
}

/// Whether the store holds the record as wanted; unknown fields are not ours to compare. One of an earlier run of this agent
/// (`runs`) that says the same is as good: all that others go by stands there, and an agent that starts while the store can't
/// be written to has what it needs.
pub(super) fn stands<'r>(
    record: &NodeRecord,
    mut runs: impl Iterator<Item = &'r String>,
    snapshot: &Snapshot,
) -> bool {
    snapshot.nodes.get(&record.name).is_some_and(|stored| {
        let mut stored =
            NodeRecord { unknown: record.unknown.clone(), contender: None, ..NodeRecord::clone(stored) };
        if stored.instance.as_ref().is_some_and(|run| runs.any(|own| own == run)) {
            stored.instance.clone_from(&record.instance);
        }
        stored == *record
    })
}
