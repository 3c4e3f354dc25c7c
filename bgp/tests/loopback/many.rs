//! A herd of peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use bgp::speaker::{Role, SessionState, Speaker, SpeakerConfig};
use ipnet::IpNet;

use crate::harness::*;

fn block(n: usize) -> IpNet {
    format!("10.{}.{}.0/24", 100 + n / 256, n % 256).parse().unwrap()
}

/// `count` speakers dial one at the same time; all learn what the hub announces, the hub learns from all.
async fn herd(count: usize) {
    let hub_at = address();
    let at: Vec<Ipv4Addr> = (0..count).map(|_| address()).collect();
    let hub = Speaker::start(config(hub_at));
    hub.announce([block(count)].into());
    let peers: BTreeMap<_, _> =
        at.iter().enumerate().map(|(n, at)| (format!("n{n}"), peer(hub_at, *at, Role::Accept))).collect();
    hub.set_peers(peers);
    let spokes: Vec<_> = at
        .iter()
        .enumerate()
        .map(|(n, at)| {
            let spoke = Speaker::start(SpeakerConfig { listen: Vec::new(), ..config(*at) });
            spoke.set_peers(one("hub", peer(*at, hub_at, Role::Dial)));
            spoke.announce([block(n)].into());
            spoke
        })
        .collect();
    let status = until(hub.status(), "all sessions", |status| {
        status.peers.values().filter(|peer| peer.state == SessionState::Established).count() == count
    })
    .await;
    assert!(status.peers.values().all(|peer| peer.established_count == 1), "a session bounced");
    assert_eq!(status.unknown_connections, 0);
    learns(&hub, (0..count).map(block).collect::<BTreeSet<_>>()).await;
    for spoke in &spokes {
        learns(spoke, [block(count)].into()).await;
    }
}

#[tokio::test]
async fn fifty_peers() {
    herd(50).await;
}

#[tokio::test]
async fn five_hundred_peers_at_once() {
    herd(500).await;
}
