//! The acceptor (Paxos Made Simple, 2.2 and 2.5): two handlers, and what one must remember.
//!
//! "An acceptor needs to remember only the highest-numbered proposal that it has ever accepted and the number of the
//! highest-numbered prepare request to which it has responded [...] even if it fails and then restarts." Both go to the disk
//! before the answer leaves. A replica's own proposer asks its own acceptor, too; that answer counts when the disk
//! says so ([`Votes`]).
//!
//! Where a value is known to be chosen there is nothing left to promise: the answer is the value.

use std::collections::VecDeque;

use synod_core::{Index, Lsn, NodeId, Output};

use super::message::{Ballot, Message, Proposal, Record, Value};
use super::{ALPHA, Mutant, Paxos};

/// An acceptor takes part in slots up to so far beyond what it knows to be decided.
pub(super) const AHEAD_MAX: u64 = 4096;

/// What this replica's acceptor told its own proposer, waiting for the disk.
#[derive(Default)]
pub(super) struct Votes {
    waiting: VecDeque<(Lsn, Index, Ballot, Vote)>,
}

/// An answer of the own acceptor.
#[derive(Debug)]
pub(super) enum Vote {
    /// Phase 1.
    Promise(Option<Proposal>),
    /// Phase 2.
    Accepted,
}

impl Votes {
    fn push(&mut self, mark: Lsn, slot: Index, ballot: Ballot, vote: Vote) {
        self.waiting.push_back((mark, slot, ballot, vote));
    }

    fn pop(&mut self, durable: Lsn) -> Option<(Index, Ballot, Vote)> {
        let (_, slot, ballot, vote) = self.waiting.pop_front_if(|(mark, ..)| *mark <= durable)?;
        Some((slot, ballot, vote))
    }
}

impl Paxos {
    /// Phase 1b: "If an acceptor receives a prepare request with number n greater than that of any prepare request to which
    /// it has already responded, then it responds to the request with a promise not to accept any more proposals
    /// numbered less than n and with the highest-numbered proposal (if any) that it has accepted."
    pub(super) fn on_prepare(&mut self, from: NodeId, slot: Index, ballot: Ballot, out: &mut Output<Self>) {
        if !self.may_answer(from, slot, ballot, out) {
            return;
        }
        let promised = self.slots.get(slot).map_or(Ballot::ZERO, |slot| slot.promised);
        if ballot < promised {
            // A hint: the proposer will be outbid wherever it asks. It promises nothing.
            return out.send_early(from, Message::Refused { slot, ballot, promised });
        }
        let accepted = self.promise(slot, ballot, out);
        let message = Message::Promise { slot, ballot, accepted };
        if self.has(Mutant::PromiseBeforeDisk) {
            out.send_early(from, message)
        } else {
            out.send(from, message)
        }
        self.outbid(slot, ballot);
    }

    /// Phase 2b: "If an acceptor receives an accept request for a proposal numbered n, it accepts the proposal unless it has
    /// already responded to a prepare request having a number greater than n."
    pub(super) fn on_accept(
        &mut self,
        from: NodeId,
        slot: Index,
        ballot: Ballot,
        value: Value,
        out: &mut Output<Self>,
    ) {
        if !self.may_answer(from, slot, ballot, out) {
            return;
        }
        let promised = self.slots.get(slot).map_or(Ballot::ZERO, |slot| slot.promised);
        if ballot < promised {
            return out.send_early(from, Message::Refused { slot, ballot, promised });
        }
        self.accept(slot, ballot, value, out);
        let message = Message::Accepted { slot, ballot };
        if self.has(Mutant::AckBeforeDisk) {
            out.send_early(from, message)
        } else {
            out.send(from, message)
        }
        self.outbid(slot, ballot);
    }

    /// Whether this acceptor has anything to say in a slot; if it has better than that, it says so.
    fn may_answer(&mut self, from: NodeId, slot: Index, ballot: Ballot, out: &mut Output<Self>) -> bool {
        if ballot.node != from || slot == Index::ZERO {
            return false; // Nobody speaks for another.
        }
        if let Some(value) = self.slots.chosen(slot) {
            let values = vec![value.clone()];
            // What was chosen stays so: a fact, not a promise.
            out.send_early(from, Message::Known { first: slot, values, decided: self.decided });
            return false;
        }
        if slot <= self.floor() {
            if self.has(Mutant::AnswersForCompacted) {
                out.send(from, Message::Promise { slot, ballot, accepted: None });
                return false;
            }
            // Decided, and forgotten here: who asks must learn it, or take a snapshot.
            out.send_early(from, Message::Have { decided: self.decided });
            return false;
        }
        // Beyond the window this replica only follows, as far as its memory goes.
        let is_near = slot.0 <= self.decided.0 + ALPHA;
        is_near
            || slot.0 <= self.decided.0 + AHEAD_MAX && self.slots.bytes() <= self.options.backlog_bytes_max
    }

    /// Up to here, this acceptor does not remember what it promised.
    pub(super) fn floor(&self) -> Index {
        self.floor.max(self.slots.base())
    }

    /// Promises, and tells what was accepted. The caller has compared the ballots.
    fn promise(&mut self, at: Index, ballot: Ballot, out: &mut Output<Self>) -> Option<Proposal> {
        let forgets = self.has(Mutant::ForgetsPromise);
        let hides = self.has(Mutant::PromiseHidesAccepted);
        let (is_new, accepted) = self.slots.change(at, |slot| {
            slot.seen = slot.seen.max(ballot);
            let is_new = ballot > slot.promised;
            if is_new && !forgets {
                slot.promised = ballot;
            }
            (is_new, slot.accepted.clone().filter(|_| !hides))
        });
        if is_new {
            out.record(Record::Promised { slot: at, ballot });
        }
        accepted
    }

    /// Accepts. The caller has compared the ballots.
    fn accept(&mut self, at: Index, ballot: Ballot, value: Value, out: &mut Output<Self>) {
        let promises = !self.has(Mutant::AcceptPromisesNothing);
        let is_new = self.slots.change(at, |slot| {
            slot.seen = slot.seen.max(ballot);
            if promises {
                slot.promised = slot.promised.max(ballot);
            }
            // A ballot has one value: a copy of the message changes nothing.
            let is_new = slot.accepted.as_ref().is_none_or(|accepted| accepted.ballot != ballot);
            if is_new {
                slot.accepted = Some(Proposal { ballot, value: value.clone() });
            }
            is_new
        });
        if is_new {
            out.record(Record::Accepted { slot: at, ballot, value });
        }
    }

    /// The own proposer begins a ballot: the own acceptor promises it, and will count when that is on disk.
    pub(super) fn promise_myself(&mut self, slot: Index, ballot: Ballot, out: &mut Output<Self>) {
        let accepted = self.promise(slot, ballot, out);
        self.votes.push(out.written(), slot, ballot, Vote::Promise(accepted));
    }

    /// The own proposer proposes: the own acceptor accepts, unless it has promised another ballot since.
    pub(super) fn accept_myself(
        &mut self,
        slot: Index,
        ballot: Ballot,
        value: Value,
        out: &mut Output<Self>,
    ) {
        self.accept(slot, ballot, value, out);
        self.votes.push(out.written(), slot, ballot, Vote::Accepted);
    }

    /// The disk has caught up with the own acceptor.
    pub(super) fn count_own_votes(&mut self, out: &mut Output<Self>) {
        let me = self.id;
        let durable = if self.has(Mutant::CountsItselfEarly) { out.written() } else { self.durable };
        while let Some((slot, ballot, vote)) = self.votes.pop(durable) {
            match vote {
                Vote::Promise(accepted) => self.on_promise(me, slot, ballot, accepted, out),
                Vote::Accepted => self.on_accepted(me, slot, ballot, out),
            }
        }
    }
}
