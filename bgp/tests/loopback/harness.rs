//! Addresses, configurations and bounded waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bgp::speaker::{
    Export, ImportFilter, ImportRule, Peer, PeerStatus, Role, Routes, SessionState, Speaker, SpeakerConfig,
};
use bgp::{Asn, Family, RouterId};
use ipnet::IpNet;
use tokio::sync::watch;

pub(crate) const PORT: u16 = 20179;
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A loopback address that nobody else uses: by process and by call.
pub(crate) fn address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = (std::process::id() & 0xfff) << 11 | (NEXT.fetch_add(1, Ordering::Relaxed) & 0x7ff);
    // 127.1.0.0 and above; the lowest are other programs'.
    Ipv4Addr::from(0x7f01_0000 + number)
}

pub(crate) fn prefixes<const N: usize>(prefixes: [&str; N]) -> BTreeSet<IpNet> {
    prefixes.into_iter().map(|prefix| prefix.parse().unwrap()).collect()
}

/// A speaker with the address as its identifier, in AS 64512.
pub(crate) fn config(address: Ipv4Addr) -> SpeakerConfig {
    SpeakerConfig {
        asn: Asn(64512),
        router_id: RouterId(address),
        listen: vec![SocketAddr::new(address.into(), PORT)],
        hold_time: Duration::from_secs(9),
        restart_time: Duration::from_secs(60),
        restarting: false,
    }
}

/// `remote` as seen by `local`: internal, both families, everything accepted and announced.
pub(crate) fn peer(local: Ipv4Addr, remote: Ipv4Addr, role: Role) -> Peer {
    Peer {
        address: remote.into(),
        port: PORT,
        local_address: Some(local.into()),
        asn: Asn(64512),
        router_id: Some(RouterId(remote)),
        role,
        families: Family::ALL.into(),
        next_hops: [(Family::Ipv4, v4_of(local)), (Family::Ipv6, v6_of(local))].into(),
        import: everything([v4_of(remote), v6_of(remote)]),
        export: Export::All,
        graceful_shutdown: false,
        max_prefixes: 1000,
    }
}

/// The IPv4 next hop of a node of these tests: a loopback address is none (RFC 4271 §6.3).
pub(crate) fn v4_of(address: Ipv4Addr) -> IpAddr {
    let [_, b, c, d] = address.octets();
    Ipv4Addr::new(100, b, c, d).into()
}

/// The IPv6 next hop of a node of these tests.
pub(crate) fn v6_of(address: Ipv4Addr) -> IpAddr {
    let [_, b, c, d] = address.octets();
    format!("2001:db8::{b:x}:{c:x}:{d:x}").parse().unwrap()
}

pub(crate) fn everything<const N: usize>(next_hops: [IpAddr; N]) -> ImportFilter {
    let next_hops = Some(BTreeSet::from(next_hops));
    let rule = |prefix: &str, longest| ImportRule {
        prefix: prefix.parse().unwrap(),
        lengths: (0, longest),
        next_hops: next_hops.clone(),
    };
    ImportFilter { rules: vec![rule("0.0.0.0/0", 32), rule("::/0", 128)] }
}

/// Two speakers that know each other: the first dials.
pub(crate) struct Two {
    pub(crate) a: Speaker,
    pub(crate) b: Speaker,
    pub(crate) at: [Ipv4Addr; 2],
}

impl Two {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl Fn(&mut SpeakerConfig)) -> Self {
        let at = [address(), address()];
        let start = |at| {
            let mut config = config(at);
            change(&mut config);
            Speaker::start(config)
        };
        let (a, b) = (start(at[0]), start(at[1]));
        a.set_peers(one("b", peer(at[0], at[1], Role::Dial)));
        b.set_peers(one("a", peer(at[1], at[0], Role::Accept)));
        Self { a, b, at }
    }

    pub(crate) async fn up(self) -> Self {
        established(&self.a, "b").await;
        established(&self.b, "a").await;
        self
    }
}

pub(crate) fn one(name: &str, peer: Peer) -> BTreeMap<String, Peer> {
    BTreeMap::from([(name.to_owned(), peer)])
}

/// Waits until the value is as wanted, and gives it.
#[track_caller]
pub(crate) fn until<T: Clone + Debug>(
    mut values: watch::Receiver<T>,
    what: impl Into<String>,
    wanted: impl Fn(&T) -> bool,
) -> impl Future<Output = T> {
    let (what, caller) = (what.into(), std::panic::Location::caller());
    async move {
        let wait = async { values.wait_for(|value| wanted(value)).await.map(|value| value.clone()) };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(Ok(value)) => return value,
            Ok(Err(_)) => panic!("{caller}: the speaker ended before {what}"),
            Err(_) => {}
        }
        panic!("{caller}: {what} did not happen: {:#?}", *values.borrow())
    }
}

/// Waits until a peer's status is as wanted, and gives it.
#[track_caller]
pub(crate) fn peer_until(
    speaker: &Speaker,
    name: &str,
    what: &str,
    wanted: impl Fn(&PeerStatus) -> bool,
) -> impl Future<Output = PeerStatus> {
    let name = name.to_owned();
    let of = name.clone();
    let status =
        until(speaker.status(), format!("{name}: {what}"), move |s| s.peers.get(&of).is_some_and(&wanted));
    async move { status.await.peers[&name].clone() }
}

#[track_caller]
pub(crate) fn established(speaker: &Speaker, name: &str) -> impl Future<Output = PeerStatus> {
    peer_until(speaker, name, "established", |peer| peer.state == SessionState::Established)
}

pub(crate) fn learned(routes: &Routes) -> BTreeSet<IpNet> {
    routes.routes.keys().copied().collect()
}

/// Waits until exactly these prefixes are learned.
#[track_caller]
pub(crate) fn learns(speaker: &Speaker, wanted: BTreeSet<IpNet>) -> impl Future<Output = ()> {
    let routes = until(speaker.routes(), format!("learning {wanted:?}"), move |r| learned(r) == wanted);
    async move {
        routes.await;
    }
}
