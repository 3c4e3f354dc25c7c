//! A peer that speaks BGP by hand.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bgp::wire::{Capability, Codec, GracefulRestart, Message, Notification, Open, decode};
use bgp::{Asn, Family, RouterId};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::harness::{PATIENCE, PORT};

pub(crate) const CODEC: Codec = Codec { four_octet_as: true, internal: true };

pub(crate) struct Fake {
    pub(crate) stream: TcpStream,
    buffer: BytesMut,
}

/// What came next.
#[derive(Debug)]
pub(crate) enum Next {
    Message(Message),
    /// The end of the stream.
    End,
    /// A reset.
    Reset,
}

impl Fake {
    pub(crate) async fn connect(from: Ipv4Addr, to: Ipv4Addr) -> Self {
        let connect = async {
            loop {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(SocketAddr::new(from.into(), 0)).unwrap();
                if let Ok(stream) = socket.connect(SocketAddr::new(to.into(), PORT)).await {
                    return Self { stream, buffer: BytesMut::new() };
                }
                // The speaker is about to listen.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, connect).await.expect("connecting")
    }

    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = timeout(PATIENCE, listener.accept()).await.expect("a connection").unwrap();
        Self { stream, buffer: BytesMut::new() }
    }

    pub(crate) async fn send(&mut self, message: Message) {
        let mut bytes = BytesMut::new();
        message.encode(CODEC, &mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Next {
        let next = async {
            loop {
                if let Some(message) = decode(&mut self.buffer, CODEC).expect("well-formed messages") {
                    return Next::Message(message);
                }
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) => return Next::End,
                    Ok(_) => {}
                    Err(_) => return Next::Reset,
                }
            }
        };
        timeout(PATIENCE, next).await.expect("a message or the end")
    }

    /// The next message that is not a keepalive.
    pub(crate) async fn message(&mut self) -> Message {
        loop {
            match self.next().await {
                Next::Message(Message::Keepalive) => {}
                Next::Message(message) => return message,
                next @ (Next::End | Next::Reset) => panic!("{next:?} instead of a message"),
            }
        }
    }

    /// The NOTIFICATION that must come, and the end of the stream after it.
    pub(crate) async fn notification(&mut self) -> Notification {
        let notification = loop {
            match self.message().await {
                Message::Notification(notification) => break notification,
                Message::Open(_) | Message::Update(_) | Message::Keepalive | Message::RouteRefresh(_) => {}
            }
        };
        assert!(matches!(self.next().await, Next::End), "a clean end after the NOTIFICATION");
        notification
    }

    /// Up to Established, as this identifier.
    pub(crate) async fn establish(&mut self, as_id: Ipv4Addr) -> Open {
        self.establish_as(open(as_id)).await
    }

    /// Up to Established, with this OPEN.
    pub(crate) async fn establish_as(&mut self, open: Open) -> Open {
        let Message::Open(theirs) = self.message().await else { panic!("no OPEN") };
        self.send(Message::Open(open)).await;
        assert!(matches!(self.next().await, Next::Message(Message::Keepalive)));
        self.send(Message::Keepalive).await;
        theirs
    }
}

pub(crate) fn open(id: Ipv4Addr) -> Open {
    Open {
        asn: Asn(64512),
        hold_time_secs: 3,
        router_id: RouterId(id),
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv4),
            Capability::Multiprotocol(Family::Ipv6),
            Capability::RouteRefresh,
            Capability::FourOctetAs(Asn(64512)),
            Capability::GracefulRestart(GracefulRestart {
                restarting: false,
                notification: true,
                restart_time_secs: 30,
                families: vec![(Family::Ipv4, true), (Family::Ipv6, true)],
            }),
        ],
    }
}
