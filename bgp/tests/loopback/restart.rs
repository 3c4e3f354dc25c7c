//! Graceful restart, both roles (RFC 4724).

use std::collections::BTreeSet;
use std::time::Duration;

use bgp::Family;
use bgp::speaker::{Role, SessionState, Shutdown, Speaker, SpeakerConfig};
use bgp::wire::{Capability, GracefulRestart, Message};

use crate::fake::{Fake, open};
use crate::harness::*;

#[tokio::test]
async fn a_restart_is_silent_and_sweeps_what_is_not_announced_again() {
    let Two { a, b, at } = Two::start().up().await;
    a.announce(prefixes(["10.244.1.0/24", "10.244.7.0/24", "fd10:244:0:1::/64"]));
    learns(&b, prefixes(["10.244.1.0/24", "10.244.7.0/24", "fd10:244:0:1::/64"])).await;
    let mut seen = b.routes();
    let watch = async {
        while seen.changed().await.is_ok() {
            let routes = learned(&seen.borrow_and_update());
            let kept = prefixes(["10.244.1.0/24", "fd10:244:0:1::/64"]);
            assert!(routes.is_superset(&kept), "lost: {routes:?}");
        }
    };
    let restart = async {
        a.shutdown(Shutdown::Silent).await;
        let status = peer_until(&b, "a", "restarting", |peer| peer.restarting).await;
        assert_ne!(status.state, SessionState::Established);
        until(b.routes(), "all stale", |routes| {
            routes.routes.len() == 3 && routes.routes.values().all(|paths| paths[0].stale)
        })
        .await;
        let a = Speaker::start(SpeakerConfig { restarting: true, ..config(at[0]) });
        a.announce(prefixes(["10.244.1.0/24", "fd10:244:0:1::/64"]));
        a.set_peers(one("b", peer(at[0], at[1], Role::Dial)));
        until(b.routes(), "swept and fresh", |routes| {
            learned(routes) == prefixes(["10.244.1.0/24", "fd10:244:0:1::/64"])
                && routes.routes.values().all(|paths| !paths[0].stale)
        })
        .await;
        peer_until(&b, "a", "no longer restarting", |peer| !peer.restarting).await;
        a
    };
    tokio::select! {
        () = watch => panic!("the speaker ended"),
        _ = restart => {}
    }
}

#[tokio::test]
async fn the_peer_that_accepts_restarts_too() {
    let Two { a, b, at } = Two::start().up().await;
    b.announce(prefixes(["10.244.2.0/24"]));
    learns(&a, prefixes(["10.244.2.0/24"])).await;
    // As a crash does it.
    drop(b);
    peer_until(&a, "b", "restarting", |peer| peer.restarting).await;
    let b = Speaker::start(SpeakerConfig { restarting: true, ..config(at[1]) });
    b.announce(prefixes(["10.244.2.0/24"]));
    b.set_peers(one("a", peer(at[1], at[0], Role::Accept)));
    until(a.routes(), "fresh", |routes| {
        learned(routes) == prefixes(["10.244.2.0/24"]) && routes.routes.values().all(|paths| !paths[0].stale)
    })
    .await;
}

#[tokio::test]
async fn stale_routes_go_when_the_restart_time_is_over() {
    let two = Two::with(|config| config.restart_time = Duration::from_secs(2)).up().await;
    two.a.announce(prefixes(["10.244.1.0/24"]));
    learns(&two.b, prefixes(["10.244.1.0/24"])).await;
    two.a.shutdown(Shutdown::Silent).await;
    peer_until(&two.b, "a", "restarting", |peer| peer.restarting).await;
    learns(&two.b, BTreeSet::new()).await;
    peer_until(&two.b, "a", "given up", |peer| !peer.restarting).await;
}

#[tokio::test]
async fn without_graceful_restart_routes_go_with_the_session() {
    let two = Two::with(|config| config.restart_time = Duration::ZERO).up().await;
    two.a.announce(prefixes(["10.244.1.0/24"]));
    learns(&two.b, prefixes(["10.244.1.0/24"])).await;
    two.a.shutdown(Shutdown::Silent).await;
    learns(&two.b, BTreeSet::new()).await;
    let status = peer_until(&two.b, "a", "down", |peer| peer.state != SessionState::Established).await;
    assert!(!status.restarting);
}

#[tokio::test]
async fn an_administrative_shutdown_keeps_nothing() {
    let two = Two::start().up().await;
    two.a.announce(prefixes(["10.244.1.0/24"]));
    learns(&two.b, prefixes(["10.244.1.0/24"])).await;
    two.a.shutdown(Shutdown::Cease(2)).await;
    learns(&two.b, BTreeSet::new()).await;
    let status = peer_until(&two.b, "a", "told", |peer| peer.last_error.is_some()).await;
    assert!(status.last_error.unwrap().contains("administrative shutdown"));
    assert!(!status.restarting);
}

/// The Graceful Restart capability of the OPEN that a speaker sends next.
async fn capability(speaker: &Speaker, at: [std::net::Ipv4Addr; 2]) -> (GracefulRestart, Fake) {
    established_not(speaker).await;
    let mut fake = Fake::connect(at[1], at[0]).await;
    let Message::Open(theirs) = fake.message().await else { panic!("no OPEN") };
    let restart = theirs.capabilities.into_iter().find_map(|capability| match capability {
        Capability::GracefulRestart(restart) => Some(restart),
        Capability::Multiprotocol(_)
        | Capability::RouteRefresh
        | Capability::FourOctetAs(_)
        | Capability::Unknown { .. } => None,
    });
    (restart.expect("the capability"), fake)
}

async fn established_not(speaker: &Speaker) {
    peer_until(speaker, "fake", "waiting", |peer| peer.state == SessionState::Active).await;
}

#[tokio::test]
async fn the_restart_bits_are_set_until_all_have_delivered() {
    let at = [address(), address()];
    let speaker = Speaker::start(SpeakerConfig { restarting: true, ..config(at[0]) });
    speaker.set_peers(one("fake", peer(at[0], at[1], Role::Accept)));
    let (restart, mut fake) = capability(&speaker, at).await;
    assert!(restart.restarting && restart.notification);
    assert_eq!(restart.families, [(Family::Ipv4, true), (Family::Ipv6, true)]);
    fake.send(Message::Open(open(at[1]))).await;
    fake.send(Message::Keepalive).await;
    for family in Family::ALL {
        let update = bgp::wire::Update { end_of_rib: Some(family), ..Default::default() };
        fake.send(Message::Update(update)).await;
    }
    peer_until(&speaker, "fake", "delivered", |peer| peer.end_of_rib.len() == 2).await;
    drop(fake);
    // Its next session is no restart, but our forwarding state is what it was.
    let (restart, _) = capability(&speaker, at).await;
    assert!(!restart.restarting);
    assert_eq!(restart.families, [(Family::Ipv4, true), (Family::Ipv6, true)]);
}

#[tokio::test]
async fn a_first_start_has_no_forwarding_state() {
    let at = [address(), address()];
    let speaker = Speaker::start(config(at[0]));
    speaker.set_peers(one("fake", peer(at[0], at[1], Role::Accept)));
    let (restart, _) = capability(&speaker, at).await;
    assert!(!restart.restarting);
    assert_eq!(restart.families, [(Family::Ipv4, false), (Family::Ipv6, false)]);
}
