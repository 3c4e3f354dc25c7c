use super::*;

fn parse(text: &str) -> Result<Topology, TopologyError> {
    Topology::parse(text, Path::new("t.clab.yml"))
}

/// Two machines and a switch; `%` stands for what a test puts into n1.
const BASE: &str = "\
name: t
topology:
  kinds:
    linux:
      image: x
      network-mode: none
      sysctls: { net.ipv4.ip_forward: 1 }
  nodes:
    n1:
      kind: linux
      %
    sw:
      kind: bridge
  links:
    - endpoints: [\"n1:eth1\", \"sw:p1\"]
      mtu: 1400
";

fn refused(text: &str, line: u64, words: &[&str]) {
    let err = parse(text).expect_err("must be refused");
    assert_eq!(err.at.map(|(line, _)| line), Some(line), "{err}");
    for word in words {
        assert!(err.to_string().contains(word), "{err} does not name {word}");
    }
}

#[test]
fn the_topologies_of_this_folder_are_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with(".clab.yml") {
            let topology = Topology::load(&path).unwrap();
            assert!(!topology.with_role("node").is_empty(), "{} has no nodes", path.display());
            for link in &topology.links {
                assert_ne!(link.mtu, DEFAULT_MTU, "{}: name the MTU of every link", path.display());
            }
            count += 1;
        }
    }
    assert!(count >= 3);
}

#[test]
fn settings_come_from_defaults_kind_and_node() {
    let text = BASE.replace(
        '%',
        "sysctls: { net.ipv4.ip_forward: 0, a.b: x }\n      exec: [\"echo 'a b' __clabNodeName__\"]\n      binds: [\"d:/x:ro\"]",
    );
    let topology = parse(&text).unwrap();
    let node = &topology.nodes["n1"];
    assert_eq!(node.sysctls["net.ipv4.ip_forward"], "0");
    assert_eq!(node.sysctls["a.b"], "x");
    assert_eq!(node.exec[0].words, ["echo", "a b", "n1"]);
    assert_eq!(node.binds[0].target, Path::new("/x"));
    assert!(node.binds[0].read_only);
    assert_eq!(topology.nodes["sw"].kind, Kind::Bridge);
    assert_eq!(topology.links[0].mtu, 1400);
    assert_eq!(topology.links[0].ends[1].interface, "p1");
}

#[test]
fn what_is_not_supported_is_refused_by_name_and_line() {
    let with = |setting: &str| BASE.replace('%', setting);
    let cases: [(String, u64, &[&str]); 14] = [
        (with("startup-delay: 3"), 11, &["startup-delay"]),
        (with("cmd: sleep 1"), 11, &["cmd"]),
        (with("network-mode: host"), 11, &["network-mode", "host", "n1"]),
        (with("exec: [\"echo 'a\"]"), 11, &["exec", "n1", "never closed"]),
        (with("exec: [\"echo $HOME\"]"), 11, &["exec", "n1", "$"]),
        (with("binds: [\"a\"]"), 11, &["bind", "SOURCE:TARGET"]),
        (with("binds: [\"a:b\"]"), 11, &["bind", "absolute"]),
        (with("binds: [\"a:/b:z\"]"), 11, &["bind", ":ro"]),
        (with("env: [A]"), 11, &[]),
        (BASE.replace('%', "").replace("kind: bridge", "kind: ovs-bridge"), 13, &["ovs-bridge"]),
        (
            BASE.replace('%', "").replace("    - endpoints", "    - type: macvlan\n      endpoints"),
            15,
            &["macvlan"],
        ),
        (BASE.replace('%', "").replace("sw:p1", "host:p1"), 15, &["host:p1"]),
        (BASE.replace('%', "").replace("sw:p1", "n1:eth1"), 15, &["twice"]),
        (BASE.replace('%', "").replace("1400", "14"), 16, &["mtu"]),
    ];
    for (text, line, words) in cases {
        refused(&text, line, words);
    }
}

#[test]
fn a_bridge_runs_nothing() {
    let text = BASE.replace('%', "").replace("kind: bridge", "kind: bridge\n      exec: [\"ip link\"]");
    refused(&text, 14, &["exec", "bridge"]);
}

#[test]
fn extended_links_are_the_same_links() {
    let brief = parse(&BASE.replace('%', "")).unwrap();
    let extended = BASE.replace('%', "").replace(
        "endpoints: [\"n1:eth1\", \"sw:p1\"]",
        "type: veth\n      endpoints: [{ node: n1, interface: eth1 }, { node: sw, interface: p1 }]",
    );
    assert_eq!(parse(&extended).unwrap(), brief);
    refused(&extended.replace("interface: p1", "interface: p1, ipv4: 192.0.2.1/24"), 16, &["ipv4"]);
}
