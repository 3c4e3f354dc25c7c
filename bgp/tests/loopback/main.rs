//! Speakers on loopback addresses, through the public interface alone.

#![expect(clippy::unwrap_used, reason = "what fails here is the test")]

mod failures;
mod fake;
mod harness;
mod many;
mod restart;
mod routes;
