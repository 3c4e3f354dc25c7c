//! What must arrive at this node for the plan to work, and which filters of others drop it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp::Family;
use bgp::speaker::{Peer, PeerName, Role};
use vxlan::firewall::{Arrival, Arriving, ForeignChain, InputDrop, input_drops};
use vxlan::{LinkName, State, TunnelKind};

use super::cluster::Cluster;
use super::{Finding, World};

/// What filters of others drop of what must arrive, and what it follows from. Many rules and many senders take their
/// time, and neither changes often: it is kept from plan to plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judged {
    chains: Arc<Vec<ForeignChain>>,
    arrivals: Vec<Arrival>,
    drops: BTreeSet<InputDrop>,
}

impl Judged {
    fn of(chains: &Arc<Vec<ForeignChain>>, arrivals: Vec<Arrival>) -> Self {
        Self { drops: input_drops(chains, &arrivals), chains: Arc::clone(chains), arrivals }
    }
}

/// Says what is dropped that must arrive.
pub(super) fn report(
    world: &World<'_>,
    cluster: &Cluster,
    wanted: &State,
    peers: &BTreeMap<PeerName, Peer>,
    findings: &mut BTreeSet<Finding>,
) -> Arc<Judged> {
    let chains = &world.observed.netfilter.input;
    if chains.is_empty() {
        return Arc::default();
    }
    let arrivals = arrivals(world, cluster, wanted, peers);
    let before = world.judged;
    let judged = if before.chains == *chains && before.arrivals == arrivals {
        Arc::clone(before)
    } else {
        Arc::new(Judged::of(chains, arrivals))
    };
    for drop in &judged.drops {
        let (what, to) = (drop.what, drop.to);
        findings.insert(Finding::new(
            "InputDropped",
            format!("{what} to {to}: {} {} {}", drop.family, drop.table, drop.chain),
            format!(
                "{drop}: {}; whoever wrote it has to accept them from the nodes, for a try: {}",
                effect(what),
                drop.remedy()
            ),
        ));
    }
    judged
}

/// What it means that such packets are dropped.
pub(crate) const fn effect(what: Arriving) -> &'static str {
    match what {
        Arriving::Udp(_) => "what pods of other nodes send through the tunnel does not arrive",
        Arriving::Tcp(_) => {
            "BGP sessions that peers open don't come up, and pairs with them use their fallback"
        }
        Arriving::Protocol(_) => {
            "IP-in-IP packets from other nodes don't arrive, unless this node has sent some before"
        }
    }
}

/// The tunnels' packets, and those of sessions that peers open.
fn arrivals(
    world: &World<'_>,
    cluster: &Cluster,
    wanted: &State,
    peers: &BTreeMap<PeerName, Peer>,
) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for (name, link) in &wanted.links {
        let (what, device, from) = match &link.kind {
            TunnelKind::Vxlan(vxlan) => {
                let entries = wanted.fdb.iter().filter(|(key, _)| key.link == *name);
                let from = entries.map(|(_, remote)| *remote).collect();
                (Arriving::Udp(vxlan.port), Some(vxlan.underlay.clone()), from)
            }
            TunnelKind::Ip(kind) => {
                let able =
                    cluster.peers.values().filter(|peer| peer.record.capabilities.contains(kind.as_str()));
                let from = able.filter_map(|peer| peer.record.underlay.ipv4.map(|net| net.addr().into()));
                (Arriving::Protocol(kind.protocol()), underlay(world, link.local), from.collect())
            }
        };
        arrivals.extend(device.and_then(|device| arrival(world, what, &device, link.local, from)));
    }
    let mut openers: BTreeMap<IpAddr, BTreeSet<IpAddr>> = BTreeMap::new();
    for peer in peers.values().filter(|peer| peer.role == Role::Accept) {
        let own = || world.local.of(Family::of_address(peer.address)).map(|own| own.address.addr());
        if let Some(to) = peer.local_address.or_else(own) {
            openers.entry(to).or_default().insert(peer.address);
        }
    }
    let what = Arriving::Tcp(world.config.bgp.port);
    for (to, from) in openers {
        arrivals.extend(underlay(world, to).and_then(|device| arrival(world, what, &device, to, from)));
    }
    arrivals
}

/// The underlay device of an address of ours.
fn underlay(world: &World<'_>, address: IpAddr) -> Option<LinkName> {
    let own = Family::ALL.into_iter().filter_map(|family| world.local.of(family));
    own.into_iter().find(|own| own.address.addr() == address).map(|own| own.link.clone())
}

fn arrival(
    world: &World<'_>,
    what: Arriving,
    device: &LinkName,
    to: IpAddr,
    from: BTreeSet<IpAddr>,
) -> Option<Arrival> {
    let index = world.observed.interfaces.get(device)?.index;
    Some(Arrival { what, device: (device.to_string(), index), to, from })
}
