//! `lab`: many Pairway nodes on one machine, from a containerlab file, with no container engine.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use integration::bench::{self, Group, Size};
use integration::cluster::{ClusterError, Programs};
use integration::lab::Lab;
use integration::{demo, echo, interrupt, kubernetes, labs, stream};

/// Many Pairway nodes on one machine, from a containerlab file, with no container engine.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what Pairway does: four nodes, every pair's path, proven reachability, a node that goes and one that comes.
    Demo,
    /// Bring a topology up and leave it for looking around.
    Up {
        /// A containerlab file, or the name of one of ours, as in integration/topologies.
        topology: PathBuf,
        /// Start no agents.
        #[arg(long)]
        no_agents: bool,
        /// Stay, and take it down at the end.
        #[arg(long)]
        foreground: bool,
    },
    /// End what `lab up` has left: this lab, or all of them.
    Down {
        /// Name of the lab.
        lab: Option<String>,
    },
    /// Run a shell, or a command, in a node.
    Shell {
        /// The node.
        node: String,
        /// Name of the lab, if more than one is up.
        #[arg(long)]
        lab: Option<String>,
        /// The command instead of a shell.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Show the labs that are up.
    Status,
    /// Bring a whole Kubernetes cluster up in the topology `kubernetes`, install Pairway in it, and leave it for looking
    /// around.
    Cluster {
        /// Install nothing: nodes stay NotReady.
        #[arg(long)]
        bare: bool,
    },
    /// Run kubectl in the cluster that `lab cluster` has left.
    Kubectl {
        /// What it is to do.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure how fast the data plane and the agent are, beside the kernel's limit and beside others. Takes minutes
    /// and wants a quiet machine.
    Bench {
        /// What to measure; everything if nothing is named.
        groups: Vec<Group>,
        /// Measure next to nothing, in seconds: only whether every row can be measured.
        #[arg(long)]
        smoke: bool,
        /// Write the rows as JSON into this file.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Answer on these addresses with the source address that is seen.
    #[command(hide = true)]
    Respond {
        /// Port, UDP and TCP.
        #[arg(long, default_value_t = echo::PORT)]
        port: u16,
        /// Addresses to listen on.
        addresses: Vec<IpAddr>,
    },
    /// Ask responders whom they see.
    #[command(hide = true)]
    Probe {
        /// Addresses to ask.
        targets: Vec<IpAddr>,
    },
    /// Take TCP streams on these addresses.
    #[command(hide = true)]
    Sink {
        /// Addresses to listen on.
        addresses: Vec<IpAddr>,
    },
    /// Stream to a sink by TCP, or to a responder by UDP at a rate.
    #[command(hide = true)]
    Stream {
        /// The sink, or the responder.
        target: IpAddr,
        /// For how long, in seconds.
        #[arg(long)]
        seconds: u64,
        /// Datagrams a second; TCP without it.
        #[arg(long)]
        udp: Option<u32>,
        /// Bytes a second of TCP.
        #[arg(long, default_value_t = 20_000_000)]
        rate: u32,
        /// Size of a datagram.
        #[arg(long, default_value_t = 1000)]
        bytes: usize,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "lab: {error:#}");
            match error.downcast_ref() {
                Some(ClusterError::Interrupted) => interrupt::EXIT_STATUS.into(),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo => {
            interrupt::listen()?;
            demo::run(&find_topology(Path::new("four-nodes"))?)?;
        }
        Command::Up { topology, no_agents, foreground } => {
            interrupt::listen()?;
            let programs = if no_agents { None } else { Some(Programs::built()?) };
            labs::up(&find_topology(&topology)?, programs, foreground)?;
        }
        Command::Down { lab } => labs::down(lab.as_deref())?,
        Command::Shell { node, lab, command } => {
            let status = labs::shell(lab.as_deref(), &node, &command)?;
            return Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)));
        }
        Command::Status => labs::status()?,
        Command::Cluster { bare } => {
            interrupt::listen()?;
            labs::kubernetes(&find_topology(Path::new("kubernetes"))?, bare)?;
        }
        Command::Kubectl { arguments } => {
            let status = kubernetes::kubectl(&Lab::attach("kubernetes")?, &arguments)?;
            return Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)));
        }
        Command::Bench { groups, smoke, json } => {
            let rows = bench::run(&groups, if smoke { Size::Smoke } else { Size::Full })?;
            if let Some(path) = json {
                let text = serde_json::to_string_pretty(&rows)?;
                std::fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
            }
        }
        Command::Respond { port, addresses } => echo::respond(&addresses, port).context("can't respond")?,
        Command::Probe { targets } => {
            let answers = serde_json::to_string(&echo::probe(&targets))?;
            writeln!(io::stdout(), "{answers}")?;
        }
        Command::Sink { addresses } => stream::sink(&addresses).context("can't take streams")?,
        Command::Stream { target, seconds, udp, rate, bytes } => {
            let duration = Duration::from_secs(seconds);
            let streamed = match udp {
                Some(packets) => stream::udp(target, duration, packets, bytes),
                None => stream::tcp(target, duration, rate),
            };
            let streamed = streamed.with_context(|| format!("can't stream to {target}"))?;
            writeln!(io::stdout(), "{}", serde_json::to_string(&streamed)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A path, or the name of a topology of this crate.
fn find_topology(given: &Path) -> Result<PathBuf> {
    if given.exists() {
        return Ok(given.to_owned());
    }
    let name = format!("{}.clab.yml", given.display());
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(name);
    if given.components().count() == 1 && ours.exists() {
        return Ok(ours);
    }
    let mut known: Vec<String> = std::fs::read_dir(ours.with_file_name(""))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".clab.yml")?.to_owned()))
        .collect();
    known.sort();
    bail!(
        "there is no topology {}; name a containerlab file, or one of {}",
        given.display(),
        known.join(", ")
    )
}
