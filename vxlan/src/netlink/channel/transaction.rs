//! Several requests of nftables in one datagram, all of which take effect at once or none.

use std::io::ErrorKind;

use super::{Channel, HEADER, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, messages, put_message};
use crate::netlink::request::Request;
use crate::reconcile::ApplyError;

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

impl Channel {
    /// Sends a transaction of one netfilter subsystem. An error is that of the first request that was refused.
    ///
    /// The kernel works while we send: all its answers are there when that returns.
    pub(in crate::netlink) fn transact(
        &mut self,
        subsystem: u8,
        requests: &[Request],
    ) -> Result<(), ApplyError> {
        let Some(last) = requests.len().checked_sub(1) else { return Ok(()) };
        // `struct nfgenmsg`: family, version, resource in network byte order.
        let frame = [0, 0, 0, subsystem];
        let mut datagram = Vec::new();
        let begin = self.next_sequence();
        put_message(&mut datagram, BATCH_BEGIN, NLM_F_REQUEST, begin, &frame);
        let mut final_sequence = begin;
        for (position, request) in requests.iter().enumerate() {
            final_sequence = self.next_sequence();
            let ack = if position == last { NLM_F_ACK } else { 0 };
            let flags = NLM_F_REQUEST | request.flags | ack;
            put_message(&mut datagram, request.kind, flags, final_sequence, &request.body);
        }
        let end = self.next_sequence();
        put_message(&mut datagram, BATCH_END, NLM_F_REQUEST, end, &frame);
        self.send(&datagram).map_err(|error| from_io(&error))?;
        self.outcome(begin, final_sequence)
    }

    /// Reads until the last request is answered, or nothing more comes: one that was refused as a whole has no answer
    /// to its last.
    fn outcome(&mut self, begin: u32, last: u32) -> Result<(), ApplyError> {
        let mut refused = None;
        let mut done = false;
        while !done {
            match self.receive_now() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(from_io(&error)),
            }
            for answer in messages(&self.buffer).filter(|message| message.kind == NLMSG_ERROR) {
                // Answers to what was given up before wrap around to large numbers.
                let position = answer.sequence.wrapping_sub(begin);
                if position > last.wrapping_sub(begin).saturating_add(1) {
                    continue;
                }
                if let Err(error) = answer.error() {
                    refused.get_or_insert(error);
                }
                done |= answer.sequence == last;
            }
        }
        match refused {
            Some(error) => Err(error),
            None if done => Ok(()),
            None => Err(ApplyError {
                errno: libc::EPROTO,
                message: "the kernel has not answered to the transaction".to_owned(),
            }),
        }
    }

    /// One datagram that is there already.
    fn receive_now(&mut self) -> std::io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, libc::MSG_DONTWAIT) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok((_, from)) if from.port_number() != 0 || self.buffer.len() < HEADER => {}
                Ok(_) => return Ok(()),
            }
        }
    }
}

fn from_io(error: &std::io::Error) -> ApplyError {
    ApplyError { errno: error.raw_os_error().unwrap_or(libc::EIO), message: error.to_string() }
}
