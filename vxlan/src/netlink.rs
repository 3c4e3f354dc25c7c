//! Linux, by netlink: [`Kernel`] observes and applies, [`Monitor`] says when to look again.
//!
//! A small module on `netlink-sys`, with `netlink-packet-route` for what we write. Not `rtnetlink`: its dumps hide the
//! error code of the final message (a dump that failed looks like an empty one) and the kernel's remark that a dump
//! was interrupted, it sends one request per poll, and it has no nexthop messages.
//!
//! What we read is decoded here, attribute by attribute: a link message carries some seventy attributes of which we
//! need ten, and one that is not as a library expects must not blind us to the device.
//!
//! ```text
//! Kernel (a thread of its own, blocking)          Monitor (async)
//!   channel: dumps, batches of requests             filter in the kernel: not our own writes
//!   link address neighbor nexthop route rule        relevance: our devices, routes, nexthops, the underlay
//!   netconf: bytes <-> values, pure               our nftables table
//!   nft: transactions, on a socket of its own
//! ```

mod address;
mod attributes;
mod channel;
mod kernel;
mod link;
mod monitor;
mod neighbor;
mod netconf;
mod nexthop;
mod nft;
mod observe;
mod order;
mod release;
mod request;
mod route;
mod rule;
mod sysctl;

/// No more datagrams of notifications than this are read without letting others have their turn.
const AT_ONCE: usize = 4096;

pub use kernel::{Kernel, Ports};
pub use monitor::Monitor;
pub use release::{KernelRelease, KernelTooOld, MINIMUM_KERNEL, kernel_release, require_kernel};

#[cfg(test)]
mod tests;
