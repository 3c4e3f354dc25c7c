use super::*;
use crate::status::Status;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn published(status: Status) -> (watch::Sender<Arc<Published>>, Pages) {
    let (sender, published) = watch::channel(Arc::new(Published { status, ..Published::default() }));
    (sender, Pages { published, liveness: Liveness::new(Duration::from_secs(3600)) })
}

async fn get_page(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Serves on a port of the kernel's choice for as long as the returned guard lives.
async fn serving(pages: Pages) -> (SocketAddr, tokio_util::sync::DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "ends with the guard")]
    tokio::spawn(server::serve(listener, router(pages), 4, stop.clone()));
    (address, stop.drop_guard())
}

#[tokio::test]
async fn ready_is_200_and_unready_503_with_its_reasons() {
    let (sender, pages) = published(Status::default());
    let (address, _stop) = serving(pages).await;
    assert_eq!(
        get_page(address, "/readyz").await,
        (503, "not ready\nthe first pass has not ended\n".to_owned())
    );

    let not_ready_reasons = vec!["NoBlock".to_owned(), "StoreUnavailable".to_owned()];
    let status = Status { not_ready_reasons, ..Status::default() };
    sender.send_replace(Arc::new(Published { status, ..Published::default() }));
    assert_eq!(
        get_page(address, "/readyz").await,
        (503, "not ready\nNoBlock\nStoreUnavailable\n".to_owned())
    );

    let status = Status { ready: true, ..Status::default() };
    sender.send_replace(Arc::new(Published { status, ..Published::default() }));
    assert_eq!(get_page(address, "/readyz").await, (200, "ready\n".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn live_while_the_promise_is_kept() {
    let (_sender, pages) = published(Status::default());
    let state = || State(pages.clone());
    assert_eq!(livez(state()).await.0, StatusCode::OK);
    tokio::time::advance(Duration::from_secs(3607)).await;
    let (code, text) = livez(state()).await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text, "the agent's loop should have been heard of 7 s ago\n");
}

#[tokio::test]
async fn metrics_come_as_openmetrics_and_unknown_paths_are_404() {
    let (_sender, pages) = published(Status::default());
    let (address, _stop) = serving(pages).await;
    let (code, text) = get_page(address, "/metrics").await;
    assert_eq!(code, 200);
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert_eq!(get_page(address, "/debug").await.0, 404);
    assert_eq!(get_page(address, "/").await.0, 200);
}

#[tokio::test]
async fn silent_clients_do_not_keep_others_out_for_ever() {
    let (_sender, pages) = published(Status::default());
    let (address, _stop) = serving(pages).await;
    // All four places are taken by clients that send nothing.
    let silent: Vec<TcpStream> = futures_util::future::join_all((0..4).map(|_| TcpStream::connect(address)))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    tokio::time::pause();
    // The paused clock runs ahead as soon as nothing else can be done: the silent ones are cut off.
    assert_eq!(get_page(address, "/livez").await.0, 200);
    drop(silent);
}

#[tokio::test]
async fn a_port_in_use_is_a_condition_until_it_is_free() {
    let occupant = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = occupant.local_addr().unwrap();
    let (_sender, pages) = published(Status { ready: true, ..Status::default() });
    let (trouble, mut troubles) = watch::channel(None);
    let stop = CancellationToken::new();
    let server = serve(address, pages, trouble, stop.clone());
    let observer = async {
        let condition = troubles.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert_eq!(condition.kind, "HttpPortInUse");
        assert_eq!(condition.subject, address.to_string());
        assert!(condition.message.contains("ss -ltnp"), "{}", condition.message);
        drop(occupant);
        tokio::time::pause();
        troubles.wait_for(Option::is_none).await.unwrap();
        tokio::time::resume();
        assert_eq!(get_page(address, "/readyz").await.0, 200);
        stop.cancel();
    };
    tokio::join!(server, observer);
}
