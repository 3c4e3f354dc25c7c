//! The agents of the cluster: their processes, and what they say.

use integration::eventually::eventually;
use integration::kubernetes::Kubernetes;
use serde_json::Value as Json;

use super::LIMIT;

/// The process of a node's agent, as the node numbers it.
pub(crate) fn process(cluster: &Kubernetes, node: &str) -> Result<String, String> {
    let line = "pgrep -x pairway";
    let found = cluster.lab().node(node).sh(line).map_err(|error| error.to_string())?;
    let mut processes = found.split_whitespace();
    match (processes.next(), processes.next()) {
        (Some(process), None) => Ok(process.to_owned()),
        _ => Err(format!("{node} has these agents: {found:?}")),
    }
}

/// What `pairway ... -o json` says inside of the agent's container. Needs no API server.
pub(crate) fn ask(cluster: &Kubernetes, node: &str, arguments: &[&str]) -> Result<Json, String> {
    let process = process(cluster, node)?;
    let inside = ["nsenter", "--target", &process, "--mount", "--", "/pairway", "-o", "json"];
    // A node that is not ready says so by its status, too.
    let words: Vec<&str> = inside.iter().chain(arguments).copied().collect();
    let output = cluster
        .lab()
        .node(node)
        .command(words[0])
        .args(&words[1..])
        .output()
        .map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{words:?} in {node}: {error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Kinds of the conditions that an agent shows.
pub(crate) fn conditions(status: &Json) -> Vec<String> {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.filter_map(|condition| Some(condition["type"].as_str()?.to_owned())).collect()
}

/// Waits until the agents of these nodes are ready and every pair of theirs is.
pub(crate) fn settled(cluster: &Kubernetes, nodes: &[String]) {
    for node in nodes {
        eventually("an agent to be ready with all of its pairs", LIMIT, || {
            let status = ask(cluster, node, &["status"])?;
            let pairs = ask(cluster, node, &["pairs"])?;
            let pairs = pairs.as_array().cloned().unwrap_or_default();
            let ready = pairs.iter().filter(|pair| pair["ready"] == true).count();
            // Each peer in both families.
            if status["ready"] == true && ready == 2 * (cluster.nodes().len() - 1) {
                return Ok(());
            }
            Err(format!("{node}: {status} {ready} ready pairs of {}", pairs.len()))
        })
        .unwrap();
    }
}
