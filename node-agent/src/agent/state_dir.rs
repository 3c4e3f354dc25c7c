//! What a node keeps across restarts of its agent, and the lock that refuses a second agent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use vxlan::{Observed, State};

use crate::store::LAST_GOOD_FILE_NAME;
use crate::{claims, cni, durable, originals};

/// The state directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: Flock<File>,
}

/// Runs of agents with this state directory.
#[derive(Debug)]
pub(super) struct Runs {
    /// Their identifiers, this run's first.
    pub(super) ids: Vec<String>,
    /// Why they could not be written down.
    pub(super) problem: Option<String>,
}

/// The state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// It can't be made, opened or written.
    #[error("can't use the state directory {}: make it writable or set stateDir", path.display())]
    Unusable {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent has it.
    #[error(
        "another agent{} runs with the state directory {}: stop it, or give this one its own stateDir",
        pid.map_or_else(String::new, |pid| format!(" (process {pid})")),
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds the lock, as it wrote it.
        pid: Option<u32>,
    },
}

const LOCK: &str = "agent.lock";
pub(super) const RAN_IN_BOOT: &str = "ran-in-boot";
const RUNS: &str = "runs";
/// So many runs are remembered: a crash between writing here and publishing the record must not make us a stranger.
const MOST_RUNS: usize = 64;
/// Random with every look.
const RANDOM_ID: &str = "/proc/sys/kernel/random/uuid";
/// Changes with every boot of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

impl StateDir {
    /// Makes the directory if need be, and locks it.
    ///
    /// # Errors
    /// It is unusable, or another agent has locked it.
    pub fn lock(path: &Path) -> Result<Self, StateDirError> {
        let unusable = |source| StateDirError::Unusable { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(unusable)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))
            .map_err(unusable)?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => return Err(Self::locked(path, &mut file)),
            Err((_, error)) => return Err(unusable(error.into())),
        };
        let pid = std::process::id();
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{pid}"))
            .map_err(unusable)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Why an agent could not lock the directory just now: another one has. Nothing is made.
    #[must_use]
    pub fn occupied(path: &Path) -> Option<StateDirError> {
        let file = OpenOptions::new().read(true).open(path.join(LOCK)).ok()?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => Some(Self::locked(path, &mut file)),
            Ok(_) | Err(_) => None,
        }
    }

    fn locked(path: &Path, lock: &mut File) -> StateDirError {
        let mut text = String::new();
        // Only for the message.
        let _ = lock.read_to_string(&mut text);
        StateDirError::Locked { path: path.to_owned(), pid: text.trim().parse().ok() }
    }

    /// Removes what agents have kept here, and the directory if nothing else is in it. The lock goes with it: the last
    /// step of an uninstallation.
    ///
    /// # Errors
    /// A file of ours can't be removed.
    pub fn remove(self) -> Result<(), StateDirError> {
        let unusable = |source| StateDirError::Unusable { path: self.path.clone(), source };
        let claims = [claims::FILE_NAME, claims::ASIDE_NAME];
        let others = [RAN_IN_BOOT, RUNS, cni::FILE_NAME, originals::FILE_NAME, LAST_GOOD_FILE_NAME, LOCK];
        for file in claims.into_iter().chain(others) {
            match fs::remove_file(self.path.join(file)) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(unusable(source)),
                Ok(()) | Err(_) => (),
            }
        }
        match fs::remove_dir(&self.path) {
            Err(source) if !is_not_all_ours(source.kind()) => Err(unusable(source)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes down what of others a change of the kernel will overwrite.
    ///
    /// # Errors
    /// The directory can't be written.
    pub(super) fn remember_originals(&self, observed: &Observed, wanted: &State) -> io::Result<()> {
        originals::remember(&self.path, observed, wanted)
    }

    /// Writes down where files for CNI plugins are.
    ///
    /// # Errors
    /// The directory can't be written.
    pub(super) fn remember_cni_places(&self, places: &cni::Places) -> io::Result<()> {
        cni::remember(&self.path, places)
    }

    /// Where the last agent has kept files for CNI plugins.
    pub(super) fn cni_places(&self) -> cni::Places {
        cni::remembered(&self.path).unwrap_or_else(|error| {
            tracing::warn!(%error, "can't read in stateDir where files for CNI plugins were kept");
            cni::Places::new()
        })
    }

    /// An agent has programmed the kernel before in this boot of the machine: what it left is still there.
    #[must_use]
    pub(super) fn ran_before(&self) -> bool {
        let (Ok(then), Ok(now)) =
            (fs::read_to_string(self.path.join(RAN_IN_BOOT)), fs::read_to_string(BOOT_ID))
        else {
            return false;
        };
        then.trim() == now.trim()
    }

    /// Gives this run an identifier and remembers it. Identifiers of later runs are greater.
    #[must_use]
    pub(super) fn begin_run(&self, now: Timestamp) -> Runs {
        let path = self.path.join(RUNS);
        let former = fs::read_to_string(&path).unwrap_or_default();
        let random = fs::read_to_string(RANDOM_ID).unwrap_or_default();
        let random = random.split('-').next().filter(|text| !text.is_empty()).unwrap_or("0").to_owned();
        let id = format!("{}-{random}", now.strftime("%Y%m%dT%H%M%S%3fZ"));
        let former = former.lines().map(str::trim).filter(|line| !line.is_empty() && line.len() <= 64);
        let ids: Vec<String> = [id].into_iter().chain(former.map(str::to_owned)).take(MOST_RUNS).collect();
        let written = durable::replace(&path, (ids.join("\n") + "\n").as_bytes());
        Runs { ids, problem: written.err().map(|error| error.to_string()) }
    }

    /// Remembers that the kernel has been programmed in this boot.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn mark_run(&self) -> io::Result<()> {
        let boot = fs::read_to_string(BOOT_ID)?;
        fs::write(self.path.join(RAN_IN_BOOT), boot)
    }
}

/// A folder may stay when it can't be removed for this reason: a store is in it, it is a mount point, or one in a root that
/// is read-only, as a container's is.
fn is_not_all_ours(reason: io::ErrorKind) -> bool {
    use io::ErrorKind::{DirectoryNotEmpty, ReadOnlyFilesystem, ResourceBusy};
    [DirectoryNotEmpty, ResourceBusy, ReadOnlyFilesystem].contains(&reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let first = StateDir::lock(&path).unwrap();
        let second = StateDir::lock(&path).unwrap_err();
        let pid = std::process::id();
        assert_eq!(
            second.to_string(),
            format!(
                "another agent (process {pid}) runs with the state directory {}: stop it, or give this one its own stateDir",
                path.display()
            )
        );
        drop(first);
        StateDir::lock(&path).unwrap();
    }

    #[test]
    fn a_run_is_remembered_for_this_boot() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::lock(folder.path()).unwrap();
        assert!(!state.ran_before());
        state.mark_run().unwrap();
        assert!(state.ran_before());
        fs::write(folder.path().join(RAN_IN_BOOT), "another boot\n").unwrap();
        assert!(!state.ran_before());
    }

    #[test]
    fn each_run_has_a_greater_identifier_and_the_former_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::lock(folder.path()).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = state.begin_run(at(1_000_000_000));
        assert_eq!((first.ids.len(), &first.problem), (1, &None));
        assert!(first.ids[0].starts_with("20010909T014640000Z-"), "{:?}", first.ids);
        let second = state.begin_run(at(1_000_000_001));
        assert_eq!(second.ids[1..], first.ids);
        assert!(second.ids[0] > first.ids[0]);
        for second in 2..200 {
            drop(state.begin_run(at(1_000_000_000 + second)));
        }
        assert_eq!(state.begin_run(at(1_000_001_000)).ids.len(), MOST_RUNS);
        fs::write(folder.path().join(RUNS), [0xff, 0xfe]).unwrap();
        assert_eq!(state.begin_run(at(1_000_002_000)).ids.len(), 1);
    }

    #[test]
    fn a_directory_that_can_not_be_made_is_said() {
        let folder = tempfile::NamedTempFile::new().unwrap();
        let error = StateDir::lock(&folder.path().join("state")).unwrap_err();
        assert!(matches!(error, StateDirError::Unusable { .. }), "{error}");
    }

    #[test]
    fn the_directory_goes_unless_something_else_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let state = StateDir::lock(&path).unwrap();
        state.mark_run().unwrap();
        fs::create_dir(path.join("store")).unwrap();
        state.remove().unwrap();
        let left: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["store"]);
        fs::remove_dir(path.join("store")).unwrap();
        StateDir::lock(&path).unwrap().remove().unwrap();
        assert!(!path.exists());
    }
}
