//! A BGP-4 speaker that knows nothing of nodes, Kubernetes or the kernel's routes.
//!
//! In data-flow order: [`wire`] turns bytes into messages and back, [`session`] is the RFC 4271 state machine
//! of one peer without any IO or clock, [`rib`] holds what was learned and what is announced, and `speaker`
//! (feature `io`) runs all of it on sockets: one task owns every session and the RIB.
//!
//! A speaker announces its own prefixes and learns those of others; it never passes on what it learned.
//!
//! # Implemented
//!
//! | RFC | what of it |
//! |---|---|
//! | 4271 | all states and timers but DelayOpen; jitter; collisions; decision process among learned paths |
//! | 4760, 2545 | IPv4 and IPv6 unicast |
//! | 5492, 9072 | capabilities, extended optional parameters |
//! | 6793, 7607, 9774 | four-octet AS numbers, AS 0, AS_SET is treated as withdraw |
//! | 6286 | identifiers that are no addresses; ties between two AS |
//! | 6608 | subcodes of finite state machine errors |
//! | 7606 | malformed attributes: discard, treat as withdraw, reset |
//! | 4724 | graceful restart as helper and as restarter |
//! | 8538 | graceful restart over NOTIFICATION, Hard Reset; not over an expired hold timer (see `session::Reason`) |
//! | 2918 | ROUTE-REFRESH is answered; it is never sent, as the Adj-RIB-In keeps what the filter refuses |
//! | 4486, 9003 | Cease subcodes, shutdown communication received |
//! | 8212 | nothing is imported without a rule |
//! | 9687 | send hold timer |
//! | 8326 | GRACEFUL_SHUTDOWN is sent where it is asked for; on paths of others it has no effect |
//! | 1997, 4456 | COMMUNITIES, ORIGINATOR_ID and CLUSTER_LIST are read; loops are refused |
//!
//! # Not implemented
//!
//! TCP-MD5 (2385), TCP-AO (5925), GTSM (5082), BFD (5880), route reflection and any other re-announcement (4456),
//! enhanced route refresh (7313), ADD-PATH (7911), extended messages (8654), IPv4 over IPv6 next hops (8950),
//! long-lived graceful restart (9494), roles (9234), large and extended communities (8092, 4360) but as opaque
//! attributes, BMP (7854), unnumbered peers (link-local addresses).

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
