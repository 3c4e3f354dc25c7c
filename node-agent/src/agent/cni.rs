//! Files for CNI plugins: written once the node is ready, kept as the blocks are, taken back when they hand out
//! addresses of a block that is not this node's.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::Agent;
use crate::cni::{self, Found, Kind, Network};
use crate::node::Block;
use crate::plan::Finding;

/// What one look at a file came to.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    Nothing,
    Written,
    /// Its blocks are not all ours.
    Withdrawn,
    Foreign,
}

impl Agent {
    /// Brings the files to what this pass has found.
    pub(super) fn settle_cni(&mut self) {
        let ready = self.state.not_ready.is_empty();
        let held = self.blocks.borrow().as_ref().map(|blocks| blocks.held.clone());
        let links = [&self.state.local.ipv4, &self.state.local.ipv6];
        let mtu = links.into_iter().flatten().map(|found| found.mtu).min();
        let places: BTreeMap<Kind, PathBuf> =
            cni::places(&self.config.cni).map(|(kind, path)| (kind, path.to_owned())).collect();
        for (kind, path) in &self.state.cni_places {
            if places.get(kind) != Some(path) {
                let withdrawn = cni::withdraw(*kind, path).map(|_| ());
                note(&mut self.state.findings, path, withdrawn);
            }
        }
        // Who holds which blocks is not known yet: what stands stands.
        let (Some(held), Some(mtu)) = (held, mtu) else { return };
        for (kind, path) in &places {
            let network = Network { pools: &self.config.pools, blocks: &held, mtu };
            let done = settle(*kind, path, &network, ready);
            match &done {
                Ok(Done::Written) => tracing::info!(path = %path.display(), "wrote the file for CNI plugins"),
                Ok(Done::Withdrawn) => tracing::warn!(
                    path = %path.display(),
                    "removed the file for CNI plugins: it hands out addresses that are not this node's"
                ),
                Ok(Done::Foreign) => {
                    self.state.findings.insert(Finding::new(
                        "CniConflict",
                        path.display().to_string(),
                        "this file is somebody else's and stays: remove it, or set another path under cni:",
                    ));
                }
                Ok(Done::Nothing) | Err(_) => (),
            }
            note(&mut self.state.findings, path, done.map(|_| ()));
        }
        self.state.cni_places = places;
    }
}

/// A file that can't be read, written or removed is a finding.
fn note(findings: &mut std::collections::BTreeSet<Finding>, path: &Path, result: io::Result<()>) {
    if let Err(error) = result {
        findings.insert(Finding::new(
            "CniUnwritable",
            path.display().to_string(),
            format!("{error}: pods can't be wired by this file; mount its folder writable, or set another path under cni:"),
        ));
    }
}

fn settle(kind: Kind, path: &Path, network: &Network<'_>, ready: bool) -> io::Result<Done> {
    let found = cni::find(kind, path)?;
    let content = kind.content(network);
    match found {
        Found::Foreign => Ok(Done::Foreign),
        Found::Ours(there) if there == content => Ok(Done::Nothing),
        Found::Ours(there) if !ready || network.blocks.is_empty() => {
            let is_held = |net| network.blocks.iter().any(|block: &Block| block.net() == net);
            if kind.subnets(&there).is_some_and(|subnets| subnets.into_iter().all(is_held)) {
                return Ok(Done::Nothing);
            }
            cni::withdraw(kind, path).map(|_| Done::Withdrawn)
        }
        Found::Absent if !ready || network.blocks.is_empty() => Ok(Done::Nothing),
        Found::Absent | Found::Ours(_) => cni::write(path, &content).map(|()| Done::Written),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_when_the_node_is_ready_and_goes_with_a_lost_block() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("10-pairway.conflist");
        let block = |text: &str| Block::new(text.parse().expect("a CIDR"));
        let (first, second) = (block("10.244.7.0/24"), block("10.244.9.0/24"));
        let settle = |blocks: &[Block], ready| {
            let network = Network { pools: &[], blocks, mtu: 1500 };
            settle(Kind::Conflist, &path, &network, ready).expect("a look")
        };
        assert_eq!(settle(&[first], false), Done::Nothing);
        assert!(!path.exists(), "a node that is not ready gets no pods");
        assert_eq!(settle(&[first], true), Done::Written);
        assert_eq!(settle(&[first], true), Done::Nothing);
        // A short trouble, or an agent that starts again, changes nothing.
        assert_eq!(settle(&[first], false), Done::Nothing);
        assert_eq!(settle(&[first, second], false), Done::Nothing);
        assert_eq!(settle(&[first, second], true), Done::Written);
        // A block that another node holds now is handed out no longer, ready or not.
        assert_eq!(settle(&[second], true), Done::Written);
        assert_eq!(settle(&[first], false), Done::Withdrawn);
        assert!(!path.exists());
        assert_eq!(settle(&[second], true), Done::Written);
        assert_eq!(settle(&[], true), Done::Withdrawn);
        std::fs::write(&path, "{\"name\": \"cbr0\"}").expect("a file");
        assert_eq!(settle(&[second], true), Done::Foreign);
    }
}
