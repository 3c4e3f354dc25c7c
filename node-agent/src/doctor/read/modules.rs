//! Whether the running kernel has a module, without loading it.

use std::fs;
use std::path::Path;

use super::super::facts::ModuleState;

/// Looks where the kernel and the distribution keep their lists.
pub(super) fn state(name: &str) -> ModuleState {
    if Path::new("/sys/module").join(name).exists() || is_loaded(&read("/proc/modules"), name) {
        return ModuleState::Present;
    }
    let release = read("/proc/sys/kernel/osrelease");
    let folder = Path::new("/lib/modules").join(release.trim());
    let list = |file: &str| fs::read_to_string(folder.join(file)).ok();
    match (list("modules.builtin"), list("modules.dep")) {
        (Some(built_in), _) if names(&built_in).any(|module| module == name) => ModuleState::Present,
        (_, Some(modules)) if names(&modules).any(|module| module == name) => ModuleState::OnDisk,
        (None, None) => ModuleState::Unknown(format!(
            "{} has no list of the kernel's modules: in a container, look on the machine itself",
            folder.display()
        )),
        (_, _) => ModuleState::Missing,
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// `vxlan 155648 0 - Live 0x0000000000000000`
fn is_loaded(proc_modules: &str, name: &str) -> bool {
    proc_modules.lines().any(|line| line.split(' ').next() == Some(name))
}

/// `kernel/drivers/net/vxlan/vxlan.ko.xz: kernel/net/ipv6/ip6_udp_tunnel.ko.xz`; in modules.builtin without what follows.
fn names(list: &str) -> impl Iterator<Item = String> + '_ {
    list.lines().filter_map(|line| {
        let path = line.split(':').next()?;
        let file = path.rsplit('/').next()?;
        // The kernel writes '_' where a file may have '-'.
        Some(file.split(".ko").next()?.replace('-', "_"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_kernel_and_distribution_write_them() {
        let dep = "kernel/drivers/net/vxlan/vxlan.ko.xz: kernel/net/ipv4/udp_tunnel.ko.xz\nkernel/net/ipv4/ipip.ko:\n";
        assert_eq!(names(dep).collect::<Vec<_>>(), ["vxlan", "ipip"]);
        assert_eq!(names("kernel/net/bridge/br-netfilter.ko\n").collect::<Vec<_>>(), ["br_netfilter"]);
        let loaded = "vxlan 155648 0 - Live 0x0000000000000000\nip_tunnel 32768 1 ipip, Live 0x0\n";
        assert!(is_loaded(loaded, "vxlan") && !is_loaded(loaded, "ipip"));
    }
}
