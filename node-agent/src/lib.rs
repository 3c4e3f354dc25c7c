//! Pairway's node agent.

pub mod node;
pub mod store;
