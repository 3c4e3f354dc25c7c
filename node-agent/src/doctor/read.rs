//! Looks at the machine. Every look that fails is a reason in the facts, never the end of the examination.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use bgp::Family;
use config::{Config, Pool};
use ipnet::IpNet;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use vxlan::netlink::{Kernel, kernel_release, require_kernel};
use vxlan::{Conflict, Dataplane, InstalledRoute, IpTunnel, LinkName, Observed, RouteKey, diff};

use super::facts::{BridgeFilter, Device, Facts, Folder, Known, Modules, Ports, Purpose, Record};
use crate::daemon;
use crate::node::NodeName;
use crate::plan;
use crate::store::file::peek;
use crate::telemetry::chain;
use crate::underlay::{self, Choice, Local};

mod clock;
mod filters;
mod modules;
mod ports;

/// A store on a server has this long to answer.
const STORE_WITHIN: std::time::Duration = std::time::Duration::from_secs(8);

/// Looks at this machine as the agent of this configuration would find it.
#[must_use]
pub fn facts(config: &Config, node: &NodeName) -> Facts {
    let pools: Vec<IpNet> = config.pools.iter().map(|pool| pool.cidr).collect();
    let records = records(config);
    let nodes = records.iter().flatten().flat_map(|record| &record.addresses);
    let watched: Vec<IpNet> = pools.iter().copied().chain(nodes.map(|net| IpNet::from(net.addr()))).collect();
    let observed = observe(config, &watched);
    let (kernel_view, why) = match observed {
        Ok(observed) => (observed, None),
        Err(why) => (Observed::default(), Some(why)),
    };
    let underlay = match &why {
        None => underlay::choose(&config.node.underlay, &pools, &kernel_view, &Local::default()),
        Some(why) => Choice { local: Local::default(), problem: Some(why.clone()) },
    };
    let devices = kernel_view.interfaces.keys().map(|link| (link.clone(), device(link))).collect();
    let sysctls = |keys: [(Family, &str); 2]| keys.map(|(family, key)| (family, sysctl(key)));
    Facts {
        node: node.clone(),
        kernel: match require_kernel() {
            Ok(_) => Ok(release()),
            Err(error) => Err(chain(&error)),
        },
        forwarding: sysctls([
            (Family::Ipv4, "net/ipv4/ip_forward"),
            (Family::Ipv6, "net/ipv6/conf/all/forwarding"),
        ])
        .into_iter()
        .map(|(family, value)| (family, value.map(|value| value != 0)))
        .collect(),
        neighbor_limit: BTreeMap::from(sysctls([
            (Family::Ipv4, "net/ipv4/neigh/default/gc_thresh3"),
            (Family::Ipv6, "net/ipv6/neigh/default/gc_thresh3"),
        ])),
        conflicts: match &why {
            None => Ok(conflicts(config, &kernel_view)),
            Some(why) => Err(why.clone()),
        },
        conditions: Vec::new(),
        ipv6_disabled: if Path::new("/proc/sys/net/ipv4").exists()
            && !Path::new("/proc/sys/net/ipv6").exists()
        {
            Ok(None)
        } else {
            sysctl("net/ipv6/conf/all/disable_ipv6").and_then(|all| {
                let default = sysctl("net/ipv6/conf/default/disable_ipv6")?;
                Ok(Some((all != 0, default != 0)))
            })
        },
        ours: kernel_view.ours.links.keys().cloned().collect::<BTreeSet<LinkName>>(),
        devices,
        rp_filter_all: kernel_view.rp_filter_all,
        default_routes: kernel_view.default_routes.clone(),
        bridge_filter: BridgeFilter {
            calls_iptables: sysctl("net/bridge/bridge-nf-call-iptables").ok().map(|value| value != 0),
            kube_proxy: process_names().any(|name| name == "kube-proxy"),
        },
        modules: Modules {
            vxlan: modules::state("vxlan"),
            ip: IpTunnel::ALL.map(|kind| (kind, modules::state(kind.as_str()))).into(),
            asked: plan::ip_tunnels(config, &underlay.local),
        },
        ports: Ports {
            vxlan: config.vxlan.port,
            vni: config.vxlan.vni,
            bgp: config.bgp.port,
            bgp_addresses: bgp_addresses(config, &underlay),
            owners: ports::owners(&[config.vxlan.port, config.bgp.port]),
        },
        netfilter: match &why {
            None => Ok(kernel_view.netfilter.clone()),
            Some(why) => Err(why.clone()),
        },
        wants_firewall: config.masquerade.enabled || config.vxlan.guard,
        legacy_forward: filters::legacy_forward(),
        legacy_input: filters::legacy_input(),
        wants_bgp: config.paths.uses_bgp() || !config.bgp.peers.is_empty(),
        clock: clock::state(),
        records,
        folders: folders(config),
        interfaces: match why {
            None => Ok(kernel_view.interfaces),
            Some(why) => Err(why),
        },
        underlay,
        pools,
    }
}

/// What stands of ours is what an agent wanted: that nothing of it is to be changed leaves what others have. Before there
/// is anything of ours, others may have routes that come before those to peers' blocks.
fn conflicts(config: &Config, observed: &Observed) -> Vec<Conflict> {
    let ours = &observed.ours;
    if !(ours.links.is_empty() && ours.routes.is_empty() && ours.nexthops.is_empty()) {
        return diff(observed, ours).conflicts;
    }
    config.pools.iter().filter_map(|pool| rivals(config, pool, &observed.foreign_routes)).collect()
}

/// Routes that lead blocks of a pool to other machines, and would come before ours.
fn rivals(config: &Config, pool: &Pool, foreign: &[InstalledRoute]) -> Option<Conflict> {
    let comes_first = |route: &&InstalledRoute| {
        let RouteKey { table, prefix, metric } = route.key;
        table == plan::MAIN_TABLE
            && route.gateway.is_some()
            && pool.cidr.contains(&prefix)
            && (prefix.prefix_len() > pool.block_prefix
                || prefix.prefix_len() == pool.block_prefix && metric <= config.kernel.route_metric)
    };
    let routes: Vec<&InstalledRoute> = foreign.iter().filter(comes_first).collect();
    let (first, more) = routes.split_first()?;
    let more = if more.is_empty() { String::new() } else { format!(", and {} more,", more.len()) };
    let ip = if pool.cidr.addr().is_ipv4() { "ip" } else { "ip -6" };
    Some(Conflict {
        wanted: format!("routes to blocks of {}", pool.cidr),
        found: format!("{first}{more}"),
        hint: format!(
            "stop the program that makes them when its nodes move to Pairway, then take away all of its protocol: {ip} route flush root {} proto {}",
            pool.cidr, first.protocol
        ),
    })
}

fn observe(config: &Config, watched: &[IpNet]) -> Known<Observed> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        format!("the kernel can't be read by netlink: {}", chain(error))
    };
    let mut kernel = Kernel::open(daemon::marks(&config.kernel)).map_err(|error| failed(&error))?;
    kernel.observe(watched).map_err(|error| failed(&error))
}

fn release() -> String {
    kernel_release().map_or_else(|error| error.to_string(), |release| release.to_string())
}

/// A number below /proc/sys.
fn sysctl(key: &str) -> Known<u64> {
    let path = Path::new("/proc/sys").join(key);
    let name = key.replace('/', ".");
    match fs::read_to_string(&path) {
        Ok(text) => {
            text.trim().parse().map_err(|_| format!("{name} is {:?}, which is no number", text.trim()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
            "there is no {name} here: a network namespace of its own has none, look on the machine itself"
        )),
        Err(error) => Err(format!("{name} can't be read: {error}")),
    }
}

fn device(link: &LinkName) -> Device {
    let small = |key: String| sysctl(&key).ok().and_then(|value| u8::try_from(value).ok());
    Device {
        forwarding: small(format!("net/ipv4/conf/{link}/forwarding")).map(|value| value != 0),
        rp_filter: small(format!("net/ipv4/conf/{link}/rp_filter")),
        accept_ra: small(format!("net/ipv6/conf/{link}/accept_ra")),
        ipv6_disabled: small(format!("net/ipv6/conf/{link}/disable_ipv6")).map(|value| value != 0),
    }
}

/// Names of all processes that can be seen.
fn process_names() -> impl Iterator<Item = String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
}

fn bgp_addresses(config: &Config, underlay: &Choice) -> Vec<IpAddr> {
    if !config.bgp.listen.is_empty() {
        return config.bgp.listen.clone();
    }
    let found: Vec<IpAddr> = Family::ALL
        .into_iter()
        .filter_map(|family| underlay.local.of(family))
        .map(|local| local.address.addr())
        .collect();
    // Without an underlay any address may become one.
    if found.is_empty() { vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] } else { found }
}

fn records(config: &Config) -> Known<Vec<Record>> {
    let records = match &config.store {
        config::Store::File { path, .. } => peek::nodes(path)
            .map_err(|error| format!("the store at {} can't be read: {error}", path.display()))?,
        store @ (config::Store::Kubernetes { .. } | config::Store::Etcd(_)) => served_records(store)?,
    };
    let record = |record: crate::node::NodeRecord| Record {
        addresses: [record.underlay.ipv4.map(IpNet::V4), record.underlay.ipv6.map(IpNet::V6)]
            .into_iter()
            .flatten()
            .collect(),
        name: record.name,
    };
    Ok(records.into_iter().map(record).collect())
}

/// The node records of a store on a server. In a runtime of its own, for whoever looks may be in one.
fn served_records(store: &config::Store) -> Known<Vec<crate::node::NodeRecord>> {
    let look = || -> Known<Vec<crate::node::NodeRecord>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("the store can't be asked: {error}"))?;
        runtime.block_on(async {
            let opened = daemon::open_store(store, None, None).await.map_err(|error| chain(&error))?;
            let mut snapshots = opened.snapshots();
            let first = snapshots.wait_for(Option::is_some);
            match tokio::time::timeout(STORE_WITHIN, first).await {
                Ok(Ok(snapshot)) => {
                    let nodes = snapshot.iter().flat_map(|snapshot| snapshot.nodes.values());
                    Ok(nodes.map(|node| crate::node::NodeRecord::clone(node)).collect())
                }
                Ok(Err(_)) | Err(_) => {
                    let trouble = opened.health().borrow().clone().err();
                    let why = trouble
                        .map_or_else(|| format!("no answer within {STORE_WITHIN:?}"), |trouble| trouble.text);
                    Err(format!("the store can't be read: {why}"))
                }
            }
        })
    };
    std::thread::scope(|scope| {
        scope.spawn(look).join().unwrap_or_else(|_| Err("the store can't be asked".to_owned()))
    })
}

fn folders(config: &Config) -> Vec<Folder> {
    let folder = |purpose, path: &Path| Folder { purpose, path: path.to_owned(), trouble: trouble(path) };
    let mut folders = vec![folder(Purpose::State, &config.state_dir)];
    if let config::Store::File { path, allow_network_filesystem } = &config.store {
        let mut store = folder(Purpose::Store, path);
        if store.trouble.is_none()
            && !allow_network_filesystem
            && let Ok(Some(kind)) = peek::network_filesystem(&standing(path))
        {
            store.trouble = Some(format!("it is on {kind}, a network filesystem, which is refused"));
        }
        folders.push(store);
    }
    let socket = config.api_socket.parent().unwrap_or(Path::new("/"));
    folders.push(folder(Purpose::Socket, socket));
    folders
}

/// The path, or the nearest folder above it that exists.
fn standing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// Why nothing can be written in a directory that exists or is to be made.
fn trouble(path: &Path) -> Option<String> {
    let standing = standing(path);
    if !standing.is_dir() {
        return Some(format!("{} is not a directory", standing.display()));
    }
    let errno = access(&standing, AccessFlags::W_OK | AccessFlags::X_OK).err()?;
    let made = if standing == path {
        String::new()
    } else {
        format!("it does not exist, and in {} ", standing.display())
    };
    let why = if errno == Errno::EROFS {
        ": the filesystem is read-only".to_owned()
    } else if errno == Errno::EACCES {
        " by this user".to_owned()
    } else {
        format!(": {}", errno.desc())
    };
    Some(format!("{made}nothing can be written{why}"))
}

#[cfg(test)]
mod tests {
    use config::ConfigFile;

    use super::*;

    #[test]
    fn routes_of_others_to_blocks_are_in_the_way_before_there_are_any_of_ours() {
        let file = ConfigFile::parse("pools: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]\n", "test").unwrap();
        let config = file.for_node("n1");
        let mut observed = Observed::default();
        let route = |prefix: &str, gateway: Option<&str>, metric: u32| InstalledRoute {
            key: RouteKey { table: plan::MAIN_TABLE, prefix: prefix.parse().unwrap(), metric },
            protocol: 3,
            link: Some("flannel.1".parse().unwrap()),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        };
        observed.foreign_routes = vec![
            // The node's own block, a route that covers blocks, one of another network, and one that comes after ours.
            route("10.244.7.0/24", None, 0),
            route("10.244.0.0/17", Some("192.0.2.1"), 0),
            route("10.245.1.0/24", Some("192.0.2.1"), 0),
            route("10.244.9.0/24", Some("192.0.2.1"), config.kernel.route_metric + 1),
        ];
        assert_eq!(conflicts(&config, &observed), []);
        observed.foreign_routes.push(route("10.244.1.0/24", Some("10.244.1.0"), 0));
        observed.foreign_routes.push(route("10.244.2.64/26", Some("10.244.1.0"), 5000));
        let found = conflicts(&config, &observed);
        let texts: Vec<_> = found.iter().map(|found| (found.found.as_str(), found.wanted.as_str())).collect();
        let route =
            "route 10.244.1.0/24 via 10.244.1.0 dev flannel.1 table 254 metric 0 proto 3 (boot), and 1 more,";
        assert_eq!(texts, [(route, "routes to blocks of 10.244.0.0/16")]);
        assert!(found[0].hint.ends_with("ip route flush root 10.244.0.0/16 proto 3"), "{}", found[0].hint);
    }
}
