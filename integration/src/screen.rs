//! What the demonstration and the lab tell the user: steps with a spinner on a terminal, plain lines elsewhere.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use indicatif::{ProgressBar, ProgressStyle};

use crate::eventually::now;

/// How often a spinner turns.
const TURN: Duration = Duration::from_millis(80);

/// Width of the names of steps, so that results stand in a column.
const NAME_WIDTH: usize = 44;

/// Prints a line. A reader that went away is no reason to stop.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Prints a line to standard error.
pub fn complain(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A table with a frame.
#[must_use]
pub fn table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table
}

/// A step that takes a moment.
#[derive(Debug)]
pub struct Step {
    name: String,
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Begins it.
    #[must_use]
    pub fn begin(name: impl Into<String>) -> Self {
        let name = name.into();
        let bar = io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner:.green} {msg}") {
                bar.set_style(style);
            }
            bar.set_message(name.clone());
            bar.enable_steady_tick(TURN);
            bar
        });
        Self { name, start: now(), bar }
    }

    /// Shows how far it is.
    pub fn at(&self, progress: impl Display) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{:NAME_WIDTH$}{progress}", self.name));
        }
    }

    /// Ends it with its result.
    pub fn end(self, result: impl Display) {
        let seconds = self.start.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say(format!("✓ {:NAME_WIDTH$}{result} ({seconds:.1} s)", self.name));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
