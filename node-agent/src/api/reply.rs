//! Requests and replies of the API beside those of [`crate::status`]. The CLI prints the same values with `-o json`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::claims;
pub use crate::status::BlockEntry;

/// Any failure, of the API and of a command with `-o json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorReply {
    /// What went wrong.
    pub error: ErrorBody,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// A stable word.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// With code `config`: every mistake in the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<Mistake>,
}

/// A mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mistake {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1; 0 where the file can't be read at all.
    pub line: u32,
    /// Column in characters, from 1; 0 where the file can't be read at all.
    pub column: u32,
    /// Path of the key, for example `pools[0].cidr`; empty for the document.
    pub key: String,
    /// The offending value; empty where there is none.
    pub value: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right; empty where nothing helps.
    pub hint: String,
}

impl From<&config::ConfigError> for Mistake {
    fn from(error: &config::ConfigError) -> Self {
        Self {
            file: error.file.clone(),
            line: error.line,
            column: error.column,
            key: error.key.clone(),
            value: error.value.clone(),
            problem: error.problem.clone(),
            hint: error.hint.clone(),
        }
    }
}

impl ErrorBody {
    /// From its parts.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), hint: hint.into(), mistakes: Vec::new() }
    }
}

/// Body of `POST /v1/blocks/claim`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// Pool to claim from, a CIDR string; without it one block of every family that the pools have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// `pairway blocks claim -o json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claimed {
    /// The new blocks, CIDR strings.
    pub blocks: Vec<String>,
}

/// Body of `POST /v1/blocks/release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// The block, a CIDR string.
    pub block: String,
    /// Even if it is in use or needed.
    #[serde(default)]
    pub force: bool,
}

/// `pairway blocks release -o json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Released {
    /// The block, a CIDR string.
    pub block: String,
    /// The node that has the block, if it was lost to that one: it was only forgotten here. Else null.
    pub lost_to: Option<String>,
    /// Blocks claimed in its place because of `blocks.perNode`, CIDR strings.
    pub claimed: Vec<String>,
    /// The tunnel address of this node that has changed with it; null if it has not.
    pub tunnel_address: Option<TunnelChange>,
    /// Other nodes leave the block alone for so long, unless nothing else is free.
    pub reuse_after_seconds: u64,
    /// What of others on this node still has addresses of the block: pods that can't be reached from other nodes any more.
    #[serde(default)]
    pub in_use: Vec<String>,
}

/// A tunnel address that changes with a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelChange {
    /// What it was.
    pub from: String,
    /// What it is; null if this node has no block of the family any more.
    pub to: Option<String>,
}

impl From<claims::Released> for Released {
    fn from(released: claims::Released) -> Self {
        Self {
            block: released.block.to_string(),
            lost_to: released.lost_to.map(|holder| holder.to_string()),
            claimed: released.claimed.iter().map(ToString::to_string).collect(),
            tunnel_address: released
                .tunnel_address
                .map(|(from, to)| TunnelChange { from: from.to_string(), to: to.map(|to| to.to_string()) }),
            reuse_after_seconds: released.reuse_after.as_secs(),
            in_use: released.in_use,
        }
    }
}

/// Body of `POST /v1/nodes/delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteRequest {
    /// The node.
    pub name: String,
    /// Even if its record is fresh: its agent may run.
    #[serde(default)]
    pub force: bool,
}

/// `pairway node delete -o json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deleted {
    /// The node.
    pub node: String,
    /// Blocks that are free now, CIDR strings.
    pub released: Vec<String>,
}

/// `pairway version -o json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// Version of the program itself; the agent's own is in `pairway status`.
    pub version: String,
}

/// `pairway validate -o json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Validated {
    /// Name of the node that the configuration is for.
    pub node: String,
    /// Which of the `overrides` it is merged with, from 0.
    #[serde(rename = "override")]
    pub override_: Option<usize>,
    /// What is legal and may not do what its author thinks, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The effective configuration, every default written out, as `config/schema.json` describes it.
    pub config: serde_json::Value,
}

/// `pairway uninstall -o json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Uninstalled {
    /// This node.
    pub node: String,
    /// Nothing was done: the rest says what would be.
    pub dry_run: bool,
    /// Blocks given back to the store, CIDR strings.
    pub released: Vec<String>,
    /// The node's record was removed from the store.
    #[serde(default)]
    pub record: bool,
    /// Changes of the kernel, in order, for people.
    pub kernel: Vec<String>,
    /// Files for CNI plugins that were removed, paths.
    #[serde(default)]
    pub files: Vec<String>,
    /// The state directory that was emptied, a path; `null` if there is none, or it stays because of a failure.
    #[serde(default)]
    pub state_dir: Option<String>,
    /// What could not be done, for people; empty if all of it was.
    pub failures: Vec<String>,
}
