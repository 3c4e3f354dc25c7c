//! The `pairway` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(node_agent::cli::run(std::env::args_os()))
}
