//! A session with BIRD, in two network namespaces joined by a veth pair.
//!
//! Needs root, iproute2 and BIRD 2 (`apt-get install bird2 iproute2`); without them the tests fail and say so.

#![expect(clippy::unwrap_used, reason = "what fails here is the test")]

mod bird;
mod namespaces;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bgp::speaker::{
    Export, ImportFilter, ImportRule, Peer, PeerStatus, Role, Routes, SessionState, Shutdown, Speaker,
    SpeakerConfig,
};
use bgp::{Asn, Family, RouterId};
use bird::Bird;
use ipnet::IpNet;
use namespaces::Namespaces;

const PATIENCE: Duration = Duration::from_secs(40);
/// The speaker's end.
const OURS: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];
/// BIRD's end.
const THEIRS: [&str; 2] = ["198.51.100.2", "2001:db8:1::2"];
/// What BIRD announces.
const BIRDS: [&str; 2] = ["10.66.1.0/24", "fd66:1::/64"];
/// What we announce.
const BLOCKS: [&str; 4] = ["10.244.1.0/24", "10.244.7.0/24", "fd10:244:0:1::/64", "fd10:244:0:7::/64"];

fn prefixes(prefixes: &[&str]) -> BTreeSet<IpNet> {
    prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect()
}

/// The two ends of a test, and how they see each other.
struct Pair {
    bird: Bird,
    asn: Asn,
    role: Role,
}

impl Pair {
    fn speaker(&self, restarting: bool) -> Speaker {
        let speaker = Speaker::start(SpeakerConfig {
            asn: Asn(64512),
            router_id: RouterId([198, 51, 100, 1].into()),
            listen: vec![(OURS[0].parse::<std::net::IpAddr>().unwrap(), 179).into()],
            hold_time: Duration::from_secs(9),
            restart_time: Duration::from_secs(60),
            restarting,
        });
        speaker.announce(prefixes(&BLOCKS));
        speaker.set_peers(BTreeMap::from([("bird".to_owned(), self.peer())]));
        speaker
    }

    fn peer(&self) -> Peer {
        let rule = |prefix: &str, longest, next_hop: &str| ImportRule {
            prefix: prefix.parse().unwrap(),
            lengths: (0, longest),
            next_hops: Some([next_hop.parse().unwrap()].into()),
        };
        Peer {
            address: THEIRS[0].parse().unwrap(),
            port: 179,
            local_address: Some(OURS[0].parse().unwrap()),
            asn: self.asn,
            router_id: Some(RouterId([198, 51, 100, 2].into())),
            role: self.role,
            families: Family::ALL.into(),
            next_hops: [(Family::Ipv4, OURS[0].parse().unwrap()), (Family::Ipv6, OURS[1].parse().unwrap())]
                .into(),
            import: ImportFilter {
                rules: vec![rule("10.66.0.0/16", 24, THEIRS[0]), rule("fd66::/16", 64, THEIRS[1])],
            },
            export: Export::All,
            graceful_shutdown: false,
            max_prefixes: 100,
        }
    }
}

/// Runs a test on its own thread, in namespaces of its own.
fn with_bird<T: Future<Output = ()>>(asn: Asn, role: Role, test: impl FnOnce(Pair) -> T + Send + 'static) {
    let thread = std::thread::spawn(move || {
        let namespaces = Namespaces::new(OURS, THEIRS);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bird = Bird::start(namespaces, asn, role == Role::Accept, &BIRDS);
        runtime.block_on(test(Pair { bird, asn, role }));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

async fn learns(speaker: &Speaker, wanted: BTreeSet<IpNet>) -> Routes {
    let mut routes = speaker.routes();
    let of = |routes: &Routes| routes.routes.keys().copied().collect::<BTreeSet<_>>();
    let wait =
        async { routes.wait_for(|routes| of(routes) == wanted).await.map(|routes| (**routes).clone()) };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(routes) => routes.expect("the speaker runs"),
        Err(_) => panic!("{wanted:?} were not learned: {:#?}", *speaker.status().borrow()),
    }
}

async fn status_until(speaker: &Speaker, what: &str, wanted: impl Fn(&PeerStatus) -> bool) -> PeerStatus {
    let mut status = speaker.status();
    let found = async {
        let status = status.wait_for(|status| status.peers.get("bird").is_some_and(&wanted)).await;
        status.map(|status| status.peers["bird"].clone())
    };
    match tokio::time::timeout(PATIENCE, found).await {
        Ok(status) => status.expect("the speaker runs"),
        Err(_) => panic!("{what} did not happen: {:#?}", *speaker.status().borrow()),
    }
}

/// Both ends have everything of each other; then changes in both directions.
async fn exchange(mut pair: Pair) {
    let speaker = pair.speaker(false);
    let routes = learns(&speaker, prefixes(&BIRDS)).await;
    for (prefix, next_hop) in BIRDS.iter().zip(THEIRS) {
        let path = &routes.routes[&prefix.parse().unwrap()][0];
        assert_eq!(path.next_hop, next_hop.parse::<std::net::IpAddr>().unwrap());
        assert_eq!(path.attributes.as_path.is_empty(), pair.asn == Asn(64512));
    }
    pair.bird.knows(&prefixes(&BLOCKS)).await;
    let details = pair.bird.control("show route 10.244.1.0/24 all");
    assert!(details.contains(OURS[0]), "next hop: {details}");
    let status = status_until(&speaker, "End-of-RIB", |peer| peer.end_of_rib == Family::ALL.into()).await;
    assert_eq!(status.state, SessionState::Established);
    assert_eq!(status.families, Family::ALL.into());
    assert_eq!(status.hold_time, Duration::from_secs(9));

    // We withdraw, then announce something new.
    speaker.announce(prefixes(&BLOCKS[..1]));
    pair.bird.knows(&prefixes(&BLOCKS[..1])).await;
    speaker.announce(prefixes(&["10.244.9.0/24", "fd10:244:0:9::/64"]));
    pair.bird.knows(&prefixes(&["10.244.9.0/24", "fd10:244:0:9::/64"])).await;
    // BIRD withdraws one family's, and announces what the filter refuses.
    pair.bird.announce(&["10.66.1.0/24", "10.66.2.0/24", "172.16.0.0/12"]);
    learns(&speaker, prefixes(&["10.66.1.0/24", "10.66.2.0/24"])).await;
    let status = status_until(&speaker, "a refusal", |peer| peer.refused.values().sum::<usize>() == 1).await;
    assert_eq!(status.refused_prefixes[0].0, "172.16.0.0/12".parse().unwrap());
    // It asks for everything again (RFC 2918), and nothing changes.
    let before = speaker.status().borrow().peers["bird"].messages.updates_sent;
    pair.bird.control("reload in pairway");
    status_until(&speaker, "a refresh", |peer| peer.messages.updates_sent >= before + 2).await;
    pair.bird.knows(&prefixes(&["10.244.9.0/24", "fd10:244:0:9::/64"])).await;
    assert_eq!(speaker.status().borrow().peers["bird"].established_count, 1);
    assert_eq!(speaker.status().borrow().peers["bird"].attribute_errors, 0);

    // An administrative shutdown is understood, and keeps nothing.
    speaker.shutdown(Shutdown::Cease(2)).await;
    pair.bird.knows(&BTreeSet::new()).await;
    let protocol = pair.bird.control("show protocols all pairway");
    assert!(protocol.contains("Administrative shutdown"), "{protocol}");
}

#[test]
fn routes_are_exchanged_with_an_outside_speaker_that_we_dial() {
    with_bird(Asn(4_200_000_000), Role::Dial, exchange);
}

#[test]
fn routes_are_exchanged_with_a_node_that_dials_us() {
    with_bird(Asn(64512), Role::Accept, exchange);
}

#[test]
fn our_restart_is_silent() {
    with_bird(Asn(65000), Role::Dial, async |pair: Pair| {
        let speaker = pair.speaker(false);
        pair.bird.knows(&prefixes(&BLOCKS)).await;
        status_until(&speaker, "End-of-RIB", |peer| peer.end_of_rib == Family::ALL.into()).await;
        speaker.shutdown(Shutdown::Silent).await;
        // BIRD keeps them all, as stale.
        pair.bird.says("show protocols all pairway", "Neighbor graceful restart active").await;
        assert_eq!(pair.bird.learned(), prefixes(&BLOCKS));
        // We come back without one of them.
        let speaker = pair.speaker(true);
        speaker.announce(prefixes(&BLOCKS[1..]));
        learns(&speaker, prefixes(&BIRDS)).await;
        pair.bird.knows(&prefixes(&BLOCKS[1..])).await;
    });
}

#[test]
fn a_restart_of_bird_is_helped() {
    with_bird(Asn(65000), Role::Dial, async |mut pair: Pair| {
        let speaker = pair.speaker(false);
        learns(&speaker, prefixes(&BIRDS)).await;
        status_until(&speaker, "End-of-RIB", |peer| peer.end_of_rib == Family::ALL.into()).await;
        let mut seen = speaker.routes();
        let watch = async {
            while seen.changed().await.is_ok() {
                assert!(!seen.borrow_and_update().routes.is_empty(), "routes were lost");
            }
        };
        let restart = async {
            pair.bird.graceful_restart();
            status_until(&speaker, "restarting", |peer| peer.restarting).await;
            let routes = speaker.routes().borrow().clone();
            assert_eq!(routes.routes.len(), 2);
            assert!(routes.routes.values().all(|paths| paths[0].stale));
            pair.bird.come_back(true);
            let status = status_until(&speaker, "back", |peer| {
                peer.state == SessionState::Established && peer.end_of_rib == Family::ALL.into()
            })
            .await;
            assert_eq!(status.established_count, 2);
            let routes = learns(&speaker, prefixes(&BIRDS)).await;
            assert!(routes.routes.values().all(|paths| !paths[0].stale));
            pair.bird.knows(&prefixes(&BLOCKS)).await;
        };
        tokio::select! {
            () = watch => panic!("the speaker ended"),
            () = restart => {}
        }
    });
}

#[test]
fn a_crash_of_bird_is_survived() {
    with_bird(Asn(65000), Role::Dial, async |mut pair: Pair| {
        let speaker = pair.speaker(false);
        learns(&speaker, prefixes(&BIRDS)).await;
        pair.bird.kill();
        status_until(&speaker, "restarting", |peer| peer.restarting).await;
        // It comes back with nothing kept: no F bits, so what was stale goes and comes again.
        pair.bird.come_back(false);
        status_until(&speaker, "back", |peer| {
            peer.established_count == 2 && peer.end_of_rib == Family::ALL.into()
        })
        .await;
        learns(&speaker, prefixes(&BIRDS)).await;
        pair.bird.knows(&prefixes(&BLOCKS)).await;
    });
}
