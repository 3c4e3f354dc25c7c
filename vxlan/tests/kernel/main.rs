//! The netlink half on the kernel of this machine, in network namespaces of the tests' own, asserted with other
//! programs (`ip`, `bridge`), and FakeKernel held to what the kernel does.
//!
//! Needs root: without it every test here fails, none passes unseen.

mod conform;
mod namespace;
mod objects;
mod silent;
