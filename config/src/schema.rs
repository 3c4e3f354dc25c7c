//! The JSON schema of the file: generated from `raw`, committed as `config/schema.json`, and what a file is
//! checked against.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

use crate::raw;

/// Marks a key `live` (a running agent takes a new value over), `restart`, or `refused` (within a live list).
pub(crate) const RELOAD: &str = "x-pairway-reload";

static SCHEMA: LazyLock<Json> = LazyLock::new(generate);

/// The JSON schema (draft 2020-12) of a configuration file. `x-pairway-reload` marks each key `live` or
/// `restart` (`refused`: never changes); what stands below a marked key goes with it.
#[must_use]
pub fn schema() -> &'static Json {
    &SCHEMA
}

fn generate() -> Json {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.clone().into_generator().into_root_schema_for::<raw::File>().to_value();
    simplify(&mut schema);
    schema["required"] = json!(["pools"]);

    let mut item = settings.into_generator().into_root_schema_for::<raw::Override>().to_value();
    simplify(&mut item);
    let overridden: Vec<String> = schema["properties"]
        .as_object()
        .map_or_else(Vec::new, |all| all.keys().filter(|key| *key != "version").cloned().collect());
    for key in &overridden {
        item["properties"][key] = json!({ "$ref": format!("#/properties/{key}") });
    }
    if let Some(item) = item.as_object_mut() {
        item.retain(|key, _| !matches!(key.as_str(), "$schema" | "title" | "description"));
    }
    let overrides = json!({
        "description": "What differs on some nodes: the first entry that matches the node's name is merged over the \
                        rest of the file. Maps are merged key by key, lists and values are replaced.",
        "type": "array",
        "items": item,
        "default": [],
    });
    if let Some(properties) = schema["properties"].as_object_mut() {
        *properties = inserted_after(properties, "node", "overrides", overrides);
    }
    schema
}

/// Takes away defaults that say nothing (the empty `pools`, a section's sum of its keys), and bounds every number.
fn simplify(schema: &mut Json) {
    match schema {
        Json::Object(object) => {
            let section = object.contains_key("properties");
            let needed = object.contains_key("minItems") && object.get("default") == Some(&json!([]));
            if section || needed {
                object.remove("default");
            }
            // Left open by the generator, for JSON knows no widths; the checks rely on the bound.
            if object.get("format") == Some(&json!("uint32")) {
                object.entry("maximum").or_insert_with(|| u32::MAX.into());
            }
            for text in object.get_mut("description").into_iter() {
                if let Some(one_line) = text.as_str().map(|text| text.replace('\n', " ")) {
                    *text = one_line.into();
                }
            }
            object.values_mut().for_each(simplify);
        }
        Json::Array(items) => items.iter_mut().for_each(simplify),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

fn inserted_after(map: &Map<String, Json>, after: &str, key: &str, value: Json) -> Map<String, Json> {
    let mut result = Map::new();
    for (name, present) in map {
        result.insert(name.clone(), present.clone());
        if name == after {
            result.insert(key.to_owned(), value.clone());
        }
    }
    result
}

/// Every key that is marked, with its mark, in the order of the file: `("bgp.asn", "restart")`.
pub(crate) fn reload_marks() -> Vec<(String, &'static str)> {
    fn walk(path: &str, schema: &'static Json, marks: &mut Vec<(String, &'static str)>) {
        if let Some(mark) = schema.get(RELOAD).and_then(Json::as_str) {
            marks.push((path.to_owned(), mark));
            return;
        }
        for (key, child) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            walk(&path, child, marks);
        }
    }
    let mut marks = Vec::new();
    walk("", schema(), &mut marks);
    marks
}
