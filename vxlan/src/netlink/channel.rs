//! A netlink socket for requests: dumps that tell the truth, and batches whose errors find their request.
//!
//! What the kernel answers is read by pure code ([`Dump`], [`Answers`]); the rest of this module sends and receives.

mod batch;
mod transaction;

pub(super) use batch::Batch;

use std::io::{self, ErrorKind};
use std::time::Duration;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;

use crate::reconcile::ApplyError;

use super::attributes::{align, attribute, text, u16_at, u32_at};
use super::request::Request;

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Requests per send: more gain nothing, and the answers to a batch that fails as a whole must fit the buffer.
const BATCH: usize = 128;
/// Bytes per send, well under the default send buffer (212,992).
const BATCH_BYTES: usize = 64 * 1024;
/// The kernel fills up to 32 KiB per read of a dump; a link with many virtual functions takes more.
const READ_BYTES: usize = 128 * 1024;
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// Room for a transaction: some 100,000 addresses.
const TRANSACTION_BYTES: usize = 4 * 1024 * 1024;
/// How often a dump that was interrupted by a change is begun again.
const DUMP_ATTEMPTS: usize = 10;
/// A request can take a second where there are a million routes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A socket of our own, bound to its network namespace for good.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Channel {
    /// For devices, routes and what hangs on them.
    pub(super) fn open() -> io::Result<Self> {
        Self::of_protocol(NETLINK_ROUTE)
    }

    /// For nftables.
    pub(super) fn open_netfilter() -> io::Result<Self> {
        let channel = Self::of_protocol(NETLINK_NETFILTER)?;
        // A transaction is one datagram, whatever it holds.
        if setsockopt(&channel.socket, sockopt::SndBufForce, &TRANSACTION_BYTES).is_err() {
            setsockopt(&channel.socket, sockopt::SndBuf, &TRANSACTION_BYTES)?;
        }
        Ok(channel)
    }

    fn of_protocol(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        let port = socket.bind_auto()?.port_number();
        socket.set_netlink_get_strict_chk(true)?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        set_receive_buffer(&socket, RECEIVE_BUFFER)?;
        SockRef::from(&socket).set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, port, sequence: 0, buffer: Vec::with_capacity(READ_BYTES) })
    }

    /// The port id that marks notifications of what this socket changed.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// A dump, whole and uninterrupted. `each` is called with type and body of every message, after the dump has
    /// turned out to be consistent.
    pub(super) fn dump(
        &mut self,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.read_dump(kind, body)?.messages().for_each(|(kind, body)| each(kind, body));
        Ok(())
    }

    /// The same, to go through it more than once.
    pub(super) fn read_dump(&mut self, kind: u16, body: &[u8]) -> io::Result<Dumped> {
        for _ in 0..DUMP_ATTEMPTS {
            match self.try_dump(kind, body) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other.map(Dumped),
            }
        }
        let why = format!("the kernel changed during each of {DUMP_ATTEMPTS} dumps");
        Err(io::Error::new(ErrorKind::Interrupted, why))
    }

    /// One try at a dump, for a look that is begun again as a whole: `Interrupted` if it is not consistent.
    pub(super) fn dump_once(
        &mut self,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        Dumped(self.try_dump(kind, body)?).messages().for_each(|(kind, body)| each(kind, body));
        Ok(())
    }

    /// One dump: its datagrams, or `Interrupted` if it is not consistent.
    fn try_dump(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.try_part(kind, body, usize::MAX).map(|part| part.dumped.0)
    }

    /// One dump of something that may be large, read no further than some datagrams beyond `most` bytes. Where there was
    /// more the kernel is still at it, and this socket is good for nothing any more: closing it ends the dump.
    pub(super) fn try_part(&mut self, kind: u16, body: &[u8], most: usize) -> io::Result<Part> {
        let sequence = self.next_sequence();
        let mut message = Vec::new();
        put_message(&mut message, kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, body);
        self.send(&message)?;
        let mut dump = Dump { sequence, interrupted: false };
        let mut datagrams = Vec::new();
        let mut bytes = 0;
        loop {
            self.receive()?;
            let whole = dump.feed(&self.buffer)?;
            bytes += self.buffer.len();
            datagrams.push(self.buffer.clone());
            if whole || bytes > most {
                return if dump.interrupted {
                    Err(ErrorKind::Interrupted.into())
                } else {
                    Ok(Part { dumped: Dumped(datagrams), bytes, whole })
                };
            }
        }
    }

    /// A question with one answer: its type and body.
    pub(super) fn ask(&mut self, request: &Request) -> io::Result<(u16, Vec<u8>)> {
        let sequence = self.next_sequence();
        let mut message = Vec::new();
        put_message(&mut message, request.kind, NLM_F_REQUEST | request.flags, sequence, &request.body);
        self.send(&message)?;
        loop {
            self.receive()?;
            for answer in messages(&self.buffer).filter(|m| m.sequence == sequence) {
                match answer.kind {
                    NLMSG_ERROR => {
                        answer.error().map_err(|error| io::Error::from_raw_os_error(error.errno))?
                    }
                    kind => return Ok((kind, answer.body.to_vec())),
                }
            }
        }
    }

    /// Sends requests in order, as many at once as pay. One result each; the kernel goes on after a failure.
    pub(super) fn send_all(&mut self, requests: &[Request]) -> Vec<Result<(), ApplyError>> {
        let mut results = Vec::with_capacity(requests.len());
        let mut rest = requests;
        while !rest.is_empty() {
            let (batch, next) = rest.split_at(batch_length(rest));
            results.extend(self.send_batch(batch));
            rest = next;
        }
        results
    }

    fn send_batch(&mut self, requests: &[Request]) -> Vec<Result<(), ApplyError>> {
        let mut batch = Batch::default();
        for (position, request) in requests.iter().enumerate() {
            batch.add(position, request.kind, request.flags, |body| body.extend(&request.body));
        }
        let mut results = vec![Ok(()); requests.len()];
        for (position, error) in self.deliver(&mut batch) {
            results[position] = Err(error);
        }
        results
    }

    /// Sends a batch and reads its answers.
    fn exchange(&mut self, message: &[u8], mut answers: Answers) -> Vec<Result<(), ApplyError>> {
        if let Err(error) = self.send(message) {
            return answers.give_up(&error);
        }
        while !answers.complete() {
            match self.receive() {
                Ok(()) => answers.feed(&self.buffer),
                // The receive buffer ran over (ENOBUFS), or no answer came: what we don't know is an error, and the
                // next look at the kernel shows what became of it.
                Err(error) => return answers.give_up(&error),
            }
        }
        answers.results()
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        let kernel = SocketAddr::new(0, 0);
        loop {
            match self.socket.send_to(message, &kernel, 0) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other.map(drop),
            }
        }
    }

    /// One datagram from the kernel into the buffer.
    fn receive(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, libc::MSG_TRUNC) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let why = format!("no answer from the kernel within {PATIENCE:?}");
                    return Err(io::Error::new(ErrorKind::TimedOut, why));
                }
                Err(error) => return Err(error),
                Ok((length, _)) if length > self.buffer.len() => {
                    let why = format!("a netlink message of {length} bytes does not fit {READ_BYTES}");
                    return Err(io::Error::new(ErrorKind::InvalidData, why));
                }
                Ok((_, from)) if from.port_number() != 0 => {}
                Ok(_) => return Ok(()),
            }
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

/// A dump, or its begin.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) dumped: Dumped,
    pub(super) bytes: usize,
    /// There is no more.
    pub(super) whole: bool,
}

/// What was read of a dump: its datagrams.
#[derive(Debug)]
pub(super) struct Dumped(Vec<Vec<u8>>);

impl Dumped {
    /// As the kernel would answer with these messages.
    #[cfg(test)]
    pub(super) fn of(messages: &[(u16, Vec<u8>)]) -> Self {
        let written = messages.iter().map(|(kind, body)| {
            let mut datagram = Vec::new();
            put_message(&mut datagram, *kind, 0, 0, body);
            datagram
        });
        Self(written.collect())
    }

    /// Type and body of every message.
    pub(super) fn messages(&self) -> impl Iterator<Item = (u16, &[u8])> {
        let all = self.0.iter().flat_map(|datagram| messages(datagram));
        all.filter(|message| message.kind > NLMSG_DONE).map(|message| (message.kind, message.body))
    }
}

/// A large receive buffer: beyond the administrator's limit where we may (`CAP_NET_ADMIN`), else up to it.
pub(super) fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &bytes)?;
    }
    Ok(())
}

/// A message in a datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) port: u32,
    pub(super) body: &'a [u8],
}

/// The messages of a datagram; ends at the first that does not fit.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            port: u32_at(bytes, 12)?,
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some(message)
    })
}

impl Message<'_> {
    /// The outcome that an `NLMSG_ERROR` tells.
    fn error(&self) -> Result<(), ApplyError> {
        let errno = u32_at(self.body, 0).map_or(libc::EPROTO, |code| code.cast_signed().wrapping_neg());
        if errno == 0 {
            return Ok(());
        }
        Err(ApplyError { errno, message: self.text().unwrap_or_else(|| describe(errno)) })
    }

    /// The text that comes with an error (`NLMSGERR_ATTR_MSG`): after the header of our request, or after all of it.
    fn text(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let echoed = if self.flags & NLM_F_CAPPED != 0 {
            HEADER
        } else {
            align(usize::try_from(u32_at(self.body, 4)?).ok()?)
        };
        attribute(self.body.get(4 + echoed..)?, NLMSGERR_ATTR_MSG).map(text)
    }
}

fn describe(errno: i32) -> String {
    nix::errno::Errno::from_raw(errno).desc().to_owned()
}

fn put_message(buffer: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
    let begin = buffer.len();
    put_header(buffer, kind, flags, sequence);
    buffer.extend(body);
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    buffer[begin..begin + 4].copy_from_slice(&length.to_ne_bytes());
    buffer.resize(align(buffer.len()), 0);
}

/// A `struct nlmsghdr` whose length is not known yet.
fn put_header(buffer: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32) {
    buffer.extend(0u32.to_ne_bytes());
    buffer.extend(kind.to_ne_bytes());
    buffer.extend(flags.to_ne_bytes());
    buffer.extend(sequence.to_ne_bytes());
    buffer.extend(0u32.to_ne_bytes());
}

/// How many of these requests go into one send: at least one.
fn batch_length(requests: &[Request]) -> usize {
    let mut bytes = 0;
    let fitting = requests.iter().take(BATCH).take_while(|request| {
        bytes += align(HEADER + request.body.len());
        bytes <= BATCH_BYTES
    });
    fitting.count().max(1)
}

/// A dump that is being read.
#[derive(Debug)]
struct Dump {
    sequence: u32,
    interrupted: bool,
}

impl Dump {
    /// Whether the dump is at its end; an error if the kernel says so, be it in the final message.
    fn feed(&mut self, datagram: &[u8]) -> io::Result<bool> {
        for message in messages(datagram).filter(|message| message.sequence == self.sequence) {
            self.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
            match message.kind {
                NLMSG_ERROR => {
                    message.error().map_err(|error| io::Error::from_raw_os_error(error.errno))?;
                }
                NLMSG_DONE => {
                    let code = u32_at(message.body, 0).unwrap_or(0).cast_signed();
                    return if code < 0 {
                        Err(io::Error::from_raw_os_error(code.wrapping_neg()))
                    } else {
                        Ok(true)
                    };
                }
                _ => {}
            }
        }
        Ok(false)
    }
}

/// The answers to a batch, by sequence number.
#[derive(Debug)]
struct Answers {
    first: u32,
    failed: Vec<Option<ApplyError>>,
    /// How many of the batch are answered, or known to be done because a later one is.
    seen: usize,
}

impl Answers {
    fn new(first: u32, length: usize) -> Self {
        Self { first, failed: vec![None; length], seen: 0 }
    }

    fn feed(&mut self, datagram: &[u8]) {
        for answer in messages(datagram).filter(|message| message.kind == NLMSG_ERROR) {
            // An answer to an earlier batch that was given up wraps around to a large number.
            let position = usize::try_from(answer.sequence.wrapping_sub(self.first)).unwrap_or(usize::MAX);
            if let Some(slot) = self.failed.get_mut(position) {
                *slot = answer.error().err();
                self.seen = self.seen.max(position + 1);
            }
        }
    }

    fn complete(&self) -> bool {
        self.seen == self.failed.len()
    }

    fn results(self) -> Vec<Result<(), ApplyError>> {
        self.failed.into_iter().map(|failed| failed.map_or(Ok(()), Err)).collect()
    }

    /// No more answers will come: what was not answered may or may not be done. What is known stays as it is.
    fn give_up(mut self, why: &io::Error) -> Vec<Result<(), ApplyError>> {
        let errno = why.raw_os_error().unwrap_or(libc::EIO);
        for slot in self.failed.iter_mut().skip(self.seen) {
            slot.get_or_insert_with(|| ApplyError {
                errno,
                message: format!("the kernel's answer is missing: {why}"),
            });
        }
        self.results()
    }
}

#[cfg(test)]
mod tests;
