//! An interrupt from the terminal ends the work in order: what waits looks at [`requested`], and everything is
//! cleaned up on the way out. A second one ends the process at once, and the nodes end with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

use crate::cluster::ClusterError;

/// Exit status after an interrupt, as shells have it for SIGINT.
pub const EXIT_STATUS: u8 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Takes SIGINT and SIGTERM over. To be called before any other thread exists.
pub fn listen() -> Result<(), std::io::Error> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block()?;
    // It lives as long as the process: there is nothing to wait for.
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while signals.wait().is_ok() {
            if REQUESTED.swap(true, Ordering::Relaxed) {
                std::process::exit(EXIT_STATUS.into());
            }
        }
    })?;
    Ok(())
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
