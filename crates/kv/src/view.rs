//! The readable part of the store: all versions of all keys, as of a revision.
//!
//! A [`View`] is what the store reads from while it applies, and a copy of it is what snapshots, large ranges and
//! hashes read from elsewhere: copying shares chunks and leaves, so it costs a few bytes for each thousand keys.

use std::ops::Bound;

use smallvec::SmallVec;

use crate::arena::{Arena, At, Record};
use crate::error::OpError;
use crate::index::{Index, Place};
use crate::op::{Txn, TxnReply};
use crate::slot::Slot;

/// So many keys are approached at once without a list that is allocated.
const APPROACHED: usize = 64;

/// The revision of an empty store; the first write gets the next.
pub const REVISION_FIRST: i64 = 1;

/// Compacted so far when nothing was: one below the lowest revision that can be asked for.
pub const COMPACTED_NEVER: i64 = -1;

/// All versions that are kept.
#[derive(Clone, Debug)]
pub struct View {
    pub(crate) arena: Arena,
    pub(crate) index: Index,
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
}

/// The end of a range as requests give it: empty for one key, one zero byte for no end.
pub(crate) const NO_END: &[u8] = b"\0";

impl View {
    /// Looks where the versions of these keys are, so that their memory is near when they are read or superseded next. Each pass asks for all
    /// of them what the next one needs, so that their answers are waited for together.
    pub(crate) fn approach<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let slots: SmallVec<[&Slot; APPROACHED]> = keys.filter_map(|key| self.index.guess(key)).collect();
        self.arena.touch(slots.iter().map(|slot| slot.head));
        let older = || slots.iter().filter_map(|slot| slot.older.as_ref());
        std::hint::black_box(older().fold(0, |sum, older| sum ^ older.capacity()));
        std::hint::black_box(older().filter_map(|older| older.last()).fold(0, |sum, last| sum ^ last.main));
    }

    pub(crate) fn empty() -> View {
        View {
            arena: Arena::new(),
            index: Index::default(),
            revision: REVISION_FIRST,
            compacted: COMPACTED_NEVER,
        }
    }

    /// The main revision of the last write.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The lowest revision that can be read, or [`COMPACTED_NEVER`].
    #[must_use]
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The revision that a request means; zero and below mean the present.
    ///
    /// # Errors
    /// When it lies above the present, or below what is kept.
    pub fn resolve(&self, revision: i64) -> Result<i64, OpError> {
        match revision {
            now if now <= 0 => Ok(self.revision),
            future if future > self.revision => Err(OpError::FutureRevision),
            gone if gone < self.compacted => Err(OpError::Compacted),
            kept => Ok(kept),
        }
    }

    /// Runs a transaction that only reads.
    ///
    /// # Errors
    /// When a revision cannot be read; [`OpError::Malformed`] when it could write.
    pub fn read_txn(&self, txn: &Txn) -> Result<TxnReply, OpError> {
        crate::txn::read(self, txn)
    }

    /// The places that a request's key and range end span.
    pub(crate) fn span(&self, key: &[u8], range_end: &[u8]) -> (Place, Place) {
        let (index, arena) = (&self.index, &self.arena);
        if range_end.is_empty() {
            return match index.find(arena, key) {
                Ok(place) => (place, index.lower_bound(arena, Bound::Excluded(key))),
                Err(_) => (index.end(), index.end()),
            };
        }
        let from = index.lower_bound(arena, Bound::Included(key));
        let to = if range_end == NO_END {
            index.end()
        } else {
            index.lower_bound(arena, Bound::Included(range_end))
        };
        // An end below the beginning is an empty range, not an error.
        (from, to.max(from))
    }

    /// A slot's version at a main revision, if its key exists then.
    pub(crate) fn live_in(&self, slot: &Slot, main: i64) -> Option<At> {
        if main >= self.arena.newest() {
            // Nothing is newer, so the newest version it is, and its record need not be looked at.
            return (!slot.head.is_tombstone()).then_some(slot.head);
        }
        slot.live_at(&self.arena, main)
    }

    /// The key's record at a main revision, if it exists then.
    pub(crate) fn live_at(&self, key: &[u8], main: i64) -> Option<Record<'_>> {
        let at = self.live_in(self.index.get(&self.arena, key)?, main)?;
        Some(self.arena.record(at))
    }

    /// The key's record now, if it exists.
    pub(crate) fn live(&self, key: &[u8]) -> Option<Record<'_>> {
        let slot = self.index.get(&self.arena, key)?;
        (!slot.head.is_tombstone()).then(|| self.arena.record(slot.head))
    }

    /// The present versions of the keys that a request spans.
    pub(crate) fn live_span(&self, key: &[u8], range_end: &[u8]) -> impl Iterator<Item = At> {
        let (from, to) = self.span(key, range_end);
        self.index.slots(from, to).map(|(_, slot)| slot.head).filter(|at| !at.is_tombstone())
    }

    /// What the key was before the change that this record is, as a watcher gets it: nothing for a creation, nor when
    /// that version is below what is kept.
    pub(crate) fn before(&self, record: &Record<'_>) -> Option<Record<'_>> {
        let main = record.main();
        if main - 1 < self.compacted || (!record.tombstone && record.pair().version == 1) {
            return None;
        }
        self.live_at(record.key(), main - 1)
    }
}
