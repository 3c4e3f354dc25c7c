//! `pairway doctor`: is this machine fit to be a node? A look before the agent runs, and when something is odd.
//!
//! `read` looks at the machine and fills [`Facts`]; [`examine`] judges them and is pure. Nothing is changed, nothing is
//! sent, and no agent has to run. What can't be looked at (no root, no `nft`) is said to be so and is no finding.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod checks;
mod facts;
pub mod read;

pub use checks::examine;
pub use facts::{
    BridgeFilter, ClockState, Device, Facts, Folder, Known, ModuleState, Modules, Owner, PortOwner, Ports,
    Proto, Purpose, Record,
};

/// `pairway doctor -o json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Examination {
    /// Name of this node.
    pub node: String,
    /// Every check, in an order that does not change.
    pub checks: Vec<Check>,
    /// How many conditions the running agent has; `null` where none is reached.
    #[serde(default)]
    pub conditions: Option<usize>,
}

/// What one check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// A stable word: `ip-forward`, `module-vxlan`, `port-bgp`, ...
    pub name: String,
    /// What it came to.
    pub outcome: Outcome,
    /// What it is about, empty for the machine itself: an interface, an address, a directory.
    pub subject: String,
    /// What was found, and what it means.
    pub message: String,
    /// A command that mends it, or what to do; empty unless it is a finding.
    pub remedy: String,
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All is well.
    Ok,
    /// Something has to be mended.
    Finding,
    /// It could not be looked at.
    NotChecked,
}

impl Outcome {
    /// As programs read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Finding => "finding",
            Self::NotChecked => "not-checked",
        }
    }
}

impl Examination {
    /// Number of checks by outcome.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Outcome, usize> {
        let mut counts = BTreeMap::new();
        for check in &self.checks {
            *counts.entry(check.outcome).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests;
