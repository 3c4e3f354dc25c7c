//! The speaker: one task that owns every session and the RIB.
//!
//! Level-triggered from outside: [`Speaker::set_peers`] and [`Speaker::announce`] take the whole wanted set,
//! [`Speaker::routes`] and [`Speaker::status`] give whole values.
//!
//! Tasks: the speaker's own (`core`), which the handle owns; it owns one per listening address, one per connection
//! attempt, and a reader and a writer per connection (`transport`). None outlives its owner.

mod core;
mod peer;
mod publish;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use self::core::{Core, Wanted};
use self::publish::Publisher;
pub use crate::rib::{Export, ImportFilter, ImportRule, LearnedRoute, PeerName, Refusal, Routes};
pub use crate::session::{Role, SessionState};
pub use crate::transport::ListenError;
use crate::{Asn, Family, RouterId};

/// Identity of this speaker and what holds for all its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// Our AS.
    pub asn: Asn,
    /// Our identifier.
    pub router_id: RouterId,
    /// Addresses to listen on. An address that can't be bound is a condition in the status and tried again, not an error.
    pub listen: Vec<SocketAddr>,
    /// Proposed hold time; 0 or 3 s to 65535 s.
    pub hold_time: Duration,
    /// Graceful restart: how long peers keep our routes after we are gone (RFC 4724), 0 to 4095 s; 0 turns it off.
    pub restart_time: Duration,
    /// We come back from a restart with our forwarding state kept: R and F bits are set until the restart time has passed.
    pub restarting: bool,
}

/// A peer as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Address to connect to, and the only one accepted from.
    pub address: IpAddr,
    /// Port to connect to.
    pub port: u16,
    /// Address to connect from; `None` lets the kernel choose.
    pub local_address: Option<IpAddr>,
    /// The peer's AS; equal to ours makes the session internal.
    pub asn: Asn,
    /// The peer must present this identifier, where it is known.
    pub router_id: Option<RouterId>,
    /// Who opens the connection. Both sides always keep collision handling (RFC 4271 §6.8).
    pub role: Role,
    /// Families to negotiate.
    pub families: BTreeSet<Family>,
    /// Next hop that we announce, by family. A family without one is not announced.
    pub next_hops: BTreeMap<Family, IpAddr>,
    /// What is accepted from it; the rest is refused and counted.
    pub import: ImportFilter,
    /// Which of our announcements go to it: all, or those within these prefixes.
    pub export: Export,
    /// Our prefixes are announced with GRACEFUL_SHUTDOWN: the peer should prefer other ways to them (RFC 8326).
    pub graceful_shutdown: bool,
    /// More prefixes than this (accepted or not) end the session with Cease/1 (RFC 4486).
    pub max_prefixes: usize,
}

/// What a session is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Address of the peer.
    pub address: IpAddr,
    /// Its AS.
    pub asn: Asn,
    /// State of the session.
    pub state: SessionState,
    /// Families negotiated (empty unless established).
    pub families: BTreeSet<Family>,
    /// Negotiated hold time (zero unless established).
    pub hold_time: Duration,
    /// Families whose End-of-RIB has come (RFC 4724 §2).
    pub end_of_rib: BTreeSet<Family>,
    /// The peer is away and its routes are kept (helper role of RFC 4724).
    pub restarting: bool,
    /// How long the session has been in its state.
    pub since: Duration,
    /// Times that the session was established.
    pub established_count: u64,
    /// Why the session went down last, for people: `hold timer expired`, `NOTIFICATION received: 6/2 ...`.
    pub last_error: Option<String>,
    /// Accepted prefixes by family.
    pub accepted: BTreeMap<Family, usize>,
    /// Prefixes in refusal, by reason: current number.
    pub refused: BTreeMap<Refusal, usize>,
    /// Up to 100 of the refused prefixes with reason.
    pub refused_prefixes: Vec<(IpNet, Refusal)>,
    /// Prefixes that we announce to it, by family.
    pub announced: BTreeMap<Family, usize>,
    /// Messages received and sent since the peer was configured.
    pub messages: MessageCounters,
    /// Malformed attributes by outcome since the peer was configured (RFC 7606).
    pub attribute_errors: u64,
}

/// Message counters of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageCounters {
    /// UPDATE messages received.
    pub updates_received: u64,
    /// UPDATE messages sent.
    pub updates_sent: u64,
    /// All messages received.
    pub received: u64,
    /// All messages sent.
    pub sent: u64,
}

/// Everything about the sessions at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpeakerStatus {
    /// By peer.
    pub peers: BTreeMap<PeerName, PeerStatus>,
    /// Addresses that can't be listened on, and why; empty when all is well.
    pub listen_errors: BTreeMap<SocketAddr, ListenError>,
    /// Connections refused because no peer has that source address.
    pub unknown_connections: u64,
}

/// How to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Close the connections without a word: peers with graceful restart keep our routes.
    Silent,
    /// Send Cease with this subcode (RFC 4486): 2 administrative shutdown, 3 peer de-configured, 6 other configuration change.
    Cease(u8),
}

/// Handle of a running speaker. Dropping it ends the speaker silently.
#[derive(Debug)]
pub struct Speaker {
    wanted: watch::Sender<Wanted>,
    routes: watch::Receiver<Arc<Routes>>,
    status: watch::Receiver<Arc<SpeakerStatus>>,
    stop: oneshot::Sender<Shutdown>,
    /// The speaker's one task; ended with the handle.
    task: JoinSet<()>,
}

impl Speaker {
    /// Starts the speaker's task on the current runtime.
    #[must_use]
    pub fn start(config: SpeakerConfig) -> Self {
        let (wanted, wanted_receiver) = watch::channel(Wanted::default());
        let (routes_sender, routes) = watch::channel(Arc::default());
        let (status_sender, status) = watch::channel(Arc::default());
        let (stop, stop_receiver) = oneshot::channel();
        let publisher = Publisher::new(routes_sender, status_sender);
        let mut task = JoinSet::new();
        task.spawn(Core::new(config, publisher).run(wanted_receiver, stop_receiver));
        Self { wanted, routes, status, stop, task }
    }

    /// The whole wanted set of peers. A peer that is new is started, one that is gone is closed with Cease/3, one
    /// whose session parameters changed is restarted with Cease/6; a changed filter takes effect in place.
    pub fn set_peers(&self, peers: BTreeMap<PeerName, Peer>) {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.peers != peers;
            wanted.peers = peers;
            changed
        });
    }

    /// The whole set of prefixes to announce.
    pub fn announce(&self, prefixes: BTreeSet<IpNet>) {
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted.announce != prefixes;
            wanted.announce = Arc::new(prefixes);
            changed
        });
    }

    /// Accepted routes; changes at most once per batch of received messages.
    #[must_use]
    pub fn routes(&self) -> watch::Receiver<Arc<Routes>> {
        self.routes.clone()
    }

    /// Status; changes with every state change, counters at least every second.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<SpeakerStatus>> {
        self.status.clone()
    }

    /// Ends all sessions and the task. Waits, for a second or two at most, until the last messages are sent.
    pub async fn shutdown(mut self, how: Shutdown) {
        // An error means that the task has ended already.
        let _ = self.stop.send(how);
        while self.task.join_next().await.is_some() {}
    }
}
