//! YAML text as a tree that knows where each value is written.
//!
//! It keeps what a typed deserialiser forgets: whether a scalar was quoted, where a key stands, and every mistake
//! instead of the first one. Aliases are written out within a budget; tags, merge keys and more than one document
//! are refused.

use std::borrow::Cow;
use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, options};
use serde_json::Value as Json;

use crate::error::{Finding, Findings, Position};
use crate::limits::{MAX_DEPTH, MAX_NODES};

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Where it begins.
    pub(crate) at: Position,
    /// Its key path as written, for example `pools[0].cidr`; empty for the document.
    pub(crate) path: String,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A scalar as written; its kind follows YAML 1.2's core schema.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Integer,
    Float,
    /// Plain text that is none of the above.
    Text,
    /// In quotes, or a block scalar.
    Quoted,
    /// What can't be read, and has been reported.
    Broken,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) node: Node,
}

impl Node {
    /// The value of a key, if this is a map that has it.
    pub(crate) fn entry(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            Value::List(_) | Value::Scalar(_) => None,
        }
    }

    /// The nearest node to `path` (`bgp.peers[2].address`, by position in this tree): itself, else the last of
    /// its parents that stands in the file; and whether it is itself.
    pub(crate) fn nearest(&self, path: &str) -> (&Self, bool) {
        let mut node = self;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let next = match step.strip_suffix(']').and_then(|index| index.parse::<usize>().ok()) {
                Some(index) => match &node.value {
                    Value::List(items) => items.get(index),
                    Value::Map(_) | Value::Scalar(_) => None,
                },
                None => node.entry(step),
            };
            match next {
                Some(next) => node = next,
                None => return (node, false),
            }
        }
        (node, true)
    }

    /// As JSON. An integer that JSON can't hold becomes its text, which no integer field accepts.
    pub(crate) fn to_json(&self) -> Json {
        match &self.value {
            Value::Scalar(scalar) => scalar.to_json(),
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect())
            }
        }
    }

    /// `over` laid over this: maps key by key, everything else replaced. A merged map stays where it is.
    pub(crate) fn merged(&self, over: &Self) -> Self {
        match (&self.value, &over.value) {
            (Value::Map(base), Value::Map(upper)) => {
                let mut entries = base.clone();
                for entry in upper {
                    match entries.iter_mut().find(|present| present.key == entry.key) {
                        Some(present) => {
                            *present = Entry { node: present.node.merged(&entry.node), ..entry.clone() };
                        }
                        None => entries.push(entry.clone()),
                    }
                }
                Self { value: Value::Map(entries), ..self.clone() }
            }
            _ => over.clone(),
        }
    }

    /// Values in this tree.
    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Scalar(_) => 0,
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.node.count()).sum(),
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.value {
            Value::Scalar(_) => 0,
            Value::List(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            Value::Map(entries) => entries.iter().map(|entry| entry.node.depth()).max().unwrap_or(0),
        }
    }
}

impl Scalar {
    fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), kind: plain_kind(text) }
    }

    /// Its value, if it is an integer.
    pub(crate) fn integer(&self) -> Option<i128> {
        (self.kind == Kind::Integer).then(|| parse_integer(&self.text)).flatten()
    }

    fn to_json(&self) -> Json {
        match self.kind {
            Kind::Null | Kind::Broken => Json::Null,
            Kind::Bool => Json::Bool(self.text.eq_ignore_ascii_case("true")),
            Kind::Integer => {
                let value = self.integer();
                match (value.and_then(|v| u64::try_from(v).ok()), value.and_then(|v| i64::try_from(v).ok())) {
                    (Some(unsigned), _) => unsigned.into(),
                    (None, Some(signed)) => signed.into(),
                    (None, None) => self.text.clone().into(),
                }
            }
            Kind::Float | Kind::Text | Kind::Quoted => self.text.clone().into(),
        }
    }
}

/// YAML 1.2.2 §10.3.2, but for integers with leading zeros: YAML 1.1 reads them as octal, so they are text here.
fn plain_kind(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => return Kind::Bool,
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let radix = |prefix: &str, legal: fn(char) -> bool| {
        text.strip_prefix(prefix).is_some_and(|digits| !digits.is_empty() && digits.chars().all(legal))
    };
    let decimal = !unsigned.is_empty() && unsigned.chars().all(|c| c.is_ascii_digit());
    if (decimal && (unsigned == "0" || !unsigned.starts_with('0')))
        || radix("0x", |c| c.is_ascii_hexdigit())
        || radix("0o", |c| ('0'..='7').contains(&c))
    {
        return Kind::Integer;
    }
    let float = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        && unsigned.parse::<f64>().is_ok()
        && !decimal;
    let special = matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN");
    if float || special { Kind::Float } else { Kind::Text }
}

fn parse_integer(text: &str) -> Option<i128> {
    if let Some(digits) = text.strip_prefix("0x") {
        return i128::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i128::from_str_radix(digits, 8).ok();
    }
    text.parse().ok()
}

/// The tree of the only document of `text`. What can be passed over is collected in `findings`; `None` where the
/// parser can't go on, or where there is nothing.
pub(crate) fn parse(text: &str, findings: &mut Findings) -> Option<Node> {
    let mut options = options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
        emit_unresolved_aliases: true,
    };
    options.set_emit_comments(false);
    let mut reader = Reader {
        events: Parser::new_from_str_with_options(text, options),
        anchors: BTreeMap::new(),
        budget: MAX_NODES,
        findings,
    };
    match reader.document() {
        Ok(node) => node,
        Err(stop) => {
            findings.push(*stop.0);
            None
        }
    }
}

/// Reading can't go on.
struct Stop(Box<Finding>);

impl From<Finding> for Stop {
    fn from(finding: Finding) -> Self {
        Self(Box::new(finding))
    }
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Self {
        let marker = error.marker();
        let at = Position::new(marker.line(), marker.col() + 1, 1);
        Finding::new(at, "", "", format!("this is not YAML: {}", error.info()), "").into()
    }
}

struct Reader<'t, 'f> {
    events: Parser<'t, StrInput<'t>>,
    /// Finished nodes by anchor.
    anchors: BTreeMap<usize, Node>,
    /// Values that may still come.
    budget: usize,
    findings: &'f mut Findings,
}

impl<'t> Reader<'t, '_> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Stop> {
        match self.events.next() {
            Some(event) => Ok(event?),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the parser's enum, of which some variants depend on features"
    )]
    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(..) if root.is_some() => {
                    let problem = "a second document begins".to_owned();
                    let hint = "one file holds one configuration";
                    return Err(Finding::new(position(&span), "", "---", problem, hint).into());
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                other => root = Some(self.node(other, &span, String::new())?),
            }
        }
    }

    /// The node that begins with `event`. Recursion is bounded by the parser's nesting limits.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the parser's enum, of which some variants depend on features"
    )]
    fn node(&mut self, event: Event<'t>, span: &Span, path: String) -> Result<Node, Stop> {
        let at = position(span);
        if self.budget == 0 {
            return Err(too_much(at, &path).into());
        }
        self.budget -= 1;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), at, &path);
                let scalar = if style == ScalarStyle::Plain {
                    Scalar::plain(&text)
                } else {
                    Scalar { text: text.into_owned(), kind: Kind::Quoted }
                };
                (anchor, Value::Scalar(scalar))
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), at, &path);
                (anchor, Value::List(self.list(&path)?))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), at, &path);
                (anchor, Value::Map(self.map(&path)?))
            }
            Event::Alias(anchor) => return self.alias(anchor, at, path),
            Event::UnresolvedAlias(name) => {
                let problem = format!("no anchor &{name} stands before the alias");
                let alias = format!("*{name}");
                self.findings.push(Finding::new(at, &path, &alias, problem, "name an anchor above it"));
                (0, Value::Scalar(Scalar { text: String::new(), kind: Kind::Broken }))
            }
            // The parser keeps its events balanced.
            _ => (0, Value::Scalar(Scalar { text: String::new(), kind: Kind::Broken })),
        };
        let node = Node { at, path, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, path: &str) -> Result<Vec<Node>, Stop> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd | Event::StreamEnd) {
                return Ok(items);
            }
            let path = format!("{path}[{}]", items.len());
            items.push(self.node(event, &span, path)?);
        }
    }

    fn map(&mut self, path: &str) -> Result<Vec<Entry>, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd | Event::StreamEnd) {
                return Ok(entries);
            }
            let at = position(&span);
            let key = self.node(event, &span, path.to_owned())?;
            let name = self.key_name(&key);
            let (event, span) = self.next()?;
            let path = child_path(path, name.as_deref().unwrap_or("?"));
            let node = self.node(event, &span, path)?;
            let Some(key) = name else { continue };
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                let problem = format!("the key `{key}` is there already, on line {}", first.at.line);
                self.findings.push(Finding::new(at, &node.path, &key, problem, "keep one of the two"));
            } else {
                entries.push(Entry { key, at, node });
            }
        }
    }

    /// The key as text; a key that is no text is reported.
    fn key_name(&mut self, key: &Node) -> Option<String> {
        let (shown, hint) = match &key.value {
            Value::Scalar(scalar) if scalar.kind == Kind::Text && scalar.text == "<<" => (
                Cow::Borrowed("<<"),
                "merge keys are not supported: write the keys out, or use `overrides`".into(),
            ),
            Value::Scalar(scalar) if matches!(scalar.kind, Kind::Text | Kind::Quoted) => {
                return Some(scalar.text.clone());
            }
            Value::Scalar(scalar) => {
                (Cow::Owned(scalar.text.clone()), format!("quote it: \"{}\"", scalar.text))
            }
            Value::List(_) | Value::Map(_) => (Cow::Borrowed(""), "keys are words".into()),
        };
        let problem = format!("`{shown}` can't be a key");
        self.findings.push(Finding::new(key.at, &key.path, &shown, problem, &hint));
        None
    }

    /// A copy of the anchored node; it is placed where the alias is, what is within stays where it is written.
    fn alias(&mut self, anchor: usize, at: Position, path: String) -> Result<Node, Stop> {
        let Some(target) = self.anchors.get(&anchor) else {
            let problem = "the alias stands within the value that it means".to_owned();
            return Err(Finding::new(at, &path, "", problem, "write the value out").into());
        };
        let count = target.count();
        if count > self.budget || target.depth() > 2 * MAX_DEPTH {
            return Err(too_much(at, &path).into());
        }
        self.budget -= count;
        Ok(Node { at, path, value: target.value.clone() })
    }

    fn refuse_tag(&mut self, tagged: bool, at: Position, path: &str) {
        if tagged {
            let problem = "a tag (`!...`) stands before the value".to_owned();
            self.findings.push(Finding::new(at, path, "", problem, "remove it: types follow from the keys"));
        }
    }
}

fn too_much(at: Position, path: &str) -> Finding {
    let problem = format!("more than {MAX_NODES} values with aliases written out, or nested too deeply");
    Finding::new(at, path, "", problem, "use fewer aliases")
}

fn child_path(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// Where a span begins; its length on that line.
fn position(span: &Span) -> Position {
    let length = if span.start.line() == span.end.line() {
        span.end.col() - span.start.col().min(span.end.col())
    } else {
        1
    };
    Position::new(span.start.line(), span.start.col() + 1, length)
}

#[cfg(test)]
mod tests;
