//! A store on a server: what etcd and the Kubernetes API have in common.
//!
//! A backend ([`backend::Backend`]) reads, creates, replaces and removes single records by name and version, and tells
//! what changes. All that a store promises beyond that is made of these here, once, so that two servers can't differ.
//! There is no lock: a name excludes a second claim of the same block by itself; of two claims that overlap, or two
//! pools, the later one is taken back by whoever made it (`operations`).
//!
//! Nothing is shown before every kind of record was listed. An agent that starts while the server is away shows what the
//! state directory remembers, marked as a store that is not whole (`Snapshot::rebuilding`).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::backend::{Backend, Event, Failure, Key};
use self::tables::Tables;
use super::kind::Kind;
use super::last_good::LastGood;
use super::rebuild::Rebuild;
use super::record::Encoding;
use super::{ClaimOutcome, Health, PoolOutcome, Store, StoreError};
use crate::node::{Block, Claim, NodeName, NodeRecord, PoolRecord, Snapshot};

mod assemble;
pub(super) mod backend;
mod operations;
mod tables;

/// How a store on a server is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteOptions {
    /// Whose agent this is: by its own record a store that was emptied is known. `None` until it publishes one.
    pub node: Option<NodeName>,
    /// An operation that takes longer has failed.
    pub deadline: Duration,
    /// Changes that come within this time are shown together.
    pub debounce: Duration,
    /// Claims and the memories of releases are told apart from each other: a claim that goes is shown with its release.
    pub waits_for_releases: bool,
    /// How records are written.
    pub encoding: Encoding,
    /// Where what the store held is kept for the next start; `None` keeps it for this run only.
    pub last_good: Option<PathBuf>,
    /// How often that is written, at most.
    pub last_good_every: Duration,
    /// After so long without a complete list an agent that starts goes by what it remembers.
    pub patience: Duration,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            node: None,
            deadline: Duration::from_secs(10),
            debounce: Duration::from_millis(20),
            waits_for_releases: false,
            encoding: Encoding::default(),
            last_good: None,
            last_good_every: Duration::from_secs(10),
            patience: Duration::from_secs(5),
        }
    }
}

/// A store on a server. Dropping it ends its tasks.
#[derive(Debug)]
pub(super) struct RemoteStore<B> {
    backend: Arc<B>,
    shared: Arc<Shared>,
    options: RemoteOptions,
    /// Owns the tasks that follow the server.
    _tasks: JoinSet<()>,
}

/// What the operations and the feeds have in common.
#[derive(Debug)]
struct Shared {
    /// What the server is called in texts: `etcd`, `the Kubernetes API`.
    server: &'static str,
    tables: Mutex<Tables>,
    /// Grows whenever the tables change.
    told: watch::Sender<u64>,
    /// Grows whenever a feed that failed is well again.
    recovered: watch::Sender<u64>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    health: watch::Sender<Health>,
    troubles: Mutex<Troubles>,
    own: Mutex<Option<NodeName>>,
}

/// What does not work. Each feed and the operations fail and mend independently.
#[derive(Debug, Default)]
struct Troubles {
    feeds: Vec<Option<String>>,
    /// Which feed tells of releases.
    releases: Option<usize>,
    operations: Option<String>,
    /// What is shown is what the state directory remembers.
    stale: bool,
}

impl<B: Backend> RemoteStore<B> {
    /// Begins to follow the server. One that does not answer is a matter of health.
    pub(super) fn start(backend: Arc<B>, server: &'static str, options: RemoteOptions) -> Self {
        let feeds = backend.feeds();
        let options = RemoteOptions { waits_for_releases: feeds.len() > 1, ..options };
        let shared = Arc::new(Shared {
            server,
            tables: Mutex::default(),
            told: watch::Sender::new(0),
            recovered: watch::Sender::new(0),
            snapshots: watch::Sender::new(None),
            health: watch::Sender::new(Ok(())),
            troubles: Mutex::new(Troubles {
                feeds: vec![None; feeds.len()],
                releases: feeds.iter().position(|feed| feed.contains(&Kind::Released)),
                ..Troubles::default()
            }),
            own: Mutex::new(options.node.clone()),
        });
        let (told, hears) = mpsc::channel(1024);
        let mut tasks = JoinSet::new();
        for feed in 0..feeds.len() {
            tasks.spawn(assemble::follow(backend.clone(), shared.clone(), feed, told.clone()));
        }
        tasks.spawn(assemble::assemble(shared.clone(), options.clone(), hears));
        Self { backend, shared, options, _tasks: tasks }
    }

    /// Does what is to be done within the deadline; what comes of it is this store's health.
    async fn operation<T>(
        &self,
        operation: &'static str,
        record: String,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, StoreError> {
        let deadline = self.options.deadline;
        let result = match tokio::time::timeout(deadline, work).await {
            Ok(result) => result,
            Err(_) => {
                let server = self.shared.server;
                let text =
                    format!("no answer from {server} within {deadline:?}: is it overloaded or cut off?");
                Err(self.shared.own_failure().unwrap_or(Failure::Server(text)))
            }
        };
        match &result {
            Ok(_) | Err(Failure::Record(_)) => self.shared.trouble(|troubles| troubles.operations = None),
            Err(Failure::Server(text)) => {
                self.shared.trouble(|troubles| troubles.operations = Some(text.clone()));
            }
        }
        result.map_err(|source| StoreError { operation, record, source: Box::new(source) })
    }
}

impl Shared {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        // A row is whole at any time.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self) -> Option<NodeName> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in what a feed told.
    fn take(&self, event: Event, recall: &LastGood) -> bool {
        let changed = self.tables().take(event, recall);
        if changed {
            self.told.send_modify(|told| *told += 1);
        }
        changed
    }

    /// A claim that is shown is gone, and nothing says yet that it was given back.
    fn lacks_releases(&self) -> bool {
        let (shown, own) = (self.snapshots.borrow().clone(), self.own());
        let tables = self.tables();
        shown.is_some_and(|shown| {
            // Where this node's record has gone too it is the store that lost something.
            let is_loss = own.is_some_and(|own| tables.nodes.version(own.as_str()).is_none());
            !is_loss
                && shown.claims.keys().any(|block| {
                    let name = block.record_name();
                    tables.claims.version(&name).is_none() && tables.released.version(&name).is_none()
                })
        })
    }

    /// The feed of the releases fails.
    fn releases_fail(&self) -> bool {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.releases.is_some_and(|feed| troubles.feeds.get(feed).is_some_and(Option::is_some))
    }

    /// Nothing is shown yet, or only what was remembered.
    fn is_empty_handed(&self) -> bool {
        self.snapshots.borrow().is_none()
    }

    /// Shows what the tables hold, once they are whole. `true` if it is new.
    fn show_whole(&self, rebuild: &mut Rebuild, changed: bool) -> bool {
        if !changed && !rebuild.is_under_way() {
            return false;
        }
        let mut snapshot = {
            let tables = self.tables();
            if !tables.is_whole() {
                return false;
            }
            tables.snapshot()
        };
        let rebuilding = rebuild.look(self.own().as_ref(), &snapshot, Instant::now());
        snapshot.rebuilding = rebuilding;
        self.trouble(|troubles| troubles.stale = false);
        let is_new = self.show(snapshot);
        if !rebuilding && let Some(shown) = &*self.snapshots.borrow() {
            rebuild.remember(shown);
        }
        is_new
    }

    /// Shows what was known when the agent ended, for want of better.
    fn show_stale(&self, last_good: &LastGood) {
        let Some(mut snapshot) = last_good.snapshot() else {
            // An empty one would say that there is nobody.
            return;
        };
        tracing::warn!(
            server = self.server,
            nodes = snapshot.nodes.len(),
            claims = snapshot.claims.len(),
            "the store does not answer; until it does, this agent goes by what it remembers"
        );
        // What is missing in it says nothing of who is gone, and nothing new is claimed by it.
        snapshot.rebuilding = true;
        self.trouble(|troubles| troubles.stale = true);
        self.show(snapshot);
    }

    fn show(&self, mut snapshot: Snapshot) -> bool {
        self.snapshots.send_if_modified(|shown| {
            let last = shown.as_ref().map_or(0, |shown| shown.revision);
            snapshot.revision = last;
            if shown.as_deref() == Some(&snapshot) {
                return false;
            }
            snapshot.revision = last + 1;
            *shown = Some(Arc::new(snapshot));
            true
        })
    }

    fn feed_is_well(&self, feed: usize) {
        let mut had_failed = false;
        self.trouble(|troubles| {
            had_failed = troubles.feeds.get_mut(feed).is_some_and(|trouble| trouble.take().is_some());
        });
        if had_failed {
            self.recovered.send_modify(|recovered| *recovered += 1);
        }
    }

    fn feed_failed(&self, feed: usize, failure: &Failure) {
        self.trouble(|troubles| {
            if let Some(trouble) = troubles.feeds.get_mut(feed) {
                *trouble = Some(failure.to_string());
            }
        });
    }

    /// What the feeds say of a server that did not answer in time.
    fn own_failure(&self) -> Option<Failure> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.feeds.iter().flatten().next().map(|text| Failure::Server(text.clone()))
    }

    fn trouble(&self, change: impl FnOnce(&mut Troubles)) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut troubles);
        let first = troubles.feeds.iter().flatten().next().or(troubles.operations.as_ref());
        let health = match first {
            Some(text) if troubles.stale => {
                Err(format!("{text}. This agent goes by what it remembers of its last run").into())
            }
            Some(text) => Err(text.clone().into()),
            None => Ok(()),
        };
        self.health.send_if_modified(|shown| {
            let is_new = *shown != health;
            if is_new {
                *shown = health;
            }
            is_new
        });
    }
}

#[async_trait]
impl<B: Backend> Store for RemoteStore<B> {
    fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.shared.snapshots.subscribe()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    async fn publish(&self, record: &NodeRecord) -> Result<(), StoreError> {
        *self.shared.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(record.name.clone());
        let key = Key::node(&record.name);
        self.operation("publish", key.to_string(), self.do_publish(&key, record)).await
    }

    async fn heartbeat(&self, node: &NodeName) -> Result<(), StoreError> {
        let key = Key::node(node);
        self.operation("touch", key.to_string(), self.do_heartbeat(&key, node)).await
    }

    async fn last_seen(&self, node: &NodeName) -> Result<Option<Timestamp>, StoreError> {
        let key = Key::node(node);
        self.operation("look at", key.to_string(), self.do_last_seen(&key, node)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        let key = Key::claim(claim.block);
        self.operation("claim", key.to_string(), self.do_claim(&key, claim, false)).await
    }

    async fn release(&self, block: Block, holder: &NodeName) -> Result<bool, StoreError> {
        let key = Key::claim(block);
        self.operation("release", key.to_string(), self.do_release(&key, block, holder)).await
    }

    async fn mend_claim(&self, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        let key = Key::claim(claim.block);
        self.operation("mend", key.to_string(), self.do_claim(&key, claim, true)).await
    }

    async fn ensure_pool(&self, pool: &PoolRecord) -> Result<PoolOutcome, StoreError> {
        let key = Key::pool(pool.cidr);
        self.operation("create", key.to_string(), self.do_ensure_pool(&key, pool)).await
    }

    async fn remove_pool(&self, cidr: IpNet) -> Result<bool, StoreError> {
        let key = Key::pool(cidr);
        self.operation("remove", key.to_string(), self.do_remove_pool(&key, cidr)).await
    }

    async fn remove_node(&self, node: &NodeName) -> Result<bool, StoreError> {
        let key = Key::node(node);
        self.operation("remove", key.to_string(), self.do_remove_node(&key, node)).await
    }
}

/// A store around a [`RemoteStore`], whose server is nobody's business.
macro_rules! is_a_store {
    ($store:ty, $inner:tt $(, $($more:tt)+)?) => {
        #[async_trait]
        impl Store for $store {
            fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
                self.$inner.snapshots()
            }

            fn health(&self) -> watch::Receiver<Health> {
                self.$inner.health()
            }

            $($($more)+)?

            async fn publish(&self, record: &NodeRecord) -> Result<(), StoreError> {
                self.$inner.publish(record).await
            }

            async fn heartbeat(&self, node: &NodeName) -> Result<(), StoreError> {
                self.$inner.heartbeat(node).await
            }

            async fn last_seen(&self, node: &NodeName) -> Result<Option<Timestamp>, StoreError> {
                self.$inner.last_seen(node).await
            }

            async fn claim(&self, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
                self.$inner.claim(claim).await
            }

            async fn release(&self, block: Block, holder: &NodeName) -> Result<bool, StoreError> {
                self.$inner.release(block, holder).await
            }

            async fn mend_claim(&self, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
                self.$inner.mend_claim(claim).await
            }

            async fn ensure_pool(&self, pool: &PoolRecord) -> Result<PoolOutcome, StoreError> {
                self.$inner.ensure_pool(pool).await
            }

            async fn remove_pool(&self, cidr: IpNet) -> Result<bool, StoreError> {
                self.$inner.remove_pool(cidr).await
            }

            async fn remove_node(&self, node: &NodeName) -> Result<bool, StoreError> {
                self.$inner.remove_node(node).await
            }
        }
    };
}
pub(super) use is_a_store;
