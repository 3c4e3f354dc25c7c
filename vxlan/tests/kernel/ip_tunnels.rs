//! IP tunnels: IPv4 and IPv6 in IPv4. Not every kernel has the modules: `integration/test.sh` runs what needs them in
//! its virtual machine, and nobody counts them as passed elsewhere.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::process::Command;

use vxlan::{Change, Dataplane, IpTunnel, Report, Settings, State, reconcile};

use crate::namespace::{
    add_peer, in_namespace, ip, ip_device, ip_in_ip, ip_json, ip_link, ip_node, kernel, link, native, pass,
    peer_mac, settle, tunnel,
};

const PACKETS: u64 = 50;

fn ip_mesh(peers: impl IntoIterator<Item = u8>) -> State {
    let mut state = ip_node();
    for number in peers {
        add_peer(&mut state, number, ip_in_ip(number));
    }
    state
}

fn sent(device: &str) -> u64 {
    ip_json(&format!("-s -j link show dev {device}"))[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
}

/// Everything on the two devices as other programs show it.
fn shown() -> String {
    let routes = ["route show proto 155", "-6 route show proto 155", "nexthop show proto 155"].map(ip);
    let devices = ["ip4", "ip6"].map(|name| {
        let present = ip_json("-j link").iter().any(|link| link["ifname"] == name);
        if !present {
            return String::new();
        }
        let link = ip_json(&format!("-d -j link show dev {name}")).remove(0);
        let accept_ra = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra")).unwrap();
        let words = ["mtu", "flags", "ifalias", "linkinfo", "inet6_addr_gen_mode"];
        let words = words.map(|word| link[word].to_string()).join(" ");
        format!("{words} {} accept_ra {accept_ra}", ip(&format!("-br addr show dev {name}")))
    });
    let text = routes.join("\n") + &devices.join("\n");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// What a kernel says to `ip link add` is what it says to us, and asking makes nothing.
#[test]
fn which_kinds_there_can_be_is_asked_without_making_a_device() {
    in_namespace(|| {
        let all: BTreeSet<IpTunnel> = IpTunnel::ALL.into();
        let mut kernel = kernel();
        let found = kernel.ip_tunnels(&all).expect("an answer");
        let devices = || ip_json("-j link").iter().map(|l| l["ifname"].to_string()).collect::<Vec<_>>();
        let before = devices();
        assert_eq!(kernel.ip_tunnels(&all).expect("an answer"), found);
        assert_eq!(devices(), before);
        let made = |kind: &IpTunnel| {
            let words = ["link", "add", "probe0", "type", kind.as_str(), "local", "192.0.2.77"];
            Command::new("ip").args(words).output().expect("ip runs").status.success()
        };
        let oracle: BTreeSet<IpTunnel> = IpTunnel::ALL
            .into_iter()
            .filter(|kind| {
                let made = made(kind);
                if made {
                    ip("link del probe0");
                }
                made
            })
            .collect();
        assert_eq!(found, oracle);
        assert_eq!(kernel.ip_tunnels(&BTreeSet::new()).expect("an answer"), BTreeSet::new());
    });
}

#[test]
#[ignore = "needs the modules ipip and sit: integration/test.sh runs it in a virtual machine"]
fn the_devices_are_made_as_stated() {
    in_namespace(|| {
        settle(&mut kernel(), &ip_mesh([7]));
        for (kind, address) in IpTunnel::ALL.into_iter().zip(["10.244.1.0/32", "fd10:244:0:1::/128"]) {
            let name = ip_link(kind);
            let shown = ip_json(&format!("-d -j link show dev {name}")).remove(0);
            let text = |key: &str| shown[key].as_str().unwrap_or_default().to_owned();
            assert_eq!((text("ifalias"), text("inet6_addr_gen_mode")), ("under test".into(), "none".into()));
            assert_eq!(shown["mtu"], 1480);
            assert!(shown["flags"].as_array().unwrap().contains(&"UP".into()), "{shown}");
            assert_eq!(shown["linkinfo"]["info_kind"], kind.as_str());
            let data = &shown["linkinfo"]["info_data"];
            assert_eq!((&data["local"], &data["remote"]), (&"192.0.2.1".into(), &"any".into()), "{data}");
            assert_eq!((&data["ttl"], &data["pmtudisc"]), (&64.into(), &true.into()), "{data}");
            let addresses = ip(&format!("-br addr show dev {name}"));
            assert!(addresses.contains(address), "{addresses}");
            let rp_filter = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
            assert_eq!(std::fs::read_to_string(rp_filter).unwrap().trim(), "2");
        }
        assert_eq!(ip_json("-j route get 10.244.7.9")[0]["dev"], "ip4");
        assert_eq!(ip_json("-j route get 10.244.7.9")[0]["prefsrc"], "10.244.1.0");
        assert_eq!(ip_json("-6 -j route get fd10:244:0:7::9")[0]["dev"], "ip6");
        assert_eq!(ip_json("-6 -j route get fd10:244:0:7::9")[0]["prefsrc"], "fd10:244:0:1::");
        // Another agent finds nothing to do.
        assert_eq!(pass(&mut kernel(), &ip_mesh([7])).applied, []);
        // What the modules have made stands beside, without our mark.
        for name in ["tunl0", "sit0"] {
            assert!(!ip(&format!("link show dev {name}")).contains("alias"), "{name} is marked");
        }
        settle(&mut kernel(), &State::default());
        assert!(!ip("link").contains("ip4") && !ip("link").contains("ip6@"), "{}", ip("link"));
    });
}

#[test]
#[ignore = "needs the modules ipip and sit: integration/test.sh runs it in a virtual machine"]
fn a_switch_between_any_two_paths_is_one_message_for_each_family_and_loses_no_packet() {
    in_namespace(|| {
        // Who the peer is on the underlay is known, so that no packet waits for an answer that nobody gives.
        for address in ["192.0.2.7", "2001:db8::7"] {
            ip(&format!("neigh add {address} lladdr {} dev eth0 nud permanent", peer_mac(77)));
        }
        let paths = [(native(7), None), (tunnel(7), Some("vx4")), (ip_in_ip(7), Some("ip4"))];
        let wanted = paths.clone().map(|(nexthops, _)| {
            let mut state = ip_node();
            add_peer(&mut state, 7, nexthops);
            state
        });
        let mut kernel = kernel();
        settle(&mut kernel, &wanted[0]);
        let sockets =
            [UdpSocket::bind("10.244.1.0:0").unwrap(), UdpSocket::bind("[fd10:244:0:1::]:0").unwrap()];
        let mut expected = [0, 0, 0];
        let began = ["vx4", "ip4", "ip6"].map(sent);
        let all = sent("eth0");
        for to in [1, 2, 0, 2, 1, 0, 1, 2, 0] {
            let report = pass(&mut kernel, &wanted[to]);
            assert!(report.failures.is_empty(), "{:#?}", report.failures);
            assert!(
                matches!(report.applied.as_slice(), [Change::SetNexthop(..), Change::SetNexthop(..)]),
                "{:#?}",
                report.applied
            );
            for (socket, target) in sockets.iter().zip(["10.244.7.9:9", "[fd10:244:0:7::9]:9"]) {
                for _ in 0..PACKETS {
                    socket.send_to(b"through whichever path", target).expect("a route");
                }
            }
            match to {
                1 => expected[0] += 2 * PACKETS,
                2 => {
                    expected[1] += PACKETS;
                    expected[2] += PACKETS;
                }
                _ => {}
            }
        }
        let counted = ["vx4", "ip4", "ip6"].map(sent);
        // Each in its tunnel; the VXLAN device may also say something of itself.
        assert!(counted[0] - began[0] >= expected[0], "{counted:?}");
        assert_eq!([counted[1] - began[1], counted[2] - began[2]], [expected[1], expected[2]]);
        assert!(sent("eth0") - all >= 9 * 2 * PACKETS, "all of them on the underlay");
    });
}

#[test]
#[ignore = "needs the modules ipip and sit: integration/test.sh runs it in a virtual machine"]
fn whatever_happens_to_a_device_is_mended() {
    in_namespace(|| {
        let wanted = ip_mesh([7, 8]);
        let mut kernel = kernel();
        settle(&mut kernel, &wanted);
        let before = shown();
        assert!(before.contains("10.244.7.0/24") && before.contains("fd10:244:0:8::/64"), "{before}");
        let damages = [
            vec!["link delete ip4", "link delete ip6"],
            vec!["link set ip4 down", "link set ip4 up"],
            vec!["link set ip6 down", "link set ip6 up"],
            vec!["link set ip4 down", "link set ip4 name stray4", "link set stray4 up"],
            vec!["link set ip4 type ipip local 192.0.2.1 ttl 9 tos 4"],
            vec!["link set ip6 type sit local 192.0.2.1 ttl 9"],
            vec!["link set ip4 type ipip local 192.0.2.9 ttl 64", "link set ip6 mtu 1300"],
            vec!["link set ip6 addrgenmode eui64"],
            vec!["addr del 10.244.1.0/32 dev ip4", "addr add 10.244.77.0/32 dev ip4"],
            vec!["-6 addr del fd10:244:0:1::/128 dev ip6"],
        ];
        for damage in damages {
            for step in &damage {
                ip(step);
            }
            assert_ne!(before, shown(), "{damage:?} does not show");
            settle(&mut kernel, &wanted);
            assert_eq!(before, shown(), "{damage:?}");
        }
        std::fs::write("/proc/sys/net/ipv6/conf/ip6/accept_ra", "2").expect("sysctl");
        assert_ne!(before, shown());
        settle(&mut kernel, &wanted);
        assert_eq!(before, shown());
    });
}

#[test]
#[ignore = "needs the modules ipip and sit: integration/test.sh runs it in a virtual machine"]
fn a_bent_device_is_mended_and_an_alien_one_made_anew() {
    in_namespace(|| {
        let wanted = ip_node();
        let mut kernel = kernel();
        settle(&mut kernel, &wanted);
        let index = || ip_json("-j link show dev ip4")[0]["ifindex"].clone();
        let old = index();
        ip("link set ip4 type ipip local 192.0.2.1 ttl 9");
        let bent = kernel.observe(&[]).unwrap().ours.links[&link("ip4")].clone();
        assert_eq!(bent.settings, Settings::Bent);
        let applied = settle(&mut kernel, &wanted);
        assert!(matches!(applied.as_slice(), [Change::SetLink(..)]), "{applied:#?}");
        assert_eq!(old, index());
        for how in ["remote 192.0.2.9 local 192.0.2.1", "external"] {
            ip("link del ip4");
            ip(&format!("link add ip4 type ipip {how}"));
            let alias = Command::new("ip").args(["link", "set", "ip4", "alias", "under test"]).status();
            assert!(alias.expect("ip runs").success());
            let old = index();
            let applied = settle(&mut kernel, &wanted);
            assert!(matches!(applied.first(), Some(Change::DeleteLink(_))), "{how}: {applied:#?}");
            assert_ne!(old, index(), "{how}");
        }
        // The underlay address moves: the device goes along, and what leads through it stays.
        let mut wanted = ip_mesh([7]);
        settle(&mut kernel, &wanted);
        let old = index();
        for kind in IpTunnel::ALL {
            let moved = vxlan::TunnelLink { local: "192.0.2.2".parse().unwrap(), ..ip_device(kind) };
            wanted.links.insert(ip_link(kind), moved);
        }
        let applied = settle(&mut kernel, &wanted);
        assert!(matches!(applied.as_slice(), [Change::SetLink(..), Change::SetLink(..)]), "{applied:#?}");
        assert_eq!(old, index());
    });
}

/// As `conform` does for all else.
#[test]
#[ignore = "needs the modules ipip and sit: integration/test.sh runs it in a virtual machine"]
fn random_changes_have_the_same_answers_and_the_same_end() {
    (1000..1006).for_each(|seed| crate::conform::one_run(seed, true));
}

#[test]
#[ignore = "needs the modules ipip and sit: integration/test.sh runs it in a virtual machine"]
fn tunnels_of_others_are_left_alone_and_only_a_twin_is_in_the_way() {
    in_namespace(|| {
        let watchful = |wanted: &State| -> Report {
            let mut kernel = kernel();
            let observed = kernel.observe(&[]).expect("an observation");
            reconcile(&mut kernel, &observed, wanted)
        };
        ip("link add theirs type ipip local 192.0.2.1 remote 192.0.2.9");
        ip("link set theirs up");
        ip("link set tunl0 up");
        let others = || ["theirs", "tunl0"].map(|name| ip(&format!("-d addr show dev {name}"))).join("");
        let before = others();
        settle(&mut kernel(), &ip_mesh([7]));
        settle(&mut kernel(), &State::default());
        assert_eq!(before, others());

        ip("link add twin type ipip local 192.0.2.1");
        let report = watchful(&ip_mesh([7]));
        assert!(report.failures.is_empty(), "{:#?}", report.failures);
        assert_eq!(report.conflicts.len(), 1, "{:#?}", report.conflicts);
        assert_eq!(report.conflicts[0].wanted, "device ip4");
        assert!(report.conflicts[0].found.contains("tunnel device twin"), "{:?}", report.conflicts[0]);
        assert!(
            ip("-6 route show proto 155").contains("fd10:244:0:7::/64"),
            "what it does not concern works"
        );
        assert!(ip("route show proto 155").is_empty());
        ip("link del twin");
        settle(&mut kernel(), &ip_mesh([7]));
        assert_eq!(before, others());
    });
}
