//! Disks and directories that fail: conditions, not crashes.
//!
//! What needs a mount happens in a process with mounts of its own, which go with it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use super::*;

#[tokio::test]
async fn a_fifo_in_place_of_the_lock_makes_nobody_wait() {
    let place = Place::new();
    let store = place.open(FileOptions::default()).await;
    let claim = claim_of("10.244.1.0/24", "n1");
    store.claim(&claim).await.unwrap();
    let lock = place.root().join(".lock");
    fs::remove_file(&lock).unwrap();
    nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), store.release(claim.block, &name("n1"))).await;
    assert!(answer.expect("an answer, not a reader that never comes").is_err());
    fs::remove_file(&lock).unwrap();
    assert!(store.release(claim.block, &name("n1")).await.unwrap());
}

/// Fails each step of an operation in turn, as the kernel would.
#[tokio::test]
async fn an_error_at_any_step_leaves_nothing_or_all_and_no_leftovers() {
    for steps in 0.. {
        let place = Place::new();
        let left = Arc::new(Mutex::new(None));
        let gate: write::Gate = Arc::new({
            let left = left.clone();
            move |step| {
                if step == write::Step::Scan {
                    return Ok(());
                }
                let mut left = left.lock().unwrap();
                match left.as_mut() {
                    Some(0) => {
                        *left = None;
                        Err(io::Error::from_raw_os_error(nix::libc::ENOSPC))
                    }
                    Some(left) => {
                        *left -= 1;
                        Ok(())
                    }
                    None => Ok(()),
                }
            }
        });
        let store = FileStore::open_with(place.root(), watching(), Some(gate)).await.unwrap();
        *left.lock().unwrap() = Some(steps);
        let claim = claim_of("10.244.7.0/24", "n1");
        let result = store.claim(&claim).await;
        let has_failed = left.lock().unwrap().take().is_none();
        assert_eq!(result.is_err(), has_failed, "step {steps}: {result:?}");
        no_leftovers(&place.root());
        if let Err(error) = &result {
            assert_eq!(error.to_string(), "can't claim claims/10-244-7-0-24");
        }
        assert_eq!(store.claim(&claim).await.unwrap(), ClaimOutcome::Claimed, "the next try succeeds");
        let shown = until(&store, "the claim", |shown| shown.claims.len() == 1).await;
        assert_eq!((&shown.claims[&claim.block], shown.problems.len()), (&claim, 0));
        if !has_failed {
            assert!(steps >= 5, "a claim has {steps} steps");
            return;
        }
    }
}

#[tokio::test]
async fn a_directory_that_is_gone_is_never_made_again() {
    let place = Place::new();
    let options = FileOptions { poll: Duration::from_millis(20), ..watching() };
    let store = place.open(options).await;
    store.publish(&record_of("n1")).await.unwrap();
    let before = until(&store, "n1", |shown| shown.nodes.len() == 1).await;
    let old = place.directory.path().join("old");
    fs::rename(place.root(), &old).unwrap();
    let trouble = health(&store, "ill", Result::is_err).await.unwrap_err();
    assert!(trouble.contains("is gone: it was unmounted, renamed or removed"), "{trouble}");
    assert!(store.health().borrow().as_ref().unwrap_err().detached);
    store.publish(&record_of("n1")).await.unwrap_err();
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap_err();
    assert!(!place.root().exists());

    // Made by somebody else it is another one.
    fs::create_dir(place.root()).unwrap();
    let trouble = health(&store, "ill otherwise", |health| {
        health.as_ref().is_err_and(|trouble| trouble.text.contains("another directory"))
    })
    .await
    .unwrap_err();
    assert!(trouble.contains("restart the agents"), "{trouble}");
    store.publish(&record_of("n1")).await.unwrap_err();
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap_err();
    store.release(block("10.244.7.0/24"), &name("n1")).await.unwrap_err();
    store.ensure_pool(&pool_of("10.244.0.0/16", 24)).await.unwrap_err();
    store.heartbeat(&name("n1")).await.unwrap_err();
    assert_eq!(fs::read_dir(place.root()).unwrap().count(), 0, "nothing is made there");
    assert_eq!(until(&store, "anything", |_| true).await, before, "the last snapshot stands");

    fs::remove_dir(place.root()).unwrap();
    fs::rename(&old, place.root()).unwrap();
    health(&store, "well", Result::is_ok).await.unwrap();
    assert_eq!(until(&store, "anything", |_| true).await, before);
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap();
    until(&store, "the claim", |shown| shown.claims.len() == 1).await;
}

#[tokio::test]
async fn a_restored_directory_is_known_by_the_records_in_it() {
    let copy = |nodes: &[&str]| {
        let place = Place::new();
        fs::create_dir_all(place.path("nodes")).unwrap();
        for node in nodes {
            let record = Encoding::default().node(&record_of(node), None);
            fs::write(place.path(&format!("nodes/{node}.json")), record).unwrap();
        }
        place
    };
    for (nodes, is_the_store) in
        [(&["n1", "n2", "n4"][..], true), (&["n1"], false), (&["n2", "n3"], false), (&["n1", "n9"], false)]
    {
        let place = Place::new();
        let store = place.open(FileOptions { poll: Duration::from_millis(20), ..watching() }).await;
        for node in ["n3", "n2", "n1"] {
            // The last one is whose agent this is.
            store.publish(&record_of(node)).await.unwrap();
        }
        let before = until(&store, "three nodes", |shown| shown.nodes.len() == 3).await;
        let other = copy(nodes);
        fs::rename(place.root(), place.directory.path().join("old")).unwrap();
        fs::rename(other.root(), place.root()).unwrap();
        if is_the_store {
            until(&store, "the copy", |shown| shown.nodes.contains_key(&name("n4"))).await;
            store.publish(&record_of("n1")).await.unwrap();
            fs::remove_file(place.path("nodes/n4.json")).unwrap();
            until(&store, "two nodes", |shown| shown.nodes.len() == 2).await;
        } else {
            health(&store, "ill", Result::is_err).await.unwrap_err();
            store.publish(&record_of("n1")).await.unwrap_err();
            assert_eq!(until(&store, "anything", |_| true).await, before, "{nodes:?}");
        }
    }
}

#[tokio::test]
async fn an_emptied_directory_is_filled_again_and_meanwhile_says_so() {
    let place = Place::new();
    let store = place.open(watching()).await;
    store.publish(&record_of("n1")).await.unwrap();
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap();
    let before = until(&store, "all", |shown| shown.nodes.len() + shown.claims.len() == 2).await;
    for kind in Kind::ALL {
        fs::remove_dir_all(place.path(kind.directory())).unwrap();
    }
    let emptied = until(&store, "the loss", |shown| shown.nodes.is_empty()).await;
    assert!(emptied.rebuilding && !before.rebuilding);
    assert_eq!(*store.health().borrow(), Ok(()));
    store.publish(&record_of("n1")).await.unwrap();
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap();
    let again = until(&store, "all again", |shown| shown.claims.len() == 1 && !shown.rebuilding).await;
    assert_eq!((&again.nodes, &again.claims), (&before.nodes, &before.claims));
}

#[tokio::test]
async fn a_directory_without_parents_is_not_made_again() {
    let place = Place::new();
    let options = rescanning();
    let parent = place.directory.path().join("mount");
    let store = FileStore::open(parent.join("store"), options).await.unwrap();
    store.publish(&record_of("n1")).await.unwrap();
    let before = until(&store, "n1", |shown| shown.nodes.len() == 1).await;
    fs::rename(&parent, place.directory.path().join("away")).unwrap();
    health(&store, "ill", Result::is_err).await.unwrap_err();
    let error = store.publish(&record_of("n2")).await.unwrap_err();
    assert_eq!(error.to_string(), "can't publish nodes/n2");
    assert_eq!(until(&store, "anything", |_| true).await, before);
    assert!(!parent.exists());
    // It comes back as it was: nothing changed, and changes are seen again.
    fs::rename(place.directory.path().join("away"), &parent).unwrap();
    health(&store, "well", Result::is_ok).await.unwrap();
    assert_eq!(until(&store, "anything", |_| true).await, before);
    fs::remove_file(parent.join("store/nodes/n1.json")).unwrap();
    until(&store, "nobody", |shown| shown.nodes.is_empty()).await;
}

#[tokio::test]
async fn a_scan_that_hangs_is_told_and_ends_well() {
    let place = Place::new();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(Some(held));
    let hangs = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let gate: write::Gate = Arc::new({
        let hangs = hangs.clone();
        move |step| {
            if step == write::Step::Scan && hangs.load(std::sync::atomic::Ordering::SeqCst) {
                // Until the other end is dropped.
                if let Some(held) = held.lock().unwrap().take() {
                    let _ = held.recv();
                }
            }
            Ok(())
        }
    });
    let options = FileOptions { deadline: Duration::from_millis(100), ..watching() };
    let store = FileStore::open_with(place.root(), options, Some(gate)).await.unwrap();
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap();
    let before = until(&store, "the claim", |shown| shown.claims.len() == 1).await;
    hangs.store(true, std::sync::atomic::Ordering::SeqCst);
    store.claim(&claim_of("10.244.8.0/24", "n1")).await.unwrap();
    let trouble = health(&store, "ill", Result::is_err).await.unwrap_err();
    assert!(trouble.contains("the disk hangs"), "{trouble}");
    assert_eq!(until(&store, "anything", |_| true).await, before, "the last snapshot stands");
    drop(hold);
    health(&store, "well", Result::is_ok).await.unwrap();
    until(&store, "both claims", |shown| shown.claims.len() == 2).await;
}

#[tokio::test]
async fn events_that_were_lost_are_made_up_for() {
    let most: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let place = Place::new();
    let store = place.open(watching()).await;
    store.publish(&record_of("n1")).await.unwrap();
    until(&store, "n1", |shown| shown.nodes.len() == 1).await;
    let mut control = inotify::Inotify::init().unwrap();
    control.watches().add(place.path("nodes"), inotify::WatchMask::MOVE).unwrap();
    // This thread is the runtime's: nobody reads events meanwhile, and those at the end are dropped.
    for _ in 0..=most / 2 {
        fs::rename(place.path("nodes/n1.json"), place.path("nodes/.n1")).unwrap();
        fs::rename(place.path("nodes/.n1"), place.path("nodes/n1.json")).unwrap();
    }
    fs::write(place.path("nodes/n2.json"), Encoding::default().node(&record_of("n2"), None)).unwrap();
    until(&store, "n2", |shown| shown.nodes.len() == 2).await;
    let (mut overflows, mut buffer) = (0, [0; 4096]);
    while let Ok(events) = control.read_events(&mut buffer) {
        for event in events.map(|event| event.to_owned()) {
            let is_overflow = event.mask.contains(inotify::EventMask::Q_OVERFLOW);
            assert_eq!(
                matches!(watch_directory::meaning(&[], &event), watch_directory::Seen::Lost),
                is_overflow
            );
            overflows += usize::from(is_overflow);
        }
    }
    assert_eq!(overflows, 1, "the queue has overflowed");
}

#[test]
fn watches_that_are_used_up() {
    // The limits are per user namespace, and root there may lower its own.
    alone("watches_used_up_alone", &["unshare", "--user", "--map-root-user"]);
}

#[tokio::test]
#[ignore = "lowers the limits of its user namespace: see the test above"]
async fn watches_used_up_alone() {
    for limit in ["max_inotify_instances", "max_inotify_watches"] {
        let path = format!("/proc/sys/user/{limit}");
        let usual = fs::read_to_string(&path).unwrap();
        fs::write(&path, "0").unwrap();
        let root = given().join(limit);
        let options = FileOptions { poll: Duration::from_millis(50), ..watching() };
        let store = FileStore::open(&root, options).await.unwrap();
        until(&store, "anything", |_| true).await;
        watch_directory::watch(&root).map(drop).expect_err("the limit holds");
        let file = |node: &str| root.join(format!("nodes/{node}.json"));
        fs::write(file("n1"), Encoding::default().node(&record_of("n1"), None)).unwrap();
        until(&store, "n1, by polling", |shown| shown.nodes.len() == 1).await;
        assert_eq!(*store.health().borrow(), Ok(()), "{limit}: slower, but well");
        fs::write(&path, usual).unwrap();
        fs::write(file("n2"), Encoding::default().node(&record_of("n2"), None)).unwrap();
        until(&store, "n2", |shown| shown.nodes.len() == 2).await;
    }
}

#[tokio::test]
async fn a_held_lock_is_an_error_in_time() {
    let place = Place::new();
    let store = place.open(FileOptions { deadline: Duration::from_millis(100), ..watching() }).await;
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap();
    let lock = fs::File::create(place.path(".lock")).unwrap();
    lock.lock().unwrap();
    let error = store.release(block("10.244.7.0/24"), &name("n1")).await.unwrap_err();
    assert!(error.source.to_string().contains("no answer"), "{}", error.source);
    assert_eq!(
        store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap(),
        ClaimOutcome::Claimed,
        "a claim that stands needs no lock"
    );
}

/// Runs a test of this file in a process of its own, behind a wrapper.
fn alone(test: &str, wrapper: &[&str]) {
    let place = Place::new();
    let test = format!("store::file::tests::trouble::{test}");
    let output = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--ignored", "--nocapture"])
        .env("PAIRWAY_TEST_PLACE", place.directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    // A name that matches no test is a success too.
    let ran = output.status.success() && text.contains("1 passed");
    assert!(ran, "{test}: {text}{}", String::from_utf8_lossy(&output.stderr));
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn with_own_mounts(test: &str) {
    let as_root: &[&str] = &["unshare", "--mount", "--propagation", "private"];
    let as_user: &[&str] = &["unshare", "--user", "--map-root-user", "--mount"];
    alone(test, if is_root() { as_root } else { as_user });
}

/// The directory that the process was given.
fn given() -> PathBuf {
    PathBuf::from(std::env::var("PAIRWAY_TEST_PLACE").unwrap())
}

fn run(command: &str, arguments: &[&str]) {
    assert!(Command::new(command).args(arguments).status().unwrap().success(), "{command} {arguments:?}");
}

#[test]
fn a_full_disk() {
    with_own_mounts("full_disk_alone");
}

#[tokio::test]
#[ignore = "needs mounts of its own: see the test above"]
async fn full_disk_alone() {
    let root = given().join("disk");
    fs::create_dir(&root).unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=256k", "tmpfs", root.to_str().unwrap()]);
    let store =
        FileStore::open(root.join("store"), FileOptions { poll: Duration::from_millis(50), ..watching() })
            .await
            .unwrap();
    store.publish(&record_of("n1")).await.unwrap();
    let before = until(&store, "n1", |shown| shown.nodes.len() == 1).await;
    let mut filler = fs::File::create(root.join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}

    let error = store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap_err();
    assert_eq!(error.source.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::StorageFull);
    let trouble = health(&store, "ill", Result::is_err).await.unwrap_err();
    assert!(trouble.contains("no space"), "{trouble}");
    store.heartbeat(&name("n1")).await.expect("a sign of life takes no space");
    assert_eq!(until(&store, "anything", |_| true).await, before);
    let late = FileStore::open(root.join("store"), watching()).await.unwrap();
    until(&late, "n1", |shown| shown.nodes.len() == 1).await;
    health(&late, "ill", Result::is_err).await.unwrap_err();

    drop(filler);
    fs::remove_file(root.join("filler")).unwrap();
    health(&store, "well", Result::is_ok).await.unwrap();
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap();
    no_leftovers(&root.join("store"));
}

#[test]
fn a_read_only_disk() {
    with_own_mounts("read_only_disk_alone");
}

#[tokio::test]
#[ignore = "needs mounts of its own: see the test above"]
async fn read_only_disk_alone() {
    let root = given().join("disk");
    fs::create_dir(&root).unwrap();
    let path = root.to_str().unwrap();
    run("mount", &["-t", "tmpfs", "tmpfs", path]);
    let store = FileStore::open(&root, rescanning()).await.unwrap();
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap();
    let before = until(&store, "the claim", |shown| shown.claims.len() == 1).await;
    run("mount", &["-o", "remount,ro", path]);
    let trouble = health(&store, "ill", Result::is_err).await.unwrap_err();
    assert!(trouble.contains("is read-only: mount it writable"), "{trouble}");
    store.claim(&claim_of("10.244.8.0/24", "n1")).await.unwrap_err();
    store.release(block("10.244.7.0/24"), &name("n1")).await.unwrap_err();
    assert_eq!(until(&store, "anything", |_| true).await, before);

    // An agent that starts now reads what is there.
    let late = FileStore::open(&root, rescanning()).await.unwrap();
    assert_eq!(until(&late, "the claim", |shown| shown.claims.len() == 1).await.claims, before.claims);
    health(&late, "ill", Result::is_err).await.unwrap_err();

    run("mount", &["-o", "remount,rw", path]);
    for store in [&store, &late] {
        health(store, "well", Result::is_ok).await.unwrap();
    }
    late.claim(&claim_of("10.244.8.0/24", "n1")).await.unwrap();
    until(&store, "both claims", |shown| shown.claims.len() == 2).await;
}

#[test]
fn a_directory_mounted_in_two_places() {
    with_own_mounts("mounted_in_two_places_alone");
}

#[tokio::test]
#[ignore = "needs mounts of its own: see the test above"]
async fn mounted_in_two_places_alone() {
    let (here, there) = (given().join("here"), given().join("there"));
    fs::create_dir(&here).unwrap();
    fs::create_dir(&there).unwrap();
    let path = there.to_str().unwrap();
    run("mount", &["--bind", here.to_str().unwrap(), path]);
    // Longer than the test waits: what is seen was watched.
    let one = FileStore::open(&here, watching()).await.unwrap();
    let other = FileStore::open(&there, watching()).await.unwrap();
    one.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap();
    until(&other, "n1's claim", |shown| shown.claims.len() == 1).await;
    let outcome = other.claim(&claim_of("10.244.7.0/24", "n2")).await.unwrap();
    assert_eq!(outcome, ClaimOutcome::TakenBy(Some(name("n1"))));

    // Under the mount is an empty directory; it looks like an emptied store, and the agent is the one to doubt it.
    run("umount", &["--lazy", path]);
    let store = FileStore::open(&there, watching()).await.unwrap();
    until(&store, "nothing", |shown| shown.claims.is_empty()).await;
    run("mount", &["--bind", here.to_str().unwrap(), path]);
    one.claim(&claim_of("10.244.8.0/24", "n1")).await.unwrap();
    let late = FileStore::open(&there, watching()).await.unwrap();
    until(&late, "both claims", |shown| shown.claims.len() == 2).await;
}

#[test]
fn a_disk_that_is_unmounted() {
    with_own_mounts("unmounted_alone");
}

#[tokio::test]
#[ignore = "needs mounts of its own: see the test above"]
async fn unmounted_alone() {
    let (disk, root) = (given().join("disk"), given().join("store"));
    fs::create_dir(&disk).unwrap();
    fs::create_dir(&root).unwrap();
    let (disk_path, path) = (disk.to_str().unwrap(), root.to_str().unwrap());
    // An operation may be under way, which makes the mount busy for that long.
    let unmount = || {
        let done = (0..1000)
            .any(|_| Command::new("umount").arg(path).stderr(Stdio::null()).status().unwrap().success());
        assert!(done);
    };
    run("mount", &["-t", "tmpfs", "tmpfs", disk_path]);
    run("mount", &["--bind", disk_path, path]);
    let store = FileStore::open(&root, watching()).await.unwrap();
    store.publish(&record_of("n1")).await.unwrap();
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap();
    let before = until(&store, "all", |shown| shown.nodes.len() + shown.claims.len() == 2).await;
    let refuses = async |what: &str| {
        let error = store.claim(&claim_of("10.244.8.0/24", "n1")).await.unwrap_err();
        assert!(error.source.to_string().contains("another directory"), "{what}: {}", error.source);
        store.publish(&record_of("n1")).await.unwrap_err();
        store.remove_node(&name("n1")).await.unwrap_err();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "nothing is made there: {what}");
        assert_eq!(until(&store, "anything", |_| true).await, before, "{what}");
    };

    unmount();
    let trouble = health(&store, "ill", Result::is_err).await.unwrap_err();
    assert!(trouble.contains("another directory than before bears the path"), "{trouble}");
    refuses("under the mount").await;
    run("mount", &["-t", "tmpfs", "tmpfs", path]);
    refuses("another file system").await;
    unmount();
    run("mount", &["--bind", disk_path, path]);
    health(&store, "well", Result::is_ok).await.unwrap();
    assert_eq!(until(&store, "anything", |_| true).await, before);
    store.claim(&claim_of("10.244.8.0/24", "n1")).await.unwrap();
    until(&store, "both claims", |shown| shown.claims.len() == 2).await;

    // Over the directory, which is no event at all.
    run("mount", &["-t", "tmpfs", "tmpfs", path]);
    let trouble = health(&store, "ill again", Result::is_err).await.unwrap_err();
    assert!(trouble.contains("another directory than before bears the path"), "{trouble}");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    unmount();
    health(&store, "well again", Result::is_ok).await.unwrap();
}

#[test]
fn permissions_that_are_missing() {
    // Root may do everything unless these capabilities are taken from it.
    let as_root: &[&str] = &["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
    alone("permissions_alone", if is_root() { as_root } else { &["env"] });
}

#[tokio::test]
#[ignore = "needs to be nobody special: see the test above"]
async fn permissions_alone() {
    let root = given().join("store");
    let mode =
        |path: &str, mode| fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    let store = FileStore::open(&root, rescanning()).await.unwrap();
    store.publish(&record_of("n1")).await.unwrap();
    until(&store, "n1", |shown| shown.nodes.len() == 1).await;
    mode("nodes/n1.json", 0o000);
    let shown = until(&store, "a problem", |shown| !shown.problems.is_empty()).await;
    assert!(
        shown.problems["nodes/n1"].starts_with("it can't be opened: Permission denied"),
        "{:?}",
        shown.problems
    );
    assert_eq!(*shown.nodes[&name("n1")], record_of("n1"), "its last good content stands");
    mode("nodes/n1.json", 0o644);
    until(&store, "no problem", |shown| shown.problems.is_empty()).await;

    mode("claims", 0o555);
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap_err();
    let trouble = health(&store, "ill", Result::is_err).await.unwrap_err();
    assert!(trouble.contains("no permission"), "{trouble}");
    mode("claims", 0o000);
    let trouble = health(&store, "ill", |health| health.is_err()).await.unwrap_err();
    assert!(trouble.contains("no permission"), "{trouble}");
    assert_eq!(until(&store, "anything", |_| true).await.nodes.len(), 1);
    mode("claims", 0o755);
    health(&store, "well", Result::is_ok).await.unwrap();
    store.claim(&claim_of("10.244.7.0/24", "n1")).await.unwrap();
}
