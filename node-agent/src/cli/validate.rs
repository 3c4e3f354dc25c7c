//! `pairway validate`, and the loading of a configuration that every command shares which needs one.

use std::path::{Path, PathBuf};

use clap::Args;
use config::{Config, ConfigErrors, ConfigFile};

use super::output::{Exit, Failure, Format, Printed};
use crate::api::reply::{Mistake, Validated};

/// What to validate.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file.
    file: PathBuf,
    /// Show what holds on this node; without it on this machine.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

pub(super) fn show(arguments: &Arguments, format: Format) -> Result<Printed, Failure> {
    let file = load(&arguments.file)?;
    let name = match &arguments.node {
        Some(name) => {
            let parsed = name.parse::<crate::node::NodeName>().map_err(|error| {
                Failure::new(Exit::Usage, "usage", error.to_string(), "give --node the name of a node")
            })?;
            parsed.to_string()
        }
        None => own_name(&file)?,
    };
    let effective = file.for_node(&name);
    let validated = Validated {
        override_: file.override_of(&name),
        notes: effective.notes(),
        config: effective.to_json(),
        node: name,
    };
    let printed = Printed::value(format, &validated, |validated| text(validated, &effective))?;
    Ok(match format {
        Format::Table => printed.notes(&validated.notes),
        Format::Json => printed,
    })
}

fn text(validated: &Validated, effective: &Config) -> String {
    let overridden = match validated.override_ {
        Some(index) => format!(", with overrides[{index}]"),
        None => String::new(),
    };
    format!("# node {}{overridden}\n{}", validated.node, effective.to_yaml())
}

/// Reads and checks a configuration file.
pub(super) fn load(path: &Path) -> Result<ConfigFile, Failure> {
    ConfigFile::load(path).map_err(|errors| mistakes(path, &errors))
}

fn mistakes(path: &Path, errors: &ConfigErrors) -> Failure {
    let mistakes: Vec<Mistake> = errors.iter().map(Mistake::from).collect();
    let (message, details) = match mistakes.as_slice() {
        // There is no line to show.
        [only] if only.line == 0 => {
            let key = if only.key.is_empty() { String::new() } else { format!("{}: ", only.key) };
            (format!("{}: {key}{}", only.file, only.problem), String::new())
        }
        [_] => (format!("1 mistake in {}", path.display()), errors.to_string()),
        several => (format!("{} mistakes in {}", several.len(), path.display()), errors.to_string()),
    };
    let hint = match mistakes.as_slice() {
        [only] if !only.hint.is_empty() => only.hint.clone(),
        _ => "docs/configuration.md describes every key".to_owned(),
    };
    let mut failure = Failure::new(Exit::Config, "config", message, hint);
    failure.details = details;
    failure.body.mistakes = mistakes;
    failure
}

/// The name of this node: of the file, of `$NODE_NAME`, or this machine's.
pub(super) fn own_name(file: &ConfigFile) -> Result<String, Failure> {
    let from_environment = std::env::var("NODE_NAME").ok();
    let host_name = nix::unistd::gethostname().unwrap_or_default();
    file.node_name(from_environment.as_deref(), &host_name.to_string_lossy()).map_err(|error| {
        Failure::new(
            Exit::Config,
            "node-name",
            error.to_string(),
            "set node.name in the configuration, or $NODE_NAME",
        )
    })
}
