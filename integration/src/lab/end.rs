//! Ending a node: its first process is killed, and the kernel takes all others of the node along.
//!
//! The first process is gone only when every process of the node has been reaped, and some have their parent
//! outside: `unshare`, which waits for the first one, and each `nsenter`. One that is stopped (a program that gets
//! SIGSTOP stops its `nsenter` with it) reaps nothing. So those are told to go on, then killed, and named if that
//! does not help either.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::LabError;
use crate::eventually::soon;

/// How long a node has to go by itself, and again after each push.
const PATIENCE: Duration = Duration::from_secs(3);

/// A node whose first process has been killed.
#[derive(Debug)]
pub(super) struct Ending {
    node: String,
    pid: i32,
    /// Its PID namespace, as the links in /proc name it.
    namespace: Option<PathBuf>,
}

impl Ending {
    /// Kills the first process of a node. Does not wait.
    pub(super) fn begin(node: &str, pid: i32) -> Self {
        let namespace = fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        // Its end between the look and the signal is as good.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        Self { node: node.to_owned(), pid, namespace }
    }

    /// Waits until the process is gone.
    pub(super) fn finish(self) -> Result<(), LabError> {
        let pid = self.pid;
        self.push_until(|| kill(Pid::from_raw(pid), None).is_err())
    }

    /// Waits until its parent, a child of this process, has seen its end.
    pub(super) fn finish_with(self, holder: &mut Child) -> Result<(), LabError> {
        self.push_until(|| !matches!(holder.try_wait(), Ok(None)))
    }

    fn push_until(&self, mut gone: impl FnMut() -> bool) -> Result<(), LabError> {
        if soon(&mut gone, PATIENCE) {
            return Ok(());
        }
        for signal in [Signal::SIGCONT, Signal::SIGKILL] {
            for outside in self.outside() {
                // As above.
                let _ = kill(Pid::from_raw(outside), signal);
            }
            if soon(&mut gone, PATIENCE) {
                return Ok(());
            }
        }
        let culprits: Vec<String> = self.outside().into_iter().map(described).collect();
        Err(LabError::NotEnding {
            node: self.node.clone(),
            pid: self.pid,
            culprits: if culprits.is_empty() { described(self.pid) } else { culprits.join(", ") },
        })
    }

    /// Processes outside of the node whose children are in it.
    fn outside(&self) -> Vec<i32> {
        let Some(namespace) = &self.namespace else { return Vec::new() };
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let of = |pid: i32, link: &str| fs::read_link(format!("/proc/{pid}/ns/{link}")).ok();
        pids.filter(|&pid| {
            of(pid, "pid_for_children").as_ref() == Some(namespace)
                && of(pid, "pid").as_ref() != Some(namespace)
        })
        .collect()
    }
}

/// Ends a child of this process whose own child has been killed, for sure.
pub(super) fn child(child: &mut Child) {
    go_on(child.id());
    if !soon(|| !matches!(child.try_wait(), Ok(None)), PATIENCE) {
        // What it waits for goes with the node.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Lets a stopped process go on.
pub(super) fn go_on(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // One that has ended needs no push.
        let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
    }
}

/// `nsenter (process 123, stopped)`
fn described(pid: i32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
    let Some((name, rest)) = fields else { return format!("process {pid}") };
    // proc(5), field 3.
    let state = match rest.trim().chars().next() {
        Some('T' | 't') => "stopped",
        Some('D') => "waits for a device",
        Some('Z') => "has ended, and nobody asks for its result",
        Some(_) | None => "runs",
    };
    format!("{name} (process {pid}, {state})")
}
