//! A containerlab file as it is written; unknown keys are refused by the parser, with their place.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde_saphyr::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) name: Spanned<String>,
    pub(super) topology: Topology,
    #[serde(default, rename = "mgmt")]
    _mgmt: Option<Mgmt>,
}

/// The management network, which no lab of ours has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Mgmt {
    #[serde(rename = "skip-when-unused")]
    _skip_when_unused: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Topology {
    #[serde(default)]
    pub(super) defaults: Option<Settings>,
    #[serde(default)]
    pub(super) kinds: BTreeMap<String, Spanned<Settings>>,
    pub(super) nodes: BTreeMap<String, Spanned<Option<Settings>>>,
    #[serde(default)]
    pub(super) links: Vec<Spanned<Link>>,
}

/// Settings of a node, a kind, or all nodes. Those with a leading underscore are for container engines alone.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Settings {
    pub(super) kind: Option<Spanned<String>>,
    pub(super) network_mode: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) exec: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) binds: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) sysctls: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(rename = "image")]
    _image: Option<String>,
    #[serde(rename = "image-pull-policy")]
    _image_pull_policy: Option<String>,
    #[serde(rename = "privileged")]
    _privileged: Option<bool>,
    #[serde(default, rename = "cap-add")]
    _cap_add: Vec<String>,
    #[serde(rename = "group")]
    _group: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    #[serde(rename = "type")]
    pub(super) kind: Option<Spanned<String>>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) mtu: Option<Spanned<u32>>,
    #[serde(default, rename = "labels")]
    _labels: BTreeMap<String, String>,
}

/// An endpoint, brief (`"n1:eth1"`) or extended (`{ node: n1, interface: eth1 }`).
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) node: String,
    pub(super) interface: String,
    pub(super) mac: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Extended {
    node: String,
    interface: String,
    mac: Option<String>,
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Endpoint;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an endpoint: \"node:interface\" or { node: ..., interface: ... }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Endpoint, E> {
                match text.split_once(':') {
                    Some((node, interface)) if !interface.contains(':') => {
                        Ok(Endpoint { node: node.to_owned(), interface: interface.to_owned(), mac: None })
                    }
                    _ => Err(E::custom(format!("endpoint {text:?} is incomplete; write node:interface"))),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Endpoint, A::Error> {
                let Extended { node, interface, mac } =
                    Extended::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Endpoint { node, interface, mac })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// The parser's message without the place, which we print in front.
pub(super) fn message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}
