//! Pairway's node agent.

pub mod node;
pub mod status;
pub mod store;
