//! What commands print and how they end: standard output for results, standard error for people's errors, and
//! with `-o json` everything as JSON on standard output.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write};

use serde::Serialize;

use super::table::printable;
use crate::api::reply::{ErrorBody, ErrorReply};

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// A hint does not list a whole cluster.
const NAMES_SHOWN: usize = 20;

/// Exit status: a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Well = 0,
    /// A finding, not ready, or not done.
    Finding = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The agent can't be reached.
    NotReached = 3,
    /// The configuration is wrong (`EX_USAGE` of sysexits, kept for it by us).
    Config = 64,
}

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    text: String,
    /// For people, on standard error: that a list is empty, or a remark.
    note: Option<String>,
    exit: Exit,
}

impl Printed {
    /// Text as it is, whatever the format.
    pub(super) fn text(text: String) -> Self {
        Self { text, note: None, exit: Exit::Well }
    }

    /// `value` as JSON, or what `table` makes of it.
    pub(super) fn value<T: Serialize + ?Sized>(
        format: Format,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<Self, Failure> {
        let text = match format {
            Format::Table => table(value),
            Format::Json => json(value).map_err(|error| {
                Failure::new(
                    Exit::Finding,
                    "internal",
                    format!("can't write the result as JSON: {error}"),
                    "report this",
                )
            })?,
        };
        Ok(Self::text(text))
    }

    /// A list; an empty one is said to be so to people.
    pub(super) fn list<T: Serialize>(
        format: Format,
        list: &[T],
        empty: &str,
        table: impl FnOnce(&[T]) -> String,
    ) -> Result<Self, Failure> {
        let mut printed =
            Self::value(format, list, |list| if list.is_empty() { String::new() } else { table(list) })?;
        if list.is_empty() && format == Format::Table {
            printed.note = Some(empty.to_owned());
        }
        Ok(printed)
    }

    /// Remarks for people, on standard error.
    pub(super) fn notes(mut self, notes: &[String]) -> Self {
        if !notes.is_empty() {
            self.note = Some(notes.iter().map(|note| format!("note: {note}")).collect::<Vec<_>>().join("\n"));
        }
        self
    }

    /// Fails if a filter names something that is not among `names`, and says what is.
    pub(super) fn known<'a>(
        what: &str,
        wanted: Option<&String>,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<(), Failure> {
        let Some(wanted) = wanted else { return Ok(()) };
        let names: BTreeSet<&str> = names.filter(|name| !name.is_empty()).collect();
        if names.contains(wanted.as_str()) {
            return Ok(());
        }
        let hint = if names.is_empty() {
            "there is none at all".to_owned()
        } else {
            let more = names.len().saturating_sub(NAMES_SHOWN);
            let shown: Vec<&str> = names.into_iter().take(NAMES_SHOWN).collect();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("there are {}{more}", printable(&shown.join(", ")))
        };
        Err(Failure::new(Exit::Finding, "not-found", format!("no {what} {}", printable(wanted)), hint))
    }

    pub(super) fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }
}

/// A command that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Exit status.
    pub exit: Exit,
    /// What to tell.
    pub body: Box<ErrorBody>,
    /// What people see before the message.
    pub details: String,
    /// It stands in the log: people are not told twice.
    logged: bool,
}

impl Failure {
    pub(super) fn new(exit: Exit, code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::told(exit, ErrorBody::new(code, message, hint))
    }

    pub(super) fn told(exit: Exit, body: ErrorBody) -> Self {
        Self { exit, body: Box::new(body), details: String::new(), logged: false }
    }

    /// Writes it to the log instead of plain text, so that every line there has the log's form.
    pub(super) fn logged(self) -> Self {
        let ErrorBody { code, message, hint, .. } = &*self.body;
        tracing::error!(code, hint, details = self.details, "{message}");
        Self { logged: true, ..self }
    }
}

/// Prints how a command ended; its exit status.
pub(super) fn finish(format: Format, result: Result<Printed, Failure>) -> u8 {
    let exit = match result {
        Ok(printed) => {
            if let Some(note) = printed.note {
                say(&note);
            }
            write_out(&printed.text).err().unwrap_or(printed.exit)
        }
        Err(failure) => match format {
            Format::Table if failure.logged => failure.exit,
            Format::Table => {
                if !failure.details.is_empty() {
                    say(&failure.details);
                }
                say(&format!("pairway: {}", failure.body.message));
                if !failure.body.hint.is_empty() {
                    say(&format!("hint: {}", failure.body.hint));
                }
                failure.exit
            }
            Format::Json => print_error(failure),
        },
    };
    exit as u8
}

/// Prints what clap has to say: help, the version or a mistake.
pub(super) fn usage(error: &clap::Error, json: bool) -> u8 {
    if !error.use_stderr() || !json {
        // Whether anybody still reads it does not change how we end.
        let _ = error.print();
        return u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8);
    }
    let text = error.render().to_string();
    let (message, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let message = message.trim().trim_start_matches("error: ").to_owned();
    let hint = rest.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    print_error(Failure::new(Exit::Usage, "usage", message, hint)) as u8
}

/// Whether a command line that clap refuses asked for JSON.
pub(super) fn wants_json(arguments: &[OsString]) -> bool {
    let words: Vec<&str> = arguments
        .iter()
        .map(|word| word.to_str().unwrap_or_default())
        .take_while(|word| *word != "--")
        .collect();
    let pair = words.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]));
    pair || words.iter().any(|word| matches!(*word, "-ojson" | "-o=json" | "--output=json"))
}

fn print_error(failure: Failure) -> Exit {
    let exit = failure.exit;
    match json(&ErrorReply { error: *failure.body }) {
        Ok(text) => write_out(&text).err().unwrap_or(exit),
        Err(_) => exit,
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(|text| text + "\n")
}

/// Writes to standard output. A reader that has gone (`pairway pairs | head -1`) is no error.
fn write_out(text: &str) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format!("pairway: can't write the result: {error}"));
            Err(Exit::Finding)
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes to standard error, if anybody reads it.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_recognised_in_every_spelling_and_nowhere_else() {
        let asked = |line: &str| wants_json(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in ["x -o json y", "x y -ojson", "x --output json", "x --output=json", "x -o=json"] {
            assert!(asked(line), "{line}");
        }
        for line in ["x", "x -o table", "x json", "x -- -o json", "x -o"] {
            assert!(!asked(line), "{line}");
        }
    }
}
