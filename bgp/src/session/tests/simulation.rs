//! Two sessions and a network with a virtual clock.
//!
//! A connection delivers in order; a message that the network loses kills its connection for good (TCP would retry
//! and then give up), and the sender learns of it later, as from TCP_USER_TIMEOUT.

use std::collections::BTreeMap;

use super::*;
use crate::wire::Update;

/// When a dead connection is reported to an end that has sent on it.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
enum Event {
    /// Our SYN reaches the other end.
    Syn {
        from: usize,
        dial: u64,
    },
    /// The answer comes back: the connection, or a refusal.
    Answer {
        to: usize,
        dial: u64,
        link: Option<u64>,
    },
    Deliver {
        to: usize,
        link: u64,
        message: Box<Result<Message, DecodeError>>,
    },
    Closed {
        to: usize,
        link: u64,
    },
}

#[derive(Debug)]
struct Link {
    dialer: usize,
    /// By end: it has not closed it.
    open: [bool; 2],
    dead: bool,
}

pub(super) struct End {
    pub(super) session: Session,
    /// The process runs.
    pub(super) alive: bool,
    dial: Option<u64>,
    pub(super) up_on: Option<u64>,
    pub(super) ups: Vec<Negotiated>,
    pub(super) downs: Vec<(Duration, Reason, BTreeSet<Family>)>,
    pub(super) sweeps: Vec<(Duration, BTreeSet<Family>)>,
    pub(super) sent: Vec<(Duration, Message)>,
    /// Sends End-of-RIB when up.
    pub(super) end_of_rib: bool,
}

pub(super) struct Simulation {
    pub(super) ends: [End; 2],
    start: Instant,
    pub(super) now: Instant,
    queue: BTreeMap<(Instant, u64), Event>,
    links: BTreeMap<u64, Link>,
    next: u64,
    pub(super) latency: Duration,
    /// Everything sent is lost.
    pub(super) blackhole: bool,
}

impl Simulation {
    pub(super) fn new(roles: [Role; 2], seed: u64) -> Self {
        Self::with([config(roles[0]), mirrored(roles[1])], seed)
    }

    pub(super) fn with(configs: [SessionConfig; 2], seed: u64) -> Self {
        let now = start();
        let mut seeds = 0..;
        let ends = configs.map(|config| End {
            session: Session::new(config, seed.wrapping_mul(31).wrapping_add(seeds.next().unwrap())),
            alive: true,
            dial: None,
            up_on: None,
            ups: Vec::new(),
            downs: Vec::new(),
            sweeps: Vec::new(),
            sent: Vec::new(),
            end_of_rib: true,
        });
        Self {
            ends,
            start: now,
            now,
            queue: BTreeMap::new(),
            links: BTreeMap::new(),
            next: 0,
            latency: Duration::from_millis(5),
            blackhole: false,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(super) fn started(mut self) -> Self {
        self.input(0, Input::Start);
        self.input(1, Input::Start);
        self
    }

    /// Both ends are up, on one and the same connection.
    pub(super) fn converged(&self) -> bool {
        self.ends.iter().all(|end| end.session.state() == SessionState::Established)
            && self.ends[0].up_on == self.ends[1].up_on
    }

    #[track_caller]
    pub(super) fn converge(&mut self, within: Duration) {
        let end = self.now + within;
        while !self.converged() {
            assert!(
                self.now < end,
                "not established after {within:?}: {} {}",
                self.ends[0].session.state(),
                self.ends[1].session.state()
            );
            self.run(Duration::from_millis(10));
        }
    }

    pub(super) fn input(&mut self, end: usize, input: Input) {
        let now = self.now;
        self.ends[end].session.handle(input, now);
        self.outputs(end);
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let event = self.queue.keys().next().map(|(at, _)| *at);
            let timers = [0, 1].map(|i| self.ends[i].session.poll_timeout().filter(|_| self.ends[i].alive));
            let next = event.into_iter().chain(timers.into_iter().flatten()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if event == Some(next) {
                let (_, event) = self.queue.pop_first().unwrap();
                self.happen(event);
            } else {
                for i in [0, 1] {
                    if timers[i].is_some_and(|at| at <= next) {
                        let now = self.now;
                        self.ends[i].session.handle_timeout(now);
                        let again = self.ends[i].session.poll_timeout();
                        assert!(again.is_none_or(|at| at > now), "a timer that does not move on");
                        self.outputs(i);
                    }
                }
            }
        }
        self.now = end;
    }

    /// Runs until nothing is on its way and no timer is near.
    pub(super) fn settle(&mut self) {
        let near = |net: &Self| {
            let timers = net.ends.iter().filter_map(|end| end.session.poll_timeout());
            !net.queue.is_empty() || timers.min().is_some_and(|at| at < net.now + Duration::from_millis(200))
        };
        while near(self) {
            self.run(Duration::from_millis(10));
        }
    }

    /// All connections are reset at both ends.
    pub(super) fn reset(&mut self) {
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            for to in [0, 1] {
                self.later(Event::Closed { to, link });
            }
        }
    }

    /// The process of this end ends without a word. `fin`: the system closes its connections.
    pub(super) fn crash(&mut self, end: usize, fin: bool) {
        self.ends[end].alive = false;
        for (link, state) in &mut self.links {
            state.open[end] = false;
            if fin && !self.blackhole {
                self.next += 1;
                let event = Event::Closed { to: 1 - end, link: *link };
                self.queue.insert((self.now + self.latency, self.next), event);
            }
        }
    }

    /// And comes back as a new one.
    pub(super) fn boot(&mut self, end: usize, config: SessionConfig, restarting: bool, seed: u64) {
        let mut session = Session::new(config, seed);
        session.set_restarting(restarting);
        let state = &mut self.ends[end];
        (state.session, state.alive, state.dial, state.up_on) = (session, true, None, None);
        self.input(end, Input::Start);
    }

    /// Sends garbage to the end, on whatever connection it has.
    pub(super) fn garbage(&mut self, to: usize) {
        let error = DecodeError { notification: notification(1, 1), reason: "garbage" };
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.later(Event::Deliver { to, link, message: Box::new(Err(error.clone())) });
        }
    }

    fn later(&mut self, event: Event) {
        self.next += 1;
        self.queue.insert((self.now + self.latency, self.next), event);
    }

    fn conn(&self, end: usize, link: u64) -> Conn {
        Conn(link * 2 + u64::from(self.links[&link].dialer != end))
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Syn { from, dial } => {
                let to = 1 - from;
                if self.blackhole {
                    return;
                }
                if !self.ends[to].alive {
                    return self.later(Event::Answer { to: from, dial, link: None });
                }
                self.next += 1;
                let link = self.next;
                self.links.insert(link, Link { dialer: from, open: [true; 2], dead: false });
                self.later(Event::Answer { to: from, dial, link: Some(link) });
                let conn = self.conn(to, link);
                self.input(to, Input::Incoming(conn));
            }
            Event::Answer { to, dial, link } => {
                let wanted = self.ends[to].dial == Some(dial) && self.ends[to].alive && !self.blackhole;
                if wanted {
                    self.ends[to].dial = None;
                }
                match link {
                    Some(link) if wanted => {
                        let conn = self.conn(to, link);
                        self.input(to, Input::Connected(conn));
                    }
                    Some(link) => self.close(to, link),
                    None if wanted => self.input(to, Input::ConnectFailed),
                    None => {}
                }
            }
            Event::Deliver { to, link, message } => {
                let conn = self.conn(to, link);
                let state = self.links.get_mut(&link).unwrap();
                if self.blackhole || state.dead {
                    state.dead = true;
                    self.next += 1;
                    let event = Event::Closed { to: 1 - to, link };
                    self.queue.insert((self.now + USER_TIMEOUT, self.next), event);
                } else if state.open[to] {
                    self.input(1 - to, Input::Sent(self.conn(1 - to, link)));
                    self.input(to, Input::Received(conn, *message));
                } else {
                    // A reset answers.
                    self.later(Event::Closed { to: 1 - to, link });
                }
            }
            Event::Closed { to, link } => {
                let conn = self.conn(to, link);
                let state = self.links.get_mut(&link).unwrap();
                if std::mem::replace(&mut state.open[to], false) {
                    self.input(to, Input::Closed(conn));
                }
            }
        }
    }

    fn close(&mut self, end: usize, link: u64) {
        let state = self.links.get_mut(&link).unwrap();
        state.open[end] = false;
        if !self.blackhole && !state.dead {
            self.later(Event::Closed { to: 1 - end, link });
        }
    }

    fn outputs(&mut self, end: usize) {
        while let Some(output) = self.ends[end].session.poll_output() {
            let elapsed = self.elapsed();
            match output {
                Output::Connect => {
                    self.next += 1;
                    let dial = self.next;
                    assert_eq!(self.ends[end].dial.replace(dial), None, "two attempts at once");
                    self.later(Event::Syn { from: end, dial });
                }
                Output::CancelConnect => {
                    assert!(self.ends[end].dial.take().is_some(), "no attempt to cancel");
                }
                Output::Send(conn, message) => {
                    let link = conn.0 / 2;
                    self.ends[end].sent.push((elapsed, message.clone()));
                    self.later(Event::Deliver { to: 1 - end, link, message: Box::new(Ok(message)) });
                }
                Output::Close(conn) => self.close(end, conn.0 / 2),
                Output::Up(conn, negotiated) => {
                    let link = conn.0 / 2;
                    assert_eq!(self.ends[end].up_on.replace(link), None, "up twice");
                    if self.ends[end].end_of_rib {
                        for family in negotiated.families.iter().copied() {
                            let update = Update { end_of_rib: Some(family), ..Update::default() };
                            let message = Box::new(Ok(Message::Update(update)));
                            self.later(Event::Deliver { to: 1 - end, link, message });
                        }
                    }
                    self.ends[end].ups.push(negotiated);
                }
                Output::Down { reason, stale } => {
                    assert!(self.ends[end].up_on.take().is_some(), "down without up");
                    self.ends[end].downs.push((elapsed, reason, stale));
                }
                Output::Sweep(families) => {
                    assert!(!families.is_empty());
                    self.ends[end].sweeps.push((elapsed, families));
                }
                Output::Update(_) | Output::Refresh(_) => {
                    assert!(self.ends[end].up_on.is_some(), "routes before Established");
                }
                Output::Failed(_) => {}
            }
        }
    }
}
