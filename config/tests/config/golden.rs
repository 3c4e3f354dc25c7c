//! What is generated and committed: the schema and the reference page. `UPDATE_EXPECT=1 cargo test -p config`
//! writes them anew (`make schema`).

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Holds a committed file to what is generated now.
fn golden(path: &str, generated: &str) {
    let file = root().join(path);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, generated).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == generated, "{path} has drifted: run `make schema` and commit the result");
}

#[test]
fn schema() {
    let mut text = serde_json::to_string_pretty(config::schema()).unwrap();
    text.push('\n');
    golden("config/schema.json", &text);
}

#[test]
fn reference() {
    golden("docs/configuration.md", &reference_page(config::schema()));
}

const HEAD: &str = "\
# Configuration

<!-- Generated from the types in config/src/raw.rs by `make schema`: don't edit this page. -->

One YAML file, the same for every node: `pairway agent --config FILE`. What differs per node comes from the node
itself, or from [`overrides`](#overrides). Everything but [`pools`](#pools) has a default, so this is a whole
configuration:

```yaml
pools:
  - { cidr: 10.244.0.0/16, blockPrefix: 24 }
```

`pairway validate FILE` reads a file as the agent would, reports every mistake with line and column, and prints the
effective configuration of this node. More examples are in [`config/samples`](../config/samples); editors find the
schema in [`config/schema.json`](../config/schema.json).

How to read the tables: a *live* key is taken over by a running agent when the file changes; a *restart* key is
refused until the agent starts again, which goes on with what it had; a *refused* one never changes (for another
block prefix add another pool). Durations are numbers with a unit (`500ms`, `9s`, `10m`, `1h30m`, `2d`). YAML is read strictly: unknown and
double keys, tags and merge keys (`<<`) are mistakes, and `\"64512\"` is text, not a number.
";

fn reference_page(schema: &Json) -> String {
    let mut page = HEAD.to_owned();
    let properties = schema["properties"].as_object().unwrap();
    let scalars: Vec<_> = properties.iter().filter(|(_, schema)| !is_section(schema)).collect();
    page.push_str("\n## Top level\n\n");
    table(&mut page, scalars.iter().map(|(key, schema)| ((*key).clone(), *schema, None)));
    for (key, section) in properties.iter().filter(|(_, schema)| is_section(schema)) {
        page.push_str(&format!("\n## {key}\n\n{}\n\n", description(section)));
        let mut rows = Vec::new();
        let mark = section.get("x-pairway-reload");
        match section.get("items") {
            Some(items) => collect(&format!("{key}[]"), items, mark, &mut rows),
            None => collect(key, section, mark, &mut rows),
        }
        table(&mut page, rows.into_iter());
        if key == "overrides" {
            page.push_str("\nBeside `match` an entry has any key of this page but `version`, `overrides` and `node.name`.\n");
        }
    }
    page
}

fn is_section(schema: &Json) -> bool {
    schema.get("properties").is_some()
        || schema.get("items").is_some_and(|items| items.get("properties").is_some())
}

/// Rows of every key below `schema`, with the reload mark that holds for it.
fn collect<'s>(
    path: &str,
    schema: &'s Json,
    mark: Option<&'s Json>,
    rows: &mut Vec<(String, &'s Json, Option<&'s Json>)>,
) {
    for (key, child) in schema["properties"].as_object().unwrap() {
        if child.get("$ref").is_some() {
            continue;
        }
        let path = format!("{path}.{key}");
        let mark = child.get("x-pairway-reload").or(mark);
        let nested = child.get("properties").is_some();
        if !nested {
            rows.push((path.clone(), child, mark));
        }
        match child.get("items").filter(|items| items.get("properties").is_some()) {
            Some(items) => collect(&format!("{path}[]"), items, mark, rows),
            None if nested => collect(&path, child, mark, rows),
            None => {}
        }
    }
}

fn table<'s>(page: &mut String, rows: impl Iterator<Item = (String, &'s Json, Option<&'s Json>)>) {
    page.push_str("| key | value | default | change | |\n|---|---|---|---|---|\n");
    for (path, schema, mark) in rows {
        let mark = mark.or_else(|| schema.get("x-pairway-reload")).and_then(Json::as_str).unwrap_or("");
        let default = schema.get("default").map_or_else(String::new, |default| match default {
            Json::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        });
        page.push_str(&format!(
            "| `{path}` | {} | {default} | {mark} | {} |\n",
            value(schema),
            description(schema).replace('|', "\\|")
        ));
    }
}

fn description(schema: &Json) -> &str {
    schema.get("description").and_then(Json::as_str).unwrap_or("")
}

/// What may stand there, in a word or two.
fn value(schema: &Json) -> String {
    if let Some(words) = schema.get("enum").and_then(Json::as_array) {
        let words: Vec<_> = words.iter().filter_map(Json::as_str).map(|word| format!("`{word}`")).collect();
        return words.join(", ");
    }
    if let Some(word) = schema.get("const").and_then(Json::as_str) {
        return format!("`{word}`");
    }
    let form = schema.get("format").and_then(Json::as_str).unwrap_or("text").replace('-', " ");
    let kind = match &schema["type"] {
        Json::String(kind) => kind.as_str(),
        _ => return format!("{form}, or a list"),
    };
    match kind {
        "array" => match schema.get("items") {
            Some(items) if items.get("properties").is_some() => "list".to_owned(),
            Some(items) => format!("list of {}", value(items)),
            None => "list".to_owned(),
        },
        "integer" => match (schema.get("minimum"), schema.get("maximum")) {
            (Some(least), Some(most)) if least == most => least.to_string(),
            (Some(least), Some(most)) => format!("{least} to {most}"),
            (Some(least), None) => format!("{least} or more"),
            _ => "number".to_owned(),
        },
        "boolean" => "`true`, `false`".to_owned(),
        "object" => "labels".to_owned(),
        _ => form.replace("cidr", "CIDR"),
    }
}
