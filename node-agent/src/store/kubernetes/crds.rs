//! The definitions of our resources, generated from the records' types and committed under `config/deploy/crds`.
//!
//! What the API server checks is what the agent checks when it reads a record (`store::record`), as far as a schema can say
//! it. Fields that are not named are kept: agents of the next version write more of them, and may come before the next
//! definitions.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::objects::{GROUP, VERSION, names};
use crate::store::kind::Kind;
use crate::store::record::schema;

/// The CustomResourceDefinitions, as the API server takes them. Their order is that of `kubectl apply`.
#[must_use]
pub fn custom_resource_definitions() -> Vec<Value> {
    of_group(GROUP)
}

pub(super) fn of_group(group: &str) -> Vec<Value> {
    Kind::ALL.into_iter().map(|kind| definition(group, kind)).collect()
}

fn definition(group: &str, kind: Kind) -> Value {
    let names = names(kind);
    let What { description, spec, status, columns, rules } = what(kind);
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{group}", names.plural),
            "labels": { "app.kubernetes.io/name": "pairway" },
        },
        "spec": {
            "group": group,
            "names": {
                "kind": names.kind,
                "listKind": format!("{}List", names.kind),
                "plural": names.plural,
                "singular": names.singular,
                "shortNames": [names.short],
                "categories": ["pairway"],
            },
            // Blocks and nodes belong to the cluster.
            "scope": "Cluster",
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "additionalPrinterColumns": columns,
                "schema": { "openAPIV3Schema": {
                    "description": description,
                    "type": "object",
                    "required": ["spec"],
                    "properties": { "spec": spec },
                    "x-kubernetes-validations": rules,
                } },
            }],
        },
    });
    if let Some(status) = status {
        let version = &mut definition["spec"]["versions"][0];
        version["subresources"] = json!({ "status": {} });
        version["schema"]["openAPIV3Schema"]["properties"]["status"] = status;
    }
    definition
}

/// What differs from kind to kind.
struct What {
    description: &'static str,
    spec: Value,
    status: Option<Value>,
    columns: Value,
    rules: Value,
}

fn what(kind: Kind) -> What {
    let column = |name: &str, path: &str, description: &str, kind: &str| json!({ "name": name, "type": kind, "jsonPath": path, "description": description });
    // Shown with `-o wide`.
    let wide = |name: &str, path: &str, description: &str, kind: &str| {
        let mut column = column(name, path, description, kind);
        column["priority"] = json!(1);
        column
    };
    let age = || column("Age", ".metadata.creationTimestamp", "Since when it exists.", "date");
    let named = |field: &str, message: &str| {
        json!({
            "rule": format!("self.metadata.name == self.spec.{field}.replace('.', '-').replace(':', '-').replace('/', '-')"),
            "message": message,
        })
    };
    match kind {
        Kind::Node => What {
            description: "What a node says of itself. Written by its agent.",
            spec: spec::<schema::NodeDto>(),
            status: Some(node_status()),
            columns: json!([
                column(
                    "Ready",
                    ".status.conditions[?(@.type=='Ready')].status",
                    "Whether the node's network is ready.",
                    "string"
                ),
                column("IPv4", ".spec.underlayIpv4", "Underlay address of IPv4.", "string"),
                column("IPv6", ".spec.underlayIpv6", "Underlay address of IPv6.", "string"),
                column("AS", ".spec.asn", "AS number of its BGP speaker.", "integer"),
                column("VNI", ".spec.vni", "VXLAN network identifier.", "integer"),
                wide("Agent", ".status.agentVersion", "Version of its agent.", "string"),
                wide(
                    "Why",
                    ".status.conditions[?(@.type=='Ready')].message",
                    "Why it is not ready.",
                    "string"
                ),
                age(),
            ]),
            rules: json!([{
                "rule": "self.metadata.name == self.spec.name",
                "message": "a record is named after its node",
            }]),
        },
        Kind::Claim => What {
            description: "Who holds a block of pod addresses. Its creation is the claim: the name alone holds the block.",
            // One without a holder is read (the name alone holds the block), but none is made.
            spec: with_rule(
                with_required(spec::<schema::ClaimDto>(), "holder"),
                "self.block == oldSelf.block && self.holder == oldSelf.holder && self.claimedAt == oldSelf.claimedAt",
                "a claim is never changed: `pairway blocks release` gives the block back",
            ),
            // It is there, or it is not.
            status: None,
            columns: json!([
                column("Block", ".spec.block", "The block.", "string"),
                column("Node", ".spec.holder", "The node that holds it.", "string"),
                column("Claimed", ".spec.claimedAt", "Since when.", "date"),
            ]),
            rules: json!([named("block", "a claim is named after its block: 10-244-7-0-24")]),
        },
        Kind::Pool => What {
            description: "How long the blocks of a pool are, fixed for the whole cluster by the first claim.",
            spec: with_rule(
                spec::<schema::PoolDto>(),
                "self.cidr == oldSelf.cidr && self.blockPrefix == oldSelf.blockPrefix",
                "a pool's block prefix is fixed: use another pool for blocks of another length",
            ),
            status: None,
            columns: json!([
                column("Pool", ".spec.cidr", "The pool.", "string"),
                column("Block prefix", ".spec.blockPrefix", "Prefix length of its blocks.", "integer"),
                age(),
            ]),
            rules: json!([named("cidr", "a pool is named after its CIDR: 10-244-0-0-16")]),
        },
        Kind::Released => What {
            description: "When a block was given back: it is left alone for a while.",
            spec: spec::<schema::ReleasedDto>(),
            status: None,
            columns: json!([
                column("Block", ".spec.block", "The block.", "string"),
                column("Released", ".spec.releasedAt", "When it was given back.", "date"),
            ]),
            rules: json!([named("block", "it is named after the block: 10-244-7-0-24")]),
        },
    }
}

/// What `record_status` writes.
fn node_status() -> Value {
    json!({
        "description": "Whether the node's network works. Written by its agent, for people; no agent reads it.",
        "type": "object",
        "properties": {
            "agentVersion": { "type": "string", "description": "Version of its agent." },
            "blocks": {
                "type": "array",
                "description": "Blocks that it holds, oldest first.",
                "items": { "type": "string" },
            },
            "conditions": {
                "type": "array",
                "description": "Ready: the node's network is ready.",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type", "status"],
                    "properties": {
                        "type": { "type": "string", "description": "Ready." },
                        "status": { "type": "string", "description": "True or False." },
                        "reason": { "type": "string", "description": "One word for it." },
                        "message": { "type": "string", "description": "Why it is not ready." },
                        "lastTransitionTime": { "type": "string", "description": "Since when." },
                    },
                },
            },
        },
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

fn with_required(mut spec: Value, field: &str) -> Value {
    if let Some(required) = spec["required"].as_array_mut() {
        required.push(json!(field));
    }
    spec
}

fn with_rule(mut spec: Value, rule: &str, message: &str) -> Value {
    spec["x-kubernetes-validations"] = json!([{ "rule": rule, "message": message }]);
    spec
}

/// The schema of a record as Kubernetes wants schemas: structural, and with nothing that it does not know.
fn spec<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let mut schema = structural(settings.into_generator().into_root_schema_for::<T>().to_value());
    if let Some(object) = schema.as_object_mut() {
        object.remove("description");
        object.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
    }
    schema
}

fn structural(schema: Value) -> Value {
    let Value::Object(object) = schema else { return schema };
    let mut kept = Map::new();
    for (key, value) in object {
        match (key.as_str(), value) {
            // Numbers of Rust have formats that Kubernetes does not know; an absent field is absent, never null.
            ("$schema" | "title" | "default" | "format" | "nullable", _) => {}
            ("uniqueItems", Value::Bool(true)) => {
                kept.insert("x-kubernetes-list-type".to_owned(), json!("set"));
            }
            // What is not named is kept; of a map's values the type is told.
            ("additionalProperties", Value::Bool(_)) => {}
            ("type", Value::Array(types)) => {
                let first = types.into_iter().find(|name| *name != "null").unwrap_or_default();
                kept.insert(key, first);
            }
            ("properties", Value::Object(properties)) => {
                let properties = properties.into_iter().map(|(name, value)| (name, structural(value)));
                kept.insert(key, Value::Object(properties.collect()));
            }
            ("items" | "additionalProperties", value @ Value::Object(_)) => {
                kept.insert(key, structural(value));
            }
            (_, value) => {
                kept.insert(key, value);
            }
        }
    }
    Value::Object(kept)
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    /// `make schema` writes them.
    #[test]
    fn the_committed_definitions_are_these() {
        let header = "# Generated from node-agent/src/store/record.rs: `make schema`.\n";
        for definition in custom_resource_definitions() {
            let yaml = format!("{header}{}", serde_saphyr::to_string(&definition).unwrap());
            let plural = definition["spec"]["names"]["plural"].as_str().unwrap();
            expect_file![format!("{}/../config/deploy/crds/{plural}.yaml", env!("CARGO_MANIFEST_DIR"))]
                .assert_eq(&yaml);
        }
    }

    #[test]
    fn schemas_are_structural() {
        fn walk(schema: &Value, path: &str) {
            let Some(object) = schema.as_object() else { return };
            for forbidden in ["$ref", "uniqueItems", "anyOf", "oneOf", "nullable", "default"] {
                assert!(!object.contains_key(forbidden), "{path} has {forbidden}");
            }
            assert!(object.get("type").is_some_and(Value::is_string), "{path} has no type: {schema}");
            for (name, property) in object.get("properties").and_then(Value::as_object).into_iter().flatten()
            {
                walk(property, &format!("{path}.{name}"));
            }
            for inner in ["items", "additionalProperties"] {
                if let Some(schema) = object.get(inner).filter(|schema| schema.is_object()) {
                    walk(schema, &format!("{path}.{inner}"));
                }
            }
        }
        for definition in custom_resource_definitions() {
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            walk(schema, "");
            assert_eq!(schema["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"], true);
        }
    }
}
