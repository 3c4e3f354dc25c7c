//! What a pass learns of nftables: the counters, and what the kernel can't do.

use vxlan::firewall::Netfilter;
use vxlan::{Change, Failure};

use super::Agent;
use crate::status::Tally;

/// `ENOENT` (a kind of chain or expression that the kernel does not know), `EPROTONOSUPPORT`, `EOPNOTSUPP`,
/// `EAFNOSUPPORT`: the kernel was built without it, or the module is not loaded and can't be.
const UNSUPPORTED: [i32; 4] = [2, 93, 95, 97];

/// Whether a failure says that the kernel lacks what our table needs. That is a condition; the rest goes on.
pub(super) fn lacks_support(failure: &Failure) -> bool {
    matches!(failure.change, Change::SetFirewall(_)) && UNSUPPORTED.contains(&failure.error.errno)
}

impl Agent {
    /// Takes over what the kernel has counted.
    pub(super) fn count_firewall(&mut self, netfilter: &Netfilter) {
        let counters = &mut self.state.counters;
        counters.masqueraded.follow(netfilter.masqueraded.packets);
        counters.guarded.follow(netfilter.guarded.packets);
    }
}

impl Tally {
    /// Follows a counter of the kernel, which begins anew whenever the table is written.
    fn follow(&mut self, value: u64) {
        self.total += if value >= self.last { value - self.last } else { value };
        self.last = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_begins_anew_loses_nothing() {
        let mut tally = Tally::default();
        let totals = [3, 5, 5, 2, 4].map(|value| {
            tally.follow(value);
            tally.total
        });
        assert_eq!(totals, [3, 5, 5, 7, 9]);
    }

    #[test]
    fn only_what_the_kernel_can_not_do_is_excused() {
        let failure = |change: Change, errno| Failure {
            change,
            error: vxlan::ApplyError { errno, message: String::new() },
        };
        let set = || Change::SetFirewall(vxlan::firewall::Table::default());
        assert!(lacks_support(&failure(set(), 93)));
        assert!(!lacks_support(&failure(set(), 12)));
        assert!(!lacks_support(&failure(Change::ChangeSets(Vec::new()), 2)));
    }
}
