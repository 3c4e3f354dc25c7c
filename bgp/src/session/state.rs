//! The states of RFC 4271 §8.2.2, one struct each; a transition consumes the state that it leaves.
//!
//! | state | struct | holds |
//! |---|---|---|
//! | Idle | [`Idle`] | IdleHoldTimer |
//! | Connect | [`Connect`] | our attempt and its ConnectRetryTimer |
//! | Active | [`Active`] | ConnectRetryTimer |
//! | OpenSent | [`OpenSent`] | connection, HoldTimer |
//! | OpenConfirm | [`OpenConfirm`] | connection, what was negotiated, HoldTimer, KeepaliveTimer |
//! | Established | [`Established`] | the same, SendHoldTimer |

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use fastrand::Rng;

use super::negotiate::{Negotiated, negotiate, our_open};
use super::timers::{CONNECT_TIMEOUT, OPEN_HOLD_TIME, keepalive, send_hold};
use super::{Conn, Output, Reason, SessionConfig, SessionState};
use crate::wire::{DecodeError, ErrorCode, Message, Notification, Open, Update};
use crate::{Family, RouterId};

/// What all states of a session use.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: SessionConfig,
    pub(super) rng: Rng,
    pub(super) outputs: VecDeque<Output>,
    /// R bit of the next OPEN.
    pub(super) restarting: bool,
    /// We forwarded for this peer before: F bits of the next OPEN.
    pub(super) forwarding: bool,
}

impl Shared {
    pub(super) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// The last words on a connection.
    pub(super) fn say_goodbye(&mut self, conn: Conn, notification: Option<Notification>) {
        if let Some(notification) = notification {
            self.output(Output::Send(conn, Message::Notification(notification)));
        }
        self.output(Output::Close(conn));
    }
}

/// Where the peer stands.
#[derive(Debug)]
pub(super) enum Phase {
    Idle(Idle),
    Connect(Connect),
    Active(Active),
    /// A connection is up.
    Talking(Link),
}

/// Connections are refused. With a restart time after an error, else until we are told to start.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) restart: Option<Instant>,
}

/// An attempt of ours is out.
#[derive(Debug)]
pub(super) struct Connect {
    pub(super) dial: Dial,
}

/// A connection attempt and when it has taken too long.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) deadline: Instant,
}

impl Connect {
    pub(super) fn dial(shared: &mut Shared, now: Instant) -> Self {
        shared.output(Output::Connect);
        Self { dial: Dial { deadline: now + CONNECT_TIMEOUT } }
    }
}

/// Waiting for the peer, or for the time of our next attempt.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) retry: Option<Instant>,
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Ours,
    Theirs,
}

/// A connection that carries the protocol.
#[derive(Debug)]
pub(super) enum Link {
    OpenSent(OpenSent),
    OpenConfirm(Box<OpenConfirm>),
    Established(Box<Established>),
}

#[derive(Debug)]
pub(super) struct OpenSent {
    conn: Conn,
    origin: Origin,
    hold: Instant,
}

#[derive(Debug)]
pub(super) struct OpenConfirm {
    conn: Conn,
    origin: Origin,
    negotiated: Negotiated,
    hold: Option<Instant>,
    keepalive: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Established {
    conn: Conn,
    origin: Origin,
    pub(super) negotiated: Negotiated,
    pub(super) since: Instant,
    hold: Option<Instant>,
    keepalive: Option<Instant>,
    send_hold: Instant,
}

/// A connection that is gone.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) reason: Reason,
    /// The session that it carried, if it was established.
    pub(super) was: Option<Box<Established>>,
}

impl Link {
    /// Events 16 and 17: a fresh connection; our OPEN goes out.
    pub(super) fn open(conn: Conn, origin: Origin, shared: &mut Shared, now: Instant) -> Self {
        let open = our_open(&shared.config, shared.restarting, shared.restarting || shared.forwarding);
        shared.output(Output::Send(conn, Message::Open(open)));
        Self::OpenSent(OpenSent { conn, origin, hold: now + OPEN_HOLD_TIME })
    }

    pub(super) fn state(&self) -> SessionState {
        match self {
            Self::OpenSent(_) => SessionState::OpenSent,
            Self::OpenConfirm(_) => SessionState::OpenConfirm,
            Self::Established(_) => SessionState::Established,
        }
    }

    pub(super) fn conn(&self) -> Conn {
        match self {
            Self::OpenSent(state) => state.conn,
            Self::OpenConfirm(state) => state.conn,
            Self::Established(state) => state.conn,
        }
    }

    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::OpenSent(state) => state.origin,
            Self::OpenConfirm(state) => state.origin,
            Self::Established(state) => state.origin,
        }
    }

    /// Opened by `origin` and not established yet.
    pub(super) fn is_tentative_of(&self, origin: Origin) -> bool {
        self.state() != SessionState::Established && self.origin() == origin
    }

    pub(super) fn peer_router_id(&self) -> Option<RouterId> {
        match self {
            Self::OpenSent(_) => None,
            Self::OpenConfirm(state) => Some(state.negotiated.router_id),
            Self::Established(state) => Some(state.negotiated.router_id),
        }
    }

    /// What was negotiated, once it is established.
    pub(super) fn negotiated(&self) -> Option<&Negotiated> {
        match self {
            Self::OpenSent(_) | Self::OpenConfirm(_) => None,
            Self::Established(state) => Some(&state.negotiated),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::OpenSent(state) => Some(state.hold),
            Self::OpenConfirm(state) => [state.hold, state.keepalive].into_iter().flatten().min(),
            Self::Established(state) => {
                [state.hold, state.keepalive, Some(state.send_hold)].into_iter().flatten().min()
            }
        }
    }

    /// The system took bytes of ours (RFC 9687 §3.2).
    pub(super) fn progress(&mut self, now: Instant) {
        if let Self::Established(state) = self {
            state.send_hold = now + send_hold(state.negotiated.hold_time);
        }
    }

    /// The connection is gone without our doing.
    pub(super) fn lost(self, reason: Reason) -> Lost {
        match self {
            Self::OpenSent(_) | Self::OpenConfirm(_) => Lost { reason, was: None },
            Self::Established(was) => Lost { reason, was: Some(was) },
        }
    }

    /// We close it, with a NOTIFICATION or without.
    pub(super) fn close(self, notification: Option<Notification>, shared: &mut Shared) {
        shared.say_goodbye(self.conn(), notification);
    }

    /// We close it because of an error.
    fn fail(self, notification: Notification, why: &'static str, shared: &mut Shared) -> Lost {
        shared.say_goodbye(self.conn(), Some(notification.clone()));
        self.lost(Reason::NotificationSent(notification, why))
    }

    /// The KEEPALIVE that acknowledges the peer's OPEN.
    pub(super) fn confirm(self, shared: &mut Shared) -> Self {
        shared.output(Output::Send(self.conn(), Message::Keepalive));
        self
    }

    /// Events 19 to 28.
    pub(super) fn received(
        self,
        message: Result<Message, DecodeError>,
        shared: &mut Shared,
        now: Instant,
    ) -> Result<Self, Lost> {
        match message {
            // Events 24, 25: the peer has the last word; no answer.
            Ok(Message::Notification(notification)) => {
                shared.output(Output::Close(self.conn()));
                Err(self.lost(Reason::NotificationReceived(notification)))
            }
            // Events 21, 22, 28.
            Err(error) => Err(self.fail(error.notification, error.reason, shared)),
            Ok(message) => match self {
                Self::OpenSent(state) => state.received(message, shared, now),
                Self::OpenConfirm(state) => state.received(&message, shared, now),
                Self::Established(state) => state.received(message, shared, now),
            },
        }
    }

    /// Events 10, 11 and 29: timers that are due.
    pub(super) fn timeout(self, shared: &mut Shared, now: Instant) -> Result<Self, Lost> {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match self {
            Self::OpenSent(state) if due(Some(state.hold)) => Err(Self::OpenSent(state).hold_expired(shared)),
            Self::OpenSent(state) => Ok(Self::OpenSent(state)),
            Self::OpenConfirm(state) if due(state.hold) => Err(Self::OpenConfirm(state).hold_expired(shared)),
            Self::OpenConfirm(mut state) => {
                if due(state.keepalive) {
                    shared.output(Output::Send(state.conn, Message::Keepalive));
                    state.keepalive = Some(now + keepalive(state.negotiated.hold_time, &mut shared.rng));
                }
                Ok(Self::OpenConfirm(state))
            }
            Self::Established(state) if due(state.hold) => Err(Self::Established(state).hold_expired(shared)),
            Self::Established(state) if due(Some(state.send_hold)) => {
                // Event 29, SendHoldTimer_Expires (RFC 9687 §3.3): said if the socket will still take it.
                shared.say_goodbye(state.conn, Some(ErrorCode::SEND_HOLD_TIMER_EXPIRED.into()));
                Err(Self::Established(state).lost(Reason::SendHoldTimerExpired))
            }
            Self::Established(mut state) => {
                if due(state.keepalive) {
                    shared.output(Output::Send(state.conn, Message::Keepalive));
                    state.keepalive = Some(now + keepalive(state.negotiated.hold_time, &mut shared.rng));
                }
                Ok(Self::Established(state))
            }
        }
    }

    /// Event 10, HoldTimer_Expires.
    fn hold_expired(self, shared: &mut Shared) -> Lost {
        shared.say_goodbye(self.conn(), Some(ErrorCode::HOLD_TIMER_EXPIRED.into()));
        self.lost(Reason::HoldTimerExpired)
    }

    /// A message that has no place in this state (RFC 4271 §6.6, subcodes and data of RFC 6608).
    fn unexpected(self, message: &Message, shared: &mut Shared) -> Lost {
        let (error, why) = match &self {
            Self::OpenSent(_) => {
                (ErrorCode::UNEXPECTED_MESSAGE_IN_OPEN_SENT, "message other than OPEN before the OPEN")
            }
            Self::OpenConfirm(_) => {
                (ErrorCode::UNEXPECTED_MESSAGE_IN_OPEN_CONFIRM, "message other than KEEPALIVE after the OPEN")
            }
            Self::Established(_) => {
                (ErrorCode::UNEXPECTED_MESSAGE_IN_ESTABLISHED, "OPEN in an established session")
            }
        };
        let kind = match message {
            Message::Open(_) => 1,
            Message::Update(_) => 2,
            Message::Notification(_) => 3,
            Message::Keepalive => 4,
            Message::RouteRefresh(_) => 5,
        };
        self.fail(error.with(Bytes::copy_from_slice(&[kind])), why, shared)
    }
}

impl OpenSent {
    fn received(self, message: Message, shared: &mut Shared, now: Instant) -> Result<Link, Lost> {
        match message {
            // Event 19, BGPOpen.
            Message::Open(open) => self.opened(&open, shared, now),
            // Events 26, 27.
            message @ (Message::Update(_)
            | Message::Keepalive
            | Message::RouteRefresh(_)
            | Message::Notification(_)) => Err(Link::OpenSent(self).unexpected(&message, shared)),
        }
    }

    fn opened(self, open: &Open, shared: &mut Shared, now: Instant) -> Result<Link, Lost> {
        match negotiate(&shared.config, open) {
            Ok(negotiated) => {
                let hold_time = negotiated.hold_time;
                // RFC 4271 §4.2: hold time 0 means that neither timer runs.
                let timed = !hold_time.is_zero();
                Ok(Link::OpenConfirm(Box::new(OpenConfirm {
                    conn: self.conn,
                    origin: self.origin,
                    hold: timed.then(|| now + hold_time),
                    keepalive: timed.then(|| now + keepalive(hold_time, &mut shared.rng)),
                    negotiated,
                })))
            }
            // Event 22, BGPOpenMsgErr.
            Err(error) => Err(Link::OpenSent(self).fail(error.notification(), error.reason(), shared)),
        }
    }
}

impl OpenConfirm {
    fn received(self: Box<Self>, message: &Message, shared: &mut Shared, now: Instant) -> Result<Link, Lost> {
        match message {
            // Event 26, KeepAliveMsg.
            Message::Keepalive => Ok(Link::Established(Box::new(Established {
                conn: self.conn,
                origin: self.origin,
                since: now,
                hold: self.hold.map(|_| now + self.negotiated.hold_time),
                keepalive: self.keepalive,
                send_hold: now + send_hold(self.negotiated.hold_time),
                negotiated: self.negotiated,
            }))),
            // Events 19, 27.
            Message::Open(_) | Message::Update(_) | Message::RouteRefresh(_) | Message::Notification(_) => {
                Err(Link::OpenConfirm(self).unexpected(message, shared))
            }
        }
    }
}

impl Established {
    fn received(
        mut self: Box<Self>,
        message: Message,
        shared: &mut Shared,
        now: Instant,
    ) -> Result<Link, Lost> {
        match message {
            // Event 26, KeepAliveMsg.
            Message::Keepalive => self.alive(now),
            // Event 27, UpdateMsg.
            Message::Update(mut update) => {
                self.alive(now);
                restrict(&mut update, &self.negotiated.families);
                shared.output(Output::Update(update));
            }
            Message::RouteRefresh(family) => {
                // RFC 2918 §4: a family that was not negotiated is ignored.
                if self.negotiated.families.contains(&family) {
                    shared.output(Output::Refresh(family));
                }
            }
            // Event 19.
            message @ (Message::Open(_) | Message::Notification(_)) => {
                return Err(Link::Established(self).unexpected(&message, shared));
            }
        }
        Ok(Link::Established(self))
    }

    fn alive(&mut self, now: Instant) {
        self.hold = self.hold.map(|_| now + self.negotiated.hold_time);
    }
}

/// Drops what is said of families that were not negotiated (RFC 4760 §6).
fn restrict(update: &mut Update, families: &BTreeSet<Family>) {
    if families.len() == Family::ALL.len() {
        return;
    }
    update.withdrawn.retain(|prefix| families.contains(&Family::of(*prefix)));
    for reach in &mut update.reach {
        reach.prefixes.retain(|prefix| families.contains(&Family::of(*prefix)));
    }
    update.reach.retain(|reach| !reach.prefixes.is_empty());
    update.end_of_rib = update.end_of_rib.filter(|family| families.contains(family));
}
