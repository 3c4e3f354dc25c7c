//! Stories of two sessions on a simulated network.

use super::simulation::Simulation;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const DIAL: [Role; 2] = [Role::Dial, Role::Accept];
const BOTH: [Role; 2] = [Role::Dial, Role::Dial];

fn both_families() -> BTreeSet<Family> {
    Family::ALL.into()
}

fn up(roles: [Role; 2]) -> Simulation {
    let mut net = Simulation::new(roles, 1).started();
    net.converge(SECOND * 10);
    net
}

#[test]
fn comes_up_in_two_round_trips_and_stays() {
    let mut net = Simulation::new(DIAL, 3).started();
    net.converge(net.latency * 5);
    net.run(SECOND * 3600);
    assert!(net.converged());
    assert!(net.ends.iter().all(|end| end.downs.is_empty() && end.ups.len() == 1));
}

#[test]
fn keepalives_come_every_third_of_the_hold_time_with_jitter() {
    let mut net = up(DIAL);
    net.run(SECOND * 900);
    let times: Vec<_> = net.ends[0]
        .sent
        .iter()
        .filter(|(_, message)| *message == Message::Keepalive)
        .map(|(at, _)| *at)
        .skip(1)
        .collect();
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() > 280, "{}", gaps.len());
    assert!(gaps.iter().all(|gap| (SECOND * 9 / 4..=SECOND * 3).contains(gap)));
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]), "no jitter");
}

#[test]
fn simultaneous_connects_leave_one_connection_whatever_the_latency() {
    // RFC 4271 §6.8.
    for millis in [0, 1, 5, 50, 300] {
        for seed in 0..20 {
            let mut net = Simulation::new(BOTH, seed);
            net.latency = Duration::from_millis(millis);
            let mut net = net.started();
            net.converge(SECOND * 60);
            net.run(SECOND * 60);
            assert!(net.converged(), "latency {millis} ms, seed {seed}");
        }
    }
}

#[test]
fn a_collision_does_not_bounce_the_session() {
    let mut net = up(BOTH);
    net.run(SECOND * 60);
    // The end with the higher identifier dialled the connection that stays; neither saw a session end.
    assert!(net.ends.iter().all(|end| end.downs.is_empty()));
}

#[test]
fn equal_identifiers_in_two_as_collide_well() {
    // RFC 6286 §2.3.
    let [mut a, mut b] = [config(Role::Dial), mirrored(Role::Dial)];
    (a.router_id, b.router_id) = (router_id(5), router_id(5));
    let mut net = Simulation::with([a, b], 1).started();
    net.converge(SECOND * 10);
    net.run(SECOND * 60);
    assert!(net.converged());
}

#[test]
fn a_silent_peer_is_lost_when_the_hold_time_is_over() {
    let mut net = up(DIAL);
    let before = net.elapsed();
    net.blackhole = true;
    net.run(SECOND * 10);
    for end in &net.ends {
        let (at, reason, stale) = &end.downs[0];
        assert_eq!(*reason, Reason::HoldTimerExpired);
        assert!(*at - before <= SECOND * 9);
        // Although both sides have the N bit: silence for so long is a lost path, not a restart.
        assert_eq!(*stale, BTreeSet::new());
    }
    net.run(SECOND * 30);
    net.blackhole = false;
    net.converge(SECOND * 10);
}

#[test]
fn without_the_n_bit_hold_expiry_keeps_nothing() {
    // An RFC 4724 speaker without RFC 8538: the other side's OPEN has the N bit taken away.
    let now = start();
    let mut session = Session::new(config(Role::Dial), 1);
    let mut open = peer_open();
    for capability in &mut open.capabilities {
        if let Capability::GracefulRestart(restart) = capability {
            restart.notification = false;
        }
    }
    let establish = |session: &mut Session, conn: Conn| {
        session.handle(Input::Incoming(conn), now);
        session.handle(Input::Received(conn, Ok(Message::Open(open.clone()))), now);
        session.handle(Input::Received(conn, Ok(Message::Keepalive)), now);
        assert_eq!(session.state(), SessionState::Established);
        drain(session);
    };
    let stale = |session: &mut Session| {
        drain(session)
            .into_iter()
            .find_map(|output| if let Output::Down { stale, .. } = output { Some(stale) } else { None })
    };
    session.handle(Input::Start, now);
    establish(&mut session, Conn(1));
    session.handle_timeout(now + SECOND * 9);
    assert_eq!(stale(&mut session), Some(BTreeSet::new()));
    // A NOTIFICATION keeps nothing either, a lost connection does.
    establish(&mut session, Conn(2));
    session.handle(Input::Received(Conn(2), Ok(Message::Notification(cease(4)))), now);
    assert_eq!(stale(&mut session), Some(BTreeSet::new()));
    establish(&mut session, Conn(3));
    session.handle(Input::Closed(Conn(3)), now);
    assert_eq!(stale(&mut session), Some(both_families()));
}

#[test]
fn a_reset_connection_comes_back_in_a_second_with_routes_kept() {
    let mut net = up(DIAL);
    net.run(SECOND * 100);
    net.reset();
    net.run(Duration::from_millis(50));
    assert!(!net.converged());
    net.converge(SECOND * 2);
    net.run(SECOND);
    for end in &net.ends {
        assert_eq!(end.downs.len(), 1);
        assert_eq!((&end.downs[0].1, &end.downs[0].2), (&Reason::ConnectionLost, &both_families()));
        // F bits are set, so nothing was swept before End-of-RIB: one sweep per family.
        assert_eq!(
            end.ups[1].restart.as_ref().unwrap().families,
            [(Family::Ipv4, true), (Family::Ipv6, true)].into()
        );
        let swept: Vec<_> = end.sweeps.iter().map(|(_, families)| families.clone()).collect();
        assert_eq!(swept, [BTreeSet::from([Family::Ipv4]), BTreeSet::from([Family::Ipv6])]);
        assert!(end.session.stale().is_empty());
    }
}

#[test]
fn a_restarted_peer_with_its_forwarding_state_is_helped() {
    for fin in [true, false] {
        for end in [0, 1] {
            let mut net = up(DIAL);
            net.run(SECOND * 100);
            net.crash(end, fin);
            net.run(SECOND);
            let config = if end == 0 { config(Role::Dial) } else { mirrored(Role::Accept) };
            net.boot(end, config, true, 9);
            net.converge(SECOND * 10);
            net.run(SECOND);
            let helper = &net.ends[1 - end];
            assert!(helper.ups[1].restart.as_ref().unwrap().restarting, "R bit");
            let (_, reason, stale) = &helper.downs[0];
            assert_eq!(*stale, both_families(), "{reason:?} fin {fin} end {end}");
            assert_eq!(helper.sweeps.len(), 2, "one sweep per family at its End-of-RIB");
            assert!(helper.session.stale().is_empty());
        }
    }
}

#[test]
fn a_new_connection_of_a_restarted_peer_replaces_the_dead_one() {
    // RFC 4724 §4.2: the peer lost power and is back before the hold time is over.
    let mut net = up(DIAL);
    net.run(SECOND * 100);
    net.settle();
    net.crash(0, false);
    net.boot(0, config(Role::Dial), true, 9);
    net.converge(SECOND);
    assert_eq!(net.ends[1].downs[0].1, Reason::Replaced);
    assert_eq!(net.ends[1].downs[0].2, both_families());
}

#[test]
fn without_graceful_restart_a_new_connection_waits_for_the_old_one_to_die() {
    let off = |config: SessionConfig| SessionConfig { restart_time: Duration::ZERO, ..config };
    let mut net = Simulation::with([off(config(Role::Dial)), off(mirrored(Role::Accept))], 1).started();
    net.converge(SECOND);
    net.run(SECOND * 100);
    net.settle();
    net.crash(0, false);
    net.boot(0, off(config(Role::Dial)), false, 9);
    net.run(Duration::from_millis(100));
    // Refused with Cease/7, the established one stays (RFC 4271 §6.8).
    assert!(net.ends[1].downs.is_empty());
    assert!(net.ends[1].sent.iter().any(|(_, m)| *m == Message::Notification(cease(7))));
    net.converge(SECOND * 15);
    assert_eq!(net.ends[1].downs[0].2, BTreeSet::new());
}

#[test]
fn a_peer_that_lost_its_forwarding_state_is_swept_at_once() {
    let mut net = up(DIAL);
    net.run(SECOND * 100);
    net.crash(0, true);
    net.run(SECOND);
    net.ends[0].end_of_rib = false;
    net.boot(0, config(Role::Dial), false, 9);
    net.converge(SECOND * 5);
    assert_eq!(net.ends[1].sweeps.len(), 1);
    assert_eq!(net.ends[1].sweeps[0].1, both_families());
}

#[test]
fn stale_routes_go_when_the_restart_time_is_over() {
    let mut net = up(DIAL);
    net.run(SECOND * 100);
    net.crash(0, true);
    net.run(SECOND * 119);
    assert_eq!(net.ends[1].session.stale(), &both_families());
    assert!(net.ends[1].sweeps.is_empty());
    net.run(SECOND * 2);
    assert_eq!(net.ends[1].sweeps.len(), 1);
    assert!(net.ends[1].session.stale().is_empty());
}

#[test]
fn stale_routes_go_when_end_of_rib_never_comes() {
    let mut net = up(DIAL);
    net.run(SECOND * 100);
    net.crash(0, true);
    net.ends[0].end_of_rib = false;
    net.boot(0, config(Role::Dial), true, 9);
    net.converge(SECOND * 5);
    net.run(SECOND * 118);
    assert!(net.ends[1].sweeps.is_empty());
    net.run(SECOND * 4);
    assert_eq!(net.ends[1].sweeps[0].1, both_families());
    assert!(net.converged());
}

#[test]
fn an_operators_stop_keeps_nothing() {
    for (subcode, on_the_wire) in [(2, 9), (3, 9)] {
        let mut net = up(DIAL);
        net.run(SECOND * 100);
        net.input(0, Input::Stop(Stop::Cease(subcode)));
        net.run(SECOND);
        // RFC 8538 §3.1: within a Hard Reset, as the peer would keep our routes otherwise.
        let (_, last) = net.ends[0].sent.last().unwrap();
        let expected = Notification {
            code: 6,
            subcode: on_the_wire,
            data: bytes::Bytes::copy_from_slice(&[6, subcode]),
        };
        assert_eq!(*last, Message::Notification(expected));
        assert!(net.ends.iter().all(|end| end.downs[0].2.is_empty() && end.session.stale().is_empty()));
        assert_eq!(net.ends[0].session.state(), SessionState::Idle);
        let messages = net.ends[0].sent.len();
        net.run(SECOND * 3600);
        assert_eq!(net.ends[0].session.state(), SessionState::Idle);
        assert_eq!(net.ends[0].sent.len(), messages, "Idle is silent");
    }
}

#[test]
fn without_rfc_8538_a_cease_is_a_plain_one() {
    let off = |config: SessionConfig| SessionConfig { restart_time: Duration::ZERO, ..config };
    let mut net = Simulation::with([off(config(Role::Dial)), off(mirrored(Role::Accept))], 1).started();
    net.converge(SECOND);
    net.input(0, Input::Stop(Stop::Cease(2)));
    let (_, last) = net.ends[0].sent.last().unwrap();
    assert_eq!(*last, Message::Notification(cease(2)));
}

#[test]
fn a_silent_stop_keeps_our_routes_at_the_peer() {
    let mut net = up(DIAL);
    net.run(SECOND * 100);
    let messages = net.ends[0].sent.iter().filter(|(_, m)| matches!(m, Message::Notification(_))).count();
    net.input(0, Input::Stop(Stop::Silent));
    net.run(SECOND);
    assert_eq!(messages, 0);
    assert!(!net.ends[0].sent.iter().any(|(_, m)| matches!(m, Message::Notification(_))));
    assert_eq!(
        (&net.ends[1].downs[0].1, &net.ends[1].downs[0].2),
        (&Reason::ConnectionLost, &both_families())
    );
}

#[test]
fn changed_parameters_restart_the_session_without_losing_routes() {
    let mut net = up(DIAL);
    net.run(SECOND * 100);
    let changed = SessionConfig { hold_time: SECOND * 30, ..config(Role::Dial) };
    net.input(0, Input::Reconfigure(changed));
    net.converge(SECOND * 5);
    net.run(SECOND);
    assert!(net.ends[0].sent.iter().any(|(_, m)| *m == Message::Notification(cease(6))));
    for end in &net.ends {
        assert_eq!(end.downs[0].2, both_families());
        assert_eq!(end.sweeps.len(), 2, "at End-of-RIB, family by family");
    }
}

#[test]
fn garbage_ends_the_session_with_its_notification_and_it_comes_back() {
    let mut net = up(DIAL);
    net.run(SECOND * 100);
    net.garbage(1);
    net.run(Duration::from_millis(100));
    let (_, last) = net.ends[1].sent.last().unwrap();
    assert_eq!(*last, Message::Notification(notification(1, 1)));
    // Damped: it refuses connections for a while (RFC 4271 §8.1, DampPeerOscillations).
    assert_eq!(net.ends[1].session.state(), SessionState::Idle);
    net.converge(SECOND * 10);
}

#[test]
fn a_peer_with_a_wrong_as_is_tried_ever_more_rarely() {
    let wrong = SessionConfig { asn: Asn(1), ..mirrored(Role::Accept) };
    let mut net = Simulation::with([config(Role::Dial), wrong], 1).started();
    net.run(SECOND * 3600);
    let errors = |end: usize| {
        let sent = &net.ends[end].sent;
        sent.iter().filter(|(_, m)| *m == Message::Notification(notification(2, 2))).count()
    };
    let tries = errors(0);
    assert!((60..200).contains(&tries), "{tries} in an hour");
    assert!(net.ends.iter().all(|end| end.ups.is_empty()));
}

#[test]
fn too_many_prefixes_are_a_reason_to_wait() {
    let mut net = up(DIAL);
    net.run(SECOND * 100);
    let at = net.now;
    net.input(1, Input::Reset(cease(1)));
    assert_eq!(net.ends[1].session.state(), SessionState::Idle);
    assert_eq!(net.ends[1].downs[0].2, BTreeSet::new(), "nothing is kept");
    net.converge(SECOND * 10);
    assert!(net.now - at >= Duration::from_millis(750));
}
