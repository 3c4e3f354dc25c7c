//! Many Pairway nodes on one machine: the lab, the demonstration, and what the tests with real kernels share.
//!
//! A topology is a containerlab file ([`topology`]); [`lab`] brings it up as network namespaces with no
//! container engine; [`cluster`] starts agents on it and makes pods; [`reach`] proves that everybody reaches
//! everybody; [`demo`] shows it. [`mod@bench`] measures.

pub mod bench;
pub mod cluster;
pub mod demo;
pub mod echo;
pub mod eventually;
pub mod interrupt;
pub mod kubernetes;
pub mod lab;
pub mod labs;
pub mod reach;
pub mod screen;
pub mod stream;
pub mod topology;
pub mod watch;
