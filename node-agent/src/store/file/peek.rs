//! A look at a store by somebody who is not its user: nothing is made, locked or watched.

use std::io;
use std::path::Path;

use super::filesystem;
use super::read::{self, Content};
use crate::node::NodeRecord;
use crate::store::record;

/// The node records that can be read in a store's directory; empty if there is no store.
///
/// # Errors
/// The directory can't be read.
pub(crate) fn nodes(root: &Path) -> io::Result<Vec<NodeRecord>> {
    let folder = root.join(super::Kind::Node.directory());
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut records = Vec::new();
    for entry in entries {
        let entry = entry?;
        let file = entry.file_name();
        let name =
            file.to_str().and_then(|file| file.strip_suffix(".json")).and_then(|stem| stem.parse().ok());
        let Some(name) = name else { continue };
        if let Content::Bytes(bytes, _) = read::record(&entry.path())?
            && let Ok(decoded) = record::node(&name, &bytes)
        {
            records.push(decoded.record);
        }
    }
    records.sort_by(|a: &NodeRecord, b| a.name.cmp(&b.name));
    Ok(records)
}

/// The name of the network filesystem that a path is on, if it is.
pub(crate) fn network_filesystem(path: &Path) -> io::Result<Option<String>> {
    filesystem::network_filesystem(path)
}
