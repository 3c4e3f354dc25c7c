//! A look at everything where nothing is to be done: what the agent does every half minute.

use vxlan::reconcile;

use super::namespace::within;
use super::process::thread_cpu;
use super::programming::clear;
use super::report::{median, thousands};
use super::routes::{Routes, kernel, observe, pass};
use super::{BenchError, Row, Size, Unit, step};
use crate::eventually::timed;

pub(super) fn measure(size: Size) -> Result<Vec<Row>, BenchError> {
    let (routes, runs) = match size {
        Size::Smoke => (Routes { routes: 1000, gateways: 16 }, 2),
        Size::Full => (Routes { routes: 65_536, gateways: 256 }, 11),
    };
    let name = format!("{} routes", thousands(routes.routes));
    let row = step(format!("a full audit of {name}"), || {
        let [look, whole, cpu] = within(|| audit(routes, runs))?.map(|samples| median(&samples));
        let row = Row::new("full audit", name, runs)
            .with("time", Unit::Seconds, whole)
            .with("of it the look", Unit::Seconds, look)
            .with("CPU", Unit::Seconds, cpu);
        Ok((row, format!("{:.1} ms of CPU time", cpu * 1e3)))
    })?;
    Ok(vec![row])
}

/// Seconds of each run: the look, all of it, and on a processor.
fn audit(routes: Routes, runs: usize) -> Result<[Vec<f64>; 3], BenchError> {
    let wanted = routes.wanted()?;
    let mut kernel = kernel()?;
    let _ = pass(&mut kernel, &wanted)?;
    let mut samples: [Vec<f64>; 3] = Default::default();
    for _ in 0..runs {
        let before = thread_cpu()?;
        let (observed, look) = timed(|| observe(&mut kernel));
        let observed = observed?;
        let (report, judged) = timed(|| reconcile(&mut kernel, &observed, &wanted));
        drop(observed);
        let cpu = thread_cpu()?.saturating_sub(before);
        if !report.applied.is_empty() || !report.failures.is_empty() {
            return Err(BenchError::Wrong("an audit of an unchanged kernel has changed it".to_owned()));
        }
        for (samples, took) in samples.iter_mut().zip([look, look + judged, cpu]) {
            samples.push(took.as_secs_f64());
        }
    }
    clear(routes)?;
    Ok(samples)
}
