//! The kernel's notifications about nftables.

use std::io::{self, ErrorKind};
use std::task::{Context, Poll};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, TokioSocket};

use crate::netlink::channel::{messages, set_receive_buffer};

use super::decode::concerns;

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
}

impl Watch {
    /// Subscribes in the network namespace of the calling thread. What `writer` does is left out.
    pub(in crate::netlink) fn open(table: &str, writer: u32) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        set_receive_buffer(socket.socket_mut(), RECEIVE_BUFFER)?;
        socket.socket_mut().add_membership(GROUP)?;
        Ok(Self { socket, buffer: Vec::with_capacity(READ_BYTES), table: table.to_owned(), writer })
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
                    concerned |= messages(&self.buffer)
                        .any(|message| message.port != self.writer && concerns(&message, &self.table));
                }
                // The buffer ran over: what got lost is unknown.
                Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => concerned = true,
                Poll::Ready(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
    }
}
