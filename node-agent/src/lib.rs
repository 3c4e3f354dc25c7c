//! Pairway's node agent.

pub mod agent;
pub mod api;
pub mod claim;
pub mod claims;
pub mod cli;
pub mod cni;
pub mod daemon;
pub mod dataplane;
pub mod doctor;
mod durable;
pub mod http;
pub mod liveness;
pub mod metrics;
pub mod node;
pub mod originals;
pub mod path;
pub mod plan;
pub mod reload;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod underlay;
pub mod uninstall;

#[cfg(test)]
extern crate self as node_agent;
#[cfg(test)]
mod fixtures;
