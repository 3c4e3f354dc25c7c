//! One agent per network namespace: two would undo each other's kernel objects for ever, whatever their state
//! directories.
//!
//! The lock is an abstract unix socket. Its names belong to the network namespace and to no filesystem, so two
//! containers on one host network meet in it; it goes with the process, and tells who holds it.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use tokio_util::sync::CancellationToken;

/// Name of the abstract socket.
const NAME: &str = "pairway.agent";

/// Another agent runs in this network namespace, or nobody can tell.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// Another agent has it.
    #[error(
        "another agent{} runs in this network namespace: stop it first; every node has one agent, whatever its stateDir",
        pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
    )]
    Taken {
        /// Its process, where this one may see it.
        pid: Option<i32>,
    },
    /// The lock can't be taken.
    #[error(
        "can't take the abstract unix socket @{NAME}, which keeps a second agent from this network namespace"
    )]
    Unusable(#[source] io::Error),
}

/// Held for as long as the agent runs.
#[derive(Debug)]
pub(super) struct NamespaceLock {
    /// `None`: a stranger has the name.
    socket: Option<UnixListener>,
}

impl NamespaceLock {
    /// Takes the lock of the network namespace of the calling thread.
    ///
    /// # Errors
    /// Another agent holds it.
    pub(super) fn take() -> Result<Self, NamespaceError> {
        Self::take_named(NAME)
    }

    fn take_named(name: &str) -> Result<Self, NamespaceError> {
        let address = SocketAddr::from_abstract_name(name).map_err(NamespaceError::Unusable)?;
        match UnixListener::bind_addr(&address) {
            Ok(socket) => Ok(Self { socket: Some(socket) }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let stream = UnixStream::connect_addr(&address).ok();
                let holder = stream.and_then(|stream| getsockopt(&stream, PeerCredentials).ok());
                match holder {
                    // Anybody can take a name; only root and ourselves could run an agent.
                    Some(holder) if ![0, geteuid().as_raw()].contains(&holder.uid()) => {
                        tracing::warn!(
                            process = holder.pid(),
                            user = holder.uid(),
                            "somebody who can't be an agent holds the socket @{name}: a second agent would not be noticed"
                        );
                        Ok(Self { socket: None })
                    }
                    holder => Err(NamespaceError::Taken {
                        pid: holder.map(|holder| holder.pid()).filter(|pid| *pid > 0),
                    }),
                }
            }
            Err(error) => Err(NamespaceError::Unusable(error)),
        }
    }

    /// Holds the lock until `stop`. Whoever asks is let go at once: what waits in the queue would fill it.
    pub(super) async fn hold(self, stop: CancellationToken) {
        let Some(socket) = self.socket else { return };
        let listener = socket.set_nonblocking(true).and_then(|()| tokio::net::UnixListener::from_std(socket));
        match listener {
            Ok(listener) => {
                let answer = async {
                    loop {
                        if listener.accept().await.is_err() {
                            // No descriptor left, say: the name is held all the same.
                            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                        }
                    }
                };
                stop.run_until_cancelled(answer).await;
            }
            Err(error) => tracing::warn!(%error, "the socket @{NAME} can't be held"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_of_the_first_and_the_name_goes_with_it() {
        let name = format!("pairway.test.{}", std::process::id());
        let first = NamespaceLock::take_named(&name).unwrap();
        let error = NamespaceLock::take_named(&name).unwrap_err();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(error, NamespaceError::Taken { pid: Some(pid) } if pid == own), "{error}");
        drop(first);
        NamespaceLock::take_named(&name).unwrap();
    }

    #[tokio::test]
    async fn any_number_may_ask() {
        let name = format!("pairway.test.asked.{}", std::process::id());
        let lock = NamespaceLock::take_named(&name).unwrap();
        let stop = CancellationToken::new();
        let mut held = tokio::task::JoinSet::new();
        held.spawn(lock.hold(stop.clone()));
        for _ in 0..300 {
            tokio::task::yield_now().await;
            let asked = tokio::task::spawn_blocking({
                let name = name.clone();
                move || NamespaceLock::take_named(&name).is_err()
            });
            let asked = tokio::time::timeout(std::time::Duration::from_secs(10), asked).await;
            assert!(asked.expect("an answer").unwrap());
        }
        stop.cancel();
        held.join_next().await.unwrap().unwrap();
        NamespaceLock::take_named(&name).unwrap();
    }
}
