//! Where labs are kept on disk, and what is written down of a lab that outlives its runner.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::error::LabError;
use super::node::{self, Node};

/// Name of the file in a lab's folder.
pub(super) const FILE: &str = "lab.json";

/// Lines of each log that a failed test shows.
const LOG_TAIL: usize = 60;

/// A lab that outlives its runner.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) topology: PathBuf,
    pub(super) nodes: BTreeMap<String, Process>,
}

/// A process, told from another that got its id later by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: i32,
    start_time: u64,
}

impl Process {
    fn find(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything; the start time is the 20th field after it (proc(5): 22).
        let start_time = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, start_time })
    }

    pub(super) fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }
}

impl State {
    pub(super) fn is_alive(&self) -> bool {
        self.nodes.values().any(|process| process.is_alive())
    }

    pub(super) fn end(&self) -> Result<(), LabError> {
        let alive: Vec<Process> = self.nodes.values().copied().filter(|p| p.is_alive()).collect();
        for process in &alive {
            // Its end between the look and the signal is as good.
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        alive.iter().try_for_each(|process| node::wait_gone(process.pid))
    }
}

/// `$LAB_DIR`, else `lab` in the build folder that this program was built into, else in the temporary folder.
pub(super) fn root() -> PathBuf {
    if let Some(folder) = std::env::var_os("LAB_DIR") {
        return folder.into();
    }
    let built_into = std::env::current_exe().ok().and_then(|program| {
        program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists()).map(Path::to_owned)
    });
    built_into.unwrap_or_else(std::env::temp_dir).join("lab")
}

/// Folder of a lab that ends with this process.
pub(super) fn temporary_name(number: u64) -> String {
    let pid = nix::unistd::getpid().as_raw();
    let start_time = Process::find(pid).map_or(0, |process| process.start_time);
    format!("tmp-{pid}-{start_time}-{number}")
}

/// Removes the folders of runners that were killed.
pub(super) fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut fields = name.strip_prefix("tmp-").unwrap_or_default().splitn(3, '-');
        let owner = (fields.next().and_then(|f| f.parse().ok()), fields.next().and_then(|f| f.parse().ok()));
        if let (Some(pid), Some(start_time)) = owner
            && !(Process { pid, start_time }).is_alive()
        {
            // Another runner may be faster.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Names of the labs that were left.
pub(super) fn left(root: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join(FILE).exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub(super) fn save(folder: &Path, topology: &Path, nodes: &BTreeMap<String, Node>) -> Result<(), LabError> {
    let topology = fs::canonicalize(topology).map_err(LabError::io("find", topology))?;
    let nodes = nodes.iter().filter_map(|(name, node)| Some((name.clone(), Process::find(node.pid())?)));
    let state = State { topology, nodes: nodes.collect() };
    let path = folder.join(FILE);
    let text = serde_json::to_string_pretty(&state).map_err(std::io::Error::other);
    text.and_then(|text| fs::write(&path, text)).map_err(LabError::io("write", &path))
}

pub(super) fn load(folder: &Path) -> Result<State, LabError> {
    let path = folder.join(FILE);
    let text = fs::read_to_string(&path).map_err(|_| LabError::NotUp { folder: folder.to_owned() })?;
    serde_json::from_str(&text).map_err(std::io::Error::other).map_err(LabError::io("read", &path))
}

/// Shows the ends of all logs of a lab, for a test that failed.
pub(super) fn print_logs(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    let mut stderr = std::io::stderr().lock();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
        let _ = writeln!(stderr, "--- {}\n{}", path.display(), tail.join("\n"));
    }
}
