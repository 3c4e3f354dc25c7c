//! The Helm chart: what of it is a copy, and what its values may be. What it renders to is compared with the manifests where
//! there is a `helm`: `integration/tests/it/kubernetes/chart.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use serde_json::{Value, json};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/deploy")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(path: &str) -> Value {
    let text = read(&deploy().join(path));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names of the files of a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry").file_name().display().to_string()).collect()
}

/// `make schema` writes them. A chart has to hold what it reads, and links don't outlive every way that charts go.
#[test]
fn definitions_roles_and_policy_are_those_of_the_manifest() {
    let chart = deploy().join("helm/pairway/files");
    let copied = |from: PathBuf, to: PathBuf| expect_file![to].assert_eq(&read(&from));
    for name in ["rbac.yaml", "policy.yaml"] {
        copied(deploy().join("kubernetes").join(name), chart.join(name));
    }
    let definitions = names(&deploy().join("crds"));
    assert!(!definitions.is_empty());
    for name in &definitions {
        copied(deploy().join("crds").join(name), chart.join("crds").join(name));
    }
    assert_eq!(names(&chart.join("crds")), definitions, "and none that is no longer there");
}

#[test]
fn the_chart_is_of_this_version() {
    let chart = yaml("helm/pairway/Chart.yaml");
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn its_configuration_is_that_of_the_manifest() {
    let config = yaml("kubernetes/config.yaml");
    let text = config["data"]["pairway.yaml"].as_str().expect("a configuration");
    let manifest: Value = serde_saphyr::from_str(text).expect("YAML");
    assert_eq!(yaml("helm/pairway/values.yaml")["config"], manifest);
}

/// What text the templates look for in the copies is there, or a replacement would silently replace nothing.
#[test]
fn what_templates_replace_is_there() {
    let chart = deploy().join("helm/pairway");
    let template = |name: &str| read(&chart.join("templates").join(name));
    for (name, text) in
        [("rbac.yaml", "namespace: pairway"), ("policy.yaml", "system:serviceaccount:pairway:pairway")]
    {
        assert!(template(name).contains(&format!("replace \"{text}\"")), "{name}");
        assert!(read(&chart.join("files").join(name)).contains(text), "{name}");
    }
    assert!(template("definitions.yaml").contains(r#"replace "\nmetadata:\n""#));
    for name in names(&chart.join("files/crds")) {
        let text = read(&chart.join("files/crds").join(&name));
        assert_eq!(text.matches("\nmetadata:\n").count(), 1, "{name}");
        assert!(!text.contains("annotations:"), "{name} would have them twice");
    }
    let policy = read(&chart.join("files/policy.yaml"));
    assert!(!policy.contains("namespace:"), "a namespace that its template does not replace");
}

/// Values that there are, and values that the schema knows.
#[test]
fn every_value_has_a_schema() {
    fn compare(values: &Value, schema: &Value, at: &str) {
        let (Some(values), Some(known)) = (values.as_object(), schema["properties"].as_object()) else {
            return;
        };
        for (key, value) in values {
            let schema = known.get(key).unwrap_or_else(|| panic!("the schema lacks {at}{key}"));
            compare(value, schema, &format!("{at}{key}."));
        }
        // The configuration has many more keys than are set.
        if !at.starts_with("config.") {
            let unset: Vec<&String> =
                known.keys().filter(|key| *key != "global" && !values.contains_key(*key)).collect();
            assert!(unset.is_empty(), "values.yaml lacks {unset:?} in {at}");
        }
    }
    compare(&yaml("helm/pairway/values.yaml"), &schema(), "");
}

/// `make schema` writes it.
#[test]
fn the_schema_of_its_values_is_committed() {
    let text = serde_json::to_string_pretty(&schema()).expect("a schema is JSON");
    expect_file!["../../../config/deploy/helm/pairway/values.schema.json"].assert_eq(&(text + "\n"));
}

/// The schema of the values, with that of the agent's configuration in it: who mistypes a key learns it from Helm.
fn schema() -> Value {
    let mut config = config::schema().clone();
    let members = config.as_object_mut().expect("an object");
    for key in ["$schema", "title"] {
        members.shift_remove(key);
    }
    // Pods of a DaemonSet have no other store in common.
    let store = json!({ "required": ["store"], "properties": { "store": { "required": ["kubernetes"] } } });
    members.insert("allOf".to_owned(), json!([store]));
    without_formats(&mut config);
    // Its references begin at its own top.
    let text = config.to_string().replace("\"#/properties/", "\"#/properties/config/properties/");
    let config: Value = serde_json::from_str(&text).expect("JSON");
    let text = |about: &str| json!({ "type": "string", "description": about });
    let quantities = json!({
        "type": "object",
        "additionalProperties": { "type": ["string", "number"] },
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart pairway",
        "type": "object",
        "additionalProperties": false,
        "required": ["mode", "image", "config", "apiServer", "definitions", "maxUnavailable"],
        "properties": {
            "global": { "type": "object", "description": "What a chart around this one has for all of its own." },
            "mode": {
                "enum": ["agent", "remove"],
                "description": "What runs on the nodes: the agent, or what takes Pairway off them.",
            },
            "image": {
                "type": "object",
                "additionalProperties": false,
                "required": ["repository", "pullPolicy"],
                "properties": {
                    "repository": {
                        "type": "string",
                        "pattern": "^[a-z0-9][a-z0-9._-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*$",
                        "description": "The image's name without a tag.",
                    },
                    "tag": {
                        "type": "string",
                        "pattern": "^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$",
                        "description": "Without it the chart's version.",
                    },
                    "digest": {
                        "type": "string",
                        "pattern": "^(sha256:[0-9a-f]{64})?$",
                        "description": "Goes before the tag.",
                    },
                    "pullPolicy": { "enum": ["IfNotPresent", "Always", "Never"] },
                    "pullSecrets": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": false,
                            "required": ["name"],
                            "properties": { "name": { "type": "string", "minLength": 1 } },
                        },
                    },
                },
            },
            "config": config,
            "apiServer": {
                "type": "object",
                "additionalProperties": false,
                "required": ["host", "port"],
                "properties": {
                    "host": {
                        "type": "string",
                        "pattern": "^([A-Za-z0-9.-]*|[0-9A-Fa-f.]*(:[0-9A-Fa-f.]*){2,})$",
                        "description": "An address or a name that nodes reach without Pairway; none: the Service `kubernetes`.",
                    },
                    "port": { "type": "integer", "minimum": 1, "maximum": 65535 },
                },
            },
            "definitions": {
                "type": "object",
                "additionalProperties": false,
                "required": ["install", "keep"],
                "properties": {
                    "install": { "type": "boolean", "description": "false: somebody else applies them." },
                    "keep": { "type": "boolean", "description": "They outlive `helm uninstall`." },
                },
            },
            "maxUnavailable": {
                "type": ["integer", "string"],
                "minimum": 1,
                "pattern": "^([1-9][0-9]?|100)%$",
                "description": "Nodes without an agent at once while a new one is rolled out.",
            },
            "resources": {
                "type": "object",
                "additionalProperties": false,
                "properties": { "requests": quantities.clone(), "limits": quantities },
            },
            "priorityClassName": text("Without one, other pods can take the agent's place."),
            "nodeSelector": { "type": "object", "additionalProperties": { "type": "string" } },
            "tolerations": { "type": "array", "items": { "type": "object" } },
            "podAnnotations": { "type": "object", "additionalProperties": { "type": "string" } },
        },
    })
}

/// Formats are ours, but for one that others have by the same name and mean something else by: `duration`.
fn without_formats(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            // An object is a property that is called so.
            if members.get("format").is_some_and(Value::is_string) {
                members.shift_remove("format");
            }
            members.values_mut().for_each(without_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(without_formats),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
