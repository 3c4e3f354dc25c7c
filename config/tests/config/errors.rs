//! What an operator reads when the file is wrong. `UPDATE_EXPECT=1` writes the texts anew.

use config::ConfigFile;
use expect_test::{Expect, expect};

/// The errors of `text`.
fn check(text: &str, expected: Expect) {
    match ConfigFile::parse(text, "pairway.yaml") {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => expected.assert_eq(&format!("{errors}\n")),
    }
}

/// The errors of `rest` beside a sound pool.
fn beside_a_pool(rest: &str, expected: Expect) {
    check(&format!("pools: [{{ cidr: 10.244.0.0/16, blockPrefix: 24 }}]\n{rest}"), expected);
}

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
paths: { fallback: ipip }
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
            pairway.yaml:14:20: paths.fallback: `ipip` is not in this version
               14 | paths: { fallback: ipip }
                  |                    ^^^^ IP-in-IP will come; now use `vxlan` or `none`
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
fn unknown_keys() {
    beside_a_pool(
        "bpg: {}\nfoo: 1\n",
        expect![[r#"
            pairway.yaml:2:1: bpg: unknown key `bpg`
                2 | bpg: {}
                  | ^^^ did you mean `bgp`?
            pairway.yaml:3:1: foo: unknown key `foo`
                3 | foo: 1
                  | ^^^ the keys here are version, node, overrides, store, pools, blocks, paths, bgp, vxlan, brake, masquerade, http, api, stateDir, kernel
        "#]],
    );
    beside_a_pool(
        "bgp: { hold_time: 9s, as: 1 }\n",
        expect![[r#"
        pairway.yaml:2:8: bgp.hold_time: unknown key `hold_time`
            2 | bgp: { hold_time: 9s, as: 1 }
              |        ^^^^^^^^^ did you mean `holdTime`?
        pairway.yaml:2:23: bgp.as: unknown key `as`
            2 | bgp: { hold_time: 9s, as: 1 }
              |                       ^^ did you mean `asn`?
    "#]],
    );
}

#[test]
fn wrong_types() {
    beside_a_pool(
        "bgp: { asn: \"64512\", port: abc, listen: 192.0.2.1 }\n",
        expect![[r#"
            pairway.yaml:2:13: bgp.asn: the text "64512" stands where a number is due
                2 | bgp: { asn: "64512", port: abc, listen: 192.0.2.1 }
                  |             ^^^^^^^ remove the quotes: 64512
            pairway.yaml:2:28: bgp.port: the text `abc` stands where a number is due
                2 | bgp: { asn: "64512", port: abc, listen: 192.0.2.1 }
                  |                            ^^^
            pairway.yaml:2:41: bgp.listen: the text `192.0.2.1` stands where a list is due
                2 | bgp: { asn: "64512", port: abc, listen: 192.0.2.1 }
                  |                                         ^^^^^^^^^ write [192.0.2.1]
        "#]],
    );
    beside_a_pool(
        "bgp: { asn: 1.5, port: 0179, listen: [7] }\n",
        expect![[r#"
            pairway.yaml:2:13: bgp.asn: the fraction 1.5 stands where a number is due
                2 | bgp: { asn: 1.5, port: 0179, listen: [7] }
                  |             ^^^
            pairway.yaml:2:24: bgp.port: the text `0179` stands where a number is due
                2 | bgp: { asn: 1.5, port: 0179, listen: [7] }
                  |                        ^^^^ write 179, without leading zeros
            pairway.yaml:2:39: bgp.listen[0]: the number 7 stands where text is due
                2 | bgp: { asn: 1.5, port: 0179, listen: [7] }
                  |                                       ^ quote it: "7"
        "#]],
    );
    beside_a_pool(
        "node: { name: 7, labels: { gpu: true, rack: 1 } }\n",
        expect![[r#"
        pairway.yaml:2:15: node.name: the number 7 stands where text is due
            2 | node: { name: 7, labels: { gpu: true, rack: 1 } }
              |               ^ quote it: "7"
        pairway.yaml:2:33: node.labels.gpu: the truth value true stands where text is due
            2 | node: { name: 7, labels: { gpu: true, rack: 1 } }
              |                                 ^^^^ quote it: "true"
        pairway.yaml:2:45: node.labels.rack: the number 1 stands where text is due
            2 | node: { name: 7, labels: { gpu: true, rack: 1 } }
              |                                             ^ quote it: "1"
    "#]],
    );
    beside_a_pool(
        "bgp:\nvxlan: 7\nnode: { underlay: { a: b } }\n",
        expect![[r#"
        pairway.yaml:2:4: bgp: nothing stands where a map of keys is due
            2 | bgp:
              |    ^ remove the key, or give it a value
        pairway.yaml:3:8: vxlan: the number 7 stands where a map of keys is due
            3 | vxlan: 7
              |        ^
        pairway.yaml:4:19: node.underlay: a map stands where text or a list is due
            4 | node: { underlay: { a: b } }
              |                   ^
    "#]],
    );
    beside_a_pool(
        "store: { file: { allowNetworkFilesystem: \"true\" } }\n",
        expect![[r#"
        pairway.yaml:2:42: store.file.allowNetworkFilesystem: the text "true" stands where true or false is due
            2 | store: { file: { allowNetworkFilesystem: "true" } }
              |                                          ^^^^^^ remove the quotes: true
    "#]],
    );
    beside_a_pool(
        "store: { file: { allowNetworkFilesystem: yes } }\n",
        expect![[r#"
        pairway.yaml:2:42: store.file.allowNetworkFilesystem: the text `yes` stands where true or false is due
            2 | store: { file: { allowNetworkFilesystem: yes } }
              |                                          ^^^
    "#]],
    );
}

#[test]
fn pools() {
    let pools = |text: &str, expected| check(&format!("pools:\n{text}"), expected);
    pools(
        "  - { cidr: 10.244.0.0, blockPrefix: 24 }\n  - { cidr: fd10::1/48, blockPrefix: 64 }\n",
        expect![[r#"
            pairway.yaml:2:13: pools[0].cidr: `10.244.0.0` has no prefix length
                2 |   - { cidr: 10.244.0.0, blockPrefix: 24 }
                  |             ^^^^^^^^^^ add it; `10.244.0.0/32` is this address alone
            pairway.yaml:3:13: pools[1].cidr: `fd10::1/48` has host bits set
                3 |   - { cidr: fd10::1/48, blockPrefix: 64 }
                  |             ^^^^^^^^^^ write `fd10::/48`
        "#]],
    );
    pools(
        "  - { cidr: 10.244.0.0/33, blockPrefix: 24 }\n  - { cidr: nonsense, blockPrefix: 64 }\n",
        expect![[r#"
            pairway.yaml:2:13: pools[0].cidr: `10.244.0.0/33` has no legal prefix length
                2 |   - { cidr: 10.244.0.0/33, blockPrefix: 24 }
                  |             ^^^^^^^^^^^^^ a prefix length of IPv4 is 0 to 32
            pairway.yaml:3:13: pools[1].cidr: `nonsense` is not a CIDR
                3 |   - { cidr: nonsense, blockPrefix: 64 }
                  |             ^^^^^^^^ for example 10.244.0.0/16 or fd10:244::/48
        "#]],
    );
    pools(
        "  - { blockPrefix: 24 }\n  - { cidr: 10.0.0.0/16 }\n",
        expect![[r#"
        pairway.yaml:2:5: pools[0]: the key `cidr` is missing
            2 |   - { blockPrefix: 24 }
              |     ^ add it: the pool's addresses, host bits zero
        pairway.yaml:3:5: pools[1]: the key `blockPrefix` is missing
            3 |   - { cidr: 10.0.0.0/16 }
              |     ^ add it: prefix length of the blocks that are cut from it; fixed once the cluster has used the pool
    "#]],
    );
    pools(
        "  - { cidr: 10.0.0.0/16, blockPrefix: 15 }\n  - { cidr: 10.1.0.0/16, blockPrefix: 31 }\n",
        expect![[r#"
            pairway.yaml:2:39: pools[0].blockPrefix: blocks of /15 are larger than their pool 10.0.0.0/16
                2 |   - { cidr: 10.0.0.0/16, blockPrefix: 15 }
                  |                                       ^^ write 16 to 30
            pairway.yaml:3:39: pools[1].blockPrefix: blocks of /31 have no room for pods
                3 |   - { cidr: 10.1.0.0/16, blockPrefix: 31 }
                  |                                       ^^ write 16 to 30
        "#]],
    );
    pools(
        "  - { cidr: fd00::/16, blockPrefix: 64 }\n  - { cidr: 10.1.0.0/31, blockPrefix: 31 }\n",
        expect![[r#"
            pairway.yaml:2:37: pools[0].blockPrefix: fd00::/16 in blocks of /64 are 2^48 blocks
                2 |   - { cidr: fd00::/16, blockPrefix: 64 }
                  |                                     ^^ at most 2^24: write 16 to 40
            pairway.yaml:3:13: pools[1].cidr: `10.1.0.0/31` is too small for a pool
                3 |   - { cidr: 10.1.0.0/31, blockPrefix: 31 }
                  |             ^^^^^^^^^^^ /30 is the smallest
        "#]],
    );
    pools(
        "  - { cidr: 127.0.0.0/16, blockPrefix: 24 }\n  - { cidr: 0.0.0.0/0, blockPrefix: 24 }\n",
        expect![[r#"
            pairway.yaml:2:13: pools[0].cidr: `127.0.0.0/16` can't carry pods: 127.0.0.0/8 is loopback (RFC 1122)
                2 |   - { cidr: 127.0.0.0/16, blockPrefix: 24 }
                  |             ^^^^^^^^^^^^ use private addresses, for example 10.244.0.0/16 or fd10:244::/48
            pairway.yaml:3:13: pools[1].cidr: `0.0.0.0/0` can't carry pods: 0.0.0.0/8 is "this network" (RFC 791)
                3 |   - { cidr: 0.0.0.0/0, blockPrefix: 24 }
                  |             ^^^^^^^^^ use private addresses, for example 10.244.0.0/16 or fd10:244::/48
            pairway.yaml:3:13: pools[1].cidr: `0.0.0.0/0` overlaps the pool 127.0.0.0/16 on line 2
                3 |   - { cidr: 0.0.0.0/0, blockPrefix: 24 }
                  |             ^^^^^^^^^ pools have no address in common
        "#]],
    );
    pools(
        "  - { cidr: fe80::/64, blockPrefix: 80 }\n  - { cidr: \"ff00::/16\", blockPrefix: 24 }\n",
        expect![[r#"
            pairway.yaml:2:13: pools[0].cidr: `fe80::/64` can't carry pods: fe80::/10 is link-local (RFC 4291)
                2 |   - { cidr: fe80::/64, blockPrefix: 80 }
                  |             ^^^^^^^^^ use private addresses, for example 10.244.0.0/16 or fd10:244::/48
            pairway.yaml:3:13: pools[1].cidr: `ff00::/16` can't carry pods: ff00::/8 is multicast (RFC 4291)
                3 |   - { cidr: "ff00::/16", blockPrefix: 24 }
                  |             ^^^^^^^^^^^ use private addresses, for example 10.244.0.0/16 or fd10:244::/48
        "#]],
    );
    pools(
        "  - { cidr: \"::ffff:10.0.0.0/112\", blockPrefix: 120 }\n",
        expect![[r#"
        pairway.yaml:2:13: pools[0].cidr: `::ffff:10.0.0.0` is an IPv4 address mapped into IPv6
            2 |   - { cidr: "::ffff:10.0.0.0/112", blockPrefix: 120 }
              |             ^^^^^^^^^^^^^^^^^^^^^ write `10.0.0.0`
    "#]],
    );
    pools(
        "  - { cidr: 10.0.0.0/8, blockPrefix: 24 }\n  - { cidr: 10.1.0.0/16, blockPrefix: 24 }\n",
        expect![[r#"
            pairway.yaml:3:13: pools[1].cidr: `10.1.0.0/16` overlaps the pool 10.0.0.0/8 on line 2
                3 |   - { cidr: 10.1.0.0/16, blockPrefix: 24 }
                  |             ^^^^^^^^^^^ pools have no address in common
        "#]],
    );
}

#[test]
fn bgp() {
    beside_a_pool(
        "bgp: { asn: 0 }\n",
        expect![[r#"
            pairway.yaml:2:13: bgp.asn: AS 0 is reserved (RFC 7607)
                2 | bgp: { asn: 0 }
                  |             ^ use your own, or one of the private ranges 64512 to 65534 and 4200000000 to 4294967294
        "#]],
    );
    beside_a_pool(
        "bgp: { asn: 65535 }\n",
        expect![[r#"
        pairway.yaml:2:13: bgp.asn: AS 65535 is reserved (RFC 7300)
            2 | bgp: { asn: 65535 }
              |             ^^^^^ use your own, or one of the private ranges 64512 to 65534 and 4200000000 to 4294967294
    "#]],
    );
    beside_a_pool(
        "bgp: { asn: 4294967295 }\n",
        expect![[r#"
            pairway.yaml:2:13: bgp.asn: AS 4294967295 is reserved (RFC 7300)
                2 | bgp: { asn: 4294967295 }
                  |             ^^^^^^^^^^ use your own, or one of the private ranges 64512 to 65534 and 4200000000 to 4294967294
        "#]],
    );
    beside_a_pool(
        "bgp: { asn: 99999999999999999999 }\n",
        expect![[r#"
            pairway.yaml:2:13: bgp.asn: 99999999999999999999 is out of range
                2 | bgp: { asn: 99999999999999999999 }
                  |             ^^^^^^^^^^^^^^^^^^^^ write 0 to 4294967295
        "#]],
    );
    beside_a_pool(
        "bgp: { holdTime: 2s, restartTime: 4096s }\n",
        expect![[r#"
            pairway.yaml:2:18: bgp.holdTime: `2s` is out of range
                2 | bgp: { holdTime: 2s, restartTime: 4096s }
                  |                  ^^ write whole seconds: 3s to 65535s, or 0s
            pairway.yaml:2:35: bgp.restartTime: `4096s` is out of range
                2 | bgp: { holdTime: 2s, restartTime: 4096s }
                  |                                   ^^^^^ write whole seconds: 0s to 4095s
        "#]],
    );
    beside_a_pool(
        "bgp: { holdTime: 9, restartTime: 1500ms }\n",
        expect![[r#"
            pairway.yaml:2:18: bgp.holdTime: the number 9 stands where text is due
                2 | bgp: { holdTime: 9, restartTime: 1500ms }
                  |                  ^ write a number with its unit, for example 9s
            pairway.yaml:2:34: bgp.restartTime: `1500ms` is out of range
                2 | bgp: { holdTime: 9, restartTime: 1500ms }
                  |                                  ^^^^^^ write whole seconds: 0s to 4095s
        "#]],
    );
    beside_a_pool(
        "bgp: { holdTime: 9sec, port: 65536 }\n",
        expect![[r#"
        pairway.yaml:2:18: bgp.holdTime: `9sec` is not a duration
            2 | bgp: { holdTime: 9sec, port: 65536 }
              |                  ^^^^ write a number with its unit: 500ms, 9s, 10m, 1h30m, 2d
        pairway.yaml:2:30: bgp.port: 65536 is out of range
            2 | bgp: { holdTime: 9sec, port: 65536 }
              |                              ^^^^^ write 1 to 65535
    "#]],
    );
    beside_a_pool(
        "bgp: { routerId: 0.0.0.0, listen: [192.0.2.1, 192.0.2.1, 10.244.0.1] }\n",
        expect![[r#"
        pairway.yaml:2:18: bgp.routerId: `0.0.0.0` is no BGP identifier (RFC 6286)
            2 | bgp: { routerId: 0.0.0.0, listen: [192.0.2.1, 192.0.2.1, 10.244.0.1] }
              |                  ^^^^^^^ use `auto` or another number
        pairway.yaml:2:47: bgp.listen[1]: `192.0.2.1` is there twice
            2 | bgp: { routerId: 0.0.0.0, listen: [192.0.2.1, 192.0.2.1, 10.244.0.1] }
              |                                               ^^^^^^^^^ remove one of the two
        pairway.yaml:2:58: bgp.listen[2]: `10.244.0.1` lies in the pool 10.244.0.0/16
            2 | bgp: { routerId: 0.0.0.0, listen: [192.0.2.1, 192.0.2.1, 10.244.0.1] }
              |                                                          ^^^^^^^^^^ pools hold no underlay addresses
    "#]],
    );
    beside_a_pool(
        "bgp: { routerId: \"2001:db8::1\", maxPrefixes: 0 }\n",
        expect![[r#"
        pairway.yaml:2:18: bgp.routerId: `2001:db8::1` is no BGP identifier
            2 | bgp: { routerId: "2001:db8::1", maxPrefixes: 0 }
              |                  ^^^^^^^^^^^^^ use `auto` or four numbers like 192.0.2.1
        pairway.yaml:2:46: bgp.maxPrefixes: 0 is out of range
            2 | bgp: { routerId: "2001:db8::1", maxPrefixes: 0 }
              |                                              ^ write 1 to 4294967295
    "#]],
    );
}

#[test]
fn peers() {
    let peers = |text: &str, expected| beside_a_pool(&format!("bgp:\n  peers:\n{text}"), expected);
    peers(
        "    - { name: a, address: 192.0.2.1, asn: 1 }\n    - { name: b, address: 192.0.2.1, asn: 1 }\n",
        expect![[r#"
            pairway.yaml:5:27: bgp.peers[1].address: the peer `a` on line 4 has `192.0.2.1` too
                5 |     - { name: b, address: 192.0.2.1, asn: 1 }
                  |                           ^^^^^^^^^ one session per address
        "#]],
    );
    peers(
        "    - { name: A b, address: 224.0.0.5, asn: 1 }\n",
        expect![[r#"
        pairway.yaml:4:15: bgp.peers[0].name: `A b` is not a name
            4 |     - { name: A b, address: 224.0.0.5, asn: 1 }
              |               ^^^ use lower-case letters, digits and `-`, at most 63, a letter or digit at both ends
    "#]],
    );
    peers(
        "    - { name: a, address: 192.0.2.0/24, asn: 1 }\n",
        expect![[r#"
        pairway.yaml:4:27: bgp.peers[0].address: `192.0.2.0/24` is not an IP address
            4 |     - { name: a, address: 192.0.2.0/24, asn: 1 }
              |                           ^^^^^^^^^^^^ write the address without a prefix length
    "#]],
    );
    peers(
        "    - { name: a, address: \"fe80::1\", asn: 1 }\n",
        expect![[r#"
        pairway.yaml:4:27: bgp.peers[0].address: `fe80::1` is link-local: peering over an interface is not in this version
            4 |     - { name: a, address: "fe80::1", asn: 1 }
              |                           ^^^^^^^^^ use the speaker's own unicast address
    "#]],
    );
    peers(
        "    - { name: a, address: \"fe80::1%eth0\", asn: 1, password: secret }\n",
        expect![[r#"
        pairway.yaml:4:27: bgp.peers[0].address: `fe80::1%eth0` has a zone
            4 |     - { name: a, address: "fe80::1%eth0", asn: 1, password: secret }
              |                           ^^^^^^^^^^^^^^ link-local addresses with a zone are not in this version
        pairway.yaml:4:51: bgp.peers[0].password: `password` is not in this version
            4 |     - { name: a, address: "fe80::1%eth0", asn: 1, password: secret }
              |                                                   ^^^^^^^^ TCP-MD5 will come; remove the key
    "#]],
    );
    peers(
        "    - { name: a, address: 192.0.2.1, asn: 1, import: [10.244.7.0/24], export: [172.16.0.0/12] }\n",
        expect![[r#"
            pairway.yaml:4:55: bgp.peers[0].import[0]: `10.244.7.0/24` lies in the pool 10.244.0.0/16
                4 |     - { name: a, address: 192.0.2.1, asn: 1, import: [10.244.7.0/24], export: [172.16.0.0/12] }
                  |                                                       ^^^^^^^^^^^^^ routes to pods come from claims, never from an outside speaker: remove it
            pairway.yaml:4:80: bgp.peers[0].export[0]: `172.16.0.0/12` has no address of any pool
                4 |     - { name: a, address: 192.0.2.1, asn: 1, import: [10.244.7.0/24], export: [172.16.0.0/12] }
                  |                                                                                ^^^^^^^^^^^^^ only blocks are announced: name a pool, a part of one, or what covers one
        "#]],
    );
    peers(
        "    - { name: a }\n",
        expect![[r#"
            pairway.yaml:4:7: bgp.peers[0]: the key `address` is missing
                4 |     - { name: a }
                  |       ^ add it: its address; unique
            pairway.yaml:4:7: bgp.peers[0]: the key `asn` is missing
                4 |     - { name: a }
                  |       ^ add it: its AS number, as `bgp.asn`; equal to ours makes the session internal
        "#]],
    );
}

#[test]
fn numbers_of_the_kernel() {
    beside_a_pool(
        "kernel: { routeProtocol: 12, table: 254, rulePriority: 32766 }\n",
        expect![[r#"
        pairway.yaml:2:26: kernel.routeProtocol: route protocol 12 belongs to BIRD
            2 | kernel: { routeProtocol: 12, table: 254, rulePriority: 32766 }
              |                          ^^ use a number that nobody else uses, for example 112
        pairway.yaml:2:37: kernel.table: table 254 is the table `main`
            2 | kernel: { routeProtocol: 12, table: 254, rulePriority: 32766 }
              |                                     ^^^ use a table of our own, for example 1120
        pairway.yaml:2:56: kernel.rulePriority: 32766 is out of range
            2 | kernel: { routeProtocol: 12, table: 254, rulePriority: 32766 }
              |                                                        ^^^^^ write 1 to 32765
    "#]],
    );
    beside_a_pool(
        "kernel: { routeProtocol: 186, table: 0, rulePriority: 0 }\n",
        expect![[r#"
        pairway.yaml:2:26: kernel.routeProtocol: route protocol 186 belongs to FRR
            2 | kernel: { routeProtocol: 186, table: 0, rulePriority: 0 }
              |                          ^^^ use a number that nobody else uses, for example 112
        pairway.yaml:2:38: kernel.table: table 0 is the table `unspec`
            2 | kernel: { routeProtocol: 186, table: 0, rulePriority: 0 }
              |                                      ^ use a table of our own, for example 1120
        pairway.yaml:2:55: kernel.rulePriority: 0 is out of range
            2 | kernel: { routeProtocol: 186, table: 0, rulePriority: 0 }
              |                                                       ^ write 1 to 32765
    "#]],
    );
    beside_a_pool(
        "kernel: { routeProtocol: 256, table: 4294967296, routeMetric: 0 }\n",
        expect![[r#"
        pairway.yaml:2:26: kernel.routeProtocol: 256 is out of range
            2 | kernel: { routeProtocol: 256, table: 4294967296, routeMetric: 0 }
              |                          ^^^ write 0 to 255
        pairway.yaml:2:38: kernel.table: 4294967296 is out of range
            2 | kernel: { routeProtocol: 256, table: 4294967296, routeMetric: 0 }
              |                                      ^^^^^^^^^^ write 0 to 4294967295
        pairway.yaml:2:63: kernel.routeMetric: 0 is out of range
            2 | kernel: { routeProtocol: 256, table: 4294967296, routeMetric: 0 }
              |                                                               ^ write 1 to 4294967294
    "#]],
    );
    beside_a_pool(
        "kernel: { nexthopBase: 7, devicePrefix: pairway-long }\n",
        expect![[r#"
        pairway.yaml:2:24: kernel.nexthopBase: 7 is out of range
            2 | kernel: { nexthopBase: 7, devicePrefix: pairway-long }
              |                        ^ write 268435456 to 4026531840
        pairway.yaml:2:41: kernel.devicePrefix: `pairway-long` is too long for a device prefix
            2 | kernel: { nexthopBase: 7, devicePrefix: pairway-long }
              |                                         ^^^^^^^^^^^^ at most 11 characters, for `-vx4` follows and a device name has 15
    "#]],
    );
    beside_a_pool(
        "kernel: { devicePrefix: \"a/b\" }\n",
        expect![[r#"
        pairway.yaml:2:25: kernel.devicePrefix: `a/b` can't begin a device name
            2 | kernel: { devicePrefix: "a/b" }
              |                         ^^^^^ use letters, digits, `-` and `_`, a letter first
    "#]],
    );
    beside_a_pool(
        "vxlan: { vni: 0, port: 0 }\n",
        expect![[r#"
        pairway.yaml:2:15: vxlan.vni: 0 is out of range
            2 | vxlan: { vni: 0, port: 0 }
              |               ^ write 1 to 16777215
        pairway.yaml:2:24: vxlan.port: 0 is out of range
            2 | vxlan: { vni: 0, port: 0 }
              |                        ^ write 1 to 65535
    "#]],
    );
    beside_a_pool(
        "vxlan: { vni: 16777216, port: -1 }\n",
        expect![[r#"
        pairway.yaml:2:15: vxlan.vni: 16777216 is out of range
            2 | vxlan: { vni: 16777216, port: -1 }
              |               ^^^^^^^^ write 1 to 16777215
        pairway.yaml:2:31: vxlan.port: -1 is out of range
            2 | vxlan: { vni: 16777216, port: -1 }
              |                               ^^ write 1 to 65535
    "#]],
    );
}

#[test]
fn places() {
    beside_a_pool(
        "stateDir: var/lib\napi: { socket: \"\" }\n",
        expect![[r#"
        pairway.yaml:2:11: stateDir: `var/lib` is not an absolute path
            2 | stateDir: var/lib
              |           ^^^^^^^ begin with `/`
        pairway.yaml:3:16: api.socket: `` is not an absolute path
            3 | api: { socket: "" }
              |                ^^ begin with `/`
    "#]],
    );
    beside_a_pool(
        "stateDir: /x\nstore: { file: { path: /x/ } }\n",
        expect![[r#"
        pairway.yaml:2:11: stateDir: `/x/` is the store's directory and the state directory
            2 | stateDir: /x
              |           ^^ agents share a store, each has its own state directory
    "#]],
    );
    beside_a_pool(
        &format!("api: {{ socket: /{} }}\n", "s".repeat(120)),
        expect![[r#"
            pairway.yaml:2:16: api.socket: `/sssssssssssssssssssssssssssssssssssssssssssssssssssssssssss…` is too long
                2 | api: { socket: /ssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss
                  |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ a unix socket's path has at most 107 bytes
        "#]],
    );
    beside_a_pool(
        "http: { address: 127.0.0.1 }\n",
        expect![[r#"
        pairway.yaml:2:18: http.address: `127.0.0.1` is not an address with a port
            2 | http: { address: 127.0.0.1 }
              |                  ^^^^^^^^^ write `127.0.0.1:9474`
    "#]],
    );
    beside_a_pool(
        "http: { address: 127.0.0.1:179 }\n",
        expect![[r#"
        pairway.yaml:2:18: http.address: port 179 is the BGP speaker's
            2 | http: { address: 127.0.0.1:179 }
              |                  ^^^^^^^^^^^^^ use another port
    "#]],
    );
    beside_a_pool(
        "http: { address: 10.244.0.1:9474 }\n",
        expect![[r#"
        pairway.yaml:2:18: http.address: `10.244.0.1:9474` lies in the pool 10.244.0.0/16
            2 | http: { address: 10.244.0.1:9474 }
              |                  ^^^^^^^^^^^^^^^ use an address of the node
    "#]],
    );
    beside_a_pool(
        "http: { address: localhost:9474 }\n",
        expect![[r#"
        pairway.yaml:2:18: http.address: `localhost:9474` is not an address with a port
            2 | http: { address: localhost:9474 }
              |                  ^^^^^^^^^^^^^^ for example 127.0.0.1:9474 or [::1]:9474
    "#]],
    );
}

#[test]
fn nodes() {
    beside_a_pool(
        "node: { name: Node_1, underlay: [auto, eth0] }\n",
        expect![[r#"
        pairway.yaml:2:15: node.name: `Node_1` is not a node name
            2 | node: { name: Node_1, underlay: [auto, eth0] }
              |               ^^^^^^ use `auto`, or lower-case letters, digits, `-` and `.`, a letter or digit at both ends of each part
        pairway.yaml:2:34: node.underlay[0]: `auto` is no interface
            2 | node: { name: Node_1, underlay: [auto, eth0] }
              |                                  ^^^^ write `underlay: auto` alone, or name interfaces and CIDRs
    "#]],
    );
    beside_a_pool(
        "node: { name: N1, underlay: 192.0.2.1 }\n",
        expect![[r#"
            pairway.yaml:2:15: node.name: `N1` is not a node name
                2 | node: { name: N1, underlay: 192.0.2.1 }
                  |               ^^ write `n1`
            pairway.yaml:2:29: node.underlay: `192.0.2.1` has no prefix length
                2 | node: { name: N1, underlay: 192.0.2.1 }
                  |                             ^^^^^^^^^ add it; `192.0.2.1/32` is this address alone
        "#]],
    );
    beside_a_pool(
        "node: { underlay: 10.244.3.0/24 }\n",
        expect![[r#"
        pairway.yaml:2:19: node.underlay: `10.244.3.0/24` lies in the pool 10.244.0.0/16
            2 | node: { underlay: 10.244.3.0/24 }
              |                   ^^^^^^^^^^^^^ pools hold no underlay addresses
    "#]],
    );
    beside_a_pool(
        "node: { underlay: an-interface-too-long }\n",
        expect![[r#"
        pairway.yaml:2:19: node.underlay: `an-interface-too-long` is neither an interface nor a CIDR
            2 | node: { underlay: an-interface-too-long }
              |                   ^^^^^^^^^^^^^^^^^^^^^ use `auto`, an interface's name (at most 15 characters), a CIDR, or a list of them
    "#]],
    );
    beside_a_pool(
        "node: { labels: { \"a b\": c, d: \"e f\" } }\n",
        expect![[r#"
        pairway.yaml:2:19: node.labels.a b: `a b` is not a label key
            2 | node: { labels: { "a b": c, d: "e f" } }
              |                   ^^^^^ for example `zone` or `topology.kubernetes.io/zone`
        pairway.yaml:2:32: node.labels.d: `e f` is not a label value
            2 | node: { labels: { "a b": c, d: "e f" } }
              |                                ^^^^^ use letters, digits, `-`, `_` and `.`, at most 63, a letter or digit at both ends
    "#]],
    );
}

#[test]
fn rules() {
    beside_a_pool(
        "paths: { rules: [{ between: [{}], use: vxlan }] }\n",
        expect![[r#"
        pairway.yaml:2:29: paths.rules[0].between: the list has 1 entry
            2 | paths: { rules: [{ between: [{}], use: vxlan }] }
              |                             ^ write 2
    "#]],
    );
    beside_a_pool(
        "paths: { rules: [{ between: [{}, { zone: a }], use: vxlan }] }\n",
        expect![[r#"
        pairway.yaml:2:36: paths.rules[0].between[1].zone: unknown key `zone`
            2 | paths: { rules: [{ between: [{}, { zone: a }], use: vxlan }] }
              |                                    ^^^^ the keys here are labels, cidr
    "#]],
    );
    beside_a_pool(
        "paths: { rules: [{ between: [{}, {}], use: native }] }\n",
        expect![[r#"
        pairway.yaml:2:44: paths.rules[0].use: `native` is no value of this key
            2 | paths: { rules: [{ between: [{}, {}], use: native }] }
              |                                            ^^^^^^ use `bgp`, `direct`, `vxlan` or `none`
    "#]],
    );
    beside_a_pool(
        "paths: { sameSubnet: { a: b } }\n",
        expect![[r#"
        pairway.yaml:2:22: paths.sameSubnet: a map is no value of this key
            2 | paths: { sameSubnet: { a: b } }
              |                      ^ use `bgp`, `direct`, `vxlan` or `none`
    "#]],
    );
}

#[test]
fn what_this_version_has_not() {
    beside_a_pool(
        "store: { kubernetes: {} }\n",
        expect![[r#"
        pairway.yaml:2:10: store.kubernetes: `kubernetes` is not in this version
            2 | store: { kubernetes: {} }
              |          ^^^^^^^^^^ the Kubernetes store will come; remove the key
    "#]],
    );
    beside_a_pool(
        "store: { etcd: { endpoints: [] } }\n",
        expect![[r#"
        pairway.yaml:2:10: store.etcd: `etcd` is not in this version
            2 | store: { etcd: { endpoints: [] } }
              |          ^^^^ the etcd store will come; remove the key
    "#]],
    );
    beside_a_pool(
        "paths: { sameSubnet: wireguard, crossSubnet: ipip }\n",
        expect![[r#"
        pairway.yaml:2:22: paths.sameSubnet: `wireguard` is not in this version
            2 | paths: { sameSubnet: wireguard, crossSubnet: ipip }
              |                      ^^^^^^^^^ WireGuard will come; now use `bgp`, `direct`, `vxlan` or `none`
        pairway.yaml:2:46: paths.crossSubnet: `ipip` is not in this version
            2 | paths: { sameSubnet: wireguard, crossSubnet: ipip }
              |                                              ^^^^ IP-in-IP will come; now use `vxlan` or `none`
    "#]],
    );
    beside_a_pool(
        "paths: { crossSubnet: bgp }\n",
        expect![[r#"
        pairway.yaml:2:23: paths.crossSubnet: `bgp` is not in this version
            2 | paths: { crossSubnet: bgp }
              |                       ^^^ native paths between subnets will come; now use `vxlan` or `none`
    "#]],
    );
    beside_a_pool(
        "paths: { rules: [{ between: [{}, {}], use: ipip }] }\n",
        expect![[r#"
        pairway.yaml:2:44: paths.rules[0].use: `ipip` is not in this version
            2 | paths: { rules: [{ between: [{}, {}], use: ipip }] }
              |                                            ^^^^ IP-in-IP will come; now use `bgp`, `direct`, `vxlan` or `none`
    "#]],
    );
    beside_a_pool(
        "blocks: { source: nodeSpec }\n",
        expect![[r#"
        pairway.yaml:2:19: blocks.source: `nodeSpec` is not in this version
            2 | blocks: { source: nodeSpec }
              |                   ^^^^^^^^ blocks from the nodes' specifications will come; now use `claim`
    "#]],
    );
    beside_a_pool(
        "masquerade: { enabled: true, exclude: [192.0.2.0/24] }\n",
        expect![[r#"
        pairway.yaml:2:24: masquerade.enabled: `true` is not in this version
            2 | masquerade: { enabled: true, exclude: [192.0.2.0/24] }
              |                        ^^^^ address translation will come; now use `false`
        pairway.yaml:2:39: masquerade.exclude: `192.0.2.0/24` is not in this version
            2 | masquerade: { enabled: true, exclude: [192.0.2.0/24] }
              |                                       ^ address translation will come; now use []
    "#]],
    );
    beside_a_pool(
        "mtu: uniform\nfirewall: { insertAccept: true }\n",
        expect![[r#"
        pairway.yaml:2:1: mtu: `mtu` is not in this version
            2 | mtu: uniform
              | ^^^ MTU settings will come; remove the key
        pairway.yaml:3:1: firewall: `firewall` is not in this version
            3 | firewall: { insertAccept: true }
              | ^^^^^^^^ firewall rules will come; remove the key
    "#]],
    );
}

#[test]
fn brake() {
    beside_a_pool(
        "brake: { share: 50, atLeast: 0 }\n",
        expect![[r#"
        pairway.yaml:2:17: brake.share: the number 50 stands where text is due
            2 | brake: { share: 50, atLeast: 0 }
              |                 ^^ write 50%
        pairway.yaml:2:30: brake.atLeast: 0 is out of range
            2 | brake: { share: 50, atLeast: 0 }
              |                              ^ write 1 to 4294967295
    "#]],
    );
    beside_a_pool(
        "brake: { share: 101%, within: 500ms, grace: 2h }\n",
        expect![[r#"
        pairway.yaml:2:17: brake.share: `101%` is no share
            2 | brake: { share: 101%, within: 500ms, grace: 2h }
              |                 ^^^^ write a whole number of percent: 0% to 100%
        pairway.yaml:2:31: brake.within: `500ms` is out of range
            2 | brake: { share: 101%, within: 500ms, grace: 2h }
              |                               ^^^^^ write 1s to 10m
        pairway.yaml:2:45: brake.grace: `2h` is out of range
            2 | brake: { share: 101%, within: 500ms, grace: 2h }
              |                                             ^^ write 1s to 1h
    "#]],
    );
    beside_a_pool(
        "brake: { share: 050%, grace: 5s }\n",
        expect![[r#"
        pairway.yaml:2:8: brake.confirmAfter: `10s` is longer than brake.grace, 5s
            2 | brake: { share: 050%, grace: 5s }
              |        ^ write 5s or less
        pairway.yaml:2:17: brake.share: `050%` is no share
            2 | brake: { share: 050%, grace: 5s }
              |                 ^^^^ write a whole number of percent: 0% to 100%
    "#]],
    );
    beside_a_pool(
        "brake: { confirmAfter: 1m }\n",
        expect![[r#"
        pairway.yaml:2:24: brake.confirmAfter: `1m` is longer than brake.grace, 30s
            2 | brake: { confirmAfter: 1m }
              |                        ^^ write 30s or less
    "#]],
    );
}

#[test]
fn overrides() {
    beside_a_pool(
        "overrides: [{ bgp: { asn: 7 } }]\n",
        expect![[r#"
        pairway.yaml:2:13: overrides[0]: the key `match` is missing
            2 | overrides: [{ bgp: { asn: 7 } }]
              |             ^ for example match: { name: "gpu-*" }
    "#]],
    );
    beside_a_pool(
        "overrides: [{ match: { name: \"GPU*\" }, bgp: { asn: 0 } }]\n",
        expect![[r#"
            pairway.yaml:2:30: overrides[0].match.name: `GPU*` matches no node name
                2 | overrides: [{ match: { name: "GPU*" }, bgp: { asn: 0 } }]
                  |                              ^^^^^^ use lower-case letters, digits, `-`, `.`, `*` for any characters, `?` for one
            pairway.yaml:2:52: overrides[0].bgp.asn: AS 0 is reserved (RFC 7607)
                2 | overrides: [{ match: { name: "GPU*" }, bgp: { asn: 0 } }]
                  |                                                    ^ use your own, or one of the private ranges 64512 to 65534 and 4200000000 to 4294967294
        "#]],
    );
    beside_a_pool(
        "overrides:\n  - { match: { name: \"*\" }, node: { name: x }, version: 1 }\n  - { match: { name: n1 } }\n",
        expect![[r#"
            pairway.yaml:3:37: overrides[0].node.name: the name can't be overridden: it decides which override matches
                3 |   - { match: { name: "*" }, node: { name: x }, version: 1 }
                  |                                     ^^^^ remove the key
            pairway.yaml:3:48: overrides[0].version: `version` can't be overridden
                3 |   - { match: { name: "*" }, node: { name: x }, version: 1 }
                  |                                                ^^^^^^^ remove the key
            pairway.yaml:4:22: overrides[1].match.name: an override above, for `*`, takes every node that this one matches
                4 |   - { match: { name: n1 } }
                  |                      ^^ the first match wins: put the narrower one first
        "#]],
    );
    beside_a_pool(
        "overrides: [{ match: { name: n1 }, bgp: { asn: \"7\", foo: 1 } }]\n",
        expect![[r#"
        pairway.yaml:2:48: overrides[0].bgp.asn: the text "7" stands where a number is due
            2 | overrides: [{ match: { name: n1 }, bgp: { asn: "7", foo: 1 } }]
              |                                                ^^^ remove the quotes: 7
        pairway.yaml:2:53: overrides[0].bgp.foo: unknown key `foo`
            2 | overrides: [{ match: { name: n1 }, bgp: { asn: "7", foo: 1 } }]
              |                                                     ^^^ the keys here are asn, port, listen, holdTime, restartTime, routerId, maxPrefixes, peers
    "#]],
    );
    // The mistake is in the combination: the override's pool has the file's peer in it.
    beside_a_pool(
        "bgp: { peers: [{ name: a, address: 192.0.2.1, asn: 1 }] }\noverrides:\n  - match: { name: \"gpu-*\" }\n    pools: [{ cidr: 192.0.0.0/16, blockPrefix: 24 }]\n",
        expect![[r#"
            pairway.yaml:2:36: bgp.peers[0].address: `192.0.2.1` lies in the pool 192.0.0.0/16 (on nodes that match `gpu-*`)
                2 | bgp: { peers: [{ name: a, address: 192.0.2.1, asn: 1 }] }
                  |                                    ^^^^^^^^^ pools hold pods only: correct the address, or move the pool
        "#]],
    );
    // A mistake of the file is told once, not once more for each override.
    beside_a_pool(
        "bgp: { asn: 0 }\noverrides: [{ match: { name: n1 }, node: { underlay: eth0 } }]\n",
        expect![[r#"
            pairway.yaml:2:13: bgp.asn: AS 0 is reserved (RFC 7607)
                2 | bgp: { asn: 0 }
                  |             ^ use your own, or one of the private ranges 64512 to 65534 and 4200000000 to 4294967294
        "#]],
    );
    beside_a_pool(
        "overrides: { match: { name: n1 } }\n",
        expect![[r#"
        pairway.yaml:2:12: overrides: a map stands where a list is due
            2 | overrides: { match: { name: n1 } }
              |            ^
    "#]],
    );
    beside_a_pool(
        "overrides: [n1]\n",
        expect![[r#"
        pairway.yaml:2:13: overrides[0]: the text `n1` stands where a map of keys is due
            2 | overrides: [n1]
              |             ^^
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
    expect!["/absent.yaml: can't be read: No such file or directory (os error 2)"]
        .assert_eq(&message(&folder.path().join("absent.yaml")));
    expect![": is not a file; name the YAML file itself"].assert_eq(&message(folder.path()));
}

#[test]
fn a_byte_order_mark_and_windows_lines_are_text() {
    let text = "\u{feff}pools:\r\n  - { cidr: 10.244.0.0/16, blockPrefix: 24 }\r\n";
    assert!(ConfigFile::parse(text, "pairway.yaml").is_ok());
}
