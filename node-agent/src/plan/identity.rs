//! Functions of a name: no allocator, nothing to leak, the same after a reboot (invariant 11).

use std::net::Ipv4Addr;

use bgp::Family;
use sha2::{Digest, Sha256};
use vxlan::{IpTunnel, LinkName, Mac};

use crate::node::{NodeName, Underlay};

/// The Ethernet address of a node's VTEP: the first six bytes of SHA-256 over `pairway vtep` and the name, made
/// a locally administered unicast address.
#[must_use]
pub fn vtep_mac(name: &NodeName) -> Mac {
    let digest = hash("pairway vtep", name.as_str());
    let mut bytes = [0; 6];
    bytes.copy_from_slice(&digest[..6]);
    bytes[0] = (bytes[0] | 0x02) & 0xfe;
    Mac(bytes)
}

/// The BGP identifier: as configured, else the underlay's IPv4 address, else a hash of the name (RFC 6286 wants
/// any number but zero).
#[must_use]
pub fn router_id(name: &NodeName, configured: Option<Ipv4Addr>, underlay: &Underlay) -> Ipv4Addr {
    configured.or_else(|| underlay.ipv4.map(|net| net.addr())).unwrap_or_else(|| {
        let digest = hash("pairway router id", name.as_str());
        let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        Ipv4Addr::from(number.max(1))
    })
}

/// Name of the tunnel device of an underlay family: `pairway-vx4`. `None` if the configured beginning is too long.
#[must_use]
pub fn device_name(prefix: &str, underlay: Family) -> Option<LinkName> {
    let digit = match underlay {
        Family::Ipv4 => 4,
        Family::Ipv6 => 6,
    };
    format!("{prefix}-vx{digit}").parse().ok()
}

/// Name of the device for a kind of IP tunnel: `pairway-ipip`, `pairway-sit`. `None` if the configured beginning is too long.
#[must_use]
pub fn ip_device_name(prefix: &str, kind: IpTunnel) -> Option<LinkName> {
    format!("{prefix}-{kind}").parse().ok()
}

fn hash(purpose: &str, text: &str) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(purpose.as_bytes());
    digest.update([0]);
    digest.update(text.as_bytes());
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_fixed() {
        let name: NodeName = "n1".parse().unwrap();
        // Peers of every version compute these: a change cuts tunnels in a mixed cluster.
        let mac = vtep_mac(&name);
        assert_eq!(mac.to_string(), "da:5e:ba:39:b8:42");
        assert_eq!(mac.0[0] & 0x03, 0x02, "locally administered, unicast");
        assert_eq!(router_id(&name, None, &Underlay::default()).to_string(), "114.151.142.213");
        assert_eq!(device_name("pairway", Family::Ipv6).unwrap().as_str(), "pairway-vx6");
        assert_eq!(device_name("a-name-too-long", Family::Ipv4), None);
        assert_eq!(ip_device_name("pairway", IpTunnel::Ipip).unwrap().as_str(), "pairway-ipip");
        assert_eq!(ip_device_name("pairway", IpTunnel::Sit).unwrap().as_str(), "pairway-sit");
    }
}
