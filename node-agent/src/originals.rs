//! Settings of others that the agent changes, as they were before: what `pairway uninstall` puts back.
//!
//! There is one: `rp_filter` of the underlay device (invariant 6). Its old value is written down before it is
//! changed, so that a crash in between loses nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vxlan::{LinkName, Observed, State};

use crate::durable;

/// Name of the file in the state directory.
pub const FILE_NAME: &str = "originals.json";

/// What was there.
#[derive(Debug, Default)]
pub struct Originals {
    rp_filter: BTreeMap<LinkName, Setting>,
}

/// A setting, by what we made of it: a value that somebody has set since is not ours to put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Setting {
    original: u8,
    ours: u8,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    rp_filter: BTreeMap<String, Setting>,
}

/// Writes into the state directory what the way from `observed` to `wanted` will overwrite. To be called before; where
/// nothing is overwritten, nothing is read or written.
///
/// # Errors
/// The state directory can't be written, or holds a file that can't be read.
pub fn remember(state_dir: &Path, observed: &Observed, wanted: &State) -> io::Result<()> {
    let own_device = |link| wanted.links.contains_key(link) || observed.ours.links.contains_key(link);
    let overwritten: BTreeMap<LinkName, Setting> = wanted
        .rp_filter
        .iter()
        .filter(|(link, _)| !own_device(link))
        .filter_map(|(link, ours)| {
            let original = *observed.ours.rp_filter.get(link)?;
            (original != *ours).then(|| (link.clone(), Setting { original, ours: *ours }))
        })
        .collect();
    if overwritten.is_empty() {
        return Ok(());
    }
    let mut originals = Originals::load(state_dir)?;
    originals.rp_filter.extend(overwritten);
    let rp_filter = originals.rp_filter.iter().map(|(link, setting)| (link.to_string(), *setting)).collect();
    let mut content = serde_json::to_vec_pretty(&File { rp_filter })?;
    content.push(b'\n');
    durable::replace(&state_dir.join(FILE_NAME), &content)
}

impl Originals {
    /// Reads what an earlier agent has written down in this state directory.
    ///
    /// # Errors
    /// The file is there and can't be read.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let file = match std::fs::read(state_dir.join(FILE_NAME)) {
            Ok(text) => serde_json::from_slice::<File>(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::default(),
            Err(error) => return Err(error),
        };
        let rp_filter = file
            .rp_filter
            .into_iter()
            // A name that the kernel would refuse is no device's.
            .filter_map(|(name, setting)| Some((name.parse().ok()?, setting)))
            .collect();
        Ok(Self { rp_filter })
    }

    /// What to set so that it is as before: only where our value still stands.
    #[must_use]
    pub fn to_restore(&self, observed: &Observed) -> BTreeMap<LinkName, u8> {
        self.rp_filter
            .iter()
            .filter(|(link, setting)| observed.ours.rp_filter.get(*link) == Some(&setting.ours))
            .map(|(link, setting)| (link.clone(), setting.original))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vxlan::fake::FakeKernel;

    fn eth0() -> LinkName {
        "eth0".parse().unwrap()
    }

    fn wanting(value: u8) -> State {
        State { rp_filter: BTreeMap::from([(eth0(), value)]), ..State::default() }
    }

    #[test]
    fn the_first_value_that_was_not_ours_is_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = FakeKernel::node(&["192.0.2.1/24"], 1500);
        kernel.set_rp_filter("eth0", 1);
        remember(folder.path(), &kernel.observed(&[]), &wanting(2)).unwrap();
        kernel.set_rp_filter("eth0", 2);
        remember(folder.path(), &kernel.observed(&[]), &wanting(2)).unwrap();

        let again = Originals::load(folder.path()).unwrap();
        assert_eq!(again.to_restore(&kernel.observed(&[])), BTreeMap::from([(eth0(), 1)]));
        kernel.set_rp_filter("eth0", 0);
        assert!(again.to_restore(&kernel.observed(&[])).is_empty(), "somebody has set it since");
        kernel.remove_interface("eth0");
        assert!(again.to_restore(&kernel.observed(&[])).is_empty(), "the device is gone");
    }

    #[test]
    fn what_is_ours_and_what_is_not_changed_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = FakeKernel::node(&["192.0.2.1/24"], 1500);
        kernel.set_rp_filter("eth0", 2);
        remember(folder.path(), &kernel.observed(&[]), &wanting(2)).unwrap();
        assert!(!folder.path().join(FILE_NAME).exists());
    }

    #[test]
    fn a_file_that_is_garbage_is_said_and_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), "{").unwrap();
        assert!(Originals::load(folder.path()).is_err());
        let kernel = FakeKernel::node(&["192.0.2.1/24"], 1500);
        kernel.set_rp_filter("eth0", 1);
        assert!(remember(folder.path(), &kernel.observed(&[]), &wanting(2)).is_err());
        assert_eq!(std::fs::read_to_string(folder.path().join(FILE_NAME)).unwrap(), "{");
    }
}
