//! Netlink with nothing around it: the kernel's limit, a disturber, and a listener.
//!
//! Not the code under test: its own few lines on a bare socket, so that the two can be told apart.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::BenchError;
use super::routes::Network;
use crate::eventually::now;

/// Messages per send: more gain nothing.
const BATCH: usize = 128;
const RECEIVE_BUFFER: usize = 64 * 1024 * 1024;
/// A million routes may hold one message up for a second.
const PATIENCE_SECONDS: i64 = 30;

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
/// `NLM_F_CREATE | NLM_F_EXCL`
const CREATE: u16 = 0x600;

pub(super) const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWNEXTHOP: u16 = 104;

/// `RTMGRP_*` of neighbours, IPv4 routes and nexthop objects: groups 3, 7 and 32 as a mask.
const NOTIFICATIONS: u32 = 1 << 2 | 1 << 6 | 1 << 31;

/// A netlink socket of the namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Raw {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Requests as the kernel wants them, ready to be sent: as many as go into one send.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
    messages: usize,
}

/// A notification: type and what follows the header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Notice<'a> {
    pub(super) kind: u16,
    pub(super) body: &'a [u8],
}

impl Raw {
    /// A socket for requests.
    pub(super) fn open() -> Result<Self, BenchError> {
        Self::with_groups(0)
    }

    /// A socket that hears of routes, neighbours, FDB entries and nexthop objects.
    pub(super) fn listen() -> Result<Self, BenchError> {
        Self::with_groups(NOTIFICATIONS)
    }

    fn with_groups(groups: u32) -> Result<Self, BenchError> {
        let open = || -> nix::Result<OwnedFd> {
            let socket = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkRoute,
            )?;
            setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
            Ok(socket)
        };
        let socket = open().map_err(io::Error::from).map_err(BenchError::system("open a netlink socket"))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; 64 * 1024] })
    }

    /// Sends batches, one after the other, each answered once.
    pub(super) fn send_all(&mut self, batches: &mut [Batch]) -> Result<(), BenchError> {
        batches.iter_mut().try_for_each(|batch| self.send(batch))
    }

    fn send(&mut self, batch: &mut Batch) -> Result<(), BenchError> {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = batch.flags_of_last() | NLM_F_ACK;
        batch.bytes[batch.last + 6..batch.last + 8].copy_from_slice(&flags.to_ne_bytes());
        batch.bytes[batch.last + 8..batch.last + 12].copy_from_slice(&self.sequence.to_ne_bytes());
        let failed = BenchError::system("send to the kernel");
        sendto(self.socket.as_raw_fd(), &batch.bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())
            .map_err(io::Error::from)
            .map_err(failed)?;
        loop {
            let sequence = self.sequence;
            for message in self.receive()? {
                if u16_at(message, 4) != NLMSG_ERROR {
                    continue;
                }
                let code = u32_at(message, HEADER).cast_signed();
                if code != 0 {
                    let error = io::Error::from_raw_os_error(-code);
                    return Err(BenchError::System { what: "write to the kernel".to_owned(), source: error });
                }
                if u32_at(message, 8) == sequence {
                    return Ok(());
                }
            }
        }
    }

    /// One datagram's messages.
    fn receive(&mut self) -> Result<impl Iterator<Item = &[u8]>, BenchError> {
        let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())
            .map_err(io::Error::from)
            .map_err(BenchError::system("receive from the kernel"))?;
        Ok(messages(&self.buffer[..length]))
    }

    /// Gives notifications to `take` until it has what it wants, or `limit` is over: then `what` did not come.
    pub(super) fn hear<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut take: impl FnMut(Notice<'_>, Instant) -> Option<T>,
    ) -> Result<T, BenchError> {
        let end = now() + limit;
        loop {
            let left = end.saturating_duration_since(now());
            if left.is_zero() {
                return Err(BenchError::Wrong(format!("{what}: not within {} s", limit.as_secs())));
            }
            let timeout = TimeVal::microseconds(i64::try_from(left.as_micros()).unwrap_or(i64::MAX).max(1));
            setsockopt(&self.socket, sockopt::ReceiveTimeout, &timeout)
                .map_err(io::Error::from)
                .map_err(BenchError::system("set a timeout"))?;
            let length = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                Err(error) => {
                    return Err(BenchError::System {
                        what: "hear of the kernel's changes".to_owned(),
                        source: error.into(),
                    });
                }
            };
            let at = now();
            for message in messages(&self.buffer[..length]) {
                let notice =
                    Notice { kind: u16_at(message, 4), body: message.get(HEADER..).unwrap_or_default() };
                if let Some(found) = take(notice, at) {
                    return Ok(found);
                }
            }
        }
    }
}

impl Notice<'_> {
    /// A route of ours: its destination and prefix length.
    pub(super) fn route(&self, protocol: u8) -> Option<(Ipv4Addr, u8)> {
        let ours = self.kind == RTM_NEWROUTE && self.body.get(5) == Some(&protocol);
        let address = self.attribute(12, RTA_DST).filter(|_| ours)?;
        Some((ipv4(address)?, *self.body.get(1)?))
    }

    /// A permanent neighbour on a device; of the bridge family: where its packets go.
    pub(super) fn neighbor(&self, bridge: bool) -> Option<Ipv4Addr> {
        let family = if bridge { AF_BRIDGE } else { AF_INET };
        let fits = self.kind == RTM_NEWNEIGH
            && self.body.first() == Some(&family)
            && u16_at(self.body, 8) & NUD_PERMANENT != 0;
        ipv4(self.attribute(12, NDA_DST).filter(|_| fits)?)
    }

    fn attribute(&self, header: usize, wanted: u16) -> Option<&[u8]> {
        let mut rest = self.body.get(header..)?;
        loop {
            let length = usize::from(rest.get(..2).map(|_| u16_at(rest, 0))?);
            let value = rest.get(4..length)?;
            if u16_at(rest, 2) & 0x3fff == wanted {
                return Some(value);
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
    }
}

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 0x02;
const RTA_DST: u16 = 1;
const RTA_PRIORITY: u16 = 6;
const RTA_NH_ID: u16 = 30;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NHA_ID: u16 = 1;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;

/// Creates a nexthop object.
pub(super) fn nexthop(id: u32, gateway: Ipv4Addr, index: u32, protocol: u8) -> (u16, u16, Vec<u8>) {
    let mut body = vec![AF_INET, 0, protocol, 0, 0, 0, 0, 0];
    put(&mut body, NHA_ID, &id.to_ne_bytes());
    put(&mut body, NHA_OIF, &index.to_ne_bytes());
    put(&mut body, NHA_GATEWAY, &gateway.octets());
    (RTM_NEWNEXTHOP, CREATE, body)
}

/// Creates a route in the main table.
pub(super) fn route(to: Network, id: u32, metric: u32, protocol: u8) -> (u16, u16, Vec<u8>) {
    let mut body = vec![AF_INET, to.length, 0, 0, MAIN_TABLE, protocol, 0, UNICAST, 0, 0, 0, 0];
    put(&mut body, RTA_DST, &to.address.octets());
    put(&mut body, RTA_PRIORITY, &metric.to_ne_bytes());
    put(&mut body, RTA_NH_ID, &id.to_ne_bytes());
    (RTM_NEWROUTE, CREATE, body)
}

/// Deletes a route of the main table, whosever it is.
pub(super) fn delete_route(to: Network) -> (u16, u16, Vec<u8>) {
    let mut body = vec![AF_INET, to.length, 0, 0, MAIN_TABLE, 0, NOWHERE, 0, 0, 0, 0, 0];
    put(&mut body, RTA_DST, &to.address.octets());
    (RTM_DELROUTE, 0, body)
}

/// Deletes an FDB entry of a VXLAN device.
pub(super) fn delete_fdb(index: u32, mac: [u8; 6]) -> (u16, u16, Vec<u8>) {
    let mut body = vec![AF_BRIDGE, 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(NUD_PERMANENT.to_ne_bytes());
    body.extend([NTF_SELF, 0]);
    put(&mut body, NDA_LLADDR, &mac);
    (RTM_DELNEIGH, 0, body)
}

const MAIN_TABLE: u8 = 254;
const UNICAST: u8 = 1;
/// `RT_SCOPE_NOWHERE`: any scope will do.
const NOWHERE: u8 = 255;

/// Requests in batches.
pub(super) fn batches(requests: impl IntoIterator<Item = (u16, u16, Vec<u8>)>) -> Vec<Batch> {
    let mut all: Vec<Batch> = Vec::new();
    for (kind, flags, body) in requests {
        if all.last().is_none_or(|batch| batch.messages == BATCH) {
            all.push(Batch::default());
        }
        if let Some(batch) = all.last_mut() {
            batch.push(kind, flags, &body);
        }
    }
    all
}

impl Batch {
    fn push(&mut self, kind: u16, flags: u16, body: &[u8]) {
        self.last = self.bytes.len();
        self.messages += 1;
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend([0; 8]);
        self.bytes.extend(body);
    }

    fn flags_of_last(&self) -> u16 {
        u16_at(&self.bytes, self.last + 6)
    }
}

fn put(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    buffer.extend(length.to_ne_bytes());
    buffer.extend(kind.to_ne_bytes());
    buffer.extend(value);
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::try_from(bytes.get(..4).map(|_| u32_at(bytes, 0))?).ok()?;
        let message = bytes.get(..length).filter(|message| message.len() >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// 0 where there is nothing.
fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    let found = bytes.get(offset..offset + 2).and_then(|bytes| bytes.try_into().ok());
    found.map_or(0, u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let found = bytes.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok());
    found.map_or(0, u32::from_ne_bytes)
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}
