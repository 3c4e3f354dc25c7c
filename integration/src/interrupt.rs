//! An interrupt from the terminal ends the work in order: what waits looks at [`requested`], and everything is
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

/// Takes SIGINT and SIGTERM over. By handlers, not by a mask: programs that are started would inherit a mask.
pub fn listen() -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let (interrupt, terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    // It lives as long as the process: there is nothing to wait for.
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(receive(interrupt, terminate)))?;
    Ok(())
}

async fn receive(mut interrupt: Signal, mut terminate: Signal) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT_STATUS.into());
        }
    }
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
