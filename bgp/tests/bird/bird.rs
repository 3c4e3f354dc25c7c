//! BIRD as a child process, asked through `birdc`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bgp::Asn;
use ipnet::IpNet;
use tempfile::TempDir;

use crate::namespaces::Namespaces;
use crate::{OURS, PATIENCE, THEIRS};

const BIRD: &str = "/usr/sbin/bird";
const BIRDC: &str = "/usr/sbin/birdc";

pub(crate) struct Bird {
    namespaces: Namespaces,
    directory: TempDir,
    child: Child,
    asn: Asn,
    dials: bool,
}

impl Bird {
    /// Starts BIRD, which announces these prefixes.
    pub(crate) fn start(namespaces: Namespaces, asn: Asn, dials: bool, announced: &[&str]) -> Self {
        for program in [BIRD, BIRDC] {
            let there = std::path::Path::new(program).exists();
            assert!(there, "this test needs {program}: apt-get install bird2");
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("bird.conf"), configuration(asn, dials, announced)).unwrap();
        let child = run(&namespaces, &directory, false);
        Self { namespaces, directory, child, asn, dials }
    }

    /// Announces these instead.
    pub(crate) fn announce(&mut self, announced: &[&str]) {
        std::fs::write(self.file("bird.conf"), configuration(self.asn, self.dials, announced)).unwrap();
        let said = self.control("configure");
        assert!(said.contains("Reconfigured") || said.contains("Reconfiguration in progress"), "{said}");
    }

    /// What BIRD says to a command; empty while it does not listen yet.
    pub(crate) fn control(&self, command: &str) -> String {
        let output = Command::new(BIRDC)
            .arg("-s")
            .arg(self.file("bird.ctl"))
            .args(command.split(' '))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Prefixes that it has from us.
    pub(crate) fn learned(&self) -> BTreeSet<IpNet> {
        let routes = self.control("show route protocol pairway all");
        // A route begins its line with the prefix; its details are indented.
        routes.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
    }

    /// Waits until it has exactly these prefixes from us.
    pub(crate) async fn knows(&self, wanted: &BTreeSet<IpNet>) {
        self.eventually(&format!("BIRD knows {wanted:?}"), || self.learned() == *wanted).await;
    }

    /// Waits until it answers a command with this text.
    pub(crate) async fn says(&self, command: &str, text: &str) {
        self.eventually(&format!("BIRD says {text:?}"), || self.control(command).contains(text)).await;
    }

    async fn eventually(&self, what: &str, condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!(
                "not so: {what}\n{}\n{}\n{}",
                self.control("show protocols all pairway"),
                self.control("show route all"),
                std::fs::read_to_string(self.file("bird.log")).unwrap_or_default()
            );
        }
    }

    /// It ends, to come back with its forwarding state.
    pub(crate) fn graceful_restart(&mut self) {
        let said = self.control("graceful restart");
        self.child.wait().unwrap();
        assert!(!said.contains("syntax error"), "{said}");
    }

    /// It ends as in a crash.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// It starts again; `recovering` from a graceful restart.
    pub(crate) fn come_back(&mut self, recovering: bool) {
        self.child = run(&self.namespaces, &self.directory, recovering);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(namespaces: &Namespaces, directory: &TempDir, recovering: bool) -> Child {
    let file = |name: &str| directory.path().join(name);
    let log = std::fs::File::options().create(true).append(true).open(file("bird.log")).unwrap();
    let mut command = Command::new(BIRD);
    command.arg("-f").arg("-c").arg(file("bird.conf")).arg("-s").arg(file("bird.ctl"));
    if recovering {
        command.arg("-R");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    namespaces.spawn(&mut command).unwrap_or_else(|error| panic!("{BIRD}: {error}; apt-get install bird2"))
}

fn configuration(asn: Asn, dials: bool, announced: &[&str]) -> String {
    let statics = |v6: bool| -> String {
        let of_family = announced.iter().filter(|prefix| prefix.contains(':') == v6);
        of_family.map(|prefix| format!("  route {prefix} blackhole;\n")).collect()
    };
    let ([ours4, _], [theirs4, theirs6]) = (OURS, THEIRS);
    format!(
        "log stderr all;
router id {theirs4};
graceful restart wait 30;
protocol device {{ scan time 1; }}
protocol direct {{ ipv4; ipv6; }}
protocol static s4 {{ ipv4;
{}}}
protocol static s6 {{ ipv6;
{}}}
protocol bgp pairway {{
  local {theirs4} as {asn};
  neighbor {ours4} as 64512;
  passive {};
  direct;
  hold time 90;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  graceful restart on;
  graceful restart time 30;
  ipv4 {{ import all; export where source = RTS_STATIC; next hop address {theirs4}; }};
  ipv6 {{ import all; export where source = RTS_STATIC; next hop address {theirs6}; }};
}}
",
        statics(false),
        statics(true),
        if dials { "off" } else { "on" },
    )
}
