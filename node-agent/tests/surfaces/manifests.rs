//! The manifests of the installation: one file that is put together from many, held to this version and to each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use serde_json::Value;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/deploy").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The objects of a file.
fn objects(name: &str) -> Vec<Value> {
    let text = read(name);
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(!objects.is_empty(), "{name} is empty");
    objects
}

fn of_kind(name: &str, kind: &str) -> Value {
    let mut found: Vec<Value> = objects(name).into_iter().filter(|object| object["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind} in {name}");
    found.remove(0)
}

/// Files that `kustomization.yaml` names, in its order.
fn resources() -> Vec<String> {
    let kustomization = objects("kustomization.yaml").remove(0);
    let resources = kustomization["resources"].as_array().expect("a list");
    resources.iter().map(|file| file.as_str().expect("a path").to_owned()).collect()
}

/// `make schema` writes it.
#[test]
fn the_manifest_holds_what_the_kustomization_names() {
    let mut text = "# Generated from the files beside it that kustomization.yaml names: `make schema`. docs/install.md says how to use it.\n"
        .to_owned();
    let resources = resources();
    for file in &resources {
        text.push_str("---\n");
        text.push_str(&read(file));
    }
    expect_file!["../../../config/deploy/pairway.yaml"].assert_eq(&text);
    // Every file that there is.
    let folders = ["crds", "kubernetes"];
    let there: BTreeSet<String> = folders
        .iter()
        .flat_map(|folder| {
            let entries = fs::read_dir(deploy(folder)).expect("a folder");
            entries.map(move |entry| format!("{folder}/{}", entry.expect("an entry").file_name().display()))
        })
        .collect();
    assert_eq!(there, resources.into_iter().collect());
}

#[test]
fn the_definitions_come_before_who_uses_them() {
    let kinds: Vec<String> = resources()
        .iter()
        .flat_map(|file| objects(file))
        .map(|object| object["kind"].as_str().expect("a kind").to_owned())
        .collect();
    let at = |kind: &str| kinds.iter().position(|found| found == kind).unwrap_or_else(|| panic!("no {kind}"));
    assert_eq!(at("Namespace"), 0);
    assert_eq!(at("DaemonSet"), kinds.len() - 1);
    assert!(at("CustomResourceDefinition") < at("ValidatingAdmissionPolicy"));
    let definitions = kinds.iter().filter(|kind| *kind == "CustomResourceDefinition").count();
    assert_eq!(definitions, node_agent::store::kubernetes::custom_resource_definitions().len());
}

#[test]
fn the_image_is_of_this_version() {
    let expected = format!("localhost/pairway:{}", env!("CARGO_PKG_VERSION"));
    for name in ["pairway.yaml", "remove.yaml"] {
        let spec = &of_kind(name, "DaemonSet")["spec"]["template"]["spec"];
        for containers in ["initContainers", "containers"] {
            for container in spec[containers].as_array().into_iter().flatten() {
                assert_eq!(container["image"], *expected, "{name}");
            }
        }
    }
}

#[test]
fn the_configuration_is_one_and_its_files_can_be_written() {
    let config = of_kind("pairway.yaml", "ConfigMap");
    let text = config["data"]["pairway.yaml"].as_str().expect("a configuration");
    let file = config::ConfigFile::parse(text, "pairway.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    let config = file.for_node("n1");
    assert!(matches!(config.store, config::Store::Kubernetes { .. }));
    let pod = &of_kind("pairway.yaml", "DaemonSet")["spec"]["template"]["spec"];
    let mounts: Vec<PathBuf> = pod["containers"][0]["volumeMounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .filter(|mount| mount["readOnly"] != true)
        .map(|mount| PathBuf::from(mount["mountPath"].as_str().expect("a path")))
        .collect();
    let files = [config.cni.subnet_env.clone(), config.cni.conflist.clone(), Some(config.api_socket.clone())];
    for file in files.into_iter().flatten().chain([config.state_dir.join("x")]) {
        let folder = file.parent().expect("a folder");
        assert!(mounts.iter().any(|mount| mount == folder), "{} is not mounted", folder.display());
    }
    let address = config.http.to_string();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let get = &pod["containers"][0][probe]["httpGet"];
        let probed = format!("{}:{}", get["host"].as_str().expect("a host"), get["port"]);
        assert_eq!(probed, address, "{probe}");
    }
}

/// What removes runs where and as what the agent ran.
#[test]
fn removal_is_allowed_what_the_agent_is() {
    let (agent, removal) = (of_kind("pairway.yaml", "DaemonSet"), of_kind("remove.yaml", "DaemonSet"));
    assert_eq!(agent["metadata"], removal["metadata"], "it replaces the agents");
    assert_eq!(agent["spec"]["selector"], removal["spec"]["selector"]);
    assert_eq!(agent["spec"]["template"]["metadata"], removal["spec"]["template"]["metadata"]);
    let (agent, removal) = (&agent["spec"]["template"]["spec"], &removal["spec"]["template"]["spec"]);
    for key in [
        "serviceAccountName",
        "priorityClassName",
        "hostNetwork",
        "dnsPolicy",
        "nodeSelector",
        "tolerations",
        "securityContext",
        "volumes",
    ] {
        assert!(agent.get(key).is_some() && agent.get(key) == removal.get(key), "{key}");
    }
    let agent = &agent["containers"][0];
    for container in [&removal["initContainers"][0], &removal["containers"][0]] {
        for key in ["image", "imagePullPolicy", "env", "securityContext", "resources", "volumeMounts"] {
            assert!(agent.get(key).is_some() && agent.get(key) == container.get(key), "{key}");
        }
    }
}

#[test]
fn the_agent_has_three_capabilities_and_nothing_else() {
    let pod = &of_kind("pairway.yaml", "DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!(security["privileged"], false);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    let capabilities =
        serde_json::json!({ "drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"] });
    assert_eq!(security["capabilities"], capabilities);
    assert!(pod.get("hostPID").is_none() && pod.get("hostIPC").is_none());
}
