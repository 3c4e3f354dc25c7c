use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bgp::Family;
use ipnet::IpNet;
use vxlan::firewall::{Base, BaseChain, ForeignChain, Netfilter, hook};
use vxlan::{
    Conflict, InstalledRoute, Interface, InterfaceAddress, IpTunnel, LinkName, RouteKey, TunnelId, Vni,
    VxlanId,
};

use super::*;
use crate::status::{Condition, Severity};
use crate::underlay::{Choice, Local, LocalAddress};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn link(text: &str) -> LinkName {
    text.parse().unwrap()
}

fn interface(kind: &str, mtu: u32, addresses: &[&str]) -> Interface {
    Interface {
        index: 1,
        kind: kind.to_owned(),
        alias: String::new(),
        up: true,
        carrier: true,
        mtu,
        mac: None,
        tunnel: None,
        ends: None,
        forwards: None,
        addresses: addresses
            .iter()
            .map(|text| InterfaceAddress { address: net(text), unfit: false, local_scope: false })
            .collect(),
    }
}

fn underlay(address: &str, mtu: u32) -> Choice {
    let local =
        Local { ipv4: Some(LocalAddress { address: net(address), link: link("eth0"), mtu }), ipv6: None };
    Choice { local, problem: None }
}

fn record(name: &str, address: &str) -> Record {
    Record { name: name.parse().unwrap(), addresses: vec![net(address)] }
}

/// A machine with nothing to mend.
fn sound() -> Facts {
    Facts {
        node: "n1".parse().unwrap(),
        pools: vec![net("10.244.0.0/16"), net("fd10:244::/48")],
        kernel: Ok("6.1".to_owned()),
        forwarding: Family::ALL.map(|family| (family, Ok(true))).into(),
        interfaces: Ok(BTreeMap::from([
            (link("eth0"), interface("", 1500, &["192.0.2.1/24"])),
            (link("eth1"), interface("", 1500, &["198.51.100.1/24"])),
            (link("cni0"), interface("bridge", 1500, &["10.244.1.1/24"])),
        ])),
        conflicts: Ok(Vec::new()),
        conditions: Vec::new(),
        ipv6_disabled: Ok(Some((false, false))),
        ours: BTreeSet::new(),
        devices: BTreeMap::from([(
            link("eth0"),
            Device {
                forwarding: Some(true),
                rp_filter: Some(0),
                accept_ra: Some(2),
                ipv6_disabled: Some(false),
            },
        )]),
        rp_filter_all: 0,
        default_routes: vec![InstalledRoute {
            key: RouteKey { table: 254, prefix: net("::/0"), metric: 1024 },
            protocol: 9,
            link: Some(link("eth0")),
            gateway: None,
        }],
        underlay: underlay("192.0.2.1/24", 1500),
        bridge_filter: BridgeFilter { calls_iptables: Some(true), kube_proxy: true },
        modules: Modules {
            vxlan: ModuleState::Present,
            ip: IpTunnel::ALL.map(|kind| (kind, ModuleState::Missing)).into(),
            asked: BTreeSet::new(),
        },
        ports: Ports {
            vxlan: 4789,
            vni: 4096,
            bgp: 179,
            bgp_addresses: vec!["192.0.2.1".parse().unwrap()],
            owners: Ok(Vec::new()),
        },
        netfilter: Ok(Netfilter::default()),
        wants_firewall: true,
        legacy_forward: Ok(Some("ACCEPT".to_owned())),
        legacy_input: Ok(Vec::new()),
        wants_bgp: true,
        clock: Ok(ClockState::Synchronised),
        neighbor_limit: Family::ALL.map(|family| (family, Ok(1024))).into(),
        records: Ok(vec![record("n1", "192.0.2.1/24"), record("n2", "192.0.2.2/24")]),
        folders: vec![Folder { purpose: Purpose::State, path: "/var/lib/pairway".into(), trouble: None }],
    }
}

fn named(facts: &Facts, outcome: Outcome) -> Vec<String> {
    let checks = examine(facts).checks;
    checks.into_iter().filter(|check| check.outcome == outcome).map(|check| check.name).collect()
}

#[test]
fn a_sound_machine_has_nothing_to_mend_and_every_check_looks_at_it() {
    let checks = examine(&sound()).checks;
    let bad: Vec<&Check> = checks.iter().filter(|check| check.outcome != Outcome::Ok).collect();
    assert!(bad.is_empty(), "{bad:?}");
    let names: BTreeSet<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names.len(), 24, "{names:?}");
    assert!(checks.iter().all(|check| check.remedy.is_empty()));
}

fn owner(proto: Proto, address: &str, port: u16, owner: Owner) -> PortOwner {
    PortOwner { proto, address: address.parse().unwrap(), port, owner }
}

fn process(name: &str) -> Owner {
    Owner::Process { pid: 77, name: name.to_owned() }
}

/// What is broken, the check that has to find it, and a word of its remedy.
type Broken = (&'static str, fn(&mut Facts), &'static str);

#[test]
fn each_thing_that_is_broken_is_found_by_its_check_alone() {
    let table: [Broken; 38] = [
        ("kernel", |f| f.kernel = Err("Linux 5.10 is too old".to_owned()), "newer kernel"),
        ("module-vxlan", |f| f.modules.vxlan = ModuleState::Missing, "modprobe vxlan"),
        (
            "module-sit",
            |f| {
                f.modules.asked.insert(IpTunnel::Sit);
            },
            "modprobe sit",
        ),
        (
            "ip-forward",
            |f| {
                f.forwarding.insert(Family::Ipv4, Ok(false));
            },
            "net.ipv4.ip_forward=1",
        ),
        (
            "ipv6-forward",
            |f| {
                f.forwarding.insert(Family::Ipv6, Ok(false));
            },
            "net.ipv6.conf.all.forwarding=1",
        ),
        (
            "ip-forward",
            |f| f.devices.get_mut(&link("eth0")).unwrap().forwarding = Some(false),
            "net.ipv4.conf.eth0.forwarding=1",
        ),
        ("accept-ra", |f| f.devices.get_mut(&link("eth0")).unwrap().accept_ra = Some(1), "eth0.accept_ra=2"),
        (
            "rp-filter",
            |f| {
                f.rp_filter_all = 1;
                f.ours.insert(link("pairway-vx4"));
            },
            "eth0.rp_filter=2",
        ),
        (
            "neighbor-limit",
            |f| {
                f.neighbor_limit.insert(Family::Ipv4, Ok(1));
            },
            "gc_thresh3=4",
        ),
        ("ipv6", |f| f.ipv6_disabled = Ok(None), "boot without ipv6.disable=1"),
        ("ipv6", |f| f.ipv6_disabled = Ok(Some((true, true))), "sysctl -w net.ipv6.conf.all.disable_ipv6=0"),
        ("ipv6", |f| f.ipv6_disabled = Ok(Some((false, true))), "net.ipv6.conf.default.disable_ipv6=0"),
        (
            "ipv6",
            |f| {
                f.ours.insert(link("pairway-vx4"));
                let off = Device { ipv6_disabled: Some(true), ..Device::default() };
                f.devices.insert(link("pairway-vx4"), off);
            },
            "sysctl -w net.ipv6.conf.pairway-vx4.disable_ipv6=0",
        ),
        (
            "in-the-way",
            |f| {
                f.conflicts = Ok(vec![Conflict {
                    wanted: "route 10.244.2.0/24 table 254 metric 1120".to_owned(),
                    found: "route 10.244.2.0/25".to_owned(),
                    hint: "remove it: ip route delete 10.244.2.0/25".to_owned(),
                }]);
            },
            "ip route delete 10.244.2.0/25",
        ),
        (
            "in-the-way",
            |f| f.conditions = vec![conflict("route 10.244.3.0/24 table 254 metric 1120")],
            "stop whoever makes it",
        ),
        ("clock", |f| f.clock = Ok(ClockState::Free), "timedatectl set-ntp true"),
        ("underlay", |f| f.underlay.problem = Some("no default route".to_owned()), "node.underlay"),
        ("host-prefix", |f| f.underlay = underlay("192.0.2.1/32", 1500), "prefix length"),
        (
            "nics",
            |f| {
                let interfaces = f.interfaces.as_mut().unwrap();
                interfaces.insert(link("eth2"), interface("", 1500, &["192.0.2.9/24"]));
            },
            "node.underlay",
        ),
        (
            "mtu",
            |f| {
                f.underlay = underlay("192.0.2.1/24", 1300);
                f.interfaces.as_mut().unwrap().get_mut(&link("cni0")).unwrap().mtu = 1300;
            },
            "ip link set eth0 mtu 1330",
        ),
        (
            "mtu",
            |f| f.interfaces.as_mut().unwrap().get_mut(&link("cni0")).unwrap().mtu = 9000,
            "CNI plugin's mtu to 1500",
        ),
        (
            "forward-policy",
            |f| {
                Arc::make_mut(&mut f.netfilter.as_mut().unwrap().forward)
                    .push(dropping("ip", "filter", "FORWARD"))
            },
            "iptables -I FORWARD -s 10.244.0.0/16 -j ACCEPT",
        ),
        (
            "forward-policy",
            |f| Arc::make_mut(&mut f.netfilter.as_mut().unwrap().forward).push(dropping("ip", "mine", "fwd")),
            "nft insert rule ip mine fwd ip saddr 10.244.0.0/16 accept",
        ),
        ("forward-policy", |f| f.legacy_forward = Ok(Some("DROP".to_owned())), "iptables-legacy -I FORWARD"),
        (
            "forward-policy",
            |f| {
                Arc::make_mut(&mut f.netfilter.as_mut().unwrap().forward).push(dropping(
                    "ip",
                    "firewalld",
                    "filter_FORWARD",
                ))
            },
            "--add-source=10.244.0.0/16",
        ),
        (
            "input",
            |f| {
                f.wants_bgp = false;
                Arc::make_mut(&mut f.netfilter.as_mut().unwrap().input).push(closed("ip", "filter", "INPUT"));
            },
            "iptables -I INPUT -p udp --dport 4789 -j ACCEPT",
        ),
        (
            "input",
            |f| {
                f.wants_bgp = false;
                f.legacy_input = Ok(vec![closed("ip", "filter", "INPUT")]);
            },
            "iptables-legacy -I INPUT -p udp --dport 4789 -j ACCEPT",
        ),
        (
            "ip-forward",
            |f| {
                let off = Device { forwarding: Some(false), ..Device::default() };
                f.devices.insert(link("cni0"), off);
            },
            "net.ipv4.conf.cni0.forwarding=1",
        ),
        (
            "nftables",
            |f| f.netfilter.as_mut().unwrap().unavailable = Some("protocol not supported".to_owned()),
            "nft_masq",
        ),
        ("br-netfilter", |f| f.bridge_filter.calls_iptables = None, "modprobe br_netfilter"),
        (
            "port-bgp",
            |f| f.ports.owners.as_mut().unwrap().push(owner(Proto::Tcp, "0.0.0.0", 179, process("bird"))),
            "bgp.listen",
        ),
        (
            "port-bgp",
            |f| f.ports.owners.as_mut().unwrap().push(owner(Proto::Tcp, "::", 179, Owner::Unseen)),
            "bgp.port",
        ),
        (
            "port-vxlan",
            |f| f.ports.owners.as_mut().unwrap().push(owner(Proto::Udp, "0.0.0.0", 4789, process("ovs"))),
            "vxlan.port",
        ),
        (
            "port-vxlan",
            |f| {
                let id = VxlanId { vni: Vni(4096), port: 4789, ipv6: false };
                let device = Interface { tunnel: Some(TunnelId::Vxlan(id)), ..interface("vxlan", 1450, &[]) };
                f.interfaces.as_mut().unwrap().insert(link("flannel.1"), device);
            },
            "ip link delete flannel.1",
        ),
        (
            "node-address",
            |f| f.records.as_mut().unwrap().push(record("n3", "192.0.2.2/24")),
            "pairway node delete NAME",
        ),
        (
            "node-address",
            |f| f.records.as_mut().unwrap().push(record("n3", "192.0.2.1/24")),
            "pairway node delete NAME",
        ),
        ("state-dir", |f| f.folders[0].trouble = Some("read-only".to_owned()), "stateDir"),
        (
            "store-dir",
            |f| {
                f.folders[0].purpose = Purpose::Store;
                f.folders[0].trouble = Some("read-only".to_owned());
            },
            "store.file.path",
        ),
    ];
    for (index, (name, spoil, remedy)) in table.into_iter().enumerate() {
        let mut facts = sound();
        spoil(&mut facts);
        let checks = examine(&facts).checks;
        let found: Vec<&Check> = checks.iter().filter(|check| check.outcome == Outcome::Finding).collect();
        assert_eq!(found.len(), 1, "row {index}, {name}: {found:?}");
        assert_eq!(found[0].name, name, "row {index}");
        assert!(found[0].remedy.contains(remedy), "row {index}: {}", found[0].remedy);
        assert!(!found[0].message.is_empty());
    }
}

/// A chain for forwarded packets that drops them all by its policy.
fn dropping(family: &str, table: &str, name: &str) -> ForeignChain {
    let base = Base { kind: "filter".to_owned(), hook: hook::FORWARD, priority: 0 };
    ForeignChain {
        family: family.to_owned(),
        table: table.to_owned(),
        name: name.to_owned(),
        base: Some(BaseChain { base, drops: true }),
        rules: Vec::new(),
    }
}

/// A chain for packets to this machine that drops them all by its policy.
fn closed(family: &str, table: &str, name: &str) -> ForeignChain {
    let mut chain = dropping(family, table, name);
    if let Some(base) = &mut chain.base {
        base.base.hook = hook::INPUT;
    }
    chain
}

/// All that must come in is asked for, by what is in use and from whom it comes.
#[test]
fn what_must_come_in_is_what_is_in_use() {
    let subjects = |change: fn(&mut Facts)| {
        let mut facts = sound();
        Arc::make_mut(&mut facts.netfilter.as_mut().unwrap().input).push(closed("inet", "mine", "input"));
        change(&mut facts);
        let checks = examine(&facts).checks.into_iter();
        let found = checks.filter(|check| check.name == "input" && check.outcome == Outcome::Finding);
        found.map(|check| check.subject).collect::<Vec<_>>()
    };
    let (tcp, udp) = ("TCP port 179: inet mine input", "UDP port 4789: inet mine input");
    // Of two nodes the one with the smaller name opens the session.
    assert_eq!(subjects(|_| ()), [udp]);
    assert_eq!(subjects(|f| f.node = "n3".parse().unwrap()), [udp, tcp]);
    assert_eq!(subjects(|f| (f.node, f.wants_bgp) = ("n3".parse().unwrap(), false)), [udp]);
    let all = [udp, "IP protocol 4: inet mine input", "IP protocol 41: inet mine input"];
    assert_eq!(subjects(|f| f.modules.asked = IpTunnel::ALL.into()), all);
    // With both families at both ends everything comes over IPv4; where only one end has it, over IPv6.
    let dual = |f: &mut Facts| {
        let address = net("2001:db8::1/64");
        f.underlay.local.ipv6 = Some(LocalAddress { address, link: link("eth0"), mtu: 1500 });
        f.node = "n3".parse().unwrap();
    };
    let destinations = |change: &dyn Fn(&mut Facts)| {
        let mut facts = sound();
        Arc::make_mut(&mut facts.netfilter.as_mut().unwrap().input).push(closed("inet", "mine", "input"));
        dual(&mut facts);
        change(&mut facts);
        let checks = examine(&facts).checks.into_iter();
        let found = checks.filter(|check| check.name == "input" && check.outcome == Outcome::Finding);
        let of_v6 =
            found.map(|check| (check.subject.starts_with("UDP"), check.message.contains("2001:db8::1")));
        of_v6.collect::<Vec<_>>()
    };
    let (udp4, tcp4, udp6, tcp6) = ((true, false), (false, false), (true, true), (false, true));
    assert_eq!(
        destinations(&|f| f.records.as_mut().unwrap()[1].addresses.push(net("2001:db8::2/64"))),
        [udp4, tcp4]
    );
    assert_eq!(destinations(&|f| f.records = Ok(vec![record("n2", "2001:db8::2/64")])), [udp6, tcp6]);
    assert_eq!(destinations(&|f| f.records = Ok(Vec::new())), [udp4, tcp4]);
    // Before any node is known, whoever is like this one.
    assert_eq!(subjects(|f| f.records = Ok(Vec::new())), [udp, tcp]);
    assert_eq!(subjects(|f| f.underlay.local = Local::default()), [""; 0]);
}

/// What it is, and how the machine differs.
type Case = (&'static str, fn(&mut Facts));

#[test]
fn what_looks_like_trouble_and_is_none() {
    let table: [Case; 12] = [
        ("our own agent has the port", |f| {
            f.ports.owners.as_mut().unwrap().push(owner(Proto::Tcp, "192.0.2.1", 179, process("pairway")));
        }),
        ("a speaker on another address", |f| {
            f.ports.owners.as_mut().unwrap().push(owner(Proto::Tcp, "127.0.0.1", 179, process("bird")));
        }),
        ("the kernel's socket of our own device", |f| {
            let id = VxlanId { vni: Vni(4096), port: 4789, ipv6: false };
            let device = Interface { tunnel: Some(TunnelId::Vxlan(id)), ..interface("vxlan", 1450, &[]) };
            f.interfaces.as_mut().unwrap().insert(link("pairway-vx4"), device);
            f.ours.insert(link("pairway-vx4"));
            f.ports.owners.as_mut().unwrap().push(owner(Proto::Udp, "0.0.0.0", 4789, Owner::Unseen));
        }),
        ("a VXLAN device with another identifier", |f| {
            let id = VxlanId { vni: Vni(1), port: 4789, ipv6: false };
            let device = Interface { tunnel: Some(TunnelId::Vxlan(id)), ..interface("vxlan", 1450, &[]) };
            f.interfaces.as_mut().unwrap().insert(link("flannel.1"), device);
        }),
        ("a chain that drops another family", |f| {
            f.pools.retain(|pool| pool.addr().is_ipv4());
            Arc::make_mut(&mut f.netfilter.as_mut().unwrap().forward).push(dropping("ip6", "mine", "fwd"));
        }),
        ("a closed chain of another family", |f| {
            Arc::make_mut(&mut f.netfilter.as_mut().unwrap().input).push(closed("ip6", "mine", "input"));
        }),
        ("no nftables where none are asked for", |f| {
            f.wants_firewall = false;
            f.netfilter.as_mut().unwrap().unavailable = Some("protocol not supported".to_owned());
        }),
        ("IPv6 disabled for all, and enabled again for each", |f| f.ipv6_disabled = Ok(Some((true, false)))),
        ("strict reverse paths before the agent has come", |f| f.rp_filter_all = 1),
        ("no br_netfilter without kube-proxy", |f| {
            f.bridge_filter = BridgeFilter { calls_iptables: None, kube_proxy: false };
        }),
        ("a store without nodes", |f| f.records = Ok(Vec::new())),
        ("a module that can be loaded", |f| f.modules.vxlan = ModuleState::OnDisk),
    ];
    for (what, change) in table {
        let mut facts = sound();
        change(&mut facts);
        assert_eq!(named(&facts, Outcome::Finding), [""; 0], "{what}");
    }
}

/// As the agent says it.
fn conflict(wanted: &str) -> Condition {
    Condition {
        kind: "Conflict".to_owned(),
        subject: wanted.to_owned(),
        message: format!("route fd10::/64 via fe80:: dev x is in the way of {wanted}: stop whoever makes it"),
        since: String::new(),
        severity: Severity::default(),
    }
}

#[test]
fn what_the_agent_says_of_conflicts_is_added_to_what_is_seen() {
    let mut facts = sound();
    let wanted = "route 10.244.3.0/24 table 254 metric 1120";
    facts.conditions = vec![conflict(wanted), Condition { kind: "PeerSilent".to_owned(), ..conflict("n2") }];
    let found = |facts: &Facts| -> Vec<Check> {
        let checks = examine(facts).checks.into_iter();
        checks.filter(|check| check.name == "in-the-way" && check.outcome == Outcome::Finding).collect()
    };
    let told = found(&facts);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].message, format!("route fd10::/64 via fe80:: dev x is in the way of {wanted}"));
    assert_eq!((told[0].subject.as_str(), told[0].remedy.as_str()), (wanted, "stop whoever makes it"));
    // Also where the kernel can't be read from here; and what both see is said once.
    facts.conflicts = Err("nobody may look".to_owned());
    assert_eq!(found(&facts), told);
    let seen = Conflict { wanted: wanted.to_owned(), found: "it".to_owned(), hint: "remove it".to_owned() };
    facts.conflicts = Ok(vec![seen]);
    assert_eq!(found(&facts).iter().map(|check| check.remedy.as_str()).collect::<Vec<_>>(), ["remove it"]);
}

#[test]
fn what_can_not_be_seen_is_no_finding_and_not_well_either() {
    let why = || "nobody may look".to_owned();
    let mut facts = sound();
    facts.forwarding = Family::ALL.map(|family| (family, Err(why()))).into();
    facts.interfaces = Err(why());
    facts.netfilter = Err(why());
    facts.conflicts = Err(why());
    facts.ipv6_disabled = Err(why());
    facts.legacy_forward = Err(why());
    facts.legacy_input = Err(why());
    facts.clock = Err(why());
    facts.records = Err(why());
    facts.ports.owners = Err(why());
    facts.modules.vxlan = ModuleState::Unknown(why());
    assert_eq!(named(&facts, Outcome::Finding), [""; 0]);
    let unseen: BTreeSet<String> = named(&facts, Outcome::NotChecked).into_iter().collect();
    for name in [
        "ip-forward",
        "ipv6-forward",
        "mtu",
        "nics",
        "forward-policy",
        "input",
        "in-the-way",
        "ipv6",
        "clock",
        "node-address",
        "port-bgp",
    ] {
        assert!(unseen.contains(name), "{name} is not among {unseen:?}");
    }
    // Filters that can't be read let nothing be said of them.
    let mut facts = sound();
    facts.netfilter.as_mut().unwrap().unread = true;
    assert_eq!(named(&facts, Outcome::NotChecked), ["forward-policy", "nftables", "input"]);
}
