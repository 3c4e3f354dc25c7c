//! Asks the agent over its socket.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::output::{Exit, Failure};
use crate::api::reply::ErrorReply;
use crate::telemetry::chain;

/// Longest answer that is read: a cluster of 5,000 nodes has some 3 MB of pairs.
const LONGEST_ANSWER: usize = 256 * 1024 * 1024;

/// An agent's address.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
    /// By `--socket` or the environment.
    is_named: bool,
    timeout: Duration,
}

impl Client {
    pub(crate) fn new(socket: Option<PathBuf>, timeout: Duration) -> Self {
        let is_named = socket.is_some();
        Self { socket: socket.unwrap_or_else(|| config::defaults::API_SOCKET.into()), is_named, timeout }
    }

    /// The same at another socket, unless the operator has named one.
    pub(crate) fn or_at(self, socket: PathBuf) -> Self {
        if self.is_named { self } else { Self { socket, ..self } }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| self.no_agent(&error.to_string()))?;
        self.ask(Method::POST, path, body.into()).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Failure> {
        let (status, body) = tokio::time::timeout(self.timeout, self.exchange(method, path, body))
            .await
            .map_err(|_| self.silent())??;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.no_agent(&error.to_string()));
        }
        let reply: ErrorReply = serde_json::from_slice(&body)
            .map_err(|_| self.no_agent(&format!("status {status} without an error of the agent's")))?;
        let exit = if status == StatusCode::BAD_REQUEST { Exit::Usage } else { Exit::Finding };
        Err(Failure::told(exit, reply.error))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.no_agent(&chain(&error)))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "pairway")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.no_agent(&error.to_string()))?;
        let answer = async {
            let response =
                sender.send_request(request).await.map_err(|error| self.no_agent(&chain(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
            Ok((status, body.map_err(|error| self.no_agent(&chain(&*error)))?.to_bytes()))
        };
        tokio::pin!(answer, connection);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // The connection may end before its last bytes are read by `answer`, which then ends too.
            _ = &mut connection => answer.await,
        }
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let other = std::fs::metadata(&self.socket).is_ok_and(|there| !there.file_type().is_socket());
        if other {
            let message = format!("{} is not a socket", self.socket.display());
            let hint =
                "name the agent's socket (api.socket in its configuration) with --socket or $PAIRWAY_SOCKET";
            return Failure::new(Exit::NotReached, "not-reached", message, hint);
        }
        let kind = error.kind();
        let hint = if kind == io::ErrorKind::NotFound {
            "is the agent running? start it with `pairway agent --config FILE`, or name its socket (api.socket in \
             its configuration) with --socket or $PAIRWAY_SOCKET"
        } else if kind == io::ErrorKind::ConnectionRefused {
            "the socket was left by an agent that has ended: start it again, and see its log for why it ended"
        } else if kind == io::ErrorKind::PermissionDenied {
            "run this as root, or as the user that the agent runs as"
        } else {
            "is this the agent's socket? api.socket in its configuration names it"
        };
        let message = format!("no agent is reached at {}: {error}", self.socket.display());
        Failure::new(Exit::NotReached, "not-reached", message, hint)
    }

    fn silent(&self) -> Failure {
        let message = format!(
            "the agent at {} has not answered within {} s",
            self.socket.display(),
            self.timeout.as_secs()
        );
        Failure::new(
            Exit::NotReached,
            "timeout",
            message,
            "see the agent's log and its /livez; --timeout waits longer. An order may be carried out later all the same: look \
             before you give it again",
        )
    }

    fn no_agent(&self, what: &str) -> Failure {
        let message =
            format!("what answers at {} is no agent that this program knows: {what}", self.socket.display());
        Failure::new(
            Exit::NotReached,
            "bad-reply",
            message,
            "is this the agent's socket, and is the agent of this program's version (`pairway version`)?",
        )
    }
}
