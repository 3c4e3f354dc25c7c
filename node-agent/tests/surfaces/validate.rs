//! `pairway validate`: good files, bad files, and no files.

use expect_test::{expect, expect_file};

use crate::program::{pairway, run};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/samples/overrides.yaml");

#[test]
fn what_holds_on_a_node_is_a_configuration_itself() {
    let ended = run(&mut pairway(&["validate", SAMPLE, "--node", "gpu-7"]));
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert!(ended.out.starts_with("# node gpu-7, with overrides[0]\n"), "{}", ended.out);
    let folder = tempfile::tempdir().expect("a folder");
    let again = folder.path().join("effective.yaml");
    std::fs::write(&again, &ended.out).expect("a file");
    let second = run(&mut pairway(&["validate", again.to_str().expect("UTF-8")]));
    let body = |text: &str| text.split_once('\n').expect("a first line").1.to_owned();
    assert_eq!(body(&second.out), body(&ended.out));
    assert!(second.out.starts_with("# node gpu-7\n"), "the effective configuration names its node");
}

#[test]
fn json_for_programs() {
    let ended = run(&mut pairway(&["validate", SAMPLE, "--node", "gpu-7", "-o", "json"]));
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    expect_file!["golden/validate.json"].assert_eq(&ended.out);
    let other = run(&mut pairway(&["validate", SAMPLE, "--node", "n1", "-o", "json"])).json();
    assert!(other["override"].is_null());
    assert_eq!(other["config"]["bgp"]["asn"], 64512);
}

#[test]
fn the_name_comes_from_the_environment_before_the_host() {
    let ended = run(pairway(&["validate", SAMPLE]).env("NODE_NAME", "gpu-1"));
    assert!(ended.out.starts_with("# node gpu-1, with"), "{}", ended.out);
    let ended = run(pairway(&["validate", SAMPLE]).env("NODE_NAME", "No Name"));
    assert_eq!((ended.code, ended.out.as_str()), (64, ""));
    assert!(ended.err.contains("NODE_NAME"), "{}", ended.err);
    let ended = run(&mut pairway(&["validate", SAMPLE, "--node", "No Name"]));
    assert_eq!(ended.code, 2);
}

#[test]
fn every_mistake_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join("bad.yaml"),
        "pools:\n  - { cidr: 10.244.0.1/16, blockPrefix: 24 }\nbgp: { asn: 0 }\nvxlam: {}\n",
    )
    .expect("a file");
    let ended = run(pairway(&["validate", "bad.yaml"]).current_dir(folder.path()));
    assert_eq!((ended.code, ended.out.as_str()), (64, ""));
    for place in ["bad.yaml:2:", "bad.yaml:3:", "bad.yaml:4:"] {
        assert!(ended.err.contains(place), "{place} in {}", ended.err);
    }
    assert!(ended.err.contains("pairway: 3 mistakes in bad.yaml\n"), "{}", ended.err);

    let ended = run(pairway(&["validate", "bad.yaml", "-o", "json"]).current_dir(folder.path()));
    assert_eq!((ended.code, ended.err.as_str()), (64, ""));
    let error = &ended.json()["error"];
    assert_eq!(error["code"], "config");
    let lines: Vec<u64> = error["mistakes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|m| m["line"].as_u64().expect("a line"))
        .collect();
    assert_eq!(lines, [2, 3, 4]);
}

#[test]
fn no_file_and_what_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let ended = run(pairway(&["validate", "missing.yaml"]).current_dir(folder.path()));
    assert_eq!((ended.code, ended.out.as_str()), (64, ""));
    expect![[r#"
        pairway: missing.yaml: can't be read: No such file or directory (os error 2)
        hint: check the path, or write the file
    "#]]
    .assert_eq(&ended.err);
    let ended = run(pairway(&["validate", "."]).current_dir(folder.path()));
    assert_eq!(ended.code, 64);
}

#[test]
fn a_rule_that_can_not_hold_everywhere_is_remarked_upon() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.yaml");
    let text = |use_: &str| {
        format!(
            "pools: [{{ cidr: 10.244.0.0/16, blockPrefix: 24 }}]\npaths: {{ rules: [{{ between: [{{}}, {{}}], use: {use_} }}] }}\n"
        )
    };
    for (use_, remarked) in [("direct", true), ("bgp", true), ("vxlan", false)] {
        std::fs::write(&file, text(use_)).expect("a file");
        let path = file.to_str().expect("UTF-8");
        let ended = run(&mut pairway(&["validate", path]));
        assert_eq!(ended.code, 0, "{}", ended.err);
        assert_eq!(ended.err.starts_with("note: paths.rules[0].use: "), remarked, "{}", ended.err);
        let ended = run(&mut pairway(&["validate", path, "-o", "json"]));
        assert_eq!(ended.json()["notes"].as_array().is_some_and(|notes| notes.len() == 1), remarked);
        assert_eq!(ended.err, "");
    }
}
