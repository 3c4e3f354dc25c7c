//! One way to serve HTTP/1.1, for the TCP pages and the unix socket: bounded in connections, and in the time that
//! a connection may sit idle or stay open. A client that sends nothing, or never reads, holds nothing for long.

use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A request's head must have come this long after the connection was opened or the last answer sent.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// No connection lives longer.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);

/// Serves until `stop`; open connections are then closed.
pub(crate) async fn serve(
    mut listener: impl Listener,
    router: Router,
    connections: usize,
    stop: CancellationToken,
) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = open.join_next() => {}
            (stream, _) = listener.accept(), if open.len() < connections => {
                let service = TowerToHyperService::new(router.clone());
                open.spawn(async move {
                    let connection = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD_WITHIN)
                        .serve_connection(TokioIo::new(stream), service);
                    // Either end of a connection may go away at any time: nothing to report.
                    let _ = tokio::time::timeout(CONNECTION_LIFE, connection).await;
                });
            }
        }
    }
}
