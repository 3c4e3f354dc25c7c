//! `pairway doctor` on machines that are broken on purpose: network namespaces, looked at by the real binary.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use node_agent::doctor::{Check, Examination, Outcome};

use crate::program::{Ended, pairway, run};

/// A network namespace, and a folder for everything of the agent's.
struct Machine {
    holder: Child,
    folder: tempfile::TempDir,
}

const SOUND: &str = "set -e; ip link set lo up; ip link add eth0 type veth peer name far; ip link set far up; \
    ip link set eth0 up; ip address add 192.0.2.1/24 dev eth0; ip route add default via 192.0.2.254; \
    sysctl -qw net.ipv4.ip_forward=1";

impl Machine {
    /// `more` is run in it last and may leave something in the background.
    fn new(more: &str) -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", &format!("{SOUND}; {more}\necho ready; exec sleep 600")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare of util-linux, as root");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n", "the namespace is made: {more}");
        Self { holder, folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, pools: &str, arguments: &[&str]) -> Ended {
        let folder = self.folder.path().display();
        let config = format!(
            "node: {{ name: n1 }}\npools: [{pools}]\nstore: {{ file: {{ path: {folder}/store }} }}\n\
             api: {{ socket: {folder}/api.sock }}\nstateDir: {folder}/state\n"
        );
        std::fs::write(self.path("pairway.yaml"), config).expect("a file");
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &self.holder.id().to_string(),
                "--net",
                env!("CARGO_BIN_EXE_pairway"),
                "doctor",
            ])
            .args(["--config", self.path("pairway.yaml").to_str().expect("UTF-8")])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        run(&mut command)
    }

    /// Findings by name; the rest of the machine that the tests run on (its clock) is not looked at.
    fn findings(&self, pools: &str) -> BTreeMap<String, Check> {
        let ended = self.run(pools, &["-o", "json"]);
        let examination: Examination = serde_json::from_value(ended.json()).expect("an examination");
        assert_eq!(examination.node, "n1");
        let found = examination.checks.into_iter().filter(|check| check.outcome == Outcome::Finding);
        let found: BTreeMap<String, Check> = found.map(|check| (check.name.clone(), check)).collect();
        assert_eq!(ended.code, i32::from(!found.is_empty()), "{found:?}");
        found.into_iter().filter(|(name, _)| name != "clock").collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The namespace goes with its last process: `more` may have left some in it.
        let pid = self.holder.id();
        let inside = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let of = std::fs::read_link(entry.path().join("ns/net")).ok();
            if inside.is_some()
                && of == inside
                && let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            {
                // It may just have ended.
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
        self.holder.wait().expect("a child of ours");
    }
}

const V4: &str = "{ cidr: 10.244.0.0/16, blockPrefix: 24 }";
const BOTH: &str = "{ cidr: 10.244.0.0/16, blockPrefix: 24 }, { cidr: \"fd10:244::/48\", blockPrefix: 64 }";

#[test]
fn a_sound_machine_has_no_finding() {
    let machine = Machine::new("");
    let found = machine.findings(V4);
    assert!(found.is_empty(), "{found:?}");
    let ended = machine.run(V4, &["--all"]);
    for part in ["ok           ip-forward", "192.0.2.1/24 on eth0", "1450 in a tunnel", "not checked\n"] {
        assert!(ended.out.contains(part), "no {part:?} in {}", ended.out);
    }
}

#[test]
fn each_thing_that_is_broken_is_found() {
    let background = |proto: &str, port: u16| {
        let listen = if proto == "tcp" { ", Listen => 1" } else { "" };
        format!(
            "perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Proto => \"{proto}\", LocalPort => {port}{listen}) or die; \
             exit 0 if fork; close STDOUT; sleep 600'"
        )
    };
    // A route as an agent makes it, and what others do about it.
    let beside_a_route = |more: &str| {
        format!(
            "ip nexthop add id 1879048199 via 192.0.2.2 dev eth0 proto 112; \
             ip route add 10.244.2.0/24 nhid 1879048199 proto 112 metric 1120; \
             ip route add unreachable 10.244.0.0/16 proto 112 metric 4294967295; \
             ip rule add from 10.244.0.0/16 lookup 1120 pref 1120 protocol 112; {more}"
        )
    };
    let table: Vec<(&str, String, &str, &str)> = vec![
        ("ipv6", "sysctl -qw net.ipv6.conf.all.disable_ipv6=1".to_owned(), BOTH, "net.ipv6.conf.all.disable_ipv6=0"),
        (
            "in-the-way",
            beside_a_route("ip route add 10.244.2.128/25 via 192.0.2.9 proto static metric 7"),
            V4,
            "ip route delete 10.244.2.128/25 table 254 proto 4 metric 7",
        ),
        (
            "in-the-way",
            beside_a_route("ip rule add from 10.244.0.0/16 pref 100 prohibit"),
            V4,
            "give it a priority after the rule that leads to table main",
        ),
        (
            "in-the-way",
            "ip route add 10.244.5.0/24 via 192.0.2.9 proto static".to_owned(),
            V4,
            "ip route flush root 10.244.0.0/16 proto 4",
        ),
        ("mtu", "ip link set eth0 mtu 1300".to_owned(), BOTH, "ip link set eth0 mtu 1330"),
        ("ip-forward", "sysctl -qw net.ipv4.ip_forward=0".to_owned(), V4, "sysctl -w net.ipv4.ip_forward=1"),
        ("ipv6-forward", "sysctl -qw net.ipv6.conf.all.forwarding=0".to_owned(), BOTH, "net.ipv6.conf.all.forwarding=1"),
        (
            "accept-ra",
            "sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.eth0.accept_ra=1; \
             ip -6 route add default via fe80::1 dev eth0 proto ra"
                .to_owned(),
            BOTH,
            "net.ipv6.conf.eth0.accept_ra=2",
        ),
        (
            "host-prefix",
            "ip address flush dev eth0; ip address add 192.0.2.1/32 dev eth0; ip route add 192.0.2.254 dev eth0; \
             ip route add default via 192.0.2.254"
                .to_owned(),
            V4,
            "prefix length",
        ),
        (
            "nics",
            "ip link add eth1 type veth peer name far1; ip link set far1 up; ip link set eth1 up; \
             ip address add 192.0.2.7/24 dev eth1"
                .to_owned(),
            V4,
            "node.underlay",
        ),
        ("mtu", "ip link set eth0 mtu 600".to_owned(), V4, "ip link set eth0 mtu 626"),
        (
            "forward-policy",
            "nft add table ip filter; nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'"
                .to_owned(),
            V4,
            "iptables -I FORWARD -s 10.244.0.0/16 -j ACCEPT",
        ),
        (
            "forward-policy",
            "nft add table inet firewalld; nft 'add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; }'; \
             nft 'add rule inet firewalld filter_FORWARD reject'"
                .to_owned(),
            V4,
            "firewall-cmd --permanent",
        ),
        (
            "port-vxlan",
            "ip link add flannel.1 type vxlan id 4096 dstport 4789 local 192.0.2.1".to_owned(),
            V4,
            "ip link delete flannel.1",
        ),
        ("port-bgp", background("tcp", 179), V4, "bgp.listen"),
        ("port-vxlan", background("udp", 4789), V4, "vxlan.port"),
        ("underlay", "ip route del default".to_owned(), V4, "node.underlay"),
    ];
    for (name, more, pools, remedy) in table {
        let machine = Machine::new(&more);
        let found = machine.findings(pools);
        let names: Vec<&String> = found.keys().collect();
        let Some(check) = found.get(name) else { panic!("{name} is not among {names:?} after: {more}") };
        assert!(check.remedy.contains(remedy), "{name}: {}", check.remedy);
        let also = if pools == BOTH { &["ipv6-forward", name][..] } else { &[name] };
        assert!(names.iter().all(|found| also.contains(&found.as_str())), "{names:?} after: {more}");
    }
}

/// What stands of ours alone is in nobody's way.
#[test]
fn routes_of_ours_are_no_finding() {
    let machine = Machine::new(
        "ip nexthop add id 1879048199 via 192.0.2.2 dev eth0 proto 112; \
         ip route add 10.244.2.0/24 nhid 1879048199 proto 112 metric 1120; \
         ip route add unreachable 10.244.0.0/16 proto 112 metric 4294967295; \
         ip rule add from 10.244.0.0/16 lookup 1120 pref 1120 protocol 112",
    );
    let found = machine.findings(V4);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn an_accepted_pool_is_not_dropped() {
    let chain = "nft add table ip filter; \
        nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'; \
        nft 'add chain ip filter PODS'; nft 'add rule ip filter FORWARD jump PODS'";
    let machine = Machine::new(chain);
    assert!(machine.findings(V4).contains_key("forward-policy"), "positive control");
    let machine = Machine::new(&format!(
        "{chain}; nft 'add rule ip filter PODS ip saddr 10.244.0.0/16 counter accept'; \
         nft 'add rule ip filter PODS ip daddr 10.244.0.0/16 counter accept'"
    ));
    let found = machine.findings(V4);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_store_and_directories_are_looked_at_and_not_made() {
    let machine = Machine::new("");
    assert!(machine.findings(V4).is_empty());
    let left: Vec<_> = std::fs::read_dir(machine.folder.path()).expect("a folder").flatten().collect();
    assert_eq!(left.len(), 1, "only the configuration: {left:?}");

    std::fs::create_dir_all(machine.path("store/nodes")).expect("a folder");
    let record = |name: &str, address: &str| {
        let text = format!(
            "{{\"version\": 1, \"name\": \"{name}\", \"underlayIpv4\": \"{address}\", \"asn\": 64512, \"routerId\": \"192.0.2.2\", \
             \"bgpPort\": 179, \"vni\": 4096, \"vxlanPort\": 4789, \"labels\": {{}}, \"capabilities\": [\"native\", \"vxlan\"], \
             \"commonDigest\": \"0011223344556677\"}}"
        );
        std::fs::write(machine.path(&format!("store/nodes/{name}.json")), text).expect("a file");
    };
    record("n2", "192.0.2.2/24");
    assert!(machine.findings(V4).is_empty());
    record("n3", "192.0.2.2/24");
    let found = machine.findings(V4);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["node-address"]);
    assert!(found["node-address"].message.contains("n2 and n3"), "{found:?}");
    std::fs::remove_file(machine.path("store/nodes/n3.json")).expect("a file");

    std::fs::write(machine.path("state"), "no directory").expect("a file");
    let found = machine.findings(V4);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["state-dir"]);
}

#[test]
fn without_a_file_defaults_are_examined_and_a_bad_one_is_told() {
    let ended = run(&mut pairway(&["doctor", "--all"]));
    assert!(matches!(ended.code, 0 | 1) && ended.err.is_empty(), "{ended:?}");
    assert!(ended.out.contains("TCP port 179") || ended.out.contains("port-bgp"), "{}", ended.out);
    let ended = run(&mut pairway(&["doctor", "--config", "/nowhere/pairway.yaml"]));
    assert_eq!((ended.code, ended.out.as_str()), (64, ""));
}
