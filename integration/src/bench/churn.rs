//! Peers that change: every second one in a hundred gets another underlay address, which is three messages to the
//! kernel (its FDB entry, the route to its new address, the end of the one to its old).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::agent::Running;
use super::agent::site::Site;
use super::namespace::within;
use super::raw::Raw;
use super::report::{median, quantile, thousands};
use super::{BenchError, Row, Size, Unit, step};
use crate::eventually::{now, timed};

/// A change that takes longer has not come.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct Load {
    peers: u32,
    changes_per_second: u32,
    seconds: u32,
}

pub(super) fn measure(size: Size) -> Result<Vec<Row>, BenchError> {
    let load = match size {
        Size::Smoke => Load { peers: 20, changes_per_second: 10, seconds: 1 },
        Size::Full => Load { peers: 5000, changes_per_second: 50, seconds: 60 },
    };
    let name = format!(
        "{} peers, {} changes a second for {} s",
        thousands(load.peers),
        load.changes_per_second,
        load.seconds
    );
    let site = Site::make(load.peers)?;
    let row = step(name.clone(), || {
        let churned = within(|| churn(&site, load))?;
        let row = Row::new("peers that change", name, churned.latencies.len())
            .with("a change to the kernel", Unit::Seconds, median(&churned.latencies))
            .with("p99", Unit::Seconds, quantile(&churned.latencies, 0.99))
            .with("messages per change", Unit::Ratio, churned.messages)
            .with("passes a second", Unit::Ratio, churned.passes)
            .with("processors busy", Unit::Ratio, churned.busy)
            .with("most memory", Unit::MiB, churned.peak_mib);
        Ok((row, format!("{:.0} ms at the median", median(&churned.latencies) * 1e3)))
    })?;
    Ok(vec![row])
}

struct Churned {
    /// Seconds from each record's change to the notification of its FDB entry.
    latencies: Vec<f64>,
    messages: f64,
    passes: f64,
    busy: f64,
    peak_mib: f64,
}

fn churn(site: &Site, load: Load) -> Result<Churned, BenchError> {
    let agent = Running::start(site)?;
    let changes = load.changes_per_second * load.seconds;
    let read = || -> Result<_, BenchError> {
        let changes = site.counter("pairway_kernel_changes_total")?;
        Ok((changes, site.counter("pairway_passes_total")?, agent.program.cpu()?.as_secs_f64()))
    };
    let mut listener = Raw::listen()?;
    let before = read()?;
    let (told, took) = timed(|| {
        std::thread::scope(|scope| {
            let heard = scope.spawn(move || hear(&mut listener, changes, load));
            let written = write(site, changes, load);
            let heard =
                heard.join().map_err(|_| BenchError::Wrong("the listener has panicked".to_owned()))?;
            Ok::<_, BenchError>((written?, heard?))
        })
    });
    let (written, heard) = told?;
    let after = read()?;
    let latencies = written
        .iter()
        .filter_map(|(address, at)| Some(heard.get(address)?.duration_since(*at).as_secs_f64()))
        .collect();
    let seconds = took.as_secs_f64();
    Ok(Churned {
        latencies,
        messages: (after.0 - before.0) / f64::from(changes),
        passes: (after.1 - before.1) / seconds,
        busy: (after.2 - before.2) / seconds,
        peak_mib: agent.program.peak_mib()?,
    })
}

/// The address that a change gives: nobody has had it before.
fn address(change: u32) -> Ipv4Addr {
    Ipv4Addr::from(0xac18_0100 + change)
}

/// Changes one peer after the other, each at its time; when each was done.
fn write(site: &Site, changes: u32, load: Load) -> Result<BTreeMap<Ipv4Addr, Instant>, BenchError> {
    let began = now();
    let mut written = BTreeMap::new();
    for change in 0..changes {
        let due = began + Duration::from_secs(1) * change / load.changes_per_second;
        std::thread::sleep(due.saturating_duration_since(now()));
        site.write_record(change * 7919 % load.peers, address(change))?;
        written.insert(address(change), now());
    }
    Ok(written)
}

/// When the FDB entry of each change came.
fn hear(listener: &mut Raw, changes: u32, load: Load) -> Result<BTreeMap<Ipv4Addr, Instant>, BenchError> {
    let wanted = usize::try_from(changes).unwrap_or(usize::MAX);
    let limit = LIMIT + Duration::from_secs(load.seconds.into());
    let (first, last) = (address(0), address(changes));
    let mut heard = BTreeMap::new();
    listener.hear("every change to reach the kernel", limit, |notice, at| {
        if let Some(remote) = notice.neighbor(true).filter(|remote| (first..last).contains(remote)) {
            heard.entry(remote).or_insert(at);
        }
        (heard.len() == wanted).then_some(())
    })?;
    Ok(heard)
}
