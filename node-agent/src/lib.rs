//! Pairway's node agent.

pub mod liveness;
pub mod node;
pub mod status;
pub mod store;
