//! A kernel that lacks IP-in-IP, asked for it: it says so, both ends agree on the fallback, and the pods don't notice.
//!
//! Where the kernel has it these tests would show nothing: `integration/test.sh` runs them only where it does not, and
//! counts them as skipped elsewhere.

use integration::cluster::{CONFIG, Cluster, STORE};
use integration::eventually::eventually;
use nix::sys::signal::Signal;
use node_agent::status::Pair;
use serde_json::Value;

use crate::support::{SETTLE, cluster, ping, pod_of, pods, prove};

fn config(fallback: &str) -> String {
    format!("{CONFIG}paths: {{ crossSubnet: ipip, fallback: {fallback} }}\n")
}

/// Subnets of the topology: n1 and n2, n3 and n4.
fn same_subnet(a: &str, b: &str) -> bool {
    ["n1", "n2"].contains(&a) == ["n1", "n2"].contains(&b)
}

/// Waits until every pair between subnets is on this path for want of a capability, and every other one native.
fn settle(cluster: &Cluster, nodes: &[String], path: &str) -> Vec<Pair> {
    eventually("every pair on its path", SETTLE, || {
        let pairs = nodes.iter().map(|node| cluster.pairs(node)).collect::<Result<Vec<_>, _>>();
        let pairs = pairs.map_err(|err| err.to_string())?.concat();
        let right = |pair: &&Pair| {
            let wanted =
                if same_subnet(&pair.local, &pair.peer) { ("native", "bgp") } else { (path, "capability") };
            (&*pair.path, &*pair.reason) == wanted && (pair.ready || pair.path == "none")
        };
        match pairs.iter().find(|pair| !right(pair)) {
            Some(pair) => Err(format!("{pair:?}")),
            None if pairs.len() == nodes.len() * (nodes.len() - 1) * 2 => Ok(pairs),
            None => Err(format!("{} pairs", pairs.len())),
        }
    })
    .unwrap()
}

/// Each node says what it lacks, once per family, and the command that mends it.
fn says_so(cluster: &Cluster, node: &str) {
    let status = cluster.status(node).unwrap();
    let missing: Vec<(&str, &str)> = status
        .conditions
        .iter()
        .filter(|found| found.kind == "ModuleMissing")
        .map(|found| (&*found.subject, &*found.message))
        .collect();
    assert_eq!(
        missing.iter().map(|(subject, _)| *subject).collect::<Vec<_>>(),
        ["ipip", "sit"],
        "{status:?}"
    );
    for (subject, message) in missing {
        for words in [
            "`paths` asks for IP-in-IP".to_owned(),
            format!("this kernel has no {subject}"),
            format!("modprobe {subject}"),
            "fallback".to_owned(),
        ] {
            assert!(message.contains(&words), "no {words:?} in {message}");
        }
    }
    assert!(status.ready, "{status:?}");
}

/// What `pairway doctor` finds of the modules.
fn doctor(cluster: &Cluster, node: &str) -> Vec<(String, String, String)> {
    let (program, config) = (cluster.programs().pairway.to_string_lossy(), cluster.config_path(node));
    let script = format!("{program} doctor --config {} --output json || true", config.display());
    let found: Value = serde_json::from_str(&cluster.node(node).sh(&script).unwrap()).unwrap();
    let checks = found["checks"].as_array().unwrap_or_else(|| panic!("no checks in {found}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    checks
        .iter()
        .filter(|check| ["module-ipip", "module-sit"].contains(&check["name"].as_str().unwrap_or_default()))
        .map(|check| (text(&check["outcome"]), text(&check["message"]), text(&check["remedy"])))
        .collect()
}

/// Whether this machine has no list of its kernel's modules, as containers and small virtual machines have none: then
/// doctor can't tell, and says so.
fn unlisted() -> bool {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    !std::path::Path::new("/lib/modules").join(release).join("modules.builtin").exists()
}

#[test]
#[ignore = "needs a kernel without ipip and sit: integration/test.sh runs it where that is so"]
fn both_ends_use_vxlan_and_say_why() {
    let mut cluster = cluster("four-nodes", &config("vxlan"));
    let nodes = cluster.start_all().unwrap();
    let pairs = settle(&cluster, &nodes, "vxlan");
    for pair in pairs.iter().filter(|pair| !same_subnet(&pair.local, &pair.peer)) {
        assert!(pair.detail.contains("can't receive IP-in-IP"), "{pair:?}");
        assert_eq!(pair.mtu, 1450, "{pair:?}");
        // The same words at both ends.
        let back = |other: &&Pair| {
            other.local == pair.peer && other.peer == pair.local && other.family == pair.family
        };
        let there = pairs.iter().find(back).unwrap();
        assert_eq!((&pair.path, &pair.reason, &pair.detail), (&there.path, &there.reason, &there.detail));
    }
    for node in &nodes {
        says_so(&cluster, node);
    }
    let found = doctor(&cluster, "n1");
    assert_eq!(found.len(), 2, "{found:?}");
    for ((outcome, message, remedy), module) in found.iter().zip(["ipip", "sit"]) {
        if unlisted() {
            assert_eq!(outcome, "not-checked", "{message}");
            assert!(message.contains("has no list of the kernel's modules"), "{message}");
        } else {
            assert_eq!(outcome, "finding", "{message}");
            assert!(message.contains(&format!("has no module {module}")), "{message}");
            assert!(remedy.starts_with(&format!("modprobe {module}")), "{remedy}");
        }
    }
    pods(&mut cluster, &nodes);
    prove(&cluster, &nodes);
}

#[test]
#[ignore = "needs a kernel without ipip and sit: integration/test.sh runs it where that is so"]
fn without_a_fallback_there_is_no_path_and_the_rest_goes_on() {
    let mut cluster = cluster("four-nodes", &config("none"));
    let nodes = cluster.start_all().unwrap();
    let pairs = settle(&cluster, &nodes, "none");
    for pair in pairs.iter().filter(|pair| pair.path == "none") {
        assert!(pair.detail.contains("can't receive IP-in-IP"), "{pair:?}");
        assert!(pair.detail.contains("the fallback is none"), "{pair:?}");
    }
    for node in &nodes {
        says_so(&cluster, node);
    }
    let pods = pods(&mut cluster, &nodes);
    for ipv6 in [false, true] {
        let (n1, n2, n3) = (pod_of(&pods, "n1"), pod_of(&pods, "n2"), pod_of(&pods, "n3"));
        ping(&cluster, n1, n2, ipv6, 1300).unwrap();
        ping(&cluster, n2, n1, ipv6, 1300).unwrap();
        // The route of the whole pool answers, and nothing leaves by the default route.
        let err = ping(&cluster, n1, n3, ipv6, 1300).unwrap_err();
        assert!(err.to_lowercase().contains("unreachable"), "{err}");
    }
}

/// A peer that can: its record says so. The pair goes by what both have, and the detail names who lacks it.
#[test]
#[ignore = "needs a kernel without ipip and sit: integration/test.sh runs it where that is so"]
fn a_peer_that_has_it_is_met_halfway() {
    let mut cluster = cluster("four-nodes", &config("vxlan"));
    let nodes = cluster.start_all().unwrap();
    settle(&cluster, &nodes, "vxlan");
    let pods = pods(&mut cluster, &nodes);
    let lacking = |cluster: &Cluster, node: &str, family: &str| {
        let pair = cluster.pair("n3", "n1", family).map_err(|err| err.to_string())?;
        let named = pair.detail.contains(&format!("{node} can't receive IP-in-IP"));
        if named { Ok(pair) } else { Err(format!("{pair:?}")) }
    };
    for family in ["ipv4", "ipv6"] {
        lacking(&cluster, "n1", family).unwrap();
    }
    // Its agent is away, so that it does not correct its record; its kernel serves on.
    let record = cluster.lab().bind_folder(STORE).join("nodes/n1.json");
    cluster.stop("n1", Signal::SIGTERM).unwrap();
    let mut value: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    value["capabilities"].as_array_mut().unwrap().extend(["ipip", "sit"].map(Value::from));
    let new = record.with_extension("new");
    std::fs::write(&new, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
    std::fs::rename(&new, &record).unwrap();
    for family in ["ipv4", "ipv6"] {
        let pair = eventually("the detail to name n3", SETTLE, || lacking(&cluster, "n3", family)).unwrap();
        assert_eq!((&*pair.path, &*pair.reason, pair.ready), ("vxlan", "capability", true), "{pair:?}");
    }
    for ipv6 in [false, true] {
        let (n1, n3) = (pod_of(&pods, "n1"), pod_of(&pods, "n3"));
        ping(&cluster, n1, n3, ipv6, 1300).unwrap();
        ping(&cluster, n3, n1, ipv6, 1300).unwrap();
    }
}
