//! The lab itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use integration::eventually::{soon, timed};
use integration::lab::{Lab, LabError};
use integration::topology::Topology;

use crate::support::topology;

/// A machine with one link, and whatever else `settings` says of it.
fn small(settings: &str) -> Topology {
    let text = format!(
        "name: small\ntopology:\n  defaults: {{ kind: linux }}\n  kinds: {{ linux: {{ network-mode: none }} }}\n  \
         nodes:\n    a: {{ {settings} }}\n    b: {{}}\n  links:\n    - endpoints: [\"a:eth1\", \"b:eth1\"]\n      mtu: 1400\n"
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies/small.clab.yml");
    Topology::parse(&text, &folder).unwrap()
}

#[test]
fn four_nodes_stand_in_seconds_and_the_router_drops_pod_sources() {
    let (lab, took) = timed(|| Lab::up(topology("four-nodes")).unwrap());
    assert!(took < Duration::from_secs(10), "{took:?}");
    let n1 = lab.node("n1");
    assert_eq!(n1.run(&["hostname"]).unwrap().trim(), "n1");
    for address in ["192.0.2.2", "198.51.100.3", "2001:db8:a::2", "2001:db8:b::4"] {
        n1.run(&["ping", "-c", "1", "-W", "2", address]).unwrap();
    }
    let eth1 = n1.json(&["ip", "-j", "link", "show", "eth1"]).unwrap();
    assert_eq!(eth1[0]["mtu"], 1500);

    // What comes from a pod's address does not get through, and the counter shows that it was there.
    n1.run(&["ip", "addr", "add", "10.244.1.9/32", "dev", "lo"]).unwrap();
    n1.run(&["ping", "-c", "1", "-W", "1", "-I", "10.244.1.9", "198.51.100.3"]).unwrap_err();
    let rules = lab.node("router").run(&["nft", "list", "table", "inet", "fabric"]).unwrap();
    assert!(rules.contains("ip saddr 10.244.0.0/16 counter packets 1 "), "{rules}");
}

#[test]
fn the_other_topologies_stand() {
    let lab = Lab::up(topology("two-nodes")).unwrap();
    lab.node("n1").run(&["ping", "-c", "1", "-W", "2", "192.0.2.2"]).unwrap();
    let ports = lab.node("sw").json(&["bridge", "-j", "link"]).unwrap();
    assert_eq!(ports.as_array().unwrap().len(), 2);
    drop(lab);
    let lab = Lab::up(topology("three-subnets")).unwrap();
    for address in ["192.0.2.1", "198.51.100.2", "203.0.113.4"] {
        lab.node("n3").run(&["ping", "-c", "1", "-W", "2", address]).unwrap();
    }
}

#[test]
fn settings_reach_the_node() {
    let lab = Lab::up(small(
        "env: { GREETING: hello }, sysctls: { net.ipv4.conf.all.rp_filter: 2 }, \
         binds: [\"store:/var/lib/pairway/store\", \"/etc/hostname:/etc/lab/fixed:ro\"], \
         exec: [\"sh -c 'echo from exec > /var/lib/pairway/store/x'\"]",
    ))
    .unwrap();
    let a = lab.node("a");
    assert_eq!(a.sh("echo $GREETING").unwrap(), "hello\n");
    assert_eq!(a.sh("cat /proc/sys/net/ipv4/conf/all/rp_filter").unwrap(), "2\n");
    assert_eq!(fs::read_to_string(lab.bind_folder("store").join("x")).unwrap(), "from exec\n");
    assert_eq!(a.sh("cat /etc/lab/fixed").unwrap(), fs::read_to_string("/etc/hostname").unwrap());
    a.sh("echo x > /etc/lab/fixed").unwrap_err();

    // Writing to the node's own folders leaves no trace on the machine or on other nodes.
    a.sh(
        "echo x > /etc/pairway-lab-test; echo x > /var/lib/pairway-lab-test; echo x > /run/pairway-lab-test",
    )
    .unwrap();
    for folder in ["/etc", "/var/lib", "/run"] {
        assert!(!Path::new(folder).join("pairway-lab-test").exists());
        lab.node("b").run(&["ls", &format!("{folder}/pairway-lab-test")]).unwrap_err();
    }
}

#[test]
fn a_failing_command_fails_the_lab_with_its_output_and_leaves_nothing() {
    let err = Lab::up(small("exec: [\"true\", \"sh -c 'echo no such thing >&2; exit 7'\"]")).unwrap_err();
    assert!(matches!(err, LabError::Topology(_)), "{err}");
    let text = err.to_string();
    assert!(
        text.contains("small.clab.yml:6:") && text.contains("no such thing") && text.contains('7'),
        "{text}"
    );

    let err = Lab::up(small("sysctls: { net.ipv4.no_such_setting: 1 }")).unwrap_err();
    assert!(matches!(err, LabError::Start { .. }) && err.to_string().contains("no_such_setting"), "{err}");
    let err = Lab::up(small("binds: [\"no-such-folder:/var/x\"]")).unwrap_err();
    let text = err.to_string();
    assert!(text.contains("small.clab.yml:6:") && text.contains("no-such-folder"), "{text}");
    let err = Lab::up(small("binds: [\"store:/no-such-folder/x\"]")).unwrap_err();
    assert!(matches!(err, LabError::Start { .. }) && err.to_string().contains("/no-such-folder/x"), "{err}");
}

#[test]
fn nothing_is_left_of_a_lab_that_ends() {
    let lab = Lab::up(small("")).unwrap();
    let folder = lab.folder().to_owned();
    let pids: Vec<i32> = lab.nodes().values().map(|node| node.pid()).collect();
    let sleeper = lab.node("a").start(&["sleep", "1000"], &folder.join("sleep.log")).unwrap();
    assert!(pids.iter().all(|&pid| process_exists(pid)) && folder.exists());
    drop(lab);
    drop(sleeper);
    assert!(!folder.exists());
    assert!(pids.iter().all(|&pid| !process_exists(pid)));
}

fn process_exists(pid: i32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

#[test]
fn programs_in_a_node_can_be_signalled_and_waited_for() {
    let lab = Lab::up(small("")).unwrap();
    let log = lab.folder().join("x.log");
    let mut running = lab
        .node("a")
        .start(&["sh", "-c", "trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.01; done"], &log)
        .unwrap();
    assert!(soon(|| fs::read_to_string(&log).unwrap() == "up\n", Duration::from_secs(5)));
    assert!(running.is_running());
    let status = running.end(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(status.code(), Some(3));
    assert_eq!(fs::read_to_string(&log).unwrap(), "up\ntold\n");
}

#[test]
fn nothing_is_left_of_a_runner_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    // The tests themselves may run under nohup, whose ignored SIGHUP their children inherit.
    let mut runner = std::process::Command::new("env")
        .args(["--default-signal=HUP", env!("CARGO_BIN_EXE_lab")])
        .args(["up", "two-nodes", "--no-agents", "--foreground"])
        .env("LAB_DIR", folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let namespaces = || -> Vec<PathBuf> {
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        // Those of this lab are children of children of its runner.
        let of_runner = |path: &PathBuf| ancestry(path).contains(&runner.id());
        let foreign = |path: &PathBuf| fs::read_link(path.join("ns/net")).is_ok_and(|net| net != own);
        processes.filter(|path| foreign(path) && of_runner(path)).collect()
    };
    assert!(soon(|| namespaces().len() >= 3, Duration::from_secs(20)), "the lab does not come up");
    let members = namespaces();
    runner.kill().unwrap();
    runner.wait().unwrap();
    let gone = || members.iter().all(|process| !process.exists());
    assert!(soon(gone, Duration::from_secs(10)), "left: {members:?}");
}

/// A process and its parents, up to the first.
fn ancestry(process: &Path) -> Vec<u32> {
    let mut ids = Vec::new();
    let mut next = process.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    while let Some(id) = next.filter(|&id| id > 1) {
        ids.push(id);
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        next = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
    }
    ids
}

#[test]
fn a_lab_that_is_left_can_be_looked_at_and_ended() {
    let folder = tempfile::tempdir().unwrap();
    let lab = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lab"));
        let output = command.args(arguments).env("LAB_DIR", folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, _, stderr) = lab(&["up", "two-nodes", "--no-agents"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(lab(&["shell", "n2", "hostname"]), (Some(0), "n2\n".to_owned(), String::new()));
    assert_eq!(lab(&["shell", "n2", "sh", "-c", "exit 7"]).0, Some(7));
    let (code, _, stderr) = lab(&["up", "two-nodes", "--no-agents"]);
    assert!(code == Some(1) && stderr.contains("up already"), "{stderr}");
    let (_, status, _) = lab(&["status"]);
    assert!(status.contains("n1") && status.contains("sw"), "{status}");
    let pids: Vec<i32> =
        status.lines().filter_map(|line| line.split('┆').nth(1)?.trim().parse().ok()).collect();
    assert_eq!(pids.len(), 3, "{status}");
    // What a runner that was killed has left goes with it; what belongs to somebody stays.
    let killed = folder.path().join("tmp-4194304-7-0");
    fs::create_dir_all(killed.join("binds")).unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let (code, said, _) = lab(&["status"]);
    assert!(code == Some(0) && said.contains(&format!("logs: {}", folder.path().display())), "{said}");
    assert_eq!(lab(&["down"]).0, Some(0));
    assert!(!killed.exists());
    fs::remove_file(folder.path().join("notes.txt")).unwrap();
    assert!(pids.iter().all(|&pid| !process_exists(pid)));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let (code, _, stderr) = lab(&["shell", "n1"]);
    assert!(code == Some(1) && stderr.contains("no lab is up"), "{stderr}");
    assert_eq!(lab(&["down"]), (Some(0), "no lab is up\n".to_owned(), String::new()));
    let (code, _, stderr) = lab(&["down", "two-nodes"]);
    assert!(code == Some(1) && stderr.contains("no lab two-nodes is up"), "{stderr}");
    let (code, _, stderr) = lab(&["up", "no-such-topology"]);
    assert!(
        code == Some(1) && stderr.contains("four-nodes, kubernetes, three-subnets, two-nodes"),
        "{stderr}"
    );
}

/// `lab` with its folder, run to its end.
fn lab_in(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lab"));
    let output = command.args(arguments).env("LAB_DIR", folder).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_stopped_program_keeps_no_lab_from_ending_nor_another_lab() {
    use std::os::unix::process::CommandExt;
    let folder = tempfile::tempdir().unwrap();
    for topology in ["two-nodes", "three-subnets"] {
        let (code, said) = lab_in(folder.path(), &["up", topology, "--no-agents"]);
        assert_eq!(code, Some(0), "{said}");
    }
    let lab = {
        let state = fs::read_to_string(folder.path().join("two-nodes/lab.json")).unwrap();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        state["nodes"]["n1"]["pid"].as_i64().unwrap()
    };
    let mut nsenter = std::process::Command::new("nsenter")
        .args([&format!("--target={lab}"), "--pid", "--net", "--mount", "sleep", "1000"])
        .process_group(0)
        .spawn()
        .unwrap();
    let of_nsenter = nix::unistd::Pid::from_raw(nsenter.id().try_into().unwrap());
    let children = format!("/proc/{of_nsenter}/task/{of_nsenter}/children");
    let started = || fs::read_to_string(&children).is_ok_and(|children| !children.trim().is_empty());
    assert!(soon(started, Duration::from_secs(10)));
    nix::sys::signal::kill(of_nsenter, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let (code, said) = lab_in(folder.path(), &["down"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("two-nodes is down") && said.contains("three-subnets is down"), "{said}");
    assert!(soon(|| nsenter.try_wait().unwrap().is_some(), Duration::from_secs(10)), "nsenter is left");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_lab_in_this_process_ends_with_a_stopped_program_in_it() {
    let lab = Lab::up(small("")).unwrap();
    let log = lab.folder().join("sleep.log");
    let sleeper = lab.node("a").start(&["sleep", "1000"], &log).unwrap();
    sleeper.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
    let pids: Vec<i32> = lab.nodes().values().map(|node| node.pid()).collect();
    let ((), took) = timed(|| drop((sleeper, lab)));
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(pids.iter().all(|&pid| !process_exists(pid)));
}

#[test]
fn a_command_of_a_topology_may_leave_something_running() {
    let (lab, took) = timed(|| Lab::up(small("exec: [\"sh -c 'sleep 1000 &'\"]")).unwrap());
    assert!(took < Duration::from_secs(20), "{took:?}");
    let running = lab.node("a").run(&["pgrep", "-x", "sleep"]).unwrap();
    assert!(!running.trim().is_empty());
}

#[test]
fn a_command_of_a_topology_that_does_not_end_is_named() {
    let limit = Duration::from_secs(1);
    let slow = Topology { exec_limit: limit, ..small("exec: [\"sh -c 'echo on it; sleep 1000'\"]") };
    let text = Lab::up(slow).unwrap_err().to_string();
    for part in ["small.clab.yml:6:", "has not ended within 1 s", "on it"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn a_lab_that_is_killed_while_it_comes_up_leaves_no_node() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        fs::read_to_string(format!("{}/topologies/two-nodes.clab.yml", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let slow = text.replacen("        - ip addr add 192.0.2.1/24 dev eth1", "        - sleep 600", 1);
    assert_ne!(slow, text);
    let file = folder.path().join("slow.clab.yml");
    fs::create_dir(folder.path().join("store")).unwrap();
    fs::write(&file, slow).unwrap();
    let labs = folder.path().join("labs");
    let mut runner = std::process::Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["up", file.to_str().unwrap(), "--no-agents"])
        .env("LAB_DIR", &labs)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let members = || -> Vec<PathBuf> {
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let of_runner = |path: &PathBuf| ancestry(path).contains(&runner.id());
        let foreign = |path: &PathBuf| fs::read_link(path.join("ns/net")).is_ok_and(|net| net != own);
        processes.filter(|path| foreign(path) && of_runner(path)).collect()
    };
    let sleeps = || {
        members().iter().any(|path| fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "sleep\n"))
    };
    assert!(soon(sleeps, Duration::from_secs(20)), "the slow command does not start");
    let members = members();
    runner.kill().unwrap();
    runner.wait().unwrap();
    assert!(
        soon(|| members.iter().all(|process| !process.exists()), Duration::from_secs(10)),
        "left: {members:?}"
    );
    // Its folder goes with the next command.
    assert_eq!(fs::read_dir(&labs).unwrap().count(), 1);
    assert_eq!(lab_in(&labs, &["down"]).0, Some(0));
    assert_eq!(fs::read_dir(&labs).unwrap().count(), 0);
}

#[test]
fn the_end_of_the_terminal_ends_a_lab_in_the_foreground() {
    let folder = tempfile::tempdir().unwrap();
    // Tests that were started by nohup ignore the signal, and so would what they start.
    struct Runner(std::process::Child);
    impl Drop for Runner {
        fn drop(&mut self) {
            // One that goes on keeps the output of the tests open.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let runner = std::process::Command::new("env")
        .args(["--default-signal=HUP", env!("CARGO_BIN_EXE_lab")])
        .args(["up", "two-nodes", "--no-agents", "--foreground"])
        .env("LAB_DIR", folder.path())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut runner = Runner(runner.unwrap());
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(runner.0.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("an interrupt ends it")));
    let pid = nix::unistd::Pid::from_raw(runner.0.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    assert!(soon(|| runner.0.try_wait().unwrap().is_some(), Duration::from_secs(20)), "it goes on");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
