//! A changed configuration: taken over while the agent runs, or refused as a whole.
//!
//! What is refused for blocks that are held is considered again when what is held has changed: the file is not read for
//! that, and nothing wakes the loop for it. A change of the store or of this node's blocks does so anyway.

use std::sync::Arc;

use config::Config;

use super::Agent;
use crate::node::{Block, Snapshot};
use crate::reload;

/// A configuration that was not taken over.
#[derive(Debug)]
pub(super) struct RefusedConfig {
    /// Why.
    pub(super) why: String,
    /// The configuration, if it is one, and what it was refused for.
    considered: Option<Considered>,
}

#[derive(Debug)]
struct Considered {
    config: Box<Config>,
    holdings: Holdings,
}

/// Who holds what, as far as it is known.
#[derive(Debug)]
struct Holdings {
    snapshot: Option<Arc<Snapshot>>,
    own: Vec<Block>,
}

impl Holdings {
    fn same(&self, other: &Self) -> bool {
        self.own == other.own
            && match (&self.snapshot, &other.snapshot) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            }
    }
}

impl Agent {
    /// Reads the configuration again, and takes it over or says why not.
    pub(super) fn reload(&mut self) {
        let Some(source) = &self.source else { return };
        match (source.load)() {
            Ok(new) => self.consider(Box::new(new), self.holdings()),
            Err(why) => self.state.refused_config = Some(RefusedConfig { why, considered: None }),
        }
    }

    /// Considers again what was refused, if others hold blocks now, or other blocks.
    pub(super) fn reconsider(&mut self) {
        let holdings = self.holdings();
        // A store that has lost what it held, or does not answer, says nothing of who holds what.
        let rebuilding = holdings.snapshot.as_ref().is_none_or(|snapshot| snapshot.rebuilding);
        if rebuilding || self.health.borrow().is_err() {
            return;
        }
        let considered = self.state.refused_config.as_mut().and_then(|refused| {
            refused.considered.take_if(|considered| !considered.holdings.same(&holdings))
        });
        if let Some(Considered { config, .. }) = considered {
            self.consider(config, holdings);
        }
    }

    fn consider(&mut self, new: Box<Config>, holdings: Holdings) {
        match reload::take_over(&self.config, &new, holdings.snapshot.as_deref(), &holdings.own) {
            Err(refused) => {
                let considered = Some(Considered { config: new, holdings });
                self.state.refused_config = Some(RefusedConfig { why: refused.to_string(), considered });
            }
            Ok(changes) => {
                for change in &changes {
                    tracing::info!(
                        key = change.key,
                        from = change.from,
                        to = change.to,
                        "configuration changes"
                    );
                }
                if !changes.is_empty() {
                    self.config = Arc::from(new);
                    self.config_changes.send_replace(Arc::clone(&self.config));
                }
                self.state.refused_config = None;
            }
        }
    }

    fn holdings(&self) -> Holdings {
        let own = self.blocks.borrow().as_ref().map_or_else(Vec::new, |blocks| blocks.held.clone());
        Holdings { snapshot: self.snapshots.borrow().clone(), own }
    }
}
