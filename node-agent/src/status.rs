//! What the agent publishes: one value per pass, for the CLI, the API and the metrics.
//!
//! These types are a promise to programs (DESIGN: fields are only added). Times are RFC 3339, durations are
//! numbers with the unit in the key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::claims::Released;
use crate::node::Block;

mod table;

pub use table::Table;

/// Everything published by one pass of the agent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Published {
    /// `pairway status`
    pub status: Status,
    /// `pairway pairs`: one entry per peer and family, sorted by peer, then family.
    pub pairs: Table<Pair>,
    /// `pairway routes`: every route that we own or want, sorted by table and prefix.
    pub routes: Table<RouteEntry>,
    /// `pairway bgp neighbors`, sorted by name.
    pub neighbors: Table<BgpNeighbor>,
    /// `pairway blocks list`: every block that a node holds, sorted by address.
    pub blocks: Table<BlockEntry>,
    /// Counters for `/metrics`.
    pub counters: Counters,
    /// Since this machine was booted the kernel has held all that was wanted, once.
    pub stood: bool,
}

/// `pairway status -o json`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Name of this node.
    pub node: String,
    /// Version of the agent.
    pub version: String,
    /// Blocks held, oldest first, CIDR strings.
    pub blocks: Vec<String>,
    /// This node's network is ready (a dead peer never makes it unready).
    pub ready: bool,
    /// Why it is not ready, as stable words; empty when ready.
    pub not_ready_reasons: Vec<String>,
    /// Conditions that an operator should know, sorted by type.
    pub conditions: Vec<Condition>,
    /// Revision of the snapshot that the last pass used; 0 before the first.
    pub revision: u64,
    /// Underlay addresses with prefix length, by family (`ipv4`, `ipv6`).
    pub underlay: BTreeMap<String, String>,
    /// Underlay interface.
    pub underlay_interface: Option<String>,
    /// Tunnel addresses by family.
    pub tunnel_addresses: BTreeMap<String, String>,
    /// Store in use and its state, for people.
    pub store: String,
    /// Number of pairs by path (`native`, `vxlan`, `ipip`, `none`).
    pub pairs_by_path: BTreeMap<String, u64>,
    /// Kernel objects that could not be programmed, for people.
    pub failures: Vec<String>,
    /// When the agent started.
    pub started_at: Option<String>,
}

/// [`Condition::kind`] while the store does not answer; `/metrics` derives the store's health from it.
pub const STORE_UNAVAILABLE: &str = "StoreUnavailable";

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// A stable word: `PoolExhausted`, `BlockLost`, `StoreUnavailable`, `BgpPortInUse`, `Conflict`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is about, empty for the node itself: a peer, a block, a record.
    pub subject: String,
    /// A sentence with what to do.
    pub message: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// Whether this node is as it should be all the same.
    #[serde(default)]
    pub severity: Severity,
}

/// How bad a condition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// This node is not as it should be: `pairway status` exits with 1.
    #[default]
    Error,
    /// This node does what it should; something else needs a look.
    Warning,
}

impl Severity {
    /// Conditions of others, and of what is yet to come.
    const WARNINGS: [&str; 13] = [
        "BgpSessionDown",
        "HolderUnknown",
        "HostPrefix",
        "NodeStatusRefused",
        "PeersVanished",
        "PolicyDiffers",
        "PrefixRefused",
        "RecordProblem",
        "StateDirUnwritable",
        "StateNotSaved",
        "StateUnreadable",
        "UnderlayAddressDuplicate",
        "UnderlayInPool",
    ];

    /// The severity of a kind of condition.
    #[must_use]
    pub fn of(kind: &str) -> Self {
        if Self::WARNINGS.contains(&kind) { Self::Warning } else { Self::Error }
    }

    /// As programs read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// An entry of `pairway pairs -o json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pair {
    /// This node.
    pub local: String,
    /// The other node.
    pub peer: String,
    /// `ipv4` or `ipv6`: family of the pod addresses.
    pub family: String,
    /// `native`, `vxlan`, `ipip` or `none`: the path in use.
    pub path: String,
    /// The path that policy alone predicts.
    pub predicted: String,
    /// Why `path`: a stable word.
    pub reason: String,
    /// The same as a sentence.
    pub detail: String,
    /// The peer's blocks of this family, CIDR strings.
    pub blocks: Vec<String>,
    /// Underlay addresses.
    pub underlay: PairUnderlay,
    /// Largest pod packet in bytes that the path carries.
    pub mtu: u32,
    /// The kernel holds everything that the path needs, and nothing of others comes before it.
    pub ready: bool,
    /// Why it is not ready, as a sentence; missing when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
}

/// Underlay addresses of a pair, without prefix length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PairUnderlay {
    /// Ours; empty if none serves the pair.
    pub local: String,
    /// The peer's; empty if none serves the pair.
    pub peer: String,
}

/// An entry of `pairway routes -o json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteEntry {
    /// Destination CIDR.
    pub prefix: String,
    /// Routing table.
    pub table: u32,
    /// `native`, `vxlan`, `ipip`, `unreachable`; `other` for one that carries our mark and is of no kind that we make.
    pub kind: String,
    /// Node that holds the destination; empty for pool routes.
    pub node: String,
    /// Gateway; empty for unreachable.
    pub via: String,
    /// Device; empty for unreachable.
    pub device: String,
    /// `installed`, `missing` (wanted, not in the kernel), `stale` (in the kernel, to be removed), `diverted` (in the kernel,
    /// but packets, all or some of them, go elsewhere because of something of somebody else's).
    pub state: String,
    /// Why it is `diverted`, as a sentence; else empty.
    #[serde(default)]
    pub detail: String,
}

/// An entry of `pairway bgp neighbors -o json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpNeighbor {
    /// Name of the node or of the configured speaker.
    pub name: String,
    /// `node` or `external`.
    pub kind: String,
    /// Address.
    pub address: String,
    /// AS.
    pub asn: u32,
    /// `idle`, `connect`, `active`, `opensent`, `openconfirm`, `established`.
    pub state: String,
    /// Seconds in that state.
    pub since_seconds: u64,
    /// Negotiated hold time; 0 unless established.
    pub hold_time_seconds: u64,
    /// Families negotiated.
    pub families: Vec<String>,
    /// The peer restarts and its routes are kept.
    pub restarting: bool,
    /// Prefixes accepted.
    pub accepted: u64,
    /// Prefixes announced to it.
    pub announced: u64,
    /// Prefixes refused, with the reason.
    pub refused: Vec<RefusedPrefix>,
    /// Number of prefixes refused, by reason.
    pub refused_by_reason: BTreeMap<String, u64>,
    /// Times established.
    pub established_count: u64,
    /// Why it went down last.
    pub last_error: Option<String>,
    /// Messages received and sent.
    pub messages_received: u64,
    /// Messages sent.
    pub messages_sent: u64,
}

/// A refused prefix (invariant 10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedPrefix {
    /// The prefix.
    pub prefix: String,
    /// A stable word: `not-claimed`, `claimed-by-other`, `next-hop`, `loop`, `own-prefix`, `not-imported`.
    pub reason: String,
    /// A sentence.
    pub detail: String,
}

/// An entry of `pairway blocks list -o json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockEntry {
    /// The block, a CIDR string.
    pub block: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Node that holds it; empty if the record of the claim can't be read.
    pub node: String,
    /// It is this node's.
    pub own: bool,
}

/// Counters since the agent started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// Passes of the loop.
    pub passes: u64,
    /// Duration of the last pass in seconds.
    pub last_pass_micros: u64,
    /// Kernel changes applied, by kind of object (`route`, `fdb`, ...) and operation (`add`, `set`, `delete`).
    pub changes: BTreeMap<(String, String), u64>,
    /// Kernel changes refused by the kernel, by kind of object.
    pub change_failures: BTreeMap<String, u64>,
    /// Kernel objects that somebody else had undone and that were put back, by kind of object.
    pub repairs: BTreeMap<String, u64>,
    /// Path flips by from, to and reason.
    pub flips: BTreeMap<(String, String, String), u64>,
    /// Kernel objects wanted, by kind.
    pub objects_wanted: BTreeMap<String, u64>,
    /// Foreign objects in our way.
    pub conflicts: u64,
    /// Connections that our table has masqueraded.
    pub masqueraded: Tally,
    /// Packets of the tunnel that the guard has dropped.
    pub guarded: Tally,
    /// How long passes took; filled by [`Counters::record_pass`].
    pub pass_durations: PassDurations,
}

/// A counter of the kernel, summed up over its restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Since the agent started, with what the kernel had counted before.
    pub total: u64,
    /// What the kernel said last.
    pub last: u64,
}

impl Counters {
    /// Counts one pass of the loop.
    pub fn record_pass(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.passes += 1;
        self.last_pass_micros = micros;
        self.pass_durations.record(micros);
    }
}

/// Passes of the loop by duration: the buckets of a histogram, not cumulative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PassDurations {
    /// Passes that took up to [`PassDurations::BOUNDS_MICROS`]; the last bucket has no bound.
    pub buckets: [u64; Self::BOUNDS_MICROS.len() + 1],
    /// Sum of all durations in microseconds.
    pub sum_micros: u64,
}

impl PassDurations {
    /// Upper bounds of the buckets: a pass without a change takes well under a millisecond, one that programs a
    /// large cluster takes seconds.
    pub const BOUNDS_MICROS: [u64; 10] =
        [500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000];

    fn record(&mut self, micros: u64) {
        let bucket = Self::BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket] += 1;
        self.sum_micros = self.sum_micros.saturating_add(micros);
    }
}

/// What the API may ask of the agent. Each is answered once.
#[derive(Debug)]
pub enum Command {
    /// `pairway blocks claim [POOL]`: one more block per family, or from this pool. Answers with the blocks.
    ClaimBlock {
        /// CIDR of a configured pool.
        pool: Option<String>,
        /// Blocks claimed, or what is wrong.
        answer: oneshot::Sender<Result<Vec<String>, CommandError>>,
    },
    /// `pairway blocks release BLOCK`
    ReleaseBlock {
        /// The block.
        block: Block,
        /// Even if it is in use or needed.
        force: bool,
        /// What has come of it, or what is wrong.
        answer: oneshot::Sender<Result<Released, CommandError>>,
    },
    /// `pairway node delete NAME`
    DeleteNode {
        /// The node.
        name: String,
        /// Even if its record is fresh.
        force: bool,
        /// Blocks released, or what is wrong.
        answer: oneshot::Sender<Result<Vec<String>, CommandError>>,
    },
}

/// A command that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// A stable word: `not-found`, `not-held`, `fresh`, `in-use`, `needed`, `last-block`, `exhausted`, `store`.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// The agent as the surfaces see it.
#[derive(Debug, Clone)]
pub struct AgentHandle {
    /// The last published value.
    pub published: watch::Receiver<Arc<Published>>,
    /// Where commands go.
    pub commands: mpsc::Sender<Command>,
}

/// RFC 3339 with seconds, UTC.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let mut counters = Counters::default();
        for micros in [0, 500, 501, 5_000_000, 5_000_001] {
            counters.record_pass(Duration::from_micros(micros));
        }
        assert_eq!(counters.passes, 5);
        assert_eq!(counters.last_pass_micros, 5_000_001);
        assert_eq!(counters.pass_durations.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(counters.pass_durations.sum_micros, 10_001_002);
    }
}
