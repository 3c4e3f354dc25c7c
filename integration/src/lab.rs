//! The lab: a topology brought up as namespaces of this machine, with no container engine.
//!
//! A node is a process in network, mount, UTS and PID namespaces of its own. Nothing has a name outside of
//! them (veth ends are created inside, `/run` is private), so labs can't collide and nothing has to be
//! removed: when a node's first process ends, the kernel takes everything of the node with it. Of a lab that is
//! not kept, that process waits for the end of a pipe that the runner holds, so that it ends with the runner,
//! however the runner ends.
//!
//! Shared with the machine are its files, except `/run`, `/etc` and `/var`, which a node may write without a
//! trace.

mod end;
mod error;
mod init;
mod node;
mod state;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::topology::{Bind, Kind, Topology};

pub use error::{CommandError, LabError};
pub use node::{Node, Running};

/// More nodes than this, and the machine's neighbour tables are made larger: their limits are one for all namespaces.
const MANY_NODES: usize = 16;

/// A lab that is up. Unless kept, it ends when this is dropped.
#[derive(Debug)]
pub struct Lab {
    topology: Topology,
    folder: PathBuf,
    nodes: BTreeMap<String, Node>,
    kept: bool,
}

impl Lab {
    /// Brings a topology up for as long as the value (or the process) lives.
    pub fn up(topology: Topology) -> Result<Self, LabError> {
        let root = state::root();
        state::sweep(&root);
        Self::bring_up(topology, temporary_folder(&root), false)
    }

    /// Brings a topology up and leaves it, for [`Lab::attach`] and [`Lab::down`] to find by its name.
    pub fn up_and_keep(topology: Topology, path: &Path) -> Result<Self, LabError> {
        let root = state::root();
        state::sweep(&root);
        let folder = root.join(&topology.name);
        if folder.join(state::FILE).exists() {
            if state::load(&folder).is_ok_and(|state| state.is_alive()) {
                return Err(LabError::AlreadyUp { lab: topology.name });
            }
            // The machine was restarted, or the nodes were killed: nothing but files is left of it.
            state::remove(&folder)?;
        }
        // Until it stands, its folder is one of those that are swept.
        let mut lab = Self::bring_up(topology, temporary_folder(&root), true)?;
        state::save(&lab.folder, path, &lab.nodes)?;
        fs::rename(&lab.folder, &folder).map_err(LabError::io("make", &folder))?;
        lab.folder = folder;
        // From here on `Lab::down` finds it, whatever becomes of this process.
        lab.nodes.values_mut().try_for_each(Node::leave)?;
        lab.kept = true;
        Ok(lab)
    }

    /// Finds a lab that was left.
    pub fn attach(name: &str) -> Result<Self, LabError> {
        let folder = state::root().join(name);
        let state = state::load(&folder)?;
        let topology = Topology::load(&state.topology)?;
        let mut nodes = BTreeMap::new();
        for (name, definition) in &topology.nodes {
            let process = state.nodes.get(name).copied().filter(|process| process.is_alive());
            let process = process.ok_or_else(|| LabError::NodeGone { node: name.clone() })?;
            nodes.insert(name.clone(), Node::attached(name, process.pid, definition));
        }
        Ok(Self { topology, folder, nodes, kept: true })
    }

    /// Names of the labs that were left.
    pub fn left() -> Vec<String> {
        state::left(&state::root())
    }

    /// Removes what runners that were killed have left on disk.
    pub fn sweep() {
        state::sweep(&state::root());
    }

    /// The last lines of a log of a lab.
    #[must_use]
    pub fn tail(log: &Path, lines: usize) -> Vec<String> {
        state::tail(log, lines)
    }

    /// Ends a lab that was left: exactly the processes that [`Lab::up_and_keep`] started, known by process id
    /// and start time, and its folder.
    pub fn down(name: &str) -> Result<(), LabError> {
        let folder = state::root().join(name);
        state::load(&folder)?.end()?;
        state::remove(&folder)
    }

    fn bring_up(topology: Topology, folder: PathBuf, kept: bool) -> Result<Self, LabError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        state::create(&folder)?;
        if topology.nodes.len() > MANY_NODES {
            raise_neighbour_limits()?;
        }
        // From here on, a failure drops what stands.
        let mut lab = Self { topology, folder, nodes: BTreeMap::new(), kept: false };
        lab.start_nodes(kept)?;
        lab.make_links()?;
        lab.run_commands()?;
        Ok(lab)
    }

    fn start_nodes(&mut self, kept: bool) -> Result<(), LabError> {
        let mut starting = Vec::new();
        for (name, definition) in &self.topology.nodes {
            let mut binds = Vec::new();
            for bind in &definition.binds {
                binds.push((self.bind_source(name, bind)?, bind));
            }
            let script = init::script(name, definition, &binds, kept);
            starting.push(init::Starting::spawn(name, &script)?);
        }
        for node in starting {
            let name = node.name().to_owned();
            let node = node.wait(&self.topology.nodes[&name])?;
            self.nodes.insert(name, node);
        }
        Ok(())
    }

    /// A file is bound as it stands; a folder is state, and every lab gets a copy of its own.
    fn bind_source(&self, node: &str, bind: &Bind) -> Result<PathBuf, LabError> {
        let source = &bind.source;
        let original = self.topology.folder.join(source);
        let missing = || {
            let what = format!(
                "bind source {} of node {node} does not exist; make it, or name another",
                original.display()
            );
            LabError::from(self.topology.wrong(bind.at, what))
        };
        let metadata = fs::metadata(&original).map_err(|_| missing())?;
        if source.is_absolute() || !metadata.is_dir() {
            return fs::canonicalize(&original).map_err(|_| missing());
        }
        let copy = self.bind_folder(source);
        if !copy.exists() {
            copy_folder(&original, &copy).map_err(LabError::io("copy a bind to", &copy))?;
        }
        Ok(copy)
    }

    /// Where this lab's own copy of a bound folder is: its store, for instance.
    #[must_use]
    pub fn bind_folder(&self, source: impl AsRef<Path>) -> PathBuf {
        let flat = source.as_ref().to_string_lossy().replace("..", "__");
        self.folder.join("binds").join(flat)
    }

    fn make_links(&self) -> Result<(), LabError> {
        let mut batch = String::new();
        let mut ups: BTreeMap<&str, String> = BTreeMap::new();
        for link in &self.topology.links {
            let side = |end: &crate::topology::End| {
                let mac = end.mac.as_ref().map(|mac| format!(" address {mac}")).unwrap_or_default();
                format!("name {}{mac} mtu {} netns {}", end.interface, link.mtu, self.nodes[&end.node].pid())
            };
            let [a, b] = &link.ends;
            batch += &format!("link add {} type veth peer {}\n", side(a), side(b));
            for end in &link.ends {
                let up = ups.entry(&end.node).or_default();
                if self.topology.nodes[&end.node].kind == Kind::Bridge {
                    *up += &format!("link set {} master {}\n", end.interface, end.node);
                }
                *up += &format!("link set {} up\n", end.interface);
            }
        }
        ip_batch(Command::new("ip"), &batch)?;
        for (node, up) in ups {
            ip_batch(self.node(node).command("ip"), &up)?;
        }
        Ok(())
    }

    fn run_commands(&self) -> Result<(), LabError> {
        let run_all = |name: &str| -> Result<(), LabError> {
            for exec in &self.topology.nodes[name].exec {
                let words: Vec<&str> = exec.words.iter().map(String::as_str).collect();
                let result = self.node(name).run_within(&words, self.topology.exec_limit, &self.folder);
                result.map_err(|failed| {
                    let hint = "try it with `lab up --no-agents` without this line, and `lab shell`";
                    self.topology.wrong(exec.at, format!("{failed}; {hint}"))
                })?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let nodes: Vec<_> = self.nodes.keys().map(|name| scope.spawn(move || run_all(name))).collect();
            nodes.into_iter().try_for_each(|node| node.join().unwrap_or(Err(LabError::Panicked)))
        })
    }

    /// The topology.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The lab's folder: logs, copies of bound folders.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Nodes by name.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }

    /// A node of the topology.
    ///
    /// # Panics
    /// If the topology has no such node.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        let known = || self.nodes.keys().cloned().collect::<Vec<_>>().join(", ");
        self.nodes.get(name).unwrap_or_else(|| panic!("no node {name}; there are {}", known()))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if thread::panicking() {
            state::print_logs(&self.folder);
        }
        self.nodes.values_mut().for_each(Node::kill);
        self.nodes.clear();
        // What can't be removed is swept by the next lab.
        let _ = state::remove(&self.folder);
    }
}

fn temporary_folder(root: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    root.join(state::temporary_name(NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn ip_batch(mut ip: Command, batch: &str) -> Result<(), LabError> {
    let mut child = ip
        .args(["-batch", "-"])
        .env("PATH", node::path_variable())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(LabError::io("run", "ip"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(batch.as_bytes()).map_err(LabError::io("write to", "ip"))?;
    }
    let output = child.wait_with_output().map_err(LabError::io("wait for", "ip"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Links { output: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// The limits hold for all namespaces together. They are raised, never lowered again: another lab may be up.
fn raise_neighbour_limits() -> Result<(), LabError> {
    for family in ["ipv4", "ipv6"] {
        for (threshold, wanted) in [("gc_thresh3", 65536), ("gc_thresh2", 32768), ("gc_thresh1", 16384)] {
            let path = PathBuf::from(format!("/proc/sys/net/{family}/neigh/default/{threshold}"));
            let text = fs::read_to_string(&path).map_err(LabError::io("read", &path))?;
            if text.trim().parse::<u64>().is_ok_and(|value| value < wanted) {
                fs::write(&path, wanted.to_string()).map_err(LabError::io("write", &path))?;
            }
        }
    }
    Ok(())
}

/// Hidden files stay behind: they keep an empty folder in version control.
fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
