//! `pairway uninstall`

use std::path::{Path, PathBuf};

use clap::Args;
use vxlan::netlink::Kernel;

use super::output::{Exit, Failure, Format, Printed};
use super::table::printable;
use super::validate;
use crate::agent::StateDir;
use crate::api::reply::Uninstalled;
use crate::api::socket;
use crate::daemon;
use crate::telemetry::chain;
use crate::uninstall::Uninstall;

/// What to uninstall.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file that the agent ran with.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
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
    // Held to the end: no agent can start meanwhile and program anew what is taken away.
    let lock = if arguments.dry_run {
        None
    } else {
        let locked = StateDir::lock(&config.state_dir);
        Some(locked.map_err(|error| failed("state", chain(&error)))?)
    };
    let mut kernel = Kernel::open(daemon::marks(&config.kernel))
        .map_err(|error| failed("kernel", format!("can't talk to the kernel by netlink: {error}")))?;
    let store = if store_stands(&config.store) {
        let opened = daemon::open_store(&config.store, None).await;
        Some(opened.map_err(|error| failed("store", chain(&error)))?)
    } else {
        None
    };
    let uninstall = Uninstall {
        node: &node,
        state_dir: &config.state_dir,
        store: store.as_deref(),
        dataplane: &mut kernel,
        dry_run: arguments.dry_run,
    };
    let mut done = uninstall.run().await;
    if let Some(lock) = lock {
        remove_socket(&config.api_socket).await;
        if done.failures.is_empty()
            && let Err(error) = lock.remove()
        {
            done.failures.push(chain(&error));
        }
    }
    let exit = if done.failures.is_empty() { Exit::Well } else { Exit::Finding };
    Ok(Printed::value(format, &done, text)?.exit(exit))
}

/// A directory that is not there holds nothing to give back, and opening it would make it.
fn store_stands(store: &config::Store) -> bool {
    let config::Store::File { path, .. } = store;
    path.exists()
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
    lines.extend(done.kernel.iter().map(|change| format!("{would}{}", printable(change))));
    if lines.is_empty() {
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
    fn what_was_done_what_would_be_and_what_could_not() {
        let done = Uninstalled {
            node: "n1".to_owned(),
            dry_run: false,
            released: vec!["10.244.1.0/24".to_owned()],
            kernel: vec!["delete route 10.244.2.0/24 in table 254".to_owned()],
            failures: vec!["can't delete device pairway-vx4: busy".to_owned()],
        };
        expect![[r#"
            released 10.244.1.0/24
            delete route 10.244.2.0/24 in table 254
            FAILED: can't delete device pairway-vx4: busy
        "#]]
        .assert_eq(&text(&done));
        let rehearsal = Uninstalled { dry_run: true, failures: Vec::new(), ..done.clone() };
        expect![[r#"
            would release 10.244.1.0/24
            would delete route 10.244.2.0/24 in table 254
        "#]]
        .assert_eq(&text(&rehearsal));
        let nothing = Uninstalled { released: Vec::new(), kernel: Vec::new(), failures: Vec::new(), ..done };
        assert_eq!(text(&nothing), "nothing of this node's is left\n");
    }
}
