//! Random histories: nothing panics, Idle is silent, and when the network heals the sessions come up.

use proptest::prelude::*;

use super::simulation::Simulation;
use super::*;
use crate::wire::Update;

#[derive(Debug, Clone)]
enum Weather {
    Run(u32),
    Latency(u16),
    Blackhole(bool),
    Reset,
    Crash { end: usize, fin: bool, away: u32, restarting: bool },
    Garbage(usize),
    Bounce(usize, Stop),
    Prefixes(usize),
}

fn weather() -> impl Strategy<Value = Weather> {
    prop_oneof![
        4 => (1..30_000u32).prop_map(Weather::Run),
        1 => (0..400u16).prop_map(Weather::Latency),
        2 => any::<bool>().prop_map(Weather::Blackhole),
        1 => Just(Weather::Reset),
        2 => (0..2usize, any::<bool>(), 0..20_000u32, any::<bool>())
            .prop_map(|(end, fin, away, restarting)| Weather::Crash { end, fin, away, restarting }),
        1 => (0..2usize).prop_map(Weather::Garbage),
        1 => (0..2usize, prop_oneof![Just(Stop::Silent), (1..9u8).prop_map(Stop::Cease)])
            .prop_map(|(end, stop)| Weather::Bounce(end, stop)),
        1 => (0..2usize).prop_map(Weather::Prefixes),
    ]
}

fn roles() -> impl Strategy<Value = [Role; 2]> {
    prop_oneof![
        Just([Role::Dial, Role::Accept]),
        Just([Role::Accept, Role::Dial]),
        Just([Role::Dial, Role::Dial])
    ]
}

fn inputs() -> impl Strategy<Value = Input> {
    let conn = || (0..4u64).prop_map(Conn);
    let error = DecodeError { notification: notification(3, 1), reason: "x" };
    let message = prop_oneof![
        3 => Just(Ok(Message::Open(peer_open()))),
        1 => Just(Ok(Message::Open(Open { asn: Asn(1), ..peer_open() }))),
        3 => Just(Ok(Message::Keepalive)),
        1 => Just(Ok(Message::Update(Update { end_of_rib: Some(Family::Ipv6), ..Update::default() }))),
        1 => Just(Ok(Message::RouteRefresh(Family::Ipv4))),
        1 => (0..10u8, 0..12u8).prop_map(|(c, s)| Ok(Message::Notification(notification(c, s)))),
        1 => Just(Err(error)),
    ];
    prop_oneof![
        2 => Just(Input::Start),
        1 => Just(Input::Stop(Stop::Silent)),
        1 => Just(Input::Stop(Stop::Cease(2))),
        1 => Just(Input::Reset(cease(1))),
        1 => Just(Input::Reconfigure(config(Role::Accept))),
        3 => conn().prop_map(Input::Connected),
        1 => Just(Input::ConnectFailed),
        3 => conn().prop_map(Input::Incoming),
        1 => conn().prop_map(Input::Closed),
        1 => conn().prop_map(Input::Sent),
        8 => (conn(), message).prop_map(|(conn, message)| Input::Received(conn, message)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn sessions_come_up_when_the_network_heals(
        roles in roles(),
        seed in any::<u64>(),
        history in proptest::collection::vec(weather(), 0..25),
    ) {
        let mut net = Simulation::new(roles, seed).started();
        let configs = [config(roles[0]), mirrored(roles[1])];
        for event in history {
            match event {
                Weather::Run(millis) => net.run(Duration::from_millis(millis.into())),
                Weather::Latency(millis) => net.latency = Duration::from_millis(millis.into()),
                Weather::Blackhole(on) => net.blackhole = on,
                Weather::Reset => net.reset(),
                Weather::Crash { end, fin, away, restarting } => {
                    net.crash(end, fin);
                    net.run(Duration::from_millis(away.into()));
                    net.boot(end, configs[end].clone(), restarting, seed ^ u64::from(away));
                }
                Weather::Garbage(end) => net.garbage(end),
                Weather::Bounce(end, how) => {
                    net.input(end, Input::Stop(how));
                    net.run(Duration::from_millis(100));
                    net.input(end, Input::Start);
                }
                Weather::Prefixes(end) => net.input(end, Input::Reset(cease(1))),
            }
        }
        net.blackhole = false;
        net.latency = Duration::from_millis(10);
        // The longest wait: an OPEN that never comes on a connection that died, and a few rounds of back-off.
        net.converge(OPEN_HOLD_TIME + RETRY_MAX * 4);
        net.run(Duration::from_secs(600));
        prop_assert!(net.converged(), "did not stay up");
        prop_assert!(net.ends.iter().all(|end| end.session.stale().is_empty()), "stale for ever");
    }

    #[test]
    fn any_history_of_one_session_is_survived(
        role in prop_oneof![Just(Role::Dial), Just(Role::Accept)],
        history in proptest::collection::vec((inputs(), 0..15_000u32), 0..80),
    ) {
        let mut now = start();
        let mut session = Session::new(config(role), 5);
        let mut up = false;
        let mut used = BTreeSet::new();
        for (input, millis) in history {
            // A driver never gives a name twice.
            if let Input::Connected(conn) | Input::Incoming(conn) = &input
                && !used.insert(*conn)
            {
                continue;
            }
            let before = session.state();
            session.handle(input, now);
            let mut outputs = drain(&mut session);
            let quiet = before == SessionState::Idle && session.state() == SessionState::Idle;
            if quiet {
                prop_assert!(!outputs.iter().any(|o| matches!(o, Output::Send(..) | Output::Connect)));
            }
            now += Duration::from_millis(millis.into());
            session.handle_timeout(now);
            outputs.extend(drain(&mut session));
            for output in &outputs {
                match output {
                    Output::Up(..) => prop_assert!(!std::mem::replace(&mut up, true), "up twice"),
                    Output::Down { .. } => prop_assert!(std::mem::replace(&mut up, false), "down without up"),
                    Output::Update(_) | Output::Refresh(_) => prop_assert!(up),
                    Output::Connect
                    | Output::CancelConnect
                    | Output::Send(..)
                    | Output::Close(_)
                    | Output::Sweep(_)
                    | Output::Failed(_) => {}
                }
            }
            prop_assert_eq!(up, session.state() == SessionState::Established);
            prop_assert_eq!(up, session.negotiated().is_some());
            // At most one NOTIFICATION per connection, and nothing after it but the close.
            for conn in (0..4).map(Conn) {
                let of_conn: Vec<_> = outputs
                    .iter()
                    .filter(|o| matches!(o, Output::Send(c, _) | Output::Close(c) if *c == conn))
                    .collect();
                if let Some(at) =
                    of_conn.iter().position(|o| matches!(o, Output::Send(_, Message::Notification(_))))
                {
                    prop_assert_eq!(&of_conn[at + 1..], &[&Output::Close(conn)]);
                }
            }
        }
    }
}
