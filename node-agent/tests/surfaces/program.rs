//! Runs the binary, and an API for it to talk to.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node_agent::api::{self, socket::Bound};
use node_agent::claims::Released;
use node_agent::node::Block;
use node_agent::status::{self, AgentHandle, CommandError, Published};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How a run of the binary ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// The binary with these arguments, with nothing of our environment that it would heed.
pub(crate) fn pairway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pairway"));
    command
        .args(arguments)
        .env_remove("PAIRWAY_SOCKET")
        .env_remove("RUST_LOG")
        .env_remove("NODE_NAME")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end, for a minute at most.
pub(crate) fn run(command: &mut Command) -> Ended {
    let child = command.spawn().expect("the binary starts");
    let process = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    let (sender, ended) = mpsc::channel();
    let waiter = std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(Duration::from_secs(60)) else {
        kill(process, Signal::SIGKILL).expect("a child of ours");
        panic!("{command:?} has not ended within a minute");
    };
    waiter.join().expect("has sent").expect("was received");
    let output = output.expect("a child of ours");
    Ended {
        code: output.status.code().expect("ended by itself"),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// An API with a made-up agent behind it, on a socket of its own; both end when this is dropped.
pub(crate) struct Api {
    folder: tempfile::TempDir,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Api {
    /// Serves `published`. The agent claims 10.244.9.0/24 or says that 10.245.0.0/16 is exhausted; it gives
    /// 10.244.1.0/24 back by force, and others not; it deletes node `n3`, and others only by force.
    pub(crate) fn new(published: Published) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("api.sock");
        let stop = CancellationToken::new();
        let until = stop.clone();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let bound = Bound::bind(&path).await.expect("a socket");
                ready.send(()).expect("somebody waits");
                let (publisher, published) = watch::channel(Arc::new(published));
                let (commands, asked) = tokio::sync::mpsc::channel(1);
                let agent = AgentHandle { published, commands };
                tokio::select! {
                    () = api::serve(bound, agent, until) => {}
                    () = answer(asked, publisher) => {}
                }
            });
        });
        is_ready.recv().expect("the API is up");
        Self { folder, stop, thread: Some(thread) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    /// Runs a command against this API.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        run(&mut asking(&self.socket(), arguments))
    }
}

/// The binary with these arguments, asking the agent at `socket`.
pub(crate) fn asking(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = pairway(arguments);
    command.env("PAIRWAY_SOCKET", socket);
    command
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the API ends without a panic");
        }
    }
}

async fn answer(
    mut asked: tokio::sync::mpsc::Receiver<status::Command>,
    publisher: watch::Sender<Arc<Published>>,
) {
    // What was done is shown before anybody is told.
    let exchange = |old: &str, new: &str| {
        publisher.send_modify(|published| {
            let blocks = &mut Arc::make_mut(published).status.blocks;
            blocks.retain(|block| block != old);
            blocks.push(new.to_owned());
        });
    };
    fn failed<T>(code: &str, message: &str, hint: &str) -> Result<T, CommandError> {
        Err(CommandError { code: code.to_owned(), message: message.to_owned(), hint: hint.to_owned() })
    }
    while let Some(command) = asked.recv().await {
        let (answer, said) = match command {
            status::Command::ClaimBlock { pool, answer } if pool.as_deref() == Some("10.245.0.0/16") => {
                (answer, failed("exhausted", "10.245.0.0/16 has no free block", "add a pool"))
            }
            status::Command::ClaimBlock { answer, .. } => {
                exchange("", "10.244.9.0/24");
                (answer, Ok(vec!["10.244.9.0/24".to_owned()]))
            }
            status::Command::ReleaseBlock { block, force: true, answer } => {
                exchange(&block.to_string(), "10.244.3.0/24");
                let released = Released {
                    block,
                    lost_to: None,
                    claimed: vec![Block::new("10.244.3.0/24".parse().expect("a CIDR"))],
                    tunnel_address: Some((block.network(), Some("10.244.3.0".parse().expect("an address")))),
                    reuse_after: Duration::from_secs(600),
                    in_use: Vec::new(),
                };
                let _ = answer.send(Ok(released));
                continue;
            }
            status::Command::ReleaseBlock { answer, .. } => {
                let text = "10.244.1.0/24 is in use on this node: address 10.244.1.1/24 of cni0";
                let _ = answer.send(failed("in-use", text, "move its pods away"));
                continue;
            }
            status::Command::DeleteNode { name, force, answer } if name == "n3" || force => {
                (answer, Ok(vec!["10.244.10.0/24".to_owned()]))
            }
            status::Command::DeleteNode { answer, .. } => (
                answer,
                failed("fresh", "n2 was seen 2 s ago: its agent runs", "end it first, or use --force"),
            ),
        };
        // A caller that has gone needs no answer.
        let _ = answer.send(said);
    }
}
