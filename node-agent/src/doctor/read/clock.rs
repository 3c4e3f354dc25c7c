//! Whether something keeps the clock: asked of systemd, else of chrony. The kernel's own answer (adjtimex(2)) has no
//! safe interface.

use std::process::{Command, Stdio};

use super::super::facts::{ClockState, Known};

/// Asks who may know.
pub(super) fn state() -> Known<ClockState> {
    let systemd = said("timedatectl", &["show", "--property=NTPSynchronized", "--value"]);
    let chrony = || said("chronyc", &["-n", "tracking"]);
    systemd.as_deref().and_then(of_systemd).or_else(|| chrony().as_deref().and_then(of_chrony)).ok_or_else(
        || "neither systemd nor chrony answers here; look at the machine's own time service".to_owned(),
    )
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn of_systemd(text: &str) -> Option<ClockState> {
    match text.trim() {
        "yes" => Some(ClockState::Synchronised),
        "no" => Some(ClockState::Free),
        _ => None,
    }
}

/// `Leap status     : Normal`
fn of_chrony(text: &str) -> Option<ClockState> {
    let line = text.lines().find_map(|line| line.strip_prefix("Leap status"))?;
    let status = line.trim_start_matches([' ', ':']).trim();
    Some(if status == "Not synchronised" { ClockState::Free } else { ClockState::Synchronised })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_understood() {
        assert_eq!(of_systemd("yes\n"), Some(ClockState::Synchronised));
        assert_eq!(of_systemd("no\n"), Some(ClockState::Free));
        assert_eq!(of_systemd(""), None);
        assert_eq!(of_chrony("Stratum : 3\nLeap status     : Normal\n"), Some(ClockState::Synchronised));
        assert_eq!(of_chrony("Leap status     : Not synchronised\n"), Some(ClockState::Free));
        assert_eq!(of_chrony("506 Cannot talk to daemon\n"), None);
    }
}
