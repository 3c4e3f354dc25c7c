//! Is this directory fit to be a store?
//!
//! Claims rest on exclusive creation, links, renames and fsync; the watch rests on inotify. Network filesystems
//! promise some of that and keep less, so they are refused by name; what is not known is tried.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use nix::sys::statfs::statfs;

use super::write::TEMPORARY;

/// A directory that can't be a store however long one waits.
#[derive(Debug, thiserror::Error)]
pub enum UnfitDirectory {
    /// It is on a network filesystem and that was not allowed.
    #[error(
        "{path} is on {kind}, a network filesystem, where two nodes could claim one block and changes are not seen; \
         use a local directory, or set store.file.allowNetworkFilesystem if its server is known to keep link(2) atomic"
    )]
    Network {
        /// The directory.
        path: PathBuf,
        /// Name of the filesystem.
        kind: String,
    },
    /// The filesystem can't do what claims rest on.
    #[error(
        "the filesystem of {path} can't be a store: {what}; use a directory on ext4, xfs, btrfs or tmpfs"
    )]
    Semantics {
        /// The directory.
        path: PathBuf,
        /// What did not work.
        what: String,
    },
    /// Something else than a directory stands there.
    #[error("{path} is not a directory; remove it or set store.file.path to another one")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
}

/// Why a directory can't be used now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// For good.
    #[error(transparent)]
    Unfit(#[from] UnfitDirectory),
    /// Until somebody mends it.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The name of the network filesystem that the directory is on, if it is.
pub(super) fn network_filesystem(path: &Path) -> io::Result<Option<String>> {
    let kind = statfs(path)?.filesystem_type().0;
    // The field is wider than the number, and signed on some machines: the lower 32 bits are the number.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
    let magic = kind as u32;
    if magic != FUSE {
        return Ok(network_name(magic, || None));
    }
    let mount_type = mount_type(path)?;
    Ok(network_name(magic, || mount_type))
}

/// FUSE may be anything: its mount says what.
pub(super) fn network_name(magic: u32, mount_type: impl FnOnce() -> Option<String>) -> Option<String> {
    if magic == FUSE {
        let name = mount_type().unwrap_or_else(|| "fuse".to_owned());
        return (!LOCAL_FUSE.contains(&name.as_str())).then_some(name);
    }
    NETWORK.iter().find(|(number, _)| *number == magic).map(|(_, name)| (*name).to_owned())
}

const FUSE: u32 = 0x6573_5546;
const LOCAL_FUSE: [&str; 2] = ["fuse.fuse-overlayfs", "fuseblk"];

/// Numbers from statfs(2) and the kernel's headers: filesystems that are shared between machines.
const NETWORK: [(u32, &str); 17] = [
    (0x0000_6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0000_517b, "SMB"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "kAFS"),
    (0x7375_7245, "Coda"),
    (0x0000_564c, "NCP"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x786f_4256, "vboxsf"),
    (0xbacb_acbc, "vmhgfs"),
];

/// The filesystem type of the mount that the path is on, as /proc/self/mountinfo names it.
fn mount_type(path: &Path) -> io::Result<Option<String>> {
    let device = std::fs::metadata(path)?.dev();
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(type_of_device(&mountinfo, major(device), minor(device)))
}

/// proc(5): `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`, any number of optional fields.
pub(super) fn type_of_device(mountinfo: &str, major: u64, minor: u64) -> Option<String> {
    let device = format!("{major}:{minor}");
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let matches = mount.split(' ').nth(2) == Some(device.as_str());
        matches.then(|| filesystem.split(' ').next().unwrap_or_default().to_owned())
    })
}

/// Tries in `directory`, which is `shown` to people, what claims rest on. Leaves nothing behind.
pub(super) fn try_semantics(directory: &Path, shown: &Path) -> Result<(), Trouble> {
    let trial = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(directory)?;
    let path = |name: &str| trial.path().join(name);
    let fails = |what: &str| {
        Trouble::Unfit(UnfitDirectory::Semantics { path: shown.to_owned(), what: what.to_owned() })
    };
    let create = |name: &str| OpenOptions::new().write(true).create_new(true).open(path(name));

    let mut file = create("first")?;
    file.write_all(b"trial\n")?;
    file.sync_all()?;
    match create("first") {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Ok(_) => return Err(fails("exclusive creation (O_EXCL) succeeds on a file that exists")),
        Err(error) => return Err(error.into()),
    }
    match std::fs::hard_link(path("first"), path("linked")) {
        Ok(()) => {}
        Err(error) if is_unsupported(&error) => return Err(fails("it has no hard links")),
        Err(error) => return Err(error.into()),
    }
    match std::fs::hard_link(path("first"), path("linked")) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Ok(()) => return Err(fails("link(2) replaces a file that exists")),
        Err(error) => return Err(error.into()),
    }
    create("second")?;
    std::fs::rename(path("second"), path("linked"))?;
    if std::fs::metadata(path("linked"))?.len() != 0 {
        return Err(fails("rename(2) does not replace"));
    }
    match File::open(trial.path()).and_then(|directory| directory.sync_all()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {
            return Err(fails("a directory can't be synced"));
        }
        Err(error) => return Err(error.into()),
    }
    trial.close()?;
    Ok(())
}

/// FAT says EPERM for link(2), others ENOSYS or EOPNOTSUPP.
fn is_unsupported(error: &io::Error) -> bool {
    use nix::libc::{ENOSYS, EOPNOTSUPP, EPERM};
    matches!(error.raw_os_error(), Some(EPERM | ENOSYS | EOPNOTSUPP))
}

/// What an operator should do where inotify(7) has no watch to give.
pub(super) fn watch_advice(error: &io::Error) -> &'static str {
    use nix::libc::{EMFILE, ENFILE, ENOSPC};
    match error.raw_os_error() {
        Some(EMFILE) => "raise fs.inotify.max_user_instances, or this process's limit of open files",
        Some(ENFILE) => "raise fs.file-max",
        Some(ENOSPC) => "raise fs.inotify.max_user_watches",
        _ => "look at the kernel's log",
    }
}

/// What an operator should do about an error on this path.
pub(super) fn advice(path: &Path, error: &io::Error) -> String {
    use io::ErrorKind::{
        NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    use nix::libc::{EIO, EMFILE, ENFILE, ESTALE};
    let path = path.display();
    // By kind where there is one: an error that names its own path has no number any more.
    match (error.kind(), error.raw_os_error()) {
        (ReadOnlyFilesystem, _) => format!("{path} is read-only: mount it writable"),
        (StorageFull, _) => format!("no space (or inodes) left for {path}: make some"),
        (QuotaExceeded, _) => format!("the disk quota for {path} is used up: raise it"),
        (PermissionDenied, _) => {
            format!("no permission for {path} ({error}): let the agent's user write there")
        }
        (NotFound, _) => format!("{path} does not exist: create it, or mount what should be there"),
        (NotADirectory, _) => format!("{path} is not a directory: remove what stands there"),
        (_, Some(EIO | ESTALE)) => format!("the disk under {path} fails ({error}): look at the kernel's log"),
        (_, Some(EMFILE | ENFILE)) => format!("too many open files at {path} ({error}): raise the limit"),
        _ => format!("{path}: {error}"),
    }
}
