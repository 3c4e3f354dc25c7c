//! Every sample is a configuration, and the samples say what their comments say.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use config::{Config, ConfigFile, PathUse, Underlay, UnderlaySelector, defaults};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples")
}

fn sample(name: &str) -> ConfigFile {
    ConfigFile::load(&folder().join(name)).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn every_sample_is_read_and_written_and_read() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let file = ConfigFile::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
        for node in ["n1", "a-1", "b-1", "gpu-7", "gateway-1"] {
            let config = file.for_node(node);
            let yaml = config.to_yaml();
            let again =
                ConfigFile::parse(&yaml, "rendered").unwrap_or_else(|errors| panic!("{errors}\n{yaml}"));
            assert_eq!(again.for_node(node), config, "{}", path.display());
        }
        names.push(path.file_name().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "dual-stack.yaml",
            "etcd.yaml",
            "ip-in-ip.yaml",
            "kubernetes.yaml",
            "minimal.yaml",
            "outside-speaker.yaml",
            "overrides.yaml",
            "two-zones.yaml"
        ]
    );
}

#[test]
fn one_pool_is_a_whole_configuration() {
    let config = sample("minimal.yaml").for_node("n1");
    assert_eq!(config.node.name, "n1");
    assert_eq!(config.node.underlay, Underlay::Auto);
    assert_eq!(config.pools.len(), 1);
    assert_eq!(config.pools[0].cidr, "10.244.0.0/16".parse().unwrap());
    assert_eq!(config.pools[0].block_prefix, 24);
    assert_eq!(config.paths.same_subnet, PathUse::Bgp);
    assert_eq!(config.paths.cross_subnet, PathUse::Vxlan);
    assert_eq!(config.paths.fallback, PathUse::Vxlan);
    assert_eq!((config.bgp.asn, config.bgp.port), (64512, 179));
    assert_eq!((config.bgp.hold_time.as_secs(), config.bgp.restart_time.as_secs()), (9, 120));
    assert_eq!((config.vxlan.vni, config.vxlan.port), (4096, 4789));
    assert_eq!(config.http, "127.0.0.1:9474".parse().unwrap());
    assert_eq!(config.api_socket, Path::new("/run/pairway/api.sock"));
    assert_eq!(config.state_dir, Path::new("/var/lib/pairway"));
    assert_eq!(config.blocks.reuse_after.as_secs(), 600);
    assert_eq!(config.kernel.route_protocol, 112);
    assert_eq!(
        (config.kernel.table, config.kernel.rule_priority, config.kernel.route_metric),
        (1120, 1120, 1120)
    );
    assert_eq!(config.kernel.nexthop_base, 0x7000_0000);
    assert_eq!(config.kernel.device_prefix, defaults::DEVICE_PREFIX);
    assert_eq!(config.kernel.firewall_table, "pairway");
    assert!(config.vxlan.guard && config.masquerade.enabled && config.masquerade.exclude.is_empty());
}

#[test]
fn overrides_are_laid_over_the_file() {
    let file = sample("overrides.yaml");
    let interface = |config: &Config| match &config.node.underlay {
        Underlay::Select(selectors) => match selectors.as_slice() {
            [UnderlaySelector::Interface(name)] => name.clone(),
            other => panic!("{other:?}"),
        },
        Underlay::Auto => "auto".to_owned(),
    };
    let plain = file.for_node("n1");
    assert_eq!((interface(&plain).as_str(), plain.bgp.asn), ("eth0", 64512));
    assert_eq!(file.override_of("n1"), None);
    let gpu = file.for_node("gpu-7");
    assert_eq!((interface(&gpu).as_str(), gpu.bgp.asn), ("bond0", 64513));
    assert_eq!(gpu.node.labels.get("kind").map(String::as_str), Some("gpu"));
    assert_eq!(gpu.pools, plain.pools);
    assert_eq!(file.override_of("gpu-7"), Some(0));
    let gateway = file.for_node("gateway-1");
    assert_eq!(gateway.bgp.listen, ["192.0.2.250".parse::<IpAddr>().unwrap()]);
    assert_eq!((interface(&gateway).as_str(), gateway.bgp.asn), ("eth0", 64512));
    assert_eq!(file.override_of("gateway-12"), None);
}

#[test]
fn zones_come_from_names_and_rules_see_them() {
    let file = sample("two-zones.yaml");
    let config = file.for_node("b-3");
    assert_eq!(config.node.labels.get("zone").map(String::as_str), Some("b"));
    assert_eq!(config.paths.rules.len(), 2);
    assert_eq!(config.paths.rules[0].use_, PathUse::Vxlan);
    assert_eq!(config.paths.rules[1].between[0].cidr, Some("198.51.100.0/24".parse().unwrap()));
    assert_eq!(config.pools[1].nodes.get("zone").map(String::as_str), Some("b"));
}

#[test]
fn ip_in_ip_is_asked_for_by_path() {
    let config = sample("ip-in-ip.yaml").for_node("n1");
    assert_eq!((config.paths.cross_subnet, config.paths.fallback), (PathUse::Ipip, PathUse::Vxlan));
    assert_eq!(config.paths.rules[0].use_, PathUse::Vxlan);
    assert!(config.paths.uses_ipip());
    assert!(!sample("two-zones.yaml").for_node("a-1").paths.uses_ipip());
}

#[test]
fn an_outside_speaker_imports_what_is_listed_and_exports_all() {
    let config = sample("outside-speaker.yaml").for_node("n1");
    let peer = &config.bgp.peers[0];
    assert_eq!((peer.name.as_str(), peer.asn, peer.port), ("tor-a", 65000, 179));
    assert_eq!(peer.import.len(), 2);
    assert_eq!(peer.export, None);
}
