//! A run of neighbouring keys, and how a key is found in it.
//!
//! Keys lie in their records, anywhere in memory, so a search that compared keys would wait for memory at each step. It goes
//! by hints first: a few bytes of each key, packed beside one another, taken from where the keys of the run begin to
//! differ. Only where hints are equal are records looked at.

use std::cmp::Ordering;

use smallvec::SmallVec;

use crate::arena::Arena;
use crate::slot::Slot;

/// More slots than this and a leaf is split.
pub(crate) const LEAF_SLOTS_MAX: usize = 512;

/// A run of keys.
///
/// Invariants: all keys begin with `prefix`; `hints` has for each slot the four bytes of its key that follow the prefix.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leaf {
    pub(crate) slots: Vec<Slot>,
    /// For searching without looking at records, which lie anywhere in memory.
    pub(crate) hints: Vec<u32>,
    pub(crate) prefix: SmallVec<[u8; 24]>,
    /// How many of the keys are alive now.
    pub(crate) live: usize,
    /// The newest main revision in it.
    pub(crate) newest: i64,
}

/// What a search compares first: four bytes of the key from `skip` on, missing ones being zero.
fn hint(key: &[u8], skip: usize) -> u32 {
    let rest = &key[skip..];
    match rest.first_chunk::<4>() {
        Some(bytes) => u32::from_be_bytes(*bytes),
        None => rest.iter().chain([0; 4].iter()).take(4).fold(0, |hint, byte| hint << 8 | u32::from(*byte)),
    }
}

impl Leaf {
    /// The first slot whose key begins as `key` does, as far as the hints go.
    pub(crate) fn guess(&self, key: &[u8]) -> Option<&Slot> {
        let rest = key.strip_prefix(&self.prefix[..])?;
        let wanted = hint(rest, 0);
        let place = self.hints.partition_point(|hint| *hint < wanted);
        self.slots.get(place).filter(|_| self.hints[place] == wanted)
    }

    /// Where `key` is, or where it would be.
    pub(crate) fn find(&self, arena: &Arena, key: &[u8]) -> Result<usize, usize> {
        let skip = self.prefix.len();
        match key[..skip.min(key.len())].cmp(&self.prefix[..]) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.slots.len()),
            Ordering::Equal => {}
        }
        let wanted = hint(key, skip);
        let from = self.hints.partition_point(|hint| *hint < wanted);
        let alike = self.hints[from..].partition_point(|hint| *hint == wanted);
        let found = self.slots[from..from + alike].binary_search_by(|slot| arena.compare(slot.head, key));
        found.map(|slot| from + slot).map_err(|slot| from + slot)
    }

    pub(crate) fn insert(&mut self, arena: &Arena, position: usize, key: &[u8], slot: Slot) {
        if self.slots.is_empty() {
            self.prefix = key.into();
        } else if !key.starts_with(&self.prefix) {
            let common = common(key, &self.prefix);
            self.prefix.truncate(common);
            self.recompute(arena);
        }
        if self.slots.len() == self.slots.capacity() {
            // Grows by an eighth instead of doubling: a million keys are mostly slots.
            let more = (self.slots.len() / 8).max(8);
            self.slots.reserve_exact(more);
            self.hints.reserve_exact(more);
        }
        self.slots.insert(position, slot);
        self.hints.insert(position, hint(key, self.prefix.len()));
    }

    fn recompute(&mut self, arena: &Arena) {
        let skip = self.prefix.len();
        self.hints.clear();
        self.hints.extend(self.slots.iter().map(|slot| hint(arena.record(slot.head).key(), skip)));
    }

    /// Where the few keys begin, or end, that make the hints of nearly all others equal: they have a shorter beginning in common with those
    /// than those have among themselves. Under one roof with them every search would have to look at records.
    pub(crate) fn seam(&self) -> Option<usize> {
        let most = *self.hints.get(self.hints.len() / 2)?;
        let from = self.hints.partition_point(|hint| *hint < most);
        let to = self.hints.partition_point(|hint| *hint <= most);
        let is_most = (to - from) * 8 >= self.hints.len() * 7;
        let seam = if to < self.hints.len() { to } else { from };
        (is_most && seam > 0).then_some(seam)
    }

    /// Lengthens the prefix if all keys go on alike behind it: each such byte in the hints tells nothing apart.
    pub(crate) fn sharpen(&mut self, arena: &Arena) {
        let (Some(first), Some(last)) = (self.slots.first(), self.slots.last()) else { return };
        let first = arena.record(first.head).key();
        let common = common(first, arena.record(last.head).key());
        if common > self.prefix.len() {
            self.prefix = first[..common].into();
            self.recompute(arena);
        }
    }
}

/// How many bytes two keys have in common at their beginning.
pub(crate) fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
