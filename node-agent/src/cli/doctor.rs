//! `pairway doctor`

use std::path::PathBuf;

use clap::Args;
use config::ConfigFile;

use super::client::Client;
use super::output::{Exit, Failure, Format, Printed};
use super::table::printable;
use super::validate;
use crate::doctor::{self, Check, Examination, Outcome};
use crate::status::Status;

/// What stands in where no file is named: every default, and the pool of most clusters.
const WITHOUT_FILE: &str = "pools: [{ cidr: 10.244.0.0/16, blockPrefix: 24 }]\n";

/// What to examine.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file that the agent runs with; without it defaults are examined, with the pool 10.244.0.0/16.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also show what is well.
    #[arg(short, long)]
    all: bool,
}

pub(super) async fn run(arguments: &Arguments, client: Client, format: Format) -> Result<Printed, Failure> {
    let file = match &arguments.config {
        Some(path) => validate::load(path)?,
        None => ConfigFile::parse(WITHOUT_FILE, "the default").map_err(|errors| {
            Failure::new(Exit::Finding, "internal", errors.summary(), "name a file with --config")
        })?,
    };
    let name = validate::own_name(&file)?;
    let config = file.for_node(&name);
    let node = name.parse().map_err(|error: crate::node::NodeNameError| {
        Failure::new(Exit::Config, "node-name", error.to_string(), "set node.name in the configuration")
    })?;
    let mut facts = doctor::read::facts(&config, &node);
    // The socket that this configuration's agent would have.
    let client = if arguments.config.is_some() { client.or_at(config.api_socket.clone()) } else { client };
    // None may run: it is no matter of the machine's.
    let status: Option<Status> = client.get("/v1/status").await.ok();
    let conditions = status.as_ref().map(|status| status.conditions.len());
    facts.conditions = status.map_or_else(Vec::new, |status| status.conditions);
    let mut examination = doctor::examine(&facts);
    examination.conditions = conditions;
    let found = examination.counts().contains_key(&Outcome::Finding);
    let printed = Printed::value(format, &examination, |examination| text(examination, arguments.all))?;
    Ok(printed.exit(if found { Exit::Finding } else { Exit::Well }))
}

fn text(examination: &Examination, all: bool) -> String {
    let mut text = String::new();
    let shown = examination.checks.iter().filter(|check| all || check.outcome == Outcome::Finding);
    for check in shown {
        text.push_str(&entry(check));
    }
    let counts = examination.counts();
    let count = |outcome| counts.get(&outcome).copied().unwrap_or(0);
    let (found, skipped) = (count(Outcome::Finding), count(Outcome::NotChecked));
    let findings = match found {
        0 => "nothing to mend".to_owned(),
        1 => "1 finding".to_owned(),
        several => format!("{several} findings"),
    };
    let more = if all { "" } else { "; --all shows everything" };
    text.push_str(&format!("{findings}, {} well, {skipped} not checked{more}\n", count(Outcome::Ok)));
    match examination.conditions {
        None | Some(0) => {}
        Some(1) => text.push_str("the running agent has 1 condition: pairway status\n"),
        Some(several) => {
            text.push_str(&format!("the running agent has {several} conditions: pairway status\n"));
        }
    }
    text
}

fn entry(check: &Check) -> String {
    let word = match check.outcome {
        Outcome::Ok => "ok",
        Outcome::Finding => "FINDING",
        Outcome::NotChecked => "not checked",
    };
    let mut entry = format!("{word:<13}{:<16}{}\n", check.name, printable(&check.message));
    if !check.remedy.is_empty() {
        entry.push_str(&format!("{:<13}mend it: {}\n", "", printable(&check.remedy)));
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    use expect_test::expect;

    #[test]
    fn findings_come_with_what_mends_them() {
        let check = |name: &str, outcome, message: &str, remedy: &str| Check {
            name: name.to_owned(),
            outcome,
            subject: String::new(),
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        };
        let examination = Examination {
            node: "n1".to_owned(),
            checks: vec![
                check("kernel", Outcome::Ok, "Linux 6.18 will do", ""),
                check(
                    "ip-forward",
                    Outcome::Finding,
                    "net.ipv4.ip_forward is 0",
                    "sysctl -w net.ipv4.ip_forward=1",
                ),
                check("clock", Outcome::NotChecked, "nobody answers", ""),
            ],
            conditions: Some(0),
        };
        expect![[r#"
            FINDING      ip-forward      net.ipv4.ip_forward is 0
                         mend it: sysctl -w net.ipv4.ip_forward=1
            1 finding, 1 well, 1 not checked; --all shows everything
        "#]]
        .assert_eq(&text(&examination, false));
        expect![[r#"
            ok           kernel          Linux 6.18 will do
            FINDING      ip-forward      net.ipv4.ip_forward is 0
                         mend it: sysctl -w net.ipv4.ip_forward=1
            not checked  clock           nobody answers
            1 finding, 1 well, 1 not checked
        "#]]
        .assert_eq(&text(&examination, true));
        let with = |conditions| text(&Examination { conditions, ..examination.clone() }, false);
        assert_eq!(with(None), with(Some(0)), "nobody to ask, or nothing to say");
        assert!(with(Some(1)).ends_with("\nthe running agent has 1 condition: pairway status\n"));
        assert!(with(Some(2)).ends_with("\nthe running agent has 2 conditions: pairway status\n"));
    }
}
