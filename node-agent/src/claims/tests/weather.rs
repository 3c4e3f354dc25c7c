//! Whatever befalls the store and the agents: when it is over, every block has one holder and everybody agrees.

use proptest::prelude::*;

use super::*;

const NODES: usize = 4;

#[derive(Debug, Clone)]
enum Event {
    Pass(usize),
    Restart(usize),
    More(usize),
    GiveBack(usize, usize),
    Damage(usize),
    Fail(usize, u32),
    LoseAnswers(usize, u32),
    Pause,
    Resume,
    Backup,
    RollBack,
    Empty,
    Time(i64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let node = || 0..NODES;
    let event = prop_oneof![
        8 => node().prop_map(Event::Pass),
        1 => node().prop_map(Event::Restart),
        2 => node().prop_map(Event::More),
        2 => (node(), 0usize..3).prop_map(|(node, which)| Event::GiveBack(node, which)),
        1 => (0usize..16).prop_map(Event::Damage),
        1 => (node(), 1u32..4).prop_map(|(node, count)| Event::Fail(node, count)),
        1 => (node(), 1u32..4).prop_map(|(node, count)| Event::LoseAnswers(node, count)),
        1 => Just(Event::Pause),
        2 => Just(Event::Resume),
        1 => Just(Event::Backup),
        1 => Just(Event::RollBack),
        1 => Just(Event::Empty),
        1 => (-100i64..1000).prop_map(Event::Time),
    ];
    prop::collection::vec(event, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn every_block_has_one_holder_in_the_end(events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(events))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn a_node_that_lives_loses_no_block_with_the_store(events in losses()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run_losses(events))?;
    }
}

/// Everybody sees what there is before each loss, and gets its claims written before a minute is over.
fn losses() -> impl Strategy<Value = Vec<Event>> {
    let node = || 0..NODES;
    let event = prop_oneof![
        10 => node().prop_map(Event::Pass),
        2 => node().prop_map(Event::Restart),
        2 => node().prop_map(Event::More),
        1 => (node(), 0usize..2).prop_map(|(node, which)| Event::GiveBack(node, which)),
        1 => (node(), 1u32..4).prop_map(|(node, count)| Event::Fail(node, count)),
        1 => Just(Event::Backup),
        2 => Just(Event::RollBack),
        3 => Just(Event::Empty),
        1 => (0i64..1000).prop_map(Event::Time),
    ];
    prop::collection::vec(event, 0..60)
}

/// All pass until there is nothing left to do.
async fn settle(nodes: &mut [Node], store: &MemoryStore) {
    for _ in 0..20 {
        let before = store.contents().revision;
        for node in nodes.iter_mut() {
            node.store.fail_next(0);
            node.pass().await;
        }
        if store.contents().revision == before {
            return;
        }
    }
    panic!("it never ends: {:?}", store.contents());
}

async fn run_losses(events: Vec<Event>) -> Result<(), TestCaseError> {
    let store = MemoryStore::new();
    let mut nodes = Vec::new();
    for number in 0..NODES {
        // Room for 2 blocks.
        nodes.push(
            Node::new(&format!("n{number}"), &store, &["{ cidr: 10.244.0.0/23, blockPrefix: 24 }"]).await,
        );
    }
    let mut backup = Snapshot::default();
    // What a backup says of another holder is believed, who may give the block back to a third: that is how one may be
    // lost.
    let mut restored: BTreeSet<(Block, NodeName)> = BTreeSet::new();
    // An order does not wait for what an agent that was started again can't know.
    let mut knows = [true; NODES];
    for event in events {
        // A release and a claim that follows it differ in time.
        nodes.iter_mut().for_each(|node| node.now += SignedDuration::from_millis(1));
        match event {
            Event::Pass(node) => drop(nodes[node].pass().await),
            Event::Restart(node) => {
                nodes[node].restart().await;
                knows[node] = false;
            }
            Event::More(node) if knows[node] => drop(nodes[node].claim_more(None).await),
            Event::GiveBack(node, which) => {
                let held = nodes[node].keeper.held().get(which).map(|claim| claim.block);
                if let Some(block) = held {
                    drop(nodes[node].give_back(block, true).await);
                }
            }
            Event::Fail(node, count) => nodes[node].store.fail_next(count),
            Event::Backup => backup = store.contents(),
            Event::RollBack | Event::Empty => {
                settle(&mut nodes, &store).await;
                let to = if matches!(event, Event::Empty) { Snapshot::default() } else { backup.clone() };
                restored.extend(to.claims.values().map(|claim| (claim.block, claim.holder.clone().unwrap())));
                store.roll_back(to);
            }
            Event::Time(seconds) => {
                settle(&mut nodes, &store).await;
                nodes.iter_mut().for_each(|node| node.after(seconds));
                knows = [true; NODES];
            }
            Event::More(_) | Event::Damage(_) | Event::LoseAnswers(..) | Event::Pause | Event::Resume => {}
        }
        for node in &nodes {
            for lost in node.keeper.state.lost.values() {
                prop_assert!(
                    was_anothers(&restored, lost.block, &node.record.name),
                    "{} lost {lost:?}",
                    node.record.name
                );
            }
        }
    }
    settle(&mut nodes, &store).await;
    for node in &nodes {
        for lost in node.keeper.state.lost.values() {
            prop_assert!(was_anothers(&restored, lost.block, &node.record.name), "{lost:?}");
        }
    }
    Ok(())
}

fn was_anothers(restored: &BTreeSet<(Block, NodeName)>, block: Block, node: &NodeName) -> bool {
    restored.iter().any(|(other, holder)| *other == block && holder != node)
}

async fn run(events: Vec<Event>) -> Result<(), TestCaseError> {
    let store = MemoryStore::new();
    let mut nodes = Vec::new();
    for number in 0..NODES {
        // Room for 16 blocks: they run short at times.
        nodes.push(
            Node::new(&format!("n{number}"), &store, &["{ cidr: 10.244.0.0/20, blockPrefix: 24 }"]).await,
        );
    }
    let mut backup = Snapshot::default();
    for event in events {
        match event {
            Event::Pass(node) => drop(nodes[node].pass().await),
            Event::Restart(node) => nodes[node].restart().await,
            Event::More(node) => drop(nodes[node].claim_more(None).await),
            Event::GiveBack(node, which) => {
                let held = nodes[node].keeper.held().get(which).map(|claim| claim.block);
                if let Some(block) = held {
                    drop(nodes[node].give_back(block, true).await);
                }
            }
            Event::Damage(which) => store.tamper(|contents| {
                if let Some(claim) = contents.claims.values_mut().nth(which) {
                    claim.holder = None;
                    contents.unreadable.insert(claim.block);
                }
            }),
            Event::Fail(node, count) => nodes[node].store.fail_next(count),
            Event::LoseAnswers(node, count) => nodes[node].store.lose_next_answers(count),
            Event::Pause => store.pause(),
            Event::Resume => store.resume(),
            Event::Backup => backup = store.contents(),
            Event::RollBack => store.roll_back(backup.clone()),
            Event::Empty => store.empty(),
            Event::Time(seconds) => nodes.iter_mut().for_each(|node| node.after(seconds)),
        }
    }
    store.resume();
    for _ in 0..12 {
        for node in &mut nodes {
            node.after(120);
            node.pass().await;
        }
    }
    let contents = store.contents();
    for node in &mut nodes {
        let claims = node.pass().await;
        let name = &node.record.name;
        prop_assert_eq!(claims.blocks(), contents.blocks_of(name), "{} and the store agree", name);
        prop_assert!(contents.nodes.contains_key(name));
        let is_short = claims.conditions.iter().any(|condition| condition.kind == "PoolExhausted");
        prop_assert!(!claims.held.is_empty() || is_short, "{} has a block: {:?}", name, claims);
        for lost in &claims.lost {
            prop_assert_eq!(contents.claims[&lost.block].holder.as_ref(), Some(&lost.holder));
        }
    }
    let blocks: Vec<&Block> = contents.claims.keys().collect();
    prop_assert!(blocks.windows(2).all(|pair| !overlap(pair[0].net(), pair[1].net())), "{:?}", blocks);
    prop_assert!(
        contents
            .claims
            .values()
            .all(|claim| claim.holder.is_some() || contents.unreadable.contains(&claim.block))
    );
    Ok(())
}
