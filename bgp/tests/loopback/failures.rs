//! Peers that lie, fall silent or are not who they should be.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bgp::speaker::{Peer, Role, SessionState, Shutdown, Speaker, SpeakerConfig};
use bgp::wire::{ErrorCode, Message, Open, Update};
use bgp::{Asn, RouterId};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::fake::{CODEC, Fake, Next, open};
use crate::harness::*;

/// A speaker whose one peer, `fake`, is to come.
fn waiting() -> (Speaker, [std::net::Ipv4Addr; 2]) {
    let at = [address(), address()];
    let speaker = Speaker::start(config(at[0]));
    speaker.set_peers(one("fake", peer(at[0], at[1], Role::Accept)));
    (speaker, at)
}

#[expect(clippy::disallowed_methods, reason = "measures how long the speaker takes")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn garbage_is_answered_as_the_rfc_says() {
    let header = |length: u16, kind: u8| {
        let mut bytes = vec![0xff; 16];
        bytes.extend(length.to_be_bytes());
        bytes.push(kind);
        bytes
    };
    let mut version = BytesMut::new();
    Message::Open(open([1, 2, 3, 4].into())).encode(CODEC, &mut version);
    version[19] = 3;
    for (bytes, code, subcode) in [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 1, 1),
        (header(18, 4), 1, 2),
        (header(5000, 2), 1, 2),
        (header(19, 77), 1, 3),
        (version.to_vec(), 2, 1),
        // A KEEPALIVE before the OPEN (RFC 6608).
        (header(19, 4), 5, 1),
    ] {
        let (speaker, at) = waiting();
        let mut fake = Fake::connect(at[1], at[0]).await;
        fake.stream.write_all(&bytes).await.unwrap();
        let notification = fake.notification().await;
        assert_eq!((notification.code, notification.subcode), (code, subcode), "{bytes:?}");
        peer_until(&speaker, "fake", "said why", |peer| {
            peer.last_error.as_ref().is_some_and(|error| error.contains(&format!("{code}/{subcode}")))
        })
        .await;
    }
}

#[tokio::test]
async fn an_open_of_someone_else_is_refused() {
    for (change, code) in [
        ((|open: &mut Open| open.asn = Asn(65000)) as fn(&mut Open), (2, 2)),
        (|open| open.router_id = RouterId([9, 9, 9, 9].into()), (2, 3)),
        (|open| open.capabilities.retain(|c| !matches!(c, bgp::wire::Capability::FourOctetAs(_))), (0, 0)),
    ] {
        let (speaker, at) = waiting();
        let mut fake = Fake::connect(at[1], at[0]).await;
        let mut ours = open(at[1]);
        change(&mut ours);
        if code == (2, 2) {
            ours.capabilities.retain(|c| !matches!(c, bgp::wire::Capability::FourOctetAs(_)));
        }
        fake.send(Message::Open(ours)).await;
        if code == (0, 0) {
            // An old speaker is welcome (RFC 6793).
            fake.send(Message::Keepalive).await;
            established(&speaker, "fake").await;
            continue;
        }
        let notification = fake.notification().await;
        assert_eq!((notification.code, notification.subcode), code);
    }
}

#[tokio::test]
async fn malformed_updates_in_an_established_session() {
    let (speaker, at) = waiting();
    let mut fake = Fake::connect(at[1], at[0]).await;
    fake.establish(at[1]).await;
    established(&speaker, "fake").await;
    // RFC 7606: an ORIGIN of 9 is treat-as-withdraw; the session stays.
    let mut bytes = vec![0xff; 16];
    let mut body = vec![0, 0, 0, 4, 0x40, 1, 1, 9];
    body.extend([24, 10, 1, 1]);
    bytes.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    bytes.push(2);
    bytes.extend(body);
    fake.stream.write_all(&bytes).await.unwrap();
    let status = peer_until(&speaker, "fake", "counted", |peer| peer.attribute_errors > 0).await;
    assert_eq!(status.state, SessionState::Established);
    // Lengths that exceed the message end it with 3/1.
    bytes.truncate(19);
    bytes[16..18].copy_from_slice(&23u16.to_be_bytes());
    bytes.extend([0xff, 0xff, 0, 0]);
    fake.stream.write_all(&bytes).await.unwrap();
    assert_eq!(fake.notification().await.error(), ErrorCode::MALFORMED_ATTRIBUTE_LIST);
}

#[tokio::test]
async fn the_hold_timer_expires_when_a_peer_falls_silent() {
    let (speaker, at) = waiting();
    let mut fake = Fake::connect(at[1], at[0]).await;
    // It proposes 3 s and says nothing after that.
    fake.establish(at[1]).await;
    let status = established(&speaker, "fake").await;
    assert_eq!(status.hold_time, Duration::from_secs(3));
    let silent_since = now();
    assert_eq!(fake.notification().await.error(), ErrorCode::HOLD_TIMER_EXPIRED);
    let took = silent_since.elapsed();
    assert!((Duration::from_millis(2500)..Duration::from_secs(6)).contains(&took), "{took:?}");
    let status = peer_until(&speaker, "fake", "down", |peer| peer.state != SessionState::Established).await;
    assert_eq!(status.last_error.as_deref(), Some("hold timer expired"));
}

#[tokio::test]
async fn keepalives_hold_the_session_while_a_peer_takes_no_routes() {
    // First: it takes longer than the session would wait.
    let many: BTreeSet<ipnet::IpNet> = (0..200_000u32)
        .map(|n| format!("10.{}.{}.{}/32", n >> 16 & 255, n >> 8 & 255, n & 255).parse().unwrap())
        .collect();
    let (speaker, at) = waiting();
    let hold = Peer { max_prefixes: 10, ..peer(at[0], at[1], Role::Accept) };
    speaker.set_peers(one("fake", hold));
    let mut fake = Fake::connect(at[1], at[0]).await;
    // Small buffers at its end.
    socket2::SockRef::from(&fake.stream).set_recv_buffer_size(128 * 1024).unwrap();
    // So many prefixes take a busy machine some seconds.
    fake.establish_as(Open { hold_time_secs: 9, ..open(at[1]) }).await;
    speaker.announce(many.clone());
    // It talks for two hold times and reads nothing.
    for _ in 0..18 {
        fake.send(Message::Keepalive).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let status = speaker.status().borrow().peers["fake"].clone();
    assert_eq!(status.state, SessionState::Established, "{status:?}");
    assert!(status.announced.values().sum::<usize>() == 200_000, "{status:?}");
    // Now it reads, and in the end knows what is announced by then.
    let few: BTreeSet<ipnet::IpNet> = many.into_iter().take(10).collect();
    speaker.announce(few.clone());
    let mut told = BTreeSet::new();
    while told != few {
        let Message::Update(update) = fake.message().await else { panic!("no UPDATE") };
        for prefix in &update.withdrawn {
            told.remove(prefix);
        }
        told.extend(update.reach.iter().flat_map(|reach| reach.prefixes.iter().copied()));
        fake.send(Message::Keepalive).await;
    }
}

#[tokio::test]
async fn strangers_are_refused_and_counted() {
    let (speaker, at) = waiting();
    let mut stranger = Fake::connect(address(), at[0]).await;
    assert!(matches!(stranger.next().await, Next::End | Next::Reset));
    until(speaker.status(), "one stranger", |status| status.unknown_connections == 1).await;
    assert_eq!(speaker.status().borrow().peers["fake"].messages.received, 0);
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_condition_until_it_is_free() {
    let at = [address(), address()];
    let listen = SocketAddr::new(at[0].into(), PORT);
    let taken = TcpListener::bind(listen).await.unwrap();
    let a = Speaker::start(config(at[0]));
    let status = until(a.status(), "a condition", |status| !status.listen_errors.is_empty()).await;
    assert!(status.listen_errors[&listen].in_use, "{:?}", status.listen_errors);
    // Dialling works all the same.
    let b = Speaker::start(config(at[1]));
    a.set_peers(one("b", peer(at[0], at[1], Role::Dial)));
    b.set_peers(one("a", peer(at[1], at[0], Role::Accept)));
    established(&a, "b").await;
    drop(taken);
    until(a.status(), "listening", |status| status.listen_errors.is_empty()).await;
    // And being dialled.
    a.set_peers(one("b", peer(at[0], at[1], Role::Accept)));
    b.set_peers(one("a", peer(at[1], at[0], Role::Dial)));
    b.shutdown(Shutdown::Silent).await;
    let b = Speaker::start(config(at[1]));
    b.set_peers(one("a", peer(at[1], at[0], Role::Dial)));
    established(&b, "a").await;
}

#[tokio::test]
async fn an_address_that_is_not_there_is_a_condition() {
    // TEST-NET-3 is nobody's.
    let nobody = "203.0.113.77:20179".parse().unwrap();
    let speaker = Speaker::start(SpeakerConfig { listen: vec![nobody], ..config(address()) });
    let status = until(speaker.status(), "a condition", |status| !status.listen_errors.is_empty()).await;
    assert!(status.listen_errors[&nobody].text.contains("does not have the address"));
}

#[tokio::test]
async fn a_cease_is_flushed_and_a_silent_end_says_nothing() {
    for (how, expected) in [(Shutdown::Cease(2), Some(2)), (Shutdown::Silent, None)] {
        let (speaker, at) = waiting();
        let mut fake = Fake::connect(at[1], at[0]).await;
        fake.establish(at[1]).await;
        established(&speaker, "fake").await;
        let listens = async {
            if let Some(subcode) = expected {
                let notification = fake.notification().await;
                // RFC 8538: a peer with the N bit gets a Hard Reset around it.
                assert_eq!(notification.hard_reset_reason().unwrap().error(), ErrorCode { code: 6, subcode });
                return;
            }
            loop {
                match fake.next().await {
                    Next::Message(Message::Keepalive | Message::Update(_)) => {}
                    Next::End => return,
                    next @ (Next::Message(_) | Next::Reset) => panic!("{next:?} from a silent end"),
                }
            }
        };
        tokio::join!(speaker.shutdown(how), listens);
    }
}

#[tokio::test]
async fn a_dropped_handle_ends_silently() {
    let (speaker, at) = waiting();
    let mut fake = Fake::connect(at[1], at[0]).await;
    fake.establish(at[1]).await;
    established(&speaker, "fake").await;
    drop(speaker);
    loop {
        match fake.next().await {
            Next::Message(Message::Keepalive | Message::Update(_)) => {}
            Next::End | Next::Reset => break,
            next @ Next::Message(_) => panic!("{next:?} from a dropped speaker"),
        }
    }
}

#[tokio::test]
async fn colliding_connections_leave_one() {
    // The fake has the higher identifier, so the connection that it opened stays (RFC 4271 §6.8).
    let at = [address(), address()];
    assert!(at[1] > at[0]);
    let listener = TcpListener::bind((at[1], PORT)).await.unwrap();
    let speaker = Speaker::start(config(at[0]));
    speaker.set_peers(one("fake", peer(at[0], at[1], Role::Dial)));
    let mut theirs = Fake::accept(&listener).await;
    let mut ours = Fake::connect(at[1], at[0]).await;
    assert!(matches!(theirs.message().await, Message::Open(_)));
    assert!(matches!(ours.message().await, Message::Open(_)));
    theirs.send(Message::Open(open(at[1]))).await;
    assert!(matches!(theirs.next().await, Next::Message(Message::Keepalive)));
    ours.send(Message::Open(open(at[1]))).await;
    assert_eq!(theirs.notification().await.error(), ErrorCode::CONNECTION_COLLISION_RESOLUTION);
    assert!(matches!(ours.next().await, Next::Message(Message::Keepalive)));
    ours.send(Message::Keepalive).await;
    assert_eq!(established(&speaker, "fake").await.established_count, 1);
}

#[tokio::test]
async fn both_ends_dial() {
    for _ in 0..10 {
        let at = [address(), address()];
        let (a, b) = (Speaker::start(config(at[0])), Speaker::start(config(at[1])));
        until(a.status(), "listening", |s| s.listen_errors.is_empty()).await;
        a.set_peers(one("b", peer(at[0], at[1], Role::Dial)));
        b.set_peers(one("a", peer(at[1], at[0], Role::Dial)));
        a.announce(prefixes(["10.244.1.0/24"]));
        b.announce(prefixes(["10.244.2.0/24"]));
        learns(&a, prefixes(["10.244.2.0/24"])).await;
        learns(&b, prefixes(["10.244.1.0/24"])).await;
    }
}

#[tokio::test]
async fn many_bad_connections_in_a_row_leave_nothing_behind() {
    let (speaker, at) = waiting();
    for _ in 0..200 {
        let mut fake = Fake::connect(at[1], at[0]).await;
        // Some of them are refused while the session rests.
        let _ = fake.stream.write_all(&[0; 64]).await;
        let mut rest = Vec::new();
        let _ = fake.stream.read_to_end(&mut rest).await;
    }
    // It still comes up for a peer that behaves, when the rest is over.
    let up = async {
        loop {
            let mut fake = Fake::connect(at[1], at[0]).await;
            if matches!(fake.next().await, Next::Message(Message::Open(_))) {
                fake.send(Message::Open(open(at[1]))).await;
                fake.send(Message::Keepalive).await;
                fake.send(Message::Update(Update::default())).await;
                return fake;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let _fake = tokio::time::timeout(PATIENCE * 2, up).await.expect("a session");
    established(&speaker, "fake").await;
}
