//! FakeKernel held to the real one: the same changes, the same answers, the same state after.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};

use fastrand::Rng;
use vxlan::fake::FakeKernel;
use vxlan::firewall::{Firewall, Guard, IpGuard, Masquerade};
use vxlan::netlink::Kernel;
use vxlan::{
    Address, Change, Dataplane, FdbKey, Gateway, IpTunnel, LinkName, Mac, NeighborKey, Nexthop, NexthopId,
    Route, RouteKey, RouteTarget, Rule, SetChange, Settings, State, TunnelKind, TunnelLink, Vni, Vxlan,
};

use crate::namespace::{id, in_namespace, ip, kernel, link, ours, underlay_ipv6, wait_for_state};

/// Runs of random changes, each in a namespace of its own.
const RUNS: u64 = 60;
/// Lists of changes per run.
const LISTS: usize = 40;

/// What is rolled, and with what.
struct Dice {
    rng: Rng,
    /// With IP tunnels, which not every kernel has.
    ip: bool,
}

impl Deref for Dice {
    type Target = Rng;

    fn deref(&self) -> &Rng {
        &self.rng
    }
}

impl DerefMut for Dice {
    fn deref_mut(&mut self) -> &mut Rng {
        &mut self.rng
    }
}

fn pick<T: Clone>(dice: &mut Dice, choices: &[T]) -> T {
    choices[dice.usize(..choices.len())].clone()
}

/// Mostly one of ours, be it there or not.
fn some_device(dice: &mut Dice) -> LinkName {
    if dice.ip && dice.bool() {
        return link(pick(dice, &["ip4", "ip4", "ip6", "ip6", "iq4"]));
    }
    vxlan_device(dice)
}

fn vxlan_device(dice: &mut Dice) -> LinkName {
    link(pick(dice, &["vx4", "vx4", "vx4", "vx4", "vx4", "vx4", "vx6", "vx6", "vy4", "vy4", "eth0"]))
}

fn device(dice: &mut Dice, name: &LinkName) -> TunnelLink {
    if name.as_str().starts_with('i') {
        let kind = if name.as_str() == "ip6" { IpTunnel::Sit } else { IpTunnel::Ipip };
        return TunnelLink {
            kind: TunnelKind::Ip(kind),
            local: pick(dice, &["192.0.2.1", "192.0.2.1", "192.0.2.9"]).parse().unwrap(),
            mtu: pick(dice, &[1480, 1480, 1400, 1300]),
            up: dice.u8(..5) > 0,
            settings: Settings::Ours,
        };
    }
    let local =
        if name.as_str() == "vx6" { ["2001:db8::1", "2001:db8::9"] } else { ["192.0.2.1", "192.0.2.9"] };
    let vxlan = Vxlan {
        vni: Vni(pick(dice, &[4096, 4096, 4096, 4097])),
        port: pick(dice, &[4789, 4789, 4789, 4790]),
        underlay: link(pick(dice, &["eth0", "eth0", "eth0", "eth0", "eth1", "eth9"])),
        mac: Mac([2, 0, 0, 0, 0, pick(dice, &[1, 1, 2])]),
    };
    TunnelLink {
        kind: TunnelKind::Vxlan(vxlan),
        local: pick(dice, &local).parse().unwrap(),
        mtu: pick(dice, &[1430, 1430, 1400, 1300, 1450, 1451]),
        up: dice.u8(..5) > 0,
        settings: Settings::Ours,
    }
}

fn nexthop(dice: &mut Dice) -> Nexthop {
    if dice.ip && dice.bool() {
        let choices =
            [("ip4", "192.0.2.7"), ("ip4", "10.244.7.1"), ("ip6", "::192.0.2.7"), ("iq4", "192.0.2.7")];
        let (name, address) = pick(dice, &choices);
        let gateway = Gateway { address: address.parse().unwrap(), onlink: true };
        return Nexthop { gateway, link: link(name) };
    }
    let (address, onlink) = pick(
        dice,
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
    let link = link(pick(dice, &["eth0", "vx4", "vx4", "vx6", "eth9"]));
    Nexthop { gateway: Gateway { address: address.parse().unwrap(), onlink }, link }
}

fn route_key(dice: &mut Dice) -> RouteKey {
    let prefix = pick(
        dice,
        &["10.244.7.0/24", "10.245.7.0/24", "10.244.0.0/16", "fd10:244:0:7::/64", "fd10:244::/48"],
    );
    RouteKey {
        table: pick(dice, &[254, 254, 9000]),
        prefix: prefix.parse().unwrap(),
        metric: pick(dice, &[0, 0, 50, u32::MAX]),
    }
}

fn route(dice: &mut Dice) -> Route {
    if dice.u8(..5) == 0 {
        return Route { target: RouteTarget::Unreachable, source: None, mtu: None };
    }
    let source = match dice.u8(..6) {
        0 => Some("10.244.1.0"),
        1 => Some("fd10:244:0:1::"),
        2 => Some("192.0.2.1"),
        _ => None,
    };
    Route {
        target: RouteTarget::Nexthop(nexthop_id(dice)),
        source: source.map(|source| source.parse().unwrap()),
        mtu: pick(dice, &[None, None, Some(1300), Some(1400)]),
    }
}

fn nexthop_id(dice: &mut Dice) -> NexthopId {
    id(dice.u32(1..5))
}

fn address(dice: &mut Dice) -> Address {
    let address = pick(dice, &["10.244.1.0/32", "10.244.1.0/32", "10.244.2.0/32", "fd10:244:0:1::/128"]);
    Address { link: some_device(dice), address: address.parse().unwrap() }
}

fn neighbor(dice: &mut Dice) -> NeighborKey {
    let address = pick(dice, &["10.244.7.0", "10.244.8.0", "fe80::7"]);
    // An IP tunnel has none of ours.
    NeighborKey { link: vxlan_device(dice), address: address.parse().unwrap() }
}

fn fdb(dice: &mut Dice) -> FdbKey {
    FdbKey { link: some_device(dice), mac: Mac([2, 0, 0, 0, 1, dice.u8(7..9)]) }
}

fn rule(dice: &mut Dice) -> Rule {
    let from = pick(dice, &["10.244.0.0/16", "10.245.0.0/16", "fd10:244::/48"]);
    Rule { priority: pick(dice, &[110, 111]), from: from.parse().unwrap(), table: pick(dice, &[9000, 9001]) }
}

fn change(dice: &mut Dice) -> Change {
    match dice.u8(..44) {
        0..3 => {
            let name = some_device(dice);
            Change::AddLink(name.clone(), device(dice, &name))
        }
        3..6 => {
            let name = some_device(dice);
            Change::SetLink(name.clone(), device(dice, &name))
        }
        6 => Change::DeleteLink(some_device(dice)),
        7 => Change::SetRpFilter(link(pick(dice, &["eth0", "vx4", "eth9"])), dice.u8(..3)),
        8..10 => Change::AddAddress(address(dice)),
        10 => Change::DeleteAddress(address(dice)),
        11..14 => Change::SetNeighbor(neighbor(dice), Mac([2, 0, 0, 0, 1, dice.u8(7..9)])),
        14 => Change::DeleteNeighbor(neighbor(dice)),
        15..17 => {
            let remote = pick(dice, &["192.0.2.7", "192.0.2.8", "2001:db8::7"]);
            Change::SetFdb(fdb(dice), remote.parse().unwrap())
        }
        17 => Change::DeleteFdb(fdb(dice)),
        18..22 => Change::AddNexthop(nexthop_id(dice), nexthop(dice)),
        22..25 => Change::SetNexthop(nexthop_id(dice), nexthop(dice)),
        25 => Change::DeleteNexthop(nexthop_id(dice)),
        26..31 => Change::AddRoute(route_key(dice), route(dice)),
        31..34 => Change::SetRoute(route_key(dice), route(dice)),
        34..36 => Change::DeleteRoute(route_key(dice)),
        36..38 => Change::AddRule(rule(dice)),
        38 => Change::SetFirewall(firewall(dice).table().unwrap()),
        39..41 => Change::ChangeSets((0..dice.usize(1..3)).map(|_| set_change(dice)).collect()),
        41 => Change::DeleteFirewall,
        _ => Change::DeleteRule(rule(dice)),
    }
}

fn firewall(dice: &mut Dice) -> Firewall {
    let pools = ["10.244.0.0/16", "10.99.0.0/17", "fd10:244::/48"];
    Firewall {
        pools: pools.iter().filter(|_| dice.bool()).map(|pool| pool.parse().unwrap()).collect(),
        nodes: underlays(dice),
        masquerade: dice.bool().then(Masquerade::default),
        guard: Some(Guard { vni: Vni(pick(dice, &[4096, 4097])), port: 4789 }),
        ip_guard: dice.bool().then(|| IpGuard {
            local: [192, 0, 2, 1].into(),
            kinds: IpTunnel::ALL.into_iter().map(|kind| (kind, underlays(dice))).collect(),
        }),
    }
}

fn set_change(dice: &mut Dice) -> SetChange {
    let set = pick(dice, &["nodes4", "nodes4", "nodes4", "nodes6", "absent"]).to_owned();
    let family = |addresses: BTreeSet<IpAddr>, dice: &mut Dice| -> BTreeSet<IpAddr> {
        // Mostly what fits.
        addresses.into_iter().filter(|ip| ip.is_ipv4() == (set != "nodes6") || dice.u8(..10) == 0).collect()
    };
    let (add, remove) = (underlays(dice), underlays(dice));
    let (add, remove) = (family(add, dice), family(remove, dice));
    SetChange { set, add, remove }
}

fn underlays(dice: &mut Dice) -> BTreeSet<IpAddr> {
    let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"];
    all.iter().filter(|_| dice.u8(..3) == 0).map(|ip| ip.parse().unwrap()).collect()
}

/// Something that others do, to both kernels. Says what.
fn misfortune(dice: &mut Dice, fake: &FakeKernel) -> String {
    let state = fake.state();
    let tunnels: Vec<&str> = state.links.keys().map(LinkName::as_str).collect();
    let tunnel = (!tunnels.is_empty()).then(|| pick(dice, &tunnels));
    match (dice.u8(..30) / 4, tunnel) {
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
            let mtu = pick(dice, &[1400, 1500, 1500]);
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

fn run(seed: u64, ip: bool, fake: &FakeKernel, real: &mut Kernel) {
    let mut dice = Dice { rng: Rng::with_seed(seed), ip };
    let mut log = format!("seed {seed}\n");
    for _ in 0..LISTS {
        if dice.u8(..4) == 0 {
            let what = misfortune(&mut dice, fake);
            let _ = writeln!(log, "-- {what}");
        }
        let changes: Vec<Change> = (0..dice.usize(1..20)).map(|_| change(&mut dice)).collect();
        let faked = fake.clone().apply(&changes);
        let done = real.apply(&changes);
        for (position, change) in changes.iter().enumerate() {
            let (faked, done) = (faked.get(&position), done.get(&position));
            let _ = writeln!(log, "{change:?} -> {done:?}");
            let errno = |refused: Option<&vxlan::ApplyError>| refused.map(|error| error.errno);
            assert_eq!(errno(faked), errno(done), "fake {faked:?}, real {done:?}\n{log}");
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
    let runs = |parity: u64| {
        move || (0..RUNS).filter(|seed| seed % 2 == parity).for_each(|seed| one_run(seed, false))
    };
    let threads = [std::thread::spawn(runs(0)), std::thread::spawn(runs(1))];
    for thread in threads {
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// One run in a namespace of its own. `with_ip`: with IP tunnels among the devices.
pub(crate) fn one_run(seed: u64, with_ip: bool) {
    in_namespace(move || {
        let fake = FakeKernel::node(&["192.0.2.1/24", "2001:db8::1/64"], 1500);
        ip("link add eth1 type veth peer name eth1p");
        ip("link set eth1 addrgenmode none mtu 1440");
        ip("link set eth1 up");
        ip("link set eth1p up");
        fake.add_interface("eth1", "veth", 1440, &[]);
        fake.add_interface("eth1p", "veth", 1500, &[]);
        run(seed, with_ip, &fake, &mut kernel());
    });
}
