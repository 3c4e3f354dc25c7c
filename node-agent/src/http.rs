//! `/metrics`, `/livez` and `/readyz` on TCP, for machines that watch the agent.
//!
//! Nothing here changes anything or tells a secret. A port in use never keeps the agent from routing: it is a
//! condition, and the port is tried again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::liveness::Liveness;
use crate::metrics;
use crate::status::{Condition, Published, Severity};

pub(crate) mod server;

#[cfg(test)]
mod tests;

/// How long after a failed bind the address is tried again.
const BIND_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Connections served at once; more wait in the kernel.
const CONNECTIONS: usize = 64;

/// What the pages are made of.
#[derive(Debug, Clone)]
pub struct Pages {
    /// What the agent published last.
    pub published: watch::Receiver<Arc<Published>>,
    /// Whether its loop lives.
    pub liveness: Liveness,
}

/// The pages as a service.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics_page))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(pages)
}

/// Serves the pages until `stop`. While the address can't be bound, `trouble` holds a condition that says why.
pub async fn serve(
    address: SocketAddr,
    pages: Pages,
    trouble: watch::Sender<Option<Condition>>,
    stop: CancellationToken,
) {
    let Some(bound) = stop.run_until_cancelled(bind(address, &trouble)).await else { return };
    tracing::info!(%address, "serving /metrics, /livez and /readyz");
    server::serve(bound, router(pages), CONNECTIONS, stop).await;
}

async fn bind(address: SocketAddr, trouble: &watch::Sender<Option<Condition>>) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(bound) => {
                trouble.send_replace(None);
                return bound;
            }
            Err(error) => {
                let condition = unbound(address, &error);
                if trouble.borrow().as_ref().is_none_or(|known| known.message != condition.message) {
                    tracing::error!("{}", condition.message);
                    trouble.send_replace(Some(condition));
                }
            }
        }
        tokio::time::sleep(BIND_AGAIN_AFTER).await;
    }
}

fn unbound(address: SocketAddr, error: &io::Error) -> Condition {
    let (kind, advice) = if error.kind() == io::ErrorKind::AddrInUse {
        ("HttpPortInUse", "end the program that has it (`ss -ltnp` names it) or set http.address")
    } else if error.kind() == io::ErrorKind::AddrNotAvailable {
        ("HttpUnavailable", "no interface has this address: set http.address")
    } else {
        ("HttpUnavailable", "set http.address to an address that can be bound")
    };
    Condition {
        kind: kind.to_owned(),
        subject: address.to_string(),
        message: format!(
            "can't serve /metrics, /livez and /readyz on {address}: {error}; {advice}; tried again every {} s",
            BIND_AGAIN_AFTER.as_secs()
        ),
        since: crate::status::rfc3339(jiff::Timestamp::now()),
        severity: Severity::of(kind),
    }
}

async fn index() -> &'static str {
    "pairway\n/metrics\n/livez\n/readyz\n"
}

async fn metrics_page(State(pages): State<Pages>) -> Response {
    let published = pages.published.borrow().clone();
    match metrics::encode(&published) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn livez(State(pages): State<Pages>) -> (StatusCode, String) {
    match pages.liveness.overdue() {
        None => (StatusCode::OK, "alive\n".to_owned()),
        Some(late) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the agent's loop should have been heard of {} s ago\n", late.as_secs_f64().ceil()),
        ),
    }
}

async fn readyz(State(pages): State<Pages>) -> (StatusCode, String) {
    let published = pages.published.borrow().clone();
    let status = &published.status;
    if status.ready {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let mut text = String::from("not ready\n");
    if status.not_ready_reasons.is_empty() {
        text.push_str("the first pass has not ended\n");
    }
    for reason in &status.not_ready_reasons {
        text.push_str(reason);
        text.push('\n');
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}
