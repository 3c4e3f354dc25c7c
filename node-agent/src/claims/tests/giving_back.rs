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
    let released = release_own(&store, &name("n1"), one.directory.path(), Duration::ZERO).await.unwrap();
    assert_eq!(released, mine);
    assert!(!one.directory.path().join(FILE_NAME).exists());
    let contents = store.contents();
    assert_eq!(contents.nodes.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["n2"]);
    assert_eq!(contents.claims.keys().copied().collect::<Vec<_>>(), theirs);
    assert_eq!(contents.released.keys().copied().collect::<Vec<_>>(), mine);
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
