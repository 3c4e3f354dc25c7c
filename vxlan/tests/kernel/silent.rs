//! A restart in an unchanged world is silent.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use vxlan::{Route, RouteKey, RouteTarget, Rule};

use crate::namespace::{add_peer, in_namespace, ip, kernel, mesh, native, pass, route_key, settle};

/// `ip monitor`, whose silence is worth something because what is planted before and after is seen.
struct Listener {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Listener {
    fn start() -> Self {
        let mut child = Command::new("ip")
            .args(["-o", "monitor", "all"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip monitor");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    /// The lines up to a planted rule's.
    fn until(&mut self, priority: u32) -> Vec<String> {
        let mark = format!("{priority}:\tfrom all fwmark");
        self.lines
            .by_ref()
            .lines()
            .map(|line| line.expect("a line"))
            .take_while(|line| !line.contains(&mark))
            .collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn plant(priority: u32) {
    ip(&format!("rule add pref {priority} fwmark {priority} lookup main"));
}

#[test]
fn a_second_agent_in_an_unchanged_world_emits_no_event() {
    in_namespace(|| {
        let mut wanted = mesh([7, 8]);
        add_peer(&mut wanted, 9, native(9));
        for route in wanted.routes.values_mut() {
            route.mtu = Some(1400);
        }
        let pool = RouteKey { metric: u32::MAX, ..route_key("fd10:244::/48") };
        wanted.routes.insert(pool, Route { target: RouteTarget::Unreachable, source: None, mtu: None });
        wanted.rules.insert(Rule { priority: 110, from: "10.244.0.0/16".parse().unwrap(), table: 9000 });
        // Metric 0 of IPv6 comes back as 1024, which is no change.
        assert!(wanted.routes.keys().any(|key| key.prefix.addr().is_ipv6() && key.metric == 0));
        settle(&mut kernel(), &wanted);

        let mut listener = Listener::start();
        // The listener is there as soon as it sees a rule.
        let mut priority = 1000;
        let (seen, heard) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let listener = &mut listener;
            scope.spawn(move || {
                let mut line = String::new();
                listener.lines.read_line(&mut line).expect("a line");
                seen.send(()).expect("the test waits");
            });
            while heard.recv_timeout(std::time::Duration::from_millis(20)).is_err() {
                priority += 1;
                assert!(priority < 2000, "ip monitor shows nothing");
                plant(priority);
            }
        });
        plant(2001);
        listener.until(2001);

        assert_eq!(pass(&mut kernel(), &wanted).applied, []);
        plant(2002);
        assert_eq!(listener.until(2002), Vec::<String>::new());

        // The control: one change is one event.
        wanted.routes.remove(&route_key("10.244.7.0/24"));
        assert_eq!(pass(&mut kernel(), &wanted).applied.len(), 1);
        plant(2003);
        let events = listener.until(2003);
        assert!(events.len() == 1 && events[0].contains("10.244.7.0/24"), "{events:?}");
    });
}
