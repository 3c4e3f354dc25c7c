//! `docs/conditions.md` has every condition that the agent can show, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../../docs/conditions.md");

/// Words of this form in the sources that are no conditions.
const OTHERS: [&str; 14] = [
    "BeeGFS",
    "BlockClaim",
    "BlockPool",
    "BlockRelease",
    "ConfigSource",
    "CustomResourceDefinition",
    "IPv4",
    "IPv6",
    "NetworkUnavailable",
    "NodeRecord",
    "NotFound",
    "PairwayNotReady",
    "PairwayReady",
    "ServiceAccount",
];

#[test]
fn every_condition_is_explained_and_nothing_else() {
    let mut known = BTreeSet::new();
    words_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut known);
    assert!(known.len() > 30 && known.contains("BlockLost") && known.contains("Conflict"), "{known:?}");
    let explained = rows().into_iter().map(|row| row[0].trim_matches('`').to_owned());
    let explained: BTreeSet<String> = explained.collect();
    let missing: Vec<&String> = known.difference(&explained).collect();
    assert!(missing.is_empty(), "not in docs/conditions.md: {missing:?}");
    let stale: Vec<&String> = explained.difference(&known).collect();
    assert!(stale.is_empty(), "in docs/conditions.md, and no part of the agent says it: {stale:?}");
}

#[test]
fn every_row_says_what_is_wrong_what_it_means_and_what_mends_it() {
    let mut names = BTreeSet::new();
    for row in rows() {
        assert_eq!(row.len(), 4, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        assert!(names.insert(row[0].clone()), "{} is there twice", row[0]);
    }
}

/// Cells of the rows that begin with a condition.
fn rows() -> Vec<Vec<String>> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// Conditions are words like `BlockLost`, written as literals where they are raised; tests make up their own.
fn words_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("the sources").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                words_below(&path, found);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" && name != "fixtures.rs" {
            let text = fs::read_to_string(&path).expect("a source");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            found.extend(code.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(literals));
        }
    }
}

fn literals(line: &str) -> impl Iterator<Item = String> {
    let quoted = line.split('"').skip(1).step_by(2);
    quoted.filter(|word| is_condition(word)).map(str::to_owned)
}

/// At least two words, or the one condition that is a single one.
fn is_condition(word: &str) -> bool {
    let humps = word.chars().filter(char::is_ascii_uppercase).count();
    let is_word = word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.len() > humps
        && word.chars().all(|c| c.is_ascii_alphanumeric());
    is_word
        && (humps >= 2 || word == "Conflict")
        && word.contains(|c: char| c.is_ascii_lowercase())
        && !OTHERS.contains(&word)
}
