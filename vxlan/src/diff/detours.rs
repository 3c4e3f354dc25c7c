//! What of others leads packets past our routes without being in their place: a more specific route inside of a peer's
//! block, or a policy rule that comes before ours and leads to another table. Pure.
//!
//! Nothing of it blocks a change of ours, it is only said. A rule counts where it catches packets from pods for certain and
//! leads to a route that takes them; one that also asks for a mark or a port is nobody's business but its owner's.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::diff::Conflict;
use crate::effects::MAIN;
use crate::state::{
    ForeignRule, InstalledRoute, Observed, Route, RouteKey, RouteTarget, Rule, RuleAction, State,
};

/// Priority of the kernel's own rule that leads to `main`.
const MAIN_PRIORITY: u32 = 32_766;
/// `RT_TABLE_LOCAL`: its routes are this machine's own addresses.
const LOCAL: u32 = 255;

/// What leads packets elsewhere, and which routes of ours are passed by because of it.
#[derive(Debug, Default)]
pub(super) struct Detours {
    pub(super) conflicts: Vec<Conflict>,
    pub(super) diverted: BTreeMap<RouteKey, String>,
}

pub(super) fn find(observed: &Observed, wanted: &State) -> Detours {
    let mut detours = Detours::default();
    detours.look_inside(observed, wanted);
    for ipv6 in [false, true] {
        detours.look_at_rules(observed, wanted, ipv6);
    }
    detours
}

impl Detours {
    /// Routes of others inside of a block that we route: packets for that part follow them.
    fn look_inside(&mut self, observed: &Observed, wanted: &State) {
        let mut inside: BTreeMap<RouteKey, Vec<&InstalledRoute>> = BTreeMap::new();
        for route in observed.foreign_routes.iter().filter(|route| route.key.table == MAIN) {
            if let Some(block) = enclosing_block(wanted, route.key.prefix) {
                inside.entry(block).or_default().push(route);
            }
        }
        for (block, routes) in inside {
            let Some(first) = routes.first() else { continue };
            let more = routes.len() - 1;
            let found = if more > 0 { format!("{first} and {more} more") } else { first.to_string() };
            let why = format!("{found} of somebody else takes a part of it");
            let RouteKey { prefix, table, metric } = first.key;
            self.conflicts.push(Conflict {
                wanted: format!("route {} table {} metric {}", block.prefix, block.table, block.metric),
                found,
                hint: format!(
                    "packets for that part of the block go there: remove it, or stop the program that makes it: ip route delete {prefix} table {table} proto {} metric {metric}",
                    first.protocol
                ),
            });
            self.diverted.insert(block, why);
        }
    }

    fn look_at_rules(&mut self, observed: &Observed, wanted: &State, ipv6: bool) {
        let ours: Vec<&Rule> =
            wanted.rules.iter().filter(|rule| rule.from.addr().is_ipv6() == ipv6).collect();
        let Some(own) = ours.first().map(|rule| (rule.priority, rule.table)) else { return };
        let of_family = || observed.foreign_rules.iter().filter(|rule| rule.ipv6 == ipv6);
        let to_main = of_family().find(|rule| {
            rule.from.is_none()
                && rule.to.is_none()
                && rule.input.is_none()
                && !rule.asks_more
                && rule.action == RuleAction::Lookup { table: MAIN, suppress: None }
        });
        let main = to_main.map_or(MAIN_PRIORITY, |rule| rule.priority);
        // What sends packets to another place in the list is beyond this.
        let beyond = of_family().find(|rule| rule.action == RuleAction::Other).map(|rule| rule.priority);
        let before = |rule: &&ForeignRule, priority: u32| {
            rule.priority < priority && beyond.is_none_or(|beyond| rule.priority < beyond)
        };
        let pools = ours.iter().map(|rule| rule.from).collect();
        let scene = Scene { observed, wanted, pools, tables: tables(observed) };
        // Where our routes to nodes stand, and those to blocks.
        for (table, priority) in [(own.1, own.0), (MAIN, main)] {
            for rule in of_family().filter(|rule| before(rule, priority) && scene.catches(rule)) {
                self.look_at_rule(&scene, rule, table, priority);
            }
        }
    }

    /// Which of our routes of a table a rule passes by.
    fn look_at_rule(&mut self, scene: &Scene<'_>, rule: &ForeignRule, table: u32, priority: u32) {
        let Some(routes) = scene.leads_to(rule, table) else { return };
        let mut passed = 0;
        let mut example = None;
        for (key, route) in ours(scene.wanted, table, rule) {
            let RouteTarget::Nexthop(id) = route.target else { continue };
            let taken = match &routes {
                // The best that takes all of it, or any that takes a part.
                Some((routes, suppress)) => {
                    let Some(best) = routes.longest(key.prefix, *suppress) else { continue };
                    if scene.same_way(best, id, key.prefix) {
                        continue;
                    }
                    format!(", {best}")
                }
                None => String::new(),
            };
            passed += 1;
            example.get_or_insert((key.prefix, taken.clone()));
            self.diverted
                .entry(*key)
                .or_insert_with(|| format!("{rule} of somebody else comes before{taken}"));
        }
        let Some((prefix, taken)) = example else { return };
        let more = if passed > 1 { format!(" and {} more", passed - 1) } else { String::new() };
        let place = if table == MAIN {
            format!("after the rule that leads to table main ({priority})")
        } else {
            format!("above {priority}, or set kernel.rulePriority below {}", rule.priority)
        };
        self.conflicts.push(Conflict {
            wanted: format!("routes of table {table} ({}) behind rule {}", family(rule), rule.priority),
            found: format!("{rule}{taken}"),
            hint: format!(
                "packets from pods to {prefix}{more} follow it and not our routes: remove it, or give it a priority {place}"
            ),
        });
    }
}

struct Scene<'a> {
    observed: &'a Observed,
    wanted: &'a State,
    /// Prefixes of pods, of one family.
    pools: Vec<IpNet>,
    /// Routes of others by table, and whether they are of IPv6.
    tables: BTreeMap<(u32, bool), Routes<'a>>,
}

impl Scene<'_> {
    /// Whether a rule catches packets of pods of this node for certain.
    fn catches(&self, rule: &ForeignRule) -> bool {
        let from_pods = rule.from.is_none_or(|from| {
            let own = |address: &IpNet| from.contains(&address.addr());
            self.pools.iter().any(|pool| from.contains(pool))
                || self.wanted.addresses.iter().map(|address| &address.address).any(own)
        });
        let by_pods = rule.input.as_ref().is_none_or(|input| {
            let device = self.observed.interfaces.iter().find(|(name, _)| name.as_str() == input);
            device.is_some_and(|(_, device)| {
                let addresses = device.addresses.iter().map(|address| address.address.addr());
                addresses.into_iter().any(|ip| self.pools.iter().any(|pool| pool.contains(&ip)))
            })
        });
        from_pods && by_pods && !rule.asks_more
    }

    /// The routes that a rule leads to past a table of ours, and up to which length they don't count; an inner `None` if it
    /// ends packets. Nothing if it leads nowhere else.
    #[expect(
        clippy::option_option,
        reason = "a rule that leads nowhere else, one that ends packets, and routes"
    )]
    fn leads_to(&self, rule: &ForeignRule, table: u32) -> Option<Option<(&Routes<'_>, Option<u32>)>> {
        match rule.action {
            RuleAction::Lookup { table: to, .. } if to == table || to == LOCAL => None,
            RuleAction::Lookup { table: to, suppress } => {
                self.tables.get(&(to, rule.ipv6)).map(|routes| Some((routes, suppress)))
            }
            RuleAction::End => Some(None),
            RuleAction::Other => None,
        }
    }

    /// Whether a route leads where our nexthop object leads: straight to the address, by the same device.
    fn same_way(&self, route: &InstalledRoute, id: crate::state::NexthopId, prefix: IpNet) -> bool {
        self.wanted.nexthops.get(&id).is_some_and(|nexthop| {
            route.link.as_ref() == Some(&nexthop.link)
                && route.gateway.unwrap_or(prefix.addr()) == nexthop.gateway.address
        })
    }
}

/// Routes of others in one table, of one family, in order: there may be thousands, and thousands of ours to compare.
#[derive(Debug, Default)]
struct Routes<'a> {
    sorted: Vec<&'a InstalledRoute>,
    /// Their lengths.
    lengths: BTreeSet<u8>,
}

impl<'a> Routes<'a> {
    /// The one with the longest prefix that takes all of a prefix or a part of it, if it is longer than `suppress`.
    ///
    /// Prefixes are sorted by address, then length: those inside of `prefix` follow it without a gap.
    fn longest(&self, prefix: IpNet, suppress: Option<u32>) -> Option<&'a InstalledRoute> {
        let counts = |length: u8| suppress.is_none_or(|suppressed| u32::from(length) > suppressed);
        let first = self.sorted.partition_point(|route| route.key.prefix < prefix);
        let within = self.sorted.iter().skip(first).take_while(|route| prefix.contains(&route.key.prefix));
        let within = within.filter(|route| counts(route.key.prefix.prefix_len()));
        within.max_by_key(|route| route.key.prefix.prefix_len()).copied().or_else(|| {
            let lengths = self.lengths.range(..prefix.prefix_len()).rev();
            lengths.copied().take_while(|length| counts(*length)).find_map(|length| {
                let above = above(prefix, length)?;
                let end = self.sorted.partition_point(|route| route.key.prefix <= above);
                self.sorted[..end].last().filter(|route| route.key.prefix == above).copied()
            })
        })
    }
}

fn tables(observed: &Observed) -> BTreeMap<(u32, bool), Routes<'_>> {
    let mut tables: BTreeMap<(u32, bool), Routes<'_>> = BTreeMap::new();
    for route in observed.foreign_routes.iter().chain(&observed.default_routes) {
        let routes = tables.entry((route.key.table, route.key.prefix.addr().is_ipv6())).or_default();
        routes.sorted.push(route);
        routes.lengths.insert(route.key.prefix.prefix_len());
    }
    // Stable: of routes to one prefix the last stays the last.
    tables.values_mut().for_each(|routes| routes.sorted.sort_by_key(|route| route.key.prefix));
    tables
}

/// Our routes of a table that a rule is about: those that its destination takes a part of, or all.
fn ours<'a>(
    wanted: &'a State,
    table: u32,
    rule: &ForeignRule,
) -> impl Iterator<Item = (&'a RouteKey, &'a Route)> {
    let ipv6 = rule.ipv6;
    let all = if ipv6 { "::/0" } else { "0.0.0.0/0" };
    let to = rule.to.or_else(|| all.parse().ok()).map(|to| to.trunc());
    let at = move |prefix| RouteKey { table, prefix, metric: 0 };
    let around =
        to.into_iter().flat_map(|to| (0..to.prefix_len()).filter_map(move |length| above(to, length)));
    let around = around.flat_map(move |prefix| {
        wanted.routes.range(at(prefix)..=RouteKey { metric: u32::MAX, ..at(prefix) })
    });
    let within = to.into_iter().flat_map(move |to| {
        wanted
            .routes
            .range(at(to)..)
            .take_while(move |(key, _)| key.table == table && to.contains(&key.prefix))
    });
    around.chain(within).filter(move |(key, _)| key.prefix.addr().is_ipv6() == ipv6)
}

/// The prefix of this length that a prefix lies inside of.
fn above(prefix: IpNet, length: u8) -> Option<IpNet> {
    IpNet::new(prefix.addr(), length).ok().map(|net| net.trunc())
}

const fn family(rule: &ForeignRule) -> &'static str {
    if rule.ipv6 { "ipv6" } else { "ipv4" }
}

/// The block of a peer that a prefix lies inside of: a route of ours within a pool, which is an `unreachable` one of ours.
/// (What a speaker outside of the cluster announces is a route too, and no block.)
fn enclosing_block(wanted: &State, prefix: IpNet) -> Option<RouteKey> {
    let mut block = None;
    for length in (0..prefix.prefix_len()).rev() {
        let first = RouteKey { table: MAIN, prefix: above(prefix, length)?, metric: 0 };
        let last = RouteKey { metric: u32::MAX, ..first };
        for (key, route) in wanted.routes.range(first..=last) {
            match route.target {
                RouteTarget::Nexthop(_) if block.is_none() => block = Some(*key),
                RouteTarget::Unreachable => return block,
                RouteTarget::Nexthop(_) | RouteTarget::Other => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
