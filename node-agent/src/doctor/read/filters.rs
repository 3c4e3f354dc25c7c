//! The legacy iptables, which nftables does not show.

use std::fs;
use std::io;
use std::process::{Command, Output, Stdio};

use vxlan::firewall::ForeignChain;

use super::super::facts::Known;

mod legacy;

/// The policy of FORWARD, where tables of the legacy iptables are in use.
pub(super) fn legacy_forward() -> Known<Option<String>> {
    const NAMES: &str = "/proc/net/ip_tables_names";
    match fs::read_to_string(NAMES) {
        Ok(names) if names.lines().any(|name| name == "filter") => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{NAMES} can't be read: {error}; run this as root")),
    }
    let output = listed("iptables-legacy", &["-w", "5", "-S", "FORWARD"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().find_map(|line| line.strip_prefix("-P FORWARD ")).map(str::to_owned))
}

/// Chains that packets for this machine go through, from the lists that the legacy iptables print.
pub(super) fn legacy_input() -> Known<Vec<ForeignChain>> {
    let mut chains = Vec::new();
    for (names, program, family) in [
        ("/proc/net/ip_tables_names", "iptables-legacy", "ip"),
        ("/proc/net/ip6_tables_names", "ip6tables-legacy", "ip6"),
    ] {
        match fs::read_to_string(names) {
            Ok(text) if text.lines().any(|name| name == "filter") => {}
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("{names} can't be read: {error}; run this as root")),
        }
        let output = listed(program, &["-w", "5", "-S"])?;
        chains.extend(legacy::chains(family, &String::from_utf8_lossy(&output.stdout)));
    }
    Ok(chains)
}

fn listed(program: &str, arguments: &[&str]) -> Known<Output> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                format!("there is no `{program}` here to list the rules")
            } else {
                format!("`{program}` can't be run: {error}")
            }
        })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or_default();
    Err(format!("`{program}` fails ({}): {first}; run this as root", output.status))
}
