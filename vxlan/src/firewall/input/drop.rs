//! What a chain drops, in words, and the command that mends it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::Arriving;

/// A command names so many senders at most.
const NAMED: usize = 8;

/// A base chain that drops packets that this node must get.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InputDrop {
    /// `ip`, `ip6` or `inet`.
    pub family: String,
    /// Table of the base chain.
    pub table: String,
    /// The base chain.
    pub chain: String,
    /// What it drops.
    pub what: Arriving,
    /// The address that they are sent to; its family is theirs.
    pub to: IpAddr,
    /// The senders whose packets are dropped.
    pub from: BTreeSet<IpAddr>,
    /// These are all that were asked about.
    pub everybody: bool,
    /// By its policy; otherwise by a rule.
    pub by_policy: bool,
    /// The table has chains of ufw.
    pub ufw: bool,
}

impl InputDrop {
    /// The command that mends it until the next reload of whatever wrote the chain, in the words of that program where
    /// it is known. Senders beyond the first few are counted in a comment of the shell.
    #[must_use]
    pub fn remedy(&self) -> String {
        self.commands(|source| self.command(source))
    }

    /// The same where the legacy iptables keep the chain, which look like those of `iptables-nft`.
    #[must_use]
    pub fn legacy_remedy(&self) -> String {
        self.commands(|source| self.iptables("-legacy", source))
    }

    fn commands(&self, command: impl Fn(Option<IpAddr>) -> String) -> String {
        if self.everybody {
            return command(None);
        }
        let commands: Vec<String> =
            self.from.iter().take(NAMED).map(|source| command(Some(*source))).collect();
        let mut text = commands.join(" && ");
        if let Some(more) = self.from.len().checked_sub(NAMED).filter(|more| *more > 0) {
            text.push_str(&format!(" # and the same for {more} more"));
        }
        text
    }

    fn command(&self, source: Option<IpAddr>) -> String {
        let Self { family, table, chain, what, .. } = self;
        match (family.as_str(), table.as_str(), what) {
            (_, "firewalld", _) => format!("firewall-cmd {}", self.firewalld(source)),
            (_, _, Arriving::Udp(port) | Arriving::Tcp(port)) if self.ufw => {
                let word = if matches!(what, Arriving::Udp(_)) { "udp" } else { "tcp" };
                let from = source.map_or_else(|| "any".to_owned(), |source| source.to_string());
                format!("ufw allow proto {word} from {from} to {} port {port}", self.to)
            }
            ("ip" | "ip6", "filter", _) => self.iptables("", source),
            _ => {
                let word = if self.to.is_ipv4() { "ip" } else { "ip6" };
                let from = source.map_or_else(String::new, |source| format!("{word} saddr {source} "));
                let what = match what {
                    Arriving::Udp(port) => format!("udp dport {port}"),
                    Arriving::Tcp(port) => format!("tcp dport {port}"),
                    Arriving::Protocol(number) => format!("meta l4proto {number}"),
                };
                format!("nft insert rule {family} {table} {chain} {from}{what} accept")
            }
        }
    }

    /// `flavour`: what the program's name ends with.
    fn iptables(&self, flavour: &str, source: Option<IpAddr>) -> String {
        let program = if self.family == "ip6" { "ip6tables" } else { "iptables" };
        let from = source.map_or_else(String::new, |source| format!(" -s {source}"));
        let what = match self.what {
            Arriving::Udp(port) => format!("udp --dport {port}"),
            Arriving::Tcp(port) => format!("tcp --dport {port}"),
            Arriving::Protocol(number) => number.to_string(),
        };
        format!("{program}{flavour} -I {}{from} -p {what} -j ACCEPT", self.chain)
    }

    fn firewalld(&self, source: Option<IpAddr>) -> String {
        if let Some(source) = source {
            return format!("--zone=trusted --add-source={source}");
        }
        match self.what {
            Arriving::Udp(port) => format!("--add-port={port}/udp"),
            Arriving::Tcp(port) => format!("--add-port={port}/tcp"),
            // As /etc/protocols has them.
            Arriving::Protocol(4) => "--add-protocol=ipencap".to_owned(),
            Arriving::Protocol(41) => "--add-protocol=ipv6".to_owned(),
            Arriving::Protocol(number) => format!("--add-protocol={number}"),
        }
    }
}

impl fmt::Display for InputDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, chain, what, to, .. } = self;
        let how = if self.by_policy { "its policy" } else { "a rule" };
        write!(f, "chain {chain} of the nftables table {family} {table} drops {what} to {to} by {how}")?;
        let mut from = self.from.iter();
        match from.next() {
            Some(first) if !self.everybody => match from.len() {
                0 => write!(f, ", from {first}"),
                others => write!(f, ", from {first} and {others} more"),
            },
            _ => Ok(()),
        }
    }
}
