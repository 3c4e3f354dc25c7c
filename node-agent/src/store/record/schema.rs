//! The records field for field. From these types the definitions of the Kubernetes resources are generated: ranges and
//! patterns say no more than what is checked when a record is read.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a node says of itself.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::store) struct NodeDto {
    /// Version of the record; later versions only add fields.
    #[schemars(range(min = 1, max = 4_294_967_295_u64))]
    pub(super) version: u32,
    /// The node.
    #[schemars(length(min = 1, max = 253))]
    pub(super) name: String,
    /// Its underlay address of IPv4, with the prefix length of the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 43))]
    pub(super) underlay_ipv4: Option<String>,
    /// Its underlay address of IPv6, with the prefix length of the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 43))]
    pub(super) underlay_ipv6: Option<String>,
    /// AS number of its BGP speaker.
    #[schemars(range(min = 1, max = 4_294_967_294_u64))]
    pub(super) asn: u64,
    /// Its BGP identifier.
    #[schemars(length(max = 15))]
    pub(super) router_id: String,
    /// TCP port of its BGP speaker.
    #[schemars(range(min = 1, max = 65535))]
    pub(super) bgp_port: u64,
    /// VXLAN network identifier.
    #[schemars(range(min = 1, max = 16_777_215))]
    pub(super) vni: u64,
    /// UDP port of VXLAN.
    #[schemars(range(min = 1, max = 65535))]
    pub(super) vxlan_port: u64,
    /// Labels that rules select nodes by.
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    /// Paths that it can receive.
    #[serde(default)]
    pub(super) capabilities: BTreeSet<String>,
    /// Digest of what both ends of a pair must have in common.
    #[serde(default)]
    pub(super) common_digest: String,
    /// Which run of the agent wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) instance: Option<String>,
    /// Where another agent runs that wants the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) contender: Option<String>,
    #[serde(flatten)]
    pub(super) unknown: BTreeMap<String, Value>,
}

/// Who holds a block.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::store) struct ClaimDto {
    /// Version of the record; later versions only add fields.
    #[schemars(range(min = 1, max = 4_294_967_295_u64))]
    pub(super) version: u32,
    /// The block.
    #[schemars(length(min = 1, max = 43))]
    pub(super) block: String,
    /// The node that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub(super) holder: Option<String>,
    /// Since when.
    #[schemars(length(min = 1, max = 64))]
    pub(super) claimed_at: String,
    #[serde(flatten)]
    pub(super) unknown: BTreeMap<String, Value>,
}

/// How long the blocks of a pool are.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::store) struct PoolDto {
    /// Version of the record; later versions only add fields.
    #[schemars(range(min = 1, max = 4_294_967_295_u64))]
    pub(super) version: u32,
    /// The pool.
    #[schemars(length(min = 1, max = 43))]
    pub(super) cidr: String,
    /// Prefix length of its blocks.
    #[schemars(range(min = 0, max = 128))]
    pub(super) block_prefix: u64,
    #[serde(flatten)]
    pub(super) unknown: BTreeMap<String, Value>,
}

/// When a block was given back.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::store) struct ReleasedDto {
    /// Version of the record; later versions only add fields.
    #[schemars(range(min = 1, max = 4_294_967_295_u64))]
    pub(super) version: u32,
    /// The block.
    #[schemars(length(min = 1, max = 43))]
    pub(super) block: String,
    /// When it was given back.
    #[schemars(length(min = 1, max = 64))]
    pub(super) released_at: String,
    #[serde(flatten)]
    pub(super) unknown: BTreeMap<String, Value>,
}
