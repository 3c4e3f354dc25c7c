//! What can go wrong with a lab.

use std::path::Path;

use crate::topology::TopologyError;

/// Why a lab can't be brought up, found or ended.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The topology is not usable.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// Namespaces need root.
    #[error("a lab needs root: run it with sudo")]
    NotRoot,
    /// The lab stands already.
    #[error("lab {lab} is up already: `lab down {lab}` ends it")]
    AlreadyUp {
        /// Its name.
        lab: String,
    },
    /// No lab of this name was left.
    #[error(
        "no lab {name} is up; {}",
        if up.is_empty() { "none is: `lab up TOPOLOGY` brings one up".to_owned() } else { format!("there are {up}") }
    )]
    NotUp {
        /// The name given.
        name: String,
        /// Names of those that are up.
        up: String,
    },
    /// No lab was left at all.
    #[error("no lab is up: `lab up TOPOLOGY` brings one up")]
    NoneUp,
    /// It is not clear which lab is meant.
    #[error("more than one lab is up: say --lab with one of {labs}")]
    Ambiguous {
        /// Their names.
        labs: String,
    },
    /// The lab has no such node.
    #[error("no node {node}; there are {known}")]
    NoSuchNode {
        /// The name given.
        node: String,
        /// Names that exist.
        known: String,
    },
    /// A node of a lab is not there any more.
    #[error("node {node} is gone: `lab down` removes the rest of its lab")]
    NodeGone {
        /// The node.
        node: String,
    },
    /// A node's namespaces could not be set up.
    #[error("node {node} did not start: {output}")]
    Start {
        /// The node.
        node: String,
        /// What its first process said.
        output: String,
    },
    /// The links could not be made.
    #[error("links: {output}")]
    Links {
        /// What ip said.
        output: String,
    },
    /// A node does not go away.
    #[error(
        "node {node} (process {pid}) does not end: {culprits}; end that with kill -9, then `lab down` again"
    )]
    NotEnding {
        /// The node.
        node: String,
        /// Its first process.
        pid: i32,
        /// Who holds it.
        culprits: String,
    },
    /// A command in a node failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file or a process could not be handled.
    #[error("can't {operation} {subject}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        subject: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A thread of the runner panicked.
    #[error("the lab runner failed; this is a bug in it")]
    Panicked,
}

impl LabError {
    /// For `map_err`: names the operation and its subject.
    pub(crate) fn io(
        operation: &'static str,
        subject: impl AsRef<Path>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let subject = subject.as_ref().display().to_string();
        move |source| Self::Io { operation, subject, source }
    }
}

/// A command in a node that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{node}: `{command}` failed ({status}): {output}")]
pub struct CommandError {
    /// The node.
    pub node: String,
    /// The command line.
    pub command: String,
    /// Exit status, or why it could not be started.
    pub status: String,
    /// Exit code, if it ended by itself.
    pub code: Option<i32>,
    /// What it wrote to standard error, else to standard output.
    pub output: String,
}
