//! What a new configuration changes, and which of it a running agent can take over.

use serde_json::Value as Json;

use crate::{Config, raw, schema};

/// A key whose value differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// Its path, for example `bgp.holdTime`; of a pool's block prefix `pools[10.244.0.0/16].blockPrefix`.
    pub key: String,
    /// Whether it can be taken over.
    pub mode: ChangeMode,
    /// The value so far, as compact JSON.
    pub from: String,
    /// The new value, as compact JSON.
    pub to: String,
}

/// How a change takes effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeMode {
    /// At once.
    Live,
    /// When the agent starts again.
    Restart,
    /// Never: the reason, and what to do instead.
    Refused(String),
}

impl Config {
    /// Every key whose value differs in `new`, in the order of the file.
    ///
    /// Whether a pool that is gone from `new` still holds blocks is not known here: that is the agent's to refuse.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<KeyChange> {
        let (from, to) = (as_json(self), as_json(new));
        let mut changes = Vec::new();
        for (key, mark) in schema::reload_marks() {
            let pointer = format!("/{}", key.replace('.', "/"));
            let (old_value, new_value) = (from.pointer(&pointer), to.pointer(&pointer));
            if old_value == new_value {
                continue;
            }
            let refused = if key == "pools" { self.block_prefix_changes(new) } else { Vec::new() };
            let text = |value: Option<&Json>| value.map_or_else(String::new, Json::to_string);
            // Whatever else differs in the pools is refused with them: a half-taken list is no configuration.
            if refused.is_empty() {
                let mode = if mark == "live" { ChangeMode::Live } else { ChangeMode::Restart };
                changes.push(KeyChange { key, mode, from: text(old_value), to: text(new_value) });
            }
            changes.extend(refused);
        }
        changes
    }

    /// A pool's block prefix is fixed by the pool's record: agents with two of them would claim overlapping blocks.
    fn block_prefix_changes(&self, new: &Self) -> Vec<KeyChange> {
        let mut changes = Vec::new();
        for pool in &self.pools {
            let Some(other) = new.pools.iter().find(|other| other.cidr == pool.cidr) else { continue };
            if other.block_prefix != pool.block_prefix {
                changes.push(KeyChange {
                    key: format!("pools[{}].blockPrefix", pool.cidr),
                    mode: ChangeMode::Refused(format!(
                        "the blocks of {} are /{} in the whole cluster; add another pool for blocks of /{}",
                        pool.cidr, pool.block_prefix, other.block_prefix
                    )),
                    from: pool.block_prefix.to_string(),
                    to: other.block_prefix.to_string(),
                });
            }
        }
        changes
    }
}

fn as_json(config: &Config) -> Json {
    serde_json::to_value(raw::File::from(config))
        .expect("texts, numbers, lists and maps with text keys are JSON")
}
