//! Conditions with the time since which they hold.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::plan::Finding;
use crate::status::{Condition, Severity, rfc3339};

/// Kind of the condition of a configuration that is not taken over.
pub(super) const CONFIG_REFUSED: &str = "ConfigRefused";

/// Remembers since when each condition holds, and logs what comes and goes.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    since: BTreeMap<(String, String, String), Timestamp>,
}

impl Conditions {
    /// The conditions of this pass, sorted by type and subject.
    pub(super) fn update(&mut self, findings: BTreeSet<Finding>, now: Timestamp) -> Vec<Condition> {
        let mut since = BTreeMap::new();
        let mut conditions = Vec::new();
        for Finding { kind, subject, message } in findings {
            // Another file that is refused is another matter; elsewhere the words may change with a number in them.
            let text = if kind == CONFIG_REFUSED { message.clone() } else { String::new() };
            let key = (kind.to_owned(), subject, text);
            let begun = self.since.get(&key).copied();
            if begun.is_none() && !since.contains_key(&key) {
                tracing::warn!(condition = key.0, subject = key.1, "{message}");
            }
            let begun = begun.unwrap_or(now);
            conditions.push(Condition {
                severity: Severity::of(kind),
                kind: key.0.clone(),
                subject: key.1.clone(),
                message,
                since: rfc3339(begun),
            });
            since.insert(key, begun);
        }
        let goes_on =
            |kind: &String, subject: &String| since.keys().any(|key| key.0 == *kind && key.1 == *subject);
        let over = self.since.keys().filter(|(kind, subject, _)| !goes_on(kind, subject));
        for (kind, subject, _) in over {
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
    fn another_refusal_begins_anew() {
        let mut conditions = Conditions::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let findings = |message: &str| BTreeSet::from([Finding::new("ConfigRefused", "", message)]);
        conditions.update(findings("line 3"), at(10));
        assert_eq!(conditions.update(findings("line 3"), at(20))[0].since, "1970-01-01T00:00:10Z");
        let other = conditions.update(findings("line 7"), at(30));
        assert_eq!((other.len(), other[0].since.as_str()), (1, "1970-01-01T00:00:30Z"));
        assert_eq!(other[0].severity, Severity::Error);
    }

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
