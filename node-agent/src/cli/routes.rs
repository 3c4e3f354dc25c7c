//! `pairway routes`

use clap::Args;

use super::client::Client;
use super::output::{Failure, Format, Printed};
use super::table::{table, terminal_width};
use crate::status::RouteEntry;

/// Which routes to show.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Filter {
    /// Only routes to this node.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Only routes of this kind.
    #[arg(long, value_name = "KIND", value_parser = ["native", "vxlan", "ipip", "unreachable", "other"])]
    kind: Option<String>,
    /// Only routes in this state.
    #[arg(long, value_name = "STATE", value_parser = ["installed", "missing", "stale", "diverted"])]
    state: Option<String>,
}

impl Filter {
    fn lets(&self, route: &RouteEntry) -> bool {
        let is =
            |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        is(&self.node, &route.node) && is(&self.kind, &route.kind) && is(&self.state, &route.state)
    }
}

pub(super) async fn show(client: &Client, filter: &Filter, format: Format) -> Result<Printed, Failure> {
    let mut routes: Vec<RouteEntry> = client.get("/v1/routes").await?;
    Printed::known("route to node", filter.node.as_ref(), routes.iter().map(|route| route.node.as_str()))?;
    routes.retain(|route| filter.lets(route));
    Printed::list(format, &routes, "no routes", |routes| text(routes, terminal_width()))
}

fn text(routes: &[RouteEntry], width: Option<u16>) -> String {
    let rows = routes.iter().map(|route| {
        let table = if route.table == 254 { "main".to_owned() } else { route.table.to_string() };
        [
            route.prefix.clone(),
            table,
            route.kind.clone(),
            route.node.clone(),
            route.via.clone(),
            route.device.clone(),
            route.state.clone(),
        ]
    });
    let mut text = table(["PREFIX", "TABLE", "KIND", "NODE", "VIA", "DEVICE", "STATE"], rows, width);
    // One cause mostly diverts many: its sentence stands once.
    let mut details: Vec<(&str, Vec<&str>)> = Vec::new();
    for route in routes.iter().filter(|route| !route.detail.is_empty()) {
        match details.iter_mut().find(|(detail, _)| *detail == route.detail) {
            Some((_, prefixes)) => prefixes.push(&route.prefix),
            None => details.push((&route.detail, vec![&route.prefix])),
        }
    }
    for (detail, prefixes) in details {
        let are = if prefixes.len() == 1 { "is" } else { "are" };
        text.push_str(&format!("\n{} {are} diverted: {detail}\n", prefixes.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    use expect_test::expect;

    #[test]
    fn empty_cells_are_shown_as_such() {
        expect![[r#"
            PREFIX          TABLE  KIND         NODE  VIA          DEVICE       STATE
            10.244.0.0/16   main   unreachable  -     -            -            installed
            10.244.2.0/24   main   native       n2    192.0.2.2    eth0         installed
            10.244.10.0/24  main   vxlan        n3    10.244.10.0  pairway-vx4  missing
        "#]]
        .assert_eq(&text(&fixtures::published().routes, None));
    }

    #[test]
    fn why_a_route_is_diverted_stands_below() {
        let mut routes = fixtures::published().routes;
        routes.truncate(2);
        routes[1].state = "diverted".to_owned();
        routes[1].detail = "a rule of somebody else comes before".to_owned();
        expect![[r#"
            PREFIX         TABLE  KIND         NODE  VIA        DEVICE  STATE
            10.244.0.0/16  main   unreachable  -     -          -       installed
            10.244.2.0/24  main   native       n2    192.0.2.2  eth0    diverted

            10.244.2.0/24 is diverted: a rule of somebody else comes before
        "#]]
        .assert_eq(&text(&routes, None));
        let mut routes = fixtures::published().routes;
        for (route, why) in routes.iter_mut().zip(["a rule", "a route", "a rule"]) {
            route.detail = format!("{why} of somebody else comes before");
        }
        let text = text(&routes, None);
        let below = text.split_once("\n\n").map(|(_, below)| below);
        expect![[r#"
            10.244.0.0/16, 10.244.10.0/24 are diverted: a rule of somebody else comes before

            10.244.2.0/24 is diverted: a route of somebody else comes before
        "#]]
        .assert_eq(below.unwrap_or_default());
    }

    #[test]
    fn filters_are_joined_by_and() {
        let routes = fixtures::published().routes;
        let count = |filter: Filter| routes.iter().filter(|route| filter.lets(route)).count();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(count(Filter::default()), 3);
        assert_eq!(count(Filter { node: some("n3"), ..Filter::default() }), 1);
        assert_eq!(count(Filter { kind: some("native"), ..Filter::default() }), 1);
        assert_eq!(count(Filter { state: some("missing"), node: some("n2"), ..Filter::default() }), 0);
    }
}
