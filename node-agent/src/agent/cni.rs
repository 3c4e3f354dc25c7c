//! Files for CNI plugins: written once the node is ready, kept as the blocks are, taken back when they hand out
//! addresses of a block that is not this node's.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::time::Duration;

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

/// So many times...
const MANY: usize = 8;
/// ... within this time are no accident: somebody takes a file away whenever he sees it, as Cilium does
/// (`cni.exclusive`).
const WITHIN: Duration = Duration::from_secs(60);
/// The first pause; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// A file that others remove or change, and that was put back.
#[derive(Debug, Default)]
pub(super) struct PutBack {
    content: String,
    /// When, the latest last.
    times: VecDeque<Instant>,
}

impl PutBack {
    /// Something else, or nothing, stands where this content stood: until when it is left so.
    fn wait(&mut self, content: &str, now: Instant) -> Option<Instant> {
        if self.content != content {
            content.clone_into(&mut self.content);
            self.times.clear();
        }
        self.forget(now);
        let doublings = u32::try_from(self.times.len().checked_sub(MANY)?).unwrap_or(u32::MAX);
        let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(doublings)).min(WITHIN);
        self.times.back().map(|last| *last + wait).filter(|next| *next > now)
    }

    fn forget(&mut self, now: Instant) {
        while self.times.front().is_some_and(|time| now.saturating_duration_since(*time) > WITHIN) {
            self.times.pop_front();
        }
    }

    /// What to say of it.
    fn finding(&mut self, path: &Path, now: Instant) -> Option<Finding> {
        self.forget(now);
        let times = self.times.len();
        (times >= MANY).then(|| {
            Finding::new(
                "CniConflict",
                path.display().to_string(),
                format!(
                    "somebody removes or changes this file again and again ({times} times within a minute): it is put back ever more seldom. Look for another network plugin that keeps the folder to itself (Cilium: cni.exclusive=false), or set another path under cni:"
                ),
            )
        })
    }
}

/// What one look at a file came to.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    Nothing,
    Written,
    /// Its blocks are not all ours.
    Withdrawn,
    Foreign,
    /// Somebody takes it away again and again: it is put back then.
    HeldOff(Instant),
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
        let now = Instant::now();
        self.state.cni_put_back.retain(|path, _| places.values().any(|place| place == path));
        for (kind, path) in &places {
            let network = Network { pools: &self.config.pools, blocks: &held, mtu };
            let put_back = self.state.cni_put_back.entry(path.clone()).or_default();
            let done = settle(*kind, path, &network, readiness, put_back, now);
            if let Some(finding) = put_back.finding(path, now) {
                self.state.findings.insert(finding);
            }
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
                Ok(Done::HeldOff(until)) => self.state.wakes.push(*until),
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

fn settle(
    kind: Kind,
    path: &Path,
    network: &Network<'_>,
    readiness: Readiness,
    put_back: &mut PutBack,
    now: Instant,
) -> io::Result<Done> {
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
            if let Some(until) = put_back.wait(&content, now) {
                return Ok(Done::HeldOff(until));
            }
            cni::write(path, &content)?;
            put_back.times.push_back(now);
            Ok(Done::Written)
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
            let (mut put_back, now) = (PutBack::default(), Instant::now());
            settle(Kind::Conflist, &path, &network, readiness, &mut put_back, now).expect("a look")
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

    /// Cilium renames every file that is not its own as soon as it comes.
    #[test]
    fn a_file_that_somebody_takes_away_again_and_again_comes_ever_more_seldom_and_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("10-pairway.conflist");
        let block = Block::new("10.244.7.0/24".parse().expect("a CIDR"));
        let network = |mtu| Network { pools: &[], blocks: std::slice::from_ref(&block), mtu };
        let (mut put_back, began) = (PutBack::default(), Instant::now());
        let mut written = 0;
        let step = Duration::from_millis(250);
        for number in 0..240 {
            let now = began + step * number;
            let done = settle(Kind::Conflist, &path, &network(1500), Ready, &mut put_back, now);
            match done.expect("a look") {
                Done::Written => {
                    written += 1;
                    std::fs::remove_file(&path).expect("the file");
                }
                Done::HeldOff(until) => assert!(until > now),
                other @ (Done::Nothing | Done::Withdrawn | Done::Foreign) => panic!("{other:?}"),
            }
            assert_eq!(put_back.finding(&path, now).is_some(), written >= MANY, "{written}");
        }
        assert!((MANY..MANY + 7).contains(&written), "{written} times in a minute");
        // Something else to write is no fight, and one that has ended is forgotten.
        let now = began + step * 240;
        let mut settle = |mtu, now| {
            settle(Kind::Conflist, &path, &network(mtu), Ready, &mut put_back, now).expect("a look")
        };
        assert_eq!(settle(1400, now), Done::Written);
        assert_eq!(settle(1400, now + WITHIN), Done::Nothing);
        assert!(put_back.finding(&path, now + 2 * WITHIN).is_none());
    }
}
