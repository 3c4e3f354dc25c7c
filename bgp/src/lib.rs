//! A BGP-4 speaker that knows nothing of nodes, Kubernetes or the kernel's routes.
//!
//! In data-flow order: [`wire`] turns bytes into messages and back, [`session`] is the RFC 4271 state machine
//! of one peer without any IO or clock, [`rib`] holds what was learned and what is announced, and `speaker`
//! (feature `io`) runs all of it on sockets: one task owns every session and the RIB.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod rib;
pub mod session;
#[cfg(feature = "io")]
pub mod speaker;
#[cfg(feature = "io")]
mod transport;
mod types;
pub mod wire;

pub use types::{Asn, Family, RouterId};
