//! A network namespace for each test, and other programs' view of it.

use std::panic::resume_unwind;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use vxlan::netlink::Kernel;
use vxlan::{
    Address, Change, Dataplane, FdbKey, Gateway, IpTunnel, LinkName, Mac, Marks, NeighborKey, Nexthop,
    NexthopId, Observed, Report, Route, RouteKey, RouteTarget, Settings, State, TunnelKind, TunnelLink, Vni,
    Vxlan, reconcile,
};

/// A protocol number that nobody has.
pub(crate) const PROTOCOL: u8 = 155;

/// Runs a test on a thread in a network namespace of its own, which goes with it. There is an underlay device `eth0`
/// whose other end, `eth0p`, is in the same namespace.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: these tests need root");
        ip("link set lo up");
        for name in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), "0").expect("sysctl");
            // Else duplicate address detection ends seconds later, with an event.
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0").expect("sysctl");
        }
        ip("link add eth0 type veth peer name eth0p");
        ip("link set eth0p up");
        ip("addr add 192.0.2.1/24 dev eth0");
        ip("link set eth0 up");
        underlay_ipv6();
        // The kernel adds the local route of an address a little later than the address.
        eventually(|| {
            let local = ip("-6 route show table local");
            !ip("-6 addr").contains("tentative") && local.contains("2001:db8::1")
        });
        test();
    });
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

/// Gives the underlay its IPv6 address, which goes whenever the link does.
pub(crate) fn underlay_ipv6() {
    ip("-6 addr replace 2001:db8::1/64 dev eth0 nodad");
}

/// Waits until a device has this operational state, which the kernel looks at once a second.
pub(crate) fn wait_for_state(name: &str, state: &str) {
    eventually(|| ip_json(&format!("-j link show dev {name}"))[0]["operstate"] == state);
}

/// Waits until the kernel has done with new links and addresses what it does by itself. It gives a link its state and its
/// link-local address up to a second later, and takes each IPv6 address into use in a thread of its own, with an event, be
/// it one without duplicate address detection: on a busy machine after any pause. That it is in use shows by its local
/// route.
pub(crate) fn quiet() {
    for name in ["eth0", "eth0p"] {
        wait_for_state(name, "UP");
    }
    eventually(|| {
        let local = ip("-6 route show table local");
        let links = ip_json("-6 -j addr show");
        let all: Vec<&Value> =
            links.iter().filter_map(|link| link["addr_info"].as_array()).flatten().collect();
        let used = |info: &&Value| {
            info["local"].as_str().is_some_and(|address| local.contains(&format!("local {address} dev ")))
        };
        let own = |name: &str| {
            let mut links = links.iter().filter(|link| link["ifname"] == name);
            links.any(|link| link["addr_info"].to_string().contains("\"fe80:"))
        };
        own("eth0") && own("eth0p") && all.iter().all(used)
    });
    // All of that happens under one lock, which this takes too: whoever had it has told what there is to tell.
    ip("link set dev lo up");
}

/// Waits until something is so, for ten seconds at most.
pub(crate) fn eventually(so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("not so after ten seconds");
}

/// Runs `ip` with these arguments, which must succeed; its output.
pub(crate) fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

/// Runs a program, which must succeed; its output.
pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().expect("the program runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Renames a device that is up. Linux before 6.2 wants it down meanwhile.
pub(crate) fn rename(name: &str, new: &str) {
    let live =
        Command::new("ip").args(["link", "set", name, "name", new]).output().expect("the program runs");
    if !live.status.success() {
        ip(&format!("link set {name} down"));
        ip(&format!("link set {name} name {new}"));
        ip(&format!("link set {new} up"));
    }
}

/// The list that `ip -j` prints.
pub(crate) fn ip_json(arguments: &str) -> Vec<Value> {
    json("ip", arguments)
}

/// The list that a program of iproute2 prints; nothing is an empty list. (`ip -j` also prints empty objects.)
pub(crate) fn json(program: &str, arguments: &str) -> Vec<Value> {
    let output = run(program, arguments);
    if output.trim().is_empty() {
        return Vec::new();
    }
    let list: Vec<Value> = serde_json::from_str(&output).expect("JSON");
    list.into_iter().filter(|value| value.as_object().is_none_or(|object| !object.is_empty())).collect()
}

pub(crate) fn marks() -> Marks {
    Marks {
        route_protocol: PROTOCOL,
        ifalias: "under test".into(),
        nexthop_base: 0x5000_0000,
        firewall_table: "under-test".into(),
    }
}

pub(crate) fn id(number: u32) -> NexthopId {
    NexthopId(0x5000_0000 + number)
}

pub(crate) fn kernel() -> Kernel {
    Kernel::open(marks()).expect("netlink")
}

/// One pass: observe, diff, apply.
pub(crate) fn pass(kernel: &mut Kernel, wanted: &State) -> Report {
    let observed = kernel.observe(&[]).expect("an observation");
    reconcile(kernel, &observed, wanted)
}

/// One pass in which nothing fails and after which nothing is left to do; what it did.
pub(crate) fn settle(kernel: &mut Kernel, wanted: &State) -> Vec<Change> {
    let report = pass(kernel, wanted);
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(report.conflicts.is_empty(), "{:#?}", report.conflicts);
    let again = pass(kernel, wanted);
    assert!(again.applied.is_empty() && again.failures.is_empty(), "a second pass did {again:#?}");
    report.applied
}

/// What is ours, with `rp_filter` of the devices that matter.
pub(crate) fn ours(observed: Observed) -> State {
    let mut state = observed.ours;
    // The devices that a module makes come when somebody loads it.
    let others = ["lo", "eth0p", "eth1p", "tunl0", "sit0"];
    state.rp_filter.retain(|name, _| !others.contains(&name.as_str()));
    state
}

pub(crate) fn link(name: &str) -> LinkName {
    name.parse().expect("a device name")
}

pub(crate) fn route_key(prefix: &str) -> RouteKey {
    RouteKey { table: 254, prefix: prefix.parse().expect("a prefix"), metric: 0 }
}

pub(crate) fn via(id: NexthopId) -> Route {
    Route { target: RouteTarget::Nexthop(id), source: None, mtu: None }
}

pub(crate) fn device() -> TunnelLink {
    TunnelLink {
        kind: TunnelKind::Vxlan(Vxlan {
            vni: Vni(4096),
            port: 4789,
            underlay: link("eth0"),
            mac: Mac([2, 0, 0, 0, 0, 1]),
        }),
        local: "192.0.2.1".parse().expect("an address"),
        mtu: 1450,
        up: true,
        settings: Settings::Ours,
    }
}

/// The MAC of a peer's VTEP.
pub(crate) fn peer_mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, number])
}

/// The nexthops of a peer over the tunnel: IPv4 and IPv6.
pub(crate) fn tunnel(number: u8) -> [Nexthop; 2] {
    let via = |address, onlink| Nexthop { gateway: Gateway { address, onlink }, link: link("vx4") };
    [via([10, 244, number, 0].into(), true), via(peer_mac(number).link_local().into(), false)]
}

/// Our device for a kind of IP tunnel.
pub(crate) fn ip_link(kind: IpTunnel) -> LinkName {
    link(match kind {
        IpTunnel::Ipip => "ip4",
        IpTunnel::Sit => "ip6",
    })
}

pub(crate) fn ip_device(kind: IpTunnel) -> TunnelLink {
    TunnelLink { kind: TunnelKind::Ip(kind), mtu: 1480, ..device() }
}

/// The nexthops of a peer in IP: IPv4 and IPv6.
pub(crate) fn ip_in_ip(number: u8) -> [Nexthop; 2] {
    IpTunnel::ALL.map(|kind| {
        let address = kind.gateway([192, 0, 2, number].into());
        Nexthop { gateway: Gateway { address, onlink: true }, link: ip_link(kind) }
    })
}

/// A node with IP tunnels beside its VXLAN device, and its addresses on them too.
pub(crate) fn ip_node() -> State {
    let mut state = node();
    for (kind, address) in IpTunnel::ALL.into_iter().zip(["10.244.1.0/32", "fd10:244:0:1::/128"]) {
        let link = ip_link(kind);
        state.links.insert(link.clone(), ip_device(kind));
        state.rp_filter.insert(link.clone(), 2);
        state.addresses.insert(Address { link, address: address.parse().expect("an address") });
    }
    state
}

/// The nexthops of a peer on the underlay.
pub(crate) fn native(number: u8) -> [Nexthop; 2] {
    let via = |address| Nexthop { gateway: Gateway { address, onlink: false }, link: link("eth0") };
    let ipv6 = [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)];
    [via([192, 0, 2, number].into()), via(ipv6.into())]
}

pub(crate) fn ids(number: u8) -> [NexthopId; 2] {
    [id(2 * u32::from(number)), id(2 * u32::from(number) + 1)]
}

/// A node with a tunnel device and its addresses.
pub(crate) fn node() -> State {
    let mut state = State::default();
    state.links.insert(link("vx4"), device());
    for address in ["10.244.1.0/32", "fd10:244:0:1::/128"] {
        state.addresses.insert(Address { link: link("vx4"), address: address.parse().expect("an address") });
    }
    state.rp_filter.insert(link("vx4"), 2);
    state
}

/// A node with peers in tunnels, two families each.
pub(crate) fn mesh(peers: impl IntoIterator<Item = u8>) -> State {
    let mut state = node();
    for number in peers {
        add_peer(&mut state, number, tunnel(number));
    }
    state
}

/// Adds a peer with a block of each family.
pub(crate) fn add_peer(state: &mut State, number: u8, nexthops: [Nexthop; 2]) {
    let mac = peer_mac(number);
    for nexthop in tunnel(number) {
        let key = NeighborKey { link: link("vx4"), address: nexthop.gateway.address };
        state.neighbors.insert(key, mac);
    }
    state.fdb.insert(FdbKey { link: link("vx4"), mac }, [192, 0, 2, number].into());
    let blocks = [format!("10.244.{number}.0/24"), format!("fd10:244:0:{number:x}::/64")];
    for ((id, nexthop), block) in ids(number).into_iter().zip(nexthops).zip(blocks) {
        state.nexthops.insert(id, nexthop);
        state.routes.insert(route_key(&block), via(id));
    }
}
