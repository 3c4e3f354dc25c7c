//! What the API asks of the agent.

use std::sync::Arc;

use config::Config;
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::{Agent, Task, blocks, in_use, spawn};
use crate::claims::{self, Released};
use crate::dataplane::Gone;
use crate::node::{Block, NodeName};
use crate::status::{Command, CommandError};
use crate::store::Store;
use crate::telemetry::chain;

impl Agent {
    /// Does what is asked, or has it done by a task.
    pub(super) async fn command(&mut self, command: Command) -> Result<(), Gone> {
        match command {
            Command::ReleaseBlock { block, force, answer } => {
                self.release_block(block, force, answer).await?;
            }
            Command::ClaimBlock { pool, answer } => {
                claim_block(&self.config, &self.block_requests, pool, answer);
            }
            Command::DeleteNode { name, force, answer } => {
                let (store, own) = (Arc::clone(&self.store), self.name.clone());
                spawn(&mut self.tasks, async move {
                    // Nobody waits any more if the client has gone.
                    drop(answer.send(delete_node(store.as_ref(), &own, &name, force).await));
                    Task::Command
                });
            }
        }
        Ok(())
    }

    /// Hands the order to the keeper of the blocks, unless the kernel shows that the block's addresses are in use; by force
    /// also then, and the answer says so.
    async fn release_block(
        &mut self,
        block: Block,
        force: bool,
        answer: oneshot::Sender<Result<Released, CommandError>>,
    ) -> Result<(), Gone> {
        let users = match self.dataplane.observe([block.net()].into()).await? {
            Ok(observed) => Ok(in_use::users(&observed, block)),
            Err(problem) => Err(error(
                "kernel",
                format!("whether {block} is in use can't be seen: {}", chain(&problem)),
                "try again; --force gives it back without a look",
            )),
        };
        let refused = match &users {
            Err(problem) => Some(problem.clone()),
            Ok(users) if users.is_empty() => None,
            Ok(users) => Some(in_use::refusal(block, users)),
        };
        let in_use = users.unwrap_or_default();
        let request = blocks::Request::Release { block, force, in_use, answer };
        if let Some(refused) = refused.filter(|_| !force) {
            request.refuse(refused);
            return Ok(());
        }
        if let Err(full) = self.block_requests.try_send(request) {
            full.into_inner().refuse(busy());
        }
        Ok(())
    }
}

fn busy() -> CommandError {
    error("busy", "too many claims are under way", "try again in a moment")
}

fn error(code: &str, message: impl Into<String>, hint: &str) -> CommandError {
    CommandError { code: code.to_owned(), message: message.into(), hint: hint.to_owned() }
}

/// Hands a request for one more block to the keeper of the blocks.
fn claim_block(
    config: &Config,
    requests: &mpsc::Sender<blocks::Request>,
    pool: Option<String>,
    answer: oneshot::Sender<Result<Vec<String>, CommandError>>,
) {
    let pool = match pool.map(|text| pool_of(config, &text)).transpose() {
        Ok(pool) => pool,
        Err(error) => return drop(answer.send(Err(error))),
    };
    if let Err(full) = requests.try_send(blocks::Request::Claim { pool, answer }) {
        full.into_inner().refuse(busy());
    }
}

fn pool_of(config: &Config, text: &str) -> Result<IpNet, CommandError> {
    let pools: Vec<String> = config.pools.iter().map(|pool| pool.cidr.to_string()).collect();
    text.parse().ok().filter(|cidr| config.pools.iter().any(|pool| pool.cidr == *cidr)).ok_or_else(|| {
        error(
            "not-found",
            format!("there is no pool {text}"),
            &format!("the configured pools are {}", pools.join(", ")),
        )
    })
}

/// `pairway node delete NAME`: releases all claims of a node that is gone, and removes its record.
async fn delete_node(
    store: &dyn Store,
    own: &NodeName,
    name: &str,
    force: bool,
) -> Result<Vec<String>, CommandError> {
    let node: NodeName = name.parse().map_err(|problem: crate::node::NodeNameError| {
        error("not-found", problem.to_string(), "`pairway pairs` lists the nodes")
    })?;
    let Some(snapshot) = store.snapshots().borrow().clone() else {
        return Err(error(
            "store",
            "the store has not answered yet",
            "try again when `pairway status` shows a revision",
        ));
    };
    let blocks = claims::delete_node(store, &snapshot, own, &node, force, Timestamp::now()).await?;
    tracing::info!(node = name, force, "removed from the store");
    Ok(blocks.iter().map(ToString::to_string).collect())
}
