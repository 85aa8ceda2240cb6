//! Finding versions by key: a sorted array of sorted arrays.
//!
//! Leaves hold up to [`LEAF_SLOTS_MAX`] keys each, in order; above them stands one array of the leaves with a separator
//! key before each. A slot is sixteen bytes and holds no key: the key is read from the newest version's record. That is
//! what brings a million keys of 16 + 256 bytes to about 310 bytes each, all told; a map that owns its keys needs 60 to
//! 80 bytes more (`docs/adr/0003-store.md`).
//!
//! Leaves are shared with frozen copies and copied when written to. Each knows how many of its keys are alive and the
//! newest revision in it, so that counting a range at a recent revision looks at leaves, not at keys.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use crate::arena::{Arena, At};

/// More slots than this and a leaf is split.
const LEAF_SLOTS_MAX: usize = 512;

/// An older version: its main revision, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) main: i64,
    pub(crate) at: At,
}

/// A key's versions.
///
/// Invariant: `older` ascends, lies before `head`, and is never empty when present.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The newest.
    pub(crate) head: At,
    /// The others that are still kept.
    pub(crate) older: Option<Arc<Vec<Version>>>,
}

/// What a trim did to a slot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Trimmed {
    /// Nothing.
    #[default]
    Kept,
    /// Some versions are gone.
    Thinned,
    /// All versions are gone, and the slot must go, too.
    Emptied,
}

impl Slot {
    pub(crate) fn one(head: At) -> Slot {
        Slot { head, older: None }
    }

    /// All versions, oldest first.
    pub(crate) fn versions(&self) -> impl Iterator<Item = At> + '_ {
        self.older.iter().flat_map(|older| older.iter().map(|version| version.at)).chain([self.head])
    }

    /// The newest version at or before a main revision.
    pub(crate) fn version_at(&self, arena: &Arena, main: i64) -> Option<At> {
        if arena.main(self.head) <= main {
            return Some(self.head);
        }
        let older = self.older.as_ref()?;
        let after = older.partition_point(|version| version.main <= main);
        older[..after].last().map(|version| version.at)
    }

    /// The newest version at or before a main revision, if the key exists then.
    pub(crate) fn live_at(&self, arena: &Arena, main: i64) -> Option<At> {
        self.version_at(arena, main).filter(|at| !at.is_tombstone())
    }

    /// How many of the versions (oldest first) a compaction at `compacted` does away with: all before the newest at or
    /// before it, and that one too if it is a tombstone, unless it stands exactly there.
    pub(crate) fn doomed(&self, arena: &Arena, compacted: i64) -> usize {
        if self.older.is_none() && !self.head.is_tombstone() {
            return 0;
        }
        let mut doomed = 0;
        let mut last = None;
        for (i, at) in self.versions().enumerate() {
            let main = arena.main(at);
            if main > compacted {
                break;
            }
            doomed = i;
            last = Some((at, main));
        }
        match last {
            Some((at, main)) if at.is_tombstone() && main < compacted => doomed + 1,
            _ => doomed,
        }
    }

    /// Whether a version, of this main revision, is one of the key's.
    pub(crate) fn holds(&self, at: At, main: i64) -> bool {
        self.head == at || self.position(at, main).is_some()
    }

    /// The place of an older version.
    fn position(&self, at: At, main: i64) -> Option<usize> {
        let older = self.older.as_ref()?;
        let from = older.partition_point(|version| version.main < main);
        older[from..]
            .iter()
            .take_while(|version| version.main == main)
            .position(|it| it.at == at)
            .map(|i| from + i)
    }

    /// A version has been moved in memory.
    pub(crate) fn relocate(&mut self, from: At, to: At, main: i64) {
        if self.head == from {
            self.head = to;
        } else if let Some(position) = self.position(from, main)
            && let Some(older) = &mut self.older
        {
            Arc::make_mut(older)[position].at = to;
        }
    }

    /// Drops what a compaction does away with, telling `gone` of each version.
    pub(crate) fn trim(&mut self, arena: &Arena, compacted: i64, mut gone: impl FnMut(At)) -> Trimmed {
        let doomed = self.doomed(arena, compacted);
        if doomed == 0 {
            return Trimmed::Kept;
        }
        self.versions().take(doomed).for_each(&mut gone);
        let Some(older) = &mut self.older else { return Trimmed::Emptied };
        match doomed {
            all if all > older.len() => return Trimmed::Emptied,
            all if all == older.len() => self.older = None,
            some => {
                let older = Arc::make_mut(older);
                older.drain(..some);
                older.shrink_to_fit();
            }
        }
        Trimmed::Thinned
    }
}

/// A run of keys.
///
/// Invariants: all keys begin with `prefix`; `hints` has for each slot the four bytes of its key that follow the prefix.
#[derive(Clone, Debug, Default)]
struct Leaf {
    slots: Vec<Slot>,
    /// For searching without looking at records, which lie anywhere in memory.
    hints: Vec<u32>,
    prefix: Box<[u8]>,
    /// How many of the keys are alive now.
    live: usize,
    /// The newest main revision in it.
    newest: i64,
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
    /// Where `key` is, or where it would be.
    fn find(&self, arena: &Arena, key: &[u8]) -> Result<usize, usize> {
        let skip = self.prefix.len();
        match key[..skip.min(key.len())].cmp(&self.prefix) {
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

    fn insert(&mut self, arena: &Arena, position: usize, key: &[u8], slot: Slot) {
        if self.slots.is_empty() {
            self.prefix = key.into();
        } else if !key.starts_with(&self.prefix) {
            let common = common(key, &self.prefix);
            self.prefix = self.prefix[..common].into();
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

    /// Lengthens the prefix if the hints have lost half their worth since it was chosen.
    fn sharpen(&mut self, arena: &Arena) {
        let (Some(first), Some(last)) = (self.slots.first(), self.slots.last()) else { return };
        let first = arena.record(first.head).key();
        let common = common(first, arena.record(last.head).key());
        if common >= self.prefix.len() + 2 {
            self.prefix = first[..common].into();
            self.recompute(arena);
        }
    }
}

/// How many bytes two keys have in common at their beginning.
fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

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
/// Invariants: no leaf is empty, except that there is always one leaf; separators ascend strictly.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    branches: Vec<Branch>,
}

impl Default for Index {
    fn default() -> Self {
        Index { branches: vec![Branch { separator: Arc::from([]), leaf: Arc::default() }] }
    }
}

impl Index {
    /// Where `key` is, or where it would be.
    pub(crate) fn find(&self, arena: &Arena, key: &[u8]) -> Result<Place, Place> {
        // The first separator counts as minus infinity.
        let leaf = self.branches[1..].partition_point(|branch| *branch.separator <= *key);
        match self.branches[leaf].leaf.find(arena, key) {
            Ok(slot) => Ok(Place { leaf, slot }),
            Err(slot) => Err(Place { leaf, slot }),
        }
    }

    pub(crate) fn get(&self, arena: &Arena, key: &[u8]) -> Option<&Slot> {
        self.find(arena, key).ok().map(|place| self.slot(place))
    }

    pub(crate) fn slot(&self, place: Place) -> &Slot {
        &self.branches[place.leaf].leaf.slots[place.slot]
    }

    /// Adds a version of the key at `place` (as `find` gave it), newer than all that it has.
    pub(crate) fn push(&mut self, arena: &Arena, place: Result<Place, Place>, key: &[u8], main: i64, at: At) {
        match place {
            Ok(place) => self.push_version(arena, place, main, at),
            Err(place) => self.insert(arena, place, key, main, at),
        }
    }

    fn push_version(&mut self, arena: &Arena, place: Place, main: i64, at: At) {
        let leaf = Arc::make_mut(&mut self.branches[place.leaf].leaf);
        let slot = &mut leaf.slots[place.slot];
        let before = Version { main: arena.main(slot.head), at: slot.head };
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
        if place.slot == full.leaf.slots.len() {
            // Keys that come in ascending order fill leaves to the brim: the new key begins a leaf.
            let last = arena.record(full.leaf.slots[place.slot - 1].head).key();
            let branch = Branch { separator: separator(last, key), leaf: Arc::default() };
            self.branches.insert(place.leaf + 1, branch);
            return Place { leaf: place.leaf + 1, slot: 0 };
        }
        let leaf = Arc::make_mut(&mut full.leaf);
        let middle = leaf.slots.len() / 2;
        let right: Vec<Slot> = leaf.slots.drain(middle..).collect();
        let hints: Vec<u32> = leaf.hints.drain(middle..).collect();
        leaf.slots.shrink_to(middle + LEAF_SLOTS_MAX / 8);
        leaf.hints.shrink_to(middle + LEAF_SLOTS_MAX / 8);
        let right_live = right.iter().filter(|slot| !slot.head.is_tombstone()).count();
        leaf.live -= right_live;
        let left_last = arena.record(leaf.slots[middle - 1].head).key();
        let separator = separator(left_last, arena.record(right[0].head).key());
        let (prefix, newest) = (leaf.prefix.clone(), leaf.newest);
        let mut right = Leaf { slots: right, hints, prefix, live: right_live, newest };
        leaf.sharpen(arena);
        right.sharpen(arena);
        // Between the halves, the separator decides, because the next search will go by it.
        let goes_left = place.slot < middle || (place.slot == middle && *key < *separator);
        self.branches.insert(place.leaf + 1, Branch { separator, leaf: Arc::new(right) });
        if goes_left { place } else { Place { leaf: place.leaf + 1, slot: place.slot - middle } }
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
            self.branches.remove(place.leaf);
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
            self.branches.push(branch);
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
