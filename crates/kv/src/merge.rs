//! Two states made one: for replicas each of which has forgotten what the other lacks.
//!
//! A snapshot of another replica is usually taken over as it is, and what one has beyond it is delivered once more on top. When
//! a partition lasted so long that both sides have given up the casts that the other one needs, no snapshot holds all, and the two states
//! are merged key by key. That is possible because a state knows who wrote what last:
//!
//! - where both have a mark, the greater one wins;
//! - a state without a mark for a key knows the last of all writes up to its floor, for it has them all. So it wins
//!   against a mark at or below its floor, and loses against a greater one;
//! - where neither has a mark, the state with the higher floor knows more.
//!
//! The history does not survive: what is merged has one revision, at which all keys were put.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use synod_core::Index;

use crate::arena::Rev;
use crate::convergent::Convergent;
use crate::record::KeyValue;
use crate::snapshot::State;
use crate::store::Store;
use crate::view::NO_END;

impl Store {
    /// This state and another one of the same cluster as one, which is nobody's history yet.
    pub(crate) fn merged(&self, other: State, at: Index) -> io::Result<Store> {
        let (Some(ours), Some(theirs)) = (&self.convergent, &other.convergent) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut both = ours.clone();
        both.vector.join(&theirs.vector);
        both.commands.join(&theirs.commands);
        let mut merged = Store::convergent(ours.node);
        // Below this no replica has ever been with so many commands: the merged history begins here.
        let revision = merged.revision() + both.commands.total() as i64;
        let mut keys: BTreeSet<Bytes> = BTreeSet::new();
        for view in [&self.mvcc.view, &other.mvcc.view] {
            keys.extend(
                view.live_span(&[], NO_END).map(|at| Bytes::copy_from_slice(view.arena.record(at).key())),
            );
        }
        for (sub, key) in (0u32..).zip(&keys) {
            let view = if ours.decides(theirs, key) { &self.mvcc.view } else { &other.mvcc.view };
            if let Some(record) = view.live(key) {
                let pair = KeyValue { key, value: record.pair().value, ..KeyValue::default() };
                merged.mvcc.put(Rev { main: revision, sub }, pair);
            }
        }
        merged.mvcc.view.revision = revision;
        merged.mvcc.compact(revision);
        merged.applied = at;
        both.take_marks(theirs);
        merged.merge_members(self, &other, &mut both);
        merged.convergent = Some(both);
        Ok(merged)
    }

    fn merge_members(&mut self, ours: &Store, theirs: &State, both: &mut Convergent) {
        let (Some(our_marks), Some(their_marks)) = (&ours.convergent, &theirs.convergent) else { return };
        let nodes: BTreeSet<u64> =
            our_marks.members.keys().chain(their_marks.members.keys()).copied().collect();
        for node in nodes {
            let (our, their) = (our_marks.members.get(&node), their_marks.members.get(&node));
            let (mark, attributes) = if our >= their {
                (our, ours.members.get(&node))
            } else {
                (their, theirs.members.get(&node))
            };
            both.members.extend(mark.map(|mark| (node, *mark)));
            self.members.extend(attributes.map(|attributes| (node, attributes.clone())));
        }
        self.quota = ours.quota;
    }
}

impl Convergent {
    /// Whether this state's opinion of a key stands against the other's.
    fn decides(&self, other: &Convergent, key: &[u8]) -> bool {
        match (self.mark(key), other.mark(key)) {
            (Some(ours), Some(theirs)) => ours >= theirs,
            (Some(ours), None) => ours.clock > other.floor,
            (None, Some(theirs)) => theirs.clock <= self.floor,
            (None, None) => self.floor >= other.floor,
        }
    }

    fn take_marks(&mut self, other: &Convergent) {
        // Whatever is still to come is above either floor: a state misses nothing at or below its own.
        let floor = self.floor.max(other.floor);
        for (key, mark) in &other.keys {
            if self.keys.get(key).is_none_or(|known| mark > known) {
                self.note(key.clone(), *mark);
            }
        }
        for swept in &other.ranges {
            if !self.ranges.contains(swept) {
                self.sweep(swept.clone());
            }
        }
        self.raise_floor(floor);
    }
}
