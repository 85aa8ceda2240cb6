//! Which commands a chain holds already: no command is mined twice.
//!
//! Bitcoin's transactions spend outputs, and an output can be spent once. A store's command spends nothing; so it is its name
//! that can be used once. Remembering all names for ever is not possible. A replica numbers its clients' commands
//! upwards, so a chain forgets what lies [`WINDOW`] or more below the highest number of that origin, and takes nothing from
//! there any more: the sliding window of RFC 4303 against replays. Whether a name is too old depends on the chain
//! alone, never on what a replica happens to remember, or replicas would judge blocks differently.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use synod_core::wire::{Reader, put_u64};
use synod_core::{CommandId, NodeId, Wire, WireError};

/// A command's number may lie so far below the highest of its origin.
pub(super) const WINDOW: u64 = 1 << 16;

/// A chain knows so many origins at most; a block that would bring one more is invalid.
pub(super) const ORIGINS_MAX: usize = 4096;

/// The highest number of each origin on a chain.
pub(super) type Highest = BTreeMap<NodeId, u64>;

/// Whether a number is too old to be taken.
pub(super) fn is_too_old(highest: &Highest, id: CommandId) -> bool {
    highest.get(&id.origin).is_some_and(|highest| id.number.saturating_add(WINDOW) <= *highest)
}

/// What the highest numbers are behind these commands: shared with before when nothing changes.
pub(super) fn raised(before: &Arc<Highest>, ids: impl Iterator<Item = CommandId>) -> Arc<Highest> {
    let mut after: Option<Highest> = None;
    for id in ids {
        let known = after.as_ref().unwrap_or(before).get(&id.origin);
        if known.is_none_or(|known| *known < id.number) {
            after.get_or_insert_with(|| Highest::clone(before)).insert(id.origin, id.number);
        }
    }
    after.map_or_else(|| before.clone(), Arc::new)
}

/// The numbers of each origin that a chain holds, within the window: as ranges, because most numbers follow one another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// By origin: first and last of each range; ranges neither touch nor overlap.
    ranges: BTreeMap<NodeId, BTreeMap<u64, u64>>,
}

impl Seen {
    pub(super) fn contains(&self, id: CommandId) -> bool {
        let Some(ranges) = self.ranges.get(&id.origin) else { return false };
        ranges.range(..=id.number).next_back().is_some_and(|(_, last)| id.number <= *last)
    }

    pub(super) fn insert(&mut self, id: CommandId) {
        if self.contains(id) {
            return;
        }
        let ranges = self.ranges.entry(id.origin).or_default();
        let (mut first, mut last) = (id.number, id.number);
        if let Some((before, end)) = ranges.range(..id.number).next_back().map(|(a, b)| (*a, *b))
            && end.checked_add(1) == Some(id.number)
        {
            first = before;
        }
        if let Some(next) = id.number.checked_add(1)
            && let Some(end) = ranges.remove(&next)
        {
            last = end;
        }
        ranges.insert(first, last);
    }

    /// Forgets what is too old for every later block.
    pub(super) fn forget(&mut self, highest: &Highest) {
        for (origin, ranges) in &mut self.ranges {
            let floor = highest.get(origin).map_or(0, |highest| highest.saturating_sub(WINDOW));
            while let Some(entry) = ranges.first_entry() {
                if *entry.get() > floor {
                    break;
                }
                entry.remove();
            }
        }
    }
}

/// More ranges than this for one origin cannot be: each takes at least two numbers of the window, but for the first.
const RANGES_MAX: u64 = WINDOW / 2 + 2;

impl Wire for Seen {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.ranges.len() as u64);
        for (origin, ranges) in &self.ranges {
            origin.encode(out);
            put_u64(out, ranges.len() as u64);
            for (first, last) in ranges {
                put_u64(out, *first);
                put_u64(out, *last);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let mut seen = Seen::default();
        for _ in 0..from.count("origins", ORIGINS_MAX as u64)? {
            let origin = NodeId(from.u64("origin")?);
            let mut ranges = BTreeMap::new();
            let mut above = None;
            for _ in 0..from.count("ranges of numbers", RANGES_MAX)? {
                let (first, last) = (from.u64("first number")?, from.u64("last number")?);
                if first > last || above.is_some_and(|above| first <= above) {
                    let allowed = "ranges that ascend and do not overlap";
                    return Err(WireError::Invalid { what: "range of numbers", value: first, allowed });
                }
                above = Some(last.saturating_add(1));
                ranges.insert(first, last);
            }
            seen.ranges.insert(origin, ranges);
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> CommandId {
        CommandId { origin: NodeId(1), number }
    }

    /// Numbers in any order are remembered as a set would, and come back from the encoding.
    #[test]
    fn ranges_are_a_set() {
        let mut rng = synod_core::Rng::new(3);
        let (mut seen, mut set) = (Seen::default(), std::collections::BTreeSet::new());
        for _ in 0..2000 {
            let number = rng.below(3000);
            seen.insert(id(number));
            set.insert(number);
        }
        assert!((0..3000).all(|number| seen.contains(id(number)) == set.contains(&number)));
        assert_eq!(Seen::decode_all(seen.to_bytes()), Ok(seen.clone()));
        (0..3000).for_each(|number| seen.insert(id(number)));
        assert_eq!(seen.ranges[&NodeId(1)].len(), 1);
        for number in [u64::MAX, u64::MAX - 1] {
            seen.insert(id(number));
            assert!(seen.contains(id(number)));
        }
    }

    /// What is forgotten is too old for every later block, so nothing can come twice.
    #[test]
    fn what_is_forgotten_is_too_old() {
        let mut seen = Seen::default();
        (1..=200_000).step_by(2).for_each(|number| seen.insert(id(number)));
        let highest = Highest::from([(NodeId(1), 199_999)]);
        seen.forget(&highest);
        for number in 1..=200_000 {
            assert!(number % 2 == 0 || seen.contains(id(number)) || is_too_old(&highest, id(number)));
        }
        assert!(seen.ranges[&NodeId(1)].len() as u64 <= RANGES_MAX);
    }
}
