//! A node that is up: running programs in it, and ending it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::end;
use super::error::{CommandError, LabError};
use crate::eventually::eventually;
use crate::topology::Node as Definition;

/// How long a process may take to come up or to go: far beyond what a busy machine needs.
const PROCESS_LIMIT: Duration = Duration::from_secs(20);

/// A node.
#[derive(Debug)]
pub struct Node {
    name: String,
    pid: i32,
    env: BTreeMap<String, String>,
    /// The `unshare` that waits for the node's first process; `None` if another runner started it.
    holder: Option<Child>,
    ending: Option<end::Ending>,
}

impl Node {
    pub(super) fn started(name: &str, pid: i32, definition: &Definition, holder: Child) -> Self {
        Self { name: name.to_owned(), pid, env: definition.env.clone(), holder: Some(holder), ending: None }
    }

    pub(super) fn attached(name: &str, pid: i32, definition: &Definition) -> Self {
        Self { name: name.to_owned(), pid, env: definition.env.clone(), holder: None, ending: None }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id of its first process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A command that will run in the node. What it starts ends with the node.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.pid))
            .args(["--net", "--mount", "--uts", "--pid", "--ipc", "--"])
            .arg(program)
            .env("PATH", path_variable())
            .envs(&self.env)
            .current_dir("/");
        command
    }

    /// Runs a command to its end; its standard output, or what went wrong.
    pub fn run(&self, words: &[&str]) -> Result<String, CommandError> {
        let (program, arguments) = words.split_first().unwrap_or((&"true", &[]));
        let fail = |status: String, code, output: &[u8]| CommandError {
            node: self.name.clone(),
            command: words.join(" "),
            status,
            code,
            output: String::from_utf8_lossy(output).trim().to_owned(),
        };
        let output = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|err| fail(err.to_string(), None, &[]))?;
        if !output.status.success() {
            let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
            return Err(fail(output.status.to_string(), output.status.code(), said));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command that must have ended well after `limit`; what it starts in the background may go on. What it
    /// says goes to a file in `folder`, for a pipe would be open as long as anything holds it.
    pub(super) fn run_within(
        &self,
        words: &[&str],
        limit: Duration,
        folder: &Path,
    ) -> Result<(), CommandError> {
        let said = folder.join(format!("{}.exec.out", self.name));
        let fail = |status: String, code| CommandError {
            node: self.name.clone(),
            command: words.join(" "),
            status,
            code,
            output: String::from_utf8_lossy(&fs::read(&said).unwrap_or_default()).trim().to_owned(),
        };
        let (program, arguments) = words.split_first().unwrap_or((&"true", &[]));
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::null());
        let outputs = fs::File::create(&said).and_then(|file| Ok((file.try_clone()?, file)));
        let (stdout, stderr) = outputs.map_err(|err| fail(err.to_string(), None))?;
        let mut child =
            command.stdout(stdout).stderr(stderr).spawn().map_err(|err| fail(err.to_string(), None))?;
        let mut ended =
            || child.try_wait().map_err(|err| err.to_string())?.ok_or_else(|| "it runs".to_owned());
        let result = match eventually("it to end", limit, &mut ended) {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(fail(status.to_string(), status.code())),
            Err(_) => {
                if let Some(program) = only_child(child.id()) {
                    // Its end between the look and the signal is as good.
                    let _ = kill(Pid::from_raw(program), Signal::SIGKILL);
                }
                end::child(&mut child);
                Err(fail(format!("it has not ended within {} s", limit.as_secs()), None))
            }
        };
        // It was only for the message.
        let _ = fs::remove_file(&said);
        result
    }

    /// Runs a line of shell.
    pub fn sh(&self, line: &str) -> Result<String, CommandError> {
        self.run(&["sh", "-ec", line])
    }

    /// Runs a command that prints JSON.
    pub fn json(&self, words: &[&str]) -> Result<serde_json::Value, CommandError> {
        let text = self.run(words)?;
        // `ip -j` prints nothing at all for some empty lists.
        let text = if text.trim().is_empty() { "[]" } else { text.as_str() };
        serde_json::from_str(text).map_err(|err| CommandError {
            node: self.name.clone(),
            command: words.join(" "),
            status: format!("not JSON: {err}"),
            code: Some(0),
            output: text.to_owned(),
        })
    }

    /// Starts a program that goes on; everything that it writes goes to the end of a file.
    pub fn start(&self, words: &[&str], log: &Path) -> Result<Running, LabError> {
        let (program, arguments) = words.split_first().unwrap_or((&"true", &[]));
        let file =
            fs::File::options().create(true).append(true).open(log).map_err(LabError::io("open", log))?;
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::null());
        command.stderr(file.try_clone().map_err(LabError::io("open", log))?).stdout(file);
        Running::spawn(command, words.join(" "))
    }
}

impl Node {
    /// From now on the node outlives this value.
    pub(super) fn leave(&mut self) -> Result<(), LabError> {
        let Some(mut holder) = self.holder.take() else { return Ok(()) };
        let told = holder.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(b"stay\n"));
        told.map_err(LabError::io("leave node", &self.name))
    }

    /// Ends the node's first process; the kernel ends all others of the node. Does not wait: that is for the end of
    /// this value.
    pub(super) fn kill(&mut self) {
        if self.ending.is_none()
            && let Some(holder) = &mut self.holder
            && matches!(holder.try_wait(), Ok(None))
        {
            self.ending = Some(end::Ending::begin(&self.name, self.pid));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        let Some(mut holder) = self.holder.take() else { return };
        if let Some(ending) = self.ending.take()
            && let Err(err) = ending.finish_with(&mut holder)
        {
            // There is nobody to give it to, and whoever waits wants to know.
            let _ = writeln!(std::io::stderr(), "lab: {err}");
        }
    }
}

/// A program that runs in a node. It is killed when this is dropped, unless left.
#[derive(Debug)]
pub struct Running {
    nsenter: Child,
    pid: Pid,
    left: bool,
}

impl Running {
    fn spawn(mut command: Command, line: String) -> Result<Self, LabError> {
        use std::os::unix::process::CommandExt;
        let mut nsenter = command.process_group(0).spawn().map_err(LabError::io("run", "nsenter"))?;
        // nsenter forks: only a child of it can be in the node's PID namespace.
        let found = eventually("nsenter to start its program", PROCESS_LIMIT, || match nsenter.try_wait() {
            Ok(None) => only_child(nsenter.id()).ok_or_else(|| "not yet".to_owned()).map(Ok),
            Ok(Some(status)) => Ok(Err(std::io::Error::other(format!("it ended at once, {status}")))),
            Err(err) => Ok(Err(err)),
        });
        let pid =
            found.map_err(std::io::Error::other).and_then(|pid| pid).map_err(LabError::io("start", line))?;
        Ok(Self { nsenter, pid: Pid::from_raw(pid), left: false })
    }

    /// From now on it outlives this value; it ends with its node.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        kill(self.pid, signal).map_err(|err| LabError::Io {
            operation: "signal",
            subject: format!("process {}", self.pid),
            source: err.into(),
        })
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.nsenter.try_wait(), Ok(None))
    }

    /// Whether it has ended, as far as can be seen without waiting for it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        kill(self.pid, None).is_err()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus, LabError> {
        let ended = eventually("the process to end", PROCESS_LIMIT, || {
            self.nsenter.try_wait().map_err(|err| err.to_string())?.ok_or_else(|| "it runs".to_owned())
        });
        ended.map_err(|err| LabError::Io {
            operation: "wait for",
            subject: format!("process {}", self.pid),
            source: std::io::Error::other(err),
        })
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus, LabError> {
        if self.is_running() {
            self.signal(signal)?;
            // A stopped program stops its nsenter too, and a stopped nsenter sees no end.
            end::go_on(self.nsenter.id());
        }
        self.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.left && self.is_running() {
            // It may just have ended: that is as good.
            let _ = self.signal(Signal::SIGKILL);
            end::child(&mut self.nsenter);
        }
    }
}

/// The one child of a process.
pub(super) fn only_child(pid: u32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let mut children = children.split_whitespace();
    let child = children.next()?.parse().ok()?;
    children.next().is_none().then_some(child)
}

/// `PATH` with the folders of system tools, which a user's path may lack.
pub(super) fn path_variable() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
}
