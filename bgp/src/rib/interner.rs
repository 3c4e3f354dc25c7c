//! One copy of each set of attributes, however many routes and peers have it.

use std::collections::HashSet;
use std::sync::Arc;

use crate::wire::Attributes;

/// Sets that may be out of use before they are looked for.
const SLACK: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Interner {
    sets: HashSet<Arc<Attributes>>,
    /// References given up since unused sets were looked for last.
    released: usize,
}

impl Interner {
    /// The one copy that equals `attributes`.
    pub(super) fn intern(&mut self, attributes: &Arc<Attributes>) -> Arc<Attributes> {
        if let Some(known) = self.sets.get(attributes.as_ref()) {
            return Arc::clone(known);
        }
        self.sets.insert(Arc::clone(attributes));
        Arc::clone(attributes)
    }

    /// So many references have been given up. Frees what nobody but this table holds, when that may be a good part
    /// of it: the cost of looking spreads over the references.
    pub(super) fn release(&mut self, references: usize) {
        self.released += references;
        if self.released > self.sets.len() / 2 + SLACK {
            self.sets.retain(|attributes| Arc::strong_count(attributes) > 1);
            self.released = 0;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }
}
