//! A changed configuration: taken over while the agent runs, or refused as a whole.

use std::sync::Arc;

use super::Agent;
use crate::reload;

impl Agent {
    /// Reads the configuration again, and takes it over or says why not.
    pub(super) fn reload(&mut self) {
        let Some(source) = &self.source else { return };
        let loaded = (source.load)();
        let snapshot = self.snapshots.borrow().clone();
        let held = self.blocks.borrow().as_ref().map_or_else(Vec::new, |blocks| blocks.held.clone());
        let refused = match loaded {
            Err(problem) => Some(problem),
            Ok(new) => match reload::take_over(&self.config, &new, snapshot.as_deref(), &held) {
                Err(refused) => Some(refused.to_string()),
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
                        self.config = Arc::new(new);
                        self.config_changes.send_replace(Arc::clone(&self.config));
                    }
                    None
                }
            },
        };
        self.state.refused_config = refused;
    }
}
