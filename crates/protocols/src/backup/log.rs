//! The log in memory: the entries after a base.
//!
//! Everything up to the base has been delivered and is not kept any more. The log knows nothing of views beyond the number
//! in each entry; it answers what is where.

use std::collections::VecDeque;

use synod_core::{Index, batch_bytes};

use super::message::{Body, Entry, Position, ViewNumber};

/// What an entry that holds members costs, roughly.
const MEMBERS_BYTES: usize = 256;

struct Kept {
    entry: Entry,
    bytes: usize,
}

/// Entries at `base.index + 1 ..= last().index`, without gaps.
///
/// Invariant: view numbers never decrease along the log, because a primary appends behind what it has.
pub(super) struct Log {
    base: Position,
    entries: VecDeque<Kept>,
    bytes: usize,
}

impl Log {
    /// A log that begins after `base`.
    pub(super) fn new(base: Position) -> Log {
        Log { base, entries: VecDeque::new(), bytes: 0 }
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
                view: kept.entry.view,
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

    /// The view of the entry at `index`: of any that is kept, and of the base.
    pub(super) fn view_at(&self, index: Index) -> Option<ViewNumber> {
        if index == self.base.index {
            return Some(self.base.view);
        }
        self.entry(index).map(|entry| entry.view)
    }

    /// Adds an entry at the end.
    pub(super) fn append(&mut self, entry: Entry) -> Index {
        assert!(
            entry.view >= self.last().view,
            "views never decrease along a log: {:?} after {:?}",
            entry.view,
            self.last()
        );
        let bytes = match &entry.body {
            Body::Batch(batch) => batch_bytes(batch),
            Body::Begin(_) => MEMBERS_BYTES,
        };
        self.bytes += bytes;
        self.entries.push_back(Kept { entry, bytes });
        self.last().index
    }

    /// Forgets the entry at `from` and all after it.
    pub(super) fn truncate(&mut self, from: Index) {
        assert!(from > self.base.index, "what was delivered and dropped cannot be taken back: {from:?}");
        while self.last().index >= from {
            let Some(kept) = self.entries.pop_back() else { break };
            self.bytes -= kept.bytes;
        }
    }

    /// Drops everything up to `index` from memory: it becomes the base.
    pub(super) fn drop_through(&mut self, index: Index) {
        while self.base.index < index {
            let Some(kept) = self.entries.pop_front() else { break };
            self.bytes -= kept.bytes;
            self.base = Position { index: self.base.index.next(), view: kept.entry.view };
        }
    }

    /// Makes the log begin after `base`, which a snapshot covers: what follows stays if the log agrees there.
    pub(super) fn rebase(&mut self, base: Position) {
        if self.view_at(base.index) == Some(base.view) {
            self.drop_through(base.index);
        } else {
            *self = Log::new(base);
        }
    }

    /// The last place, at `index` or before it, whose view is at most `view`: the next place where a log with that view
    /// there can agree with this one. The base when there is no such entry.
    pub(super) fn last_of_view(&self, index: Index, view: ViewNumber) -> Position {
        let length = index.0.saturating_sub(self.base.index.0);
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(self.entries.len());
        let count = self.entries.partition_point(|kept| kept.entry.view <= view).min(length);
        match count.checked_sub(1) {
            Some(place) => Position {
                index: Index(self.base.index.0 + count as u64),
                view: self.entries[place].entry.view,
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
        let (mut bytes, mut count) = (0, 0);
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
        let (mut bytes, mut index) = (self.bytes, self.base.index);
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
    use synod_core::empty_batch;

    fn log(views: &[u64]) -> Log {
        let mut log = Log::new(Position::default());
        for view in views {
            log.append(Entry { view: ViewNumber(*view), body: Body::Batch(empty_batch()) });
        }
        log
    }

    /// A log answers what is where, whatever was cut at its end and dropped at its front.
    #[test]
    fn a_log_is_a_list() {
        let mut log = log(&[1, 1, 2, 4]);
        assert_eq!(log.last(), Position { index: Index(4), view: ViewNumber(4) });
        assert_eq!(
            log.last_of_view(Index(4), ViewNumber(3)),
            Position { index: Index(3), view: ViewNumber(2) }
        );
        assert_eq!(log.last_of_view(Index(2), ViewNumber(9)).index, Index(2));
        log.drop_through(Index(2));
        assert_eq!((log.view_at(Index(2)), log.view_at(Index(1))), (Some(ViewNumber(1)), None));
        log.truncate(Index(4));
        assert_eq!(log.last().index, Index(3));
        assert_eq!(log.last_of_view(Index(3), ViewNumber(0)), log.base());
    }

    /// A snapshot keeps what follows it where the log agrees, and nothing where it does not.
    #[test]
    fn a_snapshot_keeps_what_agrees() {
        let mut agrees = log(&[1, 1, 2]);
        agrees.rebase(Position { index: Index(2), view: ViewNumber(1) });
        assert_eq!(agrees.last().index, Index(3));
        let mut differs = log(&[1, 1, 2]);
        differs.rebase(Position { index: Index(2), view: ViewNumber(3) });
        assert_eq!(differs.last(), Position { index: Index(2), view: ViewNumber(3) });
    }

    /// What is sent fits the limit, but is never nothing while there is something.
    #[test]
    fn a_message_holds_at_least_one_entry() {
        let log = log(&[1; 5]);
        let one = log.bytes() / 5;
        assert_eq!(log.entries_from(Index(1), 0).len(), 1);
        assert_eq!(log.entries_from(Index(2), one * 3).len(), 3);
        assert_eq!(log.entries_from(Index(6), usize::MAX).len(), 0);
        assert_eq!(log.surplus(one * 2, Index(5)), Index(3));
    }
}
