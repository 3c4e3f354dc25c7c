//! A change while packets flow.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cluster::{Cluster, ClusterError};
use crate::eventually::eventually;
use crate::interrupt;
use crate::screen::Step;
use crate::watch::Ping;

/// How long it may take until nobody knows a node any more.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);

/// Time between two packets of those who keep talking.
const PACE: Duration = Duration::from_millis(10);

/// A ping between two pods that runs while something else happens.
#[derive(Debug)]
pub(super) struct Talk(Ping);

impl Talk {
    /// Begins: a hundred packets a second from the first pod of a node to that of another.
    pub(super) fn begin(cluster: &Cluster, from: &str, to: &str) -> Result<Self, ClusterError> {
        let pod = |node: &str| cluster.pods().iter().find(|pod| pod.node == node);
        let (Some(sender), Some(receiver)) = (pod(from), pod(to).and_then(|pod| pod.address(false))) else {
            return Err(ClusterError::Wrong(format!("{from} and {to} have no pods to talk")));
        };
        Ping::begin(cluster, sender, receiver, PACE).map(Self)
    }

    /// Ends; what was lost is an error.
    pub(super) fn end(self) -> Result<(), ClusterError> {
        let step = Step::begin("packets lost between n1 and n3 meanwhile");
        let result = self.0.end()?;
        if !result.lost.is_empty() {
            return Err(ClusterError::Wrong(format!(
                "{} of {} packets were lost",
                result.lost.len(),
                result.sent
            )));
        }
        step.end(format!("0 of {}", result.sent));
        Ok(())
    }
}

/// A node leaves for good: its agent ends, and what carries Pairway's mark is removed.
pub(super) fn leave(cluster: &mut Cluster, nodes: &mut Vec<String>, name: &str) -> Result<(), ClusterError> {
    let step = Step::begin(format!("{name} stops and uninstalls"));
    let blocks = cluster.status(name)?.blocks;
    cluster.stop(name, Signal::SIGTERM)?;
    uninstall(cluster, name)?;
    cluster.forget_pods(name);
    nodes.retain(|node| node != name);
    step.end("its kernel holds nothing of ours");

    let step = Step::begin(format!("the others forget {name}"));
    let forgotten = eventually("the others to forget it", LEAVE_LIMIT, || {
        if interrupt::requested() {
            return Ok(Err(ClusterError::Interrupted));
        }
        for node in &*nodes {
            let pairs = cluster.pairs(node).map_err(|err| err.to_string())?;
            if pairs.iter().any(|pair| pair.peer == name) {
                return Err(format!("{node} still has a pair with {name}"));
            }
            let routes = kernel_routes(cluster, node).map_err(|err| err.to_string())?;
            if let Some(block) = blocks.iter().find(|&block| routes.contains(block)) {
                return Err(format!("{node} still has a route to {block}"));
            }
        }
        Ok(Ok(()))
    })?;
    forgotten?;
    step.end(format!("no pair, no route to {}", blocks.join(", ")));
    Ok(())
}

/// Runs `pairway uninstall` and looks whether anything is left in the kernel.
pub(crate) fn uninstall(cluster: &Cluster, name: &str) -> Result<(), ClusterError> {
    let config = cluster.config_path(name);
    let program = cluster.programs().pairway.to_string_lossy();
    let node = cluster.node(name);
    node.run(&[&program, "uninstall", "--config", &config.to_string_lossy()])?;
    let links = node.run(&["ip", "-br", "link"])?;
    let nexthops = node.run(&["ip", "nexthop"])?;
    let rules = node.run(&["ip", "rule"])? + &node.run(&["ip", "-6", "rule"])?;
    let routes = node.run(&["ip", "route", "show", "table", "all", "proto", "112"])?
        + &node.run(&["ip", "-6", "route", "show", "table", "all", "proto", "112"])?;
    for (what, text, mark) in
        [("a device", links, "pairway"), ("a nexthop", nexthops, "proto 112"), ("a rule", rules, "proto 112")]
    {
        if text.contains(mark) {
            return Err(ClusterError::Wrong(format!("{name} still has {what} of ours:\n{text}")));
        }
    }
    if !routes.trim().is_empty() {
        return Err(ClusterError::Wrong(format!("{name} still has routes of ours:\n{routes}")));
    }
    Ok(())
}

/// All routes of a node as `ip` prints them, one word each for a destination.
fn kernel_routes(cluster: &Cluster, node: &str) -> Result<Vec<String>, ClusterError> {
    let node = cluster.node(node);
    let text = node.run(&["ip", "route"])? + &node.run(&["ip", "-6", "route"])?;
    let unreachable = |line: &&str| !line.starts_with("unreachable");
    let destinations = text.lines().filter(unreachable).filter_map(|line| line.split(' ').next());
    Ok(destinations.map(str::to_owned).collect())
}
