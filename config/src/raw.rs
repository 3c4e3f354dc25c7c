//! The file as it is written: field for field, with every default in its place.
//!
//! The schema is generated from these types, and the schema is what a file is checked against; so what is said
//! here (types, ranges, formats, `x-pairway-reload`) is all there is to say about a key by itself. What keys must
//! be to each other is in `validate`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{defaults, duration};

/// Configuration of Pairway: one file, the same for every node. Everything but `pools` has a default.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(title = "Pairway configuration")]
pub(crate) struct File {
    /// Format of this file.
    #[schemars(range(min = 1, max = 1), extend("x-pairway-reload" = "restart"))]
    pub(crate) version: u8,
    /// The node itself.
    pub(crate) node: Node,
    /// Where node records and claims of blocks live.
    pub(crate) store: Store,
    /// Addresses that blocks are cut from. Pools don't overlap and hold no underlay addresses.
    #[schemars(length(min = 1), extend("x-pairway-reload" = "live"))]
    pub(crate) pools: Vec<Pool>,
    /// How many blocks a node holds, and when one is taken again.
    pub(crate) blocks: Blocks,
    /// Which path a pair of nodes takes.
    pub(crate) paths: Paths,
    /// The BGP speaker.
    pub(crate) bgp: Bgp,
    /// The VXLAN tunnel.
    pub(crate) vxlan: Vxlan,
    /// What protects the data plane from a store that suddenly lacks many nodes.
    pub(crate) brake: Brake,
    /// Address translation for packets that leave the cluster.
    pub(crate) masquerade: Masquerade,
    /// What is written for the CNI plugins that wire pods.
    pub(crate) cni: Cni,
    /// Metrics and health.
    pub(crate) http: Http,
    /// What the command line talks to.
    pub(crate) api: Api,
    /// What a node keeps across restarts; a lock in it refuses a second agent.
    #[schemars(extend("format" = "path", "x-pairway-reload" = "restart"))]
    pub(crate) state_dir: String,
    /// Marks of ownership in the kernel. Only to be changed where another program uses the same numbers.
    pub(crate) kernel: Kernel,
}

impl Default for File {
    fn default() -> Self {
        Self {
            version: defaults::VERSION,
            node: Node::default(),
            store: Store::default(),
            pools: Vec::new(),
            blocks: Blocks::default(),
            paths: Paths::default(),
            bgp: Bgp::default(),
            vxlan: Vxlan::default(),
            brake: Brake::default(),
            masquerade: Masquerade::default(),
            cni: Cni::default(),
            http: Http::default(),
            api: Api::default(),
            state_dir: defaults::STATE_DIR.to_owned(),
            kernel: Kernel::default(),
        }
    }
}

/// `node:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Node {
    /// Name of the node; `auto`: the environment's `NODE_NAME`, else the host name. Not in overrides.
    #[schemars(extend("format" = "node-name", "x-pairway-reload" = "restart"))]
    pub(crate) name: String,
    /// Where the underlay addresses come from: an interface, a CIDR, or a list of them, of which the first fit
    /// address per family is taken; `auto`: the default route's interface.
    #[schemars(extend("x-pairway-reload" = "restart"))]
    pub(crate) underlay: Underlay,
    /// Labels that rules, pools and peers select nodes by.
    #[schemars(extend("x-pairway-reload" = "live"))]
    pub(crate) labels: Labels,
}

impl Default for Node {
    fn default() -> Self {
        Self { name: "auto".to_owned(), underlay: Underlay::default(), labels: Labels::default() }
    }
}

/// Keys and values with Kubernetes' syntax of labels.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Labels(pub(crate) BTreeMap<String, String>);

impl JsonSchema for Labels {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Labels".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "format": "label-key" },
            "additionalProperties": { "type": "string", "format": "label-value" },
        })
    }
}

/// One text, or a list of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Underlay {
    One(String),
    Any(Vec<String>),
}

impl Default for Underlay {
    fn default() -> Self {
        Self::One("auto".to_owned())
    }
}

impl JsonSchema for Underlay {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Underlay".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "array"],
            "format": "underlay",
            "items": { "type": "string", "format": "underlay" },
            "minItems": 1,
        })
    }
}

/// `store:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Store {
    /// A directory, shared by the agents of one machine or bind-mounted. One of `file`, `kubernetes` and `etcd` is the
    /// store; without any it is this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FileStore")]
    pub(crate) file: Option<FileStore>,
    /// The Kubernetes API; `{}`: as a pod is told where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "KubernetesStore")]
    pub(crate) kubernetes: Option<KubernetesStore>,
    /// etcd, for clusters of plain machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "EtcdStore")]
    pub(crate) etcd: Option<EtcdStore>,
}

impl Default for Store {
    fn default() -> Self {
        Self { file: Some(FileStore::default()), kubernetes: None, etcd: None }
    }
}

/// `store.file:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct FileStore {
    /// The directory.
    #[schemars(extend("format" = "path", "x-pairway-reload" = "restart"))]
    pub(crate) path: String,
    /// Accept a directory on a network filesystem, where changes are seen by polling only.
    #[schemars(extend("x-pairway-reload" = "restart"))]
    pub(crate) allow_network_filesystem: bool,
}

impl Default for FileStore {
    fn default() -> Self {
        Self { path: defaults::STORE_PATH.to_owned(), allow_network_filesystem: false }
    }
}

/// `store.kubernetes:`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct KubernetesStore {
    /// A kubeconfig that says where the API server is and who we are. Without it: what a pod is told
    /// (`KUBERNETES_SERVICE_HOST`, `KUBERNETES_SERVICE_PORT` and its service account), else the environment's `KUBECONFIG`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "path", "x-pairway-reload" = "restart"))]
    pub(crate) kubeconfig: Option<String>,
    /// A context of the kubeconfig; without it the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "text", "x-pairway-reload" = "restart"))]
    pub(crate) context: Option<String>,
    /// Namespace of the Leases that are the nodes' signs of life; without it that of the pod or the context. The same for
    /// every node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "namespace", "x-pairway-reload" = "restart"))]
    pub(crate) namespace: Option<String>,
}

/// `store.etcd:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EtcdStore {
    /// The members, as `https://HOST:PORT` or `http://HOST:PORT`.
    #[schemars(with = "Vec<Endpoint>", length(min = 1), extend("x-pairway-reload" = "restart"))]
    pub(crate) endpoints: Vec<String>,
    /// What our keys begin with, the same for every node.
    #[serde(default = "etcd_prefix")]
    #[schemars(extend("format" = "key-prefix", "x-pairway-reload" = "restart"))]
    pub(crate) prefix: String,
    /// For `https` endpoints. Files are read anew for every connection.
    #[serde(default)]
    pub(crate) tls: EtcdTls,
    /// For a cluster with authentication.
    #[serde(default)]
    pub(crate) auth: EtcdAuth,
}

/// `store.etcd.tls:`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct EtcdTls {
    /// Authorities that the members' certificates are checked against (PEM); needed with `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "path", "x-pairway-reload" = "restart"))]
    pub(crate) ca_file: Option<String>,
    /// Our certificate (PEM), where etcd asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "path", "x-pairway-reload" = "restart"))]
    pub(crate) cert_file: Option<String>,
    /// Its key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "path", "x-pairway-reload" = "restart"))]
    pub(crate) key_file: Option<String>,
    /// The name in the members' certificates; without it the host of the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "text", "x-pairway-reload" = "restart"))]
    pub(crate) server_name: Option<String>,
}

/// `store.etcd.auth:`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct EtcdAuth {
    /// A user who may read and write the keys of the prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "text", "x-pairway-reload" = "restart"))]
    pub(crate) username: Option<String>,
    /// The file with the user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "path", "x-pairway-reload" = "restart"))]
    pub(crate) password_file: Option<String>,
}

fn etcd_prefix() -> String {
    defaults::ETCD_PREFIX.to_owned()
}

/// Schema of an endpoint.
pub(crate) struct Endpoint;

impl JsonSchema for Endpoint {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Endpoint".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "endpoint" })
    }
}

/// An entry of `pools:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Pool {
    /// The pool's addresses, host bits zero.
    #[schemars(with = "String", extend("format" = "cidr"))]
    pub(crate) cidr: IpNet,
    /// Prefix length of the blocks that are cut from it; fixed once the cluster has used the pool.
    #[schemars(range(min = 1, max = 126), extend("x-pairway-reload" = "refused"))]
    pub(crate) block_prefix: u8,
    /// Labels that a node must have to claim from it; none: every node.
    #[serde(default)]
    pub(crate) nodes: Labels,
    /// No new claims; blocks that are held stay.
    #[serde(default)]
    pub(crate) disabled: bool,
}

/// `blocks:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Blocks {
    /// Where blocks come from: claimed from the pools, or the pod CIDRs of the node's Node object (`Node.spec.podCIDRs`, with
    /// `store.kubernetes`; each lies in a pool with blocks of its length, and `perNode` says nothing).
    #[schemars(extend("x-pairway-reload" = "restart"))]
    pub(crate) source: BlockSource,
    /// Blocks that a node claims by itself, per family.
    #[schemars(range(min = 1, max = 256), extend("x-pairway-reload" = "live"))]
    pub(crate) per_node: u16,
    /// How long a block whose node has gone is left alone, unless nothing else is free; at most a day.
    #[schemars(extend("x-pairway-reload" = "live"))]
    pub(crate) reuse_after: Duration,
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            source: BlockSource::Claim,
            per_node: defaults::BLOCKS_PER_NODE,
            reuse_after: Duration(defaults::REUSE_AFTER),
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub(crate) enum BlockSource {
    Claim,
    NodeSpec,
}

/// Text like `9s`, `10m`, `1h30m`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Duration(pub(crate) std::time::Duration);

impl Serialize for Duration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration::format(self.0))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration::parse(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration" })
    }
}

/// `paths:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Paths {
    /// For a pair whose ends lie in each other's prefix: native as learned over BGP, native straight from the
    /// store, a tunnel, or nothing.
    #[schemars(extend("x-pairway-reload" = "live"))]
    pub(crate) same_subnet: Use,
    /// For every other pair: a tunnel, or nothing. `ipip` goes over underlay addresses of IPv4 only; a pair whose ends can't both receive it uses `paths.fallback`.
    #[schemars(extend("x-pairway-reload" = "live"))]
    pub(crate) cross_subnet: OffLink,
    /// Where the path that is asked for does not work. Where IP-in-IP does not work either, it is VXLAN.
    #[schemars(extend("x-pairway-reload" = "live"))]
    pub(crate) fallback: OffLink,
    /// Exceptions; the first match wins. A rule matches a pair if one end matches one selector and the other end
    /// the other one.
    #[schemars(extend("x-pairway-reload" = "live"))]
    pub(crate) rules: Vec<Rule>,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            same_subnet: Use::Bgp,
            cross_subnet: OffLink::Vxlan,
            fallback: OffLink::Vxlan,
            rules: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub(crate) enum Use {
    Bgp,
    Direct,
    Vxlan,
    Ipip,
    None,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub(crate) enum OffLink {
    Vxlan,
    Ipip,
    None,
}

/// An entry of `paths.rules:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Rule {
    /// Two selectors of nodes, in any order; `{}` selects every node.
    #[schemars(length(min = 2, max = 2))]
    pub(crate) between: Vec<Selector>,
    /// What such pairs use. `bgp` and `direct` hold for pairs in one subnet: others that match use `paths.fallback`, with the reason `off-link`, for native paths between subnets are not in this version.
    #[serde(rename = "use")]
    pub(crate) use_: Use,
}

/// Selects nodes; what is given must all hold.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Selector {
    /// Labels that the node has.
    #[serde(default, skip_serializing_if = "no_labels")]
    pub(crate) labels: Labels,
    /// The node's underlay address, of either family, lies within.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "cidr"))]
    pub(crate) cidr: Option<IpNet>,
}

fn no_labels(labels: &Labels) -> bool {
    labels.0.is_empty()
}

/// `bgp:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Bgp {
    /// AS number of the node: 1 to 4294967294, but not 23456 and 65535.
    #[schemars(extend("x-pairway-reload" = "restart"))]
    pub(crate) asn: u32,
    /// TCP port of this and the other nodes.
    #[schemars(range(min = 1), extend("x-pairway-reload" = "restart"))]
    pub(crate) port: u16,
    /// Addresses to listen on; none: the underlay addresses. For machines whose port 179 another speaker uses.
    #[schemars(with = "Vec<Address>", extend("x-pairway-reload" = "restart"))]
    pub(crate) listen: Vec<IpAddr>,
    /// Proposed hold time in whole seconds: 3s to 65535s; 0s: sessions never time out.
    #[schemars(extend("x-pairway-reload" = "live"))]
    pub(crate) hold_time: Duration,
    /// How long peers keep our routes while the agent restarts, in whole seconds, at most 4095s; 0s: not at all.
    #[schemars(extend("x-pairway-reload" = "restart"))]
    pub(crate) restart_time: Duration,
    /// BGP identifier; `auto`: the underlay's IPv4 address, else a hash of the name.
    #[schemars(with = "String", extend("format" = "router-id", "x-pairway-reload" = "restart"))]
    pub(crate) router_id: RouterId,
    /// A peer that sends more prefixes than this loses its session.
    #[schemars(range(min = 1), extend("x-pairway-reload" = "live"))]
    pub(crate) max_prefixes: u32,
    /// Speakers outside of the cluster.
    #[schemars(extend("x-pairway-reload" = "live"))]
    pub(crate) peers: Vec<Peer>,
}

impl Default for Bgp {
    fn default() -> Self {
        Self {
            asn: defaults::ASN,
            port: defaults::BGP_PORT,
            listen: Vec::new(),
            hold_time: Duration(defaults::HOLD_TIME),
            restart_time: Duration(defaults::RESTART_TIME),
            router_id: RouterId(None),
            max_prefixes: defaults::MAX_PREFIXES,
            peers: Vec::new(),
        }
    }
}

/// `auto`, or four numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouterId(pub(crate) Option<Ipv4Addr>);

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => id.fmt(f),
            None => f.write_str("auto"),
        }
    }
}

impl Serialize for RouterId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RouterId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "auto" => Ok(Self(None)),
            text => text.parse().map(|id| Self(Some(id))).map_err(serde::de::Error::custom),
        }
    }
}

/// An entry of `bgp.peers:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Peer {
    /// Its name in tables and metrics; unique.
    #[schemars(extend("format" = "peer-name"))]
    pub(crate) name: String,
    /// Its address; unique.
    #[schemars(with = "Address")]
    pub(crate) address: IpAddr,
    /// Its AS number, as `bgp.asn`; equal to ours makes the session internal.
    pub(crate) asn: u32,
    /// Its TCP port.
    #[serde(default = "bgp_port")]
    #[schemars(range(min = 1))]
    pub(crate) port: u16,
    /// Labels of the nodes that peer with it; none: every node.
    #[serde(default)]
    pub(crate) nodes: Labels,
    /// Prefixes that are accepted from it, with everything within them; none: nothing. Routes to pods come from
    /// claims only, so these lie outside of the pools or cover them.
    #[serde(default)]
    #[schemars(with = "Vec<Cidr>")]
    pub(crate) import: Vec<IpNet>,
    /// Prefixes whose blocks it is told of; an empty list: none. Without this key: all of the node's blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<Cidr>")]
    pub(crate) export: Option<Vec<IpNet>>,
    /// While its Node is cordoned, a node announces its blocks to it with the community GRACEFUL_SHUTDOWN (RFC 8326), by which
    /// it prefers other ways. Only with the Kubernetes store.
    #[serde(default)]
    pub(crate) graceful_shutdown: bool,
}

fn bgp_port() -> u16 {
    defaults::BGP_PORT
}

/// Schema of an address.
pub(crate) struct Address;

impl JsonSchema for Address {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Address".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "address" })
    }
}

/// Schema of a prefix.
pub(crate) struct Cidr;

impl JsonSchema for Cidr {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cidr".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "cidr" })
    }
}

/// `vxlan:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Vxlan {
    /// Network identifier, the same on all nodes.
    #[schemars(range(min = 1, max = 16_777_215), extend("x-pairway-reload" = "restart"))]
    pub(crate) vni: u32,
    /// UDP port, the same on all nodes.
    #[schemars(range(min = 1), extend("x-pairway-reload" = "restart"))]
    pub(crate) port: u16,
    /// Drop packets with our VNI from addresses that are no node's. Where the nodes' packets are translated on their
    /// way, they come from such addresses: `false` there.
    #[schemars(extend("x-pairway-reload" = "live"))]
    pub(crate) guard: bool,
}

impl Default for Vxlan {
    fn default() -> Self {
        Self { vni: defaults::VNI, port: defaults::VXLAN_PORT, guard: true }
    }
}

/// `brake:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Brake {
    /// Nodes that vanish from the store, wholly or with a block, are kept if they are more than this share of all
    /// others; `100%`: never.
    #[schemars(with = "String", extend("format" = "percent", "x-pairway-reload" = "live"))]
    pub(crate) share: Percent,
    /// Fewer nodes than this may always go, unless this node's own records vanish with them. After a start the loss of
    /// all counts in any case.
    #[schemars(range(min = 1), extend("x-pairway-reload" = "live"))]
    pub(crate) at_least: u32,
    /// Nodes that vanish within this time count together; 1s to 10m.
    #[schemars(extend("x-pairway-reload" = "live"))]
    pub(crate) within: Duration,
    /// A later state of the store confirms a loss after this time; at most `grace`.
    #[schemars(extend("x-pairway-reload" = "live"))]
    pub(crate) confirm_after: Duration,
    /// Without a later state the loss is believed after this time, if the store answers; 1s to 1h.
    #[schemars(extend("x-pairway-reload" = "live"))]
    pub(crate) grace: Duration,
}

impl Default for Brake {
    fn default() -> Self {
        Self {
            share: Percent(defaults::BRAKE_SHARE),
            at_least: defaults::BRAKE_AT_LEAST,
            within: Duration(defaults::BRAKE_WITHIN),
            confirm_after: Duration(defaults::BRAKE_CONFIRM_AFTER),
            grace: Duration(defaults::BRAKE_GRACE),
        }
    }
}

/// Text like `50%`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Percent(pub(crate) u8);

impl Serialize for Percent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}%", self.0))
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        percent(&text).map(Self).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no share")))
    }
}

/// A whole number of 0 to 100 and `%`, without leading zeros.
pub(crate) fn percent(text: &str) -> Option<u8> {
    let digits = text.strip_suffix('%')?;
    let number: u8 = digits.parse().ok()?;
    (number <= 100 && number.to_string() == digits).then_some(number)
}

/// `masquerade:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Masquerade {
    /// Whether packets of pods that leave the cluster get the node's address. Packets between pods and nodes never do.
    #[schemars(extend("x-pairway-reload" = "live"))]
    pub(crate) enabled: bool,
    /// Destinations that see pod addresses all the same.
    #[schemars(with = "Vec<Cidr>", extend("x-pairway-reload" = "live"))]
    pub(crate) exclude: Vec<IpNet>,
}

impl Default for Masquerade {
    fn default() -> Self {
        Self { enabled: true, exclude: Vec::new() }
    }
}

/// `cni:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Cni {
    /// Path of a file with this node's subnets in flannel's format, for its CNI plugin: `/run/flannel/subnet.env`; `none`:
    /// not written.
    #[schemars(extend("format" = "path-or-none", "x-pairway-reload" = "live"))]
    pub(crate) subnet_env: String,
    /// Path of a CNI configuration (bridge, host-local with this node's blocks, portmap), as in
    /// `/etc/cni/net.d/10-pairway.conflist`; `none`: not written.
    #[schemars(extend("format" = "conflist-path", "x-pairway-reload" = "live"))]
    pub(crate) conflist: String,
}

impl Default for Cni {
    fn default() -> Self {
        Self { subnet_env: NONE.to_owned(), conflist: NONE.to_owned() }
    }
}

/// Instead of a path: there is no such file.
pub(crate) const NONE: &str = "none";

/// `http:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Http {
    /// Address and port of `/metrics`, `/livez` and `/readyz`.
    #[schemars(with = "String", extend("format" = "socket-address", "x-pairway-reload" = "restart"))]
    pub(crate) address: SocketAddr,
}

impl Default for Http {
    fn default() -> Self {
        Self { address: defaults::HTTP_ADDRESS }
    }
}

/// `api:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Api {
    /// Path of the unix socket.
    #[schemars(extend("format" = "socket-path", "x-pairway-reload" = "restart"))]
    pub(crate) socket: String,
}

impl Default for Api {
    fn default() -> Self {
        Self { socket: defaults::API_SOCKET.to_owned() }
    }
}

/// `kernel:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Kernel {
    /// Protocol number that our routes carry; nobody else's.
    #[schemars(extend("x-pairway-reload" = "restart"))]
    pub(crate) route_protocol: u8,
    /// Metric of the routes to blocks.
    #[schemars(range(min = 1, max = 4_294_967_294_u32), extend("x-pairway-reload" = "restart"))]
    pub(crate) route_metric: u32,
    /// Table of the other nodes' underlay addresses, for packets from pods.
    #[schemars(extend("x-pairway-reload" = "restart"))]
    pub(crate) table: u32,
    /// Priority of the rules that lead to that table, before the main table's.
    #[schemars(range(min = 1, max = 32_765), extend("x-pairway-reload" = "restart"))]
    pub(crate) rule_priority: u32,
    /// First of 2^28 nexthop ids; below 2^28 the kernel hands out ids itself.
    #[schemars(range(min = 268_435_456, max = 4_026_531_840_u32), extend("x-pairway-reload" = "restart"))]
    pub(crate) nexthop_base: u32,
    /// What our devices' names begin with; `-vx4`, `-vx6`, `-ipip` or `-sit` follows.
    #[schemars(extend("format" = "device-prefix", "x-pairway-reload" = "restart"))]
    pub(crate) device_prefix: String,
    /// Name of our nftables table, of family `inet`.
    #[schemars(extend("format" = "table-name", "x-pairway-reload" = "restart"))]
    pub(crate) firewall_table: String,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            route_protocol: defaults::ROUTE_PROTOCOL,
            route_metric: defaults::ROUTE_METRIC,
            table: defaults::TABLE,
            rule_priority: defaults::RULE_PRIORITY,
            nexthop_base: defaults::NEXTHOP_BASE,
            device_prefix: defaults::DEVICE_PREFIX.to_owned(),
            firewall_table: defaults::FIREWALL_TABLE.to_owned(),
        }
    }
}

/// An entry of `overrides:`, beside the keys that it lays over the file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Override {
    /// Which nodes it is for.
    #[serde(rename = "match")]
    pub(crate) match_: Match,
}

/// `overrides[].match:`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Match {
    /// Name of the node; `*` stands for any characters, `?` for one.
    #[schemars(extend("format" = "glob"))]
    pub(crate) name: String,
}
