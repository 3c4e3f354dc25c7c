//! Mistakes in a configuration: where, what, and what would be right.

use std::fmt;

/// A place in the text; lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: u32,
    pub(crate) column: u32,
    /// Characters to underline, at least 1.
    pub(crate) length: u32,
}

impl Position {
    pub(crate) fn new(line: usize, column: usize, length: usize) -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).max(1);
        Self { line: number(line), column: number(column), length: number(length) }
    }

    /// The beginning of the file.
    pub(crate) const START: Self = Self { line: 1, column: 1, length: 1 };
}

/// A mistake before it is laid out with its source line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) at: Position,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) problem: String,
    pub(crate) hint: String,
    /// The override that it needs to appear, if any.
    pub(crate) only_for: Option<String>,
}

impl Finding {
    pub(crate) fn new(at: Position, key: &str, value: &str, problem: String, hint: &str) -> Self {
        let key = key.to_owned();
        Self { at, key, value: value.to_owned(), problem, hint: hint.to_owned(), only_for: None }
    }
}

/// Mistakes, each once, in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Findings(std::collections::BTreeSet<Finding>);

impl Findings {
    pub(crate) fn push(&mut self, finding: Finding) {
        self.0.insert(finding);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, finding: &Finding) -> bool {
        self.0.contains(finding)
    }
}

impl IntoIterator for Findings {
    type Item = Finding;
    type IntoIter = std::collections::btree_set::IntoIter<Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// One mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1; 0 where the file could not be read at all.
    pub line: u32,
    /// Column in characters, from 1; 0 where the file could not be read at all.
    pub column: u32,
    /// Path of the key, for example `pools[0].cidr`; empty for the document.
    pub key: String,
    /// The offending value as written, cut where it is long; empty where there is none.
    pub value: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right; empty where nothing helps.
    pub hint: String,
    /// The source line, cut where it is long, with the column and length to underline in it.
    excerpt: Option<(String, usize, usize)>,
}

/// Longest excerpt of a line, in characters.
const EXCERPT: usize = 100;
/// Longest value repeated in an error, in characters.
const VALUE: usize = 80;
/// More mistakes than this are counted, not printed.
const SHOWN: usize = 50;
/// The same on one line.
const SUMMARISED: usize = 5;

impl ConfigError {
    /// The file could not be read as text at all.
    pub(crate) fn unreadable(file: &str, problem: String, hint: &str) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            key: String::new(),
            value: String::new(),
            problem,
            hint: hint.to_owned(),
            excerpt: None,
        }
    }

    fn place(&self) -> String {
        let mut place = self.file.clone();
        if self.line > 0 {
            place.push_str(&format!(":{}:{}", self.line, self.column));
        }
        if !self.key.is_empty() {
            place.push_str(&format!(": {}", self.key));
        }
        place
    }

    fn on_one_line(&self) -> String {
        let hint = if self.hint.is_empty() { String::new() } else { format!(" ({})", self.hint) };
        format!("{}: {}{hint}", self.place(), self.problem)
    }

    fn laid_out(finding: Finding, file: &str, text: &str) -> Self {
        let Finding { at, key, value, mut problem, hint, only_for } = finding;
        if let Some(pattern) = only_for {
            problem.push_str(&format!(" (on nodes that match `{}`)", printable(&pattern, VALUE)));
        }
        let line = text.lines().nth(at.line as usize - 1);
        Self {
            file: file.to_owned(),
            line: at.line,
            column: at.column,
            key: printable(&key, VALUE),
            value: printable(&value, VALUE),
            problem,
            hint,
            excerpt: line.map(|line| excerpt(line, at.column as usize, at.length as usize)),
        }
    }
}

/// The part of `line` around a column, and where in it to underline how much.
fn excerpt(line: &str, column: usize, length: usize) -> (String, usize, usize) {
    let characters: Vec<char> = line.chars().collect();
    let start = if characters.len() <= EXCERPT { 0 } else { (column - 1).saturating_sub(EXCERPT / 2) };
    let shown: String = characters.iter().skip(start).take(EXCERPT).map(|c| visible(*c)).collect();
    let room = shown.chars().count();
    let column = (column - 1 - start).min(room);
    (shown, column, length.clamp(1, (room - column).max(1)))
}

/// Control characters would let a file write to the reader's terminal.
fn visible(c: char) -> char {
    if c == '\t' {
        ' '
    } else if c.is_control() {
        '\u{fffd}'
    } else {
        c
    }
}

/// `text` on one line, at most `limit` characters of it.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    let mut shown: String = text.chars().take(limit).map(visible).collect();
    if text.chars().nth(limit).is_some() {
        shown.push('…');
    }
    shown
}

impl fmt::Display for ConfigError {
    /// `file:line:column: key: problem`, then the line with the place underlined and what would be right.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.problem)?;
        match &self.excerpt {
            Some((line, column, length)) => {
                write!(f, "\n{:>5} | {line}\n      | {:column$}{:^<length$}", self.line, "", "")?;
                if self.hint.is_empty() { Ok(()) } else { write!(f, " {}", self.hint) }
            }
            None if self.hint.is_empty() => Ok(()),
            None => write!(f, "; {}", self.hint),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Every mistake that was found, in the order of the file; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(crate) fn one(error: ConfigError) -> Self {
        Self(vec![error])
    }

    pub(crate) fn laid_out(findings: Findings, file: &str, text: &str) -> Self {
        Self(findings.into_iter().map(|finding| ConfigError::laid_out(finding, file, text)).collect())
    }

    /// The mistakes.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl ConfigErrors {
    /// On one line, for a condition or a log: `file:line:column: key: problem (what would be right); ...`.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut parts: Vec<String> = self.0.iter().take(SUMMARISED).map(ConfigError::on_one_line).collect();
        match self.0.len().saturating_sub(SUMMARISED) {
            0 => {}
            more => parts.push(format!("and {more} more")),
        }
        parts.join("; ")
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().take(SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for ConfigErrors {}
