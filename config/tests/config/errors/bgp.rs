//! `bgp:` and its peers.

use expect_test::expect;

use super::beside_a_pool;

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
