//! A published value with one of everything, for tests of the surfaces. Also used by `tests/cli.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use node_agent::status::{
    BgpNeighbor, BlockEntry, Condition, Counters, Pair, PairUnderlay, Published, RefusedPrefix, RouteEntry,
    Severity, Status,
};

/// Node `n1` with a native peer `n2` in two families and a peer `n3` behind a router.
pub(crate) fn published() -> Published {
    Published {
        stood: true,
        status: status(),
        pairs: pairs().into(),
        routes: routes().into(),
        neighbors: neighbors().into(),
        blocks: blocks().into(),
        counters: counters(),
    }
}

fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).into()
}

fn map<V, const N: usize>(entries: [(&str, V); N]) -> BTreeMap<String, V> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn status() -> Status {
    Status {
        node: "n1".to_owned(),
        version: "0.1.0".to_owned(),
        blocks: strings(["10.244.1.0/24", "fd10:244:0:1::/64"]),
        ready: true,
        not_ready_reasons: Vec::new(),
        conditions: vec![Condition {
            kind: "PeerUnreachable".to_owned(),
            subject: "n3".to_owned(),
            message: "n3 has given no sign of life for 2 minutes; look whether its agent runs".to_owned(),
            since: "2026-11-21T10:00:00Z".to_owned(),
            severity: Severity::Warning,
        }],
        revision: 42,
        underlay: map([("ipv4", "192.0.2.1/24".to_owned()), ("ipv6", "2001:db8::1/64".to_owned())]),
        underlay_interface: Some("eth0".to_owned()),
        tunnel_addresses: map([("ipv4", "10.244.1.0".to_owned()), ("ipv6", "fd10:244:0:1::".to_owned())]),
        store: "file /var/lib/pairway/store, well".to_owned(),
        pairs_by_path: map([("native", 2), ("vxlan", 1)]),
        failures: Vec::new(),
        started_at: Some("2026-11-21T09:00:00Z".to_owned()),
    }
}

fn pairs() -> Vec<Pair> {
    let native = Pair {
        local: "n1".to_owned(),
        peer: "n2".to_owned(),
        family: "ipv4".to_owned(),
        path: "native".to_owned(),
        predicted: "native".to_owned(),
        reason: "bgp".to_owned(),
        detail: "same subnet; n2 announces its blocks over BGP".to_owned(),
        blocks: strings(["10.244.2.0/24"]),
        underlay: PairUnderlay { local: "192.0.2.1".to_owned(), peer: "192.0.2.2".to_owned() },
        mtu: 1500,
        ready: true,
        not_ready: None,
    };
    let native6 = Pair {
        family: "ipv6".to_owned(),
        blocks: strings(["fd10:244:0:2::/64"]),
        underlay: PairUnderlay { local: "2001:db8::1".to_owned(), peer: "2001:db8::2".to_owned() },
        ..native.clone()
    };
    let tunnel = Pair {
        peer: "n3".to_owned(),
        path: "vxlan".to_owned(),
        predicted: "vxlan".to_owned(),
        reason: "cross-subnet".to_owned(),
        detail: "192.0.2.1/24 and 198.51.100.3/24 share no subnet".to_owned(),
        blocks: strings(["10.244.10.0/24"]),
        underlay: PairUnderlay { local: "192.0.2.1".to_owned(), peer: "198.51.100.3".to_owned() },
        mtu: 1450,
        ready: false,
        not_ready: Some("route 10.244.10.0/24 is missing in the kernel".to_owned()),
        ..native.clone()
    };
    vec![native, native6, tunnel]
}

fn blocks() -> Vec<BlockEntry> {
    let entry = |block: &str, family: &str, node: &str| BlockEntry {
        block: block.to_owned(),
        family: family.to_owned(),
        node: node.to_owned(),
        own: node == "n1",
    };
    vec![
        entry("10.244.1.0/24", "ipv4", "n1"),
        entry("10.244.2.0/24", "ipv4", "n2"),
        entry("10.244.10.0/24", "ipv4", "n3"),
        entry("fd10:244:0:1::/64", "ipv6", "n1"),
        entry("fd10:244:0:2::/64", "ipv6", "n2"),
    ]
}

fn routes() -> Vec<RouteEntry> {
    let native = RouteEntry {
        prefix: "10.244.2.0/24".to_owned(),
        table: 254,
        kind: "native".to_owned(),
        node: "n2".to_owned(),
        via: "192.0.2.2".to_owned(),
        device: "eth0".to_owned(),
        state: "installed".to_owned(),
        detail: String::new(),
    };
    vec![
        RouteEntry {
            prefix: "10.244.0.0/16".to_owned(),
            kind: "unreachable".to_owned(),
            node: String::new(),
            via: String::new(),
            device: String::new(),
            ..native.clone()
        },
        native.clone(),
        RouteEntry {
            prefix: "10.244.10.0/24".to_owned(),
            kind: "vxlan".to_owned(),
            node: "n3".to_owned(),
            via: "10.244.10.0".to_owned(),
            device: "pairway-vx4".to_owned(),
            state: "missing".to_owned(),
            ..native
        },
    ]
}

fn neighbors() -> Vec<BgpNeighbor> {
    let node = BgpNeighbor {
        name: "n2".to_owned(),
        kind: "node".to_owned(),
        address: "192.0.2.2".to_owned(),
        asn: 64512,
        state: "established".to_owned(),
        since_seconds: 3723,
        hold_time_seconds: 9,
        families: strings(["ipv4", "ipv6"]),
        restarting: false,
        accepted: 2,
        announced: 2,
        refused: vec![RefusedPrefix {
            prefix: "10.244.10.0/24".to_owned(),
            reason: "claimed-by-other".to_owned(),
            detail: "n3 holds it".to_owned(),
        }],
        refused_by_reason: map([("claimed-by-other", 1)]),
        established_count: 1,
        last_error: None,
        messages_received: 1250,
        messages_sent: 1249,
    };
    let rack = BgpNeighbor {
        name: "tor".to_owned(),
        kind: "external".to_owned(),
        address: "192.0.2.254".to_owned(),
        asn: 65000,
        state: "active".to_owned(),
        since_seconds: 12,
        hold_time_seconds: 0,
        families: Vec::new(),
        accepted: 0,
        announced: 0,
        refused: Vec::new(),
        refused_by_reason: BTreeMap::new(),
        established_count: 0,
        last_error: Some("connection refused".to_owned()),
        messages_received: 0,
        messages_sent: 0,
        ..node.clone()
    };
    vec![node, rack]
}

fn counters() -> Counters {
    let words = |texts: [&str; 3]| {
        let [a, b, c] = texts.map(str::to_owned);
        (a, b, c)
    };
    let mut counters = Counters {
        changes: BTreeMap::from([
            (("route".to_owned(), "add".to_owned()), 3),
            (("nexthop".to_owned(), "set".to_owned()), 1),
        ]),
        change_failures: map([("route", 1)]),
        repairs: map([("route", 2), ("fdb", 1)]),
        flips: BTreeMap::from([(words(["vxlan", "native", "bgp"]), 2)]),
        objects_wanted: map([("route", 3), ("link", 1)]),
        conflicts: 1,
        ..Counters::default()
    };
    counters.record_pass(Duration::from_micros(700));
    counters.record_pass(Duration::from_millis(30));
    counters
}
