//! The judgement: facts to checks. Pure.

use bgp::Family;
use vxlan::LinkName;

use super::facts::{Facts, Known};
use super::{Check, Examination, Outcome};
use crate::underlay::LocalAddress;

mod addresses;
mod filters;
mod in_the_way;
mod kernel;
mod ports;
mod store;

/// Judges what was seen.
#[must_use]
pub fn examine(facts: &Facts) -> Examination {
    let parts = [
        kernel::checks(facts),
        addresses::checks(facts),
        filters::checks(facts),
        in_the_way::checks(facts),
        ports::checks(facts),
        store::checks(facts),
    ];
    Examination {
        node: facts.node.to_string(),
        checks: parts.into_iter().flatten().collect(),
        conditions: None,
    }
}

fn check(name: &str, outcome: Outcome, subject: impl ToString, message: String, remedy: String) -> Check {
    Check { name: name.to_owned(), outcome, subject: subject.to_string(), message, remedy }
}

fn ok(name: &str, subject: impl ToString, message: impl Into<String>) -> Check {
    check(name, Outcome::Ok, subject, message.into(), String::new())
}

fn finding(
    name: &str,
    subject: impl ToString,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Check {
    check(name, Outcome::Finding, subject, message.into(), remedy.into())
}

fn not_checked(name: &str, subject: impl ToString, why: impl Into<String>) -> Check {
    check(name, Outcome::NotChecked, subject, why.into(), String::new())
}

/// `judge` where it is known, else why not.
fn known<T>(name: &str, value: &Known<T>, judge: impl FnOnce(&T) -> Check) -> Check {
    match value {
        Ok(value) => judge(value),
        Err(why) => not_checked(name, "", why.clone()),
    }
}

/// The findings, or that there is none.
fn findings_or(found: Vec<Check>, otherwise: impl FnOnce() -> Check) -> Vec<Check> {
    if found.is_empty() { vec![otherwise()] } else { found }
}

impl Facts {
    /// Families of the pools.
    fn families(&self) -> impl Iterator<Item = Family> + '_ {
        Family::ALL.into_iter().filter(|family| self.pools.iter().any(|pool| Family::of(*pool) == *family))
    }

    /// The underlay addresses that the agent would take.
    fn underlay_addresses(&self) -> impl Iterator<Item = &LocalAddress> {
        Family::ALL.into_iter().filter_map(|family| self.underlay.local.of(family))
    }

    /// The interfaces of the underlay, each once.
    fn underlay_links(&self) -> Vec<LinkName> {
        let mut links: Vec<LinkName> =
            self.underlay_addresses().map(|address| address.link.clone()).collect();
        links.sort();
        links.dedup();
        links
    }
}
