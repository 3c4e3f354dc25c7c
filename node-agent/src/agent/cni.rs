//! Files for CNI plugins: written once the node is ready, kept as the blocks are, taken back when they hand out
//! addresses of a block that is not this node's.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use tokio::time::Instant;

use super::Agent;
use crate::cni::{self, Found, Kind, Network};
use crate::plan::Finding;

/// Whether pods may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// They may.
    Ready,
    /// Something is wrong, and what stands in the kernel stands.
    Troubled,
    /// Nothing has been programmed since the machine was started.
    Never,
}

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
        let places = cni::places(&self.config.cni);
        for (kind, path) in &self.state.cni_places {
            if places.get(kind) != Some(path) {
                let withdrawn = cni::withdraw(*kind, path).map(|_| ());
                note(&mut self.state.findings, path, withdrawn);
            }
        }
        if places != self.state.cni_places {
            // Before anything is written: what is not known after a crash would stay for ever.
            if let Err(error) = self.state_dir.remember_cni_places(&places) {
                self.state.findings.insert(Finding::new(
                    "StateDirUnwritable",
                    "cni",
                    format!("can't write into stateDir ({error}): no file for CNI plugins is written"),
                ));
                return;
            }
            self.state.cni_places.clone_from(&places);
        }
        // Before the files are looked at, so that nothing is missed between.
        self.cni_watch.follow(&places);
        // Who holds which blocks is not known yet: what stands stands.
        let (Some(held), Some(mtu)) = (held, mtu) else { return };
        // After a boot the kernel holds no route: pods that start now would be cut off.
        let readiness = match (ready, self.restarting || self.state.marked) {
            (true, _) => Readiness::Ready,
            (false, true) => Readiness::Troubled,
            (false, false) => Readiness::Never,
        };
        for (kind, path) in &places {
            let network = Network { pools: &self.config.pools, blocks: &held, mtu };
            let done = settle(*kind, path, &network, readiness);
            match &done {
                Ok(Done::Written) => tracing::info!(path = %path.display(), "wrote the file for CNI plugins"),
                Ok(Done::Withdrawn) => tracing::warn!(
                    path = %path.display(),
                    "removed the file for CNI plugins: the node has not been ready since it was started, or it hands out addresses that are not this node's"
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
        // A folder that was made just now: what else happened there is unknown.
        if self.cni_watch.follow(&places) {
            self.state.wakes.push(Instant::now());
        }
    }
}

/// A file that can't be read, written or removed is a finding.
fn note(findings: &mut BTreeSet<Finding>, path: &Path, result: io::Result<()>) {
    if let Err(error) = result {
        findings.insert(Finding::new(
            "CniUnwritable",
            path.display().to_string(),
            format!("{error}: pods can't be wired by this file; mount its folder writable, or set another path under cni:"),
        ));
    }
}

fn settle(kind: Kind, path: &Path, network: &Network<'_>, readiness: Readiness) -> io::Result<Done> {
    let may_write = readiness == Readiness::Ready && !network.blocks.is_empty();
    match cni::find(kind, path)? {
        Found::Foreign => Ok(Done::Foreign),
        Found::Absent if !may_write => Ok(Done::Nothing),
        Found::Ours(there) if !may_write => {
            if readiness != Readiness::Never && kind.keeps_to(&there, network.blocks) {
                return Ok(Done::Nothing);
            }
            cni::withdraw(kind, path).map(|_| Done::Withdrawn)
        }
        found @ (Found::Absent | Found::Ours(_)) => {
            let content = kind.content(network);
            if found == Found::Ours(content.clone()) {
                return Ok(Done::Nothing);
            }
            cni::write(path, &content).map(|()| Done::Written)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Readiness::{Never, Ready, Troubled};
    use super::*;
    use crate::node::Block;

    #[test]
    fn a_file_comes_when_the_node_is_ready_and_goes_with_a_lost_block() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("10-pairway.conflist");
        let block = |text: &str| Block::new(text.parse().expect("a CIDR"));
        let (first, second) = (block("10.244.7.0/24"), block("10.244.9.0/24"));
        let settle = |blocks: &[Block], readiness| {
            let network = Network { pools: &[], blocks, mtu: 1500 };
            settle(Kind::Conflist, &path, &network, readiness).expect("a look")
        };
        assert_eq!(settle(&[first], Never), Done::Nothing);
        assert!(!path.exists(), "a node that is not ready gets no pods");
        assert_eq!(settle(&[first], Ready), Done::Written);
        assert_eq!(settle(&[first], Ready), Done::Nothing);
        // A short trouble, or an agent that starts again, changes nothing.
        assert_eq!(settle(&[first], Troubled), Done::Nothing);
        assert_eq!(settle(&[first, second], Troubled), Done::Nothing);
        assert_eq!(settle(&[first, second], Ready), Done::Written);
        // A block that another node holds now is handed out no longer, ready or not.
        assert_eq!(settle(&[second], Ready), Done::Written);
        assert_eq!(settle(&[first], Troubled), Done::Withdrawn);
        assert!(!path.exists());
        assert_eq!(settle(&[second], Ready), Done::Written);
        assert_eq!(settle(&[], Ready), Done::Withdrawn);
        // A machine that was started again has no routes yet.
        assert_eq!(settle(&[second], Ready), Done::Written);
        assert_eq!(settle(&[second], Never), Done::Withdrawn);
        std::fs::write(&path, "{\"name\": \"pairway\"}").expect("a file");
        assert_eq!(settle(&[second], Ready), Done::Foreign);
    }
}
