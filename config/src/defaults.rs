//! What holds where the operator writes nothing. The schema and the reference page are made from these.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// `version`: the only format of the file so far.
pub const VERSION: u8 = 1;

/// `store.file.path`.
pub const STORE_PATH: &str = "/var/lib/pairway/store";

/// `store.etcd.prefix`.
pub const ETCD_PREFIX: &str = "/pairway";
/// `stateDir`.
pub const STATE_DIR: &str = "/var/lib/pairway";
/// `api.socket`.
pub const API_SOCKET: &str = "/run/pairway/api.sock";
/// `http.address`: metrics and health, from this machine only.
pub const HTTP_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9474);

/// `blocks.perNode`.
pub const BLOCKS_PER_NODE: u16 = 1;
/// `blocks.reuseAfter`: longer than routes to a vanished block live anywhere in the cluster.
pub const REUSE_AFTER: Duration = Duration::from_secs(600);

/// `bgp.asn`: the first AS number of RFC 6996's private range.
pub const ASN: u32 = 64512;
/// `bgp.port` and `bgp.peers[].port` (RFC 4271 §8.2.1).
pub const BGP_PORT: u16 = 179;
/// `bgp.holdTime`: a dead peer is noticed within 9 s, a keepalive goes out every 3 s.
pub const HOLD_TIME: Duration = Duration::from_secs(9);
/// `bgp.restartTime` (RFC 4724 §3): what an agent may take to come back without its routes being dropped.
pub const RESTART_TIME: Duration = Duration::from_secs(120);
/// `bgp.maxPrefixes`: far above what one node announces, far below what hurts.
pub const MAX_PREFIXES: u32 = 10_000;

/// `brake.share` in percent: fewer at once are nodes that go, more is a store that lost something.
pub const BRAKE_SHARE: u8 = 50;
/// `brake.atLeast`: one node goes at any time.
pub const BRAKE_AT_LEAST: u32 = 2;
/// `brake.within`: a store is not emptied in one instant.
pub const BRAKE_WITHIN: Duration = Duration::from_secs(5);
/// `brake.confirmAfter`: by then every living agent has written its record again.
pub const BRAKE_CONFIRM_AFTER: Duration = Duration::from_secs(10);
/// `brake.grace`: routes to nodes that are gone do no harm for so long.
pub const BRAKE_GRACE: Duration = Duration::from_secs(30);

/// `vxlan.vni`.
pub const VNI: u32 = 4096;
/// `vxlan.port`, IANA's (RFC 7348 §5).
pub const VXLAN_PORT: u16 = 4789;

/// `kernel.routeProtocol`: in no table of iproute2 and used by no routing daemon that we know.
pub const ROUTE_PROTOCOL: u8 = 112;
/// `kernel.routeMetric`.
pub const ROUTE_METRIC: u32 = 1120;
/// `kernel.table`.
pub const TABLE: u32 = 1120;
/// `kernel.rulePriority`: before the main table's 32766.
pub const RULE_PRIORITY: u32 = 1120;
/// `kernel.nexthopBase`.
pub const NEXTHOP_BASE: u32 = 0x7000_0000;
/// `kernel.devicePrefix`.
pub const DEVICE_PREFIX: &str = "pairway";
/// `kernel.firewallTable`.
pub const FIREWALL_TABLE: &str = "pairway";
