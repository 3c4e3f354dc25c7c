//! `NetworkUnavailable`: the condition of the Node by which Kubernetes knows that pods can be sent there.
//!
//! It is `False` as soon as the agent is ready, and `True` only once the agent has known for a while that the node's network
//! does not work. An agent that starts says nothing before it knows: what an earlier run left in the kernel goes on working,
//! and what stands in the Node holds. The same is so while it is the store that fails. A kernel that refuses some changes
//! takes no node out of service that was in service: what was set up stands, and one odd peer whose objects no kernel takes
//! would take them all.
//!
//! It is written when it changes and when somebody else has changed it. The time of its last heartbeat is that of the last
//! writing: nobody waits for one, and a heartbeat would wake everybody who watches Nodes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::announce::{NotWritten, Pace, Part, Refusals, in_time, longest_after, until};
use super::{Kubernetes, failure};
use crate::node::NodeName;
use crate::status::{Published, Status, rfc3339};

/// The condition's type (`k8s.io/api/core/v1`, `NodeNetworkUnavailable`).
const TYPE: &str = "NetworkUnavailable";

/// Its reasons, as we write them; also those of the record's status.
pub(super) const READY: &str = "PairwayReady";
pub(super) const NOT_READY: &str = "PairwayNotReady";

/// The node's network has not worked for so long before the Node says so: then the scheduler sends no new pods there.
const NOT_READY_FOR: Duration = Duration::from_secs(30);

/// Reasons that say nothing of whether the network works: the agent has just begun, or the store is away.
const SAY_NOTHING: [&str; 3] = ["record", "starting", "store"];

/// Another agent has the name: the Node and the record are its.
const NAME_TAKEN: &str = "name";

/// Some change of the kernel failed.
const DATAPLANE: &str = "dataplane";

/// Whether an agent that is not ready for these reasons knows nothing of the network of the node of its name.
pub(super) fn say_nothing(reasons: &[String]) -> bool {
    reasons.iter().all(|reason| SAY_NOTHING.contains(&reason.as_str()))
        || reasons.iter().any(|reason| reason == NAME_TAKEN)
}

/// What a condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    status: String,
    reason: String,
    message: String,
}

/// What the Node says of its network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Shown {
    /// There is no Node, or it was not read yet.
    #[default]
    NoNode,
    /// Nothing.
    Nothing,
    /// This.
    Said(Said),
}

/// Reads the condition of a Node.
pub(super) fn shown(node: &DynamicObject) -> Shown {
    let text = |value: &Value, key: &str| -> String {
        value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let conditions = node.data.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| text(condition, "type") == TYPE);
    found.map_or(Shown::Nothing, |condition| {
        Shown::Said(Said {
            status: text(condition, "status"),
            reason: text(condition, "reason"),
            message: text(condition, "message"),
        })
    })
}

/// What the Node should say, from what the agent says of itself.
#[derive(Debug, Default)]
struct Judge {
    not_ready_since: Option<Instant>,
    /// Since this machine was booted the kernel has held all that was wanted, once.
    stood: bool,
}

impl Judge {
    /// `None`: whatever it says may stand. With the time at which that may change by itself.
    fn wanted(&mut self, status: &Status, shown: &Shown, now: Instant) -> (Option<Said>, Option<Instant>) {
        let reasons = &status.not_ready_reasons;
        if status.ready {
            self.not_ready_since = None;
            let said = Said {
                status: "False".to_owned(),
                reason: READY.to_owned(),
                message: format!(
                    "the network of this node is set up, with the blocks {}",
                    status.blocks.join(", ")
                ),
            };
            return (Some(said), None);
        }
        // What the Node says outlives a boot, and what was set up does not.
        let is_in_service = self.stood && matches!(shown, Shown::Said(said) if said.status == "False");
        let says_little = |reason: &String| reason == DATAPLANE || SAY_NOTHING.contains(&reason.as_str());
        if say_nothing(reasons) || is_in_service && reasons.iter().all(says_little) {
            self.not_ready_since = None;
            return (None, None);
        }
        let known_at = *self.not_ready_since.get_or_insert(now) + NOT_READY_FOR;
        if now < known_at {
            return (None, Some(known_at));
        }
        let said = Said {
            status: "True".to_owned(),
            reason: NOT_READY.to_owned(),
            message: format!("not ready: {}; `pairway status` on this node says why", reasons.join(", ")),
        };
        (Some(said), None)
    }
}

/// Whether the Node is to be written. What somebody else has written stands as long as it comes to the same.
fn is_to_be_written(shown: &Shown, wanted: &Said) -> bool {
    match shown {
        Shown::NoNode => false,
        Shown::Nothing => true,
        Shown::Said(said) => {
            let is_ours = [READY, NOT_READY].contains(&said.reason.as_str());
            said.status != wanted.status || is_ours && said != wanted
        }
    }
}

/// A strategic merge patch of the Node's status: conditions are merged by type, those of others are left alone.
fn patch(shown: &Shown, wanted: &Said, now: Timestamp) -> Value {
    let now = rfc3339(now);
    let mut condition = json!({
        "type": TYPE,
        "status": wanted.status,
        "reason": wanted.reason,
        "message": wanted.message,
        "lastHeartbeatTime": now,
    });
    let is_turned = !matches!(shown, Shown::Said(said) if said.status == wanted.status);
    if is_turned {
        condition["lastTransitionTime"] = json!(now);
    }
    json!({ "status": { "conditions": [condition] } })
}

impl Kubernetes {
    /// Keeps the Node's condition as it should be until nothing is published any more.
    pub(super) async fn keep_network_condition(
        &self,
        node: &NodeName,
        mut published: watch::Receiver<Arc<Published>>,
        refusals: &Refusals,
    ) {
        let (mut judge, mut pace) = (Judge::default(), Pace::default());
        let mut shown = self.own.network();
        loop {
            let current = Arc::clone(&published.borrow_and_update());
            let stands = shown.borrow_and_update().clone();
            let now = Instant::now();
            judge.stood |= current.stood;
            let (wanted, mut wake) = judge.wanted(&current.status, &stands, now);
            if let Some(wanted) = wanted.filter(|wanted| is_to_be_written(&stands, wanted)) {
                wake = pace.not_before(&wanted, now);
                if wake.is_none() {
                    let result = in_time(self.write_network_condition(node, &stands, &wanted)).await;
                    refusals.note(Part::Condition, &result);
                    match result {
                        Ok(()) => {
                            tracing::info!(
                                status = wanted.status,
                                reason = wanted.reason,
                                "told the Node: {TYPE}"
                            );
                            if pace.written(wanted, Instant::now()) {
                                tracing::warn!(
                                    "somebody else writes the condition {TYPE} of this Node, and says otherwise"
                                );
                            }
                        }
                        Err(not_written) => {
                            tracing::debug!(why = %not_written.why, "{TYPE} of this Node is not written");
                            pace.failed(longest_after(&not_written), fastrand::f64(), Instant::now());
                        }
                    }
                    continue;
                }
            }
            // Every arm only receives.
            tokio::select! {
                changed = published.changed() => if changed.is_err() { return },
                Ok(()) = shown.changed() => {}
                () = until(wake) => {}
            }
        }
    }

    async fn write_network_condition(
        &self,
        node: &NodeName,
        shown: &Shown,
        wanted: &Said,
    ) -> Result<(), NotWritten> {
        let patch = Patch::Strategic(patch(shown, wanted, Timestamp::now()));
        match self.nodes().await?.patch_status(node.as_str(), &PatchParams::default(), &patch).await {
            Ok(node) => {
                // Before the watch tells it.
                self.own.learn_network(Some(&node));
                Ok(())
            }
            // It goes. The watch tells that too.
            Err(error) if failure::is_absent(&error) => Ok(()),
            Err(error) => Err(self.not_written("write the status of this Node", &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(reasons: &[&str]) -> Status {
        Status {
            ready: reasons.is_empty(),
            not_ready_reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
            blocks: vec!["10.244.7.0/24".to_owned()],
            ..Status::default()
        }
    }

    fn said(status: &str, reason: &str) -> Said {
        Said { status: status.to_owned(), reason: reason.to_owned(), message: String::new() }
    }

    fn node(conditions: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "u"}, "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn ready_is_told_at_once_and_the_contrary_only_when_it_lasts() {
        let begin = Instant::now();
        let mut judge = Judge::default();
        let (wanted, _) = judge.wanted(&status(&[]), &Shown::Nothing, begin);
        let wanted = wanted.unwrap();
        assert_eq!((wanted.status.as_str(), wanted.reason.as_str()), ("False", READY));
        assert!(wanted.message.contains("10.244.7.0/24"), "{}", wanted.message);
        let known_at = begin + NOT_READY_FOR;
        assert_eq!(judge.wanted(&status(&["underlay"]), &Shown::Nothing, begin), (None, Some(known_at)));
        let (wanted, wake) = judge.wanted(&status(&["dataplane", "underlay"]), &Shown::Nothing, known_at);
        let wanted = wanted.unwrap();
        assert_eq!((wanted.status.as_str(), wanted.reason.as_str(), wake), ("True", NOT_READY, None));
        assert!(wanted.message.contains("dataplane, underlay"), "{}", wanted.message);
        // In between it was well: it has its time again.
        judge.wanted(&status(&[]), &Shown::Nothing, known_at);
        assert_eq!(judge.wanted(&status(&["underlay"]), &Shown::Nothing, known_at).0, None);
    }

    #[test]
    fn a_restart_and_a_store_that_is_away_say_nothing_of_the_network() {
        let begin = Instant::now();
        let later = begin + NOT_READY_FOR * 100;
        // Nothing was published yet; the first pass; no list yet; our record does not stand.
        // The name is another's.
        let silent: [&[&str]; 6] =
            [&[], &["starting"], &["store"], &["record", "store"], &["name"], &["name", "underlay"]];
        for reasons in silent {
            let unready = Status { ready: false, ..status(reasons) };
            let mut judge = Judge::default();
            assert_eq!(judge.wanted(&unready, &Shown::Nothing, begin), (None, None), "{reasons:?}");
            assert_eq!(judge.wanted(&unready, &Shown::Nothing, later), (None, None), "{reasons:?}");
        }
        // What is wrong besides is not covered up by it.
        let mut judge = Judge::default();
        judge.wanted(&status(&["no-block", "store"]), &Shown::Nothing, begin);
        assert!(judge.wanted(&status(&["no-block", "store"]), &Shown::Nothing, later).0.is_some());
    }

    #[test]
    fn a_kernel_that_refuses_changes_takes_no_node_out_of_service() {
        let begin = Instant::now();
        let later = begin + NOT_READY_FOR;
        let in_service = Shown::Said(said("False", READY));
        let after_a_pass = || Judge { stood: true, ..Judge::default() };
        for reasons in [&["dataplane"][..], &["dataplane", "record"]] {
            let (mut judge, failing) = (after_a_pass(), status(reasons));
            assert_eq!(judge.wanted(&failing, &in_service, begin), (None, None));
            assert_eq!(judge.wanted(&failing, &in_service, later), (None, None));
        }
        let failing = status(&["dataplane"]);
        // Of the boot before nothing stands any more.
        let mut judge = Judge::default();
        judge.wanted(&failing, &in_service, begin);
        assert!(judge.wanted(&failing, &in_service, later).0.is_some());
        // One that was never in service does not come into it.
        for shown in [Shown::Nothing, Shown::Said(said("True", "NoRouteCreated"))] {
            let mut judge = after_a_pass();
            judge.wanted(&failing, &shown, begin);
            assert!(judge.wanted(&failing, &shown, later).0.is_some(), "{shown:?}");
        }
        // What concerns the node as a whole does.
        let mut judge = after_a_pass();
        let failing = status(&["dataplane", "underlay"]);
        judge.wanted(&failing, &in_service, begin);
        assert!(judge.wanted(&failing, &in_service, later).0.is_some());
    }

    #[test]
    fn what_others_say_stands_while_it_comes_to_the_same() {
        let wanted = said("False", READY);
        let cases = [
            (Shown::NoNode, false),
            (Shown::Nothing, true),
            (Shown::Said(wanted.clone()), false),
            (Shown::Said(Said { message: "older words".to_owned(), ..wanted.clone() }), true),
            (Shown::Said(said("False", "CalicoIsUp")), false),
            (Shown::Said(said("True", "NoRouteCreated")), true),
            (Shown::Said(said("True", NOT_READY)), true),
            (Shown::Said(said("Unknown", "NodeStatusUnknown")), true),
        ];
        for (shown, expected) in cases {
            assert_eq!(is_to_be_written(&shown, &wanted), expected, "{shown:?}");
        }
    }

    #[test]
    fn one_condition_is_read_and_one_is_written() {
        let other = json!({"type": "Ready", "status": "True", "reason": "KubeletReady"});
        assert_eq!(shown(&node(&json!([other]))), Shown::Nothing);
        let ours = json!({"type": TYPE, "status": "False", "reason": READY, "message": ""});
        let stands = shown(&node(&json!([other, ours])));
        assert_eq!(stands, Shown::Said(said("False", READY)));

        let now = Timestamp::UNIX_EPOCH;
        let conditions = |patch: &Value| patch["status"]["conditions"].as_array().unwrap().clone();
        let same = conditions(&patch(&stands, &said("False", READY), now));
        assert_eq!((same.len(), &same[0]["type"]), (1, &json!(TYPE)));
        assert!(same[0].get("lastTransitionTime").is_none(), "it has not turned: {same:?}");
        let turned = conditions(&patch(&stands, &said("True", NOT_READY), now));
        assert_eq!(turned[0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
        assert_eq!(turned[0]["lastHeartbeatTime"], "1970-01-01T00:00:00Z");
        assert!(
            conditions(&patch(&Shown::Nothing, &said("False", READY), now))[0]
                .get("lastTransitionTime")
                .is_some()
        );
    }
}
