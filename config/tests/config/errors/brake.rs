//! `brake:` and `blocks:`

use expect_test::expect;

use super::beside_a_pool;

#[test]
fn how_long_blocks_rest() {
    beside_a_pool(
        "blocks: { reuseAfter: 25h }\n",
        expect![[r#"
        pairway.yaml:2:23: blocks.reuseAfter: `1d1h` is out of range
            2 | blocks: { reuseAfter: 25h }
              |                       ^^^ write 0s to 1d
    "#]],
    );
    beside_a_pool(
        "blocks: { reuseAfter: 24h, perNode: 0 }\n",
        expect![[r#"
        pairway.yaml:2:37: blocks.perNode: 0 is out of range
            2 | blocks: { reuseAfter: 24h, perNode: 0 }
              |                                     ^ write 1 to 256
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
        "brake: { share: 0.5 }\n",
        expect![[r#"
            pairway.yaml:2:17: brake.share: the fraction 0.5 stands where text is due
                2 | brake: { share: 0.5 }
                  |                 ^^^ write a whole number of percent, for example 50%
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
