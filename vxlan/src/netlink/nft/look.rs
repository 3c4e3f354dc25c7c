//! A look at nftables, and the handle that changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};

use crate::diff::SetChange;
use crate::firewall::{Chain, Count, GUARDED, IP_GUARDED, MASQUERADED, Netfilter, Set, SetKey, Table};
use crate::netlink::channel::Channel;
use crate::netlink::request::Request;
use crate::reconcile::ApplyError;

use super::decode::{self, FoundChain, FoundRule};
use super::others::{self, Others, Reader};
use super::{INET, SUBSYSTEM, encode, kind, message, write};

/// How often a look at our table that a change has crossed is begun again.
const ATTEMPTS: usize = 10;
/// The same for chains of others, which may take a while to read. Nothing of ours waits for what they do.
const ATTEMPTS_AT_OTHERS: usize = 3;

/// nftables of one network namespace.
#[derive(Debug)]
pub(in crate::netlink) struct Nft {
    /// Name of our table, and the comment that marks it.
    name: String,
    mark: String,
    channel: Result<Channel, io::Error>,
    reader: Reader,
    /// What was found, with the generation that it is of.
    own: Option<(u32, Own)>,
    others: Option<(u32, Others)>,
}

/// What stands under our table's name.
#[derive(Debug, Clone, Default)]
struct Own {
    table: Option<Table>,
    foreign: bool,
    counts: BTreeMap<String, Count>,
}

impl Own {
    /// Whether another look has found the same, counters aside.
    fn same(&self, other: &Self) -> bool {
        (&self.table, self.foreign) == (&other.table, other.foreign)
    }
}

impl Nft {
    /// Opens a socket in the network namespace of the calling thread. A kernel without netfilter is no error.
    pub(in crate::netlink) fn open(name: &str, mark: &str) -> Self {
        let channel = Channel::open_netfilter();
        let (name, mark, reader) = (name.to_owned(), mark.to_owned(), Reader::new());
        Self { name, mark, channel, reader, own: None, others: None }
    }

    /// The port id of the socket that writes.
    pub(in crate::netlink) fn port(&self) -> Option<u32> {
        self.channel.as_ref().ok().map(Channel::port)
    }

    /// Our table, and what there is of others that concerns us. What others have changes at their pace: where it does so
    /// faster than it can be read, it is what was read last.
    pub(in crate::netlink) fn observe(&mut self) -> io::Result<(Option<Table>, Netfilter)> {
        let channel = match &mut self.channel {
            Ok(channel) => channel,
            Err(error) => return Ok((None, unavailable(error))),
        };
        let mut look = Look { channel, name: &self.name, mark: &self.mark };
        let now = match look.generation() {
            Ok(generation) => generation,
            Err(error) if is_missing(&error) => return Ok((None, unavailable(&error))),
            Err(error) => return Err(error),
        };
        let own = match self.own.take() {
            Some((generation, mut own)) if generation == now => {
                if own.table.is_some() {
                    match look.counts() {
                        Ok(counts) => own.counts = counts,
                        // The next look counts.
                        Err(error) if is_crossed(&error) => {}
                        Err(error) => return Err(error),
                    }
                }
                Some((generation, own))
            }
            // What was found last stands in for a look that did not come to an end, and is looked at again.
            before => settled(ATTEMPTS, &mut look, Look::generation, Look::own, Own::same)?.or(before),
        };
        let Some((generation, own)) = own else {
            let why = format!("nftables changed during each of {ATTEMPTS} looks at our table");
            return Ok((None, Netfilter { unavailable: Some(why), ..Netfilter::default() }));
        };
        self.own = Some((generation, own.clone()));
        let known = self.others.as_ref().is_some_and(|(known, _)| *known == now);
        let unread = !known && {
            let (reader, name) = (&mut self.reader, self.name.as_str());
            let read = |_: &mut Look<'_>| others::read(reader, name);
            let found =
                settled(ATTEMPTS_AT_OTHERS, &mut look, Look::generation, read, |one, other| one == other);
            // Beyond what is read of others, say: that is no reason to repair nothing of ours.
            let found = found.unwrap_or_default();
            let unread = found.is_none();
            self.others = found.or(self.others.take());
            unread
        };
        let others = self.others.as_ref().map_or_else(Others::default, |(_, others)| others.clone());
        let counted = |comment: &str| own.counts.get(comment).copied().unwrap_or_default();
        let mut guarded = counted(GUARDED);
        guarded.add(counted(IP_GUARDED));
        let netfilter = Netfilter {
            unavailable: None,
            foreign_table: own.foreign,
            masqueraded: counted(MASQUERADED),
            guarded,
            unread,
            forward: others.forward,
            input: others.input,
        };
        Ok((own.table, netfilter))
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

    fn own(&mut self) -> io::Result<Own> {
        let mut own = Own::default();
        match self.table()? {
            None => {}
            Some(false) => own.foreign = true,
            Some(true) => {
                let rules = self.rules()?;
                own.counts = counts(&rules);
                own.table = Some(Table { sets: self.sets()?, chains: self.own_chains(rules)? });
            }
        }
        Ok(own)
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

    fn own_chains(&mut self, rules: Vec<FoundRule>) -> io::Result<BTreeMap<String, Chain>> {
        let mut own = BTreeMap::new();
        let name = self.name;
        self.channel.dump_once(kind(message::GET_CHAIN), &encode::header(INET), |found, body| {
            let ours = |chain: &FoundChain| chain.family == INET && chain.table == name;
            let found = decode::chain(found, body).filter(ours);
            own.extend(found.map(|chain| (chain.name, Chain { base: chain.base, rules: Vec::new() })));
        })?;
        for found in rules {
            if let Some(chain) = own.get_mut(&found.chain) {
                chain.rules.push(found.rule);
            }
        }
        Ok(own)
    }

    fn rules(&mut self) -> io::Result<Vec<FoundRule>> {
        let body = encode::in_table(INET, self.name);
        let mut rules = Vec::new();
        self.channel.dump_once(kind(message::GET_RULE), &body, |found, body| {
            rules.extend(decode::rule(found, body));
        })?;
        Ok(rules)
    }

    fn counts(&mut self) -> io::Result<BTreeMap<String, Count>> {
        Ok(counts(&self.rules()?))
    }

    fn sets(&mut self) -> io::Result<BTreeMap<String, Set>> {
        let mut sets = BTreeMap::new();
        self.channel.dump_once(
            kind(message::GET_SET),
            &encode::in_table(INET, self.name),
            |found, body| {
                if let Some(set) = decode::set(found, body) {
                    sets.insert(set.name, Set { key: set.key, elements: BTreeSet::new() });
                }
            },
        )?;
        for (name, set) in sets.iter_mut().filter(|(_, set)| set.key != SetKey::Other) {
            let body = encode::in_set(INET, self.name, name);
            self.channel.dump_once(kind(message::GET_ELEMENTS), &body, |found, body| {
                set.elements.extend(decode::elements(found, body));
            })?;
        }
        Ok(sets)
    }
}

/// Looks until no change has crossed a look, or until two of them in a row have found the same: others may change what is
/// theirs all the time. With the generation that what was found is of; nothing after too many looks.
fn settled<L, T>(
    attempts: usize,
    look: &mut L,
    generation: impl Fn(&mut L) -> io::Result<u32>,
    mut once: impl FnMut(&mut L) -> io::Result<T>,
    same: impl Fn(&T, &T) -> bool,
) -> io::Result<Option<(u32, T)>> {
    let mut earlier: Option<T> = None;
    for _ in 0..attempts {
        let before = generation(look)?;
        let found = match once(look) {
            Ok(found) => found,
            Err(error) if is_crossed(&error) => continue,
            Err(error) => return Err(error),
        };
        if generation(look)? == before || earlier.is_some_and(|earlier| same(&earlier, &found)) {
            return Ok(Some((before, found)));
        }
        earlier = Some(found);
    }
    Ok(None)
}

/// Whether a change has crossed a dump, or what was listed went before it was read.
fn is_crossed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::NotFound)
}

/// All chains of all tables.
pub(super) fn chains(channel: &mut Channel) -> io::Result<Vec<FoundChain>> {
    let mut chains = Vec::new();
    channel.dump(kind(message::GET_CHAIN), &encode::header(0), |found, body| {
        chains.extend(decode::chain(found, body));
    })?;
    Ok(chains)
}

fn counts(rules: &[FoundRule]) -> BTreeMap<String, Count> {
    let mut counts = BTreeMap::<String, Count>::new();
    for found in rules.iter().filter(|found| !found.rule.comment.is_empty()) {
        counts.entry(found.rule.comment.clone()).or_default().add(found.count);
    }
    counts
}

#[cfg(test)]
mod tests;
