//! Changes as people read them, in the words of `ip` and `bridge`.

use std::fmt;

use super::Change;

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddLink(name, _) => write!(f, "add device {name}"),
            Self::SetLink(name, _) => write!(f, "set device {name}"),
            Self::DeleteLink(name) => write!(f, "delete device {name}"),
            Self::SetRpFilter(name, value) => write!(f, "set rp_filter of {name} to {value}"),
            Self::AddAddress(address) => write!(f, "add address {} on {}", address.address, address.link),
            Self::DeleteAddress(address) => {
                write!(f, "delete address {} on {}", address.address, address.link)
            }
            Self::SetNeighbor(key, mac) => {
                write!(f, "set neighbour {} on {} to {mac}", key.address, key.link)
            }
            Self::DeleteNeighbor(key) => write!(f, "delete neighbour {} on {}", key.address, key.link),
            Self::SetFdb(key, remote) => write!(f, "set FDB entry {} on {} to {remote}", key.mac, key.link),
            Self::DeleteFdb(key) => write!(f, "delete FDB entry {} on {}", key.mac, key.link),
            Self::AddNexthop(id, nexthop) => {
                write!(f, "add nexthop {} via {} on {}", id.0, nexthop.gateway.address, nexthop.link)
            }
            Self::SetNexthop(id, nexthop) => {
                write!(f, "set nexthop {} via {} on {}", id.0, nexthop.gateway.address, nexthop.link)
            }
            Self::DeleteNexthop(id) => write!(f, "delete nexthop {}", id.0),
            Self::AddRoute(key, _) => write!(f, "add route {} in table {}", key.prefix, key.table),
            Self::SetRoute(key, _) => write!(f, "set route {} in table {}", key.prefix, key.table),
            Self::DeleteRoute(key) => write!(f, "delete route {} in table {}", key.prefix, key.table),
            Self::AddRule(rule) => write!(f, "add rule from {} to table {}", rule.from, rule.table),
            Self::DeleteRule(rule) => write!(f, "delete rule from {} to table {}", rule.from, rule.table),
            Self::SetFirewall(_) => write!(f, "write the nftables table"),
            Self::ChangeSets(changes) => {
                let add: usize = changes.iter().map(|change| change.add.len()).sum();
                let remove: usize = changes.iter().map(|change| change.remove.len()).sum();
                write!(f, "change the sets of the nftables table: {add} added, {remove} removed")
            }
            Self::DeleteFirewall => write!(f, "delete the nftables table"),
        }
    }
}
