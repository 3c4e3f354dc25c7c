//! Which IP tunnels this node has, and offers to its peers.
//!
//! The kernel is asked only where the configuration wants IP-in-IP: to ask loads a module. What it has, it keeps; what it
//! lacks is asked for again after a while. A kind is offered once its device stands, so that no peer sends what nobody
//! receives, and from then on also while the device is being repaired. Where IP-in-IP is wanted no more, the order is
//! the other way round: first our routes leave the device, then the offer goes, and the device itself only when no peer
//! offers the kind either, for who offers it may still send through it.

use std::collections::BTreeSet;

use tokio::time::Instant;
use vxlan::{IpTunnel, ObserveError, Observed, State, TunnelKind};

use super::Agent;
use crate::dataplane::Gone;
use crate::node::Snapshot;
use crate::plan::{self, Finding};

/// What is known of the kernel, and what follows.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    /// Kinds that are to have a device.
    pub(super) wanted: BTreeSet<IpTunnel>,
    /// Kinds that this node says it can receive.
    pub(super) offered: BTreeSet<IpTunnel>,
    /// Kinds that are asked for and that the kernel has.
    there: BTreeSet<IpTunnel>,
    /// Those of them whose device has been seen.
    seen: BTreeSet<IpTunnel>,
    /// When the kernel was asked last, and what it lacked.
    refused: Option<(Instant, BTreeSet<IpTunnel>)>,
}

impl Tunnels {
    /// What is offered if the kernel holds this of ours.
    fn offer(&self, ours: &State) -> BTreeSet<IpTunnel> {
        let asked =
            self.there.iter().filter(|kind| self.seen.contains(*kind) || standing(ours).contains(*kind));
        asked.copied().chain(used(ours)).collect()
    }
}

impl Agent {
    /// Brings what is known to the configuration at hand, and says what is missing.
    pub(super) async fn settle_tunnels(
        &mut self,
        observed: &Observed,
        snapshot: Option<&Snapshot>,
        now: Instant,
    ) -> Result<Result<(), ObserveError>, Gone> {
        let asked = plan::ip_tunnels(&self.config, &self.state.local);
        // That the kernel does not tell is no sign that it lacks something.
        if let Err(error) = self.ask_for(&asked, now).await? {
            return Ok(Err(error));
        }
        for kind in asked.difference(&self.state.tunnels.there) {
            self.state.findings.insert(Finding::new(
                "ModuleMissing",
                kind,
                format!(
                    "`paths` asks for IP-in-IP, and this kernel has no {kind}: load it with `modprobe {kind}` (in a container: on the machine around it); until then all peers use their fallback with this node, or VXLAN"
                ),
            ));
        }
        let standing = standing(&observed.ours);
        let peer_offers = |kind: &IpTunnel| {
            snapshot.is_none_or(|snapshot| {
                let mut peers = snapshot.nodes.iter().filter(|(name, _)| **name != self.name);
                peers.any(|(_, record)| record.capabilities.contains(kind.as_str()))
            })
        };
        let left: BTreeSet<IpTunnel> =
            standing.difference(&asked).copied().filter(peer_offers).chain(used(&observed.ours)).collect();
        let tunnels = &mut self.state.tunnels;
        tunnels.seen.extend(standing);
        tunnels.seen.retain(|kind| tunnels.there.contains(kind));
        tunnels.offered = tunnels.offer(&observed.ours);
        tunnels.wanted = tunnels.there.union(&left).copied().collect();
        Ok(Ok(()))
    }

    /// Asks the kernel for what it is not known to have, not too often.
    async fn ask_for(
        &mut self,
        asked: &BTreeSet<IpTunnel>,
        now: Instant,
    ) -> Result<Result<(), ObserveError>, Gone> {
        let mut there: BTreeSet<IpTunnel> = self.state.tunnels.there.intersection(asked).copied().collect();
        let missing: BTreeSet<IpTunnel> = asked.difference(&there).copied().collect();
        let before = self.state.tunnels.refused.take();
        if !missing.is_empty() {
            let patience = self.limits.module_patience;
            let recent = |(at, kinds): &(Instant, BTreeSet<IpTunnel>)| {
                now.duration_since(*at) < patience && *kinds == missing
            };
            let refused = if let Some(refused) = before.filter(recent) {
                refused
            } else {
                match self.dataplane.ip_tunnels(missing.clone()).await? {
                    Ok(found) => there.extend(found),
                    Err(error) => return Ok(Err(error)),
                }
                (now, missing.difference(&there).copied().collect())
            };
            if !refused.1.is_empty() {
                self.state.wakes.push(refused.0 + patience);
                self.state.tunnels.refused = Some(refused);
            }
        }
        self.state.tunnels.there = there;
        Ok(Ok(()))
    }

    /// After the kernel was changed: what may be offered now, or no more, the next pass tells the peers at once.
    pub(super) fn offer_tunnels(&mut self, now: Instant) {
        let tunnels = &self.state.tunnels;
        if tunnels.offer(&self.state.present) != tunnels.offered {
            self.state.wakes.push(now);
        }
    }
}

/// Kinds that have a device of ours which is up.
fn standing(ours: &State) -> BTreeSet<IpTunnel> {
    ours.links.values().filter(|link| link.up).filter_map(|link| kind(&link.kind)).collect()
}

/// Kinds that routes of ours lead through.
fn used(ours: &State) -> BTreeSet<IpTunnel> {
    let links = ours.nexthops.values().filter_map(|nexthop| ours.links.get(&nexthop.link));
    links.filter_map(|link| kind(&link.kind)).collect()
}

fn kind(kind: &TunnelKind) -> Option<IpTunnel> {
    match kind {
        TunnelKind::Ip(kind) => Some(*kind),
        TunnelKind::Vxlan(_) => None,
    }
}
