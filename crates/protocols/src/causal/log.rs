//! The casts that a replica keeps, in the order in which it delivers them.
//!
//! They are kept for two reasons: what lies behind the newest snapshot is delivered again after a restart, and what some member may not
//! have yet is said to it again. In front of them lies the base: the deliveries that only the state holds. A member that
//! lacks any of those gets a snapshot.

use std::collections::VecDeque;
use std::sync::Arc;

use synod_core::{Index, Lsn, NodeId, Time, Vector, batch_bytes};

use super::membership::Membership;
use super::message::{Body, Cast};

/// A kept cast.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) cast: Arc<Cast>,
    /// The record that holds it; zero when it was on the disk before.
    pub(super) lsn: Lsn,
    /// When it was accepted.
    pub(super) since: Time,
}

/// What is known of a prefix of the deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    pub(super) vector: Vector,
    /// The greatest clock in it.
    pub(super) clock: u64,
    pub(super) members: Membership,
}

impl Past {
    /// How many deliveries it holds: their position in a replica's sequence, whatever their order was.
    pub(super) fn at(&self) -> Index {
        Index(self.vector.total())
    }

    pub(super) fn push(&mut self, cast: &Cast) {
        self.vector.raise(cast.origin, cast.number);
        self.clock = self.clock.max(cast.last_clock());
        if let Body::Members(members) = &cast.body {
            self.members.join(members);
        }
    }

    /// Whether the cast is in it.
    pub(super) fn holds(&self, origin: NodeId, number: u64) -> bool {
        self.vector.get(origin) >= number
    }
}

/// The kept casts.
///
/// Invariant: entry `i` is the delivery at `base.at() + 1 + i`; each origin's numbers follow one another without gaps, from the base on.
#[derive(Clone, Debug)]
pub(super) struct Log {
    base: Past,
    entries: VecDeque<Entry>,
    /// The base and all entries.
    accepted: Vector,
    bytes: usize,
}

/// What a cast costs in memory.
pub(super) fn bytes_of(cast: &Cast) -> usize {
    match &cast.body {
        Body::Batch(batch) => batch_bytes(batch),
        Body::Members(_) => 256,
    }
}

impl Log {
    pub(super) fn new(base: Past) -> Log {
        Log { accepted: base.vector.clone(), base, entries: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn base(&self) -> &Past {
        &self.base
    }

    /// Everything accepted so far.
    pub(super) fn accepted(&self) -> &Vector {
        &self.accepted
    }

    /// The position of the last cast.
    pub(super) fn last(&self) -> Index {
        Index(self.base.at().0 + self.entries.len() as u64)
    }

    /// What the kept casts cost in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, entry: Entry) {
        let cast = &entry.cast;
        assert_eq!(
            cast.number,
            self.accepted.get(cast.origin) + 1,
            "the casts of {:?} are accepted in their order, without gaps",
            cast.origin
        );
        self.accepted.raise(cast.origin, cast.number);
        self.bytes += bytes_of(cast);
        self.entries.push_back(entry);
    }

    /// The cast at a position.
    pub(super) fn get(&self, at: Index) -> Option<&Entry> {
        let place = at.0.checked_sub(self.base.at().0 + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// The kept casts behind a position.
    pub(super) fn after(&self, at: Index) -> impl Iterator<Item = (Index, &Entry)> {
        let first = self.base.at().0;
        let skip = usize::try_from(at.0.saturating_sub(first)).unwrap_or(usize::MAX);
        self.entries.iter().enumerate().skip(skip).map(move |(i, entry)| (Index(first + 1 + i as u64), entry))
    }

    /// All kept casts.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// What is known of the prefix that ends at a position not before the base.
    pub(super) fn past_at(&self, at: Index) -> Past {
        assert!(at >= self.base.at() && at <= self.last(), "{at:?} lies outside of the log");
        let mut past = self.base.clone();
        for entry in self.entries.iter().take((at.0 - self.base.at().0) as usize) {
            past.push(&entry.cast);
        }
        past
    }

    /// Forgets the first cast.
    pub(super) fn forget_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= bytes_of(&entry.cast);
            self.base.push(&entry.cast);
        }
    }

    /// Begins anew behind a state that holds this; what is not in it stays, in its order.
    ///
    /// That order is still one in which they may be delivered: whatever one depends on is in the state, or stays before it.
    pub(super) fn rebase(&mut self, base: Past) {
        let entries = std::mem::take(&mut self.entries);
        *self = Log::new(base);
        for entry in entries {
            if !self.base.holds(entry.cast.origin, entry.cast.number) {
                self.push(entry);
            }
        }
    }
}
