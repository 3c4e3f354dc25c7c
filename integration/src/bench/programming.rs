//! Routes from nothing: ours from a wanted state through diff and netlink, beside the kernel's limit, a script of `ip`
//! and BIRD, all with the same routes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::Command;

use super::namespace::{UNDERLAY, index, within};
use super::raw::{Raw, batches, delete_route, nexthop, route};
use super::report::{median, thousands};
use super::routes::{FIRST_ID, METRIC, PROTOCOL, Routes, kernel, pass};
use super::{BenchError, Row, Size, Unit, bird, step};
use crate::eventually::timed;

/// Beyond so many routes the slow contenders run once.
const MANY: u32 = 500_000;

pub(super) fn measure(size: Size) -> Result<Vec<Row>, BenchError> {
    let (routes, gateways, runs): (&[u32], &[u32], usize) = match size {
        Size::Smoke => (&[1000], &[16], 1),
        Size::Full => (&[10_000, 200_000, 1_000_000], &[256, 1000, 5000], 3),
    };
    let mut rows = Vec::new();
    for &routes in routes {
        for &gateways in gateways {
            rows.push(case(Routes { routes, gateways }, runs)?);
        }
    }
    Ok(rows)
}

/// How long each took, in seconds.
#[derive(Debug, Default)]
struct Times {
    raw: Vec<f64>,
    empty: Vec<f64>,
    full: Vec<f64>,
    ip: Vec<f64>,
    bird: Vec<f64>,
}

fn case(routes: Routes, runs: usize) -> Result<Row, BenchError> {
    let name = format!("{} routes, {} gateways", thousands(routes.routes), thousands(routes.gateways));
    let times = step(name.clone(), || {
        let mut times = Times::default();
        for run in 0..runs {
            times.raw.push(within(|| raw(routes))?);
            let (empty, full) = within(|| ours(routes))?;
            times.empty.push(empty);
            times.full.push(full);
            if run == 0 || routes.routes < MANY {
                times.ip.push(within(|| ip_batch(routes))?);
                times.bird.push(within(|| bird::program(routes))?);
            }
        }
        let ratio = median(&times.raw) / median(&times.empty);
        Ok((times, format!("{ratio:.2} of the kernel's limit")))
    })?;
    let [raw, empty, full, ip, bird] =
        [&times.raw, &times.empty, &times.full, &times.ip, &times.bird].map(|times| median(times));
    let per_second = |seconds: f64| f64::from(routes.routes) / seconds;
    Ok(Row::new("programming from nothing", name, runs)
        .with("raw netlink", Unit::PerSecond, per_second(raw))
        .with("reconcile", Unit::PerSecond, per_second(empty))
        .with("of raw", Unit::Ratio, raw / empty)
        .with("ip -batch", Unit::PerSecond, per_second(ip))
        .with("BIRD", Unit::PerSecond, per_second(bird))
        .with("times BIRD", Unit::Ratio, bird / empty)
        .with("nothing to do", Unit::Seconds, full))
}

/// The kernel's limit: requests made beforehand, in the order that it likes best, with an object for each gateway.
fn raw(routes: Routes) -> Result<f64, BenchError> {
    let index = index(UNDERLAY)?;
    let mut nexthops =
        batches((0..routes.gateways).map(|n| nexthop(FIRST_ID + n, Routes::gateway(n), index, PROTOCOL)));
    let requests =
        routes.shuffled().map(|(n, via)| route(Routes::network(n), FIRST_ID + via, METRIC, PROTOCOL));
    let mut requests = batches(requests);
    let mut socket = Raw::open()?;
    let (sent, took) = timed(|| {
        socket.send_all(&mut nexthops)?;
        socket.send_all(&mut requests)
    });
    sent?;
    clear(routes)?;
    Ok(took.as_secs_f64())
}

/// Ours: on an empty kernel, and again on a full one.
fn ours(routes: Routes) -> Result<(f64, f64), BenchError> {
    let wanted = routes.wanted()?;
    let mut kernel = kernel()?;
    let objects = wanted.routes.len() + wanted.nexthops.len();
    let mut timed_pass = |expected: usize| {
        let (report, took) = timed(|| pass(&mut kernel, &wanted));
        let applied = report?.applied.len();
        if applied == expected {
            Ok(took.as_secs_f64())
        } else {
            Err(BenchError::Wrong(format!("{applied} changes were applied, not {expected}")))
        }
    };
    let times = (timed_pass(objects)?, timed_pass(0)?);
    clear(routes)?;
    Ok(times)
}

/// A script for `ip`, at its best: the objects are there, the routes only name them.
fn ip_batch(routes: Routes) -> Result<f64, BenchError> {
    let index = index(UNDERLAY)?;
    let nexthop = |n| nexthop(FIRST_ID + n, Routes::gateway(n), index, PROTOCOL);
    Raw::open()?.send_all(&mut batches((0..routes.gateways).map(nexthop)))?;
    let folder = tempfile::tempdir().map_err(BenchError::system("make a folder"))?;
    let script = folder.path().join("routes");
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(&script)?);
        for (number, via) in routes.shuffled() {
            let to = Routes::network(number);
            writeln!(
                file,
                "route add {}/{} nhid {} proto {PROTOCOL}",
                to.address,
                to.length,
                FIRST_ID + via
            )?;
        }
        file.flush()
    };
    write().map_err(BenchError::system("write a script for ip"))?;
    let (output, took) = timed(|| Command::new("ip").arg("-batch").arg(&script).output());
    let output = output.map_err(BenchError::system("run ip"))?;
    if !output.status.success() {
        return Err(BenchError::program("ip -batch", String::from_utf8_lossy(&output.stderr)));
    }
    clear(routes)?;
    Ok(took.as_secs_f64())
}

/// Deletes all routes, in an order that is quick. Left to the end of the namespace, it would go on in the background
/// of the next measurement.
pub(super) fn clear(routes: Routes) -> Result<(), BenchError> {
    let deletions = routes.shuffled().map(|(number, _)| delete_route(Routes::network(number)));
    Raw::open()?.send_all(&mut batches(deletions))
}
