//! Which of the node's own addresses is its underlay: pure, from what one look at the kernel found.
//!
//! At most one address per family, with the prefix length and the device that it stands on. An address that
//! may go away by itself (secondary, temporary, deprecated, tentative), one of link scope, one on a device of
//! ours, without carrier or down, and one out of a pool are never taken.

use bgp::Family;
use config::{Underlay as Wanted, UnderlaySelector};
use ipnet::IpNet;
use vxlan::{Interface, LinkName, Observed};

use crate::node::Underlay;

/// The node's own underlay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Local {
    /// Of IPv4.
    pub ipv4: Option<LocalAddress>,
    /// Of IPv6.
    pub ipv6: Option<LocalAddress>,
}

/// An address of the underlay and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAddress {
    /// Address and prefix length of the interface.
    pub address: IpNet,
    /// The device.
    pub link: LinkName,
    /// MTU of the device in bytes.
    pub mtu: u32,
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// The addresses found.
    pub local: Local,
    /// Why there is none of any family, and what to do; `None` if there is one.
    pub problem: Option<String>,
}

impl Local {
    /// The address of a family.
    #[must_use]
    pub fn of(&self, family: Family) -> Option<&LocalAddress> {
        match family {
            Family::Ipv4 => self.ipv4.as_ref(),
            Family::Ipv6 => self.ipv6.as_ref(),
        }
    }

    /// Sets the address of a family.
    pub fn set(&mut self, family: Family, address: Option<LocalAddress>) {
        match family {
            Family::Ipv4 => self.ipv4 = address,
            Family::Ipv6 => self.ipv6 = address,
        }
    }

    /// Both families are missing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ipv4.is_none() && self.ipv6.is_none()
    }

    /// As the node's record has it.
    #[must_use]
    pub fn underlay(&self) -> Underlay {
        let mut underlay = Underlay::default();
        for address in [&self.ipv4, &self.ipv6].into_iter().flatten() {
            match address.address {
                IpNet::V4(net) => underlay.ipv4 = Some(net),
                IpNet::V6(net) => underlay.ipv6 = Some(net),
            }
        }
        underlay
    }
}

/// Chooses the underlay. `previous` is what was chosen before under the same configuration: with `auto` it
/// stands as long as its address is fit, so that a second default route that comes and goes moves nothing.
#[must_use]
pub fn choose(wanted: &Wanted, pools: &[IpNet], observed: &Observed, previous: &Local) -> Choice {
    let view = View { observed, pools };
    let mut local = Local::default();
    for family in Family::ALL {
        local.set(
            family,
            match wanted {
                Wanted::Auto => view.still_fit(previous.of(family)).or_else(|| view.automatic(family)),
                Wanted::Select(selectors) => {
                    selectors.iter().find_map(|selector| view.selected(selector, family))
                }
            },
        );
    }
    let problem = local.is_empty().then(|| view.problem(wanted));
    Choice { local, problem }
}

struct View<'a> {
    observed: &'a Observed,
    pools: &'a [IpNet],
}

impl View<'_> {
    fn still_fit(&self, previous: Option<&LocalAddress>) -> Option<LocalAddress> {
        let previous = previous?;
        let found = self.on(&previous.link, Family::of(previous.address));
        found.into_iter().find(|found| found.address == previous.address)
    }

    /// On the device of this family's default route; without one, on the device of the other family's.
    fn automatic(&self, family: Family) -> Option<LocalAddress> {
        let routes = &self.observed.default_routes;
        let own = routes.iter().filter(|route| Family::of(route.key.prefix) == family);
        let others = routes.iter().filter(|route| Family::of(route.key.prefix) != family);
        own.chain(others)
            .filter_map(|route| route.link.as_ref())
            .find_map(|link| self.on(link, family).into_iter().next())
    }

    fn selected(&self, selector: &UnderlaySelector, family: Family) -> Option<LocalAddress> {
        match selector {
            UnderlaySelector::Interface(name) => {
                let link = name.parse().ok()?;
                self.on(&link, family).into_iter().next()
            }
            UnderlaySelector::Cidr(cidr) => self
                .observed
                .interfaces
                .keys()
                .flat_map(|link| self.on(link, family))
                .find(|found| cidr.contains(&found.address.addr())),
        }
    }

    /// The fit addresses of a family on a device.
    fn on(&self, link: &LinkName, family: Family) -> Vec<LocalAddress> {
        let Some(interface) = self.observed.interfaces.get(link) else { return Vec::new() };
        if !interface.up || !interface.carrier || self.observed.ours.links.contains_key(link) {
            return Vec::new();
        }
        interface
            .addresses
            .iter()
            .filter(|found| !found.unfit && !found.local_scope && Family::of(found.address) == family)
            .filter(|found| !self.pools.iter().any(|pool| pool.contains(&found.address.addr())))
            .map(|found| LocalAddress { address: found.address, link: link.clone(), mtu: interface.mtu })
            .collect()
    }

    fn problem(&self, wanted: &Wanted) -> String {
        let interfaces = &self.observed.interfaces;
        let list = self.candidates();
        match wanted {
            Wanted::Auto => match self.observed.default_routes.iter().find_map(|route| route.link.as_ref()) {
                None => format!(
                    "node.underlay is auto and there is no default route: wait for one, or set node.underlay to an interface: {list}"
                ),
                Some(link) => self.why_unfit(link),
            },
            Wanted::Select(selectors) => selectors
                .iter()
                .map(|selector| match selector {
                    UnderlaySelector::Interface(name) => match name.parse::<LinkName>() {
                        Ok(link) if interfaces.contains_key(&link) => self.why_unfit(&link),
                        Ok(_) | Err(_) => format!("there is no interface {name}: {list}"),
                    },
                    UnderlaySelector::Cidr(cidr) => format!("no fit address lies within {cidr}: {list}"),
                })
                .collect::<Vec<_>>()
                .join("; "),
        }
    }

    /// The interfaces that could serve, for people.
    fn candidates(&self) -> String {
        let serves = |link: &LinkName| Family::ALL.iter().any(|family| !self.on(link, *family).is_empty());
        let names: Vec<&str> =
            self.observed.interfaces.keys().filter(|link| serves(link)).map(LinkName::as_str).collect();
        if names.is_empty() {
            "no interface has a fit address now".to_owned()
        } else {
            format!("those with a fit address are {}", names.join(", "))
        }
    }

    fn why_unfit(&self, link: &LinkName) -> String {
        let found = self.observed.interfaces.get(link);
        if !found.is_some_and(|interface| interface.up) {
            return format!("interface {link} is down: set it up");
        }
        if !found.is_some_and(|interface| interface.carrier) {
            return format!("interface {link} has no carrier: look at its cable or its other end");
        }
        let addresses = found.map_or_else(String::new, listed);
        if addresses.is_empty() {
            format!("interface {link} has no address")
        } else {
            format!(
                "interface {link} has no fit address: {addresses} (secondary, temporary, deprecated, tentative, link-local and pool addresses are not used)"
            )
        }
    }
}

fn listed(interface: &Interface) -> String {
    let all: Vec<String> = interface.addresses.iter().map(|found| found.address.to_string()).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests;
