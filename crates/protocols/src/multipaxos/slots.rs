//! The slots in memory: what this acceptor has accepted, and the configurations among what is decided.
//!
//! Unlike a log, slots may have gaps: each is an instance of Paxos of its own. Everything up to the base has been
//! delivered and is not kept any more. The slots know nothing of decisions, but that their owner tells them which
//! configurations are decided.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use synod_core::{Index, Members, batch_bytes};

use super::message::{Ballot, Pvalue, Value};

/// What a slot that holds a configuration costs, roughly.
const MEMBERS_BYTES: usize = 256;

struct Slot {
    ballot: Ballot,
    value: Value,
    bytes: usize,
}

/// Slots above `base`, each empty or with the last value accepted in it.
///
/// Invariant: `configurations` is never empty, ascends, and its first element is the configuration in force at the base.
pub(super) struct Slots {
    base: Index,
    slots: BTreeMap<Index, Slot>,
    bytes: usize,
    /// The decided configurations, with the slots that hold them.
    configurations: VecDeque<(Index, Arc<Members>)>,
}

impl Slots {
    /// No slots after `base`, where `members` were in force.
    pub(super) fn new(base: Index, members: Arc<Members>) -> Slots {
        Slots { base, slots: BTreeMap::new(), bytes: 0, configurations: VecDeque::from([(base, members)]) }
    }

    /// The last slot that is not kept any more.
    pub(super) fn base(&self) -> Index {
        self.base
    }

    /// The last slot that holds something; the base when none does.
    pub(super) fn last(&self) -> Index {
        self.slots.last_key_value().map_or(self.base, |(at, _)| *at)
    }

    /// What the values kept weigh.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is accepted at `at`, if it is kept.
    pub(super) fn value(&self, at: Index) -> Option<&Value> {
        self.slots.get(&at).map(|slot| &slot.value)
    }

    /// By which ballot the value at `at` was accepted.
    pub(super) fn ballot(&self, at: Index) -> Option<Ballot> {
        self.slots.get(&at).map(|slot| slot.ballot)
    }

    /// Accepts a value, in the place of what was there.
    pub(super) fn accept(&mut self, at: Index, ballot: Ballot, value: Value) {
        assert!(at > self.base, "what was delivered and dropped is not accepted anew: {at:?}");
        let bytes = match &value {
            Value::Batch(batch) => batch_bytes(batch),
            Value::Members(_) => MEMBERS_BYTES,
        };
        self.bytes += bytes;
        if let Some(old) = self.slots.insert(at, Slot { ballot, value, bytes }) {
            self.bytes -= old.bytes;
        }
    }

    /// The slot `at` is decided: a configuration that it holds is in force from the next one on.
    pub(super) fn decide(&mut self, at: Index) -> Option<Arc<Members>> {
        let Some(Value::Members(members)) = self.value(at) else { return None };
        let members = members.clone();
        assert!(at > self.configuration_slot(), "slots are decided in order");
        self.configurations.push_back((at, members.clone()));
        Some(members)
    }

    /// Everything up to `at` leaves the memory.
    pub(super) fn drop_through(&mut self, at: Index) {
        while let Some(entry) = self.slots.first_entry().filter(|entry| *entry.key() <= at) {
            self.bytes -= entry.remove().bytes;
        }
        self.base = self.base.max(at);
        while self.configurations.get(1).is_some_and(|(slot, _)| *slot <= self.base) {
            self.configurations.pop_front();
        }
    }

    /// A snapshot covers everything up to `at`, after which `members` are in force. What was accepted in later slots stays:
    /// it was promised to be kept.
    pub(super) fn rebase(&mut self, at: Index, members: Arc<Members>) {
        self.drop_through(at);
        while self.configurations.front().is_some_and(|(slot, _)| *slot <= at) {
            self.configurations.pop_front();
        }
        self.configurations.push_front((at, members));
    }

    /// The configuration after all that is decided.
    pub(super) fn members(&self) -> &Arc<Members> {
        &self.configurations.back().expect("there is always a configuration").1
    }

    /// Where the newest decided configuration stands.
    pub(super) fn configuration_slot(&self) -> Index {
        self.configurations.back().expect("there is always a configuration").0
    }

    /// The configuration in force behind `at`, which must be decided and not lie before the base.
    pub(super) fn members_at(&self, at: Index) -> &Arc<Members> {
        let found = self.configurations.iter().rev().find(|(slot, _)| *slot <= at);
        &found.or(self.configurations.front()).expect("there is always a configuration").1
    }

    /// What is accepted in the slots from `from` on, gaps left out: at least one value if there is any, and no more once
    /// `bytes_max` is reached. With it, the last slot that this speaks of, if something was left out.
    pub(super) fn pvalues_from(&self, from: Index, bytes_max: usize) -> (Vec<Pvalue>, Option<Index>) {
        let (mut bytes, mut pvalues) = (0, Vec::new());
        for (at, slot) in self.slots.range(from..) {
            if !pvalues.is_empty() && bytes + slot.bytes > bytes_max {
                return (pvalues, Some(at.previous()));
            }
            bytes += slot.bytes;
            pvalues.push(Pvalue { at: *at, ballot: slot.ballot, value: slot.value.clone() });
        }
        (pvalues, None)
    }

    /// The values of the slots from `from` to `last`, as far as there is no gap: at least one if there is any, and no more
    /// once `bytes_max` is reached.
    pub(super) fn values(&self, from: Index, last: Index, bytes_max: usize) -> Vec<Value> {
        let (mut bytes, mut values, mut next) = (0, Vec::new(), from);
        if from > last {
            return values;
        }
        for (at, slot) in self.slots.range(from..=last) {
            if *at != next || !values.is_empty() && bytes + slot.bytes > bytes_max {
                break;
            }
            bytes += slot.bytes;
            values.push(slot.value.clone());
            next = next.next();
        }
        values
    }

    /// The slots above `at` that were accepted in this ballot.
    pub(super) fn accepted_above(&self, at: Index, ballot: Ballot) -> impl Iterator<Item = Index> + '_ {
        let later = self.slots.range(at.next()..).filter(move |(_, slot)| slot.ballot == ballot);
        later.map(|(at, _)| *at)
    }

    /// Everything accepted above `at`.
    pub(super) fn above(&self, at: Index) -> impl Iterator<Item = Pvalue> + '_ {
        self.slots.range(at.next()..).map(|(at, slot)| Pvalue {
            at: *at,
            ballot: slot.ballot,
            value: slot.value.clone(),
        })
    }

    /// How many of the oldest slots, none after `limit`, must go for the rest to weigh at most `bytes_max`: the last of them.
    pub(super) fn surplus(&self, bytes_max: usize, limit: Index) -> Index {
        let (mut bytes, mut end) = (self.bytes, self.base);
        for (at, slot) in &self.slots {
            if bytes <= bytes_max || *at > limit {
                break;
            }
            bytes -= slot.bytes;
            end = *at;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_core::{NodeId, empty_batch};

    fn members(number: u64) -> Arc<Members> {
        Arc::new(Members::of([NodeId(number)]))
    }

    fn filled(at: &[u64]) -> Slots {
        let mut slots = Slots::new(Index(0), members(1));
        for at in at {
            let ballot = Ballot { round: *at, leader: NodeId(1) };
            slots.accept(Index(*at), ballot, Value::Batch(empty_batch()));
        }
        slots
    }

    /// Slots may be filled in any order and have gaps; what is sent as one message never leaps over one.
    #[test]
    fn a_message_never_leaps_over_a_gap() {
        let slots = filled(&[5, 2, 1, 3]);
        assert_eq!(slots.values(Index(1), Index(9), usize::MAX).len(), 3);
        assert_eq!(slots.values(Index(4), Index(9), usize::MAX).len(), 0);
        assert_eq!(slots.values(Index(5), Index(4), usize::MAX).len(), 0);
        assert_eq!(slots.values(Index(1), Index(2), usize::MAX).len(), 2);
        assert_eq!(slots.values(Index(1), Index(9), 1).len(), 1);
        let (pvalues, more) = slots.pvalues_from(Index(2), usize::MAX);
        assert_eq!((pvalues.len(), more), (3, None));
        let (pvalues, more) = slots.pvalues_from(Index(3), 1);
        assert_eq!((pvalues.len(), more), (1, Some(Index(4))));
    }

    /// A value accepted in a later ballot replaces the earlier one, and weighs instead of it.
    #[test]
    fn a_later_ballot_replaces() {
        let mut slots = filled(&[1, 2]);
        let bytes = slots.bytes();
        slots.accept(Index(1), Ballot { round: 9, leader: NodeId(2) }, Value::Batch(empty_batch()));
        assert_eq!((slots.bytes(), slots.ballot(Index(1)).map(|it| it.round)), (bytes, Some(9)));
        slots.drop_through(Index(2));
        assert_eq!((slots.bytes(), slots.base(), slots.last()), (0, Index(2), Index(2)));
    }

    /// Configurations count once they are decided, and a snapshot brings its own.
    #[test]
    fn configurations_count_when_decided() {
        let mut slots = filled(&[1]);
        slots.accept(Index(2), Ballot::default(), Value::Members(members(2)));
        assert_eq!(slots.decide(Index(1)), None);
        assert_eq!(*slots.members(), members(1));
        assert_eq!(slots.decide(Index(2)), Some(members(2)));
        assert_eq!((slots.members_at(Index(1)), slots.members_at(Index(2))), (&members(1), &members(2)));
        slots.rebase(Index(5), members(3));
        assert_eq!(
            (slots.members(), slots.configuration_slot(), slots.base()),
            (&members(3), Index(5), Index(5))
        );
    }
}
