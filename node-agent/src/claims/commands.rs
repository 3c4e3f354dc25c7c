//! Giving blocks back: what an operator orders, never what a node does by itself. A stopped agent is not a
//! removed node.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::state;
use crate::node::{Block, NodeName, Snapshot};
use crate::status::CommandError;
use crate::store::{Store, StoreError};

/// How often an agent gives a sign of life ([`Store::heartbeat`]).
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// A node that gave a sign of life within this time lives.
pub const FRESH: SignedDuration = SignedDuration::from_secs(60);

/// `pairway node delete NAME`: releases a node's blocks and removes its record. Answers with the blocks.
pub async fn delete_node(
    store: &dyn Store,
    snapshot: &Snapshot,
    own: &NodeName,
    node: &NodeName,
    force: bool,
    now: Timestamp,
) -> Result<Vec<Block>, CommandError> {
    if node == own {
        return Err(refusal(
            "own-node",
            format!("{node} is this node"),
            "run `pairway uninstall` here, or delete it from another node once its agent has ended",
        ));
    }
    let blocks = snapshot.blocks_of(node);
    if blocks.is_empty()
        && !snapshot.nodes.contains_key(node)
        && !snapshot.problems.contains_key(&node_record(node))
    {
        return Err(unknown(node));
    }
    if !force {
        let seen = store.last_seen(node).await.map_err(|error| not_done(&error))?;
        if let Some(age) = seen.map(|seen| now.duration_since(seen)).filter(|age| *age < FRESH) {
            return Err(refusal(
                "fresh",
                format!("{node} gave a sign of life {} s ago", age.as_secs().max(0)),
                "stop its agent and wait a minute; --force deletes it all the same, but a live agent takes its blocks again",
            ));
        }
    }
    // The snapshot may lag behind: somebody else may just have done it.
    match store.remove_node(node).await {
        Ok(true) => Ok(blocks),
        Ok(false) => Err(unknown(node)),
        Err(error) => Err(not_done(&error)),
    }
}

fn unknown(node: &NodeName) -> CommandError {
    refusal("not-found", format!("the store knows no node {node}"), "`pairway pairs` lists the nodes")
}

/// What a node had in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenBack {
    /// Its blocks.
    pub blocks: Vec<Block>,
    /// It had a record.
    pub record: bool,
}

/// The store's part of `pairway uninstall`: gives up this node's blocks, its record and its memory of them. The agent
/// must not run. Answers with the blocks.
pub async fn release_own(
    store: &dyn Store,
    node: &NodeName,
    state_directory: &Path,
    patience: Duration,
) -> Result<GivenBack, CommandError> {
    let mut snapshots = store.snapshots();
    let snapshot = match tokio::time::timeout(patience, snapshots.wait_for(Option::is_some)).await {
        Ok(Ok(snapshot)) => snapshot.clone().unwrap_or_default(),
        Ok(Err(_)) | Err(_) => {
            let why = store
                .health()
                .borrow()
                .clone()
                .err()
                .map_or_else(|| "no answer".to_owned(), |trouble| trouble.text);
            return Err(refusal(
                "store",
                format!("the store does not answer: {why}"),
                "mend it and try again",
            ));
        }
    };
    let given_back =
        GivenBack { blocks: snapshot.blocks_of(node), record: snapshot.nodes.contains_key(node) };
    store.remove_node(node).await.map_err(|error| not_done(&error))?;
    // Last: as long as it stands, an agent that is started again gets its blocks back.
    let directory = state_directory.to_owned();
    let removed = tokio::task::spawn_blocking(move || state::remove(&directory)).await;
    match removed {
        Ok(Ok(())) => Ok(given_back),
        Ok(Err(error)) => Err(refusal(
            "state",
            format!("{} can't be removed: {error}", state_directory.join(state::FILE_NAME).display()),
            "remove it, or the node takes the same blocks when an agent is started here again",
        )),
        Err(panic) => Err(refusal("state", panic.to_string(), "try again")),
    }
}

/// The name of a node's record in [`Snapshot::problems`].
pub(super) fn node_record(node: &NodeName) -> String {
    format!("nodes/{node}")
}

pub(super) fn refusal(code: &str, message: String, hint: &str) -> CommandError {
    CommandError { code: code.to_owned(), message, hint: hint.to_owned() }
}

pub(super) fn not_done(error: &StoreError) -> CommandError {
    let message = format!("{error}: {}", error.source);
    refusal("store", message, "`pairway status` shows the store's state; mend it and try again")
}
