//! Every key is changed once, and is taken over as the schema says.

use std::collections::BTreeSet;

use config::{ChangeMode, Config, ConfigFile, KeyChange};
use serde_json::Value as Json;

/// The configuration before each change; it has an entry in every list.
const BEFORE: &str = r#"
pools: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]
paths:
  rules: [{ between: [{ labels: { zone: a }, cidr: 192.0.2.0/24 }, {}], use: vxlan }]
bgp:
  peers: [{ name: tor, address: 192.0.2.1, asn: 65000 }]
"#;

#[derive(Debug, PartialEq)]
enum Expected {
    Live,
    Restart,
    Refused,
    /// The file can't say anything else in this version.
    Fixed,
    /// What it changes is said by the keys that it overrides.
    Override,
}
use Expected::{Fixed, Live, Override, Refused, Restart};

const POOLS: &str = "pools: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]";
const RULE: &str = "rules: [{ between: [{ labels: { zone: a }, cidr: 192.0.2.0/24 }, {}], use: vxlan }]";
const PEER: &str = "{ name: tor, address: 192.0.2.1, asn: 65000 }";

/// Key as the reference page names it, key as the change names it, what is replaced by what in `BEFORE` (a new
/// line where nothing is replaced), and how it is taken over.
/// The stores that a file without a word about them has not.
const KUBERNETES: &str = "store: { kubernetes: { kubeconfig: /k, context: c, namespace: n } }";
const ETCD: &str = "store: { etcd: { endpoints: [https://a:2379], prefix: /prefix, tls: { caFile: /ca, certFile: /cert, \
    keyFile: /key, serverName: s }, auth: { username: u, passwordFile: /p } } }";

const CHANGES: &[(&str, &str, &str, &str, Expected)] = &[
    ("version", "", "", "", Fixed),
    ("node.name", "node.name", "", "node: { name: other }", Restart),
    ("node.underlay", "node.underlay", "", "node: { underlay: eth1 }", Restart),
    ("node.labels", "node.labels", "", "node: { labels: { zone: b } }", Live),
    ("overrides[].match.name", "", "", "", Override),
    ("store.file.path", "store.file.path", "", "store: { file: { path: /srv/store } }", Restart),
    (
        "store.file.allowNetworkFilesystem",
        "store.file.allowNetworkFilesystem",
        "",
        "store: { file: { allowNetworkFilesystem: true } }",
        Restart,
    ),
    ("store.kubernetes.kubeconfig", "store.kubernetes.kubeconfig", "/k,", "/l,", Restart),
    ("store.kubernetes.context", "store.kubernetes.context", "context: c", "context: d", Restart),
    ("store.kubernetes.namespace", "store.kubernetes.namespace", "namespace: n", "namespace: m", Restart),
    ("store.etcd.endpoints", "store.etcd.endpoints", "//a:", "//b:", Restart),
    ("store.etcd.prefix", "store.etcd.prefix", "/prefix", "/other", Restart),
    ("store.etcd.tls.caFile", "store.etcd.tls.caFile", "/ca", "/da", Restart),
    ("store.etcd.tls.certFile", "store.etcd.tls.certFile", "/cert", "/dert", Restart),
    ("store.etcd.tls.keyFile", "store.etcd.tls.keyFile", "/key", "/ley", Restart),
    ("store.etcd.tls.serverName", "store.etcd.tls.serverName", "serverName: s", "serverName: t", Restart),
    ("store.etcd.auth.username", "store.etcd.auth.username", "username: u", "username: v", Restart),
    ("store.etcd.auth.passwordFile", "store.etcd.auth.passwordFile", "/p }", "/q }", Restart),
    ("pools[].cidr", "pools", "10.244.0.0/16", "10.245.0.0/16", Live),
    (
        "pools[].blockPrefix",
        "pools[10.244.0.0/16].blockPrefix",
        "blockPrefix: 24",
        "blockPrefix: 25",
        Refused,
    ),
    ("pools[].nodes", "pools", "blockPrefix: 24", "blockPrefix: 24, nodes: { zone: a }", Live),
    ("pools[].disabled", "pools", "blockPrefix: 24", "blockPrefix: 24, disabled: true", Live),
    ("blocks.source", "", "", "", Fixed),
    ("blocks.perNode", "blocks.perNode", "", "blocks: { perNode: 2 }", Live),
    ("blocks.reuseAfter", "blocks.reuseAfter", "", "blocks: { reuseAfter: 1m }", Live),
    ("paths.sameSubnet", "paths.sameSubnet", RULE, "sameSubnet: direct\n  RULE", Live),
    ("paths.crossSubnet", "paths.crossSubnet", RULE, "crossSubnet: none\n  RULE", Live),
    ("paths.fallback", "paths.fallback", RULE, "fallback: none\n  RULE", Live),
    ("paths.rules[].between[].labels", "paths.rules", "zone: a", "zone: b", Live),
    ("paths.rules[].between[].cidr", "paths.rules", "192.0.2.0/24", "198.51.100.0/24", Live),
    ("paths.rules[].use", "paths.rules", "use: vxlan", "use: none", Live),
    ("bgp.asn", "bgp.asn", "bgp:", "bgp:\n  asn: 64513", Restart),
    ("bgp.port", "bgp.port", "bgp:", "bgp:\n  port: 1179", Restart),
    ("bgp.listen", "bgp.listen", "bgp:", "bgp:\n  listen: [192.0.2.7]", Restart),
    ("bgp.holdTime", "bgp.holdTime", "bgp:", "bgp:\n  holdTime: 30s", Live),
    ("bgp.restartTime", "bgp.restartTime", "bgp:", "bgp:\n  restartTime: 1m", Restart),
    ("bgp.routerId", "bgp.routerId", "bgp:", "bgp:\n  routerId: 192.0.2.7", Restart),
    ("bgp.maxPrefixes", "bgp.maxPrefixes", "bgp:", "bgp:\n  maxPrefixes: 5", Live),
    ("bgp.peers[].name", "bgp.peers", "name: tor", "name: spine", Live),
    ("bgp.peers[].address", "bgp.peers", "192.0.2.1,", "192.0.2.2,", Live),
    ("bgp.peers[].asn", "bgp.peers", "asn: 65000", "asn: 65001", Live),
    ("bgp.peers[].port", "bgp.peers", "asn: 65000", "asn: 65000, port: 1179", Live),
    ("bgp.peers[].nodes", "bgp.peers", "asn: 65000", "asn: 65000, nodes: { rack: a }", Live),
    ("bgp.peers[].import", "bgp.peers", "asn: 65000", "asn: 65000, import: [0.0.0.0/0]", Live),
    ("bgp.peers[].export", "bgp.peers", "asn: 65000", "asn: 65000, export: []", Live),
    ("bgp.peers[].gracefulShutdown", "bgp.peers", "asn: 65000", "asn: 65000, gracefulShutdown: true", Live),
    ("vxlan.vni", "vxlan.vni", "", "vxlan: { vni: 1 }", Restart),
    ("vxlan.port", "vxlan.port", "", "vxlan: { port: 8472 }", Restart),
    ("brake.share", "brake.share", "", "brake: { share: 30% }", Live),
    ("brake.atLeast", "brake.atLeast", "", "brake: { atLeast: 3 }", Live),
    ("brake.within", "brake.within", "", "brake: { within: 1m }", Live),
    ("brake.confirmAfter", "brake.confirmAfter", "", "brake: { confirmAfter: 5s }", Live),
    ("brake.grace", "brake.grace", "", "brake: { grace: 1m }", Live),
    ("vxlan.guard", "vxlan.guard", "", "vxlan: { guard: false }", Live),
    ("masquerade.enabled", "masquerade.enabled", "", "masquerade: { enabled: false }", Live),
    ("masquerade.exclude", "masquerade.exclude", "", "masquerade: { exclude: [192.0.2.0/24] }", Live),
    ("cni.subnetEnv", "cni.subnetEnv", "", "cni: { subnetEnv: /run/flannel/subnet.env }", Live),
    ("cni.conflist", "cni.conflist", "", "cni: { conflist: /etc/cni/net.d/10-pairway.conflist }", Live),
    ("http.address", "http.address", "", "http: { address: '[::1]:9474' }", Restart),
    ("api.socket", "api.socket", "", "api: { socket: /run/other.sock }", Restart),
    ("stateDir", "stateDir", "", "stateDir: /srv/pairway", Restart),
    ("kernel.routeProtocol", "kernel.routeProtocol", "", "kernel: { routeProtocol: 113 }", Restart),
    ("kernel.routeMetric", "kernel.routeMetric", "", "kernel: { routeMetric: 7 }", Restart),
    ("kernel.table", "kernel.table", "", "kernel: { table: 7 }", Restart),
    ("kernel.rulePriority", "kernel.rulePriority", "", "kernel: { rulePriority: 7 }", Restart),
    ("kernel.nexthopBase", "kernel.nexthopBase", "", "kernel: { nexthopBase: 0x60000000 }", Restart),
    ("kernel.devicePrefix", "kernel.devicePrefix", "", "kernel: { devicePrefix: pw }", Restart),
    ("kernel.firewallTable", "kernel.firewallTable", "", "kernel: { firewallTable: other }", Restart),
];

fn read(text: &str) -> Config {
    let file = ConfigFile::parse(text, "test").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let name = file.node_name(None, "n1").unwrap();
    file.for_node(&name)
}

/// Every key below `schema` that has a value of its own, with the mark that holds for it.
fn leaves(path: &str, schema: &Json, mark: &str, found: &mut Vec<(String, String)>) {
    let mark = schema.get("x-pairway-reload").and_then(Json::as_str).unwrap_or(mark);
    if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
        for (key, child) in properties.iter().filter(|(_, child)| child.get("$ref").is_none()) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            leaves(&path, child, mark, found);
        }
    } else if let Some(items) = schema.get("items").filter(|items| items.get("properties").is_some()) {
        leaves(&format!("{path}[]"), items, mark, found);
    } else {
        found.push((path.to_owned(), mark.to_owned()));
    }
}

#[test]
fn every_key_once() {
    let before = read(BEFORE);
    assert_eq!(before.changes(&before), []);
    for (key, changed, from, to, expected) in CHANGES {
        if matches!(expected, Fixed | Override) {
            continue;
        }
        let to = to.replace("RULE", RULE);
        let base = match *key {
            key if key.starts_with("store.kubernetes.") => format!("{BEFORE}\n{KUBERNETES}\n"),
            key if key.starts_with("store.etcd.") => format!("{BEFORE}\n{ETCD}\n"),
            _ => BEFORE.to_owned(),
        };
        let text = if from.is_empty() {
            format!("{base}\n{to}\n")
        } else {
            assert!(base.contains(from), "{key}: `{from}` is not in the file");
            base.replacen(from, &to, 1)
        };
        let changes: Vec<KeyChange> = read(&base).changes(&read(&text));
        assert_eq!(changes.len(), 1, "{key}: {changes:?}");
        let mode = match &changes[0].mode {
            ChangeMode::Live => Live,
            ChangeMode::Restart => Restart,
            ChangeMode::Refused(reason) => {
                assert!(!reason.is_empty());
                Refused
            }
        };
        assert_eq!((changes[0].key.as_str(), mode), (*changed, expected_of(expected)), "{key}");
        assert_ne!(changes[0].from, changes[0].to, "{key}");
    }
}

fn expected_of(expected: &Expected) -> Expected {
    match expected {
        Live => Live,
        Restart => Restart,
        Refused => Refused,
        Fixed => Fixed,
        Override => Override,
    }
}

#[test]
fn no_key_of_the_schema_is_forgotten() {
    let mut found = Vec::new();
    leaves("", config::schema(), "", &mut found);
    let schema: BTreeSet<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
    let table: BTreeSet<&str> = CHANGES.iter().map(|(key, ..)| *key).collect();
    assert_eq!(schema, table);
    for (key, mark) in &found {
        let (.., expected) = CHANGES.iter().find(|(name, ..)| name == key).unwrap();
        let marked = match mark.as_str() {
            "live" => Live,
            "restart" => Restart,
            "refused" => Refused,
            _ => Override,
        };
        assert!(*expected == Fixed || *expected == marked, "{key} is marked {mark:?}");
    }
}

#[test]
fn a_refused_pool_takes_the_other_pools_with_it() {
    let before = read(BEFORE);
    let after = BEFORE.replace(
        POOLS,
        "pools: [{ cidr: 10.244.0.0/16, blockPrefix: 26 }, { cidr: 10.250.0.0/16, blockPrefix: 24 }]",
    );
    let changes = before.changes(&read(&after));
    let keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(keys, ["pools[10.244.0.0/16].blockPrefix"]);
    assert_eq!((changes[0].from.as_str(), changes[0].to.as_str()), ("24", "26"));
}

#[test]
fn several_changes_come_in_the_order_of_the_file() {
    let before = read(BEFORE);
    let after = BEFORE.replace(PEER, "{ name: tor, address: 192.0.2.9, asn: 65000 }");
    let after = format!("{after}\nkernel: {{ table: 9 }}\nnode: {{ labels: {{ a: b }} }}\n");
    let keys: Vec<String> = before.changes(&read(&after)).into_iter().map(|change| change.key).collect();
    assert_eq!(keys, ["node.labels", "bgp.peers", "kernel.table"]);
}
