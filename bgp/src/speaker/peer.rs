//! One peer: its session, its connections, and what it is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::{MessageCounters, Peer, PeerName, PeerStatus, SessionState, SpeakerConfig};
use crate::Family;
use crate::rib::{AdjRibOut, Neighbor, Outbound, Rib, graceful_shutdown_attributes, own_attributes};
use crate::session::{Conn, Input, Negotiated, Output, Session, SessionConfig};
use crate::transport::{self, Connection, Event};
use crate::wire::{Codec, DecodeError, ErrorCode, Message, Notification, Update};

/// What a peer works with besides its own state.
#[derive(Debug)]
pub(super) struct World {
    pub(super) config: SpeakerConfig,
    pub(super) rib: Rib,
    /// Readers and writers.
    pub(super) connections: JoinSet<()>,
    /// Listeners and connection attempts.
    pub(super) background: JoinSet<()>,
    pub(super) events: mpsc::Sender<Event>,
    /// Whose connection or connection attempt a number is, while it is one.
    pub(super) owners: BTreeMap<u64, PeerName>,
    /// Number of the last connection or attempt.
    pub(super) last_number: u64,
    /// Prefixes of the RIB changed.
    pub(super) routes_changed: bool,
    /// The status changed in more than its counters.
    pub(super) status_changed: bool,
}

impl World {
    fn next_number(&mut self, owner: &str) -> u64 {
        self.last_number += 1;
        self.owners.insert(self.last_number, owner.to_owned());
        self.last_number
    }

    fn changed(&mut self, prefixes: &[IpNet]) {
        self.routes_changed |= !prefixes.is_empty();
    }
}

/// A configured peer.
#[derive(Debug)]
pub(super) struct PeerState {
    name: PeerName,
    pub(super) wanted: Peer,
    session: Session,
    connections: BTreeMap<Conn, Connection>,
    /// The connection attempt that is out.
    dial: Option<(u64, AbortHandle)>,
    /// The established session.
    up: Option<Up>,
    out: AdjRibOut,
    /// Encoded and not taken by the writer yet; the Adj-RIB-Out is not asked for more meanwhile, so what waits for
    /// a slow peer is bounded by the table.
    waiting: VecDeque<Bytes>,
    state: SessionState,
    since: Instant,
    established_count: u64,
    /// Why the last session ended.
    ended: Option<String>,
    /// Why there has been no other since.
    failed: Option<String>,
    messages: MessageCounters,
    attribute_errors: u64,
}

/// What is known only while established.
#[derive(Debug)]
struct Up {
    conn: Conn,
    negotiated: Negotiated,
    end_of_rib: BTreeSet<Family>,
    attribute_errors: u64,
}

impl PeerState {
    /// A new peer, started.
    pub(super) fn start(
        name: PeerName,
        wanted: Peer,
        own: Arc<BTreeSet<IpNet>>,
        restarting: bool,
        world: &mut World,
        now: Instant,
    ) -> Self {
        let mut session = Session::new(session_config(&world.config, &wanted), fastrand::u64(..));
        session.set_restarting(restarting);
        let mut out = AdjRibOut::new(outbound(&world.config, &wanted));
        out.set_prefixes(own);
        let changed = world.rib.set_peer(&name, neighbor(&world.config, &wanted));
        world.changed(&changed);
        let mut peer = Self {
            name,
            wanted,
            session,
            connections: BTreeMap::new(),
            dial: None,
            up: None,
            out,
            waiting: VecDeque::new(),
            state: SessionState::Idle,
            since: now,
            established_count: 0,
            ended: None,
            failed: None,
            messages: MessageCounters::default(),
            attribute_errors: 0,
        };
        peer.input(Input::Start, world, now);
        peer
    }

    /// Takes a changed wish over. What concerns the session restarts it, the rest acts in place. The address and
    /// the AS are the same: with another of these it is another peer.
    pub(super) fn change(&mut self, wanted: Peer, world: &mut World, now: Instant) {
        let old = std::mem::replace(&mut self.wanted, wanted);
        let wanted = &self.wanted;
        let changed = world.rib.set_peer(&self.name, neighbor(&world.config, wanted));
        world.changed(&changed);
        self.out.set_outbound(outbound(&world.config, wanted));
        let config = session_config(&world.config, wanted);
        let dialled = (wanted.port, wanted.local_address) != (old.port, old.local_address);
        let session = config != session_config(&world.config, &old);
        if dialled || (session && !self.session.adopt(&config)) {
            tracing::info!(peer = %self.name, "session parameters changed");
            self.input(Input::Reconfigure(config), world, now);
        }
        world.status_changed = true;
    }

    /// The whole set of our prefixes.
    pub(super) fn announce(&mut self, prefixes: Arc<BTreeSet<IpNet>>) {
        self.out.set_prefixes(prefixes);
    }

    pub(super) fn set_restarting(&mut self, restarting: bool) {
        self.session.set_restarting(restarting);
    }

    /// The peer has told us all of its routes (RFC 4724 §2).
    pub(super) fn has_delivered(&self) -> bool {
        self.up.as_ref().is_some_and(|up| up.end_of_rib.is_superset(&up.negotiated.families))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.session.poll_timeout().map(Instant::from_std)
    }

    /// A connection that the peer opened.
    pub(super) fn incoming(&mut self, stream: TcpStream, world: &mut World, now: Instant) {
        if let Some(conn) = self.adopt_stream(stream, world) {
            self.input(Input::Incoming(conn), world, now);
        }
    }

    /// The end of our attempt.
    pub(super) fn dialled(&mut self, result: io::Result<TcpStream>, world: &mut World, now: Instant) {
        self.end_dial(world);
        let conn = match result {
            Ok(stream) => self.adopt_stream(stream, world),
            Err(error) => {
                let Peer { address, port, .. } = self.wanted;
                self.failed(format!("connecting to {address} port {port}: {error}"));
                None
            }
        };
        self.input(conn.map_or(Input::ConnectFailed, Input::Connected), world, now);
    }

    /// Messages of one of its connections.
    pub(super) fn received(
        &mut self,
        conn: Conn,
        messages: Vec<Result<Message, DecodeError>>,
        world: &mut World,
        now: Instant,
    ) {
        for message in messages {
            self.messages.received += 1;
            if let Ok(Message::Update(update)) = &message {
                self.messages.updates_received += 1;
                self.count_attribute_errors(update);
            }
            self.input(Input::Received(conn, message), world, now);
        }
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, conn: Conn, world: &mut World, now: Instant) {
        self.let_go(conn, world);
        self.input(Input::Closed(conn), world, now);
    }

    /// Takes what happened, and does what follows.
    pub(super) fn input(&mut self, input: Input, world: &mut World, now: Instant) {
        self.session.handle(input, now.into_std());
        self.outputs(world, now);
    }

    pub(super) fn timeout(&mut self, world: &mut World, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.session.handle_timeout(now.into_std());
            self.outputs(world, now);
        }
    }

    fn outputs(&mut self, world: &mut World, now: Instant) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Connect => self.dial(world),
                Output::CancelConnect => {
                    self.end_dial(world);
                    // Else it is not needed any more.
                    if self.session.state() == SessionState::Connect {
                        let Peer { address, port, .. } = self.wanted;
                        self.failed(format!("connecting to {address} port {port}: no answer"));
                    }
                }
                Output::Send(conn, message) => self.send(conn, &message, world),
                Output::Close(conn) => self.let_go(conn, world),
                Output::Up(conn, negotiated) => self.up(conn, negotiated, world),
                Output::Update(update) => self.update(&update, world, now),
                Output::Refresh(family) => self.out.refresh(family),
                Output::Down { reason, stale } => {
                    tracing::info!(peer = %self.name, %reason, kept = ?stale, "session down");
                    self.ended = Some(reason.to_string());
                    self.failed = None;
                    self.up = None;
                    self.out.session_down();
                    self.waiting.clear();
                    for family in Family::ALL {
                        let changed = if stale.contains(&family) {
                            world.rib.mark_stale(&self.name, family)
                        } else {
                            world.rib.clear(&self.name, family)
                        };
                        world.changed(&changed);
                    }
                    world.status_changed = true;
                }
                Output::Sweep(families) => {
                    for family in families {
                        let changed = world.rib.sweep_stale(&self.name, family);
                        world.changed(&changed);
                    }
                    world.status_changed = true;
                }
                Output::Failed(reason) => self.failed(reason.to_string()),
            }
        }
        let state = self.session.state();
        if state != self.state {
            self.state = state;
            self.since = now;
            world.status_changed = true;
        }
    }

    fn dial(&mut self, world: &mut World) {
        let number = world.next_number(&self.name);
        let remote = SocketAddr::new(self.wanted.address, self.wanted.port);
        let (local, hold_time) = (self.wanted.local_address, world.config.hold_time);
        let events = world.events.clone();
        let task = world.background.spawn(async move {
            let result = transport::dial(remote, local, hold_time).await;
            // Nobody listens only if the speaker itself is at its end.
            let _ = events.send(Event::Dialled(number, result)).await;
        });
        self.dial = Some((number, task));
    }

    fn end_dial(&mut self, world: &mut World) {
        if let Some((number, task)) = self.dial.take() {
            world.owners.remove(&number);
            // Without effect if it has ended.
            task.abort();
        }
    }

    /// Closes a connection, if it is still open.
    fn let_go(&mut self, conn: Conn, world: &mut World) {
        world.owners.remove(&conn.0);
        self.connections.remove(&conn);
    }

    fn adopt_stream(&mut self, stream: TcpStream, world: &mut World) -> Option<Conn> {
        // Options that can't be set mean that the connection is gone already.
        transport::prepare((&stream).into(), self.wanted.address, world.config.hold_time).ok()?;
        let conn = Conn(world.next_number(&self.name));
        let internal = self.wanted.asn == world.config.asn;
        let connection = Connection::start(stream, conn, internal, &world.events, &mut world.connections);
        self.connections.insert(conn, connection);
        Some(conn)
    }

    fn send(&mut self, conn: Conn, message: &Message, world: &World) {
        let Some(connection) = self.connections.get(&conn) else { return };
        let internal = self.wanted.asn == world.config.asn;
        let mut bytes = BytesMut::new();
        message.encode(Codec { four_octet_as: true, internal }, &mut bytes);
        // A peer that takes nothing has enough of these waiting; the send hold timer ends it (RFC 9687).
        if connection.send_urgent(bytes.freeze()) {
            self.messages.sent += 1;
        }
    }

    fn up(&mut self, conn: Conn, negotiated: Negotiated, world: &mut World) {
        tracing::info!(
            peer = %self.name, router_id = %negotiated.router_id, families = ?negotiated.families,
            hold_time = ?negotiated.hold_time, "session established"
        );
        let changed = world.rib.peer_up(&self.name, negotiated.router_id, negotiated.families.clone());
        world.changed(&changed);
        self.out.session_up(negotiated.families.clone());
        self.waiting.clear();
        self.established_count += 1;
        self.failed = None;
        self.up = Some(Up { conn, negotiated, end_of_rib: BTreeSet::new(), attribute_errors: 0 });
        world.status_changed = true;
    }

    fn update(&mut self, update: &Update, world: &mut World, now: Instant) {
        if let (Some(family), Some(up)) = (update.end_of_rib, &mut self.up)
            && up.end_of_rib.insert(family)
        {
            world.status_changed = true;
        }
        match world.rib.update(&self.name, update) {
            Ok(changed) => world.changed(&changed),
            Err(exceeded) => {
                world.changed(&exceeded.changed);
                tracing::warn!(peer = %self.name, limit = exceeded.limit, "too many prefixes");
                let cease: Notification = ErrorCode::MAXIMUM_PREFIXES.into();
                self.session.handle(Input::Reset(cease), now.into_std());
            }
        }
    }

    fn count_attribute_errors(&mut self, update: &Update) {
        let Some(error) = update.errors.first() else { return };
        let count = update.errors.len() as u64;
        self.attribute_errors += count;
        if let Some(up) = &mut self.up {
            if up.attribute_errors == 0 {
                // RFC 7606 §6: said once per session, counted always.
                tracing::warn!(
                    peer = %self.name, attribute = error.code, outcome = ?error.outcome, reason = error.reason,
                    "malformed attribute; further ones of this session are only counted"
                );
            }
            up.attribute_errors += count;
        }
    }

    fn failed(&mut self, reason: String) {
        if self.failed.as_ref() != Some(&reason) {
            tracing::info!(peer = %self.name, reason, "no session");
            self.failed = Some(reason);
        }
    }

    /// Hands routes to the writer for as long as it takes them.
    pub(super) fn flush(&mut self) {
        let Some(up) = &self.up else { return };
        let Some(connection) = self.connections.get(&up.conn) else { return };
        loop {
            while let Some(chunk) = self.waiting.pop_front() {
                if let Err(chunk) = connection.send_routes(chunk) {
                    self.waiting.push_front(chunk);
                    return;
                }
            }
            if !self.out.is_unsettled() || !connection.has_room() {
                return;
            }
            let mut bytes = BytesMut::new();
            for update in self.out.poll() {
                let count = Message::Update(update).encode(up.negotiated.codec(), &mut bytes) as u64;
                self.messages.updates_sent += count;
                self.messages.sent += count;
            }
            self.waiting.extend(chunks(bytes.freeze()));
        }
    }

    pub(super) fn status(&self, rib: &Rib, now: Instant) -> PeerStatus {
        let inventory = rib.inventory(&self.name);
        let up = self.up.as_ref();
        PeerStatus {
            address: self.wanted.address,
            asn: self.wanted.asn,
            state: self.state,
            families: up.map(|up| up.negotiated.families.clone()).unwrap_or_default(),
            hold_time: up.map(|up| up.negotiated.hold_time).unwrap_or_default(),
            end_of_rib: up.map(|up| up.end_of_rib.clone()).unwrap_or_default(),
            restarting: up.is_none() && !self.session.stale().is_empty(),
            since: now.saturating_duration_since(self.since),
            established_count: self.established_count,
            last_error: match (&self.ended, &self.failed) {
                (Some(ended), Some(failed)) => Some(format!("{ended}; then {failed}")),
                (ended, failed) => ended.clone().or_else(|| failed.clone()),
            },
            accepted: inventory.accepted,
            refused: inventory.refused,
            refused_prefixes: inventory.refused_prefixes,
            announced: self.out.announced(),
            messages: self.messages,
            attribute_errors: self.attribute_errors,
        }
    }
}

fn session_config(config: &SpeakerConfig, peer: &Peer) -> SessionConfig {
    SessionConfig {
        asn: config.asn,
        router_id: config.router_id,
        peer_asn: peer.asn,
        peer_router_id: peer.router_id,
        hold_time: config.hold_time,
        restart_time: config.restart_time,
        families: peer.families.clone(),
        role: peer.role,
    }
}

fn neighbor(config: &SpeakerConfig, peer: &Peer) -> Neighbor {
    Neighbor {
        address: peer.address,
        external: peer.asn != config.asn,
        import: peer.import.clone(),
        max_prefixes: peer.max_prefixes,
    }
}

fn outbound(config: &SpeakerConfig, peer: &Peer) -> Outbound {
    let own = own_attributes(config.asn, peer.asn != config.asn);
    Outbound {
        next_hops: peer.next_hops.clone(),
        export: peer.export.clone(),
        attributes: Arc::new(if peer.graceful_shutdown { graceful_shutdown_attributes(own) } else { own }),
    }
}

/// Octets of routes that go to the writer at once, whole messages: a keepalive waits behind this much at most.
const CHUNK: usize = 16 * 1024;

/// Cuts encoded messages into chunks between messages.
fn chunks(mut bytes: Bytes) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        let mut end = 0;
        // The length field of each header (RFC 4271 §4.1).
        while let Some(length) = bytes.get(end + 16..end + 18) {
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            if end > 0 && end + length > CHUNK {
                break;
            }
            end += length;
        }
        // What we encoded is whole; were it not, it would go out as it is.
        let end = if end == 0 || end > bytes.len() { bytes.len() } else { end };
        chunks.push(bytes.split_to(end));
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_whole_messages_and_lose_nothing() {
        let codec = Codec { four_octet_as: true, internal: true };
        let prefixes =
            (0..20_000u32).map(|n| format!("10.{}.{}.0/24", n / 250, n % 250).parse().unwrap()).collect();
        let mut bytes = BytesMut::new();
        let messages =
            Message::Update(Update { withdrawn: prefixes, ..Update::default() }).encode(codec, &mut bytes);
        assert!(messages > 10);
        let all = bytes.freeze();
        let chunks = chunks(all.clone());
        assert_eq!(chunks.concat(), all);
        assert!(chunks.len() > 3 && chunks.iter().all(|chunk| chunk.len() <= CHUNK));
        let mut decoded = 0;
        for chunk in chunks {
            let mut chunk = BytesMut::from(&chunk[..]);
            while let Some(message) = crate::wire::decode(&mut chunk, codec).unwrap() {
                assert!(matches!(message, Message::Update(_)));
                decoded += 1;
            }
            assert!(chunk.is_empty());
        }
        assert_eq!(decoded, messages);
    }
}
