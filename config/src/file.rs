//! A file from its text to the configuration of each node.

use std::path::Path;

use serde_json::Value as Json;

use crate::error::{ConfigError, ConfigErrors, Finding, Findings, Position, printable};
use crate::glob::Glob;
use crate::limits::MAX_FILE;
use crate::tree::{self, Entry, Node, Scalar, Value};
use crate::{Config, check, name, raw, schema, validate};

/// A configuration file without mistakes: neither in itself nor with any of its overrides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Without overrides.
    base: Config,
    /// With each override, in the order of the file.
    overrides: Vec<(Glob, Config)>,
    /// `node.name`, unless `auto`.
    node_name: Option<String>,
}

/// The node's name can't be found out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{value:?}, from {origin}, is not a node name (lower-case letters, digits, `-` and `.`, at most 250): set node.name or NODE_NAME"
)]
pub struct NodeNameError {
    /// What was found.
    pub value: String,
    /// Where.
    pub origin: &'static str,
}

impl ConfigFile {
    /// Reads and validates `text`; `source_name` is what errors call the file.
    ///
    /// # Errors
    /// Every mistake that can be found in one reading. A text that is no YAML at all ends it at that place.
    pub fn parse(text: &str, source_name: &str) -> Result<Self, ConfigErrors> {
        if text.len() > MAX_FILE {
            let problem = format!("the file has {} bytes, at most {MAX_FILE} are read", text.len());
            return Err(ConfigErrors::one(ConfigError::unreadable(
                source_name,
                problem,
                "is it the right file?",
            )));
        }
        // A byte order mark is not part of the text (YAML 1.2.2 §5.2).
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut findings = Findings::default();
        let file = Self::read(text, &mut findings);
        match file {
            Some(file) if findings.is_empty() => Ok(file),
            _ => {
                if findings.is_empty() {
                    findings.push(unexplained("the document can't be read"));
                }
                Err(ConfigErrors::laid_out(findings, source_name, text))
            }
        }
    }

    /// Reads and validates the file at `path`.
    ///
    /// # Errors
    /// As [`ConfigFile::parse`], and if there is no such file, or no text in it.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let unreadable =
            |problem: String, hint: &str| ConfigErrors::one(ConfigError::unreadable(&name, problem, hint));
        let failed = |error: std::io::Error| {
            let hint = if error.kind() == std::io::ErrorKind::NotFound {
                "check the path, or write the file"
            } else if error.kind() == std::io::ErrorKind::PermissionDenied {
                "run this as root, or let this user read the file"
            } else {
                ""
            };
            unreadable(format!("can't be read: {error}"), hint)
        };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(unreadable("is not a file".to_owned(), "name the YAML file itself"));
        }
        if metadata.len() > MAX_FILE as u64 {
            let problem = format!("the file has {} bytes, at most {MAX_FILE} are read", metadata.len());
            return Err(unreadable(problem, "is it the right file?"));
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        match String::from_utf8(bytes) {
            Ok(text) => {
                let file = Self::parse(&text, &name)?;
                match file.written_over(path) {
                    Some(error) => Err(ConfigErrors::one(error)),
                    None => Ok(file),
                }
            }
            Err(error) => {
                let offset = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count();
                let problem = format!("line {line} is not UTF-8 text (byte {offset} of the file)");
                Err(unreadable(problem, "save the file as UTF-8"))
            }
        }
    }

    /// The mistake of naming this very file, at `path`, as one that the agent writes for CNI plugins.
    fn written_over(&self, path: &Path) -> Option<ConfigError> {
        let standing = std::fs::canonicalize(path).ok();
        let is_this = |other: &Path| {
            other == path || standing.is_some() && std::fs::canonicalize(other).ok() == standing
        };
        let configs = std::iter::once(&self.base).chain(self.overrides.iter().map(|(_, config)| config));
        let mut files = configs.flat_map(|config| {
            [("cni.subnetEnv", &config.cni.subnet_env), ("cni.conflist", &config.cni.conflist)]
        });
        let (key, _) = files.find(|(_, other)| other.as_deref().is_some_and(is_this))?;
        let problem = "this is the configuration file itself".to_owned();
        let hint = "name a file that nothing else is kept in";
        let mut error = ConfigError::unreadable(&path.display().to_string(), problem, hint);
        key.clone_into(&mut error.key);
        Some(error)
    }

    fn read(text: &str, findings: &mut Findings) -> Option<Self> {
        let Some(root) = tree::parse(text, findings).filter(|root| !is_nothing(root)) else {
            if findings.is_empty() {
                let problem = "the file is empty".to_owned();
                let hint = "a whole configuration is: pools: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]";
                findings.push(Finding::new(Position::START, "", "", problem, hint));
            }
            return None;
        };
        let (base, overrides) = split_overrides(root);
        let config = read_one(&base, findings);
        let overrides = overrides.map_or_else(Vec::new, |node| read_overrides(&base, &node, findings));
        let base = config?;
        let node_name = (base.node.name != "auto").then(|| base.node.name.clone());
        Some(Self { base, overrides, node_name })
    }

    /// The name of this node: the file's `node.name`; if that is `auto`, `from_environment` (`NODE_NAME`), else
    /// `host_name` in lower case.
    ///
    /// # Errors
    /// If that is not a node name.
    pub fn node_name(
        &self,
        from_environment: Option<&str>,
        host_name: &str,
    ) -> Result<String, NodeNameError> {
        let (value, origin) = match (&self.node_name, from_environment) {
            (Some(name), _) => (name.clone(), "node.name"),
            (None, Some(name)) if !name.is_empty() => (name.to_owned(), "NODE_NAME"),
            (None, _) => (host_name.to_ascii_lowercase(), "the host name"),
        };
        if name::is_node(&value) { Ok(value) } else { Err(NodeNameError { value, origin }) }
    }

    /// The configuration of the node of that name: the first override that matches it laid over the file.
    #[must_use]
    pub fn for_node(&self, name: &str) -> Config {
        let chosen = self.override_of(name).and_then(|index| self.overrides.get(index));
        let mut config = chosen.map_or(&self.base, |(_, config)| config).clone();
        config.node.name = name.to_owned();
        config
    }

    /// Which of the `overrides`, counted from 0, is for the node of that name.
    #[must_use]
    pub fn override_of(&self, name: &str) -> Option<usize> {
        self.overrides.iter().position(|(glob, _)| glob.matches(name))
    }
}

fn is_nothing(root: &Node) -> bool {
    matches!(&root.value, Value::Scalar(Scalar { kind: tree::Kind::Null, .. }))
}

fn unexplained(problem: &str) -> Finding {
    Finding::new(Position::START, "", "", problem.to_owned(), "")
}

/// The document without its overrides, and these.
fn split_overrides(mut root: Node) -> (Node, Option<Node>) {
    let mut overrides = None;
    if let Value::Map(entries) = &mut root.value
        && let Some(index) = entries.iter().position(|entry| entry.key == "overrides")
    {
        overrides = Some(entries.remove(index).node);
    }
    (root, overrides)
}

/// Checks a document without overrides; `None` if there is a mistake in it.
fn read_one(root: &Node, findings: &mut Findings) -> Option<Config> {
    let mut own = Findings::default();
    let sound = check::document(root, schema(), &mut own);
    match serde_json::from_value::<raw::File>(sound.to_json()) {
        Ok(file) => {
            validate::validate(&file, &sound, &mut own);
            if own.is_empty() {
                return Some(validate::config(file));
            }
        }
        // What the schema lets through can be read; if not, the two disagree, and this still says why.
        Err(error) => own.push(unexplained(&error.to_string())),
    }
    own.into_iter().for_each(|finding| findings.push(finding));
    None
}

/// Checks each override by itself and as merged over `base`. The result is whole only if there are no findings.
fn read_overrides(base: &Node, overrides: &Node, findings: &mut Findings) -> Vec<(Glob, Config)> {
    let item = schema().pointer("/properties/overrides/items").unwrap_or(&Json::Null);
    let Value::List(items) = &overrides.value else {
        check::value(overrides, &schema()["properties"]["overrides"], findings);
        return Vec::new();
    };
    let mut result: Vec<(Glob, Config)> = Vec::new();
    for node in items {
        let Some((selector, rest)) = split_match(node, item, findings) else { continue };
        let whom = selector.as_ref().map_or(node.path.as_str(), |(_, glob)| glob.as_str()).to_owned();
        if let Some((at, glob)) = &selector
            && let Some((earlier, _)) =
                result.iter().find(|(other, _)| other == glob || other.matches_everything())
        {
            let (key, earlier) = (format!("{}.match.name", node.path), earlier.as_str());
            let problem =
                format!("an override above, for `{earlier}`, takes every node that this one matches");
            let hint = "the first match wins: put the narrower one first";
            findings.push(Finding::new(*at, &key, glob.as_str(), problem, hint));
        }
        let mut merged = Findings::default();
        if let (Some(config), Some((_, glob))) = (read_one(&base.merged(&rest), &mut merged), selector) {
            result.push((glob, config));
        }
        for finding in merged {
            if !findings.contains(&finding) {
                let only_for = (!finding.key.starts_with(&node.path)).then(|| whom.clone());
                findings.push(Finding { only_for, ..finding });
            }
        }
    }
    result
}

/// An override's pattern with its place (if it is sound), and the override without it, `None` if it is no map.
/// Keys that no override may have are reported and left out.
fn split_match(
    node: &Node,
    item: &Json,
    findings: &mut Findings,
) -> Option<(Option<(Position, Glob)>, Node)> {
    let Value::Map(entries) = &node.value else {
        check::value(node, item, findings);
        return None;
    };
    let mut selector = None;
    let mut rest = Vec::new();
    for entry in entries {
        match entry.key.as_str() {
            "match" => {
                let sound = check::value(&entry.node, &item["properties"]["match"], findings);
                selector = sound.as_ref().and_then(|node| node.entry("name")).and_then(pattern);
            }
            "version" | "overrides" => {
                let problem = format!("`{}` can't be overridden", entry.key);
                findings.push(Finding::new(
                    entry.at,
                    &entry.node.path,
                    &entry.key,
                    problem,
                    "remove the key",
                ));
            }
            "node" => rest.push(without_name(entry, findings)),
            _ => rest.push(entry.clone()),
        }
    }
    if !entries.iter().any(|entry| entry.key == "match") {
        let problem = "the key `match` is missing".to_owned();
        findings.push(Finding::new(
            node.at,
            &node.path,
            "",
            problem,
            "for example match: { name: \"gpu-*\" }",
        ));
    }
    Some((selector, Node { value: Value::Map(rest), ..node.clone() }))
}

fn pattern(node: &Node) -> Option<(Position, Glob)> {
    match &node.value {
        Value::Scalar(scalar) => Glob::new(&scalar.text).map(|glob| (node.at, glob)),
        Value::List(_) | Value::Map(_) => None,
    }
}

/// An override's `node:` without `name`, which can't be in it.
fn without_name(entry: &Entry, findings: &mut Findings) -> Entry {
    let mut entry = entry.clone();
    if let Value::Map(children) = &mut entry.node.value
        && let Some(index) = children.iter().position(|child| child.key == "name")
    {
        let child = children.remove(index);
        let value = match &child.node.value {
            Value::Scalar(scalar) => printable(&scalar.text, 80),
            Value::List(_) | Value::Map(_) => String::new(),
        };
        let problem = "the name can't be overridden: it decides which override matches".to_owned();
        findings.push(Finding::new(child.at, &child.node.path, &value, problem, "remove the key"));
    }
    entry
}

#[cfg(test)]
mod tests;
