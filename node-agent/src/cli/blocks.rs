//! `pairway blocks`

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::client::Client;
use super::output::{Failure, Format, Printed};
use super::table::{printable, span, table, terminal_width, yes};
use crate::api::reply::{BlockEntry, ClaimRequest, Claimed, ReleaseRequest, Released, TunnelChange};

/// What to do with blocks.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the blocks of every node.
    List(Filter),
    /// Claim one more block for this node.
    Claim {
        /// Pool to claim from, as in the configuration; without it one block of every family.
        #[arg(value_parser = cidr)]
        pool: Option<IpNet>,
    },
    /// Give one block of this node back.
    ///
    /// Other nodes leave it alone for `blocks.reuseAfter`, and this one does not take it again by itself before that.
    /// Refused while an interface of this node has an address in it or a route leads to it, and where `blocks.perNode` would claim
    /// another one in its place at once. A block that was lost to another node (`BlockLost`) is forgotten.
    Release {
        /// The block, a CIDR.
        #[arg(value_parser = cidr)]
        block: IpNet,
        /// Even if it is in use, needed or the last one.
        #[arg(long)]
        force: bool,
    },
}

/// Says what a block or a pool looks like, where the parser says what is wrong with the letters.
fn cidr(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| "write a CIDR, for example 10.244.43.0/24".to_owned())
}

/// Which blocks to show.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Filter {
    /// Only blocks of this node.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Only blocks of this node itself.
    #[arg(long)]
    own: bool,
}

pub(super) async fn list(client: &Client, filter: &Filter, format: Format) -> Result<Printed, Failure> {
    let mut blocks: Vec<BlockEntry> = client.get("/v1/blocks").await?;
    Printed::known("block of node", filter.node.as_ref(), blocks.iter().map(|block| block.node.as_str()))?;
    blocks.retain(|block| {
        filter.node.as_ref().is_none_or(|node| *node == block.node) && (block.own || !filter.own)
    });
    Printed::list(format, &blocks, "no blocks", |blocks| text(blocks, terminal_width()))
}

pub(super) async fn claim(client: &Client, pool: Option<IpNet>, format: Format) -> Result<Printed, Failure> {
    let request = ClaimRequest { pool: pool.map(|pool| pool.to_string()) };
    let claimed: Claimed = client.post("/v1/blocks/claim", &request).await?;
    Printed::value(format, &claimed, |claimed| {
        claimed.blocks.iter().map(|block| format!("claimed {block}\n")).collect()
    })
}

pub(super) async fn release(
    client: &Client,
    block: IpNet,
    force: bool,
    format: Format,
) -> Result<Printed, Failure> {
    let request = ReleaseRequest { block: block.to_string(), force };
    let released: Released = client.post("/v1/blocks/release", &request).await?;
    Printed::value(format, &released, released_text)
}

fn released_text(released: &Released) -> String {
    let block = printable(&released.block);
    let mut text = match &released.lost_to {
        Some(holder) => format!("forgot {block}, which {} holds\n", printable(holder)),
        None => {
            let rest = span(released.reuse_after_seconds);
            format!("released {block}; other nodes leave it alone for {rest} if they can\n")
        }
    };
    for block in &released.claimed {
        text.push_str(&format!("claimed {} in its place\n", printable(block)));
    }
    if let Some(TunnelChange { from, to }) = &released.tunnel_address {
        let to = to
            .as_deref()
            .map_or_else(|| "there is none any more".to_owned(), |to| format!("it is {} now", printable(to)));
        text.push_str(&format!("the tunnel address {} has gone with it: {to}\n", printable(from)));
    }
    if !released.in_use.is_empty() {
        const NAMED: usize = 3;
        let users: Vec<String> = released.in_use.iter().take(NAMED).map(|user| printable(user)).collect();
        let more = released.in_use.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        text.push_str(&format!(
            "warning: its addresses are still in use here ({}{more}), and can't be reached from other nodes\n",
            users.join(", ")
        ));
    }
    text
}

fn text(blocks: &[BlockEntry], width: Option<u16>) -> String {
    let rows = blocks.iter().map(|entry| [entry.block.clone(), entry.node.clone(), yes(entry.own)]);
    table(["BLOCK", "NODE", "OWN"], rows, width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    use expect_test::expect;

    #[test]
    fn own_blocks_and_those_of_peers() {
        expect![[r#"
            BLOCK              NODE  OWN
            10.244.1.0/24      n1    yes
            10.244.2.0/24      n2    no
            10.244.10.0/24     n3    no
            fd10:244:0:1::/64  n1    yes
            fd10:244:0:2::/64  n2    no
        "#]]
        .assert_eq(&text(&fixtures::published().blocks, None));
    }

    #[test]
    fn what_has_become_of_a_block() {
        let released = Released {
            block: "10.244.9.0/24".to_owned(),
            lost_to: None,
            claimed: Vec::new(),
            tunnel_address: None,
            reuse_after_seconds: 600,
            in_use: Vec::new(),
        };
        let exchanged = Released {
            claimed: vec!["10.244.3.0/24".to_owned()],
            tunnel_address: Some(TunnelChange {
                from: "10.244.9.0".to_owned(),
                to: Some("10.244.3.0".to_owned()),
            }),
            ..released.clone()
        };
        let last = Released {
            tunnel_address: Some(TunnelChange { from: "10.244.9.0".to_owned(), to: None }),
            ..released.clone()
        };
        let forgotten = Released { lost_to: Some("n2".to_owned()), ..released.clone() };
        let used = Released { in_use: vec!["address 10.244.9.1/24 of cni0".to_owned()], ..released.clone() };
        let all = [released, exchanged, last, forgotten, used]
            .map(|released| released_text(&released))
            .join("--\n");
        expect![[r#"
            released 10.244.9.0/24; other nodes leave it alone for 10m0s if they can
            --
            released 10.244.9.0/24; other nodes leave it alone for 10m0s if they can
            claimed 10.244.3.0/24 in its place
            the tunnel address 10.244.9.0 has gone with it: it is 10.244.3.0 now
            --
            released 10.244.9.0/24; other nodes leave it alone for 10m0s if they can
            the tunnel address 10.244.9.0 has gone with it: there is none any more
            --
            forgot 10.244.9.0/24, which n2 holds
            --
            released 10.244.9.0/24; other nodes leave it alone for 10m0s if they can
            warning: its addresses are still in use here (address 10.244.9.1/24 of cni0), and can't be reached from other nodes
        "#]]
        .assert_eq(&all);
    }
}
