//! The unix socket: taken only when nobody answers on it, open to its owner alone from the first instant, and
//! removed on exit only if it is still ours.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Longest path of a unix socket in bytes (`sun_path` of unix(7), less the final zero).
const LONGEST_PATH: usize = 107;

/// Read and write for the owner.
const MODE: u32 = 0o600;

/// A socket that can't be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// An agent answers there.
    #[error("an agent answers on {} already; end it first, or give this one another api.socket", .0.display())]
    InUse(PathBuf),
    /// A file that is not a socket: never removed.
    #[error("{} exists and is not a socket; move it away, or set another api.socket", .0.display())]
    NotASocket(PathBuf),
    /// The kernel has no room for such a path.
    #[error("{} is too long for a unix socket: {length} bytes, at most {max}; set a shorter api.socket", path.display(), max = LONGEST_PATH - SUFFIX_ROOM)]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// The file system refused.
    #[error("can't {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Room for the suffix of the name under which the socket is made: `.new-` and a process id.
const SUFFIX_ROOM: usize = 15;

/// A bound socket.
#[derive(Debug)]
pub struct Bound {
    listener: UnixListener,
    file: SocketFile,
}

/// The socket's file; dropping it removes the file.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: a file that somebody has put there since is not ours to remove.
    identity: (u64, u64),
}

impl Bound {
    /// Binds `path`, making its folder where it is missing. A socket that nobody serves is replaced.
    ///
    /// # Errors
    /// Somebody serves it, the file is not a socket, or the file system refuses.
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        let length = path.as_os_str().len();
        if length > LONGEST_PATH - SUFFIX_ROOM {
            return Err(SocketError::TooLong { path: path.to_owned(), length });
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(failed("create", folder))?;
        }
        may_replace(path).await?;

        // Made under another name and moved into place, so that it never stands there with the mode that the
        // process's umask gives, nor without a listener behind it.
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".new-{}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        match fs::remove_file(&temporary) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &temporary)(source));
            }
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&temporary).map_err(failed("bind", &temporary))?;
        let placed = (|| {
            fs::set_permissions(&temporary, fs::Permissions::from_mode(MODE))
                .map_err(failed("set the mode of", &temporary))?;
            let metadata = fs::symlink_metadata(&temporary).map_err(failed("look at", &temporary))?;
            fs::rename(&temporary, path).map_err(failed("move the socket to", path))?;
            Ok(SocketFile { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) })
        })();
        if placed.is_err() {
            // Best effort: the error that is returned says more.
            let _ = fs::remove_file(&temporary);
        }
        Ok(Self { listener, file: placed? })
    }

    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

async fn may_replace(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed("look at", path)(source)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match tokio::net::UnixStream::connect(path).await {
        // Nobody listens: left over from an agent that was killed.
        Err(source) if source.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(failed("connect to", path)(source)),
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_owned();
    move |source| SocketError::Io { operation, path, source }
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "can't remove the socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn made_with_its_folder_for_the_owner_alone_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/pairway/api.sock");
        let bound = Bound::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        tokio::net::UnixStream::connect(&path).await.unwrap();
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing temporary is left: {names:?}");
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_left_over_socket_is_replaced_and_a_served_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "dropping a plain listener leaves its file");
        let first = Bound::bind(&path).await.unwrap();
        let error = Bound::bind(&path).await.unwrap_err();
        assert!(matches!(error, SocketError::InUse(_)), "{error}");
        tokio::net::UnixStream::connect(&path).await.expect("the first still serves");
        drop(first);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        fs::write(&path, "precious").unwrap();
        let error = Bound::bind(&path).await.unwrap_err();
        assert!(matches!(error, SocketError::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_socket_that_is_no_longer_ours_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let ours = Bound::bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let theirs = Bound::bind(&path).await.unwrap();
        drop(ours);
        assert!(path.exists());
        drop(theirs);
    }

    #[tokio::test]
    async fn errors_name_the_path_and_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(100));
        let error = Bound::bind(&long).await.unwrap_err();
        assert!(error.to_string().contains("at most 92"), "{error}");
        fs::write(folder.path().join("file"), "").unwrap();
        let error = Bound::bind(&folder.path().join("file/api.sock")).await.unwrap_err();
        assert!(matches!(error, SocketError::Io { operation: "create", .. }), "{error}");
    }
}
