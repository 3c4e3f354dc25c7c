//! Records as JSON: what stands in a store, apart from what we think in.
//!
//! A record is an object with `version`, and is only ever extended: fields that we do not know are kept and
//! written back, a record of a newer version is read for the fields that we do know (DESIGN, invariant 14).
//! Nothing in a record is trusted (invariant 10): every value is checked before it becomes a domain type.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::schema::{ClaimDto, NodeDto, PoolDto, ReleasedDto};
use crate::node::{Block, Claim, NodeName, NodeRecord, PoolRecord, Underlay};

/// Version of the records that this build writes.
pub const VERSION: u32 = 1;

/// A field that the next version would add to every record, for trying upgrades.
pub const NEXT_FIELD: &str = "sinceVersion2";

/// This process is of the next version.
static NEXT: AtomicBool = AtomicBool::new(false);

/// From now on this process writes and knows the records of the next version, [`VERSION`] + 1, which has
/// [`NEXT_FIELD`].
///
/// For the lab's second build of the agent, with which rolling upgrades are tried: `pairway` never calls it.
pub fn become_next_version() {
    NEXT.store(true, Ordering::Relaxed);
}

/// Version of the records that this process writes: [`VERSION`], except in the lab's second build.
#[must_use]
pub fn version() -> u32 {
    if NEXT.load(Ordering::Relaxed) { VERSION + 1 } else { VERSION }
}

/// No record is larger than this; what is, is not read.
pub const MAX_BYTES: u64 = 64 * 1024;

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<T> {
    /// What it says.
    pub record: T,
    /// Its version, where that is newer than ours.
    pub newer: Option<u32>,
}

/// Why a record can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not JSON, or a field is missing or of the wrong type.
    #[error("not a record of ours: {0}")]
    Json(#[from] serde_json::Error),
    /// A value that can't be right.
    #[error("{field} is {value}: {wrong}")]
    Value {
        /// The field, as it is written.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        wrong: String,
    },
    /// The record speaks of something else than its name does.
    #[error("it is named {name} but speaks of {content}")]
    Name {
        /// The record's name.
        name: String,
        /// What its content names.
        content: String,
    },
}

/// Writes records in a version of choice; [`version`] except in tests of mixed versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// Written as `version`.
    pub version: u32,
}

impl Default for Encoding {
    fn default() -> Self {
        Self { version: version() }
    }
}

impl Encoding {
    /// A node record. `stored` is what stands there now; its unknown fields are kept.
    #[must_use]
    pub fn node(self, record: &NodeRecord, stored: Option<&[u8]>) -> Vec<u8> {
        let dto = NodeDto {
            version: self.version,
            name: record.name.to_string(),
            underlay_ipv4: record.underlay.ipv4.map(|net| net.to_string()),
            underlay_ipv6: record.underlay.ipv6.map(|net| net.to_string()),
            asn: record.asn.into(),
            router_id: record.router_id.to_string(),
            bgp_port: record.bgp_port.into(),
            vni: record.vni.into(),
            vxlan_port: record.vxlan_port.into(),
            labels: record.labels.clone(),
            capabilities: BTreeSet::clone(&record.capabilities),
            common_digest: record.common_digest.clone(),
            instance: record.instance.clone(),
            contender: record.contender.clone(),
            unknown: BTreeMap::new(),
        };
        let kept =
            stored.and_then(|bytes| decode::<NodeDto>(bytes).ok()).map(|(dto, _)| unknown(dto.unknown));
        self.write(&dto, [kept.unwrap_or_default(), record.unknown.clone()])
    }

    /// A claim. One without a holder is written without one, and read as unreadable.
    #[must_use]
    pub fn claim(self, claim: &Claim) -> Vec<u8> {
        let dto = ClaimDto {
            version: self.version,
            block: claim.block.to_string(),
            holder: claim.holder.as_ref().map(ToString::to_string),
            claimed_at: claim.claimed_at.to_string(),
            unknown: BTreeMap::new(),
        };
        self.write(&dto, [claim.unknown.clone()])
    }

    /// A pool record.
    #[must_use]
    pub fn pool(self, pool: &PoolRecord) -> Vec<u8> {
        let dto = PoolDto {
            version: self.version,
            cidr: pool.cidr.to_string(),
            block_prefix: pool.block_prefix.into(),
            unknown: BTreeMap::new(),
        };
        self.write(&dto, [pool.unknown.clone()])
    }

    /// What is remembered of a block that was given back.
    #[must_use]
    pub fn released(self, block: Block, at: Timestamp) -> Vec<u8> {
        let dto = ReleasedDto {
            version: self.version,
            block: block.to_string(),
            released_at: at.to_string(),
            unknown: BTreeMap::new(),
        };
        self.write(&dto, [])
    }

    /// Known fields first, in the order of the type; then unknown ones, which can't hide a known one.
    fn write<const N: usize>(self, known: &impl Serialize, unknown: [BTreeMap<String, Value>; N]) -> Vec<u8> {
        let mut object = match serde_json::to_value(known) {
            Ok(Value::Object(object)) => object,
            other => unreachable!("our records are objects of strings and numbers: {other:?}"),
        };
        if self.version > VERSION && version() > VERSION {
            object.insert(NEXT_FIELD.to_owned(), Value::Bool(true));
        }
        let own = object.len();
        for (key, value) in unknown.into_iter().flatten() {
            let is_known =
                object.keys().take(own).any(|known| *known == key) || RESERVED.contains(&key.as_str());
            if !is_known {
                object.insert(key, value);
            }
        }
        let mut bytes = format!("{:#}", Value::Object(object)).into_bytes();
        bytes.push(b'\n');
        bytes
    }
}

/// The fields of a record that this build does not know.
fn unknown(mut fields: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    if version() > VERSION {
        fields.remove(NEXT_FIELD);
    }
    fields
}

/// Known fields that are left out when they are empty: an unknown field must not come back under their name.
const RESERVED: [&str; 5] = ["underlayIpv4", "underlayIpv6", "holder", "instance", "contender"];

/// The record of the node that the record's name means.
pub fn node(name: &NodeName, bytes: &[u8]) -> Result<Decoded<NodeRecord>, RecordError> {
    let (dto, newer) = decode::<NodeDto>(bytes)?;
    if dto.name != name.as_str() {
        return Err(RecordError::Name { name: name.to_string(), content: dto.name });
    }
    let underlay = Underlay {
        ipv4: dto.underlay_ipv4.as_deref().map(|text| underlay_ipv4("underlayIpv4", text)).transpose()?,
        ipv6: dto.underlay_ipv6.as_deref().map(|text| underlay_ipv6("underlayIpv6", text)).transpose()?,
    };
    let router_id: Ipv4Addr = parse("routerId", &dto.router_id, "an IPv4 address is expected")?;
    if router_id.is_unspecified() {
        return Err(value("routerId", router_id, "it must not be zero (RFC 6286)"));
    }
    let record = NodeRecord {
        name: name.clone(),
        underlay,
        asn: asn(dto.asn)?,
        router_id,
        bgp_port: port("bgpPort", dto.bgp_port)?,
        vni: match u32::try_from(dto.vni) {
            Ok(vni @ 1..=0xff_ffff) => vni,
            _ => return Err(value("vni", dto.vni, "1 to 16777215 is expected (RFC 7348: 24 bits)")),
        },
        vxlan_port: port("vxlanPort", dto.vxlan_port)?,
        labels: dto.labels,
        capabilities: dto.capabilities.into_iter().collect(),
        common_digest: dto.common_digest,
        instance: dto.instance.as_deref().map(short),
        contender: dto.contender.as_deref().map(short),
        unknown: unknown(dto.unknown),
    };
    Ok(Decoded { record, newer })
}

/// The claim of the block that the record's name means.
pub fn claim(block: Block, bytes: &[u8]) -> Result<Decoded<Claim>, RecordError> {
    let (dto, newer) = decode::<ClaimDto>(bytes)?;
    same_block(block, &dto.block)?;
    let Some(holder) = dto.holder else {
        return Err(value("holder", "missing", "the name of a node is expected"));
    };
    let holder = holder.parse().map_err(|error| value("holder", &holder, error))?;
    let claimed_at = parse("claimedAt", &dto.claimed_at, "a time is expected (RFC 3339)")?;
    Ok(Decoded {
        record: Claim { block, holder: Some(holder), claimed_at, unknown: unknown(dto.unknown) },
        newer,
    })
}

/// The record of the pool that the record's name means.
pub fn pool(cidr: IpNet, bytes: &[u8]) -> Result<Decoded<PoolRecord>, RecordError> {
    let (dto, newer) = decode::<PoolDto>(bytes)?;
    let content: IpNet = parse("cidr", &dto.cidr, "a CIDR is expected")?;
    if content != cidr {
        return Err(RecordError::Name { name: cidr.to_string(), content: dto.cidr });
    }
    let block_prefix = u8::try_from(dto.block_prefix)
        .ok()
        .filter(|prefix| (cidr.prefix_len()..=cidr.max_prefix_len()).contains(prefix))
        .ok_or_else(|| {
            let wrong = format!("{} to {} is expected", cidr.prefix_len(), cidr.max_prefix_len());
            value("blockPrefix", dto.block_prefix, wrong)
        })?;
    Ok(Decoded { record: PoolRecord { cidr, block_prefix, unknown: unknown(dto.unknown) }, newer })
}

/// When the block that the record's name means was given back.
pub fn released(block: Block, bytes: &[u8]) -> Result<Decoded<Timestamp>, RecordError> {
    let (dto, newer) = decode::<ReleasedDto>(bytes)?;
    same_block(block, &dto.block)?;
    let record = parse("releasedAt", &dto.released_at, "a time is expected (RFC 3339)")?;
    Ok(Decoded { record, newer })
}

/// The version is looked at first: it says in the error which side is the newer one.
#[derive(Deserialize)]
struct VersionDto {
    version: u32,
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Option<u32>), RecordError> {
    let VersionDto { version: written } = serde_json::from_slice(bytes)?;
    if written == 0 {
        return Err(value("version", written, "versions begin with 1"));
    }
    Ok((serde_json::from_slice(bytes)?, (written > version()).then_some(written)))
}

/// A text that is shown to people and means nothing to us: of a length that fits a line.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

fn value(field: &'static str, value: impl ToString, wrong: impl ToString) -> RecordError {
    // What stands there may be long: it goes into a log line.
    let value: String = value.to_string().chars().take(80).collect();
    RecordError::Value { field, value: format!("{value:?}"), wrong: wrong.to_string() }
}

fn parse<T: std::str::FromStr>(
    field: &'static str,
    text: &str,
    wrong: &'static str,
) -> Result<T, RecordError> {
    text.parse().map_err(|_| value(field, text, wrong))
}

fn same_block(block: Block, content: &str) -> Result<(), RecordError> {
    let agrees = content.parse::<IpNet>().is_ok_and(|net| net == block.net());
    if agrees {
        Ok(())
    } else {
        Err(RecordError::Name { name: block.to_string(), content: content.chars().take(80).collect() })
    }
}

fn asn(number: u64) -> Result<u32, RecordError> {
    match u32::try_from(number) {
        // RFC 7607 (0), RFC 6793 (AS_TRANS), RFC 7300 (the last one).
        Ok(0 | 23456 | u32::MAX) | Err(_) => {
            Err(value("asn", number, "1 to 4294967294 and not 23456 is expected"))
        }
        Ok(asn) => Ok(asn),
    }
}

fn port(field: &'static str, number: u64) -> Result<u16, RecordError> {
    match u16::try_from(number) {
        Ok(0) | Err(_) => Err(value(field, number, "1 to 65535 is expected")),
        Ok(port) => Ok(port),
    }
}

fn underlay_ipv4(field: &'static str, text: &str) -> Result<Ipv4Net, RecordError> {
    let net: Ipv4Net = parse(field, text, "an IPv4 address with its prefix length is expected")?;
    host_address(field, text, net.addr().into(), net.prefix_len())?;
    // A subnet of two addresses or one has neither a network nor a broadcast address (RFC 3021).
    if net.prefix_len() < 31 && (net.addr() == net.network() || net.addr() == net.broadcast()) {
        return Err(value(field, text, "it is the network or the broadcast address of its prefix"));
    }
    Ok(net)
}

fn underlay_ipv6(field: &'static str, text: &str) -> Result<Ipv6Net, RecordError> {
    let net: Ipv6Net = parse(field, text, "an IPv6 address with its prefix length is expected")?;
    host_address(field, text, net.addr().into(), net.prefix_len())?;
    if net.addr().is_unicast_link_local() {
        return Err(value(field, text, "a link-local address means another machine on every link"));
    }
    if net.addr().to_ipv4_mapped().is_some() {
        return Err(value(field, text, "an IPv4 address in IPv6 clothes is never on a wire"));
    }
    Ok(net)
}

fn host_address(field: &'static str, text: &str, address: IpAddr, length: u8) -> Result<(), RecordError> {
    let reserved = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(_) => false,
    };
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || reserved {
        return Err(value(field, text, "no node can be reached there"));
    }
    if length == 0 {
        return Err(value(field, text, "a prefix length of 0 would put the whole world on the link"));
    }
    Ok(())
}

pub(in crate::store) mod schema;
#[cfg(test)]
mod tests;
