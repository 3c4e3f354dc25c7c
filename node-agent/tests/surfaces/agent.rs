//! `pairway agent` and `pairway uninstall` on a real kernel, in a network namespace of their own, looked at with `ip`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::program::{Ended, pairway, run};

/// A network namespace with an underlay device `eth0`, and a folder for everything of the agent's.
struct Node {
    /// Keeps the namespace.
    holder: Child,
    folder: tempfile::TempDir,
}

impl Node {
    fn new(more: &str) -> Self {
        let setup = format!(
            "set -e; echo 1 > /proc/sys/net/ipv4/ip_forward; ip link set lo up; ip link add eth0 type veth peer name far; ip link set far up; \
             ip link set eth0 up; ip address add 192.0.2.1/24 dev eth0; ip route add default via 192.0.2.254; \
             {more}; echo ready; exec sleep 600"
        );
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", &setup])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare of util-linux, as root");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n", "the namespace is made");
        let node = Self { holder, folder: tempfile::tempdir().expect("a folder") };
        node.configure("");
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    fn configure(&self, more: &str) {
        let folder = self.folder.path().display();
        let config = format!(
            "node: {{ name: n1 }}\npools:\n  - {{ cidr: 10.244.0.0/16, blockPrefix: 24 }}\nstore: {{ file: {{ path: {folder}/store }} }}\n\
             api: {{ socket: {folder}/api.sock }}\nstateDir: {folder}/state\n{more}\n"
        );
        std::fs::write(self.path("pairway.yaml"), config).expect("a file");
    }

    /// A command in the namespace.
    fn inside(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", program]).args(arguments);
        command
            .env("PAIRWAY_SOCKET", self.path("api.sock"))
            .env_remove("RUST_LOG")
            .env_remove("NODE_NAME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        run(&mut self.inside(env!("CARGO_BIN_EXE_pairway"), arguments))
    }

    fn with_config(&self, command: &str, more: &[&str]) -> Ended {
        let config = self.text("pairway.yaml");
        self.run(&[&[command, "--config", &config], more].concat())
    }

    /// What `ip -json` says.
    fn ip(&self, arguments: &str) -> Vec<Value> {
        let ended = run(self.inside("ip", &["-json"]).args(arguments.split(' ')));
        assert_eq!(ended.code, 0, "ip {arguments}: {}", ended.err);
        if ended.out.trim().is_empty() { Vec::new() } else { serde_json::from_str(&ended.out).expect("JSON") }
    }

    /// Everything of ours that `ip` shows.
    fn ours(&self) -> Vec<Value> {
        let rules = self.ip("rule show").into_iter().filter(|rule| rule["table"] == "1120");
        let nexthops = self.ip("nexthop show").into_iter().filter(|nexthop| nexthop["protocol"] == "112");
        [self.ip("route show table all proto 112"), self.ip("link show type vxlan")]
            .concat()
            .into_iter()
            .chain(rules)
            .chain(nexthops)
            .collect()
    }

    fn rp_filter(&self) -> String {
        let ended = run(&mut self.inside("cat", &["/proc/sys/net/ipv4/conf/eth0/rp_filter"]));
        ended.out.trim().to_owned()
    }

    fn start(&self) -> Agent {
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let child = self
            .inside(env!("CARGO_BIN_EXE_pairway"), &["agent", "--config", &self.text("pairway.yaml")])
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        Agent { child }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..600 {
            if holds() {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("not within 30 s: {what}\n{}\n{}", self.run(&["status"]).out, self.log());
    }

    fn status(&self) -> Value {
        let ended = self.run(&["status", "-o", "json"]);
        serde_json::from_str(&ended.out).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // With its last process the namespace goes, and all that is in it.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

struct Agent {
    child: Child,
}

impl Agent {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")), signal).expect("it runs");
    }

    /// Ends it by SIGTERM; its exit status.
    fn end(mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        for _ in 0..400 {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status.code().expect("not by the signal itself");
            }
            sleep(Duration::from_millis(50));
        }
        panic!("the agent has not ended within 20 s of SIGTERM");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn from_the_first_start_to_uninstallation() {
    let node = Node::new("echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter");
    assert!(node.ours().is_empty() && node.rp_filter() == "1");
    let agent = node.start();
    node.eventually("ready", || node.status()["ready"] == true);
    assert_eq!(node.status()["blocks"].as_array().map(Vec::len), Some(1));
    assert_eq!(node.run(&["status"]).code, 0, "{}", node.log());
    node.eventually("the kernel is programmed", || !node.ours().is_empty() && node.rp_filter() == "2");

    let claimed = node.run(&["blocks", "claim", "-o", "json"]);
    assert_eq!(claimed.code, 0, "{}", claimed.err);
    let blocks: Value = serde_json::from_str(&claimed.out).expect("JSON");
    node.eventually("the new block is shown", || {
        node.status()["blocks"].as_array().is_some_and(|shown| shown.contains(&blocks["blocks"][0]))
    });
    assert_eq!(node.run(&["node", "delete", "n1", "-o", "json"]).json()["error"]["code"], "own-node");
    let metrics = run(&mut node.inside("sh", &["-c", HTTP_GET]));
    assert!(metrics.out.contains("\npairway_ready 1\n"), "{} {}", metrics.out, metrics.err);

    let second = node.with_config("agent", &[]);
    assert_eq!(second.code, 1);
    assert!(second.err.contains(&format!("(process {})", agent.child.id())), "{}", second.err);
    let refused = node.with_config("uninstall", &["-o", "json"]);
    assert_eq!((refused.code, &refused.json()["error"]["code"]), (1, &json!("state")));
    let rehearsal = node.with_config("uninstall", &["--dry-run"]);
    assert_eq!(rehearsal.code, 1, "{}", rehearsal.out);
    for part in [
        "would remove the record of n1",
        "would empty ",
        "without --dry-run this is refused now: another agent",
    ] {
        assert!(rehearsal.out.contains(part), "no {part:?} in {}", rehearsal.out);
    }
    let looked_at = || node.with_config("doctor", &["-o", "json"]).json()["conditions"].clone();
    assert_eq!(looked_at(), json!(node.status()["conditions"].as_array().map(Vec::len)));

    let before = node.ours();
    assert_eq!(agent.end(), 0, "{}", node.log());
    assert_eq!(node.ours(), before, "the data plane stays");
    assert!(!node.path("api.sock").exists());
    assert_eq!(node.run(&["status"]).code, 3);
    assert_eq!(looked_at(), Value::Null, "nobody to ask");

    let rehearsal = node.with_config("uninstall", &["--dry-run", "-o", "json"]);
    assert_eq!(rehearsal.code, 0, "{}", rehearsal.out);
    assert_eq!(node.ours(), before, "a rehearsal does nothing");
    let done = node.with_config("uninstall", &["-o", "json"]);
    assert_eq!((done.code, done.json()["released"].as_array().map(Vec::len)), (0, Some(2)), "{}", done.out);
    assert_eq!(node.ours(), Vec::<Value>::new());
    assert_eq!(node.rp_filter(), "1", "put back");
    assert!(!node.path("state").exists());
    let again = node.with_config("uninstall", &[]);
    assert_eq!((again.code, again.out.as_str()), (0, "nothing of this node's is left\n"));
}

/// `GET /metrics` with what every machine has.
const HTTP_GET: &str = "bash -c 'exec 3<>/dev/tcp/127.0.0.1/9474; printf \"GET /metrics HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n\" >&3; cat <&3'";

#[test]
fn a_changed_file_is_followed_and_a_bad_one_is_not() {
    let node = Node::new("true");
    let agent = node.start();
    node.eventually("ready", || node.status()["ready"] == true);
    let has = |kind: &str| {
        node.status()["conditions"].as_array().is_some_and(|all| all.iter().any(|c| c["type"] == kind))
    };
    node.configure("bgp: { asn: 0 }");
    node.eventually("the mistake is shown", || has("ConfigRefused"));
    assert_eq!(node.run(&["status"]).code, 1, "a condition is a finding");
    node.configure("blocks: { perNode: 3 }");
    node.eventually("the new value holds", || node.status()["blocks"].as_array().map(Vec::len) == Some(3));
    assert!(!has("ConfigRefused"));
    agent.signal(Signal::SIGHUP);
    assert_eq!(agent.end(), 0);
}

#[test]
fn a_taken_metrics_port_does_not_keep_the_node_from_routing() {
    let node = Node::new("true");
    let script = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 9474)); s.listen(); print('bound', flush=True); time.sleep(600)";
    let mut occupant = node.inside("python3", &["-c", script]).spawn().expect("python3");
    let mut line = String::new();
    BufReader::new(occupant.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let agent = node.start();
    node.eventually("ready, with the condition", || {
        let status = node.status();
        status["ready"] == true && status["conditions"][0]["type"] == "HttpPortInUse"
    });
    occupant.kill().expect("a child of ours");
    occupant.wait().expect("a child of ours");
    node.eventually("the condition goes", || node.status()["conditions"] == json!([]));
    assert_eq!(agent.end(), 0);
}

#[test]
fn what_keeps_an_agent_from_starting_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("pairway.yaml");
    let text = config.to_str().expect("UTF-8");
    let ended = run(&mut pairway(&["agent", "--config", text]));
    assert_eq!(ended.code, 64, "{}", ended.err);
    std::fs::write(&config, "pools: []\n").expect("a file");
    let ended = run(&mut pairway(&["agent", "--config", text, "-o", "json"]));
    assert_eq!((ended.code, &ended.json()["error"]["code"]), (64, &json!("config")));
    let ended = run(&mut pairway(&["agent", "--config", text, "--log-level", "info,bgp=loud"]));
    assert_eq!(ended.code, 2, "{}", ended.err);

    // A file where the state directory should be.
    let node = Node::new("true");
    std::fs::write(node.path("state"), "").expect("a file");
    let ended = node.with_config("agent", &["--log-format", "json"]);
    assert_eq!(ended.code, 1);
    let lines: Vec<Value> =
        ended.err.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect();
    let last = lines.last().expect("a line");
    assert_eq!(last["level"], "ERROR");
    assert!(last["message"].as_str().is_some_and(|text| text.contains("stateDir")), "{last}");
}

#[test]
fn an_agent_without_the_capabilities_it_needs_is_refused_before_it_touches_anything() {
    let node = Node::new("true");
    let config = node.text("pairway.yaml");
    for (dropped, named) in [("-net_admin", "CAP_NET_ADMIN"), ("-net_bind_service", "bgp.port 179")] {
        let mut command = node.inside("setpriv", &["--bounding-set", dropped]);
        command.args([env!("CARGO_BIN_EXE_pairway"), "agent", "--config", &config]);
        let ended = run(&mut command);
        assert_eq!(ended.code, 1, "{}", ended.err);
        assert!(ended.err.contains(named) && ended.err.contains("AmbientCapabilities"), "{}", ended.err);
        assert!(!node.path("store").exists() && !node.path("state").exists(), "nothing was touched");
    }
    // A port that is free to all needs no second capability.
    node.configure("bgp: { port: 1179 }");
    let mut command = node.inside("setpriv", &["--bounding-set", "-net_bind_service"]);
    command.args([env!("CARGO_BIN_EXE_pairway"), "agent", "--config", &config]);
    let agent = Agent { child: command.stderr(Stdio::null()).spawn().expect("the agent starts") };
    node.eventually("ready", || node.status()["ready"] == true);
    assert_eq!(agent.end(), 0);
}

#[test]
fn a_second_agent_in_the_network_namespace_is_refused_whatever_its_state_directory() {
    let node = Node::new("true");
    let agent = node.start();
    node.eventually("ready", || node.status()["ready"] == true);
    let before = node.ours();
    node.configure("");
    let other = std::fs::read_to_string(node.path("pairway.yaml")).expect("a file");
    let other = other
        .replace("/state\n", "/other-state\n")
        .replace("name: n1", "name: n2")
        .replace("api.sock", "other.sock");
    std::fs::write(node.path("other.yaml"), other).expect("a file");
    let second = node.run(&["agent", "--config", &node.text("other.yaml")]);
    assert_eq!(second.code, 1);
    let text = format!("another agent (process {}) runs in this network namespace", agent.child.id());
    assert!(second.err.contains(&text), "{}", second.err);
    assert!(!node.path("other-state").exists() && !node.path("store/nodes/n2.json").exists());
    assert_eq!(node.ours(), before);
    assert_eq!(agent.end(), 0);
}

#[test]
fn forwarding_that_is_off_is_said_and_when_it_is_on_again() {
    let node = Node::new("true");
    let agent = node.start();
    node.eventually("ready", || node.status()["ready"] == true);
    let off = || {
        node.status()["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|c| c["type"] == "ForwardingDisabled"))
    };
    assert!(!off());
    for (value, expected) in [("0", true), ("1", false)] {
        let ended =
            run(&mut node.inside("sh", &["-c", &format!("echo {value} > /proc/sys/net/ipv4/ip_forward")]));
        assert_eq!(ended.code, 0, "{}", ended.err);
        node.eventually("it is seen", || off() == expected);
        assert_eq!(node.run(&["status"]).code, i32::from(expected));
    }
    assert_eq!(agent.end(), 0);
}

#[test]
fn another_agents_socket_is_not_taken() {
    let node = Node::new("true");
    let _other = std::os::unix::net::UnixListener::bind(node.path("api.sock")).expect("a socket");
    let ended = node.with_config("agent", &[]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("answers on"), "{}", ended.err);
    assert!(node.ours().is_empty(), "it ended before it touched the kernel");
}
