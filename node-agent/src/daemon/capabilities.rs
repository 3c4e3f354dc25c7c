//! What the process must be allowed to do: told by name, and how to give it, before anything is touched.

use std::fs;

/// `CAP_NET_BIND_SERVICE` (`linux/capability.h`).
const NET_BIND_SERVICE: u32 = 10;
/// `CAP_NET_ADMIN`.
const NET_ADMIN: u32 = 12;
/// Below it a port is privileged where the system does not say otherwise.
const UNPRIVILEGED_PORTS_FROM: u16 = 1024;

/// The process may not do what the agent is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPermitted {
    /// No change of the network at all.
    #[error(
        "this process lacks the capability CAP_NET_ADMIN, without which it can't set up devices and routes: run it as root, \
         add `AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE` to its systemd unit, \
         or `capabilities: {{ add: [NET_ADMIN, NET_BIND_SERVICE] }}` to the securityContext of its container"
    )]
    NetAdmin,
    /// The BGP port is privileged.
    #[error(
        "this process lacks the capability CAP_NET_BIND_SERVICE, without which it can't listen on bgp.port {port}: run it as root, \
         add `AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE` to its systemd unit, \
         or `capabilities: {{ add: [NET_ADMIN, NET_BIND_SERVICE] }}` to the securityContext of its container; \
         or set bgp.port to {first} or above on every node"
    )]
    BindService {
        /// The configured port.
        port: u16,
        /// The first port that needs no capability.
        first: u16,
    },
}

/// Refuses a process that lacks a capability that it needs with this BGP port. Where the system does not tell what
/// the process may do, the first change will.
///
/// # Errors
/// The capability that is missing.
pub(super) fn require(bgp_port: u16) -> Result<(), NotPermitted> {
    let Some(effective) = fs::read_to_string("/proc/self/status").ok().and_then(|text| effective(&text))
    else {
        tracing::warn!("/proc/self/status does not tell the capabilities of this process");
        return Ok(());
    };
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(UNPRIVILEGED_PORTS_FROM);
    judge(effective, bgp_port, first)
}

fn judge(effective: u64, bgp_port: u16, first_unprivileged: u16) -> Result<(), NotPermitted> {
    let may = |capability: u32| effective & (1 << capability) != 0;
    if !may(NET_ADMIN) {
        return Err(NotPermitted::NetAdmin);
    }
    if bgp_port < first_unprivileged && !may(NET_BIND_SERVICE) {
        return Err(NotPermitted::BindService { port: bgp_port, first: first_unprivileged });
    }
    Ok(())
}

/// The effective set as `/proc/PID/status` shows it, in hexadecimal.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read() {
        let status = "Name:\tpairway\nCapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000003400\n";
        assert_eq!(effective(status), Some(0x3400));
        assert_eq!(effective("Name:\tpairway\n"), None);
        assert_eq!(effective("CapEff:\tmany\n"), None);
    }

    #[test]
    fn each_capability_is_asked_for_where_it_is_needed() {
        let (admin, bind) = (1 << NET_ADMIN, 1 << NET_BIND_SERVICE);
        for (effective, port, first, wanted) in [
            (admin | bind, 179, 1024, Ok(())),
            (u64::MAX, 179, 1024, Ok(())),
            (bind, 1179, 1024, Err(NotPermitted::NetAdmin)),
            (0, 179, 0, Err(NotPermitted::NetAdmin)),
            (admin, 179, 1024, Err(NotPermitted::BindService { port: 179, first: 1024 })),
            (admin, 1024, 1024, Ok(())),
            (admin, 1179, 1024, Ok(())),
            (admin, 179, 0, Ok(())),
            (admin, 1179, 2000, Err(NotPermitted::BindService { port: 1179, first: 2000 })),
        ] {
            assert_eq!(judge(effective, port, first), wanted, "{effective:x} {port} {first}");
        }
    }
}
