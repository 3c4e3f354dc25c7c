use super::*;

async fn delete(
    store: &MemoryStore,
    node: &str,
    force: bool,
    now: Timestamp,
) -> Result<Vec<Block>, CommandError> {
    delete_node(store, &store.contents(), &name("n1"), &name(node), force, now).await
}

#[tokio::test]
async fn a_node_that_lives_is_deleted_only_by_force() {
    let store = MemoryStore::new();
    store.set_time(at(0));
    let mut node = Node::new("n2", &store, &[POOL]).await;
    let blocks = node.pass().await.blocks();
    assert_eq!(delete(&store, "n2", false, at(59)).await.unwrap_err().code, "fresh");
    store.set_time(at(30));
    store.heartbeat(&name("n2")).await.unwrap();
    assert_eq!(delete(&store, "n2", false, at(89)).await.unwrap_err().code, "fresh", "its heart beat at 30");
    assert_eq!(delete(&store, "n2", false, at(90)).await.unwrap(), blocks);
    let contents = store.contents();
    assert!(contents.nodes.is_empty() && contents.claims.is_empty());
    assert_eq!(contents.released.keys().copied().collect::<Vec<_>>(), blocks);

    node.pass().await;
    assert_eq!(delete(&store, "n2", true, at(30)).await.unwrap(), blocks);
    assert_eq!(node.pass().await.blocks(), blocks, "an agent that lives takes them again");
}

#[tokio::test]
async fn what_can_not_be_deleted_is_refused() {
    let store = MemoryStore::new();
    assert_eq!(delete(&store, "n1", true, at(0)).await.unwrap_err().code, "own-node");
    assert_eq!(delete(&store, "n2", true, at(0)).await.unwrap_err().code, "not-found");
    store.claim(&claim_of("10.244.7.0/24", "n2")).await.unwrap();
    store.fail_next(1);
    assert_eq!(delete(&store, "n2", false, at(0)).await.unwrap_err().code, "store");
    assert_eq!(
        delete(&store, "n2", false, at(0)).await.unwrap(),
        [block("10.244.7.0/24")],
        "a claim without a record"
    );
}

#[tokio::test]
async fn uninstalling_gives_everything_back() {
    let store = MemoryStore::new();
    let (mut one, mut other) =
        (Node::new("n1", &store, &[POOL]).await, Node::new("n2", &store, &[POOL]).await);
    let (mine, theirs) = (one.pass().await.blocks(), other.pass().await.blocks());
    let released =
        release_own(&store, &name("n1"), one.directory.path(), Duration::ZERO).await.unwrap().blocks;
    assert_eq!(released, mine);
    assert!(!one.directory.path().join(FILE_NAME).exists());
    let contents = store.contents();
    assert_eq!(contents.nodes.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["n2"]);
    assert_eq!(contents.claims.keys().copied().collect::<Vec<_>>(), theirs);
    assert_eq!(contents.released.keys().copied().collect::<Vec<_>>(), mine);
}

#[tokio::test]
async fn a_release_that_was_not_written_down_leaves_no_trouble_behind() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let state = node.directory.path().join("state");
    node.keeper = ClaimKeeper::open(name("n1"), state.clone()).await;
    let before = node.pass().await;
    // A file in the place of the directory: nothing can be written.
    std::fs::rename(&state, node.directory.path().join("aside")).unwrap();
    std::fs::write(&state, "").unwrap();
    let refused = node.give_back(before.held[0].block, true).await.unwrap_err();
    assert_eq!(refused.code, "state");
    assert_eq!(node.pass().await, before, "what stands in the file is what is wanted");
}

#[tokio::test]
async fn uninstalling_needs_the_store() {
    let store = MemoryStore::unlisted();
    store.set_health(Err("the disk is gone".to_owned()));
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(FILE_NAME), "{}").unwrap();
    let error =
        release_own(&store, &name("n1"), directory.path(), Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(error.code, "store");
    assert!(error.message.contains("the disk is gone"), "{}", error.message);
    assert!(directory.path().join(FILE_NAME).exists(), "it can be tried again");
}

#[tokio::test]
async fn a_block_that_is_not_needed_goes_and_stays_away() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let first = node.pass().await.blocks()[0];
    let second = node.claim_more(None).await.unwrap()[0];
    let released = node.give_back(second, false).await.unwrap();
    let expected = Released {
        block: second,
        lost_to: None,
        claimed: Vec::new(),
        tunnel_address: None,
        reuse_after: Duration::from_secs(600),
        in_use: Vec::new(),
    };
    assert_eq!(released, expected);
    let contents = store.contents();
    assert_eq!(contents.claims.keys().copied().collect::<Vec<_>>(), [first]);
    assert!(contents.released.contains_key(&second), "so that other nodes leave it alone");
    for _ in 0..3 {
        assert_eq!(node.pass().await.blocks(), [first]);
        node.restart().await;
        node.after(200);
    }
    // What is claimed in its stead is another one; nor do other nodes take it yet.
    node.now = at(0);
    node.config = config(&[POOL], "perNode: 200");
    let mut claims = node.pass().await;
    // It was started again, so it waits.
    node.after(60);
    while claims.held.len() < 200 {
        claims = node.pass().await;
    }
    assert!(!claims.blocks().contains(&second));
}

#[tokio::test]
async fn a_block_that_per_node_asks_for_is_exchanged_by_force() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let first = node.pass().await.blocks()[0];
    let refused = node.give_back(first, false).await.unwrap_err();
    assert_eq!(refused.code, "needed");
    assert!(refused.message.contains("its last one, which gives the tunnel address"), "{}", refused.message);
    assert_eq!(node.pass().await.blocks(), [first], "nothing was done");

    let released = node.give_back(first, true).await.unwrap();
    assert_ne!(released.claimed, [first]);
    assert_eq!(released.claimed.len(), 1);
    assert_eq!(released.tunnel_address, Some((first.network(), Some(released.claimed[0].network()))));
    assert_eq!(store.contents().blocks_of(&name("n1")), released.claimed);

    // With one in reserve it needs no force, and the oldest that is left gives the tunnel address.
    let reserve = node.claim_more(None).await.unwrap()[0];
    let exchanged = node.give_back(released.claimed[0], false).await.unwrap();
    assert_eq!((exchanged.claimed.len(), node.keeper.held().len()), (0, 1));
    let tunnel = Some((released.claimed[0].network(), Some(reserve.network())));
    assert_eq!(exchanged.tunnel_address, tunnel);
}

#[tokio::test]
async fn a_pool_is_drained_block_by_block() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let first = node.pass().await.blocks()[0];
    node.config = config(&["{ cidr: 10.244.0.0/16, blockPrefix: 24, disabled: true }"], "perNode: 1");
    assert_eq!(node.give_back(first, false).await.unwrap_err().code, "last-block");
    let other = "{ cidr: 172.20.0.0/16, blockPrefix: 24 }";
    // Where another pool gives one in its place nothing stands in the way.
    for old in [Some("{ cidr: 10.244.0.0/16, blockPrefix: 24, disabled: true }"), None] {
        node.config = config(&old.into_iter().chain([other]).collect::<Vec<_>>(), "perNode: 1");
        let held = node.keeper.held()[0].block;
        if old.is_some() {
            let released = node.give_back(held, false).await.unwrap();
            assert!(released.claimed[0].to_string().starts_with("172.20."), "{released:?}");
        } else {
            assert_eq!(node.give_back(held, false).await.unwrap_err().code, "needed");
        }
    }
    node.config = config(&["{ cidr: 172.20.0.0/16, blockPrefix: 24, disabled: true }"], "perNode: 1");
    let last = node.keeper.held()[0].block;
    let released = node.give_back(last, true).await.unwrap();
    assert_eq!(released.tunnel_address, Some((last.network(), None)));
    assert_eq!(kinds(&node.pass().await), [("NoPool", "ipv4")]);
}

#[tokio::test]
async fn the_only_block_of_a_pool_is_not_taken_again_before_it_has_rested() {
    let store = MemoryStore::new();
    let pool = "{ cidr: 10.244.7.0/24, blockPrefix: 24 }";
    let mut node = Node::new("n1", &store, &[pool]).await;
    let only = node.pass().await.blocks()[0];
    node.give_back(only, true).await.unwrap();
    node.after(100);
    let claims = node.pass().await;
    assert_eq!((claims.held.len(), kinds(&claims)), (0, vec![("PoolExhausted", "ipv4")]));
    assert_eq!(claims.retry_after, Some(Duration::from_secs(500)), "nobody else would wake it");
    node.restart().await;
    assert_eq!(node.pass().await.held.len(), 0, "a restart remembers");
    node.after(500);
    assert_eq!(node.pass().await.blocks(), [only]);
    // An operator who asks for one gets it at once.
    node.give_back(only, true).await.unwrap();
    assert_eq!(node.claim_more(None).await.unwrap(), [only]);
    assert_eq!(node.pass().await.blocks(), [only]);
}

#[tokio::test]
async fn what_was_given_back_does_not_come_back_with_an_old_snapshot_or_backup() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let first = node.pass().await.blocks()[0];
    let second = node.claim_more(None).await.unwrap()[0];
    let backup = store.contents();
    // The snapshot lags.
    store.pause();
    node.give_back(second, false).await.unwrap();
    assert_eq!(node.pass().await.blocks(), [first]);
    store.resume();
    assert_eq!(node.pass().await.blocks(), [first]);
    // A backup in which it is ours.
    store.roll_back(backup);
    assert_eq!(node.pass().await.blocks(), [first]);
    assert_eq!(store.contents().claims.len(), 1, "it is given back again");
    // Somebody made the claim anew since, in this node's name.
    let anew = Claim { claimed_at: at(1), ..claim_of(&second.to_string(), "n1") };
    store.claim(&anew).await.unwrap();
    assert_eq!(node.pass().await.blocks(), [first, second]);
}

#[tokio::test]
async fn an_order_that_fails_changes_nothing() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    node.pass().await;
    let second = node.claim_more(None).await.unwrap()[0];
    let before = node.pass().await;
    node.store.fail_next_of("release", 1);
    assert_eq!(node.give_back(second, false).await.unwrap_err().code, "store");
    assert_eq!(node.pass().await, before);
    // The answer got lost: the claim is made again.
    node.store.lose_next_answers(1);
    assert_eq!(node.give_back(second, false).await.unwrap_err().code, "store");
    assert_eq!(node.pass().await, before);
    assert_eq!(store.contents().claims.len(), 2);
    store.tamper(|contents| contents.claims.get_mut(&second).unwrap().holder = None);
    store.tamper(|contents| contents.unreadable.extend([second]));
    assert_eq!(node.give_back(second, false).await.unwrap_err().code, "unreadable");

    for (theirs, message) in [
        ("10.244.77.0/24", "10.244.77.0/24 is not this node's: n2 holds it"),
        ("10.99.0.0/24", "10.99.0.0/24 is not this node's: nobody holds it"),
    ] {
        if theirs.starts_with("10.244") {
            store.claim(&claim_of(theirs, "n2")).await.unwrap();
        }
        let refused = node.give_back(block(theirs), true).await.unwrap_err();
        assert_eq!((refused.code.as_str(), refused.message.as_str()), ("not-held", message));
    }
}

#[tokio::test]
async fn an_order_that_a_crash_cut_short_is_carried_out_by_the_next_agent() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let first = node.pass().await.blocks()[0];
    let second = node.claim_more(None).await.unwrap()[0];
    // Written down, and the store never asked.
    let claim = node.keeper.state.held.remove(&second).unwrap();
    node.keeper.state.given_back.insert(second, claim.claimed_at);
    let state = node.keeper.state.clone();
    node.keeper.file.save(&state).await;
    node.restart().await;
    assert_eq!(node.pass().await.blocks(), [first]);
    assert_eq!(store.contents().blocks_of(&name("n1")), [first]);
}

#[tokio::test]
async fn memory_that_can_not_be_written_forbids_it() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    node.pass().await;
    let second = node.claim_more(None).await.unwrap()[0];
    let before = node.pass().await.blocks();
    let path = node.directory.path().join(FILE_NAME);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(node.give_back(second, false).await.unwrap_err().code, "state");
    assert_eq!(store.contents().blocks_of(&name("n1")), before);
    std::fs::remove_dir(&path).unwrap();
    node.give_back(second, false).await.unwrap();
}

#[tokio::test]
async fn a_lost_block_is_forgotten() {
    let store = MemoryStore::new();
    let mut node = Node::new("n1", &store, &[POOL]).await;
    let mine = node.pass().await.blocks()[0];
    store.tamper(|contents| drop(contents.claims.insert(mine, claim_of(&mine.to_string(), "n2"))));
    let held = node.pass().await.blocks();
    let released = node.give_back(mine, false).await.unwrap();
    assert_eq!((released.lost_to, released.claimed), (Some(name("n2")), vec![]));
    for _ in 0..2 {
        let claims = node.pass().await;
        assert_eq!((claims.blocks(), claims.conditions, claims.lost), (held.clone(), vec![], vec![]));
        node.restart().await;
    }
    assert_eq!(store.contents().claims[&mine].holder, Some(name("n2")), "it is the other's");
}
