//! Finding versions by key: a sorted array of sorted arrays.
//!
//! Leaves hold up to [`LEAF_SLOTS_MAX`] keys each, in order; above them stands one array of the leaves with a separator
//! key before each. A slot is sixteen bytes and holds no key: the key is read from the newest version's record. That is
//! what brings a million keys of 16 + 256 bytes to about 324 bytes each, all told; maps that own their keys need 80 bytes
//! more (`docs/adr/0003-store.md`).
//!
//! Leaves are shared with frozen copies and copied when written to. Each knows how many of its keys are alive and the
//! newest revision in it, so that counting a range at a recent revision looks at leaves, not at keys.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use crate::arena::{Arena, At};
use crate::leaf::{LEAF_SLOTS_MAX, Leaf, common};
use crate::slot::{Slot, Trimmed, Version};

/// A leaf, and a key that is not above its first and above everything before it.
#[derive(Clone, Debug)]
struct Branch {
    separator: Arc<[u8]>,
    leaf: Arc<Leaf>,
}

/// A place in the index; good until the next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    leaf: usize,
    slot: usize,
}

impl Place {
    /// Just behind a key; good for [`Index::slots`].
    pub(crate) fn after(place: Place) -> Place {
        Place { slot: place.slot + 1, ..place }
    }
}

/// All keys, in order.
///
/// Invariants: no leaf is empty, except that there is always one leaf; separators ascend strictly, and all but the first,
/// which counts as below everything, begin with `prefix`; `hints` has for each the eight bytes that follow it.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    branches: Vec<Branch>,
    hints: Vec<u64>,
    prefix: Box<[u8]>,
}

impl Default for Index {
    fn default() -> Self {
        let first = Branch { separator: Arc::from([]), leaf: Arc::default() };
        Index { branches: vec![first], hints: vec![0], prefix: Box::default() }
    }
}

/// Eight bytes of a separator or a key from `skip` on, missing ones being zero.
fn hint(key: &[u8], skip: usize) -> u64 {
    let rest = &key[skip..];
    match rest.first_chunk::<8>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => rest.iter().chain(&[0; 8]).take(8).fold(0, |hint, byte| hint << 8 | u64::from(*byte)),
    }
}

impl Index {
    /// Where `key` is, or where it would be.
    pub(crate) fn find(&self, arena: &Arena, key: &[u8]) -> Result<Place, Place> {
        let leaf = self.find_leaf(key);
        match self.branches[leaf].leaf.find(arena, key) {
            Ok(slot) => Ok(Place { leaf, slot }),
            Err(slot) => Err(Place { leaf, slot }),
        }
    }

    /// Where the key is if it is anywhere, as far as that can be told without looking at a record.
    pub(crate) fn guess(&self, key: &[u8]) -> Option<&Slot> {
        self.branches[self.find_leaf(key)].leaf.guess(key)
    }

    /// The leaf that has the key if any has: how many separators, the first aside, are not above it.
    fn find_leaf(&self, key: &[u8]) -> usize {
        let skip = self.prefix.len();
        match key[..skip.min(key.len())].cmp(&self.prefix) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.branches.len() - 1,
            Ordering::Equal => {}
        }
        let wanted = hint(key, skip);
        let below = self.hints[1..].partition_point(|hint| *hint < wanted);
        let alike = self.hints[1 + below..].partition_point(|hint| *hint == wanted);
        let alike = &self.branches[1 + below..1 + below + alike];
        below + alike.partition_point(|branch| *branch.separator <= *key)
    }

    fn insert_branch(&mut self, position: usize, branch: Branch) {
        if self.branches.len() == 1 {
            self.prefix = branch.separator[..].into();
        } else if !branch.separator.starts_with(&self.prefix) {
            let common = common(&branch.separator, &self.prefix);
            self.prefix = self.prefix[..common].into();
            for (hint_of, branch) in self.hints.iter_mut().zip(&self.branches).skip(1) {
                *hint_of = hint(&branch.separator, common);
            }
        }
        self.hints.insert(position, hint(&branch.separator, self.prefix.len()));
        self.branches.insert(position, branch);
    }

    fn remove_branch(&mut self, position: usize) {
        self.branches.remove(position);
        self.hints.remove(position);
    }

    pub(crate) fn get(&self, arena: &Arena, key: &[u8]) -> Option<&Slot> {
        self.find(arena, key).ok().map(|place| self.slot(place))
    }

    pub(crate) fn slot(&self, place: Place) -> &Slot {
        &self.branches[place.leaf].leaf.slots[place.slot]
    }

    /// Adds a version of the key at `place` (as `find` gave it), newer than all that it has, of which `before` is the newest.
    pub(crate) fn push(
        &mut self,
        arena: &Arena,
        place: Result<Place, Place>,
        key: &[u8],
        main: i64,
        at: At,
        before: Option<Version>,
    ) {
        match (place, before) {
            (Ok(place), Some(before)) => self.push_version(place, main, at, before),
            (Err(place), None) => self.insert(arena, place, key, main, at),
            _ => unreachable!("a key that has a place has a version, and no other"),
        }
    }

    fn push_version(&mut self, place: Place, main: i64, at: At, before: Version) {
        let leaf = Arc::make_mut(&mut self.branches[place.leaf].leaf);
        let slot = &mut leaf.slots[place.slot];
        debug_assert_eq!(slot.head, before.at, "what comes before is the newest");
        match &mut slot.older {
            Some(older) => Arc::make_mut(older).push(before),
            None => slot.older = Some(Arc::new(vec![before])),
        }
        slot.head = at;
        leaf.live = leaf.live + usize::from(!at.is_tombstone()) - usize::from(!before.at.is_tombstone());
        leaf.newest = leaf.newest.max(main);
    }

    fn insert(&mut self, arena: &Arena, mut place: Place, key: &[u8], main: i64, at: At) {
        if self.branches[place.leaf].leaf.slots.len() >= LEAF_SLOTS_MAX {
            place = self.split(arena, place, key);
        }
        let leaf = Arc::make_mut(&mut self.branches[place.leaf].leaf);
        leaf.insert(arena, place.slot, key, Slot::one(at));
        leaf.live += usize::from(!at.is_tombstone());
        leaf.newest = leaf.newest.max(main);
    }

    /// Makes room in a full leaf; gives the place that corresponds to `place` afterwards.
    fn split(&mut self, arena: &Arena, place: Place, key: &[u8]) -> Place {
        let full = &mut self.branches[place.leaf];
        let seam = full.leaf.seam();
        if seam.is_none() && place.slot == full.leaf.slots.len() {
            // Keys that come in ascending order fill leaves to the brim: the new key begins a leaf.
            let last = arena.record(full.leaf.slots[place.slot - 1].head).key();
            let branch = Branch { separator: separator(last, key), leaf: Arc::default() };
            self.insert_branch(place.leaf + 1, branch);
            return Place { leaf: place.leaf + 1, slot: 0 };
        }
        let leaf = Arc::make_mut(&mut full.leaf);
        let seam = seam.unwrap_or(leaf.slots.len() / 2);
        let right: Vec<Slot> = leaf.slots.drain(seam..).collect();
        let hints: Vec<u32> = leaf.hints.drain(seam..).collect();
        leaf.slots.shrink_to(seam + LEAF_SLOTS_MAX / 8);
        leaf.hints.shrink_to(seam + LEAF_SLOTS_MAX / 8);
        let right_live = right.iter().filter(|slot| !slot.head.is_tombstone()).count();
        leaf.live -= right_live;
        let left_last = arena.record(leaf.slots[seam - 1].head).key();
        let separator = separator(left_last, arena.record(right[0].head).key());
        let (prefix, newest) = (leaf.prefix.clone(), leaf.newest);
        let mut right = Leaf { slots: right, hints, prefix, live: right_live, newest };
        leaf.sharpen(arena);
        right.sharpen(arena);
        // Between the two, the separator decides, because the next search will go by it.
        let goes_left = place.slot < seam || (place.slot == seam && *key < *separator);
        self.insert_branch(place.leaf + 1, Branch { separator, leaf: Arc::new(right) });
        if goes_left { place } else { Place { leaf: place.leaf + 1, slot: place.slot - seam } }
    }

    /// Lets `change` rework the slot at `place`, whose head must keep its life or death; `Emptied` removes it.
    pub(crate) fn rework(&mut self, place: Place, change: impl FnOnce(&mut Slot) -> Trimmed) {
        let leaf = Arc::make_mut(&mut self.branches[place.leaf].leaf);
        let slot = &mut leaf.slots[place.slot];
        let was_live = !slot.head.is_tombstone();
        if change(slot) != Trimmed::Emptied {
            assert_eq!(
                was_live,
                !slot.head.is_tombstone(),
                "reworking moves versions, it does not change them"
            );
            return;
        }
        assert!(!was_live, "only a deleted key loses all its versions");
        leaf.slots.remove(place.slot);
        leaf.hints.remove(place.slot);
        if leaf.slots.is_empty() && self.branches.len() > 1 {
            self.remove_branch(place.leaf);
        }
    }

    /// The place of the first key that is not below the bound.
    pub(crate) fn lower_bound(&self, arena: &Arena, bound: Bound<&[u8]>) -> Place {
        let end = Place { leaf: self.branches.len(), slot: 0 };
        match bound {
            Bound::Unbounded => end,
            Bound::Included(key) => self.normal(self.find(arena, key).unwrap_or_else(|place| place)),
            Bound::Excluded(key) => self.normal(match self.find(arena, key) {
                Ok(place) => Place { slot: place.slot + 1, ..place },
                Err(place) => place,
            }),
        }
    }

    /// A place past the end of a leaf is the beginning of the next.
    fn normal(&self, place: Place) -> Place {
        match self.branches.get(place.leaf) {
            Some(branch) if place.slot >= branch.leaf.slots.len() => Place { leaf: place.leaf + 1, slot: 0 },
            _ => place,
        }
    }

    /// The slots from one place to before another, with their places.
    pub(crate) fn slots(&self, from: Place, to: Place) -> impl Iterator<Item = (Place, &Slot)> {
        let mut next = self.normal(from);
        std::iter::from_fn(move || {
            if next >= to {
                return None;
            }
            let place = next;
            let slot = self.branches.get(place.leaf)?.leaf.slots.get(place.slot)?;
            next = self.normal(Place { slot: place.slot + 1, ..place });
            Some((place, slot))
        })
    }

    /// The beginning.
    pub(crate) fn first(&self) -> Place {
        Place { leaf: 0, slot: 0 }
    }

    /// The place behind everything.
    pub(crate) fn end(&self) -> Place {
        Place { leaf: self.branches.len(), slot: 0 }
    }

    /// How many keys between two places exist at a main revision.
    pub(crate) fn count(&self, arena: &Arena, from: Place, to: Place, main: i64) -> usize {
        let mut count = 0;
        for leaf in from.leaf..self.branches.len().min(to.leaf + 1) {
            let it = &self.branches[leaf].leaf;
            let low = if leaf == from.leaf { from.slot } else { 0 };
            let high = if leaf == to.leaf { to.slot } else { it.slots.len() };
            let current = it.newest <= main;
            if current && low == 0 && high == it.slots.len() {
                count += it.live;
            } else if low < high {
                let exists = |slot: &&Slot| match current {
                    true => !slot.head.is_tombstone(),
                    false => slot.live_at(arena, main).is_some(),
                };
                count += it.slots[low..high].iter().filter(exists).count();
            }
        }
        count
    }

    /// How many slots lie between two places, dead ones included: an upper bound for a range's size, cheaply.
    pub(crate) fn breadth(&self, from: Place, to: Place) -> usize {
        let mut breadth = 0;
        for leaf in from.leaf..self.branches.len().min(to.leaf + 1) {
            let slots = self.branches[leaf].leaf.slots.len();
            let high = if leaf == to.leaf { to.slot } else { slots };
            breadth += high.saturating_sub(if leaf == from.leaf { from.slot } else { 0 });
        }
        breadth
    }

    /// How many keys there are, deleted ones with a version left included.
    pub(crate) fn len(&self) -> usize {
        self.branches.iter().map(|branch| branch.leaf.slots.len()).sum()
    }

    /// Adds a key above all others, with all its versions: how a snapshot is read back.
    pub(crate) fn append(&mut self, arena: &Arena, key: &[u8], newest: i64, slot: Slot) {
        let last = self.branches.last_mut().expect("there is always a leaf");
        if last.leaf.slots.len() >= LEAF_SLOTS_MAX {
            let before = arena.record(last.leaf.slots[LEAF_SLOTS_MAX - 1].head).key();
            let branch = Branch { separator: separator(before, key), leaf: Arc::default() };
            self.insert_branch(self.branches.len(), branch);
        }
        let last = self.branches.last_mut().expect("there is always a leaf");
        let leaf = Arc::get_mut(&mut last.leaf).expect("nobody shares an index that is being read back");
        if leaf.slots.capacity() == 0 {
            leaf.slots.reserve_exact(LEAF_SLOTS_MAX);
            leaf.hints.reserve_exact(LEAF_SLOTS_MAX);
        }
        leaf.live += usize::from(!slot.head.is_tombstone());
        leaf.newest = leaf.newest.max(newest);
        let end = leaf.slots.len();
        leaf.insert(arena, end, key, slot);
    }
}

/// The shortest key above `left` and not above `right`.
fn separator(left: &[u8], right: &[u8]) -> Arc<[u8]> {
    Arc::from(&right[..right.len().min(common(left, right) + 1)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Rev;
    use crate::record::KeyValue;

    fn inserted(keys: impl Iterator<Item = String>) -> (Arena, Index) {
        let (mut arena, mut index) = (Arena::new(), Index::default());
        for (number, key) in keys.enumerate() {
            let pair = KeyValue { key: key.as_bytes(), ..KeyValue::default() };
            let main = number as i64 + 1;
            let place = index.find(&arena, key.as_bytes());
            let (at, _) = arena.append(Rev { main, sub: 0 }, false, &pair);
            index.push(&arena, place, key.as_bytes(), main, at, None);
        }
        (arena, index)
    }

    /// Ascending keys below one that begins otherwise, as a prefix that is written to has them: that one gets a leaf of its own, the others fill
    /// theirs, and no search compares with more than a few records.
    #[test]
    fn a_stray_key_does_not_blind_the_hints_of_others() {
        for stray in ["zebra", "aardvark"] {
            let ascending = (0..20_000).map(|number| format!("event/{number:012}"));
            let (arena, index) = inserted(std::iter::once(stray.to_owned()).chain(ascending));
            let leaves = 20_000usize.div_ceil(LEAF_SLOTS_MAX) + 2;
            assert!(index.branches.len() <= leaves, "{} leaves, not {leaves}", index.branches.len());
            for branch in &index.branches {
                let (hints, slots) = (&branch.leaf.hints, &branch.leaf.slots);
                let alike = hints.chunk_by(|one, other| one == other).map(<[u32]>::len).max();
                assert!(alike <= Some(10), "{stray}: {alike:?} of {} look alike", slots.len());
            }
            let keys = index.slots(index.first(), index.end()).map(|(_, slot)| arena.record(slot.head).key());
            assert!(keys.is_sorted());
        }
    }
}
