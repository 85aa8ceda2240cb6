//! The log in memory: the entries after a base, and the configurations among them.
//!
//! Everything up to the base has been delivered and is not kept any more. The log knows nothing of
//! commitment; it answers what is where, and who the members are as of where.

use std::collections::VecDeque;
use std::sync::Arc;

use synod_core::{Index, Members, batch_bytes};

use super::message::{Body, Entry, Position, Term};

/// What an entry that holds a configuration costs, roughly.
const MEMBERS_BYTES: usize = 256;

struct Kept {
    entry: Entry,
    bytes: usize,
}

/// Entries at `base.index + 1 ..= last().index`, without gaps.
///
/// Invariants: terms never decrease along the log; `configurations` is never empty, ascends, and its first
/// element is the configuration in force at the base.
pub(super) struct Log {
    base: Position,
    entries: VecDeque<Kept>,
    bytes: usize,
    configurations: VecDeque<(Index, Arc<Members>)>,
}

impl Log {
    /// A log that begins after `base`, where `members` were in force.
    pub(super) fn new(base: Position, members: Arc<Members>) -> Log {
        Log {
            base,
            entries: VecDeque::new(),
            bytes: 0,
            configurations: VecDeque::from([(base.index, members)]),
        }
    }

    /// The position before the first entry kept.
    pub(super) fn base(&self) -> Position {
        self.base
    }

    /// The index of the first entry kept, were there any.
    pub(super) fn first(&self) -> Index {
        self.base.index.next()
    }

    /// Where the log ends; the base when nothing is kept.
    pub(super) fn last(&self) -> Position {
        match self.entries.back() {
            Some(kept) => Position {
                index: Index(self.base.index.0 + self.entries.len() as u64),
                term: kept.entry.term,
            },
            None => self.base,
        }
    }

    /// What the entries kept weigh.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The entry at `index`, if it is kept.
    pub(super) fn entry(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.base.index.0 + 1)?;
        Some(&self.entries.get(usize::try_from(offset).ok()?)?.entry)
    }

    /// The term of the entry at `index`: of any that is kept, and of the base.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// Adds an entry at the end.
    pub(super) fn append(&mut self, entry: Entry) -> Index {
        assert!(
            entry.term >= self.last().term,
            "terms never decrease along a log: {:?} after {:?}",
            entry.term,
            self.last()
        );
        let bytes = match &entry.body {
            Body::Batch(batch) => batch_bytes(batch),
            Body::Members(_) => MEMBERS_BYTES,
        };
        let index = self.last().index.next();
        if let Body::Members(members) = &entry.body {
            self.configurations.push_back((index, members.clone()));
        }
        self.bytes += bytes;
        self.entries.push_back(Kept { entry, bytes });
        index
    }

    /// Forgets the entry at `from` and all after it; configurations among them are in force no more.
    pub(super) fn truncate(&mut self, from: Index) {
        assert!(from > self.base.index, "what was delivered and dropped cannot be taken back: {from:?}");
        while self.last().index >= from {
            let Some(kept) = self.entries.pop_back() else { break };
            self.bytes -= kept.bytes;
        }
        while self.configurations.len() > 1 && self.configuration_index() >= from {
            self.configurations.pop_back();
        }
    }

    /// Drops everything up to `index` from memory: it becomes the base.
    pub(super) fn drop_through(&mut self, index: Index) {
        while self.base.index < index {
            let Some(kept) = self.entries.pop_front() else { break };
            self.bytes -= kept.bytes;
            self.base = Position { index: self.base.index.next(), term: kept.entry.term };
        }
        while self.configurations.get(1).is_some_and(|(at, _)| *at <= self.base.index) {
            self.configurations.pop_front();
        }
    }

    /// Makes the log begin after `base`, which a snapshot covers: what follows stays if the log agrees there.
    pub(super) fn rebase(&mut self, base: Position, members: Arc<Members>) {
        if self.term_at(base.index) != Some(base.term) {
            *self = Log::new(base, members);
            return;
        }
        self.drop_through(base.index);
        if let Some(first) = self.configurations.front_mut() {
            *first = (base.index, members);
        }
    }

    /// The configuration that this replica acts upon: the newest in the log, committed or not (Raft section 6).
    pub(super) fn members(&self) -> &Arc<Members> {
        &self.configurations.back().expect("there is always a configuration").1
    }

    /// Where the newest configuration stands.
    pub(super) fn configuration_index(&self) -> Index {
        self.configurations.back().expect("there is always a configuration").0
    }

    /// The configuration in force at `index`, which must not lie before the base.
    pub(super) fn members_at(&self, index: Index) -> &Arc<Members> {
        let found = self.configurations.iter().rev().find(|(at, _)| *at <= index);
        &found.or(self.configurations.front()).expect("there is always a configuration").1
    }

    /// The configuration in force at `index`, and all after it.
    pub(super) fn configurations_since(&self, index: Index) -> impl Iterator<Item = &Arc<Members>> {
        let later = self.configurations.iter().skip_while(move |(at, _)| *at <= index);
        std::iter::once(self.members_at(index)).chain(later.map(|(_, members)| members))
    }

    /// The last place, at `index` or before it, whose term is at most `term`: the next place where a log with
    /// that term there can agree with this one. The base when there is no such entry.
    pub(super) fn last_of_term(&self, index: Index, term: Term) -> Position {
        let length = index.0.saturating_sub(self.base.index.0);
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(self.entries.len());
        let count = self.entries.partition_point(|kept| kept.entry.term <= term).min(length);
        match count.checked_sub(1) {
            Some(place) => Position {
                index: Index(self.base.index.0 + count as u64),
                term: self.entries[place].entry.term,
            },
            None => self.base,
        }
    }

    /// The entries from `from` on: at least one if there is any, and no more once `bytes_max` is reached.
    pub(super) fn entries_from(&self, from: Index, bytes_max: usize) -> Vec<Entry> {
        debug_assert!(from > self.base.index, "only what is kept can be sent");
        let offset = usize::try_from(from.0 - self.base.index.0 - 1).unwrap_or(usize::MAX);
        if offset >= self.entries.len() {
            return Vec::new();
        }
        let mut bytes = 0;
        let mut count = 0;
        for kept in self.entries.range(offset..) {
            if count > 0 && bytes + kept.bytes > bytes_max {
                break;
            }
            bytes += kept.bytes;
            count += 1;
        }
        self.entries.range(offset..offset + count).map(|kept| kept.entry.clone()).collect()
    }

    /// How many of the oldest entries, none after `limit`, must go for the rest to weigh at most `bytes_max`:
    /// the index of the last of them.
    pub(super) fn surplus(&self, bytes_max: usize, limit: Index) -> Index {
        let mut bytes = self.bytes;
        let mut index = self.base.index;
        for kept in &self.entries {
            if bytes <= bytes_max || index >= limit {
                break;
            }
            bytes -= kept.bytes;
            index = index.next();
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use synod_core::{NodeId, empty_batch};

    /// The log as it would be without memory limits: every entry from 1 on, and the initial members.
    struct Model {
        entries: Vec<Entry>,
        base: usize,
    }

    fn members(number: u64) -> Arc<Members> {
        Arc::new(Members::of([NodeId(number)]))
    }

    fn entry(term: u64, index: usize, changes_members: bool) -> Entry {
        let body =
            if changes_members { Body::Members(members(index as u64)) } else { Body::Batch(empty_batch()) };
        Entry { term: Term(term), body }
    }

    impl Model {
        fn agrees(&self, log: &Log) {
            assert_eq!(log.last().index.0 as usize, self.entries.len());
            assert_eq!(log.base().index.0 as usize, self.base);
            for index in self.base..=self.entries.len() {
                let term = index.checked_sub(1).map_or(Term(0), |place| self.entries[place].term);
                assert_eq!(log.term_at(Index(index as u64)), Some(term));
                let newest = self.entries[..index].iter().enumerate().rev();
                let mut configurations = newest.filter_map(|(place, entry)| match &entry.body {
                    Body::Members(members) => Some((place + 1, members.clone())),
                    Body::Batch(_) => None,
                });
                let (at, expected) = configurations.next().unwrap_or((0, members(0)));
                assert_eq!(*log.members_at(Index(index as u64)), expected);
                if index == self.entries.len() {
                    assert_eq!(*log.members(), expected);
                    assert_eq!(log.configuration_index().0 as usize, at);
                }
                for term in 0..6 {
                    let fits = |place: &usize| self.entries[*place - 1].term <= Term(term);
                    let expected = (self.base + 1..=index).rev().find(fits).unwrap_or(self.base);
                    assert_eq!(log.last_of_term(Index(index as u64), Term(term)).index.0 as usize, expected);
                }
            }
            let bytes: usize = log.entries.iter().map(|kept| kept.bytes).sum();
            assert_eq!(log.bytes(), bytes);
            assert_eq!(log.term_at(Index(self.entries.len() as u64 + 1)), None);
        }
    }

    proptest! {
        /// Whatever is appended, cut and dropped, the log answers like a plain list of entries.
        #[test]
        fn a_log_is_a_list(steps in proptest::collection::vec((0u8..5, 0usize..8), 1..40)) {
            let mut log = Log::new(Position::default(), members(0));
            let mut model = Model { entries: Vec::new(), base: 0 };
            let mut term = 1;
            for (kind, number) in steps {
                match kind {
                    0..=2 => {
                        term = (term + u64::from(number == 0)).min(5);
                        let entry = entry(term, model.entries.len() + 1, number == 1);
                        log.append(entry.clone());
                        model.entries.push(entry);
                    }
                    3 => {
                        let kept = model.entries.len().saturating_sub(number).max(model.base);
                        log.truncate(Index(kept as u64 + 1));
                        model.entries.truncate(kept);
                    }
                    _ => {
                        let upto = (model.base + number).min(model.entries.len());
                        log.drop_through(Index(upto as u64));
                        model.base = upto;
                    }
                }
                model.agrees(&log);
            }
        }
    }

    /// What is sent fits the limit, but is never nothing while there is something.
    #[test]
    fn an_append_holds_at_least_one_entry() {
        let mut log = Log::new(Position::default(), members(0));
        for index in 1..=5 {
            log.append(entry(1, index, false));
        }
        let one = log.bytes() / 5;
        assert_eq!(log.entries_from(Index(1), 0).len(), 1);
        assert_eq!(log.entries_from(Index(2), one * 3).len(), 3);
        assert_eq!(log.entries_from(Index(4), usize::MAX).len(), 2);
        assert_eq!(log.entries_from(Index(6), usize::MAX).len(), 0);
        assert_eq!(log.surplus(one * 2, Index(5)), Index(3));
        assert_eq!(log.surplus(one * 2, Index(1)), Index(1));
    }
}
