//! The files in `deploy/` that keep other programs from our devices: read as their programs read them, and held to
//! the names that our devices really have.

use std::collections::BTreeMap;
use std::path::Path;

use config::defaults;

/// An INI file: sections of keys and values, without comments. Anything else is a mistake.
fn sections(file: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut section = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = Some(name.to_owned());
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{file}: {line}"));
        let section = section.clone().unwrap_or_else(|| panic!("{file}: {line} stands in no section"));
        let before = sections.entry(section).or_default().insert(key.to_owned(), value.to_owned());
        assert_eq!(before, None, "{file}: {key} twice");
    }
    sections
}

fn keys(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn pattern() -> String {
    format!("{}-*", defaults::DEVICE_PREFIX)
}

#[test]
fn networkmanager_leaves_our_devices_alone() {
    let unmanaged = format!("interface-name:{}", pattern());
    let expected = BTreeMap::from([("keyfile".to_owned(), keys(&[("unmanaged-devices+", &unmanaged)]))]);
    assert_eq!(sections("networkmanager/pairway.conf"), expected);
}

#[test]
fn networkd_leaves_our_devices_alone() {
    let expected = BTreeMap::from([
        ("Match".to_owned(), keys(&[("Name", &pattern())])),
        ("Link".to_owned(), keys(&[("Unmanaged", "yes")])),
    ]);
    assert_eq!(sections("systemd-networkd/00-pairway.network"), expected);
}

#[test]
fn udev_keeps_our_devices_addresses_and_names() {
    let expected = BTreeMap::from([
        ("Match".to_owned(), keys(&[("OriginalName", &pattern())])),
        ("Link".to_owned(), keys(&[("MACAddressPolicy", "none"), ("NamePolicy", "")])),
    ]);
    assert_eq!(sections("systemd-networkd/00-pairway.link"), expected);
}
