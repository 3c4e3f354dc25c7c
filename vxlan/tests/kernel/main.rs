//! The netlink half on the kernel of this machine, in network namespaces of the tests' own, asserted with other
//! programs (`ip`, `bridge`), and FakeKernel held to what the kernel does.
//!
//! Needs root: without it every test here fails, none passes unseen.

#![expect(clippy::unwrap_used, reason = "what a test needs and does not get ends it")]

mod batch;
mod conform;
mod firewall;
mod foreign;
mod ip_tunnels;
mod namespace;
mod objects;
mod repair;
mod silent;
mod switch;
mod watch;
