//! The BGP speaker as the loop sees it: a seam, so that whole agents run in tests without sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use bgp::speaker::{Peer, PeerName, Routes, Shutdown, Speaker, SpeakerConfig, SpeakerStatus};
use bgp::{Asn, RouterId};
use config::Config;
use ipnet::IpNet;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::node::NodeRecord;
use crate::plan::Plan;

/// What the loop asks of a speaker.
pub trait Bgp: Send {
    /// The whole wanted set of peers.
    fn set_peers(&self, peers: BTreeMap<PeerName, Peer>);
    /// The whole set of prefixes to announce.
    fn announce(&self, prefixes: BTreeSet<IpNet>);
    /// Accepted routes.
    fn routes(&self) -> watch::Receiver<Arc<Routes>>;
    /// State of the sessions.
    fn status(&self) -> watch::Receiver<Arc<SpeakerStatus>>;
    /// Ends all sessions.
    fn shutdown(self: Box<Self>, how: Shutdown) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Starts a speaker on the current runtime.
pub type StartBgp = Box<dyn Fn(SpeakerConfig) -> Box<dyn Bgp> + Send>;

/// The real speaker.
#[must_use]
pub fn real() -> StartBgp {
    Box::new(|config| Box::new(Speaker::start(config)))
}

impl Bgp for Speaker {
    fn set_peers(&self, peers: BTreeMap<PeerName, Peer>) {
        Self::set_peers(self, peers);
    }

    fn announce(&self, prefixes: BTreeSet<IpNet>) {
        Self::announce(self, prefixes);
    }

    fn routes(&self) -> watch::Receiver<Arc<Routes>> {
        Self::routes(self)
    }

    fn status(&self) -> watch::Receiver<Arc<SpeakerStatus>> {
        Self::status(self)
    }

    fn shutdown(self: Box<Self>, how: Shutdown) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Self::shutdown(*self, how))
    }
}

/// The speaker that runs, or none yet.
pub(super) struct Running {
    start: StartBgp,
    speaker: Option<(SpeakerConfig, Box<dyn Bgp>)>,
    /// A former one that says its last words.
    ending: JoinSet<()>,
    /// Who comes after it.
    next: Option<SpeakerConfig>,
    /// What it was told last.
    told: Option<Arc<Plan>>,
    routes: watch::Receiver<Arc<Routes>>,
    status: watch::Receiver<Arc<SpeakerStatus>>,
    /// Ends of channels that nothing is sent on: what is seen while no speaker runs.
    none: (watch::Sender<Arc<Routes>>, watch::Sender<Arc<SpeakerStatus>>),
}

impl Running {
    pub(super) fn new(start: StartBgp) -> Self {
        let (no_routes, routes) = watch::channel(Arc::default());
        let (no_status, status) = watch::channel(Arc::default());
        Self {
            start,
            speaker: None,
            ending: JoinSet::new(),
            next: None,
            told: None,
            routes,
            status,
            none: (no_routes, no_status),
        }
    }

    /// Starts the speaker, or has it start anew if its identity has changed. True if it starts anew: it then comes back
    /// as one whose forwarding state is kept, and the sessions have the restart time to come back before a pair leaves
    /// its native path. Never waits: the next one starts when the former one has said its last words.
    pub(super) fn ensure(&mut self, wanted: SpeakerConfig) -> bool {
        if !self.ending.is_empty() {
            self.next = Some(SpeakerConfig { restarting: true, ..wanted });
            return false;
        }
        if let Some((current, _)) = &self.speaker {
            // How the process began is no part of the identity.
            if (SpeakerConfig { restarting: current.restarting, ..wanted.clone() }) == *current {
                return false;
            }
        }
        let Some((current, speaker)) = self.speaker.take() else {
            self.start(wanted);
            return false;
        };
        tracing::info!("the BGP speaker starts anew with its changed configuration");
        // A new hold time is told with a Cease (RFC 4486 §4, other configuration change). One who moves to another
        // address goes silently: peers keep its routes until the store tells them where it is.
        let stays = (&current.listen, current.router_id) == (&wanted.listen, wanted.router_id);
        let how = if stays { Shutdown::Cease(6) } else { Shutdown::Silent };
        self.routes = self.none.0.subscribe();
        self.status = self.none.1.subscribe();
        self.ending.spawn(speaker.shutdown(how));
        self.next = Some(SpeakerConfig { restarting: true, ..wanted });
        true
    }

    fn start(&mut self, wanted: SpeakerConfig) {
        self.told = None;
        let speaker = (self.start)(wanted.clone());
        self.routes = speaker.routes();
        self.status = speaker.status();
        self.speaker = Some((wanted, speaker));
    }

    /// Tells it what the plan wants of it.
    pub(super) fn tell(&mut self, plan: &Arc<Plan>) {
        let same = |told: &Arc<Plan>| {
            Arc::ptr_eq(told, plan) || told.peers == plan.peers && told.announce == plan.announce
        };
        if let Some((_, speaker)) = &self.speaker {
            if !self.told.as_ref().is_some_and(same) {
                // Announcements first: a session that comes up at once must not end its first round without them.
                speaker.announce(plan.announce.clone());
                speaker.set_peers(plan.peers.clone());
            }
            // The newer one, so that the older does not stay in memory.
            self.told = Some(Arc::clone(plan));
        }
    }

    /// Status and routes, in this order: routes are then at least as new as the End-of-RIB that the status shows.
    pub(super) fn learned(&mut self) -> (Arc<SpeakerStatus>, Arc<Routes>) {
        let status = Arc::clone(&self.status.borrow_and_update());
        let routes = Arc::clone(&self.routes.borrow_and_update());
        (status, routes)
    }

    /// The same without taking note.
    pub(super) fn peek(&self) -> Arc<SpeakerStatus> {
        Arc::clone(&self.status.borrow())
    }

    /// Waits for news. Cancel-safe: what has been seen is marked in `learned` only, and a speaker that has ended is
    /// followed by the next in the same step.
    pub(super) async fn changed(&mut self) -> News {
        tokio::select! {
            Some(_) = self.ending.join_next() => {
                if let Some(next) = self.next.take().filter(|_| self.ending.is_empty()) {
                    self.start(next);
                }
                News::Started
            }
            changed = self.routes.changed() => if changed.is_ok() { News::Routes } else { News::Dead },
            changed = self.status.changed() => if changed.is_ok() { News::Status } else { News::Dead },
        }
    }

    pub(super) async fn shutdown(mut self, how: Shutdown) {
        if let Some((_, speaker)) = self.speaker.take() {
            speaker.shutdown(how).await;
        }
        while self.ending.join_next().await.is_some() {}
    }
}

/// What has changed at the speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Routes,
    Status,
    /// The next speaker has been started.
    Started,
    /// The speaker has died.
    Dead,
}

/// Identity of the speaker.
pub(super) fn identity(config: &Config, own: &NodeRecord, restarting: bool) -> SpeakerConfig {
    let underlay =
        [own.underlay.ipv4.map(|net| net.addr().into()), own.underlay.ipv6.map(|net| net.addr().into())];
    let listen: Vec<IpAddr> = if config.bgp.listen.is_empty() {
        underlay.into_iter().flatten().collect()
    } else {
        config.bgp.listen.clone()
    };
    SpeakerConfig {
        asn: Asn(own.asn),
        router_id: RouterId(own.router_id),
        listen: listen.into_iter().map(|address| SocketAddr::new(address, config.bgp.port)).collect(),
        hold_time: config.bgp.hold_time,
        restart_time: config.bgp.restart_time,
        restarting,
    }
}

/// What of a status can change a decision or a condition; the rest is counters.
pub(super) fn gist(status: &SpeakerStatus) -> SpeakerStatus {
    let mut gist = status.clone();
    gist.unknown_connections = 0;
    for peer in gist.peers.values_mut() {
        peer.since = std::time::Duration::ZERO;
        peer.messages = bgp::speaker::MessageCounters::default();
        peer.attribute_errors = 0;
    }
    gist
}
