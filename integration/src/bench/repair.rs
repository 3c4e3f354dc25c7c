//! What others delete comes back: how soon, while the agent has many peers.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::agent::Running;
use super::agent::site::Site;
use super::namespace::{index, within};
use super::raw::{Raw, batches, delete_fdb, delete_route};
use super::report::{median, quantile, thousands};
use super::routes::PROTOCOL;
use super::{BenchError, Row, Size, Unit, step};
use crate::eventually::now;

const LIMIT: Duration = Duration::from_secs(60);
const TUNNEL: &str = "pairway-vx4";

/// Deletions come at any moment of the agent's work: so long after the last repair at most.
const LONGEST_PAUSE_MILLIS: u32 = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    Route,
    FdbEntry,
}

pub(super) fn measure(size: Size) -> Result<Vec<Row>, BenchError> {
    let (peers, deletions) = match size {
        Size::Smoke => (20, 4),
        Size::Full => (5000, 1000),
    };
    let site = Site::make(peers)?;
    let name = |what: &str| format!("{what}, {} peers", thousands(peers));
    step(format!("repairs with {} peers", thousands(peers)), || {
        let [routes, entries] = within(|| {
            let _agent = Running::start(&site)?;
            Ok([repairs(&site, Object::Route, deletions)?, repairs(&site, Object::FdbEntry, deletions)?])
        })?;
        let rows = [("a route", &routes), ("an FDB entry", &entries)].map(|(what, samples)| {
            Row::new("repair of what was deleted", name(what), samples.len())
                .with("median", Unit::Seconds, median(samples))
                .with("p99", Unit::Seconds, quantile(samples, 0.99))
                .with("longest", Unit::Seconds, quantile(samples, 1.0))
        });
        Ok((rows.to_vec(), format!("{:.0} ms at the median", median(&routes) * 1e3)))
    })
}

/// Seconds from each deletion to the kernel's notification that the object is back. Each is another peer's: one that
/// is undone again and again is fought over.
fn repairs(site: &Site, object: Object, deletions: u32) -> Result<Vec<f64>, BenchError> {
    let mut disturber = Raw::open()?;
    let mut listener = Raw::listen()?;
    let tunnel = index(TUNNEL)?;
    let mut samples = Vec::new();
    for peer in 0..deletions {
        let request = match object {
            Object::Route => delete_route(site.block(peer)),
            Object::FdbEntry => delete_fdb(tunnel, Site::mac(peer)?),
        };
        let began = now();
        disturber.send_all(&mut batches([request]))?;
        let back = back(site, object, peer, &mut listener)?;
        samples.push(back.duration_since(began).as_secs_f64());
        std::thread::sleep(Duration::from_millis((peer * 37 % LONGEST_PAUSE_MILLIS).into()));
    }
    Ok(samples)
}

/// When the object came back.
fn back(site: &Site, object: Object, peer: u32, listener: &mut Raw) -> Result<Instant, BenchError> {
    let block = site.block(peer);
    let address: Ipv4Addr = Site::address(peer);
    let what = format!("the {object:?} of peer {peer} to come back");
    listener.hear(&what, LIMIT, |notice, at| {
        let found = match object {
            Object::Route => notice.route(PROTOCOL) == Some((block.address, block.length)),
            Object::FdbEntry => notice.neighbor(true) == Some(address),
        };
        found.then_some(at)
    })
}
