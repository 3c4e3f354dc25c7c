//! Records as objects of the API: pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ApiResource, DynamicObject, TypeMeta};
use serde_json::{Value, json};

use crate::node::NodeName;
use crate::store::kind::Kind;
use crate::store::remote::backend::{Failure, Key, Stored};

/// The API group of our objects.
pub const GROUP: &str = "pairway.dev";

/// Their version. Records carry a version of their own and are only ever extended.
pub(super) const VERSION: &str = "v1alpha1";

/// What the API calls the records of a kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) singular: &'static str,
    pub(super) short: &'static str,
}

pub(super) const fn names(kind: Kind) -> Names {
    match kind {
        Kind::Node => {
            Names { kind: "NodeRecord", plural: "noderecords", singular: "noderecord", short: "pwn" }
        }
        Kind::Claim => {
            Names { kind: "BlockClaim", plural: "blockclaims", singular: "blockclaim", short: "pwc" }
        }
        Kind::Pool => Names { kind: "BlockPool", plural: "blockpools", singular: "blockpool", short: "pwp" },
        Kind::Released => {
            Names { kind: "BlockRelease", plural: "blockreleases", singular: "blockrelease", short: "pwr" }
        }
    }
}

pub(super) fn resource(group: &str, kind: Kind) -> ApiResource {
    let names = names(kind);
    ApiResource {
        group: group.to_owned(),
        version: VERSION.to_owned(),
        api_version: format!("{group}/{VERSION}"),
        kind: names.kind.to_owned(),
        plural: names.plural.to_owned(),
    }
}

/// The name of an object; `None` for one without, which no server makes.
pub(super) fn key(kind: Kind, object: &DynamicObject) -> Option<Key> {
    Some(Key { kind, name: object.metadata.name.clone()? })
}

/// An object as a record.
pub(super) fn stored(object: &DynamicObject) -> Stored {
    let content = object.data.get("spec").map_or_else(Vec::new, |spec| spec.to_string().into_bytes());
    let made = object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    Stored { content, version: version(object), made }
}

/// Resource versions are compared as numbers, which Kubernetes promises since 1.35 and has kept ever since.
pub(super) fn version(object: &DynamicObject) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// A record as an object.
pub(super) fn object(
    group: &str,
    kind: Kind,
    metadata: ObjectMeta,
    content: &[u8],
) -> Result<DynamicObject, Failure> {
    let spec: Value = serde_json::from_slice(content)
        .map_err(|error| Failure::record(format!("the record is no JSON: {error}")))?;
    let names = names(kind);
    let types = TypeMeta { api_version: format!("{group}/{VERSION}"), kind: names.kind.to_owned() };
    Ok(DynamicObject { types: Some(types), metadata, data: json!({ "spec": spec }) })
}

/// The UID of the Node that an object belongs to.
pub(super) fn owner(metadata: &ObjectMeta) -> Option<String> {
    let references = metadata.owner_references.iter().flatten();
    references
        .filter(|owner| owner.kind == "Node" && owner.api_version == "v1")
        .map(|owner| owner.uid.clone())
        .next()
}

/// A Node as the owner of an object: what it owns goes with it, and does not keep it from going.
pub(super) fn reference(node: &NodeName, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_string(),
        uid: uid.to_owned(),
        controller: None,
        block_owner_deletion: None,
    }
}

/// Whose record it is: the node's own, or a claim by its holder. Pools and memories of releases are nobody's.
pub(super) fn whose(key: &Key, content: &[u8]) -> Option<String> {
    match key.kind {
        Kind::Node => Some(key.name.clone()),
        Kind::Claim => {
            let fields: BTreeMap<String, Value> = serde_json::from_slice(content).ok()?;
            Some(fields.get("holder")?.as_str()?.to_owned())
        }
        Kind::Pool | Kind::Released => None,
    }
}
