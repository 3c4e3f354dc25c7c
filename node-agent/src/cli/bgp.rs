//! `pairway bgp`

use clap::{Args, Subcommand};

use super::client::Client;
use super::output::{Failure, Format, Printed};
use super::table::{span, table, terminal_width};
use crate::status::BgpNeighbor;

/// What to show of BGP.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the sessions: nodes of this subnet and speakers outside of the cluster.
    Neighbors(Filter),
}

/// Which neighbours to show.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Filter {
    /// Only this neighbour.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only nodes, or only speakers outside of the cluster.
    #[arg(long, value_name = "KIND", value_parser = ["node", "external"])]
    kind: Option<String>,
    /// Only sessions that are not established.
    #[arg(long)]
    down: bool,
    /// Also show refused prefixes, with the reason.
    #[arg(short, long)]
    long: bool,
}

impl Filter {
    fn lets(&self, neighbor: &BgpNeighbor) -> bool {
        let is =
            |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        is(&self.name, &neighbor.name)
            && is(&self.kind, &neighbor.kind)
            && !(self.down && neighbor.state == "established")
    }
}

pub(super) async fn show(client: &Client, filter: &Filter, format: Format) -> Result<Printed, Failure> {
    let mut neighbors: Vec<BgpNeighbor> = client.get("/v1/bgp/neighbors").await?;
    let names = neighbors.iter().map(|neighbor| neighbor.name.as_str());
    Printed::known("BGP neighbour", filter.name.as_ref(), names)?;
    neighbors.retain(|neighbor| filter.lets(neighbor));
    Printed::list(format, &neighbors, "no BGP neighbours", |neighbors| {
        text(neighbors, filter.long, terminal_width())
    })
}

fn text(neighbors: &[BgpNeighbor], long: bool, width: Option<u16>) -> String {
    let rows = neighbors.iter().map(|neighbor| {
        let state = if neighbor.restarting {
            format!("{} (restarting)", neighbor.state)
        } else {
            neighbor.state.clone()
        };
        let refused: u64 = neighbor.refused_by_reason.values().sum();
        [
            neighbor.name.clone(),
            neighbor.kind.clone(),
            neighbor.address.clone(),
            neighbor.asn.to_string(),
            state,
            span(neighbor.since_seconds),
            neighbor.families.join(","),
            neighbor.accepted.to_string(),
            neighbor.announced.to_string(),
            refused.to_string(),
            neighbor.last_error.clone().unwrap_or_default(),
        ]
    });
    let header = [
        "NAME",
        "KIND",
        "ADDRESS",
        "AS",
        "STATE",
        "SINCE",
        "FAMILIES",
        "ACCEPTED",
        "ANNOUNCED",
        "REFUSED",
        "LAST ERROR",
    ];
    let mut text = table(header, rows, width);
    let refused: Vec<[String; 4]> = neighbors
        .iter()
        .flat_map(|neighbor| {
            neighbor.refused.iter().map(|refused| {
                [
                    neighbor.name.clone(),
                    refused.prefix.clone(),
                    refused.reason.clone(),
                    refused.detail.clone(),
                ]
            })
        })
        .collect();
    if long && !refused.is_empty() {
        text.push('\n');
        text.push_str(&table(["NAME", "REFUSED PREFIX", "REASON", "DETAIL"], refused, width));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    use expect_test::expect;

    #[test]
    fn sessions_and_what_they_refuse() {
        let neighbors = fixtures::published().neighbors;
        expect![[r#"
            NAME  KIND      ADDRESS      AS     STATE        SINCE  FAMILIES   ACCEPTED  ANNOUNCED  REFUSED  LAST ERROR
            n2    node      192.0.2.2    64512  established  1h2m   ipv4,ipv6  2         2          1        -
            tor   external  192.0.2.254  65000  active       12s    -          0         0          0        connection refused

            NAME  REFUSED PREFIX  REASON            DETAIL
            n2    10.244.10.0/24  claimed-by-other  n3 holds it
        "#]].assert_eq(&text(&neighbors, true, None));
        let restarting = BgpNeighbor { restarting: true, ..neighbors[0].clone() };
        assert!(text(&[restarting], false, None).contains("established (restarting)"));
    }

    #[test]
    fn filters_are_joined_by_and() {
        let neighbors = fixtures::published().neighbors;
        let count = |filter: Filter| neighbors.iter().filter(|neighbor| filter.lets(neighbor)).count();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(count(Filter::default()), 2);
        assert_eq!(count(Filter { kind: some("external"), ..Filter::default() }), 1);
        assert_eq!(count(Filter { down: true, ..Filter::default() }), 1);
        assert_eq!(count(Filter { down: true, name: some("n2"), ..Filter::default() }), 0);
    }
}
