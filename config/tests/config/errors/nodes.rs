//! Nodes, rules and overrides.

use config::ConfigFile;
use expect_test::expect;

use super::beside_a_pool;

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
        "node: { underlay: [\"2001:db8::/32\", \"2001:db9::/32\"] }\npaths: { fallback: ipip, rules: [{ between: [{}, {}], use: ipip }] }\n",
        expect![[r#"
            pairway.yaml:3:20: paths.fallback: `ipip` goes over IPv4, and node.underlay on line 2 names IPv6 alone
                3 | paths: { fallback: ipip, rules: [{ between: [{}, {}], use: ipip }] }
                  |                    ^^^^ use `vxlan`, or name an IPv4 network of the node too
            pairway.yaml:3:60: paths.rules[0].use: `ipip` goes over IPv4, and node.underlay on line 2 names IPv6 alone
                3 | paths: { fallback: ipip, rules: [{ between: [{}, {}], use: ipip }] }
                  |                                                            ^^^^ use `vxlan`, or name an IPv4 network of the node too
        "#]],
    );
    // An interface may have both, and so may a node with an IPv4 network beside.
    for underlay in ["eth0", "[\"2001:db8::/32\", 192.0.2.0/24]", "auto"] {
        let pool = "pools: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]";
        let text = format!("{pool}\nnode: {{ underlay: {underlay} }}\npaths: {{ crossSubnet: ipip }}\n");
        assert!(ConfigFile::parse(&text, "pairway.yaml").is_ok(), "{text}");
    }
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
                  |                                            ^^^^^^ use `bgp`, `direct`, `vxlan`, `ipip` or `none`
        "#]],
    );
    beside_a_pool(
        "paths: { sameSubnet: { a: b } }\n",
        expect![[r#"
            pairway.yaml:2:22: paths.sameSubnet: a map is no value of this key
                2 | paths: { sameSubnet: { a: b } }
                  |                      ^ use `bgp`, `direct`, `vxlan`, `ipip` or `none`
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
