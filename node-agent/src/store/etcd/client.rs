//! Calls of etcd's API over HTTP/2, on one endpoint at a time.
//!
//! An endpoint that is lost, or whose member has lost its leader, is left for the next one; the call is made again
//! there until the store's deadline is over. Certificates and the password are read anew with every connection, so
//! that renewed ones are used without a restart.

use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use hyper::http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::EtcdOptions;
use super::messages::{
    AuthenticateRequest, AuthenticateResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use crate::store::remote::backend::Failure;

/// One endpoint has this long to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A connection stands within this time.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// A connection is tried by a ping of HTTP/2 this often, also while nothing is asked, and must answer this soon.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_WITHIN: Duration = Duration::from_secs(5);

/// Between two attempts, when every endpoint was tried.
const PAUSE: Duration = Duration::from_millis(200);

/// A page of a list may have 500 records of 64 KiB.
const LONGEST_MESSAGE: usize = 48 << 20;

/// Connected to one endpoint.
#[derive(Debug, Clone)]
struct Connection {
    channel: Channel,
    /// Tells who we are, where authentication is on.
    token: Option<MetadataValue<tonic::metadata::Ascii>>,
}

/// The way to an etcd cluster.
#[derive(Debug)]
pub(super) struct Client {
    options: EtcdOptions,
    connection: Mutex<Option<Connection>>,
    /// The endpoint to try next.
    next: Mutex<usize>,
}

/// Why a call was not answered.
enum Unanswered {
    /// Another endpoint may answer.
    Elsewhere(String),
    /// The token is not valid any more.
    Token(String),
    /// Every endpoint would say the same.
    Refused(Failure),
}

impl Client {
    pub(super) fn new(options: EtcdOptions) -> Self {
        // Not all agents of a cluster on the same member.
        let next = fastrand::usize(..options.endpoints.len().max(1));
        Self { options, connection: Mutex::new(None), next: Mutex::new(next) }
    }

    /// One question, one answer.
    pub(super) async fn call<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut tried = 0;
        loop {
            let unanswered = match self.connection().await {
                Ok(connection) => {
                    let asked = unary(&connection, path, question.clone());
                    let answer = tokio::time::timeout(ANSWER_WITHIN, asked).await;
                    match answer {
                        Ok(Ok(answer)) => return Ok(answer),
                        Ok(Err(status)) => unanswered(&status),
                        Err(_) => Unanswered::Elsewhere(format!("no answer within {ANSWER_WITHIN:?}")),
                    }
                }
                Err(unanswered) => unanswered,
            };
            self.fail_over(unanswered, &mut tried).await?;
        }
    }

    /// Watches keys; the first message says that the watch stands.
    pub(super) async fn watch(
        &self,
        create: WatchCreateRequest,
    ) -> Result<Streaming<WatchResponse>, Failure> {
        let mut tried = 0;
        loop {
            let unanswered = match self.connection().await {
                Ok(connection) => {
                    let create = WatchRequest { create: Some(create.clone()) };
                    // The server ends a watch when the questions end.
                    let questions = stream::once(std::future::ready(create)).chain(stream::pending());
                    let mut grpc = grpc(&connection);
                    let watch = async {
                        ready(&mut grpc).await?;
                        let mut request = Request::new(questions);
                        // A member that is cut off from the others says so instead of falling silent.
                        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
                        authorize(&connection, &mut request);
                        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
                        let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
                        grpc.streaming(request, path, codec).await
                    };
                    match tokio::time::timeout(ANSWER_WITHIN, watch).await {
                        Ok(Ok(stream)) => return Ok(stream.into_inner()),
                        Ok(Err(status)) => unanswered(&status),
                        Err(_) => Unanswered::Elsewhere(format!("no answer within {ANSWER_WITHIN:?}")),
                    }
                }
                Err(unanswered) => unanswered,
            };
            self.fail_over(unanswered, &mut tried).await?;
        }
    }

    /// Keeps a lease alive: answers with the seconds that it lives from now on, 0 if there is none.
    pub(super) async fn keep_alive(&self, lease: i64) -> Result<i64, Failure> {
        use super::messages::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
        let mut tried = 0;
        loop {
            let unanswered = match self.connection().await {
                Ok(connection) => {
                    let mut grpc = grpc(&connection);
                    let asked = async {
                        ready(&mut grpc).await?;
                        let questions = stream::once(std::future::ready(LeaseKeepAliveRequest { id: lease }));
                        let mut request = Request::new(questions);
                        authorize(&connection, &mut request);
                        let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
                        let codec = ProstCodec::<LeaseKeepAliveRequest, LeaseKeepAliveResponse>::default();
                        let mut answers = grpc.streaming(request, path, codec).await?.into_inner();
                        answers.message().await
                    };
                    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
                        Ok(Ok(answer)) => return Ok(answer.map_or(0, |answer| answer.ttl)),
                        Ok(Err(status)) => unanswered(&status),
                        Err(_) => Unanswered::Elsewhere(format!("no answer within {ANSWER_WITHIN:?}")),
                    }
                }
                Err(unanswered) => unanswered,
            };
            self.fail_over(unanswered, &mut tried).await?;
        }
    }

    /// The connection failed on its way: the next one is to another endpoint.
    pub(super) fn leave(&self) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = (*next + 1) % self.options.endpoints.len().max(1);
    }

    /// What to do about a call that was not answered: another attempt (`Ok`), or giving up.
    async fn fail_over(&self, unanswered: Unanswered, tried: &mut usize) -> Result<(), Failure> {
        let endpoints = self.options.endpoints.len().max(1);
        *tried += 1;
        match unanswered {
            Unanswered::Refused(failure) => Err(failure),
            // Once for a token that is over; a second one that is refused at once is no token's fault.
            Unanswered::Token(why) if *tried > 2 * endpoints => Err(Failure::server(why)),
            Unanswered::Token(_) => {
                *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Ok(())
            }
            Unanswered::Elsewhere(why) => {
                self.leave();
                if *tried >= 2 * endpoints {
                    let endpoints = self.options.endpoints.join(", ");
                    return Err(Failure::server(format!(
                        "etcd does not answer at {endpoints} ({why}): see whether it runs and is reached from here"
                    )));
                }
                if tried.is_multiple_of(endpoints) {
                    tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
                }
                Ok(())
            }
        }
    }

    async fn connection(&self) -> Result<Connection, Unanswered> {
        let known = self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(connection) = known {
            return Ok(connection);
        }
        let endpoint = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let url = self.options.endpoints.get(endpoint).ok_or_else(|| {
            Unanswered::Refused(Failure::server(
                "no endpoint of etcd is configured: set store.etcd.endpoints",
            ))
        })?;
        let channel = self.channel(url).await.map_err(Unanswered::Refused)?.connect_lazy();
        let mut connection = Connection { channel, token: None };
        if let Some(user) = &self.options.username {
            let password = match &self.options.password_file {
                Some(path) => {
                    read(path, "store.etcd.auth.passwordFile").await.map_err(Unanswered::Refused)?
                }
                None => Vec::new(),
            };
            let password = String::from_utf8_lossy(&password).trim_end_matches(['\r', '\n']).to_owned();
            let question = AuthenticateRequest { name: user.clone(), password };
            let asked = unary(&connection, "/etcdserverpb.Auth/Authenticate", question);
            let answer: AuthenticateResponse = match tokio::time::timeout(ANSWER_WITHIN, asked).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(status)) if status.message().contains("authentication is not enabled") => {
                    // Nobody asks who we are.
                    AuthenticateResponse::default()
                }
                Ok(Err(status)) => return Err(unanswered(&status)),
                Err(_) => return Err(Unanswered::Elsewhere(format!("no answer within {ANSWER_WITHIN:?}"))),
            };
            connection.token = MetadataValue::from_str(&answer.token).ok().filter(|token| !token.is_empty());
        }
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
        Ok(connection)
    }

    async fn channel(&self, url: &str) -> Result<Endpoint, Failure> {
        let wrong = |error: tonic::transport::Error| {
            let why = crate::telemetry::chain(&error);
            Failure::server(format!("{url} can't be used as an endpoint of etcd ({why}): mend store.etcd"))
        };
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(wrong)?
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if !url.starts_with("https://") {
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new();
        if let Some(path) = &self.options.ca_file {
            tls = tls.ca_certificate(Certificate::from_pem(read(path, "store.etcd.tls.caFile").await?));
        }
        if let (Some(cert), Some(key)) = (&self.options.cert_file, &self.options.key_file) {
            let cert = read(cert, "store.etcd.tls.certFile").await?;
            tls = tls.identity(Identity::from_pem(cert, read(key, "store.etcd.tls.keyFile").await?));
        }
        if let Some(name) = &self.options.server_name {
            tls = tls.domain_name(name);
        }
        endpoint.tls_config(tls).map_err(wrong)
    }
}

async fn read(path: &Path, key: &str) -> Result<Vec<u8>, Failure> {
    tokio::fs::read(path)
        .await
        .map_err(|error| Failure::server(format!("{key}: {} can't be read: {error}", path.display())))
}

fn grpc(connection: &Connection) -> Grpc<Channel> {
    Grpc::new(connection.channel.clone()).max_decoding_message_size(LONGEST_MESSAGE)
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::unavailable(crate::telemetry::chain(&error)))
}

fn authorize<T>(connection: &Connection, request: &mut Request<T>) {
    if let Some(token) = &connection.token {
        request.metadata_mut().insert("token", token.clone());
    }
}

async fn unary<Q, A>(connection: &Connection, path: &'static str, question: Q) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = grpc(connection);
    ready(&mut grpc).await?;
    let mut request = Request::new(question);
    authorize(connection, &mut request);
    let codec = ProstCodec::<Q, A>::default();
    Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
}

/// What a status means, by its code and, where etcd says more than the code does, by its text.
fn unanswered(status: &Status) -> Unanswered {
    let text = status.message();
    let source = std::error::Error::source(status)
        .map_or_else(String::new, |source| format!(": {}", crate::telemetry::chain(source)));
    match status.code() {
        Code::Unauthenticated => Unanswered::Token(format!("etcd does not know us any more ({text})")),
        Code::InvalidArgument | Code::FailedPrecondition if text.contains("authentication failed") => {
            Unanswered::Refused(Failure::server(format!(
                "etcd does not accept the user name or the password ({text}): set store.etcd.auth.username and store.etcd.auth.passwordFile"
            )))
        }
        Code::InvalidArgument if text.contains("user name is empty") => Unanswered::Refused(Failure::server(
            "etcd wants to know who asks: set store.etcd.auth.username and store.etcd.auth.passwordFile",
        )),
        Code::PermissionDenied => Unanswered::Refused(Failure::server(format!(
            "etcd does not permit it ({text}): grant the user's role reading and writing of store.etcd.prefix; the user is \
             store.etcd.auth.username, or without it the name in the certificate"
        ))),
        Code::InvalidArgument if text.contains("auth revision") => {
            Unanswered::Token(format!("etcd's users have changed ({text})"))
        }
        Code::ResourceExhausted if text.contains("database space exceeded") => {
            Unanswered::Refused(Failure::server(
                "etcd's database is full (its alarm NOSPACE): compact and defragment it, then `etcdctl alarm disarm`",
            ))
        }
        Code::OutOfRange => Unanswered::Refused(Failure::record(text.to_owned())),
        Code::InvalidArgument | Code::NotFound | Code::Unimplemented => {
            Unanswered::Refused(Failure::server(format!("etcd refuses what it is asked: {text}")))
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Unanswered::Elsewhere(format!("{text}{source}")),
    }
}
