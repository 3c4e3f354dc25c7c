//! The kernel's notifications about nftables.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};

use crate::netlink::channel::{Channel, Message, messages, set_receive_buffer};

use super::decode::{self, ChainKey};
use super::{look, message};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// Others write tens of thousands of rules at once.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// A subscription that says when our table, or a chain at a hook that matters to us, was changed by somebody else, or a
/// rule of such a chain. What changes further down, in the chains that these lead to, is found by the next look: there
/// others write thousands of rules.
pub(in crate::netlink) struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
    table: String,
    writer: u32,
    /// Chains of others at hooks that matter: by their names alone it is known whose end concerns us.
    hooked: BTreeSet<ChainKey>,
}

impl Watch {
    /// Subscribes in the network namespace of the calling thread. What `writer` does is left out.
    pub(in crate::netlink) fn open(table: &str, writer: u32) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        set_receive_buffer(socket.socket_mut(), RECEIVE_BUFFER)?;
        socket.socket_mut().add_membership(GROUP)?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(READ_BYTES),
            table: table.to_owned(),
            writer,
            hooked: hooked_chains()?,
        })
    }

    /// Reads all that is there: whether any of it concerns us. What is still to come wakes the context.
    pub(in crate::netlink) fn poll(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut concerned = false;
        loop {
            self.buffer.clear();
            match self.socket.poll_recv_from(context, &mut self.buffer) {
                Poll::Pending => return Ok(concerned),
                Poll::Ready(received) => concerned |= self.take(received)?,
            }
        }
    }

    /// The same without a context: nothing is woken.
    pub(in crate::netlink) fn hear(&mut self) -> io::Result<bool> {
        let mut concerned = false;
        loop {
            self.buffer.clear();
            let received = self.socket.socket_ref().recv_from(&mut self.buffer, libc::MSG_DONTWAIT);
            match received.map(|(_, from)| from) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(concerned),
                received => concerned |= self.take(received)?,
            }
        }
    }

    /// Judges what was received into the buffer.
    fn take(&mut self, received: io::Result<SocketAddr>) -> io::Result<bool> {
        match received {
            Ok(from) if from.port_number() != 0 => Ok(false),
            Ok(_) => {
                let mut concerned = false;
                for message in messages(&self.buffer).filter(|message| message.port != self.writer) {
                    concerned |= judge(&mut self.hooked, &self.table, &message);
                }
                Ok(concerned)
            }
            // The buffer ran over: what got lost is unknown.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.hooked = hooked_chains()?;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn judge(hooked: &mut BTreeSet<ChainKey>, table: &str, notification: &Message<'_>) -> bool {
    let changed = match decode::told_chain(notification) {
        Some((message::NEW_CHAIN, chain)) => {
            hooked.insert(chain);
            true
        }
        Some((_, chain)) => hooked.remove(&chain),
        None => decode::told_rule(notification).is_some_and(|chain| hooked.contains(&chain)),
    };
    changed || decode::concerns(notification, table)
}

/// The chains at hooks that matter, as they are now; none in a kernel without nf_tables.
fn hooked_chains() -> io::Result<BTreeSet<ChainKey>> {
    let mut channel = Channel::open_netfilter()?;
    let chains = match look::chains(&mut channel) {
        Ok(chains) => chains,
        Err(error) if look::is_missing(&error) => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let hooked = chains
        .into_iter()
        .filter(|chain| chain.base.as_ref().is_some_and(|base| decode::matters(base.base.hook)));
    Ok(hooked.map(|chain| (chain.family, chain.table, chain.name)).collect())
}
