//! The monitor wakes for what concerns us and sleeps through the rest.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use vxlan::netlink::{Kernel, Monitor};
use vxlan::{Change, Dataplane, Lost, State};

use crate::namespace::{add_peer, ids, in_namespace, ip, kernel, marks, mesh, native, pass, run, settle};

/// Silence this long is silence: events are there before the command that makes them returns.
const QUIET: Duration = Duration::from_millis(150);
const SOON: Duration = Duration::from_secs(10);

struct Watch {
    runtime: tokio::runtime::Runtime,
    monitor: Monitor,
    kernel: Kernel,
    wanted: State,
}

impl Watch {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut wanted = mesh([7, 8]);
        add_peer(&mut wanted, 9, native(9));
        let mut kernel = kernel();
        settle(&mut kernel, &wanted);
        let entered = runtime.enter();
        let monitor = Monitor::open(marks(), kernel.ports()).expect("a monitor");
        drop(entered);
        let mut watch = Self { runtime, monitor, kernel, wanted };
        crate::namespace::quiet();
        watch.settle();
        watch
    }

    /// Until it is quiet.
    fn settle(&mut self) {
        let quiet = |watch: &mut Self| {
            watch.runtime.block_on(async { timeout(QUIET, watch.monitor.changed()).await }).is_err()
        };
        assert!((0..50).any(|_| quiet(self)), "it never gets quiet");
    }

    fn wakes_for(&mut self, what: &str) {
        let woken = self.runtime.block_on(async { timeout(SOON, self.monitor.changed()).await });
        woken.unwrap_or_else(|_| panic!("{what}: no wake-up")).expect("a working socket");
        // What a command causes may come in several events.
        self.settle();
    }

    fn sleeps_through(&mut self, what: &str) {
        let woken = self.runtime.block_on(async { timeout(QUIET, self.monitor.changed()).await });
        assert!(woken.is_err(), "{what}: a wake-up");
    }
}

#[test]
fn our_own_changes_do_not_wake_us_and_the_same_by_others_do() {
    in_namespace(|| {
        let mut watch = Watch::start();
        let nexthops = watch.wanted.nexthops.clone();
        watch.wanted.routes.clear();
        watch.wanted.nexthops.clear();
        let report = pass(&mut watch.kernel, &watch.wanted);
        assert!(report.failures.is_empty() && report.applied.len() == 12, "{report:#?}");
        watch.sleeps_through("our own deletions");
        watch.wanted = State { nexthops, ..mesh([7, 8, 9]) };
        let report = pass(&mut watch.kernel, &watch.wanted);
        assert!(report.failures.is_empty() && report.applied.len() == 12, "{report:#?}");
        watch.sleeps_through("our own additions");
        ip("route del 10.244.7.0/24");
        watch.wakes_for("a deletion by somebody else");
    });
}

/// The kernel signs notifications of FDB entries and of deleted neighbours with nobody's name.
#[test]
fn what_comes_to_be_as_it_is_wanted_wakes_nobody_and_what_was_taken_away_is_named() {
    in_namespace(|| {
        let mut watch = Watch::start();
        let mut wanted = mesh([7, 9]);
        add_peer(&mut wanted, 8, native(8));
        for (what, state) in [("a peer that goes", mesh([7, 9])), ("one that comes", wanted.clone())] {
            watch.monitor.expect(Arc::new(state.clone()));
            let report = pass(&mut watch.kernel, &state);
            let entries = |change: &Change| matches!(change, Change::SetFdb(..) | Change::DeleteFdb(_));
            assert!(report.failures.is_empty() && report.applied.iter().any(entries), "{report:#?}");
            watch.sleeps_through(what);
        }

        let mut named = |damage: &[&str]| {
            let _ = watch.monitor.lost();
            run(damage[0], damage[1]);
            watch.wakes_for(damage[1]);
            watch.monitor.lost()
        };
        let route = named(&["ip", "route del 10.244.7.0/24"]).expect("a route alone");
        assert_eq!(route.len(), 1);
        assert_eq!(route.routes.first().map(|key| key.prefix.to_string()).as_deref(), Some("10.244.7.0/24"));
        let entry = named(&["bridge", "fdb del 02:00:00:00:01:07 dev vx4 self"]).expect("an entry alone");
        assert_eq!((entry.len(), entry.fdb.len()), (1, 1));
        let neighbor = named(&["ip", "neigh del 10.244.7.0 dev vx4"]).expect("a neighbour alone");
        assert_eq!((neighbor.len(), neighbor.neighbors.len()), (1, 1));
        assert_eq!(named(&["bridge", "fdb replace 02:00:00:00:01:09 dst 192.0.2.77 dev vx4 self"]), None);
        assert_eq!(named(&["ip", "link set vx4 mtu 1400"]), None);

        let lost = Lost { routes: route.routes, fdb: entry.fdb, neighbors: neighbor.neighbors };
        let mend = lost.mend(&wanted);
        assert_eq!(mend.len(), 3);
        assert_eq!(watch.kernel.apply(&mend), vxlan::Refused::new());
        assert_eq!(watch.kernel.apply(&mend).len(), 1);
    });
}

#[test]
fn every_kind_of_damage_wakes_us() {
    in_namespace(|| {
        let mut watch = Watch::start();
        let damages = [
            "route del 10.244.7.0/24".to_owned(),
            "-6 route del fd10:244:0:7::/64".to_owned(),
            "neigh del 10.244.7.0 dev vx4".to_owned(),
            "neigh replace 10.244.8.0 lladdr 02:00:00:00:00:55 dev vx4 nud permanent".to_owned(),
            format!("nexthop replace id {} via 192.0.2.66 dev eth0", ids(8)[0].0),
            format!("nexthop del id {}", ids(8)[0].0),
            "addr del 10.244.1.0/32 dev vx4".to_owned(),
            "link set vx4 mtu 1400".to_owned(),
            "link set vx4 down".to_owned(),
            "link set vx4 name stray0".to_owned(),
            "link del stray0".to_owned(),
            "addr add 192.0.2.77/24 dev eth0".to_owned(),
            "link set eth0 mtu 1400".to_owned(),
            "route add default via 192.0.2.254".to_owned(),
            "rule add from 10.244.0.0/16 lookup 9000 pref 110 proto 155".to_owned(),
        ];
        for damage in damages {
            ip(&damage);
            watch.wakes_for(&damage);
        }
        std::fs::write("/proc/sys/net/ipv4/conf/eth0/rp_filter", "1").unwrap();
        watch.wakes_for("rp_filter of the underlay");
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
        watch.wakes_for("rp_filter of all");
    });
}

#[test]
fn the_forwarding_database_is_watched_and_so_is_a_new_device() {
    in_namespace(|| {
        let mut watch = Watch::start();
        run("bridge", "fdb del 02:00:00:00:01:07 dev vx4 self");
        watch.wakes_for("an FDB entry deleted");
        ip("link del vx4");
        watch.wakes_for("the device deleted");
        let wanted = watch.wanted.clone();
        assert!(pass(&mut watch.kernel, &wanted).failures.is_empty());
        watch.settle();
        // A device of our own making is known at once.
        ip("neigh del 10.244.7.0 dev vx4");
        watch.wakes_for("a neighbour on the new device");
    });
}

#[test]
fn what_others_have_done_until_now_is_heard_without_waiting() {
    in_namespace(|| {
        let mut watch = Watch::start();
        let wanted = watch.wanted.clone();
        watch.monitor.expect(Arc::new(wanted.clone()));
        assert!(!watch.monitor.hear().unwrap(), "nothing was done");
        let _ = watch.monitor.lost();
        for _ in 0..20 {
            ip("route del 10.244.7.0/24");
            assert!(watch.monitor.hear().unwrap(), "the runtime has not run since");
            assert_eq!(watch.monitor.lost().map(|lost| lost.routes.len()), Some(1));
            assert_eq!(pass(&mut watch.kernel, &wanted).applied.len(), 1);
            assert!(!watch.monitor.hear().unwrap(), "our own repair");
        }
        run("nft", "add table inet other");
        run("nft", "add chain inet other input { type filter hook input priority 0; }");
        assert!(watch.monitor.hear().unwrap(), "a filter of others");
        watch.sleeps_through("what was heard");
    });
}

/// The audit alone finds it.
#[test]
fn the_kernel_tells_nobody_of_accept_ra() {
    in_namespace(|| {
        let mut watch = Watch::start();
        std::fs::write("/proc/sys/net/ipv6/conf/vx4/accept_ra", "2").unwrap();
        watch.sleeps_through("accept_ra");
        let wanted = watch.wanted.clone();
        assert_eq!(pass(&mut watch.kernel, &wanted).applied.len(), 1, "but it is seen");
        watch.settle();
        std::fs::write("/proc/sys/net/ipv4/conf/vx4/rp_filter", "1").unwrap();
        watch.wakes_for("the control: rp_filter");
    });
}

#[test]
fn others_business_does_not_wake_us() {
    in_namespace(|| {
        let mut watch = Watch::start();
        for _ in 0..3 {
            ip("neigh add 192.0.2.50 lladdr 02:00:00:00:00:50 dev eth0 nud reachable");
            ip("neigh del 192.0.2.50 dev eth0");
        }
        watch.sleeps_through("neighbours on the underlay");
        ip("route add 198.51.100.0/24 via 192.0.2.9 dev eth0");
        ip("nexthop add id 7 via 192.0.2.9 dev eth0");
        watch.sleeps_through("routes and nexthops of others");
        // Unless they may stand in our way.
        watch.monitor.watch(vec!["10.244.7.0/24".parse().unwrap()]);
        ip("route add 10.0.0.0/8 via 192.0.2.9 dev eth0");
        watch.wakes_for("a foreign route that covers a watched prefix");
        ip("route add 10.244.7.0/25 via 192.0.2.9 dev eth0");
        watch.wakes_for("a foreign route inside of a block");
        ip("route add local 10.244.7.9/32 dev lo table main");
        watch.wakes_for("a route of another type");
        ip("route add 198.51.101.0/24 via 192.0.2.9 dev eth0");
        watch.sleeps_through("one elsewhere");
        ip("nexthop add id 1342177999 via 192.0.2.9 dev eth0");
        watch.wakes_for("a foreign nexthop in our range");
    });
}

#[test]
fn our_table_and_chains_of_others_that_may_drop_wake_us_and_other_rules_do_not() {
    in_namespace(|| {
        let mut watch = Watch::start();
        watch.wanted.firewall = crate::firewall::firewall().table();
        let wanted = watch.wanted.clone();
        assert_eq!(pass(&mut watch.kernel, &wanted).applied.len(), 1);
        watch.sleeps_through("our own table");
        for damage in [
            "add element inet under-test nodes4 { 203.0.113.9 }",
            "insert rule inet under-test guard accept",
            "flush chain inet under-test postrouting",
            "flush ruleset",
        ] {
            run("nft", damage);
            watch.wakes_for(damage);
            assert_eq!(pass(&mut watch.kernel, &wanted).applied.len(), 1, "{damage}");
            watch.sleeps_through("our own repair");
        }
        run("nft", "add table inet other");
        run("nft", "add chain inet other output { type filter hook output priority 0; }");
        run("nft", "add rule inet other output tcp dport 22 accept");
        run("nft", "add chain inet other deep");
        run("nft", "add rule inet other deep tcp dport 22 accept");
        watch.sleeps_through("rules of others");
        run("nft", "add chain inet other input { type filter hook input priority 0; policy drop; }");
        watch.wakes_for("a chain at the hook input");
        run("nft", "add rule inet other input udp dport 4789 accept");
        watch.wakes_for("a rule of it");
        run("nft", "flush chain inet other input");
        watch.wakes_for("the end of the rule");
        run("nft", "delete chain inet other input");
        watch.wakes_for("its own end");
        run("nft", "add chain inet other forward { type filter hook forward priority 0; policy drop; }");
        watch.wakes_for("a chain at the hook forward");
        run("nft", "delete chain inet other forward");
        watch.wakes_for("its end");
    });
}
