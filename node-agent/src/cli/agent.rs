//! `pairway agent`

use std::path::{Path, PathBuf};

use clap::Args;
use config::ConfigFile;

use super::output::{Exit, Failure, Printed};
use super::validate;
use crate::daemon;
use crate::telemetry::{self, LogFormat, chain};

/// How to run the agent.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file; it is followed, and SIGHUP has it read again.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// What to log: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by module as in `info,bgp=debug`;
    /// without it `$RUST_LOG` counts, else `info`.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How log lines look, on standard error.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
}

pub(super) fn run(arguments: &Arguments) -> Result<Printed, Failure> {
    telemetry::init(arguments.log_level.as_deref(), arguments.log_format).map_err(|error| {
        Failure::new(Exit::Usage, "usage", chain(&error), "for example --log-level info,bgp=debug")
    })?;
    started(&arguments.config).map_err(|failure| match arguments.log_format {
        LogFormat::Text => failure,
        LogFormat::Json => failure.logged(),
    })?;
    Ok(Printed::text(String::new()))
}

fn started(file: &Path) -> Result<(), Failure> {
    let read = validate::load(file)?;
    let config = read.for_node(&validate::own_name(&read)?);
    super::wait(async {
        let name_of = |file: &ConfigFile| validate::own_name(file).map_err(|failure| failure.body.message);
        daemon::run(file, config, name_of).await.map_err(|error| {
            let hint = "mend it and start the agent again; what is in the kernel goes on meanwhile";
            Failure::new(Exit::Finding, "agent", chain(&error), hint)
        })
    })
}
