//! A kernel of values: it enforces the rules of the real one, with the same error numbers, and can fail on demand.
//!
//! It holds what is ours as a [`State`] and what is foreign (interfaces, routes, nexthops) beside it. The handle is
//! cheap to clone: a test keeps one and looks inside while an agent reconciles with the other. `tests/kernel` runs
//! random changes on this kernel and on a real one and compares every answer.
//!
//! Not modelled: several routing tables besides the key, neighbours of foreign devices, carrier of tunnel devices.

mod faults;
mod rules;
mod world;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use ipnet::IpNet;

pub use faults::{Call, Mishap};

use crate::diff::Change;
use crate::effects;
use crate::firewall::Netfilter;
use crate::reconcile::{ApplyError, Dataplane, ObserveError, Refused};
use crate::state::{
    ForeignRule, Forwarding, InstalledRoute, Interface, InterfaceAddress, IpTunnel, LinkName, Mac, NexthopId,
    Observed, RouteKey, State, TunnelEnds, TunnelId, VxlanId,
};
use faults::Calls;
use world::World;

/// Error numbers of Linux (`asm-generic/errno.h`) that this kernel answers with.
pub mod errno {
    /// Operation not permitted: the device is not ours.
    pub const EPERM: i32 = 1;
    /// No such file or directory: neighbour, FDB entry, nexthop or rule that is not there; replace of a missing route.
    pub const ENOENT: i32 = 2;
    /// No such process: route that is not there.
    pub const ESRCH: i32 = 3;
    /// Interrupted: a dump during which the kernel changed.
    pub const EINTR: i32 = 4;
    /// No such device or address: a device without IPv6.
    pub const ENXIO: i32 = 6;
    /// Cannot allocate memory.
    pub const ENOMEM: i32 = 12;
    /// Device or resource busy.
    pub const EBUSY: i32 = 16;
    /// File exists.
    pub const EEXIST: i32 = 17;
    /// No such device.
    pub const ENODEV: i32 = 19;
    /// Invalid argument.
    pub const EINVAL: i32 = 22;
    /// Numerical result out of range: an IPv6 route with an IPv4 source.
    pub const ERANGE: i32 = 34;
    /// Protocol not supported: a kernel without netfilter.
    pub const EPROTONOSUPPORT: i32 = 93;
    /// Operation not supported: changing what can't be changed on a living device.
    pub const EOPNOTSUPP: i32 = 95;
    /// Address family not supported.
    pub const EAFNOSUPPORT: i32 = 97;
    /// Cannot assign requested address: address that is not there.
    pub const EADDRNOTAVAIL: i32 = 99;
    /// Network is down: device is down or has no carrier.
    pub const ENETDOWN: i32 = 100;
    /// Network is unreachable: no connected network holds the IPv4 gateway.
    pub const ENETUNREACH: i32 = 101;
    /// No buffer space: an answer that found no room.
    pub const ENOBUFS: i32 = 105;
    /// No route to host: no connected network holds the IPv6 gateway.
    pub const EHOSTUNREACH: i32 = 113;
}

/// Kinds of objects, to fail the changes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Devices.
    Link,
    /// `rp_filter` settings.
    RpFilter,
    /// Addresses.
    Address,
    /// Neighbours.
    Neighbor,
    /// Forwarding database entries.
    Fdb,
    /// Nexthop objects.
    Nexthop,
    /// Routes.
    Route,
    /// Policy rules.
    Rule,
    /// The nftables table.
    Firewall,
}

impl Kind {
    /// The kind of object that a change is about.
    #[must_use]
    pub fn of(change: &Change) -> Self {
        match change {
            Change::AddLink(..) | Change::SetLink(..) | Change::DeleteLink(_) => Self::Link,
            Change::SetRpFilter(..) => Self::RpFilter,
            Change::AddAddress(_) | Change::DeleteAddress(_) => Self::Address,
            Change::SetNeighbor(..) | Change::DeleteNeighbor(_) => Self::Neighbor,
            Change::SetFdb(..) | Change::DeleteFdb(_) => Self::Fdb,
            Change::AddNexthop(..) | Change::SetNexthop(..) | Change::DeleteNexthop(_) => Self::Nexthop,
            Change::AddRoute(..) | Change::SetRoute(..) | Change::DeleteRoute(_) => Self::Route,
            Change::AddRule(_) | Change::DeleteRule(_) => Self::Rule,
            Change::SetFirewall(_) | Change::ChangeSets(_) | Change::DeleteFirewall => Self::Firewall,
        }
    }
}

/// What happened to the fake kernel, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A change of the agent's that was accepted.
    Applied(Change),
    /// A change of the agent's that was refused, with its error number.
    Refused(Change, i32),
    /// Something that somebody else did, in words.
    Foreign(String),
}

/// Failures to come.
#[derive(Debug)]
struct Fault {
    kind: Option<Kind>,
    left: usize,
    errno: i32,
}

type Hook = Arc<dyn Fn() + Send + Sync>;

struct Inner {
    world: World,
    events: Vec<Event>,
    faults: Vec<Fault>,
    calls: Calls,
    observe_faults: usize,
    observations: u64,
    hook: Option<Hook>,
}

/// A handle on a kernel of values.
#[derive(Clone)]
pub struct FakeKernel {
    inner: Arc<Mutex<Inner>>,
}

impl fmt::Debug for FakeKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeKernel").field("ours", &self.lock().world.ours).finish_non_exhaustive()
    }
}

impl Default for FakeKernel {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeKernel {
    /// A kernel with a loopback device and nothing else.
    #[must_use]
    pub fn new() -> Self {
        let kernel = Self {
            inner: Arc::new(Mutex::new(Inner {
                world: World::default(),
                events: Vec::new(),
                faults: Vec::new(),
                calls: Calls::default(),
                observe_faults: 0,
                observations: 0,
                hook: None,
            })),
        };
        let mut lock = kernel.lock();
        if let Ok(lo) = "lo".parse() {
            lock.world.interfaces.insert(lo, interface(1, "", 65_536, &["127.0.0.1/8", "::1/128"]));
        }
        drop(lock);
        kernel
    }

    /// A node: loopback and an underlay device `eth0` with these addresses (`192.0.2.1/24`) and this MTU, and a
    /// default route to the first address of each of its networks.
    ///
    /// # Panics
    /// An address is not one.
    #[must_use]
    pub fn node(addresses: &[&str], mtu: u32) -> Self {
        let kernel = Self::new();
        kernel.add_interface("eth0", "veth", mtu, addresses);
        for text in addresses {
            let network: IpNet = text.parse().expect("the caller wrote an address with a prefix length");
            if let Some(gateway) =
                network.hosts().next().filter(|_| network.prefix_len() < network.max_prefix_len())
            {
                kernel.set_default_route("eth0", gateway);
            }
        }
        kernel.clear_events();
        kernel
    }

    /// What is ours in this kernel.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().world.ours.clone()
    }

    /// Everything, as [`Dataplane::observe`] shows it.
    #[must_use]
    pub fn observed(&self, watched: &[IpNet]) -> Observed {
        self.lock().world.observe(watched)
    }

    /// What happened since the last [`FakeKernel::clear_events`].
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// Forgets the events so far.
    pub fn clear_events(&self) {
        self.lock().events.clear();
    }

    /// How often the kernel has been observed: a pass of the agent looks once.
    #[must_use]
    pub fn observations(&self) -> u64 {
        self.lock().observations
    }

    /// Called after everything that somebody else does to this kernel, as the monitor would.
    pub fn on_change(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.lock().hook = Some(Arc::new(hook));
    }

    /// Fails the next `count` changes with an error number.
    pub fn fail_next(&self, count: usize, errno: i32) {
        self.lock().faults.push(Fault { kind: None, left: count, errno });
    }

    /// Fails the next `count` changes of a kind with an error number.
    pub fn fail_kind(&self, kind: Kind, count: usize, errno: i32) {
        self.lock().faults.push(Fault { kind: Some(kind), left: count, errno });
    }

    /// Fails the next `count` observations with `EINTR`, as an interrupted dump does.
    pub fn fail_observe(&self, count: usize) {
        self.lock().observe_faults = count;
    }

    /// How many calls have been made.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().calls.made
    }

    /// Something goes wrong with the call that comes after `after` further ones.
    pub fn fail_call(&self, after: u64, mishap: Mishap) {
        self.lock().calls.plan(after, mishap);
    }

    /// Something goes wrong with the next call of a kind.
    pub fn fail_next_call_of(&self, call: Call, mishap: Mishap) {
        self.lock().calls.plan_of(call, mishap);
    }

    /// What has gone wrong by [`FakeKernel::fail_call`] and [`FakeKernel::fail_next_call_of`] since this was last asked.
    pub fn mishaps(&self) -> Vec<(Call, Mishap)> {
        std::mem::take(&mut self.lock().calls.happened)
    }

    /// Subscribes to notifications.
    ///
    /// # Errors
    /// As ordered by [`FakeKernel::fail_next_call_of`] or [`FakeKernel::fail_call`].
    pub fn listen(&self) -> io::Result<()> {
        self.lock().calls.read(Call::Listen)
    }

    /// Reads notifications, of which [`FakeKernel::on_change`] tells that they are there.
    ///
    /// # Errors
    /// As ordered by [`FakeKernel::fail_next_call_of`] or [`FakeKernel::fail_call`].
    pub fn hear(&self) -> io::Result<()> {
        self.lock().calls.read(Call::Hear)
    }

    /// Ends all failures that are still to come.
    pub fn heal(&self) {
        let mut inner = self.lock();
        inner.calls.forget();
        inner.faults.clear();
        inner.observe_faults = 0;
    }

    /// Adds a foreign device, up, with addresses (`192.0.2.1/24`).
    ///
    /// # Panics
    /// A name or an address is not one.
    pub fn add_interface(&self, name: &str, kind: &str, mtu: u32, addresses: &[&str]) {
        let link = link_name(name);
        self.by_others(format!("device {name} added"), |world| {
            let index = world.next_index();
            world.interfaces.insert(link, interface(index, kind, mtu, addresses));
        });
    }

    /// Adds a foreign VXLAN device.
    ///
    /// # Panics
    /// The name is not one.
    pub fn add_foreign_vxlan(&self, name: &str, id: VxlanId) {
        self.add_foreign_tunnel(name, TunnelId::Vxlan(id));
    }

    /// Adds a foreign tunnel device.
    ///
    /// # Panics
    /// The name is not one.
    pub fn add_foreign_tunnel(&self, name: &str, id: TunnelId) {
        let link = link_name(name);
        let kind = match id {
            TunnelId::Vxlan(_) => "vxlan",
            TunnelId::Ip { kind, .. } => kind.as_str(),
        };
        self.by_others(format!("{kind} device {name} added"), |world| {
            let index = world.next_index();
            let device = Interface { tunnel: Some(id), ..interface(index, kind, 1450, &[]) };
            world.interfaces.insert(link, device);
        });
    }

    /// Deletes a device, foreign or ours, as `ip link delete` does.
    ///
    /// # Panics
    /// The name is not one.
    pub fn remove_interface(&self, name: &str) {
        let link = link_name(name);
        self.by_others(format!("device {name} deleted"), |world| world.remove_interface(&link));
    }

    /// Renames a device, foreign or ours.
    ///
    /// # Panics
    /// A name is not one.
    pub fn rename_interface(&self, from: &str, to: &str) {
        let (from, to) = (link_name(from), link_name(to));
        self.by_others(format!("device {from} renamed {to}"), |world| world.rename_interface(&from, &to));
    }

    /// Sets a device up or down, foreign or ours.
    ///
    /// # Panics
    /// The name is not one.
    pub fn set_up(&self, name: &str, up: bool) {
        let link = link_name(name);
        self.by_others(format!("device {name} set {}", if up { "up" } else { "down" }), |world| {
            world.set_up(&link, up);
        });
    }

    /// Gives a foreign device carrier or takes it.
    ///
    /// # Panics
    /// The name is not one.
    pub fn set_carrier(&self, name: &str, carrier: bool) {
        let link = link_name(name);
        self.by_others(format!("carrier of {name}: {carrier}"), |world| {
            if let Some(interface) = world.interfaces.get_mut(&link) {
                interface.carrier = carrier;
            }
            if !carrier {
                effects::link_unusable(&mut world.ours, &link);
            }
        });
    }

    /// Sets the MTU of a device, foreign or ours. The MTU of a tunnel does not follow its underlay's.
    ///
    /// # Panics
    /// The name is not one.
    pub fn set_mtu(&self, name: &str, mtu: u32) {
        let link = link_name(name);
        self.by_others(format!("mtu of {name}: {mtu}"), |world| {
            if world.device(&link).is_some_and(|device| device.mtu != mtu) {
                world.announce_mtu(&link, mtu);
            }
            if let Some(interface) = world.interfaces.get_mut(&link) {
                interface.mtu = mtu;
            }
            if let Some(device) = world.ours.links.get_mut(&link) {
                device.mtu = mtu;
            }
        });
    }

    /// Replaces the addresses of a foreign device. Nexthops whose gateway is no longer on the link stay, as in Linux.
    ///
    /// # Panics
    /// A name or an address is not one.
    pub fn set_addresses(&self, name: &str, addresses: &[&str]) {
        let link = link_name(name);
        self.by_others(format!("addresses of {name}: {addresses:?}"), |world| {
            if let Some(interface) = world.interfaces.get_mut(&link) {
                interface.addresses = addresses.iter().map(|text| interface_address(text)).collect();
            }
        });
    }

    /// Sets `rp_filter` of a device, as another program would.
    ///
    /// # Panics
    /// The name is not one.
    pub fn set_rp_filter(&self, name: &str, value: u8) {
        let link = link_name(name);
        self.by_others(format!("rp_filter of {name}: {value}"), |world| {
            world.ours.rp_filter.insert(link, value);
        });
    }

    /// Sets `net.ipv4.conf.all.rp_filter`.
    pub fn set_rp_filter_all(&self, value: u8) {
        self.by_others(format!("rp_filter of all: {value}"), |world| world.rp_filter_all = value);
    }

    /// Sets whether packets are forwarded.
    pub fn set_forwarding(&self, forwarding: Forwarding) {
        self.by_others(format!("forwarding: {forwarding:?}"), |world| world.forwarding = forwarding);
    }

    /// Takes the module of a kind of IP tunnel out of this kernel, or puts it in. Devices that are there stay.
    pub fn set_module(&self, kind: IpTunnel, there: bool) {
        self.by_others(format!("module {kind}: {there}"), |world| {
            if there {
                world.lacking.remove(&kind)
            } else {
                world.lacking.insert(kind)
            };
        });
    }

    /// Adds a default route over a device.
    ///
    /// # Panics
    /// The name is not one.
    pub fn set_default_route(&self, name: &str, gateway: IpAddr) {
        let link = link_name(name);
        let prefix = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        let key =
            RouteKey { table: 254, prefix: prefix.parse().expect("a constant"), metric: 0 }.normalised();
        let route = InstalledRoute { key, protocol: 3, link: Some(link), gateway: Some(gateway) };
        self.by_others(format!("default {route}"), |world| {
            world.routes.insert(key, route);
        });
    }

    /// Adds a route of somebody else's.
    pub fn add_foreign_route(&self, route: InstalledRoute) {
        self.by_others(format!("{route} added"), |world| {
            world.routes.insert(route.key, route);
        });
    }

    /// Removes a route of somebody else's.
    pub fn remove_foreign_route(&self, key: RouteKey) {
        self.by_others(format!("route {} removed", key.prefix), |world| {
            world.routes.remove(&key);
        });
    }

    /// Adds a policy rule of somebody else's, in its place among the others.
    pub fn add_foreign_rule(&self, rule: ForeignRule) {
        self.by_others(format!("{rule} added"), |world| {
            world.rules.push(rule);
            world.rules.sort_by_key(|rule| (rule.ipv6, rule.priority));
        });
    }

    /// Removes all policy rules of others with this priority.
    pub fn remove_foreign_rules(&self, priority: u32) {
        self.by_others(format!("rules {priority} removed"), |world| {
            world.rules.retain(|rule| rule.priority != priority);
        });
    }

    /// Sets whether IPv4 packets that come in by a foreign device are forwarded.
    ///
    /// # Panics
    /// The name is not one.
    pub fn set_device_forwarding(&self, name: &str, forwards: bool) {
        let link = link_name(name);
        self.by_others(format!("forwarding of {name}: {forwards}"), |world| {
            if let Some(interface) = world.interfaces.get_mut(&link) {
                interface.forwards = Some(forwards);
            }
        });
    }

    /// Adds a foreign IP tunnel to one remote address.
    ///
    /// # Panics
    /// The name is not one.
    pub fn add_one_to_one_tunnel(&self, name: &str, kind: IpTunnel, ends: TunnelEnds) {
        let link = link_name(name);
        self.by_others(format!("{kind} device {name} added"), |world| {
            let index = world.next_index();
            let device = Interface { ends: Some(ends), ..interface(index, kind.as_str(), 1480, &[]) };
            world.interfaces.insert(link, device);
        });
    }

    /// Takes a nexthop id of our range, as another program would. Where we have an object of that id it is theirs then,
    /// and our routes still use it.
    pub fn add_foreign_nexthop(&self, id: NexthopId) {
        self.by_others(format!("nexthop {} added", id.0), |world| {
            world.ours.nexthops.remove(&id);
            world.nexthops.insert(id);
        });
    }

    /// Frees a nexthop id that another program held.
    pub fn remove_foreign_nexthop(&self, id: NexthopId) {
        self.by_others(format!("nexthop {} removed", id.0), |world| {
            world.nexthops.remove(&id);
        });
    }

    /// Changes what nftables holds beside our table, as others do, or takes nf_tables out of the kernel.
    pub fn set_netfilter(&self, what: &str, with: impl FnOnce(&mut Netfilter)) {
        self.by_others(what.to_owned(), |world| {
            with(&mut world.netfilter);
            if world.netfilter.unavailable.is_some() || world.netfilter.foreign_table {
                world.ours.firewall = None;
            }
        });
    }

    /// Does anything to what is ours, as an operator with `ip` could: no rules are enforced.
    pub fn tamper(&self, what: &str, with: impl FnOnce(&mut State)) {
        self.by_others(what.to_owned(), |world| with(&mut world.ours));
    }

    fn by_others(&self, what: String, change: impl FnOnce(&mut World)) {
        let hook = {
            let mut inner = self.lock();
            change(&mut inner.world);
            inner.events.push(Event::Foreign(what));
            inner.hook.clone()
        };
        if let Some(hook) = hook {
            hook();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Dataplane for FakeKernel {
    fn observe(&mut self, watched: &[IpNet]) -> Result<Observed, ObserveError> {
        let mut inner = self.lock();
        if inner.observe_faults > 0 {
            inner.observe_faults -= 1;
            let source = io::Error::from(io::ErrorKind::Interrupted);
            return Err(ObserveError { what: "routes", source });
        }
        for call in Call::LOOK {
            inner.read(call)?;
        }
        inner.observations += 1;
        Ok(inner.world.observe(watched))
    }

    fn ip_tunnels(&mut self, asked: &BTreeSet<IpTunnel>) -> Result<BTreeSet<IpTunnel>, ObserveError> {
        let mut inner = self.lock();
        for _ in asked {
            inner.read(Call::Probe)?;
        }
        Ok(asked.difference(&inner.world.lacking).copied().collect())
    }

    fn apply(&mut self, changes: &[Change]) -> Refused {
        let mut inner = self.lock();
        if changes.is_empty() {
            return Refused::new();
        }
        if let Err(error) = inner.calls.read(Call::Names) {
            let error = refusal(error.raw_os_error().unwrap_or_default());
            return (0..changes.len()).map(|position| (position, error.clone())).collect();
        }
        let mut lost = None;
        let outcomes = changes.iter().map(|change| inner.apply(change, &mut lost));
        outcomes.enumerate().filter_map(|(position, outcome)| Some((position, outcome.err()?))).collect()
    }
}

fn refusal(errno: i32) -> ApplyError {
    ApplyError { errno, message: io::Error::from_raw_os_error(errno).to_string() }
}

impl Inner {
    fn read(&mut self, call: Call) -> Result<(), ObserveError> {
        let what = call.what().unwrap_or_default();
        self.calls.read(call).map_err(|source| ObserveError { what, source })
    }

    /// `lost`: since when nothing gets through in one of the directions.
    fn apply(&mut self, change: &Change, lost: &mut Option<Mishap>) -> Result<(), ApplyError> {
        let mishap = match *lost {
            Some(lost) => Some(lost),
            None => self.calls.make(Call::of(change)),
        };
        match mishap {
            Some(Mishap::Cut | Mishap::Deaf) => *lost = mishap,
            Some(Mishap::Refused(_) | Mishap::Unanswered | Mishap::Half(_)) | None => {}
        }
        let done = match mishap {
            None => self.change(change),
            Some(Mishap::Unanswered | Mishap::Deaf) => {
                let done = self.change(change);
                self.note(change, done);
                return Err(refusal(errno::ENOBUFS));
            }
            Some(Mishap::Refused(errno)) => Err(errno),
            Some(Mishap::Cut) => Err(errno::ENOBUFS),
            Some(Mishap::Half(errno)) => {
                self.world.half(change);
                Err(errno)
            }
        };
        self.note(change, done);
        done.map_err(refusal)
    }

    fn change(&mut self, change: &Change) -> Result<(), i32> {
        let fault = self
            .faults
            .iter_mut()
            .find(|fault| fault.left > 0 && fault.kind.is_none_or(|kind| kind == Kind::of(change)));
        let result = match fault {
            Some(fault) => {
                fault.left -= 1;
                Err(fault.errno)
            }
            None => self.world.apply(change),
        };
        self.faults.retain(|fault| fault.left > 0);
        result
    }

    fn note(&mut self, change: &Change, done: Result<(), i32>) {
        self.events.push(match done {
            Ok(()) => Event::Applied(change.clone()),
            Err(errno) => Event::Refused(change.clone(), errno),
        });
    }
}

fn link_name(name: &str) -> LinkName {
    name.parse().expect("the caller wrote a device name")
}

fn interface(index: u32, kind: &str, mtu: u32, addresses: &[&str]) -> Interface {
    let [.., b, c, d] = index.to_be_bytes();
    Interface {
        index,
        kind: kind.to_owned(),
        alias: String::new(),
        up: true,
        carrier: true,
        mtu,
        mac: (!kind.is_empty()).then_some(Mac([0x02, 0xfa, 0xce, b, c, d])),
        tunnel: None,
        ends: None,
        forwards: None,
        addresses: addresses.iter().map(|text| interface_address(text)).collect(),
    }
}

fn interface_address(text: &str) -> InterfaceAddress {
    let address: IpNet = text.parse().expect("the caller wrote an address with a prefix length");
    let local_scope = match address.addr() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_loopback(),
    };
    InterfaceAddress { address, unfit: false, local_scope }
}

#[cfg(test)]
mod tests;
