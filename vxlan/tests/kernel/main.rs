//! The netlink half on the kernel of this machine, in network namespaces of the tests' own, asserted with other
//! programs (`ip`, `bridge`).
//!
//! Needs root: without it every test here fails, none passes unseen.

mod namespace;
mod objects;
mod silent;
