//! This node's own Node object: the owner of what the agent makes, and what Kubernetes says of the node.
//!
//! No other Node is ever read. A Node that is deleted and made again under its name has another UID, and the garbage
//! collector would take away what the old one owned, from under running pods: so the agent gives its objects the new
//! owner at once, and makes again what is gone already. While there is no Node nothing is made: it would stay for ever.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::follow::{answered, tell};
use super::network_condition::{self, Shown};
use super::{Kubernetes, failure, objects};
use crate::node::{Block, NodeName};
use crate::store::NodeFacts;
use crate::store::remote::backend::{Event, Failure, Key};

/// The server ends a watch after this many seconds.
const WATCH_SECONDS: std::ops::Range<u32> = 240..295;

/// Owners that could not be given are tried again this often.
const GIVE_AGAIN: Duration = Duration::from_secs(2);

/// What is known of the Node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Known {
    /// It was not looked for yet.
    #[default]
    Nothing,
    /// It does not exist.
    Absent,
    /// It has this UID.
    Uid(String),
}

/// This node's own Node object.
#[derive(Debug)]
pub(super) struct OwnNode {
    name: Option<NodeName>,
    known: watch::Sender<Known>,
    facts: watch::Sender<NodeFacts>,
    network: watch::Sender<Shown>,
}

impl OwnNode {
    pub(super) fn new(name: Option<NodeName>) -> Self {
        Self {
            name,
            known: watch::Sender::default(),
            facts: watch::Sender::default(),
            network: watch::Sender::default(),
        }
    }

    /// Whose Node it is.
    pub(super) fn name(&self) -> Option<&NodeName> {
        self.name.as_ref()
    }

    /// The Node's UID, as far as there is a Node.
    pub(super) fn uid(&self) -> Option<String> {
        match &*self.known.borrow() {
            Known::Uid(uid) => Some(uid.clone()),
            Known::Nothing | Known::Absent => None,
        }
    }

    /// What the Node says of its network.
    pub(super) fn network(&self) -> watch::Receiver<Shown> {
        self.network.subscribe()
    }

    pub(super) fn facts(&self) -> watch::Receiver<NodeFacts> {
        self.facts.subscribe()
    }

    /// Takes in what the Node says of its network, and nothing else: the watch may be behind an answer, and what it tells of
    /// the rest comes in its order.
    pub(super) fn learn_network(&self, node: Option<&DynamicObject>) {
        let network = node.map(network_condition::shown).unwrap_or_default();
        self.network.send_if_modified(|old| std::mem::replace(old, network.clone()) != network);
    }

    fn learn(&self, node: Option<&DynamicObject>) {
        let (known, facts) = match node {
            Some(node) => (Known::Uid(node.metadata.uid.clone().unwrap_or_default()), facts(node)),
            // What was said of it last holds: its pods still run.
            None => (Known::Absent, self.facts.borrow().clone()),
        };
        if known == Known::Absent && *self.known.borrow() != Known::Absent {
            let node = self.name.as_ref().map(ToString::to_string);
            tracing::warn!(node, "there is no Node object of this name: nothing is claimed until there is");
        }
        self.known.send_if_modified(|old| std::mem::replace(old, known.clone()) != known);
        self.facts.send_if_modified(|old| std::mem::replace(old, facts.clone()) != facts);
        self.learn_network(node);
    }
}

/// What a Node says that matters here.
fn facts(node: &DynamicObject) -> NodeFacts {
    let spec = node.data.get("spec");
    let texts = |key: &str| -> Vec<String> {
        let values = spec.and_then(|spec| spec.get(key)).and_then(|value| value.as_array());
        values.into_iter().flatten().filter_map(|value| Some(value.as_str()?.to_owned())).collect()
    };
    let mut cidrs = texts("podCIDRs");
    if cidrs.is_empty() {
        cidrs.extend(
            spec.and_then(|spec| spec.get("podCIDR")).and_then(|cidr| cidr.as_str()).map(str::to_owned),
        );
    }
    let blocks = cidrs.iter().filter_map(|cidr| cidr.parse().ok()).map(Block::new).collect();
    let labels: BTreeMap<String, String> = node.metadata.labels.clone().unwrap_or_default();
    let cordoned = spec.and_then(|spec| spec.get("unschedulable")).and_then(Value::as_bool) == Some(true);
    NodeFacts { known: true, labels, blocks, cordoned }
}

impl Kubernetes {
    /// The owner of what is to be made, if it is this node's.
    pub(super) fn owner_of(&self, key: &Key, content: &[u8]) -> Result<Option<OwnerReference>, Failure> {
        let Some(own) = self.own.name.as_ref().filter(|own| self.is_ours(own, key, content)) else {
            return Ok(None);
        };
        match &*self.own.known.borrow() {
            Known::Uid(uid) => Ok(Some(objects::reference(own, uid))),
            Known::Absent => Err(Failure::record(format!(
                "there is no Node object named {own}, so it would belong to nobody: register the node, or set node.name to the \
                 name that it has in Kubernetes"
            ))),
            Known::Nothing => Err(Failure::record(format!(
                "the Node object {own} has not been read yet; it is tried again"
            ))),
        }
    }

    fn is_ours(&self, own: &NodeName, key: &Key, content: &[u8]) -> bool {
        objects::whose(key, content).is_some_and(|whose| whose == own.as_str())
    }

    /// Remembers who owns an object, if it is this node's.
    pub(super) fn note_owner(&self, key: &Key, content: &[u8], metadata: &ObjectMeta) {
        let Some(own) = &self.own.name else { return };
        let owner = objects::owner(metadata);
        let mut ours = self.ours();
        let changed = if self.is_ours(own, key, content) {
            ours.insert(key.clone(), owner.clone()) != Some(owner)
        } else {
            ours.remove(key).is_some()
        };
        if changed {
            self.ours_changed.notify_one();
        }
    }

    /// Watches the Node, and gives what is this node's to it, until something fails.
    pub(super) async fn follow_own_node(&self, events: &mpsc::Sender<Event>) -> Failure {
        let Some(name) = &self.own.name else { return std::future::pending().await };
        let watching = async {
            loop {
                if let Err(failure) = self.watch_own_node(name, events).await {
                    return failure;
                }
            }
        };
        tokio::select! {
            failure = watching => failure,
            failure = self.give_owners(name) => failure,
        }
    }

    /// Nodes. Only this node's own is ever asked for.
    pub(super) async fn nodes(&self) -> Result<Api<DynamicObject>, Failure> {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            plural: "nodes".to_owned(),
        };
        Ok(Api::all_with(self.connected().await?.client, &resource))
    }

    async fn watch_own_node(&self, name: &NodeName, events: &mpsc::Sender<Event>) -> Result<(), Failure> {
        let api = self.nodes().await?;
        let field = format!("metadata.name={name}");
        let failed = |error: &kube::Error| self.failed("watch this Node", error);
        let page = ListParams::default().fields(&field);
        let list = answered(api.list(&page)).await?.map_err(|error| failed(&error))?;
        self.own.learn(list.items.first());
        tell(events, Event::Well).await?;
        let version = list.metadata.resource_version.unwrap_or_default();
        let params = WatchParams::default().fields(&field).timeout(fastrand::u32(WATCH_SECONDS));
        let stream = answered(api.watch(&params, &version)).await?.map_err(|error| failed(&error))?;
        let mut stream = pin!(stream);
        while let Some(event) = stream.next().await {
            match event.map_err(|error| failed(&error))? {
                WatchEvent::Added(node) | WatchEvent::Modified(node) => self.own.learn(Some(&node)),
                WatchEvent::Deleted(_) => self.own.learn(None),
                WatchEvent::Bookmark(_) => tell(events, Event::Well).await?,
                WatchEvent::Error(status) if status.code == 410 => return Ok(()),
                WatchEvent::Error(status) => return Err(failed(&kube::Error::Api(status))),
            }
        }
        Ok(())
    }

    /// Gives every object of this node's to its Node as it is now.
    async fn give_owners(&self, own: &NodeName) -> Failure {
        let mut known = self.own.known.subscribe();
        loop {
            let uid = match &*known.borrow_and_update() {
                Known::Uid(uid) => Some(uid.clone()),
                Known::Nothing | Known::Absent => None,
            };
            let mut all_given = true;
            if let Some(uid) = &uid {
                let others: Vec<Key> = {
                    let ours = self.ours();
                    let others = ours.iter().filter(|(_, owner)| owner.as_ref() != Some(uid));
                    others.map(|(key, _)| key.clone()).collect()
                };
                for key in others {
                    if let Err(failure) = self.give_owner(own, uid, &key).await {
                        tracing::warn!(%key, %failure, "can't give it to this node's Node object; trying again");
                        all_given = false;
                    }
                }
            }
            let again = async {
                if all_given {
                    std::future::pending().await
                } else {
                    tokio::time::sleep(GIVE_AGAIN).await;
                }
            };
            tokio::select! {
                Ok(()) = known.changed() => {}
                () = self.ours_changed.notified() => {}
                () = again => {}
            }
        }
    }

    async fn give_owner(&self, own: &NodeName, uid: &str, key: &Key) -> Result<(), Failure> {
        let Some(stored) = self.stored_object(key).await? else { return Ok(()) };
        if !self.is_ours(own, key, &objects::stored(&stored).content) {
            return Ok(());
        }
        let is_other =
            |reference: &&OwnerReference| !(reference.kind == "Node" && reference.api_version == "v1");
        let mut references: Vec<OwnerReference> =
            stored.metadata.owner_references.iter().flatten().filter(is_other).cloned().collect();
        references.push(objects::reference(own, uid));
        let patch = json!({"metadata": {
            "ownerReferences": references,
            // Of this very object: one that was made anew meanwhile is looked at anew.
            "resourceVersion": stored.metadata.resource_version,
        }});
        let api = self.api(key.kind).await?;
        match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(patched) => {
                tracing::info!(%key, uid, "it belongs to this node's Node object now");
                self.note_owner(key, &objects::stored(&patched).content, &patched.metadata);
                Ok(())
            }
            Err(error) if failure::is_absent(&error) => Ok(()),
            Err(error) => Err(self.failed("patch", &error)),
        }
    }
}
