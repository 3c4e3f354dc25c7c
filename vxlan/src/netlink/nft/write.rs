//! Changes of our table, each one transaction: nobody ever sees half of one.

use std::net::IpAddr;

use crate::diff::SetChange;
use crate::firewall::Table;
use crate::netlink::request::Request;

use super::encode;

/// Addresses per message: a list of them must fit the 64 KiB of an attribute.
const CHUNK: usize = 1000;

/// Replaces the table, be it there or not.
pub(super) fn replace(name: &str, mark: &str, table: &Table) -> Vec<Request> {
    let mut requests =
        vec![encode::any_table(name), encode::delete_table(name), encode::new_table(name, mark)];
    for (id, (set_name, set)) in (1..).zip(&table.sets) {
        requests.push(encode::new_set(name, set_name, set.key, id));
        let elements: Vec<IpAddr> = set.elements.iter().copied().collect();
        requests.extend(elements.chunks(CHUNK).map(|some| encode::add_elements(name, set_name, some)));
    }
    // All chains before the first rule, which may jump to any of them.
    requests.extend(table.chains.iter().map(|(chain, value)| encode::new_chain(name, chain, value)));
    for (chain, value) in &table.chains {
        requests.extend(value.rules.iter().map(|rule| encode::new_rule(name, chain, rule)));
    }
    requests
}

/// Changes elements of sets.
pub(super) fn change_sets(name: &str, changes: &[SetChange]) -> Vec<Request> {
    let mut requests = Vec::new();
    for change in changes {
        let (add, remove): (Vec<IpAddr>, Vec<IpAddr>) =
            (change.add.iter().copied().collect(), change.remove.iter().copied().collect());
        requests.extend(add.chunks(CHUNK).map(|some| encode::add_elements(name, &change.set, some)));
        requests.extend(remove.chunks(CHUNK).map(|some| encode::delete_elements(name, &change.set, some)));
    }
    requests
}
