//! Two network namespaces of one thread: its own, and another that a command can be run in.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command};

use nix::sched::{CloneFlags, setns, unshare};

/// The thread that makes it lives in the first namespace from then on. Both go when nobody uses them any more.
pub(crate) struct Namespaces {
    ours: File,
    theirs: File,
}

impl Namespaces {
    /// A veth pair from here to there, with these addresses (IPv4 and IPv6).
    pub(crate) fn new(our_addresses: [&str; 2], their_addresses: [&str; 2]) -> Self {
        let enter = || {
            unshare(CloneFlags::CLONE_NEWNET)
                .expect("a network namespace of its own; run the tests with BIRD as root");
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let theirs = enter();
        let namespaces = Self { theirs, ours: enter() };
        ip(&["link", "add", "ours", "type", "veth", "peer", "name", "theirs"]);
        // A child does not inherit the open file, but can follow it to its namespace.
        let there = format!("/proc/{}/fd/{}", std::process::id(), namespaces.theirs.as_raw_fd());
        ip(&["link", "set", "theirs", "netns", &there]);
        let up = |link: &str, addresses: [&str; 2]| {
            let [v4, v6] = addresses;
            ip(&["address", "add", &format!("{v4}/24"), "dev", link]);
            ip(&["address", "add", &format!("{v6}/64"), "dev", link, "nodad"]);
            ip(&["link", "set", link, "up"]);
        };
        ip(&["link", "set", "lo", "up"]);
        up("ours", our_addresses);
        namespaces.there(|| up("theirs", their_addresses));
        namespaces
    }

    /// Starts a program in the other namespace.
    pub(crate) fn spawn(&self, command: &mut Command) -> std::io::Result<Child> {
        self.there(|| command.spawn())
    }

    fn there<T>(&self, action: impl FnOnce() -> T) -> T {
        setns(&self.theirs, CloneFlags::CLONE_NEWNET).unwrap();
        let result = action();
        setns(&self.ours, CloneFlags::CLONE_NEWNET).unwrap();
        result
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 (`apt-get install iproute2`)");
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
