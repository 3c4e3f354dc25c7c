//! Conditions with the time since which they hold.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::plan::Finding;
use crate::status::{Condition, rfc3339};

/// Remembers since when each condition holds, and logs what comes and goes.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    since: BTreeMap<(String, String), Timestamp>,
}

impl Conditions {
    /// The conditions of this pass, sorted by type and subject.
    pub(super) fn update(&mut self, findings: BTreeSet<Finding>, now: Timestamp) -> Vec<Condition> {
        let mut since = BTreeMap::new();
        let mut conditions = Vec::new();
        for Finding { kind, subject, message } in findings {
            let key = (kind.to_owned(), subject);
            let begun = self.since.get(&key).copied();
            if begun.is_none() && !since.contains_key(&key) {
                tracing::warn!(condition = key.0, subject = key.1, "{message}");
            }
            let begun = begun.unwrap_or(now);
            conditions.push(Condition {
                kind: key.0.clone(),
                subject: key.1.clone(),
                message,
                since: rfc3339(begun),
            });
            since.insert(key, begun);
        }
        for (kind, subject) in self.since.keys().filter(|key| !since.contains_key(*key)) {
            tracing::info!(condition = kind, subject, "over");
        }
        self.since = since;
        conditions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_beginning_until_it_ends() {
        let mut conditions = Conditions::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let findings = |message: &str| BTreeSet::from([Finding::new("Conflict", "route", message)]);
        conditions.update(findings("a"), at(10));
        let later = conditions.update(findings("b"), at(20));
        assert_eq!((later[0].since.as_str(), later[0].message.as_str()), ("1970-01-01T00:00:10Z", "b"));
        assert!(conditions.update(BTreeSet::new(), at(30)).is_empty());
        assert_eq!(conditions.update(findings("a"), at(40))[0].since, "1970-01-01T00:00:40Z");
    }
}
