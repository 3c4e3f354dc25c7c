use super::*;

const POOL: &str = "pools: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]\n";

fn file(rest: &str) -> ConfigFile {
    ConfigFile::parse(&format!("{POOL}{rest}"), "test").unwrap()
}

#[test]
fn where_the_name_comes_from() {
    let auto = file("");
    assert_eq!(auto.node_name(Some("env"), "host").unwrap(), "env");
    assert_eq!(auto.node_name(Some(""), "host").unwrap(), "host");
    assert_eq!(auto.node_name(None, "Host.Example").unwrap(), "host.example");
    let fixed = file("node: { name: fixed }\n");
    assert_eq!(fixed.node_name(Some("env"), "host").unwrap(), "fixed");

    let error = auto.node_name(Some("Not Legal"), "host").unwrap_err();
    assert_eq!((error.value.as_str(), error.origin), ("Not Legal", "NODE_NAME"));
    assert_eq!(auto.node_name(None, "under_score").unwrap_err().origin, "the host name");
    assert!(auto.node_name(None, "").is_err());
}

#[test]
fn the_first_match_wins() {
    let file = file(
        "overrides:\n  - { match: { name: gpu-1 }, bgp: { asn: 1 } }\n  - { match: { name: 'gpu-*' }, bgp: { asn: 2 } }\n",
    );
    assert_eq!(file.for_node("gpu-1").bgp.asn, 1);
    assert_eq!(file.for_node("gpu-2").bgp.asn, 2);
    assert_eq!(file.for_node("cpu-1").bgp.asn, crate::defaults::ASN);
    assert_eq!((file.override_of("gpu-2"), file.override_of("cpu-1")), (Some(1), None));
}

#[test]
fn labels_are_merged_and_lists_replaced() {
    let file = file(
        "node: { labels: { a: '1', b: '1' } }\nbgp: { listen: [192.0.2.1, 192.0.2.2] }\noverrides:\n  - { match: { name: n }, node: { labels: { b: '2' } }, bgp: { listen: [192.0.2.3] } }\n",
    );
    let config = file.for_node("n");
    let labels: Vec<(&str, &str)> =
        config.node.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(labels, [("a", "1"), ("b", "2")]);
    assert_eq!(config.bgp.listen.len(), 1);
}

#[test]
fn a_file_needs_no_pools_where_every_node_has_an_override_only_if_the_rest_has_them() {
    let text = "overrides: [{ match: { name: '*' }, pools: [{ cidr: 10.0.0.0/16, blockPrefix: 24 }] }]";
    assert!(ConfigFile::parse(text, "test").is_err());
}

/// However it is called: a file that the agent would write over its own configuration is none.
#[test]
fn the_file_itself_is_no_file_for_cni_plugins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairway.yaml");
    let link = folder.path().join("link.env");
    let loads = |subnet_env: &Path| {
        let text = format!(
            "pools: [{{ cidr: 10.244.0.0/16, blockPrefix: 24 }}]\ncni: {{ subnetEnv: {} }}\n",
            subnet_env.display()
        );
        std::fs::write(&path, text).unwrap();
        ConfigFile::load(&path).map_err(|errors| errors.summary())
    };
    std::os::unix::fs::symlink("pairway.yaml", &link).unwrap();
    for itself in [&path, &link] {
        let error = loads(itself).unwrap_err();
        assert!(
            error.contains("pairway.yaml: cni.subnetEnv: this is the configuration file itself"),
            "{error}"
        );
    }
    assert!(loads(&folder.path().join("subnet.env")).is_ok());
}

#[test]
fn a_file_that_can_not_be_read_comes_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let error = ConfigFile::load(&folder.path().join("missing.yaml")).unwrap_err().summary();
    assert!(error.contains("check the path"), "{error}");
}
