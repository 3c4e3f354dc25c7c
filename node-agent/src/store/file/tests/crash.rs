//! Agents that die at any step, and at any instant.

use std::process::{Command, Stdio};

use proptest::test_runner::{Config, TestRunner};

use super::*;

/// The exit status of a process that died where it was told to.
const DIED: i32 = 9;

fn child(place: &Place, work: &str, steps: Option<usize>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "store::file::tests::crash::an_agent_that_dies", "--ignored", "--nocapture"])
        .env("PAIRWAY_TEST_STORE", place.root())
        .env("PAIRWAY_TEST_WORK", work)
        .env("PAIRWAY_TEST_STEPS", steps.map_or_else(|| "none".to_owned(), |steps| steps.to_string()))
        .stdout(Stdio::null());
    command
}

#[test]
#[ignore = "the process that dies in the tests below"]
fn an_agent_that_dies() {
    let root = PathBuf::from(std::env::var("PAIRWAY_TEST_STORE").unwrap());
    let left = std::env::var("PAIRWAY_TEST_STEPS").unwrap().parse::<usize>().ok();
    let left = Mutex::new(left);
    let gate: write::Gate = Arc::new(move |_| {
        if let Some(left) = left.lock().unwrap().as_mut() {
            if *left == 0 {
                // No destructor runs: temporary files stay as they are.
                std::process::exit(DIED);
            }
            *left -= 1;
        }
        Ok(())
    });
    let records = Records::new(root, Encoding::default(), Some(gate));
    match std::env::var("PAIRWAY_TEST_WORK").unwrap().as_str() {
        "claim" => drop(records.claim(&claim_of("10.244.7.0/24", "n1")).unwrap()),
        "publish" => records.publish(&new_record()).unwrap(),
        "release" => drop(records.release(block("10.244.1.0/24"), &name("n1"), Timestamp::now()).unwrap()),
        "remove" => {
            records.remove_node(&name("n1"), Timestamp::now()).unwrap();
        }
        "pool" => drop(records.ensure_pool(&pool_of("10.99.0.0/16", 24)).unwrap()),
        "everything" => loop {
            records.claim(&claim_of("10.244.7.0/24", "n1")).unwrap();
            records.publish(&new_record()).unwrap();
            records.release(block("10.244.7.0/24"), &name("n1"), Timestamp::now()).unwrap();
            records.publish(&record_of("n1")).unwrap();
        },
        other => panic!("{other}"),
    }
}

fn new_record() -> NodeRecord {
    NodeRecord { asn: 64999, common_digest: "d2".repeat(1000), ..record_of("n1") }
}

/// A store with a record, two claims and a pool of node n1, and a claim of n2.
async fn furnished() -> Place {
    let place = Place::new();
    let store = place.open(watching()).await;
    store.publish(&record_of("n1")).await.unwrap();
    for (block, holder) in [("10.244.1.0/24", "n1"), ("10.244.2.0/24", "n1"), ("10.244.3.0/24", "n2")] {
        store.claim(&claim_of(block, holder)).await.unwrap();
    }
    store.ensure_pool(&pool_of("10.244.0.0/16", 24)).await.unwrap();
    place
}

async fn contents(place: &Place) -> Snapshot {
    let store = place.open(watching()).await;
    let shown = until(&store, "anything", |_| true).await;
    Snapshot::clone(&shown)
}

/// Lets the work die before its first step, its second and so on, and looks at what is left; then does it again.
async fn at_every_step(work: &str, least_steps: usize, look: impl Fn(&Snapshot, usize)) -> Snapshot {
    for steps in 0.. {
        let place = furnished().await;
        let status = child(&place, work, Some(steps)).status().unwrap();
        let left = contents(&place).await;
        assert_eq!(left.problems.len(), 0, "nothing is half done: {:?}", left.problems);
        assert_eq!(
            left.claims[&block("10.244.3.0/24")],
            claim_of("10.244.3.0/24", "n2"),
            "nobody else is touched"
        );
        look(&left, steps);
        // Whatever was left stands in nobody's way.
        assert!(child(&place, work, None).status().unwrap().success(), "{work} after {steps} steps");
        if status.success() {
            assert!(steps >= least_steps, "{work} has {steps} steps");
            return contents(&place).await;
        }
        assert_eq!(status.code(), Some(DIED));
    }
    unreachable!("the work has an end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_not_there_or_whole() {
    let wanted = claim_of("10.244.7.0/24", "n1");
    let done = at_every_step("claim", 5, |left, steps| {
        if let Some(claim) = left.claims.get(&wanted.block) {
            assert_eq!(*claim, wanted);
            assert!(steps > 3, "it takes a temporary file, a write, a sync and a link");
        }
    })
    .await;
    assert_eq!(done.claims[&wanted.block], wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_the_old_one_or_the_new_one() {
    let done = at_every_step("publish", 4, |left, _| {
        let record = &*left.nodes[&name("n1")];
        assert!(*record == record_of("n1") || *record == new_record());
    })
    .await;
    assert_eq!(*done.nodes[&name("n1")], new_record());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_remembered_before_it_is_done() {
    let released = block("10.244.1.0/24");
    let done = at_every_step("release", 6, |left, _| {
        assert!(left.claims.contains_key(&released) || left.released.contains_key(&released));
    })
    .await;
    assert!(!done.claims.contains_key(&released));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_after_its_claims() {
    let done = at_every_step("remove", 12, |left, _| {
        assert!(left.nodes.contains_key(&name("n1")) || left.blocks_of(&name("n1")).is_empty());
    })
    .await;
    assert!(done.nodes.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_not_there_or_whole() {
    let wanted = pool_of("10.99.0.0/16", 24);
    let done = at_every_step("pool", 5, |left, _| {
        assert!(left.pools.get(&wanted.cidr).is_none_or(|pool| *pool == wanted));
    })
    .await;
    assert_eq!(done.pools[&wanted.cidr], wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_at_any_instant_leaves_whole_records() {
    let place = furnished().await;
    let watcher = place.open(watching()).await;
    let mut pauses = TestRunner::new(Config::default());
    for _ in 0..20 {
        let mut agent = child(&place, "everything", None).spawn().unwrap();
        let before = until(&watcher, "anything", |_| true).await.revision;
        until(&watcher, "a change", |shown| shown.revision > before).await;
        // The instant is what is random here; nothing is waited for.
        let pause = rand_micros(&mut pauses);
        tokio::time::sleep(Duration::from_micros(pause)).await;
        agent.kill().unwrap();
        agent.wait().unwrap();
        let left = contents(&place).await;
        assert_eq!(left.problems.len(), 0, "{:?}", left.problems);
        let record = &*left.nodes[&name("n1")];
        assert!(*record == record_of("n1") || *record == new_record());
        let claim = claim_of("10.244.7.0/24", "n1");
        assert!(left.claims.get(&claim.block).is_none_or(|left| *left == claim));
    }
    // The lock died with its holders.
    let store = place.open(watching()).await;
    store.remove_node(&name("n1")).await.unwrap();
}

fn rand_micros(runner: &mut TestRunner) -> u64 {
    use proptest::strategy::{Strategy, ValueTree};
    (0u64..5000).new_tree(runner).unwrap().current()
}
