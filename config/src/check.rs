//! Each key by itself: a tree against the schema.
//!
//! Covers the part of JSON schema that ours uses (a test holds it to that), reports every mistake, and returns
//! what is left without the mistaken parts, so that the rules between keys can be checked in the same run.

use serde_json::Value as Json;

use crate::error::{Finding, Findings, printable};
use crate::tree::{Entry, Kind, Node, Scalar, Value};
use crate::{format, later};

/// Checks the document. The result lacks what is wrong; also required keys may be missing in its top level.
pub(crate) fn document(node: &Node, schema: &Json, findings: &mut Findings) -> Node {
    let entries = match &node.value {
        Value::Map(entries) => Checker { findings }.map(node, entries, schema).0,
        Value::List(_) | Value::Scalar(_) => {
            Checker { findings }.wrong_type(node, schema);
            Vec::new()
        }
    };
    Node { value: Value::Map(entries), ..node.clone() }
}

/// Checks a value below the document; `None` if nothing usable is left of it.
pub(crate) fn value(node: &Node, schema: &Json, findings: &mut Findings) -> Option<Node> {
    Checker { findings }.value(node, schema)
}

struct Checker<'f> {
    findings: &'f mut Findings,
}

impl Checker<'_> {
    fn value(&mut self, node: &Node, schema: &Json) -> Option<Node> {
        if matches!(&node.value, Value::Scalar(scalar) if scalar.kind == Kind::Broken) {
            return None;
        }
        if let Some(choices) = choices(schema) {
            return self.choice(node, &choices).then(|| node.clone());
        }
        match (&node.value, accepts(schema)) {
            (Value::Map(entries), types) if types.contains(&"object") => {
                let (entries, complete) = self.map(node, entries, schema);
                complete.then(|| Node { value: Value::Map(entries), ..node.clone() })
            }
            (Value::List(items), types) if types.contains(&"array") => self.list(node, items, schema),
            (Value::Scalar(scalar), types) if scalar.kind == Kind::Integer && types.contains(&"integer") => {
                self.integer(node, scalar, schema).then(|| node.clone())
            }
            (Value::Scalar(scalar), types) if scalar.kind == Kind::Bool && types.contains(&"boolean") => {
                Some(node.clone())
            }
            (Value::Scalar(scalar), types) if is_text(scalar) && types.contains(&"string") => {
                self.text(node, scalar, schema)
            }
            _ => {
                self.wrong_type(node, schema);
                None
            }
        }
    }

    /// The good entries, and whether all that are required are among them.
    fn map(&mut self, node: &Node, entries: &[Entry], schema: &Json) -> (Vec<Entry>, bool) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        let mut good = Vec::new();
        for entry in entries {
            let known = properties.and_then(|properties| properties.get(&entry.key));
            let Some(schema_of_value) = known.or(others) else {
                self.unknown_key(entry, schema);
                continue;
            };
            if known.is_none() && !self.key_form(entry, schema) {
                continue;
            }
            if let Some(node) = self.value(&entry.node, schema_of_value) {
                good.push(Entry { node, ..entry.clone() });
            }
        }
        let mut complete = true;
        for key in
            schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str)
        {
            complete &= good.iter().any(|entry| entry.key == key);
            // A key that is only misspelt is one mistake, not two.
            let misspelt = properties.is_some_and(|properties| {
                let known: Vec<&str> = properties.keys().map(String::as_str).collect();
                let unknown = entries.iter().filter(|entry| !properties.contains_key(&entry.key));
                unknown.into_iter().any(|entry| nearest(&entry.key, &known) == Some(key))
            });
            if !misspelt && !entries.iter().any(|entry| entry.key == key) {
                let problem = format!("the key `{key}` is missing");
                let hint = match key {
                    "pools" => "for example pools: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]".to_owned(),
                    _ => properties
                        .and_then(|properties| properties.get(key)?.get("description")?.as_str())
                        .map_or_else(String::new, |text| format!("add it: {}", lowered(text))),
                };
                self.findings.push(Finding::new(node.at, &node.path, "", problem, &hint));
            }
        }
        (good, complete)
    }

    fn unknown_key(&mut self, entry: &Entry, schema: &Json) {
        let key = printable(&entry.key, 60);
        if let Some(feature) = later::key(&entry.node.path) {
            let problem = format!("`{key}` is not in this version");
            let hint = format!("{feature} will come; remove the key");
            self.findings.push(Finding::new(entry.at, &entry.node.path, &entry.key, problem, &hint));
            return;
        }
        let known: Vec<&str> = schema
            .get("properties")
            .and_then(Json::as_object)
            .map_or_else(Vec::new, |properties| properties.keys().map(String::as_str).collect());
        let hint = match nearest(&entry.key, &known) {
            Some(similar) => format!("did you mean `{similar}`?"),
            None => format!("the keys here are {}", known.join(", ")),
        };
        let problem = format!("unknown key `{key}`");
        self.findings.push(Finding::new(entry.at, &entry.node.path, &entry.key, problem, &hint));
    }

    fn key_form(&mut self, entry: &Entry, schema: &Json) -> bool {
        let form = schema.get("propertyNames").and_then(|names| names.get("format")).and_then(Json::as_str);
        match form.map(|form| format::check(form, &entry.key)) {
            Some(Err(malformed)) => {
                let path = &entry.node.path;
                self.findings.push(Finding::new(
                    entry.at,
                    path,
                    &entry.key,
                    malformed.problem,
                    &malformed.hint,
                ));
                false
            }
            Some(Ok(())) | None => true,
        }
    }

    fn list(&mut self, node: &Node, items: &[Node], schema: &Json) -> Option<Node> {
        let bound =
            |name: &str| schema.get(name).and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok());
        let (least, most) = (bound("minItems").unwrap_or(0), bound("maxItems").unwrap_or(usize::MAX));
        let fits = (least..=most).contains(&items.len());
        if !fits {
            let wanted = if least == most { format!("{least}") } else { format!("at least {least}") };
            let problem = format!("the list has {} entries", items.len()).replace("1 entries", "1 entry");
            self.findings.push(Finding::new(node.at, &node.path, "", problem, &format!("write {wanted}")));
        }
        let good: Vec<Node> = match schema.get("items") {
            Some(schema) => items.iter().filter_map(|item| self.value(item, schema)).collect(),
            None => items.to_vec(),
        };
        // Of a list of a fixed length every entry counts.
        let usable = fits && (least != most || good.len() == items.len());
        usable.then(|| Node { value: Value::List(good), ..node.clone() })
    }

    fn integer(&mut self, node: &Node, scalar: &Scalar, schema: &Json) -> bool {
        let bound = |name: &str| schema.get(name).and_then(Json::as_i64).map(i128::from);
        let (least, most) = (bound("minimum"), bound("maximum"));
        let value = scalar.integer();
        if value
            .is_some_and(|value| least.is_none_or(|min| value >= min) && most.is_none_or(|max| value <= max))
        {
            return true;
        }
        let hint = match (least, most) {
            (Some(least), Some(most)) if least == most => format!("only {least} is in this version"),
            (Some(least), Some(most)) => format!("write {least} to {most}"),
            (Some(least), None) => format!("write {least} or more"),
            (None, Some(most)) => format!("write {most} or less"),
            (None, None) => "write a smaller number".to_owned(),
        };
        let problem = format!("{} is out of range", printable(&scalar.text, 40));
        self.findings.push(Finding::new(node.at, &node.path, &scalar.text, problem, &hint));
        false
    }

    /// The text, or what is meant by it, to go on with.
    fn text(&mut self, node: &Node, scalar: &Scalar, schema: &Json) -> Option<Node> {
        let Some(form) = schema.get("format").and_then(Json::as_str) else { return Some(node.clone()) };
        match format::check(form, &scalar.text) {
            Ok(()) => Some(node.clone()),
            Err(malformed) => {
                let problem = malformed.problem.replace(&scalar.text, &printable(&scalar.text, 60));
                self.findings.push(Finding::new(node.at, &node.path, &scalar.text, problem, &malformed.hint));
                let meant = malformed.meant?;
                let scalar = Scalar { text: meant, kind: Kind::Text };
                Some(Node { value: Value::Scalar(scalar), ..node.clone() })
            }
        }
    }

    fn choice(&mut self, node: &Node, choices: &[&str]) -> bool {
        let text = match &node.value {
            Value::Scalar(scalar) if scalar.kind != Kind::Null => scalar.text.as_str(),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => "",
        };
        if choices.contains(&text) {
            return true;
        }
        let shown = printable(text, 40);
        let (problem, hint) = match later::value(&node.path, text) {
            Some(feature) => {
                (format!("`{shown}` is not in this version"), format!("{feature} will come; now"))
            }
            None if text.is_empty() => {
                (format!("{} is no value of this key", described(node)), String::new())
            }
            None => (format!("`{shown}` is no value of this key"), String::new()),
        };
        let allowed = format!("{hint} use {}", one_of(choices));
        self.findings.push(Finding::new(node.at, &node.path, text, problem, allowed.trim()));
        false
    }

    fn wrong_type(&mut self, node: &Node, schema: &Json) {
        let types = accepts(schema);
        let wanted = if types.contains(&"array") && types.contains(&"string") {
            "text or a list"
        } else {
            match types.first().copied() {
                Some("object") => "a map of keys",
                Some("array") => "a list",
                Some("integer") => "a number",
                Some("boolean") => "true or false",
                _ => "text",
            }
        };
        let text = match &node.value {
            Value::Scalar(scalar) => scalar.text.as_str(),
            Value::List(_) | Value::Map(_) => "",
        };
        let hint = match &node.value {
            Value::Scalar(scalar) => other_writing(scalar, schema),
            Value::List(_) | Value::Map(_) => String::new(),
        };
        let problem = format!("{} stands where {wanted} is due", described(node));
        self.findings.push(Finding::new(node.at, &node.path, text, problem, &hint));
    }
}

/// How a scalar of the wrong type would have to be written, where that is clear.
fn other_writing(scalar: &Scalar, schema: &Json) -> String {
    let (text, types) = (printable(&scalar.text, 40), accepts(schema));
    let quoted = scalar.kind == Kind::Quoted;
    if scalar.kind == Kind::Null {
        "remove the key, or give it a value".to_owned()
    } else if unquoted_fits(scalar, &types) {
        if quoted && !text.starts_with('0') {
            format!("remove the quotes: {text}")
        } else {
            format!("write {}, without leading zeros", text.trim_start_matches('0'))
        }
    } else if schema.get("format").is_some_and(|form| form == "duration") {
        format!("write a number with its unit, for example {text}s")
    } else if schema.get("format").is_some_and(|form| form == "percent") {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("write {text}%")
        } else {
            "write a whole number of percent, for example 50%".to_owned()
        }
    } else if let Some(meant) = truth(scalar).filter(|_| types.contains(&"boolean")) {
        format!("write {meant}")
    } else if types.contains(&"string") && !is_text(scalar) {
        format!("quote it: \"{text}\"")
    } else if types.contains(&"array") {
        format!("write [{text}]")
    } else {
        String::new()
    }
}

/// What words are truth values elsewhere, in YAML 1.1 for instance; in YAML 1.2 they are text.
fn truth(scalar: &Scalar) -> Option<bool> {
    match scalar.text.to_ascii_lowercase().as_str() {
        "yes" | "y" | "on" | "true" | "1" => Some(true),
        "no" | "n" | "off" | "false" | "0" => Some(false),
        _ => None,
    }
}

fn is_text(scalar: &Scalar) -> bool {
    matches!(scalar.kind, Kind::Text | Kind::Quoted)
}

fn unquoted_fits(scalar: &Scalar, types: &[&str]) -> bool {
    let number = !scalar.text.is_empty() && scalar.text.chars().all(|c| c.is_ascii_digit());
    (types.contains(&"integer") && number)
        || (types.contains(&"boolean") && matches!(scalar.text.as_str(), "true" | "false"))
}

/// What a value is, for people.
fn described(node: &Node) -> String {
    match &node.value {
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
        Value::Scalar(scalar) => {
            let text = printable(&scalar.text, 40);
            match scalar.kind {
                Kind::Null | Kind::Broken => "nothing".to_owned(),
                Kind::Bool => format!("the truth value {text}"),
                Kind::Integer => format!("the number {text}"),
                Kind::Float => format!("the fraction {text}"),
                Kind::Text => format!("the text `{text}`"),
                Kind::Quoted => format!("the text \"{text}\""),
            }
        }
    }
}

/// The words of an enumeration, if the schema is one.
fn choices(schema: &Json) -> Option<Vec<&str>> {
    if let Some(words) = schema.get("enum").and_then(Json::as_array) {
        return Some(words.iter().filter_map(Json::as_str).collect());
    }
    schema.get("const").and_then(Json::as_str).map(|word| vec![word])
}

fn accepts(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|word| format!("`{word}`")).collect();
            format!("{} or `{last}`", first.join(", "))
        }
    }
}

fn lowered(text: &str) -> String {
    let mut characters = text.trim_end_matches('.').chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

/// The word that `typed` was meant to be: at most two edits away, of short words one.
fn nearest<'w>(typed: &str, words: &[&'w str]) -> Option<&'w str> {
    let lower = typed.to_lowercase();
    if lower.len() > 40 {
        return None;
    }
    let limit = if lower.chars().count() < 4 { 1 } else { 2 };
    words
        .iter()
        .map(|word| (edits(&lower, &word.to_lowercase()), *word))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Insertions, deletions, substitutions and swaps of neighbours between two words.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (rows[i][j] + usize::from(x != y)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word of the schema that this does not understand would be a rule that nobody enforces.
    #[test]
    fn the_schema_uses_only_what_is_checked() {
        const UNDERSTOOD: [&str; 20] = [
            "$ref",
            "$schema",
            "additionalProperties",
            "const",
            "default",
            "description",
            "enum",
            "format",
            "items",
            "maxItems",
            "maximum",
            "minItems",
            "minimum",
            "properties",
            "propertyNames",
            "required",
            "title",
            "type",
            "x-pairway-reload",
            "examples",
        ];
        const FORMATS: [&str; 25] = [
            "address",
            "cidr",
            "conflist-path",
            "device-prefix",
            "duration",
            "endpoint",
            "glob",
            "key-prefix",
            "label-key",
            "label-value",
            "namespace",
            "node-name",
            "path",
            "path-or-none",
            "peer-name",
            "percent",
            "router-id",
            "socket-address",
            "socket-path",
            "table-name",
            "text",
            "underlay",
            "uint8",
            "uint16",
            "uint32",
        ];
        fn walk(schema: &Json) {
            for (word, value) in schema.as_object().unwrap() {
                assert!(UNDERSTOOD.contains(&word.as_str()), "{word}");
                match word.as_str() {
                    "properties" => value.as_object().unwrap().values().for_each(walk),
                    "items" | "propertyNames" => walk(value),
                    "additionalProperties" if value.is_object() => walk(value),
                    "format" => assert!(FORMATS.contains(&value.as_str().unwrap()), "{value}"),
                    _ => {}
                }
            }
        }
        walk(crate::schema());
    }

    #[test]
    fn suggestions() {
        let words = ["name", "underlay", "labels", "holdTime", "asn"];
        for (typed, expected) in [
            ("nmae", Some("name")),
            ("holdtime", Some("holdTime")),
            ("hold_time", Some("holdTime")),
            ("label", Some("labels")),
            ("ans", Some("asn")),
            ("as", Some("asn")),
            ("peers", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, &words), expected, "{typed}");
        }
    }
}
