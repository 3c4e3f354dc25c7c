//! FakeKernel held to the real one: the same changes, the same answers, the same state after.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use fastrand::Rng;
use vxlan::fake::FakeKernel;
use vxlan::firewall::{Firewall, Guard, Masquerade};
use vxlan::netlink::Kernel;
use vxlan::{
    Address, Change, Dataplane, FdbKey, Gateway, LinkName, Mac, NeighborKey, Nexthop, NexthopId, Route,
    RouteKey, RouteTarget, Rule, SetChange, State, Vni, VxlanLink,
};

use crate::namespace::{id, in_namespace, ip, kernel, link, ours, underlay_ipv6, wait_for_state};

/// Runs of random changes, each in a namespace of its own.
const RUNS: u64 = 60;
/// Lists of changes per run.
const LISTS: usize = 40;

fn pick<T: Clone>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())].clone()
}

/// Mostly one of ours, be it there or not.
fn some_device(rng: &mut Rng) -> LinkName {
    link(pick(rng, &["vx4", "vx4", "vx4", "vx4", "vx4", "vx4", "vx6", "vx6", "vy4", "vy4", "eth0"]))
}

fn device(rng: &mut Rng, name: &LinkName) -> VxlanLink {
    let local =
        if name.as_str() == "vx6" { ["2001:db8::1", "2001:db8::9"] } else { ["192.0.2.1", "192.0.2.9"] };
    VxlanLink {
        vni: Vni(pick(rng, &[4096, 4096, 4096, 4097])),
        port: pick(rng, &[4789, 4789, 4789, 4790]),
        local: pick(rng, &local).parse().unwrap(),
        underlay: link(pick(rng, &["eth0", "eth0", "eth0", "eth0", "eth1", "eth9"])),
        mac: Mac([2, 0, 0, 0, 0, pick(rng, &[1, 1, 2])]),
        mtu: pick(rng, &[1430, 1430, 1400, 1300, 1450, 1451]),
        up: rng.u8(..5) > 0,
    }
}

fn nexthop(rng: &mut Rng) -> Nexthop {
    let (address, onlink) = pick(
        rng,
        &[
            ("192.0.2.7", false),
            ("192.0.2.7", true),
            ("192.0.2.1", true),
            ("192.0.2.255", false),
            ("198.51.100.9", false),
            ("10.244.7.0", true),
            ("10.244.7.0", true),
            ("10.244.7.0", false),
            ("10.244.1.0", true),
            ("224.0.0.1", true),
            ("fe80::7", false),
            ("fe80::7", false),
            ("fe80::8", true),
            ("2001:db8::7", false),
            ("2001:db8::7", true),
            ("2001:db8::1", false),
            ("fd10:244:0:7::", true),
            ("fd10:244:0:7::", false),
            ("ff02::1", false),
        ],
    );
    let link = link(pick(rng, &["eth0", "vx4", "vx4", "vx6", "eth9"]));
    Nexthop { gateway: Gateway { address: address.parse().unwrap(), onlink }, link }
}

fn route_key(rng: &mut Rng) -> RouteKey {
    let prefix =
        pick(rng, &["10.244.7.0/24", "10.245.7.0/24", "10.244.0.0/16", "fd10:244:0:7::/64", "fd10:244::/48"]);
    RouteKey {
        table: pick(rng, &[254, 254, 9000]),
        prefix: prefix.parse().unwrap(),
        metric: pick(rng, &[0, 0, 50, u32::MAX]),
    }
}

fn route(rng: &mut Rng) -> Route {
    if rng.u8(..5) == 0 {
        return Route { target: RouteTarget::Unreachable, source: None, mtu: None };
    }
    let source = match rng.u8(..6) {
        0 => Some("10.244.1.0"),
        1 => Some("fd10:244:0:1::"),
        2 => Some("192.0.2.1"),
        _ => None,
    };
    Route {
        target: RouteTarget::Nexthop(nexthop_id(rng)),
        source: source.map(|source| source.parse().unwrap()),
        mtu: pick(rng, &[None, None, Some(1300), Some(1400)]),
    }
}

fn nexthop_id(rng: &mut Rng) -> NexthopId {
    id(rng.u32(1..5))
}

fn address(rng: &mut Rng) -> Address {
    let address = pick(rng, &["10.244.1.0/32", "10.244.1.0/32", "10.244.2.0/32", "fd10:244:0:1::/128"]);
    Address { link: some_device(rng), address: address.parse().unwrap() }
}

fn neighbor(rng: &mut Rng) -> NeighborKey {
    let address = pick(rng, &["10.244.7.0", "10.244.8.0", "fe80::7"]);
    NeighborKey { link: some_device(rng), address: address.parse().unwrap() }
}

fn fdb(rng: &mut Rng) -> FdbKey {
    FdbKey { link: some_device(rng), mac: Mac([2, 0, 0, 0, 1, rng.u8(7..9)]) }
}

fn rule(rng: &mut Rng) -> Rule {
    let from = pick(rng, &["10.244.0.0/16", "10.245.0.0/16", "fd10:244::/48"]);
    Rule { priority: pick(rng, &[110, 111]), from: from.parse().unwrap(), table: pick(rng, &[9000, 9001]) }
}

fn change(rng: &mut Rng) -> Change {
    match rng.u8(..44) {
        0..3 => {
            let name = some_device(rng);
            Change::AddLink(name.clone(), device(rng, &name))
        }
        3..6 => {
            let name = some_device(rng);
            Change::SetLink(name.clone(), device(rng, &name))
        }
        6 => Change::DeleteLink(some_device(rng)),
        7 => Change::SetRpFilter(link(pick(rng, &["eth0", "vx4", "eth9"])), rng.u8(..3)),
        8..10 => Change::AddAddress(address(rng)),
        10 => Change::DeleteAddress(address(rng)),
        11..14 => Change::SetNeighbor(neighbor(rng), Mac([2, 0, 0, 0, 1, rng.u8(7..9)])),
        14 => Change::DeleteNeighbor(neighbor(rng)),
        15..17 => {
            let remote = pick(rng, &["192.0.2.7", "192.0.2.8", "2001:db8::7"]);
            Change::SetFdb(fdb(rng), remote.parse().unwrap())
        }
        17 => Change::DeleteFdb(fdb(rng)),
        18..22 => Change::AddNexthop(nexthop_id(rng), nexthop(rng)),
        22..25 => Change::SetNexthop(nexthop_id(rng), nexthop(rng)),
        25 => Change::DeleteNexthop(nexthop_id(rng)),
        26..31 => Change::AddRoute(route_key(rng), route(rng)),
        31..34 => Change::SetRoute(route_key(rng), route(rng)),
        34..36 => Change::DeleteRoute(route_key(rng)),
        36..38 => Change::AddRule(rule(rng)),
        38 => Change::SetFirewall(firewall(rng).table().unwrap()),
        39..41 => Change::ChangeSets((0..rng.usize(1..3)).map(|_| set_change(rng)).collect()),
        41 => Change::DeleteFirewall,
        _ => Change::DeleteRule(rule(rng)),
    }
}

fn firewall(rng: &mut Rng) -> Firewall {
    let pools = ["10.244.0.0/16", "10.99.0.0/17", "fd10:244::/48"];
    Firewall {
        pools: pools.iter().filter(|_| rng.bool()).map(|pool| pool.parse().unwrap()).collect(),
        nodes: underlays(rng),
        masquerade: rng.bool().then(Masquerade::default),
        guard: Some(Guard { vni: Vni(pick(rng, &[4096, 4097])), port: 4789 }),
    }
}

fn set_change(rng: &mut Rng) -> SetChange {
    let set = pick(rng, &["nodes4", "nodes4", "nodes4", "nodes6", "absent"]).to_owned();
    let family = |addresses: BTreeSet<IpAddr>, rng: &mut Rng| -> BTreeSet<IpAddr> {
        // Mostly what fits.
        addresses.into_iter().filter(|ip| ip.is_ipv4() == (set != "nodes6") || rng.u8(..10) == 0).collect()
    };
    let (add, remove) = (underlays(rng), underlays(rng));
    let (add, remove) = (family(add, rng), family(remove, rng));
    SetChange { set, add, remove }
}

fn underlays(rng: &mut Rng) -> BTreeSet<IpAddr> {
    let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"];
    all.iter().filter(|_| rng.u8(..3) == 0).map(|ip| ip.parse().unwrap()).collect()
}

/// Something that others do, to both kernels. Says what.
fn misfortune(rng: &mut Rng, fake: &FakeKernel) -> String {
    let state = fake.state();
    let tunnels: Vec<&str> = state.links.keys().map(LinkName::as_str).collect();
    let tunnel = (!tunnels.is_empty()).then(|| pick(rng, &tunnels));
    match (rng.u8(..30) / 4, tunnel) {
        (0, Some(name)) => {
            ip(&format!("link delete {name}"));
            fake.remove_interface(name);
            format!("{name} deleted")
        }
        (1, Some(name)) => {
            ip(&format!("link set {name} down"));
            fake.set_up(name, false);
            format!("{name} down")
        }
        (5, _) => {
            let mtu = pick(rng, &[1400, 1500, 1500]);
            ip(&format!("link set eth0 mtu {mtu}"));
            fake.set_mtu("eth0", mtu);
            format!("mtu {mtu} of eth0")
        }
        (2, Some(name)) => {
            ip(&format!("link set {name} up"));
            fake.set_up(name, true);
            format!("{name} up")
        }
        (3, _) => {
            ip("link set eth0 down");
            ip("link set eth0 up");
            underlay_ipv6();
            fake.set_up("eth0", false);
            fake.set_up("eth0", true);
            fake.set_addresses("eth0", &["192.0.2.1/24", "2001:db8::1/64"]);
            "eth0 down and up".to_owned()
        }
        (7, _) => {
            ip("link set eth0p down");
            wait_for_state("eth0", "LOWERLAYERDOWN");
            ip("link set eth0p up");
            wait_for_state("eth0", "UP");
            fake.set_carrier("eth0", false);
            fake.set_carrier("eth0", true);
            "carrier of eth0 lost and back".to_owned()
        }
        (4, Some(name)) if !state.links.contains_key(&link("stray0")) => {
            // Up, it can't be renamed before Linux 6.2.
            ip(&format!("link set {name} down"));
            ip(&format!("link set {name} name stray0"));
            fake.set_up(name, false);
            fake.rename_interface(name, "stray0");
            format!("{name} renamed")
        }
        _ => String::new(),
    }
}

/// What both hold, `rp_filter` of the devices that both have.
fn held(dataplane: &mut dyn Dataplane) -> State {
    ours(dataplane.observe(&[]).expect("an observation"))
}

fn run(seed: u64, fake: &FakeKernel, real: &mut Kernel) {
    let mut rng = Rng::with_seed(seed);
    let mut log = format!("seed {seed}\n");
    for _ in 0..LISTS {
        if rng.u8(..4) == 0 {
            let what = misfortune(&mut rng, fake);
            let _ = writeln!(log, "-- {what}");
        }
        let changes: Vec<Change> = (0..rng.usize(1..20)).map(|_| change(&mut rng)).collect();
        let faked = fake.clone().apply(&changes);
        let done = real.apply(&changes);
        assert_eq!(faked.len(), done.len());
        for ((change, faked), done) in changes.iter().zip(faked).zip(done) {
            let _ = writeln!(log, "{change:?} -> {done:?}");
            let errno = |result: &Result<(), vxlan::ApplyError>| {
                result.as_ref().map_err(|error| error.errno).copied()
            };
            assert_eq!(errno(&faked), errno(&done), "fake {faked:?}, real {done:?}\n{log}");
        }
        let (faked, real) = (held(&mut fake.clone()), held(real));
        assert!(faked == real, "{}\n{log}", differences(&faked, &real));
    }
}

/// The fields that differ.
fn differences(fake: &State, real: &State) -> String {
    let fields = |state: &State| {
        [
            format!("{:?}", state.links),
            format!("{:?}", state.addresses),
            format!("{:?}", state.neighbors),
            format!("{:?}", state.fdb),
            format!("{:?}", state.nexthops),
            format!("{:?}", state.routes),
            format!("{:?}", state.rules),
            format!("{:?}", state.rp_filter),
            format!("{:?}", state.firewall),
        ]
    };
    let pairs = fields(fake).into_iter().zip(fields(real));
    pairs
        .filter(|(fake, real)| fake != real)
        .map(|(fake, real)| format!("fake {fake}\nreal {real}\n"))
        .collect()
}

#[test]
fn random_changes_have_the_same_answers_and_the_same_end() {
    // One thread per two seeds' worth of runs keeps both cores busy.
    let runs = |parity: u64| move || (0..RUNS).filter(|seed| seed % 2 == parity).for_each(one_run);
    let threads = [std::thread::spawn(runs(0)), std::thread::spawn(runs(1))];
    for thread in threads {
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

fn one_run(seed: u64) {
    in_namespace(move || {
        let fake = FakeKernel::node(&["192.0.2.1/24", "2001:db8::1/64"], 1500);
        ip("link add eth1 type veth peer name eth1p");
        ip("link set eth1 addrgenmode none mtu 1440");
        ip("link set eth1 up");
        ip("link set eth1p up");
        fake.add_interface("eth1", "veth", 1440, &[]);
        fake.add_interface("eth1p", "veth", 1500, &[]);
        run(seed, &fake, &mut kernel());
    });
}
