//! Reads a record, whatever stands in its place: a directory, a FIFO, a link, a file without end.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use jiff::Timestamp;
use nix::fcntl::OFlag;

use crate::store::record::MAX_BYTES;

/// What stands under a record's name.
#[derive(Debug)]
pub(super) enum Content {
    /// Nothing.
    Absent,
    /// A file of bearable size.
    Bytes(Vec<u8>, Stamp),
    /// Something that can't be read as a record, and why.
    Unfit(String, Stamp),
}

/// Changes whenever the file may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: Time,
    /// The kernel keeps it: no one can set it back.
    changed: Time,
}

impl Stamp {
    /// When the file or its attributes changed last. A time out of all bounds counts as 1970.
    pub(super) fn changed(self) -> Timestamp {
        timestamp(self.changed)
    }

    /// When it was written last.
    pub(super) fn modified(self) -> Timestamp {
        timestamp(self.modified)
    }
}

/// Seconds and nanoseconds.
type Time = (i64, i32);

fn timestamp((seconds, nanoseconds): Time) -> Timestamp {
    Timestamp::new(seconds, nanoseconds).unwrap_or_default()
}

fn time(seconds: i64, nanoseconds: i64) -> Time {
    (seconds, i32::try_from(nanoseconds).unwrap_or(0))
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: time(metadata.mtime(), metadata.mtime_nsec()),
            changed: time(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The stamp of what stands there, without reading it.
pub(super) fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(Stamp::from(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads what stands there; an error is one of the machine (out of descriptors, of memory), not of the record.
pub(super) fn record(path: &Path) -> io::Result<Content> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Absent),
        Err(error) => return Err(error),
    };
    let stamp = Stamp::from(&metadata);
    // Looked at before it is opened, since opening a device or a FIFO may do something, or wait.
    if !metadata.is_file() {
        let kind = if metadata.is_dir() {
            "a directory"
        } else if metadata.is_symlink() {
            "a symbolic link"
        } else {
            "a special file"
        };
        return Ok(Content::Unfit(format!("it is {kind}, not a file"), stamp));
    }
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => opened(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Content::Absent),
        Err(error) if is_of_the_machine(&error) => Err(error),
        Err(error) => Ok(Content::Unfit(format!("it can't be opened: {error}"), stamp)),
    }
}

fn opened(file: File) -> io::Result<Content> {
    let metadata = file.metadata()?;
    let stamp = Stamp::from(&metadata);
    if !metadata.is_file() {
        return Ok(Content::Unfit("it is not a file".to_owned(), stamp));
    }
    let mut bytes = Vec::new();
    match file.take(MAX_BYTES + 1).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() as u64 > MAX_BYTES => {
            Ok(Content::Unfit(format!("it is larger than {MAX_BYTES} bytes"), stamp))
        }
        Ok(_) => Ok(Content::Bytes(bytes, stamp)),
        Err(error) if is_of_the_machine(&error) => Err(error),
        Err(error) => Ok(Content::Unfit(format!("it can't be read: {error}"), stamp)),
    }
}

/// Errors that say nothing of this record: believing them would make every record unreadable at once.
fn is_of_the_machine(error: &io::Error) -> bool {
    use nix::libc::{EINTR, EMFILE, ENFILE, ENOMEM};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOMEM | EINTR))
}
