//! What is accepted and what is told.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::{Export, ImportFilter, ImportRule, Refusal};

impl ImportFilter {
    /// Judges a prefix with its next hops from the peer at `peer`.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotPermitted`] if no rule covers the prefix, [`Refusal::NextHop`] if those that do have other next hops.
    pub fn judge(
        &self,
        peer: IpAddr,
        prefix: IpNet,
        next_hop: IpAddr,
        link_local: Option<Ipv6Addr>,
    ) -> Result<(), Refusal> {
        let mut refusal = Refusal::NotPermitted;
        for rule in self.rules.iter().filter(|rule| rule.covers(prefix)) {
            if rule.permits_next_hop(peer, next_hop, link_local) {
                return Ok(());
            }
            refusal = Refusal::NextHop;
        }
        Err(refusal)
    }
}

impl ImportRule {
    fn covers(&self, prefix: IpNet) -> bool {
        let (shortest, longest) = self.lengths;
        (shortest..=longest).contains(&prefix.prefix_len()) && self.prefix.contains(&prefix)
    }

    /// The global next hop decides, as it is the one in [`super::LearnedRoute`]; a peer that is known by its
    /// link-local address is recognized by that one.
    fn permits_next_hop(&self, peer: IpAddr, next_hop: IpAddr, link_local: Option<Ipv6Addr>) -> bool {
        match &self.next_hops {
            Some(permitted) => permitted.contains(&next_hop),
            None => next_hop == peer || link_local.map(IpAddr::V6) == Some(peer),
        }
    }
}

impl Export {
    /// Whether the peer gets this prefix.
    #[must_use]
    pub fn permits(&self, prefix: IpNet) -> bool {
        match self {
            Self::All => true,
            Self::Within(covering) => covering.iter().any(|net| net.contains(&prefix)),
        }
    }
}
