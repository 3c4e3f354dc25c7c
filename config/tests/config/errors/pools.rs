//! Pools.

use expect_test::expect;

use super::check;

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

/// One mistake does not hide the others: what is plainly meant is looked at too.
#[test]
fn host_bits_hide_nothing() {
    check(
        "pools:\n  - { cidr: 10.244.0.1/16, blockPrefix: 8 }\n  - { cidr: 10.244.0.0/15, blockPrefix: 24 }\n",
        expect![[r#"
            pairway.yaml:2:13: pools[0].cidr: `10.244.0.1/16` has host bits set
                2 |   - { cidr: 10.244.0.1/16, blockPrefix: 8 }
                  |             ^^^^^^^^^^^^^ write `10.244.0.0/16`
            pairway.yaml:2:41: pools[0].blockPrefix: blocks of /8 are larger than their pool 10.244.0.0/16
                2 |   - { cidr: 10.244.0.1/16, blockPrefix: 8 }
                  |                                         ^ write 16 to 30
            pairway.yaml:3:13: pools[1].cidr: `10.244.0.0/15` overlaps the pool 10.244.0.0/16 on line 2
                3 |   - { cidr: 10.244.0.0/15, blockPrefix: 24 }
                  |             ^^^^^^^^^^^^^ pools have no address in common
        "#]],
    );
}
