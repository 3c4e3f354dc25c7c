//! The agent as a process: opens what it needs, in the order in which failures are told best, runs the loop with
//! the surfaces and the watchers beside it, and ends them together.
//!
//! Everything that can't be is told before the first kernel object is touched. On SIGTERM and SIGINT the loop ends
//! as it should: sessions without a Cease, the data plane in place.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::{Config, ConfigFile};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vxlan::Marks;
use vxlan::netlink::{Kernel, KernelTooOld, require_kernel};

use crate::agent::{Agent, AgentError, AgentParts, Limits, real_bgp};
use crate::api::{self, socket};
use crate::http;
use crate::liveness::Liveness;
use crate::node::NodeName;
use crate::reload::{self, ConfigSource};
use crate::store::etcd::{EtcdOptions, EtcdStore};
use crate::store::file::{FileOptions, FileStore, UnfitDirectory};
use crate::store::kubernetes::{KubernetesOptions, KubernetesStore, RemoteOptions};
use crate::store::{LAST_GOOD_FILE_NAME, Store};

mod capabilities;
mod kernel_events;
mod namespace;

pub use capabilities::NotPermitted;
use kernel_events::Notifications;
pub use namespace::NamespaceError;
use namespace::NamespaceLock;

/// `ifalias` of our devices: by it we know them again.
pub const IFALIAS: &str = "pairway";

/// The first pass may take so long before `/livez` finds the loop dead: a cluster's worth of kernel objects.
const FIRST_PASS_WITHIN: Duration = Duration::from_secs(120);

/// How long what runs beside the loop may take to end.
const END_WITHIN: Duration = Duration::from_secs(5);

/// An agent that can't run, or has to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The kernel lacks what we build on.
    #[error(transparent)]
    OldKernel(#[from] KernelTooOld),
    /// The process may not do what the agent is there for.
    #[error(transparent)]
    NotPermitted(#[from] NotPermitted),
    /// Another agent runs in this network namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// No netlink.
    #[error("can't talk to the kernel by netlink")]
    Netlink(#[source] io::Error),
    /// The store's directory can never be a store.
    #[error(transparent)]
    Store(#[from] UnfitDirectory),
    /// The API's socket.
    #[error(transparent)]
    Socket(#[from] socket::SocketError),
    /// The loop.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Signals can't be received.
    #[error("can't receive signals")]
    Signals(#[source] io::Error),
}

/// Marks of ownership that a configuration gives.
#[must_use]
pub fn marks(kernel: &config::Kernel) -> Marks {
    Marks {
        route_protocol: kernel.route_protocol,
        ifalias: IFALIAS.to_owned(),
        nexthop_base: kernel.nexthop_base,
        firewall_table: kernel.firewall_table.clone(),
    }
}

/// Opens the store that a configuration names, for the agent of `node` if there is one. In the state directory, if there
/// is one, it keeps what records said for the next start.
///
/// # Errors
/// It can never be a store. One that only fails now is opened and says so.
pub async fn open_store(
    config: &config::Store,
    node: Option<&NodeName>,
    state_dir: Option<&Path>,
) -> Result<Arc<dyn Store>, UnfitDirectory> {
    let last_good = state_dir.map(|directory| directory.join(LAST_GOOD_FILE_NAME));
    let remote =
        RemoteOptions { node: node.cloned(), last_good: last_good.clone(), ..RemoteOptions::default() };
    Ok(match config {
        config::Store::File { path, allow_network_filesystem } => {
            let options = FileOptions {
                allow_network_filesystem: *allow_network_filesystem,
                last_good,
                ..FileOptions::default()
            };
            Arc::new(FileStore::open(path, options).await?)
        }
        config::Store::Kubernetes { kubeconfig, context, namespace } => {
            Arc::new(KubernetesStore::open(KubernetesOptions {
                kubeconfig: kubeconfig.clone(),
                context: context.clone(),
                namespace: namespace.clone(),
                remote,
                ..KubernetesOptions::default()
            }))
        }
        config::Store::Etcd(etcd) => Arc::new(EtcdStore::open(EtcdOptions {
            endpoints: etcd.endpoints.clone(),
            prefix: etcd.prefix.clone(),
            ca_file: etcd.ca_file.clone(),
            cert_file: etcd.cert_file.clone(),
            key_file: etcd.key_file.clone(),
            server_name: etcd.server_name.clone(),
            username: etcd.username.clone(),
            password_file: etcd.password_file.clone(),
            remote,
        })),
    })
}

/// Runs an agent until it is told to end. `file` is where `config` came from, and is followed; `name_of` finds the
/// node's name in a new version of it.
///
/// # Errors
/// Something is missing that the agent can't run without, or a part of it has died.
pub async fn run(
    file: &Path,
    config: Config,
    name_of: impl Fn(&ConfigFile) -> Result<String, String> + Send + 'static,
) -> Result<(), DaemonError> {
    let stop = CancellationToken::new();
    let _stops_all = stop.clone().drop_guard();
    let mut beside = JoinSet::new();
    end_on_signals(&stop, &mut beside).map_err(DaemonError::Signals)?;
    let release = require_kernel()?;
    capabilities::require(config.bgp.port)?;
    beside.spawn(NamespaceLock::take()?.hold(stop.clone()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), kernel = %release, "pairway starts");

    // A name that is none is told by the agent itself.
    let node = config.node.name.parse().ok();
    let store = open_store(&config.store, node.as_ref(), Some(&config.state_dir)).await?;
    let marks = marks(&config.kernel);
    let kernel = Kernel::open(marks.clone()).map_err(DaemonError::Netlink)?;
    let kernel_events = Notifications::open(marks, kernel.ports()).map_err(DaemonError::Netlink)?;
    let (http_trouble, http_troubles) = watch::channel(None);
    let (announce_trouble, announce_troubles) = watch::channel(None);
    let liveness = Liveness::new(FIRST_PASS_WITHIN);
    let (http_address, api_socket) = (config.http, config.api_socket.clone());
    let announcing = Arc::clone(&store);
    let (agent, handle) = Agent::new(AgentParts {
        config,
        source: Some(follow(file, name_of, &stop, &mut beside)),
        store,
        dataplane: Box::new(kernel),
        kernel_events: Box::new(kernel_events),
        bgp: real_bgp(),
        liveness: liveness.clone(),
        troubles: vec![http_troubles, announce_troubles],
        limits: Limits::default(),
    })?;
    // After the state directory's lock: a second agent is told of the first by its process id.
    let socket = socket::Bound::bind(&api_socket).await?;
    let pages = http::Pages { published: handle.published.clone(), liveness };
    beside.spawn(http::serve(http_address, pages, http_trouble, stop.clone()));
    let (published, until) = (handle.published.clone(), stop.clone());
    beside.spawn(async move {
        until.run_until_cancelled(announcing.announce(published, announce_trouble)).await;
    });
    beside.spawn(api::serve(socket, handle, stop.clone()));

    let result = agent.run(stop.clone()).await;
    stop.cancel();
    let ended = tokio::time::timeout(END_WITHIN, async { while beside.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!("something beside the loop has not ended in time");
    }
    Ok(result?)
}

fn end_on_signals(stop: &CancellationToken, beside: &mut JoinSet<()>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    beside.spawn(async move {
        let name = tokio::select! {
            () = stop.cancelled() => return,
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "ending");
        stop.cancel();
    });
    Ok(())
}

/// Follows the configuration's file.
fn follow(
    file: &Path,
    name_of: impl Fn(&ConfigFile) -> Result<String, String> + Send + 'static,
    stop: &CancellationToken,
    beside: &mut JoinSet<()>,
) -> ConfigSource {
    let (wakes, watching) = reload::watch_file(file, stop.clone());
    beside.spawn(async move {
        if let Err(error) = watching.await {
            tracing::error!(%error, "the configuration is not followed: SIGHUP can't be received");
        }
    });
    let path = PathBuf::from(file);
    let load = move || {
        let file = ConfigFile::load(&path).map_err(|errors| {
            format!("none of the changed file is taken over, and what ran goes on: {}", errors.summary())
        })?;
        let name = name_of(&file)?;
        Ok(file.for_node(&name))
    };
    ConfigSource { load: Box::new(load), wakes }
}
