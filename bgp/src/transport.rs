//! Sockets: listeners, connection attempts, and a reader and a writer task per connection.
//!
//! Everything that happens is an [`Event`] in one bounded channel, which the speaker's task drains. That task never
//! waits for a connection: what it sends goes through bounded queues, and a full queue is an answer. Every task
//! here belongs to a `JoinSet` of the speaker and ends with it.
//!
//! All sessions are single-hop: packets leave with TTL 1, so that a session with a node of our subnet can't take
//! a way through a router, which would make it no evidence for native paths. (No GTSM, RFC 5082, which is TTL 255
//! with a check at the receiver.)

mod connection;
mod listener;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

pub(crate) use connection::{Connection, FLUSH_TIME, LINGER_TIME};
pub(crate) use listener::listen;

use crate::session::Conn;
use crate::wire::{DecodeError, Message};

/// What happened on a socket.
#[derive(Debug)]
pub(crate) enum Event {
    /// The address is listened on.
    Listening(SocketAddr),
    /// The address can't be listened on for now; it is tried again.
    ListenFailed(SocketAddr, ListenError),
    /// A connection that someone opened.
    Incoming(TcpStream, SocketAddr),
    /// The end of a connection attempt of ours, by its number.
    Dialled(u64, io::Result<TcpStream>),
    /// Messages, in order; after an error nothing comes any more.
    Received(Conn, Vec<Result<Message, DecodeError>>),
    /// The connection is closed, by the peer or by the network.
    Closed(Conn),
    /// The system took what we sent.
    Sent(Conn),
}

/// Why an address can't be listened on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ListenError {
    /// Another program listens there (`EADDRINUSE`).
    pub in_use: bool,
    /// The system's text, and what it means.
    pub text: String,
}

/// How long sent data may stay unacknowledged, or a closed window shut, before the connection is given up
/// (RFC 5482): longer than the hold time, which is the protocol's own measure.
fn user_timeout(hold_time: Duration) -> Duration {
    (hold_time * 3).max(Duration::from_secs(30))
}

/// Opens a connection.
pub(crate) async fn dial(
    remote: SocketAddr,
    local: Option<IpAddr>,
    hold_time: Duration,
) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    prepare(SockRef::from(&socket), remote.ip(), hold_time)?;
    if let Some(local) = local {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    socket.connect(remote).await
}

/// Socket options of every connection.
pub(crate) fn prepare(socket: SockRef<'_>, remote: IpAddr, hold_time: Duration) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if remote.is_ipv4() {
        socket.set_ttl_v4(1)?;
    } else {
        socket.set_unicast_hops_v6(1)?;
    }
    socket.set_tcp_user_timeout(Some(user_timeout(hold_time)))?;
    // A peer that dies before its OPEN is noticed long before the initial hold time is over.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)
}
