//! Each key by itself: unknown ones, wrong types, what is not in this version.

use config::ConfigFile;
use expect_test::expect;

use super::{beside_a_pool, check};

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
                  | ^^^ the keys here are version, node, overrides, store, pools, blocks, paths, bgp, vxlan, brake, masquerade, cni, http, api, stateDir, kernel
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
                  |                                          ^^^ write true
        "#]],
    );
}

#[test]
fn stores_on_servers() {
    beside_a_pool(
        "store: { file: {}, etcd: { endpoints: [http://192.0.2.1:2379] } }\n",
        expect![[r#"
        pairway.yaml:2:26: store.etcd: store.file and store.etcd are given
            2 | store: { file: {}, etcd: { endpoints: [http://192.0.2.1:2379] } }
              |                          ^ records live in one store: remove the others
    "#]],
    );
    beside_a_pool(
        "store: { etcd: {} }\n",
        expect![[r#"
        pairway.yaml:2:16: store.etcd: the key `endpoints` is missing
            2 | store: { etcd: {} }
              |                ^ add it: the members, as `https://HOST:PORT` or `http://HOST:PORT`
    "#]],
    );
    beside_a_pool(
        "store: { etcd: { endpoints: [] } }\n",
        expect![[r#"
        pairway.yaml:2:29: store.etcd.endpoints: the list has 0 entries
            2 | store: { etcd: { endpoints: [] } }
              |                             ^ write at least 1
    "#]],
    );
    beside_a_pool(
        "store: { etcd: { endpoints: [192.0.2.1:2379] } }\n",
        expect![[r#"
        pairway.yaml:2:30: store.etcd.endpoints[0]: `192.0.2.1:2379` is no endpoint
            2 | store: { etcd: { endpoints: [192.0.2.1:2379] } }
              |                              ^^^^^^^^^^^^^^ write https://HOST:PORT, for example https://192.0.2.1:2379 or https://[2001:db8::1]:2379
    "#]],
    );
    beside_a_pool(
        "store: { etcd: { endpoints: [https://192.0.2.1] } }\n",
        expect![[r#"
        pairway.yaml:2:30: store.etcd.endpoints[0]: `https://192.0.2.1` has no port
            2 | store: { etcd: { endpoints: [https://192.0.2.1] } }
              |                              ^^^^^^^^^^^^^^^^^ write https://HOST:PORT, for example https://192.0.2.1:2379 or https://[2001:db8::1]:2379
    "#]],
    );
    beside_a_pool(
        "store: { etcd: { endpoints: [https://192.0.2.1:2379] } }\n",
        expect![[r#"
        pairway.yaml:2:16: store.etcd.tls.caFile: https without `tls.caFile`
            2 | store: { etcd: { endpoints: [https://192.0.2.1:2379] } }
              |                ^ name the file with the authority that the members' certificates are checked against
    "#]],
    );
    beside_a_pool(
        "store: { etcd: { endpoints: [http://192.0.2.1:2379, https://192.0.2.2:2379], tls: { caFile: /ca } } }\n",
        expect![[r#"
            pairway.yaml:2:30: store.etcd.endpoints[0]: some endpoints are https and some are http
                2 | store: { etcd: { endpoints: [http://192.0.2.1:2379, https://192.0.2.2:2379], tls: { caFile: /ca } } 
                  |                              ^^^^^^^^^^^^^^^^^^^^^ use one of the two for all of them
        "#]],
    );
    beside_a_pool(
        "store: { etcd: { endpoints: [http://192.0.2.1:2379], prefix: pairway/ } }\n",
        expect![[r#"
            pairway.yaml:2:62: store.etcd.prefix: `pairway/` is no prefix of keys
                2 | store: { etcd: { endpoints: [http://192.0.2.1:2379], prefix: pairway/ } }
                  |                                                              ^^^^^^^^ write parts of letters, digits, `-`, `_` and `.`, each after a slash: /pairway or /clusters/a
        "#]],
    );
    beside_a_pool(
        "store: { etcd: { endpoints: [http://192.0.2.1:2379], tls: { caFile: /ca } } }\n",
        expect![[r#"
            pairway.yaml:2:69: store.etcd.tls.caFile: `caFile` is for https, and the endpoints are http
                2 | store: { etcd: { endpoints: [http://192.0.2.1:2379], tls: { caFile: /ca } } }
                  |                                                                     ^^^ write the endpoints as https://HOST:PORT, or remove it
        "#]],
    );
    beside_a_pool(
        "store: { etcd: { endpoints: [https://192.0.2.1:2379], tls: { caFile: /ca, certFile: /cert } } }\n",
        expect![[r#"
            pairway.yaml:2:85: store.etcd.tls.certFile: a certificate without its key
                2 | store: { etcd: { endpoints: [https://192.0.2.1:2379], tls: { caFile: /ca, certFile: /cert } } }
                  |                                                                                     ^^^^^ add tls.keyFile
        "#]],
    );
    beside_a_pool(
        "store: { etcd: { endpoints: [http://192.0.2.1:2379], auth: { username: pairway } } }\n",
        expect![[r#"
            pairway.yaml:2:72: store.etcd.auth.username: a user without a password
                2 | store: { etcd: { endpoints: [http://192.0.2.1:2379], auth: { username: pairway } } }
                  |                                                                        ^^^^^^^ add auth.passwordFile
        "#]],
    );
    beside_a_pool(
        "store: { etcd: { endpoints: [http://192.0.2.1:2379], auth: { passwordFile: /password } } }\n",
        expect![[r#"
            pairway.yaml:2:76: store.etcd.auth.passwordFile: a password without a user
                2 | store: { etcd: { endpoints: [http://192.0.2.1:2379], auth: { passwordFile: /password } } }
                  |                                                                            ^^^^^^^^^ add auth.username
        "#]],
    );
    beside_a_pool(
        "store: { kubernetes: { namespace: Kube_System } }\n",
        expect![[r#"
        pairway.yaml:2:35: store.kubernetes.namespace: `Kube_System` is no namespace
            2 | store: { kubernetes: { namespace: Kube_System } }
              |                                   ^^^^^^^^^^^ use lower-case letters, digits and `-`, at most 63, a letter or digit at both ends
    "#]],
    );
    beside_a_pool(
        "blocks: { source: nodeSpec }\n",
        expect![[r#"
        pairway.yaml:2:19: blocks.source: `nodeSpec` takes the blocks from the node's Node object, and the store is not Kubernetes
            2 | blocks: { source: nodeSpec }
              |                   ^^^^^^^^ set store.kubernetes, or claim blocks from the pools: `claim`
    "#]],
    );
    beside_a_pool(
        "store: { kubernetes: { kubeconfig: kubeconfig } }\n",
        expect![[r#"
        pairway.yaml:2:36: store.kubernetes.kubeconfig: `kubeconfig` is not an absolute path
            2 | store: { kubernetes: { kubeconfig: kubeconfig } }
              |                                    ^^^^^^^^^^ begin with `/`
    "#]],
    );
}

#[test]
fn what_this_version_has_not() {
    beside_a_pool(
        "paths: { sameSubnet: wireguard, crossSubnet: wireguard }\n",
        expect![[r#"
            pairway.yaml:2:22: paths.sameSubnet: `wireguard` is not in this version
                2 | paths: { sameSubnet: wireguard, crossSubnet: wireguard }
                  |                      ^^^^^^^^^ WireGuard will come; now use `bgp`, `direct`, `vxlan`, `ipip` or `none`
            pairway.yaml:2:46: paths.crossSubnet: `wireguard` is not in this version
                2 | paths: { sameSubnet: wireguard, crossSubnet: wireguard }
                  |                                              ^^^^^^^^^ WireGuard will come; now use `vxlan`, `ipip` or `none`
        "#]],
    );
    beside_a_pool(
        "paths: { crossSubnet: bgp }\n",
        expect![[r#"
            pairway.yaml:2:23: paths.crossSubnet: `bgp` is not in this version
                2 | paths: { crossSubnet: bgp }
                  |                       ^^^ native paths between subnets will come; now use `vxlan`, `ipip` or `none`
        "#]],
    );
    beside_a_pool(
        "paths: { rules: [{ between: [{}, {}], use: wireguard }] }\n",
        expect![[r#"
            pairway.yaml:2:44: paths.rules[0].use: `wireguard` is not in this version
                2 | paths: { rules: [{ between: [{}, {}], use: wireguard }] }
                  |                                            ^^^^^^^^^ WireGuard will come; now use `bgp`, `direct`, `vxlan`, `ipip` or `none`
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
fn a_required_key_that_is_misspelt_is_one_mistake() {
    check(
        "pool: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]\n",
        expect![[r#"
            pairway.yaml:1:1: pool: unknown key `pool`
                1 | pool: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]
                  | ^^^^ did you mean `pools`?
        "#]],
    );
    check(
        "pools: [{ cidr: 10.244.0.0/16, blockprefix: 24 }]\n",
        expect![[r#"
            pairway.yaml:1:32: pools[0].blockprefix: unknown key `blockprefix`
                1 | pools: [{ cidr: 10.244.0.0/16, blockprefix: 24 }]
                  |                                ^^^^^^^^^^^ did you mean `blockPrefix`?
        "#]],
    );
}

#[test]
fn on_one_line_for_conditions_and_logs() {
    let errors = ConfigFile::parse("pool: []\nbgp: { asn: 0 }\n", "p.yaml").unwrap_err();
    assert_eq!(
        errors.summary(),
        "p.yaml:1:1: pool: unknown key `pool` (did you mean `pools`?); p.yaml:2:13: bgp.asn: AS 0 is reserved (RFC 7607) (use your own, or one of the private ranges 64512 to 65534 and 4200000000 to 4294967294)"
    );
}
