//! Blocks that Kubernetes gives: with `blocks.source: nodeSpec` a node claims the pod CIDRs of its Node object, and no others.
//!
//! The claims are made in the store all the same: by them the other nodes know whose a block is.

use config::Pool;

use super::conditions::Condition;
use super::pass::Pass;
use super::{ClaimKeeper, own_claim};
use crate::node::Block;
use crate::store::ClaimOutcome;

impl ClaimKeeper {
    /// Claims what the Node object says and is not held yet. `true` if there is more to do.
    pub(super) async fn claim_given(&mut self, pass: &mut Pass<'_>) -> bool {
        let facts = pass.store.node_facts().map(|facts| facts.borrow().clone());
        let Some(facts) = facts.filter(|facts| facts.known) else {
            // A change of it wakes the next pass.
            pass.conditions.push(not_claimed("", "this node's Node object has not been read".to_owned()));
            return false;
        };
        if facts.blocks.is_empty() {
            let message = "the Node object of this node has no podCIDRs: kube-controller-manager gives them with \
                 --allocate-node-cidrs and --cluster-cidr; or set blocks.source to claim";
            pass.conditions.push(not_claimed("", message.to_owned()));
        }
        for block in facts.blocks {
            if self.state.held.contains_key(&block) || self.state.lost.contains_key(&block) {
                continue;
            }
            let Some(pool) = pass.pools.iter().find(|pool| holds(pool, block)) else {
                let message = format!(
                    "{block} is a pod CIDR of this node's Node object, and no pool has blocks of that length there: add the \
                     cluster CIDR as a pool, with blockPrefix {}",
                    block.net().prefix_len()
                );
                pass.conditions.push(not_claimed(&block.to_string(), message));
                continue;
            };
            if !pass.stand(pool).await {
                continue;
            }
            let claim = own_claim(block, &self.state.node, self.next_time(pass.now));
            match pass.claim(&claim).await {
                Some(Ok(ClaimOutcome::Claimed)) => {
                    tracing::info!(%block, "claimed, as the Node object says");
                    self.state.given_back.remove(&block);
                    self.state.held.insert(block, claim);
                    self.file.save(&self.state).await;
                }
                Some(Ok(ClaimOutcome::TakenBy(holder))) => {
                    let holder =
                        holder.map_or_else(|| "another node".to_owned(), |holder| holder.to_string());
                    let message = format!(
                        "{block} is a pod CIDR of this node's Node object, and {holder} holds it or a part of it: if that node is \
                         gone, `pairway node delete` frees it"
                    );
                    pass.conditions.push(not_claimed(&block.to_string(), message));
                }
                Some(Err(why)) => {
                    pass.conditions
                        .push(not_claimed(&block.to_string(), format!("{why}; this is tried again")));
                    return true;
                }
                None => return true,
            }
        }
        false
    }
}

fn holds(pool: &Pool, block: Block) -> bool {
    pool.cidr.contains(&block.net()) && pool.block_prefix == block.net().prefix_len()
}

fn not_claimed(subject: &str, message: String) -> Condition {
    Condition { kind: "BlockNotClaimed", subject: subject.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use config::BlockSource;

    use super::super::tests::{Node, POOL, kinds};
    use crate::store::NodeFacts;
    use crate::store::memory::MemoryStore;
    use crate::store::tests::block;

    fn facts(blocks: &[&str]) -> NodeFacts {
        NodeFacts {
            known: true,
            blocks: blocks.iter().map(|text| block(text)).collect(),
            ..NodeFacts::default()
        }
    }

    #[tokio::test]
    async fn a_node_claims_what_its_node_object_says_and_nothing_else() {
        let store = MemoryStore::new();
        let mut node = Node::new("n1", &store, &[POOL]).await;
        node.config.blocks.source = BlockSource::NodeSpec;
        let claims = node.pass().await;
        assert_eq!((claims.held.len(), kinds(&claims)), (0, vec![("BlockNotClaimed", "")]), "not read yet");
        node.store.set_node_facts(facts(&[]));
        assert_eq!(kinds(&node.pass().await), [("BlockNotClaimed", "")]);
        node.store.set_node_facts(facts(&["10.244.7.0/24", "fd10:244:0:7::/64"]));
        let claims = node.pass().await;
        assert_eq!(claims.blocks(), [block("10.244.7.0/24")]);
        assert_eq!(kinds(&claims), [("BlockNotClaimed", "fd10:244:0:7::/64")], "no pool has it");
        assert_eq!(node.claim_more(None).await.unwrap_err().code, "given");

        let mut other = Node::new("n2", &store, &[POOL]).await;
        other.config.blocks.source = BlockSource::NodeSpec;
        other.store.set_node_facts(facts(&["10.244.7.0/24"]));
        let claims = other.pass().await;
        assert_eq!((claims.held.len(), kinds(&claims)), (0, vec![("BlockNotClaimed", "10.244.7.0/24")]));
        assert!(claims.conditions[0].message.contains("n1 holds it"), "{:?}", claims.conditions);
        assert_eq!(store.contents().claims.len(), 1);
    }
}
