//! A lab with Pairway on it: agents, what they say of themselves, and pods.
//!
//! The agent is the built binary and is asked through its command line, as an operator would.

mod error;
mod pods;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use node_agent::status::{BgpNeighbor, Pair, RouteEntry, Status};
use serde::de::DeserializeOwned;

use crate::eventually::eventually;
use crate::interrupt;
use crate::lab::{Lab, Node, Running};

pub use error::ClusterError;
pub use pods::Pod;

/// Where a topology binds the store from.
pub const STORE: &str = "store";

/// Lines of an agent's log that are shown when it does not do what it should.
const LOG_TAIL: usize = 12;

/// A whole configuration: what is not said has its default.
pub const CONFIG: &str = "\
version: 1
pools:
  - { cidr: 10.244.0.0/16, blockPrefix: 24 }
  - { cidr: \"fd10:244::/48\", blockPrefix: 64 }
";

/// Families of the pools in [`CONFIG`].
pub const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

/// Programs that run in nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The agent and its command line.
    pub pairway: PathBuf,
    /// This crate's binary, for what sends and answers packets.
    pub lab: PathBuf,
}

impl Programs {
    /// Those that were built with the running program.
    pub fn built() -> Result<Self, ClusterError> {
        let find = |variable: &str, name: &str| {
            if let Some(path) = std::env::var_os(variable) {
                return Ok(PathBuf::from(path));
            }
            let own = std::env::current_exe().unwrap_or_default();
            // A test binary is one folder further down.
            let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
            let missing = || ClusterError::NotBuilt { program: name.to_owned() };
            beside.into_iter().find(|path| path.is_file()).ok_or_else(missing)
        };
        Ok(Self { pairway: find("PAIRWAY_BIN", "pairway")?, lab: find("LAB_BIN", "lab")? })
    }
}

/// A lab and its agents.
#[derive(Debug)]
pub struct Cluster {
    // Programs end before their nodes: fields are dropped in this order.
    agents: BTreeMap<String, Running>,
    pods: Vec<Pod>,
    programs: Programs,
    lab: Lab,
}

impl Cluster {
    /// A lab with no agent yet. Every node gets `config`.
    pub fn new(lab: Lab, programs: Programs, config: &str) -> Result<Self, ClusterError> {
        let cluster = Self { agents: BTreeMap::new(), pods: Vec::new(), programs, lab };
        for node in cluster.lab.nodes().keys() {
            cluster.configure(node, config)?;
        }
        Ok(cluster)
    }

    /// A lab whose agents another runner has started.
    #[must_use]
    pub fn attach(lab: Lab, programs: Programs) -> Self {
        Self { agents: BTreeMap::new(), pods: Vec::new(), programs, lab }
    }

    /// The lab.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// A node of the lab.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        self.lab.node(name)
    }

    /// Programs in use.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// From now on everything outlives this value.
    pub fn leave(mut self) {
        std::mem::take(&mut self.agents).into_values().for_each(Running::leave);
    }

    /// The node's configuration file.
    #[must_use]
    pub fn config_path(&self, node: &str) -> PathBuf {
        self.lab.folder().join("config").join(node).join("pairway.yaml")
    }

    /// The node's agent writes here.
    #[must_use]
    pub fn log_path(&self, node: &str) -> PathBuf {
        self.lab.folder().join(format!("{node}.log"))
    }

    /// Writes the node's configuration in one step, as an editor or a deployment would.
    pub fn configure(&self, node: &str, config: &str) -> Result<(), ClusterError> {
        let path = self.config_path(node);
        let fail = |source| ClusterError::File { path: path.clone(), source };
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(fail)?;
        let temporary = folder.join(".pairway.yaml.new");
        fs::write(&temporary, config).map_err(fail)?;
        fs::rename(&temporary, &path).map_err(fail)
    }

    /// Starts the agent of a node.
    pub fn start(&mut self, node: &str) -> Result<(), ClusterError> {
        let pairway = self.programs.pairway.clone();
        self.start_build(node, &pairway)
    }

    /// Starts another build of the agent on a node.
    pub fn start_build(&mut self, node: &str, pairway: &Path) -> Result<(), ClusterError> {
        let config = self.config_path(node);
        let (program, config) = (pairway.to_string_lossy(), config.to_string_lossy());
        let words = [&program, "agent", "--config", &config];
        let running = self.node(node).start(&words, &self.log_path(node))?;
        self.agents.insert(node.to_owned(), running);
        Ok(())
    }

    /// Starts the agents of all nodes that are to have one; their names.
    pub fn start_all(&mut self) -> Result<Vec<String>, ClusterError> {
        let nodes = self.lab.topology().with_role("node");
        nodes.iter().try_for_each(|node| self.start(node))?;
        Ok(nodes)
    }

    /// Ends the agent of a node with a signal and waits for its end. An agent that SIGTERM ends must end well.
    pub fn stop(&mut self, node: &str, signal: Signal) -> Result<(), ClusterError> {
        let Some(mut agent) = self.agents.remove(node) else {
            return Err(ClusterError::NoAgent { node: node.to_owned() });
        };
        let status = agent.end(signal)?;
        if signal == Signal::SIGTERM && !status.success() {
            return Err(ClusterError::BadEnd { node: node.to_owned(), status: status.to_string() });
        }
        Ok(())
    }

    /// Names of the nodes whose agent runs.
    pub fn running(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        for (name, agent) in &mut self.agents {
            if agent.is_running() {
                names.push(name.clone());
            }
        }
        names
    }

    /// Sends a signal to the agent of a node.
    pub fn signal(&self, node: &str, signal: Signal) -> Result<(), ClusterError> {
        match self.agents.get(node) {
            Some(agent) => Ok(agent.signal(signal)?),
            None => Err(ClusterError::NoAgent { node: node.to_owned() }),
        }
    }

    /// Runs `pairway ... -o json` on a node. What the command finds (exit status 1) is an answer as well.
    pub fn ask<T: DeserializeOwned>(&self, node: &str, words: &[&str]) -> Result<T, ClusterError> {
        let fail = |problem: String| ClusterError::Answer {
            node: node.to_owned(),
            command: format!("pairway {}", words.join(" ")),
            problem,
        };
        let output = self
            .node(node)
            .command(&self.programs.pairway)
            .args(words)
            .args(["-o", "json"])
            .stdin(Stdio::null())
            .output()
            .map_err(|err| fail(err.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if matches!(output.status.code(), Some(0 | 1))
            && let Ok(answer) = serde_json::from_str(&text)
        {
            return Ok(answer);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(fail(format!("{}: {} {}", output.status, text.trim(), said.trim())))
    }

    /// `pairway status`
    pub fn status(&self, node: &str) -> Result<Status, ClusterError> {
        self.ask(node, &["status"])
    }

    /// `pairway pairs`
    pub fn pairs(&self, node: &str) -> Result<Vec<Pair>, ClusterError> {
        self.ask(node, &["pairs"])
    }

    /// `pairway routes`
    pub fn routes(&self, node: &str) -> Result<Vec<RouteEntry>, ClusterError> {
        self.ask(node, &["routes"])
    }

    /// `pairway bgp neighbors`
    pub fn neighbors(&self, node: &str) -> Result<Vec<BgpNeighbor>, ClusterError> {
        self.ask(node, &["bgp", "neighbors"])
    }

    /// One session, as a node sees it.
    pub fn neighbor(&self, node: &str, name: &str) -> Result<BgpNeighbor, ClusterError> {
        let neighbors = self.neighbors(node)?;
        neighbors.into_iter().find(|neighbor| neighbor.name == name).ok_or_else(|| ClusterError::Answer {
            node: node.to_owned(),
            command: "pairway bgp neighbors".to_owned(),
            problem: format!("no neighbor {name}"),
        })
    }

    /// One pair, as a node sees it.
    pub fn pair(&self, node: &str, peer: &str, family: &str) -> Result<Pair, ClusterError> {
        let pairs = self.pairs(node)?;
        let found = pairs.into_iter().find(|pair| pair.peer == peer && pair.family == family);
        found.ok_or_else(|| ClusterError::Answer {
            node: node.to_owned(),
            command: "pairway pairs".to_owned(),
            problem: format!("no {family} pair with {peer}"),
        })
    }

    /// Waits until every node is ready and has every pair with all others on its predicted path, and gives all
    /// pairs. `progress` is told how many there are, and how many there should be.
    pub fn converged(
        &self,
        nodes: &[String],
        limit: Duration,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Vec<Pair>, ClusterError> {
        let wanted = nodes.len() * (nodes.len() - 1) * FAMILIES.len();
        let all = eventually("every pair to be ready on its predicted path", limit, || {
            if interrupt::requested() {
                return Ok(Ok(None));
            }
            if let Some(node) = self.ended(nodes) {
                let log = self.log_path(node);
                let said = Lab::tail(&log, LOG_TAIL);
                return Ok(Err(ClusterError::AgentEnded { node: node.clone(), log, said }));
            }
            let mut good = Vec::new();
            let mut problems = Vec::new();
            for node in nodes {
                match self.pairs_of(node, nodes) {
                    Ok((pairs, problem)) => {
                        good.extend(pairs);
                        problems.extend(problem);
                    }
                    Err(err) => problems.push(err.to_string()),
                }
            }
            progress(good.len(), wanted);
            if problems.is_empty() && good.len() == wanted {
                Ok(Ok(Some(good)))
            } else {
                Err(problems.join("; "))
            }
        });
        match all {
            Ok(all) => all?.ok_or(ClusterError::Interrupted),
            Err(elapsed) => {
                let agents = nodes.iter().map(|node| self.describe(node)).collect();
                Err(ClusterError::NotConverged { elapsed, agents })
            }
        }
    }

    /// The first of these nodes whose agent was started here and does not run any more.
    fn ended<'a>(&self, nodes: &'a [String]) -> Option<&'a String> {
        nodes.iter().find(|&node| self.agents.get(node).is_some_and(Running::has_ended))
    }

    /// What an agent says of itself, and the end of its log.
    fn describe(&self, node: &str) -> String {
        let state = match self.status(node) {
            Err(err) => err.to_string(),
            Ok(status) if status.ready => "ready".to_owned(),
            Ok(status) => format!("not ready: {}", status.not_ready_reasons.join(", ")),
        };
        let log = self.log_path(node);
        let said: Vec<String> = Lab::tail(&log, LOG_TAIL).iter().map(|line| format!("  | {line}")).collect();
        format!("{node}: {state}; the end of {}:\n{}", log.display(), said.join("\n"))
    }

    /// A node's pairs that are as they should be, and the first thing that is not.
    fn pairs_of(&self, node: &str, nodes: &[String]) -> Result<(Vec<Pair>, Option<String>), ClusterError> {
        let status = self.status(node)?;
        let (good, bad): (Vec<Pair>, Vec<Pair>) =
            self.pairs(node)?.into_iter().partition(|pair| pair.ready && pair.path == pair.predicted);
        let mut problem = None;
        if let Some(pair) = bad.first() {
            let Pair { peer, family, path, predicted, reason, ready, .. } = pair;
            problem = Some(format!(
                "{node} - {peer} {family}: {path} ({reason}), predicted {predicted}, ready {ready}"
            ));
        }
        if let Some(pair) = good.iter().find(|pair| !nodes.contains(&pair.peer)) {
            problem = Some(format!("{node} still has a pair with {}", pair.peer));
        }
        if good.len() + bad.len() != (nodes.len() - 1) * FAMILIES.len() {
            problem = Some(format!("{node} has {} pairs", good.len() + bad.len()));
        }
        if !status.ready {
            problem = Some(format!("{node} is not ready: {}", status.not_ready_reasons.join(", ")));
        }
        Ok((good, problem))
    }
}
