//! Every kind of object, as other programs see it.

use serde_json::Value;
use vxlan::{Dataplane, Route, RouteKey, RouteTarget, Rule, State};

use crate::namespace::{
    PROTOCOL, add_peer, device, ids, in_namespace, ip, ip_json, json, kernel, link, mesh, native, ours,
    peer_mac, route_key, settle, via,
};

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn the_device_is_made_as_stated() {
    in_namespace(|| {
        settle(&mut kernel(), &mesh([7]));
        let shown = ip_json("-d -j link show dev vx4").remove(0);
        assert_eq!(text(&shown, "ifalias"), "under test");
        assert_eq!(text(&shown, "address"), "02:00:00:00:00:01");
        assert_eq!(shown["mtu"], 1450);
        assert_eq!(text(&shown, "inet6_addr_gen_mode"), "none");
        assert!(shown["flags"].as_array().unwrap().contains(&"UP".into()), "{shown}");
        let vxlan = &shown["linkinfo"]["info_data"];
        assert_eq!((&vxlan["id"], &vxlan["port"]), (&4096.into(), &4789.into()));
        assert_eq!((text(vxlan, "local"), text(vxlan, "link")), ("192.0.2.1", "eth0"));
        assert_eq!(vxlan["learning"], false);
        assert_eq!(text(vxlan, "df"), "unset");
        let addresses: Vec<_> = ip_json("-j addr show dev vx4").remove(0)["addr_info"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| format!("{}/{}", text(a, "local"), a["prefixlen"]))
            .collect();
        assert_eq!(addresses, ["10.244.1.0/32", "fd10:244:0:1::/128"]);
        let read =
            |name| std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")).unwrap();
        assert_eq!((read("vx4").trim(), read("eth0").trim()), ("2", "0"));
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv6/conf/vx4/accept_ra").unwrap().trim(), "0");
    });
}

#[test]
fn a_peer_is_a_neighbour_per_family_an_fdb_entry_and_nexthops_with_routes() {
    in_namespace(|| {
        settle(&mut kernel(), &mesh([7]));
        let mac = peer_mac(7).to_string();
        let neighbors = ip_json("-d -j neigh show dev vx4");
        assert_eq!(neighbors.len(), 2, "{neighbors:?}");
        for neighbor in &neighbors {
            assert_eq!(text(neighbor, "lladdr"), mac);
            assert_eq!(neighbor["state"][0], "PERMANENT");
            assert_eq!(text(neighbor, "protocol"), PROTOCOL.to_string());
        }
        let fdb = json("bridge", "-j fdb show dev vx4");
        assert_eq!(fdb.len(), 1, "{fdb:?}");
        assert_eq!((text(&fdb[0], "mac"), text(&fdb[0], "dst")), (mac.as_str(), "192.0.2.7"));
        assert_eq!(text(&fdb[0], "state"), "permanent");

        let nexthops = ip(&format!("nexthop show proto {PROTOCOL}"));
        assert!(nexthops.contains("via 10.244.7.0 dev vx4 scope link proto 155 onlink"), "{nexthops}");
        assert!(nexthops.contains("via fe80::ff:fe00:107 dev vx4 scope link proto 155"), "{nexthops}");
        let routes = ip(&format!("route show proto {PROTOCOL}"));
        assert!(routes.starts_with("10.244.7.0/24 nhid 1342177294 via 10.244.7.0 dev vx4"), "{routes}");
        let routes = ip(&format!("-6 route show proto {PROTOCOL}"));
        assert!(
            routes.starts_with("fd10:244:0:7::/64 nhid 1342177295 via fe80::ff:fe00:107 dev vx4"),
            "{routes}"
        );
        assert_eq!(ip_json("-j route get 10.244.7.9")[0]["dev"], "vx4");
        assert_eq!(ip_json("-6 -j route get fd10:244:0:7::9")[0]["dev"], "vx4");
    });
}

#[test]
fn routes_carry_source_and_mtu_and_pools_end_unreachable() {
    in_namespace(|| {
        let mut wanted = mesh([7]);
        for route in wanted.routes.values_mut() {
            route.mtu = Some(1400);
        }
        let ipv4 = wanted.routes.get_mut(&route_key("10.244.7.0/24")).unwrap();
        ipv4.source = Some("10.244.1.0".parse().unwrap());
        let ipv6 = wanted.routes.get_mut(&route_key("fd10:244:0:7::/64")).unwrap();
        ipv6.source = Some("fd10:244:0:1::".parse().unwrap());
        for pool in ["10.244.0.0/16", "fd10:244::/48"] {
            let key = RouteKey { metric: u32::MAX, ..route_key(pool) };
            wanted.routes.insert(key, Route { target: RouteTarget::Unreachable, source: None, mtu: None });
        }
        settle(&mut kernel(), &wanted);
        for (get, source) in
            [("route get 10.244.7.9", "10.244.1.0"), ("-6 route get fd10:244:0:7::9", "fd10:244:0:1::")]
        {
            let found = ip(get);
            assert!(found.contains(&format!("src {source}")), "{found}");
        }
        let shown = ip(&format!("route show proto {PROTOCOL}"));
        assert!(shown.contains("mtu 1400"), "{shown}");
        assert!(shown.contains("unreachable 10.244.0.0/16 metric 4294967295"), "{shown}");
        assert!(ip("-6 route show table main").contains("unreachable fd10:244::/48"));
    });
}

#[test]
fn routes_of_one_nexthop_have_an_mtu_each_and_lose_it_again() {
    in_namespace(|| {
        // To Linux a route over a nexthop object whose request has no metrics may as well have a sibling's.
        let mut kernel = kernel();
        let mut wanted = mesh([7]);
        let ipv4 = route_key("10.244.7.0/24");
        wanted.routes.get_mut(&ipv4).unwrap().mtu = Some(1400);
        settle(&mut kernel, &wanted);
        wanted.routes.insert(route_key("10.245.7.0/24"), via(ids(7)[0]));
        settle(&mut kernel, &wanted);
        let mtu = |prefix: &str| ip_json(&format!("-j route show {prefix}"))[0]["metrics"][0]["mtu"].as_u64();
        assert_eq!((mtu("10.244.7.0/24"), mtu("10.245.7.0/24")), (Some(1400), None));
        wanted.routes.get_mut(&ipv4).unwrap().mtu = None;
        settle(&mut kernel, &wanted);
        assert_eq!((mtu("10.244.7.0/24"), mtu("10.245.7.0/24")), (None, None));
        assert_eq!(ip_json("-j route get 10.244.7.9")[0]["metrics"], Value::Null);
    });
}

#[test]
fn a_rule_leads_into_a_table_of_ours() {
    in_namespace(|| {
        let mut wanted = mesh([7]);
        for from in ["10.244.0.0/16", "fd10:244::/48"] {
            wanted.rules.insert(Rule { priority: 110, from: from.parse().unwrap(), table: 9000 });
        }
        let key = RouteKey { table: 9000, ..route_key("192.0.2.7/32") };
        wanted.routes.insert(key, via(ids(7)[0]));
        settle(&mut kernel(), &wanted);
        let rules = ip("rule show");
        assert!(rules.contains("110:\tfrom 10.244.0.0/16 lookup 9000 proto 155"), "{rules}");
        assert!(ip("-6 rule show").contains("110:\tfrom fd10:244::/48 lookup 9000 proto 155"));
        assert_eq!(ip_json("-j route get 192.0.2.7")[0]["dev"], "eth0");
        assert_eq!(ip_json("-j route get 192.0.2.7 from 10.244.1.0")[0]["dev"], "vx4");
    });
}

#[test]
fn an_ipv6_underlay_has_its_own_device() {
    in_namespace(|| {
        let mut wanted = mesh([7]);
        let mut second = device();
        second.local = "2001:db8::1".parse().unwrap();
        second.mtu = 1430;
        wanted.links.insert(link("vx6"), second);
        let key = vxlan::FdbKey { link: link("vx6"), mac: peer_mac(7) };
        wanted.fdb.insert(key, "2001:db8::7".parse().unwrap());
        settle(&mut kernel(), &wanted);
        let shown = ip_json("-d -j link show dev vx6").remove(0);
        assert_eq!(text(&shown["linkinfo"]["info_data"], "local6"), "2001:db8::1");
        assert_eq!(text(&json("bridge", "-j fdb show dev vx6")[0], "dst"), "2001:db8::7");
    });
}

#[test]
fn living_devices_are_changed_in_place() {
    in_namespace(|| {
        let mut kernel = kernel();
        let mut wanted = mesh([7]);
        settle(&mut kernel, &wanted);
        let index = ip_json("-j link show dev vx4")[0]["ifindex"].clone();
        let device = wanted.links.get_mut(&link("vx4")).unwrap();
        device.vxlan_mut().unwrap().mac.0[5] = 9;
        device.mtu = 1400;
        device.local = "192.0.2.9".parse().unwrap();
        settle(&mut kernel, &wanted);
        let shown = ip_json("-d -j link show dev vx4").remove(0);
        assert_eq!(shown["ifindex"], index);
        assert_eq!((text(&shown, "address"), &shown["mtu"]), ("02:00:00:00:00:09", &1400.into()));
        assert_eq!(text(&shown["linkinfo"]["info_data"], "local"), "192.0.2.9");
        assert_eq!(ip_json("-j neigh show dev vx4").len(), 2, "the neighbours are back");

        wanted.links.get_mut(&link("vx4")).unwrap().vxlan_mut().unwrap().vni.0 = 77;
        settle(&mut kernel, &wanted);
        assert_ne!(ip_json("-j link show dev vx4")[0]["ifindex"], index);
    });
}

#[test]
fn nothing_wanted_leaves_nothing() {
    in_namespace(|| {
        let before = (ip("-j link"), ip("route show table all"), ip("-6 route show table all"), ip("rule"));
        let mut kernel = kernel();
        let mut wanted = mesh([7, 8]);
        add_peer(&mut wanted, 9, native(9));
        wanted.rules.insert(Rule { priority: 110, from: "10.244.0.0/16".parse().unwrap(), table: 9000 });
        settle(&mut kernel, &wanted);
        settle(&mut kernel, &State::default());
        assert_eq!(ours(kernel.observe(&[]).unwrap()).rp_filter.len(), 1);
        assert_eq!(before.0, ip("-j link"));
        assert_eq!(before.1, ip("route show table all"));
        assert_eq!(before.2, ip("-6 route show table all"));
        assert_eq!(before.3, ip("rule"));
        assert_eq!(ip("nexthop"), "");
    });
}

#[test]
fn the_underlay_is_seen_with_all_that_decides() {
    in_namespace(|| {
        ip("addr add 192.0.2.5/24 dev eth0");
        ip("addr add 169.254.7.7/16 dev eth0");
        ip("-6 addr add 2001:db8::d/64 dev eth0 nodad preferred_lft 0");
        ip("route add default via 192.0.2.254 dev eth0 metric 100");
        ip("-6 route add default via fe80::1 dev eth0");
        ip("route add 10.244.9.0/24 via 192.0.2.9 dev eth0 proto bird");
        ip("route add 10.0.0.0/8 nexthop via 192.0.2.9 nexthop via 192.0.2.10");
        ip("route add blackhole 10.244.9.0/25");
        ip("route add 10.244.10.0/25 via 192.0.2.9 dev eth0");
        // The default route of another table is none of main's.
        ip("route add default via 192.0.2.253 table 77");
        ip("rule add from 10.9.0.0/16 iif eth0 lookup 77 pref 100");
        ip("rule add to 10.244.9.0/24 fwmark 7 unreachable pref 101");
        ip("rule add from all lookup main suppress_prefixlength 0 pref 102 proto bird");
        ip("-6 rule add not from fd10::/16 lookup 77 pref 103");
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/eth0/rp_filter", "2").unwrap();
        let seen = kernel().observe(&["10.244.9.0/24".parse().unwrap()]).unwrap();

        let eth0 = &seen.interfaces[&link("eth0")];
        assert!(eth0.up && eth0.carrier && eth0.kind == "veth" && eth0.mtu == 1500, "{eth0:?}");
        let found = |text: &str| {
            let address = text.parse().unwrap();
            *eth0
                .addresses
                .iter()
                .find(|a| a.address == address)
                .map(|a| (&a.unfit, &a.local_scope))
                .unwrap()
                .0
        };
        assert!(!found("192.0.2.1/24") && found("192.0.2.5/24"), "a secondary address is unfit");
        assert!(!found("2001:db8::1/64") && found("2001:db8::d/64"), "a deprecated address is unfit");
        let local: Vec<_> =
            eth0.addresses.iter().filter(|a| a.local_scope).map(|a| a.address.to_string()).collect();
        assert!(
            local.contains(&"169.254.7.7/16".to_owned()) && local.iter().any(|a| a.starts_with("fe80::"))
        );

        assert_eq!(seen.rp_filter_all, 1);
        assert_eq!(seen.ours.rp_filter[&link("eth0")], 2);
        let defaults: Vec<_> = seen.default_routes.iter().map(ToString::to_string).collect();
        assert_eq!(
            defaults,
            [
                "route 0.0.0.0/0 via 192.0.2.254 dev eth0 table 254 metric 100 proto 3 (boot)",
                "route ::/0 via fe80::1 dev eth0 table 254 metric 1024 proto 3 (boot)",
            ]
        );
        let foreign: Vec<_> = seen.foreign_routes.iter().map(ToString::to_string).collect();
        assert_eq!(
            foreign,
            [
                "route 0.0.0.0/0 via 192.0.2.253 dev eth0 table 77 metric 0 proto 3 (boot)",
                "route 10.0.0.0/8 via 192.0.2.9 dev eth0 table 254 metric 0 proto 3 (boot)",
                "route 10.244.9.0/24 via 192.0.2.9 dev eth0 table 254 metric 0 proto 12 (bird)",
                "route 10.244.9.0/25 table 254 metric 0 proto 3 (boot)",
            ]
        );
        let rules: Vec<_> =
            seen.foreign_rules.iter().map(|rule| format!("{rule} {}", rule.asks_more)).collect();
        let expected = [
            "rule 0 from all lookup 255 false",
            "rule 100 from 10.9.0.0/16 iif eth0 lookup 77 false",
            "rule 101 from all to 10.244.9.0/24 that ends packets true",
            "rule 102 from all lookup 254 suppress_prefixlength 0 false",
            "rule 32766 from all lookup 254 false",
            "rule 32767 from all lookup 253 false",
            "rule 0 from all lookup 255 false",
            "rule 103 from fd10::/16 lookup 77 true",
            "rule 32766 from all lookup 254 false",
        ];
        assert_eq!(rules, expected);
        assert!(seen.foreign_rules[..6].iter().all(|rule| !rule.ipv6) && seen.foreign_rules[6].ipv6);
        assert_eq!(seen.foreign_rules[3].protocol, 12);
    });
}
