//! The kinds of records.

/// Kinds of records, which every store keeps apart by these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// What a node says of itself.
    Node,
    /// Who holds a block.
    Claim,
    /// A pool's block prefix.
    Pool,
    /// When a block was given back.
    Released,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Node, Self::Claim, Self::Pool, Self::Released];

    /// The directory, or the part of a key, that holds the records of a kind.
    pub(crate) const fn directory(self) -> &'static str {
        match self {
            Self::Node => "nodes",
            Self::Claim => "claims",
            Self::Pool => "pools",
            Self::Released => "released",
        }
    }

    /// The kind that a directory is for.
    pub(crate) fn of_directory(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.directory() == name)
    }

    /// The record's name in reports.
    pub(crate) fn record(self, stem: &str) -> String {
        format!("{}/{stem}", self.directory())
    }
}
