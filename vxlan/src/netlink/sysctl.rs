//! The one setting of a device that netlink can't write: `accept_ra`.
//!
//! `/proc/sys/net` shows the network namespace of the thread that opens it: that of the socket, as long as both are
//! used from one thread.

use std::fs::OpenOptions;
use std::io::Write as _;

use crate::reconcile::ApplyError;
use crate::state::LinkName;

const DIRECTORY: &str = "/proc/sys/net/ipv6/conf";

/// Whether files of `/proc/sys` can be written. Opens one and writes nothing.
pub(super) fn writable() -> bool {
    OpenOptions::new().write(true).open(format!("{DIRECTORY}/default/accept_ra")).is_ok()
}

/// Makes a device ignore router advertisements: nobody in a tunnel is our router.
pub(super) fn ignore_routers(link: &LinkName) -> Result<(), ApplyError> {
    let path = format!("{DIRECTORY}/{link}/accept_ra");
    let written = OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(b"0\n"));
    written.map_err(|error| ApplyError {
        errno: error.raw_os_error().unwrap_or(libc::EIO),
        message: format!("can't write {path}: {error}"),
    })
}
