//! The directory as it may be found. `crash`: agents that die; `trouble`: disks that fail; `versions`: upgrades.

mod crash;
mod trouble;
mod versions;

use std::fs;
use std::io::Write;

use tempfile::TempDir;

use super::*;
use crate::store::record;
use crate::store::tests::{block, claim_of, name, pool_of, record_of, until};

/// So slow that what a test sees in time was not seen by a rescan.
fn watching() -> FileOptions {
    FileOptions { rescan: Duration::from_secs(3600), ..FileOptions::default() }
}

/// So fast that what is not watched is seen too.
fn rescanning() -> FileOptions {
    FileOptions {
        rescan: Duration::from_millis(50),
        poll: Duration::from_millis(50),
        ..FileOptions::default()
    }
}

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn path(&self, record: &str) -> PathBuf {
        self.root().join(record)
    }

    async fn open(&self, options: FileOptions) -> FileStore {
        FileStore::open(self.root(), options).await.unwrap()
    }
}

async fn health(store: &FileStore, what: &str, wanted: impl Fn(&Health) -> bool) -> Result<(), String> {
    let mut health = store.health();
    let found = tokio::time::timeout(Duration::from_secs(30), health.wait_for(|shown| wanted(shown))).await;
    match found {
        Ok(shown) => shown.unwrap().clone().map_err(|trouble| trouble.text),
        Err(_) => panic!("health is not {what}: {:?}", store.health().borrow()),
    }
}

fn no_leftovers(root: &Path) {
    for kind in Kind::ALL {
        for entry in fs::read_dir(root.join(kind.directory())).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(!name.to_string_lossy().starts_with(write::TEMPORARY), "{name:?} was left");
        }
    }
}

#[tokio::test]
async fn records_have_these_files() {
    let place = Place::new();
    let store = place.open(watching()).await;
    store.publish(&record_of("n1")).await.unwrap();
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap();
    store.claim(&claim_of("fd10:244:0:7::/64", "n1")).await.unwrap();
    store.release(block("10.244.7.0/24"), &name("n1")).await.unwrap();
    store.ensure_pool(&pool_of("10.244.0.0/16", 24)).await.unwrap();
    for path in [
        "nodes/n1.json",
        "claims/fd10-244-0-7---64.json",
        "released/10-244-7-0-24.json",
        "pools/10-244-0-0-16.json",
    ] {
        assert!(place.path(path).is_file(), "{path}");
    }
    assert!(!place.path("claims/10-244-7-0-24.json").exists());
    no_leftovers(&place.root());
}

/// What is written through a hard link elsewhere no notification tells of: a look at all finds it, one at what was told does
/// not.
#[tokio::test]
async fn only_what_a_notification_names_is_looked_at() {
    let place = Place::new();
    let writer = place.open(watching()).await;
    for node in ["n1", "n2"] {
        writer.publish(&record_of(node)).await.unwrap();
    }
    let store = place.open(watching()).await;
    until(&store, "both", |shown| shown.nodes.len() == 2).await;
    let outside = place.directory.path().join("link");
    fs::hard_link(place.path("nodes/n2.json"), &outside).unwrap();
    let moved = fs::read_to_string(&outside).unwrap().replace("192.0.2.7/24", "192.0.2.8/24");
    fs::write(&outside, moved).unwrap();
    let address = |shown: &Snapshot, node: &str| shown.nodes[&name(node)].underlay.ipv4.unwrap().to_string();
    let mut record = record_of("n1");
    record.underlay.ipv4 = Some("192.0.2.9/24".parse().unwrap());
    writer.publish(&record).await.unwrap();
    let shown = until(&store, "the change", |shown| address(shown, "n1") == "192.0.2.9/24").await;
    assert_eq!(address(&shown, "n2"), "192.0.2.7/24", "everything was read again");
    // What the store writes itself it follows by a look at all.
    store.publish(&record_of("n3")).await.unwrap();
    until(&store, "all", |shown| address(shown, "n2") == "192.0.2.8/24").await;
}

#[tokio::test]
async fn half_written_records_keep_their_last_good_content() {
    let place = Place::new();
    let store = place.open(watching()).await;
    store.publish(&record_of("n1")).await.unwrap();
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap();
    store.ensure_pool(&pool_of("10.244.0.0/16", 24)).await.unwrap();
    let whole =
        until(&store, "all", |shown| shown.pools.len() + shown.nodes.len() + shown.claims.len() == 3).await;

    for path in ["nodes/n1.json", "claims/10-244-7-0-24.json", "pools/10-244-0-0-16.json"] {
        // As an editor writes it: emptied, and then slowly.
        let good = fs::read(place.path(path)).unwrap();
        for broken in [&good[..0], &good[..good.len() / 2], b"\x00\xff\xfe binary", b"{\"version\": 1}"] {
            fs::write(place.path(path), broken).unwrap();
            let record = path.trim_end_matches(".json");
            let shown = until(&store, "a problem", |shown| shown.problems.contains_key(record)).await;
            assert!(shown.problems[record].ends_with("its last good content stands"), "{:?}", shown.problems);
            assert_eq!(
                (&shown.nodes, &shown.claims, &shown.pools),
                (&whole.nodes, &whole.claims, &whole.pools)
            );
            assert!(place.path(path).exists(), "it is never deleted");
            fs::write(place.path(path), &good).unwrap();
            until(&store, "no problem", |shown| shown.problems.is_empty()).await;
        }
    }
}

#[tokio::test]
async fn an_agent_that_starts_later_knows_a_broken_claim_by_its_name() {
    let place = Place::new();
    drop(place.open(watching()).await);
    fs::write(place.path("claims/10-244-7-0-24.json"), "half").unwrap();
    fs::write(place.path("nodes/n1.json"), "half").unwrap();
    fs::write(place.path("pools/10-244-0-0-16.json"), "half").unwrap();
    fs::write(place.path("released/10-244-9-0-24.json"), "half").unwrap();
    let store = place.open(watching()).await;
    let shown = until(&store, "the claim", |shown| !shown.claims.is_empty()).await;
    assert_eq!(shown.claims[&block("10.244.7.0/24")].holder, None);
    assert!(shown.nodes.is_empty() && shown.pools.is_empty());
    assert!(shown.released.contains_key(&block("10.244.9.0/24")));
    let problems: Vec<&String> = shown.problems.keys().collect();
    assert_eq!(
        problems,
        ["claims/10-244-7-0-24", "nodes/n1", "pools/10-244-0-0-16", "released/10-244-9-0-24"]
    );

    assert_eq!(store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap(), ClaimOutcome::TakenBy(None));
    assert!(!store.release(block("10.244.7.0/24"), &name("n1")).await.unwrap());
    store.ensure_pool(&pool_of("10.244.0.0/16", 24)).await.expect_err("nobody knows what it says");
    store.remove_node(&name("n9")).await.unwrap();
    assert_eq!(*store.health().borrow(), Ok(()), "the disk is well");
    // Its owner writes a node record anew.
    store.publish(&record_of("n1")).await.unwrap();
    until(&store, "n1", |shown| shown.nodes.contains_key(&name("n1"))).await;
    assert_eq!(fs::read_to_string(place.path("claims/10-244-7-0-24.json")).unwrap(), "half");
}

#[tokio::test]
async fn a_broken_claim_is_mended_by_who_knows_it_and_by_nobody_else() {
    let place = Place::new();
    let store = place.open(watching()).await;
    let claim = claim_of("10.244.7.0/24", "n1");
    let path = place.path("claims/10-244-7-0-24.json");
    store.claim(&claim).await.unwrap();
    until(&store, "the claim", |shown| !shown.claims.is_empty()).await;
    let good = fs::read(&path).unwrap();
    type Break = fn(&Path);
    let broken: [Break; 3] = [
        |path| fs::write(path, "half").unwrap(),
        // In one step: a scan between two would see a claim that is gone.
        |path| {
            let other = path.with_extension("other");
            std::os::unix::fs::symlink("nowhere", &other).unwrap();
            fs::rename(other, path).unwrap();
        },
        |path| {
            let other = path.with_extension("other");
            nix::unistd::mkfifo(&other, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
            fs::rename(other, path).unwrap();
        },
    ];
    for damage in broken {
        damage(&path);
        let shown = until(&store, "the damage", |shown| shown.unreadable.contains(&claim.block)).await;
        assert_eq!(shown.claims[&claim.block], claim, "its last good content stands");
        assert_eq!(
            store.claim(&claim).await.unwrap(),
            ClaimOutcome::TakenBy(None),
            "a claim alone mends nothing"
        );
        assert_eq!(store.mend_claim(&claim).await.unwrap(), ClaimOutcome::Claimed);
        until(&store, "no damage", |shown| shown.unreadable.is_empty() && shown.problems.is_empty()).await;
        assert_eq!(fs::read(&path).unwrap(), good);
    }
    // A newer version's record is readable as far as we know it, and stays.
    let newer = Encoding { version: record::VERSION + 1 }.claim(&claim);
    fs::write(path.with_extension("other"), &newer).unwrap();
    fs::rename(path.with_extension("other"), &path).unwrap();
    let shown = until(&store, "the note", |shown| !shown.problems.is_empty()).await;
    assert!(shown.unreadable.is_empty());
    assert_eq!(store.mend_claim(&claim).await.unwrap(), ClaimOutcome::Claimed);
    assert_eq!(fs::read(&path).unwrap(), newer);
}

#[tokio::test]
async fn whatever_stands_in_place_of_a_record_is_survived() {
    let place = Place::new();
    drop(place.open(watching()).await);
    let secret = place.directory.path().join("secret.json");
    let claim = |third: u8| place.path(&format!("claims/10-244-{third}-0-24.json"));
    fs::write(&secret, Encoding::default().claim(&claim_of("10.244.1.0/24", "n9"))).unwrap();
    std::os::unix::fs::symlink(&secret, claim(1)).unwrap();
    std::os::unix::fs::symlink("nowhere", claim(2)).unwrap();
    fs::create_dir(claim(3)).unwrap();
    nix::unistd::mkfifo(&claim(4), nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(claim(5)).unwrap());
    fs::File::create(claim(6)).unwrap().write_all(&vec![b' '; 100_000]).unwrap();
    // Sparse: reading it to its end would take memory without end.
    fs::File::create(claim(7)).unwrap().set_len(1 << 40).unwrap();
    fs::write(claim(8), "[".repeat(60_000)).unwrap();
    let store = place.open(watching()).await;
    let shown = until(&store, "8 claims", |shown| shown.claims.len() == 8).await;
    assert_eq!(shown.problems.len(), 8, "{:?}", shown.problems);
    assert!(shown.claims.values().all(|claim| claim.holder.is_none()), "{:?}", shown.claims);
    for third in 1..=8 {
        let claim = claim_of(&format!("10.244.{third}.0/24"), "n1");
        assert_eq!(store.claim(&claim).await.unwrap(), ClaimOutcome::TakenBy(None), "{}", claim.block);
    }
    assert_eq!(*store.health().borrow(), Ok(()));
}

#[tokio::test]
async fn names_that_mean_nothing_are_reported_and_others_ignored() {
    let place = Place::new();
    drop(place.open(watching()).await);
    let good = Encoding::default().node(&record_of("n1"), None);
    for file in [
        "nodes/n2.json",
        "nodes/Upper.json",
        "nodes/a b.json",
        "claims/10-244-7-1-24.json",
        "claims/block.json",
        "pools/x.json",
    ] {
        fs::write(place.path(file), &good).unwrap();
    }
    for file in [
        "nodes/README",
        "nodes/.n3.json.swp",
        "nodes/n1.json~",
        "nodes/.hidden.json",
        "claims/.tmp-abc",
        "note.txt",
    ] {
        fs::write(place.path(file), &good).unwrap();
    }
    use std::os::unix::ffi::OsStrExt;
    fs::write(place.root().join("nodes").join(std::ffi::OsStr::from_bytes(b"\xff\xfe.json")), &good).unwrap();
    fs::write(place.path("nodes/n1.json"), &good).unwrap();
    let store = place.open(watching()).await;
    let shown = until(&store, "n1", |shown| !shown.nodes.is_empty()).await;
    assert_eq!(shown.nodes.len(), 1);
    assert!(shown.claims.is_empty() && shown.pools.is_empty());
    let problems: Vec<&str> = shown.problems.keys().map(String::as_str).collect();
    let expected =
        ["claims/10-244-7-1-24", "claims/block", "nodes/Upper", "nodes/a b", "nodes/n2", "pools/x"];
    assert_eq!(problems, expected);
    assert_eq!(shown.problems["nodes/n2"], "it is named n2 but speaks of n1");
}

#[tokio::test]
async fn claims_that_overlap_are_reported() {
    let place = Place::new();
    let store = place.open(watching()).await;
    for claim in ["10.244.0.0/20", "10.244.7.0/24", "10.244.16.0/24", "fd10::/48", "fd10:0:0:1::/64"] {
        store.claim(&claim_of(claim, "n1")).await.unwrap();
    }
    let shown = until(&store, "5 claims", |shown| shown.claims.len() == 5).await;
    let problems: Vec<&String> = shown.problems.keys().collect();
    assert_eq!(problems, ["claims/10-244-7-0-24", "claims/fd10-0-0-1---64"]);
}

#[tokio::test]
async fn old_leftovers_are_swept_and_young_ones_are_not() {
    let place = Place::new();
    drop(place.open(watching()).await);
    let (old, young, old_directory) =
        (place.path("claims/.tmp-old"), place.path("claims/.tmp-young"), place.path("claims/.tmp-trial"));
    fs::create_dir(&old_directory).unwrap();
    let hour = Duration::from_secs(3600);
    for path in [&old, &young] {
        fs::write(path, "half").unwrap();
    }
    for path in [&old, &old_directory] {
        let file = fs::File::open(path).unwrap();
        file.set_modified(file.metadata().unwrap().modified().unwrap() - hour).unwrap();
    }
    let store = place.open(watching()).await;
    until(&store, "anything", |_| true).await;
    assert!(!old.exists() && !old_directory.exists() && young.exists());
}

#[tokio::test]
async fn memories_of_releases_go_after_a_day() {
    let place = Place::new();
    let store = place.open(watching()).await;
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap();
    let long_ago = Timestamp::now() - crate::store::FORGET_RELEASED_AFTER;
    fs::write(
        place.path("released/10-244-8-0-24.json"),
        Encoding::default().released(block("10.244.8.0/24"), long_ago),
    )
    .unwrap();
    store.release(block("10.244.7.0/24"), &name("n1")).await.unwrap();
    until(&store, "one memory", |shown| shown.released.keys().eq([&block("10.244.7.0/24")])).await;
}

#[tokio::test]
async fn files_that_come_and_go_by_hand_are_seen() {
    let place = Place::new();
    let store = place.open(watching()).await;
    until(&store, "anything", |_| true).await;
    let good = Encoding::default().node(&record_of("n1"), None);
    fs::write(place.path("nodes/n1.json"), &good).unwrap();
    until(&store, "n1", |shown| shown.nodes.len() == 1).await;
    fs::rename(place.path("nodes/n1.json"), place.path("nodes/n1.bak")).unwrap();
    until(&store, "nobody", |shown| shown.nodes.is_empty()).await;
    fs::rename(place.path("nodes/n1.bak"), place.path("nodes/n1.json")).unwrap();
    until(&store, "n1", |shown| shown.nodes.len() == 1).await;
    fs::remove_dir_all(place.path("nodes")).unwrap();
    until(&store, "nobody", |shown| shown.nodes.is_empty()).await;
    fs::create_dir_all(place.path("nodes")).unwrap();
    fs::write(place.path("nodes/n1.json"), &good).unwrap();
    until(&store, "n1 again", |shown| shown.nodes.len() == 1).await;
}

#[tokio::test]
async fn a_heartbeat_wakes_nobody() {
    let place = Place::new();
    let store = place.open(watching()).await;
    store.publish(&record_of("n1")).await.unwrap();
    let before = store.last_seen(&name("n1")).await.unwrap();
    let (mut events, _) = watch_directory::watch(&place.root()).unwrap();
    store.heartbeat(&name("n1")).await.unwrap();
    assert!(store.last_seen(&name("n1")).await.unwrap() >= before);
    // Events come in order: had the heartbeat been one, it would be the first.
    fs::rename(place.path("nodes/n1.json"), place.path("nodes/control.json")).unwrap();
    let first = futures_util::StreamExt::next(&mut events).await.unwrap().unwrap();
    assert_eq!((first.mask, first.name), (inotify::EventMask::MOVED_FROM, Some("n1.json".into())));
    let second = futures_util::StreamExt::next(&mut events).await.unwrap().unwrap();
    assert_eq!(second.name, Some("control.json".into()));
}

#[tokio::test]
async fn where_nothing_can_be_watched_the_directory_is_polled() {
    let place = Place::new();
    let options =
        FileOptions { allow_network_filesystem: true, poll: Duration::from_millis(20), ..watching() };
    let (one, other) = (place.open(options.clone()).await, place.open(options).await);
    until(&other, "anything", |_| true).await;
    one.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap();
    until(&other, "the claim", |shown| shown.claims.len() == 1).await;
}

#[tokio::test]
async fn a_file_in_place_of_the_directory_is_refused_for_good() {
    let place = Place::new();
    fs::write(place.root(), "a file").unwrap();
    let error = FileStore::open(place.root(), watching()).await.unwrap_err();
    assert!(matches!(error, UnfitDirectory::NotADirectory { .. }), "{error}");
}

#[test]
fn network_filesystems_are_known_by_number_and_by_mount() {
    for (number, expected) in [
        (0x6969, Some("NFS")),
        (0xff53_4d42, Some("CIFS")),
        (0x0102_1997, Some("9P")),
        (0xef53, None),
        (0x0102_1994, None),
    ] {
        assert_eq!(filesystem::network_name(number, || panic!("not FUSE")).as_deref(), expected);
    }
    let fuse = |kind: Option<&str>| filesystem::network_name(0x6573_5546, || kind.map(str::to_owned));
    assert_eq!(fuse(Some("fuse.sshfs")).as_deref(), Some("fuse.sshfs"));
    assert_eq!(fuse(Some("virtiofs")).as_deref(), Some("virtiofs"));
    assert_eq!(fuse(None).as_deref(), Some("fuse"));
    assert_eq!(fuse(Some("fuse.fuse-overlayfs")), None);
    let mountinfo = "22 27 0:21 / /proc rw shared:14 - proc proc rw\n\
                     36 35 0:50 / /mnt rw,noatime master:1 propagate_from:2 - fuse.sshfs host:/ rw\n\
                     37 35 0:51 / /mnt/a\\040b rw - fuse.gluster x rw\n";
    assert_eq!(filesystem::type_of_device(mountinfo, 0, 50).as_deref(), Some("fuse.sshfs"));
    assert_eq!(filesystem::type_of_device(mountinfo, 0, 51).as_deref(), Some("fuse.gluster"));
    assert_eq!(filesystem::type_of_device(mountinfo, 0, 5), None);
    assert_eq!(filesystem::network_filesystem(Path::new("/proc")).unwrap(), None);
}

/// So that what records say is kept at every scan.
fn keeping(place: &Place) -> FileOptions {
    let file = place.directory.path().join("records.json");
    FileOptions { last_good: Some(file), last_good_every: Duration::ZERO, ..rescanning() }
}

#[tokio::test]
async fn a_record_that_breaks_while_the_agent_is_away_keeps_its_last_good_content() {
    let place = Place::new();
    let (record, claim) = (record_of("n2"), claim_of("10.244.7.0/24", "n2"));
    let store = place.open(keeping(&place)).await;
    store.publish(&record).await.unwrap();
    store.claim(&claim).await.unwrap();
    store.ensure_pool(&pool_of("10.244.0.0/16", 24)).await.unwrap();
    until(&store, "all", |shown| shown.nodes.len() + shown.claims.len() + shown.pools.len() == 3).await;
    let kept = place.directory.path().join("records.json");
    let all = |text: String| text.contains("n2") && text.contains("10-244-7-0-24") && text.contains("pools/");
    for _ in 0..500 {
        if fs::read_to_string(&kept).is_ok_and(all) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(store);

    for path in ["nodes/n2.json", "claims/10-244-7-0-24.json", "pools/10-244-0-0-16.json"] {
        fs::write(place.path(path), "half").unwrap();
    }
    // A record that was never read has no content, and the control has none without the file.
    fs::write(place.path("nodes/n3.json"), "half").unwrap();
    let control = place.open(rescanning()).await;
    let shown = until(&control, "the claim", |shown| shown.claims.len() == 1).await;
    assert!(shown.nodes.is_empty() && shown.pools.is_empty() && shown.claims[&claim.block].holder.is_none());
    drop(control);

    let store = place.open(keeping(&place)).await;
    let shown = until(&store, "the claim", |shown| shown.claims.len() == 1).await;
    assert_eq!(shown.nodes.values().map(AsRef::as_ref).collect::<Vec<_>>(), [&record]);
    assert_eq!(shown.claims[&claim.block], claim);
    assert_eq!(shown.pools.len(), 1);
    assert!(shown.unreadable.contains(&claim.block));
    assert_eq!(shown.problems.len(), 4, "{:?}", shown.problems);
    assert!(shown.problems["nodes/n2"].ends_with("its last good content stands"));
    assert!(!shown.problems["nodes/n3"].contains("last good"));
    // It does not outlive the record, and is written on.
    fs::remove_file(place.path("nodes/n2.json")).unwrap();
    until(&store, "no node", |shown| shown.nodes.is_empty()).await;
    drop(store);
    fs::write(place.path("nodes/n2.json"), "half").unwrap();
    fs::write(&kept, "not ours").unwrap();
    let store = place.open(keeping(&place)).await;
    let shown = until(&store, "the claim", |shown| shown.claims.len() == 1).await;
    assert!(
        shown.nodes.is_empty() && shown.claims[&claim.block].holder.is_none(),
        "a broken memory says nothing"
    );
}
