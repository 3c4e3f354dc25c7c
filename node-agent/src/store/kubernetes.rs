//! The Kubernetes API as a store.
//!
//! Records are cluster-wide objects of the group `pairway.dev`, one resource per kind (`objects`), named as in every store;
//! `spec` is the record. A claim is the creation of the object named after the block. What a node has in the store is
//! owned by its Node object (`own_node`), so that it goes with the node. Signs of life are Leases, which nobody watches:
//! a heartbeat wakes no agent.
//!
//! Of this node's network the store tells those who look at the Node: by a condition, Events and the record's status
//! (`announce`).
//!
//! Each resource is listed and watched by itself (`follow`). A server that is away, denies, is slow or lacks the resources
//! is a matter of health; nothing is shown before every list was complete, and what was shown stands.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams, Preconditions};
use kube::{Api, Client};
use tokio::sync::{Notify, mpsc, watch};

use self::own_node::OwnNode;
use super::kind::Kind;
pub use super::remote::RemoteOptions;
use super::remote::RemoteStore;
use super::remote::backend::{Backend, Event, Failure, Feed, Key, Stored};
use super::{ClaimOutcome, Health, NodeFacts, PoolOutcome, Store, StoreError};
use crate::node::{Block, Claim, NodeName, NodeRecord, PoolRecord, Snapshot};
use crate::status::{Condition, Published};

mod announce;
mod client;
mod crds;
mod events;
mod failure;
mod follow;
mod life;
mod network_condition;
mod objects;
mod own_node;
mod record_status;

pub use self::crds::custom_resource_definitions;
pub use self::objects::GROUP;

/// Objects listed at once.
const PAGE: u32 = 500;

/// How the Kubernetes API is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesOptions {
    /// The file that says where the API server is and who we are; `None`: as a pod is told, else `KUBECONFIG`.
    pub kubeconfig: Option<PathBuf>,
    /// Which of its contexts; `None`: the current one.
    pub context: Option<String>,
    /// Where the Leases are; `None`: the namespace of the pod or of the context.
    pub namespace: Option<String>,
    /// A server that writes nothing for so long is gone. Longer than a minute: a watch gets a bookmark so often.
    pub silence: Duration,
    /// The API group of the resources. It is always [`GROUP`], but for tests that share a server.
    pub group: String,
    /// What is the same for every store on a server. The Node object of its node owns what the agent makes; without a node
    /// nothing has an owner.
    pub remote: RemoteOptions,
}

impl Default for KubernetesOptions {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            namespace: None,
            silence: Duration::from_secs(90),
            group: GROUP.to_owned(),
            remote: RemoteOptions::default(),
        }
    }
}

/// The Kubernetes API as a store. Dropping it ends its tasks.
#[derive(Debug)]
pub struct KubernetesStore {
    remote: RemoteStore<Kubernetes>,
    kubernetes: Arc<Kubernetes>,
    facts: watch::Receiver<NodeFacts>,
    is_bound: bool,
}

impl KubernetesStore {
    /// Begins to follow the store. One that does not answer says so in its health, and is tried again.
    #[must_use]
    pub fn open(options: KubernetesOptions) -> Self {
        let (remote, is_bound) = (options.remote.clone(), options.remote.node.is_some());
        let kubernetes = Arc::new(Kubernetes::new(options));
        let facts = kubernetes.own.facts();
        let remote = RemoteStore::start(Arc::clone(&kubernetes), "the Kubernetes API", remote);
        Self { remote, kubernetes, facts, is_bound }
    }
}

#[derive(Debug)]
struct Kubernetes {
    options: KubernetesOptions,
    connected: Mutex<Option<Connected>>,
    own: OwnNode,
    positions: [Mutex<follow::Position>; Kind::ALL.len()],
    /// Objects that this node's Node should own, and which owner they have.
    ours: Mutex<BTreeMap<Key, Option<String>>>,
    ours_changed: Notify,
    /// This node's record was made.
    record_made: Notify,
}

/// A client, and the namespace that it was told.
#[derive(Clone)]
struct Connected {
    client: Client,
    namespace: String,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Kubernetes {
    fn new(options: KubernetesOptions) -> Self {
        Self {
            own: OwnNode::new(options.remote.node.clone()),
            options,
            connected: Mutex::new(None),
            positions: std::array::from_fn(|_| Mutex::default()),
            ours: Mutex::default(),
            ours_changed: Notify::new(),
            record_made: Notify::new(),
        }
    }

    fn ours(&self) -> MutexGuard<'_, BTreeMap<Key, Option<String>>> {
        // Each change is one insertion or removal.
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn api(&self, kind: Kind) -> Result<Api<DynamicObject>, Failure> {
        Ok(Api::all_with(self.connected().await?.client, &objects::resource(&self.options.group, kind)))
    }

    /// The connection may be at fault, or what it was told of who we are: the next one is told anew.
    fn failed(&self, what: &str, error: &kube::Error) -> Failure {
        if failure::is_of_the_connection(error) {
            *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        failure::told(what, error)
    }

    async fn stored_object(&self, key: &Key) -> Result<Option<DynamicObject>, Failure> {
        match self.api(key.kind).await?.get(&key.name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if failure::is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("get", &error)),
        }
    }
}

#[async_trait]
impl Backend for Kubernetes {
    fn feeds(&self) -> &'static [Feed] {
        const NODES: Feed = &[Kind::Node];
        const CLAIMS: Feed = &[Kind::Claim];
        const POOLS: Feed = &[Kind::Pool];
        const RELEASED: Feed = &[Kind::Released];
        // Our own Node object, which holds no record.
        const OWN_NODE: Feed = &[];
        &[NODES, CLAIMS, POOLS, RELEASED, OWN_NODE]
    }

    async fn follow(&self, feed: usize, events: &mpsc::Sender<Event>) -> Failure {
        match Kind::ALL.get(feed) {
            Some(kind) => self.follow_kind(*kind, events).await,
            None => self.follow_own_node(events).await,
        }
    }

    async fn read(&self, key: &Key) -> Result<Option<Stored>, Failure> {
        Ok(self.stored_object(key).await?.as_ref().map(objects::stored))
    }

    async fn list(&self, kind: Kind) -> Result<Vec<(Key, Stored)>, Failure> {
        let api = self.api(kind).await?;
        let (mut records, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
        loop {
            let list = api.list(&page).await.map_err(|error| self.failed("list", &error))?;
            records.extend(
                list.items
                    .iter()
                    .filter_map(|object| Some((objects::key(kind, object)?, objects::stored(object)))),
            );
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
                None => return Ok(records),
            }
        }
    }

    async fn create(&self, key: &Key, content: &[u8]) -> Result<Option<u64>, Failure> {
        let metadata = ObjectMeta {
            name: Some(key.name.clone()),
            owner_references: self.owner_of(key, content)?.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        let object = objects::object(&self.options.group, key.kind, metadata, content)?;
        match self.api(key.kind).await?.create(&PostParams::default(), &object).await {
            Ok(created) => {
                if key.kind == Kind::Node && self.own.name().is_some_and(|own| own.as_str() == key.name) {
                    self.record_made.notify_one();
                }
                Ok(Some(objects::version(&created)))
            }
            Err(error) if failure::has_code(&error, 409) => Ok(None),
            Err(error) => Err(self.failed("create", &error)),
        }
    }

    async fn replace(&self, key: &Key, content: &[u8], version: u64) -> Result<bool, Failure> {
        let Some(stored) = self.stored_object(key).await? else { return Ok(false) };
        if objects::version(&stored) != version {
            return Ok(false);
        }
        // With its resource version: whoever changes it meanwhile wins.
        let object = objects::object(&self.options.group, key.kind, stored.metadata, content)?;
        match self.api(key.kind).await?.replace(&key.name, &PostParams::default(), &object).await {
            Ok(_) => Ok(true),
            Err(error) if failure::has_code(&error, 409) || failure::is_absent(&error) => Ok(false),
            Err(error) => Err(self.failed("update", &error)),
        }
    }

    async fn remove(&self, key: &Key, version: Option<u64>) -> Result<bool, Failure> {
        let preconditions =
            version.map(|version| Preconditions { resource_version: Some(version.to_string()), uid: None });
        let params = DeleteParams { preconditions, ..DeleteParams::background() };
        match self.api(key.kind).await?.delete(&key.name, &params).await {
            Ok(_) => Ok(true),
            Err(error) if failure::has_code(&error, 409) || failure::is_absent(&error) => Ok(false),
            Err(error) => Err(self.failed("delete", &error)),
        }
    }

    async fn sign(&self, node: &NodeName) -> Result<(), Failure> {
        self.renew_lease(node).await
    }

    async fn last_sign(&self, node: &NodeName) -> Result<Option<Timestamp>, Failure> {
        self.lease_renewed(node).await
    }

    async fn forget_signs(&self, node: &NodeName) -> Result<(), Failure> {
        self.remove_lease(node).await
    }
}

super::remote::is_a_store! {
    KubernetesStore,
    remote,
    fn node_facts(&self) -> Option<watch::Receiver<NodeFacts>> {
        self.is_bound.then(|| self.facts.clone())
    }

    async fn announce(
        &self,
        published: watch::Receiver<Arc<Published>>,
        trouble: watch::Sender<Option<Condition>>,
    ) {
        // Three loops in one.
        Box::pin(self.kubernetes.announce(published, trouble)).await;
    }
}

#[cfg(test)]
pub(crate) mod tests;
