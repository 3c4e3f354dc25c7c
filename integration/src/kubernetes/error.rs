//! What can go wrong with a Kubernetes cluster.

use std::path::{Path, PathBuf};

use crate::eventually::Elapsed;
use crate::lab::{CommandError, LabError};

/// Why a cluster does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// The lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A command in a node.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It did not come about.
    #[error(transparent)]
    Elapsed(#[from] Elapsed),
    /// Its programs have to be built first.
    #[error("{} is missing: `make {target}` builds it", .path.display())]
    NotBuilt {
        /// Where it should be.
        path: PathBuf,
        /// What makes it.
        target: &'static str,
    },
    /// What was applied does not come to run.
    #[error("{what} does not come to run everywhere: {problem}\n{pods}\n{said}")]
    NotRolledOut {
        /// What was applied.
        what: String,
        /// What `kubectl rollout status` said.
        problem: String,
        /// All pods.
        pods: String,
        /// The end of its log.
        said: String,
    },
    /// A node has no underlay address.
    #[error("node {node} has no address on eth1; is this the topology `kubernetes`?")]
    NoAddress {
        /// The node.
        node: String,
    },
    /// A program of the cluster has ended by itself.
    #[error("{program} has ended by itself; its log is {}:\n{}", .log.display(), .said.join("\n"))]
    Ended {
        /// The program.
        program: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        said: Vec<String>,
    },
    /// A command gave no good answer.
    #[error("`{command}`: {problem}")]
    Answer {
        /// The command.
        command: String,
        /// What it said.
        problem: String,
    },
    /// A certificate could not be made.
    #[error("can't make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A file.
    #[error("{}", .path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
}

impl KubernetesError {
    /// For `map_err`: names the file.
    pub(super) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
