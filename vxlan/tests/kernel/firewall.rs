//! Our nftables table on a real kernel, with `nft` as the other opinion.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use expect_test::expect;
use vxlan::firewall::{
    Arrival, Arriving, Firewall, Guard, InputDrop, IpGuard, Masquerade, SetKey, input_drops,
};
use vxlan::{Change, Dataplane, IpTunnel, State, Vni};

use crate::namespace::{eventually, in_namespace, kernel, pass, run, settle};

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn firewall() -> Firewall {
    Firewall {
        pools: ["10.244.0.0/16", "10.99.0.0/17", "fd10:244::/48"].map(|net| net.parse().unwrap()).into(),
        nodes: addresses(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
        masquerade: Some(Masquerade { exclude: vec!["198.51.100.0/24".parse().unwrap()] }),
        guard: Some(Guard { vni: Vni(4096), port: 4789 }),
        ip_guard: Some(IpGuard {
            local: "192.0.2.1".parse().unwrap(),
            kinds: [(IpTunnel::Ipip, ["192.0.2.9".parse().unwrap()].into()), (IpTunnel::Sit, [].into())]
                .into(),
        }),
    }
}

fn wanted(firewall: &Firewall) -> State {
    State { firewall: firewall.table(), ..State::default() }
}

fn listed() -> String {
    run("nft", "-nn list table inet under-test")
}

/// Feeds `nft`, which must succeed.
fn nft(arguments: &[&str], text: &str) {
    let mut child = Command::new("nft").args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "nft {arguments:?} refuses\n{text}");
}

#[test]
fn what_is_written_is_what_nft_shows() {
    in_namespace(|| {
        let mut kernel = kernel();
        assert_eq!(settle(&mut kernel, &wanted(&firewall())).len(), 1);
        let whole = listed();
        expect![[r#"
            table inet under-test {
            	comment "under test"
            	set nodes4 {
            		type ipv4_addr
            		elements = { 192.0.2.1, 192.0.2.2 }
            	}

            	set nodes6 {
            		type ipv6_addr
            		elements = { 2001:db8::1 }
            	}

            	set others_ipip {
            		type ipv4_addr
            		elements = { 192.0.2.9 }
            	}

            	set others_sit {
            		type ipv4_addr
            	}

            	chain guard {
            		type filter hook input priority -10; policy accept;
            		udp dport 4789 @th,96,24 0x1000 ip saddr != @nodes4 counter packets 0 bytes 0 drop comment "our VNI from an unknown node"
            		udp dport 4789 @th,96,24 0x1000 ip6 saddr != @nodes6 counter packets 0 bytes 0 drop comment "our VNI from an unknown node"
            		meta l4proto 4 ip daddr 192.0.2.1 ip saddr != @nodes4 ip saddr != @others_ipip counter packets 0 bytes 0 drop comment "IP-in-IP from an unknown node"
            		meta l4proto 41 ip daddr 192.0.2.1 ip saddr != @nodes4 ip saddr != @others_sit counter packets 0 bytes 0 drop comment "IP-in-IP from an unknown node"
            	}

            	chain leaving4 {
            		ip daddr 10.99.0.0/17 return
            		ip daddr 10.244.0.0/16 return
            		ip daddr 198.51.100.0/24 return
            		ip daddr @nodes4 return
            		fib daddr type 2 return
            		fib daddr type 3 return
            		fib daddr type 5 return
            		counter packets 0 bytes 0 masquerade fully-random comment "leaves the cluster"
            	}

            	chain leaving6 {
            		ip6 daddr fd10:244::/48 return
            		ip6 daddr @nodes6 return
            		fib daddr type 2 return
            		fib daddr type 3 return
            		fib daddr type 5 return
            		counter packets 0 bytes 0 masquerade fully-random comment "leaves the cluster"
            	}

            	chain postrouting {
            		type nat hook postrouting priority 110; policy accept;
            		ip saddr 10.99.0.0/17 jump leaving4
            		ip saddr 10.244.0.0/16 jump leaving4
            		ip6 saddr fd10:244::/48 jump leaving6
            	}
            }
        "#]].assert_eq(&whole);
        let firewall = Firewall { masquerade: None, ..firewall() };
        assert_eq!(settle(&mut kernel, &wanted(&firewall)).len(), 1);
        // The same without all that masquerades.
        let (guard, _) = whole.split_once("\n\tchain leaving4").expect("what comes before it");
        assert_eq!(listed(), format!("{guard}}}\n"));
    });
}

/// The text that people are shown means the same to `nft` as what we write does to the kernel.
#[test]
fn our_text_is_the_same_table_to_nft() {
    in_namespace(|| {
        let table = firewall().table().unwrap();
        settle(&mut kernel(), &wanted(&firewall()));
        let ours = listed();
        run("nft", "delete table inet under-test");
        let text = table.to_nft("under-test", "under test");
        nft(&["-c", "-f", "-"], &text);
        nft(&["-f", "-"], &text);
        assert_eq!(listed(), ours);
        // And read back by us it is what we want, for it carries our mark too.
        assert_eq!(settle(&mut kernel(), &wanted(&firewall())), []);
    });
}

#[test]
fn nodes_come_and_go_without_a_new_table() {
    in_namespace(|| {
        let mut kernel = kernel();
        let mut firewall = Firewall { ip_guard: None, ..firewall() };
        settle(&mut kernel, &wanted(&firewall));
        let handle = |text: &str| text.split("# handle ").nth(1).map(|rest| rest[..3].to_owned());
        let before = handle(&run("nft", "-a list chain inet under-test guard"));
        // More than one message holds.
        firewall.nodes = (0..5000u32).map(|n| IpAddr::from((0xc633_0000 + n).to_be_bytes())).collect();
        firewall.nodes.extend(addresses(&["2001:db8::7"]));
        let changes = settle(&mut kernel, &wanted(&firewall));
        assert!(matches!(changes.as_slice(), [Change::ChangeSets(sets)] if sets.len() == 2), "{changes:?}");
        assert_eq!(before, handle(&run("nft", "-a list chain inet under-test guard")), "the same chain");
        assert_eq!(listed().matches("198.51.").count(), 5000 + 1);
        firewall.nodes.clear();
        settle(&mut kernel, &wanted(&firewall));
        assert!(!listed().contains("elements"));
        // A whole table of that size too.
        firewall.nodes = (0..5000u32).map(|n| IpAddr::from((0xc633_0000 + n).to_be_bytes())).collect();
        run("nft", "flush ruleset");
        assert!(matches!(settle(&mut kernel, &wanted(&firewall)).as_slice(), [Change::SetFirewall(_)]));
    });
}

#[test]
fn every_damage_is_seen_and_mended() {
    in_namespace(|| {
        let mut kernel = kernel();
        settle(&mut kernel, &wanted(&firewall()));
        let whole = listed();
        let damages = [
            "flush ruleset",
            "delete table inet under-test",
            "flush chain inet under-test leaving4",
            "flush set inet under-test nodes4",
            "add element inet under-test nodes4 { 203.0.113.9 }",
            "insert rule inet under-test postrouting accept",
            "add rule inet under-test guard counter",
            "add chain inet under-test stray",
            "add set inet under-test stray { type inet_service; }",
            "add chain inet under-test guard { policy drop; }",
            "add rule inet under-test leaving6 ct state new return",
        ];
        for damage in damages {
            run("nft", damage);
            assert_ne!(listed_if_there(), whole, "{damage}: the control");
            assert_eq!(settle(&mut kernel, &wanted(&firewall())).len(), 1, "{damage}");
            assert_eq!(listed(), whole, "{damage}");
        }
        assert!(kernel.observe(&[]).unwrap().ours.firewall.is_some());
        settle(&mut kernel, &State::default());
        assert!(!run("nft", "list tables").contains("under-test"));
    });
}

fn listed_if_there() -> String {
    let output = Command::new("nft").args("-nn list table inet under-test".split(' ')).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn tables_of_others_are_left_alone() {
    in_namespace(|| {
        let others = "table inet other {\n chain c { type filter hook input priority 0; policy accept; tcp dport 22 counter accept; }\n}\ntable ip under-test {\n}\n";
        nft(&["-f", "-"], others);
        let before = run("nft", "list table inet other") + &run("nft", "list table ip under-test");
        let mut kernel = kernel();
        settle(&mut kernel, &wanted(&firewall()));
        settle(&mut kernel, &State::default());
        assert_eq!(before, run("nft", "list table inet other") + &run("nft", "list table ip under-test"));

        // One of our name without our mark is in the way, and stays.
        run("nft", "add table inet under-test");
        run("nft", "add chain inet under-test theirs");
        let theirs = listed();
        let report = pass(&mut kernel, &wanted(&firewall()));
        assert!(report.applied.is_empty() && report.failures.is_empty(), "{report:#?}");
        assert_eq!(report.conflicts.len(), 1);
        assert_eq!(theirs, listed());
        assert!(pass(&mut kernel, &State::default()).applied.is_empty());
        // Nor is it replaced when it came since we looked.
        let table = firewall().table().unwrap();
        let refused = kernel.apply(&[Change::SetFirewall(table), Change::DeleteFirewall]);
        assert!(refused.len() == 2 && refused.values().all(|error| error.errno == 1), "{refused:?}");
        assert_eq!(theirs, listed());
    });
}

#[test]
fn a_transaction_that_fails_changes_nothing() {
    in_namespace(|| {
        let mut kernel = kernel();
        settle(&mut kernel, &wanted(&firewall()));
        let whole = listed();
        let mut broken = firewall().table().unwrap();
        let chain = broken.chains.get_mut("guard").unwrap();
        chain.rules[1].expressions.insert(0, vxlan::firewall::Expression::Other("nonsense".to_owned()));
        let refused = kernel.apply(&[Change::SetFirewall(broken)]);
        assert_eq!(refused.values().map(|error| error.errno).collect::<Vec<_>>(), [2]);
        assert_eq!(listed(), whole);
        let mut wrong_set = firewall().table().unwrap();
        wrong_set.sets.get_mut("nodes4").unwrap().key = SetKey::Ipv6;
        assert_eq!(kernel.apply(&[Change::SetFirewall(wrong_set)]).len(), 1);
        assert_eq!(listed(), whole);
    });
}

#[test]
fn a_second_agent_in_an_unchanged_world_writes_nothing() {
    in_namespace(|| {
        settle(&mut kernel(), &wanted(&firewall()));
        let mut monitor = Command::new("nft").args(["monitor"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(monitor.stdout.take().unwrap()));
        let (sender, heard) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        // It listens as soon as it shows a table.
        let seen = std::cell::RefCell::new(Vec::new());
        let shows = |mark: &str| {
            seen.borrow_mut().extend(heard.try_iter());
            seen.borrow().iter().any(|line: &String| line.contains(mark))
        };
        let attempt = std::cell::Cell::new(0);
        eventually(|| {
            attempt.set(attempt.get() + 1);
            run("nft", &format!("add table ip begin{}", attempt.get()));
            std::thread::sleep(std::time::Duration::from_millis(20));
            shows("begin")
        });
        run("nft", "add table ip middle");
        eventually(|| shows("middle"));
        seen.borrow_mut().clear();
        assert_eq!(pass(&mut kernel(), &wanted(&firewall())).applied, []);
        run("nft", "add table ip end");
        eventually(|| shows("end"));
        let events = seen.borrow().iter().filter(|line| line.contains("under-test")).count();
        assert_eq!(events, 0, "{seen:?}");
        // The control: a change is seen.
        let mut other = firewall();
        other.nodes.insert("192.0.2.77".parse().unwrap());
        pass(&mut kernel(), &wanted(&other)).applied.len();
        eventually(|| shows("192.0.2.77"));
        monitor.kill().unwrap();
        monitor.wait().unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn chains_of_others_that_drop_forwarded_packets_are_found() {
    in_namespace(|| {
        let drops = || {
            let netfilter = kernel().observe(&[]).unwrap().netfilter;
            let pools = ["10.244.0.0/16", "fd10:244::/48"].map(|net| net.parse().unwrap());
            let found = vxlan::firewall::forward_drops(&netfilter.forward, &pools, &BTreeSet::new());
            found.into_iter().map(|drop| drop.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(drops(), Vec::<String>::new());
        run("iptables-nft", "-P FORWARD DROP");
        run("iptables-nft", "-N OTHERS");
        run("iptables-nft", "-A FORWARD -j OTHERS");
        run("iptables-nft", "-A OTHERS -i docker0 ! -o docker0 -j ACCEPT");
        let policy = "chain FORWARD of the nftables table ip filter drops forwarded packets of 10.244.0.0/16 by its policy";
        assert_eq!(drops(), [policy]);
        run("iptables-nft", "-A OTHERS -s 10.244.0.0/16 -j ACCEPT");
        assert_eq!(drops(), [policy], "what comes in is dropped still");
        run("iptables-nft", "-A OTHERS -d 10.244.0.0/15 -j ACCEPT");
        assert_eq!(drops(), Vec::<String>::new());

        run("iptables-nft", "-I OTHERS -j REJECT");
        assert_eq!(drops().len(), 1);
        run("iptables-nft", "-D OTHERS 1");
        nft(
            &["-f", "-"],
            "table inet firewall { chain forward { type filter hook forward priority 10; ct state established accept; iifname \"lo\" accept; reject;\n}\n}\n",
        );
        assert_eq!(drops().len(), 2, "{:?}", drops());
        // The remedy that is named mends it.
        let netfilter = kernel().observe(&[]).unwrap().netfilter;
        let pools = ["10.244.0.0/16", "fd10:244::/48"].map(|net| net.parse().unwrap());
        for drop in vxlan::firewall::forward_drops(&netfilter.forward, &pools, &BTreeSet::new()) {
            for command in drop.remedy().split(" && ") {
                run("nft", command.strip_prefix("nft ").unwrap());
            }
        }
        assert_eq!(drops(), Vec::<String>::new());
    });
}

/// What others drop of the tunnel's port, BGP's and the two protocols.
fn input_dropped() -> Vec<InputDrop> {
    let netfilter = kernel().observe(&[]).unwrap().netfilter;
    let index = crate::namespace::ip_json("-j link show dev eth0")[0]["ifindex"].as_u64().unwrap();
    let arrival = |what| Arrival {
        what,
        device: ("eth0".to_owned(), u32::try_from(index).unwrap()),
        to: "192.0.2.1".parse().unwrap(),
        from: addresses(&["192.0.2.7", "198.51.100.8"]),
    };
    let arrivals =
        [Arriving::Udp(4789), Arriving::Tcp(179), Arriving::Protocol(4), Arriving::Protocol(41)].map(arrival);
    input_drops(&netfilter.input, &arrivals).into_iter().collect()
}

fn input_texts() -> Vec<String> {
    input_dropped().iter().map(|drop| format!("{} by {}", drop.what, drop.chain)).collect()
}

/// What is named as a remedy is one.
fn follow_remedies() {
    for drop in input_dropped() {
        for command in drop.remedy().split(" && ") {
            let (program, arguments) = command.split_once(' ').unwrap();
            let program = if program == "iptables" { "iptables-nft" } else { program };
            run(program, arguments);
        }
    }
}

const ALL: [&str; 4] = ["UDP port 4789", "TCP port 179", "IP protocol 4", "IP protocol 41"];

fn all_by(chain: &str) -> Vec<String> {
    ALL.iter().map(|what| format!("{what} by {chain}")).collect()
}

/// As an operator closes a machine with iptables; and ufw, whose chains these are.
#[test]
fn input_chains_of_iptables_that_drop_what_must_arrive_are_found() {
    in_namespace(|| {
        assert_eq!(input_texts(), [""; 0]);
        run("iptables-nft", "-P INPUT ACCEPT");
        assert_eq!(input_texts(), [""; 0], "a chain that accepts");
        run("iptables-nft", "-P INPUT DROP");
        run("iptables-nft", "-A INPUT -i lo -j ACCEPT");
        run("iptables-nft", "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        run("iptables-nft", "-A INPUT -m conntrack --ctstate INVALID -j DROP");
        run("iptables-nft", "-A INPUT -p tcp -m tcp --dport 22 -m comment --comment ssh -j ACCEPT");
        run("iptables-nft", "-A INPUT -p icmp --icmp-type echo-request -j ACCEPT");
        run("iptables-nft", "-A INPUT -p udp -m multiport --dports 53,67:68 -j ACCEPT");
        run("iptables-nft", "-A INPUT -p udp -m udp --dport 100:200 -j ACCEPT");
        run("iptables-nft", "-A INPUT -m addrtype --dst-type MULTICAST -j ACCEPT");
        run("iptables-nft", "-A INPUT -m limit --limit 3/min -j LOG");
        run("iptables-nft", "-N OTHERS");
        run("iptables-nft", "-A INPUT -j OTHERS");
        run("iptables-nft", "-A OTHERS -m addrtype --dst-type LOCAL -j RETURN");
        run("iptables-nft", "-A OTHERS -j ACCEPT");
        assert_eq!(input_texts(), all_by("INPUT"));
        assert!(input_dropped().iter().all(|drop| drop.by_policy && drop.everybody && !drop.ufw));
        // Each kind of accept is understood.
        run("iptables-nft", "-A INPUT -p udp -m multiport --dports 53,4700:4800 -j ACCEPT");
        assert_eq!(input_texts(), all_by("INPUT")[1..]);
        run("iptables-nft", "-A OTHERS -p tcp -m tcp --dport 179 -j ACCEPT");
        assert_eq!(input_texts(), all_by("INPUT")[1..], "it comes too late");
        run("iptables-nft", "-I OTHERS -p tcp -m conntrack --ctstate NEW -m tcp --dport 179 -j ACCEPT");
        assert_eq!(input_texts(), all_by("INPUT")[2..]);
        run("iptables-nft", "-A INPUT -s 192.0.2.0/24 -p 4 -j ACCEPT");
        assert_eq!(input_texts(), all_by("INPUT")[2..]);
        assert_eq!(input_dropped()[0].from, addresses(&["198.51.100.8"]));
        run("iptables-nft", "-A INPUT -p ipv6 -i eth+ -j ACCEPT");
        assert_eq!(input_texts(), ["IP protocol 4 by INPUT"]);
        follow_remedies();
        assert_eq!(input_texts(), [""; 0]);
        // What can't be judged is not claimed.
        run("iptables-nft", "-F INPUT");
        assert_eq!(input_texts(), all_by("INPUT"), "the control");
        run("iptables-nft", "-A INPUT -m mark --mark 5 -j ACCEPT");
        assert_eq!(input_texts(), [""; 0]);
        run("iptables-nft", "-F INPUT");
        run("iptables-nft", "-N ufw-user-input");
        run("iptables-nft", "-A INPUT -j ufw-user-input");
        assert!(
            input_dropped()[0].remedy().starts_with("ufw allow proto udp from any to 192.0.2.1 port 4789")
        );
    });
}

/// As firewalld and people write them with nft.
#[test]
fn input_chains_of_nftables_that_drop_what_must_arrive_are_found() {
    in_namespace(|| {
        let chains = "table inet mine {
            set ports { type inet_service; flags interval; elements = { 22, 80-443 } }
            chain zone {
                tcp dport { 22, 53 } accept
                udp dport { 53, 67-68 } ct state { new, untracked } accept
                meta l4proto { icmp, ipv6-icmp } accept
            }
            chain input {
                type filter hook input priority 10; policy accept;
                ct state { established, related } accept
                ct state invalid drop
                iifname \"lo\" accept
                iif \"lo\" accept
                tcp dport @ports accept
                udp dport 5000-6000 accept
                udp dport < 4789 accept
                fib daddr type multicast accept
                ip saddr != { 192.0.2.0-192.0.2.255, 198.51.100.8 } accept
                iifname \"eth0\" goto zone
                reject with icmpx admin-prohibited
            }
        }
        ";
        nft(&["-f", "-"], chains);
        // Nothing comes back from a goto: the policy accepts.
        assert_eq!(input_texts(), [""; 0]);
        run("nft", "flush chain inet mine input");
        nft(&["-f", "-"], &chains.replace("goto zone", "jump zone"));
        let expected = ["TCP port 179", "UDP port 4789"];
        let tcp_too = input_texts();
        assert_eq!(
            tcp_too,
            ["UDP port 4789", "IP protocol 4", "IP protocol 41"].map(|what| format!("{what} by input")),
            "{expected:?}: 179 lies within @ports"
        );
        assert!(input_dropped().iter().all(|drop| !drop.by_policy));
        follow_remedies();
        assert_eq!(input_texts(), [""; 0]);
        // Maps of verdicts, as examples in manuals have them.
        let mapped = "table inet mapped {
            chain services {
                udp dport 4789 accept
            }
            chain input {
                type filter hook input priority 0; policy drop;
                ct state vmap { invalid : drop, established : accept, related : accept }
                iifname vmap { \"lo\" : accept, \"eth0\" : jump services }
                ip saddr vmap { 203.0.113.0-203.0.113.9 : accept }
                meta l4proto vmap { 41 : accept }
            }
        }
        ";
        nft(&["-f", "-"], mapped);
        // What a map says of senders is not followed: behind it nothing is claimed.
        assert_eq!(input_texts(), [""; 0]);
        run("nft", "flush chain inet mapped input");
        nft(&["-f", "-"], &mapped.replace("ip saddr vmap { 203.0.113.0-203.0.113.9 : accept }", ""));
        assert_eq!(input_texts(), ["TCP port 179 by input", "IP protocol 4 by input"]);
        // A set that anybody may change, by time.
        run("nft", "flush ruleset");
        nft(
            &["-f", "-"],
            "table ip mine {\n chain input { type filter hook input priority 0; policy drop; }\n}\n",
        );
        assert_eq!(input_texts(), all_by("input"), "the control");
        nft(
            &["-f", "-"],
            "table ip mine {\n set knocked { type ipv4_addr; flags timeout; }\n chain input { ip saddr @knocked accept; }\n}\n",
        );
        assert_eq!(input_texts(), [""; 0]);
    });
}

fn input_chain(rules: &str) -> String {
    format!(
        "table ip mine {{\n chain input {{ type filter hook input priority 0; policy drop; {rules}\n }}\n}}\n"
    )
}

/// `*` stands for all that no other element has.
#[test]
fn elements_for_all_others_are_understood() {
    in_namespace(|| {
        let judged = |rules: &str| {
            run("nft", "flush ruleset");
            nft(&["-f", "-"], &input_chain(rules));
            input_texts()
        };
        assert_eq!(judged("ip saddr { 203.0.113.9 } accept"), all_by("input"), "the control");
        assert_eq!(judged("ip saddr { 203.0.113.9, * } accept"), [""; 0]);
        assert_eq!(judged("ip saddr { 203.0.113.0-203.0.113.9, * } accept"), [""; 0]);
        let map = |elements: &str| judged(&format!("meta l4proto vmap {{ {elements} }}"));
        let but_tcp =
            ["UDP port 4789", "IP protocol 4", "IP protocol 41"].map(|what| format!("{what} by input"));
        assert_eq!(map("tcp : accept, udp : drop"), but_tcp);
        assert_eq!(map("udp : drop, * : accept"), all_by("input")[..1]);
        assert_eq!(map("tcp : accept, * : drop"), but_tcp);
    });
}

/// What is beyond what is read of others is not known, and nothing is claimed of it; what is within is.
#[test]
fn large_chains_and_large_sets_of_others_are_no_drops() {
    in_namespace(|| {
        let rules = |count: u32, last: &str| {
            let drops: String =
                (0..count).map(|n| format!("ip saddr 203.0.{}.{} drop; ", n / 256, n % 256)).collect();
            run("nft", "flush ruleset");
            nft(&["-f", "-"], &input_chain(&format!("{drops}{last}")));
        };
        rules(1000, "");
        assert_eq!(input_texts(), all_by("input"), "the control");
        rules(1500, "");
        assert_eq!(input_texts(), [""; 0], "there are more");
        rules(20_000, "accept");
        assert_eq!(input_texts(), [""; 0]);
        let addresses = |count: u32| {
            let elements: Vec<String> =
                (0..count).map(|n| format!("203.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255)).collect();
            let asked = "ip saddr @many accept; ".repeat(40);
            run("nft", "flush ruleset");
            let set =
                format!("set many {{ type ipv4_addr; elements = {{ {} }} }}\n chain", elements.join(", "));
            let forward = format!(
                "table ip theirs {{\n chain forward {{ type filter hook forward priority 0; {asked}\n }}\n}}\n"
            );
            let text = input_chain(&asked) + &forward.replacen("theirs", "mine", 1);
            nft(&["-f", "-"], &text.replacen("chain", &set, 1));
        };
        addresses(1000);
        assert_eq!(input_texts(), all_by("input"), "the control");
        addresses(50_000);
        assert_eq!(input_texts(), [""; 0]);
    });
}

/// Somebody's filter that changes all the time keeps nothing from being repaired.
#[test]
fn a_filter_that_never_rests_stops_no_repair() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    in_namespace(|| {
        let elements: Vec<String> = (0..5000u32).map(|n| format!("203.0.{}.{}", n >> 8, n & 255)).collect();
        let set = format!("set many {{ type ipv4_addr; elements = {{ {} }} }}\n chain", elements.join(", "));
        nft(&["-f", "-"], &input_chain("ip saddr @many accept").replacen("chain", &set, 1));
        let mut kernel = kernel();
        settle(&mut kernel, &wanted(&firewall()));
        let whole = listed();
        let (rests, turns) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for table in ["ip one", "ip two"] {
                let (rests, turns) = (&rests, &turns);
                scope.spawn(move || {
                    // An end of its own: a test that fails below never says so.
                    for _ in 0..1000 {
                        if rests.load(Ordering::Relaxed) {
                            break;
                        }
                        run("nft", &format!("add table {table}"));
                        run("nft", &format!("delete table {table}"));
                        turns.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..5 {
                let before = turns.load(Ordering::Relaxed);
                eventually(|| turns.load(Ordering::Relaxed) > before);
                // In one transaction, without a look at what there is.
                nft(&["-f", "-"], "flush chain inet under-test guard\n");
                let report = pass(&mut kernel, &wanted(&firewall()));
                assert!(report.failures.is_empty(), "{:#?}", report.failures);
                assert_eq!(report.applied.len(), 1, "{:#?}", report.applied);
            }
            let before = turns.load(Ordering::Relaxed);
            eventually(|| turns.load(Ordering::Relaxed) > before);
            rests.store(true, Ordering::Relaxed);
        });
        assert_eq!(listed(), whole);
        // What is at rest is judged again.
        run("nft", "flush chain ip mine input");
        assert_eq!(input_texts(), all_by("input"));
    });
}

/// A packet of a protocol that nobody listens for meets the guard all the same: it needs no module of the kernel.
#[test]
fn ip_in_ip_of_strangers_is_dropped_and_that_of_nodes_and_of_others_tunnels_is_not() {
    in_namespace(|| {
        let mut kernel = kernel();
        settle(&mut kernel, &wanted(&firewall()));
        // All from here to here: what tells senders apart is the address alone.
        for address in ["192.0.2.2", "192.0.2.9", "203.0.113.5"] {
            crate::namespace::ip(&format!("addr add {address}/32 dev lo"));
        }
        let send = |protocol: u8, from: &str, to: &str| {
            use socket2::{Domain, Protocol, SockAddr, Socket, Type};
            let at = |text: &str| SockAddr::from(std::net::SocketAddr::new(text.parse().unwrap(), 0));
            let socket =
                Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(protocol)))).unwrap();
            socket.bind(&at(from)).unwrap();
            socket.send_to(&[0x45; 20], &at(to)).unwrap();
        };
        let mut guarded = || kernel.observe(&[]).unwrap().netfilter.guarded.packets;
        let cases = [
            (4, "203.0.113.5", "192.0.2.1", 1, "a stranger"),
            (41, "203.0.113.5", "192.0.2.1", 1, "a stranger with IPv6"),
            (4, "192.0.2.2", "192.0.2.1", 0, "a node"),
            (4, "192.0.2.9", "192.0.2.1", 0, "the other end of somebody's tunnel"),
            (41, "192.0.2.9", "192.0.2.1", 1, "the other end of a tunnel of another kind"),
            (4, "203.0.113.5", "192.0.2.2", 0, "a stranger to another address"),
            (47, "203.0.113.5", "192.0.2.1", 0, "another protocol"),
        ];
        for (protocol, from, to, dropped, what) in cases {
            let before = guarded();
            send(protocol, from, to);
            assert_eq!(guarded() - before, dropped, "{what}");
        }
    });
}
