//! [`Monitor`]: waits until the kernel has changed in a way that concerns us.
//!
//! An event only says "look again": nothing is believed for what it says. Left out are what our own socket wrote (a
//! filter in the kernel, so that programming 10,000 routes does not come back as 10,000 wake-ups), neighbours of
//! foreign devices (ARP goes on all the time), and routes of others that neither cover nor equal a watched prefix nor lie inside of one.
//!
//! The kernel signs a few notifications with nobody's port, whoever caused them: FDB entries, deleted neighbours,
//! `rp_filter`, what goes with a device. Those of objects are known by their content: one that is as it is wanted
//! ([`Monitor::expect`]) wakes nobody, nor does the end of one that is not wanted. Where all that was heard is that
//! some of what is wanted was taken away, [`Monitor::lost`] says which, so that it can be put back at once.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::task::{Context, Poll};

use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use socket2::{SockFilter, SockRef};

use crate::lost::Lost;
use crate::state::{FdbKey, LinkName, Marks, NeighborKey, RouteKey, State};
use crate::watched::Watched;

use super::AT_ONCE;
use super::channel::{Channel, Message, messages, set_receive_buffer};
use super::kernel::Ports;
use super::neighbor::{Entry, Place};
use super::nft::Watch;
use super::{link, neighbor, nexthop, observe, route};

/// `RTNLGRP_*` (`linux/rtnetlink.h`): link, neighbours, IPv4 addresses, routes, rules, the same of IPv6, settings of
/// IPv4 and IPv6, nexthop objects.
const GROUPS: [u32; 11] = [1, 3, 5, 7, 8, 9, 11, 19, 24, 25, 32];

/// About 80,000 events: a link with as many neighbours can go down before we have read the first.
const RECEIVE_BUFFER: usize = 64 * 1024 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// More than so many are put back by a look at everything: it is cheaper, and whoever takes so much away is not done.
const MOST_LOST: usize = 64;

/// A subscription to the kernel's notifications.
pub struct Monitor {
    socket: TokioSocket,
    buffer: Vec<u8>,
    relevance: Relevance,
    /// What was heard since [`Monitor::lost`] was asked last.
    heard: Heard,
    /// `None` in a kernel without netfilter.
    nft: Option<Watch>,
}

impl Monitor {
    /// Subscribes in the network namespace of the calling thread, from within a tokio runtime. What the
    /// `writer`'s sockets ([`super::Kernel::ports`]) do is left out.
    ///
    /// # Errors
    /// Netlink is not to be had.
    pub fn open(marks: Marks, writer: Ports) -> io::Result<Self> {
        Self::subscribe(marks, writer, RECEIVE_BUFFER)
    }

    fn subscribe(marks: Marks, writer: Ports, receive_buffer: usize) -> io::Result<Self> {
        let nft = writer.netfilter.map(|port| Watch::open(&marks.firewall_table, port)).transpose()?;
        let writer = writer.route;
        let mut async_socket = TokioSocket::new(NETLINK_ROUTE)?;
        let socket = async_socket.socket_mut();
        socket.bind_auto()?;
        set_receive_buffer(socket, receive_buffer)?;
        // The filter first, so that nothing of ours slips in before it.
        SockRef::from(&*socket).attach_filter(&filter(writer))?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        let mut relevance =
            Relevance { marks, writer, watched: Watched::default(), wanted: None, devices: BTreeMap::new() };
        relevance.reread()?;
        let buffer = Vec::with_capacity(READ_BYTES);
        Ok(Self { socket: async_socket, buffer, relevance, heard: Heard::Nothing, nft })
    }

    /// Prefixes for which routes of others matter: the same that [`crate::Dataplane::observe`] gets.
    pub fn watch(&mut self, prefixes: Vec<IpNet>) {
        self.relevance.watched = Watched::new(prefixes);
    }

    /// What the kernel should hold, from now on. Before it is written: what our own writing brings is known by it.
    pub fn expect(&mut self, wanted: Arc<State>) {
        self.relevance.wanted = Some(wanted);
    }

    /// Whether the kernel has changed in a way that concerns us and that [`Monitor::changed`] has not told of yet: without
    /// waiting, and told by this. What others did before this is asked is known then, whether the runtime has noticed it
    /// or not.
    ///
    /// # Errors
    /// The socket failed.
    pub fn hear(&mut self) -> io::Result<bool> {
        let mut concerned = match &mut self.nft {
            Some(nft) => nft.hear()?,
            None => false,
        };
        if concerned {
            self.heard = Heard::Anything;
        }
        for _ in 0..AT_ONCE {
            self.buffer.clear();
            let received = self.socket.socket_ref().recv_from(&mut self.buffer, libc::MSG_DONTWAIT);
            match received.map(|(_, from)| from) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(concerned),
                received => concerned |= self.take(received)?,
            }
        }
        // Somebody writes as fast as this reads: the rest is told by the next change.
        self.heard = Heard::Anything;
        Ok(true)
    }

    /// To be asked after a change: what was taken away, if that is all that has changed since this was asked last.
    pub fn lost(&mut self) -> Option<Lost> {
        match std::mem::replace(&mut self.heard, Heard::Nothing) {
            Heard::Lost(lost) => Some(lost),
            Heard::Nothing | Heard::Anything => None,
        }
    }

    /// Waits until the kernel has changed in a way that concerns us; all that came till then counts as one change.
    /// Also returns when notifications were lost: then anything may have changed.
    ///
    /// Cancel-safe: what was read has been judged before the next wait, and a change that was seen is returned.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn changed(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_changed(context)).await
    }

    fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut concerned = match &mut self.nft {
            Some(nft) => nft.poll(context)?,
            None => false,
        };
        if concerned {
            self.heard = Heard::Anything;
        }
        loop {
            self.buffer.clear();
            match self.socket.poll_recv_from(context, &mut self.buffer) {
                Poll::Pending if concerned => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(received) => concerned |= self.take(received)?,
            }
        }
    }

    /// Judges what was received into the buffer.
    fn take(&mut self, received: io::Result<SocketAddr>) -> io::Result<bool> {
        match received {
            Ok(from) if from.port_number() != 0 => Ok(false),
            Ok(_) => Ok(self.relevance.judge(&self.buffer, &mut self.heard)),
            // The buffer ran over: what got lost is unknown.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.heard = Heard::Anything;
                self.relevance.reread()?;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("relevance", &self.relevance).finish_non_exhaustive()
    }
}

/// What some notifications come to.
#[derive(Debug)]
enum Heard {
    /// Nothing of concern.
    Nothing,
    /// Some of what is wanted was taken away, and nothing else.
    Lost(Lost),
    /// More than that.
    Anything,
}

impl Heard {
    fn hear(&mut self, verdict: Verdict) {
        if verdict == Verdict::Nothing || matches!(self, Self::Anything) {
            return;
        }
        let mut all = match std::mem::replace(self, Self::Anything) {
            Self::Lost(lost) => lost,
            Self::Nothing | Self::Anything => Lost::default(),
        };
        match verdict {
            Verdict::Nothing | Verdict::Anything => return,
            Verdict::Neighbor(key) => drop(all.neighbors.insert(key)),
            Verdict::Fdb(key) => drop(all.fdb.insert(key)),
            Verdict::Route(key) => drop(all.routes.insert(key)),
        }
        if all.len() <= MOST_LOST {
            *self = Self::Lost(all);
        }
    }
}

/// What one notification comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It does not concern us.
    Nothing,
    /// A wanted object was taken away.
    Neighbor(NeighborKey),
    Fdb(FdbKey),
    Route(RouteKey),
    /// Something else that concerns us.
    Anything,
}

impl Verdict {
    const fn of(concerns: bool) -> Self {
        if concerns { Self::Anything } else { Self::Nothing }
    }
}

/// Which notifications concern us.
#[derive(Debug)]
struct Relevance {
    marks: Marks,
    writer: u32,
    watched: Watched,
    /// What the kernel should hold; before that is known everything of ours concerns us.
    wanted: Option<Arc<State>>,
    /// Names of our devices by index.
    devices: BTreeMap<u32, LinkName>,
}

impl Relevance {
    /// Reads anew which devices are ours.
    fn reread(&mut self) -> io::Result<()> {
        let links = observe::links(&mut Channel::open()?)?;
        let ours = links.values().filter(|link| observe::is_ours(link, &self.marks));
        self.devices = ours.map(|link| (link.index, link.name.clone())).collect();
        Ok(())
    }

    /// Whether a datagram concerns us; one that can't be read might. What it tells is added to what was `heard`.
    fn judge(&mut self, datagram: &[u8], heard: &mut Heard) -> bool {
        let mut readable = false;
        let mut concerned = false;
        for message in messages(datagram) {
            readable = true;
            let verdict = self.verdict(&message);
            concerned |= verdict != Verdict::Nothing;
            heard.hear(verdict);
        }
        if !readable {
            heard.hear(Verdict::Anything);
        }
        concerned || !readable
    }

    fn verdict(&mut self, message: &Message<'_>) -> Verdict {
        match message.kind {
            link::RTM_NEWLINK | link::RTM_DELLINK => {
                self.learn(message);
                Verdict::of(message.port != self.writer)
            }
            neighbor::RTM_NEWNEIGH | neighbor::RTM_DELNEIGH => self.neighbor(message),
            route::RTM_NEWROUTE | route::RTM_DELROUTE => self.route(message),
            nexthop::RTM_NEWNEXTHOP | nexthop::RTM_DELNEXTHOP => self.nexthop(message),
            // Addresses, rules and settings change rarely.
            _ => Verdict::Anything,
        }
    }

    fn neighbor(&self, message: &Message<'_>) -> Verdict {
        let Some(link) = neighbor::index(message.body).and_then(|index| self.devices.get(&index)) else {
            return Verdict::Nothing;
        };
        if neighbor::is_told_again(message.body) {
            return Verdict::Nothing;
        }
        let Some(wanted) = &self.wanted else { return Verdict::Anything };
        if message.kind == neighbor::RTM_NEWNEIGH && !neighbor::is_failed(message.body) {
            let as_wanted = match neighbor::decode(message.body) {
                Some(Entry::Neighbor { address, mac, protocol, .. }) => {
                    let key = NeighborKey { link: link.clone(), address };
                    protocol == self.marks.route_protocol && wanted.neighbors.get(&key) == Some(&mac)
                }
                Some(Entry::Fdb { mac, remote, .. }) => {
                    wanted.fdb.get(&FdbKey { link: link.clone(), mac }) == Some(&remote)
                }
                None => false,
            };
            return Verdict::of(!as_wanted);
        }
        match neighbor::place(message.body) {
            Some(Place::Neighbor(address)) => {
                let key = NeighborKey { link: link.clone(), address };
                if wanted.neighbors.contains_key(&key) { Verdict::Neighbor(key) } else { Verdict::Nothing }
            }
            Some(Place::Fdb(mac, remote)) => {
                let key = FdbKey { link: link.clone(), mac };
                match wanted.fdb.get(&key) {
                    None => Verdict::Nothing,
                    wanted if wanted == remote.as_ref() => Verdict::Fdb(key),
                    // One of several places that it had.
                    Some(_) => Verdict::Anything,
                }
            }
            None => Verdict::Anything,
        }
    }

    fn route(&self, message: &Message<'_>) -> Verdict {
        let Some(found) = route::decode(message.body) else { return Verdict::Nothing };
        if found.protocol != self.marks.route_protocol {
            let default = found.key.prefix.prefix_len() == 0;
            return Verdict::of(default || self.watched.touched_by(&found.key.prefix));
        }
        let Some(wanted) = self.wanted.as_ref().map(|wanted| wanted.routes.get(&found.key)) else {
            return Verdict::Anything;
        };
        if message.kind == route::RTM_NEWROUTE {
            return Verdict::of(wanted != Some(&found.route));
        }
        if wanted.is_some() { Verdict::Route(found.key) } else { Verdict::Nothing }
    }

    /// Few of them come that are not our own socket's: only the end of one that is not wanted is nothing.
    fn nexthop(&self, message: &Message<'_>) -> Verdict {
        let Some(object) = nexthop::decode(message.body) else { return Verdict::Anything };
        let unwanted = |wanted: &Arc<State>| !wanted.nexthops.contains_key(&object.id);
        let gone = message.kind == nexthop::RTM_DELNEXTHOP && self.wanted.as_ref().is_some_and(unwanted);
        Verdict::of(self.marks.owns_nexthop(object.id) && !gone)
    }

    /// Keeps track of our devices.
    fn learn(&mut self, message: &Message<'_>) {
        let Some(found) = link::decode(message.body).filter(|_| link::family(message.body) == Some(0)) else {
            return;
        };
        if message.kind == link::RTM_NEWLINK && observe::is_ours(&found, &self.marks) {
            self.devices.insert(found.index, found.name);
        } else {
            self.devices.remove(&found.index);
        }
    }
}

/// Classic BPF: drops what a port wrote, except for links, by which we keep track of our devices.
fn filter(writer: u32) -> [SockFilter; 6] {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // Loads are in network byte order, netlink is in the host's.
    let writer = u32::from_be_bytes(writer.to_ne_bytes());
    let link = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
    [
        SockFilter::new(LOAD_HALF, 0, 0, 4),
        SockFilter::new(JUMP_EQUAL, 2, 0, link(link::RTM_NEWLINK)),
        SockFilter::new(LOAD_WORD, 0, 0, 12),
        SockFilter::new(JUMP_EQUAL, 1, 0, writer),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests;
