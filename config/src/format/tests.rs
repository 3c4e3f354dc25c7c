use super::*;

/// What is legal and what is not, by form.
const TABLE: &[(&str, &[&str], &[&str])] = &[
    (
        "address",
        &["192.0.2.1", "2001:db8::1", "127.0.0.1"],
        &["", "192.0.2", "192.0.2.1/32", "::ffff:192.0.2.1", "fe80::1%eth0", "010.0.0.1"],
    ),
    (
        "cidr",
        &["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "fd10:244::/48"],
        &[
            "",
            "10.0.0.0",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "fd10::/129",
            "/8",
            "::ffff:10.0.0.0/104",
        ],
    ),
    (
        "device-prefix",
        &["pairway", "a", "pw_1-x", "abcdefghij"],
        &["", "1a", "abcdefghijk", "a/b", "a b", "ä"],
    ),
    ("duration", &["9s", "1h30m"], &["9", "9 s"]),
    ("glob", &["*", "gpu-?", "n1"], &["", "N*", "a/b"]),
    (
        "label-key",
        &["zone", "topology.kubernetes.io/zone", "Zone_1"],
        &["", "a b", "/zone", "Topology/zone", "a/b/c", "-a"],
    ),
    ("label-value", &["", "a", "A_b.c-d", "12"], &["a b", "-a", "a-", "é"]),
    ("node-name", &["auto", "n1", "a.b-c.d"], &["", "N1", "a_b", "-a", "a..b", "a.", ".a"]),
    ("path", &["/", "/var/lib"], &["", "var", "./x", "/a\nb"]),
    ("peer-name", &["tor", "tor-1"], &["", "Tor", "a.b", "-a"]),
    ("router-id", &["auto", "192.0.2.1", "0.0.0.1", "255.255.255.255"], &["", "0.0.0.0", "1", "::1", "Auto"]),
    (
        "socket-address",
        &["127.0.0.1:9474", "[::1]:9474", "0.0.0.0:1"],
        &["", "127.0.0.1", ":9474", "127.0.0.1:0", "localhost:1", "::1:9474"],
    ),
    ("socket-path", &["/run/x.sock"], &["run/x.sock"]),
    (
        "underlay",
        &["auto", "eth0", "bond0.100", "192.0.2.0/24", "en-x_1"],
        &["", "192.0.2.1", "192.0.2.1/24", "eth0:1", "eth*", "a b", "sixteencharslong", ".", ".."],
    ),
    ("uint8", &["anything"], &[]),
];

#[test]
fn forms() {
    for (form, legal, illegal) in TABLE {
        for text in *legal {
            assert_eq!(check(form, text), Ok(()), "{form} {text:?}");
        }
        for text in *illegal {
            let malformed = check(form, text).expect_err(&format!("{form} {text:?}"));
            assert!(!malformed.problem.is_empty() && !malformed.hint.is_empty(), "{form} {text:?}");
        }
    }
}

#[test]
fn limits_of_length() {
    assert!(check("socket-path", &format!("/{}", "x".repeat(106))).is_ok());
    assert!(check("socket-path", &format!("/{}", "x".repeat(107))).is_err());
    assert!(check("node-name", &"a".repeat(63)).is_ok());
    assert!(check("node-name", &"a".repeat(64)).is_err());
    assert!(check("label-value", &"a".repeat(63)).is_ok());
    assert!(check("label-value", &"a".repeat(64)).is_err());
    assert!(check("underlay", &"a".repeat(15)).is_ok());
    assert!(check("underlay", &"a".repeat(16)).is_err());
}
