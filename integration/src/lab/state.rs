//! Where labs are kept on disk, and what is written down of a lab that outlives its runner.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::end;
use super::error::LabError;
use super::node::Node;

/// Name of the file in a lab's folder.
pub(super) const FILE: &str = "lab.json";

/// How the names of folders begin that end with a process.
const TEMPORARY: &str = "tmp-";

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

    /// Whether it runs, or has ended and still stands in the process table.
    pub(super) fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }
}

impl State {
    pub(super) fn is_alive(&self) -> bool {
        self.nodes.values().any(|process| process.is_alive())
    }

    /// Ends all nodes; one that does not end keeps no other from ending.
    pub(super) fn end(&self) -> Result<(), LabError> {
        let alive = self.nodes.iter().filter(|(_, process)| process.is_alive());
        let ends: Vec<end::Ending> =
            alive.map(|(name, process)| end::Ending::begin(name, process.pid)).collect();
        ends.into_iter().map(end::Ending::finish).fold(Ok(()), Result::and)
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
    format!("{TEMPORARY}{pid}-{start_time}-{number}")
}

/// Removes the folders of runners that were killed.
pub(super) fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut fields = name.strip_prefix(TEMPORARY).unwrap_or_default().splitn(3, '-');
        let owner = (fields.next().and_then(|f| f.parse().ok()), fields.next().and_then(|f| f.parse().ok()));
        if let (Some(pid), Some(start_time)) = owner
            && !(Process { pid, start_time }).is_alive()
        {
            // Another runner may be faster.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    remove_if_empty(root);
}

/// Makes a lab's folder, though another runner may remove the empty root at this moment.
pub(super) fn create(folder: &Path) -> Result<(), LabError> {
    let mut result = Ok(());
    for _ in 0..5 {
        result = fs::create_dir_all(folder);
        if result.is_ok() {
            break;
        }
    }
    result.map_err(LabError::io("create", folder))
}

/// Removes a lab's folder, and the root if it was the last.
pub(super) fn remove(folder: &Path) -> Result<(), LabError> {
    fs::remove_dir_all(folder).map_err(LabError::io("remove", folder))?;
    folder.parent().into_iter().for_each(remove_if_empty);
    Ok(())
}

/// The root was made by us, unless the user has named it.
fn remove_if_empty(root: &Path) {
    if std::env::var_os("LAB_DIR").is_none() {
        // Succeeds for an empty folder alone.
        let _ = fs::remove_dir(root);
    }
}

/// Names of the labs that were left.
pub(super) fn left(root: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join(FILE).exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with(TEMPORARY))
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
    let text = fs::read_to_string(&path).map_err(|_| not_up(folder))?;
    serde_json::from_str(&text).map_err(std::io::Error::other).map_err(LabError::io("read", &path))
}

fn not_up(folder: &Path) -> LabError {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    LabError::NotUp { name, up: folder.parent().map(left).unwrap_or_default().join(", ") }
}

/// The last lines of a log.
pub(super) fn tail(path: &Path, lines: usize) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|&line| line.to_owned()).collect()
}

/// Lines of each log that a failed test shows.
const LOG_TAIL: usize = 60;

/// Shows the ends of all logs of a lab, for a test that failed.
pub(super) fn print_logs(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    let mut stderr = std::io::stderr().lock();
    for path in paths {
        let _ = writeln!(stderr, "--- {}\n{}", path.display(), tail(&path, LOG_TAIL).join("\n"));
    }
}
