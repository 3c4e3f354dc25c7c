//! The document as a whole: several mistakes at once, text that is no YAML, limits.

use config::ConfigFile;
use expect_test::expect;

use super::{beside_a_pool, check};

#[test]
fn everything_wrong_at_once() {
    check(
        r#"version: 2
nodes: {}
pools:
  - { cidr: 10.244.1.0/16, blockPrefix: 24 }
  - { cidr: 10.245.0.0/16, blockPrefix: "24" }
  - { cidr: 10.246.0.0/16, blockPrefix: 12 }
  - { cidr: 10.246.4.0/24, blockPrefix: 26 }
bgp:
  asn: 23456
  holdtime: 9s
  peers:
    - { name: tor, address: 192.0.2.1, asn: 0 }
    - { name: tor, address: 10.246.0.7, asn: 65000 }
paths: { fallback: wireguard }
"#,
        expect![[r#"
            pairway.yaml:1:10: version: 2 is out of range
                1 | version: 2
                  |          ^ only 1 is in this version
            pairway.yaml:2:1: nodes: unknown key `nodes`
                2 | nodes: {}
                  | ^^^^^ did you mean `node`?
            pairway.yaml:4:13: pools[0].cidr: `10.244.1.0/16` has host bits set
                4 |   - { cidr: 10.244.1.0/16, blockPrefix: 24 }
                  |             ^^^^^^^^^^^^^ write `10.244.0.0/16`
            pairway.yaml:5:41: pools[1].blockPrefix: the text "24" stands where a number is due
                5 |   - { cidr: 10.245.0.0/16, blockPrefix: "24" }
                  |                                         ^^^^ remove the quotes: 24
            pairway.yaml:6:41: pools[2].blockPrefix: blocks of /12 are larger than their pool 10.246.0.0/16
                6 |   - { cidr: 10.246.0.0/16, blockPrefix: 12 }
                  |                                         ^^ write 16 to 30
            pairway.yaml:7:13: pools[3].cidr: `10.246.4.0/24` overlaps the pool 10.246.0.0/16 on line 6
                7 |   - { cidr: 10.246.4.0/24, blockPrefix: 26 }
                  |             ^^^^^^^^^^^^^ pools have no address in common
            pairway.yaml:9:8: bgp.asn: AS 23456 is AS_TRANS (RFC 6793)
                9 |   asn: 23456
                  |        ^^^^^ use your own, or one of the private ranges 64512 to 65534 and 4200000000 to 4294967294
            pairway.yaml:10:3: bgp.holdtime: unknown key `holdtime`
               10 |   holdtime: 9s
                  |   ^^^^^^^^ did you mean `holdTime`?
            pairway.yaml:12:45: bgp.peers[0].asn: AS 0 is reserved (RFC 7607)
               12 |     - { name: tor, address: 192.0.2.1, asn: 0 }
                  |                                             ^ use your own, or one of the private ranges 64512 to 65534 and 4200000000 to 4294967294
            pairway.yaml:13:15: bgp.peers[1].name: the peer on line 12 is called `tor` too
               13 |     - { name: tor, address: 10.246.0.7, asn: 65000 }
                  |               ^^^ give each its own name
            pairway.yaml:13:29: bgp.peers[1].address: `10.246.0.7` lies in the pool 10.246.0.0/16
               13 |     - { name: tor, address: 10.246.0.7, asn: 65000 }
                  |                             ^^^^^^^^^^ pools hold pods only: correct the address, or move the pool
            pairway.yaml:14:20: paths.fallback: `wireguard` is not in this version
               14 | paths: { fallback: wireguard }
                  |                    ^^^^^^^^^ WireGuard will come; now use `vxlan`, `ipip` or `none`
        "#]],
    );
}

#[test]
fn nothing() {
    check(
        "",
        expect![[r#"
        pairway.yaml:1:1: the file is empty; a whole configuration is: pools: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]
    "#]],
    );
    check(
        "# only a comment\n",
        expect![[r#"
        pairway.yaml:1:1: the file is empty
            1 | # only a comment
              | ^ a whole configuration is: pools: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]
    "#]],
    );
    check(
        "version: 1\n",
        expect![[r#"
        pairway.yaml:1:1: the key `pools` is missing
            1 | version: 1
              | ^ for example pools: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]
    "#]],
    );
    check(
        "pools: []\n",
        expect![[r#"
        pairway.yaml:1:8: pools: the list has 0 entries
            1 | pools: []
              |        ^ write at least 1
    "#]],
    );
    check(
        "[]\n",
        expect![[r#"
        pairway.yaml:1:1: a list stands where a map of keys is due
            1 | []
              | ^
    "#]],
    );
}

#[test]
fn no_yaml() {
    check(
        "pools: [\n",
        expect![[r#"
        pairway.yaml:1:8: this is not YAML: unclosed bracket '['
            1 | pools: [
              |        ^
    "#]],
    );
    check(
        "pools:\n\t- a\n",
        expect![[r#"
        pairway.yaml:2:2: this is not YAML: tabs disallowed within this context (block indentation)
            2 |  - a
              |  ^
    "#]],
    );
    check(
        "pools: {a: 1}}\n",
        expect![[r#"
        pairway.yaml:1:14: this is not YAML: misplaced bracket
            1 | pools: {a: 1}}
              |              ^
    "#]],
    );
    check(
        "a: 1\n---\nb: 2\n",
        expect![[r#"
        pairway.yaml:2:1: a second document begins
            2 | ---
              | ^^^ one file holds one configuration
    "#]],
    );
}

#[test]
fn yaml_that_is_not_taken() {
    beside_a_pool(
        "vxlan: { vni: 1, vni: 2 }\nbgp: { asn: 1 }\nbgp: { asn: 2 }\n",
        expect![[r#"
        pairway.yaml:2:18: vxlan.vni: the key `vni` is there already, on line 2
            2 | vxlan: { vni: 1, vni: 2 }
              |                  ^^^ keep one of the two
        pairway.yaml:4:1: bgp: the key `bgp` is there already, on line 3
            4 | bgp: { asn: 2 }
              | ^^^ keep one of the two
    "#]],
    );
    beside_a_pool(
        "vxlan: { vni: !!int 1 }\n",
        expect![[r#"
        pairway.yaml:2:21: vxlan.vni: a tag (`!...`) stands before the value
            2 | vxlan: { vni: !!int 1 }
              |                     ^ remove it: types follow from the keys
    "#]],
    );
    beside_a_pool(
        "bgp: &b { asn: 1 }\nvxlan: { <<: *b }\n",
        expect![[r#"
        pairway.yaml:3:10: vxlan: `<<` can't be a key
            3 | vxlan: { <<: *b }
              |          ^^ merge keys are not supported: write the keys out, or use `overrides`
    "#]],
    );
    beside_a_pool(
        "bgp: *nowhere\n",
        expect![[r#"
            pairway.yaml:2:6: bgp: no anchor &nowhere stands before the alias
                2 | bgp: *nowhere
                  |      ^^^^^^^^ name an anchor above it
        "#]],
    );
    beside_a_pool(
        "node: { labels: { 1: a, true: b } }\n",
        expect![[r#"
        pairway.yaml:2:19: node.labels: `1` can't be a key
            2 | node: { labels: { 1: a, true: b } }
              |                   ^ quote it: "1"
        pairway.yaml:2:25: node.labels: `true` can't be a key
            2 | node: { labels: { 1: a, true: b } }
              |                         ^^^^ quote it: "true"
    "#]],
    );
    beside_a_pool(
        "node: &n { labels: *n }\n",
        expect![[r#"
        pairway.yaml:2:20: node.labels: the alias stands within the value that it means
            2 | node: &n { labels: *n }
              |                    ^^ write the value out
    "#]],
    );
}

#[test]
fn long_lines_and_control_characters() {
    check(
        &format!("pools: [{{ cidr: {}, blockPrefix: 24 }}]\n", "x".repeat(500)),
        expect![[r#"
            pairway.yaml:1:17: pools[0].cidr: `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…` is not a CIDR
                1 | pools: [{ cidr: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
                  |                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ for example 10.244.0.0/16 or fd10:244::/48
        "#]],
    );
    check(
        "pools: [{ cidr: \"\\e[31mred\", blockPrefix: 24 }]\n",
        expect![[r#"
        pairway.yaml:1:17: pools[0].cidr: `�[31mred` is not a CIDR
            1 | pools: [{ cidr: "\e[31mred", blockPrefix: 24 }]
              |                 ^^^^^^^^^^^ for example 10.244.0.0/16 or fd10:244::/48
    "#]],
    );
}

#[test]
fn more_mistakes_than_anyone_reads() {
    let many: String = (0..60).map(|n| format!("k{n}x: 1\n")).collect();
    let errors = ConfigFile::parse(&many, "pairway.yaml").unwrap_err();
    assert_eq!(errors.iter().count(), 61);
    assert!(errors.to_string().ends_with("\nand 11 more"), "{errors}");
}

#[test]
fn aliases_that_multiply() {
    let mut text = "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let errors = ConfigFile::parse(&text, "pairway.yaml").unwrap_err();
    assert!(errors.to_string().contains("more than 50000 values"), "{errors}");
    // Aliases by themselves are fine.
    let text =
        "pools: [{ cidr: 10.244.0.0/16, blockPrefix: &b 24 }, { cidr: 10.245.0.0/16, blockPrefix: *b }]";
    assert_eq!(ConfigFile::parse(text, "pairway.yaml").unwrap().for_node("n").pools[1].block_prefix, 24);
}

#[test]
fn deep_nesting() {
    for text in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000), "? ".repeat(100_000)] {
        let errors = ConfigFile::parse(&text, "pairway.yaml").unwrap_err();
        assert!(errors.to_string().len() < 1000, "{errors}");
    }
}

#[test]
fn files_that_are_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let load = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        ConfigFile::load(&path).unwrap_err().to_string().replace(&folder.path().display().to_string(), "")
    };
    expect!["/latin1.yaml: line 1 is not UTF-8 text (byte 5 of the file); save the file as UTF-8"]
        .assert_eq(&load("latin1.yaml", b"# caf\xe9\npools: []\n"));
    expect!["/huge.yaml: the file has 2097152 bytes, at most 1048576 are read; is it the right file?"]
        .assert_eq(&load("huge.yaml", &vec![b'#'; 2 << 20]));
    expect!["/utf16.yaml: line 1 is not UTF-8 text (byte 0 of the file); save the file as UTF-8"]
        .assert_eq(&load("utf16.yaml", &[0xff, 0xfe, b'p', 0]));
    let message = |path: &std::path::Path| {
        ConfigFile::load(path).unwrap_err().to_string().replace(&folder.path().display().to_string(), "")
    };
    expect!["/absent.yaml: can't be read: No such file or directory (os error 2); check the path, or write the file"]
        .assert_eq(&message(&folder.path().join("absent.yaml")));
    expect![": is not a file; name the YAML file itself"].assert_eq(&message(folder.path()));
}

#[test]
fn a_byte_order_mark_and_windows_lines_are_text() {
    let text = "\u{feff}pools:\r\n  - { cidr: 10.244.0.0/16, blockPrefix: 24 }\r\n";
    assert!(ConfigFile::parse(text, "pairway.yaml").is_ok());
}
