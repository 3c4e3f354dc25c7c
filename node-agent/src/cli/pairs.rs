//! `pairway pairs`

use clap::Args;

use super::client::Client;
use super::output::{Failure, Format, Printed};
use super::table::{table, terminal_width, yes};
use crate::status::Pair;

/// Which pairs to show.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Filter {
    /// Only pairs with this node.
    #[arg(long, value_name = "NODE")]
    peer: Option<String>,
    /// Only pairs that use this path.
    #[arg(long, value_name = "PATH", value_parser = ["native", "vxlan", "ipip", "none"])]
    path: Option<String>,
    /// Only pairs of this address family.
    #[arg(long, value_name = "FAMILY", value_parser = ["ipv4", "ipv6"])]
    family: Option<String>,
    /// Only pairs whose path is not completely in the kernel.
    #[arg(long)]
    unready: bool,
    /// Also show the underlay addresses, and the reason as a sentence.
    #[arg(short, long)]
    long: bool,
}

impl Filter {
    fn lets(&self, pair: &Pair) -> bool {
        let is =
            |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        is(&self.peer, &pair.peer)
            && is(&self.path, &pair.path)
            && is(&self.family, &pair.family)
            && !(self.unready && pair.ready)
    }
}

pub(super) async fn show(client: &Client, filter: &Filter, format: Format) -> Result<Printed, Failure> {
    let mut pairs: Vec<Pair> = client.get("/v1/pairs").await?;
    Printed::known("pair with node", filter.peer.as_ref(), pairs.iter().map(|pair| pair.peer.as_str()))?;
    pairs.retain(|pair| filter.lets(pair));
    Printed::list(format, &pairs, "no pairs", |pairs| text(pairs, filter.long, terminal_width()))
}

fn text(pairs: &[Pair], long: bool, width: Option<u16>) -> String {
    let short = |pair: &Pair| {
        // What has no path has no MTU, and is neither ready nor waiting for anything.
        let mtu = if pair.mtu == 0 { String::new() } else { pair.mtu.to_string() };
        let ready = if pair.path == "none" { String::new() } else { yes(pair.ready) };
        [
            pair.peer.clone(),
            pair.family.clone(),
            pair.path.clone(),
            pair.predicted.clone(),
            pair.reason.clone(),
            mtu,
            ready,
            pair.blocks.join(","),
        ]
    };
    let header = ["PEER", "FAMILY", "PATH", "PREDICTED", "REASON", "MTU", "READY", "BLOCKS"];
    if !long {
        return table(header, pairs.iter().map(short), width);
    }
    let [peer, family, path, predicted, reason, mtu, ready, blocks] = header;
    let rows = pairs.iter().map(|pair| {
        let [peer, family, path, predicted, reason, mtu, ready, blocks] = short(pair);
        let underlay = format!("{} - {}", pair.underlay.local, pair.underlay.peer);
        let detail = match &pair.not_ready {
            Some(why) if *why != pair.detail => format!("{}; not ready: {why}", pair.detail),
            Some(_) | None => pair.detail.clone(),
        };
        [peer, family, path, predicted, reason, mtu, ready, blocks, underlay, detail]
    });
    let header = [peer, family, path, predicted, reason, mtu, ready, blocks, "UNDERLAY", "DETAIL"];
    table(header, rows, width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    use expect_test::expect;

    #[test]
    fn short_and_long() {
        let pairs = fixtures::published().pairs;
        expect![[r#"
            PEER  FAMILY  PATH    PREDICTED  REASON        MTU   READY  BLOCKS
            n2    ipv4    native  native     bgp           1500  yes    10.244.2.0/24
            n2    ipv6    native  native     bgp           1500  yes    fd10:244:0:2::/64
            n3    ipv4    vxlan   vxlan      cross-subnet  1450  no     10.244.10.0/24
        "#]]
        .assert_eq(&text(&pairs, false, None));
        expect![[r#"
            PEER  FAMILY  PATH    PREDICTED  REASON        MTU   READY  BLOCKS             UNDERLAY                   DETAIL
            n2    ipv4    native  native     bgp           1500  yes    10.244.2.0/24      192.0.2.1 - 192.0.2.2      same subnet; n2 announces its blocks over BGP
            n2    ipv6    native  native     bgp           1500  yes    fd10:244:0:2::/64  2001:db8::1 - 2001:db8::2  same subnet; n2 announces its blocks over BGP
            n3    ipv4    vxlan   vxlan      cross-subnet  1450  no     10.244.10.0/24     192.0.2.1 - 198.51.100.3   192.0.2.1/24 and 198.51.100.3/24 share no subnet; not ready: route 10.244.10.0/24 is missing in the kernel
        "#]].assert_eq(&text(&pairs, true, None));
    }

    #[test]
    fn what_there_is_no_value_for_is_a_dash() {
        let mut pairs = fixtures::published().pairs;
        pairs.truncate(2);
        pairs[0].path = "none".to_owned();
        pairs[0].mtu = 0;
        expect![[r#"
            PEER  FAMILY  PATH    PREDICTED  REASON  MTU   READY  BLOCKS
            n2    ipv4    none    native     bgp     -     -      10.244.2.0/24
            n2    ipv6    native  native     bgp     1500  yes    fd10:244:0:2::/64
        "#]]
        .assert_eq(&text(&pairs, false, None));
    }

    #[test]
    fn filters_are_joined_by_and() {
        let pairs = fixtures::published().pairs;
        let count = |filter: Filter| pairs.iter().filter(|pair| filter.lets(pair)).count();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(count(Filter::default()), 3);
        assert_eq!(count(Filter { peer: some("n2"), ..Filter::default() }), 2);
        assert_eq!(count(Filter { peer: some("n2"), family: some("ipv6"), ..Filter::default() }), 1);
        assert_eq!(count(Filter { path: some("vxlan"), ..Filter::default() }), 1);
        assert_eq!(count(Filter { path: some("vxlan"), peer: some("n2"), ..Filter::default() }), 0);
        assert_eq!(count(Filter { unready: true, ..Filter::default() }), 1);
    }
}
