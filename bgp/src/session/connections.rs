//! What events do to the connections of a peer: at most two, of which one survives.

use std::collections::BTreeSet;
use std::time::Instant;

use super::reason::{cease, hard};
use super::state::{Active, Connect, Idle, Link, Lost, Origin, Phase};
use super::timers::{RETRY_MAX, backoff};
use super::{Conn, Output, Reason, Role, Session, SessionConfig, SessionState, Stop, collision};
use crate::wire::{DecodeError, ErrorCode, Message, Notification};

/// Which of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    First,
    Rival,
}

impl Session {
    /// Leaves Idle.
    pub(super) fn begin(&mut self, now: Instant) {
        self.phase = match self.shared.config.role {
            Role::Dial => Phase::Connect(Connect::dial(&mut self.shared, now)),
            // Events 4, 5: passive; the ConnectRetryTimer does not run, the peer will come.
            Role::Accept => Phase::Active(Active { retry: None }),
        };
    }

    pub(super) fn connected(&mut self, conn: Conn, now: Instant) {
        match self.take_phase() {
            Phase::Connect(_) => {
                self.phase = Phase::Talking(Link::open(conn, Origin::Ours, &mut self.shared, now))
            }
            Phase::Talking(link) if self.dial.is_some() => {
                // Both ends dialled at the same time: both connections go on until the collision can be resolved.
                self.dial = None;
                self.phase = Phase::Talking(link);
                let rival = Link::open(conn, Origin::Ours, &mut self.shared, now);
                if let Some(older) = self.rival.replace(rival) {
                    older.close(Some(ErrorCode::CONNECTION_COLLISION_RESOLUTION.into()), &mut self.shared);
                }
            }
            phase @ (Phase::Idle(_) | Phase::Active(_) | Phase::Talking(_)) => {
                self.phase = phase;
                self.shared.output(Output::Close(conn));
            }
        }
    }

    pub(super) fn connect_failed(&mut self, now: Instant) {
        match self.take_phase() {
            // Event 18 in Connect. Deviates from RFC 4271 §8.2.2 (to Idle): an idle peer refuses connections,
            // and two nodes that boot at the same time shall meet on either's attempt.
            Phase::Connect(_) => self.rest(now),
            phase @ (Phase::Idle(_) | Phase::Active(_) | Phase::Talking(_)) => {
                self.phase = phase;
                self.dial = None;
            }
        }
    }

    pub(super) fn incoming(&mut self, conn: Conn, now: Instant) {
        match self.take_phase() {
            // RFC 4271 §8.2.2: in Idle all connections are refused.
            Phase::Idle(idle) => {
                self.phase = Phase::Idle(idle);
                self.shared.output(Output::Close(conn));
            }
            Phase::Connect(connect) => {
                self.dial = Some(connect.dial);
                self.phase = Phase::Talking(Link::open(conn, Origin::Theirs, &mut self.shared, now));
            }
            Phase::Active(_) => {
                self.phase = Phase::Talking(Link::open(conn, Origin::Theirs, &mut self.shared, now));
            }
            Phase::Talking(first) => {
                // A peer has one attempt out at a time, so an older one of its own that was never established is dead.
                let replaced = match (&first, &self.rival) {
                    (first, _) if first.is_tentative_of(Origin::Theirs) => Some(Place::First),
                    (_, Some(_)) => Some(Place::Rival),
                    (_, None) => None,
                };
                let link = Link::open(conn, Origin::Theirs, &mut self.shared, now);
                let older = if replaced == Some(Place::First) {
                    self.phase = Phase::Talking(link);
                    Some(first)
                } else {
                    self.phase = Phase::Talking(first);
                    self.rival.replace(link)
                };
                if let Some(older) = older {
                    older.close(Some(ErrorCode::CONNECTION_COLLISION_RESOLUTION.into()), &mut self.shared);
                }
            }
        }
    }

    pub(super) fn received(&mut self, conn: Conn, message: Result<Message, DecodeError>, now: Instant) {
        // Of a connection that is closed already: the driver's queue.
        let Some((place, link)) = self.take(conn) else { return };
        let before = link.state();
        let end_of_rib = match &message {
            Ok(Message::Update(update)) => update.end_of_rib,
            Ok(
                Message::Open(_) | Message::Notification(_) | Message::Keepalive | Message::RouteRefresh(_),
            )
            | Err(_) => None,
        };
        let link = match link.received(message, &mut self.shared, now) {
            Ok(link) => link,
            Err(lost) => return self.lost(place, lost, now),
        };
        let after = link.state();
        if before == SessionState::OpenSent && after == SessionState::OpenConfirm {
            return self.opened(place, link, now);
        }
        if before == SessionState::OpenConfirm && after == SessionState::Established {
            return self.established(place, link, now);
        }
        self.put(place, link);
        if let Some(family) = end_of_rib
            && self.helper.end_of_rib(family)
        {
            self.shared.output(Output::Sweep(BTreeSet::from([family])));
        }
    }

    /// A link got its OPEN. Collisions are resolved before it is confirmed, lest the peer sees a session that
    /// ends at once (RFC 4271 §6.8).
    pub(super) fn opened(&mut self, place: Place, link: Link, now: Instant) {
        let other = match place {
            Place::First => self.rival.take(),
            Place::Rival => match self.take_phase() {
                Phase::Talking(first) => Some(first),
                phase @ (Phase::Idle(_) | Phase::Connect(_) | Phase::Active(_)) => {
                    self.phase = phase;
                    None
                }
            },
        };
        let Some(other) = other else {
            self.phase = Phase::Talking(link.confirm(&mut self.shared));
            return;
        };
        match collision::resolve(&self.shared.config, &other, &link, now) {
            collision::Verdict::Both => {
                let link = link.confirm(&mut self.shared);
                match place {
                    Place::First => (self.phase, self.rival) = (Phase::Talking(link), Some(other)),
                    Place::Rival => (self.phase, self.rival) = (Phase::Talking(other), Some(link)),
                }
            }
            collision::Verdict::New => {
                other.close(Some(ErrorCode::CONNECTION_COLLISION_RESOLUTION.into()), &mut self.shared);
                self.phase = Phase::Talking(link.confirm(&mut self.shared));
            }
            collision::Verdict::Old => {
                link.close(Some(ErrorCode::CONNECTION_COLLISION_RESOLUTION.into()), &mut self.shared);
                self.phase = Phase::Talking(other);
            }
            collision::Verdict::Restarted => {
                // RFC 4724 §4.2: the old connection is dead, whatever TCP knows; no NOTIFICATION on it.
                let conn = other.conn();
                let lost = other.lost(Reason::Replaced);
                self.shared.output(Output::Close(conn));
                self.down(lost, now);
                self.phase = Phase::Talking(link.confirm(&mut self.shared));
            }
        }
    }

    pub(super) fn established(&mut self, place: Place, link: Link, now: Instant) {
        // Of the two only this one counts now (RFC 4271 §6.8); our own attempt is not needed either.
        let other = match place {
            Place::First => self.rival.take(),
            Place::Rival => match self.take_phase() {
                Phase::Talking(first) => Some(first),
                Phase::Idle(_) | Phase::Connect(_) | Phase::Active(_) => None,
            },
        };
        if let Some(other) = other {
            other.close(Some(ErrorCode::CONNECTION_COLLISION_RESOLUTION.into()), &mut self.shared);
        }
        if self.dial.take().is_some() {
            self.shared.output(Output::CancelConnect);
        }
        self.shared.forwarding = true;
        if let Some(negotiated) = link.negotiated() {
            self.shared.outputs.push_back(Output::Up(link.conn(), negotiated.clone()));
            let swept = self.helper.up(negotiated, now);
            if !swept.is_empty() {
                self.shared.output(Output::Sweep(swept));
            }
        }
        self.phase = Phase::Talking(link);
    }

    pub(super) fn stop(&mut self, how: Stop, now: Instant) {
        let notification = match how {
            Stop::Silent => None,
            Stop::Cease(subcode) => Some(cease(subcode)),
        };
        self.close_all(notification, Reason::Stopped, now);
        // What was kept for a restart goes too: the peer is not wanted any more.
        let swept = self.helper.clear();
        if !swept.is_empty() {
            self.shared.output(Output::Sweep(swept));
        }
        self.phase = Phase::Idle(Idle { restart: None });
    }

    pub(super) fn reconfigure(&mut self, config: SessionConfig, now: Instant) {
        let idle = matches!(self.phase, Phase::Idle(Idle { restart: None }));
        self.close_all(Some(ErrorCode::OTHER_CONFIGURATION_CHANGE.into()), Reason::Reconfigured, now);
        self.shared.config = config;
        self.attempts = 0;
        if idle {
            self.phase = Phase::Idle(Idle { restart: None });
        } else {
            self.begin(now);
        }
    }

    /// Ends all connections and attempts, and leaves Idle behind.
    pub(super) fn close_all(&mut self, notification: Option<Notification>, reason: Reason, now: Instant) {
        if let Some(rival) = self.rival.take() {
            rival.close(notification.clone(), &mut self.shared);
        }
        if self.dial.take().is_some() {
            self.shared.output(Output::CancelConnect);
        }
        match self.take_phase() {
            Phase::Talking(link) => {
                let notification = match (notification, link.negotiated()) {
                    (Some(n), Some(negotiated)) => Some(hard(n, negotiated)),
                    (n, _) => n,
                };
                self.shared.say_goodbye(link.conn(), notification);
                let lost = link.lost(reason);
                if lost.was.is_some() {
                    self.down(lost, now);
                }
            }
            Phase::Connect(_) => self.shared.output(Output::CancelConnect),
            Phase::Idle(_) | Phase::Active(_) => {}
        }
    }

    pub(super) fn reset(&mut self, notification: Notification, now: Instant) {
        match self.take_phase() {
            Phase::Talking(link) if link.state() == SessionState::Established => {
                let notification = match link.negotiated() {
                    Some(negotiated) => hard(notification, negotiated),
                    None => notification,
                };
                self.shared.say_goodbye(link.conn(), Some(notification.clone()));
                let lost = link.lost(Reason::NotificationSent(notification, "reset by us"));
                self.lost(Place::First, lost, now);
            }
            phase @ (Phase::Idle(_) | Phase::Connect(_) | Phase::Active(_) | Phase::Talking(_)) => {
                self.phase = phase;
            }
        }
    }

    /// A connection is gone.
    pub(super) fn lost(&mut self, place: Place, lost: Lost, now: Instant) {
        let established = lost.was.as_ref().map(|was| now.saturating_duration_since(was.since));
        let damped = lost.reason.damped();
        if established.is_some() {
            self.down(lost, now);
        } else {
            self.shared.output(Output::Failed(lost.reason));
        }
        if place == Place::Rival {
            return;
        }
        if let Some(rival) = self.rival.take() {
            self.phase = Phase::Talking(rival);
            return;
        }
        if let Some(dial) = self.dial.take() {
            self.phase = Phase::Connect(Connect { dial });
            return;
        }
        // A session that stood for a while, or that ended without a protocol error, begins the back-off anew.
        if established.is_some_and(|stood| !damped || stood >= RETRY_MAX) {
            self.attempts = 0;
        }
        if damped {
            self.attempts = self.attempts.saturating_add(1);
            let restart = Some(now + backoff(self.attempts, &mut self.shared.rng));
            self.phase = Phase::Idle(Idle { restart });
        } else {
            self.rest(now);
        }
    }

    /// To Active until the next attempt.
    pub(super) fn rest(&mut self, now: Instant) {
        self.attempts = self.attempts.saturating_add(1);
        let retry = match self.shared.config.role {
            Role::Dial => Some(now + backoff(self.attempts, &mut self.shared.rng)),
            Role::Accept => None,
        };
        self.phase = Phase::Active(Active { retry });
    }

    pub(super) fn down(&mut self, lost: Lost, now: Instant) {
        let stale = match &lost.was {
            Some(was) => self.helper.lost(&was.negotiated, &lost.reason, now),
            None => BTreeSet::new(),
        };
        self.shared.output(Output::Down { reason: lost.reason, stale });
    }

    pub(super) fn take_phase(&mut self) -> Phase {
        std::mem::replace(&mut self.phase, Phase::Idle(Idle { restart: None }))
    }

    pub(super) fn take(&mut self, conn: Conn) -> Option<(Place, Link)> {
        if self.rival.as_ref().is_some_and(|rival| rival.conn() == conn) {
            return self.rival.take().map(|link| (Place::Rival, link));
        }
        match self.take_phase() {
            Phase::Talking(link) if link.conn() == conn => Some((Place::First, link)),
            phase @ (Phase::Idle(_) | Phase::Connect(_) | Phase::Active(_) | Phase::Talking(_)) => {
                self.phase = phase;
                None
            }
        }
    }

    pub(super) fn put(&mut self, place: Place, link: Link) {
        match place {
            Place::First => self.phase = Phase::Talking(link),
            Place::Rival => self.rival = Some(link),
        }
    }
}
