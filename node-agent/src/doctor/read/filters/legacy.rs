//! What the legacy iptables print, as the chains that nftables would show of it. Pure.
//!
//! Understood is what says whether a packet of ours comes in; a word that is not understood makes its rule one that may
//! match or not, and do anything where it is a target.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use vxlan::firewall::{
    Base, BaseChain, Expression, Extension, ForeignChain, MetaKey, Ports, Rule, Verdict, hook, state,
};

/// Reads what `iptables-legacy -S` prints of the table `filter`. `family` is `ip` or `ip6`.
pub(super) fn chains(family: &str, text: &str) -> Vec<ForeignChain> {
    let mut chains: BTreeMap<String, ForeignChain> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(command), Some(name)) = (words.first(), words.get(1)) else { continue };
        let chain = chains.entry((*name).to_owned()).or_insert_with(|| ForeignChain {
            family: family.to_owned(),
            table: "filter".to_owned(),
            name: (*name).to_owned(),
            base: None,
            rules: Vec::new(),
        });
        match (*command, *name) {
            ("-P", "INPUT") => {
                let base = Base { kind: "filter".to_owned(), hook: hook::INPUT, priority: 0 };
                chain.base = Some(BaseChain { base, drops: words.get(2) == Some(&"DROP") });
            }
            ("-A", _) => chain.rules.push(rule(family, words.get(2..).unwrap_or_default())),
            _ => {}
        }
    }
    chains.into_values().collect()
}

fn rule(family: &str, words: &[&str]) -> Rule {
    let mut expressions = Vec::new();
    let mut words = words.iter().copied();
    let mut invert = false;
    while let Some(word) = words.next() {
        if word == "!" {
            invert = true;
            continue;
        }
        let mut value = || words.next().unwrap_or_default();
        let found = match word {
            // Says only what the next words belong to.
            "-m" => match value() {
                "comment" | "tcp" | "udp" | "conntrack" | "state" | "multiport" | "addrtype" => {
                    Some(Vec::new())
                }
                _ => None,
            },
            "--comment" => {
                // The words of a comment are in quotes, if there are several.
                let mut text = value().to_owned();
                while text.starts_with('"') && (text.len() < 2 || !text.ends_with('"')) {
                    let Some(next) = words.next() else { break };
                    text.push_str(next);
                }
                Some(Vec::new())
            }
            "-p" => protocol(value(), invert),
            "-i" => Some(device(value(), invert)),
            "-s" => address(family, value(), 0, invert),
            "-d" => address(family, value(), 1, invert),
            "--dport" => ports(value()).map(|(first, last)| {
                let source = Ports { first: 0, last: u16::MAX, invert: false };
                extension(Extension::Ports { source, destination: Ports { first, last, invert } })
            }),
            "--dports" => value().split(',').map(ports).collect::<Option<Vec<_>>>().map(|ranges| {
                extension(Extension::ManyPorts { destination: true, source: false, ranges, invert })
            }),
            "--ctstate" | "--state" => {
                let bits = value().split(',').map(state_bit).fold(0, |bits, bit| bits | bit);
                Some(extension(Extension::State { bits, invert }))
            }
            "--dst-type" => kinds(value()).map(|bits| extension(Extension::DestinationKind { bits, invert })),
            "-j" | "-g" => {
                expressions.push(end(value(), word == "-g"));
                break;
            }
            _ => None,
        };
        expressions.extend(found.unwrap_or_else(|| vec![Expression::Other("match".to_owned())]));
        invert = false;
    }
    Rule::new(expressions)
}

fn extension(extension: Extension) -> Vec<Expression> {
    vec![Expression::Extension(extension)]
}

fn end(target: &str, goto: bool) -> Expression {
    match target {
        "ACCEPT" => Expression::Verdict(Verdict::Accept),
        "DROP" => Expression::Verdict(Verdict::Drop),
        "RETURN" => Expression::Verdict(Verdict::Return),
        "REJECT" => Expression::Reject,
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TRACE" => Expression::Note,
        name if goto => Expression::Verdict(Verdict::Goto(name.to_owned())),
        // A chain, or a target of an extension: that is no chain, and may do anything.
        name => Expression::Verdict(Verdict::Jump(name.to_owned())),
    }
}

fn protocol(text: &str, invert: bool) -> Option<Vec<Expression>> {
    let number = match text {
        "icmp" => 1,
        "ipencap" => 4,
        "tcp" => 6,
        "udp" => 17,
        "ipv6" => 41,
        "ipv6-icmp" | "icmpv6" => 58,
        number => number.parse().ok()?,
    };
    let compare = Expression::Compare { equal: !invert, value: vec![number] };
    Some(vec![Expression::Meta(MetaKey::TransportProtocol), compare])
}

/// A name that ends with `+` stands for all that begin with it.
fn device(name: &str, invert: bool) -> Vec<Expression> {
    let value = match name.strip_suffix('+') {
        Some(begin) => begin.as_bytes().to_vec(),
        None => [name.as_bytes(), &[0]].concat(),
    };
    vec![Expression::Meta(MetaKey::InputName), Expression::Compare { equal: !invert, value }]
}

/// An address of the network header: the source is the first, the destination the second.
fn address(family: &str, text: &str, place: u32, invert: bool) -> Option<Vec<Expression>> {
    let (net, mask): (IpNet, Vec<u8>) = if family == "ip" {
        let net: Ipv4Net = text.parse().or_else(|_| format!("{text}/32").parse()).ok()?;
        (net.into(), net.netmask().octets().to_vec())
    } else {
        let net: Ipv6Net = text.parse().or_else(|_| format!("{text}/128").parse()).ok()?;
        (net.into(), net.netmask().octets().to_vec())
    };
    let (begin, length) = if family == "ip" { (12, 4) } else { (8, 16) };
    let value = match net.network() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    Some(vec![
        Expression::Payload { base: 1, offset: begin + place * length, length },
        Expression::Mask(mask),
        Expression::Compare { equal: !invert, value },
    ])
}

fn ports(text: &str) -> Option<(u16, u16)> {
    match text.split_once(':') {
        Some((first, last)) => Some((first.parse().ok()?, last.parse().ok()?)),
        None => text.parse().ok().map(|port| (port, port)),
    }
}

/// `NF_CT_STATE_BIT`
fn state_bit(name: &str) -> u32 {
    match name {
        "INVALID" => 1,
        "ESTABLISHED" => 2,
        "RELATED" => 4,
        "NEW" => state::NEW,
        // SNAT and DNAT are states to iptables alone.
        _ => 1 << 6,
    }
}

/// A bit of the number of each kind (`RTN_*`).
fn kinds(text: &str) -> Option<u16> {
    text.split(',').try_fold(0, |bits, name| {
        let number = match name {
            "UNICAST" => 1,
            "LOCAL" => 2,
            "BROADCAST" => 3,
            "ANYCAST" => 4,
            "MULTICAST" => 5,
            _ => return None,
        };
        Some(bits | 1 << number)
    })
}

#[cfg(test)]
mod tests {
    use vxlan::firewall::{Arrival, Arriving, input_drops};

    use super::*;

    fn dropped(rules: &str) -> Vec<String> {
        let text = format!("-P INPUT DROP\n-P FORWARD ACCEPT\n-N USER\n{rules}");
        let arrival = |what| Arrival {
            what,
            device: ("eth1".to_owned(), 7),
            to: "192.0.2.1".parse().unwrap(),
            from: ["192.0.2.7".parse().unwrap()].into(),
        };
        let arrivals = [Arriving::Udp(4789), Arriving::Tcp(179), Arriving::Protocol(4)].map(arrival);
        input_drops(&chains("ip", &text), &arrivals).iter().map(|drop| drop.what.to_string()).collect()
    }

    #[test]
    fn rules_mean_what_they_say() {
        let (udp, tcp, ipip) = ("UDP port 4789", "TCP port 179", "IP protocol 4");
        let cases: [(&str, &[&str]); 18] = [
            ("", &[udp, tcp, ipip]),
            ("-A INPUT -i lo -j ACCEPT", &[udp, tcp, ipip]),
            ("-A INPUT ! -i lo -j ACCEPT", &[]),
            ("-A INPUT -i eth+ -j ACCEPT", &[]),
            ("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", &[udp, tcp, ipip]),
            ("-A INPUT -m state --state NEW -j ACCEPT", &[]),
            ("-A INPUT -p udp -m udp --dport 4789 -j ACCEPT", &[tcp, ipip]),
            (
                "-A INPUT -p udp -m udp --dport 4000:5000 -m comment --comment \"a tunnel of ours\" -j ACCEPT",
                &[tcp, ipip],
            ),
            ("-A INPUT -p tcp -m multiport --dports 22,179 -j ACCEPT", &[udp, ipip]),
            ("-A INPUT -p ipencap -j ACCEPT", &[udp, tcp]),
            ("-A INPUT ! -p 17 -j ACCEPT", &[udp]),
            ("-A INPUT -s 192.0.2.0/24 -j ACCEPT", &[]),
            ("-A INPUT -s 192.0.2.9/32 -j ACCEPT", &[udp, tcp, ipip]),
            ("-A INPUT -d 192.0.2.1/32 -p udp -j ACCEPT", &[tcp, ipip]),
            ("-A INPUT -m addrtype --dst-type MULTICAST -j ACCEPT", &[udp, tcp, ipip]),
            ("-A INPUT -m set --match-set trusted src -j ACCEPT", &[]),
            ("-A INPUT -j USER\n-A USER -p tcp -j ACCEPT\n-A USER -j RETURN", &[udp, ipip]),
            ("-A INPUT -j TARPIT", &[]),
        ];
        for (rules, expected) in cases {
            assert_eq!(dropped(rules), expected, "{rules}");
        }
        let accepting = chains("ip", "-P INPUT ACCEPT\n");
        assert!(accepting[0].base.as_ref().is_some_and(|base| !base.drops));
        assert_eq!(chains("ip", "-P FORWARD DROP\n")[0].base, None);
    }

    #[test]
    fn any_text_is_read() {
        for text in [
            "-A",
            "-A INPUT -p",
            "-A INPUT -s nonsense -j",
            "-A INPUT --comment \"",
            "\n \n-P INPUT",
            "-A X ! ! -i",
        ] {
            let _ = chains("ip6", text);
        }
    }
}
