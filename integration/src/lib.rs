//! Many Pairway nodes on one machine.
