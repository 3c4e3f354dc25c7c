//! A look at nftables, and the handle that changes it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};

use crate::diff::SetChange;
use crate::firewall::{
    Chain, Choice, Count, Expression, ForeignChain, GUARDED, IP_GUARDED, MASQUERADED, Netfilter, Rule, Set,
    SetKey, Table, Verdict, hook,
};
use crate::netlink::channel::Channel;
use crate::netlink::request::Request;
use crate::reconcile::ApplyError;

use super::decode::{self, FoundChain, FoundRule, PlainSet, family_name};
use super::{INET, SUBSYSTEM, encode, kind, message, write};

/// How often a look that a change has crossed is begun again.
const ATTEMPTS: usize = 10;
/// Chains of others that are followed from a hook, and rules of each: enough for any firewall, and an end
/// for a machine with a hundred thousand of them.
const MOST_CHAINS: usize = 256;
const MOST_RULES: usize = 1024;
/// Elements of a set of others that are looked at.
const MOST_ELEMENTS: usize = 4096;

/// nftables of one network namespace.
#[derive(Debug)]
pub(in crate::netlink) struct Nft {
    /// Name of our table, and the comment that marks it.
    name: String,
    mark: String,
    channel: Result<Channel, io::Error>,
    last: Option<(u32, Seen)>,
}

/// What one look has found.
#[derive(Debug, Clone, Default)]
struct Seen {
    ours: Option<Table>,
    foreign_table: bool,
    counts: BTreeMap<String, Count>,
    forward: Vec<ForeignChain>,
    input: Vec<ForeignChain>,
}

impl Nft {
    /// Opens a socket in the network namespace of the calling thread. A kernel without netfilter is no error.
    pub(in crate::netlink) fn open(name: &str, mark: &str) -> Self {
        let channel = Channel::open_netfilter();
        Self { name: name.to_owned(), mark: mark.to_owned(), channel, last: None }
    }

    /// The port id of the socket that writes.
    pub(in crate::netlink) fn port(&self) -> Option<u32> {
        self.channel.as_ref().ok().map(Channel::port)
    }

    /// Our table, and what there is of others that concerns us.
    pub(in crate::netlink) fn observe(&mut self) -> io::Result<(Option<Table>, Netfilter)> {
        let channel = match &mut self.channel {
            Ok(channel) => channel,
            Err(error) => return Ok((None, unavailable(error))),
        };
        let mut look = Look { channel, name: &self.name, mark: &self.mark };
        for _ in 0..ATTEMPTS {
            let before = match look.generation() {
                Ok(generation) => generation,
                Err(error) if is_missing(&error) => return Ok((None, unavailable(&error))),
                Err(error) => return Err(error),
            };
            let seen = match self.last.take() {
                Some((generation, mut seen)) if generation == before => {
                    seen.counts = if seen.ours.is_some() { look.counts()? } else { BTreeMap::new() };
                    seen
                }
                _ => match look.all() {
                    Ok(seen) => seen,
                    // What was listed went before it was read.
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                },
            };
            if look.generation()? != before {
                continue;
            }
            self.last = Some((before, seen.clone()));
            let counted = |comment: &str| seen.counts.get(comment).copied().unwrap_or_default();
            let mut guarded = counted(GUARDED);
            guarded.add(counted(IP_GUARDED));
            let netfilter = Netfilter {
                unavailable: None,
                foreign_table: seen.foreign_table,
                masqueraded: counted(MASQUERADED),
                guarded,
                forward: seen.forward,
                input: seen.input,
            };
            return Ok((seen.ours, netfilter));
        }
        let why = format!("nftables changed during each of {ATTEMPTS} looks");
        Err(io::Error::new(ErrorKind::Interrupted, why))
    }

    pub(in crate::netlink) fn set_table(&mut self, table: &Table) -> Result<(), ApplyError> {
        self.refuse_foreign()?;
        let requests = write::replace(&self.name, &self.mark, table);
        self.transact(&requests)
    }

    pub(in crate::netlink) fn change_sets(&mut self, changes: &[SetChange]) -> Result<(), ApplyError> {
        let requests = write::change_sets(&self.name, changes);
        self.transact(&requests)
    }

    pub(in crate::netlink) fn delete_table(&mut self) -> Result<(), ApplyError> {
        self.refuse_foreign()?;
        let requests = [encode::delete_table(&self.name)];
        self.transact(&requests)
    }

    /// The kernel lets anyone replace anyone's table: whose it is is looked at just before.
    fn refuse_foreign(&mut self) -> Result<(), ApplyError> {
        let name = self.name.clone();
        let mark = self.mark.clone();
        let channel = self.channel()?;
        let found = Look { channel, name: &name, mark: &mark }.table().map_err(|error| from_io(&error))?;
        if found == Some(false) {
            let message = format!("the table inet {name} is not marked as ours");
            return Err(ApplyError { errno: libc::EPERM, message });
        }
        Ok(())
    }

    fn transact(&mut self, requests: &[Request]) -> Result<(), ApplyError> {
        self.channel()?.transact(SUBSYSTEM, requests)
    }

    fn channel(&mut self) -> Result<&mut Channel, ApplyError> {
        self.channel.as_mut().map_err(|error| from_io(error))
    }
}

/// Whether the kernel has no nf_tables: nfnetlink knows no such subsystem, or there is no nfnetlink.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
    )
}

fn unavailable(error: &io::Error) -> Netfilter {
    Netfilter { unavailable: Some(error.to_string()), ..Netfilter::default() }
}

fn from_io(error: &io::Error) -> ApplyError {
    ApplyError { errno: error.raw_os_error().unwrap_or(libc::EIO), message: error.to_string() }
}

struct Look<'a> {
    channel: &'a mut Channel,
    name: &'a str,
    mark: &'a str,
}

impl Look<'_> {
    fn generation(&mut self) -> io::Result<u32> {
        let (found, body) = self.channel.ask(&encode::generation())?;
        decode::generation(found, &body)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the kernel's answer holds no generation"))
    }

    fn all(&mut self) -> io::Result<Seen> {
        let mut seen = Seen::default();
        let chains = chains(self.channel)?;
        match self.table()? {
            None => {}
            Some(false) => seen.foreign_table = true,
            Some(true) => {
                let rules = self.rules()?;
                seen.counts = counts(&rules);
                seen.ours = Some(Table { sets: self.sets()?, chains: self.own_chains(&chains, rules) });
            }
        }
        seen.forward = self.hooked(&chains, hook::FORWARD)?;
        seen.input = self.hooked(&chains, hook::INPUT)?;
        Ok(seen)
    }

    /// Whether there is a table of our name, and whether it is ours.
    fn table(&mut self) -> io::Result<Option<bool>> {
        let (name, mark) = (self.name, self.mark);
        let mut ours = None;
        self.channel.dump(kind(message::GET_TABLE), &encode::header(INET), |found, body| {
            if let Some(table) = decode::table(found, body).filter(|t| t.family == INET && t.name == name) {
                ours = Some(!mark.is_empty() && table.comment == mark);
            }
        })?;
        Ok(ours)
    }

    fn own_chains(&self, chains: &[FoundChain], rules: Vec<FoundRule>) -> BTreeMap<String, Chain> {
        let mut own: BTreeMap<String, Chain> = chains
            .iter()
            .filter(|chain| chain.family == INET && chain.table == self.name)
            .map(|chain| (chain.name.clone(), Chain { base: chain.base.clone(), rules: Vec::new() }))
            .collect();
        for found in rules {
            if let Some(chain) = own.get_mut(&found.chain) {
                chain.rules.push(found.rule);
            }
        }
        own
    }

    fn rules(&mut self) -> io::Result<Vec<FoundRule>> {
        let body = encode::in_table(INET, self.name);
        self.rules_of(&body)
    }

    fn rules_of(&mut self, body: &[u8]) -> io::Result<Vec<FoundRule>> {
        let mut rules = Vec::new();
        self.channel.dump(kind(message::GET_RULE), body, |found, body| {
            rules.extend(decode::rule(found, body));
        })?;
        Ok(rules)
    }

    fn counts(&mut self) -> io::Result<BTreeMap<String, Count>> {
        Ok(counts(&self.rules()?))
    }

    fn sets(&mut self) -> io::Result<BTreeMap<String, Set>> {
        let mut sets = BTreeMap::new();
        self.channel.dump(kind(message::GET_SET), &encode::in_table(INET, self.name), |found, body| {
            if let Some(set) = decode::set(found, body) {
                sets.insert(set.name, Set { key: set.key, elements: BTreeSet::new() });
            }
        })?;
        for (name, set) in sets.iter_mut().filter(|(_, set)| set.key != SetKey::Other) {
            let body = encode::in_set(INET, self.name, name);
            self.channel.dump(kind(message::GET_ELEMENTS), &body, |found, body| {
                set.elements.extend(decode::elements(found, body));
            })?;
        }
        Ok(sets)
    }

    /// Chains of others at a hook, and those that they lead to.
    fn hooked(&mut self, chains: &[FoundChain], at: u32) -> io::Result<Vec<ForeignChain>> {
        let own = |chain: &FoundChain| chain.family == INET && chain.table == self.name;
        let hooked = |chain: &&FoundChain| {
            family_name(chain.family).is_some()
                && !own(chain)
                && chain.base.as_ref().is_some_and(|base| base.base.hook == at && base.base.kind == "filter")
        };
        let mut queue: VecDeque<&FoundChain> = chains.iter().filter(hooked).collect();
        let mut known: BTreeSet<(u8, String, String)> =
            queue.iter().map(|chain| (chain.family, chain.table.clone(), chain.name.clone())).collect();
        let mut found = Vec::new();
        let mut sets = BTreeMap::new();
        while let Some(chain) = queue.pop_front() {
            let Some(family) = family_name(chain.family) else { continue };
            let body = encode::in_chain(chain.family, &chain.table, &chain.name);
            let mut rules: Vec<_> = self.rules_of(&body)?.into_iter().map(|found| found.rule).collect();
            rules.truncate(MOST_RULES);
            self.fill_lookups(chain, &mut rules, &mut sets)?;
            for target in rules.iter().flat_map(|rule| &rule.expressions).flat_map(targets) {
                let key = (chain.family, chain.table.clone(), target.clone());
                if known.len() < MOST_CHAINS && known.insert(key) {
                    queue.extend(chains.iter().find(|other| {
                        other.family == chain.family && other.table == chain.table && other.name == *target
                    }));
                }
            }
            found.push(ForeignChain {
                family: family.to_owned(),
                table: chain.table.clone(),
                name: chain.name.clone(),
                base: chain.base.clone(),
                rules,
            });
        }
        Ok(found)
    }

    /// Puts the elements of sets in place of their names, where they are few and plain.
    fn fill_lookups(
        &mut self,
        chain: &FoundChain,
        rules: &mut [Rule],
        sets: &mut BTreeMap<(u8, String), BTreeMap<String, PlainSet>>,
    ) -> io::Result<()> {
        let (family, table) = (chain.family, chain.table.as_str());
        for expression in rules.iter_mut().flat_map(|rule| &mut rule.expressions) {
            let (Expression::Lookup { set, .. } | Expression::VerdictMap { map: set, .. }) = expression
            else {
                continue;
            };
            let in_table = match sets.entry((family, table.to_owned())) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let mut found = BTreeMap::new();
                    let body = encode::in_table(family, table);
                    self.channel.dump(kind(message::GET_SET), &body, |kind, body| {
                        found.extend(decode::plain_set(kind, body).map(|set| (set.name.clone(), set)));
                    })?;
                    unknown.insert(found)
                }
            };
            let Some(plain) = in_table.get(set.as_str()) else { continue };
            let mut keys = Vec::new();
            let body = encode::in_set(family, table, set);
            self.channel.dump(kind(message::GET_ELEMENTS), &body, |kind, body| {
                keys.extend(decode::keys(kind, body));
            })?;
            if keys.len() > MOST_ELEMENTS {
                continue;
            }
            let ranges = decode::ranges(keys, plain.intervals).into_iter();
            if let Expression::Lookup { absent, .. } = expression {
                let ranges = ranges.map(|(from, to, _)| (from, to)).collect();
                *expression = Expression::Among { ranges, absent: *absent };
            } else if let Expression::VerdictMap { choices, .. } = expression {
                let choice = |(from, to, verdict): (_, _, Option<Verdict>)| {
                    verdict.map(|verdict| Choice { from, to, verdict })
                };
                *choices = ranges.map(choice).collect();
            }
        }
        Ok(())
    }
}

/// All chains of all tables.
pub(super) fn chains(channel: &mut Channel) -> io::Result<Vec<FoundChain>> {
    let mut chains = Vec::new();
    channel.dump(kind(message::GET_CHAIN), &encode::header(0), |found, body| {
        chains.extend(decode::chain(found, body));
    })?;
    Ok(chains)
}

/// The chains that an expression leads to.
fn targets(expression: &Expression) -> Vec<&String> {
    if let Expression::Verdict(verdict) = expression {
        target(verdict).into_iter().collect()
    } else if let Expression::VerdictMap { choices: Some(choices), .. } = expression {
        choices.iter().filter_map(|choice| target(&choice.verdict)).collect()
    } else {
        Vec::new()
    }
}

fn target(verdict: &Verdict) -> Option<&String> {
    match verdict {
        Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
        Verdict::Accept | Verdict::Drop | Verdict::Return | Verdict::Continue => None,
    }
}

fn counts(rules: &[FoundRule]) -> BTreeMap<String, Count> {
    let mut counts = BTreeMap::<String, Count>::new();
    for found in rules.iter().filter(|found| !found.rule.comment.is_empty()) {
        counts.entry(found.rule.comment.clone()).or_default().add(found.count);
    }
    counts
}
