//! `pairway version`

use super::output::{Failure, Format, Printed};
use crate::api::reply::Version;

pub(super) fn show(format: Format) -> Result<Printed, Failure> {
    let version = Version { version: env!("CARGO_PKG_VERSION").to_owned() };
    Printed::value(format, &version, |version| format!("pairway {}\n", version.version))
}
