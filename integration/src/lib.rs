//! Many Pairway nodes on one machine: the lab, the demonstration, and what the tests with real kernels share.
//!
//! A topology is a containerlab file ([`topology`]); [`lab`] brings it up as network namespaces with no
//! container engine.

pub mod eventually;
pub mod lab;
pub mod topology;
