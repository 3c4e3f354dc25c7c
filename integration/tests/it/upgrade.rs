//! Two builds whose record versions differ by one share a lab, in both upgrade orders: no route event, no packet
//! lost, no block taken twice, and what the older one does not know outlives it (invariant 14).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use integration::cluster::{CONFIG, Cluster, STORE};
use integration::eventually::eventually;
use integration::watch::{Monitor, Ping, about_us};
use nix::sys::signal::Signal;
use node_agent::status::Severity;
use node_agent::store::record;
use serde_json::Value;

use crate::support::{SETTLE, cluster, kernel, next_build, pod_of, prove, settle};

const PACE: Duration = Duration::from_millis(10);

#[test]
fn an_upgrade_node_by_node_is_silent() {
    roll(Build::Old, Build::New);
}

#[test]
fn the_way_back_to_the_older_version_is_silent() {
    roll(Build::New, Build::Old);
}

/// Takes a lab from one build to the other, one node at a time. In between a node of each build joins, and in the end
/// one node changes its mind.
fn roll(from: Build, to: Build) {
    let mut fleet = Fleet::new();
    for node in ["n1", "n2", "n3"] {
        fleet.join(node, from);
    }
    fleet.settled();
    fleet.add_pods();
    let mut held = fleet.blocks();
    let mut pings =
        fleet.pings(&[("n1", "n2", false), ("n2", "n1", true), ("n1", "n3", false), ("n3", "n2", true)]);

    fleet.silently(|fleet| fleet.restart("n1", to));
    assert_eq!(fleet.blocks(), held);

    let settled = fleet.words();
    let events = fleet.watched(|fleet| {
        fleet.join("n4", from);
        fleet.join("n5", to);
        fleet.settled();
    });
    let joined = fleet.blocks();
    for (node, events) in events {
        let ours = about_us(&events);
        // What the silence is measured with does see what agents do.
        for block in ["n4", "n5"].iter().flat_map(|joiner| &joined[*joiner]) {
            assert!(ours.iter().any(|event| event.contains(&format!("{block} "))), "{node}: {ours:#?}");
        }
        let others: Vec<&&str> = ours.iter().filter(|event| names(event, &settled)).collect();
        assert!(others.is_empty(), "{node} touched what is not the new nodes': {others:#?}");
    }
    held.extend(["n4", "n5"].map(|node| (node.to_owned(), joined[node].clone())));
    assert_eq!(joined, held);
    fleet.add_pods();
    pings.extend(fleet.pings(&[("n3", "n4", false), ("n5", "n4", true), ("n5", "n1", false)]));

    fleet.silently(|fleet| {
        for node in ["n2", "n3", "n4"] {
            fleet.restart(node, to);
        }
        fleet.restart("n1", from);
    });
    for ping in pings {
        let result = ping.end_after(100).unwrap();
        assert_eq!(result.lost, Vec::<u64>::new(), "of {}", result.sent);
    }
    prove(&fleet.cluster, &fleet.nodes());
    assert_eq!(fleet.blocks(), held, "everybody holds what they held at first");
    fleet.claims_are(&held);
}

/// A build of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Build {
    Old,
    New,
}

impl Build {
    fn version(self) -> u32 {
        match self {
            Self::Old => record::VERSION,
            Self::New => record::VERSION + 1,
        }
    }
}

/// A lab with agents of two builds.
struct Fleet {
    cluster: Cluster,
    builds: BTreeMap<String, Build>,
    /// The build that each node had first: its claims are of that version.
    first: BTreeMap<String, Build>,
    /// Nodes that have been of the new build: their records have its field for good.
    have_been_new: BTreeSet<String>,
}

impl Fleet {
    fn new() -> Self {
        Self {
            cluster: cluster("four-nodes", CONFIG),
            builds: BTreeMap::new(),
            first: BTreeMap::new(),
            have_been_new: BTreeSet::new(),
        }
    }

    fn nodes(&self) -> Vec<String> {
        self.builds.keys().cloned().collect()
    }

    fn start(&mut self, node: &str, build: Build) {
        let program = match build {
            Build::Old => self.cluster.programs().pairway.clone(),
            Build::New => next_build(),
        };
        self.cluster.start_build(node, &program).unwrap();
        self.builds.insert(node.to_owned(), build);
        if build == Build::New {
            self.have_been_new.insert(node.to_owned());
        }
    }

    fn join(&mut self, node: &str, build: Build) {
        self.start(node, build);
        self.first.insert(node.to_owned(), build);
    }

    /// Ends a node's agent and starts the other build on what it has left.
    fn restart(&mut self, node: &str, build: Build) {
        assert_ne!(self.builds[node], build);
        let before = kernel(&self.cluster, node);
        self.cluster.stop(node, Signal::SIGTERM).unwrap();
        assert_eq!(kernel(&self.cluster, node), before, "the data plane of a stopped agent has changed");
        self.start(node, build);
        self.settled();
        assert_eq!(kernel(&self.cluster, node), before);
    }

    /// Waits until every node has every pair for its usual reason, has written its record as its build does, and
    /// says of the store what it has to say.
    fn settled(&self) {
        let nodes = self.nodes();
        settle(&self.cluster, &nodes);
        eventually("sessions that deliver", SETTLE, || {
            nodes.iter().try_for_each(|node| self.has_its_pairs(node))
        })
        .unwrap();
        eventually("records of each node's build", SETTLE, || {
            nodes.iter().try_for_each(|node| self.has_its_record(node))
        })
        .unwrap();
        eventually("each node to report newer records, and nothing else", SETTLE, || {
            nodes.iter().try_for_each(|node| self.reports_newer_records(node))
        })
        .unwrap();
    }

    fn has_its_pairs(&self, node: &str) -> Result<(), String> {
        let pairs = self.cluster.pairs(node).map_err(|err| err.to_string())?;
        // n1 and n2 are in one subnet, the others in the other one.
        let subnet = |node: &str| matches!(node, "n1" | "n2");
        let unusual = pairs.iter().find(|pair| {
            let is_same = subnet(&pair.local) == subnet(&pair.peer);
            !pair.ready || pair.reason != if is_same { "bgp" } else { "cross-subnet" }
        });
        match unusual {
            Some(pair) => Err(format!("{pair:?}")),
            None if pairs.len() != 2 * (self.builds.len() - 1) => Err(format!("{node}: {pairs:?}")),
            None => Ok(()),
        }
    }

    fn has_its_record(&self, node: &str) -> Result<(), String> {
        let record = self.records("nodes").remove(node).unwrap_or_default();
        let is_marked = record.get(record::NEXT_FIELD) == Some(&Value::Bool(true));
        let (version, marked) = (self.builds[node].version(), self.have_been_new.contains(node));
        if record["version"] == version && is_marked == marked {
            return Ok(());
        }
        Err(format!("{node}: version {version} is expected, with the new field: {marked}; it is {record}"))
    }

    /// The new build knows every record, the old one says which it does not know whole. Neither is a failure.
    fn reports_newer_records(&self, node: &str) -> Result<(), String> {
        let status = self.cluster.status(node).map_err(|err| err.to_string())?;
        let mut newer = BTreeSet::new();
        for kind in ["nodes", "claims", "pools", "released"] {
            let own = u64::from(self.builds[node].version());
            let records = self.records(kind).into_iter();
            let later = records.filter(|(_, record)| record["version"].as_u64().unwrap() > own);
            newer.extend(later.map(|(name, _)| format!("{kind}/{name}")));
        }
        let as_told = status.conditions.iter().all(|it| {
            it.kind == "RecordProblem"
                && it.severity == Severity::Warning
                && it.message.starts_with("written by a newer version (2, this agent knows 1)")
        });
        let subjects: BTreeSet<String> = status.conditions.iter().map(|it| it.subject.clone()).collect();
        if as_told && subjects == newer {
            return Ok(());
        }
        Err(format!("{node}: newer are {newer:?}; it says {:?}", status.conditions))
    }

    /// What stands in the store, as everybody can read it, by name.
    fn records(&self, kind: &str) -> BTreeMap<String, Value> {
        let folder = self.cluster.lab().bind_folder(STORE).join(kind);
        let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
        let files = entries.map(|entry| entry.unwrap().path());
        let records = files.filter(|path| path.extension().is_some_and(|it| it == "json"));
        let name = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
        records
            .map(|path| (name(&path), serde_json::from_slice(&fs::read(&path).unwrap()).unwrap()))
            .collect()
    }

    /// Blocks by node, as the agents say; no block is two nodes'.
    fn blocks(&self) -> BTreeMap<String, Vec<String>> {
        let status = |node: String| (node.clone(), self.cluster.status(&node).unwrap().blocks);
        let blocks: BTreeMap<String, Vec<String>> = self.nodes().into_iter().map(status).collect();
        let all: Vec<&String> = blocks.values().flatten().collect();
        assert_eq!(all.len(), 2 * blocks.len(), "{blocks:?}");
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{blocks:?}");
        blocks
    }

    /// The store has these claims and no other, as the build wrote them that made them.
    fn claims_are(&self, held: &BTreeMap<String, Vec<String>>) {
        let claims: BTreeMap<String, Value> = self
            .records("claims")
            .into_values()
            .map(|claim| (claim["block"].as_str().unwrap().to_owned(), claim))
            .collect();
        let blocks: BTreeSet<&String> = held.values().flatten().collect();
        assert_eq!(claims.keys().collect::<BTreeSet<_>>(), blocks);
        for (node, blocks) in held {
            let first = self.first[node];
            for block in blocks {
                let claim = &claims[block];
                let marked = claim.get(record::NEXT_FIELD).is_some();
                assert_eq!(claim["holder"], **node, "{claim}");
                assert_eq!(claim["version"], first.version(), "{claim}");
                assert_eq!(marked, first == Build::New, "{claim}");
            }
        }
    }

    /// Addresses and prefixes of the nodes that there are.
    fn words(&self) -> BTreeSet<String> {
        let mut words = BTreeSet::new();
        for node in self.nodes() {
            let status = self.cluster.status(&node).unwrap();
            let underlay = status.underlay.values().filter_map(|text| text.split('/').next());
            words.extend(underlay.map(str::to_owned));
            words.extend(status.tunnel_addresses.into_values());
            words.extend(status.blocks);
        }
        words
    }

    fn add_pods(&mut self) {
        for node in self.nodes() {
            if !self.cluster.pods().iter().any(|pod| pod.node == node) {
                self.cluster.add_pod(&node, "p1").unwrap();
            }
        }
    }

    fn pings(&self, between: &[(&str, &str, bool)]) -> Vec<Ping> {
        let pods = self.cluster.pods();
        let begin = |&(from, to, ipv6): &(&str, &str, bool)| {
            let target = pod_of(pods, to).address(ipv6).unwrap();
            Ping::begin(&self.cluster, pod_of(pods, from), target, PACE).unwrap()
        };
        between.iter().map(begin).collect()
    }

    /// What the kernels of the nodes that there are say meanwhile.
    fn watched(&mut self, change: impl FnOnce(&mut Self)) -> Vec<(String, Vec<String>)> {
        let begin = |node: String| {
            let monitor = Monitor::begin(self.cluster.lab(), &node, "eth1").unwrap();
            (node, monitor)
        };
        let monitors: Vec<(String, Monitor)> = self.nodes().into_iter().map(begin).collect();
        change(self);
        let end =
            |(node, monitor): (String, Monitor)| (node, monitor.end(self.cluster.lab(), "eth1").unwrap());
        monitors.into_iter().map(end).collect()
    }

    fn silently(&mut self, change: impl FnOnce(&mut Self)) {
        for (node, events) in self.watched(change) {
            assert_eq!(about_us(&events), Vec::<&str>::new(), "{node}");
        }
    }
}

/// Whether an event is about one of these; what an object of others is sent from does not count.
fn names(event: &str, words: &BTreeSet<String>) -> bool {
    let event = event.replace(']', "] ");
    let parts: Vec<&str> = event.split_whitespace().collect();
    let about = parts
        .iter()
        .enumerate()
        .filter(|(at, _)| *at == 0 || !["src", "from", "local"].contains(&parts[at - 1]));
    about.map(|(_, word)| *word).any(|word| words.contains(word))
}
