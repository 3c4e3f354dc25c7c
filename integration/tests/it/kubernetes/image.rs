//! The image itself: what is in it, and that a static program without a system around it finds names and trusts
//! certificates.

use std::fs;
use std::path::Path;
use std::process::Command;

use integration::kubernetes::Kubernetes;
use serde_json::{Value as Json, json};

use super::access;

/// The authorities that the image brings.
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";

/// The cluster's DNS.
const DNS: &str = "10.96.0.10";

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Unpacks an archive into a folder: that of its one layer.
fn unpack(archive: &Path, folder: &Path) {
    let manifest = run(Command::new("tar")
        .args(["--extract", "--to-stdout", "--file"])
        .arg(archive)
        .arg("./manifest.json"));
    let manifest: Json = serde_json::from_str(&manifest).unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    let layer = format!("./{}", layers[0].as_str().unwrap());
    let outer = folder.with_extension("layer");
    fs::create_dir(&outer).unwrap();
    run(Command::new("tar")
        .args(["--extract", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(&outer)
        .arg(&layer));
    run(Command::new("tar")
        .args(["--extract", "--file"])
        .arg(outer.join(&layer))
        .arg("--directory")
        .arg(folder));
}

pub(crate) fn names_and_certificates(cluster: &mut Kubernetes) {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("root");
    fs::create_dir(&root).unwrap();
    unpack(&cluster.agent_image(), &root);

    let headers =
        run(Command::new("readelf").args(["--program-headers", "--wide"]).arg(root.join("pairway")));
    assert!(headers.contains("LOAD") && !headers.contains("INTERP"), "a static program: {headers}");
    let third = fs::read_to_string(root.join("usr/share/doc/pairway/THIRD-PARTY.txt")).unwrap();
    for name in ["=== kube ", "=== ring ", "=== tokio ", "Permission is hereby granted"] {
        assert!(third.contains(name), "{name}");
    }
    assert!(!third.contains("=== proptest "), "what only tests it is not in it");
    assert!(
        fs::read_to_string(root.join("usr/share/doc/pairway/LICENSE")).unwrap().contains("Apache License")
    );
    let authorities = fs::read_to_string(root.join(AUTHORITIES)).unwrap();
    assert!(authorities.matches("BEGIN CERTIFICATE").count() > 50, "the system's authorities");

    // The API server by its name, from the host of a node, with the node's own token, and no authority but the image's.
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": "https://kubernetes.default.svc.cluster.local" } }],
        "users": [{ "name": "u", "user": { "token": access::token(cluster, "n1") } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u", "namespace": "pairway" } }],
    });
    fs::write(root.join("kubeconfig"), kubeconfig.to_string()).unwrap();
    let config = "version: 1\nnode: { name: n1 }\npools: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]\n\
                  store: { kubernetes: { kubeconfig: /kubeconfig } }\n";
    fs::write(root.join("pairway.yaml"), config).unwrap();
    fs::write(root.join("etc/resolv.conf"), format!("nameserver {DNS}\n")).unwrap();
    let rehearse = || {
        let mut command = cluster.lab().node("n1").command("chroot");
        command.arg(&root).args([
            "/pairway",
            "uninstall",
            "--dry-run",
            "-o",
            "json",
            "--config",
            "/pairway.yaml",
        ]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str::<Json>(&said)
            .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)))
    };
    let stranger = rehearse();
    assert_eq!(stranger["released"], json!([]), "a server whose authority is unknown is not believed");
    assert_ne!(stranger["failures"], json!([]), "{stranger}");
    let known = format!("{authorities}\n{}", fs::read_to_string(cluster.authority()).unwrap());
    fs::write(root.join(AUTHORITIES), known).unwrap();
    let friend = rehearse();
    assert_eq!(friend["released"].as_array().unwrap().len(), 2, "the blocks of n1: {friend}");
    assert_eq!(friend["failures"], json!([]));
}
