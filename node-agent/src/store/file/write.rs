//! Writes a record so that a crash at any instant leaves the old content, the new one, or nothing: never a part.
//!
//! Both ways begin with a whole temporary file in the same directory. A *creation* then links it to its name,
//! which fails if the name is taken; a *replacement* renames it. Each step can be made to fail, or to be the last
//! one of the process, by a test.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use tempfile::{Builder, NamedTempFile};

/// Names of temporary files begin so. Whoever reads the directory passes them over.
pub(super) const TEMPORARY: &str = ".tmp-";

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The directory is read.
    Scan,
    /// The temporary file is created.
    Temporary,
    /// Its content is written.
    Write,
    /// Its content is made to last.
    Sync,
    /// It gets its name, unless that is taken.
    Link,
    /// It takes the place of the old file.
    Rename,
    /// A file is removed.
    Unlink,
    /// The directory is made to last.
    SyncDirectory,
}

/// Asked before every step; an error is that step's error.
pub(super) type Gate = Arc<dyn Fn(Step) -> io::Result<()> + Send + Sync>;

/// Writes and removes files.
#[derive(Clone)]
pub(super) struct Writer {
    gate: Option<Gate>,
}

impl Writer {
    pub(super) fn new(gate: Option<Gate>) -> Self {
        Self { gate }
    }

    /// Creates the file with this content; `false` if something stands there already, which stays as it is.
    pub(super) fn create(&self, directory: &Path, name: &str, content: &[u8]) -> io::Result<bool> {
        let temporary = self.temporary(directory, content)?;
        self.before(Step::Link)?;
        // link(2) is the lock: it is atomic, and it never replaces.
        match std::fs::hard_link(temporary.path(), directory.join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(error),
        }
        self.before(Step::Unlink)?;
        temporary.close()?;
        self.sync_directory(directory)?;
        Ok(true)
    }

    /// Creates the file with this content, or gives it this content.
    pub(super) fn replace(&self, directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
        let temporary = self.temporary(directory, content)?;
        self.before(Step::Rename)?;
        temporary.persist(directory.join(name)).map_err(|error| error.error)?;
        self.sync_directory(directory)
    }

    /// Removes the file; `false` if there is none.
    pub(super) fn remove(&self, directory: &Path, name: &str) -> io::Result<bool> {
        self.before(Step::Unlink)?;
        match std::fs::remove_file(directory.join(name)) {
            Ok(()) => {
                self.sync_directory(directory)?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Names that were given or taken away in this directory last through a power failure.
    pub(super) fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.before(Step::SyncDirectory)?;
        File::open(directory)?.sync_all()
    }

    /// The file is removed when it is dropped, on the way out of an error too.
    fn temporary(&self, directory: &Path, content: &[u8]) -> io::Result<NamedTempFile> {
        self.before(Step::Temporary)?;
        // Created exclusively under a random name: process numbers mean nothing between containers.
        let mut file = Builder::new()
            .prefix(TEMPORARY)
            .rand_bytes(12)
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(directory)?;
        self.before(Step::Write)?;
        file.write_all(content)?;
        self.before(Step::Sync)?;
        file.as_file().sync_all()?;
        Ok(file)
    }

    /// Asks the test.
    pub(super) fn before(&self, step: Step) -> io::Result<()> {
        match &self.gate {
            Some(gate) => gate(step),
            None => Ok(()),
        }
    }
}
