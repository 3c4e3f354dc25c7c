//! Whatever happens to our objects, one pass brings them back.

use vxlan::Change;

use crate::namespace::{
    add_peer, eventually, ids, in_namespace, ip, ip_json, kernel, mesh, native, rename, run, settle,
    underlay_ipv6, wait_for_state,
};

/// Everything of ours as other programs show it, without what a new device or object makes different.
fn shown() -> String {
    let present = ip_json("-j link").iter().any(|link| link["ifname"] == "vx4");
    let mut lines =
        vec![ip("route show proto 155"), ip("-6 route show proto 155"), ip("nexthop show proto 155")];
    if present {
        lines.extend([
            settings(),
            ip("neigh show dev vx4"),
            ip("-br addr show dev vx4"),
            run("bridge", "fdb show dev vx4"),
        ]);
    }
    let mut lines: Vec<&str> = lines.iter().flat_map(|text| text.lines()).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The settings of the device that we never vary.
fn settings() -> String {
    let shown = ip_json("-d -j link show dev vx4").remove(0);
    let accept_ra = std::fs::read_to_string("/proc/sys/net/ipv6/conf/vx4/accept_ra").unwrap_or_default();
    let (data, mode) = (&shown["linkinfo"]["info_data"], &shown["inet6_addr_gen_mode"]);
    format!("{data} {mode} master {} accept_ra {accept_ra}", shown["master"])
}

fn index() -> serde_json::Value {
    ip_json("-j link show dev vx4")[0]["ifindex"].clone()
}

/// Damages what is there and expects one pass to mend it.
fn repaired_after(damage: impl FnOnce() + Send + 'static) {
    in_namespace(move || {
        let mut wanted = mesh([7, 8]);
        add_peer(&mut wanted, 9, native(9));
        let mut kernel = kernel();
        settle(&mut kernel, &wanted);
        let before = shown();
        assert!(before.contains("10.244.7.0/24") && before.contains("10.244.9.0/24"), "{before}");
        damage();
        assert_ne!(before, shown(), "the damage shows");
        settle(&mut kernel, &wanted);
        assert_eq!(before, shown());
    });
}

#[test]
fn the_device_deleted() {
    repaired_after(|| drop(ip("link delete vx4")));
}

#[test]
fn the_device_down_and_up() {
    repaired_after(|| {
        ip("link set vx4 down");
        ip("link set vx4 up");
    });
}

#[test]
fn the_device_renamed() {
    repaired_after(|| rename("vx4", "stray0"));
}

#[test]
fn the_device_given_another_address_and_another_mac() {
    repaired_after(|| {
        ip("addr del 10.244.1.0/32 dev vx4");
        ip("addr add 10.244.77.0/32 dev vx4");
        ip("link set vx4 address 02:00:00:00:00:77");
    });
}

#[test]
fn the_underlay_down_and_up() {
    repaired_after(|| {
        ip("link set eth0 down");
        ip("link set eth0 up");
        underlay_ipv6();
    });
}

#[test]
fn the_underlay_without_carrier_for_a_while() {
    repaired_after(|| {
        ip("link set eth0p down");
        eventually(|| !ip("nexthop").contains("dev eth0"));
        ip("link set eth0p up");
        wait_for_state("eth0", "UP");
    });
}

#[test]
fn the_underlay_deleted_and_made_anew() {
    repaired_after(|| {
        ip("link delete eth0");
        assert!(ip_json("-j link").iter().all(|link| link["ifname"] != "vx4"), "the tunnel goes with it");
        ip("link add eth0 type veth peer name eth0p");
        ip("link set eth0p up");
        ip("addr add 192.0.2.1/24 dev eth0");
        ip("link set eth0 up");
        underlay_ipv6();
    });
}

/// The kernel takes a replace of such an entry, and leaves it as it is.
#[test]
fn a_forwarding_entry_made_anew_over_nexthop_objects() {
    repaired_after(|| {
        ip("nexthop add id 6 via 192.0.2.66 fdb");
        ip("nexthop add id 7 group 6 fdb");
        run("bridge", "fdb del 02:00:00:00:01:07 dev vx4 self");
        run("bridge", "fdb add 02:00:00:00:01:07 dev vx4 nhid 7 self permanent");
    });
}

#[test]
fn routes_neighbours_and_nexthops_deleted_or_bent() {
    repaired_after(|| {
        ip("route del 10.244.7.0/24");
        ip("-6 route del fd10:244:0:8::/64");
        ip("neigh flush dev vx4 nud permanent");
        run("bridge", "fdb replace 02:00:00:00:01:07 dev vx4 dst 192.0.2.77 self");
        run("bridge", "fdb del 02:00:00:00:01:08 dev vx4 self");
        ip(&format!("nexthop del id {}", ids(9)[0].0));
        ip(&format!("nexthop replace id {} via 192.0.2.66 dev eth0 proto 155", ids(7)[0].0));
        ip("route add 10.244.66.0/24 via 192.0.2.9 dev eth0 proto 155");
        ip("neigh add 10.244.66.0 lladdr 02:00:00:00:00:66 dev vx4 nud permanent proto 155");
        run("bridge", "fdb add 02:00:00:00:01:66 dev vx4 dst 192.0.2.66 self");
    });
}

/// To the right address all the same.
#[test]
fn entries_that_lead_to_another_port_network_or_device() {
    for bend in ["port 9999", "vni 77", "via eth0"] {
        repaired_after(move || {
            let entry = format!("dev vx4 dst 192.0.2.7 {bend} self");
            drop(run("bridge", &format!("fdb replace 02:00:00:00:01:07 {entry}")));
            drop(run("bridge", &format!("fdb add 02:00:00:00:01:66 {entry}")));
        });
    }
}

#[test]
fn settings_bent_on_the_living_device() {
    let bends = [
        "type vxlan learning",
        "type vxlan ttl 9",
        "type vxlan tos 4",
        "type vxlan df set",
        "type vxlan ageing 20",
        "addrgenmode eui64",
    ];
    for bend in bends {
        repaired_after(move || drop(ip(&format!("link set vx4 {bend}"))));
    }
    // A bridge without spanning tree and filters takes it as a port.
    repaired_after(|| {
        ip("link add br9 type bridge");
        ip("link set vx4 master br9");
    });
    repaired_after(|| {
        std::fs::write("/proc/sys/net/ipv6/conf/vx4/accept_ra", "2").expect("sysctl");
    });
}

#[test]
fn a_device_that_does_not_forward_is_mended_if_the_kernel_does() {
    in_namespace(|| {
        let set = |name: &str, value: &str| {
            std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect("sysctl");
        };
        let forwards = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/vx4/forwarding").expect("sysctl");
        set("ip_forward", "1");
        let wanted = mesh([7]);
        let mut kernel = kernel();
        settle(&mut kernel, &wanted);
        set("conf/vx4/forwarding", "0");
        let applied = settle(&mut kernel, &wanted);
        assert!(matches!(applied.as_slice(), [Change::SetLink(..)]), "{applied:#?}");
        assert_eq!(forwards(), "1\n");
        // A new device takes its settings from `default`.
        set("conf/default/forwarding", "0");
        ip("link del vx4");
        settle(&mut kernel, &wanted);
        assert_eq!(forwards(), "1\n");
        // Where nothing is forwarded our devices don't either.
        set("ip_forward", "0");
        assert_eq!(forwards(), "0\n");
        assert_eq!(settle(&mut kernel, &wanted), []);
        assert_eq!(forwards(), "0\n");
    });
}

#[test]
fn a_bent_device_is_mended_and_an_alien_one_made_anew() {
    in_namespace(|| {
        let wanted = mesh([7]);
        let mut kernel = kernel();
        settle(&mut kernel, &wanted);
        let old = index();
        ip("link set vx4 type vxlan learning ttl 9 df set");
        let applied = settle(&mut kernel, &wanted);
        assert!(matches!(applied.as_slice(), [Change::SetLink(..)]), "{applied:#?}");
        assert_eq!(old, index());
        for how in ["gbp", "proxy", "noudpcsum", "remote 192.0.2.9", "srcport 1000 2000", "maxaddress 5"] {
            ip("link del vx4");
            ip(&format!(
                "link add vx4 mtu 1450 address 02:00:00:00:00:01 type vxlan id 4096 dstport 4789 local 192.0.2.1 dev eth0 nolearning {how}"
            ));
            ip("link set vx4 addrgenmode none");
            let marked =
                std::process::Command::new("ip").args(["link", "set", "vx4", "alias", "under test"]).status();
            assert!(marked.expect("ip runs").success());
            let old = index();
            let applied = settle(&mut kernel, &wanted);
            assert!(matches!(applied.first(), Some(Change::DeleteLink(_))), "{how}: {applied:#?}");
            assert_ne!(old, index(), "{how}");
        }
    });
}
