//! [`Kernel`]: the real data plane.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::mpsc;

use ipnet::IpNet;

use crate::diff::Change;
use crate::effects::IPV6_MIN_MTU;
use crate::reconcile::{ApplyError, Dataplane, ObserveError, Refused};
use crate::state::{
    IpTunnel, LinkName, Marks, NexthopId, Observed, Route, RouteTarget, TunnelKind, TunnelLink,
};

use super::channel::{Batch, Channel};
use super::link::Link;
use super::nft::Nft;
use super::observe::{is_ours, links, observe};
use super::order::order;
use super::request::{CREATE, EXCL, REPLACE, Request};
use super::route::Metrics;
use super::{address, link, neighbor, nexthop, route, rule, sysctl};

/// Indices that we choose for devices begin here. Those that the kernel gives count up from 1: so no device comes by one
/// of ours between our look and our request, and gets what is meant for ours, the mark above all.
const INDEX_BASE: u32 = 1 << 20;

/// How often a device is created anew because somebody took the index that we had chosen.
const INDEX_ATTEMPTS: usize = 4;

/// From so many changes on the next batch is written while the kernel works on the one before.
const OVERLAPPED: usize = 4096;

/// Batches that are handed over together, once the kernel has begun: waking the other thread for each costs the kernel's.
const BATCHES_TOGETHER: usize = 16;

/// So many times as many wait for the kernel: it must never wait for us.
const AHEAD: usize = 4;

type Outcome = Result<(), ApplyError>;

/// The Linux of the network namespace in which it was opened.
///
/// Calls block, up to a second where there are a million routes: use it from a thread of its own.
#[derive(Debug)]
pub struct Kernel {
    channel: Channel,
    nft: Nft,
    marks: Marks,
    /// Whether files of `/proc/sys` can be written: not in a container, where they are mounted read-only.
    sysctl: bool,
    /// Whether the kernel forwards IPv4 packets, as of the last look.
    forwards: bool,
    /// The highest index that we have chosen for a device: none is used twice, as the kernel itself does it.
    last_index: u32,
    /// Nexthop objects with a route that has an MTU, as of the last look; `None` before the first.
    with_mtu: Option<BTreeSet<NexthopId>>,
}

impl Kernel {
    /// Opens a socket in the network namespace of the calling thread; it stays with that namespace.
    ///
    /// # Errors
    /// Netlink is not to be had.
    pub fn open(marks: Marks) -> io::Result<Self> {
        let nft = Nft::open(&marks.firewall_table, &marks.ifalias);
        let (channel, sysctl) = (Channel::open()?, sysctl::writable());
        Ok(Self { channel, nft, marks, sysctl, forwards: false, last_index: 0, with_mtu: None })
    }

    /// The port ids of the sockets that write: [`super::Monitor`] leaves out what they caused.
    #[must_use]
    pub fn ports(&self) -> Ports {
        Ports { route: self.channel.port(), netfilter: self.nft.port() }
    }
}

/// The netlink sockets of a [`Kernel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub(super) route: u32,
    pub(super) netfilter: Option<u32>,
}

impl Dataplane for Kernel {
    fn observe(&mut self, watched: &[IpNet]) -> Result<Observed, ObserveError> {
        let mut observed = observe(&mut self.channel, &self.marks, watched, self.sysctl)?;
        self.forwards = observed.forwarding.ipv4 == Some(true);
        let nftables = self.nft.observe();
        (observed.ours.firewall, observed.netfilter) =
            nftables.map_err(|source| ObserveError { what: "nftables", source })?;
        self.with_mtu = Some(observed.ours.routes.values().filter_map(object_with_mtu).collect());
        Ok(observed)
    }

    fn ip_tunnels(&mut self, asked: &BTreeSet<IpTunnel>) -> Result<BTreeSet<IpTunnel>, ObserveError> {
        let mut found = BTreeSet::new();
        for kind in asked {
            let known = knows(&mut self.channel, *kind).map_err(|source| ObserveError {
                what: "kinds of IP tunnel",
                source: io::Error::other(source),
            })?;
            if known {
                found.insert(*kind);
            }
        }
        Ok(found)
    }

    fn apply(&mut self, changes: &[Change]) -> Refused {
        if changes.is_empty() {
            return Refused::new();
        }
        match Devices::read(&mut self.channel) {
            Ok(devices) => {
                let Self { channel, nft, marks, sysctl, forwards, last_index, with_mtu } = self;
                if let Some(with_mtu) = with_mtu {
                    let written = changes.iter().filter_map(written_route);
                    with_mtu.extend(written.filter_map(object_with_mtu));
                }
                let (with_mtu, sysctl, forwards) = (with_mtu.as_ref(), *sysctl, *forwards);
                let refused = Refused::new();
                Apply { channel, nft, marks, sysctl, forwards, last_index, with_mtu, devices, refused }
                    .run(changes)
            }
            Err(error) => (0..changes.len()).map(|position| (position, from_io(&error))).collect(),
        }
    }
}

/// Devices by name, as of the begin of an apply, kept up to date by our own changes.
struct Devices(BTreeMap<LinkName, Link>);

impl Devices {
    fn read(channel: &mut Channel) -> io::Result<Self> {
        Ok(Self(links(channel)?.into_values().map(|link| (link.name.clone(), link)).collect()))
    }

    fn index(&self, name: &LinkName) -> Result<u32, ApplyError> {
        self.0.get(name).map(|link| link.index).ok_or_else(|| missing(name))
    }

    fn ours(&self, name: &LinkName, marks: &Marks) -> Result<&Link, ApplyError> {
        let link = self.0.get(name).ok_or_else(|| missing(name))?;
        if is_ours(link, marks) { Ok(link) } else { Err(not_ours(name)) }
    }

    /// The name of a device; one that is not there has its number for a name.
    fn name(&self, index: u32) -> Option<LinkName> {
        let found = self.0.values().find(|link| link.index == index).map(|link| link.name.clone());
        found.or_else(|| format!("if{index}").parse().ok())
    }

    fn highest_index(&self) -> u32 {
        self.0.values().map(|link| link.index).max().unwrap_or(0)
    }
}

/// One run over a list of changes. Most gather and go in batches; a change of a device, whose index the others
/// need, goes alone.
struct Apply<'a> {
    channel: &'a mut Channel,
    nft: &'a mut Nft,
    marks: &'a Marks,
    sysctl: bool,
    forwards: bool,
    last_index: &'a mut u32,
    with_mtu: Option<&'a BTreeSet<NexthopId>>,
    devices: Devices,
    refused: Refused,
}

impl Apply<'_> {
    fn run(mut self, changes: &[Change]) -> Refused {
        let mut unsent = 0;
        for (position, change) in changes.iter().enumerate().filter(|(_, change)| goes_alone(change)) {
            self.send_together(changes, unsent..position);
            if let Err(error) = self.send_alone(change) {
                self.refused.insert(position, error);
            }
            unsent = position + 1;
        }
        self.send_together(changes, unsent..changes.len());
        self.refused
    }

    fn send_alone(&mut self, change: &Change) -> Outcome {
        match change {
            Change::AddLink(name, link) => self.add_link(name, link),
            Change::SetLink(name, link) => self.set_link(name, link),
            Change::DeleteLink(name) => self.delete_link(name),
            Change::SetFirewall(table) => self.nft.set_table(table),
            Change::ChangeSets(sets) => self.nft.change_sets(sets),
            Change::DeleteFirewall => self.nft.delete_table(),
            Change::SetRpFilter(..)
            | Change::AddAddress(_)
            | Change::DeleteAddress(_)
            | Change::SetNeighbor(..)
            | Change::DeleteNeighbor(_)
            | Change::SetFdb(..)
            | Change::DeleteFdb(_)
            | Change::AddNexthop(..)
            | Change::SetNexthop(..)
            | Change::DeleteNexthop(_)
            | Change::AddRoute(..)
            | Change::SetRoute(..)
            | Change::DeleteRoute(_)
            | Change::AddRule(_)
            | Change::DeleteRule(_) => {
                let request = self.writer().request(change)?;
                self.send(&request)
            }
        }
    }

    const fn writer(&self) -> Writer<'_> {
        Writer { marks: self.marks, devices: &self.devices, with_mtu: self.with_mtu }
    }

    /// Sends changes in batches.
    fn send_together(&mut self, changes: &[Change], range: Range<usize>) {
        let first = range.start;
        let changes = &changes[range];
        // Not by `writer`: the channel is used beside it.
        let writer = Writer { marks: self.marks, devices: &self.devices, with_mtu: self.with_mtu };
        let channel = &mut *self.channel;
        let many = changes.len() >= OVERLAPPED;
        let sent = many.then(|| overlapped(&writer, changes, channel)).flatten();
        let refused = sent.unwrap_or_else(|| {
            let mut refused = Vec::new();
            let unsent = writer.write_all(changes, |mut batch| {
                refused.extend(channel.deliver(&mut batch));
                batch
            });
            refused.extend(unsent);
            refused
        });
        self.refused.extend(refused.into_iter().map(|(position, error)| (first + position, error)));
    }

    fn add_link(&mut self, name: &LinkName, new: &TunnelLink) -> Outcome {
        if let TunnelKind::Ip(kind) = new.kind {
            // The module makes a device of its own as it is loaded, which would take the index that we choose.
            knows(self.channel, kind)?;
            self.reread()?;
        }
        let mut attempts = 1;
        loop {
            let underlay = self.underlay(new)?;
            let highest = self.devices.highest_index().max(*self.last_index);
            let index = highest.max(INDEX_BASE).saturating_add(1);
            *self.last_index = index;
            // Without IPv6 in the kernel, or below its minimum MTU, the device knows no IPv6 settings. The kernel cuts
            // an MTU of VXLAN that does not fit the underlay.
            let room = self
                .devices
                .0
                .values()
                .find(|link| link.index == underlay)
                .map_or(u32::MAX, |link| link.mtu.saturating_sub(new.kind.overhead(new.local)));
            let ipv6 = new.mtu.min(room) >= IPV6_MIN_MTU && self.devices.0.values().any(|link| link.ipv6);
            let requests = link::create(name, index, new, underlay, &self.marks.ifalias, ipv6);
            let mut outcomes = self.channel.send_all(&requests).into_iter();
            let created = outcomes.next().unwrap_or(Ok(()));
            let finished = outcomes.collect::<Outcome>().and_then(|()| {
                created.clone()?;
                self.ignore_routers(name, ipv6)?;
                if self.forwards {
                    self.send(&link::set_forwarding(index))?;
                }
                if new.up { self.send(&link::set_up(index, true)) } else { Ok(()) }
            });
            if created.is_ok() && finished.is_err() {
                // Half a device is worse than none: without our mark it would stand in our own way.
                let _ = self.channel.send_all(&[link::delete(index)]);
            }
            self.reread()?;
            match created {
                Ok(()) => return finished,
                Err(error) => {
                    // Somebody took our index: then neither the name nor the VNI is taken.
                    let raced = [libc::EEXIST, libc::EBUSY].contains(&error.errno)
                        && self.devices.0.values().any(|link| link.index == index)
                        && !self.devices.0.contains_key(name);
                    if !raced || attempts == INDEX_ATTEMPTS {
                        return Err(error);
                    }
                    attempts += 1;
                }
            }
        }
    }

    /// Index of the underlay device; none is 0.
    fn underlay(&self, link: &TunnelLink) -> Result<u32, ApplyError> {
        match &link.kind {
            TunnelKind::Vxlan(vxlan) => self.devices.index(&vxlan.underlay),
            TunnelKind::Ip(_) => Ok(0),
        }
    }

    fn ignore_routers(&self, name: &LinkName, ipv6: bool) -> Outcome {
        if ipv6 && self.sysctl { sysctl::ignore_routers(name) } else { Ok(()) }
    }

    fn set_link(&mut self, name: &LinkName, new: &TunnelLink) -> Outcome {
        let now = self.devices.ours(name, self.marks)?.clone();
        let found = now.as_ours(|index| self.devices.name(index), self.sysctl);
        if found.is_none_or(|found| !found.can_become(new)) {
            let message =
                "kind, VNI, port and underlay family of a living device can't be changed".to_owned();
            return Err(ApplyError { errno: libc::EOPNOTSUPP, message });
        }
        let underlay = self.underlay(new)?;
        let changes = link::change(&now, new, underlay);
        let outcome = changes.iter().try_for_each(|request| self.send(request)).and_then(|()| {
            match self.send(&link::no_address_generation(now.index)) {
                // No IPv6 on this device: not in the kernel, or below its minimum MTU.
                Err(error) if error.errno == libc::EAFNOSUPPORT => {}
                other => {
                    other?;
                    self.ignore_routers(name, new.mtu >= IPV6_MIN_MTU)?;
                }
            }
            if self.forwards && now.forwards == Some(false) {
                self.send(&link::set_forwarding(now.index))?;
            }
            if now.up == new.up { Ok(()) } else { self.send(&link::set_up(now.index, new.up)) }
        });
        self.reread().and(outcome)
    }

    fn delete_link(&mut self, name: &LinkName) -> Outcome {
        let index = self.devices.ours(name, self.marks)?.index;
        self.send(&link::delete(index))?;
        self.reread()
    }

    fn send(&mut self, request: &Request) -> Outcome {
        self.channel.send_all(std::slice::from_ref(request)).into_iter().collect()
    }

    fn reread(&mut self) -> Outcome {
        self.devices = Devices::read(self.channel).map_err(|error| from_io(&error))?;
        Ok(())
    }
}

/// Writes requests, one for each change.
struct Writer<'a> {
    marks: &'a Marks,
    devices: &'a Devices,
    with_mtu: Option<&'a BTreeSet<NexthopId>>,
}

impl Writer<'_> {
    /// Writes the requests for these changes in the order in which they are best sent, and has each full batch delivered for an empty one. What could not be
    /// written.
    fn write_all(
        &self,
        changes: &[Change],
        mut deliver: impl FnMut(Batch) -> Batch,
    ) -> Vec<(usize, ApplyError)> {
        let mut unsent = Vec::new();
        let mut batch = Batch::default();
        for position in order(changes) {
            if let Err(error) = self.write(&changes[position], position, &mut batch) {
                unsent.push((position, error));
            }
            if batch.is_full() {
                batch = deliver(batch);
            }
        }
        deliver(batch);
        unsent
    }

    fn write(&self, change: &Change, position: usize, batch: &mut Batch) -> Outcome {
        let protocol = self.marks.route_protocol;
        if let Change::AddRoute(_, new) | Change::SetRoute(_, new) = change
            && !route::is_writable(new)
        {
            let message = "no route of a form that we write".to_owned();
            return Err(ApplyError { errno: libc::EINVAL, message });
        }
        if let Change::AddRoute(key, new) = change {
            let metrics = if self.is_bare(new) { Metrics::Unsaid } else { Metrics::Said };
            batch.add(position, route::RTM_NEWROUTE, CREATE | EXCL, |body| {
                route::put_route(body, *key, new, protocol, metrics);
            });
        } else if let Change::SetRoute(key, new) = change {
            batch.add(position, route::RTM_NEWROUTE, REPLACE, |body| {
                route::put_route(body, *key, new, protocol, Metrics::Said);
            });
        } else if let Change::DeleteRoute(key) = change {
            batch.add(position, route::RTM_DELROUTE, 0, |body| route::put_deletion(body, *key, protocol));
        } else {
            let request = self.request(change)?;
            batch.add(position, request.kind, request.flags, |body| body.extend(&request.body));
        }
        Ok(())
    }

    /// The request for a change that needs only one.
    fn request(&self, change: &Change) -> Result<Request, ApplyError> {
        let protocol = self.marks.route_protocol;
        let ours = |name: &LinkName| self.devices.ours(name, self.marks).map(|link| link.index);
        Ok(match change {
            Change::AddLink(name, _) | Change::SetLink(name, _) | Change::DeleteLink(name) => {
                return Err(missing(name));
            }
            Change::SetRpFilter(name, value) => link::set_rp_filter(self.devices.index(name)?, *value),
            Change::AddAddress(new) => address::add(ours(&new.link)?, new.address),
            Change::DeleteAddress(old) => address::delete(ours(&old.link)?, old.address),
            Change::SetNeighbor(key, mac) => neighbor::set(ours(&key.link)?, key.address, *mac, protocol),
            Change::DeleteNeighbor(key) => neighbor::delete(ours(&key.link)?, key.address),
            Change::SetFdb(key, remote) => neighbor::set_fdb(ours(&key.link)?, key.mac, *remote),
            Change::DeleteFdb(key) => neighbor::delete_fdb(ours(&key.link)?, key.mac),
            Change::AddNexthop(id, new) => {
                nexthop::add(*id, new.gateway, self.devices.index(&new.link)?, protocol)
            }
            Change::SetNexthop(id, new) => {
                nexthop::replace(*id, new.gateway, self.devices.index(&new.link)?, protocol)
            }
            Change::DeleteNexthop(id) => nexthop::delete(*id),
            Change::AddRule(new) => rule::add(new, protocol),
            Change::DeleteRule(old) => rule::delete(old, protocol),
            Change::AddRoute(..)
            | Change::SetRoute(..)
            | Change::DeleteRoute(_)
            | Change::SetFirewall(_)
            | Change::ChangeSets(_)
            | Change::DeleteFirewall => {
                let message = "a change of routes or nftables goes another way".to_owned();
                return Err(ApplyError { errno: libc::EINVAL, message });
            }
        })
    }

    /// Whether neither a route nor another one of its nexthop object has an MTU.
    fn is_bare(&self, new: &Route) -> bool {
        match (new, self.with_mtu) {
            (Route { target: RouteTarget::Nexthop(id), mtu: None, .. }, Some(with_mtu)) => {
                !with_mtu.contains(id)
            }
            _ => false,
        }
    }
}

/// Has the requests sent by a thread of its own, so that the kernel, which works while we send, need not wait until the
/// next batch is written. `None`: the system has no thread to give, and nothing was sent.
fn overlapped(
    writer: &Writer<'_>,
    changes: &[Change],
    channel: &mut Channel,
) -> Option<Vec<(usize, ApplyError)>> {
    let (full, to_send) = mpsc::sync_channel::<Vec<Batch>>(AHEAD);
    let (empty, to_fill) = mpsc::channel::<Vec<Batch>>();
    std::thread::scope(|scope| {
        let sender = std::thread::Builder::new().name("netlink".to_owned()).spawn_scoped(scope, move || {
            let mut refused = Vec::new();
            for mut batches in to_send {
                for batch in &mut batches {
                    refused.extend(channel.deliver(batch));
                }
                // Nobody takes them back after the last.
                let _ = empty.send(batches);
            }
            refused
        });
        // It is a matter of speed alone.
        let sender = sender.ok()?;
        let (mut together, mut enough, mut spare) = (Vec::new(), 1, Vec::new());
        let unsent = writer.write_all(changes, |batch| {
            together.push(batch);
            if together.len() >= enough {
                // It is received for as long as the thread lives; if that has panicked so do we.
                let _ = full.send(std::mem::take(&mut together));
                enough = BATCHES_TOGETHER.min(enough * 2);
                spare.extend(to_fill.try_iter().flatten());
            }
            spare.pop().unwrap_or_default()
        });
        let _ = full.send(together);
        drop(full);
        let mut refused = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        refused.extend(unsent);
        Some(refused)
    })
}

/// Whether the kernel has a kind of IP tunnel, or gets it by loading a module. The request is refused in any case: for its
/// form where the kind is known, as unsupported where it is not. Any other answer says nothing of it.
fn knows(channel: &mut Channel, kind: IpTunnel) -> Result<bool, ApplyError> {
    match channel.send_all(&[link::probe(kind)]).pop() {
        Some(Err(error)) if [libc::ERANGE, libc::EINVAL].contains(&error.errno) => Ok(true),
        Some(Err(error)) if error.errno == libc::EOPNOTSUPP => Ok(false),
        Some(Err(error)) => Err(error),
        Some(Ok(())) | None => Ok(false),
    }
}

/// Whether a change is more than one request of routing netlink.
const fn goes_alone(change: &Change) -> bool {
    matches!(
        change,
        Change::AddLink(..)
            | Change::SetLink(..)
            | Change::DeleteLink(_)
            | Change::SetFirewall(_)
            | Change::ChangeSets(_)
            | Change::DeleteFirewall
    )
}

/// The nexthop object of a route that has an MTU.
fn object_with_mtu(route: &Route) -> Option<NexthopId> {
    match route.target {
        RouteTarget::Nexthop(id) => route.mtu.map(|_| id),
        RouteTarget::Unreachable | RouteTarget::Other => None,
    }
}

fn written_route(change: &Change) -> Option<&Route> {
    if let Change::AddRoute(_, route) | Change::SetRoute(_, route) = change { Some(route) } else { None }
}

fn missing(name: &LinkName) -> ApplyError {
    ApplyError { errno: libc::ENODEV, message: format!("there is no device {name}") }
}

fn not_ours(name: &LinkName) -> ApplyError {
    ApplyError { errno: libc::EPERM, message: format!("device {name} is not marked as ours") }
}

fn from_io(error: &io::Error) -> ApplyError {
    ApplyError { errno: error.raw_os_error().unwrap_or(libc::EIO), message: error.to_string() }
}
