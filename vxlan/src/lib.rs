//! The Linux data plane of Pairway: *every* kernel object that the agent owns, as one value.
//!
//! [`State`] is the type of both the wanted and the observed state, keyed as the kernel keys it. [`diff()`]
//! turns the two into an ordered list of [`Change`]s, and [`reconcile()`] observes, diffs and applies through
//! the [`Dataplane`] trait, which `netlink::Kernel` implements for Linux and `fake::FakeKernel` for tests.
//! This crate knows nothing of nodes, Kubernetes or BGP: it is told what the kernel should hold.

mod diff;
mod effects;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod firewall;
mod lost;
#[cfg(feature = "io")]
pub mod netlink;
mod reconcile;
mod standing;
mod state;
#[cfg(test)]
mod testing;
#[cfg(any(test, feature = "fake", feature = "io"))]
mod watched;

pub use diff::{Change, Conflict, Diff, SetChange, diff};
pub use lost::Lost;
pub use reconcile::{ApplyError, Dataplane, Failure, ObserveError, Refused, Report, reconcile};
pub use standing::standing;
pub use state::{
    Address, ELSEWHERE, FdbKey, Flaw, ForeignRule, Forwarding, Gateway, InstalledRoute, Interface,
    InterfaceAddress, IpTunnel, LinkName, LinkNameError, Mac, Marks, NeighborKey, Nexthop, NexthopId,
    Observed, Route, RouteKey, RouteTarget, Rule, RuleAction, Settings, State, TunnelEnds, TunnelId,
    TunnelKind, TunnelLink, Vni, Vxlan, VxlanId,
};
