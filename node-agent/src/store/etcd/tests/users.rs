//! TLS with certificates of both ends, and etcd's own users.

use prost::Message;

use super::raw::Nothing;
use super::*;

#[derive(Clone, PartialEq, Message)]
struct User {
    #[prost(string, tag = "1")]
    name: String,
    /// A password, or a role.
    #[prost(string, tag = "2")]
    with: String,
}

#[derive(Clone, PartialEq, Message)]
struct RolePermission {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    permission: Option<Permission>,
}

#[derive(Clone, PartialEq, Message)]
struct Permission {
    /// 2: to read and to write.
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    range_end: Vec<u8>,
}

async fn ask(etcd: &Etcd, path: &'static str, question: impl Message + Clone + 'static) {
    let _: Nothing = etcd.client.call(path, question).await.unwrap();
}

fn user(name: &str, with: &str) -> User {
    User { name: name.to_owned(), with: with.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_certificate_and_password() {
    let mut server = off_runtime(|| EtcdServer::start_with(1, true)).await;
    let files = tempfile::tempdir().unwrap();
    let password = files.path().join("password");
    std::fs::write(&password, "wrong\n").unwrap();
    let tls = server.tls().unwrap();
    let bare = options(server.endpoints());
    let with_tls = EtcdOptions {
        ca_file: Some(tls.authority.clone()),
        cert_file: Some(tls.client.0.clone()),
        key_file: Some(tls.client.1.clone()),
        ..bare.clone()
    };

    let without = EtcdStore::open(EtcdOptions { ca_file: Some(tls.authority.clone()), ..bare.clone() });
    without.claim(&claim_of("10.244.1.0/24", "n1")).await.expect_err("etcd wants a certificate");
    let store = EtcdStore::open(with_tls.clone());
    assert_eq!(store.claim(&claim_of("10.244.1.0/24", "n1")).await.unwrap(), ClaimOutcome::Claimed);

    let admin = Etcd::new(with_tls.clone());
    ask(&admin, "/etcdserverpb.Auth/UserAdd", user("root", "root")).await;
    ask(&admin, "/etcdserverpb.Auth/RoleAdd", user("root", "")).await;
    ask(&admin, "/etcdserverpb.Auth/UserGrantRole", user("root", "root")).await;
    ask(&admin, "/etcdserverpb.Auth/UserAdd", user("pairway", "secret")).await;
    ask(&admin, "/etcdserverpb.Auth/RoleAdd", user("pairway", "")).await;
    ask(&admin, "/etcdserverpb.Auth/UserGrantRole", user("pairway", "pairway")).await;
    let permission = Permission {
        kind: 2,
        key: with_tls.prefix.clone().into_bytes(),
        range_end: range_end(with_tls.prefix.as_bytes()),
    };
    let permission = RolePermission { name: "pairway".to_owned(), permission: Some(permission) };
    ask(&admin, "/etcdserverpb.Auth/RoleGrantPermission", permission).await;
    ask(&admin, "/etcdserverpb.Auth/AuthEnable", Nothing {}).await;

    let error = store.claim(&claim_of("10.244.2.0/24", "n1")).await.expect_err("etcd asks who we are");
    let told = crate::telemetry::chain(&error);
    assert!(told.contains("store.etcd.auth.username"), "{told}");
    let options = EtcdOptions {
        username: Some("pairway".to_owned()),
        password_file: Some(password.clone()),
        ..with_tls
    };
    let store = EtcdStore::open(options.clone());
    let error = store.claim(&claim_of("10.244.2.0/24", "n1")).await.expect_err("the password is wrong");
    let told = crate::telemetry::chain(&error);
    assert!(told.contains("store.etcd.auth.passwordFile"), "{told}");
    // The file is mended; nobody restarts the agent.
    std::fs::write(&password, "secret\n").unwrap();
    until(&store, "the claim of before", |shown| shown.claims.len() == 1).await;
    assert_eq!(store.claim(&claim_of("10.244.2.0/24", "n1")).await.unwrap(), ClaimOutcome::Claimed);
    health(&store, "well", Result::is_ok).await;

    // Tokens don't outlive the member that gave them.
    let server = off_runtime(move || {
        server.kill_member(0);
        server.restart();
        server
    })
    .await;
    let claimed = async { while store.claim(&claim_of("10.244.3.0/24", "n1")).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), claimed).await.unwrap();
    until(&store, "the third", |shown| shown.claims.len() == 3).await;

    let elsewhere = EtcdStore::open(EtcdOptions { prefix: "/elsewhere".to_owned(), ..options });
    let error = elsewhere.claim(&claim_of("10.244.9.0/24", "n1")).await.expect_err("not its keys");
    let told = crate::telemetry::chain(&error);
    assert!(told.contains("store.etcd.prefix"), "{told}");
    off_runtime(move || drop(server)).await;
}
