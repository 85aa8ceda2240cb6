//! Linearizable reads that take no slot (PMMC 4.5; Made Live 5.2).
//!
//! A read must see all that was decided before it began. The leader knows how far that is once everything that its promises
//! found is decided: nothing else can have been, in an earlier ballot, and in its own it decides itself. That no later ballot
//! has begun to decide, it learns by a round of heartbeats that a quorum answers. All reads that wait share the next round. A
//! follower asks its leader for the index, and serves the read itself.
//!
//! With leases, the round is saved: a quorum that answered a heartbeat promises nothing to others for an election timeout
//! after it, so no other leader can exist for that long, minus what clocks may drift apart. The clock is read when the read is
//! answered: a leader that was paused finds its lease run out.

use std::collections::VecDeque;

use synod_core::quorum;
use synod_core::{Index, NodeId, Output, ReadId, Refusal, Time};

use super::message::Message;
use super::{MultiPaxos, Mutant, Part};

/// Rounds, or requests of a follower, under way at once. With one, reads would wait longer; with many, each
/// would carry few.
const ROUNDS_MAX: usize = 2;

/// Reads that may wait for a round or a request; more are refused as busy, or left to ask again.
const WAITING_MAX: usize = 1 << 18;

/// The reads that wait for a fence.
#[derive(Default)]
pub(super) struct Reads {
    /// In no round and no request yet.
    waiting: Vec<Asker>,
    /// Since when some have waited without anybody to ask.
    waiting_since: Time,
    /// A leader's rounds, oldest first.
    rounds: VecDeque<Round>,
    /// A follower's requests, oldest first.
    requests: VecDeque<Request>,
    /// Counts the requests of this life.
    number: u64,
}

/// Who wants a fence.
enum Asker {
    /// A read of this replica.
    Here(ReadId),
    /// The request of a follower.
    There { node: NodeId, life: u64, number: u64 },
}

/// Reads that one round of heartbeats confirms.
struct Round {
    number: u64,
    /// What had been decided when the round began.
    index: Index,
    askers: Vec<Asker>,
}

/// Reads for which a leader is asked.
struct Request {
    number: u64,
    reads: Vec<ReadId>,
    since: Time,
    /// Whom it was sent to last, and when.
    sent: (NodeId, Time),
}

impl Reads {
    /// This replica leads: what it asked others, it will now answer itself.
    pub(super) fn lead(&mut self) {
        let reads = self.requests.drain(..).flat_map(|request| request.reads);
        self.waiting.extend(reads.map(Asker::Here));
    }

    /// This replica leads no more: its own reads will ask the next leader, others' are asked again by them.
    pub(super) fn stop_leading(&mut self, now: Time) {
        let unconfirmed = self.rounds.drain(..).flat_map(|round| round.askers);
        let mut all: Vec<Asker> = unconfirmed.collect();
        all.append(&mut self.waiting);
        all.retain(|asker| matches!(asker, Asker::Here(_)));
        self.waiting = all;
        self.waiting_since = now;
    }

    fn wait(&mut self, asker: Asker, now: Time) {
        if self.waiting.is_empty() {
            self.waiting_since = now;
        }
        self.waiting.push(asker);
    }
}

impl MultiPaxos {
    pub(super) fn read(&mut self, read: ReadId, out: &mut Output<Self>) {
        if self.reads.waiting.len() >= WAITING_MAX {
            return out.refuse_read(read, Refusal::Busy);
        }
        self.reads.wait(Asker::Here(read), self.now);
    }

    pub(super) fn on_request_index(&mut self, from: NodeId, life: u64, number: u64) {
        if matches!(self.part, Part::Leader(_)) && self.reads.waiting.len() < WAITING_MAX {
            self.reads.wait(Asker::There { node: from, life, number }, self.now);
        }
    }

    /// Begins a round for the reads that wait, or answers them by the lease.
    pub(super) fn fence_reads(&mut self, out: &mut Output<Self>) {
        let settled = self.is_settled() || self.has(Mutant::ReadTooEarly);
        if self.reads.waiting.is_empty() || !settled {
            return;
        }
        if self.has_lease() {
            let askers = std::mem::take(&mut self.reads.waiting);
            return self.answer(askers, self.decided, out);
        }
        if self.reads.rounds.len() >= ROUNDS_MAX {
            return;
        }
        let Part::Leader(leading) = &mut self.part else { return };
        leading.round += 1;
        let askers = std::mem::take(&mut self.reads.waiting);
        self.reads.rounds.push_back(Round { number: leading.round, index: self.decided, askers });
        self.send_heartbeats(out);
        // A quorum of one has answered already.
        self.confirm_reads(out);
    }

    /// Answers the reads of every round that a quorum has confirmed.
    pub(super) fn confirm_reads(&mut self, out: &mut Output<Self>) {
        if self.reads.rounds.is_empty() {
            return;
        }
        let Part::Leader(leading) = &self.part else { return };
        let answered = |node| leading.peers.get(&node).map_or(leading.round, |peer| peer.round);
        let Some(confirmed) = quorum::joint_reached(self.slots.members(), answered) else { return };
        while let Some(round) = self.reads.rounds.pop_front_if(|round| round.number <= confirmed) {
            self.answer(round.askers, round.index, out);
        }
    }

    /// Whether no other leader can exist at this moment, if clocks keep their bound.
    fn has_lease(&self) -> bool {
        let Part::Leader(leading) = &self.part else { return false };
        if !self.options.lease_reads || leading.lease_is_void {
            return false;
        }
        let confirmed = |node| leading.peers.get(&node).map_or(Some(self.now), |peer| peer.confirmed);
        let quorum = quorum::joint_reached(self.slots.members(), confirmed).flatten();
        let length = self.options.election_timeout.saturating_sub(self.options.clock_drift_max);
        let by_old_clock = self.has(Mutant::LeaseByOldClock);
        let now = if by_old_clock { leading.heartbeat_due - self.options.heartbeat } else { self.now };
        quorum.is_some_and(|confirmed| now.since(confirmed) < length)
    }

    fn answer(&self, askers: Vec<Asker>, index: Index, out: &mut Output<Self>) {
        for asker in askers {
            match asker {
                Asker::Here(read) => out.serve(read, index),
                Asker::There { node, life, number } => {
                    // What is decided stays so: a fact, not a promise.
                    out.send_early(node, Message::ReadIndex { life, number, index });
                }
            }
        }
    }

    /// Asks the leader on behalf of the reads that wait; asks again if it is another one by now.
    pub(super) fn forward_reads(&mut self, out: &mut Output<Self>) {
        let Some(leader) = self.leader else { return };
        let now = self.now;
        let mut numbers = Vec::new();
        for request in self.reads.requests.iter_mut().filter(|request| request.sent.0 != leader) {
            request.sent = (leader, now);
            numbers.push(request.number);
        }
        if !self.reads.waiting.is_empty() && self.reads.requests.len() < ROUNDS_MAX {
            self.reads.number += 1;
            let here = |asker| match asker {
                Asker::Here(read) => Some(read),
                Asker::There { .. } => None,
            };
            let reads = self.reads.waiting.drain(..).filter_map(here).collect();
            let number = self.reads.number;
            self.reads.requests.push_back(Request { number, reads, since: now, sent: (leader, now) });
            numbers.push(number);
        }
        self.request_indices(leader, &numbers, out);
    }

    fn request_indices(&self, leader: NodeId, numbers: &[u64], out: &mut Output<Self>) {
        let (life, _) = self.life;
        for &number in numbers {
            self.send_in_this_life(leader, Message::RequestIndex { life, number }, out);
        }
    }

    /// Whoever led when it answered had been confirmed after it was asked, and so after the reads began.
    pub(super) fn on_read_index(&mut self, life: u64, number: u64, index: Index, out: &mut Output<Self>) {
        let (this_life, _) = self.life;
        let place = self.reads.requests.iter().position(|request| request.number == number);
        if let Some(place) = place.filter(|_| life == this_life)
            && let Some(request) = self.reads.requests.remove(place)
        {
            for read in request.reads {
                out.serve(read, index);
            }
        }
    }

    /// A request or its answer may be lost: ask again; and give up after two election timeouts.
    pub(super) fn reads_timeout(&mut self, out: &mut Output<Self>) {
        if matches!(self.part, Part::Leader(_)) {
            return;
        }
        let (now, retry, patience) = (self.now, self.read_retry(), self.read_patience());
        while let Some(request) =
            self.reads.requests.pop_front_if(|request| now.since(request.since) >= patience)
        {
            for read in request.reads {
                out.refuse_read(read, Refusal::NoLeader);
            }
        }
        if !self.reads.waiting.is_empty() && now.since(self.reads.waiting_since) >= patience {
            for asker in self.reads.waiting.drain(..) {
                if let Asker::Here(read) = asker {
                    out.refuse_read(read, Refusal::NoLeader);
                }
            }
        }
        let Some(leader) = self.leader else { return };
        let mut numbers = Vec::new();
        for request in self.reads.requests.iter_mut().filter(|request| now.since(request.sent.1) >= retry) {
            request.sent = (leader, now);
            numbers.push(request.number);
        }
        self.request_indices(leader, &numbers, out);
    }

    /// When a follower's reads need care.
    pub(super) fn reads_deadline(&self) -> Option<Time> {
        if matches!(self.part, Part::Leader(_)) {
            return None;
        }
        let given_up = self.reads.requests.front().map(|request| request.since + self.read_patience());
        let retried = self.reads.requests.iter().map(|request| request.sent.1 + self.read_retry()).min();
        let waiting =
            (!self.reads.waiting.is_empty()).then(|| self.reads.waiting_since + self.read_patience());
        [given_up, retried.filter(|_| self.leader.is_some()), waiting].into_iter().flatten().min()
    }

    fn read_retry(&self) -> std::time::Duration {
        self.options.heartbeat * 2
    }

    fn read_patience(&self) -> std::time::Duration {
        self.options.election_timeout * 2
    }
}
