//! Routes, rules and devices of others that are in the way of ours, as the agent's condition `Conflict` has them.

use super::super::Check;
use super::super::facts::Facts;
use super::{finding, findings_or, not_checked, ok};
use crate::status::Condition;

const NAME: &str = "in-the-way";

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let seen = facts.conflicts.iter().flatten();
    let found = seen.map(|conflict| {
        let message = format!("{} is in the way of {}", conflict.found, conflict.wanted);
        finding(NAME, &conflict.wanted, message, conflict.hint.clone())
    });
    let mut found: Vec<Check> = found.collect();
    // What keeps something of ours from standing is known to who wants it.
    for condition in facts.conditions.iter().filter(|condition| condition.kind == "Conflict") {
        if found.iter().all(|check| check.subject != condition.subject) {
            found.push(told(condition));
        }
    }
    match &facts.conflicts {
        Err(why) if found.is_empty() => vec![not_checked(NAME, "", why.clone())],
        Err(_) | Ok(_) => findings_or(found, || {
            ok(NAME, "", "nothing of others is in the way of ours, or leads packets past it")
        }),
    }
}

/// What the running agent says of a conflict.
fn told(condition: &Condition) -> Check {
    let way = format!(" is in the way of {}", condition.subject);
    let parts = condition.message.split_once(&format!("{way}: "));
    let (found, hint) = parts.unwrap_or((&condition.message, "pairway status"));
    let message = if parts.is_some() { format!("{found}{way}") } else { found.to_owned() };
    finding(NAME, &condition.subject, message, hint)
}
