//! The version of the running kernel, and the oldest that will do.

use std::fmt;
use std::io;

/// The oldest kernel that we run on. Before it a block's first address is a broadcast address beside a CNI bridge,
/// and the MTU of a route is ignored in forwarding.
pub const MINIMUM_KERNEL: KernelRelease = KernelRelease { major: 5, minor: 14 };

/// Version of a kernel, as far as features go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelRelease {
    /// 6 of 6.18.44.
    pub major: u32,
    /// 18 of 6.18.44.
    pub minor: u32,
}

impl fmt::Display for KernelRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The running kernel is too old, or its version can't be read.
#[derive(Debug, thiserror::Error)]
pub enum KernelTooOld {
    /// It is older than [`MINIMUM_KERNEL`].
    #[error("Linux {0} is too old: {MINIMUM_KERNEL} or newer is needed")]
    TooOld(KernelRelease),
    /// Its version can't be read.
    #[error("can't tell the version of this kernel from /proc/sys/kernel/osrelease")]
    Unknown(#[source] io::Error),
}

/// The version of the running kernel.
///
/// # Errors
/// `/proc` is not mounted or holds something that is no version.
pub fn kernel_release() -> io::Result<KernelRelease> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    parse(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{:?} is no version", text.trim())))
}

/// Refuses a kernel older than [`MINIMUM_KERNEL`].
///
/// # Errors
/// The kernel is too old or its version can't be read.
pub fn require_kernel() -> Result<KernelRelease, KernelTooOld> {
    accept(kernel_release().map_err(KernelTooOld::Unknown)?)
}

fn accept(release: KernelRelease) -> Result<KernelRelease, KernelTooOld> {
    if release < MINIMUM_KERNEL { Err(KernelTooOld::TooOld(release)) } else { Ok(release) }
}

/// `6.18.44-fc-v657`, `5.14.0-427.el9.x86_64`, `6.1-rc3`.
fn parse(text: &str) -> Option<KernelRelease> {
    let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some(KernelRelease { major, minor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        let release = |major, minor| Some(KernelRelease { major, minor });
        assert_eq!(parse("6.18.44-fc-v657\n"), release(6, 18));
        assert_eq!(parse("5.14.0-427.13.1.el9_4.x86_64"), release(5, 14));
        assert_eq!(parse("6.1-rc3"), release(6, 1));
        assert_eq!(parse(""), None);
        assert_eq!(parse("linux"), None);
    }

    #[test]
    fn an_old_kernel_is_refused_with_both_versions() {
        let old = KernelRelease { major: 5, minor: 10 };
        let error = accept(old).unwrap_err();
        assert_eq!(error.to_string(), "Linux 5.10 is too old: 5.14 or newer is needed");
        assert_eq!(accept(MINIMUM_KERNEL).unwrap(), MINIMUM_KERNEL);
        assert!(require_kernel().unwrap() >= MINIMUM_KERNEL);
    }
}
