//! `pairway uninstall`

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use vxlan::netlink::Kernel;

use super::output::{Exit, Failure, Format, Printed};
use super::table::printable;
use super::validate;
use crate::agent::StateDir;
use crate::api::reply::Uninstalled;
use crate::api::socket;
use crate::claims;
use crate::daemon;
use crate::node::{Block, NodeName};
use crate::store::{Store, file};
use crate::telemetry::chain;
use crate::uninstall::Uninstall;

/// How long a server may take for its first answer.
const STORE_WITHIN: Duration = Duration::from_secs(15);

/// What to uninstall.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file that the agent ran with.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Also if the store shows nothing of this node, although it held blocks: they are forgotten here.
    #[arg(long)]
    force: bool,
    /// When all is gone, wait for SIGTERM or SIGINT: for a pod that must not end by itself.
    #[arg(long, conflicts_with = "dry_run")]
    stay: bool,
}

impl Arguments {
    /// Whether the program stays when it is done.
    pub(super) fn stays(&self) -> bool {
        self.stay
    }
}

/// Waits until it is told to end. The first process of a container is ended by no signal that it does not listen for.
pub(super) async fn stay() -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(
            Exit::Finding,
            "signals",
            format!("can't receive signals: {error}"),
            "run it without --stay",
        )
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    // Both only tell; either is enough.
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

pub(super) async fn run(arguments: &Arguments, format: Format) -> Result<Printed, Failure> {
    let file = validate::load(&arguments.config)?;
    let config = file.for_node(&validate::own_name(&file)?);
    let node = config.node.name.parse().map_err(|error: crate::node::NodeNameError| {
        Failure::new(Exit::Config, "node-name", error.to_string(), "set node.name in the configuration")
    })?;
    let failed = |code: &str, message: String| {
        Failure::new(Exit::Finding, code, message, "mend it and run this again")
    };
    let stood = config.state_dir.is_dir();
    // Held to the end: no agent can start meanwhile and program anew what is taken away.
    let lock = if arguments.dry_run {
        None
    } else {
        let locked = StateDir::lock(&config.state_dir);
        Some(locked.map_err(|error| failed("state", chain(&error)))?)
    };
    let mut kernel = Kernel::open(daemon::marks(&config.kernel))
        .map_err(|error| failed("kernel", format!("can't talk to the kernel by netlink: {error}")))?;
    let mut lost = if arguments.force { None } else { lost_directory(&config, &node) };
    let mut store = if lost.is_none() && store_stands(&config.store) {
        let opened = daemon::open_store(&config.store, None, None).await;
        Some(opened.map_err(|error| failed("store", chain(&error)))?)
    } else {
        None
    };
    if let Some(opened) = store.as_deref()
        && !arguments.force
        && !matches!(config.store, config::Store::File { .. })
    {
        lost = lost_server(&config, &node, opened).await;
        if lost.is_some() {
            store = None;
        }
    }
    let uninstall = Uninstall {
        node: &node,
        state_dir: &config.state_dir,
        store: store.as_deref(),
        cni: &config.cni,
        dataplane: &mut kernel,
        dry_run: arguments.dry_run,
    };
    let mut done = uninstall.run().await;
    done.failures.extend(lost);
    let state_dir = stood.then(|| config.state_dir.display().to_string());
    if let Some(lock) = lock {
        remove_socket(&config.api_socket).await;
        if done.failures.is_empty() {
            match lock.remove() {
                Ok(()) => done.state_dir = state_dir,
                Err(error) => done.failures.push(chain(&error)),
            }
        }
    } else {
        done.state_dir = state_dir;
        if let Some(error) = StateDir::occupied(&config.state_dir) {
            done.failures.push(format!("without --dry-run this is refused now: {}", chain(&error)));
        }
    }
    if !done.failures.is_empty() && !nix::unistd::geteuid().is_root() {
        done.failures.push("not all of this can be done or seen by this user: run it as root".to_owned());
    }
    let exit = if done.failures.is_empty() { Exit::Well } else { Exit::Finding };
    Ok(Printed::value(format, &done, text)?.exit(exit))
}

/// A directory without records holds nothing to give back, and opening it would make some.
fn store_stands(store: &config::Store) -> bool {
    match store {
        config::Store::File { path, .. } => file::holds_records(path),
        config::Store::Kubernetes { .. } | config::Store::Etcd(_) => true,
    }
}

/// Why this directory can't be the store that this node's blocks are in. Looks only.
fn lost_directory(config: &config::Config, node: &NodeName) -> Option<String> {
    let config::Store::File { path, .. } = &config.store else { return None };
    match claims::remembered(&config.state_dir, node) {
        Ok(blocks) if blocks.is_empty() || file::knows(path, node, &blocks) => None,
        Ok(blocks) => Some(shows_nothing(&path.display().to_string(), &blocks, "is the store mounted?")),
        Err(error) => Some(cannot_tell(&error)),
    }
}

/// The same of a store on a server. One that does not answer is told later.
async fn lost_server(config: &config::Config, node: &NodeName, store: &dyn Store) -> Option<String> {
    let blocks = match claims::remembered(&config.state_dir, node) {
        Ok(blocks) if blocks.is_empty() => return None,
        Ok(blocks) => blocks,
        Err(error) => return Some(cannot_tell(&error)),
    };
    let mut snapshots = store.snapshots();
    let first = tokio::time::timeout(STORE_WITHIN, snapshots.wait_for(Option::is_some)).await;
    let Ok(Ok(snapshot)) = first else { return None };
    let snapshot = snapshot.clone()?;
    let is_known =
        snapshot.nodes.contains_key(node) || blocks.iter().any(|block| snapshot.claims.contains_key(block));
    (!is_known).then(|| shows_nothing("the store", &blocks, "is it the right one?"))
}

const KEPT: &str = "nothing was given back and nothing is forgotten; --force forgets the blocks here";

fn shows_nothing(store: &str, blocks: &[Block], question: &str) -> String {
    let blocks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
    let blocks = blocks.join(", ");
    format!("{store} shows neither this node's record nor its blocks ({blocks}), {question} {KEPT}")
}

fn cannot_tell(error: &impl std::fmt::Display) -> String {
    format!("can't tell which blocks this node holds: {error}; {KEPT}")
}

/// What an agent that was killed has left: binding replaces it, dropping removes it.
async fn remove_socket(path: &Path) {
    if path.exists() {
        drop(socket::Bound::bind(path).await);
    }
}

fn text(done: &Uninstalled) -> String {
    let (would, released) = if done.dry_run { ("would ", "release") } else { ("", "released") };
    let mut lines: Vec<String> =
        done.released.iter().map(|block| format!("{would}{released} {}", printable(block))).collect();
    let remove = if done.dry_run { "remove" } else { "removed" };
    if done.record {
        lines.push(format!("{would}{remove} the record of {}", printable(&done.node)));
    }
    lines.extend(done.files.iter().map(|file| format!("{would}{remove} {}", printable(file))));
    lines.extend(done.kernel.iter().map(|change| format!("{would}{}", printable(change))));
    if let Some(state_dir) = &done.state_dir {
        let empty = if done.dry_run { "empty" } else { "emptied" };
        lines.push(format!("{would}{empty} {}", printable(state_dir)));
    }
    // What could not be seen may be left.
    if lines.is_empty() && done.failures.is_empty() {
        lines.push("nothing of this node's is left".to_owned());
    }
    lines.extend(done.failures.iter().map(|failure| format!("FAILED: {}", printable(failure))));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    use expect_test::expect;

    #[test]
    fn a_directory_that_shows_nothing_of_this_node_is_not_its_store() {
        let folder = tempfile::tempdir().unwrap();
        let (state, path) = (folder.path().join("state"), folder.path().join("store"));
        let text = format!(
            "version: 1\npools: [{{ cidr: 10.244.0.0/16, blockPrefix: 24 }}]\nstateDir: {}\nstore: {{ file: {{ path: {} }} }}\n",
            state.display(),
            path.display()
        );
        let config =
            config::ConfigFile::parse(&text, "test.yaml").unwrap_or_else(|errors| panic!("{errors}"));
        let config = config.for_node("n1");
        let node: NodeName = "n1".parse().unwrap();
        assert_eq!(lost_directory(&config, &node), None, "it never ran");
        std::fs::create_dir(&state).unwrap();
        let memory = state.join(claims::FILE_NAME);
        std::fs::write(
            &memory,
            r#"{"version":1,"node":"n1","held":[{"block":"10.244.1.0/24","claimedAt":"2026-01-01T00:00:00Z"}]}"#,
        )
        .unwrap();
        let is_lost =
            || lost_directory(&config, &node).is_some_and(|text| text.contains("is the store mounted?"));
        assert!(is_lost(), "there is none");
        std::fs::create_dir(&path).unwrap();
        assert!(is_lost(), "it is bare");
        assert!(!store_stands(&config.store), "so that it is not opened, also by force");
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        std::fs::create_dir(path.join("claims")).unwrap();
        assert!(is_lost() && store_stands(&config.store), "another store");
        std::fs::write(path.join("claims/10-244-1-0-24.json"), "").unwrap();
        assert_eq!(lost_directory(&config, &node), None);
        std::fs::remove_dir_all(path.join("claims")).unwrap();
        std::fs::create_dir(path.join("nodes")).unwrap();
        std::fs::write(path.join("nodes/n1.json"), "").unwrap();
        assert_eq!(lost_directory(&config, &node), None);
        std::fs::write(&memory, "{").unwrap();
        assert!(lost_directory(&config, &node).is_some_and(|text| text.contains("claims.json")));
    }

    #[test]
    fn what_was_done_what_would_be_and_what_could_not() {
        let done = Uninstalled {
            node: "n1".to_owned(),
            dry_run: false,
            released: vec!["10.244.1.0/24".to_owned()],
            record: true,
            kernel: vec!["delete route 10.244.2.0/24 in table 254".to_owned()],
            files: vec!["/run/flannel/subnet.env".to_owned()],
            state_dir: None,
            failures: vec!["can't delete device pairway-vx4: busy".to_owned()],
        };
        expect![[r#"
            released 10.244.1.0/24
            removed the record of n1
            removed /run/flannel/subnet.env
            delete route 10.244.2.0/24 in table 254
            FAILED: can't delete device pairway-vx4: busy
        "#]]
        .assert_eq(&text(&done));
        let state_dir = Some("/var/lib/pairway".to_owned());
        let rehearsal = Uninstalled { dry_run: true, failures: Vec::new(), state_dir, ..done.clone() };
        expect![[r#"
            would release 10.244.1.0/24
            would remove the record of n1
            would remove /run/flannel/subnet.env
            would delete route 10.244.2.0/24 in table 254
            would empty /var/lib/pairway
        "#]]
        .assert_eq(&text(&rehearsal));
        let nothing = Uninstalled {
            released: Vec::new(),
            record: false,
            kernel: Vec::new(),
            files: Vec::new(),
            failures: Vec::new(),
            ..done
        };
        assert_eq!(text(&nothing), "nothing of this node's is left\n");
        let unseen = Uninstalled { failures: vec!["can't read nftables".to_owned()], ..nothing };
        assert_eq!(text(&unseen), "FAILED: can't read nftables\n");
    }
}
