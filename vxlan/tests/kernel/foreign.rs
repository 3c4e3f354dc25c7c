//! What is not ours is reported and never touched.

use vxlan::{Change, Dataplane, NexthopId, Report, RouteKey, State, TunnelLink, reconcile};

use crate::namespace::{
    add_peer, id, ids, in_namespace, ip, kernel, mesh, native, node, pass, route_key, settle, via,
};

/// A pass that knows of routes of others.
fn watchful(wanted: &State) -> Report {
    let mut kernel = kernel();
    let watched: Vec<_> = wanted.routes.keys().map(|key| key.prefix).collect();
    let observed = kernel.observe(&watched).expect("an observation");
    reconcile(&mut kernel, &observed, wanted)
}

fn conflict(report: &Report) -> (&str, &str) {
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert_eq!(report.conflicts.len(), 1, "{:#?}", report.conflicts);
    (&report.conflicts[0].wanted, &report.conflicts[0].found)
}

#[test]
fn a_device_of_our_name_without_our_mark_is_left_alone() {
    in_namespace(|| {
        ip("link add vx4 type bridge");
        ip("link set vx4 addrgenmode none");
        ip("link set vx4 up");
        ip("addr add 10.9.0.1/24 dev vx4");
        ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:99 dev vx4 nud permanent");
        let before = (ip("addr show dev vx4"), ip("neigh show dev vx4"));
        let mut wanted = mesh([7]);
        add_peer(&mut wanted, 9, native(9));
        let report = watchful(&wanted);
        let (ours, found) = conflict(&report);
        assert_eq!(ours, "device vx4");
        assert!(found.contains("kind bridge"), "{found}");
        assert_eq!(before, (ip("addr show dev vx4"), ip("neigh show dev vx4")));
        // What does not need the device works.
        assert!(ip("route show").contains("10.244.9.0/24"));

        ip("link delete vx4");
        settle(&mut kernel(), &wanted);
    });
}

#[test]
fn another_vxlan_device_with_our_vni_and_port_is_left_alone() {
    in_namespace(|| {
        ip("link add flannel.1 type vxlan id 4096 dstport 4789 local 192.0.2.1 dev eth0");
        let before = ip("-d link show dev flannel.1");
        let report = watchful(&mesh([7]));
        assert_eq!(conflict(&report).0, "device vx4");
        assert!(report.conflicts[0].found.starts_with("VXLAN device flannel.1"));
        assert!(report.applied.is_empty(), "{:#?}", report.applied);
        assert_eq!(before, ip("-d link show dev flannel.1"));
    });
}

#[test]
fn routes_of_others_are_left_alone_whatever_their_metric() {
    in_namespace(|| {
        settle(&mut kernel(), &node());
        let mut wanted = mesh([7]);
        wanted.routes.retain(|key, _| key.prefix.addr().is_ipv4());
        wanted.nexthops.retain(|_, nexthop| nexthop.gateway.address.is_ipv4());
        let route = wanted.routes.remove(&route_key("10.244.7.0/24")).unwrap();
        wanted.routes.insert(RouteKey { metric: 50, ..route_key("10.244.7.0/24") }, route);
        for (metric, conflicts) in [(50, 1), (49, 1), (51, 0)] {
            let theirs = format!("10.244.7.0/24 via 192.0.2.9 dev eth0 proto bird metric {metric}");
            ip(&format!("route add {theirs}"));
            let report = watchful(&wanted);
            assert!(report.failures.is_empty(), "{:#?}", report.failures);
            assert_eq!(report.conflicts.len(), conflicts, "metric {metric}");
            assert!(ip("route show proto bird").contains("10.244.7.0/24 via 192.0.2.9"), "metric {metric}");
            assert_eq!(ip("route show proto 155").is_empty(), conflicts == 1, "metric {metric}");
            ip(&format!("route delete {theirs}"));
            settle(&mut kernel(), &node());
        }
    });
}

/// They are of no kind that leads packets on, and take the place of one that does.
#[test]
fn a_route_of_another_type_at_our_key_is_a_conflict_that_names_it() {
    in_namespace(|| {
        for (command, theirs) in [
            ("route", "local 10.244.7.0/24 dev lo table main proto static"),
            ("route", "anycast 10.244.7.0/24 dev eth0 table main proto static"),
            ("route", "multicast 10.244.7.0/24 dev eth0 table main proto static"),
            ("route", "broadcast 10.244.7.0/24 dev eth0 table main proto static"),
            ("-6 route", "local fd10:244:0:7::/64 dev lo table main proto static metric 1024"),
            ("-6 route", "anycast fd10:244:0:7::/64 dev lo table main proto static metric 1024"),
        ] {
            settle(&mut kernel(), &mesh([7]));
            let prefix = theirs.split(' ').nth(1).expect("a prefix");
            ip(&format!("{command} del {prefix} proto 155"));
            ip(&format!("{command} add {theirs}"));
            let report = watchful(&mesh([7]));
            assert!(report.failures.is_empty(), "{theirs}: {:#?}", report.failures);
            let (wanted, found) = conflict(&report);
            assert!(wanted.starts_with("route ") && found.contains("proto 4 (static)"), "{wanted}: {found}");
            // As its hint says.
            let hint = &report.conflicts[0].hint;
            let remedy = hint.split(": ip ").last().expect("a command");
            ip(&remedy.replace("route", command));
            settle(&mut kernel(), &mesh([7]));
        }
    });
}

#[test]
fn a_nexthop_object_of_somebody_else_in_our_range_is_left_alone() {
    in_namespace(|| {
        let NexthopId(number) = ids(7)[0];
        ip(&format!("nexthop add id {number} via 192.0.2.99 dev eth0"));
        let before = ip(&format!("nexthop show id {number}"));
        let mut wanted = mesh([7]);
        wanted.nexthops.retain(|id, _| id.0 == number);
        wanted.routes.retain(|key, _| key.prefix.addr().is_ipv4());
        let report = watchful(&wanted);
        assert_eq!(conflict(&report).0, format!("nexthop {number}"));
        assert!(ip("route show proto 155").is_empty(), "no route of ours leads to it");
        assert_eq!(before, ip(&format!("nexthop show id {number}")));
        // Not deleted either, when nothing is wanted; nor a group of our protocol number.
        ip(&format!("nexthop add id {} group {number} proto 155", number + 50));
        assert!(watchful(&State::default()).failures.is_empty());
        assert!(ip("nexthop show").contains("group"));
        assert_eq!(before, ip(&format!("nexthop show id {number}")));
    });
}

#[test]
fn everything_foreign_survives_a_whole_life() {
    in_namespace(|| {
        crate::namespace::quiet();
        ip("route add 198.51.100.0/24 via 192.0.2.9 dev eth0");
        ip("route add 10.0.0.0/8 via 192.0.2.9 dev eth0 proto bird metric 9");
        ip("-6 route add fd10::/16 via 2001:db8::9 dev eth0");
        ip("route add 10.244.7.0/24 via 192.0.2.9 dev eth0 table 77");
        ip("rule add from 10.244.0.0/16 lookup 9000 pref 110");
        ip("rule add fwmark 7 lookup 77 pref 200");
        ip("nexthop add id 7 via 192.0.2.9 dev eth0");
        ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
        ip("link add other type vxlan id 7 dstport 8472 local 192.0.2.1 dev eth0");
        ip("link set other addrgenmode none");
        ip("link set other up");
        crate::namespace::run("bridge", "fdb add 02:00:00:00:00:07 dev other dst 192.0.2.7 self");
        let all = || {
            let shown = [
                "route show table all",
                "-6 route show table all",
                "rule",
                "nexthop",
                "-d link show dev other",
            ];
            shown.map(ip).join("\n")
                + &ip("neigh show nud permanent")
                + &crate::namespace::run("bridge", "fdb show")
        };
        let before = all();
        let mut wanted = mesh([7, 8]);
        add_peer(&mut wanted, 9, native(9));
        let rule = vxlan::Rule { priority: 110, from: "10.244.0.0/16".parse().unwrap(), table: 9000 };
        wanted.rules.insert(rule);
        let mut kernel = kernel();
        settle(&mut kernel, &wanted);
        wanted.links.values_mut().filter_map(TunnelLink::vxlan_mut).for_each(|vxlan| vxlan.vni.0 += 1);
        settle(&mut kernel, &wanted);
        settle(&mut kernel, &State::default());
        assert_eq!(before, all());
    });
}

#[test]
fn what_carries_our_mark_in_another_form_is_replaced_or_deleted() {
    in_namespace(|| {
        ip("route add 10.244.7.0/24 via 192.0.2.9 dev eth0 proto 155");
        ip("route add blackhole 10.244.8.0/24 proto 155");
        ip(
            "-6 route add fd10:244:0:7::/64 proto 155 nexthop via 2001:db8::9 dev eth0 nexthop via 2001:db8::a dev eth0",
        );
        let mut kernel = kernel();
        settle(&mut kernel, &mesh([7]));
        let routes = ip("route show proto 155");
        assert!(routes.starts_with(&format!("10.244.7.0/24 nhid {}", id(14).0)), "{routes}");
        assert_eq!(routes.lines().count(), 1, "{routes}");
        let routes = ip("-6 route show proto 155");
        assert!(routes.contains("dev vx4") && !routes.contains("2001:db8"), "{routes}");
    });
}

/// Beside our route, before or behind it, others can put one of the same key: a replace then hits the first of the two.
#[test]
fn a_foreign_route_of_our_key_is_never_written_to() {
    in_namespace(|| {
        let mut kernel = kernel();
        let wanted = mesh([7]);
        settle(&mut kernel, &wanted);
        let NexthopId(ipv4) = ids(7)[0];
        let NexthopId(ipv6) = ids(7)[1];
        ip("route prepend 10.244.7.0/24 via 192.0.2.9 dev eth0 proto bird");
        // IPv6 knows no place but behind: ours goes and comes back.
        ip("-6 route del fd10:244:0:7::/64");
        ip("-6 route add fd10:244:0:7::/64 dev eth0 metric 1024 proto bird");
        ip(&format!("-6 route append fd10:244:0:7::/64 nhid {ipv6} metric 1024 proto 155"));
        let theirs = || ip("route show proto bird") + &ip("-6 route show proto bird");
        let before = theirs();
        assert!(before.contains("10.244.7.0/24") && before.contains("fd10:244:0:7::/64"), "{before}");

        let mut changed = wanted.clone();
        changed.nexthops.insert(id(99), native(7)[0].clone());
        changed.nexthops.insert(id(98), native(7)[1].clone());
        let via_others = |key: &RouteKey| via(id(if key.prefix.addr().is_ipv4() { 99 } else { 98 }));
        changed.routes = wanted.routes.keys().map(|key| (*key, via_others(key))).collect();
        // The prefixes are not even watched: what stands beside one of ours is seen.
        let report = pass(&mut kernel, &changed);
        assert!(report.failures.is_empty(), "{:#?}", report.failures);
        assert_eq!(report.conflicts.len(), 2, "{:#?}", report.conflicts);
        assert_eq!(before, theirs());
        let ours = ip("route show proto 155") + &ip("-6 route show proto 155");
        assert!(ours.contains(&format!("nhid {ipv4}")) && ours.contains(&format!("nhid {ipv6}")), "{ours}");

        // The control: written all the same, theirs are gone.
        let set: Vec<Change> =
            changed.routes.iter().map(|(key, route)| Change::SetRoute(*key, route.clone())).collect();
        assert_eq!(kernel.apply(&set), vxlan::Refused::new());
        assert_eq!(theirs(), "");
    });
}

#[test]
fn ours_goes_from_beside_a_foreign_route_of_its_key() {
    in_namespace(|| {
        let mut kernel = kernel();
        settle(&mut kernel, &mesh([7]));
        ip("route prepend 10.244.7.0/24 via 192.0.2.9 dev eth0 proto bird");
        ip("-6 route append fd10:244:0:7::/64 dev eth0 metric 1024 proto bird");
        let before = ip("route show proto bird") + &ip("-6 route show proto bird");
        assert!(pass(&mut kernel, &State::default()).failures.is_empty());
        assert_eq!(ip("route show proto 155") + &ip("-6 route show proto 155"), "");
        assert_eq!(before, ip("route show proto bird") + &ip("-6 route show proto bird"));
    });
}

/// A pod's bridge, and what the kernel does with a packet of a pod: the device and the gateway, or its refusal.
fn with_pods() {
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("sysctl");
    ip("link add cni0 type bridge");
    ip("addr add 10.244.1.1/24 dev cni0");
    ip("link set cni0 up");
}

fn goes(to: &str) -> Result<String, String> {
    let words = ["-j", "route", "get", to, "from", "10.244.1.5", "iif", "cni0"];
    let output = std::process::Command::new("ip").args(words).output().expect("ip runs");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let route: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    Ok(format!("{} {}", route[0]["dev"].as_str().unwrap(), route[0]["gateway"].as_str().unwrap_or(to)))
}

/// A peer in the tunnel and one on the link, their nodes' addresses in a table of ours, and the pool.
fn with_table() -> State {
    let mut wanted = mesh([7]);
    add_peer(&mut wanted, 8, native(8));
    for number in [7, 8] {
        let prefix = format!("192.0.2.{number}/32").parse().unwrap();
        wanted.routes.insert(RouteKey { table: 9000, prefix, metric: 0 }, via(ids(number)[0]));
    }
    let pool = RouteKey { metric: u32::MAX, ..route_key("10.244.0.0/16") };
    let unreachable = vxlan::Route { target: vxlan::RouteTarget::Unreachable, source: None, mtu: None };
    wanted.routes.insert(pool, unreachable);
    let rule = vxlan::Rule { priority: 1000, from: "10.244.0.0/16".parse().unwrap(), table: 9000 };
    wanted.rules.insert(rule);
    wanted
}

/// Whatever rules and routes others add: which of our routes are passed by is what the kernel's own lookup says.
#[test]
fn what_leads_packets_of_pods_past_our_routes_is_seen_as_the_kernel_sees_it() {
    in_namespace(|| {
        with_pods();
        let wanted = with_table();
        settle(&mut kernel(), &wanted);
        ip("route add default via 192.0.2.254 table 77");
        ip("route add 10.244.7.0/25 via 192.0.2.99 table 78");
        ip("route add throw 10.244.7.0/24 table 79");
        let probes = [
            ("254 10.244.7.0/24", "10.244.7.9"),
            ("254 10.244.8.0/24", "10.244.8.9"),
            ("9000 192.0.2.7/32", "192.0.2.7"),
            ("9000 192.0.2.8/32", "192.0.2.8"),
        ];
        let before = probes.map(|(_, to)| goes(to));
        assert!(before.iter().all(Result::is_ok), "{before:?}");
        assert_ne!(before[2], before[3]);
        let look = || {
            let report = watchful(&wanted);
            assert!(report.failures.is_empty() && report.applied.is_empty(), "{report:#?}");
            let keys = report.diverted.keys().map(|key| format!("{} {}", key.table, key.prefix));
            (keys.collect::<Vec<_>>(), report.conflicts.len())
        };
        assert_eq!(look(), (vec![], 0));
        let cases: [(&[&str], usize); 16] = [
            (&["rule", "from 10.244.0.0/16 lookup 77 pref 100"], 2),
            (&["rule", "from all lookup 77 pref 100"], 2),
            (&["rule", "from all lookup 77 pref 1001"], 1),
            (&["rule", "from 10.244.1.0/24 lookup 77 pref 100"], 2),
            (&["rule", "from 10.245.0.0/16 lookup 77 pref 100"], 0),
            (&["rule", "to 10.244.7.0/24 lookup 77 pref 100"], 1),
            (&["rule", "iif cni0 lookup 77 pref 100"], 2),
            (&["rule", "iif lo lookup 77 pref 100"], 0),
            (&["rule", "from all lookup 78 pref 100"], 1),
            (&["rule", "from all lookup 79 pref 100"], 0),
            (&["rule", "from all lookup 77 suppress_prefixlength 0 pref 100"], 0),
            (&["rule", "from all lookup main suppress_prefixlength 0 pref 100"], 1),
            (&["rule", "from all to 192.0.2.0/24 blackhole pref 100"], 1),
            (&["rule", "fwmark 5 lookup 77 pref 100"], 0),
            (&["route", "10.244.7.9/32 via 192.0.2.99"], 1),
            (&["route", "192.0.2.8/32 via 192.0.2.99 table 9000 metric 0 proto bird"], 0),
        ];
        for (case, conflicts) in cases {
            // Beside one with the whole key of ours another comes by `prepend` alone.
            let word = if case[1].contains("table 9000") { "prepend" } else { "add" };
            ip(&format!("{} {word} {}", case[0], case[1]));
            let mut expected: Vec<String> = Vec::new();
            for ((name, to), before) in probes.iter().zip(&before) {
                if goes(to) != *before {
                    expected.push((*name).to_owned());
                }
            }
            let (found, count) = look();
            assert_eq!(found, expected, "{case:?}");
            let conflicts = if word == "prepend" { 1 } else { conflicts };
            assert_eq!(count, conflicts, "{case:?}");
            ip(&format!("{} del {}", case[0], case[1]));
            assert_eq!(look(), (vec![], 0), "after {case:?}");
        }
    });
}

#[test]
fn an_object_that_somebody_replaces_under_his_own_name_diverts_its_routes() {
    in_namespace(|| {
        let wanted = mesh([7]);
        settle(&mut kernel(), &wanted);
        let NexthopId(number) = ids(7)[0];
        ip(&format!("nexthop replace id {number} via 192.0.2.66 dev eth0 proto bird"));
        assert!(ip("route show 10.244.7.0/24").contains(&format!("nhid {number}")), "the route stays");
        let report = watchful(&wanted);
        assert!(report.conflicts.len() == 1 && report.applied.is_empty(), "{report:#?}");
        let diverted: Vec<String> = report.diverted.keys().map(|key| key.prefix.to_string()).collect();
        assert_eq!(diverted, ["10.244.7.0/24"]);
        assert!(ip(&format!("nexthop show id {number}")).contains("192.0.2.66"), "and it is left alone");
        ip(&format!("nexthop del id {number}"));
        let report = watchful(&wanted);
        assert!(report.conflicts.is_empty() && report.diverted.is_empty(), "{report:#?}");
    });
}

/// Which devices forward is read as the kernel acts.
#[test]
fn a_device_that_does_not_forward_is_seen() {
    in_namespace(|| {
        with_pods();
        settle(&mut kernel(), &mesh([7]));
        let forwards =
            |name: &str| kernel().observe(&[]).unwrap().interfaces[&crate::namespace::link(name)].forwards;
        assert!(goes("10.244.7.9").is_ok());
        assert_eq!((forwards("cni0"), forwards("eth0")), (Some(true), Some(true)));
        std::fs::write("/proc/sys/net/ipv4/conf/cni0/forwarding", "0").expect("sysctl");
        assert!(goes("10.244.7.9").is_err());
        assert_eq!((forwards("cni0"), forwards("eth0")), (Some(false), Some(true)));
    });
}
