//! Prefixes as UPDATE carries them: a length in bits and as many octets as that needs (RFC 4271 §4.3).

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::reader::Reader;
use crate::Family;

/// All prefixes of a field. Bits beyond the length are irrelevant on the wire and are cleared.
pub(super) fn decode(family: Family, field: &[u8]) -> Result<Vec<IpNet>, &'static str> {
    let mut reader = Reader::new(field);
    let mut prefixes = Vec::new();
    while let Some(bits) = reader.u8() {
        let octets = reader.take(usize::from(bits).div_ceil(8)).ok_or("a prefix is longer than its field")?;
        prefixes.push(match family {
            Family::Ipv4 => {
                let address = Ipv4Addr::from(padded(octets).ok_or("IPv4 prefix length above 32")?);
                let net = Ipv4Net::new(address, bits).map_err(|_| "IPv4 prefix length above 32")?;
                IpNet::V4(net.trunc())
            }
            Family::Ipv6 => {
                let address = Ipv6Addr::from(padded::<16>(octets).ok_or("IPv6 prefix length above 128")?);
                let net = Ipv6Net::new(address, bits).map_err(|_| "IPv6 prefix length above 128")?;
                IpNet::V6(net.trunc())
            }
        });
    }
    Ok(prefixes)
}

fn padded<const N: usize>(octets: &[u8]) -> Option<[u8; N]> {
    let mut address = [0; N];
    address.get_mut(..octets.len())?.copy_from_slice(octets);
    Some(address)
}

/// Octets that a prefix takes.
pub(super) fn encoded_len(prefix: IpNet) -> usize {
    1 + usize::from(prefix.prefix_len()).div_ceil(8)
}

pub(super) fn encode(prefix: IpNet, out: &mut BytesMut) {
    let octets = encoded_len(prefix) - 1;
    out.put_u8(prefix.prefix_len());
    match prefix {
        IpNet::V4(net) => out.put_slice(&net.network().octets()[..octets]),
        IpNet::V6(net) => out.put_slice(&net.network().octets()[..octets]),
    }
}

/// AFI and SAFI of a family (RFC 4760 §5).
pub(super) fn afi_safi(family: Family) -> (u16, u8) {
    match family {
        Family::Ipv4 => (1, 1),
        Family::Ipv6 => (2, 1),
    }
}

/// The family of AFI and SAFI, if we know it.
pub(super) fn family(afi: u16, safi: u8) -> Option<Family> {
    match (afi, safi) {
        (1, 1) => Some(Family::Ipv4),
        (2, 1) => Some(Family::Ipv6),
        _ => None,
    }
}
