//! Which requests were executed: each is executed once, however often it is ordered (4.1, 4.2).
//!
//! The paper keeps the timestamp of each client's last request, because a client there has one request at a time. A
//! replica here has several under way, and they may be ordered in another order than they were made; so what is
//! kept is a floor and the numbers above it. The table is part of the replicated state: it changes by what is
//! executed and by nothing else, and it travels with snapshots.

use std::collections::BTreeMap;

use bytes::BytesMut;
use synod_core::wire::{Reader, put_u64};
use synod_core::{NodeId, Taken, Wire, WireError};

/// Numbers above the floor, at most so many for each origin; beyond it the floor rises, and what lies below is void.
/// An honest replica has far fewer requests under way.
const ABOVE_MAX: usize = 1024;

/// A request's number holds its origin's life above these bits, and a counter below.
pub(super) const LIFE_SHIFT: u32 = 32;

/// Which requests were executed, of every origin; of each, those above the floor are all of one life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Executed {
    origins: BTreeMap<NodeId, Taken>,
}

impl Executed {
    /// Whether the request was executed, or never will be.
    #[must_use]
    pub fn holds(&self, (origin, number): (NodeId, u64)) -> bool {
        self.origins.get(&origin).is_some_and(|taken| taken.holds(number))
    }

    /// Executes a request: whether it is the first time.
    pub(super) fn execute(&mut self, (origin, number): (NodeId, u64)) -> bool {
        let taken = self.origins.entry(origin).or_default();
        // A new life: what the earlier ones asked for and did not get is void, and nobody waits for it.
        taken.raise(number >> LIFE_SHIFT << LIFE_SHIFT);
        taken.take(number, ABOVE_MAX)
    }
}

impl Wire for Executed {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.origins.len() as u64);
        for (origin, taken) in &self.origins {
            origin.encode(out);
            taken.encode(out);
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let mut origins = BTreeMap::new();
        for _ in 0..from.count("origins", 1 << 10)? {
            let origin = NodeId::decode(from)?;
            let number = |from: &mut Reader| super::wire::number(from, "request number");
            origins.insert(origin, Taken::decode(from, ABOVE_MAX, number)?);
        }
        Ok(Executed { origins })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64) -> (NodeId, u64) {
        (NodeId(1), number)
    }

    /// Each request is executed once, in whatever order they come, and a new life makes void what is left of the old.
    #[test]
    fn each_request_is_executed_once() {
        let mut executed = Executed::default();
        let life = |life: u64, counter| (life << LIFE_SHIFT) + counter;
        for number in [life(1, 2), life(1, 1), life(1, 4)] {
            assert!(!executed.holds(name(number)));
            assert!(executed.execute(name(number)));
            assert!(!executed.execute(name(number)), "{number} comes for the second time");
        }
        assert!(!executed.holds(name(life(1, 3))));
        assert!(executed.execute(name(life(2, 7))));
        assert!(!executed.execute(name(life(1, 3))), "its life is over");
        assert_eq!(Executed::decode_all(executed.to_bytes()), Ok(executed));
    }

    /// The table stays small whatever an origin does.
    #[test]
    fn the_table_is_bounded() {
        let mut executed = Executed::default();
        for number in 1..10_000 {
            executed.execute(name(number * 2));
        }
        assert!(executed.origins[&NodeId(1)].above().len() <= ABOVE_MAX);
        assert!(!executed.execute(name(3)), "what lies far below is void");
    }
}
