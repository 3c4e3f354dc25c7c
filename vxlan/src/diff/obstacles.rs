//! What of others stands in our way, and what of ours it blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::detours;
use crate::diff::Conflict;
use crate::state::{
    InstalledRoute, LinkName, NexthopId, Observed, RouteKey, RouteTarget, State, TunnelId, TunnelLink,
};

/// Foreign objects in our way, and the keys of ours that must be left as they are because of them.
#[derive(Debug, Default)]
pub(super) struct Obstacles {
    pub(super) conflicts: Vec<Conflict>,
    pub(super) diverted: BTreeMap<RouteKey, String>,
    links: BTreeSet<LinkName>,
    nexthops: BTreeSet<NexthopId>,
    routes: BTreeSet<RouteKey>,
}

impl Obstacles {
    pub(super) fn find(observed: &Observed, wanted: &State) -> Self {
        let mut found = Self::default();
        for (name, link) in &wanted.links {
            found.look_at_link(observed, name, link);
        }
        found.look_at_nexthops(observed, wanted);
        found.look_at_routes(observed, wanted);
        found.take_detours(detours::find(observed, wanted));
        if wanted.firewall.is_some() && observed.netfilter.foreign_table {
            found.conflicts.push(Conflict {
                wanted: "the nftables table".to_owned(),
                found: "a table of family inet with our name that is not marked as ours".to_owned(),
                hint: "delete it with `nft delete table inet NAME` if nobody needs it, or set kernel.firewallTable"
                    .to_owned(),
            });
        }
        found
    }

    /// Whether a device, and with it everything on it, is blocked.
    pub(super) fn link(&self, name: &LinkName) -> bool {
        self.links.contains(name)
    }

    pub(super) fn nexthop(&self, id: NexthopId) -> bool {
        self.nexthops.contains(&id)
    }

    pub(super) fn route(&self, key: &RouteKey) -> bool {
        self.routes.contains(key)
    }

    fn look_at_link(&mut self, observed: &Observed, name: &LinkName, link: &TunnelLink) {
        if observed.ours.links.get(name).is_some_and(|now| now.id() == link.id()) {
            return;
        }
        let foreign = |other: &LinkName| !observed.ours.links.contains_key(other);
        if let Some(interface) = observed.interfaces.get(name).filter(|_| foreign(name)) {
            let kind = if interface.kind.is_empty() { "physical" } else { &interface.kind };
            self.block_link(
                name,
                format!("device {name} (kind {kind}, alias {:?}) which is not marked as ours", interface.alias),
                format!("if nothing needs it, remove it: ip link delete {name}; else configure another device name"),
            );
            return;
        }
        let twin = observed
            .interfaces
            .iter()
            .find(|(other, interface)| interface.tunnel == Some(link.id()) && foreign(other));
        if let Some((other, interface)) = twin {
            let (what, hint) = match link.id() {
                TunnelId::Vxlan(_) => (
                    "VXLAN device",
                    format!(
                        "two devices can't share a VNI and a port: remove {other} or configure another vxlan.vni"
                    ),
                ),
                TunnelId::Ip { .. } => (
                    "tunnel device",
                    format!(
                        "two devices can't share a kind and a local address: remove {other}: ip link delete {other}"
                    ),
                ),
            };
            self.block_link(
                name,
                format!("{what} {other} (alias {:?}) with {}", interface.alias, link.id()),
                hint,
            );
        }
    }

    fn block_link(&mut self, name: &LinkName, found: String, hint: String) {
        self.conflicts.push(Conflict { wanted: format!("device {name}"), found, hint });
        self.links.insert(name.clone());
    }

    fn look_at_nexthops(&mut self, observed: &Observed, wanted: &State) {
        for (id, nexthop) in &wanted.nexthops {
            if observed.foreign_nexthops.contains(id) {
                self.conflicts.push(Conflict {
                    wanted: format!("nexthop {}", id.0),
                    found: format!("nexthop object {} of somebody else", id.0),
                    hint: format!(
                        "see whose it is: ip nexthop show id {}; remove it or configure another range of ids",
                        id.0
                    ),
                });
                self.nexthops.insert(*id);
            } else if self.links.contains(&nexthop.link) {
                self.nexthops.insert(*id);
            }
        }
    }

    fn look_at_routes(&mut self, observed: &Observed, wanted: &State) {
        for rival in &observed.foreign_routes {
            self.look_at_rival(observed, wanted, rival);
        }
        if self.nexthops.is_empty() && self.links.is_empty() {
            return;
        }
        let lost_sources = self.lost_sources(observed, wanted);
        for (key, route) in &wanted.routes {
            let no_target = matches!(route.target, RouteTarget::Nexthop(id) if self.nexthops.contains(&id));
            if let RouteTarget::Nexthop(id) = route.target
                && observed.foreign_nexthops.contains(&id)
            {
                let why = format!(
                    "nexthop object {} is somebody else's, who has put another in place of ours",
                    id.0
                );
                self.diverted.entry(*key).or_insert(why);
            }
            if no_target || route.source.is_some_and(|source| lost_sources.contains(&source)) {
                self.routes.insert(*key);
            }
        }
    }

    /// A foreign route of the same table and prefix wins over ours (smaller metric) or takes its place (equal). Beside one
    /// with the whole key of ours (`ip route prepend`, `append`) ours is left as it is: a replace asks for a key, and
    /// the kernel takes whichever of the two comes first. A deletion names our protocol and hits ours alone.
    fn look_at_rival(&mut self, observed: &Observed, wanted: &State, rival: &InstalledRoute) {
        let key = rival.key;
        for (ours, _) in wanted.routes.range(key..=RouteKey { metric: u32::MAX, ..key }) {
            self.conflicts.push(Conflict {
                wanted: format!("route {} table {} metric {}", ours.prefix, ours.table, ours.metric),
                found: rival.to_string(),
                hint: format!(
                    "remove it, or stop the program that makes it: ip route delete {} table {} proto {} metric {}",
                    key.prefix, key.table, rival.protocol, key.metric
                ),
            });
            self.diverted
                .entry(*ours)
                .or_insert_with(|| format!("{rival} of somebody else comes before ours"));
            // One of ours that stands already stays under our care, unless we can't write to it alone.
            if *ours == key || !observed.ours.routes.contains_key(ours) {
                self.routes.insert(*ours);
            }
        }
    }

    fn take_detours(&mut self, detours: detours::Detours) {
        self.conflicts.extend(detours.conflicts);
        for (key, why) in detours.diverted {
            self.diverted.entry(key).or_insert(why);
        }
    }

    /// Source addresses that will not be there because their device is blocked.
    fn lost_sources(&self, observed: &Observed, wanted: &State) -> BTreeSet<IpAddr> {
        let foreign = observed.interfaces.iter().filter(|(name, _)| !observed.ours.links.contains_key(*name));
        let held = observed.ours.addresses.iter().filter(|address| self.links.contains(&address.link));
        let present: BTreeSet<IpAddr> = foreign
            .flat_map(|(_, interface)| interface.addresses.iter().map(|a| a.address.addr()))
            .chain(held.map(|address| address.address.addr()))
            .collect();
        let (blocked, standing): (Vec<_>, Vec<_>) =
            wanted.addresses.iter().partition(|address| self.links.contains(&address.link));
        blocked
            .into_iter()
            .map(|address| address.address.addr())
            .filter(|ip| !present.contains(ip) && !standing.iter().any(|a| a.address.addr() == *ip))
            .collect()
    }
}
