//! The instances in memory: what this replica, as an acceptor and as a learner, holds of each slot.
//!
//! Everything up to the base has been delivered and is not kept any more.

use std::collections::BTreeMap;

use synod_core::Index;

use super::message::{Ballot, Proposal, Value};

/// One instance of the paper's algorithm.
///
/// Invariants: `accepted.ballot <= promised <= seen`; once `chosen` is set nothing else changes.
#[derive(Default)]
pub(super) struct Slot {
    /// The paper's `minProposal`: nothing lower is answered any more.
    pub(super) promised: Ballot,
    /// The paper's `acceptedProposal` and `acceptedValue`.
    pub(super) accepted: Option<Proposal>,
    /// What was chosen, once it is learned.
    pub(super) chosen: Option<Value>,
    /// The highest ballot that anybody is known to have begun here. Promises nothing, and is forgotten in a crash.
    pub(super) seen: Ballot,
}

impl Slot {
    fn bytes(&self) -> usize {
        let value = self.chosen.as_ref().or(self.accepted.as_ref().map(|accepted| &accepted.value));
        value.map_or(0, Value::bytes) + SLOT_BYTES
    }

    /// Whether nobody is known to have begun anything here.
    pub(super) fn is_untouched(&self) -> bool {
        self.seen == Ballot::ZERO && self.chosen.is_none()
    }
}

/// What a slot costs beside its value, roughly.
const SLOT_BYTES: usize = 128;

/// The slots after a base, as far as anything is known of them: the others are as good as empty.
pub(super) struct Slots {
    base: Index,
    slots: BTreeMap<Index, Slot>,
    bytes: usize,
}

impl Slots {
    /// Slots that begin after `base`.
    pub(super) fn new(base: Index) -> Slots {
        Slots { base, slots: BTreeMap::new(), bytes: 0 }
    }

    /// The slot before the first that may be kept.
    pub(super) fn base(&self) -> Index {
        self.base
    }

    /// The last slot that anything is known of; the base when there is none.
    pub(super) fn last(&self) -> Index {
        self.slots.last_key_value().map_or(self.base, |(at, _)| *at)
    }

    /// What the slots kept weigh.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is known of a slot.
    pub(super) fn get(&self, at: Index) -> Option<&Slot> {
        self.slots.get(&at)
    }

    /// What was chosen in a slot, if that is known and kept.
    pub(super) fn chosen(&self, at: Index) -> Option<&Value> {
        self.get(at)?.chosen.as_ref()
    }

    /// Whether nothing is known of a slot: nobody was seen to begin anything there.
    pub(super) fn is_untouched(&self, at: Index) -> bool {
        self.get(at).is_none_or(Slot::is_untouched)
    }

    /// The slots after `at` of which anything is known, in order.
    pub(super) fn after(&self, at: Index) -> impl Iterator<Item = (Index, &Slot)> {
        self.slots.range(at.next()..).map(|(at, slot)| (*at, slot))
    }

    /// Changes a slot above the base, which comes into being if need be. The caller bounds `at`.
    pub(super) fn change<R>(&mut self, at: Index, change: impl FnOnce(&mut Slot) -> R) -> R {
        assert!(at > self.base, "slots up to the base are gone: nothing changes there");
        let slot = self.slots.entry(at).or_insert_with(|| {
            self.bytes += SLOT_BYTES;
            Slot::default()
        });
        let before = slot.bytes();
        let result = change(slot);
        slot.seen = slot.seen.max(slot.promised);
        self.bytes = self.bytes + slot.bytes() - before;
        result
    }

    /// Forgets everything up to `end`.
    pub(super) fn drop_through(&mut self, end: Index) {
        while let Some(entry) = self.slots.first_entry() {
            if *entry.key() > end {
                break;
            }
            self.bytes -= entry.remove().bytes();
        }
        self.base = self.base.max(end);
    }

    /// The last slot, none after `limit`, that must be forgotten for the rest to weigh at most `budget`.
    pub(super) fn surplus(&self, budget: usize, limit: Index) -> Index {
        let (mut end, mut left) = (self.base, self.bytes);
        for (at, slot) in &self.slots {
            if left <= budget || *at > limit {
                break;
            }
            left -= slot.bytes();
            end = *at;
        }
        end
    }
}
