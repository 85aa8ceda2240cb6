//! The learner: what is decided, as far as this replica can know it, is delivered in slot order (PMMC 2.1).
//!
//! A leader tells up to where all slots are decided. What it decided there is what *it* proposed: so a learner takes a value for
//! decided only if it accepted it in that leader's ballot. Whatever else it holds may be what an earlier ballot failed to get
//! decided, and the leader will send what it needs.

use synod_core::{Delivery, Index, Output};

use super::message::{Record, Value};
use super::{MultiPaxos, Mutant, Part};

impl MultiPaxos {
    /// Takes for decided what the leader of the promised ballot says is, as far as it is here.
    pub(super) fn learn(&mut self, out: &mut Output<Self>) {
        while self.decided < self.told {
            let at = self.decided.next();
            let held = self.slots.ballot(at);
            let known = held == Some(self.promised) || held.is_some() && self.has(Mutant::LearnsOldBallot);
            if !known {
                break;
            }
            self.decide(at, out);
        }
    }

    /// The next slot is decided, with the value that it holds.
    pub(super) fn decide(&mut self, at: Index, out: &mut Output<Self>) {
        assert_eq!(at, self.decided.next(), "slots are decided in order");
        assert!(self.slots.value(at).is_some(), "what is decided has a value: {at:?}");
        self.decided = at;
        self.prefix = self.prefix.max(at);
        if self.slots.decide(at).is_some() {
            self.members_changed(at, out);
        }
    }

    /// Delivers what has been decided since the last flush.
    pub(super) fn deliver(&mut self, out: &mut Output<Self>) {
        let end = self.deliverable();
        if self.delivered < end {
            self.settle_snapshot();
        }
        if self.has(Mutant::DeliverySkips) && end.0 > self.delivered.0 + 3 {
            self.delivered = self.delivered.next();
        }
        while self.delivered < end {
            let at = self.delivered.next();
            // The machine is older than the slots: a snapshot must come first.
            let Some(value) = self.slots.value(at) else { break };
            out.deliveries.push(match value {
                Value::Batch(batch) => Delivery::Batch { at, batch: batch.clone() },
                Value::Members(members) => Delivery::Members { at, members: (**members).clone() },
            });
            self.delivered = at;
        }
    }

    /// How far this replica may act on what is decided.
    fn deliverable(&self) -> Index {
        match &self.part {
            Part::Leader(leading) => leading.may_tell(self.id, self.slots.members(), self.decided),
            _ => self.decided,
        }
    }

    /// Writes down what is decided, whenever something else is written: so it costs no sync of its own, and a restart has little
    /// to ask for. A configuration is written down at once, because others wait until a quorum cannot forget it.
    pub(super) fn record_decided(&mut self, out: &mut Output<Self>) {
        let due = !out.records.is_empty() || self.slots.configuration_slot() > self.recorded;
        if due && self.decided > self.recorded {
            self.recorded = self.decided;
            let lsn = out.record(Record::Decided(self.decided));
            self.recording.push_back((lsn, self.decided));
        }
    }
}
