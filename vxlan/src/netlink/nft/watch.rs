//! The kernel's notifications about nftables.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, TokioSocket};

use crate::firewall::hook;
use crate::netlink::channel::{Channel, Message, messages, set_receive_buffer};

use super::decode::{self, ChainKey};
use super::{look, message};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// Others write tens of thousands of rules at once.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// A subscription that says when our table, or a chain at the hook `forward`, was changed by somebody else.
pub(in crate::netlink) struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
    table: String,
    writer: u32,
    /// Chains at the hook `forward`: by their names alone it is known whose end concerns us.
    forward: BTreeSet<ChainKey>,
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
            forward: forward_chains()?,
        })
    }

    /// Reads all that is there: whether any of it concerns us. What is still to come wakes the context.
    pub(in crate::netlink) fn poll(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut concerned = false;
        loop {
            self.buffer.clear();
            match self.socket.poll_recv_from(context, &mut self.buffer) {
                Poll::Pending => return Ok(concerned),
                Poll::Ready(Ok(from)) if from.port_number() != 0 => {}
                Poll::Ready(Ok(_)) => {
                    for message in messages(&self.buffer).filter(|message| message.port != self.writer) {
                        concerned |= judge(&mut self.forward, &self.table, &message);
                    }
                }
                // The buffer ran over: what got lost is unknown.
                Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    concerned = true;
                    self.forward = forward_chains()?;
                }
                Poll::Ready(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
    }
}

fn judge(forward: &mut BTreeSet<ChainKey>, table: &str, notification: &Message<'_>) -> bool {
    let forward_changed = match decode::told_chain(notification) {
        Some((message::NEW_CHAIN, chain)) => {
            forward.insert(chain);
            true
        }
        Some((_, chain)) => forward.remove(&chain),
        None => false,
    };
    forward_changed || decode::concerns(notification, table)
}

/// The chains at the hook `forward`, as they are now; none in a kernel without nf_tables.
fn forward_chains() -> io::Result<BTreeSet<ChainKey>> {
    let mut channel = Channel::open_netfilter()?;
    let chains = match look::chains(&mut channel) {
        Ok(chains) => chains,
        Err(error) if look::is_missing(&error) => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let hooked = chains
        .into_iter()
        .filter(|chain| chain.base.as_ref().is_some_and(|base| base.base.hook == hook::FORWARD));
    Ok(hooked.map(|chain| (chain.family, chain.table, chain.name)).collect())
}
