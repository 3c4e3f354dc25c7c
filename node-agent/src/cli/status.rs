//! `pairway status`

use super::client::Client;
use super::output::{Exit, Failure, Format, Printed};
use super::table::{printable, table, terminal_width, yes};
use crate::status::{Severity, Status};

pub(super) async fn show(client: &Client, format: Format) -> Result<Printed, Failure> {
    let status: Status = client.get("/v1/status").await?;
    let printed = Printed::value(format, &status, |status| text(status, terminal_width()))?;
    Ok(printed.exit(exit(&status)))
}

/// A script stops where this node is not as it should be; a warning is for people.
fn exit(status: &Status) -> Exit {
    let wrong = status.conditions.iter().any(|condition| condition.severity == Severity::Error);
    if status.ready && !wrong { Exit::Well } else { Exit::Finding }
}

fn text(status: &Status, width: Option<u16>) -> String {
    let ready = if status.ready {
        yes(true)
    } else if status.not_ready_reasons.is_empty() {
        "no: the first pass has not ended".to_owned()
    } else {
        format!("no: {}", status.not_ready_reasons.join(", "))
    };
    let mut underlay = join(status.underlay.values().cloned());
    if let Some(interface) = &status.underlay_interface {
        underlay = format!("{underlay} on {interface}");
    }
    let paths = status.pairs_by_path.iter().filter(|(_, count)| **count > 0);
    let pairs = join(paths.map(|(path, count)| format!("{count} {path}")));
    let lines = [
        ("Node", status.node.clone()),
        ("Ready", ready),
        ("Blocks", join(status.blocks.iter().cloned())),
        ("Pairs", pairs),
        ("Underlay", underlay),
        ("Tunnel", join(status.tunnel_addresses.values().cloned())),
        ("Store", status.store.clone()),
        ("Revision", status.revision.to_string()),
        ("Version", status.version.clone()),
        ("Started", status.started_at.clone().unwrap_or_default()),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        let value = if value.is_empty() { "-".to_owned() } else { printable(&value) };
        text.push_str(&format!("{name:<10}{value}\n"));
    }
    if !status.conditions.is_empty() {
        let rows = status.conditions.iter().map(|condition| {
            [
                condition.kind.clone(),
                condition.severity.as_str().to_owned(),
                condition.subject.clone(),
                condition.since.clone(),
                condition.message.clone(),
            ]
        });
        text.push('\n');
        text.push_str(&table(["CONDITION", "SEVERITY", "SUBJECT", "SINCE", "MESSAGE"], rows, width));
    }
    if !status.failures.is_empty() {
        text.push_str("\nRefused by the kernel:\n");
        for failure in &status.failures {
            text.push_str(&format!("  {}\n", printable(failure)));
        }
    }
    text
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    use expect_test::expect;

    #[test]
    fn a_ready_node_with_a_condition() {
        let status = fixtures::published().status;
        expect![[r#"
            Node      n1
            Ready     yes
            Blocks    10.244.1.0/24, fd10:244:0:1::/64
            Pairs     2 native, 1 vxlan
            Underlay  192.0.2.1/24, 2001:db8::1/64 on eth0
            Tunnel    10.244.1.0, fd10:244:0:1::
            Store     file /var/lib/pairway/store, well
            Revision  42
            Version   0.1.0
            Started   2026-11-21T09:00:00Z

            CONDITION        SEVERITY  SUBJECT  SINCE                 MESSAGE
            PeerUnreachable  warning   n3       2026-11-21T10:00:00Z  n3 has given no sign of life for 2 minutes; look whether its agent runs
        "#]].assert_eq(&text(&status, None));
        assert_eq!(exit(&status), Exit::Well, "a warning");
        assert_eq!(exit(&Status { ready: false, ..status.clone() }), Exit::Finding);
        let mut status = status;
        status.conditions[0].severity = Severity::Error;
        assert_eq!(exit(&status), Exit::Finding);
    }

    #[test]
    fn before_the_first_pass_and_with_failures() {
        let status =
            Status { failures: vec!["add route 10.244.2.0/24: busy".to_owned()], ..Status::default() };
        expect![[r#"
            Node      -
            Ready     no: the first pass has not ended
            Blocks    -
            Pairs     -
            Underlay  -
            Tunnel    -
            Store     -
            Revision  0
            Version   -
            Started   -

            Refused by the kernel:
              add route 10.244.2.0/24: busy
        "#]]
        .assert_eq(&text(&status, None));
        assert_eq!(exit(&status), Exit::Finding);
        let reasons = Status { not_ready_reasons: vec!["NoBlock".to_owned()], ..status };
        assert!(text(&reasons, None).contains("Ready     no: NoBlock\n"));
    }
}
