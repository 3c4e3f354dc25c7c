//! The rules of the kernel: what it accepts, with which error number it refuses, and what follows.

use std::net::{IpAddr, Ipv6Addr};

use crate::diff::{Change, SetChange};
use crate::effects;
use crate::firewall::SetKey;
use crate::state::{
    Address, FdbKey, Gateway, IpTunnel, LinkName, NeighborKey, Nexthop, NexthopId, Route, RouteKey,
    RouteTarget, Settings, TunnelKind, TunnelLink, Vxlan,
};

use super::errno::{
    EADDRNOTAVAIL, EAFNOSUPPORT, EEXIST, EHOSTUNREACH, EINVAL, ENETDOWN, ENETUNREACH, ENODEV, ENOENT, ENXIO,
    EOPNOTSUPP, EPERM, EPROTONOSUPPORT, ERANGE, ESRCH,
};
use super::world::{Device, World};

/// The smallest MTU of an Ethernet device (`ETH_MIN_MTU`).
const ETH_MIN_MTU: u32 = 68;
/// The largest IP packet.
const IP_MAX_MTU: u32 = 0xfff8;

type Answer = Result<(), i32>;

impl World {
    pub(super) fn apply(&mut self, change: &Change) -> Answer {
        match change {
            Change::AddLink(name, link) => self.add_link(name, link),
            Change::SetLink(name, link) => self.set_link(name, link),
            Change::DeleteLink(name) => self.delete_link(name),
            Change::SetRpFilter(name, value) => self.write_rp_filter(name, *value),
            Change::AddAddress(address) => self.add_address(address),
            Change::DeleteAddress(address) => self.delete_address(address),
            Change::SetNeighbor(key, mac) => {
                self.check_neighbor(key)?;
                self.ours.neighbors.insert(key.clone(), *mac);
                Ok(())
            }
            Change::DeleteNeighbor(key) => {
                self.our_device(&key.link)?;
                self.ours.neighbors.remove(key).map(drop).ok_or(ENOENT)
            }
            Change::SetFdb(key, remote) => self.set_fdb(key, *remote),
            Change::DeleteFdb(key) => {
                self.our_device(&key.link)?;
                if self.ours.links.get(&key.link).is_some_and(|link| link.vxlan().is_none()) {
                    return Err(EINVAL);
                }
                self.ours.fdb.remove(key).map(drop).ok_or(ENOENT)
            }
            Change::AddNexthop(id, nexthop) => self.add_nexthop(*id, nexthop),
            Change::SetNexthop(id, nexthop) => self.set_nexthop(*id, nexthop),
            Change::DeleteNexthop(id) => self.delete_nexthop(*id),
            Change::AddRoute(key, route) => self.add_route(key.normalised(), route),
            Change::SetRoute(key, route) => self.set_route(key.normalised(), route),
            Change::DeleteRoute(key) => self.delete_route(key.normalised()),
            Change::AddRule(rule) => self.ours.rules.insert(*rule).then_some(()).ok_or(EEXIST),
            Change::DeleteRule(rule) => self.ours.rules.remove(rule).then_some(()).ok_or(ENOENT),
            Change::SetFirewall(table) => {
                self.netfilter_answers()?;
                self.ours.firewall = Some(table.clone());
                Ok(())
            }
            Change::ChangeSets(changes) => self.change_sets(changes),
            Change::DeleteFirewall => {
                self.netfilter_answers()?;
                self.ours.firewall.take().map(drop).ok_or(ENOENT)
            }
        }
    }

    /// The first of the requests that a change of a device is made of; of other changes nothing.
    pub(super) fn half(&mut self, change: &Change) {
        if let Change::SetLink(name, link) = change {
            let settings = self.ours.links.get(name).map(|now| now.settings);
            let kept = self.ours.links.get(name).is_some_and(|now| now.up);
            let done = self.set_link(name, &TunnelLink { up: kept, ..link.clone() });
            if let (Ok(()), Some(now), Some(settings)) = (done, self.ours.links.get_mut(name), settings) {
                now.settings = settings;
            }
        }
    }

    fn netfilter_answers(&self) -> Answer {
        if self.netfilter.unavailable.is_some() {
            return Err(EPROTONOSUPPORT);
        }
        if self.netfilter.foreign_table { Err(EPERM) } else { Ok(()) }
    }

    /// A transaction: all of it, or nothing. Adding what is there is no error, removing what is not is one.
    fn change_sets(&mut self, changes: &[SetChange]) -> Answer {
        self.netfilter_answers()?;
        let mut table = self.ours.firewall.clone();
        for change in changes.iter().filter(|change| !change.add.is_empty() || !change.remove.is_empty()) {
            let set = table.as_mut().and_then(|table| table.sets.get_mut(&change.set)).ok_or(ENOENT)?;
            for element in &change.add {
                if set.key != SetKey::of(*element) {
                    return Err(EINVAL);
                }
                set.elements.insert(*element);
            }
            for element in &change.remove {
                if set.key != SetKey::of(*element) {
                    return Err(EINVAL);
                }
                if !set.elements.remove(element) {
                    return Err(ENOENT);
                }
            }
        }
        self.ours.firewall = table;
        Ok(())
    }

    /// A device that carries our mark; on others nothing is changed but `rp_filter`.
    fn our_device(&self, name: &LinkName) -> Result<Device, i32> {
        let device = self.device(name).ok_or(ENODEV)?;
        if self.ours.links.contains_key(name) { Ok(device) } else { Err(EPERM) }
    }

    fn add_link(&mut self, name: &LinkName, link: &TunnelLink) -> Answer {
        if matches!(&link.kind, TunnelKind::Ip(kind) if self.lacking.contains(kind)) {
            return Err(EOPNOTSUPP);
        }
        let largest = self.largest_mtu(link)?;
        if self.device(name).is_some() {
            return Err(EEXIST);
        }
        if self.claimed(link, name) {
            return Err(EEXIST);
        }
        let mtu = match link.kind {
            // At creation a large MTU is cut without a word.
            TunnelKind::Vxlan(_) => link.mtu.min(largest),
            TunnelKind::Ip(_) if (smallest_mtu(link)..=largest).contains(&link.mtu) => link.mtu,
            TunnelKind::Ip(_) => return Err(EINVAL),
        };
        let index = self.next_index();
        self.indices.insert(name.clone(), index);
        self.announced_mtu.insert(name.clone(), mtu);
        self.ours.links.insert(name.clone(), TunnelLink { mtu, settings: Settings::Ours, ..link.clone() });
        self.ours.rp_filter.insert(name.clone(), 0);
        Ok(())
    }

    /// Whether another device has what this one claims for itself alone.
    fn claimed(&self, link: &TunnelLink, name: &LinkName) -> bool {
        let id = link.id();
        self.interfaces.values().any(|interface| interface.tunnel == Some(id))
            || self.ours.links.iter().any(|(other, link)| other != name && link.id() == id)
    }

    /// In the order in which the kernel goes through a request; what came before an error stays.
    fn set_link(&mut self, name: &LinkName, link: &TunnelLink) -> Answer {
        self.our_device(name)?;
        let now = self.ours.links.get(name).ok_or(ENODEV)?.clone();
        if !now.can_become(link) {
            return Err(EOPNOTSUPP);
        }
        let largest = self.largest_mtu(link)?;
        if now.id() != link.id() && self.claimed(link, name) {
            return Err(EEXIST);
        }
        // With its underlay changed, a device gets its MTU cut without a word, not even to IPv6.
        let moved = now.vxlan().map(|v| &v.underlay) != link.vxlan().map(|v| &v.underlay);
        let cut = if moved { now.mtu.min(largest) } else { now.mtu };
        let mut new = TunnelLink { mtu: cut, up: now.up, settings: Settings::Ours, ..link.clone() };
        if now.mac() != link.mac() {
            effects::mac_changed(&mut self.ours, name);
        }
        let fits = link.mtu == cut || (smallest_mtu(link)..=largest).contains(&link.mtu);
        if fits {
            if link.mtu != cut {
                self.announce_mtu(name, link.mtu);
                new.mtu = link.mtu;
            }
            new.up = link.up;
            if now.up && !link.up {
                effects::link_down(&mut self.ours, name);
            }
        }
        self.ours.links.insert(name.clone(), new);
        fits.then_some(()).ok_or(EINVAL)
    }

    fn delete_link(&mut self, name: &LinkName) -> Answer {
        self.our_device(name)?;
        self.remove_interface(name);
        Ok(())
    }

    fn write_rp_filter(&mut self, name: &LinkName, value: u8) -> Answer {
        self.device(name).ok_or(ENODEV)?;
        self.ours.rp_filter.insert(name.clone(), value);
        Ok(())
    }

    fn add_address(&mut self, address: &Address) -> Answer {
        let device = self.our_device(&address.link)?;
        if address.address.addr().is_ipv6() && device.mtu < effects::IPV6_MIN_MTU {
            return Err(EINVAL);
        }
        if self.addresses().any(|(link, other)| *link == address.link && other == address.address) {
            return Err(EEXIST);
        }
        self.ours.addresses.insert(address.clone());
        Ok(())
    }

    fn delete_address(&mut self, address: &Address) -> Answer {
        let device = self.our_device(&address.link)?;
        if address.address.addr().is_ipv6() && device.mtu < effects::IPV6_MIN_MTU {
            return Err(ENXIO);
        }
        if !self.ours.addresses.contains(address) {
            return Err(EADDRNOTAVAIL);
        }
        let ip = address.address.addr();
        let elsewhere = self.interfaces.values().any(|i| i.addresses.iter().any(|a| a.address.addr() == ip));
        effects::address_deleted(&mut self.ours, address, &|_| elsewhere);
        Ok(())
    }

    fn check_neighbor(&self, key: &NeighborKey) -> Answer {
        let device = self.our_device(&key.link)?;
        if key.address.is_ipv6() && device.mtu < effects::IPV6_MIN_MTU {
            return Err(EINVAL);
        }
        Ok(())
    }

    /// The largest MTU of a tunnel: of VXLAN what fits its underlay (`vxlan_config_apply`), else what IP can have.
    fn largest_mtu(&self, link: &TunnelLink) -> Result<u32, i32> {
        let overhead = link.kind.overhead(link.local);
        Ok(match &link.kind {
            TunnelKind::Vxlan(Vxlan { underlay, .. }) => {
                self.device(underlay).ok_or(ENODEV)?.mtu.saturating_sub(overhead).max(ETH_MIN_MTU)
            }
            TunnelKind::Ip(_) => IP_MAX_MTU - overhead,
        })
    }

    fn set_fdb(&mut self, key: &FdbKey, remote: IpAddr) -> Answer {
        self.our_device(&key.link)?;
        let device = self.ours.links.get(&key.link).ok_or(ENODEV)?;
        if device.vxlan().is_none() {
            return Err(EINVAL);
        }
        if device.local.is_ipv4() != remote.is_ipv4() {
            return Err(EAFNOSUPPORT);
        }
        self.ours.fdb.insert(key.clone(), remote);
        Ok(())
    }

    fn add_nexthop(&mut self, id: NexthopId, nexthop: &Nexthop) -> Answer {
        self.check_nexthop(nexthop)?;
        if self.ours.nexthops.contains_key(&id) || self.nexthops.contains(&id) {
            return Err(EEXIST);
        }
        self.ours.nexthops.insert(id, nexthop.clone());
        Ok(())
    }

    fn set_nexthop(&mut self, id: NexthopId, nexthop: &Nexthop) -> Answer {
        self.check_nexthop(nexthop)?;
        // The kernel lets anyone replace anyone's: the diff must not.
        if self.nexthops.remove(&id) {
            self.ours.nexthops.insert(id, nexthop.clone());
            return Ok(());
        }
        if !self.ours.nexthops.contains_key(&id) {
            return Err(ENOENT);
        }
        let carries_ipv6 = self
            .ours
            .routes
            .iter()
            .any(|(key, route)| route.target == RouteTarget::Nexthop(id) && key.prefix.addr().is_ipv6());
        if carries_ipv6 && nexthop.gateway.address.is_ipv4() {
            return Err(EINVAL);
        }
        self.ours.nexthops.insert(id, nexthop.clone());
        Ok(())
    }

    fn delete_nexthop(&mut self, id: NexthopId) -> Answer {
        if !self.ours.nexthops.contains_key(&id) && !self.nexthops.remove(&id) {
            return Err(ENOENT);
        }
        effects::nexthop_deleted(&mut self.ours, id);
        Ok(())
    }

    /// `rtm_to_nh_config`, `fib_check_nh`, `fib6_nh_init`.
    fn check_nexthop(&self, nexthop: &Nexthop) -> Answer {
        let device = self.device(&nexthop.link).ok_or(ENODEV)?;
        if !device.up || !device.carrier {
            return Err(ENETDOWN);
        }
        match nexthop.gateway {
            Gateway { address: IpAddr::V4(_), onlink } => self.check_gateway4(nexthop, onlink),
            Gateway { address: IpAddr::V6(ip), onlink } => self.check_gateway6(ip, nexthop, onlink, device),
        }
    }

    fn check_gateway4(&self, nexthop: &Nexthop, onlink: bool) -> Answer {
        let gateway = nexthop.gateway.address;
        if gateway.is_multicast() || gateway.is_unspecified() {
            return Err(EINVAL);
        }
        // With onlink every device's addresses are looked at, else those of the device itself.
        let broadcast = self.addresses().any(|(link, a)| {
            let broadcast = a.prefix_len() < 31 && a.broadcast() == gateway;
            broadcast
                && (onlink || *link == nexthop.link)
                && self.device(link).is_some_and(|device| device.up)
        });
        if broadcast || onlink && self.is_local(gateway) {
            return Err(EINVAL);
        }
        if onlink || self.addresses().any(|(link, a)| *link == nexthop.link && a.contains(&gateway)) {
            return Ok(());
        }
        // A route through a gateway, and an unreachable one, can't lead to a gateway.
        Err(ENETUNREACH)
    }

    fn check_gateway6(&self, ip: Ipv6Addr, nexthop: &Nexthop, onlink: bool, device: Device) -> Answer {
        if device.mtu < effects::IPV6_MIN_MTU {
            return Err(ENODEV);
        }
        if ip.is_multicast() || ip.is_unspecified() || self.is_local(IpAddr::V6(ip)) {
            return Err(EINVAL);
        }
        if ip.is_unicast_link_local() {
            return Ok(());
        }
        let found = self.lookup(IpAddr::V6(ip));
        if onlink {
            // A gateway inside of a block that is routed over another device is refused, even with onlink.
            return match found.flatten() {
                Some(link) if *link != nexthop.link => Err(EINVAL),
                Some(_) | None => Ok(()),
            };
        }
        let connected = self
            .addresses()
            .any(|(link, address)| *link == nexthop.link && address.contains(&IpAddr::V6(ip)));
        if connected { Ok(()) } else { Err(EHOSTUNREACH) }
    }

    fn add_route(&mut self, key: RouteKey, route: &Route) -> Answer {
        self.check_route(key, route)?;
        if self.ours.routes.contains_key(&key) || self.foreign_route(&key) {
            return Err(EEXIST);
        }
        self.insert_route(key, route);
        Ok(())
    }

    fn set_route(&mut self, key: RouteKey, route: &Route) -> Answer {
        self.check_route(key, route)?;
        // A replace takes a foreign route of the same key without asking, if it comes before ours: the diff must not.
        if self.routes.remove(&key).is_none() && !self.ours.routes.contains_key(&key) {
            return Err(ENOENT);
        }
        self.insert_route(key, route);
        Ok(())
    }

    fn delete_route(&mut self, key: RouteKey) -> Answer {
        // To a deletion in IPv4 a metric of 0 is any: the best of the prefix goes.
        let any = key.metric == 0;
        let last = RouteKey { metric: if any { u32::MAX } else { key.metric }, ..key };
        let found = self.ours.routes.range(key..=last).next().map(|(found, _)| *found);
        found.and_then(|found| self.ours.routes.remove(&found)).map(drop).ok_or(ESRCH)
    }

    fn check_route(&self, key: RouteKey, route: &Route) -> Answer {
        let ipv6 = key.prefix.addr().is_ipv6();
        if ipv6 && route.source.is_some_and(|source| source.is_ipv4()) {
            return Err(ERANGE);
        }
        match route.target {
            RouteTarget::Nexthop(id) => match self.ours.nexthops.get(&id) {
                Some(nexthop) if ipv6 && nexthop.gateway.address.is_ipv4() => return Err(EINVAL),
                None if !self.nexthops.contains(&id) => return Err(EINVAL),
                Some(_) | None => {}
            },
            RouteTarget::Unreachable => {}
            RouteTarget::Other => return Err(EINVAL),
        }
        let foreign = |source: IpAddr| source.is_ipv6() != ipv6 || !self.is_local(source);
        if route.source.is_some_and(foreign) { Err(EINVAL) } else { Ok(()) }
    }
}

/// The smallest MTU of a tunnel: that of Ethernet, of IPv6 for what carries only IPv6.
fn smallest_mtu(link: &TunnelLink) -> u32 {
    match link.kind {
        TunnelKind::Ip(IpTunnel::Sit) => effects::IPV6_MIN_MTU,
        TunnelKind::Ip(IpTunnel::Ipip) | TunnelKind::Vxlan(_) => ETH_MIN_MTU,
    }
}
