//! The proof that everybody reaches everybody, and that nobody's address is changed on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use crate::cluster::{Cluster, ClusterError, Pod};
use crate::echo::{self, Answer};
use crate::eventually::eventually;
use crate::lab::Running;

/// How long a responder may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Who sends and answers: a pod, or a node itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// `n1/p1` or `n1`.
    pub label: String,
    /// Its node.
    pub node: String,
    /// The pod, if it is one.
    pub pod: Option<Pod>,
    /// Its own addresses: the pod's, or the node's underlay and tunnel addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// One question from a site to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Label of the sender.
    pub from: String,
    /// Label of the receiver.
    pub to: String,
    /// `pod to pod`, `node to pod`, `pod to node`.
    pub kind: &'static str,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// What was asked, and what came back.
    pub answer: Answer,
    /// The receiver saw an address of the sender's own.
    pub good: bool,
}

impl Proof {
    fn sentence(&self) -> String {
        let Answer { target, protocol, seen } = &self.answer;
        let what = match seen {
            Ok(address) => format!("the receiver saw {address}, which is not the sender's"),
            Err(err) => err.clone(),
        };
        format!("{} to {} ({target}, {protocol}): {what}", self.from, self.to)
    }
}

/// Sites of these nodes: every pod made there, and the nodes themselves.
pub fn sites(cluster: &Cluster, nodes: &[String]) -> Result<Vec<Site>, ClusterError> {
    let mut sites = Vec::new();
    for pod in cluster.pods().iter().filter(|pod| nodes.contains(&pod.node)) {
        sites.push(Site {
            label: format!("{}/{}", pod.node, pod.name),
            node: pod.node.clone(),
            addresses: pod.addresses.iter().copied().collect(),
            pod: Some(pod.clone()),
        });
    }
    for node in nodes {
        let status = cluster.status(node)?;
        let written = status.underlay.values().chain(status.tunnel_addresses.values());
        let addresses = written.filter_map(|text| text.split('/').next()?.parse().ok()).collect();
        sites.push(Site { label: node.clone(), node: node.clone(), pod: None, addresses });
    }
    Ok(sites)
}

/// Every site asks every site of another node, and pods ask pods of their own node too.
pub fn prove(cluster: &Cluster, sites: &[Site]) -> Result<Vec<Proof>, ClusterError> {
    // They end with this function.
    let _responders = respond(cluster, sites)?;
    let asked = thread::scope(|scope| {
        let asking: Vec<_> =
            sites.iter().map(|site| scope.spawn(move || ask(cluster, site, sites))).collect();
        let joined = asking.into_iter().map(|site| match site.join() {
            Ok(proofs) => proofs,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    Ok(asked.into_iter().flatten().collect())
}

/// The first failure as an error.
pub fn verdict(proofs: &[Proof]) -> Result<(), ClusterError> {
    let failed: Vec<&Proof> = proofs.iter().filter(|proof| !proof.good).collect();
    match failed.first() {
        None => Ok(()),
        Some(first) => Err(ClusterError::Unreachable {
            failed: failed.len(),
            total: proofs.len(),
            first: first.sentence(),
        }),
    }
}

/// Good ones and all of them, by kind and family.
#[must_use]
pub fn summary(proofs: &[Proof]) -> BTreeMap<(&'static str, &'static str), (usize, usize)> {
    let mut counts: BTreeMap<_, (usize, usize)> = BTreeMap::new();
    for proof in proofs {
        let (good, all) = counts.entry((proof.kind, proof.family)).or_default();
        *good += usize::from(proof.good);
        *all += 1;
    }
    counts
}

fn respond(cluster: &Cluster, sites: &[Site]) -> Result<Vec<Running>, ClusterError> {
    let program = cluster.programs().lab.to_string_lossy();
    let mut responders = Vec::new();
    for site in sites {
        let addresses: Vec<String> = site.addresses.iter().map(ToString::to_string).collect();
        let mut words: Vec<&str> = match &site.pod {
            Some(pod) => vec!["ip", "netns", "exec", &pod.name],
            None => Vec::new(),
        };
        words.extend([&*program, "respond"]);
        words.extend(addresses.iter().map(String::as_str));
        let log = cluster.lab().folder().join(format!("respond-{}.log", site.label.replace('/', "-")));
        // The log of an earlier round would say that it is ready.
        if log.exists() {
            fs::remove_file(&log).map_err(|source| ClusterError::File { path: log.clone(), source })?;
        }
        responders.push((cluster.node(&site.node).start(&words, &log)?, log));
    }
    for (_, log) in &responders {
        eventually("a responder to listen", START_LIMIT, || {
            let text = fs::read_to_string(log).map_err(|err| err.to_string())?;
            if text.contains(echo::READY) { Ok(()) } else { Err(text) }
        })?;
    }
    Ok(responders.into_iter().map(|(running, _)| running).collect())
}

fn ask(cluster: &Cluster, from: &Site, sites: &[Site]) -> Result<Vec<Proof>, ClusterError> {
    let kind = |to: &Site| match (&from.pod, &to.pod) {
        (Some(_), Some(_)) if from.label != to.label => Some("pod to pod"),
        // A node's own pods are not Pairway's matter, and between nodes there is nothing to route.
        (Some(_), None) if from.node != to.node => Some("pod to node"),
        (None, Some(_)) if from.node != to.node => Some("node to pod"),
        _ => None,
    };
    let mut targets: BTreeMap<IpAddr, (&Site, &'static str)> = BTreeMap::new();
    for to in sites {
        if let Some(kind) = kind(to) {
            targets.extend(to.addresses.iter().map(|&address| (address, (to, kind))));
        }
    }
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let program = cluster.programs().lab.to_string_lossy();
    let mut words: Vec<String> = vec![program.into_owned(), "probe".to_owned()];
    words.extend(targets.keys().map(ToString::to_string));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let text = match &from.pod {
        Some(pod) => cluster.run_in_pod(pod, &words)?,
        None => cluster.node(&from.node).run(&words)?,
    };
    let answers: Vec<Answer> = serde_json::from_str(&text).map_err(|err| ClusterError::Answer {
        node: from.label.clone(),
        command: "lab probe".to_owned(),
        problem: format!("{err}: {text}"),
    })?;
    let mut proofs = Vec::new();
    for answer in answers {
        let Some(&(to, kind)) = targets.get(&answer.target) else { continue };
        proofs.push(Proof {
            from: from.label.clone(),
            to: to.label.clone(),
            kind,
            family: if answer.target.is_ipv4() { "ipv4" } else { "ipv6" },
            good: answer.seen.as_ref().is_ok_and(|seen| from.addresses.contains(seen)),
            answer,
        });
    }
    Ok(proofs)
}
