//! The commands of `lab` on labs that stay.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::cluster::{CONFIG, Cluster, ClusterError, Programs};
use crate::interrupt;
use crate::kubernetes::{self, Kubernetes};
use crate::lab::{Lab, LabError};
use crate::screen::{Step, complain, say, table};
use crate::topology::Topology;

/// How long agents may take until every pair has its path.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(60);

/// How often a lab in the foreground looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Brings a lab up, with agents and a pod on each node if `programs` are given, and leaves it or stays.
pub fn up(path: &Path, programs: Option<Programs>, foreground: bool) -> Result<(), ClusterError> {
    let topology = Topology::load(path).map_err(LabError::from)?;
    let step = Step::begin(format!("lab {}", topology.name));
    let lab = if foreground { Lab::up(topology)? } else { Lab::up_and_keep(topology, path)? };
    let name = lab.topology().name.clone();
    step.end(format!("{} nodes", lab.nodes().len()));
    let folder = lab.folder().to_owned();
    let result = match programs {
        None => stay(foreground),
        Some(programs) => with_agents(lab, programs, foreground),
    };
    // What was to stay and did not come up well stays for looking into; an interrupt means that it is not wanted.
    if !foreground && matches!(result, Err(ClusterError::Interrupted)) {
        Lab::down(&name)?;
    }
    if !foreground && !matches!(result, Err(ClusterError::Interrupted)) {
        say(format!(
            "\n{}\n`make lab-shell NODE=n1` looks around in a node, `make lab-down` ends it; `{program} status` shows the nodes.",
            places(&folder),
            program = program()
        ));
    }
    result
}

/// This program as it can be called again: it is on nobody's PATH.
fn program() -> String {
    std::env::args_os().next().map_or_else(|| "lab".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Where a lab's files are.
fn places(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "configuration: {folder}/config/NODE/pairway.yaml, taken over when it changes; logs: {folder}/NODE.log"
    )
}

fn with_agents(lab: Lab, programs: Programs, foreground: bool) -> Result<(), ClusterError> {
    let mut cluster = Cluster::new(lab, programs, CONFIG)?;
    let result = populate(&mut cluster);
    if foreground {
        result?;
        return stay(true);
    }
    cluster.leave();
    result
}

fn populate(cluster: &mut Cluster) -> Result<(), ClusterError> {
    let step = Step::begin("agents");
    let nodes = cluster.start_all()?;
    step.end(nodes.join(", "));
    let step = Step::begin("every pair on its path");
    let pairs =
        cluster.converged(&nodes, CONVERGENCE_LIMIT, |good, all| step.at(format!("{good} of {all}")))?;
    step.end(format!("{} pairs", pairs.len()));
    nodes.iter().try_for_each(|node| cluster.add_pod(node, "p1").map(drop))
}

fn stay(foreground: bool) -> Result<(), ClusterError> {
    if foreground {
        say("up; an interrupt ends it");
        while !interrupt::requested() {
            thread::sleep(LOOK);
        }
    }
    Ok(())
}

/// Brings a Kubernetes cluster up, with Pairway unless it is to be bare, and leaves it.
pub fn kubernetes(path: &Path, bare: bool) -> anyhow::Result<()> {
    let topology = Topology::load(path)?;
    let step = Step::begin("lab kubernetes");
    let lab = Lab::up_and_keep(topology, path)?;
    step.end(format!("{} nodes", lab.nodes().len()));
    let folder = lab.folder().to_owned();
    let step = Step::begin("control plane, machines");
    let cluster = Kubernetes::start(lab)?;
    step.end(cluster.nodes().join(", "));
    let installed = if bare {
        Ok(())
    } else {
        let step = Step::begin("Pairway from config/deploy/pairway.yaml");
        cluster.install().map(|()| step.end("every node is Ready"))
    };
    // What does not come up well stays for looking into.
    cluster.leave();
    say(format!(
        "\n`{program} kubectl ...` asks the API server, `make cluster-shell NODE=n1` looks around in a node, `make cluster-down` ends it; logs: {}/kubernetes",
        folder.display(),
        program = program()
    ));
    Ok(installed?)
}

/// Ends a lab, or all of them.
pub fn down(name: Option<&str>) -> Result<(), ClusterError> {
    let names = name.map_or_else(Lab::left, |name| vec![name.to_owned()]);
    if names.is_empty() {
        say("no lab is up");
    }
    let mut failed = None;
    for name in names {
        match Lab::down(&name) {
            Ok(()) => {
                kubernetes::sweep(Path::new(&name));
                say(format!("lab {name} is down"));
            }
            Err(err) => {
                // The others end all the same.
                if let Some(earlier) = failed.replace(err) {
                    complain(format!("lab: {earlier}"));
                }
            }
        }
    }
    Lab::sweep();
    failed.map_or(Ok(()), |err| Err(err.into()))
}

/// Runs a shell or a command in a node; its exit status.
pub fn shell(lab: Option<&str>, node: &str, command: &[String]) -> Result<i32, ClusterError> {
    let name = match lab {
        Some(name) => name.to_owned(),
        None => {
            let mut left = Lab::left();
            match left.len() {
                0 => return Err(LabError::NoneUp.into()),
                1 => left.remove(0),
                _ => return Err(LabError::Ambiguous { labs: left.join(", ") }.into()),
            }
        }
    };
    let lab = Lab::attach(&name)?;
    let Some(node) = lab.nodes().get(node) else {
        let known = lab.nodes().keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(LabError::NoSuchNode { node: node.to_owned(), known }.into());
    };
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    let (program, arguments) = command.split_first().map_or((&shell, &[][..]), |(first, rest)| (first, rest));
    let mut running = node.command(program);
    // pairway stands beside this program: a user types its name.
    if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        let path = std::env::var("PATH").unwrap_or_default();
        running.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", folder.display()));
    }
    let status = running.args(arguments).status().map_err(LabError::io("run", program))?;
    Ok(status.code().unwrap_or(1))
}

/// Shows the labs that are up.
pub fn status() -> Result<(), ClusterError> {
    let left = Lab::left();
    if left.is_empty() {
        say("no lab is up");
    }
    for name in left {
        let lab = match Lab::attach(&name) {
            Ok(lab) => lab,
            Err(err) => {
                say(format!("lab {name}: {err}"));
                continue;
            }
        };
        let folder = lab.folder().to_owned();
        let mut table = table();
        table.set_header([&*name, "process", "agent", "blocks"]);
        let programs = Programs::built().ok();
        let pids: Vec<(String, i32)> =
            lab.nodes().values().map(|node| (node.name().to_owned(), node.pid())).collect();
        let cluster = programs.map(|programs| Cluster::attach(lab, programs));
        for (node, pid) in pids {
            let status = cluster.as_ref().and_then(|cluster| cluster.status(&node).ok());
            let (agent, blocks) = match status {
                None => ("-", String::new()),
                Some(status) => (if status.ready { "ready" } else { "not ready" }, status.blocks.join(" ")),
            };
            table.add_row([node, pid.to_string(), agent.to_owned(), blocks]);
        }
        say(table);
        say(places(&folder));
    }
    Ok(())
}
