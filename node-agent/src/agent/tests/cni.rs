//! Files for CNI plugins: what others do to them is noticed at once.

use std::fs;
use std::time::Duration;

use super::harness::Cluster;
use super::reload::eventually;

/// The audit finds it too, in an hour.
#[tokio::test]
async fn what_others_do_to_the_files_is_mended_at_once() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("net.d");
    let (conflist, subnet_env) = (folder.join("10-pairway.conflist"), root.path().join("subnet.env"));
    let mut cluster = Cluster::new();
    cluster.add("n1", &["192.0.2.11/24"]);
    {
        let node = cluster.nodes.get_mut("n1").unwrap();
        node.limits.audit = Duration::from_secs(3600);
        let mut config = node.config.lock().unwrap();
        let config = config.as_mut().unwrap();
        config.cni.conflist = Some(conflist.clone());
        config.cni.subnet_env = Some(subnet_env.clone());
    }
    cluster.start("n1");
    let node = cluster.node("n1");
    node.until("ready", |published| published.status.ready).await;
    eventually(|| conflist.is_file() && subnet_env.is_file()).await;
    let ours = fs::read(&conflist).unwrap();

    fs::remove_file(&conflist).unwrap();
    eventually(|| conflist.is_file()).await;
    fs::remove_file(&subnet_env).unwrap();
    eventually(|| subnet_env.is_file()).await;
    // Its folder, too, goes with all that is in it.
    fs::remove_dir_all(&folder).unwrap();
    eventually(|| conflist.is_file()).await;

    // Somebody else's is said and stays, whatever it is; ours comes back when it goes.
    fs::write(&subnet_env, "FLANNEL_SUBNET=10.0.0.1/24\n").unwrap();
    node.until_condition("CniConflict").await;
    fs::remove_file(&subnet_env).unwrap();
    node.until_no_condition("CniConflict").await;
    assert!(subnet_env.is_file());
    fs::remove_file(&conflist).unwrap();
    eventually(|| conflist.is_file()).await;
    fs::remove_file(&conflist).and_then(|()| fs::create_dir(&conflist)).unwrap();
    node.until_condition("CniConflict").await;
    fs::remove_dir(&conflist).unwrap();
    node.until_no_condition("CniConflict").await;
    assert_eq!(fs::read(&conflist).unwrap(), ours);

    // Another place, taken while the agent runs, is watched as well.
    let other = root.path().join("other.d/10-pairway.conflist");
    node.reconfigure(|config| config.cni.conflist = Some(other.clone()));
    eventually(|| other.is_file() && !conflist.exists()).await;
    fs::remove_file(&other).unwrap();
    eventually(|| other.is_file()).await;
}
