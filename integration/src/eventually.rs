//! Waiting by condition, with a bound. The only clock of this crate.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// What was waited for did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("waited {} s for {what}: {last}", .waited.as_secs_f64())]
pub struct Elapsed {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub waited: Duration,
    /// What the last look said.
    pub last: String,
}

/// Looks again and again until `look` gives a value; its last complaint if that takes longer than `limit`.
pub fn eventually<T, E: fmt::Display>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T, Elapsed> {
    let start = now();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() >= limit => {
                return Err(Elapsed {
                    what: what.to_owned(),
                    waited: start.elapsed(),
                    last: last.to_string(),
                });
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Whether a condition comes true within `limit`.
pub fn soon(mut condition: impl FnMut() -> bool, limit: Duration) -> bool {
    eventually("", limit, || if condition() { Ok(()) } else { Err("no") }).is_ok()
}

/// Runs something and says how long it took.
pub fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = now();
    (run(), start.elapsed())
}

#[expect(clippy::disallowed_methods, reason = "this module is where the crate reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
