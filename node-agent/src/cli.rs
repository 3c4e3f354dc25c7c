//! The command line. Every command is a function from values to text, so that it is tested without an agent;
//! only `client` talks to one.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use output::{Exit, Failure, Format, Printed};

mod agent;
mod bgp;
mod blocks;
pub(crate) mod client;
mod doctor;
mod node;
pub mod output;
mod pairs;
mod routes;
mod status;
mod table;
mod uninstall;
mod validate;
mod version;

/// Pairway: the best working path for every pair of nodes.
#[derive(Debug, Parser)]
#[command(name = "pairway", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
struct Globals {
    /// Tables for people, or JSON for programs.
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
    /// Socket of the agent; where none is named, /run/pairway/api.sock.
    #[arg(long, global = true, env = "PAIRWAY_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// How long to wait for the agent's answer.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 35, allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..=3600))]
    timeout: u16,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent of this node.
    ///
    /// It runs until SIGTERM or SIGINT, and leaves the data plane in place then: pods go on talking while it restarts.
    Agent(agent::Arguments),
    /// Check a configuration file, and print what holds on a node with every default.
    Validate(validate::Arguments),
    /// Show this node: readiness, blocks, conditions.
    Status,
    /// Show the path to every other node, and why it is the one.
    Pairs(pairs::Filter),
    /// Show the routes that the agent owns or wants.
    Routes(routes::Filter),
    /// Show BGP.
    #[command(subcommand)]
    Bgp(bgp::Command),
    /// Show, claim or release blocks of pod addresses.
    #[command(subcommand)]
    Blocks(blocks::Command),
    /// Act on a node of the cluster.
    #[command(subcommand)]
    Node(node::Command),
    /// Look whether this machine is fit to be a node; no agent has to run.
    ///
    /// Changes nothing. Each finding comes with what it means and the command that mends it. As root it sees more. Where an
    /// agent runs, the last line says how many conditions it has.
    Doctor(doctor::Arguments),
    /// Take away what the agent has made on this node: kernel objects, claims, record and state.
    ///
    /// The agent must not run. Doing it again does no harm.
    Uninstall(uninstall::Arguments),
    /// Print the version of this program.
    Version,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command that `arguments` name, printing to standard output, and gives the exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error, output::wants_json(&arguments)),
    };
    let format = cli.globals.output;
    let stays = matches!(&cli.command, Command::Uninstall(arguments) if arguments.stays());
    let status = output::finish(format, dispatch(cli));
    if !stays || status != Exit::Well as u8 {
        return status;
    }
    match wait(uninstall::stay()) {
        Ok(()) => status,
        Err(failure) => output::finish(format, Err(failure)),
    }
}

fn dispatch(cli: Cli) -> Result<Printed, Failure> {
    let Globals { output: format, socket, timeout } = cli.globals;
    let client = client::Client::new(socket, Duration::from_secs(timeout.into()));
    match cli.command {
        Command::Agent(arguments) => agent::run(&arguments),
        Command::Validate(arguments) => validate::show(&arguments, format),
        Command::Status => wait(status::show(&client, format)),
        Command::Pairs(filter) => wait(pairs::show(&client, &filter, format)),
        Command::Routes(filter) => wait(routes::show(&client, &filter, format)),
        Command::Bgp(bgp::Command::Neighbors(filter)) => wait(bgp::show(&client, &filter, format)),
        Command::Blocks(blocks::Command::List(filter)) => wait(blocks::list(&client, &filter, format)),
        Command::Blocks(blocks::Command::Claim { pool }) => wait(blocks::claim(&client, pool, format)),
        Command::Blocks(blocks::Command::Release { block, force }) => {
            wait(blocks::release(&client, block, force, format))
        }
        Command::Node(node::Command::Delete { name, force }) => {
            wait(node::delete(&client, name, force, format))
        }
        Command::Doctor(arguments) => wait(doctor::run(&arguments, client, format)),
        Command::Uninstall(arguments) => wait(uninstall::run(&arguments, format)),
        Command::Version => version::show(format),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pairway", &mut script);
            Ok(Printed::text(String::from_utf8_lossy(&script).into_owned()))
        }
    }
}

/// What still runs beside when a command is done: work on a disk that does not answer.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Runs a future on a runtime of this thread.
fn wait<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(
            Exit::Finding,
            "runtime",
            format!("can't start: {error}"),
            "see the limits of this process",
        )
    })?;
    let result = runtime.block_on(future);
    // A disk that hangs would keep the process for ever.
    runtime.shutdown_timeout(END_WITHIN);
    result
}
