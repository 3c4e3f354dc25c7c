use super::*;
use crate::claims;
use crate::fixtures;

use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tower_service::Service as _;

struct Fixture {
    agent: AgentHandle,
    commands: mpsc::Receiver<Command>,
    published: watch::Sender<Arc<Published>>,
}

/// The agent's status shows these blocks from now on.
fn holds(publisher: &watch::Sender<Arc<Published>>, blocks: &[&str]) {
    publisher.send_modify(|published| {
        let status = &mut Arc::make_mut(published).status;
        status.blocks = blocks.iter().map(|block| (*block).to_owned()).collect();
    });
}

fn fixture() -> Fixture {
    let (publisher, published) = watch::channel(Arc::new(fixtures::published()));
    let (sender, commands) = mpsc::channel(4);
    let agent = AgentHandle { published, commands: sender };
    Fixture { agent, commands, published: publisher }
}

async fn send(agent: &AgentHandle, request: Request<Body>) -> (StatusCode, Value) {
    let response = router(agent.clone()).call(request).await.unwrap();
    let status = response.status();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn get(agent: &AgentHandle, path: &str) -> (StatusCode, Value) {
    send(agent, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn post(agent: &AgentHandle, path: &str, body: &str) -> (StatusCode, Value) {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap();
    send(agent, request).await
}

#[tokio::test]
async fn what_is_published_is_what_is_served() {
    let fixture = fixture();
    let published = fixtures::published();
    let expected = [
        ("/v1/status", serde_json::to_value(&published.status).unwrap()),
        ("/v1/pairs", serde_json::to_value(&*published.pairs).unwrap()),
        ("/v1/routes", serde_json::to_value(&*published.routes).unwrap()),
        ("/v1/bgp/neighbors", serde_json::to_value(&*published.neighbors).unwrap()),
        ("/v1/blocks", serde_json::to_value(&*published.blocks).unwrap()),
    ];
    for (path, value) in expected {
        assert_eq!(get(&fixture.agent, path).await, (StatusCode::OK, value), "{path}");
    }
}

#[tokio::test]
async fn commands_reach_the_agent_and_their_answers_come_back() {
    let mut fixture = fixture();
    let agent = async {
        let Some(Command::ClaimBlock { pool, answer }) = fixture.commands.recv().await else { panic!() };
        assert_eq!(pool.as_deref(), Some("10.244.0.0/16"));
        answer.send(Ok(vec!["10.244.9.0/24".to_owned()])).unwrap();
        holds(&fixture.published, &["10.244.1.0/24", "10.244.9.0/24"]);
        let Some(Command::ClaimBlock { pool: None, answer }) = fixture.commands.recv().await else {
            panic!()
        };
        let exhausted = CommandError {
            code: "exhausted".to_owned(),
            message: "10.244.0.0/16 has no free block".to_owned(),
            hint: "add a pool".to_owned(),
        };
        answer.send(Err(exhausted)).unwrap();
        let Some(Command::DeleteNode { name, force, answer }) = fixture.commands.recv().await else {
            panic!()
        };
        assert_eq!((name.as_str(), force), ("n3", true));
        answer.send(Ok(vec!["10.244.10.0/24".to_owned()])).unwrap();
        let Some(Command::ReleaseBlock { block, force, answer }) = fixture.commands.recv().await else {
            panic!()
        };
        assert_eq!((block.to_string().as_str(), force), ("10.244.1.0/24", true));
        let released = claims::Released {
            block,
            lost_to: None,
            claimed: vec![Block::new("10.244.3.0/24".parse().unwrap())],
            tunnel_address: Some((block.network(), Some("10.244.3.0".parse().unwrap()))),
            reuse_after: Duration::from_secs(600),
            in_use: vec!["address 10.244.1.1/24 of cni0".to_owned()],
        };
        answer.send(Ok(released)).unwrap();
        // Not before both are shown.
        holds(&fixture.published, &["10.244.9.0/24"]);
        holds(&fixture.published, &["10.244.3.0/24", "10.244.9.0/24"]);
    };
    let service = &fixture.agent.clone();
    let caller = async {
        assert_eq!(
            post(service, "/v1/blocks/claim", r#"{"pool": "10.244.0.0/16"}"#).await,
            (StatusCode::OK, json!({"blocks": ["10.244.9.0/24"]}))
        );
        let error =
            json!({"code": "exhausted", "message": "10.244.0.0/16 has no free block", "hint": "add a pool"});
        assert_eq!(
            post(service, "/v1/blocks/claim", "{}").await,
            (StatusCode::CONFLICT, json!({"error": error}))
        );
        assert_eq!(
            post(service, "/v1/nodes/delete", r#"{"name": "n3", "force": true}"#).await,
            (StatusCode::OK, json!({"node": "n3", "released": ["10.244.10.0/24"]}))
        );
        let released = json!({
            "block": "10.244.1.0/24", "lostTo": null, "claimed": ["10.244.3.0/24"],
            "tunnelAddress": {"from": "10.244.1.0", "to": "10.244.3.0"}, "reuseAfterSeconds": 600,
            "inUse": ["address 10.244.1.1/24 of cni0"],
        });
        assert_eq!(
            post(service, "/v1/blocks/release", r#"{"block": "10.244.1.0/24", "force": true}"#).await,
            (StatusCode::OK, released)
        );
    };
    tokio::join!(agent, caller);
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_until_the_status_shows_what_was_done() {
    let mut fixture = fixture();
    let (sender, mut answered) = oneshot::channel();
    let service = fixture.agent.clone();
    let caller = async move {
        let answer = post(&service, "/v1/blocks/claim", "{}").await;
        sender.send(answer).unwrap();
    };
    let agent = async {
        let Some(Command::ClaimBlock { answer, .. }) = fixture.commands.recv().await else { panic!() };
        answer.send(Ok(vec!["10.244.9.0/24".to_owned()])).unwrap();
        holds(&fixture.published, &["10.244.1.0/24"]);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(answered.try_recv().is_err(), "it is not shown yet");
        holds(&fixture.published, &["10.244.1.0/24", "10.244.9.0/24"]);
        assert_eq!(answered.await.unwrap().0, StatusCode::OK);
    };
    tokio::join!(caller, agent);

    let service = fixture.agent.clone();
    let agent = async {
        let Some(Command::ClaimBlock { answer, .. }) = fixture.commands.recv().await else { panic!() };
        answer.send(Ok(vec!["10.244.8.0/24".to_owned()])).unwrap();
    };
    let ((status, reply), ()) = tokio::join!(post(&service, "/v1/blocks/claim", "{}"), agent);
    assert_eq!((status, &reply["error"]["code"]), (StatusCode::GATEWAY_TIMEOUT, &json!("timeout")));
    assert!(reply["error"]["message"].as_str().unwrap().contains("done in the store"), "{reply}");
}

#[tokio::test]
async fn malformed_requests_get_json_errors_and_never_reach_the_agent() {
    let mut fixture = fixture();
    let huge = format!(r#"{{"pool": "{}"}}"#, "x".repeat(BODY_LIMIT));
    let cases = [
        ("/v1/blocks/claim", "", StatusCode::BAD_REQUEST, "malformed"),
        ("/v1/blocks/claim", "{", StatusCode::BAD_REQUEST, "malformed"),
        ("/v1/blocks/claim", r#"{"pol": 1}"#, StatusCode::UNPROCESSABLE_ENTITY, "malformed"),
        ("/v1/blocks/claim", r#"{"pool": "all"}"#, StatusCode::BAD_REQUEST, "invalid"),
        ("/v1/blocks/claim", huge.as_str(), StatusCode::PAYLOAD_TOO_LARGE, "malformed"),
        ("/v1/blocks/release", "{}", StatusCode::UNPROCESSABLE_ENTITY, "malformed"),
        ("/v1/blocks/release", r#"{"block": "10.244.7.0"}"#, StatusCode::BAD_REQUEST, "invalid"),
        ("/v1/blocks/release", r#"{"block": "10.244.7.1/24"}"#, StatusCode::BAD_REQUEST, "invalid"),
        ("/v1/nodes/delete", "{}", StatusCode::UNPROCESSABLE_ENTITY, "malformed"),
        ("/v1/nodes/delete", r#"{"name": "../etc"}"#, StatusCode::BAD_REQUEST, "invalid"),
        ("/v1/status", "{}", StatusCode::METHOD_NOT_ALLOWED, "unknown-method"),
        ("/v2/status", "{}", StatusCode::NOT_FOUND, "unknown-path"),
    ];
    for (path, body, status, code) in cases {
        let (got, reply) = post(&fixture.agent, path, body).await;
        let reply: ErrorReply = serde_json::from_value(reply).unwrap();
        assert_eq!((got, reply.error.code.as_str()), (status, code), "{path}");
        assert!(!reply.error.hint.is_empty() && !reply.error.message.is_empty(), "{path}");
    }
    let request = Request::post("/v1/blocks/claim").body(Body::from("{}")).unwrap();
    let (status, _) = send(&fixture.agent, request).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "without a content type no browser can post");
    assert!(fixture.commands.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_and_one_that_is_gone() {
    let mut fixture = fixture();
    let (status, reply) = post(&fixture.agent, "/v1/blocks/claim", "{}").await;
    assert_eq!((status, &reply["error"]["code"]), (StatusCode::GATEWAY_TIMEOUT, &json!("timeout")));
    fixture.commands.close();
    let (status, reply) = post(&fixture.agent, "/v1/blocks/claim", "{}").await;
    assert_eq!((status, &reply["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("stopping")));
}

#[tokio::test]
async fn served_on_a_socket_until_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let fixture = fixture();
    let stop = CancellationToken::new();
    let bound = socket::Bound::bind(&path).await.unwrap();
    let server = serve(bound, fixture.agent, stop.clone());
    let caller = async {
        let client = crate::cli::client::Client::new(Some(path.clone()), Duration::from_secs(10));
        let status: Status = client.get("/v1/status").await.unwrap();
        assert_eq!(status, fixtures::published().status);
        stop.cancel();
    };
    tokio::join!(server, caller);
    assert!(!path.exists());
}
