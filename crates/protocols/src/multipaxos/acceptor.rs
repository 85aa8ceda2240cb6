//! The acceptor (PMMC figure 4): it promises ballots and accepts values, and forgets neither.
//!
//! Its whole state is the highest ballot that it has promised and, for each slot, the last value that it accepted. What a
//! promise must tell is that state from a slot on; where it is long, it is told in parts, each asked for by itself: nothing
//! below the promised ballot changes any more, so the parts belong together whenever they are told.
//!
//! Beyond the paper, an acceptor that hears of its leader promises nothing to others for an election timeout. That gives
//! leases their meaning (Made Live 5.2), and keeps whoever was cut off from unseating a leader that works.

use synod_core::{Index, NodeId, Output, Time};

use super::message::{ALL_SLOTS, Ballot, Message, Purpose, Pvalue, Range, Record, Value};
use super::{MultiPaxos, Mutant, Part};

impl MultiPaxos {
    /// Would this ballot be promised?
    pub(super) fn on_probe(&mut self, from: NodeId, ballot: Ballot, slot: Index, out: &mut Output<Self>) {
        let granted = ballot > self.promised && !self.has_live_leader() && self.can_tell_from(slot);
        // A likely promise is none, and neither is a refusal.
        out.send_early(from, Message::Probed { ballot, granted, promised: self.promised });
    }

    /// Phase 1a.
    pub(super) fn on_prepare(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        slot: Index,
        purpose: Purpose,
        out: &mut Output<Self>,
    ) {
        // The leader itself wants a transfer, or asks for more: that it is alive is no reason to refuse.
        let is_known = ballot == self.promised || purpose == Purpose::Transfer;
        let loyal = !is_known && self.has_live_leader();
        if ballot < self.promised || loyal || !self.can_tell_from(slot) {
            // That something is not promised promises nothing.
            return out.send_early(from, Message::Refused { asked: ballot, promised: self.promised });
        }
        let prefix = self.prefix;
        if ballot > self.promised {
            self.adopt(ballot, out);
        }
        if self.leader.is_none() {
            self.wait_for_leader();
        }
        let first = if self.has(Mutant::PromiseLeavesOut) { slot.max(prefix.next()) } else { slot };
        let (accepted, left_out) = self.slots.pvalues_from(first, self.options.accept_bytes_max);
        let upto = left_out.unwrap_or(ALL_SLOTS);
        let promise = Message::Promise { ballot, from: slot, upto, accepted, decided: self.decided };
        if self.has(Mutant::PromiseBeforeDisk) {
            return out.send_early(from, promise);
        }
        // Waits for the disk: a promise forgotten in a crash could be broken.
        out.send(from, promise);
    }

    /// Whether everything accepted from `slot` on is still kept. Whoever asks for more lags so far behind that it should not lead.
    fn can_tell_from(&self, slot: Index) -> bool {
        slot > self.slots.base()
    }

    /// Promises a higher ballot, whoever asked for it.
    pub(super) fn adopt(&mut self, ballot: Ballot, out: &mut Output<Self>) {
        assert!(ballot > self.promised, "promises only grow: {ballot:?} after {:?}", self.promised);
        if matches!(self.part, Part::Leader(_)) {
            self.step_down(out);
        }
        self.part = Part::Follower;
        self.leader = None;
        self.promised = ballot;
        self.promised_lsn = out.record(Record::Promised(ballot));
        self.round_seen = self.round_seen.max(ballot.round);
        self.prefix = self.decided;
        self.told = Index::ZERO;
        self.owes_accepted = false;
        if !self.has(Mutant::CountsOldWrites) {
            self.disk.begin_ballot(self.decided);
        }
    }

    /// Takes the sender for the leader of this ballot, unless a higher one is promised.
    pub(super) fn follow(&mut self, leader: NodeId, ballot: Ballot, out: &mut Output<Self>) -> bool {
        if ballot < self.promised {
            return false;
        }
        if ballot > self.promised {
            self.adopt(ballot, out);
        }
        self.part = Part::Follower;
        self.leader = Some(leader);
        self.heard_leader = Some(self.now);
        self.wait_for_leader();
        true
    }

    fn refuse(&self, to: NodeId, asked: Ballot, out: &mut Output<Self>) {
        if !self.has(Mutant::SilentToOldBallots) {
            // What was promised to another is on its way to the disk, and the asker's ballot is over either way.
            out.send_early(to, Message::Refused { asked, promised: self.promised });
        }
    }

    /// Phase 2a, for slots that follow one another.
    pub(super) fn on_accept(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        first: Index,
        values: Vec<Value>,
        decided: Index,
        out: &mut Output<Self>,
    ) {
        if ballot < self.promised && self.has(Mutant::AcceptsBelowPromise) {
            return self.accept_below(from, ballot, first, values, out);
        }
        if !self.follow(from, ballot, out) {
            return self.refuse(from, ballot, out);
        }
        let crowded = self.slots.bytes() / 2 >= self.options.backlog_bytes_max;
        for (at, value) in (first.0..).map(Index).zip(values) {
            // What is decided is known; and a ballot has one value for each slot.
            if at <= self.decided || self.slots.ballot(at) == Some(ballot) {
                continue;
            }
            // What is decided needs no room, for it is delivered at once. And one slot more must do, or what a restart brought
            // back, none of it known to be decided, would keep a new leader's first value out for ever.
            if crowded && at > decided.max(self.prefix.next()) {
                break;
            }
            self.accept(at, value, out);
        }
        self.owes_accepted = true;
        self.extend_prefix();
        self.told = self.told.max(decided);
        self.learn(out);
    }

    /// Accepts a value in the promised ballot.
    pub(super) fn accept(&mut self, at: Index, value: Value, out: &mut Output<Self>) {
        assert!(at > self.decided, "what is decided is not accepted anew: {at:?}");
        let ballot = self.promised;
        self.slots.accept(at, ballot, value.clone());
        out.record(Record::Accepted(Pvalue { at, ballot, value }));
    }

    /// What a mutant does with a value that it must not accept.
    fn accept_below(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        first: Index,
        values: Vec<Value>,
        out: &mut Output<Self>,
    ) {
        let last = Index(first.0 + values.len() as u64).previous();
        for (at, value) in (first.0..).map(Index).zip(values).filter(|(at, _)| *at > self.decided) {
            self.slots.accept(at, ballot, value.clone());
            out.record(Record::Accepted(Pvalue { at, ballot, value }));
        }
        let beyond = if last >= first { vec![Range { first, last }] } else { Vec::new() };
        out.send(from, Message::Accepted { ballot, through: self.decided, beyond });
    }

    /// How far everything is accepted in the promised ballot, or decided.
    pub(super) fn extend_prefix(&mut self) {
        self.prefix = self.prefix.max(self.decided);
        while self.slots.ballot(self.prefix.next()) == Some(self.promised) {
            self.prefix = self.prefix.next();
        }
    }

    /// Phase 2b, once for all Accepts since the last flush.
    pub(super) fn answer_accept(&mut self, out: &mut Output<Self>) {
        if !std::mem::take(&mut self.owes_accepted) {
            return;
        }
        let Some(leader) = self.leader else { return };
        let over_gaps = self.has(Mutant::AcksOverGaps);
        let through = if over_gaps { self.slots.last().max(self.prefix) } else { self.prefix };
        let accepted = Message::Accepted { ballot: self.promised, through, beyond: self.beyond(through) };
        if self.has(Mutant::AckBeforeDisk) {
            return out.send_early(leader, accepted);
        }
        // Waits for the disk: the leader will count on it.
        out.send(leader, accepted);
    }

    /// What is accepted in the promised ballot beyond a gap.
    fn beyond(&self, through: Index) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        for at in self.slots.accepted_above(through, self.promised) {
            if let Some(range) = ranges.last_mut().filter(|range| range.last.next() == at) {
                range.last = at;
            } else if ranges.len() < RANGES_TOLD_MAX {
                ranges.push(Range { first: at, last: at });
            } else {
                break;
            }
        }
        ranges
    }

    pub(super) fn on_heartbeat(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        decided: Index,
        round: u64,
        sent: Time,
        out: &mut Output<Self>,
    ) {
        if !self.follow(from, ballot, out) {
            return self.refuse(from, ballot, out);
        }
        self.told = self.told.max(decided);
        self.learn(out);
        if self.lacks_snapshot() {
            // A wish promises nothing.
            out.send_early(from, Message::NeedSnapshot { ballot, from: self.slots.base() });
        }
        let durable = self.disk.through().max(self.decided);
        let (received, knows) = (self.prefix, self.knows);
        // Early: it says what was true when the heartbeat came. Had this replica promised a higher ballot before, it would
        // know by its disk; what it promises from now on cannot make an earlier read stale.
        let ack = Message::HeartbeatAck { ballot, round, sent, received, durable, knows };
        out.send_early(from, ack);
    }

    pub(super) fn on_decided(&mut self, from: NodeId, ballot: Ballot, upto: Index, out: &mut Output<Self>) {
        if self.follow(from, ballot, out) {
            self.told = self.told.max(upto);
            self.learn(out);
        }
    }
}

/// Ranges beyond a gap that one Accepted tells of; the rest will be sent again.
const RANGES_TOLD_MAX: usize = 256;
