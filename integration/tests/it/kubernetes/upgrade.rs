//! From this build to the next one, whose records have the next version and a field more, and back, under traffic.

use integration::eventually::eventually;
use integration::kubernetes::Kubernetes;
use node_agent::store::record;
use serde_json::{Value as Json, json};

use super::{LIMIT, agents, all_is_well_again, claims, rollout};

/// The image of this build; that of the next one has a tag that ends so.
const IMAGE: &str = concat!("localhost/pairway:", env!("CARGO_PKG_VERSION"));
const NEXT: &str = "-next";

/// Where a definition lists the fields of its resource.
const FIELDS: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/";

pub(crate) fn an_upgrade_and_the_way_back_lose_no_packet(cluster: &mut Kubernetes) {
    let cluster = &*cluster;
    for node in cluster.nodes() {
        cluster.load_next_image(&node).unwrap();
    }
    let held = claims(cluster);
    records_are(cluster, record::VERSION, false);

    // Agents of the next version with the definitions of this one: what these don't name is kept.
    rollout::loses_no_packet(cluster, || take_image(cluster, &format!("{IMAGE}{NEXT}")));
    records_are(cluster, record::VERSION + 1, true);

    // Agents of this version with the definitions of the next: the way back leaves these as they are.
    let field = format!("{FIELDS}{}", record::NEXT_FIELD);
    let patch = |operation: &Json| {
        let patch = json!([operation]).to_string();
        cluster.kubectl(&["patch", "crd", "noderecords.pairway.dev", "--type=json", "-p", &patch]).unwrap();
    };
    patch(&json!({ "op": "add", "path": field, "value": { "type": "boolean" } }));
    rollout::loses_no_packet(cluster, || take_image(cluster, IMAGE));
    records_are(cluster, record::VERSION, true);
    patch(&json!({ "op": "remove", "path": field }));

    for node in cluster.nodes() {
        eventually("an agent to know every record whole", LIMIT, || {
            let status = agents::ask(cluster, &node, &["status"])?;
            let conditions = agents::conditions(&status);
            if conditions.is_empty() { Ok(()) } else { Err(format!("{node}: {status}")) }
        })
        .unwrap();
    }
    all_is_well_again(cluster);
    assert_eq!(claims(cluster), held, "every node has the blocks that it had");
}

/// Has the agents run from another image.
fn take_image(cluster: &Kubernetes, image: &str) {
    let agent = format!("agent={image}");
    cluster.kubectl(&["-n", "pairway", "set", "image", "daemonset/pairway", &agent]).unwrap();
}

/// Waits until every node has written its record as a build of this version, with or without what the next one adds.
fn records_are(cluster: &Kubernetes, version: u32, marked: bool) {
    let nodes = cluster.nodes().len();
    eventually("every node's record to be as its build writes it", LIMIT, || {
        let list = cluster.json(&["get", "noderecords"]).map_err(|error| error.to_string())?;
        let records = list["items"].as_array().cloned().unwrap_or_default();
        let as_written = |record: &Json| {
            let spec = &record["spec"];
            spec["version"] == version && (spec[record::NEXT_FIELD] == true) == marked
        };
        if records.len() == nodes && records.iter().all(as_written) {
            return Ok(());
        }
        Err(format!("not all of version {version}, with the new field: {marked}: {list}"))
    })
    .unwrap();
}
