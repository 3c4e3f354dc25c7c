//! The loop: what happened, what is wanted, whose time is over; then routes out and values published.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::peer::{PeerState, World};
use super::publish::Publisher;
use super::{Peer, PeerName, Shutdown, SpeakerConfig, SpeakerStatus};
use crate::rib::Rib;
use crate::session::{Input, Stop};
use crate::transport::{Event, FLUSH_TIME, LINGER_TIME, ListenError, listen};

/// Events of all sockets that may wait; readers pause when there are more.
const EVENTS: usize = 256;
/// Events taken before timers and wishes have their turn again.
const BATCH: usize = 1024;
/// Cease subcodes (RFC 4486 §4).
const PEER_DECONFIGURED: u8 = 3;
const CONFIGURATION_CHANGE: u8 = 6;

/// What the owner of the handle wants.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) peers: BTreeMap<PeerName, Peer>,
    pub(super) announce: Arc<BTreeSet<IpNet>>,
}

/// Owner of all sessions and of the RIB.
#[derive(Debug)]
pub(super) struct Core {
    world: World,
    events: mpsc::Receiver<Event>,
    peers: BTreeMap<PeerName, PeerState>,
    /// Whom an incoming connection belongs to.
    by_address: BTreeMap<IpAddr, PeerName>,
    own: Arc<BTreeSet<IpNet>>,
    listen_errors: BTreeMap<SocketAddr, ListenError>,
    unknown_connections: u64,
    /// We have restarted and say so until then at the latest (RFC 4724 §4.1).
    restarting: Option<Instant>,
    publisher: Publisher,
}

impl Core {
    pub(super) fn new(config: SpeakerConfig, publisher: Publisher) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        let mut background = JoinSet::new();
        for address in config.listen.iter().copied().collect::<BTreeSet<_>>() {
            background.spawn(listen(address, sender.clone()));
        }
        let rib = Rib::new(config.asn, config.router_id);
        let restarting = config.restarting.then(|| Instant::now() + config.restart_time);
        let world = World {
            config,
            rib,
            connections: JoinSet::new(),
            background,
            events: sender,
            owners: BTreeMap::new(),
            last_number: 0,
            routes_changed: false,
            status_changed: true,
        };
        Self {
            world,
            events,
            peers: BTreeMap::new(),
            by_address: BTreeMap::new(),
            own: Arc::default(),
            listen_errors: BTreeMap::new(),
            unknown_connections: 0,
            restarting,
            publisher,
        }
    }

    pub(super) async fn run(
        mut self,
        mut wanted: watch::Receiver<Wanted>,
        mut stop: oneshot::Receiver<Shutdown>,
    ) {
        loop {
            let deadline = self.deadline();
            // Cancel-safe: every arm only receives.
            tokio::select! {
                Some(event) = self.events.recv() => self.event(event),
                // The handle is gone: `stop` says how.
                Ok(()) = wanted.changed() => {
                    let wanted = wanted.borrow_and_update().clone();
                    self.reconcile(wanted);
                }
                how = &mut stop => return self.stop(how.unwrap_or(Shutdown::Silent)).await,
                () = sleep_until(deadline) => {}
            }
            // Messages that are here already count before timers: a hold timer must not expire for lack of reading.
            for _ in 0..BATCH {
                match self.events.try_recv() {
                    Ok(event) => self.event(event),
                    Err(_) => break,
                }
            }
            self.settle();
        }
    }

    /// Everything that follows from a batch.
    fn settle(&mut self) {
        let now = Instant::now();
        for peer in self.peers.values_mut() {
            peer.timeout(&mut self.world, now);
            peer.flush();
        }
        self.end_of_restart(now);
        while self.world.connections.try_join_next().is_some() {}
        while self.world.background.try_join_next().is_some() {}
        if std::mem::take(&mut self.world.routes_changed) {
            self.publisher.routes_changed();
        }
        if std::mem::take(&mut self.world.status_changed) {
            self.publisher.status_changed();
        }
        let (world, peers) = (&self.world, &self.peers);
        let status = || SpeakerStatus {
            peers: peers.iter().map(|(name, peer)| (name.clone(), peer.status(&world.rib, now))).collect(),
            listen_errors: self.listen_errors.clone(),
            unknown_connections: self.unknown_connections,
        };
        self.publisher.publish(now, || world.rib.routes(), status);
    }

    fn deadline(&self) -> Instant {
        let peers = self.peers.values().filter_map(PeerState::deadline);
        peers
            .chain(self.publisher.deadline())
            .chain(self.restarting)
            .min()
            // A speaker without any deadline is not to be had: the status has one. Should it be, look again soon.
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(1))
    }

    fn event(&mut self, event: Event) {
        let now = Instant::now();
        let world = &mut self.world;
        match event {
            Event::Listening(address) => {
                tracing::info!(%address, "listening");
                self.listen_errors.remove(&address);
                world.status_changed = true;
            }
            Event::ListenFailed(address, error) => {
                tracing::warn!(%address, %error, "can't listen; trying again every second");
                self.listen_errors.insert(address, error);
                world.status_changed = true;
            }
            Event::Incoming(stream, remote) => {
                let peer = self.by_address.get(&remote.ip()).and_then(|name| self.peers.get_mut(name));
                if let Some(peer) = peer {
                    peer.incoming(stream, world, now);
                } else {
                    // Closed by being dropped.
                    tracing::debug!(%remote, "connection from an address that no peer has");
                    self.unknown_connections += 1;
                    world.status_changed = true;
                }
            }
            Event::Dialled(number, result) => {
                if let Some(peer) = owner(&mut self.peers, world, number) {
                    peer.dialled(result, world, now);
                }
            }
            Event::Received(conn, messages) => {
                if let Some(peer) = owner(&mut self.peers, world, conn.0) {
                    peer.received(conn, messages, world, now);
                }
            }
            Event::Closed(conn) => {
                if let Some(peer) = owner(&mut self.peers, world, conn.0) {
                    peer.closed(conn, world, now);
                }
            }
            Event::Sent(conn) => {
                if let Some(peer) = owner(&mut self.peers, world, conn.0) {
                    peer.input(Input::Sent(conn), world, now);
                }
            }
        }
    }

    /// Makes the peers and prefixes what is wanted.
    fn reconcile(&mut self, wanted: Wanted) {
        let now = Instant::now();
        let world = &mut self.world;
        if wanted.announce != self.own {
            self.own = wanted.announce;
            let changed = world.rib.set_own((*self.own).clone());
            world.routes_changed |= !changed.is_empty();
            for peer in self.peers.values_mut() {
                peer.announce(Arc::clone(&self.own));
            }
        }
        let other = |old: &Peer, new: &Peer| (old.address, old.asn) != (new.address, new.asn);
        let gone = self.peers.iter().filter_map(|(name, peer)| match wanted.peers.get(name) {
            None => Some((name.clone(), PEER_DECONFIGURED)),
            Some(new) => other(&peer.wanted, new).then(|| (name.clone(), CONFIGURATION_CHANGE)),
        });
        for (name, subcode) in gone.collect::<Vec<_>>() {
            if let Some(mut peer) = self.peers.remove(&name) {
                tracing::info!(peer = name, "peer removed");
                peer.input(Input::Stop(Stop::Cease(subcode)), world, now);
            }
            let changed = world.rib.remove_peer(&name);
            world.routes_changed |= !changed.is_empty();
            world.status_changed = true;
        }
        self.by_address =
            wanted.peers.iter().rev().map(|(name, peer)| (peer.address, name.clone())).collect();
        for (name, new) in wanted.peers {
            match self.peers.get_mut(&name) {
                Some(peer) if peer.wanted == new => {}
                Some(peer) => peer.change(new, world, now),
                None => {
                    tracing::info!(peer = name, address = %new.address, "peer added");
                    let own = Arc::clone(&self.own);
                    let peer =
                        PeerState::start(name.clone(), new, own, self.restarting.is_some(), world, now);
                    self.peers.insert(name, peer);
                    world.status_changed = true;
                }
            }
        }
    }

    /// The restart is over when every peer has told us its routes, or when nobody would wait any longer.
    fn end_of_restart(&mut self, now: Instant) {
        let Some(until) = self.restarting else { return };
        let delivered = !self.peers.is_empty() && self.peers.values().all(PeerState::has_delivered);
        if delivered || until <= now {
            tracing::info!(delivered, "restart over");
            self.restarting = None;
            for peer in self.peers.values_mut() {
                peer.set_restarting(false);
            }
        }
    }

    async fn stop(mut self, how: Shutdown) {
        let now = Instant::now();
        self.world.background.abort_all();
        let how = match how {
            Shutdown::Silent => Stop::Silent,
            Shutdown::Cease(subcode) => Stop::Cease(subcode),
        };
        for peer in self.peers.values_mut() {
            peer.input(Input::Stop(how), &mut self.world, now);
        }
        // Connections close themselves; what they report is of no interest, but must not hold them up.
        let last_words = async {
            loop {
                tokio::select! {
                    ended = self.world.connections.join_next() => if ended.is_none() { return },
                    Some(_) = self.events.recv() => {}
                }
            }
        };
        // Whoever is not done by then is ended with the task.
        let _ = timeout(FLUSH_TIME + LINGER_TIME, last_words).await;
    }
}

/// Whose connection or attempt it is; of one that was given up nobody's.
fn owner<'a>(
    peers: &'a mut BTreeMap<PeerName, PeerState>,
    world: &World,
    number: u64,
) -> Option<&'a mut PeerState> {
    peers.get_mut(world.owners.get(&number)?)
}
