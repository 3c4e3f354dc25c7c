//! A table in the language of `nft`, for people and for tests: `nft -f` makes the same table of it.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::table::{
    Chain, Expression, MetaKey, NETWORK, NFPROTO_IPV6, Rule, Set, SetKey, Table, Verdict, hook,
};

impl Table {
    /// The table as a file for `nft -f`, of family `inet`, under this name and with this comment.
    #[must_use]
    pub fn to_nft(&self, name: &str, comment: &str) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = write!(text, "table inet {name} {{\n\tcomment \"{comment}\"\n");
        for (name, set) in &self.sets {
            let _ = write_set(&mut text, name, set);
        }
        for (name, chain) in &self.chains {
            let _ = write_chain(&mut text, name, chain);
        }
        text.push_str("}\n");
        text
    }
}

fn write_set(text: &mut String, name: &str, set: &Set) -> fmt::Result {
    let key = match set.key {
        SetKey::Ipv4 => "ipv4_addr",
        SetKey::Ipv6 => "ipv6_addr",
        SetKey::Other => "something else",
    };
    writeln!(text, "\tset {name} {{\n\t\ttype {key}")?;
    if !set.elements.is_empty() {
        let elements: Vec<String> = set.elements.iter().map(ToString::to_string).collect();
        writeln!(text, "\t\telements = {{ {} }}", elements.join(", "))?;
    }
    writeln!(text, "\t}}")
}

fn write_chain(text: &mut String, name: &str, chain: &Chain) -> fmt::Result {
    writeln!(text, "\tchain {name} {{")?;
    if let Some(base) = &chain.base {
        let hook = match base.base.hook {
            0 => "prerouting",
            hook::INPUT => "input",
            hook::FORWARD => "forward",
            3 => "output",
            _ => "postrouting",
        };
        let policy = if base.drops { "drop" } else { "accept" };
        let (kind, priority) = (&base.base.kind, base.base.priority);
        writeln!(text, "\t\ttype {kind} hook {hook} priority {priority}; policy {policy};")?;
    }
    for rule in &chain.rules {
        writeln!(text, "\t\t{rule}")?;
    }
    writeln!(text, "\t}}")
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        let mut loaded = Loaded::default();
        for expression in &self.expressions {
            if let Some(word) = loaded.take(expression) {
                words.push(word);
            }
        }
        if !self.comment.is_empty() {
            words.push(format!("comment \"{}\"", self.comment));
        }
        f.write_str(&words.join(" "))
    }
}

/// What the register holds, as `nft` names it.
#[derive(Debug, Default)]
struct Loaded {
    name: String,
    ipv6: bool,
    address: bool,
    mask: Option<Vec<u8>>,
}

impl Loaded {
    /// The words of an expression, if it says something by itself.
    fn take(&mut self, expression: &Expression) -> Option<String> {
        let name = match expression {
            Expression::Meta(MetaKey::NetworkProtocol) => "meta nfproto".to_owned(),
            Expression::Meta(MetaKey::TransportProtocol) => "meta l4proto".to_owned(),
            Expression::Meta(MetaKey::InputIndex) => "iif".to_owned(),
            Expression::Meta(MetaKey::InputName) => "iifname".to_owned(),
            Expression::ConnectionState => "ct state".to_owned(),
            Expression::Meta(MetaKey::OutputName) => "oifname".to_owned(),
            Expression::Payload { base, offset, length } => self.payload(*base, *offset, *length),
            Expression::AddressKind => "fib daddr type".to_owned(),
            Expression::Mask(mask) => {
                self.mask = Some(mask.clone());
                return None;
            }
            Expression::Compare { equal, value } => return Some(self.compare(*equal, value)),
            Expression::Lookup { set, absent } => {
                return Some(format!("{} {}@{set}", self.name, if *absent { "!= " } else { "" }));
            }
            Expression::Counter => return Some("counter".to_owned()),
            Expression::Masquerade { fully_random } => {
                return Some(if *fully_random { "masquerade fully-random" } else { "masquerade" }.to_owned());
            }
            Expression::Reject => return Some("reject".to_owned()),
            Expression::Verdict(verdict) => return Some(verdict.to_string()),
            Expression::Range { .. } => return Some("<range>".to_owned()),
            Expression::Among { .. } => return Some("<lookup>".to_owned()),
            Expression::VerdictMap { map, .. } => return Some(format!("{} vmap @{map}", self.name)),
            Expression::Unread => return Some("<more rules>".to_owned()),
            Expression::Note => return Some("<log>".to_owned()),
            Expression::Extension(_) => return Some("<match>".to_owned()),
            Expression::Other(name) => return Some(format!("<{name}>")),
        };
        self.address = matches!(expression, Expression::Payload { base: NETWORK, .. });
        self.mask = None;
        self.name = name;
        None
    }

    fn payload(&self, base: u32, offset: u32, length: u32) -> String {
        match (base, offset, length) {
            (NETWORK, 12, 1..=4) if !self.ipv6 => "ip saddr".to_owned(),
            (NETWORK, 16, 1..=4) if !self.ipv6 => "ip daddr".to_owned(),
            (NETWORK, 8, 1..=16) if self.ipv6 => "ip6 saddr".to_owned(),
            (NETWORK, 24, 1..=16) if self.ipv6 => "ip6 daddr".to_owned(),
            (NETWORK, ..) => format!("@nh,{},{}", offset * 8, length * 8),
            (_, 2, 2) => "th dport".to_owned(),
            _ => format!("@th,{},{}", offset * 8, length * 8),
        }
    }

    fn compare(&mut self, equal: bool, value: &[u8]) -> String {
        let number = || value.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let value = match (self.name.as_str(), value) {
            ("meta nfproto", [protocol]) => {
                self.ipv6 = *protocol == NFPROTO_IPV6;
                if self.ipv6 { "ipv6" } else { "ipv4" }.to_owned()
            }
            ("meta l4proto", [17]) => "udp".to_owned(),
            ("iifname" | "oifname", name) => {
                format!("\"{}\"", String::from_utf8_lossy(name).trim_end_matches('\0'))
            }
            ("fib daddr type", kind) => match <[u8; 4]>::try_from(kind).map(u32::from_ne_bytes) {
                Ok(2) => "local".to_owned(),
                Ok(3) => "broadcast".to_owned(),
                Ok(5) => "multicast".to_owned(),
                Ok(other) => other.to_string(),
                Err(_) => number().to_string(),
            },
            (_, value) if self.address => self.prefix(value),
            _ => number().to_string(),
        };
        format!("{} {}{value}", self.name, if equal { "" } else { "!= " })
    }

    /// An address, or a prefix where a mask goes before or only the first bytes are compared.
    fn prefix(&self, value: &[u8]) -> String {
        let octets = |at: usize| value.get(at).copied().unwrap_or(0);
        let (address, width) = if self.ipv6 {
            (IpAddr::V6(Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(octets))), 16)
        } else {
            (IpAddr::V4(Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(octets))), 4)
        };
        match &self.mask {
            Some(mask) => format!("{address}/{}", mask.iter().map(|byte| byte.count_ones()).sum::<u32>()),
            None if value.len() < width => format!("{address}/{}", value.len() * 8),
            None => address.to_string(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Return => f.write_str("return"),
            Self::Continue => f.write_str("continue"),
        }
    }
}
