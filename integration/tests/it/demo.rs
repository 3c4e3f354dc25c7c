//! The demonstration, as a user runs it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use integration::eventually::soon;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::programs;

fn demo(folder: &Path) -> Command {
    let programs = programs();
    let mut command = Command::new(programs.lab);
    command.arg("demo").env("LAB_DIR", folder).env("PAIRWAY_BIN", programs.pairway);
    command
}

#[test]
fn the_demonstration_proves_everything_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for wanted in ["native", "vxlan", "112 of 112", "n4 stops and uninstalls", "n5", "nothing is left"] {
        assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_interrupted_demonstration_cleans_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = demo(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("agents, one per node")), "it did not come so far");
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let ended = soon(|| child.try_wait().unwrap().is_some(), Duration::from_secs(60));
    assert!(ended, "it goes on");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
