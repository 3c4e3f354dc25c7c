//! [`Monitor`]: waits until the kernel has changed in a way that concerns us.
//!
//! An event only says "look again": nothing is taken from its content. Left out are what our own socket wrote (a
//! filter in the kernel, so that programming 10,000 routes does not come back as 10,000 wake-ups), neighbours of
//! foreign devices (ARP goes on all the time), and routes of others that neither cover nor equal a watched prefix nor lie inside of one.
//!
//! The kernel signs a few notifications with nobody's port, whoever caused them: FDB entries, deleted neighbours,
//! `rp_filter`, what goes with a device. After such changes of ours there is one wake-up too many.

use std::collections::BTreeSet;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll};

use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, TokioSocket};
use socket2::{SockFilter, SockRef};

use crate::state::Marks;
use crate::watched::Watched;

use super::channel::{Channel, Message, messages, set_receive_buffer};
use super::kernel::Ports;
use super::nft::Watch;
use super::{link, neighbor, nexthop, observe, route};

/// `RTNLGRP_*` (`linux/rtnetlink.h`): link, neighbours, IPv4 addresses, routes, rules, the same of IPv6, settings of
/// IPv4 and IPv6, nexthop objects.
const GROUPS: [u32; 11] = [1, 3, 5, 7, 8, 9, 11, 19, 24, 25, 32];

/// About 80,000 events: a link with as many neighbours can go down before we have read the first.
const RECEIVE_BUFFER: usize = 64 * 1024 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// A subscription to the kernel's notifications.
pub struct Monitor {
    socket: TokioSocket,
    buffer: Vec<u8>,
    relevance: Relevance,
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
            Relevance { marks, writer, watched: Watched::default(), devices: BTreeSet::new() };
        relevance.reread()?;
        Ok(Self { socket: async_socket, buffer: Vec::with_capacity(READ_BYTES), relevance, nft })
    }

    /// Prefixes for which routes of others matter: the same that [`crate::Dataplane::observe`] gets.
    pub fn watch(&mut self, prefixes: Vec<IpNet>) {
        self.relevance.watched = Watched::new(prefixes);
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
        loop {
            self.buffer.clear();
            match self.socket.poll_recv_from(context, &mut self.buffer) {
                Poll::Pending if concerned => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(from)) => {
                    concerned |= from.port_number() == 0 && self.relevance.judge(&self.buffer);
                }
                // The buffer ran over: what got lost is unknown.
                Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    concerned = true;
                    self.relevance.reread()?;
                }
                Poll::Ready(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("relevance", &self.relevance).finish_non_exhaustive()
    }
}

/// Which notifications concern us.
#[derive(Debug)]
struct Relevance {
    marks: Marks,
    writer: u32,
    watched: Watched,
    /// Indices of our devices.
    devices: BTreeSet<u32>,
}

impl Relevance {
    /// Reads anew which devices are ours.
    fn reread(&mut self) -> io::Result<()> {
        let links = observe::links(&mut Channel::open()?)?;
        let ours = links.values().filter(|link| observe::is_ours(link, &self.marks));
        self.devices = ours.map(|link| link.index).collect();
        Ok(())
    }

    /// Whether a datagram concerns us; one that can't be read might.
    fn judge(&mut self, datagram: &[u8]) -> bool {
        let mut readable = false;
        let mut concerned = false;
        for message in messages(datagram) {
            readable = true;
            concerned |= self.concerns(&message);
        }
        concerned || !readable
    }

    fn concerns(&mut self, message: &Message<'_>) -> bool {
        match message.kind {
            link::RTM_NEWLINK | link::RTM_DELLINK => {
                self.learn(message);
                message.port != self.writer
            }
            neighbor::RTM_NEWNEIGH | neighbor::RTM_DELNEIGH => {
                neighbor::index(message.body).is_some_and(|index| self.devices.contains(&index))
            }
            route::RTM_NEWROUTE | route::RTM_DELROUTE => route::decode(message.body).is_some_and(|found| {
                found.protocol == self.marks.route_protocol
                    || found.key.prefix.prefix_len() == 0
                    || self.watched.touched_by(&found.key.prefix)
            }),
            nexthop::RTM_NEWNEXTHOP | nexthop::RTM_DELNEXTHOP => {
                nexthop::decode(message.body).is_none_or(|object| self.marks.owns_nexthop(object.id))
            }
            // Addresses, rules and settings change rarely.
            _ => true,
        }
    }

    /// Keeps track of our devices.
    fn learn(&mut self, message: &Message<'_>) {
        let Some(found) = link::decode(message.body).filter(|_| link::family(message.body) == Some(0)) else {
            return;
        };
        if message.kind == link::RTM_NEWLINK && observe::is_ours(&found, &self.marks) {
            self.devices.insert(found.index);
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
