//! Passes in which something goes wrong.

mod faults;
mod invariants;
mod scenarios;
