//! A complete look at the kernel.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::effects::MAIN;
use crate::reconcile::ObserveError;
use crate::state::{
    Address, FdbKey, InstalledRoute, Interface, LinkName, Mac, Marks, NeighborKey, Nexthop, Observed,
    Settings,
};
use crate::watched::Watched;

use super::channel::Channel;
use super::link::{Link, RTM_GETLINK, RTM_NEWLINK, Tunnel};
use super::neighbor::Entry;
use super::{address, link, neighbor, netconf, nexthop, route, rule};

/// All devices of the namespace by index.
pub(super) fn links(channel: &mut Channel) -> io::Result<BTreeMap<u32, Link>> {
    let mut links = BTreeMap::new();
    channel.dump(RTM_GETLINK, &link::dump(), |kind, body| {
        // Bridges describe their ports in messages of their own family.
        if kind == RTM_NEWLINK && link::family(body) == Some(0) {
            links.extend(link::decode(body).map(|link| (link.index, link)));
        }
    })?;
    Ok(links)
}

/// Whether a device is ours: a tunnel device with our alias, whatever its name.
pub(super) fn is_ours(link: &Link, marks: &Marks) -> bool {
    link.tunnel.is_some() && !marks.ifalias.is_empty() && link.alias == marks.ifalias
}

/// Everything, in the order in which it leans on each other. `sysctl`: whether files of `/proc/sys` can be written.
pub(super) fn observe(
    channel: &mut Channel,
    marks: &Marks,
    watched: &[IpNet],
    sysctl: bool,
) -> Result<Observed, ObserveError> {
    let failed = |what: &'static str| move |source: io::Error| ObserveError { what, source };
    let links = links(channel).map_err(failed("devices"))?;
    let (neighbors, fdb) = (Vec::new(), Vec::new());
    let mut look = Look { links, marks, sysctl, seen: Observed::default(), neighbors, fdb };
    look.take_links();
    look.addresses(channel).map_err(failed("addresses"))?;
    look.neighbors(channel).map_err(failed("neighbours"))?;
    look.nexthops(channel).map_err(failed("nexthops"))?;
    look.routes(channel, watched).map_err(failed("routes"))?;
    look.rules(channel).map_err(failed("rules"))?;
    look.settings(channel).map_err(failed("net.ipv4.conf.all and net.ipv6.conf.all"))?;
    look.forwarding_of_ours();
    Ok(look.seen)
}

/// The settings of a family that hold for all devices.
fn settings_of_all(channel: &mut Channel, family: i32) -> io::Result<Vec<u8>> {
    let (kind, body) = channel.ask(&netconf::get_all(u8::try_from(family).unwrap_or(0)))?;
    if kind == netconf::RTM_NEWNETCONF {
        Ok(body)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer holds no settings"))
    }
}

struct Look<'a> {
    links: BTreeMap<u32, Link>,
    marks: &'a Marks,
    sysctl: bool,
    seen: Observed,
    /// What becomes large maps, which are made in one go: quicker than to insert each entry, and none is half empty.
    neighbors: Vec<(NeighborKey, Mac)>,
    fdb: Vec<(FdbKey, IpAddr)>,
}

impl Look<'_> {
    /// The name of a device; one that came since the look at devices has its number for a name.
    fn name(&self, index: u32) -> Option<LinkName> {
        self.links
            .get(&index)
            .map_or_else(|| format!("if{index}").parse().ok(), |link| Some(link.name.clone()))
    }

    fn ours(&self, index: u32) -> Option<&LinkName> {
        self.links.get(&index).filter(|link| is_ours(link, self.marks)).map(|link| &link.name)
    }

    fn take_links(&mut self) {
        for link in self.links.values() {
            let interface = Interface {
                index: link.index,
                kind: link.kind.clone(),
                alias: link.alias.clone(),
                up: link.up,
                carrier: link.carrier,
                mtu: link.mtu,
                mac: link.mac,
                tunnel: link.id(),
                ends: link.ends(),
                forwards: link.forwards,
                addresses: Vec::new(),
            };
            self.seen.interfaces.insert(link.name.clone(), interface);
            if let Some(value) = link.rp_filter {
                self.seen.ours.rp_filter.insert(link.name.clone(), value);
            }
            let device = link.as_ours(|index| self.name(index), self.sysctl);
            if let (true, Some(device)) = (is_ours(link, self.marks), device) {
                self.seen.ours.links.insert(link.name.clone(), device);
            }
        }
    }

    /// A device of ours that does not forward, though the kernel does, drops what comes by it for pods: it was made while
    /// `net.ipv4.conf.default.forwarding` was 0, or somebody switched it off. (For IPv6 the setting for all decides.)
    fn forwarding_of_ours(&mut self) {
        if self.seen.forwarding.ipv4 != Some(true) {
            return;
        }
        for link in self.links.values().filter(|link| link.forwards == Some(false)) {
            if let Some(device) = self.seen.ours.links.get_mut(&link.name) {
                device.settings = device.settings.max(Settings::Bent);
            }
        }
    }

    fn addresses(&mut self, channel: &mut Channel) -> io::Result<()> {
        channel.dump(address::RTM_GETADDR, &[0; address::HEADER], |kind, body| {
            let Some((index, found)) = address::decode(body).filter(|_| kind == address::RTM_NEWADDR) else {
                return;
            };
            let Some(link) = self.links.get(&index) else { return };
            // A link-local address on a device of ours is the kernel's or an operator's.
            if is_ours(link, self.marks) && !found.local_scope && !made_by_sit(link, found.address) {
                let address = Address { link: link.name.clone(), address: found.address };
                self.seen.ours.addresses.insert(address);
            }
            if let Some(interface) = self.seen.interfaces.get_mut(&link.name) {
                interface.addresses.push(found);
            }
        })
    }

    fn neighbors(&mut self, channel: &mut Channel) -> io::Result<()> {
        // An IP tunnel has none.
        let ours = |link: &&Link| is_ours(link, self.marks) && matches!(link.tunnel, Some(Tunnel::Vxlan(_)));
        let ours: Vec<u32> = self.links.values().filter(ours).map(|link| link.index).collect();
        for index in ours {
            for family in neighbor::FAMILIES {
                let dumped =
                    channel.dump(neighbor::RTM_GETNEIGH, &neighbor::dump(family, index), |kind, body| {
                        if kind == neighbor::RTM_NEWNEIGH {
                            self.take_neighbor(neighbor::decode(body));
                        }
                    });
                match dumped {
                    // The device went since the look at devices.
                    Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                    other => other?,
                }
            }
        }
        self.seen.ours.neighbors = std::mem::take(&mut self.neighbors).into_iter().collect();
        self.seen.ours.fdb = std::mem::take(&mut self.fdb).into_iter().collect();
        Ok(())
    }

    fn take_neighbor(&mut self, entry: Option<Entry>) {
        match entry {
            Some(Entry::Neighbor { index, address, mac, protocol })
                if protocol == self.marks.route_protocol =>
            {
                if let Some(link) = self.ours(index).cloned() {
                    self.neighbors.push((NeighborKey { link, address }, mac));
                }
            }
            Some(Entry::Fdb { index, mac, remote }) => {
                if let Some(link) = self.ours(index).cloned() {
                    self.fdb.push((FdbKey { link, mac }, remote));
                }
            }
            Some(Entry::Neighbor { .. }) | None => {}
        }
    }

    fn nexthops(&mut self, channel: &mut Channel) -> io::Result<()> {
        let mut nexthops = Vec::new();
        channel.dump(nexthop::RTM_GETNEXTHOP, &[0; nexthop::HEADER], |kind, body| {
            let found = nexthop::decode(body).filter(|_| kind == nexthop::RTM_NEWNEXTHOP);
            let Some(object) = found.filter(|object| self.marks.owns_nexthop(object.id)) else { return };
            let ours = object.plain.filter(|_| object.protocol == self.marks.route_protocol);
            let nexthop =
                ours.and_then(|(gateway, index)| self.name(index).map(|link| Nexthop { gateway, link }));
            match nexthop {
                Some(nexthop) => nexthops.push((object.id, nexthop)),
                None => drop(self.seen.foreign_nexthops.insert(object.id)),
            }
        })?;
        self.seen.ours.nexthops = nexthops.into_iter().collect();
        Ok(())
    }

    fn routes(&mut self, channel: &mut Channel, watched: &[IpNet]) -> io::Result<()> {
        let watched = Watched::new(watched.iter().copied());
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut body = [0; route::HEADER];
            body[0] = u8::try_from(family).unwrap_or(0);
            absent_ipv6(family, self.routes_of(channel, &body, &watched))?;
        }
        self.seen.default_routes.sort_by_key(|route| (route.key.prefix, route.key.metric));
        self.seen.foreign_routes.sort_by_key(|route| route.key);
        Ok(())
    }

    /// First ours, so that a route of others that stands beside one of them is seen, be its prefix watched or not.
    fn routes_of(&mut self, channel: &mut Channel, body: &[u8], watched: &Watched) -> io::Result<()> {
        let dump = channel.read_dump(route::RTM_GETROUTE, body)?;
        let routes = |ours: bool| {
            let protocol = self.marks.route_protocol;
            let dumped = dump.messages().filter(|(kind, _)| *kind == route::RTM_NEWROUTE);
            dumped.map(|(_, body)| body).filter(move |body| (route::protocol(body) == Some(protocol)) == ours)
        };
        let ours = routes(true).filter_map(route::decode).map(|found| (found.key, found.route));
        self.seen.ours.routes.append(&mut ours.collect());
        for found in routes(false).filter_map(route::decode) {
            self.take_foreign_route(found, watched);
        }
        Ok(())
    }

    fn take_foreign_route(&mut self, found: route::Installed, watched: &Watched) {
        let default = found.key.prefix.prefix_len() == 0;
        let in_main = found.key.table == MAIN;
        let in_the_way =
            watched.touched_by(&found.key.prefix) || self.seen.ours.routes.contains_key(&found.key);
        // A route that sends on to the next rule is none in a table that only rules lead to.
        if !(in_the_way || default && in_main && found.unicast) || found.throws && !in_main {
            return;
        }
        let route = InstalledRoute {
            key: found.key,
            protocol: found.protocol,
            link: found.link.and_then(|index| self.name(index)),
            gateway: found.gateway,
        };
        if default && in_main {
            self.seen.default_routes.push(route);
        } else {
            self.seen.foreign_routes.push(route);
        }
    }

    fn settings(&mut self, channel: &mut Channel) -> io::Result<()> {
        let ipv4 = settings_of_all(channel, libc::AF_INET)?;
        self.seen.rp_filter_all = netconf::rp_filter(&ipv4).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer holds no rp_filter")
        })?;
        self.seen.forwarding.ipv4 = netconf::forwarding(&ipv4);
        let ipv6 = settings_of_all(channel, libc::AF_INET6).map(|ipv6| {
            self.seen.forwarding.ipv6 = netconf::forwarding(&ipv6);
        });
        absent_ipv6(libc::AF_INET6, ipv6)
    }

    fn rules(&mut self, channel: &mut Channel) -> io::Result<()> {
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut body = [0; rule::HEADER];
            body[0] = u8::try_from(family).unwrap_or(0);
            let dumped = channel.dump(rule::RTM_GETRULE, &body, |kind, body| {
                let found = rule::decode(body).filter(|_| kind == rule::RTM_NEWRULE);
                match found.filter(|(_, protocol)| *protocol == self.marks.route_protocol) {
                    Some((rule, _)) => drop(self.seen.ours.rules.insert(rule)),
                    None if kind == rule::RTM_NEWRULE => {
                        self.seen.foreign_rules.extend(rule::decode_foreign(body));
                    }
                    None => {}
                }
            });
            absent_ipv6(family, dumped)?;
        }
        Ok(())
    }
}

/// The kernel gives a tunnel of IPv6 in IPv4 its IPv4 address as an IPv6 one (`add_v4_addrs`), whatever `addrgenmode` says.
fn made_by_sit(link: &Link, address: IpNet) -> bool {
    let compatible = |ip: Ipv6Addr| ip.octets().iter().take(12).all(|byte| *byte == 0);
    link.kind == "sit"
        && matches!(address, IpNet::V6(net) if net.prefix_len() == 96 && compatible(net.addr()))
}

/// A kernel without IPv6 has nothing to show of it.
fn absent_ipv6(family: i32, dumped: io::Result<()>) -> io::Result<()> {
    match dumped {
        Err(error)
            if family == libc::AF_INET6
                && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) =>
        {
            Ok(())
        }
        other => other,
    }
}
