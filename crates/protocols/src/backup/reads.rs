//! Linearizable reads: at the primary, fenced (PacificA 2.3).
//!
//! A read must see all that was decided before it began. The primary knows how far that is, once what it took over is decided
//! again in its own reign; that it still *is* the primary, it learns by a round of heartbeats: while a majority has promised
//! nothing to anybody else, no other view can have begun. All reads that wait share the next round. A backup asks its
//! primary for the index, and serves the read itself.
//!
//! With leases (always under asynchronous replication, which needs one for writes) the round is saved.
//!
//! Once a takeover may have lost decided writes, a client may have seen what is gone: reads are refused then, until whoever
//! runs the cluster sets `after_loss`.

use std::collections::VecDeque;
use std::time::Duration;

use synod_core::quorum;
use synod_core::{Index, NodeId, Output, ReadId, Refusal, Time};

use super::message::{Message, Replication, ViewNumber};
use super::options::AfterLoss;
use super::{Mutant, Part, PrimaryBackup};

/// Rounds, or requests of a backup, under way at once. With one, reads would wait longer; with many, each would carry few.
const ROUNDS_MAX: usize = 2;

/// Reads that may wait for a round or a request; more are refused as busy, or left to ask again.
const WAITING_MAX: usize = 1 << 18;

/// What a client hears who asks for the latest, when a failover may have lost what it saw.
pub(super) const LOSS: &str = "asynchronous primary-backup: a failover may have lost acknowledged writes, so linearizable reads are refused; \
     read with serializable consistency, or restart the members with --after-loss serve to begin history anew";

/// The reads that wait for a fence.
#[derive(Default)]
pub(super) struct Reads {
    /// In no round and no request yet.
    waiting: Vec<Asker>,
    /// Since when some have waited without anybody to ask.
    waiting_since: Time,
    /// A primary's rounds, oldest first.
    rounds: VecDeque<Round>,
    /// A backup's requests, oldest first.
    requests: VecDeque<Request>,
    /// Counts the requests of this life.
    number: u64,
}

/// Who wants a fence.
enum Asker {
    /// A read of this replica.
    Here(ReadId),
    /// The request of a backup.
    There { node: NodeId, life: u64, number: u64 },
}

/// Reads that one round of heartbeats confirms.
struct Round {
    number: u64,
    /// The view that is to be confirmed.
    view: ViewNumber,
    /// What had been decided when the round began.
    index: Index,
    askers: Vec<Asker>,
}

/// Reads for which a primary is asked.
struct Request {
    number: u64,
    reads: Vec<ReadId>,
    since: Time,
    /// Whom it was sent to last, in which view, and when.
    sent: (NodeId, ViewNumber, Time),
}

impl Reads {
    /// This replica leads: what it asked others, it will now answer itself.
    pub(super) fn lead(&mut self) {
        let reads = self.requests.drain(..).flat_map(|request| request.reads);
        self.waiting.extend(reads.map(Asker::Here));
    }

    /// This replica leads no more: its own reads will ask the next primary, others' are asked again by them.
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

impl PrimaryBackup {
    pub(super) fn read(&mut self, read: ReadId, out: &mut Output<Self>) {
        if self.reads.waiting.len() >= WAITING_MAX {
            return out.refuse_read(read, Refusal::Busy);
        }
        if self.has_lost() {
            return out.refuse_read(read, Refusal::Unsupported(LOSS));
        }
        self.reads.wait(Asker::Here(read), self.now);
    }

    /// Whether what clients saw may be gone, and nobody has taken note.
    fn has_lost(&self) -> bool {
        self.may_stray() && self.options.after_loss == AfterLoss::Refuse
    }

    pub(super) fn on_request_index(&mut self, from: NodeId, view: ViewNumber, life: u64, number: u64) {
        let asks_this = matches!(self.part, Part::Primary(_)) && view == self.view.number;
        if asks_this && self.reads.waiting.len() < WAITING_MAX && !self.has_lost() {
            self.reads.wait(Asker::There { node: from, life, number }, self.now);
        }
    }

    /// Begins a round for the reads that wait, or answers them by the lease.
    pub(super) fn fence_reads(&mut self, out: &mut Output<Self>) {
        let Part::Primary(leading) = &self.part else { return };
        if self.has_lost() && (!self.reads.waiting.is_empty() || !self.reads.rounds.is_empty()) {
            return self.refuse_lost(out);
        }
        // Before it has decided in its own reign, a primary does not know what is decided.
        let settled = self.decided >= leading.begins_at || self.has(Mutant::ReadTooEarly);
        if self.reads.waiting.is_empty() || !settled {
            return;
        }
        let by_lease = self.options.lease_reads || self.view.replication == Replication::Async;
        if by_lease && self.has_lease() || self.has(Mutant::ReadUnfenced) {
            let askers = std::mem::take(&mut self.reads.waiting);
            return self.answer(askers, self.decided, out);
        }
        if self.reads.rounds.len() >= ROUNDS_MAX {
            return;
        }
        let Part::Primary(leading) = &mut self.part else { return };
        leading.round += 1;
        let askers = std::mem::take(&mut self.reads.waiting);
        let (number, view, index) = (leading.round, self.view.number, self.decided);
        self.reads.rounds.push_back(Round { number, view, index, askers });
        self.send_heartbeats(out);
        // A majority of one has answered already.
        self.confirm_reads(out);
    }

    /// The view began with a loss while reads were waiting for it.
    fn refuse_lost(&mut self, out: &mut Output<Self>) {
        let rounds = self.reads.rounds.drain(..).flat_map(|round| round.askers);
        for asker in rounds.chain(self.reads.waiting.drain(..)) {
            if let Asker::Here(read) = asker {
                out.refuse_read(read, Refusal::Unsupported(LOSS));
            }
        }
    }

    /// Answers the reads of every round that a majority has confirmed.
    pub(super) fn confirm_reads(&mut self, out: &mut Output<Self>) {
        if self.reads.rounds.is_empty() {
            return;
        }
        let Part::Primary(leading) = &self.part else { return };
        let answered = |node| leading.peers.get(&node).map_or(leading.round, |peer| peer.progress.round);
        let Some(confirmed) = quorum::majority_reached(&self.view.members.voters, answered) else { return };
        let current = self.view.number;
        while let Some(round) =
            self.reads.rounds.pop_front_if(|round| round.number <= confirmed || round.view < current)
        {
            if round.view < current {
                // Another view of the same primary has begun: its members are asked anew.
                self.reads.waiting.extend(round.askers);
            } else {
                self.answer(round.askers, round.index, out);
            }
        }
    }

    fn answer(&self, askers: Vec<Asker>, index: Index, out: &mut Output<Self>) {
        for asker in askers {
            match asker {
                Asker::Here(read) => out.serve(read, index),
                Asker::There { node, life, number } => {
                    // What is decided stays so: a fact, not a promise.
                    let view = self.view.number;
                    out.send_early(node, Message::ReadIndex { view, life, number, index });
                }
            }
        }
    }

    /// Asks the primary on behalf of the reads that wait; asks again if it is another one by now.
    pub(super) fn forward_reads(&mut self, out: &mut Output<Self>) {
        let Some(primary) = self.leader else { return };
        if self.has_lost() && !(self.reads.requests.is_empty() && self.reads.waiting.is_empty()) {
            for read in self.reads.requests.drain(..).flat_map(|request| request.reads) {
                out.refuse_read(read, Refusal::Unsupported(LOSS));
            }
            return self.refuse_lost(out);
        }
        let (now, view) = (self.now, self.view.number);
        let mut numbers = Vec::new();
        for request in self.reads.requests.iter_mut().filter(|request| request.sent.1 != view) {
            request.sent = (primary, view, now);
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
            self.reads.requests.push_back(Request { number, reads, since: now, sent: (primary, view, now) });
            numbers.push(number);
        }
        self.request_indices(primary, &numbers, out);
    }

    fn request_indices(&self, primary: NodeId, numbers: &[u64], out: &mut Output<Self>) {
        let ((life, _), view) = (self.life, self.view.number);
        for &number in numbers {
            self.send_in_this_life(primary, Message::RequestIndex { view, life, number }, out);
        }
    }

    /// Whoever was primary when it answered had been confirmed after it was asked, and so after the reads began.
    pub(super) fn on_read_index(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        life: u64,
        number: u64,
        index: Index,
        out: &mut Output<Self>,
    ) {
        let (this_life, _) = self.life;
        let place = self.reads.requests.iter().position(|request| request.number == number);
        let fits = life == this_life && view == self.view.number && self.view.primary == Some(from);
        if let Some(place) = place.filter(|_| fits)
            && let Some(request) = self.reads.requests.remove(place)
        {
            for read in request.reads {
                out.serve(read, index);
            }
        }
    }

    /// A request or its answer may be lost: ask again; and give up after two election timeouts.
    pub(super) fn reads_timeout(&mut self, out: &mut Output<Self>) {
        if matches!(self.part, Part::Primary(_)) {
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
        let (Some(primary), view) = (self.leader, self.view.number) else { return };
        let mut numbers = Vec::new();
        for request in self.reads.requests.iter_mut().filter(|request| now.since(request.sent.2) >= retry) {
            request.sent = (primary, view, now);
            numbers.push(request.number);
        }
        self.request_indices(primary, &numbers, out);
    }

    /// When a backup's reads need care.
    pub(super) fn reads_deadline(&self) -> Option<Time> {
        if matches!(self.part, Part::Primary(_)) {
            return None;
        }
        let given_up = self.reads.requests.front().map(|request| request.since + self.read_patience());
        let retried = self.reads.requests.iter().map(|request| request.sent.2 + self.read_retry()).min();
        let waiting =
            (!self.reads.waiting.is_empty()).then(|| self.reads.waiting_since + self.read_patience());
        [given_up, retried.filter(|_| self.leader.is_some()), waiting].into_iter().flatten().min()
    }

    fn read_retry(&self) -> Duration {
        self.options.heartbeat * 2
    }

    fn read_patience(&self) -> Duration {
        self.options.election_timeout * 2
    }
}
