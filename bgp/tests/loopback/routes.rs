//! Routes come, change and go.

use std::collections::BTreeSet;

use bgp::speaker::{
    Export, ImportFilter, ImportRule, Peer, Refusal, Role, SessionState, Shutdown, Speaker, SpeakerConfig,
};
use bgp::wire::{Message, Update};
use bgp::{Asn, Family, RouterId};

use crate::fake::Fake;
use crate::harness::*;

#[tokio::test]
async fn both_families_are_exchanged_and_withdrawn() {
    let two = Two::start();
    two.a.announce(prefixes(["10.244.1.0/24", "fd10:244:0:1::/64"]));
    two.b.announce(prefixes(["10.244.2.0/24", "fd10:244:0:2::/64"]));
    learns(&two.a, prefixes(["10.244.2.0/24", "fd10:244:0:2::/64"])).await;
    learns(&two.b, prefixes(["10.244.1.0/24", "fd10:244:0:1::/64"])).await;
    let routes = two.b.routes().borrow().clone();
    let next_hop = |prefix: &str| routes.routes[&prefix.parse().unwrap()][0].next_hop;
    assert_eq!(next_hop("10.244.1.0/24"), v4_of(two.at[0]));
    assert_eq!(next_hop("fd10:244:0:1::/64"), v6_of(two.at[0]));
    // Announced later, withdrawn again.
    two.a.announce(prefixes(["10.244.1.0/24", "10.244.7.0/24"]));
    learns(&two.b, prefixes(["10.244.1.0/24", "10.244.7.0/24"])).await;
    two.a.announce(BTreeSet::new());
    learns(&two.b, BTreeSet::new()).await;
    let status = peer_until(&two.a, "b", "nothing announced", |peer| {
        peer.announced.values().sum::<usize>() == 0 && peer.end_of_rib == Family::ALL.into()
    })
    .await;
    assert_eq!(status.accepted.values().sum::<usize>(), 2);
    assert_eq!(status.established_count, 1);
    assert!(status.messages.updates_sent >= 4 && status.messages.updates_received >= 2);
    assert_eq!(status.last_error, None);
}

#[tokio::test]
async fn filters_change_in_place() {
    let two = Two::start().up().await;
    let all = prefixes(["10.244.1.0/24", "10.99.0.0/16", "fd10:244:0:1::/64"]);
    two.a.announce(all.clone());
    learns(&two.b, all.clone()).await;
    // Import: one block of this holder only.
    let rule =
        |next_hops| ImportRule { prefix: "10.244.1.0/24".parse().unwrap(), lengths: (24, 24), next_hops };
    let only = Peer {
        import: ImportFilter { rules: vec![rule(Some([v4_of(two.at[0])].into()))] },
        ..peer(two.at[1], two.at[0], Role::Accept)
    };
    two.b.set_peers(one("a", only.clone()));
    learns(&two.b, prefixes(["10.244.1.0/24"])).await;
    let status =
        peer_until(&two.b, "a", "two refused", |peer| peer.refused == [(Refusal::NotPermitted, 2)].into())
            .await;
    assert_eq!(
        status.refused_prefixes.iter().map(|(prefix, _)| *prefix).collect::<BTreeSet<_>>(),
        prefixes(["10.99.0.0/16", "fd10:244:0:1::/64"])
    );
    // The block is ours: refused, and back when it is not.
    two.b.announce(prefixes(["10.244.1.0/24"]));
    learns(&two.b, BTreeSet::new()).await;
    two.b.announce(BTreeSet::new());
    learns(&two.b, prefixes(["10.244.1.0/24"])).await;
    // Another next hop than the rule's: only the peer's own address.
    let elsewhere = ImportFilter { rules: vec![rule(None)] };
    two.b.set_peers(one("a", Peer { import: elsewhere, ..only }));
    peer_until(&two.b, "a", "wrong next hop", |peer| peer.refused.get(&Refusal::NextHop) == Some(&1)).await;
    // And everything again, without a new announcement.
    two.b.set_peers(one("a", peer(two.at[1], two.at[0], Role::Accept)));
    learns(&two.b, all).await;
    // Export.
    let few = Peer {
        export: Export::Within(vec!["10.0.0.0/8".parse().unwrap()]),
        ..peer(two.at[0], two.at[1], Role::Dial)
    };
    two.a.set_peers(one("b", few));
    learns(&two.b, prefixes(["10.244.1.0/24", "10.99.0.0/16"])).await;
    // All of it in one session.
    let status = peer_until(&two.b, "a", "established", |p| p.state == SessionState::Established).await;
    assert_eq!(status.established_count, 1);
}

#[tokio::test]
async fn too_many_prefixes_end_the_session_until_they_are_fewer() {
    let two = Two::start().up().await;
    two.b.set_peers(one("a", Peer { max_prefixes: 2, ..peer(two.at[1], two.at[0], Role::Accept) }));
    two.a.announce(prefixes(["10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"]));
    let status = peer_until(&two.a, "b", "ended by b", |peer| {
        peer.last_error.as_ref().is_some_and(|error| error.contains("6/9") && error.contains("6/1"))
    })
    .await;
    assert!(!status.restarting, "a hard reset keeps nothing (RFC 8538)");
    learns(&two.b, BTreeSet::new()).await;
    two.a.announce(prefixes(["10.244.1.0/24", "10.244.2.0/24"]));
    learns(&two.b, prefixes(["10.244.1.0/24", "10.244.2.0/24"])).await;
}

#[tokio::test]
async fn an_external_session_over_ipv6_with_four_octet_as() {
    // Both have ::1, so the port tells them apart.
    let listen = |port| vec![(std::net::Ipv6Addr::LOCALHOST, port).into()];
    let free = || {
        let socket = std::net::TcpListener::bind("[::1]:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    let (port_a, port_b) = (free(), free());
    let (at_a, at_b) = (address(), address());
    let config_a = SpeakerConfig { listen: listen(port_a), asn: Asn(64512), ..config(at_a) };
    let config_b = SpeakerConfig { listen: listen(port_b), asn: Asn(4_200_000_000), ..config(at_b) };
    let (a, b) = (Speaker::start(config_a), Speaker::start(config_b));
    let localhost = std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST);
    let outside = |base: Peer, port, asn| Peer {
        address: localhost,
        port,
        local_address: Some(localhost),
        asn: Asn(asn),
        ..base
    };
    a.set_peers(one("b", outside(peer(at_a, at_b, Role::Dial), port_b, 4_200_000_000)));
    b.set_peers(one("a", outside(peer(at_b, at_a, Role::Accept), port_a, 64512)));
    b.announce(prefixes(["10.1.0.0/16", "fd00:1::/48"]));
    learns(&a, prefixes(["10.1.0.0/16", "fd00:1::/48"])).await;
    let routes = a.routes().borrow().clone();
    let path = &routes.routes[&"10.1.0.0/16".parse().unwrap()][0].attributes.as_path;
    assert_eq!(*path, [bgp::wire::AsSegment::Sequence(vec![Asn(4_200_000_000)])]);
}

#[tokio::test]
async fn a_route_refresh_brings_everything_again() {
    let at = [address(), address()];
    let speaker = Speaker::start(config(at[0]));
    speaker.set_peers(one("fake", peer(at[0], at[1], Role::Accept)));
    speaker.announce(prefixes(["10.244.1.0/24", "fd00:1::/64"]));
    let mut fake = Fake::connect(at[1], at[0]).await;
    fake.establish(at[1]).await;
    let mut updates = Vec::new();
    // Two announcements and two End-of-RIB.
    while updates.len() < 4 {
        let Message::Update(update) = fake.message().await else { panic!("no UPDATE") };
        updates.push(update);
    }
    assert!(updates[2].end_of_rib.is_some() && updates[3].end_of_rib.is_some(), "announcements come first");
    fake.send(Message::RouteRefresh(Family::Ipv6)).await;
    let Message::Update(again) = fake.message().await else { panic!("no UPDATE") };
    let told: BTreeSet<_> = again.reach.iter().flat_map(|reach| reach.prefixes.clone()).collect();
    assert_eq!(told, prefixes(["fd00:1::/64"]));
    assert_eq!(
        again,
        Update { attributes: again.attributes.clone(), reach: again.reach.clone(), ..Update::default() }
    );
}

#[tokio::test]
async fn a_peer_that_is_not_wanted_any_more_is_told_so() {
    let two = Two::start().up().await;
    two.a.announce(prefixes(["10.244.1.0/24"]));
    learns(&two.b, prefixes(["10.244.1.0/24"])).await;
    two.a.set_peers([].into());
    let status = peer_until(&two.b, "a", "told", |peer| {
        peer.last_error.as_ref().is_some_and(|error| error.contains("peer de-configured"))
    })
    .await;
    assert!(!status.restarting);
    learns(&two.b, BTreeSet::new()).await;
    assert!(
        two.a.status().borrow().peers.is_empty() || {
            until(two.a.status(), "no peers", |status| status.peers.is_empty()).await;
            true
        }
    );
    // Wanted again.
    two.a.set_peers(one("b", peer(two.at[0], two.at[1], Role::Dial)));
    learns(&two.b, prefixes(["10.244.1.0/24"])).await;
}

#[tokio::test]
async fn changed_session_parameters_restart_the_session_and_keep_its_routes() {
    let two = Two::start().up().await;
    let all = prefixes(["10.244.1.0/24", "fd10:244:0:1::/64"]);
    two.a.announce(all.clone());
    learns(&two.b, all.clone()).await;
    let mut lost = two.b.routes();
    let watch = async {
        // Never gone while the session restarts (RFC 8538).
        while lost.changed().await.is_ok() {
            let routes = learned(&lost.borrow_and_update());
            assert!(routes.contains(&"10.244.1.0/24".parse().unwrap()), "lost: {routes:?}");
        }
    };
    let change = async {
        let only = Peer { families: [Family::Ipv4].into(), ..peer(two.at[0], two.at[1], Role::Dial) };
        two.a.set_peers(one("b", only));
        let status =
            peer_until(&two.b, "a", "again, with one family", |peer| peer.families == [Family::Ipv4].into())
                .await;
        assert_eq!(status.established_count, 2);
        assert!(status.last_error.unwrap().contains("6/6"));
        learns(&two.b, prefixes(["10.244.1.0/24"])).await;
    };
    tokio::select! {
        () = watch => panic!("the speaker ended"),
        () = change => {}
    }
}

#[tokio::test]
async fn a_peers_identifier_that_becomes_known_disturbs_nobody() {
    let at = [address(), address()];
    let (a, b) = (Speaker::start(config(at[0])), Speaker::start(config(at[1])));
    let unknown = Peer { router_id: None, ..peer(at[0], at[1], Role::Dial) };
    a.set_peers(one("b", unknown));
    b.set_peers(one("a", peer(at[1], at[0], Role::Accept)));
    established(&a, "b").await;
    a.set_peers(one("b", peer(at[0], at[1], Role::Dial)));
    // A change that can be seen shows that the first one is done.
    let marked = Peer { max_prefixes: 7, ..peer(at[0], at[1], Role::Dial) };
    a.set_peers(one("b", marked));
    b.announce(prefixes(["10.244.9.0/24"]));
    learns(&a, prefixes(["10.244.9.0/24"])).await;
    assert_eq!(established(&a, "b").await.established_count, 1);
    // One that is wrong ends the session.
    let wrong = Peer { router_id: Some(RouterId([9, 9, 9, 9].into())), ..peer(at[0], at[1], Role::Dial) };
    a.set_peers(one("b", wrong));
    peer_until(&a, "b", "refused", |peer| {
        peer.state != SessionState::Established
            && peer.last_error.as_ref().is_some_and(|error| error.contains("2/3"))
    })
    .await;
    a.shutdown(Shutdown::Silent).await;
    b.shutdown(Shutdown::Silent).await;
}
