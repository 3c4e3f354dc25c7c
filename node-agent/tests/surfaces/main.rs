//! The command line as programs and people meet it: the real binary against an agent that is made up.

#[path = "../../src/fixtures.rs"]
mod fixtures;

mod agent;
mod chart;
mod commands;
mod conditions;
mod doctor;
mod failures;
mod manifests;
mod program;
mod reference;
mod schemas;
mod validate;
