//! The routes that everybody programs, and the same as a wanted state.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use vxlan::netlink::Kernel;
use vxlan::{
    Dataplane, Gateway, LinkName, Marks, Nexthop, NexthopId, Observed, Report, Route, RouteKey, RouteTarget,
    State, reconcile,
};

use super::BenchError;
use super::namespace::UNDERLAY;

pub(super) const PROTOCOL: u8 = 112;
pub(super) const METRIC: u32 = 1120;
pub(super) const FIRST_ID: u32 = 0x7000_0000;
const MAIN_TABLE: u32 = 254;

/// A destination.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network {
    pub(super) address: Ipv4Addr,
    pub(super) length: u8,
}

/// So many blocks of 64 addresses from 10.0.0.0 on, each behind one of so many gateways.
#[derive(Debug, Clone, Copy)]
pub(super) struct Routes {
    pub(super) routes: u32,
    pub(super) gateways: u32,
}

impl Routes {
    pub(super) fn network(number: u32) -> Network {
        Network { address: Ipv4Addr::from(0x0a00_0000 + (number << 6)), length: 26 }
    }

    pub(super) fn gateway(number: u32) -> Ipv4Addr {
        Ipv4Addr::from(0xc0a8_0100 + number)
    }

    /// Each route's number and that of its gateway, by address.
    pub(super) fn ascending(self) -> impl Iterator<Item = (u32, u32)> {
        (0..self.routes).map(move |number| (number, number % self.gateways))
    }

    /// The same in an order that looks like chance, which the kernel likes best; the same in every run.
    pub(super) fn shuffled(self) -> impl Iterator<Item = (u32, u32)> {
        let bits = self.routes.next_power_of_two();
        // A multiplier that is 5 modulo 8 and an odd addend visit all numbers below a power of two.
        let mut at = 0u32;
        (0..bits).filter_map(move |_| {
            at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & (bits - 1);
            let number = at.reverse_bits() >> (32 - bits.trailing_zeros().max(1));
            (number < self.routes).then_some((number, number % self.gateways))
        })
    }

    /// What the data plane should make of it.
    pub(super) fn wanted(self) -> Result<State, BenchError> {
        let link = underlay()?;
        let mut state = State::default();
        for number in 0..self.gateways {
            let gateway = Gateway { address: Self::gateway(number).into(), onlink: false };
            state.nexthops.insert(id(number), Nexthop { gateway, link: link.clone() });
        }
        for (number, gateway) in self.ascending() {
            state.routes.insert(key(Self::network(number))?, via(id(gateway)));
        }
        Ok(state)
    }
}

pub(super) fn underlay() -> Result<LinkName, BenchError> {
    UNDERLAY.parse().map_err(|error| BenchError::Wrong(format!("{error}")))
}

pub(super) fn id(number: u32) -> NexthopId {
    NexthopId(FIRST_ID + number)
}

pub(super) fn via(id: NexthopId) -> Route {
    Route { target: RouteTarget::Nexthop(id), source: None, mtu: None }
}

pub(super) fn key(network: Network) -> Result<RouteKey, BenchError> {
    let prefix = Ipv4Net::new(network.address, network.length)
        .map_err(|error| BenchError::Wrong(format!("{network:?}: {error}")))?;
    Ok(RouteKey { table: MAIN_TABLE, prefix: IpNet::V4(prefix), metric: METRIC })
}

/// The marks of an agent with the default configuration.
pub(super) fn marks() -> Marks {
    Marks {
        route_protocol: PROTOCOL,
        ifalias: "pairway".to_owned(),
        nexthop_base: FIRST_ID,
        firewall_table: "pairway".to_owned(),
    }
}

/// The data plane of the namespace of the calling thread.
pub(super) fn kernel() -> Result<Kernel, BenchError> {
    Kernel::open(marks()).map_err(BenchError::system("open netlink"))
}

pub(super) fn observe(kernel: &mut Kernel) -> Result<Observed, BenchError> {
    kernel.observe(&[]).map_err(|error| BenchError::System { what: error.to_string(), source: error.source })
}

/// One pass: observe, diff, apply. Nothing may fail.
pub(super) fn pass(kernel: &mut Kernel, wanted: &State) -> Result<Report, BenchError> {
    let observed = observe(kernel)?;
    let report = reconcile(kernel, &observed, wanted);
    if let Some(failure) = report.failures.first() {
        return Err(BenchError::Wrong(format!("can't {}: {}", failure.change, failure.error)));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_shuffled_routes_are_the_routes() {
        for routes in [1, 2, 1000, 65_536] {
            let routes = Routes { routes, gateways: 7 };
            let ascending: BTreeSet<_> = routes.ascending().collect();
            let shuffled: Vec<_> = routes.shuffled().collect();
            assert_eq!(shuffled.len(), ascending.len());
            assert_eq!(shuffled.into_iter().collect::<BTreeSet<_>>(), ascending);
        }
    }
}
