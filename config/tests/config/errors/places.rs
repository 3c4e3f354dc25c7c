//! Numbers of the kernel, and places on this machine.

use expect_test::expect;

use super::beside_a_pool;

#[test]
fn numbers_of_the_kernel() {
    beside_a_pool(
        "kernel: { firewallTable: \"a b\" }\n",
        expect![[r#"
        pairway.yaml:2:26: kernel.firewallTable: `a b` can't be an nftables table
            2 | kernel: { firewallTable: "a b" }
              |                          ^^^^^ use letters, digits, `-` and `_`, a letter first, at most 31
    "#]],
    );
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
                  |                                         ^^^^^^^^^^^^ at most 10 characters, for `-ipip` follows and a device name has 15
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
fn files_for_cni_plugins_have_places_of_their_own() {
    beside_a_pool(
        "cni: { subnetEnv: /run/pairway/api.sock, conflist: /var/lib//pairway/store/nodes/x.conflist }\n",
        expect![[r#"
            pairway.yaml:2:19: cni.subnetEnv: `/run/pairway/api.sock` is the API's socket, api.socket
                2 | cni: { subnetEnv: /run/pairway/api.sock, conflist: /var/lib//pairway/store/nodes/x.conflist }
                  |                   ^^^^^^^^^^^^^^^^^^^^^ name a file that nothing else is kept in
            pairway.yaml:2:52: cni.conflist: `/var/lib//pairway/store/nodes/x.conflist` lies in the folder of the agent's own state, stateDir
                2 | cni: { subnetEnv: /run/pairway/api.sock, conflist: /var/lib//pairway/store/nodes/x.conflist }
                  |                                                    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ name a file that nothing else is kept in
        "#]],
    );
    beside_a_pool(
        "cni: { subnetEnv: /var/lib/pairway/../pairway/store }\nstore: { file: { path: /srv/store } }\n",
        expect![[r#"
            pairway.yaml:2:19: cni.subnetEnv: `/var/lib/pairway/../pairway/store` lies in the folder of the agent's own state, stateDir
                2 | cni: { subnetEnv: /var/lib/pairway/../pairway/store }
                  |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ name a file that nothing else is kept in
        "#]],
    );
    beside_a_pool(
        "cni: { subnetEnv: /srv/store/subnet.env }\nstore: { file: { path: /srv/store } }\n",
        expect![[r#"
            pairway.yaml:2:19: cni.subnetEnv: `/srv/store/subnet.env` lies in the folder of the store, store.file.path
                2 | cni: { subnetEnv: /srv/store/subnet.env }
                  |                   ^^^^^^^^^^^^^^^^^^^^^ name a file that nothing else is kept in
        "#]],
    );
}
