//! The tables of the demonstration, and what must be true of them.

use std::net::IpAddr;

use ipnet::IpNet;
use node_agent::status::Pair;

use crate::cluster::{Cluster, ClusterError, FAMILIES};
use crate::reach::{self, Proof};
use crate::screen::table;

/// Nodes with their addresses and blocks.
pub(super) fn nodes(cluster: &Cluster, nodes: &[String]) -> Result<String, ClusterError> {
    let mut table = table();
    table.set_header(["node", "underlay", "blocks of pod addresses"]);
    for node in nodes {
        let status = cluster.status(node)?;
        let underlay: Vec<&str> = status.underlay.values().map(String::as_str).collect();
        table.add_row([node.clone(), underlay.join("\n"), status.blocks.join("\n")]);
    }
    Ok(table.to_string())
}

/// A row and a column per node: the path of each pair and its reason. Families that agree share a line.
pub(super) fn pairs(nodes: &[String], pairs: &[Pair]) -> String {
    let mut table = table();
    let mut header = vec![String::new()];
    header.extend(nodes.iter().cloned());
    table.set_header(header);
    for from in nodes {
        let mut row = vec![from.clone()];
        row.extend(nodes.iter().map(|to| cell(from, to, pairs)));
        table.add_row(row);
    }
    table.to_string()
}

fn cell(from: &str, to: &str, pairs: &[Pair]) -> String {
    let text = |family: &str| {
        let mut of_both = pairs.iter().filter(|pair| pair.local == from && pair.peer == to);
        of_both.find(|pair| pair.family == family).map(|pair| format!("{}\n{}", pair.path, pair.reason))
    };
    let texts = FAMILIES.map(text);
    match &texts {
        _ if from == to => "·".to_owned(),
        [Some(ipv4), Some(ipv6)] if ipv4 == ipv6 => ipv4.clone(),
        _ => {
            let lines = FAMILIES.iter().zip(&texts).filter_map(|(family, text)| {
                Some(format!("{family}: {}", text.as_ref()?.replace('\n', ", ")))
            });
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}

/// Counts of proofs.
pub(super) fn proofs(proofs: &[Proof]) -> String {
    let mut table = table();
    table.set_header(["", "family", "reached, with the sender's own address"]);
    for ((kind, family), (good, all)) in reach::summary(proofs) {
        table.add_row([kind.to_owned(), family.to_owned(), format!("{good} of {all}")]);
    }
    table.to_string()
}

/// The paths are what the topology asks for, as both ends see it, worked out here from the addresses alone:
/// native where each end lies in the other's prefix, a tunnel elsewhere.
pub(super) fn check(cluster: &Cluster, pairs: &[Pair]) -> Result<(), ClusterError> {
    for pair in pairs {
        let own = underlay(cluster, &pair.local)?;
        let peer = underlay(cluster, &pair.peer)?;
        let shared = own.contains(&peer.addr()) && peer.contains(&own.addr());
        let wanted = if shared { "native" } else { "vxlan" };
        if pair.path != wanted {
            let Pair { local, peer, family, path, reason, .. } = pair;
            return Err(ClusterError::Wrong(format!(
                "{local} - {peer} {family}: {path} ({reason}) where {wanted} was to be expected"
            )));
        }
    }
    Ok(())
}

/// The underlay address that the topology gave to a node.
fn underlay(cluster: &Cluster, node: &str) -> Result<IpNet, ClusterError> {
    let status = cluster.status(node)?;
    let text = status.underlay.get("ipv4").cloned().unwrap_or_default();
    text.parse().map_err(|_| ClusterError::Answer {
        node: node.to_owned(),
        command: "pairway status".to_owned(),
        problem: format!("underlay {text:?} (an address of {:?} was expected)", IpAddr::from([192, 0, 2, 0])),
    })
}
