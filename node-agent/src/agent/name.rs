//! Whether this node's name is free: an agent elsewhere may run under it.
//!
//! Every run of an agent has an identifier, which stands in its node's record; the state directory remembers the
//! latest ones. A record with an identifier that is remembered is our own. One with our address is too: the state
//! directory was lost or the machine set up anew. Any other record belongs to somebody, until he has given no sign of
//! life for a while. Till then this agent claims nothing and leaves the kernel as it is; it leaves a note in the
//! record (`contender`), by which the other one knows at once. Pure but for [`NameGate::look`].

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::claims;
use crate::node::{NodeRecord, Snapshot};
use crate::plan::Finding;
use crate::store::Store;

/// Between two notes to the one who has the name: more often than his condition is forgotten.
const KNOCK_EVERY: Duration = Duration::from_secs(20);

/// What is known of our name.
#[derive(Debug)]
pub(super) struct NameGate {
    /// Identifiers of this and of former runs on this node.
    own: Vec<String>,
    /// For so long without a sign of life a node counts as gone.
    patience: Duration,
    /// The name is ours, for good.
    free: bool,
    wait: Option<Waiting>,
}

/// Somebody else has the name.
#[derive(Debug)]
struct Waiting {
    /// His last sign of life, as the store has it.
    seen: Option<Timestamp>,
    /// When we learned of it.
    heard: Instant,
    knocked: Option<Instant>,
}

/// The name is taken, for now.
#[derive(Debug)]
pub(super) struct Taken {
    pub finding: Finding,
    /// When to look again.
    pub again_in: Duration,
}

/// What is decided from one look.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Free,
    Wait { knock: bool, again_in: Duration },
}

impl NameGate {
    pub(super) const fn new(own: Vec<String>, patience: Duration) -> Self {
        Self { own, patience, free: false, wait: None }
    }

    /// Whether the name is somebody else's. `remembers`: the state directory knows claims under this name.
    pub(super) async fn look(
        &mut self,
        store: &dyn Store,
        own: &NodeRecord,
        remembers: bool,
        snapshot: &Snapshot,
    ) -> Option<Taken> {
        if self.free {
            return None;
        }
        let stored = snapshot.nodes.get(&own.name);
        let Some(stored) = stored.filter(|stored| !self.is_own(own, remembers, stored)) else {
            self.free = true;
            return None;
        };
        // A store that does not answer shows no sign of life, and is no proof of death.
        let seen = match store.last_seen(&own.name).await {
            Ok(seen) => seen,
            Err(error) => {
                let problem = crate::telemetry::chain(&error);
                return Some(taken(own, stored, &format!("its last sign of life is unknown ({problem})")));
            }
        };
        match self.judge(seen, Timestamp::now(), Instant::now()) {
            Verdict::Free => {
                tracing::info!(node = %own.name, "the record of an agent that is gone is taken over");
                self.free = true;
                None
            }
            Verdict::Wait { knock, again_in } => {
                if knock {
                    self.knock(store, own, stored).await;
                }
                let age = seen.map(|seen| Timestamp::now().duration_since(seen).as_secs().max(0));
                let life = age.map_or_else(String::new, |age| format!("it gave a sign of life {age} s ago"));
                Some(Taken { again_in, ..taken(own, stored, &life) })
            }
        }
    }

    /// A record that is ours, or that nobody can tell from ours.
    fn is_own(&self, own: &NodeRecord, remembers: bool, stored: &NodeRecord) -> bool {
        let same_address = |a: Option<std::net::IpAddr>, b: Option<std::net::IpAddr>| a.is_some() && a == b;
        let (here, there) = (own.underlay, stored.underlay);
        same_address(here.ipv4.map(|net| net.addr().into()), there.ipv4.map(|net| net.addr().into()))
            || same_address(here.ipv6.map(|net| net.addr().into()), there.ipv6.map(|net| net.addr().into()))
            || match &stored.instance {
                Some(instance) => self.own.contains(instance),
                // Written by a version that knows no identifiers.
                None => remembers,
            }
    }

    fn judge(&mut self, seen: Option<Timestamp>, wall: Timestamp, now: Instant) -> Verdict {
        let patience = SignedDuration::try_from(self.patience).unwrap_or(SignedDuration::MAX);
        let old = |seen: Option<Timestamp>| seen.is_none_or(|seen| wall.duration_since(seen) >= patience);
        let waiting = match &mut self.wait {
            None if old(seen) => return Verdict::Free,
            None => self.wait.insert(Waiting { seen, heard: now, knocked: None }),
            Some(waiting) => {
                if waiting.seen != seen {
                    waiting.seen = seen;
                    waiting.heard = now;
                }
                waiting
            }
        };
        let silent = now.duration_since(waiting.heard);
        if silent >= self.patience {
            return Verdict::Free;
        }
        let since_knock = waiting.knocked.map(|at| now.duration_since(at));
        let knock = since_knock.is_none_or(|since| since >= KNOCK_EVERY.min(self.patience / 2));
        let again_in = (self.patience - silent).min(self.patience / 4);
        Verdict::Wait { knock, again_in }
    }

    /// Leaves a note in the other's record. It is no sign of life of his.
    async fn knock(&mut self, store: &dyn Store, own: &NodeRecord, stored: &NodeRecord) {
        let note = NodeRecord { contender: Some(addresses(own)), ..stored.clone() };
        if let Err(error) = store.publish(&note).await {
            let error = crate::telemetry::chain(&error);
            tracing::debug!(error, "can't leave a note in the record of the other agent");
            return;
        }
        let seen = store.last_seen(&own.name).await.ok().flatten();
        if let Some(waiting) = &mut self.wait {
            waiting.seen = seen;
            waiting.knocked = Some(Instant::now());
        }
    }
}

fn taken(own: &NodeRecord, stored: &NodeRecord, life: &str) -> Taken {
    let message = format!(
        "another agent, at {}, has the name {}{}{life}: this one claims no block and leaves the kernel as it is. Give one of them another node.name; if the other one is gone for good this one goes on by itself a minute after its last sign of life",
        addresses(stored),
        own.name,
        if life.is_empty() { "" } else { ", " },
    );
    Taken {
        finding: Finding::new(claims::NODE_NAME_TAKEN, &own.name, message),
        again_in: Duration::from_secs(1),
    }
}

fn addresses(record: &NodeRecord) -> String {
    let underlay = record.underlay;
    let addresses: Vec<String> =
        [underlay.ipv4.map(|net| net.addr().into()), underlay.ipv6.map(|net| net.addr().into())]
            .into_iter()
            .flatten()
            .map(|address: std::net::IpAddr| address.to_string())
            .collect();
    if addresses.is_empty() { "an unknown address".to_owned() } else { addresses.join(" and ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::record_of;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn gate() -> NameGate {
        NameGate::new(vec!["now".to_owned(), "before".to_owned()], PATIENCE)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_our_own() {
        let own = record_of("n1");
        let elsewhere = NodeRecord {
            underlay: crate::node::Underlay { ipv4: Some("198.51.100.77/24".parse().unwrap()), ipv6: None },
            ..own.clone()
        };
        let with = |record: &NodeRecord, instance: Option<&str>| NodeRecord {
            instance: instance.map(str::to_owned),
            ..record.clone()
        };
        for (record, instance, remembers, is_own) in [
            (&own, Some("another"), false, true),
            (&own, None, false, true),
            (&elsewhere, Some("before"), false, true),
            (&elsewhere, Some("another"), true, false),
            (&elsewhere, None, true, true),
            (&elsewhere, None, false, false),
        ] {
            let found = gate().is_own(&own, remembers, &with(record, instance));
            assert_eq!(found, is_own, "{record:?} {instance:?} {remembers}");
        }
    }

    #[test]
    fn a_silent_one_is_gone_and_a_living_one_is_waited_for() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(gate().judge(None, at(1000), start), Verdict::Free);
        assert_eq!(gate().judge(Some(at(900)), at(1000), start), Verdict::Free);
        let mut gate = gate();
        let wait = |knock| Verdict::Wait { knock, again_in: PATIENCE / 4 };
        assert_eq!(gate.judge(Some(at(990)), at(1000), start), wait(true));
        gate.wait.as_mut().unwrap().knocked = Some(start);
        assert_eq!(gate.judge(Some(at(990)), at(1010), after(10)), wait(false));
        // It lives: the time begins anew, also for one whose clock is behind.
        assert_eq!(gate.judge(Some(at(500)), at(1030), after(30)), wait(true));
        let late = gate.judge(Some(at(500)), at(1080), after(80));
        assert_eq!(late, Verdict::Wait { knock: true, again_in: Duration::from_secs(10) });
        assert_eq!(gate.judge(Some(at(500)), at(1090), after(90)), Verdict::Free);
    }
}
