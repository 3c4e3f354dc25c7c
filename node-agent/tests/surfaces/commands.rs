//! Every command that asks an agent: both outputs and the exit status.

use expect_test::{expect, expect_file};
use node_agent::status::{Published, Severity, Status};

use crate::fixtures;
use crate::program::{Api, asking, pairway, run};

#[test]
fn json_of_every_command_is_as_promised() {
    let api = Api::new(fixtures::published());
    let commands = [
        ("status", 0, expect_file!["golden/status.json"]),
        ("pairs", 0, expect_file!["golden/pairs.json"]),
        ("routes", 0, expect_file!["golden/routes.json"]),
        ("bgp neighbors", 0, expect_file!["golden/bgp-neighbors.json"]),
        ("blocks list", 0, expect_file!["golden/blocks-list.json"]),
        ("blocks claim", 0, expect_file!["golden/blocks-claim.json"]),
        ("blocks release 10.244.1.0/24 --force", 0, expect_file!["golden/blocks-release.json"]),
        ("node delete n3", 0, expect_file!["golden/node-delete.json"]),
        ("version", 0, expect_file!["golden/version.json"]),
    ];
    for (command, code, golden) in commands {
        let arguments: Vec<&str> = command.split(' ').chain(["-o", "json"]).collect();
        let ended = api.run(&arguments);
        assert_eq!((ended.code, ended.err.as_str()), (code, ""), "{command}");
        golden.assert_eq(&ended.out);
    }
}

#[test]
fn tables_are_for_people() {
    let api = Api::new(fixtures::published());
    for (command, code, first) in [
        ("status", 0, "Node      n1\n"),
        ("pairs", 0, "PEER  FAMILY  PATH    PREDICTED  REASON        MTU   READY  BLOCKS\n"),
        ("routes", 0, "PREFIX          TABLE  KIND         NODE  VIA          DEVICE       STATE\n"),
        ("bgp neighbors", 0, "NAME  KIND      ADDRESS      AS     STATE"),
        ("blocks list", 0, "BLOCK              NODE  OWN\n"),
        ("blocks claim 10.244.0.0/16", 0, "claimed 10.244.9.0/24\n"),
        (
            "blocks release 10.244.1.0/24 --force",
            0,
            "released 10.244.1.0/24; other nodes leave it alone for 10m0s if they can\nclaimed 10.244.3.0/24 in its place\nthe tunnel address 10.244.1.0 has gone",
        ),
        ("node delete n2 --force", 0, "deleted node n2\nreleased 10.244.10.0/24\n"),
        ("version", 0, concat!("pairway ", env!("CARGO_PKG_VERSION"), "\n")),
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let ended = api.run(&arguments);
        assert_eq!((ended.code, ended.err.as_str()), (code, ""), "{command}");
        assert!(ended.out.starts_with(first), "{command}: {}", ended.out);
        assert!(!ended.out.contains('\u{1b}'), "no colours where there is no terminal: {}", ended.out);
    }
}

#[test]
fn filters_reach_the_output() {
    let api = Api::new(fixtures::published());
    let peers = |arguments: &[&str]| -> Vec<String> {
        let list = api.run(&[arguments, &["-o", "json"]].concat()).json();
        list.as_array()
            .expect("a list")
            .iter()
            .map(|entry| {
                ["peer", "name", "node"].iter().find_map(|key| entry[*key].as_str()).unwrap().to_owned()
            })
            .collect()
    };
    assert_eq!(peers(&["pairs", "--peer", "n2"]), ["n2", "n2"]);
    assert_eq!(peers(&["pairs", "--unready"]), ["n3"]);
    assert_eq!(peers(&["pairs", "--path", "native", "--family", "ipv6"]), ["n2"]);
    assert_eq!(peers(&["routes", "--state", "missing"]), ["n3"]);
    assert_eq!(peers(&["bgp", "neighbors", "--down"]), ["tor"]);
    assert_eq!(peers(&["blocks", "list", "--own"]), ["n1", "n1"]);
    assert!(peers(&["pairs", "--peer", "n3", "--path", "native"]).is_empty());
}

#[test]
fn a_name_that_nobody_has_is_no_empty_list() {
    let api = Api::new(fixtures::published());
    for (arguments, said) in [
        (&["pairs", "--peer", "n9"][..], "pairway: no pair with node n9\nhint: there are n2, n3\n"),
        (&["routes", "--node", "n9"], "pairway: no route to node n9\nhint: there are n2, n3\n"),
        (&["bgp", "neighbors", "--name", "n9"], "pairway: no BGP neighbour n9\nhint: there are n2, tor\n"),
        (&["blocks", "list", "--node", "n9"], "pairway: no block of node n9\nhint: there are n1, n2, n3\n"),
    ] {
        let ended = api.run(arguments);
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (1, "", said), "{arguments:?}");
        let ended = api.run(&[arguments, &["-o", "json"]].concat());
        assert_eq!((ended.code, ended.json()["error"]["code"].as_str()), (1, Some("not-found")));
    }
}

#[test]
fn an_empty_list_is_a_list_for_programs_and_a_word_for_people() {
    let api = Api::new(Published::default());
    for (arguments, word) in [
        (&["pairs"][..], "no pairs\n"),
        (&["routes"], "no routes\n"),
        (&["bgp", "neighbors"], "no BGP neighbours\n"),
        (&["blocks", "list"], "no blocks\n"),
    ] {
        let ended = api.run(arguments);
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, "", word));
        let ended = api.run(&[arguments, &["-o", "json"]].concat());
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, "[]\n", ""));
    }
}

#[test]
fn status_ends_with_0_only_where_all_is_well() {
    let status = Status { ready: true, conditions: Vec::new(), ..fixtures::published().status };
    let code = |status: Status| Api::new(Published { status, ..Published::default() }).run(&["status"]).code;
    assert_eq!(code(status.clone()), 0);
    assert_eq!(code(Status { ready: false, ..status }), 1);
    let mut status = fixtures::published().status;
    assert_eq!(code(status.clone()), 0, "a warning is for people");
    status.conditions[0].severity = Severity::Error;
    assert_eq!(code(status), 1, "a condition of this node is a finding");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut published = fixtures::published();
    let pair = published.pairs[0].clone();
    // More than a pipe holds, so that the writer is still at it.
    published.pairs.extend(std::iter::repeat_n(pair, 3000));
    let api = Api::new(published);
    for format in ["table", "json"] {
        let mut child = asking(&api.socket(), &["pairs", "-o", format]).spawn().expect("the binary starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("a child of ours");
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn what_the_agent_refuses_is_told_with_a_way_out() {
    let api = Api::new(fixtures::published());
    let ended = api.run(&["node", "delete", "n2"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    expect![[r#"
        pairway: n2 was seen 2 s ago: its agent runs
        hint: end it first, or use --force
    "#]]
    .assert_eq(&ended.err);
    let ended = api.run(&["blocks", "claim", "10.245.0.0/16", "-o", "json"]);
    assert_eq!((ended.code, ended.err.as_str()), (1, ""));
    expect_file!["golden/error.json"].assert_eq(&ended.out);
    let ended = api.run(&["blocks", "release", "10.244.1.0/24", "-o", "json"]);
    assert_eq!((ended.code, ended.json()["error"]["code"].as_str()), (1, Some("in-use")));
    let ended = api.run(&["blocks", "release", "10.244.1.7/24", "-o", "json"]);
    assert_eq!((ended.code, ended.json()["error"]["code"].as_str()), (2, Some("invalid")));
    assert_eq!(ended.json()["error"]["hint"].as_str(), Some("10.244.1.0/24 is the block around it"));
    let ended = api.run(&["blocks", "release", "n1", "-o", "json"]);
    assert_eq!((ended.code, ended.json()["error"]["code"].as_str()), (2, Some("usage")));
    let ended = api.run(&["node", "delete", "No_Name", "-o", "json"]);
    assert_eq!((ended.code, ended.json()["error"]["code"].as_str()), (2, Some("invalid")));
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&mut pairway(&["completions", shell]));
        assert_eq!(ended.code, 0);
        assert!(["neighbors", "release"].iter().all(|word| ended.out.contains(word)), "{shell}");
    }
}
