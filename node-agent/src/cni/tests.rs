use expect_test::expect;

use super::*;

fn pool(cidr: &str, block_prefix: u8) -> Pool {
    Pool { cidr: cidr.parse().expect("a CIDR"), block_prefix, nodes: Default::default(), disabled: false }
}

fn block(text: &str) -> Block {
    Block::new(text.parse().expect("a CIDR"))
}

fn dual_stack(blocks: &[Block]) -> [String; 2] {
    let pools = [pool("10.244.0.0/16", 24), pool("fd10:244::/48", 64)];
    let network = Network { pools: &pools, blocks, mtu: 1500 };
    [Kind::SubnetEnv.content(&network), Kind::Conflist.content(&network)]
}

#[test]
fn both_families_and_all_blocks() {
    let blocks = [block("10.244.7.0/24"), block("fd10:244:0:7::/64"), block("10.244.9.0/24")];
    let [subnet_env, conflist] = dual_stack(&blocks);
    expect![[r#"
        # of pairway: written anew whenever the node's blocks change
        FLANNEL_NETWORK=10.244.0.0/16
        FLANNEL_SUBNET=10.244.7.1/24
        FLANNEL_IPV6_NETWORK=fd10:244::/48
        FLANNEL_IPV6_SUBNET=fd10:244:0:7::1/64
        FLANNEL_MTU=1500
        FLANNEL_IPMASQ=false
    "#]]
    .assert_eq(&subnet_env);
    let json: Json = serde_json::from_str(&conflist).expect("JSON");
    let ipam = &json["plugins"][0]["ipam"];
    assert_eq!(
        ipam["ranges"],
        json!([[{ "subnet": "10.244.7.0/24" }, { "subnet": "10.244.9.0/24" }], [{ "subnet": "fd10:244:0:7::/64" }]])
    );
    assert_eq!(ipam["routes"], json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]));
    assert_eq!((&json["cniVersion"], &json["plugins"][0]["mtu"]), (&json!("1.0.0"), &json!(1500)));
}

#[test]
fn a_family_without_a_block_is_not_there() {
    let [subnet_env, conflist] = dual_stack(&[block("fd10:244:0:7::/64")]);
    assert!(!subnet_env.contains("FLANNEL_SUBNET") && subnet_env.contains("FLANNEL_IPV6_SUBNET"));
    let json: Json = serde_json::from_str(&conflist).expect("JSON");
    assert_eq!(json["plugins"][0]["ipam"]["routes"], json!([{ "dst": "::/0" }]));
}

#[test]
fn ours_is_known_and_what_it_hands_out() {
    let blocks = [block("10.244.7.0/24"), block("fd10:244:0:7::/64")];
    let contents = dual_stack(&blocks);
    for (kind, content) in [Kind::SubnetEnv, Kind::Conflist].into_iter().zip(&contents) {
        assert!(kind.is_ours(content) && kind.keeps_to(content, &blocks), "{kind:?}");
        assert!(!kind.keeps_to(content, &blocks[..1]), "{kind:?}: one of its blocks is another node's");
        assert!(!kind.keeps_to(&content.replace("10.244.7", "10.244.x"), &blocks), "{kind:?}: broken");
    }
    for foreign in
        ["", "FLANNEL_SUBNET=10.244.7.1/24\n", "{}", "{\"name\": \"pairway\"}", "\u{0}", "[1]", "null"]
    {
        for kind in [Kind::SubnetEnv, Kind::Conflist] {
            assert!(!kind.is_ours(foreign), "{foreign:?}");
        }
    }
}

#[test]
fn places_are_remembered() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(remembered(folder.path()).expect("nothing yet"), Places::new());
    let places = Places::from([(Kind::Conflist, "/etc/cni/net.d/10-pairway.conflist".into())]);
    remember(folder.path(), &places).expect("a file");
    assert_eq!(remembered(folder.path()).expect("a file"), places);
    fs::write(folder.path().join(FILE_NAME), "{").expect("a file");
    remembered(folder.path()).expect_err("half a file");
}

#[test]
fn a_file_of_somebody_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cni/net.d/10-pairway.conflist");
    assert_eq!(find(Kind::Conflist, &path).expect("a look"), Found::Absent);
    assert!(!withdraw(Kind::Conflist, &path).expect("nothing there"));
    let [_, conflist] = dual_stack(&[block("10.244.7.0/24")]);
    write(&path, &conflist).expect("a file");
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o644);
    assert_eq!(find(Kind::Conflist, &path).expect("a look"), Found::Ours(conflist));
    assert!(withdraw(Kind::Conflist, &path).expect("ours") && !path.exists());
    for foreign in [&b"{\"name\": \"pairway\"}"[..], b"\xff\xfe", b""] {
        fs::write(&path, foreign).expect("a file");
        assert_eq!(find(Kind::Conflist, &path).expect("a look"), Found::Foreign);
        assert!(!withdraw(Kind::Conflist, &path).expect("a look") && path.exists());
    }
    fs::remove_file(&path).expect("a file");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    assert_eq!(find(Kind::Conflist, &path).expect("a look that ends"), Found::Foreign);
}
