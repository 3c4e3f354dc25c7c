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

use crate::node::NodeName;
use crate::status::{AgentHandle, Command, CommandError, Published, Status};
use reply::{BlockEntry, ClaimRequest, Claimed, DeleteRequest, Deleted, ErrorBody, ErrorReply};

pub mod reply;
pub mod socket;

#[cfg(test)]
mod tests;

/// How long the agent may take for a command. A store on a slow disk needs seconds; nobody should wait for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

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
        .route("/v1/blocks", get(blocks))
        .route("/v1/blocks/claim", post(claim))
        .route("/v1/nodes/delete", post(delete))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(agent)
}

fn published(agent: &AgentHandle) -> Arc<Published> {
    agent.published.borrow().clone()
}

fn list<T: serde::Serialize>(agent: &AgentHandle, part: fn(&Published) -> &Vec<T>) -> Response {
    Json(part(&published(agent))).into_response()
}

async fn status(State(agent): State<AgentHandle>) -> Json<Status> {
    Json(published(&agent).status.clone())
}

async fn blocks(State(agent): State<AgentHandle>) -> Json<Vec<BlockEntry>> {
    Json(BlockEntry::all(&published(&agent)))
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
    Ok(Json(Claimed { blocks }))
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

type Answer = oneshot::Sender<Result<Vec<String>, CommandError>>;

async fn ask(agent: &AgentHandle, command: impl FnOnce(Answer) -> Command) -> Result<Vec<String>, Refusal> {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        agent.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    };
    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Ok(Some(answer)) => answer.map_err(Refusal::from),
        Ok(None) => Err(Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            body: ErrorBody::new("stopping", "the agent is stopping", "ask again when it has come back"),
        }),
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
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        let status = match error.code.as_str() {
            "invalid" => StatusCode::BAD_REQUEST,
            "not-found" => StatusCode::NOT_FOUND,
            "fresh" | "exhausted" => StatusCode::CONFLICT,
            "store" => StatusCode::SERVICE_UNAVAILABLE,
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
