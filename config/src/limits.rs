//! What values may be at most, and what the rest of the machine has taken already.

use std::time::Duration;

use ipnet::IpNet;

/// Bytes of a configuration file: as much as a ConfigMap holds.
pub(crate) const MAX_FILE: usize = 1 << 20;
/// Values in a file after its aliases are written out.
pub(crate) const MAX_NODES: usize = 50_000;
/// Maps and lists within each other.
pub(crate) const MAX_DEPTH: usize = 32;

/// Blocks of a pool are at most 2 to the power of this.
pub(crate) const MAX_POOL_BITS: u8 = 24;
/// Longest block prefix of IPv4: four addresses.
pub(crate) const MAX_BLOCK_PREFIX_V4: u8 = 30;
/// Longest block prefix of IPv6: four addresses.
pub(crate) const MAX_BLOCK_PREFIX_V6: u8 = 126;

/// `blocks.reuseAfter`: a store forgets after a day that a block was given back.
pub(crate) const MAX_REUSE_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Bytes of a unix socket's path: `sun_path` with its closing zero is 108.
pub(crate) const MAX_SOCKET_PATH: usize = 107;
/// `IFNAMSIZ` is 16 with the closing zero.
pub(crate) const MAX_INTERFACE_NAME: usize = 15;
/// Characters of a table's name: far below `NFT_TABLE_MAXNAMELEN`, and what fits a line.
pub(crate) const MAX_TABLE_NAME: usize = 31;
/// What follows the device prefix: `-vx4`, `-vx6`.
pub(crate) const DEVICE_SUFFIX: &str = "-ipip";

/// No pod can have an address in these: they are not forwarded, or not unicast.
const UNROUTABLE: &[(&str, &str)] = &[
    ("0.0.0.0/8", "\"this network\" (RFC 791)"),
    ("127.0.0.0/8", "loopback (RFC 1122)"),
    ("169.254.0.0/16", "link-local (RFC 3927)"),
    ("224.0.0.0/4", "multicast (RFC 5771)"),
    ("240.0.0.0/4", "reserved (RFC 1112)"),
    ("::/96", "unspecified and loopback (RFC 4291)"),
    ("::ffff:0:0/96", "IPv4-mapped (RFC 4291)"),
    ("64:ff9b::/96", "address translation (RFC 6052)"),
    ("100::/64", "discard-only (RFC 6666)"),
    ("fe80::/10", "link-local (RFC 4291)"),
    ("ff00::/8", "multicast (RFC 4291)"),
];

/// The first range that `net` shares addresses with and that can't carry pods: the range and its purpose.
pub(crate) fn unroutable(net: IpNet) -> Option<(IpNet, &'static str)> {
    UNROUTABLE.iter().find_map(|(range, purpose)| {
        let range: IpNet = range.parse().ok()?;
        overlap(range, net).then_some((range, *purpose))
    })
}

/// Whether two prefixes share an address.
pub(crate) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Why a node or peer can't have this AS number; `None` if it can.
pub(crate) fn reserved_asn(asn: u32) -> Option<&'static str> {
    match asn {
        0 => Some("reserved (RFC 7607)"),
        23456 => Some("AS_TRANS (RFC 6793)"),
        65535 => Some("reserved (RFC 7300)"),
        4_294_967_295 => Some("reserved (RFC 7300)"),
        _ => None,
    }
}

/// Who has this route protocol number; `None` if it is free. (`rtnetlink.h`, iproute2's `rt_protos`, and the
/// numbers that other network plugins are known to use.)
pub(crate) fn route_protocol_owner(number: u8) -> Option<&'static str> {
    match number {
        0 => Some("the kernel (unspec)"),
        1 => Some("the kernel (redirect)"),
        2 => Some("the kernel"),
        3 => Some("the kernel (boot)"),
        4 => Some("administrators (static)"),
        5..=7 => Some("the kernel (reserved)"),
        8 => Some("gated"),
        9 => Some("the kernel (router advertisements)"),
        10 => Some("mrtd"),
        11 => Some("zebra"),
        12 => Some("BIRD"),
        13 => Some("DECnet"),
        14 => Some("xorp"),
        15 => Some("netsukuku"),
        16 => Some("DHCP clients"),
        17 => Some("mrouted, kube-router"),
        18 => Some("keepalived"),
        30 | 31 => Some("other network plugins"),
        42 => Some("babeld"),
        80 => Some("Calico"),
        84 => Some("ovn"),
        99 => Some("Open/R"),
        186..=192 => Some("FRR"),
        193..=196 => Some("FRR"),
        _ => None,
    }
}

/// Whether the kernel or the administrator has this routing table.
pub(crate) fn table_owner(table: u32) -> Option<&'static str> {
    match table {
        0 => Some("unspec"),
        253 => Some("default"),
        254 => Some("main"),
        255 => Some("local"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unroutable_range_parses_and_is_found() {
        for (range, purpose) in UNROUTABLE {
            let range: IpNet = range.parse().unwrap();
            assert_eq!(range, range.trunc());
            assert_eq!(unroutable(range), Some((range, *purpose)));
        }
        for net in ["10.244.0.0/16", "192.0.2.0/24", "100.64.0.0/10", "fd10:244::/48", "2001:db8::/32"] {
            assert_eq!(unroutable(net.parse().unwrap()), None, "{net}");
        }
        assert!(unroutable("0.0.0.0/0".parse().unwrap()).is_some());
        assert!(unroutable("::/0".parse().unwrap()).is_some());
    }

    #[test]
    fn defaults_are_nobody_elses() {
        assert_eq!(route_protocol_owner(crate::defaults::ROUTE_PROTOCOL), None);
        assert_eq!(reserved_asn(crate::defaults::ASN), None);
        assert_eq!(table_owner(crate::defaults::TABLE), None);
    }
}
