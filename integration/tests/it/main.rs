//! Tests with real kernels: every test makes the namespaces that it needs and leaves nothing.
//!
//! They need root. Without it they fail and say so: a test that did not run has shown nothing.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod bench;
mod bird;
mod change;
mod coexist;
mod demo;
mod firewall;
mod ipip;
mod kubernetes;
mod lab;
mod load;
mod paths;
mod repair;
mod restart;
mod session;
mod support;
mod underlay;
mod upgrade;
mod watch;
mod without_module;
