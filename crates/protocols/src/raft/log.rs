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
