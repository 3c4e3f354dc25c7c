//! What a pair's session has shown decides, and for how long it may take.

use super::*;

#[test]
fn what_the_session_shows_decides() {
    let own = "n1 192.0.2.1/24 10.244.1.0/24";
    let peer = "n2 192.0.2.2/24 10.244.2.0/24 10.244.3.0/24";
    let scene = || {
        let mut scene = Scene::new(own, &[peer]);
        scene.established("n2", &["10.244.2.0/24", "10.244.3.0/24"]);
        assert_eq!(scene.step().pairs[0].decision.reason, Reason::Bgp);
        scene
    };
    let check = |change: &dyn Fn(&mut Scene), want: Reason| {
        let mut scene = scene();
        change(&mut scene);
        let plan = scene.step();
        assert_eq!(plan.pairs[0].decision.reason, want);
        assert_eq!(
            plan.dataplane.routes.len(),
            4,
            "a lost session costs no route: {:?}",
            plan.dataplane.routes
        );
    };
    check(&|scene| scene.session("n2").state = SessionState::Active, Reason::BgpDown);
    check(
        &|scene| {
            scene.session("n2").state = SessionState::Active;
            scene.session("n2").restarting = true;
        },
        Reason::BgpRestarting,
    );
    check(
        &|scene| {
            scene.session("n2").restarting = true;
            scene.learned.routes.clear();
        },
        Reason::BgpDown,
    );
    check(&|scene| scene.learned.routes.clear(), Reason::BgpNoRoute);
    // One of two blocks withdrawn: the peer does not want packets for it.
    check(&|scene| drop(scene.learned.routes.remove(&"10.244.3.0/24".parse().unwrap())), Reason::BgpNoRoute);
    check(&|scene| scene.session("n2").families.clear(), Reason::BgpNoRoute);
    check(&|scene| scene.sessions.peers.clear(), Reason::BgpWaiting);
}

#[test]
fn a_pair_stays_native_while_its_only_block_is_exchanged() {
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &["n2 192.0.2.2/24 10.244.2.0/24"]);
    scene.established("n2", &["10.244.2.0/24"]);
    scene.step();
    // The store is first, with the claim and with its end.
    scene.snapshot.claims.remove(&Block::new("10.244.2.0/24".parse().unwrap()));
    scene.claim("10.244.9.0/24".parse().unwrap(), &name("n2"));
    for _ in 0..2 {
        assert_eq!(scene.step().pairs[0].decision.reason, Reason::Bgp);
    }
    // Then BGP, here with the end of the old one.
    scene.learned.routes.clear();
    assert_eq!(scene.step().pairs[0].decision.reason, Reason::Bgp);
    scene.now = scene.memory[&(name("n2"), Family::Ipv4)].wake().unwrap();
    assert_eq!(scene.plan().pairs[0].decision.reason, Reason::BgpNoRoute, "but not for ever");
    scene.learn("n2", "10.244.9.0/24", "192.0.2.2");
    assert_eq!(scene.step().pairs[0].decision.reason, Reason::Bgp);
}

#[test]
fn a_block_claimed_a_moment_ago_rides_along() {
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &["n2 192.0.2.2/24 10.244.2.0/24"]);
    scene.established("n2", &["10.244.2.0/24"]);
    scene.step();
    scene.claim("10.244.9.0/24".parse().unwrap(), &name("n2"));
    assert_eq!(scene.step().pairs[0].decision.reason, Reason::Bgp);
    let wake = scene.memory[&(name("n2"), Family::Ipv4)].wake().unwrap();
    scene.now = wake - Duration::from_millis(1);
    assert_eq!(scene.step().pairs[0].decision.reason, Reason::Bgp);
    // But not for ever: what is never announced must not be sent there.
    scene.now = wake;
    let late = scene.plan();
    assert_eq!(late.pairs[0].decision.reason, Reason::BgpNoRoute);
    assert_eq!(late.memory[&(name("n2"), Family::Ipv4)].wake(), None);
    // Delivered in time, the next one has its own time.
    scene.learn("n2", "10.244.9.0/24", "192.0.2.2");
    scene.step();
    scene.claim("10.244.10.0/24".parse().unwrap(), &name("n2"));
    assert_eq!(scene.step().pairs[0].decision.reason, Reason::Bgp);
    // And a pair that is not native yet waits for all of them.
    scene.memory.clear();
    assert_eq!(scene.plan().pairs[0].decision.reason, Reason::BgpNoRoute);
}

#[test]
fn after_a_restart_native_pairs_stand_until_the_session_speaks() {
    let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &["n2 192.0.2.2/24 10.244.2.0/24"]);
    scene.established("n2", &["10.244.2.0/24"]);
    let before = scene.step();
    // A new process: nothing is remembered, the kernel holds what it held.
    scene.memory.clear();
    scene.learned.routes.clear();
    scene.sessions.peers.clear();
    scene.holding = true;
    let after = scene.step();
    assert_eq!(after.pairs[0].decision.reason, Reason::BgpHeld);
    assert_eq!(after.dataplane, before.dataplane);
    scene.established("n2", &[]);
    scene.session("n2").end_of_rib.clear();
    assert_eq!(scene.step().pairs[0].decision.reason, Reason::BgpHeld, "its routes may still come");
    scene.session("n2").end_of_rib = [Family::Ipv4].into();
    assert_eq!(scene.plan().pairs[0].decision.reason, Reason::BgpNoRoute);
    scene.session("n2").end_of_rib.clear();
    scene.holding = false;
    assert_eq!(scene.plan().pairs[0].decision.reason, Reason::BgpWaiting, "the time is over");
    // A pair that was in the tunnel before the restart is not made native by it.
    scene.holding = true;
    scene.memory.clear();
    scene.observed.ours = State::default();
    assert_eq!(scene.plan().pairs[0].decision.reason, Reason::BgpWaiting);
}

#[test]
fn a_native_pair_stays_native_while_an_end_moves() {
    for own in [false, true] {
        let mut scene = Scene::new("n1 192.0.2.1/24 10.244.1.0/24", &["n2 192.0.2.2/24 10.244.2.0/24"]);
        scene.established("n2", &["10.244.2.0/24"]);
        scene.step();
        if own {
            let moved = LocalAddress {
                address: "192.0.2.77/24".parse().unwrap(),
                ..scene.local.ipv4.clone().unwrap()
            };
            scene.local.ipv4 = Some(moved);
        } else {
            scene.add("n2 192.0.2.88/24 10.244.2.0/24");
        }
        // The session that was is shown for a moment more, then it is gone.
        assert_eq!(scene.step().pairs[0].decision.reason, Reason::Bgp);
        scene.learned.routes.clear();
        scene.sessions.peers.clear();
        let plan = scene.step();
        assert_eq!(plan.pairs[0].decision.reason, Reason::BgpHeld);
        let gateways: Vec<_> =
            plan.dataplane.nexthops.values().map(|n| n.gateway.address.to_string()).collect();
        assert_eq!(gateways, [if own { "192.0.2.2" } else { "192.0.2.88" }]);
        let until = scene.memory[&(name("n2"), Family::Ipv4)].wake().unwrap();
        let mut late = scene.plan();
        assert_eq!(late.pairs[0].decision.reason, Reason::BgpHeld);
        scene.now = until;
        late = scene.plan();
        assert_eq!(late.pairs[0].decision.reason, Reason::BgpWaiting, "no session comes up there");
        // Into another subnet it goes at once.
        scene.add("n2 198.51.100.2/24 10.244.2.0/24");
        assert_eq!(scene.plan().pairs[0].decision.reason, Reason::CrossSubnet);
    }
}
