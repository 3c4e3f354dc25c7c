//! `pairway-next`: the agent as the build after this one, whose records have the next version and a field more.
//!
//! With it the tests try rolling upgrades and the way back. It is a program of its own rather than a feature or an
//! option, so that the agent is compiled once, and `pairway` can't become it.

use std::process::ExitCode;

fn main() -> ExitCode {
    node_agent::store::record::become_next_version();
    ExitCode::from(node_agent::cli::run(std::env::args_os()))
}
