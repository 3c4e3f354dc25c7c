//! Files for the CNI plugins that wire pods: this node's subnets in flannel's format, and a configuration of our own.
//! What they say is pure; [`write()`] and [`withdraw`] touch the disk, and [`Watch`] says when others do.
//!
//! Both formats carry our mark (a comment, the network's name), so that a file of somebody else in that place is
//! known as such. Formats: the CNI specification 1.0.0; `bridge`, `host-local` and `portmap` of
//! containernetworking/plugins; `subnet.env` as flannel's CNI plugin reads it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use config::Pool;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::durable;
use crate::node::Block;

mod watch;

pub use watch::Watch;

/// Name of the network in our conflist.
const NETWORK: &str = "pairway";

/// Key of the mark of ownership in a conflist: runtimes pass over keys that they don't know.
const MARK_KEY: &str = "generatedBy";

/// Its value.
const MARK_VALUE: &str = "pairway agent";

/// The mark of ownership in a `subnet.env`. Readers take lines with `=` alone.
const MARK: &str = "# of pairway: written anew whenever the node's blocks change";

/// Name of the file in the state directory that says where files were written.
pub const FILE_NAME: &str = "cni.json";

/// A file that is larger is nobody's of ours.
const MAX_BYTES: u64 = 1 << 20;

/// Which of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Flannel's `subnet.env`.
    SubnetEnv,
    /// A network configuration list.
    Conflist,
}

/// Where files are.
pub type Places = BTreeMap<Kind, PathBuf>;

/// What the files are made of.
#[derive(Debug, Clone, Copy)]
pub struct Network<'a> {
    /// All pools.
    pub pools: &'a [Pool],
    /// Blocks that the node holds, oldest first.
    pub blocks: &'a [Block],
    /// MTU of pods' interfaces in bytes.
    pub mtu: u32,
}

impl Kind {
    /// The whole content of the file.
    #[must_use]
    pub fn content(self, network: &Network<'_>) -> String {
        match self {
            Self::SubnetEnv => subnet_env(network),
            Self::Conflist => conflist(network),
        }
    }

    fn is_ours(self, content: &str) -> bool {
        match self {
            Self::SubnetEnv => content.lines().next() == Some(MARK),
            Self::Conflist => {
                serde_json::from_str(content).is_ok_and(|json: Json| json[MARK_KEY] == MARK_VALUE)
            }
        }
    }

    /// Whether a file of ours hands out addresses of these blocks and of no others. One that can't be read is trusted in
    /// nothing.
    #[must_use]
    pub fn keeps_to(self, content: &str, blocks: &[Block]) -> bool {
        let subnets: Vec<Option<IpNet>> = match self {
            Self::SubnetEnv => content
                .lines()
                .filter_map(|line| line.split_once('='))
                .filter(|(key, _)| key.ends_with("_SUBNET"))
                .map(|(_, value)| value.parse::<IpNet>().ok().map(|net| net.trunc()))
                .collect(),
            Self::Conflist => {
                let json: Json = serde_json::from_str(content).unwrap_or_default();
                let ranges = json["plugins"][0]["ipam"]["ranges"].as_array().into_iter().flatten();
                let ranges = ranges.flat_map(|set| set.as_array().into_iter().flatten());
                ranges.map(|range| range["subnet"].as_str()?.parse().ok()).collect()
            }
        };
        let is_held =
            |subnet: &Option<IpNet>| subnet.is_some_and(|net| blocks.iter().any(|block| block.net() == net));
        !subnets.is_empty() && subnets.iter().all(is_held)
    }
}

/// The oldest block of each family: the format has room for one.
fn subnet_env(network: &Network<'_>) -> String {
    let mut lines = vec![MARK.to_owned()];
    for (is_ipv4, prefix) in [(true, "FLANNEL"), (false, "FLANNEL_IPV6")] {
        let mut nets = network.blocks.iter().map(|block| block.net());
        let Some(net) = nets.find(|net| net.addr().is_ipv4() == is_ipv4) else { continue };
        if let Some(pool) = network.pools.iter().find(|pool| pool.cidr.contains(&net)) {
            lines.push(format!("{prefix}_NETWORK={}", pool.cidr));
        }
        // Flannel writes the gateway's address here.
        let gateway = net.hosts().find(|host| *host != net.network()).unwrap_or(net.network());
        lines.push(format!("{prefix}_SUBNET={gateway}/{}", net.prefix_len()));
    }
    lines.push(format!("FLANNEL_MTU={}", network.mtu));
    // What leaves the cluster is masqueraded by our own table, where it is wanted.
    lines.push("FLANNEL_IPMASQ=false".to_owned());
    lines.join("\n") + "\n"
}

/// All blocks: an address of each family for every pod, from any block of that family.
fn conflist(network: &Network<'_>) -> String {
    let nets: Vec<IpNet> = network.blocks.iter().map(|block| block.net()).filter(fits_host_local).collect();
    let (mut ranges, mut routes) = (Vec::new(), Vec::new());
    for (is_ipv4, everywhere) in [(true, "0.0.0.0/0"), (false, "::/0")] {
        let of_family = nets.iter().filter(|net| net.addr().is_ipv4() == is_ipv4);
        let set: Vec<Json> = of_family.map(|net| json!({ "subnet": net })).collect();
        if !set.is_empty() {
            ranges.push(set);
            routes.push(json!({ "dst": everywhere }));
        }
    }
    let list = json!({
        "cniVersion": "1.0.0",
        "name": NETWORK,
        MARK_KEY: MARK_VALUE,
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": false,
                // A pod may reach itself through its Service.
                "hairpinMode": true,
                "mtu": network.mtu,
                "ipam": { "type": "host-local", "ranges": ranges, "routes": routes },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    format!("{list:#}\n")
}

/// `host-local` wants room for network, gateway, one pod and broadcast.
fn fits_host_local(net: &IpNet) -> bool {
    net.prefix_len() <= net.max_prefix_len() - 2
}

/// What stands in a file's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A file of ours with this content.
    Ours(String),
    /// A file of somebody else.
    Foreign,
}

/// Looks at a file's place.
///
/// # Errors
/// It can't be read.
pub fn find(kind: Kind, path: &Path) -> io::Result<Found> {
    match fs::metadata(path) {
        // Reading a FIFO or a device would not end.
        Ok(metadata) if !metadata.is_file() || metadata.len() > MAX_BYTES => return Ok(Found::Foreign),
        Ok(_) => (),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) => return Err(error),
    }
    match String::from_utf8(fs::read(path)?) {
        Ok(text) if kind.is_ours(&text) => Ok(Found::Ours(text)),
        Ok(_) | Err(_) => Ok(Found::Foreign),
    }
}

/// Writes a file in one step, for everybody to read, and makes its folder.
///
/// # Errors
/// The folder can't be made or written.
pub fn write(path: &Path, content: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    durable::replace(path, content.as_bytes())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Removes a file if it is ours; whether it was there.
///
/// # Errors
/// It can't be read or removed.
pub fn withdraw(kind: Kind, path: &Path) -> io::Result<bool> {
    match find(kind, path)? {
        Found::Ours(_) => fs::remove_file(path).map(|()| true),
        Found::Absent | Found::Foreign => Ok(false),
    }
}

/// Where the files go.
#[must_use]
pub fn places(config: &config::Cni) -> Places {
    let files = [(Kind::SubnetEnv, &config.subnet_env), (Kind::Conflist, &config.conflist)];
    files.into_iter().filter_map(|(kind, path)| Some((kind, path.clone()?))).collect()
}

/// Where an earlier agent with this state directory has written files.
///
/// # Errors
/// The state directory can't be read, or not what stands there.
pub fn remembered(state_dir: &Path) -> io::Result<Places> {
    match fs::read(state_dir.join(FILE_NAME)) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Places::new()),
        Err(error) => Err(error),
    }
}

/// Writes down where files are. To be called before they are written.
///
/// # Errors
/// The state directory can't be written.
pub fn remember(state_dir: &Path, places: &Places) -> io::Result<()> {
    durable::replace(&state_dir.join(FILE_NAME), &serde_json::to_vec_pretty(places)?)
}

#[cfg(test)]
mod tests;
