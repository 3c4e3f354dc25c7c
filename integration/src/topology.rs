//! A topology: a containerlab file, read strictly.
//!
//! The same file works under containerlab, so its meaning is containerlab's. What this runner has no way to do
//! is refused by name and line, never skipped: a lab that silently lacks something proves nothing. Settings
//! that only a container engine needs (`image`, `privileged`, `cap-add`, ...) are accepted and not used.

mod raw;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_saphyr::{Location, Spanned};

pub use words::{SplitError, split};

/// See [`Topology::exec_limit`].
const EXEC_LIMIT: Duration = Duration::from_secs(60);

/// MTU of a link that names none, as containerlab has it.
const DEFAULT_MTU: u32 = 9500;

/// A topology, resolved: defaults and kinds are merged into the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// `name`
    pub name: String,
    /// The file, for messages.
    pub path: PathBuf,
    /// Folder of the file: relative binds begin there.
    pub folder: PathBuf,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Links in the file's order.
    pub links: Vec<Link>,
    /// How long each command may take: a minute, the file can't say otherwise.
    pub exec_limit: Duration,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A machine of its own.
    Linux,
    /// A learning switch: a Linux bridge named after the node, whose ports are the node's link ends.
    Bridge,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its kind.
    pub kind: Kind,
    /// Commands that are run once the node's links are up, in order.
    pub exec: Vec<Exec>,
    /// Bind mounts.
    pub binds: Vec<Bind>,
    /// Environment of everything that runs in the node.
    pub env: BTreeMap<String, String>,
    /// Kernel settings.
    pub sysctls: BTreeMap<String, String>,
    /// Labels; `role: node` marks those that run an agent.
    pub labels: BTreeMap<String, String>,
}

/// A command of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// Line and column in the file, from 1.
    pub at: (u64, u64),
    /// Program and arguments, at least one.
    pub words: Vec<String>,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Line and column in the file, from 1.
    pub at: (u64, u64),
    /// What is mounted; relative to the folder of the file.
    pub source: PathBuf,
    /// Where in the node, absolute.
    pub target: PathBuf,
    /// `:ro`
    pub read_only: bool,
}

/// A link: a veth pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its ends.
    pub ends: [End; 2],
    /// MTU of both ends in bytes.
    pub mtu: u32,
}

/// An end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Node.
    pub node: String,
    /// Name of the interface there.
    pub interface: String,
    /// Its Ethernet address, if the file fixes it.
    pub mac: Option<String>,
}

/// Why a topology can't be used: `file:line:column: what is wrong; what would be right`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TopologyError {
    /// The file.
    pub path: PathBuf,
    /// Line and column, from 1; `None` where the file as a whole is meant.
    pub at: Option<(u64, u64)>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl Topology {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, TopologyError> {
        let text = std::fs::read_to_string(path).map_err(|err| TopologyError {
            path: path.to_owned(),
            at: None,
            message: format!("can't be read: {err}; name a containerlab file, or one of the lab's own"),
        })?;
        Self::parse(&text, path)
    }

    /// Checks the text of a file; `path` is for messages and relative binds.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TopologyError> {
        let fail = |Refusal { at, message }| TopologyError { path: path.to_owned(), at, message };
        let file: raw::File = serde_saphyr::from_str(text).map_err(|err| {
            let at = err.location().map(place);
            fail(Refusal { at, message: raw::message(&err) })
        })?;
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        resolve(file, path, folder).map_err(fail)
    }

    /// Something at a place of the file that only showed when it was brought up.
    pub(crate) fn wrong(&self, at: (u64, u64), message: String) -> TopologyError {
        TopologyError { path: self.path.clone(), at: Some(at), message }
    }

    /// Names of the nodes whose `role` label is this.
    #[must_use]
    pub fn with_role(&self, role: &str) -> Vec<String> {
        let has = |node: &Node| node.labels.get("role").is_some_and(|value| value == role);
        self.nodes.iter().filter(|(_, node)| has(node)).map(|(name, _)| name.clone()).collect()
    }
}

/// A refusal that does not know its file yet.
struct Refusal {
    at: Option<(u64, u64)>,
    message: String,
}

fn refuse<T>(at: Location, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { at: Some(place(at)), message: message.into() })
}

fn place(at: Location) -> (u64, u64) {
    (at.line(), at.column())
}

fn resolve(file: raw::File, path: &Path, folder: PathBuf) -> Result<Topology, Refusal> {
    if !is_name(&file.name.value) {
        return refuse(
            file.name.referenced,
            format!("name {:?} is no lab name; write letters, digits, '-' and '_'", file.name.value),
        );
    }
    let raw::Topology { defaults, kinds, nodes: raw_nodes, links: raw_links } = file.topology;
    let defaults = defaults.unwrap_or_default();
    for (kind, settings) in &kinds {
        if !matches!(kind.as_str(), "linux" | "bridge") {
            return refuse(
                settings.referenced,
                format!("kind {kind} is not supported; write linux or bridge"),
            );
        }
    }
    if raw_nodes.is_empty() {
        return Err(Refusal {
            at: None,
            message: "topology.nodes is empty; name at least one node".to_owned(),
        });
    }
    let mut nodes = BTreeMap::new();
    for (name, spanned) in raw_nodes {
        let at = spanned.referenced;
        let node = resolve_node(&name, at, spanned.value.unwrap_or_default(), &defaults, &kinds)?;
        nodes.insert(name, node);
    }
    let links = resolve_links(raw_links, &nodes)?;
    Ok(Topology {
        name: file.name.value,
        path: path.to_owned(),
        folder,
        nodes,
        links,
        exec_limit: EXEC_LIMIT,
    })
}

fn resolve_node(
    name: &str,
    at: Location,
    own: raw::Settings,
    defaults: &raw::Settings,
    kinds: &BTreeMap<String, Spanned<raw::Settings>>,
) -> Result<Node, Refusal> {
    // The name becomes a host name, and a bridge's name a device name.
    if !is_name(name) || name.contains('_') || name.len() > 63 {
        return refuse(
            at,
            format!("node {name:?} is no host name; write letters, digits and '-', at most 63"),
        );
    }
    let Some(kind) = own.kind.as_ref().or(defaults.kind.as_ref()) else {
        return refuse(at, format!("node {name} has no kind; write linux or bridge"));
    };
    let kind_name = kind.value.clone();
    let kind = match kind_name.as_str() {
        "linux" => Kind::Linux,
        "bridge" => Kind::Bridge,
        other => {
            return refuse(kind.referenced, format!("kind {other} is not supported; write linux or bridge"));
        }
    };
    let none = raw::Settings::default();
    let of_kind = kinds.get(&kind_name).map_or(&none, |settings| &settings.value);
    // containerlab's order: defaults, kind, node; maps are merged, lists appended.
    let layers = [defaults, of_kind, &own];

    if let Some(mode) = layers.iter().rev().find_map(|layer| layer.network_mode.as_ref()) {
        if kind == Kind::Bridge || mode.value != "none" {
            return refuse(
                mode.referenced,
                format!(
                    "network-mode {:?} of node {name} is not supported; write none, for kind linux only",
                    mode.value
                ),
            );
        }
    } else if kind == Kind::Linux {
        return refuse(
            at,
            format!("node {name} asks for a management network, and there is none; write network-mode: none"),
        );
    }
    let mut node = Node {
        kind,
        exec: Vec::new(),
        binds: Vec::new(),
        env: BTreeMap::new(),
        sysctls: BTreeMap::new(),
        labels: BTreeMap::new(),
    };
    for layer in layers {
        for command in &layer.exec {
            node.exec.push(exec(name, command)?);
        }
        for text in &layer.binds {
            let bind = bind(name, text)?;
            node.binds.retain(|other| other.target != bind.target);
            node.binds.push(bind);
        }
        node.env.extend(layer.env.clone());
        node.sysctls.extend(layer.sysctls.clone());
        node.labels.extend(layer.labels.clone());
    }
    if kind == Kind::Bridge {
        if name.len() > 15 {
            return refuse(at, format!("bridge {name} can't be a device's name; write at most 15 bytes"));
        }
        if let Some(first) = own.exec.first().or(of_kind.exec.first()) {
            return refuse(
                first.referenced,
                format!("exec of node {name}: kind bridge runs no commands; move it to a node of kind linux"),
            );
        }
        node.exec.clear();
        node.binds.clear();
        node.sysctls.clear();
    }
    Ok(node)
}

fn exec(node: &str, command: &Spanned<String>) -> Result<Exec, Refusal> {
    no_variables(node, "exec", command)?;
    match split(&command.value.replace("__clabNodeName__", node)) {
        Ok(words) if words.is_empty() => refuse(
            command.referenced,
            format!("exec of node {node}: the command is empty; write one, or remove the line"),
        ),
        Ok(words) => Ok(Exec { at: place(command.referenced), words }),
        Err(err) => refuse(command.referenced, format!("exec of node {node}: {err}; quote as for a shell")),
    }
}

fn bind(node: &str, text: &Spanned<String>) -> Result<Bind, Refusal> {
    no_variables(node, "bind", text)?;
    let resolved = text.value.replace("__clabNodeName__", node);
    let mut parts = resolved.split(':');
    let (source, target, mode) = (parts.next(), parts.next(), parts.next());
    let read_only = match (mode, parts.next()) {
        (None | Some("rw"), None) => false,
        (Some("ro"), None) => true,
        _ => {
            return refuse(
                text.referenced,
                format!("bind {resolved:?} of node {node}: an unknown option; write :ro, :rw or none"),
            );
        }
    };
    let (Some(source), Some(target)) = (source.filter(|s| !s.is_empty()), target) else {
        return refuse(
            text.referenced,
            format!("bind {resolved:?} of node {node} is incomplete; write SOURCE:TARGET[:ro]"),
        );
    };
    if source.starts_with('~') || source.contains("__clab") {
        return refuse(
            text.referenced,
            format!(
                "bind {resolved:?} of node {node}: '~' and __clab variables are not known here; write a path"
            ),
        );
    }
    if !target.starts_with('/') || target == "/" || target.split('/').any(|part| part == "..") {
        return refuse(
            text.referenced,
            format!("bind {resolved:?} of node {node}: the target is not absolute; write /..."),
        );
    }
    Ok(Bind { at: place(text.referenced), source: source.into(), target: target.into(), read_only })
}

/// containerlab replaces `$NAME` and `${NAME}` by its own environment before it reads the file.
fn no_variables(node: &str, what: &str, text: &Spanned<String>) -> Result<(), Refusal> {
    if text.value.contains('$') {
        return refuse(
            text.referenced,
            format!(
                "{what} of node {node}: containerlab would replace '$' by its own environment; write it without"
            ),
        );
    }
    Ok(())
}

fn resolve_links(raw: Vec<Spanned<raw::Link>>, nodes: &BTreeMap<String, Node>) -> Result<Vec<Link>, Refusal> {
    let mut used = BTreeSet::new();
    let mut links = Vec::new();
    for Spanned { value: link, referenced: at, .. } in raw {
        if let Some(kind) = &link.kind
            && kind.value != "veth"
        {
            return refuse(
                kind.referenced,
                format!("link type {} is not supported; write veth, or no type", kind.value),
            );
        }
        let mtu = match link.mtu {
            None => DEFAULT_MTU,
            Some(mtu) if (68..=65535).contains(&mtu.value) => mtu.value,
            Some(mtu) => {
                return refuse(
                    mtu.referenced,
                    format!("mtu {} is out of range; write 68 to 65535", mtu.value),
                );
            }
        };
        let count = link.endpoints.len();
        let Ok(ends) = <[raw::Endpoint; 2]>::try_from(link.endpoints) else {
            return refuse(at, format!("this link has {count} endpoints; write two"));
        };
        let ends = ends.map(|end| End { node: end.node, interface: end.interface, mac: end.mac });
        for end in &ends {
            if !nodes.contains_key(&end.node) {
                let reserved =
                    matches!(end.node.as_str(), "host" | "mgmt-net" | "macvlan" | "dummy" | "vxlan");
                let why = if reserved {
                    "is no node: only links between nodes are supported; name a node".to_owned()
                } else {
                    let known: Vec<&str> = nodes.keys().map(String::as_str).collect();
                    format!("is on no node of this file; there are {}", known.join(", "))
                };
                return refuse(at, format!("endpoint {}:{} {why}", end.node, end.interface));
            }
            let interface = end.interface.as_str();
            let legal = (1..=15).contains(&interface.len())
                && !matches!(interface, "." | ".." | "lo")
                && !interface.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
            if !legal {
                return refuse(
                    at,
                    format!(
                        "endpoint {}:{interface} is no device name; write 1 to 15 bytes without '/', ':' and spaces",
                        end.node
                    ),
                );
            }
            if !used.insert((end.node.clone(), end.interface.clone())) {
                return refuse(
                    at,
                    format!("endpoint {}:{interface} is used twice; give each link its own", end.node),
                );
            }
        }
        links.push(Link { ends, mtu });
    }
    Ok(links)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests;
