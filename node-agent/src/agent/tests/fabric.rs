//! BGP without sockets: sessions come up where two speakers name each other, and announcements arrive at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bgp::Family;
use bgp::speaker::{
    LearnedRoute, MessageCounters, Peer, PeerName, PeerStatus, Refusal, Routes, SessionState, Shutdown,
    SpeakerConfig, SpeakerStatus,
};
use ipnet::IpNet;
use tokio::sync::watch;

use super::super::{Bgp, StartBgp};

/// What connects the speakers. Clones are the same fabric.
#[derive(Debug, Clone, Default)]
pub(super) struct Fabric(Arc<Mutex<Net>>);

#[derive(Debug, Default)]
struct Net {
    speakers: Vec<Entry>,
    cut: BTreeSet<IpAddr>,
    /// Routes from these speakers do not arrive, nor does their End-of-RIB.
    mute: BTreeSet<IpAddr>,
    /// How long a speaker takes to end.
    last_words: Duration,
    starts: Vec<SpeakerConfig>,
    ends: Vec<Shutdown>,
}

#[derive(Debug)]
struct Entry {
    config: SpeakerConfig,
    peers: BTreeMap<PeerName, Peer>,
    announce: BTreeSet<IpNet>,
    life: Life,
    /// Sessions by peer: times established, and whether up.
    sessions: BTreeMap<PeerName, (u64, bool)>,
    routes: watch::Sender<Arc<Routes>>,
    status: watch::Sender<Arc<SpeakerStatus>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Alive,
    /// Gone without a word: its peers keep its routes.
    Silent,
    Gone,
}

impl Entry {
    fn listens(&self, address: IpAddr) -> bool {
        self.config.listen.iter().any(|listen| listen.ip() == address)
    }

    fn names(&self, other: &Self) -> Option<(&PeerName, &Peer)> {
        self.peers.iter().find(|(_, peer)| other.listens(peer.address) && peer.asn == other.config.asn)
    }
}

impl Fabric {
    pub(super) fn speakers(&self) -> StartBgp {
        let fabric = self.clone();
        Box::new(move |config| {
            let mut net = fabric.lock();
            net.starts.push(config.clone());
            for entry in &mut net.speakers {
                // Back again: nobody waits for its former life.
                if entry.life == Life::Silent && config.listen.iter().any(|listen| entry.listens(listen.ip()))
                {
                    entry.life = Life::Gone;
                }
            }
            net.speakers.push(Entry {
                config,
                peers: BTreeMap::new(),
                announce: BTreeSet::new(),
                life: Life::Alive,
                sessions: BTreeMap::new(),
                routes: watch::Sender::default(),
                status: watch::Sender::default(),
            });
            let index = net.speakers.len() - 1;
            drop(net);
            Box::new(FakeSpeaker { fabric: fabric.clone(), index })
        })
    }

    /// No packet of BGP reaches this address any more, as when its holder dies: hold timers expire.
    pub(super) fn cut(&self, address: &str) {
        self.change(|net| net.cut.insert(address.parse().unwrap()));
    }

    pub(super) fn mend(&self, address: &str) {
        self.change(|net| net.cut.remove(&address.parse().unwrap()));
    }

    /// Sessions with this speaker come up, but it does not send its routes.
    pub(super) fn mute(&self, address: &str, mute: bool) {
        let address = address.parse().unwrap();
        self.change(|net| {
            if mute {
                net.mute.insert(address);
            } else {
                net.mute.remove(&address);
            }
        });
    }

    /// The restart time of whoever has gone silently is over.
    pub(super) fn forget_silent(&self) {
        self.change(|net| {
            for entry in net.speakers.iter_mut().filter(|entry| entry.life == Life::Silent) {
                entry.life = Life::Gone;
            }
        });
    }

    /// From now on a speaker takes so long to end.
    pub(super) fn last_words(&self, take: Duration) {
        self.lock().last_words = take;
    }

    /// The task of a speaker dies.
    pub(super) fn kill(&self, address: &str) {
        let address: IpAddr = address.parse().unwrap();
        let mut net = self.lock();
        for entry in net.speakers.iter_mut().filter(|entry| entry.listens(address)) {
            entry.life = Life::Gone;
            entry.routes = watch::Sender::default();
            entry.status = watch::Sender::default();
        }
    }

    /// How speakers were started and ended so far.
    pub(super) fn history(&self) -> (Vec<SpeakerConfig>, Vec<Shutdown>) {
        let net = self.lock();
        (net.starts.clone(), net.ends.clone())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Net) -> T) -> T {
        let mut net = self.lock();
        let result = change(&mut net);
        net.settle();
        result
    }

    fn lock(&self) -> MutexGuard<'_, Net> {
        self.0.lock().unwrap()
    }
}

impl Net {
    fn settle(&mut self) {
        for index in 0..self.speakers.len() {
            if self.speakers[index].life != Life::Alive {
                continue;
            }
            let (routes, status, sessions) = self.seen_by(index);
            let entry = &mut self.speakers[index];
            entry.sessions = sessions;
            // Routes first, as the real speaker does.
            set(&entry.routes, routes);
            set(&entry.status, status);
        }
    }

    fn seen_by(&self, index: usize) -> (Routes, SpeakerStatus, BTreeMap<PeerName, (u64, bool)>) {
        let own = &self.speakers[index];
        let mut routes = Routes::default();
        let mut status = SpeakerStatus::default();
        let mut sessions = BTreeMap::new();
        let is_cut = |entry: &Entry| entry.config.listen.iter().any(|listen| self.cut.contains(&listen.ip()));
        for (name, peer) in &own.peers {
            let (count, was_up) = own.sessions.get(name).copied().unwrap_or_default();
            let other = self
                .speakers
                .iter()
                .filter(|other| other.listens(peer.address) && other.life != Life::Gone)
                .find_map(|other| other.names(own).map(|(_, back)| (other, back)))
                .filter(|(other, _)| !is_cut(other) && !is_cut(own) && other.config.asn == peer.asn);
            let up = other.is_some_and(|(other, _)| other.life == Life::Alive);
            let restarting = was_up && other.is_some_and(|(other, _)| other.life == Life::Silent);
            sessions.insert(name.clone(), (count + u64::from(up && !was_up), up || restarting));
            let mut refused = Vec::new();
            let mute = self.mute.contains(&peer.address);
            let families: BTreeSet<Family> =
                other.map_or_else(BTreeSet::new, |(_, back)| &peer.families & &back.families);
            if let Some((other, back)) = other.filter(|_| (up || restarting) && !mute) {
                for prefix in &other.announce {
                    let Some(next_hop) = back.next_hops.get(&Family::of(*prefix)) else { continue };
                    if !families.contains(&Family::of(*prefix)) {
                        continue;
                    }
                    match accepts(peer, *prefix, *next_hop) {
                        Ok(()) => routes.routes.entry(*prefix).or_default().push(LearnedRoute {
                            peer: name.clone(),
                            next_hop: *next_hop,
                            attributes: Arc::default(),
                            stale: restarting,
                        }),
                        Err(refusal) => refused.push((*prefix, refusal)),
                    }
                }
            }
            status.peers.insert(
                name.clone(),
                PeerStatus {
                    address: peer.address,
                    asn: peer.asn,
                    state: if up { SessionState::Established } else { SessionState::Active },
                    families: if up { families.clone() } else { BTreeSet::new() },
                    hold_time: own.config.hold_time,
                    end_of_rib: if up && !mute { families } else { BTreeSet::new() },
                    restarting,
                    since: Duration::ZERO,
                    established_count: sessions[name].0,
                    last_error: (!up && was_up).then(|| "hold timer expired".to_owned()),
                    accepted: BTreeMap::new(),
                    refused: BTreeMap::new(),
                    refused_prefixes: refused,
                    announced: BTreeMap::new(),
                    messages: MessageCounters::default(),
                    attribute_errors: 0,
                },
            );
        }
        (routes, status, sessions)
    }
}

fn accepts(peer: &Peer, prefix: IpNet, next_hop: IpAddr) -> Result<(), Refusal> {
    let mut rules = peer.import.rules.iter().filter(|rule| {
        rule.prefix.contains(&prefix) && (rule.lengths.0..=rule.lengths.1).contains(&prefix.prefix_len())
    });
    let rule = rules.next().ok_or(Refusal::NotPermitted)?;
    let permitted =
        rule.next_hops.as_ref().map_or(next_hop == peer.address, |next_hops| next_hops.contains(&next_hop));
    if permitted { Ok(()) } else { Err(Refusal::NextHop) }
}

fn set<T: PartialEq>(channel: &watch::Sender<Arc<T>>, value: T) {
    channel.send_if_modified(|old| {
        let changed = **old != value;
        *old = Arc::new(value);
        changed
    });
}

struct FakeSpeaker {
    fabric: Fabric,
    index: usize,
}

impl Bgp for FakeSpeaker {
    fn set_peers(&self, peers: BTreeMap<PeerName, Peer>) {
        self.fabric.change(|net| {
            let entry = &mut net.speakers[self.index];
            // One at another address is another peer.
            let (sessions, old) = (&mut entry.sessions, &entry.peers);
            sessions.retain(|name, _| {
                peers.get(name).map(|peer| peer.address) == old.get(name).map(|peer| peer.address)
            });
            entry.peers = peers;
        });
    }

    fn announce(&self, prefixes: BTreeSet<IpNet>) {
        self.fabric.change(|net| net.speakers[self.index].announce = prefixes);
    }

    fn routes(&self) -> watch::Receiver<Arc<Routes>> {
        self.fabric.lock().speakers[self.index].routes.subscribe()
    }

    fn status(&self) -> watch::Receiver<Arc<SpeakerStatus>> {
        self.fabric.lock().speakers[self.index].status.subscribe()
    }

    fn shutdown(self: Box<Self>, how: Shutdown) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let last_words = self.fabric.change(|net| {
            net.ends.push(how);
            net.speakers[self.index].life = match how {
                Shutdown::Silent => Life::Silent,
                Shutdown::Cease(_) => Life::Gone,
            };
            net.last_words
        });
        Box::pin(tokio::time::sleep(last_words))
    }
}
