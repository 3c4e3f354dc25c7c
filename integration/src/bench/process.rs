//! Programs that are measured, and what the kernel counts of them.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::BenchError;

/// `USER_HZ`: what `/proc/PID/stat` counts in, on every architecture that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A program that runs; killed when this is dropped.
#[derive(Debug)]
pub(super) struct Program {
    child: Child,
}

impl Program {
    /// Starts it in the namespace of the calling thread. What it says goes into a file.
    pub(super) fn start(program: &Path, arguments: &[&str], log: &Path) -> Result<Self, BenchError> {
        let failed = |what: &str| BenchError::system(format!("{what} {}", program.display()));
        let file = File::options().create(true).append(true).open(log).map_err(failed("log"))?;
        let also = file.try_clone().map_err(failed("log"))?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(also)
            .spawn()
            .map_err(failed("start"))?;
        Ok(Self { child })
    }

    fn file(&self, name: &str) -> Result<String, BenchError> {
        let path = format!("/proc/{}/{name}", self.child.id());
        fs::read_to_string(&path).map_err(BenchError::system(format!("read {path}")))
    }

    /// Time that it has had a processor, in steps of 10 ms.
    pub(super) fn cpu(&self) -> Result<Duration, BenchError> {
        let stat = self.file("stat")?;
        // The second field is a name that may hold anything but a closing bracket at its end.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
        match (ticks(11), ticks(12)) {
            (Some(user), Some(system)) => Ok(Duration::from_secs_f64((user + system) / TICKS_PER_SECOND)),
            _ => Err(BenchError::Wrong(format!("no times in {stat}"))),
        }
    }

    /// The most memory that it has had, in MiB (`VmHWM`).
    pub(super) fn peak_mib(&self) -> Result<f64, BenchError> {
        let status = self.file("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0)
            .ok_or_else(|| BenchError::Wrong("no VmHWM in /proc/PID/status".to_owned()))
    }

    /// Whether it has ended by itself.
    pub(super) fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Time that the calling thread has had a processor.
pub(super) fn thread_cpu() -> Result<Duration, BenchError> {
    // Counted when the thread leaves the processor.
    std::thread::yield_now();
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).map_err(BenchError::system(format!("read {path}")))?;
    let nanoseconds = text.split_whitespace().next().and_then(|field| field.parse().ok());
    nanoseconds.map(Duration::from_nanos).ok_or_else(|| BenchError::Wrong(format!("no time in {path}")))
}
