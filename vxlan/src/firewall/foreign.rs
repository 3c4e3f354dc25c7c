//! Chains of others, as far as packets of ours go through them, and the extensions of iptables that they may use. Pure.

use super::table::{BaseChain, Rule};

/// A chain of somebody else's: one at a hook, or one that such a chain leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignChain {
    /// `ip`, `ip6` or `inet`.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where it is hooked in, if it is.
    pub base: Option<BaseChain>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Matches of iptables that iptables-nft has no expression of nftables for (`linux/netfilter/xt_*.h`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extension {
    /// `-m comment`
    Comment,
    /// `-m conntrack --ctstate`, `-m state`
    State {
        /// Bits as [`super::table::state`] has them.
        bits: u32,
        /// None of them.
        invert: bool,
    },
    /// `-m udp`, `-m tcp` without flags and options: ranges of ports.
    Ports {
        /// Source ports; all of them if not asked for.
        source: Ports,
        /// Destination ports.
        destination: Ports,
    },
    /// `-m multiport`
    ManyPorts {
        /// Whether the destination port may be the one.
        destination: bool,
        /// Whether the source port may be the one.
        source: bool,
        /// First and last of each range.
        ranges: Vec<(u16, u16)>,
        /// None of them.
        invert: bool,
    },
    /// `-m addrtype --dst-type`: kinds of the destination address, a bit of the number of each
    /// ([`super::AddressKind::number`]).
    DestinationKind {
        /// The bits.
        bits: u16,
        /// None of them.
        invert: bool,
    },
}

/// A range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// All but these.
    pub invert: bool,
}

impl Ports {
    /// Whether a port is among them.
    #[must_use]
    pub const fn has(self, port: u16) -> bool {
        (self.first <= port && port <= self.last) != self.invert
    }

    /// Whether every port is.
    #[must_use]
    pub const fn all(self) -> bool {
        self.first == 0 && self.last == u16::MAX && !self.invert
    }
}

impl Extension {
    /// Reads what a match of this name and revision asks for; nothing if it is none of these, or asks for more.
    #[must_use]
    pub fn read(name: &str, revision: u32, info: &[u8]) -> Option<Self> {
        match name {
            "comment" => Some(Self::Comment),
            "state" => Some(Self::State { bits: u32_at(info, 0)?, invert: false }),
            "conntrack" if (2..=3).contains(&revision) => Self::conntrack(info),
            // struct xt_udp: source, destination, inversions. struct xt_tcp has option, mask and flags before these.
            "udp" => Self::ports(info, *info.get(8)?),
            "tcp" if info.get(8..11)?.iter().take(2).all(|byte| *byte == 0) => {
                Self::ports(info, *info.get(11)?)
            }
            "multiport" if revision == 1 => Self::multiport(info),
            "addrtype" if revision == 1 => {
                let (source, bits, flags) = (u16_at(info, 0)?, u16_at(info, 2)?, u32_at(info, 4)?);
                (source == 0 && flags & !2 == 0).then_some(Self::DestinationKind { bits, invert: flags == 2 })
            }
            _ => None,
        }
    }

    /// `struct xt_conntrack_mtinfo3`: eight addresses and masks, expiry, protocol and ports, then what is asked for.
    fn conntrack(info: &[u8]) -> Option<Self> {
        const STATE: u16 = 1;
        // `-m state` asks the same under its own name.
        const ALIAS: u16 = 1 << 13;
        let (asked, inverted, bits) = (u16_at(info, 146)?, u16_at(info, 148)?, u16_at(info, 150)?);
        (asked & !ALIAS == STATE).then_some(Self::State { bits: bits.into(), invert: inverted & STATE != 0 })
    }

    fn ports(info: &[u8], inverted: u8) -> Option<Self> {
        let range = |at: usize, bit: u8| {
            let (first, last) = (u16_at(info, at)?, u16_at(info, at + 2)?);
            Some(Ports { first, last, invert: inverted & bit != 0 })
        };
        (inverted & !3 == 0).then_some(())?;
        Some(Self::Ports { source: range(0, 1)?, destination: range(4, 2)? })
    }

    /// `struct xt_multiport_v1`: which, count, 15 ports, 15 marks of those that begin a range, inversion.
    fn multiport(info: &[u8]) -> Option<Self> {
        let (which, count, invert) = (*info.first()?, usize::from(*info.get(1)?), *info.get(47)? != 0);
        let mut ranges = Vec::new();
        let mut index = 0;
        while index < count.min(15) {
            let first = u16_at(info, 2 + 2 * index)?;
            let begins = *info.get(32 + index)? != 0;
            index += usize::from(begins);
            let last = if begins { u16_at(info, 2 + 2 * index)? } else { first };
            ranges.push((first, last));
            index += 1;
        }
        Some(Self::ManyPorts { destination: which != 0, source: which != 1, ranges, invert })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
