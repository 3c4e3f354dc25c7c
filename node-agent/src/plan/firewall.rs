//! The nftables table that is wanted, and what of nftables an operator should know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use vxlan::firewall::{Firewall, ForwardDrop, Guard, IpGuard, Masquerade, Table, forward_drops};
use vxlan::{IpTunnel, State, TunnelEnds, TunnelKind, Vni};

use super::cluster::Cluster;
use super::{Finding, World};
use crate::underlay::Local;

/// What an operator loads where the kernel lacks something of it.
pub(crate) const MODULES: &str = "modprobe -a nf_tables nft_chain_nat nft_masq nft_fib_inet";

/// Masquerade and guard as the configuration asks for them, over all nodes that the snapshot names.
pub(super) fn table(world: &World<'_>, cluster: &Cluster, wanted: &State) -> Option<Table> {
    let config = world.config;
    Firewall {
        pools: pools(world, cluster),
        nodes: cluster.at.keys().copied().collect(),
        masquerade: config
            .masquerade
            .enabled
            .then(|| Masquerade { exclude: config.masquerade.exclude.clone() }),
        guard: config.vxlan.guard.then_some(Guard { vni: Vni(config.vxlan.vni), port: config.vxlan.port }),
        ip_guard: if config.vxlan.guard { ip_guard(world, wanted) } else { None },
    }
    .table()
}

/// For the IP tunnels that are to stand. All have the same local address.
fn ip_guard(world: &World<'_>, wanted: &State) -> Option<IpGuard> {
    let of_ip = |kind: &TunnelKind| match kind {
        TunnelKind::Ip(kind) => Some(*kind),
        TunnelKind::Vxlan(_) => None,
    };
    let ours = wanted.links.values().filter_map(|link| of_ip(&link.kind).map(|kind| (kind, link.local)));
    let ours: BTreeMap<IpTunnel, IpAddr> = ours.collect();
    let IpAddr::V4(local) = *ours.values().next()? else { return None };
    let interfaces = world.observed.interfaces.iter();
    let others = interfaces.filter(|(name, _)| !world.observed.ours.links.contains_key(*name));
    let ends: Vec<&TunnelEnds> = others
        .filter_map(|(_, interface)| interface.ends.as_ref())
        .filter(|ends| ends.local == IpAddr::V4(local) || ends.local.is_unspecified())
        .collect();
    let of_kind = |kind: IpTunnel| {
        ends.iter().filter(|ends| ends.kinds.contains(&kind)).map(|ends| ends.remote).collect()
    };
    Some(IpGuard { local, kinds: ours.into_keys().map(|kind| (kind, of_kind(kind))).collect() })
}

/// Also pools that only others have in their configuration: their pods are pods.
fn pools(world: &World<'_>, cluster: &Cluster) -> Vec<IpNet> {
    let own = |pool: &IpNet| {
        [&world.local.ipv4, &world.local.ipv6]
            .into_iter()
            .flatten()
            .any(|found| pool.contains(&found.address.addr()))
    };
    // The record of a pool outlives it: one that nobody holds a block of, and that we don't have, holds no pods.
    let is_held = |pool: &IpNet| world.snapshot.claims.keys().any(|block| pool.contains(&block.net()));
    let recorded = world.snapshot.pools.keys().copied().filter(|pool| !own(pool) && is_held(pool));
    cluster.pools.iter().copied().chain(recorded).collect::<BTreeSet<_>>().into_iter().collect()
}

pub(super) fn report(world: &World<'_>, cluster: &Cluster, wanted: &State, findings: &mut BTreeSet<Finding>) {
    let netfilter = &world.observed.netfilter;
    if let (Some(why), Some(_)) = (&netfilter.unavailable, &wanted.firewall) {
        findings.insert(unavailable(why));
    }
    let devices = devices(world.local, cluster, wanted, world);
    for drop in forward_drops(&netfilter.forward, &cluster.pools, &devices) {
        findings.insert(Finding::new(
            "ForwardDropped",
            format!("{} {} {} {}", drop.family, drop.table, drop.chain, drop.pool),
            format!(
                "{drop}: pods on this node can't be reached, whatever the routes say; whoever wrote it has to accept them, for a try: {}",
                remedy(&drop)
            ),
        ));
    }
}

/// The commands that let a pool's packets pass, in the words of whatever wrote the chain.
pub(crate) fn remedy(drop: &ForwardDrop) -> String {
    let ForwardDrop { family, table, chain, pool, .. } = drop;
    let iptables = match (family.as_str(), table.as_str(), chain.as_str()) {
        ("ip", "filter", "FORWARD") => "iptables",
        ("ip6", "filter", "FORWARD") => "ip6tables",
        (_, "firewalld", _) => {
            return format!(
                "firewall-cmd --permanent --zone=trusted --add-source={pool}; firewall-cmd --reload"
            );
        }
        _ => return drop.remedy(),
    };
    format!("{iptables} -I FORWARD -s {pool} -j ACCEPT; {iptables} -I FORWARD -d {pool} -j ACCEPT")
}

/// The kernel lacks nf_tables or a part of it.
pub(crate) fn unavailable(why: &str) -> Finding {
    Finding::new(
        "FirewallUnavailable",
        "",
        format!(
            "the kernel refuses our nftables table ({why}): packets that leave the cluster are not masqueraded and the tunnel is not guarded; load what is missing with `{MODULES}`, or set masquerade.enabled and vxlan.guard to false"
        ),
    )
}

/// Devices that packets of pods come and go by: the underlay's, the tunnels, and those with an address in a pool.
fn devices(local: &Local, cluster: &Cluster, wanted: &State, world: &World<'_>) -> BTreeSet<String> {
    let underlay = [&local.ipv4, &local.ipv6].into_iter().flatten().map(|found| found.link.to_string());
    let tunnels = wanted.links.keys().map(ToString::to_string);
    let in_pool = |ip: IpAddr| cluster.pools.iter().any(|pool| pool.contains(&ip));
    let of_pods = world
        .observed
        .interfaces
        .iter()
        .filter(|(_, interface)| interface.addresses.iter().any(|a| in_pool(a.address.addr())))
        .map(|(name, _)| name.to_string());
    underlay.chain(tunnels).chain(of_pods).collect()
}
