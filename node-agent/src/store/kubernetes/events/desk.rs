//! Which conditions are to be told: pure.
//!
//! A condition is told once it has stood for some seconds, and that it is over once it is gone for as long: what comes and
//! goes is not told at all. What is due of one kind is told together. There is a bound to how much is told; what it keeps back
//! waits in its place, and is told if it is still true by then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::status::{Condition, Severity};

/// What does not last so long is not told. Each agent adds a share of its own, so that what befalls all nodes at
/// once does not reach the API server at once.
const LASTS: Duration = Duration::from_secs(5);
const LASTS_AT_RANDOM: Duration = Duration::from_secs(5);

/// So many Events at most within this time.
const BURST: usize = 10;
const WITHIN: Duration = Duration::from_secs(300);

/// So many conditions are followed at once; further ones have their turn when some of them are over.
const FOLLOWED: usize = 128;

/// Whether something begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    Begins,
    Ends,
}

/// Type and subject of a condition.
type Key = (String, String);

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) turn: Turn,
    pub(super) text: String,
    kind: String,
    keys: Vec<Key>,
}

impl Note {
    pub(super) fn new(turn: Turn, kind: &str, keys: Vec<Key>, text: &str) -> Self {
        Self { turn, text: text.to_owned(), kind: kind.to_owned(), keys }
    }

    /// One word for it.
    pub(super) fn reason(&self) -> String {
        match self.turn {
            Turn::Begins => self.kind.clone(),
            Turn::Ends => format!("{}Over", self.kind),
        }
    }

    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        (self.turn, &self.kind, &self.text) == (other.turn, &other.kind, &other.text)
    }
}

/// A condition that is followed.
#[derive(Debug)]
struct Followed {
    began: Instant,
    /// The same for people.
    since: String,
    message: String,
    told: bool,
    ended: Option<Instant>,
}

/// What stands, and what of it was told.
#[derive(Debug)]
pub(super) struct Desk {
    lasts: Duration,
    followed: BTreeMap<Key, Followed>,
    /// When the last ones were told.
    told: VecDeque<Instant>,
}

impl Desk {
    /// `share`: a random number from 0 to 1.
    pub(super) fn new(share: f64) -> Self {
        Self {
            lasts: LASTS + LASTS_AT_RANDOM.mul_f64(share),
            followed: BTreeMap::new(),
            told: VecDeque::new(),
        }
    }

    /// Takes in what stands.
    pub(super) fn look(&mut self, conditions: &[Condition], now: Instant) {
        let errors = || conditions.iter().filter(|condition| condition.severity == Severity::Error);
        for condition in errors() {
            let key = (condition.kind.clone(), condition.subject.clone());
            if let Some(followed) = self.followed.get_mut(&key) {
                followed.ended = None;
                followed.message.clone_from(&condition.message);
            } else if self.followed.len() < FOLLOWED {
                let followed = Followed {
                    began: now,
                    since: condition.since.clone(),
                    message: condition.message.clone(),
                    told: false,
                    ended: None,
                };
                self.followed.insert(key, followed);
            }
        }
        let stands: BTreeSet<(&str, &str)> =
            errors().map(|condition| (condition.kind.as_str(), condition.subject.as_str())).collect();
        let lasts = self.lasts;
        self.followed.retain(|(kind, subject), followed| {
            if stands.contains(&(kind.as_str(), subject.as_str())) {
                return true;
            }
            let ended = *followed.ended.get_or_insert(now);
            // One that could not be told while it stood is told of afterwards.
            followed.told || ended.duration_since(followed.began) >= lasts
        });
    }

    /// The next thing to tell, if it may be told by now. It counts as told, unless it is taken back.
    pub(super) fn due(&mut self, now: Instant) -> Option<Note> {
        if self.full_until(now).is_some() {
            return None;
        }
        let lasts = self.lasts;
        let is_due = |followed: &Followed| followed.due(lasts).filter(|(at, _)| *at <= now);
        let (_, turn, kind) = self
            .followed
            .iter()
            .filter_map(|((kind, _), followed)| is_due(followed).map(|(at, turn)| (at, turn, kind)))
            .min()?;
        let kind = kind.clone();
        let together: Vec<(&Key, &Followed)> = self
            .followed
            .iter()
            .filter(|((other, _), followed)| {
                *other == kind && is_due(followed).is_some_and(|(_, of)| of == turn)
            })
            .collect();
        let text = text(turn, &together);
        let keys: Vec<Key> = together.into_iter().map(|(key, _)| key.clone()).collect();
        for key in &keys {
            match turn {
                Turn::Begins => {
                    if let Some(followed) = self.followed.get_mut(key) {
                        followed.told = true;
                    }
                }
                Turn::Ends => drop(self.followed.remove(key)),
            }
        }
        if self.told.len() >= BURST {
            self.told.pop_front();
        }
        self.told.push_back(now);
        Some(Note::new(turn, &kind, keys, &text))
    }

    /// It was not told after all. An end that is not told is left out.
    pub(super) fn take_back(&mut self, note: Note) {
        self.told.pop_back();
        if note.turn == Turn::Begins {
            for key in note.keys {
                if let Some(followed) = self.followed.get_mut(&key) {
                    followed.told = false;
                }
            }
        }
    }

    /// When there will be something to tell if nothing happens.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let next =
            self.followed.values().filter_map(|followed| followed.due(self.lasts)).map(|(at, _)| at).min()?;
        Some(self.full_until(now).map_or(next, |full| next.max(full)))
    }

    /// Until when nothing more may be told.
    fn full_until(&self, now: Instant) -> Option<Instant> {
        let oldest = self.told.front().filter(|_| self.told.len() >= BURST)?;
        Some(*oldest + WITHIN).filter(|until| *until > now)
    }
}

impl Followed {
    /// What is to be told of it, and when.
    fn due(&self, lasts: Duration) -> Option<(Instant, Turn)> {
        match self.ended {
            Some(ended) => Some((ended + lasts, Turn::Ends)),
            None if self.told => None,
            None => Some((self.began + lasts, Turn::Begins)),
        }
    }
}

/// The first one in full, the number of the others.
fn text(turn: Turn, together: &[(&Key, &Followed)]) -> String {
    let Some(((_, subject), first)) = together.first() else { return String::new() };
    let about = if subject.is_empty() { String::new() } else { format!("{subject}: ") };
    let more = match together.len() - 1 {
        0 => String::new(),
        others => format!(" (and {others} more: `pairway status` on the node)"),
    };
    let message = &first.message;
    match turn {
        Turn::Begins => format!("{about}{message}{more}"),
        Turn::Ends => format!("over; it stood from {}{more}: {about}{message}", first.since),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, subject: &str) -> Condition {
        Condition {
            kind: kind.to_owned(),
            subject: subject.to_owned(),
            message: "what to do".to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
            severity: Severity::of(kind),
        }
    }

    fn told(desk: &mut Desk, now: Instant) -> Vec<(String, String)> {
        std::iter::from_fn(|| desk.due(now)).map(|note| (note.reason(), note.text)).collect()
    }

    #[test]
    fn what_lasts_is_told_when_it_begins_and_when_it_is_over() {
        let begin = Instant::now();
        let mut desk = Desk::new(0.0);
        let stands = [condition("BlockLost", "10.244.1.0/24"), condition("BgpSessionDown", "n2")];
        desk.look(&stands, begin);
        assert!(told(&mut desk, begin).is_empty());
        assert_eq!(desk.next(begin), Some(begin + LASTS));
        let now = begin + LASTS;
        let expected = ("BlockLost".to_owned(), "10.244.1.0/24: what to do".to_owned());
        assert_eq!(told(&mut desk, now), [expected], "errors alone, once");
        assert_eq!((told(&mut desk, now), desk.next(now)), (vec![], None));

        // Away for a moment is not over.
        desk.look(&[], now);
        desk.look(&stands, now + LASTS / 2);
        assert!(told(&mut desk, now + LASTS * 2).is_empty());
        desk.look(&[], now + LASTS * 2);
        let over = told(&mut desk, now + LASTS * 3);
        assert_eq!((over.len(), over[0].0.as_str()), (1, "BlockLostOver"));
        assert!(over[0].1.contains("it stood from 2026-01-01T00:00:00Z: 10.244.1.0/24"), "{over:?}");
        assert!(desk.followed.is_empty());
    }

    #[test]
    fn what_comes_and_goes_is_not_told() {
        let begin = Instant::now();
        let mut desk = Desk::new(0.0);
        desk.look(&[condition("RepairLoop", "route")], begin);
        desk.look(&[], begin + LASTS / 2);
        assert!(told(&mut desk, begin + LASTS * 10).is_empty());
        assert!(desk.followed.is_empty());
    }

    #[test]
    fn what_is_due_of_a_kind_is_told_together() {
        let begin = Instant::now();
        let mut desk = Desk::new(0.0);
        desk.look(&["a", "b", "c"].map(|subject| condition("Conflict", subject)), begin);
        let now = begin + LASTS;
        let all = told(&mut desk, now);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].1, "a: what to do (and 2 more: `pairway status` on the node)");
        // One more is news.
        desk.look(&["a", "b", "c", "d"].map(|subject| condition("Conflict", subject)), now);
        let more = told(&mut desk, now + LASTS);
        assert_eq!(more, [("Conflict".to_owned(), "d: what to do".to_owned())]);
    }

    #[test]
    fn what_could_not_be_told_is_told_later_or_when_it_is_over() {
        let begin = Instant::now();
        let mut desk = Desk::new(0.0);
        desk.look(&[condition("StoreUnavailable", "")], begin);
        let note = desk.due(begin + LASTS).unwrap();
        desk.take_back(note);
        assert!(desk.told.is_empty(), "it does not count");
        let again = desk.due(begin + LASTS).unwrap();
        assert_eq!(again.reason(), "StoreUnavailable");
        desk.take_back(again);
        let now = begin + LASTS * 100;
        desk.look(&[], now);
        let over = told(&mut desk, now + LASTS);
        assert_eq!((over.len(), over[0].0.as_str()), (1, "StoreUnavailableOver"));
    }

    #[test]
    fn no_more_is_told_or_followed_than_the_bounds_say() {
        let begin = Instant::now();
        let mut desk = Desk::new(1.0);
        let kinds: Vec<Condition> =
            (0..FOLLOWED * 2).map(|n| condition(&format!("Kind{n:04}"), "")).collect();
        desk.look(&kinds, begin);
        assert_eq!(desk.followed.len(), FOLLOWED);
        assert!(told(&mut desk, begin + LASTS).is_empty(), "this agent's share is a longer one");
        let now = begin + LASTS + LASTS_AT_RANDOM;
        assert_eq!(told(&mut desk, now).len(), BURST);
        assert_eq!(desk.next(now), Some(now + WITHIN));
        assert_eq!(told(&mut desk, now + WITHIN).len(), BURST, "what is left is told in its turn");
    }
}
