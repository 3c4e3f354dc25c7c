//! Small files of the state directory: a crash, of the agent or of the machine, leaves the old content or the new one.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

/// Writes the file anew, or makes it.
///
/// # Errors
/// The folder can't be written; what stood there stands.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_by(path, |file| file.write_all(content))
}

/// The same for a content that `write` gives piece by piece.
///
/// # Errors
/// Those of `write`, and of [`replace`].
pub(crate) fn replace_by(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder)?;
    let mut buffer = BufWriter::new(file.as_file());
    write(&mut buffer)?;
    buffer.flush()?;
    drop(buffer);
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        for content in ["first", "second, longer", "3"] {
            replace(&path, content.as_bytes()).expect("a file");
            assert_eq!(std::fs::read_to_string(&path).expect("a file"), content);
        }
        // A folder in its place can't be replaced, and stays.
        let folder_path = folder.path().join("folder");
        std::fs::create_dir(&folder_path).expect("a folder");
        assert!(replace(&folder_path, b"text").is_err() && folder_path.is_dir());
        assert!(replace(&folder.path().join("nowhere/file"), b"text").is_err());
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            2,
            "a temporary file was left"
        );
    }
}
