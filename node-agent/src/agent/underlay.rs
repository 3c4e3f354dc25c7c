//! Which underlay addresses the loop goes by, while some of them are away.

use bgp::Family;
use tokio::time::Instant;
use vxlan::Observed;

use super::Agent;
use crate::plan::Finding;
use crate::underlay;

impl Agent {
    /// Takes over the underlay as it is now. An address that is away keeps its place: for ever if it is the last,
    /// for a while if the other family stands. `false`: all of it is away, the data plane stays as it is.
    pub(super) fn settle_underlay(&mut self, observed: &Observed, now: Instant) -> bool {
        let pools: Vec<_> = self.config.pools.iter().map(|pool| pool.cidr).collect();
        let choice = underlay::choose(&self.config.node.underlay, &pools, observed, &self.state.local);
        let stands = choice.problem.is_none();
        for family in Family::ALL {
            match (choice.local.of(family), self.state.local.of(family)) {
                (Some(found), _) => {
                    self.state.local.set(family, Some(found.clone()));
                    self.state.away.remove(&family);
                }
                (None, None) => (),
                (None, Some(known)) => {
                    let (known, since) = (known.address, *self.state.away.entry(family).or_insert(now));
                    let until = since + self.limits.underlay_grace;
                    if stands && now >= until {
                        self.state.local.set(family, None);
                        self.state.away.remove(&family);
                        continue;
                    }
                    if stands {
                        self.state.wakes.push(until);
                    }
                    self.state.findings.insert(Finding::new(
                        "UnderlayMissing",
                        family,
                        format!("the underlay address {known} is away: the data plane stays as it is; give it back, or set node.underlay to where the node is now"),
                    ));
                }
            }
        }
        if let Some(problem) = choice.problem {
            self.state.findings.insert(Finding::new("UnderlayMissing", "", problem));
        }
        stands
    }
}
