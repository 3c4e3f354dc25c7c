//! Netlink attributes: a walk over what the kernel sent, and a writer for what no library writes. Pure and total.

use std::net::IpAddr;

/// Bits of an attribute's type that are not its kind (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const KIND_MASK: u16 = 0x3fff;
const NESTED: u16 = 1 << 15;
const HEADER: usize = 4;

/// The attributes in a buffer: kind and value. It ends at the first that does not fit.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & KIND_MASK;
        let value = bytes.get(HEADER..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

pub(super) fn u8_at(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// An address of 4 or 16 bytes.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// A text that ends with a zero byte.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Appends an attribute.
pub(super) fn put(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
    buffer.extend(length.to_ne_bytes());
    buffer.extend(kind.to_ne_bytes());
    buffer.extend(value);
    buffer.resize(align(buffer.len()), 0);
}

/// Appends an attribute that holds attributes.
pub(super) fn put_nested(buffer: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let begin = buffer.len();
    put(buffer, kind | NESTED, &[]);
    fill(buffer);
    let length = u16::try_from(buffer.len() - begin).unwrap_or(u16::MAX);
    buffer[begin..begin + 2].copy_from_slice(&length.to_ne_bytes());
}

/// The bytes of an address.
pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// `NLA_ALIGN`, `NLMSG_ALIGN`.
pub(super) fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_put_is_found() {
        let mut buffer = Vec::new();
        put(&mut buffer, 3, b"eth0\0");
        put_nested(&mut buffer, 26, |inner| put(inner, 8, &2u32.to_ne_bytes()));
        assert_eq!(buffer.len() % 4, 0);
        assert_eq!(attribute(&buffer, 3).map(text).as_deref(), Some("eth0"));
        assert_eq!(attribute(attribute(&buffer, 26).unwrap(), 8).and_then(|v| u32_at(v, 0)), Some(2));
        assert_eq!(attribute(&buffer, 4), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let total: usize = attributes(&bytes).map(|(_, value)| value.len() + HEADER).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}
