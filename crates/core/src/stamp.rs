//! What a delivery needs to carry where there is no single order: who made it, which of its maker's it is, and when.
//!
//! A protocol with a total order needs none of this: position `i` says everything. A causal one lets each replica deliver in
//! an order of its own, and a machine that shall end up in the same state everywhere has to decide by something that all
//! replicas see alike. That is the [`Stamp`]. What a replica has delivered is then no number, but a [`Vector`].

use std::collections::BTreeMap;
use std::fmt;

use bytes::BytesMut;

use crate::types::NodeId;
use crate::wire::{Reader, Wire, WireError, put_u64};

/// How many deliveries of each origin: a vector clock (Fidge 1988; Mattern 1989).
///
/// Invariant: no entry is zero, so equal vectors are equal values.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Vector(BTreeMap<NodeId, u64>);

/// More origins than this in one vector is malformed input.
const ORIGINS_MAX: u64 = 4096;

/// Counts and clocks above this are malformed input: no sum of them can overflow.
const NUMBER_MAX: u64 = 1 << 48;

impl Vector {
    /// How many of `origin`.
    #[must_use]
    pub fn get(&self, origin: NodeId) -> u64 {
        self.0.get(&origin).copied().unwrap_or(0)
    }

    /// Knows at least `count` of `origin` from now on.
    pub fn raise(&mut self, origin: NodeId, count: u64) {
        if count > 0 {
            let entry = self.0.entry(origin).or_insert(0);
            *entry = (*entry).max(count);
        }
    }

    /// Knows whatever `other` knows, too.
    pub fn join(&mut self, other: &Vector) {
        for (origin, count) in &other.0 {
            self.raise(*origin, *count);
        }
    }

    /// Whether everything that `other` knows is known here.
    #[must_use]
    pub fn dominates(&self, other: &Vector) -> bool {
        other.0.iter().all(|(origin, count)| self.get(*origin) >= *count)
    }

    /// The sum over all origins: the number of deliveries.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same without what it says of `origin`.
    #[must_use]
    pub fn without(&self, origin: NodeId) -> Vector {
        let mut others = self.clone();
        others.0.remove(&origin);
        others
    }

    /// Origins and counts, by ascending origin.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, u64)> + '_ {
        self.0.iter().map(|(origin, count)| (*origin, *count))
    }
}

impl FromIterator<(NodeId, u64)> for Vector {
    fn from_iter<I: IntoIterator<Item = (NodeId, u64)>>(counts: I) -> Self {
        let mut vector = Vector::default();
        for (origin, count) in counts {
            vector.raise(origin, count);
        }
        vector
    }
}

/// `[n1:3 n2:1]`
impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, (origin, count)) in self.iter().enumerate() {
            let gap = if i > 0 { " " } else { "" };
            write!(f, "{gap}{origin:?}:{count}")?;
        }
        f.write_str("]")
    }
}

impl Wire for Vector {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.0.len() as u64);
        for (origin, count) in &self.0 {
            origin.encode(out);
            count.encode(out);
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let mut vector = Vector::default();
        for _ in 0..from.count("vector", ORIGINS_MAX)? {
            let origin = NodeId::decode(from)?;
            let last = vector.0.last_key_value().map_or(NodeId(0), |(origin, _)| *origin);
            if origin <= last {
                let allowed = "ascending origins, none of them zero";
                return Err(WireError::Invalid { what: "vector", value: origin.0, allowed });
            }
            let value = from.u64("vector")?;
            if value == 0 || value > NUMBER_MAX {
                return Err(WireError::Invalid { what: "vector", value, allowed: "1 to 2^48" });
            }
            vector.0.insert(origin, value);
        }
        Ok(vector)
    }
}

/// What is known of a delivery beside its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The replica that made it.
    pub origin: NodeId,
    /// How manieth of that replica's deliveries it is; they come without gaps.
    pub number: u64,
    /// When the first of its commands was made; the next one's clock is one more, and so on. Clocks respect causality: what
    /// could depend on a delivery has a greater one. Two origins may use the same clock, and then the greater origin counts as later.
    pub clock: u64,
    /// Whatever is still to come here has a greater clock than this: what only serves to decide against older ones may go.
    pub floor: u64,
}

impl Stamp {
    /// The stamp of the command at this place of the delivery's batch.
    #[must_use]
    pub fn of_command(self, place: usize) -> Stamp {
        Stamp { clock: self.clock + place as u64, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(counts: &[(u64, u64)]) -> Vector {
        counts.iter().map(|(origin, count)| (NodeId(*origin), *count)).collect()
    }

    /// Joining gives the least vector that dominates both; two may dominate neither one the other.
    #[test]
    fn vectors_are_a_lattice() {
        let (a, b) = (vector(&[(1, 3), (2, 1)]), vector(&[(2, 2), (3, 1)]));
        assert!(!a.dominates(&b) && !b.dominates(&a));
        let mut both = a.clone();
        both.join(&b);
        assert!(both.dominates(&a) && both.dominates(&b));
        assert_eq!((both.total(), format!("{both:?}").as_str()), (6, "[n1:3 n2:2 n3:1]"));
        assert_eq!(vector(&[(1, 0)]), Vector::default());
    }

    /// A vector comes back from its bytes; zero entries, zero or doubled origins and huge counts are refused.
    #[test]
    fn vectors_are_encoded_canonically() {
        let a = vector(&[(1, 3), (0x2000, 1 << 48)]);
        assert_eq!(Vector::decode_all(a.to_bytes()), Ok(a));
        for wrong in
            [vec![1, 0, 1], vec![1, 1, 0], vec![2, 1, 1, 1, 1], vec![2, 2, 1, 1, 1], vec![255, 255, 3]]
        {
            assert!(Vector::decode_all(wrong.into()).is_err());
        }
        let huge = [&[1u8, 1][..], &[0xff; 9][..], &[1][..]].concat();
        assert!(Vector::decode_all(huge.into()).is_err());
    }
}
