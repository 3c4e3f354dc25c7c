//! Chains of others at the hooks that matter, and the sets that they ask. How much others have is theirs to say: what is
//! read of it has an end, and what lies beyond is not known.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use crate::firewall::{Choice, Expression, ForeignChain, Rule, Verdict, hook};
use crate::netlink::channel::{Channel, Part};

use super::decode::{self, FoundChain, PlainSet, family_name};
use super::{INET, encode, kind, message};

/// Chains that are followed from a hook.
const MOST_CHAINS: usize = 256;
/// Rules of a chain.
const MOST_RULES: usize = 1024;
/// Bytes of the list of all chains: some hundred thousand of them.
const MOST_LISTED: usize = 16 << 20;
/// Bytes of the rules of a chain.
const MOST_OF_CHAIN: usize = 1 << 20;
/// Bytes of the elements of a set: some ten thousand of them.
const MOST_OF_SET: usize = 512 << 10;
/// Bytes of all rules, sets and elements of a look.
const MOST_OF_ALL: usize = 8 << 20;

/// Answers dumps, as far as they are read.
pub(super) trait Source {
    /// One dump, no further than a little beyond `most` bytes.
    fn read(&mut self, kind: u16, body: &[u8], most: usize) -> io::Result<Part>;
}

/// Sockets for what is read of others: one that has broken a dump off is closed.
#[derive(Debug)]
pub(super) struct Reader {
    channel: Option<Channel>,
    namespace: Option<u64>,
}

impl Reader {
    /// Reads the network namespace of the calling thread, and no other.
    pub(super) fn new() -> Self {
        Self { channel: None, namespace: namespace() }
    }

    fn open(&self) -> io::Result<Channel> {
        if namespace() != self.namespace {
            return Err(io::Error::other("the thread has gone to another network namespace"));
        }
        Channel::open_netfilter()
    }
}

impl Source for Reader {
    fn read(&mut self, kind: u16, body: &[u8], most: usize) -> io::Result<Part> {
        let mut channel = match self.channel.take() {
            Some(channel) => channel,
            None => self.open()?,
        };
        let part = channel.try_part(kind, body, most)?;
        self.channel = Some(channel).filter(|_| part.whole);
        Ok(part)
    }
}

/// Inode of the network namespace of the calling thread, where `/proc` is mounted.
fn namespace() -> Option<u64> {
    std::fs::metadata("/proc/thread-self/ns/net").ok().map(|file| file.ino())
}

/// What others have at the hooks that matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Others {
    pub(super) forward: Arc<Vec<ForeignChain>>,
    pub(super) input: Arc<Vec<ForeignChain>>,
}

/// Reads it; `own` is the name of our table.
pub(super) fn read(source: &mut impl Source, own: &str) -> io::Result<Others> {
    let listed = source.read(kind(message::GET_CHAIN), &encode::header(0), MOST_LISTED)?;
    if !listed.whole {
        return Err(io::Error::other("nftables has too many chains"));
    }
    let found = listed.dumped.messages().filter_map(|(kind, body)| decode::chain(kind, body));
    let chains: Vec<FoundChain> = found.collect();
    let mut look = Look { source, own, left: MOST_OF_ALL, tables: BTreeMap::new(), sets: BTreeMap::new() };
    // What sets hold decides nothing for forwarded packets: of those one end is not known.
    let input = look.hooked(&chains, hook::INPUT, true)?;
    let forward = look.hooked(&chains, hook::FORWARD, false)?;
    Ok(Others { forward: forward.into(), input: input.into() })
}

/// Family and name of a table.
type TableKey = (u8, String);

struct Look<'a, S> {
    source: &'a mut S,
    own: &'a str,
    /// Bytes that may still be read.
    left: usize,
    /// Sets of tables, as far as their elements say all of them.
    tables: BTreeMap<TableKey, BTreeMap<String, PlainSet>>,
    /// What sets hold, if it can be known.
    sets: BTreeMap<(TableKey, String), Option<Elements>>,
}

/// The elements of a set or a map.
#[derive(Debug, Clone)]
struct Elements {
    ranges: Arc<[(Vec<u8>, Vec<u8>)]>,
    /// Of a map of verdicts.
    choices: Option<Arc<[Choice]>>,
    /// One of them stands for all that no other has.
    catch_all: bool,
}

impl<S: Source> Look<'_, S> {
    /// Chains of others at a hook, and those that they lead to.
    fn hooked(&mut self, chains: &[FoundChain], at: u32, with_sets: bool) -> io::Result<Vec<ForeignChain>> {
        let own = |chain: &FoundChain| chain.family == INET && chain.table == self.own;
        let hooked = |chain: &&FoundChain| {
            family_name(chain.family).is_some()
                && !own(chain)
                && chain.base.as_ref().is_some_and(|base| base.base.hook == at && base.base.kind == "filter")
        };
        let mut queue: VecDeque<&FoundChain> = chains.iter().filter(hooked).collect();
        let mut known: BTreeSet<(u8, String, String)> =
            queue.iter().map(|chain| (chain.family, chain.table.clone(), chain.name.clone())).collect();
        let mut found = Vec::new();
        while let Some(chain) = queue.pop_front() {
            let Some(family) = family_name(chain.family) else { continue };
            let mut rules = self.rules(chain)?;
            if with_sets {
                self.fill_lookups(chain, &mut rules)?;
            }
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

    /// The rules of a chain; instead of those that are too many stands one that says so.
    fn rules(&mut self, chain: &FoundChain) -> io::Result<Vec<Rule>> {
        let body = encode::in_chain(chain.family, &chain.table, &chain.name);
        let Some(part) = self.part(message::GET_RULE, &body, MOST_OF_CHAIN)? else {
            return Ok(vec![Rule::new(vec![Expression::Unread])]);
        };
        let found = part.dumped.messages().filter_map(|(kind, body)| decode::rule(kind, body));
        let mut rules: Vec<Rule> = found.map(|found| found.rule).take(MOST_RULES + 1).collect();
        if !part.whole || rules.len() > MOST_RULES {
            rules.truncate(MOST_RULES);
            rules.push(Rule::new(vec![Expression::Unread]));
        }
        Ok(rules)
    }

    /// Puts the elements of sets in place of their names, where they can be known.
    fn fill_lookups(&mut self, chain: &FoundChain, rules: &mut [Rule]) -> io::Result<()> {
        for expression in rules.iter_mut().flat_map(|rule| &mut rule.expressions) {
            if let Expression::Lookup { set, absent } = expression {
                let Some(elements) = self.elements(chain, set)? else { continue };
                // Kernels differ in what an element for all others means to those that ask for what is absent.
                if !(elements.catch_all && *absent) {
                    *expression = Expression::Among { ranges: elements.ranges, absent: *absent };
                }
            } else if let Expression::VerdictMap { map, choices } = expression {
                *choices = self.elements(chain, map)?.and_then(|elements| elements.choices);
            }
        }
        Ok(())
    }

    /// What a set or map holds that a rule of this chain asks; each is read once.
    fn elements(&mut self, chain: &FoundChain, name: &str) -> io::Result<Option<Elements>> {
        let table = (chain.family, chain.table.clone());
        let key = (table, name.to_owned());
        if let Some(known) = self.sets.get(&key) {
            return Ok(known.clone());
        }
        let elements = match self.plain_set(&key.0, name)? {
            Some(set) => self.read_elements(&key.0, &set)?,
            None => None,
        };
        self.sets.insert(key, elements.clone());
        Ok(elements)
    }

    fn plain_set(&mut self, table: &TableKey, name: &str) -> io::Result<Option<PlainSet>> {
        if !self.tables.contains_key(table) {
            let body = encode::in_table(table.0, &table.1);
            let mut sets = BTreeMap::new();
            if let Some(part) = self.part(message::GET_SET, &body, MOST_OF_ALL)? {
                let found = part.dumped.messages().filter_map(|(kind, body)| decode::plain_set(kind, body));
                sets.extend(found.map(|set| (set.name.clone(), set)));
            }
            self.tables.insert(table.clone(), sets);
        }
        Ok(self.tables.get(table).and_then(|sets| sets.get(name)).cloned())
    }

    fn read_elements(&mut self, table: &TableKey, set: &PlainSet) -> io::Result<Option<Elements>> {
        let body = encode::in_set(table.0, &table.1, &set.name);
        let part = self.part(message::GET_ELEMENTS, &body, MOST_OF_SET)?;
        let Some(part) = part.filter(|part| part.whole) else { return Ok(None) };
        let lists: Option<Vec<_>> =
            part.dumped.messages().map(|(kind, body)| decode::keys(kind, body)).collect();
        Ok(lists.and_then(|lists| Elements::of(lists.into_iter().flatten(), set)))
    }

    /// A dump, as long as there may be more; nothing after that.
    fn part(&mut self, message: u8, body: &[u8], most: usize) -> io::Result<Option<Part>> {
        if self.left == 0 {
            return Ok(None);
        }
        let part = self.source.read(kind(message), body, most.min(self.left))?;
        self.left = self.left.saturating_sub(part.bytes);
        Ok(Some(part))
    }
}

impl Elements {
    /// Nothing if they are of another width than the set.
    fn of(elements: impl Iterator<Item = decode::Element>, set: &PlainSet) -> Option<Self> {
        let (catch_all, elements): (Vec<_>, Vec<_>) = elements.partition(|element| element.key.is_empty());
        if elements.iter().any(|element| element.key.len() != set.width) {
            return None;
        }
        let mut ranges = decode::ranges(elements, set.intervals);
        ranges.sort_by(|one, other| one.0.cmp(&other.0));
        let all = || (vec![0; set.width], vec![0xff; set.width]);
        let mut choices = ranges.clone();
        choices.extend(catch_all.first().map(|element| (all().0, all().1, element.verdict.clone())));
        let choice = |(from, to, verdict): (_, _, Option<Verdict>)| {
            verdict.map(|verdict| Choice { from, to, verdict })
        };
        let ranges = if catch_all.is_empty() {
            ranges.into_iter().map(|(from, to, _)| (from, to)).collect()
        } else {
            [all()].into()
        };
        let choices = choices.into_iter().map(choice).collect();
        Some(Self { ranges, choices, catch_all: !catch_all.is_empty() })
    }
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

#[cfg(test)]
mod tests;
