//! What the chart renders to, without a cluster: the same as the manifests, and values that are looked at.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value as Json, json};

use super::{integration, read};

fn deploy(name: &str) -> PathBuf {
    integration().join("../config/deploy").join(name)
}

/// What `helm template` makes of the chart with these values, or what it says.
fn render(namespace: &str, values: &[&str]) -> Result<Objects, String> {
    let home = tempfile::tempdir().unwrap();
    let mut helm = Command::new(integration::kubernetes::program("helm").unwrap());
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(variable, home.path());
    }
    helm.args(["template", "pairway", "--namespace", namespace]).arg(deploy("helm/pairway"));
    for value in values {
        helm.args(["--set", value]);
    }
    let output = helm.output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(objects(&String::from_utf8(output.stdout).unwrap()))
}

/// Objects by kind and name, in a form that leaves out what means nothing. No two have both in common, so that a release fits
/// into every namespace, also into the one where Events about Nodes are.
type Objects = BTreeMap<String, Json>;

fn objects(text: &str) -> Objects {
    let objects: Vec<Json> =
        serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let named = |mut object: Json| {
        plain(&mut object);
        let text = |value: &Json| value.as_str().unwrap().to_owned();
        (format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"])), object)
    };
    let objects: Vec<_> = objects.into_iter().filter(|object| !object.is_null()).map(named).collect();
    let count = objects.len();
    let objects: Objects = objects.into_iter().collect();
    assert_eq!(objects.len(), count, "two of a kind have one name: {:?}", objects.keys());
    objects
}

/// The order of volumes means nothing, nor does how a configuration is written.
fn plain(object: &mut Json) {
    if object["kind"] == "ConfigMap" {
        let text = object["data"]["pairway.yaml"].as_str().unwrap();
        object["data"]["pairway.yaml"] = serde_saphyr::from_str(text).unwrap();
    }
    if object["kind"] != "DaemonSet" {
        return;
    }
    let sort = |list: &mut Json| {
        list.as_array_mut().unwrap().sort_by_key(|entry| entry["name"].as_str().unwrap().to_owned());
    };
    let pod = &mut object["spec"]["template"]["spec"];
    sort(&mut pod["volumes"]);
    for containers in ["initContainers", "containers"] {
        let containers = pod.get_mut(containers).and_then(Json::as_array_mut);
        containers.into_iter().flatten().for_each(|container| sort(&mut container["volumeMounts"]));
    }
}

/// What the manifest holds, but for the namespace, which Helm wants to be there.
fn manifest() -> Objects {
    let mut objects = objects(&read(&deploy("pairway.yaml")));
    objects.remove("Namespace pairway").unwrap();
    objects
}

/// Both sides one by one, so that what differs is named.
fn same(chart: &Objects, manifest: &Objects) {
    assert_eq!(chart.keys().collect::<Vec<_>>(), manifest.keys().collect::<Vec<_>>());
    for (name, object) in manifest {
        assert_eq!(&chart[name], object, "{name}");
    }
}

#[test]
fn it_renders_to_the_manifests() {
    same(&render("pairway", &["definitions.keep=false"]).unwrap(), &manifest());

    let mut removal = manifest();
    removal.extend(objects(&read(&deploy("remove.yaml"))));
    let removing = render("pairway", &["mode=remove"]).unwrap();
    same(&removing, &removal);
    assert_ne!(
        removing["DaemonSet pairway"],
        manifest()["DaemonSet pairway"],
        "the comparison sees differences"
    );
}

#[test]
fn definitions_outlive_the_release_unless_it_removes() {
    let policies = |values: &[&str]| -> Vec<Json> {
        let objects = render("pairway", values).unwrap();
        let definitions = objects.values().filter(|object| object["kind"] == "CustomResourceDefinition");
        definitions
            .map(|object| object["metadata"]["annotations"]["helm.sh/resource-policy"].clone())
            .collect()
    };
    assert_eq!(policies(&[]), vec![json!("keep"); 4]);
    assert_eq!(policies(&["mode=remove"]), vec![Json::Null; 4]);
    assert_eq!(policies(&["definitions.install=false"]), Vec::<Json>::new());
}

#[test]
fn everything_is_in_the_namespace_of_the_release() {
    let objects = render("kube-net", &[]).unwrap();
    for (name, object) in &objects {
        let namespace = &object["metadata"]["namespace"];
        let right = if name.ends_with(" pairway-events") { "default" } else { "kube-net" };
        assert!(namespace.is_null() || namespace == right, "{name} is in {namespace}");
    }
    for binding in ["ClusterRoleBinding pairway", "RoleBinding pairway", "RoleBinding pairway-events"] {
        assert_eq!(objects[binding]["subjects"][0]["namespace"], "kube-net");
    }
    let policy = objects["ValidatingAdmissionPolicy pairway"].to_string();
    assert!(
        policy.contains("system:serviceaccount:kube-net:pairway") && !policy.contains(":pairway:pairway")
    );
}

#[test]
fn pods_follow_the_configuration() {
    let values = [
        "config.cni.conflist=none",
        "config.cni.subnetEnv=/run/pairway/subnet.env",
        "config.stateDir=/srv/pairway",
        "config.http.address=[::1]:9000",
        "apiServer.host=192.0.2.10",
        "image.repository=registry.example.org/pairway",
        "image.tag=next",
    ];
    let objects = render("pairway", &values).unwrap();
    let pod = &objects["DaemonSet pairway"]["spec"]["template"]["spec"];
    let agent = &pod["containers"][0];
    assert_eq!(agent["image"], "registry.example.org/pairway:next");
    let names = |list: &Json, path: &str| -> BTreeMap<String, String> {
        let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
        list.as_array()
            .unwrap()
            .iter()
            .map(|entry| (text(&entry["name"]), text(entry.pointer(path).unwrap_or(&Json::Null))))
            .collect()
    };
    let mounts = names(&agent["volumeMounts"], "/mountPath");
    let folders: Vec<&str> = mounts.values().map(String::as_str).collect();
    assert_eq!(folders, ["/etc/pairway", "/run/pairway", "/srv/pairway"], "each once: {mounts:?}");
    for (name, path) in names(&pod["volumes"], "/hostPath/path") {
        assert!(name == "config" || mounts[&name] == path, "{name}: {path}");
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let get = &agent[probe]["httpGet"];
        assert_eq!((&get["host"], &get["port"]), (&json!("::1"), &json!(9000)), "{probe}");
    }
    let variables = names(&agent["env"], "/value");
    assert_eq!(variables["KUBERNETES_SERVICE_HOST"], "192.0.2.10");
    assert_eq!(variables["KUBERNETES_SERVICE_PORT"], "6443");
}

#[test]
fn a_mistake_in_the_values_is_told_with_its_place() {
    for (value, told) in [
        ("modee=agent", "'modee'"),
        ("mode=uninstall", "/mode"),
        ("maxUnavailable=10 percent", "/maxUnavailable"),
        ("image.digest=4711", "/image/digest"),
        ("config.vxlan.vnii=1", "/config/vxlan"),
        ("config.vxlan.vni=16777216", "/config/vxlan/vni"),
        ("config.pools=null", "'pools'"),
        ("config.store.kubernetes=null", "'kubernetes'"),
        ("config.overrides[0].stateDir=/srv", "/config/overrides/0"),
        ("config.overrides[0].match.name=a,config.overrides[0].bgp.asnn=1", "/config/overrides/0"),
    ] {
        match render("pairway", &[value]) {
            Ok(_) => panic!("{value} is taken"),
            Err(said) => assert!(said.contains(told), "{value}: {said}"),
        }
    }
    let unequal = ["config.overrides[0].match.name=a", "config.overrides[0].stateDir=/srv"];
    let said = render("pairway", &unequal).unwrap_err();
    assert!(said.contains("config.overrides[0].stateDir: the pods of all nodes are alike"), "{said}");
    // What is refused is the value, and not the way that it is given.
    render("pairway", &["mode=agent", "config.vxlan.vni=16777215", "maxUnavailable=10%"]).unwrap();
}
