//! What the fake kernel holds, and what others do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::effects::{self, MAIN};
use crate::firewall::Netfilter;
use crate::state::{
    Address, ForeignRule, Forwarding, InstalledRoute, Interface, InterfaceAddress, IpTunnel, LinkName,
    NexthopId, Observed, Route, RouteKey, RouteTarget, State, TunnelLink,
};
use crate::watched::Watched;

/// `RTPROT_KERNEL`.
const KERNEL: u8 = 2;
/// Alias of our devices: the fake kernel needs no configurable mark, it knows what is ours.
const ALIAS: &str = "ours";

/// Everything in one kernel.
#[derive(Debug, Default)]
pub(super) struct World {
    /// What is ours; `rp_filter` is that of every device.
    pub(super) ours: State,
    /// Indices of our devices.
    pub(super) indices: BTreeMap<LinkName, u32>,
    /// MTUs of our devices as IPv6 knows them.
    pub(super) announced_mtu: BTreeMap<LinkName, u32>,
    /// Devices of others.
    pub(super) interfaces: BTreeMap<LinkName, Interface>,
    /// Routes of others, without those that follow from addresses.
    pub(super) routes: BTreeMap<RouteKey, InstalledRoute>,
    /// Policy rules of others, in order.
    pub(super) rules: Vec<ForeignRule>,
    /// Nexthop objects of others, by id.
    pub(super) nexthops: BTreeSet<NexthopId>,
    pub(super) rp_filter_all: u8,
    pub(super) forwarding: Forwarding,
    /// nftables beside our table.
    pub(super) netfilter: Netfilter,
    /// Kinds of IP tunnel that this kernel has no module for.
    pub(super) lacking: BTreeSet<IpTunnel>,
    last_index: u32,
}

/// What the rules need to know of a device, whoever's it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Device {
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) mtu: u32,
}

impl World {
    pub(super) fn next_index(&mut self) -> u32 {
        self.last_index = self.last_index.max(1) + 1;
        self.last_index
    }

    pub(super) fn device(&self, link: &LinkName) -> Option<Device> {
        let ours = self.ours.links.get(link);
        ours.map(|ours| Device { up: ours.up, carrier: ours.up, mtu: ours.mtu }).or_else(|| {
            let foreign = self.interfaces.get(link);
            foreign.map(|foreign| Device { up: foreign.up, carrier: foreign.carrier, mtu: foreign.mtu })
        })
    }

    /// All addresses with their devices.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&LinkName, IpNet)> {
        let ours = self.ours.addresses.iter().map(|a| (&a.link, a.address));
        let foreign = self
            .interfaces
            .iter()
            .flat_map(|(name, interface)| interface.addresses.iter().map(move |a| (name, a.address)));
        ours.chain(foreign)
    }

    pub(super) fn is_local(&self, ip: IpAddr) -> bool {
        self.addresses().any(|(_, address)| address.addr() == ip)
    }

    /// Routes of connected networks, which the kernel makes itself.
    pub(super) fn connected(&self) -> impl Iterator<Item = InstalledRoute> {
        self.addresses()
            .filter(|(link, address)| {
                let up = self.device(link).is_some_and(|device| device.up);
                up && address.prefix_len() < address.max_prefix_len() && !address.addr().is_loopback()
            })
            .map(|(link, address)| {
                let metric = if address.addr().is_ipv4() { 0 } else { 256 };
                let key = RouteKey { table: MAIN, prefix: address.trunc(), metric };
                InstalledRoute { key, protocol: KERNEL, link: Some(link.clone()), gateway: None }
            })
    }

    /// Whether a route of others has this key.
    pub(super) fn foreign_route(&self, key: &RouteKey) -> bool {
        self.routes.contains_key(key) || self.connected().any(|route| route.key == *key)
    }

    pub(super) fn observe(&self, watched: &[IpNet]) -> Observed {
        let watched = Watched::new(watched.iter().copied());
        let foreign = self.routes.values().cloned().chain(self.connected());
        let (mut default_routes, others): (Vec<_>, Vec<_>) =
            foreign.partition(|route| route.key.prefix.prefix_len() == 0 && route.key.table == MAIN);
        default_routes.sort_by_key(|route| (route.key.prefix, route.key.metric));
        let mut foreign_routes: Vec<_> =
            others.into_iter().filter(|route| watched.touched_by(&route.key.prefix)).collect();
        foreign_routes.sort_by_key(|route| route.key);
        let mut ours = self.ours.clone();
        for name in self.interfaces.keys().chain(ours.links.keys()) {
            ours.rp_filter.entry(name.clone()).or_insert(0);
        }
        Observed {
            interfaces: self.shown_interfaces(),
            foreign_routes,
            foreign_rules: self.rules.clone(),
            foreign_nexthops: self.nexthops.clone(),
            default_routes,
            rp_filter_all: self.rp_filter_all,
            forwarding: self.forwarding,
            netfilter: self.netfilter.clone(),
            ours,
        }
    }

    fn shown_interfaces(&self) -> BTreeMap<LinkName, Interface> {
        let mut shown = self.interfaces.clone();
        for (name, link) in &self.ours.links {
            let addresses = self.ours.addresses.iter().filter(|a| a.link == *name);
            let interface = Interface {
                index: self.indices.get(name).copied().unwrap_or(0),
                kind: link.kind.as_str().to_owned(),
                alias: ALIAS.to_owned(),
                up: link.up,
                carrier: link.up,
                mtu: link.mtu,
                mac: link.mac(),
                tunnel: Some(link.id()),
                ends: None,
                forwards: self.forwarding.ipv4,
                addresses: addresses
                    .map(|a| InterfaceAddress { address: a.address, unfit: false, local_scope: false })
                    .collect(),
            };
            shown.insert(name.clone(), interface);
        }
        shown
    }

    /// Deletes a device; VXLAN tunnels over it go with it.
    pub(super) fn remove_interface(&mut self, link: &LinkName) {
        let tunnels: Vec<LinkName> = self
            .ours
            .links
            .iter()
            .filter(|(name, tunnel)| tunnel.vxlan().is_some_and(|v| v.underlay == *link) && *name != link)
            .map(|(name, _)| name.clone())
            .collect();
        for tunnel in tunnels {
            self.remove_interface(&tunnel);
        }
        self.lose_foreign_routes(link);
        self.interfaces.remove(link);
        self.indices.remove(link);
        self.announced_mtu.remove(link);
        let foreign: BTreeSet<IpAddr> = self
            .interfaces
            .values()
            .flat_map(|interface| interface.addresses.iter().map(|a| a.address.addr()))
            .collect();
        effects::link_deleted(&mut self.ours, link, &|ip| foreign.contains(&ip));
    }

    /// Renames a device: what hangs on it stays on it.
    pub(super) fn rename_interface(&mut self, from: &LinkName, to: &LinkName) {
        let rename = |link: &mut LinkName| {
            if link == from {
                *link = to.clone();
            }
        };
        move_key(&mut self.interfaces, from, to);
        move_key(&mut self.indices, from, to);
        move_key(&mut self.announced_mtu, from, to);
        let ours = &mut self.ours;
        move_key(&mut ours.links, from, to);
        move_key(&mut ours.rp_filter, from, to);
        ours.links
            .values_mut()
            .filter_map(TunnelLink::vxlan_mut)
            .for_each(|vxlan| rename(&mut vxlan.underlay));
        ours.nexthops.values_mut().for_each(|nexthop| rename(&mut nexthop.link));
        ours.addresses = std::mem::take(&mut ours.addresses)
            .into_iter()
            .map(|mut address: Address| {
                rename(&mut address.link);
                address
            })
            .collect();
        ours.neighbors = std::mem::take(&mut ours.neighbors)
            .into_iter()
            .map(|(mut key, mac)| {
                rename(&mut key.link);
                (key, mac)
            })
            .collect();
        ours.fdb = std::mem::take(&mut ours.fdb)
            .into_iter()
            .map(|(mut key, remote)| {
                rename(&mut key.link);
                (key, remote)
            })
            .collect();
        self.routes.values_mut().filter_map(|route| route.link.as_mut()).for_each(rename);
    }

    pub(super) fn set_up(&mut self, link: &LinkName, up: bool) {
        // What came onto a device while it was down stays when it is set down again.
        if self.device(link).is_none_or(|device| device.up == up) {
            return;
        }
        if let Some(interface) = self.interfaces.get_mut(link) {
            interface.up = up;
            interface.carrier = up;
            if !up {
                // IPv6 addresses go with the link; a real underlay gets them back from whoever configured them.
                interface.addresses.retain(|a| a.address.addr().is_ipv4());
                self.lose_foreign_routes(link);
            }
        }
        if let Some(device) = self.ours.links.get_mut(link) {
            device.up = up;
        }
        if !up {
            effects::link_down(&mut self.ours, link);
        }
    }

    /// Tells IPv6 of the new MTU of a device.
    pub(super) fn announce_mtu(&mut self, link: &LinkName, mtu: u32) {
        let known = self.announced_mtu.get(link).copied();
        if let Some(old) = known.or_else(|| self.device(link).map(|device| device.mtu)) {
            effects::mtu_changed(&mut self.ours, link, old, mtu);
            self.announced_mtu.insert(link.clone(), mtu);
        }
    }

    fn lose_foreign_routes(&mut self, link: &LinkName) {
        self.routes.retain(|_, route| route.link.as_ref() != Some(link));
    }

    /// The best of our routes and the connected networks of `main` for an address: its device, if it leads to one.
    pub(super) fn lookup(&self, ip: IpAddr) -> Option<Option<&LinkName>> {
        let ours = self.ours.routes.iter().filter(|(key, _)| key.table == MAIN).map(|(key, route)| {
            let link = match route.target {
                RouteTarget::Nexthop(id) => self.ours.nexthops.get(&id).map(|nexthop| &nexthop.link),
                RouteTarget::Unreachable | RouteTarget::Other => None,
            };
            (key.prefix, key.metric, link)
        });
        let connected = self
            .addresses()
            .filter(|(link, _)| self.device(link).is_some_and(|device| device.up))
            .map(|(link, address)| (address.trunc(), 0, Some(link)));
        ours.chain(connected)
            .filter(|(prefix, _, _)| prefix.contains(&ip) && prefix.prefix_len() > 0)
            .max_by_key(|(prefix, metric, _)| (prefix.prefix_len(), std::cmp::Reverse(*metric)))
            .map(|(_, _, link)| link)
    }

    pub(super) fn insert_route(&mut self, key: RouteKey, route: &Route) {
        self.ours.routes.insert(key, route.clone());
    }
}

fn move_key<V>(map: &mut BTreeMap<LinkName, V>, from: &LinkName, to: &LinkName) {
    if let Some(value) = map.remove(from) {
        map.insert(to.clone(), value);
    }
}
