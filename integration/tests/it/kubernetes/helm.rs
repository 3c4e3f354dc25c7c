//! The same with Helm: it goes on with what the manifest has made, its upgrades bring definitions, and removal leaves nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration::eventually::eventually;
use integration::kubernetes::Kubernetes;
use serde_json::{Value as Json, json};

use super::{LIMIT, agents, all_is_well_again, claims, echo_pods, everybody_reaches, integration, removal};

/// A column of a definition that the chart of the version before has not.
const COLUMN: &str = "VNI";

/// What the manifest makes outside of its namespace, but for the definitions.
const OUTSIDE: &str =
    "clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding";

/// The values of the cluster, whose blocks Kubernetes gives.
fn values(folder: &Path) -> PathBuf {
    let values = json!({ "config": {
        "blocks": { "source": "nodeSpec" },
        "pools": [
            { "cidr": "10.244.0.0/16", "blockPrefix": 24 },
            { "cidr": "fd10:244::/48", "blockPrefix": 64 },
        ],
    } });
    let path = folder.join("values.yaml");
    fs::write(&path, values.to_string()).unwrap();
    path
}

/// The chart as of the version before, whose definitions have a column less.
fn older(chart: &Path, folder: &Path) -> PathBuf {
    let copied = Command::new("cp").arg("--recursive").args([chart, folder]).status().unwrap();
    assert!(copied.success());
    let older = folder.join("pairway");
    let path = older.join("files/crds/noderecords.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let (before, column) = text.split_once(&format!("    - name: {COLUMN}\n")).unwrap();
    let (_, after) = column.split_once("    - name: ").unwrap();
    fs::write(&path, format!("{before}    - name: {after}")).unwrap();
    older
}

/// Names of the columns that node records have.
fn columns(cluster: &Kubernetes) -> Vec<String> {
    let definition = cluster.json(&["get", "crd", "noderecords.pairway.dev"]).unwrap();
    let columns = definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap().iter();
    columns.map(|column| column["name"].as_str().unwrap().to_owned()).collect()
}

fn processes(cluster: &Kubernetes) -> Vec<String> {
    cluster.nodes().iter().map(|node| agents::process(cluster, node).unwrap()).collect()
}

pub(crate) fn from_installation_to_removal(cluster: &mut Kubernetes) {
    let temporary = tempfile::tempdir().unwrap();
    let chart = integration().join("../config/deploy/helm/pairway").canonicalize().unwrap();
    let older = older(&chart, temporary.path());
    let values = values(temporary.path());
    let run = |command: &str, chart: &Path, flags: &[&str]| {
        let words = [command, "pairway", chart.to_str().unwrap(), "--namespace", "pairway"];
        let values = ["--values", values.to_str().unwrap()];
        cluster.helm(&[&words[..], &values, flags].concat()).unwrap()
    };
    let (held, pods) = (claims(cluster), echo_pods(cluster));

    // From the manifest to Helm, as docs/install.md says: the definitions stay, and with them the claims.
    let definitions = integration().join("../config/deploy/crds").canonicalize().unwrap();
    let definitions = definitions.to_str().unwrap();
    let as_helm = ["apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", definitions];
    cluster.kubectl(&as_helm).unwrap();
    cluster.kubectl(&["delete", "--timeout=120s", "namespace", "pairway"]).unwrap();
    cluster.kubectl(&["delete", OUTSIDE, "pairway"]).unwrap();
    cluster.kubectl(&["-n", "default", "delete", "role,rolebinding", "pairway-events"]).unwrap();
    everybody_reaches(cluster, &pods).unwrap();
    let said = run("install", &chart, &["--create-namespace", "--take-ownership"]);
    assert!(said.contains("rollout status daemonset/pairway"), "the notes: {said}");
    cluster.rolled_out("pairway", "daemonset/pairway").unwrap();
    agents::settled(cluster, &cluster.nodes());
    assert_eq!(claims(cluster), held);
    assert!(columns(cluster).contains(&COLUMN.to_owned()), "{:?}", columns(cluster));

    // Upgrades bring definitions, as ways back do. What the DaemonSet does not see starts no agent again.
    let agents_before = processes(cluster);
    run("upgrade", &older, &[]);
    assert!(!columns(cluster).contains(&COLUMN.to_owned()), "definitions of the version before");
    run("upgrade", &chart, &[]);
    assert!(columns(cluster).contains(&COLUMN.to_owned()), "{:?}", columns(cluster));
    cluster.helm(&["rollback", "pairway", "2", "--namespace", "pairway"]).unwrap();
    assert!(!columns(cluster).contains(&COLUMN.to_owned()), "the second revision is the older chart");
    run("upgrade", &chart, &[]);
    assert_eq!(claims(cluster), held);
    assert_eq!(processes(cluster), agents_before);

    // A mistake in the configuration is refused before anything changes.
    let words = ["upgrade", "pairway", chart.to_str().unwrap(), "--namespace", "pairway", "--reuse-values"];
    let mistaken = cluster.helm(&[&words[..], &["--set", "config.vxlan.vnii=1"]].concat()).unwrap_err();
    assert!(mistaken.to_string().contains("vnii"), "{mistaken}");

    // Uninstalled, the data plane and the claims stay, and another installation goes on with them.
    cluster.helm(&["uninstall", "pairway", "--namespace", "pairway"]).unwrap();
    eventually("the agents to end", LIMIT, || {
        let nodes = cluster.nodes();
        let left: Vec<&String> = nodes.iter().filter(|node| agents::process(cluster, node).is_ok()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .unwrap();
    assert_eq!(claims(cluster), held, "definitions outlive the release");
    everybody_reaches(cluster, &pods).unwrap();
    run("install", &chart, &[]);
    cluster.rolled_out("pairway", "daemonset/pairway").unwrap();
    agents::settled(cluster, &cluster.nodes());
    all_is_well_again(cluster);
    assert_eq!(claims(cluster), held);

    // Removed, it leaves nothing.
    let said = run("upgrade", &chart, &["--set", "mode=remove"]);
    assert!(said.contains("helm uninstall pairway"), "the notes: {said}");
    cluster.rolled_out("pairway", "daemonset/pairway").unwrap();
    removal::every_node_is_clean(cluster);
    cluster.helm(&["uninstall", "pairway", "--namespace", "pairway"]).unwrap();
    eventually("the definitions to be gone", LIMIT, || {
        let left = cluster.json(&["get", "crd"]).map_err(|error| error.to_string())?;
        let ours =
            |object: &&Json| object["metadata"]["name"].as_str().unwrap_or_default().contains("pairway");
        match left["items"].as_array().into_iter().flatten().find(ours) {
            None => Ok(()),
            Some(definition) => Err(definition["metadata"].to_string()),
        }
    })
    .unwrap();
    removal::nothing_is_left(cluster);
}
