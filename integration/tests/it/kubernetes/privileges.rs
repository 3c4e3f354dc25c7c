//! What the agent's process may do, as the kernel tells it.

use integration::kubernetes::Kubernetes;

use super::{agents, pods};

/// `CAP_NET_BIND_SERVICE`, `CAP_NET_ADMIN`, `CAP_NET_RAW` (`linux/capability.h`).
const CAPABILITIES: u64 = 1 << 10 | 1 << 12 | 1 << 13;

pub(crate) fn no_more_than_promised(cluster: &mut Kubernetes) {
    for node in cluster.nodes() {
        let process = agents::process(cluster, &node).unwrap();
        let status = cluster.lab().node(&node).sh(&format!("cat /proc/{process}/status")).unwrap();
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("{key} in {status}")).trim().to_owned()
        };
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(u64::from_str_radix(&value(set), 16).unwrap(), CAPABILITIES, "{set} on {node}");
        }
        assert_eq!(value("NoNewPrivs"), "1");
        assert_eq!(value("Seccomp"), "2", "a filter");
        let mounts = cluster.lab().node(&node).sh(&format!("cat /proc/{process}/mounts")).unwrap();
        let options = |folder: &str| {
            let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            mount.filter(|words| words[1] == folder).map(|words| words[3].to_owned()).next_back()
        };
        assert!(options("/").unwrap().starts_with("ro"), "{mounts}");
        assert!(options("/proc/sys").unwrap().starts_with("ro"), "{mounts}");
    }
    // The same look at another process finds more.
    let other = pods::process(cluster, "n1");
    let status = cluster.lab().node("n1").sh(&format!("cat /proc/{other}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t0") && status.contains("Seccomp:\t0"), "{status}");
}
