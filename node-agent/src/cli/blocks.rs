//! `pairway blocks`

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::client::Client;
use super::output::{Failure, Format, Printed};
use super::table::{table, terminal_width, yes};
use crate::api::reply::{BlockEntry, ClaimRequest, Claimed};

/// What to do with blocks.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the blocks of this node and of its peers.
    List(Filter),
    /// Claim one more block for this node.
    Claim {
        /// Pool to claim from, as in the configuration; without it one block of every family.
        pool: Option<IpNet>,
    },
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
        .assert_eq(&text(&BlockEntry::all(&fixtures::published()), None));
    }
}
