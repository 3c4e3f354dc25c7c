//! What others have taken away of ours, as the kernel's notifications tell: few objects that can be put back without a
//! look at everything else.

use std::collections::BTreeSet;

use crate::diff::Change;
use crate::state::{FdbKey, NeighborKey, RouteKey, State};

/// Objects that were taken away though they are wanted. A hint and no truth: to put them back is right only where they
/// stood when the kernel was looked at last, and a look at everything has to follow soon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// Neighbours.
    pub neighbors: BTreeSet<NeighborKey>,
    /// Forwarding database entries.
    pub fdb: BTreeSet<FdbKey>,
    /// Routes.
    pub routes: BTreeSet<RouteKey>,
}

impl Lost {
    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.neighbors.len() + self.fdb.len() + self.routes.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one of these changes has written one of them. Where that was while the notifications came nobody can say
    /// which was first.
    #[must_use]
    pub fn written_by(&self, changes: &[Change]) -> bool {
        changes.iter().any(|change| match Written::of(change) {
            Some(Written::Neighbor(key)) => self.neighbors.contains(key),
            Some(Written::Fdb(key)) => self.fdb.contains(key),
            Some(Written::Route(key)) => self.routes.contains(key),
            None => false,
        })
    }

    /// What puts them back as they are wanted, in the order in which the kernel lets them lean on each other. A route is
    /// created and never replaced: where something else stands in its place by now, the kernel says so.
    #[must_use]
    pub fn mend(&self, wanted: &State) -> Vec<Change> {
        let neighbors = self
            .neighbors
            .iter()
            .filter_map(|key| wanted.neighbors.get(key).map(|mac| Change::SetNeighbor(key.clone(), *mac)));
        let fdb = self
            .fdb
            .iter()
            .filter_map(|key| wanted.fdb.get(key).map(|remote| Change::SetFdb(key.clone(), *remote)));
        let routes = self
            .routes
            .iter()
            .filter_map(|key| wanted.routes.get(key).map(|route| Change::AddRoute(*key, route.clone())));
        neighbors.chain(fdb).chain(routes).collect()
    }
}

/// What of the kinds that can be lost a change has written.
enum Written<'a> {
    Neighbor(&'a NeighborKey),
    Fdb(&'a FdbKey),
    Route(&'a RouteKey),
}

impl<'a> Written<'a> {
    const fn of(change: &'a Change) -> Option<Self> {
        if let Change::SetNeighbor(key, _) = change {
            Some(Self::Neighbor(key))
        } else if let Change::SetFdb(key, _) = change {
            Some(Self::Fdb(key))
        } else if let Change::AddRoute(key, _) | Change::SetRoute(key, _) = change {
            Some(Self::Route(key))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Mac, NexthopId, Route, RouteTarget};
    use crate::testing;

    fn wanted() -> State {
        let mut state = testing::vx4();
        let (link, mac) = (testing::link("vx4"), Mac([2, 0, 0, 0, 1, 7]));
        state
            .neighbors
            .insert(NeighborKey { link: link.clone(), address: "10.244.7.0".parse().unwrap() }, mac);
        state.fdb.insert(FdbKey { link, mac }, "192.0.2.7".parse().unwrap());
        for prefix in ["10.244.7.0/24", "10.244.8.0/24"] {
            let route = Route { target: RouteTarget::Nexthop(NexthopId(7)), source: None, mtu: None };
            state.routes.insert(testing::route_key(prefix), route);
        }
        state
    }

    #[test]
    fn what_is_wanted_comes_back_in_order_and_what_is_not_stays_away() {
        let wanted = wanted();
        let lost = Lost {
            neighbors: wanted.neighbors.keys().cloned().collect(),
            fdb: wanted.fdb.keys().cloned().collect(),
            routes: wanted.routes.keys().copied().collect(),
        };
        let all = wanted.neighbors.len() + wanted.fdb.len() + wanted.routes.len();
        let changes = lost.mend(&wanted);
        assert_eq!((all, lost.len(), changes.len()), (4, 4, 4));
        let rank = |change: &Change| {
            let kinds = [
                matches!(change, Change::SetNeighbor(..)),
                matches!(change, Change::SetFdb(..)),
                matches!(change, Change::AddRoute(..)),
            ];
            kinds.iter().position(|is| *is).unwrap_or_else(|| panic!("{change:?}"))
        };
        assert!(changes.iter().map(rank).is_sorted());
        assert_eq!(lost.mend(&State::default()), []);
        for change in &changes {
            assert!(lost.written_by(std::slice::from_ref(change)), "{change}");
            assert!(!Lost::default().written_by(std::slice::from_ref(change)), "{change}");
        }
        let gone: Vec<Change> = lost.routes.iter().map(|key| Change::DeleteRoute(*key)).collect();
        assert!(!lost.written_by(&gone));
    }
}
