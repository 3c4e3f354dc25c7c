//! A network namespace for each measurement.
//!
//! It belongs to a thread, and goes with it and with the programs that the thread has started.

use std::panic::resume_unwind;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::BenchError;

/// The underlay device of the namespace.
pub(super) const UNDERLAY: &str = "eth0";

/// Runs a measurement on a thread in a network namespace of its own, with an underlay device that is up.
pub(super) fn within<T: Send>(
    measure: impl FnOnce() -> Result<T, BenchError> + Send,
) -> Result<T, BenchError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(std::io::Error::from)
                .map_err(BenchError::system("make a network namespace (as root?)"))?;
            prepare()?;
            measure()
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn prepare() -> Result<(), BenchError> {
    // Written by a thread, `/proc/sys/net` is that of the thread's namespace. Nothing here waits for IPv6.
    for (path, value) in [("ipv6/conf/default/disable_ipv6", "1"), ("ipv4/ip_forward", "1")] {
        let path = format!("/proc/sys/net/{path}");
        std::fs::write(&path, value).map_err(BenchError::system(format!("write {path}")))?;
    }
    for line in [
        "link set lo up",
        "link add eth0 type veth peer name far",
        "link set far up",
        "link set eth0 up",
        "address add 192.168.0.1/16 dev eth0",
        "route add default via 192.168.255.254",
    ] {
        ip(line)?;
    }
    Ok(())
}

/// Runs `ip` with these arguments in the namespace of the calling thread; its output.
pub(super) fn ip(arguments: &str) -> Result<String, BenchError> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .map_err(BenchError::system("run ip"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(BenchError::program(&format!("ip {arguments}"), said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Index of a device in the namespace of the calling thread.
pub(super) fn index(device: &str) -> Result<u32, BenchError> {
    let line = ip(&format!("-o link show dev {device}"))?;
    let number = line.split(':').next().and_then(|number| number.trim().parse().ok());
    number.ok_or_else(|| BenchError::program("ip link show", line.trim()))
}
