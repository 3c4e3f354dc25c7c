//! What to do about changes that the kernel refuses, where its words tell.

use vxlan::Failure;

use crate::plan;

/// As the kernel begins what it says of a device whose `disable_ipv6` is set (`net/ipv6/addrconf.c`, `route.c`).
const WITHOUT_IPV6: &str = "IPv6 is disabled";

/// The command that lets the kernel take what it has refused; empty where none is known.
pub(super) fn advice(failures: &[Failure]) -> String {
    let without_ipv6 = failures.iter().find(|failure| failure.error.message.contains(WITHOUT_IPV6));
    let Some(failure) = without_ipv6 else { return String::new() };
    let mut command = plan::enable_ipv6("all");
    // Setting it for all changes nothing where it was set for one device alone.
    if let Some(link) = failure.change.link() {
        command.push_str(&format!(" net.ipv6.conf.{link}.disable_ipv6=0"));
    }
    format!("; IPv6 is switched off there: `{command}` allows it, a file in /etc/sysctl.d keeps it")
}

#[cfg(test)]
mod tests {
    use vxlan::{Address, ApplyError, Change};

    use super::*;

    #[test]
    fn a_device_without_ipv6_comes_with_the_command() {
        let failure = |change: Change, message: &str| Failure {
            change,
            error: ApplyError { errno: 22, message: message.to_owned() },
        };
        let address = Change::AddAddress(Address {
            link: "pairway-vx4".parse().unwrap(),
            address: "fd10:244::/128".parse().unwrap(),
        });
        let other = failure(Change::DeleteFirewall, "Operation not permitted");
        assert_eq!(advice(&[]), "");
        assert_eq!(advice(std::slice::from_ref(&other)), "");
        let refused = failure(address, "IPv6 is disabled on this device");
        let text = advice(&[other, refused]);
        let command = "`sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.pairway-vx4.disable_ipv6=0`";
        assert!(text.contains(command), "{text}");
    }
}
