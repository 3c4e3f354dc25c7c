//! A peer changes from the tunnel to the native path and back.

use vxlan::{
    Address, Change, FdbKey, Gateway, LinkName, Mac, NeighborKey, Nexthop, Settings, State, TunnelKind,
    TunnelLink, Vni, Vxlan, reconcile,
};

use super::namespace::{UNDERLAY, within};
use super::programming::clear;
use super::report::{median, quantile, thousands};
use super::routes::{Routes, id, kernel, key, observe, pass, underlay, via};
use super::{BenchError, Row, Size, Unit, step};
use crate::eventually::timed;

const TUNNEL: &str = "pairway-vx4";
const OWN_TUNNEL: [u8; 4] = [172, 16, 0, 1];
const PEER_TUNNEL: [u8; 4] = [172, 16, 0, 2];
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

pub(super) fn measure(size: Size) -> Result<Vec<Row>, BenchError> {
    let (cases, switches): (&[u32], usize) = match size {
        Size::Smoke => (&[1, 100], 4),
        Size::Full => (&[1, 100, 10_000], 100),
    };
    cases.iter().map(|&blocks| case(blocks, switches)).collect()
}

/// What the switches of a case came to.
struct Switched {
    /// Changes of each, all of one kind: one netlink message each.
    messages: Vec<usize>,
    /// Seconds from the wanted state to the kernel's answer.
    whole: Vec<f64>,
    /// The same from an observation that is there already: diff, message, answer.
    message: Vec<f64>,
}

fn case(blocks: u32, switches: usize) -> Result<Row, BenchError> {
    let name = format!("{} blocks", thousands(blocks));
    let switched = step(format!("switching a peer with {name}"), || {
        let switched = within(|| switch(blocks, switches))?;
        let text = format!("{} messages at most", switched.messages.iter().max().unwrap_or(&0));
        Ok((switched, text))
    })?;
    let most = switched.messages.iter().copied().max().unwrap_or(0);
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    Ok(Row::new("switching a peer", name, switches)
        .with("messages", Unit::Count, f64::from(most))
        .with("diff and message", Unit::Seconds, median(&switched.message))
        .with("p99", Unit::Seconds, quantile(&switched.message, 0.99))
        .with("with a look at the kernel", Unit::Seconds, median(&switched.whole)))
}

fn switch(blocks: u32, switches: usize) -> Result<Switched, BenchError> {
    let forms = [peer(blocks, false)?, peer(blocks, true)?];
    let mut kernel = kernel()?;
    let _ = pass(&mut kernel, &forms[1])?;
    let mut switched = Switched { messages: Vec::new(), whole: Vec::new(), message: Vec::new() };
    for number in 0..switches {
        let wanted = &forms[number % 2];
        let (observed, look) = timed(|| observe(&mut kernel));
        let observed = observed?;
        let (report, took) = timed(|| reconcile(&mut kernel, &observed, wanted));
        if !report.failures.is_empty() || !matches!(report.applied.as_slice(), [Change::SetNexthop(..), ..]) {
            return Err(BenchError::Wrong(format!("a switch did {report:?}")));
        }
        switched.messages.push(report.applied.len());
        switched.message.push(took.as_secs_f64());
        switched.whole.push((look + took).as_secs_f64());
        every_route_has_moved(blocks, number % 2 == 1)?;
    }
    clear(Routes { routes: blocks, gateways: 1 })?;
    Ok(switched)
}

/// The kernel's own view: where it would send a packet for the first and the last block.
fn every_route_has_moved(blocks: u32, native: bool) -> Result<(), BenchError> {
    let device = if native { UNDERLAY } else { TUNNEL };
    for block in [0, blocks - 1] {
        let to = Routes::network(block).address;
        let said = super::namespace::ip(&format!("route get {to}"))?;
        if !said.contains(&format!("dev {device} ")) {
            return Err(BenchError::Wrong(format!("not over {device}: {said}")));
        }
    }
    Ok(())
}

/// A node with one peer.
fn peer(blocks: u32, native: bool) -> Result<State, BenchError> {
    let link: LinkName = TUNNEL.parse().map_err(|error| BenchError::Wrong(format!("{error}")))?;
    let mut state = State::default();
    let vxlan = Vxlan { vni: Vni(4096), port: 4789, underlay: underlay()?, mac: Mac([2, 0, 0, 0, 0, 1]) };
    let device = TunnelLink {
        kind: TunnelKind::Vxlan(vxlan),
        local: [192, 168, 0, 1].into(),
        mtu: 1450,
        up: true,
        settings: Settings::Ours,
    };
    let own = ipnet::Ipv4Net::from(std::net::Ipv4Addr::from(OWN_TUNNEL));
    state.links.insert(link.clone(), device);
    state.addresses.insert(Address { link: link.clone(), address: own.into() });
    state.neighbors.insert(NeighborKey { link: link.clone(), address: PEER_TUNNEL.into() }, PEER_MAC);
    state.fdb.insert(FdbKey { link: link.clone(), mac: PEER_MAC }, Routes::gateway(0).into());
    let nexthop = if native {
        let gateway = Gateway { address: Routes::gateway(0).into(), onlink: false };
        Nexthop { gateway, link: underlay()? }
    } else {
        Nexthop { gateway: Gateway { address: PEER_TUNNEL.into(), onlink: true }, link }
    };
    state.nexthops.insert(id(0), nexthop);
    for block in 0..blocks {
        state.routes.insert(key(Routes::network(block))?, via(id(0)));
    }
    Ok(state)
}
