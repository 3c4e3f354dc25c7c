//! What the tests with agents share.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use integration::cluster::{CONFIG, Cluster, Pod, Programs};
use integration::lab::Lab;
use integration::reach::{self, Proof};
use integration::topology::Topology;
use integration::watch::Packets;
use node_agent::status::Pair;

/// Agents settle within this time, on a busy machine too.
pub(crate) const SETTLE: Duration = Duration::from_secs(60);

/// A kind of tunnel under test: the same scenarios hold for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tunnel {
    Vxlan,
    Ipip,
}

impl Tunnel {
    /// A configuration that tunnels in this way, with further lines.
    pub(crate) fn config(self, more: &str) -> String {
        let word = self.word();
        format!("{CONFIG}paths: {{ crossSubnet: {word}, fallback: {word} }}\n{more}")
    }

    /// The word for the path.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Ipip => "ipip",
        }
    }

    /// The largest packet from a pod, over an underlay of 1500 bytes.
    pub(crate) fn mtu(self) -> u32 {
        match self {
            Self::Vxlan => 1450,
            Self::Ipip => 1480,
        }
    }

    /// The captured packets that went this way, and those that went another, which is not native either.
    pub(crate) fn packets(self, packets: &Packets) -> (&[String], &[String]) {
        match self {
            Self::Vxlan => (&packets.vxlan, &packets.ipip),
            Self::Ipip => (&packets.ipip, &packets.vxlan),
        }
    }
}

/// A topology of `topologies/`.
pub(crate) fn topology(name: &str) -> Topology {
    let path = format!("{}/topologies/{name}.clab.yml", env!("CARGO_MANIFEST_DIR"));
    Topology::load(Path::new(&path)).unwrap()
}

/// The programs under test. The agent is another crate's binary, which cargo does not build for this one's tests.
pub(crate) fn programs() -> Programs {
    static PAIRWAY: OnceLock<PathBuf> = OnceLock::new();
    let lab = PathBuf::from(env!("CARGO_BIN_EXE_lab"));
    let pairway = PAIRWAY.get_or_init(|| {
        if let Some(path) = std::env::var_os("PAIRWAY_BIN") {
            return path.into();
        }
        let mut cargo = Command::new(env!("CARGO"));
        // What cargo tells a test of its package is no part of how others were built. Left in place, build scripts that
        // ask for it (ring's) run once more, and with them everything is compiled that leans on theirs.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of| name.to_string_lossy().starts_with(of)) {
                cargo.env_remove(&name);
            }
        }
        let status = cargo
            // With a test, as whoever runs this has built: without one, features that tests alone want would be
            // missing, and everything of ours would be compiled once more.
            .args(["build", "--quiet", "--workspace", "--bins", "--test", "it"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(status.success(), "pairway can't be built");
        lab.with_file_name("pairway")
    });
    Programs { pairway: pairway.clone(), lab: lab.clone() }
}

/// The agent as a build of the next record version.
pub(crate) fn next_build() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_pairway-next"));
    assert!(path.is_file(), "{} is missing: `cargo build --workspace --bins` makes it", path.display());
    path
}

/// A lab with a configuration on every node and no agent yet.
pub(crate) fn cluster(name: &str, config: &str) -> Cluster {
    Cluster::new(Lab::up(topology(name)).unwrap(), programs(), config).unwrap()
}

/// A lab whose agents have settled, and the names of their nodes.
pub(crate) fn settled(name: &str, config: &str) -> (Cluster, Vec<String>, Vec<Pair>) {
    let mut cluster = cluster(name, config);
    let nodes = cluster.start_all().unwrap();
    let pairs = settle(&cluster, &nodes);
    (cluster, nodes, pairs)
}

/// Waits until every pair is on its predicted path.
pub(crate) fn settle(cluster: &Cluster, nodes: &[String]) -> Vec<Pair> {
    cluster.converged(nodes, SETTLE, |_, _| ()).unwrap()
}

/// A pod on each node, in their order.
pub(crate) fn pods(cluster: &mut Cluster, nodes: &[String]) -> Vec<Pod> {
    nodes.iter().map(|node| cluster.add_pod(node, "p1").unwrap()).collect()
}

/// Everybody reaches everybody with their own addresses.
pub(crate) fn prove(cluster: &Cluster, nodes: &[String]) {
    prove_except(cluster, nodes, |_| false);
}

/// The same without what is known not to work.
pub(crate) fn prove_except(cluster: &Cluster, nodes: &[String], known: impl Fn(&Proof) -> bool) {
    let sites = reach::sites(cluster, nodes).unwrap();
    let mut proofs = reach::prove(cluster, &sites).unwrap();
    proofs.retain(|proof| !known(proof));
    assert!(proofs.len() >= nodes.len() * (nodes.len() - 1) * 2, "only {} proofs", proofs.len());
    reach::verdict(&proofs).unwrap();
}

/// One packet of `bytes` (as `ping -s` counts them) that may not be fragmented.
pub(crate) fn ping(cluster: &Cluster, from: &Pod, to: &Pod, ipv6: bool, bytes: u32) -> Result<(), String> {
    let target = to.address(ipv6).unwrap().to_string();
    let words = ["ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", &bytes.to_string(), &target];
    cluster.run_in_pod(from, &words).map(drop).map_err(|err| err.to_string())
}

/// Everything of ours in a node's kernel, as iproute2 shows it, one line per object, without what changes by itself.
pub(crate) fn kernel(cluster: &Cluster, node: &str) -> BTreeSet<String> {
    let script = "\
        ip -o route show table all proto 112 | sed 's/^/route /'; \
        ip -o -6 route show table all proto 112 | sed 's/^/route6 /'; \
        ip rule show | grep -w 'proto 112' | sed 's/^/rule /'; \
        ip -6 rule show | grep -w 'proto 112' | sed 's/^/rule6 /'; \
        ip -o nexthop show proto 112 | sed 's/^/nexthop /'; \
        nft -s list table inet pairway 2>/dev/null | sed 's/^/nft /'; \
        for device in $(ip -o link | sed -n 's/^[0-9]*: \\(pairway[^:@]*\\).*/\\1/p'); do \
          ip -o -d link show $device | sed 's/^[0-9]*: /link /; s/ if[0-9]* / /; s/qlen .*alias/alias/'; \
          ip -o addr show dev $device scope global | sed 's/^[0-9]*: /addr /'; \
          ip -o neigh show dev $device nud permanent | sed \"s/^/neigh $device /\"; \
          bridge fdb show dev $device | sed \"s/^/fdb $device /\"; \
        done; true";
    let text = cluster.node(node).sh(script).unwrap();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The pod of a node.
pub(crate) fn pod_of<'a>(pods: &'a [Pod], node: &str) -> &'a Pod {
    pods.iter().find(|pod| pod.node == node).unwrap()
}

/// Runs `pairway uninstall` on a node.
pub(crate) fn uninstall(cluster: &Cluster, node: &str) {
    let (program, config) = (cluster.programs().pairway.to_string_lossy(), cluster.config_path(node));
    let config = config.to_string_lossy();
    cluster.node(node).run(&[&program, "uninstall", "--config", &config]).unwrap();
}

/// Says that it is over when this is dropped.
pub(crate) struct AtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
