//! One listener per address, tried again for as long as the address can't be had.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{Event, ListenError};

/// Connections that may wait for us: all peers of a node at once. With a short backlog a herd of sessions takes
/// minutes, as refused peers retry at the pace of the kernel's SYN timer.
const BACKLOG: i32 = 4096;
/// Pause before an address is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Pause after an error of accept itself, e.g. no file descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Listens on an address until the task is ended or nobody takes the events any more.
pub(crate) async fn listen(address: SocketAddr, events: mpsc::Sender<Event>) {
    let mut reported = None;
    loop {
        match bind(address) {
            Ok(listener) => {
                if events.send(Event::Listening(address)).await.is_err() {
                    return;
                }
                return accept(&listener, address, &events).await;
            }
            Err(error) => {
                let error = explain(&error);
                // Said on change only.
                if reported.as_ref() != Some(&error) {
                    reported = Some(error.clone());
                    if events.send(Event::ListenFailed(address, error)).await.is_err() {
                        return;
                    }
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn accept(listener: &TcpListener, address: SocketAddr, events: &mpsc::Sender<Event>) {
    let mut failing = false;
    loop {
        let event = match listener.accept().await {
            Ok((stream, remote)) => {
                if std::mem::take(&mut failing) && events.send(Event::Listening(address)).await.is_err() {
                    return;
                }
                Event::Incoming(stream, remote)
            }
            // The peer gave up before we came to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                tokio::time::sleep(ACCEPT_RETRY).await;
                if std::mem::replace(&mut failing, true) {
                    continue;
                }
                Event::ListenFailed(address, explain(&error))
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Only over connections of an earlier process that linger; a live listener still keeps its port.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Each family has its own listeners.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn explain(error: &io::Error) -> ListenError {
    let kind = error.kind();
    let hint = if kind == io::ErrorKind::AddrInUse {
        Some("another program listens there, perhaps a BGP speaker")
    } else if kind == io::ErrorKind::AddrNotAvailable {
        Some("this machine does not have the address")
    } else if error.raw_os_error() == Some(EACCES) {
        // Not EPERM, which is of the same kind: a security module's refusal is another matter.
        Some("a port below net.ipv4.ip_unprivileged_port_start needs CAP_NET_BIND_SERVICE")
    } else {
        None
    };
    ListenError {
        in_use: kind == io::ErrorKind::AddrInUse,
        text: hint.map_or_else(|| error.to_string(), |hint| format!("{error}: {hint}")),
    }
}

/// Permission denied (`asm-generic/errno-base.h`).
const EACCES: i32 = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_named_where_it_is_what_is_missing() {
        for (errno, capability) in [(EACCES, true), (1, false), (98, false), (99, false), (24, false)] {
            let error = explain(&io::Error::from_raw_os_error(errno));
            assert_eq!(error.text.contains("CAP_NET_BIND_SERVICE"), capability, "{error}");
            assert_eq!(error.in_use, errno == 98);
        }
    }
}
