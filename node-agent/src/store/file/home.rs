//! Which directory is the store.
//!
//! A path is only a name: when a mount goes away a bare, empty directory bears it, and when one comes another file
//! system does. So the directory is known by device and inode, as they were when the store was opened. Every
//! operation enters it, is refused if another one bears the path, and stays in the one that it has entered, whatever is
//! mounted, renamed or removed meanwhile. The price is a descriptor for the time of an operation, which makes a mount
//! busy for that long.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::OFlag;

use super::Kind;
use super::read::{self, Content};
use crate::node::{NodeName, Snapshot};
use crate::store::record;

/// The directory that was meant when the store was opened is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum Away {
    #[error(
        "{path} is gone: it was unmounted, renamed or removed while the agent ran. Mount it or put it back, and the agent \
         goes on; to begin anew with an empty store, make the directory and restart the agents"
    )]
    Vanished { path: String },
    #[error(
        "another directory than before bears the path {path}: something was mounted there or unmounted, or it was made \
         anew. It does not hold this node's record, so nothing is read or written there. Put the right one back, and the \
         agent goes on; to use this one as it is, restart the agents"
    )]
    Exchanged { path: String },
}

/// The error is that the directory is away.
pub(super) fn is_away(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Away>())
}

/// Device and inode.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// The directory of a store.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// `None` until it was there for the first time.
    identity: Option<Identity>,
    /// Whose agent this is, once it has published its record.
    own: Option<NodeName>,
    /// Nodes that had a record when it was read last, and whether anything stood there at all.
    nodes: Vec<NodeName>,
    is_empty: bool,
}

/// The directory, entered for one operation.
pub(super) struct Place {
    path: PathBuf,
    /// Keeps `path` meaning what it means.
    _directory: File,
}

impl Place {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Home {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::new(Known { is_empty: true, ..Known::default() }) }
    }

    /// As it was configured.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whose agent this is, if it has published its record.
    pub(super) fn own(&self) -> Option<NodeName> {
        self.known().own.clone()
    }

    /// This store is used by the agent of that node.
    pub(super) fn belongs_to(&self, node: &NodeName) {
        let mut known = self.known();
        if known.own.as_ref() != Some(node) {
            known.own = Some(node.clone());
        }
    }

    /// What the directory held when it was read last: by that it is known again under another inode.
    pub(super) fn held(&self, snapshot: &Snapshot) {
        let mut known = self.known();
        known.is_empty = snapshot.nodes.is_empty() && snapshot.claims.is_empty() && snapshot.pools.is_empty();
        if !known.nodes.iter().eq(snapshot.nodes.keys()) {
            known.nodes = snapshot.nodes.keys().cloned().collect();
        }
    }

    /// The directory itself, however its path is used meanwhile.
    pub(super) fn enter(&self) -> io::Result<Place> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(&self.path);
        let mut known = self.known();
        let directory = match opened {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound && known.identity.is_some() => {
                let away = Away::Vanished { path: self.path.display().to_string() };
                return Err(io::Error::new(io::ErrorKind::NotFound, away));
            }
            Err(error) => return Err(error),
        };
        let found = identity(&directory.metadata()?);
        let place = self.place(directory);
        if known.identity == Some(found) {
            return Ok(place);
        }
        if known.identity.is_some() {
            if !known.recognises(place.path()) {
                let away = Away::Exchanged { path: self.path.display().to_string() };
                return Err(io::Error::other(away));
            }
            tracing::warn!(path = %self.path.display(),
                "another directory bears the store's path; it holds this node's record, so it is the store from now on");
        }
        known.identity = Some(found);
        Ok(place)
    }

    /// By its descriptor, if there is a /proc to do that.
    fn place(&self, directory: File) -> Place {
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let path = if path.exists() { path } else { self.path.clone() };
        Place { path, _directory: directory }
    }

    /// Errors name the path that an operator knows.
    pub(super) fn named(&self, error: io::Error, place: &Place) -> io::Error {
        let text = error.to_string();
        let inner = place.path().to_string_lossy();
        if *inner == *self.path.to_string_lossy() || !text.contains(&*inner) {
            return error;
        }
        io::Error::new(error.kind(), text.replace(&*inner, &self.path.to_string_lossy()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is one assignment.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Is this the store, restored or mounted from elsewhere? It holds our record, and where others were known one of
    /// theirs too: a bare directory that an agent once filled alone is not taken for it.
    fn recognises(&self, place: &Path) -> bool {
        let holds = |node: &NodeName| {
            let path = place.join(Kind::Node.directory()).join(format!("{node}.json"));
            match read::record(&path) {
                Ok(Content::Bytes(bytes, _)) => record::node(node, &bytes).is_ok(),
                Ok(Content::Absent | Content::Unfit(..)) | Err(_) => false,
            }
        };
        let Some(own) = &self.own else { return self.is_empty };
        let mut others = self.nodes.iter().filter(|node| *node != own).peekable();
        holds(own) && (others.peek().is_none() || others.any(holds))
    }
}
