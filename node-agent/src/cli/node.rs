//! `pairway node`

use clap::Subcommand;

use super::client::Client;
use super::output::{Failure, Format, Printed};
use super::table::printable;
use crate::api::reply::{DeleteRequest, Deleted};

/// What to do with a node.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Remove a node that does not come back: its record and its claims.
    ///
    /// Refused while the node has given a sign of life within the last 60 seconds, because an agent that runs would take
    /// its blocks back; agents give one every 15 seconds.
    Delete {
        /// The node.
        name: String,
        /// Even if the node has just given a sign of life.
        #[arg(long)]
        force: bool,
    },
}

pub(super) async fn delete(
    client: &Client,
    name: String,
    force: bool,
    format: Format,
) -> Result<Printed, Failure> {
    let deleted: Deleted = client.post("/v1/nodes/delete", &DeleteRequest { name, force }).await?;
    Printed::value(format, &deleted, text)
}

fn text(deleted: &Deleted) -> String {
    let mut text = format!("deleted node {}\n", printable(&deleted.node));
    for block in &deleted.released {
        text.push_str(&format!("released {}\n", printable(block)));
    }
    text
}
