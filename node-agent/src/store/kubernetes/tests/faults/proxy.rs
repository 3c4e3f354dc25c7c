//! A proxy in front of the API server that does to its users what servers and networks do.
//!
//! It speaks HTTP without TLS to those who come, and is their peer: what it does to answers it does in the middle of them.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::http::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;

/// What may befall a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// 429; the next attempt is to come in an hour.
    Busy,
    /// 500.
    Broken,
    /// 503.
    Unavailable,
    /// Nothing is answered, for ever.
    Silent,
    /// The answer begins, and does not go on.
    Stalled,
    /// The answer comes a little at a time.
    Slow,
    /// The connection ends at some byte of the answer.
    Cut,
    /// It was done, and the answer is lost.
    AnswerLost,
    /// The place of a watch is not known any more (410).
    Forgotten,
}

impl Fault {
    pub(super) const ALL: [Self; 9] = [
        Self::Busy,
        Self::Broken,
        Self::Unavailable,
        Self::Silent,
        Self::Stalled,
        Self::Slow,
        Self::Cut,
        Self::AnswerLost,
        Self::Forgotten,
    ];
}

/// What is done at the moment.
enum Weather {
    Fair,
    /// The same to every request.
    Only(Fault),
    /// Something to most requests.
    Storm(fastrand::Rng),
}

/// A way to the API server with faults.
pub(super) struct FaultyProxy {
    state: Arc<State>,
    folder: tempfile::TempDir,
    port: u16,
    _accepts: JoinSet<()>,
}

struct State {
    server: Client,
    token: Mutex<String>,
    weather: Mutex<Weather>,
    met: Mutex<BTreeMap<Fault, u32>>,
    /// When which path was asked for.
    asked: Mutex<Vec<(Instant, String)>>,
    /// Whoever had a wrong token.
    strangers: AtomicUsize,
    /// Grows when every answer that is under way is cut.
    shakes: watch::Sender<u64>,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

impl FaultyProxy {
    /// `server` may do everything; who comes needs the token `first`.
    pub(super) async fn before(server: Client) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        std::fs::write(&token_file, "first").unwrap();
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: \
             \"http://127.0.0.1:{port}\"}}}}]\nusers: [{{name: u, user: {{tokenFile: \"{}\"}}}}]\ncontexts: [{{name: c, \
             context: {{cluster: c, user: u, namespace: default}}}}]\n",
            token_file.display()
        );
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig).unwrap();
        let state = Arc::new(State {
            server,
            token: Mutex::new("first".to_owned()),
            weather: Mutex::new(Weather::Fair),
            met: Mutex::default(),
            asked: Mutex::default(),
            strangers: AtomicUsize::new(0),
            shakes: watch::Sender::new(0),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
        });
        let mut accepts = JoinSet::new();
        accepts.spawn(accept(listener, Arc::clone(&state)));
        Self { state, folder, port, _accepts: accepts }
    }

    /// For whoever goes this way.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        assert_ne!(self.port, 0);
        self.folder.path().join("kubeconfig")
    }

    /// From now on another token is asked for; the old one is still in its file.
    pub(super) fn expire_token(&self) {
        "second".clone_into(&mut self.state.token.lock().unwrap());
    }

    /// The kubelet has fetched the new token.
    pub(super) fn renew_token(&self) {
        std::fs::write(self.folder.path().join("token"), "second").unwrap();
    }

    pub(super) fn fair(&self) {
        *self.state.weather.lock().unwrap() = Weather::Fair;
    }

    pub(super) fn only(&self, fault: Fault) {
        *self.state.weather.lock().unwrap() = Weather::Only(fault);
    }

    pub(super) fn storm(&self, seed: u64) {
        *self.state.weather.lock().unwrap() = Weather::Storm(fastrand::Rng::with_seed(seed));
    }

    /// Cuts every answer that is under way.
    pub(super) fn shake(&self) {
        self.state.shakes.send_modify(|shakes| *shakes += 1);
    }

    /// How often each fault has befallen somebody.
    pub(super) fn met(&self) -> BTreeMap<Fault, u32> {
        self.state.met.lock().unwrap().clone()
    }

    pub(super) fn strangers(&self) -> usize {
        self.state.strangers.load(Ordering::Relaxed)
    }

    /// When a path was asked for.
    pub(super) fn asked(&self, path: &str) -> Vec<Instant> {
        let asked = self.state.asked.lock().unwrap();
        asked.iter().filter(|(_, other)| other == path).map(|(at, _)| *at).collect()
    }

    /// The most connections that there were at once.
    pub(super) fn most_open(&self) -> usize {
        self.state.most_open.load(Ordering::Relaxed)
    }
}

async fn accept(listener: tokio::net::TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let open = state.open.fetch_add(1, Ordering::Relaxed) + 1;
            state.most_open.fetch_max(open, Ordering::Relaxed);
            let serve = hyper::service::service_fn(|request| state.answer(request));
            // It may be cut at any time.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), serve)
                .await;
            state.open.fetch_sub(1, Ordering::Relaxed);
        });
        while connections.try_join_next().is_some() {}
    }
}

fn failure(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
        "code": code,
    });
    let body = StreamBody::new(futures_util::stream::iter([Ok(Frame::data(status.to_string().into()))]));
    let answer = Response::builder().status(code).header(CONTENT_TYPE, "application/json");
    let answer = if code == 429 { answer.header(RETRY_AFTER, "3600") } else { answer };
    answer.body(body.boxed_unsync()).unwrap()
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "cut by the proxy")
}

impl State {
    /// What befalls the next request, and how far it comes.
    fn draw(&self) -> Option<(Fault, usize)> {
        match &mut *self.weather.lock().unwrap() {
            Weather::Fair => None,
            Weather::Only(fault) => Some((*fault, 0)),
            Weather::Storm(rng) => {
                let fault = Fault::ALL[rng.usize(..Fault::ALL.len())];
                rng.u8(..10).lt(&6).then(|| (fault, rng.usize(..4000)))
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> io::Result<Answer> {
        self.asked.lock().unwrap().push((Instant::now(), request.uri().path().to_owned()));
        let known = format!("Bearer {}", self.token.lock().unwrap());
        if request.headers().get(AUTHORIZATION).is_none_or(|shown| shown.as_bytes() != known.as_bytes()) {
            self.strangers.fetch_add(1, Ordering::Relaxed);
            return Ok(failure(401, "Unauthorized", "Unauthorized"));
        }
        let watches = request.uri().query().is_some_and(|query| query.contains("watch="));
        let drawn = self.draw().filter(|(fault, _)| *fault != Fault::Forgotten || watches);
        if let Some((fault, _)) = drawn {
            *self.met.lock().unwrap().entry(fault).or_default() += 1;
        }
        match drawn.map(|(fault, _)| fault) {
            Some(Fault::Busy) => return Ok(failure(429, "TooManyRequests", "Too many requests")),
            Some(Fault::Broken) => return Ok(failure(500, "InternalError", "etcdserver: leader changed")),
            Some(Fault::Unavailable) => return Ok(failure(503, "ServiceUnavailable", "starting")),
            Some(Fault::Silent) => return std::future::pending().await,
            Some(Fault::Forgotten) => {
                let gone = json!({"type": "ERROR", "object": {
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired",
                    "message": "too old resource version: 1 (2)", "code": 410,
                }});
                let line = futures_util::stream::iter([Ok(Frame::data(format!("{gone}\n").into()))]);
                return Ok(Response::new(StreamBody::new(line).boxed_unsync()));
            }
            Some(Fault::Stalled | Fault::Slow | Fault::Cut | Fault::AnswerLost) | None => {}
        }
        let answer = self.ask(request).await?;
        if matches!(drawn, Some((Fault::AnswerLost, _))) {
            return Err(cut());
        }
        let (head, body) = answer.into_parts();
        let passing = Passing {
            body: Box::pin(body.into_data_stream().map(|part| part.map_err(io::Error::other))),
            rest: Bytes::new(),
            fault: drawn,
            shakes: self.shakes.subscribe(),
            over: false,
        };
        let parts = futures_util::stream::unfold(passing, Passing::next);
        Ok(Response::from_parts(head, StreamBody::new(parts).boxed_unsync()))
    }

    /// Asks the server itself.
    async fn ask(&self, request: Request<Incoming>) -> io::Result<Response<kube::client::Body>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let path = head.uri.path_and_query().unwrap().as_str();
        let mut asked = Request::builder().method(head.method).uri(path);
        for name in [ACCEPT, CONTENT_TYPE] {
            if let Some(value) = head.headers.get(&name) {
                asked = asked.header(name, value);
            }
        }
        let asked = asked.body(kube::client::Body::from(body.to_vec())).map_err(io::Error::other)?;
        let mut answer = self.server.send(asked).await.map_err(io::Error::other)?;
        // How the answer is framed is between the proxy and who has come.
        for name in ["connection", "content-length", "transfer-encoding"] {
            answer.headers_mut().remove(name);
        }
        Ok(answer)
    }
}

/// An answer that is under way.
struct Passing {
    body: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    /// What was read and not passed on.
    rest: Bytes,
    /// What befalls it, and after how many bytes.
    fault: Option<(Fault, usize)>,
    shakes: watch::Receiver<u64>,
    over: bool,
}

impl Passing {
    async fn next(mut self) -> Option<(io::Result<Frame<Bytes>>, Self)> {
        if self.over {
            return None;
        }
        match self.fault {
            Some((Fault::Cut, 0)) => return self.ends(cut()),
            Some((Fault::Stalled, 0)) => std::future::pending::<()>().await,
            Some((Fault::Slow, _)) => tokio::time::sleep(Duration::from_millis(5)).await,
            Some(_) | None => {}
        }
        if self.rest.is_empty() {
            let read = tokio::select! {
                read = self.body.next() => read?,
                _ = self.shakes.changed() => Err(cut()),
            };
            match read {
                Ok(read) => self.rest = read,
                Err(error) => return self.ends(error),
            }
        }
        let size = match &mut self.fault {
            Some((Fault::Slow, _)) => self.rest.len().min(256),
            Some((Fault::Cut | Fault::Stalled, left)) => {
                let size = self.rest.len().min(*left);
                *left -= size;
                size
            }
            Some(_) | None => self.rest.len(),
        };
        let part = self.rest.split_to(size);
        Some((Ok(Frame::data(part)), self))
    }

    fn ends(mut self, error: io::Error) -> Option<(io::Result<Frame<Bytes>>, Self)> {
        self.over = true;
        Some((Err(error), self))
    }
}
