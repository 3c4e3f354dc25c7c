//! The crate from outside: what an operator writes and reads.
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests: a panic is a failure")]

mod changes;
mod deploy;
mod errors;
mod golden;
mod properties;
mod samples;
