//! What we ask of nftables: masquerading of what leaves the cluster, and the guard of our tunnel. Pure.
//!
//! [`Firewall`] says what is wanted, in our own words; [`Firewall::table`] makes the one [`Table`] of it that is
//! written to the kernel and compared with what the kernel holds. `forward` and `input` judge what others do to forwarded
//! packets and to those that must arrive here, which no table of ours can overrule.

mod foreign;
mod forward;
mod input;
mod table;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::state::{IpTunnel, Vni};

pub use foreign::{Extension, ForeignChain, Ports};
pub use forward::{ForwardDrop, forward_drops};
pub use input::{Arrival, Arriving, InputDrop, input_drops};
pub use table::{
    AddressKind, Base, BaseChain, Chain, Choice, Count, Expression, MetaKey, Rule, Set, SetKey, Table,
    Verdict, hook, priority, state,
};

/// Set of the nodes' IPv4 underlay addresses.
pub const NODES_IPV4: &str = "nodes4";
/// Set of the nodes' IPv6 underlay addresses.
pub const NODES_IPV6: &str = "nodes6";
/// Comment of the rules that count what is masqueraded.
pub const MASQUERADED: &str = "leaves the cluster";
/// Comment of the rules that count what the guard drops.
pub const GUARDED: &str = "our VNI from an unknown node";
/// Comment of the rules that count what the guard of IP-in-IP drops.
pub const IP_GUARDED: &str = "IP-in-IP from an unknown node";

const POSTROUTING: &str = "postrouting";
const GUARD: &str = "guard";

/// What the nftables table of ours should do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Firewall {
    /// CIDRs of pods.
    pub pools: Vec<IpNet>,
    /// Underlay addresses of all nodes that we know, our own among them.
    pub nodes: BTreeSet<IpAddr>,
    /// Masquerade what leaves the cluster.
    pub masquerade: Option<Masquerade>,
    /// Drop tunnelled packets of strangers.
    pub guard: Option<Guard>,
    /// Drop IP-in-IP of strangers.
    pub ip_guard: Option<IpGuard>,
}

/// Packets of pods to the outside get the node's address.
///
/// Left alone are packets to pods, to nodes' underlay addresses, to this node itself, to multicast and broadcast
/// addresses and to what is excluded; so no packet between pod and node is ever translated, either way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Masquerade {
    /// Destinations that see pod addresses all the same.
    pub exclude: Vec<IpNet>,
}

/// Packets with our VNI on our port from an address that is no node's are dropped. Other people's VXLAN, on the same
/// port too, is none of our business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// Our network identifier.
    pub vni: Vni,
    /// Our UDP port.
    pub port: u16,
}

/// Packets of an IP tunnel of ours from an address that is no node's are dropped: such a tunnel has no identifier, so all
/// that is sent to its local address arrives by it. What comes from the other end of a tunnel of somebody else's with that
/// local address is that tunnel's, and passes; so does everything to other addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpGuard {
    /// The local address of our tunnels.
    pub local: Ipv4Addr,
    /// Our kinds of tunnel, each with the other ends of tunnels that others have from the same address.
    pub kinds: BTreeMap<IpTunnel, BTreeSet<IpAddr>>,
}

impl Firewall {
    /// The table that does it; nothing if nothing is asked for.
    #[must_use]
    pub fn table(&self) -> Option<Table> {
        if self.masquerade.is_none() && self.guard.is_none() && self.ip_guard.is_none() {
            return None;
        }
        let set = |key: SetKey| Set {
            key,
            elements: self.nodes.iter().copied().filter(|ip| key == SetKey::of(*ip)).collect(),
        };
        let mut table = Table {
            sets: BTreeMap::from([
                (NODES_IPV4.to_owned(), set(SetKey::Ipv4)),
                (NODES_IPV6.to_owned(), set(SetKey::Ipv6)),
            ]),
            chains: BTreeMap::new(),
        };
        if let Some(masquerade) = &self.masquerade {
            self.masquerade(masquerade, &mut table);
        }
        if let Some(guard) = &self.guard {
            table.chains.insert(GUARD.to_owned(), guard_chain(guard.rules()));
        }
        if let Some(guard) = &self.ip_guard {
            for (kind, others) in &guard.kinds {
                let elements = others.iter().copied().filter(IpAddr::is_ipv4).collect();
                table.sets.insert(set_of_others(*kind).to_owned(), Set { key: SetKey::Ipv4, elements });
            }
            let chain = table.chains.entry(GUARD.to_owned()).or_insert_with(|| guard_chain(Vec::new()));
            chain.rules.extend(guard.rules());
        }
        Some(table)
    }

    /// Postrouting sends what comes from a pool into a chain per family, which returns what stays and masquerades
    /// the rest. NAT looks at the first packet of a connection only.
    fn masquerade(&self, masquerade: &Masquerade, table: &mut Table) {
        let mut first = Vec::new();
        for key in [SetKey::Ipv4, SetKey::Ipv6] {
            let pools: Vec<IpNet> =
                unique(self.pools.iter().copied().filter(|pool| key == SetKey::of(pool.addr())));
            if pools.is_empty() {
                continue;
            }
            let leaving = match key {
                SetKey::Ipv4 | SetKey::Other => "leaving4",
                SetKey::Ipv6 => "leaving6",
            };
            for pool in &pools {
                let jump = Expression::Verdict(Verdict::Jump(leaving.to_owned()));
                first.push(Rule::new(with(source_in(*pool), jump)));
            }
            let back = || Expression::Verdict(Verdict::Return);
            let excluded =
                unique(masquerade.exclude.iter().copied().filter(|net| key == SetKey::of(net.addr())));
            let mut rules: Vec<Rule> = pools
                .iter()
                .chain(&excluded)
                .map(|net| Rule::new(with(destination_in(*net), back())))
                .collect();
            rules.push(Rule::new(with(looked_up(key, Address::Destination, false), back())));
            for kind in [AddressKind::Local, AddressKind::Broadcast, AddressKind::Multicast] {
                rules.push(Rule::new(vec![
                    Expression::AddressKind,
                    Expression::equals(kind.number().to_ne_bytes()),
                    back(),
                ]));
            }
            rules.push(Rule {
                expressions: vec![Expression::Counter, Expression::Masquerade { fully_random: true }],
                comment: MASQUERADED.to_owned(),
            });
            table.chains.insert(leaving.to_owned(), Chain { base: None, rules });
        }
        if first.is_empty() {
            return;
        }
        // After everybody else's source NAT: what an operator or kube-proxy translates stays as they have it.
        let base = Base { kind: "nat".to_owned(), hook: hook::POSTROUTING, priority: priority::SRCNAT + 10 };
        table
            .chains
            .insert(POSTROUTING.to_owned(), Chain { base: Some(BaseChain::accepting(base)), rules: first });
    }
}

impl Guard {
    fn rules(self) -> Vec<Rule> {
        let [_, a, b, c] = self.vni.0.to_be_bytes();
        let rules = [SetKey::Ipv4, SetKey::Ipv6].map(|key| {
            let mut expressions = vec![
                Expression::Meta(MetaKey::TransportProtocol),
                Expression::equals([UDP]),
                Expression::Payload { base: table::TRANSPORT, offset: UDP_DESTINATION, length: 2 },
                Expression::equals(self.port.to_be_bytes()),
                Expression::Payload { base: table::TRANSPORT, offset: VXLAN_VNI, length: 3 },
                Expression::equals([a, b, c]),
            ];
            expressions.extend(looked_up(key, Address::Source, true));
            expressions.extend([Expression::Counter, Expression::Verdict(Verdict::Drop)]);
            Rule { expressions, comment: GUARDED.to_owned() }
        });
        rules.into()
    }
}

impl IpGuard {
    fn rules(&self) -> Vec<Rule> {
        let rule = |kind: &IpTunnel| {
            let mut expressions =
                vec![Expression::Meta(MetaKey::TransportProtocol), Expression::equals([kind.protocol()])];
            expressions.extend(destination_in(IpNet::from(IpAddr::V4(self.local))));
            // The network protocol is known by now.
            let mut source = load(SetKey::Ipv4, Address::Source);
            source.drain(..2);
            for set in [NODES_IPV4, set_of_others(*kind)] {
                expressions.extend(source.iter().cloned());
                expressions.push(Expression::Lookup { set: set.to_owned(), absent: true });
            }
            expressions.extend([Expression::Counter, Expression::Verdict(Verdict::Drop)]);
            Rule { expressions, comment: IP_GUARDED.to_owned() }
        };
        self.kinds.keys().map(rule).collect()
    }
}

/// At the input hook: only packets for this node pay for it, and IPv4 fragments have been put together.
fn guard_chain(rules: Vec<Rule>) -> Chain {
    let base = Base { kind: "filter".to_owned(), hook: hook::INPUT, priority: priority::FILTER - 10 };
    Chain { base: Some(BaseChain::accepting(base)), rules }
}

/// The set of the other ends of others' tunnels of a kind.
const fn set_of_others(kind: IpTunnel) -> &'static str {
    match kind {
        IpTunnel::Ipip => "others_ipip",
        IpTunnel::Sit => "others_sit",
    }
}

/// `IPPROTO_UDP`.
const UDP: u8 = 17;
/// Offset of the destination port in the UDP header (RFC 768).
const UDP_DESTINATION: u32 = 2;
/// Offset of the VNI from the begin of the UDP header: UDP 8, flags 1, reserved 3 (RFC 7348 §5).
const VXLAN_VNI: u32 = 12;

#[derive(Debug, Clone, Copy)]
enum Address {
    Source,
    Destination,
}

/// Sorted, without what lies within another of them.
fn unique(nets: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    IpNet::aggregate(&nets.map(|net| net.trunc()).collect())
}

fn with(mut expressions: Vec<Expression>, last: Expression) -> Vec<Expression> {
    expressions.push(last);
    expressions
}

fn source_in(net: IpNet) -> Vec<Expression> {
    address_in(net, Address::Source)
}

fn destination_in(net: IpNet) -> Vec<Expression> {
    address_in(net, Address::Destination)
}

/// Loads an address of a packet of a family.
fn load(key: SetKey, address: Address) -> Vec<Expression> {
    let (protocol, length, source, destination) = match key {
        SetKey::Ipv4 | SetKey::Other => (table::NFPROTO_IPV4, 4, 12, 16),
        SetKey::Ipv6 => (table::NFPROTO_IPV6, 16, 8, 24),
    };
    let offset = match address {
        Address::Source => source,
        Address::Destination => destination,
    };
    vec![
        Expression::Meta(MetaKey::NetworkProtocol),
        Expression::equals([protocol]),
        Expression::Payload { base: table::NETWORK, offset, length },
    ]
}

/// As `nft` does it: where the prefix ends with a byte, only its bytes are loaded.
fn address_in(net: IpNet, address: Address) -> Vec<Expression> {
    let mut expressions = load(SetKey::of(net.addr()), address);
    let mut value = table::octets(net.network());
    if net.prefix_len() == 0 {
        expressions.pop();
        return expressions;
    }
    if net.prefix_len().is_multiple_of(8) {
        value.truncate(usize::from(net.prefix_len() / 8));
        if let Some(Expression::Payload { length, .. }) = expressions.last_mut() {
            *length = u32::from(net.prefix_len() / 8);
        }
    } else {
        expressions.push(Expression::Mask(table::octets(net.netmask())));
    }
    expressions.push(Expression::Compare { equal: true, value });
    expressions
}

fn looked_up(key: SetKey, address: Address, absent: bool) -> Vec<Expression> {
    let set = match key {
        SetKey::Ipv4 | SetKey::Other => NODES_IPV4,
        SetKey::Ipv6 => NODES_IPV6,
    };
    with(load(key, address), Expression::Lookup { set: set.to_owned(), absent })
}

/// nftables as one look at the kernel found it, beside our own table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Netfilter {
    /// The kernel has no nf_tables: its answer, in words.
    pub unavailable: Option<String>,
    /// A table of our name that does not carry our mark.
    pub foreign_table: bool,
    /// Packets that our table has masqueraded the first of, connections that is, since it was written.
    pub masqueraded: Count,
    /// Packets that the guards have dropped since they were written.
    pub guarded: Count,
    /// Filters of others change faster than they can be read: `forward` and `input` are what was read last, if ever.
    pub unread: bool,
    /// Chains of others through which forwarded packets go, and those that these lead to.
    pub forward: Arc<Vec<ForeignChain>>,
    /// Chains of others through which packets for this machine go, and those that these lead to.
    pub input: Arc<Vec<ForeignChain>>,
}

#[cfg(test)]
mod tests;
