//! The whole agent, as it is shipped: from its start, on a kernel that holds nothing, until every route, FDB entry and
//! neighbour is there.

use std::path::Path;
use std::time::Duration;

use super::namespace::within;
use super::process::Program;
use super::raw::Raw;
use super::report::{median, thousands};
use super::routes::{PROTOCOL, kernel, observe};
use super::{BenchError, Row, Size, Unit, step};
use crate::eventually::{eventually, now};
use site::{BLOCK_PREFIX, Site};

pub(super) mod site;

/// Far beyond what is measured: something is wrong then.
const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn measure(size: Size) -> Result<Vec<Row>, BenchError> {
    let (cases, runs): (&[u32], usize) = match size {
        Size::Smoke => (&[20], 1),
        Size::Full => (&[100, 1000, 5000], 5),
    };
    cases.iter().map(|&peers| case(peers, runs)).collect()
}

fn case(peers: u32, runs: usize) -> Result<Row, BenchError> {
    let name = format!("{} peers", thousands(peers));
    step(format!("the agent with {name}"), || {
        let site = Site::make(peers)?;
        let mut started = Vec::new();
        for _ in 0..runs {
            started.push(within(|| {
                let running = Running::start(&site)?;
                Ok((running.programmed.as_secs_f64(), running.cpu.as_secs_f64(), running.program.peak_mib()?))
            })?);
        }
        let middle = |of: fn(&(f64, f64, f64)) -> f64| median(&started.iter().map(of).collect::<Vec<_>>());
        let row = Row::new("the agent from its start", name, runs)
            .with("all programmed", Unit::Seconds, middle(|run| run.0))
            .with("CPU until ready", Unit::Seconds, middle(|run| run.1))
            .with("most memory", Unit::MiB, middle(|run| run.2));
        let text = format!("{:.2} s, {:.0} MiB", middle(|run| run.0), middle(|run| run.2));
        Ok((row, text))
    })
}

/// An agent that has programmed all of its peers, in the namespace of the calling thread.
pub(super) struct Running {
    pub(super) program: Program,
    /// From its start to the kernel's last notification.
    programmed: Duration,
    /// Time on a processor until it was ready.
    cpu: Duration,
}

impl Running {
    pub(super) fn start(site: &Site) -> Result<Self, BenchError> {
        let mut listener = Raw::listen()?;
        let began = now();
        let mut program = site.start()?;
        let mut missing = Missing::new(site.peers);
        let programmed = listener
            .hear("the agent to program its peers", LIMIT, |notice, at| {
                missing.take(notice);
                missing.is_empty().then(|| at.duration_since(began))
            })
            .map_err(|error| site.explain(error))?;
        site.wait_ready(&mut program)?;
        let cpu = program.cpu()?;
        let seen = observe(&mut kernel()?)?.ours;
        let peers = usize::try_from(site.peers).unwrap_or(usize::MAX);
        // One route to each block, one to each node, and the pool's.
        let found = (seen.routes.len(), seen.fdb.len(), seen.neighbors.len(), seen.nexthops.len());
        if found != (2 * peers + 1, peers, peers, peers) {
            return Err(BenchError::Wrong(format!("the kernel holds {found:?} for {peers} peers")));
        }
        Ok(Self { program, programmed, cpu })
    }
}

/// What has not been heard of.
struct Missing {
    blocks: u32,
    hosts: u32,
    fdb: u32,
    neighbors: u32,
}

impl Missing {
    fn new(peers: u32) -> Self {
        Self { blocks: peers, hosts: peers, fdb: peers, neighbors: peers }
    }

    fn take(&mut self, notice: super::raw::Notice<'_>) {
        let heard = match notice.route(PROTOCOL) {
            Some((_, BLOCK_PREFIX)) => &mut self.blocks,
            Some((_, 32)) => &mut self.hosts,
            Some(_) => return,
            None if notice.neighbor(true).is_some() => &mut self.fdb,
            None if notice.neighbor(false).is_some() => &mut self.neighbors,
            None => return,
        };
        *heard = heard.saturating_sub(1);
    }

    fn is_empty(&self) -> bool {
        self.blocks + self.hosts + self.fdb + self.neighbors == 0
    }
}

/// Waits for a file to be there, and gives its content.
fn content(path: &Path, program: &mut Program) -> Result<String, BenchError> {
    let found = eventually(&format!("{} to be there", path.display()), LIMIT, || {
        if program.ended() {
            return Ok(Err(BenchError::program("pairway", "it has ended")));
        }
        std::fs::read_to_string(path).map(Ok)
    });
    found.map_err(|error| BenchError::program("pairway", error))?
}
