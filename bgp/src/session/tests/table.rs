//! Every state with every event: what follows and what is said. Reviewed by hand against RFC 4271 §8.2.2.

use std::fmt::Write as _;

use bytes::Bytes;
use expect_test::{Expect, expect};

use super::*;
use crate::wire::{Message, Notification, Update};

const CONN: Conn = Conn(1);
const OTHER: Conn = Conn(2);

/// Short names for outputs.
fn show(output: &Output) -> String {
    let conn = |conn: &Conn| if *conn == CONN { "" } else { "'" };
    match output {
        Output::Connect => "connect".into(),
        Output::CancelConnect => "cancel-connect".into(),
        Output::Send(c, Message::Open(_)) => format!("OPEN{}", conn(c)),
        Output::Send(c, Message::Update(_)) => format!("UPDATE{}", conn(c)),
        Output::Send(c, Message::Keepalive) => format!("KEEPALIVE{}", conn(c)),
        Output::Send(c, Message::RouteRefresh(_)) => format!("ROUTE-REFRESH{}", conn(c)),
        Output::Send(c, Message::Notification(n)) => format!("{}/{}{}", n.code, n.subcode, conn(c)),
        Output::Close(c) => format!("close{}", conn(c)),
        Output::Up(c, _) => format!("up{}", conn(c)),
        Output::Update(_) => "update".into(),
        Output::Refresh(family) => format!("refresh({family})"),
        Output::Down { stale, .. } => format!("down(stale {})", stale.len()),
        Output::Sweep(families) => format!("sweep({})", families.len()),
        Output::Failed(_) => "failed".into(),
    }
}

fn message(message: Message) -> Input {
    Input::Received(CONN, Ok(message))
}

fn received(code: u8, subcode: u8) -> Input {
    message(Message::Notification(notification(code, subcode)))
}

fn events() -> Vec<(&'static str, Option<Input>)> {
    let garbage = DecodeError { notification: notification(1, 1), reason: "bad marker" };
    let bad_as = Open { asn: Asn(1), ..peer_open() };
    vec![
        ("start", Some(Input::Start)),
        ("stop with Cease/2", Some(Input::Stop(Stop::Cease(2)))),
        ("stop silently", Some(Input::Stop(Stop::Silent))),
        ("reset with Cease/1", Some(Input::Reset(cease(1)))),
        ("reconfigure", Some(Input::Reconfigure(config(Role::Dial)))),
        ("connected", Some(Input::Connected(OTHER))),
        ("connect failed", Some(Input::ConnectFailed)),
        ("incoming", Some(Input::Incoming(OTHER))),
        ("closed", Some(Input::Closed(CONN))),
        ("sent", Some(Input::Sent(CONN))),
        ("OPEN", Some(message(Message::Open(peer_open())))),
        ("OPEN of a wrong AS", Some(message(Message::Open(bad_as)))),
        ("KEEPALIVE", Some(message(Message::Keepalive))),
        ("UPDATE", Some(message(Message::Update(Update::default())))),
        ("ROUTE-REFRESH", Some(message(Message::RouteRefresh(Family::Ipv6)))),
        ("NOTIFICATION 6/2", Some(received(6, 2))),
        ("NOTIFICATION 6/9", Some(received(6, 9))),
        ("NOTIFICATION 2/2", Some(received(2, 2))),
        ("garbage", Some(Input::Received(CONN, Err(garbage)))),
        ("next timer", None),
    ]
}

/// Brings a fresh session of this role into a state.
fn reach(state: SessionState, role: Role, now: Instant) -> Session {
    let mut session = Session::new(config(role), 1);
    let path: &[Input] = &[
        Input::Start,
        if role == Role::Dial { Input::Connected(CONN) } else { Input::Incoming(CONN) },
        message(Message::Open(peer_open())),
        message(Message::Keepalive),
    ];
    match (state, role) {
        (SessionState::Active, Role::Dial) => {
            session.handle(Input::Start, now);
            session.handle(Input::ConnectFailed, now);
        }
        _ => {
            for input in path {
                if session.state() != state {
                    session.handle(input.clone(), now);
                }
            }
        }
    }
    assert_eq!(session.state(), state);
    drain(&mut session);
    session
}

fn table(role: Role, states: &[SessionState]) -> String {
    let now = start();
    let mut table = String::new();
    for state in states {
        writeln!(table, "{state}").unwrap();
        for (name, input) in events() {
            let mut session = reach(*state, role, now);
            match (input, session.poll_timeout()) {
                (Some(input), _) => session.handle(input, now),
                (None, Some(deadline)) => session.handle_timeout(deadline),
                (None, None) => {}
            }
            let outputs: Vec<_> = drain(&mut session).iter().map(show).collect();
            let timer = match session.poll_timeout() {
                Some(_) => "",
                None => " (no timer)",
            };
            writeln!(table, "  {name:18} -> {:11} {}{timer}", session.state().to_string(), outputs.join(" "))
                .unwrap();
        }
    }
    // Nothing hangs on the end of a line.
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[track_caller]
fn check(role: Role, states: &[SessionState], expected: &Expect) {
    expected.assert_eq(&table(role, states));
}

#[test]
fn the_end_that_dials() {
    let all = [
        SessionState::Idle,
        SessionState::Connect,
        SessionState::Active,
        SessionState::OpenSent,
        SessionState::OpenConfirm,
        SessionState::Established,
    ];
    check(
        Role::Dial,
        &all,
        &expect![[r#"
        Idle
          start              -> Connect     connect
          stop with Cease/2  -> Idle         (no timer)
          stop silently      -> Idle         (no timer)
          reset with Cease/1 -> Idle         (no timer)
          reconfigure        -> Idle         (no timer)
          connected          -> Idle        close' (no timer)
          connect failed     -> Idle         (no timer)
          incoming           -> Idle        close' (no timer)
          closed             -> Idle         (no timer)
          sent               -> Idle         (no timer)
          OPEN               -> Idle         (no timer)
          OPEN of a wrong AS -> Idle         (no timer)
          KEEPALIVE          -> Idle         (no timer)
          UPDATE             -> Idle         (no timer)
          ROUTE-REFRESH      -> Idle         (no timer)
          NOTIFICATION 6/2   -> Idle         (no timer)
          NOTIFICATION 6/9   -> Idle         (no timer)
          NOTIFICATION 2/2   -> Idle         (no timer)
          garbage            -> Idle         (no timer)
          next timer         -> Idle         (no timer)
        Connect
          start              -> Connect
          stop with Cease/2  -> Idle        cancel-connect (no timer)
          stop silently      -> Idle        cancel-connect (no timer)
          reset with Cease/1 -> Connect
          reconfigure        -> Connect     cancel-connect connect
          connected          -> OpenSent    OPEN'
          connect failed     -> Active
          incoming           -> OpenSent    OPEN'
          closed             -> Connect
          sent               -> Connect
          OPEN               -> Connect
          OPEN of a wrong AS -> Connect
          KEEPALIVE          -> Connect
          UPDATE             -> Connect
          ROUTE-REFRESH      -> Connect
          NOTIFICATION 6/2   -> Connect
          NOTIFICATION 6/9   -> Connect
          NOTIFICATION 2/2   -> Connect
          garbage            -> Connect
          next timer         -> Connect     cancel-connect connect
        Active
          start              -> Active
          stop with Cease/2  -> Idle         (no timer)
          stop silently      -> Idle         (no timer)
          reset with Cease/1 -> Active
          reconfigure        -> Connect     connect
          connected          -> Active      close'
          connect failed     -> Active
          incoming           -> OpenSent    OPEN'
          closed             -> Active
          sent               -> Active
          OPEN               -> Active
          OPEN of a wrong AS -> Active
          KEEPALIVE          -> Active
          UPDATE             -> Active
          ROUTE-REFRESH      -> Active
          NOTIFICATION 6/2   -> Active
          NOTIFICATION 6/9   -> Active
          NOTIFICATION 2/2   -> Active
          garbage            -> Active
          next timer         -> Connect     connect
        OpenSent
          start              -> OpenSent
          stop with Cease/2  -> Idle        6/2 close (no timer)
          stop silently      -> Idle        close (no timer)
          reset with Cease/1 -> OpenSent
          reconfigure        -> Connect     6/6 close connect
          connected          -> OpenSent    close'
          connect failed     -> OpenSent
          incoming           -> OpenSent    OPEN'
          closed             -> Active      failed
          sent               -> OpenSent
          OPEN               -> OpenConfirm KEEPALIVE
          OPEN of a wrong AS -> Idle        2/2 close failed
          KEEPALIVE          -> Idle        5/1 close failed
          UPDATE             -> Idle        5/1 close failed
          ROUTE-REFRESH      -> Idle        5/1 close failed
          NOTIFICATION 6/2   -> Active      close failed
          NOTIFICATION 6/9   -> Active      close failed
          NOTIFICATION 2/2   -> Idle        close failed
          garbage            -> Idle        1/1 close failed
          next timer         -> Active      4/0 close failed
        OpenConfirm
          start              -> OpenConfirm
          stop with Cease/2  -> Idle        6/2 close (no timer)
          stop silently      -> Idle        close (no timer)
          reset with Cease/1 -> OpenConfirm
          reconfigure        -> Connect     6/6 close connect
          connected          -> OpenConfirm close'
          connect failed     -> OpenConfirm
          incoming           -> OpenConfirm OPEN'
          closed             -> Active      failed
          sent               -> OpenConfirm
          OPEN               -> Idle        5/2 close failed
          OPEN of a wrong AS -> Idle        5/2 close failed
          KEEPALIVE          -> Established up
          UPDATE             -> Idle        5/2 close failed
          ROUTE-REFRESH      -> Idle        5/2 close failed
          NOTIFICATION 6/2   -> Active      close failed
          NOTIFICATION 6/9   -> Active      close failed
          NOTIFICATION 2/2   -> Idle        close failed
          garbage            -> Idle        1/1 close failed
          next timer         -> OpenConfirm KEEPALIVE
        Established
          start              -> Established
          stop with Cease/2  -> Idle        6/9 close down(stale 0) (no timer)
          stop silently      -> Idle        close down(stale 0) (no timer)
          reset with Cease/1 -> Idle        6/9 close down(stale 0)
          reconfigure        -> Connect     6/6 close down(stale 2) connect
          connected          -> Established close'
          connect failed     -> Established
          incoming           -> Established OPEN'
          closed             -> Active      down(stale 2)
          sent               -> Established
          OPEN               -> Idle        5/3 close down(stale 2)
          OPEN of a wrong AS -> Idle        5/3 close down(stale 2)
          KEEPALIVE          -> Established
          UPDATE             -> Established update
          ROUTE-REFRESH      -> Established refresh(ipv6)
          NOTIFICATION 6/2   -> Active      close down(stale 2)
          NOTIFICATION 6/9   -> Active      close down(stale 0)
          NOTIFICATION 2/2   -> Idle        close down(stale 2)
          garbage            -> Idle        1/1 close down(stale 2)
          next timer         -> Established KEEPALIVE
    "#]],
    );
}

#[test]
fn the_end_that_accepts() {
    // Where it differs: it waits in Active without a timer.
    let all = [SessionState::Idle, SessionState::Active, SessionState::OpenSent];
    check(
        Role::Accept,
        &all,
        &expect![[r#"
        Idle
          start              -> Active       (no timer)
          stop with Cease/2  -> Idle         (no timer)
          stop silently      -> Idle         (no timer)
          reset with Cease/1 -> Idle         (no timer)
          reconfigure        -> Idle         (no timer)
          connected          -> Idle        close' (no timer)
          connect failed     -> Idle         (no timer)
          incoming           -> Idle        close' (no timer)
          closed             -> Idle         (no timer)
          sent               -> Idle         (no timer)
          OPEN               -> Idle         (no timer)
          OPEN of a wrong AS -> Idle         (no timer)
          KEEPALIVE          -> Idle         (no timer)
          UPDATE             -> Idle         (no timer)
          ROUTE-REFRESH      -> Idle         (no timer)
          NOTIFICATION 6/2   -> Idle         (no timer)
          NOTIFICATION 6/9   -> Idle         (no timer)
          NOTIFICATION 2/2   -> Idle         (no timer)
          garbage            -> Idle         (no timer)
          next timer         -> Idle         (no timer)
        Active
          start              -> Active       (no timer)
          stop with Cease/2  -> Idle         (no timer)
          stop silently      -> Idle         (no timer)
          reset with Cease/1 -> Active       (no timer)
          reconfigure        -> Connect     connect
          connected          -> Active      close' (no timer)
          connect failed     -> Active       (no timer)
          incoming           -> OpenSent    OPEN'
          closed             -> Active       (no timer)
          sent               -> Active       (no timer)
          OPEN               -> Active       (no timer)
          OPEN of a wrong AS -> Active       (no timer)
          KEEPALIVE          -> Active       (no timer)
          UPDATE             -> Active       (no timer)
          ROUTE-REFRESH      -> Active       (no timer)
          NOTIFICATION 6/2   -> Active       (no timer)
          NOTIFICATION 6/9   -> Active       (no timer)
          NOTIFICATION 2/2   -> Active       (no timer)
          garbage            -> Active       (no timer)
          next timer         -> Active       (no timer)
        OpenSent
          start              -> OpenSent
          stop with Cease/2  -> Idle        6/2 close (no timer)
          stop silently      -> Idle        close (no timer)
          reset with Cease/1 -> OpenSent
          reconfigure        -> Connect     6/6 close connect
          connected          -> OpenSent    close'
          connect failed     -> OpenSent
          incoming           -> OpenSent    OPEN' 6/7 close
          closed             -> Active      failed (no timer)
          sent               -> OpenSent
          OPEN               -> OpenConfirm KEEPALIVE
          OPEN of a wrong AS -> Idle        2/2 close failed
          KEEPALIVE          -> Idle        5/1 close failed
          UPDATE             -> Idle        5/1 close failed
          ROUTE-REFRESH      -> Idle        5/1 close failed
          NOTIFICATION 6/2   -> Active      close failed (no timer)
          NOTIFICATION 6/9   -> Active      close failed (no timer)
          NOTIFICATION 2/2   -> Idle        close failed
          garbage            -> Idle        1/1 close failed
          next timer         -> Active      4/0 close failed (no timer)
    "#]],
    );
}

#[test]
fn fsm_errors_say_what_was_unexpected() {
    // RFC 6608.
    let now = start();
    for (state, input, subcode, kind) in [
        (SessionState::OpenSent, Message::Keepalive, 1, 4),
        (SessionState::OpenConfirm, Message::Update(Update::default()), 2, 2),
        (SessionState::OpenConfirm, Message::RouteRefresh(Family::Ipv4), 2, 5),
        (SessionState::Established, Message::Open(peer_open()), 3, 1),
    ] {
        let mut session = reach(state, Role::Dial, now);
        session.handle(message(input), now);
        let expected = Notification { code: 5, subcode, data: Bytes::copy_from_slice(&[kind]) };
        assert_eq!(drain(&mut session)[0], Output::Send(CONN, Message::Notification(expected)));
    }
}

#[test]
fn hold_time_zero_has_neither_timer() {
    let now = start();
    let mut session = Session::new(config(Role::Dial), 1);
    session.handle(Input::Start, now);
    session.handle(Input::Connected(CONN), now);
    session.handle(message(Message::Open(Open { hold_time_secs: 0, ..peer_open() })), now);
    session.handle(message(Message::Keepalive), now);
    assert_eq!(session.state(), SessionState::Established);
    // Only the send hold timer is left (RFC 9687).
    assert_eq!(session.poll_timeout(), Some(now + Duration::from_secs(480)));
}

#[test]
fn a_peer_that_takes_nothing_is_given_up() {
    let mut now = start();
    let mut session = reach(SessionState::Established, Role::Dial, now);
    let start = now;
    // It talks, but does not listen.
    while session.state() == SessionState::Established {
        now += Duration::from_secs(1);
        session.handle(message(Message::Keepalive), now);
        session.handle_timeout(now);
        assert!(now - start <= Duration::from_secs(481), "the send hold timer never expired");
    }
    assert_eq!(now - start, Duration::from_secs(480));
    assert!(drain(&mut session).iter().any(
        |output| matches!(output, Output::Down { reason: Reason::SendHoldTimerExpired, stale } if stale.is_empty())
    ));
}

#[test]
fn updates_of_other_families_are_dropped() {
    let now = start();
    let mut session =
        Session::new(SessionConfig { families: [Family::Ipv4].into(), ..config(Role::Dial) }, 1);
    session.handle(Input::Start, now);
    session.handle(Input::Connected(CONN), now);
    session.handle(message(Message::Open(peer_open())), now);
    session.handle(message(Message::Keepalive), now);
    drain(&mut session);
    session.handle(message(Message::RouteRefresh(Family::Ipv6)), now);
    session.handle(
        message(Message::Update(Update {
            withdrawn: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
            end_of_rib: Some(Family::Ipv6),
            ..Update::default()
        })),
        now,
    );
    let expected = Update { withdrawn: vec!["10.0.0.0/24".parse().unwrap()], ..Update::default() };
    assert_eq!(drain(&mut session), [Output::Update(expected)]);
}

#[test]
fn attempts_back_off_from_one_second_to_thirty() {
    let mut now = start();
    let mut session = Session::new(config(Role::Dial), 7);
    session.handle(Input::Start, now);
    for expected in [1, 2, 4, 8, 16, 30, 30, 30] {
        session.handle(Input::ConnectFailed, now);
        let pause = session.poll_timeout().unwrap() - now;
        let longest = Duration::from_secs(expected);
        assert!(longest.mul_f64(0.75) <= pause && pause <= longest, "{pause:?} of {longest:?}");
        now += pause;
        session.handle_timeout(now);
        assert_eq!(session.state(), SessionState::Connect);
    }
}
