//! What an agent is made of.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use config::Config;
use ipnet::IpNet;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};
use vxlan::{Dataplane, Lost, State};

use super::StartBgp;
use crate::liveness::Liveness;
use crate::reload::ConfigSource;
use crate::status::Condition;
use crate::store::Store;

/// What an agent is made of.
pub struct AgentParts {
    /// Configuration of this node.
    pub config: Config,
    /// Where it comes from, to follow its changes; `None`: it never changes.
    pub source: Option<ConfigSource>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The kernel.
    pub dataplane: Box<dyn Dataplane>,
    /// Says that something of interest has changed in the kernel.
    pub kernel_events: Box<dyn KernelEvents>,
    /// Starts the BGP speaker.
    pub bgp: StartBgp,
    /// The loop's promise to be heard of.
    pub liveness: Liveness,
    /// Conditions of other parts of the process: an HTTP port in use.
    pub troubles: Vec<watch::Receiver<Option<Condition>>>,
    /// Times and shares.
    pub limits: Limits,
}

/// What wakes the loop when somebody changes the kernel.
#[async_trait]
pub trait KernelEvents: Send {
    /// Prefixes for which routes of others matter.
    fn watch(&mut self, prefixes: Vec<IpNet>);
    /// What the kernel should hold from now on: that it comes to be so is no change to wake for.
    fn expect(&mut self, _wanted: &Arc<State>) {}
    /// After a change: what was taken away of what is wanted, if nothing else has happened since this was asked last.
    fn lost(&mut self) -> Option<Lost> {
        None
    }
    /// Whether there is a change that [`KernelEvents::changed`] has not told of: without waiting, and told by this.
    /// Everything that others did until now is known then.
    ///
    /// # Errors
    /// Nothing can be heard at the moment: there may be changes.
    fn hear(&mut self) -> io::Result<bool>;
    /// Waits for a change. Cancel-safe. After an error the next call tries to listen anew, and succeeds at once if
    /// it can: what happened in between is unknown.
    async fn changed(&mut self) -> io::Result<()>;
}

/// Wakes that a task of somebody else's makes, which knows by itself what to watch.
#[async_trait]
impl KernelEvents for mpsc::Receiver<()> {
    fn watch(&mut self, _prefixes: Vec<IpNet>) {}

    fn hear(&mut self) -> io::Result<bool> {
        match self.try_recv() {
            Ok(()) => Ok(true),
            Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::Disconnected) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    async fn changed(&mut self) -> io::Result<()> {
        self.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

/// Times that hold for every agent; tests shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The kernel is looked at so often when nothing happens.
    pub audit: Duration,
    /// Events are gathered for so long, and where passes take long, up to so long: they leave the processor to others.
    pub debounce: (Duration, Duration),
    /// How long an underlay address may be away before it counts as gone, while the other family's stands.
    pub underlay_grace: Duration,
    /// A session that has not come up for so long is reported.
    pub session_patience: Duration,
    /// Another agent of our name that gives no sign of life for so long is gone.
    pub name_patience: Duration,
    /// The kernel is asked again so often for a module that it lacks: asking starts a program.
    pub module_patience: Duration,
    /// First and longest wait after a failure.
    pub retry: (Duration, Duration),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            audit: Duration::from_secs(30),
            debounce: (Duration::from_millis(20), Duration::from_millis(400)),
            underlay_grace: Duration::from_secs(30),
            session_patience: Duration::from_secs(30),
            name_patience: Duration::from_secs(60),
            module_patience: Duration::from_secs(30),
            retry: (Duration::from_millis(250), Duration::from_secs(30)),
        }
    }
}
