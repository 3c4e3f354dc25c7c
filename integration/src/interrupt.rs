//! An interrupt (or the end of the terminal) ends the work in order: what waits looks at [`requested`], and everything is
//! cleaned up on the way out. A second one ends the process at once, and the nodes end with it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cluster::ClusterError;

/// Exit status after an interrupt, as shells have it for SIGINT.
pub const EXIT_STATUS: u8 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Takes SIGINT, SIGTERM and SIGHUP over, the last unless it is ignored (`nohup`). By handlers, not by a mask: programs
/// that are started would inherit a mask.
pub fn listen() -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let (interrupt, terminate, hangup) = {
        let _inside = runtime.enter();
        let hangup = if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) };
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, hangup)
    };
    // It lives as long as the process: there is nothing to wait for.
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(receive(interrupt, terminate, hangup)))?;
    Ok(())
}

async fn receive(mut interrupt: Signal, mut terminate: Signal, mut hangup: Option<Signal>) {
    loop {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hung_up => {}
        }
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT_STATUS.into());
        }
    }
}

/// Whether SIGHUP was ignored when this program started: `SigIgn` of proc(5), a mask with bit 0 for signal 1.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// Whether the user wants to stop.
#[must_use]
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// An error if the user wants to stop.
pub fn check() -> Result<(), ClusterError> {
    if requested() { Err(ClusterError::Interrupted) } else { Ok(()) }
}
