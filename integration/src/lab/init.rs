//! The first process of a node: a shell that sets the node up, says `ready`, and becomes a process that waits.

use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::error::LabError;
use super::node::{self, Node};
use crate::topology::{Bind, Kind, Node as Definition};

/// What the shell prints when the node stands.
const READY: &str = "lab: ready";

/// Folders that a node may write without a trace on the machine: an overlay that forgets.
const PRIVATE: [&str; 2] = ["/etc", "/var"];

/// The script of a node.
pub(super) fn script(name: &str, node: &Definition, binds: &[(PathBuf, &Bind)], kept: bool) -> String {
    let mut lines = vec![
        "exec 2>&1".to_owned(),
        format!("echo {} > /proc/sys/kernel/hostname", quote(name)),
        "mount -t sysfs sysfs /sys".to_owned(),
    ];
    // Sources are opened before anything hides them, and mounted from the open descriptor.
    for (number, (source, _)) in binds.iter().enumerate() {
        lines.push(format!("exec {}<{}", number + 3, quote(&source.to_string_lossy())));
    }
    lines.push("mount -t tmpfs -o mode=755 tmpfs /run".to_owned());
    for folder in PRIVATE {
        let layer = format!("/run/.lab{folder}");
        lines.push(format!("mkdir -p {layer}/upper {layer}/work"));
        lines.push(format!(
            "mount -t overlay -o lowerdir={folder},upperdir={layer}/upper,workdir={layer}/work overlay {folder}"
        ));
    }
    for (number, (source, bind)) in binds.iter().enumerate() {
        let target = quote(&bind.target.to_string_lossy());
        let make = if source.is_dir() {
            format!("mkdir -p {target}")
        } else {
            let parent = bind.target.parent().unwrap_or(Path::new("/"));
            format!("mkdir -p {} && touch {target}", quote(&parent.to_string_lossy()))
        };
        let fd = number + 3;
        lines.push(format!(
            "[ -e {target} ] || case {target} in /run/*|/etc/*|/var/*) {make} ;; *) echo {}; exit 1 ;; esac",
            quote(&format!(
                "bind target {} (line {}) does not exist on this machine; only below /run, /etc and /var can one be made",
                bind.target.display(),
                bind.at.0
            ))
        ));
        lines.push(format!("mount --no-canonicalize --bind /proc/self/fd/{fd} {target}"));
        if bind.read_only {
            lines.push(format!("mount -o remount,bind,ro {target}"));
        }
        lines.push(format!("exec {fd}<&-"));
    }
    for (key, value) in &node.sysctls {
        lines.push(format!("sysctl -q -w {}", quote(&format!("{key}={value}"))));
    }
    lines.push("ip link set lo up".to_owned());
    if node.kind == Kind::Bridge {
        lines.push(format!("ip link add {name} type bridge"));
        lines.push(format!("ip link set {name} up"));
    }
    lines.push(format!("echo '{READY}'"));
    // With SIGCHLD ignored the kernel reaps what loses its parent.
    lines.push(if kept {
        // Until the runner says that everything stands, this node ends with it as well.
        "trap '' CHLD; read -r stay || exit 0; exec env --ignore-signal=CHLD sleep infinity </dev/null >/dev/null 2>&1"
            .to_owned()
    } else {
        "exec env --ignore-signal=CHLD cat >/dev/null 2>&1".to_owned()
    });
    lines.join("\n")
}

/// A node that is being set up.
#[derive(Debug)]
pub(super) struct Starting {
    name: String,
    holder: Child,
    stdout: BufReader<PipeReader>,
}

impl Starting {
    pub(super) fn spawn(name: &str, script: &str) -> Result<Self, LabError> {
        // One pipe for both: what unshare itself complains of is part of the story. (When it is closed, that
        // of util-linux 2.38 says something of a signal mask as its child is killed.)
        let (reader, writer) = std::io::pipe().map_err(LabError::io("make", "a pipe"))?;
        let stderr = writer.try_clone().map_err(LabError::io("make", "a pipe"))?;
        let holder = Command::new("unshare")
            .args(["--net", "--mount", "--uts", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "sh", "-euc", script])
            .env("PATH", node::path_variable())
            // An interrupt from the terminal is the runner's to handle.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(writer)
            .stderr(stderr)
            .spawn()
            .map_err(LabError::io("run", "unshare"))?;
        Ok(Self { name: name.to_owned(), holder, stdout: BufReader::new(reader) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the node stands.
    pub(super) fn wait(mut self, definition: &Definition) -> Result<Node, LabError> {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let length = self.stdout.read_line(&mut line).map_err(LabError::io("read from", "unshare"))?;
            if line.trim_end() == READY {
                break;
            }
            said += &line;
            if length == 0 {
                return Err(self.failed(said));
            }
        }
        match node::only_child(self.holder.id()) {
            Some(pid) => Ok(Node::started(&self.name, pid, definition, self.holder)),
            None => Err(self.failed("its first process is gone".to_owned())),
        }
    }

    fn failed(mut self, mut output: String) -> LabError {
        drop(self.holder.stdin.take());
        let _ = self.stdout.read_to_string(&mut output);
        let _ = self.holder.wait();
        LabError::Start { node: self.name, output: output.trim().to_owned() }
    }
}

/// A word for the shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
