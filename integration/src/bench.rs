//! How fast the data plane and the agent are, beside the kernel's own limit and beside others, in one run.
//!
//! Every measurement is made in a network namespace of its own, on this machine, with its contenders taking turns;
//! what counts is their ratio, for a number alone says as much of the machine. `make bench` runs all rows;
//! `docs/benchmarks.md` holds the results of one run.

mod agent;
mod audit;
mod bird;
mod churn;
mod namespace;
mod process;
mod programming;
mod raw;
mod repair;
mod report;
mod routes;
mod switching;

use std::io;

use crate::screen::{Step, say};

pub use report::{Row, Unit, Value};

/// What to measure, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// Seconds: shows that every row can be measured. The numbers mean nothing.
    Smoke,
    /// Minutes.
    Full,
}

/// A group of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Group {
    /// Routes from nothing, beside the kernel's limit, `ip -batch` and BIRD.
    Programming,
    /// A peer that changes its path.
    Switching,
    /// A look at everything where nothing is to be done.
    Audit,
    /// The whole agent, from its start until all is programmed.
    Agent,
    /// What others delete comes back.
    Repair,
    /// Peers that change.
    Churn,
}

/// A measurement that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The system refused something.
    #[error("can't {what}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A program did not do what it was started for.
    #[error("{program}: {problem}")]
    Program {
        /// The program.
        program: String,
        /// What it said, or what was waited for.
        problem: String,
    },
    /// What was to be measured did not come about.
    #[error("{0}")]
    Wrong(String),
}

impl BenchError {
    fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::System { what, source }
    }

    fn program(program: &str, problem: impl ToString) -> Self {
        Self::Program { program: program.to_owned(), problem: problem.to_string() }
    }
}

/// Measures these groups, or all if there are none, telling what it does; the rows.
pub fn run(groups: &[Group], size: Size) -> Result<Vec<Row>, BenchError> {
    let all = [Group::Programming, Group::Switching, Group::Audit, Group::Agent, Group::Repair, Group::Churn];
    let mut rows = Vec::new();
    for group in all.into_iter().filter(|group| groups.is_empty() || groups.contains(group)) {
        let measured = match group {
            Group::Programming => programming::measure(size),
            Group::Switching => switching::measure(size),
            Group::Audit => audit::measure(size),
            Group::Agent => agent::measure(size),
            Group::Repair => repair::measure(size),
            Group::Churn => churn::measure(size),
        }?;
        say(format!("\n{}\n", report::table(&measured)));
        rows.extend(measured);
    }
    Ok(rows)
}

/// Tells what is measured while it is.
fn step<T>(
    name: impl Into<String>,
    measure: impl FnOnce() -> Result<(T, String), BenchError>,
) -> Result<T, BenchError> {
    let step = Step::begin(name);
    let (value, result) = measure()?;
    step.end(result);
    Ok(value)
}
