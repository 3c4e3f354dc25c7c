//! The store and the directories on disk.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::Check;
use super::super::facts::{Facts, Folder, Purpose};
use super::{finding, findings_or, not_checked, ok};

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = duplicates(facts);
    checks.extend(facts.folders.iter().map(folder));
    checks
}

fn duplicates(facts: &Facts) -> Vec<Check> {
    const NAME: &str = "node-address";
    let records = match &facts.records {
        Ok(records) => records,
        Err(why) => return vec![not_checked(NAME, "", why.clone())],
    };
    let mut at: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
    // The own record may not be written yet, and the own address may have changed since it was.
    for address in facts.underlay_addresses() {
        at.entry(address.address.addr()).or_default().push(facts.node.as_str());
    }
    for record in records.iter().filter(|record| record.name != facts.node) {
        for address in &record.addresses {
            at.entry(address.addr()).or_default().push(record.name.as_str());
        }
    }
    let found = at.iter().filter(|(_, names)| names.len() > 1).map(|(address, names)| {
        finding(
            NAME,
            address,
            format!(
                "{} have the same underlay address {address}: packets for both go to one of them",
                names.join(" and ")
            ),
            "correct the address of one of them; or, for one that is gone for good, pairway node delete NAME",
        )
    });
    findings_or(found.collect(), || {
        ok(NAME, "", format!("the store knows {} nodes, each with addresses of its own", records.len()))
    })
}

fn folder(folder: &Folder) -> Check {
    let (name, key, else_) = match folder.purpose {
        Purpose::State => ("state-dir", "stateDir", "the agent does not start"),
        Purpose::Store => ("store-dir", "store.file.path", "this node claims no block and is seen by nobody"),
        Purpose::Socket => ("socket-dir", "api.socket", "the agent does not start"),
    };
    let path = folder.path.display();
    match &folder.trouble {
        None => ok(name, path, "can be written"),
        Some(trouble) => finding(
            name,
            path,
            format!("{trouble}: {else_}"),
            format!("make it writable for the user that the agent runs as, or set {key} to another path"),
        ),
    }
}
