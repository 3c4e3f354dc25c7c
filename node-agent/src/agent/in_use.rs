//! Whether the kernel shows that a block's addresses are in use here, by others than us. Pure.

use ipnet::IpNet;
use vxlan::{Conflict, Observed};

use crate::node::Block;
use crate::status::CommandError;

/// No more of them are named.
const NAMED: usize = 3;

/// What of others stands in the block: addresses of interfaces, and routes to the block or into it.
pub(super) fn users(observed: &Observed, block: Block) -> Vec<String> {
    let within = |net: IpNet| block.net().contains(&net);
    let interfaces = observed.interfaces.iter().filter(|(name, _)| !observed.ours.links.contains_key(*name));
    let addresses = interfaces.flat_map(|(name, interface)| {
        let addresses = interface.addresses.iter().map(|address| address.address);
        addresses
            .filter(|address| within(IpNet::from(address.addr())))
            .map(move |address| format!("address {address} of {name}"))
    });
    let routes = observed.foreign_routes.iter().filter(|route| within(route.key.prefix)).map(|route| {
        let device = route.link.as_ref().map_or_else(String::new, |link| format!(" on {link}"));
        format!("route {}{device}", route.key.prefix)
    });
    let mut users: Vec<String> = addresses.chain(routes).collect();
    users.dedup();
    users
}

/// Why a block in use is not given back.
pub(super) fn refusal(block: Block, users: &[String]) -> CommandError {
    let more = users.len().checked_sub(NAMED).filter(|more| *more > 0);
    let more = more.map_or_else(String::new, |more| format!(" and {more} more"));
    let named: Vec<&str> = users.iter().take(NAMED).map(String::as_str).collect();
    CommandError {
        code: "in-use".to_owned(),
        message: format!("{block} is in use on this node: {}{more}", named.join(", ")),
        hint: "move its pods away and let the container network take its interface down first; --force gives the block \
               back all the same, and its pods can't be reached from other nodes then"
            .to_owned(),
    }
}

/// What to do about a conflict. The container network's own route to a block that was lost to another node serves the
/// pods that still run here: it is not to be deleted.
pub(super) fn hint(conflict: &Conflict, lost: &[Block]) -> String {
    let is_of = |block: &&Block| conflict.wanted.starts_with(&format!("route {block} "));
    match lost.iter().find(is_of) {
        Some(block) => format!(
            "{block} was this node's (see BlockLost) and pods with its addresses may still run here: leave this route, it \
             goes when they are restarted with addresses of another block"
        ),
        None => conflict.hint.clone(),
    }
}

#[cfg(test)]
mod tests {
    use vxlan::{InstalledRoute, Interface, InterfaceAddress, RouteKey};

    use super::*;

    fn block() -> Block {
        Block::new("10.244.7.0/24".parse().unwrap())
    }

    fn interface(address: &str) -> Interface {
        let address =
            InterfaceAddress { address: address.parse().unwrap(), unfit: false, local_scope: false };
        Interface {
            index: 1,
            kind: "bridge".to_owned(),
            alias: String::new(),
            up: true,
            carrier: true,
            mtu: 1500,
            mac: None,
            tunnel: None,
            ends: None,
            forwards: None,
            addresses: vec![address],
        }
    }

    fn route(prefix: &str) -> InstalledRoute {
        InstalledRoute {
            key: RouteKey { table: 254, prefix: prefix.parse().unwrap(), metric: 0 },
            protocol: 2,
            link: Some("cni0".parse().unwrap()),
            gateway: None,
        }
    }

    #[test]
    fn what_others_have_in_the_block_uses_it() {
        let mut observed = Observed::default();
        // The underlay, another block's bridge, and routes that cover more than the block.
        observed.interfaces.insert("eth0".parse().unwrap(), interface("192.0.2.1/24"));
        observed.interfaces.insert("cni1".parse().unwrap(), interface("10.244.8.1/24"));
        observed.foreign_routes = vec![route("10.244.0.0/16"), route("10.244.8.0/24")];
        assert_eq!(users(&observed, block()), Vec::<String>::new());

        observed.interfaces.insert("cni0".parse().unwrap(), interface("10.244.7.1/24"));
        observed.foreign_routes.extend([route("10.244.7.0/24"), route("10.244.7.9/32")]);
        let users = users(&observed, block());
        assert_eq!(
            users,
            ["address 10.244.7.1/24 of cni0", "route 10.244.7.0/24 on cni0", "route 10.244.7.9/32 on cni0"]
        );
        let refusal = refusal(block(), &[users.clone(), users].concat());
        assert_eq!(refusal.code, "in-use");
        assert!(refusal.message.ends_with("route 10.244.7.9/32 on cni0 and 3 more"), "{}", refusal.message);
    }

    #[test]
    fn the_route_of_the_container_network_to_a_lost_block_is_left_alone() {
        let conflict = Conflict {
            wanted: "route 10.244.7.0/24 table 254 metric 1120".to_owned(),
            found: "route 10.244.7.0/24 of cni0".to_owned(),
            hint: "remove it: ip route delete 10.244.7.0/24".to_owned(),
        };
        assert_eq!(hint(&conflict, &[Block::new("10.244.70.0/24".parse().unwrap())]), conflict.hint);
        let text = hint(&conflict, &[block()]);
        assert!(text.contains("leave this route") && !text.contains("delete"), "{text}");
    }
}
