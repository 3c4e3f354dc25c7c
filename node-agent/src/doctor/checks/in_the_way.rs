//! Routes, rules and devices of others that are in the way of ours, as the agent's condition `Conflict` has them.

use super::super::Check;
use super::super::facts::Facts;
use super::{finding, findings_or, not_checked, ok};

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    const NAME: &str = "in-the-way";
    match &facts.conflicts {
        Err(why) => vec![not_checked(NAME, "", why.clone())],
        Ok(conflicts) => {
            let found = conflicts.iter().map(|conflict| {
                let message = format!("{} is in the way of {}", conflict.found, conflict.wanted);
                finding(NAME, &conflict.wanted, message, conflict.hint.clone())
            });
            findings_or(found.collect(), || {
                ok(
                    NAME,
                    "",
                    "nothing of others is in the way of what stands of ours, or leads packets past it",
                )
            })
        }
    }
}
