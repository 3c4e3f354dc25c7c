//! The state machine of one peer (RFC 4271 §8), without IO and without a clock.
//!
//! The driver calls [`Session::handle`] with what happened and [`Session::handle_timeout`] when the deadline
//! of [`Session::poll_timeout`] has come, then drains [`Session::poll_output`]. Time is an argument, jitter comes
//! from a seed, so that a run can be repeated exactly.
//!
//! RFC 4271 §8.2.1 has one machine per connection and a peer that may have two connections until a collision is
//! resolved. Here a [`Session`] is the peer: while no connection talks it is in Idle, Connect or Active; then it
//! has one `Link` (OpenSent, OpenConfirm or Established) and, for a moment, perhaps a second one, the rival.
//! Each state is a struct in `state`, and a transition consumes it.
//!
//! Optional attributes of RFC 4271 §8.1: DelayOpen is not implemented (both ends speak at once; it only delays
//! the session), CollisionDetectEstablishedState is false but for graceful restart (RFC 4724 §4.2), TrackTcpState
//! is false (the driver hides half-open connections), DampPeerOscillations is true: after a protocol error the
//! session rests in Idle, with back-off, and refuses connections. After a loss without a protocol error it does
//! not rest, so that a peer that restarts finds us ready.

mod collision;
mod connections;
mod negotiate;
mod reason;
mod restart;
mod state;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

#[cfg(feature = "io")]
pub(crate) use negotiate::speaks_four_octet_as;
pub use negotiate::{Negotiated, OpenError, PeerRestart};
pub use reason::Reason;
pub use timers::{COLLISION_WINDOW, CONNECT_TIMEOUT, OPEN_HOLD_TIME, RETRY_MAX, RETRY_MIN};

use crate::wire::{DecodeError, Message, Notification, Update};
use crate::{Asn, Family, RouterId};
use connections::Place;
use restart::Helper;
use state::{Connect, Dial, Idle, Link, Phase, Shared};

/// RFC 4271 §8.2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionState {
    /// Not trying.
    Idle,
    /// Connecting.
    Connect,
    /// Waiting for a connection or for the next try.
    Active,
    /// OPEN sent.
    OpenSent,
    /// OPEN received.
    OpenConfirm,
    /// Up.
    Established,
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "Idle",
            Self::Connect => "Connect",
            Self::Active => "Active",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        })
    }
}

/// Who opens the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// We connect; an incoming connection is accepted all the same.
    Dial,
    /// We wait (RFC 4271 §8.1.1, PassiveTcpEstablishment).
    Accept,
}

/// What a session must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// Our AS.
    pub asn: Asn,
    /// Our identifier.
    pub router_id: RouterId,
    /// The peer's AS; equal to ours makes the session internal.
    pub peer_asn: Asn,
    /// The peer must present this identifier, where it is known.
    pub peer_router_id: Option<RouterId>,
    /// Proposed hold time; 0 (none) or 3 s to 65535 s. Others are brought into that range.
    pub hold_time: Duration,
    /// Graceful restart time that we announce, up to 4095 s; 0 turns graceful restart off in both roles.
    pub restart_time: Duration,
    /// Families to negotiate.
    pub families: BTreeSet<Family>,
    /// Who opens the connection.
    pub role: Role,
}

/// A connection, named by the driver; never reused within a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn(pub u64);

/// How an operator stops a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Close without a word: a peer with graceful restart keeps our routes.
    Silent,
    /// Send Cease with this subcode (RFC 4486) first.
    Cease(u8),
}

/// What happened. The event numbers are those of RFC 4271 §8.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Events 1, 3, 4, 5: the session is wanted.
    Start,
    /// Events 2, 8: the session is not wanted any more; it stays in Idle until [`Input::Start`].
    Stop(Stop),
    /// The driver found a reason to end the established session, e.g. too many prefixes; it is tried again later.
    Reset(Notification),
    /// Session parameters changed: Cease/6 and a fresh start with these. Routes of the peer are kept over it if
    /// both sides understand RFC 8538.
    Reconfigure(SessionConfig),
    /// Event 16, Tcp_CR_Acked: the answer to [`Output::Connect`].
    Connected(Conn),
    /// Event 18 of the connection that [`Output::Connect`] asked for.
    ConnectFailed,
    /// Event 17, TcpConnectionConfirmed: the peer has opened this connection.
    Incoming(Conn),
    /// Event 18, TcpConnectionFails: closed or reset by the peer or the network.
    Closed(Conn),
    /// Events 19 to 28, from the decoder.
    Received(Conn, Result<Message, DecodeError>),
    /// The system took bytes of ours for this connection; feeds the send hold timer (RFC 9687).
    Sent(Conn),
}

/// What the driver must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open a connection; answered by [`Input::Connected`] or [`Input::ConnectFailed`].
    Connect,
    /// Give up the connection asked for; no answer is due.
    CancelConnect,
    /// Send this, in order.
    Send(Conn, Message),
    /// Close, after what was sent before; nothing of this connection is wanted any more.
    Close(Conn),
    /// Established on this connection: announce, then send End-of-RIB.
    Up(Conn, Negotiated),
    /// Routes, of negotiated families only.
    Update(Update),
    /// Send all routes of the family again (RFC 2918).
    Refresh(Family),
    /// No longer established. Routes of the families in `stale` are kept, marked, after those that are marked
    /// already have been deleted (RFC 4724 §4.2); all others are deleted.
    Down {
        /// Why.
        reason: Reason,
        /// Families whose routes are kept.
        stale: BTreeSet<Family>,
    },
    /// Delete the routes of these families that are still stale.
    Sweep(BTreeSet<Family>),
    /// A connection ended before it was established.
    Failed(Reason),
}

/// The state machine of one peer.
#[derive(Debug)]
pub struct Session {
    shared: Shared,
    phase: Phase,
    /// The second connection of a collision; OpenSent or OpenConfirm.
    rival: Option<Link>,
    /// A connection attempt of ours that is still out while a connection of the peer's already talks.
    dial: Option<Dial>,
    helper: Helper,
    /// ConnectRetryCounter: attempts since the last session that was worth the name.
    attempts: u32,
}

impl Session {
    /// A session in Idle. `seed` makes the jitter.
    #[must_use]
    pub fn new(config: SessionConfig, seed: u64) -> Self {
        Self {
            shared: Shared {
                config,
                rng: fastrand::Rng::with_seed(seed),
                outputs: VecDeque::new(),
                restarting: false,
                forwarding: false,
            },
            phase: Phase::Idle(Idle { restart: None }),
            rival: None,
            dial: None,
            helper: Helper::default(),
            attempts: 0,
        }
    }

    /// We have restarted with our forwarding state kept: the R and F bits of the next OPENs (RFC 4724 §3).
    pub fn set_restarting(&mut self, restarting: bool) {
        self.shared.restarting = restarting;
    }

    /// Takes over a changed role or expected identifier without ending the session, where that is possible: the
    /// session is established and its peer has that identifier. Else false, and nothing is done.
    pub fn adopt(&mut self, config: &SessionConfig) -> bool {
        let same = SessionConfig {
            role: self.shared.config.role,
            peer_router_id: self.shared.config.peer_router_id,
            ..config.clone()
        } == self.shared.config;
        let expected = |id: RouterId| config.peer_router_id.is_none_or(|expected| expected == id);
        let possible = same && self.negotiated().is_some_and(|negotiated| expected(negotiated.router_id));
        if possible {
            self.shared.config = config.clone();
        }
        possible
    }

    /// The state to show.
    #[must_use]
    pub fn state(&self) -> SessionState {
        let first = match &self.phase {
            Phase::Idle(_) => SessionState::Idle,
            Phase::Connect(_) => SessionState::Connect,
            Phase::Active(_) => SessionState::Active,
            Phase::Talking(link) => link.state(),
        };
        first.max(self.rival.as_ref().map_or(SessionState::Idle, Link::state))
    }

    /// What was negotiated; only while established.
    #[must_use]
    pub fn negotiated(&self) -> Option<&Negotiated> {
        match &self.phase {
            Phase::Talking(link) => link.negotiated(),
            Phase::Idle(_) | Phase::Connect(_) | Phase::Active(_) => None,
        }
    }

    /// Families whose routes are kept stale (helper role of RFC 4724).
    #[must_use]
    pub fn stale(&self) -> &BTreeSet<Family> {
        self.helper.stale()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shared.outputs.pop_front()
    }

    /// When [`Session::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Idle(idle) => idle.restart,
            Phase::Connect(connect) => Some(connect.dial.deadline),
            Phase::Active(active) => active.retry,
            Phase::Talking(link) => link.deadline(),
        };
        [
            phase,
            self.rival.as_ref().and_then(Link::deadline),
            self.dial.as_ref().map(|dial| dial.deadline),
            self.helper.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes what happened.
    pub fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Start => {
                if let Phase::Idle(_) = self.phase {
                    self.attempts = 0;
                    self.begin(now);
                }
            }
            Input::Stop(how) => self.stop(how, now),
            Input::Reset(notification) => self.reset(notification, now),
            Input::Reconfigure(config) => self.reconfigure(config, now),
            Input::Connected(conn) => self.connected(conn, now),
            Input::ConnectFailed => self.connect_failed(now),
            Input::Incoming(conn) => self.incoming(conn, now),
            Input::Closed(conn) => {
                if let Some((place, link)) = self.take(conn) {
                    self.lost(place, link.lost(Reason::ConnectionLost), now);
                }
            }
            Input::Received(conn, message) => self.received(conn, message, now),
            Input::Sent(conn) => {
                if let Phase::Talking(link) = &mut self.phase
                    && link.conn() == conn
                {
                    link.progress(now);
                }
            }
        }
    }

    /// Lets timers run out that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let swept = self.helper.timeout(now);
        if !swept.is_empty() {
            self.shared.output(Output::Sweep(swept));
        }
        if due(self.dial.as_ref().map(|dial| dial.deadline)) {
            self.dial = None;
            self.shared.output(Output::CancelConnect);
        }
        if due(self.rival.as_ref().and_then(Link::deadline))
            && let Some(link) = self.rival.take()
        {
            match link.timeout(&mut self.shared, now) {
                Ok(link) => self.rival = Some(link),
                Err(lost) => self.lost(Place::Rival, lost, now),
            }
        }
        match self.take_phase() {
            Phase::Idle(idle) if due(idle.restart) => self.begin(now),
            // Event 9 in Connect: drop the attempt, make another.
            Phase::Connect(connect) if due(Some(connect.dial.deadline)) => {
                self.shared.output(Output::CancelConnect);
                self.phase = Phase::Connect(Connect::dial(&mut self.shared, now));
            }
            // Event 9 in Active.
            Phase::Active(active) if due(active.retry) => {
                self.phase = Phase::Connect(Connect::dial(&mut self.shared, now));
            }
            Phase::Talking(link) if due(link.deadline()) => match link.timeout(&mut self.shared, now) {
                Ok(link) => self.phase = Phase::Talking(link),
                Err(lost) => self.lost(Place::First, lost, now),
            },
            phase @ (Phase::Idle(_) | Phase::Connect(_) | Phase::Active(_) | Phase::Talking(_)) => {
                self.phase = phase;
            }
        }
    }
}
