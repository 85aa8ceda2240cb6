//! The learner (Paxos Made Simple, 2.3), and how one that missed something catches up.
//!
//! The proposer of a slot is its distinguished learner: it hears all acceptances, and tells the others that its ballot is
//! chosen. A replica that accepted that ballot, or a later one, has the value already; one that did not asks for it.
//! "Because of message loss, a value could be chosen with no learner ever finding out": replicas tell one another now and
//! then how far they have come, whoever is behind asks whoever is ahead; and a slot that nobody knows anything about,
//! while later ones wait behind it, is decided by an attempt of whoever notices first.
//!
//! What was decided is delivered in slot order.

use std::collections::BTreeMap;

use synod_core::{Delivery, Index, NodeId, Output, Refusal, Time};

use super::acceptor::AHEAD_MAX;
use super::message::{Ballot, Message, Record, Value};
use super::{ALPHA, Mutant, Paxos};

/// What is known of the others' progress, and of the own.
pub(super) struct Learning {
    /// How far each other replica said that it had come, and when it was heard of last.
    peers: BTreeMap<NodeId, Heard>,
    /// Slots whose choice is not recorded yet: written with the next record, or after a while.
    unrecorded: Vec<Record>,
    /// Who was asked last, and when.
    asked: Option<(NodeId, Time)>,
    /// When the others are told how far this replica has come.
    gossip_due: Time,
    /// A slot that is open while later ones wait is taken up then.
    stalled_at: Option<Time>,
    /// How often it was taken up in vain: patience grows with it.
    stalls: u32,
}

/// What is known of another replica.
#[derive(Clone, Copy)]
pub(super) struct Heard {
    pub(super) decided: Index,
    pub(super) at: Time,
}

/// Patience doubles at most so often.
const STALLS_MAX: u32 = 4;

/// More than so many choices do not wait for another record.
const UNRECORDED_MAX: usize = 256;

impl Learning {
    pub(super) fn new(now: Time) -> Learning {
        Learning {
            peers: BTreeMap::new(),
            unrecorded: Vec::new(),
            asked: None,
            gossip_due: now,
            // What the last life left open is taken up at once.
            stalled_at: Some(now),
            stalls: 0,
        }
    }

    /// What is known of a replica.
    pub(super) fn heard(&self, node: NodeId) -> Option<Heard> {
        self.peers.get(&node).copied()
    }
}

impl Paxos {
    /// A majority has accepted this ballot.
    pub(super) fn on_chosen(&mut self, from: NodeId, slot: Index, ballot: Ballot, out: &mut Output<Self>) {
        if slot <= self.floor() || slot.0 > self.decided.0 + AHEAD_MAX {
            return self.heard_of(from, Index::ZERO);
        }
        let careless = self.has(Mutant::LearnsOlder);
        // P2: every proposal above a chosen one has its value. So a later ballot's acceptance will do.
        let accepted = self.slots.get(slot).and_then(|slot| slot.accepted.as_ref());
        match accepted.filter(|accepted| accepted.ballot >= ballot || careless) {
            Some(accepted) => {
                let value = accepted.value.clone();
                self.learn(slot, value, out);
                self.heard_of(from, Index::ZERO);
            }
            None if self.slots.chosen(slot).is_none() => {
                self.slots.change(slot, |slot| slot.seen = slot.seen.max(ballot));
                self.ask(from, out);
            }
            None => {}
        }
    }

    /// A value is known to be chosen.
    pub(super) fn learn(&mut self, at: Index, value: Value, out: &mut Output<Self>) {
        if at <= self.slots.base() || self.slots.chosen(at).is_some() {
            return;
        }
        let accepted = self.slots.get(at).and_then(|slot| slot.accepted.as_ref());
        let is_accepted = accepted.is_some_and(|accepted| accepted.value.is(&value));
        self.learning.unrecorded.push(if is_accepted {
            Record::Chosen { slot: at }
        } else {
            Record::Learned { slot: at, value: value.clone() }
        });
        self.slots.change(at, |slot| {
            slot.chosen = Some(value.clone());
            slot.accepted = None;
        });
        self.end_attempt(at, &value);
        self.advance();
        if self.learning.unrecorded.len() >= UNRECORDED_MAX {
            self.record_choices(out);
        }
    }

    /// Goes on as far as values are known without a gap.
    pub(super) fn advance(&mut self) {
        let was_asked = self.change.is_some();
        while let Some(value) = self.slots.chosen(self.decided.next()) {
            let slot = self.decided.next();
            self.settings.decide(slot, value);
            self.decided = slot;
            self.learning.stalled_at = None;
            self.learning.stalls = 0;
            self.settle_change(slot);
        }
        if was_asked && self.change.is_none() {
            // The change that was asked for here is decided: the slots before its effect are filled at once.
            self.learning.stalled_at = Some(self.now);
        }
    }

    /// Writes down what was chosen. That is a service to the next life, not a promise: nothing waits for it.
    pub(super) fn record_choices(&mut self, out: &mut Output<Self>) {
        for record in std::mem::take(&mut self.learning.unrecorded) {
            let (Record::Chosen { slot } | Record::Learned { slot, .. }) = &record else { continue };
            // Memory may have let go of it already; without a snapshot the next life would have to decide it once more.
            if *slot > self.compaction.newest() {
                out.record(record);
            }
        }
    }

    /// Delivers what is decided and was not delivered yet.
    pub(super) fn deliver(&mut self, out: &mut Output<Self>) {
        if self.has(Mutant::DeliverySkips) && self.decided.0 > self.delivered.0 + 3 {
            self.delivered = self.delivered.next();
        }
        while self.delivered < self.decided {
            let at = self.delivered.next();
            let Some(value) = self.slots.chosen(at) else { break };
            out.deliveries.push(match (value, self.settings.decided_in(at)) {
                (Value::Members { .. }, Some(members)) => {
                    Delivery::Members { at, members: (**members).clone() }
                }
                // A configuration that came too late changes nothing.
                (Value::Members { .. }, None) => Delivery::Batch { at, batch: synod_core::empty_batch() },
                (Value::Batch(batch), _) => Delivery::Batch { at, batch: batch.clone() },
            });
            self.delivered = at;
        }
    }

    /// A replica was heard of, and has come so far at least.
    fn heard_of(&mut self, from: NodeId, decided: Index) {
        // Only members are remembered: what strangers say fills no memory.
        let is_stranger = !self.settings.newest().1.contains(from) && self.learning.heard(from).is_none();
        if is_stranger && self.learning.peers.len() >= STRANGERS_MAX {
            return;
        }
        let heard = self.learning.peers.entry(from).or_insert(Heard { decided, at: self.now });
        heard.decided = heard.decided.max(decided);
        heard.at = self.now;
    }

    pub(super) fn on_have(&mut self, from: NodeId, decided: Index, out: &mut Output<Self>) {
        self.heard_of(from, decided);
        if decided > self.decided {
            self.ask(from, out);
        }
    }

    /// Asks a replica for what is missing here, unless somebody was asked just now.
    fn ask(&mut self, whom: NodeId, out: &mut Output<Self>) {
        if self.learning.asked.is_some_and(|(_, at)| self.now.since(at) < self.options.retry) {
            return;
        }
        self.learning.asked = Some((whom, self.now));
        // A question promises nothing.
        out.send_early(whom, Message::Learn { after: self.decided });
    }

    /// Somebody lags.
    pub(super) fn on_learn(&mut self, from: NodeId, after: Index, out: &mut Output<Self>) {
        self.heard_of(from, after);
        if after >= self.decided {
            return;
        }
        if after < self.slots.base() {
            return self.send_snapshot(from, out);
        }
        let (mut bytes, mut values) = (0, Vec::new());
        let mut slot = after.next();
        while slot <= self.decided
            && let Some(value) = self.slots.chosen(slot)
        {
            bytes += value.bytes();
            if !values.is_empty() && bytes > self.options.learn_bytes_max {
                break;
            }
            values.push(value.clone());
            slot = slot.next();
        }
        // What was chosen stays so: a fact, not a promise.
        out.send_early(from, Message::Known { first: after.next(), values, decided: self.decided });
    }

    /// What was missing comes.
    pub(super) fn on_known(
        &mut self,
        from: NodeId,
        first: Index,
        values: Vec<Value>,
        decided: Index,
        out: &mut Output<Self>,
    ) {
        self.heard_of(from, decided);
        let before = self.decided;
        let mut slot = first;
        for value in values {
            if slot.0 > self.decided.0 + AHEAD_MAX {
                break;
            }
            self.learn(slot, value, out);
            slot = slot.next();
        }
        if self.decided > before && self.learning.asked.is_some_and(|(whom, _)| whom == from) {
            self.learning.asked = None;
            if decided > self.decided {
                self.ask(from, out);
            }
        }
    }

    /// What time brings: gossip, and the end of patience.
    pub(super) fn let_time_pass(&mut self, out: &mut Output<Self>) {
        let now = self.now;
        if self.learning.gossip_due <= now {
            self.learning.gossip_due = now + self.options.gossip;
            for node in self.everybody_else() {
                // What is decided stays so: a fact, not a promise.
                out.send_early(node, Message::Have { decided: self.decided });
            }
            self.record_choices(out);
            self.refuse_old_reads(out);
        }
        if !self.is_stalled() {
            self.learning.stalled_at = None;
            return;
        }
        let patience = self.options.patience * (1 << self.learning.stalls.min(STALLS_MAX));
        let jitter = self.options.jitter;
        let rng = &mut self.rng;
        let mut next = || now + if jitter { rng.span(patience, patience * 2) } else { patience };
        let due = *self.learning.stalled_at.get_or_insert_with(&mut next);
        if due <= now {
            self.learning.stalled_at = Some(next());
            self.learning.stalls += 1;
            self.take_up(out);
        }
    }

    /// Whether something waits that only the next open slot can set free.
    fn is_stalled(&self) -> bool {
        let ahead = self.learning.peers.values().any(|peer| peer.decided > self.decided);
        ahead || self.slots.last() > self.decided || self.is_changing() && self.takes_part()
    }

    /// The next slots have been open for too long: asks whoever has come further, and begins attempts of its own.
    fn take_up(&mut self, out: &mut Output<Self>) {
        let decided = self.decided;
        let ahead: Vec<NodeId> = self
            .learning
            .peers
            .iter()
            .filter(|(_, peer)| peer.decided > decided)
            .map(|(id, _)| *id)
            .collect();
        if !ahead.is_empty() {
            let whom = ahead[self.rng.below(ahead.len() as u64) as usize];
            self.learning.asked = None;
            self.ask(whom, out);
        }
        let first = decided.next().max(self.floor().next());
        let last = if self.is_changing() { Index(u64::MAX) } else { self.slots.last() };
        for slot in (first.0..=last.0.min(decided.0 + ALPHA)).map(Index) {
            let is_open = self.slots.chosen(slot).is_none() && !self.attempts.contains_key(&slot);
            if is_open && self.may_propose_in(slot) {
                self.begin(slot, None, out);
            }
        }
    }

    /// Without a majority no read is ever fenced: better to say so.
    fn refuse_old_reads(&mut self, out: &mut Output<Self>) {
        let patience = self.read_patience();
        if self.now.since(Time::ZERO) < patience {
            return;
        }
        for read in self.old_reads(self.now - patience) {
            out.refuse_read(read, Refusal::NoLeader);
        }
    }

    fn read_patience(&self) -> std::time::Duration {
        self.options.patience * 10
    }

    /// When this part is due.
    pub(super) fn learning_deadline(&self) -> Time {
        let stalled = self.learning.stalled_at.unwrap_or(self.learning.gossip_due);
        self.learning.gossip_due.min(stalled)
    }
}

/// So many replicas that are no members are remembered: members to come, and former ones.
const STRANGERS_MAX: usize = 64;
