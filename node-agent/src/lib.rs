//! Pairway's node agent.

pub mod liveness;
pub mod node;
pub mod path;
pub mod status;
pub mod store;
