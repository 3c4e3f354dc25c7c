//! Notices that the store was emptied, and when it is whole again.
//!
//! All who live write their records again at once, each in its own time. Until this node's own stand there and the
//! others have had a moment, what the directory shows is no news of who is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::node::{NodeName, Snapshot};

/// From when this node's own are back: the others need as long as this one, and a little more.
const SETTLE: Duration = Duration::from_secs(1);

/// If they never come back the store can't be written, which is another trouble.
const LONGEST: Duration = Duration::from_secs(10);

/// Follows the snapshots of one directory.
#[derive(Debug, Default)]
pub(super) struct Rebuild {
    /// The last snapshot before the loss.
    whole: Option<Arc<Snapshot>>,
    since: Option<Instant>,
    /// Since when this node's own are back.
    back: Option<Instant>,
}

impl Rebuild {
    pub(super) fn is_under_way(&self) -> bool {
        self.since.is_some()
    }

    /// A snapshot that [`Rebuild::look`] has found whole, as it is shown.
    pub(super) fn remember(&mut self, snapshot: &Arc<Snapshot>) {
        self.whole = Some(Arc::clone(snapshot));
    }

    /// Is this snapshot one of a store that is being filled again? `own` is this node, if it has a record.
    pub(super) fn look(&mut self, own: Option<&NodeName>, snapshot: &Snapshot, now: Instant) -> bool {
        let (Some(own), Some(whole)) = (own, &self.whole) else { return false };
        let has_record = snapshot.nodes.contains_key(own);
        // What was given back by order is no loss.
        let has_claims = whole
            .blocks_of(own)
            .iter()
            .all(|block| snapshot.claims.contains_key(block) || snapshot.released.contains_key(block));
        let Some(since) = self.since else {
            if has_claims && (has_record || !whole.nodes.contains_key(own)) {
                return false;
            }
            tracing::warn!(
                "this node's record or claims have vanished from the store: they are written again, and what the store \
                 held before counts until then"
            );
            (self.since, self.back) = (Some(now), None);
            return true;
        };
        self.back = (has_record && has_claims).then(|| self.back.unwrap_or(now));
        let is_over = self.back.is_some_and(|back| now.duration_since(back) >= SETTLE)
            || now.duration_since(since) >= LONGEST;
        if is_over {
            tracing::info!(
                nodes = snapshot.nodes.len(),
                claims = snapshot.claims.len(),
                "the store is taken as it is again"
            );
            (self.since, self.back) = (None, None);
        }
        !is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{claim_of, name, record_of};

    impl Rebuild {
        fn judge(&mut self, own: Option<&NodeName>, snapshot: &Snapshot, now: Instant) -> bool {
            let rebuilding = self.look(own, snapshot, now);
            if !rebuilding {
                self.remember(&Arc::new(snapshot.clone()));
            }
            rebuilding
        }
    }

    fn snapshot(nodes: &[&str], claims: &[(&str, &str)]) -> Snapshot {
        Snapshot {
            nodes: nodes.iter().map(|node| (name(node), record_of(node).into())).collect(),
            claims: claims
                .iter()
                .map(|(block, node)| claim_of(block, node))
                .map(|claim| (claim.block, claim))
                .collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn claims_that_vanish_before_the_record_are_a_loss_unless_they_were_given_back() {
        let (own, began) = (name("n1"), Instant::now());
        let claims = [("10.244.1.0/24", "n1"), ("10.244.2.0/24", "n2")];
        let whole = snapshot(&["n1", "n2"], &claims);
        let mut rebuild = Rebuild::default();
        assert!(!rebuild.judge(Some(&own), &whole, began));
        let mut given_back = snapshot(&["n1", "n2"], &claims[1..]);
        given_back.released.insert(claim_of("10.244.1.0/24", "n1").block, crate::store::tests::at(0));
        assert!(!rebuild.judge(Some(&own), &given_back, began));
        assert!(!rebuild.judge(Some(&own), &whole, began));
        assert!(rebuild.judge(Some(&own), &snapshot(&["n1", "n2"], &claims[1..]), began));
    }

    #[test]
    fn a_store_is_being_filled_until_our_own_are_back_and_a_moment_longer() {
        let (own, began) = (name("n1"), Instant::now());
        let at = |millis| began + Duration::from_millis(millis);
        let claims = [("10.244.1.0/24", "n1"), ("10.244.2.0/24", "n2")];
        let whole = snapshot(&["n1", "n2"], &claims);
        let mut rebuild = Rebuild::default();
        assert!(!rebuild.judge(None, &Snapshot::default(), at(0)), "nobody's");
        assert!(!rebuild.judge(Some(&own), &snapshot(&["n2"], &[]), at(0)), "not published yet");
        assert!(!rebuild.judge(Some(&own), &whole, at(0)));
        assert!(!rebuild.judge(Some(&own), &snapshot(&["n1"], &claims[..1]), at(0)), "another node has gone");
        assert!(!rebuild.judge(Some(&own), &whole, at(0)));

        assert!(rebuild.judge(Some(&own), &Snapshot::default(), at(10)));
        assert!(rebuild.judge(Some(&own), &snapshot(&["n1"], &[]), at(2000)), "a claim is missing");
        assert!(rebuild.judge(Some(&own), &snapshot(&["n1"], &claims[..1]), at(2100)));
        assert!(rebuild.judge(Some(&own), &whole, at(3099)));
        assert!(!rebuild.judge(Some(&own), &whole, at(3100)));
        assert!(!rebuild.is_under_way());

        // It never comes back: then what is there is believed.
        assert!(rebuild.judge(Some(&own), &Snapshot::default(), at(4000)));
        assert!(rebuild.judge(Some(&own), &Snapshot::default(), at(13_999)));
        assert!(!rebuild.judge(Some(&own), &Snapshot::default(), at(14_000)));
        assert!(!rebuild.judge(Some(&own), &Snapshot::default(), at(20_000)), "it is not lost twice");
    }
}
