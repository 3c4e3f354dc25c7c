use vxlan::{InstalledRoute, InterfaceAddress, RouteKey};

use super::*;

/// `fit:192.0.2.1/24`, `unfit:...` or `local:...`.
fn address(text: &str) -> InterfaceAddress {
    let (kind, net) = text.split_once(':').unwrap();
    InterfaceAddress { address: net.parse().unwrap(), unfit: kind == "unfit", local_scope: kind == "local" }
}

fn kernel(interfaces: &[(&str, &[&str])], default_routes: &[(&str, &str)]) -> Observed {
    let mut observed = Observed::default();
    for (index, (name, addresses)) in (1..).zip(interfaces) {
        observed.interfaces.insert(
            name.parse().unwrap(),
            Interface {
                index,
                kind: String::new(),
                alias: String::new(),
                up: true,
                carrier: true,
                mtu: 1500,
                mac: None,
                tunnel: None,
                ends: None,
                forwards: None,
                addresses: addresses.iter().map(|text| address(text)).collect(),
            },
        );
    }
    observed.default_routes = default_routes
        .iter()
        .map(|(prefix, link)| InstalledRoute {
            key: RouteKey { table: 254, prefix: prefix.parse().unwrap(), metric: 0 },
            protocol: 3,
            link: Some(link.parse().unwrap()),
            gateway: None,
        })
        .collect();
    observed
}

fn check(wanted: &Wanted, observed: &Observed) -> String {
    let choice = choose(wanted, &["10.244.0.0/16".parse().unwrap()], observed, &Local::default());
    let show = |address: &Option<LocalAddress>| {
        address.as_ref().map_or_else(|| "-".to_owned(), |a| format!("{} {}", a.link, a.address))
    };
    match choice.problem {
        Some(problem) => problem,
        None => format!("{} | {}", show(&choice.local.ipv4), show(&choice.local.ipv6)),
    }
}

fn interface(name: &str) -> Wanted {
    Wanted::Select(vec![UnderlaySelector::Interface(name.to_owned())])
}

#[test]
fn auto_takes_the_default_routes_interface() {
    let interfaces: &[(&str, &[&str])] = &[
        ("cni0", &["fit:10.244.1.1/24"]),
        ("eth0", &["unfit:192.0.2.9/24", "fit:192.0.2.1/24", "local:fe80::1/64", "fit:2001:db8::1/64"]),
        ("eth1", &["fit:198.51.100.1/24", "fit:2001:db8:1::1/64"]),
    ];
    let table: [(&[(&str, &str)], &str); 5] = [
        (&[("0.0.0.0/0", "eth0")], "eth0 192.0.2.1/24 | eth0 2001:db8::1/64"),
        (&[("0.0.0.0/0", "eth0"), ("::/0", "eth1")], "eth0 192.0.2.1/24 | eth1 2001:db8:1::1/64"),
        (&[("::/0", "eth1")], "eth1 198.51.100.1/24 | eth1 2001:db8:1::1/64"),
        (
            &[],
            "node.underlay is auto and there is no default route: wait for one, or set node.underlay to an interface: those with a fit address are eth0, eth1",
        ),
        (
            &[("0.0.0.0/0", "cni0")],
            "interface cni0 has no fit address: 10.244.1.1/24 (secondary, temporary, deprecated, tentative, link-local and pool addresses are not used)",
        ),
    ];
    for (routes, want) in table {
        assert_eq!(check(&Wanted::Auto, &kernel(interfaces, routes)), want);
    }
}

#[test]
fn selectors_are_tried_in_order_and_per_family() {
    let observed = kernel(
        &[("eth0", &["fit:192.0.2.1/24"]), ("eth1", &["fit:198.51.100.1/24", "fit:2001:db8::1/64"])],
        &[],
    );
    let select = |list: &[&str]| {
        Wanted::Select(
            list.iter()
                .map(|text| match text.parse() {
                    Ok(cidr) => UnderlaySelector::Cidr(cidr),
                    Err(_) => UnderlaySelector::Interface((*text).to_owned()),
                })
                .collect(),
        )
    };
    assert_eq!(check(&interface("eth0"), &observed), "eth0 192.0.2.1/24 | -");
    assert_eq!(check(&select(&["eth0", "eth1"]), &observed), "eth0 192.0.2.1/24 | eth1 2001:db8::1/64");
    assert_eq!(check(&select(&["198.51.100.0/24"]), &observed), "eth1 198.51.100.1/24 | -");
    assert_eq!(
        check(&interface("eth7"), &observed),
        "there is no interface eth7: those with a fit address are eth0, eth1"
    );
    assert_eq!(
        check(&select(&["203.0.113.0/24"]), &observed),
        "no fit address lies within 203.0.113.0/24: those with a fit address are eth0, eth1"
    );
}

#[test]
fn a_device_that_is_down_serves_nobody() {
    let mut observed = kernel(&[("eth0", &["fit:192.0.2.1/24"])], &[]);
    let eth0: LinkName = "eth0".parse().unwrap();
    observed.interfaces.get_mut(&eth0).unwrap().carrier = false;
    assert_eq!(
        check(&interface("eth0"), &observed),
        "interface eth0 has no carrier: look at its cable or its other end"
    );
    observed.interfaces.get_mut(&eth0).unwrap().up = false;
    assert_eq!(check(&interface("eth0"), &observed), "interface eth0 is down: set it up");
}

#[test]
fn auto_stays_where_it_was_as_long_as_that_is_fit() {
    let interfaces: &[(&str, &[&str])] =
        &[("eth0", &["fit:192.0.2.1/24"]), ("wg0", &["fit:198.51.100.1/24"])];
    let before = choose(&Wanted::Auto, &[], &kernel(interfaces, &[("0.0.0.0/0", "eth0")]), &Local::default());
    let moved = kernel(interfaces, &[("0.0.0.0/0", "wg0")]);
    assert_eq!(choose(&Wanted::Auto, &[], &moved, &before.local), before);
    let gone = kernel(&interfaces[1..], &[("0.0.0.0/0", "wg0")]);
    let after = choose(&Wanted::Auto, &[], &gone, &before.local);
    assert_eq!(after.local.ipv4.unwrap().link.as_str(), "wg0");
}
