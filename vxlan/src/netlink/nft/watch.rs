//! The kernel's notifications about nftables.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};

use crate::netlink::AT_ONCE;
use crate::netlink::channel::{Channel, Message, messages, set_receive_buffer};

use super::decode::{self, ChainKey};
use super::{look, message};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// Others write tens of thousands of rules at once.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
const READ_BYTES: usize = 64 * 1024;
/// A list of chains that could not be had is asked for again after so many datagrams.
const ASK_AGAIN: u32 = 256;

/// A subscription that says when our table, or a chain at a hook that matters to us, was changed by somebody else, or a
/// rule of such a chain. What changes further down, in the chains that these lead to, is found by the next look: there
/// others write thousands of rules.
pub(in crate::netlink) struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
    table: String,
    writer: u32,
    hooked: Hooked,
}

/// Chains of others at hooks that matter: by their names alone it is known whose end concerns us.
enum Hooked {
    Known(BTreeSet<ChainKey>),
    /// The list could not be had, so many datagrams ago: others change it while it is read. Then each may be one.
    Unknown(u32),
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
            hooked: Hooked::read(),
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
        for _ in 0..AT_ONCE {
            self.buffer.clear();
            let received = self.socket.socket_ref().recv_from(&mut self.buffer, libc::MSG_DONTWAIT);
            match received.map(|(_, from)| from) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(concerned),
                received => concerned |= self.take(received)?,
            }
        }
        Ok(true)
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
                self.hooked.ask_again();
                Ok(concerned)
            }
            // The buffer ran over: what got lost is unknown.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.hooked = Hooked::read();
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Hooked {
    /// As they are now; none in a kernel without nf_tables.
    fn read() -> Self {
        let found = Channel::open_netfilter().and_then(|mut channel| look::chains(&mut channel));
        match found {
            Ok(chains) => {
                let hooked = chains
                    .into_iter()
                    .filter(|chain| chain.base.as_ref().is_some_and(|base| decode::matters(base.base.hook)));
                Self::Known(hooked.map(|chain| (chain.family, chain.table, chain.name)).collect())
            }
            Err(error) if look::is_missing(&error) => Self::Known(BTreeSet::new()),
            // It must not keep us from hearing of anything else.
            Err(_) => Self::Unknown(0),
        }
    }

    fn ask_again(&mut self) {
        if let Self::Unknown(since) = self {
            *since += 1;
            if *since > ASK_AGAIN {
                *self = Self::read();
            }
        }
    }

    fn add(&mut self, chain: ChainKey) {
        if let Self::Known(chains) = self {
            chains.insert(chain);
        }
    }

    fn remove(&mut self, chain: &ChainKey) -> bool {
        match self {
            Self::Known(chains) => chains.remove(chain),
            Self::Unknown(_) => true,
        }
    }

    fn contains(&self, chain: &ChainKey) -> bool {
        match self {
            Self::Known(chains) => chains.contains(chain),
            Self::Unknown(_) => true,
        }
    }
}

fn judge(hooked: &mut Hooked, table: &str, notification: &Message<'_>) -> bool {
    let changed = match decode::told_chain(notification) {
        Some((message::NEW_CHAIN, chain)) => {
            hooked.add(chain);
            true
        }
        Some((_, chain)) => hooked.remove(&chain),
        None => decode::told_rule(notification).is_some_and(|chain| hooked.contains(&chain)),
    };
    changed || decode::concerns(notification, table)
}

#[cfg(test)]
mod tests {
    use super::super::{attr, kind};
    use super::*;
    use crate::netlink::attributes::put;

    /// A rule of the chain `filter DOCKER` of family ip that has changed.
    fn rule(write: impl FnOnce(&Message<'_>)) {
        let mut body = vec![2, 0, 0, 0];
        put(&mut body, attr::TABLE, b"filter\0");
        put(&mut body, attr::RULE_CHAIN, b"DOCKER\0");
        let kind = kind(message::NEW_RULE);
        write(&Message { kind, flags: 0, sequence: 0, port: 7, body: &body });
    }

    #[test]
    fn where_the_list_of_chains_could_not_be_had_each_may_be_hooked() {
        let key: ChainKey = (2, "filter".to_owned(), "DOCKER".to_owned());
        let told = |mut hooked: Hooked| {
            let mut concerned = false;
            rule(|message| concerned = judge(&mut hooked, "pairway", message));
            concerned
        };
        assert!(told(Hooked::Known([key].into())));
        assert!(!told(Hooked::Known(BTreeSet::new())));
        assert!(told(Hooked::Unknown(0)));
    }
}
