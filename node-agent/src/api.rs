//! The local API: HTTP on a unix socket, for the CLI and for programs on this node.
//!
//! Paths are versioned, values are those of [`crate::status`], failures are JSON. Access is the socket's file
//! mode: who may open it may change the node.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ipnet::IpNet;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::node::{Block, NodeName};
use crate::status::{AgentHandle, Command, CommandError, Published, Status};
use reply::{ClaimRequest, Claimed, DeleteRequest, Deleted, ErrorBody, ErrorReply, ReleaseRequest, Released};

pub mod reply;
pub mod socket;

#[cfg(test)]
mod tests;

/// How long the agent may take for a command. A store on a slow disk needs seconds; nobody should wait for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How long the status may take to show what was done: a pass programs the kernel first, which takes a second where
/// there are many routes.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);

/// Bytes that a request may have.
const BODY_LIMIT: usize = 64 * 1024;

/// Connections served at once; more wait in the kernel.
const CONNECTIONS: usize = 64;

/// Serves the API on `socket` until `stop`; the socket is then removed.
pub async fn serve(socket: socket::Bound, agent: AgentHandle, stop: CancellationToken) {
    let (listener, file) = socket.into_parts();
    tracing::info!(socket = %file.path().display(), "serving the local API");
    crate::http::server::serve(listener, router(agent), CONNECTIONS, stop).await;
    drop(file);
}

/// The API as a service.
pub fn router(agent: AgentHandle) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/pairs", get(|State(agent): State<AgentHandle>| async move { list(&agent, |p| &p.pairs) }))
        .route(
            "/v1/routes",
            get(|State(agent): State<AgentHandle>| async move { list(&agent, |p| &p.routes) }),
        )
        .route(
            "/v1/bgp/neighbors",
            get(|State(agent): State<AgentHandle>| async move { list(&agent, |p| &p.neighbors) }),
        )
        .route(
            "/v1/blocks",
            get(|State(agent): State<AgentHandle>| async move { list(&agent, |p| &p.blocks) }),
        )
        .route("/v1/blocks/claim", post(claim))
        .route("/v1/blocks/release", post(release))
        .route("/v1/nodes/delete", post(delete))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(agent)
}

fn published(agent: &AgentHandle) -> Arc<Published> {
    agent.published.borrow().clone()
}

fn list<T: serde::Serialize>(agent: &AgentHandle, part: fn(&Published) -> &[T]) -> Response {
    Json(part(&published(agent))).into_response()
}

async fn status(State(agent): State<AgentHandle>) -> Json<Status> {
    Json(published(&agent).status.clone())
}

async fn claim(
    State(agent): State<AgentHandle>,
    request: Result<Json<ClaimRequest>, JsonRejection>,
) -> Result<Json<Claimed>, Refusal> {
    let Json(ClaimRequest { pool }) = request?;
    if let Some(pool) = &pool
        && pool.parse::<IpNet>().is_err()
    {
        return Err(Refusal::invalid(
            format!("{pool:?} is not a pool"),
            "name a pool as in the configuration, for instance 10.244.0.0/16",
        ));
    }
    let blocks = ask(&agent, |answer| Command::ClaimBlock { pool, answer }).await?;
    shown(&agent, |status| blocks.iter().all(|block| status.blocks.contains(block))).await?;
    Ok(Json(Claimed { blocks }))
}

async fn release(
    State(agent): State<AgentHandle>,
    request: Result<Json<ReleaseRequest>, JsonRejection>,
) -> Result<Json<Released>, Refusal> {
    let Json(ReleaseRequest { block: text, force }) = request?;
    let net: IpNet = text.parse().map_err(|_| {
        Refusal::invalid(format!("{text:?} is not a block"), "name it as a CIDR, for instance 10.244.7.0/24")
    })?;
    if net != net.trunc() {
        let hint = format!("{} is the block around it", net.trunc());
        return Err(Refusal::invalid(format!("{net} has host bits set"), &hint));
    }
    let block = Block::new(net);
    let released =
        Released::from(ask(&agent, |answer| Command::ReleaseBlock { block, force, answer }).await?);
    shown(&agent, |status| {
        !status.blocks.contains(&released.block)
            && released.claimed.iter().all(|block| status.blocks.contains(block))
            && !status.conditions.iter().any(|c| c.kind == "BlockLost" && c.subject == released.block)
    })
    .await?;
    Ok(Json(released))
}

/// Waits until the published status shows what was done: whoever asks next sees it.
async fn shown(agent: &AgentHandle, is_shown: impl Fn(&Status) -> bool) -> Result<(), Refusal> {
    let mut published = agent.published.clone();
    let seen = published.wait_for(|published| is_shown(&published.status));
    match tokio::time::timeout(SHOWN_WITHIN, seen).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(Refusal::stopping()),
        Err(_) => Err(Refusal {
            status: StatusCode::GATEWAY_TIMEOUT,
            body: ErrorBody::new(
                "timeout",
                format!(
                    "it is done in the store, but the agent does not show it after {} s",
                    SHOWN_WITHIN.as_secs()
                ),
                "see `pairway status` for what the agent waits for, and its log",
            ),
        }),
    }
}

async fn delete(
    State(agent): State<AgentHandle>,
    request: Result<Json<DeleteRequest>, JsonRejection>,
) -> Result<Json<Deleted>, Refusal> {
    let Json(DeleteRequest { name, force }) = request?;
    if let Err(error) = name.parse::<NodeName>() {
        return Err(Refusal::invalid(error.to_string(), "`pairway pairs` shows the nodes"));
    }
    let released = ask(&agent, |answer| Command::DeleteNode { name: name.clone(), force, answer }).await?;
    Ok(Json(Deleted { node: name, released }))
}

async fn ask<T>(
    agent: &AgentHandle,
    command: impl FnOnce(oneshot::Sender<Result<T, CommandError>>) -> Command,
) -> Result<T, Refusal> {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        agent.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    };
    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Ok(Some(answer)) => answer.map_err(Refusal::from),
        Ok(None) => Err(Refusal::stopping()),
        Err(_) => Err(Refusal {
            status: StatusCode::GATEWAY_TIMEOUT,
            body: ErrorBody::new(
                "timeout",
                format!("the agent has not done it within {} s; it may still do it", ANSWER_WITHIN.as_secs()),
                "see `pairway status` for the state of the store, and the agent's log",
            ),
        }),
    }
}

async fn unknown_path(uri: Uri) -> Refusal {
    Refusal {
        status: StatusCode::NOT_FOUND,
        body: ErrorBody::new(
            "unknown-path",
            format!("this agent has no {}", uri.path()),
            "agent and caller may be of different versions: compare `pairway version` with `pairway status`",
        ),
    }
}

async fn unknown_method(uri: Uri) -> Refusal {
    Refusal {
        status: StatusCode::METHOD_NOT_ALLOWED,
        body: ErrorBody::new(
            "unknown-method",
            format!("{} can't be asked with this method", uri.path()),
            "what reads is GET, what changes is POST",
        ),
    }
}

/// A request that was not done.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    body: ErrorBody,
}

impl Refusal {
    fn invalid(message: String, hint: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, body: ErrorBody::new("invalid", message, hint) }
    }

    fn stopping() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            body: ErrorBody::new("stopping", "the agent is stopping", "ask again when it has come back"),
        }
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        let status = match error.code.as_str() {
            "invalid" => StatusCode::BAD_REQUEST,
            "not-found" => StatusCode::NOT_FOUND,
            "disabled" | "exhausted" | "fresh" | "in-use" | "last-block" | "needed" | "not-held"
            | "own-node" => StatusCode::CONFLICT,
            "busy" | "kernel" | "not-ready" | "state" | "store" | "unreadable" => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, body: ErrorBody::new(&error.code, error.message, error.hint) }
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self {
            status: rejection.status(),
            body: ErrorBody::new(
                "malformed",
                rejection.body_text(),
                "send a JSON object with content-type application/json",
            ),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorReply { error: self.body })).into_response()
    }
}
