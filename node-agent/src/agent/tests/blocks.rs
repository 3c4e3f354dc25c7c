//! `pairway blocks`, asked of whole agents.

use tokio::sync::oneshot;
use vxlan::{InstalledRoute, RouteKey};

use super::harness::{Cluster, Node};
use crate::claims::Released;
use crate::node::{Block, Claim};
use crate::status::{Command, CommandError};

const N1: (&str, &str) = ("n1", "192.0.2.11/24");
const N2: (&str, &str) = ("n2", "192.0.2.12/24");
const N3: (&str, &str) = ("n3", "198.51.100.13/24");

pub(super) async fn release(node: &Node, block: Block, force: bool) -> Result<Released, CommandError> {
    let (answer, answered) = oneshot::channel();
    node.handle().commands.send(Command::ReleaseBlock { block, force, answer }).await.unwrap();
    answered.await.unwrap()
}

async fn claim(node: &Node) -> Block {
    let (answer, answered) = oneshot::channel();
    node.handle().commands.send(Command::ClaimBlock { pool: None, answer }).await.unwrap();
    Block::new(answered.await.unwrap().unwrap()[0].parse().unwrap())
}

fn first_block(node: &Node) -> Block {
    Block::new(node.published().status.blocks[0].parse().unwrap())
}

/// As a CNI plugin makes one for its bridge.
fn bridge_route(block: Block) -> InstalledRoute {
    InstalledRoute {
        key: RouteKey { table: 254, prefix: block.net(), metric: 0 },
        protocol: 2,
        link: Some("cni0".parse().unwrap()),
        gateway: None,
    }
}

fn routes_to(node: &Node, block: Block) -> usize {
    node.kernel.state().routes.keys().filter(|key| key.prefix == block.net()).count()
}

#[tokio::test]
async fn a_block_is_given_back_when_nothing_uses_it() {
    let cluster = Cluster::of(&[N1, N2, N3]).await;
    let (n1, n2, n3) = (cluster.node("n1"), cluster.node("n2"), cluster.node("n3"));
    let first = first_block(n1);
    let second = claim(n1).await;
    for other in [n2, n3] {
        other.until("the route", |_| routes_to(other, second) == 1).await;
    }
    n1.kernel.add_interface("cni0", "bridge", 1500, &[&format!("{}/24", second.network())]);
    n1.kernel.add_foreign_route(bridge_route(second));
    let refused = release(n1, second, false).await.unwrap_err();
    assert_eq!(refused.code, "in-use");
    assert!(refused.message.contains("cni0"), "{}", refused.message);
    n1.kernel.remove_interface("cni0");
    n1.kernel.remove_foreign_route(bridge_route(second).key);
    // A route to a single pod is one, too.
    let pod = ipnet::IpNet::new(second.net().hosts().next().unwrap(), 32).unwrap();
    let to_pod = bridge_route(Block::new(pod));
    n1.kernel.add_foreign_route(to_pod.clone());
    assert_eq!(release(n1, second, false).await.unwrap_err().code, "in-use");
    n1.kernel.remove_foreign_route(to_pod.key);

    let released = release(n1, second, false).await.unwrap();
    assert_eq!(released.in_use, [""; 0]);
    assert_eq!((released.claimed, released.tunnel_address), (vec![], None));
    n1.until("one block", |published| published.status.blocks == [first.to_string()]).await;
    for other in [n2, n3] {
        other.until("no route", |_| routes_to(other, second) == 0).await;
    }
    cluster.converged().await;
    assert_eq!(release(n1, second, false).await.unwrap_err().code, "not-held");
    assert_eq!(release(n1, first_block(n2), true).await.unwrap_err().code, "not-held");
}

#[tokio::test]
async fn the_last_block_is_exchanged_by_force_and_the_tunnel_address_with_it() {
    let cluster = Cluster::of(&[N1, N3]).await;
    let (n1, n3) = (cluster.node("n1"), cluster.node("n3"));
    let first = first_block(n1);
    assert_eq!(release(n1, first, false).await.unwrap_err().code, "needed");
    // What looks at the kernel can't: then only force helps.
    n1.kernel.fail_observe(1);
    assert_eq!(release(n1, first, false).await.unwrap_err().code, "kernel");
    // By force also what is in use goes, and the answer says so.
    n1.kernel.add_foreign_route(bridge_route(first));
    assert_eq!(release(n1, first, false).await.unwrap_err().code, "in-use");
    let released = release(n1, first, true).await.unwrap();
    assert!(released.in_use.len() == 1 && released.in_use[0].contains(&first.to_string()), "{released:?}");
    n1.kernel.remove_foreign_route(bridge_route(first).key);
    let second = released.claimed[0];
    assert_eq!(released.tunnel_address, Some((first.network(), Some(second.network()))));
    n1.until("the other block", |published| published.status.blocks == [second.to_string()]).await;
    n1.until("its address", |published| {
        published.status.tunnel_addresses.values().eq([&second.network().to_string()])
    })
    .await;
    n3.until("the new route alone", |_| routes_to(n3, second) == 1 && routes_to(n3, first) == 0).await;
    cluster.converged().await;
}

#[tokio::test]
async fn every_block_is_listed_whether_or_not_there_is_a_pair() {
    let cluster = Cluster::of(&[N1, N3]).await;
    // A node whose record is missing, and a claim that says nothing.
    let node = cluster.node("n1");
    for (block, holder) in [("10.244.250.0/24", Some("n9")), ("10.244.251.0/24", None)] {
        let block = Block::new(block.parse().unwrap());
        let holder = holder.map(|holder| holder.parse().unwrap());
        let claimed_at = "2020-01-01T00:00:00Z".parse().unwrap();
        let claim = Claim { block, holder, claimed_at, unknown: [].into() };
        cluster.store.tamper(|contents| drop(contents.claims.insert(block, claim)));
    }
    let published = node.until("four blocks", |published| published.blocks.len() == 4).await;
    assert!(published.pairs.iter().all(|pair| pair.peer == "n3"));
    let mut listed: Vec<(&str, &str, bool)> =
        published.blocks.iter().map(|entry| (entry.block.as_str(), entry.node.as_str(), entry.own)).collect();
    let (own, other) = (first_block(node).to_string(), first_block(cluster.node("n3")).to_string());
    let mut expected = vec![
        (own.as_str(), "n1", true),
        (other.as_str(), "n3", false),
        ("10.244.250.0/24", "n9", false),
        ("10.244.251.0/24", "", false),
    ];
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn nobody_is_told_to_delete_the_route_of_pods_on_a_lost_block() {
    let cluster = Cluster::of(&[N1, N2, N3]).await;
    let n1 = cluster.node("n1");
    let block = first_block(n1);
    n1.kernel.add_interface("cni0", "bridge", 1500, &[]);
    n1.kernel.add_foreign_route(bridge_route(block));
    cluster.store.tamper(|contents| {
        contents.claims.get_mut(&block).unwrap().holder = Some("n3".parse().unwrap());
    });
    n1.until_condition("BlockLost").await;
    let conflict = |published: &crate::status::Published| {
        let mut all = published.status.conditions.iter();
        all.find(|condition| condition.kind == "Conflict").map(|condition| condition.message.clone())
    };
    let published = n1.until("the conflict", |published| conflict(published).is_some()).await;
    let message = conflict(&published).unwrap();
    assert!(message.contains("leave this route") && !message.contains("route delete"), "{message}");
    // Pods still have its addresses.
    assert_eq!(release(n1, block, false).await.unwrap_err().code, "in-use");
    n1.kernel.remove_foreign_route(bridge_route(block).key);
    let released = release(n1, block, false).await.unwrap();
    assert_eq!(released.lost_to.map(|holder| holder.to_string()), Some("n3".to_owned()));
    n1.until_no_condition("BlockLost").await;
    n1.until_no_condition("Conflict").await;
}
