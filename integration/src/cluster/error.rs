//! What can go wrong with agents and pods.

use std::path::PathBuf;

use crate::eventually::Elapsed;
use crate::lab::{CommandError, LabError};

/// Why a cluster does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A command in a node.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It did not come about.
    #[error(transparent)]
    Elapsed(#[from] Elapsed),
    /// A program has to be built first.
    #[error("{program} is not built: `cargo build --bins`")]
    NotBuilt {
        /// Its name.
        program: String,
    },
    /// No agent of this node was started here.
    #[error("{node} has no agent")]
    NoAgent {
        /// The node.
        node: String,
    },
    /// An agent that should run has ended by itself.
    #[error("the agent of {node} has ended by itself; its log is {}:\n{}", .log.display(), .said.join("\n"))]
    AgentEnded {
        /// The node.
        node: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        said: Vec<String>,
    },
    /// Agents have not agreed in time.
    #[error("{elapsed}\n{}", .agents.join("\n"))]
    NotConverged {
        /// What was waited for.
        elapsed: Elapsed,
        /// What each agent says of itself, with the end of its log.
        agents: Vec<String>,
    },
    /// An agent was told to end and did not end well.
    #[error("the agent of {node} ended with {status}")]
    BadEnd {
        /// The node.
        node: String,
        /// Its exit status.
        status: String,
    },
    /// The agent's command line gave no answer.
    #[error("{node}: `{command}`: {problem}")]
    Answer {
        /// The node.
        node: String,
        /// The command.
        command: String,
        /// What it said.
        problem: String,
    },
    /// A node has no block for pods.
    #[error("{node} has no block yet")]
    NoBlock {
        /// The node.
        node: String,
    },
    /// A file.
    #[error("{}", .path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// Packets did not arrive, or not as they should.
    #[error("{failed} of {total} proofs of reachability failed; the first: {first}")]
    Unreachable {
        /// How many failed.
        failed: usize,
        /// Of how many.
        total: usize,
        /// The first of them.
        first: String,
    },
    /// Something is not as it has to be.
    #[error("{0}")]
    Wrong(String),
    /// The user wants to stop.
    #[error("interrupted")]
    Interrupted,
}
