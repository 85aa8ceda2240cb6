//! Which numbers were taken: each once, in whatever order they come, and in little room.
//!
//! Numbers of one origin come nearly in order. So a floor is kept, up to which all were taken or never will be, and the few above it. Both
//! tables of what is carried out once are made of this: of replicas' requests (`synod-protocols`, PBFT) and of clients' wishes
//! (`synod-kv`).

use std::collections::BTreeSet;

use bytes::BytesMut;

use crate::wire::{Reader, WireError, put_u64};

/// Numbers that were taken.
///
/// Invariant: every number in `above` is greater than `floor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    floor: u64,
    above: BTreeSet<u64>,
}

impl Taken {
    /// Whether the number was taken, or never will be.
    #[must_use]
    pub fn holds(&self, number: u64) -> bool {
        number <= self.floor || self.above.contains(&number)
    }

    /// Takes a number: whether it is the first time. Of more than `above_max` above the floor the lowest become the floor, and what lies
    /// below is void. Number 0 counts as taken.
    pub fn take(&mut self, number: u64, above_max: usize) -> bool {
        if number <= self.floor || !self.above.insert(number) {
            return false;
        }
        while self.above.len() > above_max
            && let Some(lowest) = self.above.pop_first()
        {
            self.floor = lowest;
        }
        // All of them are above the floor, so none is 0.
        while self.above.first().is_some_and(|lowest| lowest - 1 == self.floor)
            && let Some(lowest) = self.above.pop_first()
        {
            self.floor = lowest;
        }
        true
    }

    /// Everything up to here is void.
    pub fn raise(&mut self, floor: u64) {
        if floor > self.floor {
            self.floor = floor;
            self.above.retain(|number| *number > floor);
        }
    }

    /// Everything up to here was taken, or never will be.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// What was taken above the floor, ascending.
    pub fn above(&self) -> impl ExactSizeIterator<Item = u64> {
        self.above.iter().copied()
    }

    /// The floor, then a list of what is above it.
    pub fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.floor);
        put_u64(out, self.above.len() as u64);
        self.above.iter().for_each(|number| put_u64(out, *number));
    }

    /// Reads what [`Taken::encode`] wrote; `number` reads one number, with whatever bound it has.
    ///
    /// # Errors
    /// [`WireError`] when there are more than `above_max` above the floor, or one is not above it.
    pub fn decode(
        from: &mut Reader,
        above_max: usize,
        number: impl Fn(&mut Reader) -> Result<u64, WireError>,
    ) -> Result<Taken, WireError> {
        let mut taken = Taken { floor: number(from)?, above: BTreeSet::new() };
        for _ in 0..from.count("numbers above the floor", above_max as u64)? {
            let value = number(from)?;
            if value <= taken.floor {
                return Err(WireError::Invalid { what: "number", value, allowed: "above the floor" });
            }
            taken.above.insert(value);
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each is taken once; the floor follows; the greatest number there is does no harm.
    #[test]
    fn each_number_is_taken_once() {
        let mut taken = Taken::default();
        for number in [2, 1, 5, u64::MAX] {
            assert!(!taken.holds(number) && taken.take(number, 8) && !taken.take(number, 8), "{number}");
        }
        assert!(!taken.take(0, 8));
        assert_eq!((taken.floor(), taken.above().collect::<Vec<_>>()), (2, vec![5, u64::MAX]));
        taken.raise(5);
        assert!(taken.holds(4) && taken.above().eq([u64::MAX]));
        taken.raise(u64::MAX - 1);
        assert!(!taken.take(u64::MAX, 8) && taken.holds(u64::MAX - 2));
    }

    /// However far apart they lie, few are kept; and they come back from bytes as they were.
    #[test]
    fn few_are_kept() {
        let mut taken = Taken::default();
        (1..1000).for_each(|number| assert!(taken.take(number * 2, 8)));
        assert_eq!((taken.above().len(), taken.holds(3)), (8, true));
        let mut bytes = BytesMut::new();
        taken.encode(&mut bytes);
        let read =
            |max| Taken::decode(&mut Reader::new(bytes.clone().freeze()), max, |from| from.u64("number"));
        assert_eq!(read(8), Ok(taken));
        assert!(read(7).is_err());
    }
}
