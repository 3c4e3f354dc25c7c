//! Requests that go to the kernel in one send, written where they are sent from: there may be a million of them.

use super::{Answers, BATCH, BATCH_BYTES, Channel, NLM_F_ACK, NLM_F_REQUEST, put_header};
use crate::netlink::attributes::align;
use crate::reconcile::ApplyError;

/// No request is larger than this, but for few that go alone.
const LARGEST: usize = 4096;

/// Requests in order.
#[derive(Debug, Default)]
pub(in crate::netlink) struct Batch {
    bytes: Vec<u8>,
    /// Where each request begins, and what it is for.
    requests: Vec<(usize, usize)>,
}

impl Batch {
    /// Whether it should be sent before anything else is added.
    pub(in crate::netlink) fn is_full(&self) -> bool {
        self.requests.len() >= BATCH || self.bytes.len() + LARGEST > BATCH_BYTES
    }

    /// Adds a request; `body` appends its body. `of` comes back with its error.
    pub(in crate::netlink) fn add(
        &mut self,
        of: usize,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        let begin = self.bytes.len();
        self.requests.push((begin, of));
        put_header(&mut self.bytes, kind, NLM_F_REQUEST | flags, 0);
        body(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - begin).unwrap_or(u32::MAX);
        self.bytes[begin..begin + 4].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.requests.clear();
    }

    /// Numbers the requests, and asks for an answer to the last: others are answered only if they fail.
    fn number(&mut self, first: u32) {
        let mut sequence = first;
        for (begin, _) in &self.requests {
            self.bytes[begin + 8..begin + 12].copy_from_slice(&sequence.to_ne_bytes());
            sequence = sequence.wrapping_add(1);
        }
        if let Some((begin, _)) = self.requests.last() {
            let flags = &mut self.bytes[begin + 6..begin + 8];
            let asked = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
            flags.copy_from_slice(&asked.to_ne_bytes());
        }
    }
}

impl Channel {
    /// Sends the requests and empties the batch. What was refused, and why; the kernel goes on after a failure.
    pub(in crate::netlink) fn deliver(&mut self, batch: &mut Batch) -> Vec<(usize, ApplyError)> {
        let Ok(count @ 1..) = u32::try_from(batch.requests.len()) else { return Vec::new() };
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(count);
        batch.number(first);
        let outcomes = self.exchange(&batch.bytes, Answers::new(first, batch.requests.len()));
        let refused = batch.requests.iter().zip(outcomes);
        let refused = refused.filter_map(|((_, of), outcome)| Some((*of, outcome.err()?))).collect();
        batch.clear();
        refused
    }
}
