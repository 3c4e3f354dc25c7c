use std::fs;
use std::os::unix::fs::symlink;

use jiff::Timestamp;
use tokio::time::timeout;

use super::*;
use crate::node::Claim;
use crate::plan::tests::{config, pool};

fn refusal(change: impl FnOnce(&mut Config), snapshot: &Snapshot) -> Result<Vec<String>, String> {
    let old = config("n1");
    let mut new = old.clone();
    change(&mut new);
    take_over(&old, &new, Some(snapshot), &[])
        .map(|changes| changes.into_iter().map(|change| change.key).collect())
        .map_err(|refused| refused.to_string())
}

#[test]
fn what_can_change_does_and_the_rest_is_refused_by_key() {
    let nothing = Snapshot::default();
    assert_eq!(refusal(|_| (), &nothing), Ok(vec![]));
    assert_eq!(
        refusal(|config| config.bgp.hold_time = Duration::from_secs(30), &nothing),
        Ok(vec!["bgp.holdTime".to_owned()])
    );
    let text = refusal(
        |config| {
            config.bgp.hold_time = Duration::from_secs(30);
            config.vxlan.vni = 7;
            config.kernel.table = 9;
        },
        &nothing,
    )
    .unwrap_err();
    for part in ["vxlan.vni changes from 4096 to 7 only when the agent starts again", "kernel.table"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_pool_goes_only_when_nobody_holds_a_block_of_it() {
    let mut snapshot = Snapshot::default();
    let swap = |config: &mut Config| config.pools = vec![pool("10.245.0.0/16", 24)];
    assert!(refusal(swap, &snapshot).is_ok());
    let block = Block::new("10.244.3.0/24".parse().unwrap());
    let claim = Claim {
        block,
        holder: Some("n2".parse().unwrap()),
        claimed_at: Timestamp::UNIX_EPOCH,
        unknown: [].into(),
    };
    snapshot.claims.insert(block, claim);
    let text = refusal(swap, &snapshot).unwrap_err();
    assert!(text.contains("pool 10.244.0.0/16 can't be removed while 1 of its blocks is held"), "{text}");
    assert!(refusal(|config| config.pools[0].disabled = true, &snapshot).is_ok());
    // One sentence, with what to do.
    let text = refusal(|config| config.pools[0].block_prefix = 26, &snapshot).unwrap_err();
    assert!(text.contains("add another pool for blocks of /26"), "{text}");
    assert_eq!(text.matches("10.244.0.0/16").count(), 2, "{text}");
    assert!(!text.contains("give them back"), "{text}");
}

struct Watched {
    wakes: mpsc::Receiver<()>,
    stop: CancellationToken,
    task: tokio::task::JoinSet<io::Result<()>>,
}

impl Watched {
    fn start(file: &Path) -> Self {
        let stop = CancellationToken::new();
        let (wakes, watching) = watch_file(file, stop.clone());
        let mut task = tokio::task::JoinSet::new();
        task.spawn(watching);
        Self { wakes, stop, task }
    }

    async fn woken(&mut self, what: &str) {
        let woken = timeout(Duration::from_secs(20), self.wakes.recv()).await;
        assert_eq!(woken.expect(what), Some(()), "{what}");
    }

    async fn end(mut self) {
        self.stop.cancel();
        timeout(Duration::from_secs(20), self.task.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    }
}

/// Changes are made until one is seen: the watch begins some time after the task was started.
async fn first_wake(watched: &mut Watched, mut change: impl FnMut()) {
    for _ in 0..200 {
        change();
        if timeout(Duration::from_millis(100), watched.wakes.recv()).await.is_ok() {
            return;
        }
    }
    panic!("no change is seen");
}

#[tokio::test]
async fn a_written_and_a_renamed_file_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    fs::write(&file, "a").unwrap();
    let mut watched = Watched::start(&file);
    first_wake(&mut watched, || fs::write(&file, "b").unwrap()).await;
    // What the first changes left behind is over when a wait finds nothing.
    while timeout(Duration::from_millis(500), watched.wakes.recv()).await.is_ok() {}
    let new = folder.path().join(".config.yaml.new");
    fs::write(&new, "c").unwrap();
    fs::rename(&new, &file).unwrap();
    watched.woken("rename").await;
    fs::write(&file, "d").unwrap();
    watched.woken("the file that was renamed into place").await;
    watched.end().await;
}

#[tokio::test]
async fn a_config_map_that_swaps_its_link_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for version in ["..1", "..2"] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("config.yaml"), version).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/config.yaml", at("config.yaml")).unwrap();
    let mut watched = Watched::start(&at("config.yaml"));
    let mut version = 1;
    let swap = || {
        version = 3 - version;
        symlink(format!("..{version}"), at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    first_wake(&mut watched, swap).await;
    assert_eq!(fs::read_to_string(at("config.yaml")).unwrap(), format!("..{version}"));
    watched.end().await;
}

#[tokio::test]
async fn a_hangup_signal_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let mut watched = Watched::start(&folder.path().join("config.yaml"));
    // A listener of our own first, so that the signal can't end the process before the watch is set up.
    let mut heard = signal(SignalKind::hangup()).unwrap();
    first_wake(&mut watched, || nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap()).await;
    heard.recv().await;
    watched.end().await;
}
