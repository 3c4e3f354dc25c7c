//! Texts with a form of their own: the schema names the form (`format`), this checks it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::glob::Glob;
use crate::limits::{DEVICE_SUFFIX, MAX_INTERFACE_NAME, MAX_SOCKET_PATH, MAX_TABLE_NAME};
use crate::raw::{NONE, percent};
use crate::{duration, name};

/// What is wrong with a text, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) problem: String,
    pub(crate) hint: String,
    /// What is plainly meant, where that is clear: what else is wrong with it is told in the same run.
    pub(crate) meant: Option<String>,
}

fn malformed<T>(problem: impl Into<String>, hint: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed { problem: problem.into(), hint: hint.into(), meant: None })
}

/// Checks `text` against the form that the schema names. Forms that are no business of ours hold.
pub(crate) fn check(format: &str, text: &str) -> Result<(), Malformed> {
    match format {
        "address" => address(text).map(drop),
        "cidr" => cidr(text).map(drop),
        "conflist-path" => conflist_path(text),
        "device-prefix" => device_prefix(text),
        "duration" => match duration::parse(text) {
            Ok(_) => Ok(()),
            Err(problem) => malformed(problem, "write a number with its unit: 500ms, 9s, 10m, 1h30m, 2d"),
        },
        "endpoint" => endpoint(text),
        "glob" => match Glob::new(text) {
            Some(_) => Ok(()),
            None => malformed(
                format!("`{text}` matches no node name"),
                "use lower-case letters, digits, `-`, `.`, `*` for any characters, `?` for one",
            ),
        },
        "key-prefix" => key_prefix(text),
        "label-key" => label_key(text),
        "label-value" => label_value(text),
        "namespace" => match name::is_label(text) {
            true => Ok(()),
            false => malformed(
                format!("`{text}` is no namespace"),
                "use lower-case letters, digits and `-`, at most 63, a letter or digit at both ends",
            ),
        },
        "node-name" => node_name(text),
        "path" => path(text, usize::MAX),
        "path-or-none" => path_or_none(text),
        "percent" => match percent(text) {
            Some(_) => Ok(()),
            None => malformed(format!("`{text}` is no share"), "write a whole number of percent: 0% to 100%"),
        },
        "peer-name" => match name::is_label(text) {
            true => Ok(()),
            false => malformed(
                format!("`{text}` is not a name"),
                "use lower-case letters, digits and `-`, at most 63, a letter or digit at both ends",
            ),
        },
        "router-id" => router_id(text),
        "socket-address" => socket_address(text),
        "socket-path" => path(text, MAX_SOCKET_PATH),
        "table-name" => match text.len() <= MAX_TABLE_NAME && is_table_name(text) {
            true => Ok(()),
            false => malformed(
                format!("`{text}` can't be an nftables table"),
                format!("use letters, digits, `-` and `_`, a letter first, at most {MAX_TABLE_NAME}"),
            ),
        },
        "text" => match text.trim().is_empty() {
            false => Ok(()),
            true => malformed("an empty text", "write it, or remove the key"),
        },
        "underlay" => underlay(text),
        _ => Ok(()),
    }
}

/// An IP address, IPv4 never in its IPv6 clothes.
fn address(text: &str) -> Result<IpAddr, Malformed> {
    if text.contains('%') {
        return malformed(
            format!("`{text}` has a zone"),
            "link-local addresses with a zone are not in this version",
        );
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => malformed(
            format!("`{text}` is an IPv4 address mapped into IPv6"),
            v6.to_ipv4_mapped().map_or_else(String::new, |v4| format!("write `{v4}`")),
        ),
        Ok(address) => Ok(address),
        Err(_) => malformed(
            format!("`{text}` is not an IP address"),
            if text.contains('/') {
                "write the address without a prefix length"
            } else {
                "for example 192.0.2.1 or 2001:db8::1"
            },
        ),
    }
}

/// `http://HOST:PORT` or `https://HOST:PORT`.
fn endpoint(text: &str) -> Result<(), Malformed> {
    let hint = "write https://HOST:PORT, for example https://192.0.2.1:2379 or https://[2001:db8::1]:2379";
    let no_endpoint = || malformed(format!("`{text}` is no endpoint"), hint);
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return no_endpoint();
    };
    let Some((host, port)) = rest.trim_end_matches('/').rsplit_once(':') else {
        return malformed(format!("`{text}` has no port"), hint);
    };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')),
    };
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    if is_host && is_port { Ok(()) } else { no_endpoint() }
}

/// What keys begin with: parts of letters, digits and some signs, each after a slash.
fn key_prefix(text: &str) -> Result<(), Malformed> {
    let is_part = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let is_prefix =
        text.len() <= 200 && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_part));
    if is_prefix {
        Ok(())
    } else {
        malformed(
            format!("`{text}` is no prefix of keys"),
            "write parts of letters, digits, `-`, `_` and `.`, each after a slash: /pairway or /clusters/a",
        )
    }
}

/// A prefix with no host bits set.
pub(crate) fn cidr(text: &str) -> Result<IpNet, Malformed> {
    let Some((address_text, length)) = text.split_once('/') else {
        return match address(text) {
            Ok(address) => malformed(
                format!("`{text}` has no prefix length"),
                format!("add it; `{}` is this address alone", IpNet::from(address)),
            ),
            Err(_) => {
                malformed(format!("`{text}` is not a CIDR"), "for example 10.244.0.0/16 or fd10:244::/48")
            }
        };
    };
    let address = address(address_text)?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length: u8 = match length.parse() {
        Ok(length) if length <= bits => length,
        _ => {
            return malformed(
                format!("`{text}` has no legal prefix length"),
                format!("a prefix length of {} is 0 to {bits}", if bits == 32 { "IPv4" } else { "IPv6" }),
            );
        }
    };
    let Ok(net) = IpNet::new(address, length) else {
        return malformed(format!("`{text}` is not a CIDR"), "for example 10.244.0.0/16 or fd10:244::/48");
    };
    if net == net.trunc() {
        Ok(net)
    } else {
        let meant = net.trunc().to_string();
        Err(Malformed {
            problem: format!("`{text}` has host bits set"),
            hint: format!("write `{meant}`"),
            meant: Some(meant),
        })
    }
}

fn is_table_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

fn device_prefix(text: &str) -> Result<(), Malformed> {
    let room = MAX_INTERFACE_NAME - DEVICE_SUFFIX.len();
    let legal = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if text.len() > room {
        malformed(
            format!("`{text}` is too long for a device prefix"),
            format!(
                "at most {room} characters, for `{DEVICE_SUFFIX}` follows and a device name has {MAX_INTERFACE_NAME}"
            ),
        )
    } else if legal {
        Ok(())
    } else {
        malformed(
            format!("`{text}` can't begin a device name"),
            "use letters, digits, `-` and `_`, a letter first",
        )
    }
}

/// Kubernetes' syntax of label keys: an optional DNS subdomain and `/`, then a name.
fn label_key(text: &str) -> Result<(), Malformed> {
    let (prefix, word) = text.rsplit_once('/').map_or((None, text), |(prefix, word)| (Some(prefix), word));
    if prefix.is_none_or(name::is_subdomain) && !word.is_empty() && is_label_word(word) {
        Ok(())
    } else {
        malformed(
            format!("`{text}` is not a label key"),
            "for example `zone` or `topology.kubernetes.io/zone`",
        )
    }
}

fn label_value(text: &str) -> Result<(), Malformed> {
    if is_label_word(text) {
        Ok(())
    } else {
        malformed(
            format!("`{text}` is not a label value"),
            "use letters, digits, `-`, `_` and `.`, at most 63, a letter or digit at both ends",
        )
    }
}

fn is_label_word(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.is_empty()
        || (text.len() <= 63
            && text.starts_with(edge)
            && text.ends_with(edge)
            && text.chars().all(|c| edge(c) || matches!(c, '-' | '_' | '.')))
}

fn node_name(text: &str) -> Result<(), Malformed> {
    if name::is_node(text) {
        return Ok(());
    }
    if name::is_subdomain(text) {
        let most = name::NODE_NAME_BYTES;
        let what = format!("the node name has {} characters", text.len());
        return malformed(what, format!("at most {most}: the store names a file after it"));
    }
    let lower = text.to_ascii_lowercase();
    malformed(
        format!("`{text}` is not a node name"),
        if name::is_node(&lower) {
            format!("write `{lower}`")
        } else {
            "use `auto`, or lower-case letters, digits, `-` and `.`, a letter or digit at both ends of each part".into()
        },
    )
}

fn path(text: &str, limit: usize) -> Result<(), Malformed> {
    if !text.starts_with('/') {
        malformed(format!("`{text}` is not an absolute path"), "begin with `/`")
    } else if text.chars().any(char::is_control) {
        malformed("the path has control characters", "remove them")
    } else if text.len() > limit {
        malformed(format!("`{text}` is too long"), format!("a unix socket's path has at most {limit} bytes"))
    } else {
        Ok(())
    }
}

fn path_or_none(text: &str) -> Result<(), Malformed> {
    if text == NONE { Ok(()) } else { path(text, usize::MAX) }
}

/// A container runtime reads no other names.
fn conflist_path(text: &str) -> Result<(), Malformed> {
    path_or_none(text)?;
    if text == NONE || text.strip_suffix(".conflist").is_some_and(|stem| !stem.ends_with('/')) {
        return Ok(());
    }
    malformed(
        format!("no container runtime reads `{text}`"),
        "let it end in .conflist, for example /etc/cni/net.d/10-pairway.conflist",
    )
}

fn router_id(text: &str) -> Result<(), Malformed> {
    match text.parse::<Ipv4Addr>() {
        _ if text == "auto" => Ok(()),
        Ok(Ipv4Addr::UNSPECIFIED) => {
            malformed("`0.0.0.0` is no BGP identifier (RFC 6286)", "use `auto` or another number")
        }
        Ok(_) => Ok(()),
        Err(_) => {
            malformed(format!("`{text}` is no BGP identifier"), "use `auto` or four numbers like 192.0.2.1")
        }
    }
}

fn socket_address(text: &str) -> Result<(), Malformed> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            malformed(format!("`{text}` has port 0"), "write a port of 1 to 65535")
        }
        Ok(_) => Ok(()),
        Err(_) => malformed(
            format!("`{text}` is not an address with a port"),
            match text.parse::<IpAddr>() {
                Ok(address) => {
                    format!("write `{}`", SocketAddr::new(address, crate::defaults::HTTP_ADDRESS.port()))
                }
                Err(_) => "for example 127.0.0.1:9474 or [::1]:9474".to_owned(),
            },
        ),
    }
}

/// An interface name, or a CIDR.
fn underlay(text: &str) -> Result<(), Malformed> {
    if text.contains('/') || text.parse::<IpAddr>().is_ok() {
        return cidr(text).map(drop);
    }
    let legal = (1..=MAX_INTERFACE_NAME).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, ':' | '*' | '?'))
        && !matches!(text, "." | "..");
    if legal {
        Ok(())
    } else {
        malformed(
            format!("`{text}` is neither an interface nor a CIDR"),
            format!(
                "use `auto`, an interface's name (at most {MAX_INTERFACE_NAME} characters), a CIDR, or a list of them"
            ),
        )
    }
}

#[cfg(test)]
mod tests;
