//! The client's part (4.1), played by each replica for its own clients.
//!
//! What clients propose becomes a signed request with an ascending number. It goes to the primary; if it is not executed soon
//! it goes to all, who pass it on to the primary and begin to watch whether it is executed. A replica believes its
//! own execution, so there are no replies among replicas.
//!
//! A read is a fence: it is tied to a request, which may be empty, made after the read was asked; when that is executed,
//! everything decided before the read was asked has been.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use synod_core::{Batch, Index, NodeId, Output, ReadId, Refusal, Time, batch_bytes, empty_batch};

use super::dedup::LIFE_SHIFT;
use super::message::{Message, Request};
use super::{Pbft, Phase};

/// So many requests that the primary makes for its view alone wait at once; one holds all that gathered for a flush.
const BOUND_MAX: usize = 16;

/// The requests of this replica's own clients.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// What waits to become a request.
    queue: VecDeque<Batch>,
    queue_bytes: usize,
    queued_since: Time,
    /// Reads that no request fences yet.
    reads: Vec<ReadId>,
    /// Counts the requests of this life.
    made: u64,
    outstanding: BTreeMap<u64, Outstanding>,
}

#[derive(Debug)]
struct Outstanding {
    request: Arc<Request>,
    /// What it fences.
    reads: Vec<ReadId>,
    made: Time,
    sent: Time,
}

impl Own {
    /// All reads that wait want one fence.
    pub(super) fn read(&mut self, read: ReadId) {
        self.reads.push(read);
    }

    /// A request was executed: the reads that it fenced.
    pub(super) fn executed(&mut self, number: u64) -> Vec<ReadId> {
        self.outstanding.remove(&number).map(|it| it.reads).unwrap_or_default()
    }

    /// The requests that are not executed yet.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.outstanding.keys().copied().collect()
    }

    /// The commands of the next request: as much of the queue as fits, at least one batch.
    fn next_batch(&mut self, bytes_max: usize) -> Batch {
        let Some(first) = self.queue.pop_front() else { return empty_batch() };
        let mut bytes = batch_bytes(&first);
        let mut more = Vec::new();
        while let Some(next) = self.queue.pop_front_if(|next| bytes + batch_bytes(next) <= bytes_max) {
            bytes += batch_bytes(&next);
            more.push(next);
        }
        self.queue_bytes -= bytes;
        if more.is_empty() {
            return first; // The common case: shared with whoever proposed it.
        }
        first.iter().chain(more.iter().flat_map(|batch| batch.iter())).cloned().collect()
    }
}

impl Pbft {
    /// Clients of this replica want a batch ordered.
    pub(super) fn propose(&mut self, batch: Batch, out: &mut Output<Self>) {
        let bytes = batch_bytes(&batch);
        let full = self.own.queue_bytes + bytes > self.options.backlog_bytes_max;
        // What cannot be forgotten yet, because no snapshot covers it, must stay bounded, too.
        let swollen = self.decided_bytes > self.options.backlog_bytes_max.saturating_mul(4);
        if full && !self.own.queue.is_empty() || swollen {
            return out.refuse(batch, Refusal::Busy);
        }
        if self.own.queue.is_empty() {
            self.own.queued_since = self.now;
        }
        self.own.queue_bytes += bytes;
        self.own.queue.push_back(batch);
    }

    /// The primary wants this ordered in its view, or not at all: it keeps time for all (leases), and what it knows is true for its view
    /// alone. Nobody else may give it a number, and no fence hangs on it, so nothing is lost when it falls with the view.
    pub(super) fn propose_as_primary(&mut self, batch: Batch, out: &mut Output<Self>) {
        if !self.is_primary() {
            return out.refuse(batch, Refusal::NotLeader { leader: self.known_primary() });
        }
        if self.pool.bound() >= BOUND_MAX {
            return out.refuse(batch, Refusal::Busy);
        }
        self.own.made += 1;
        let number = (self.life.0 << LIFE_SHIFT) + self.own.made;
        let request = Request::within(Some(self.view), self.id, number, batch, &self.keys);
        self.pool.add(&Arc::new(request), &self.head.executed);
    }

    /// What gathered since the last flush becomes one request, if not too many are under way.
    pub(super) fn make_requests(&mut self, out: &mut Output<Self>) {
        while self.own.outstanding.len() < self.options.requests_max
            && !(self.own.queue.is_empty() && self.own.reads.is_empty())
        {
            let batch = self.own.next_batch(self.options.proposal_bytes_max);
            self.own.queued_since = self.now;
            self.own.made += 1;
            let number = (self.life.0 << LIFE_SHIFT) + self.own.made;
            let request = Arc::new(Request::new(self.id, number, batch, &self.keys));
            let (made, sent, reads) = (self.now, self.now, std::mem::take(&mut self.own.reads));
            self.own.outstanding.insert(number, Outstanding { request: request.clone(), reads, made, sent });
            self.pool.add(&request, &self.head.executed);
            if self.phase == Phase::Active && !self.is_primary() {
                self.send_in_this_life(self.primary_of(self.view), Message::Request(request), out);
            }
        }
    }

    /// Sends what is numbered within this life, so that no earlier life's number can be meant.
    fn send_in_this_life(&self, to: NodeId, message: Message, out: &mut Output<Self>) {
        if self.life.1 <= self.durable {
            // A wish promises nothing, and a crash cannot bring this life's numbers back.
            self.say_early(to, message, out);
        } else {
            self.say(to, message, out);
        }
    }

    /// Another replica's clients want something, or another replica passes it on.
    pub(super) fn on_request(&mut self, from: NodeId, request: Arc<Request>, out: &mut Output<Self>) {
        let name = request.name();
        if !self.voters.contains(&request.origin) || self.head.executed.holds(name) {
            return;
        }
        if request.only_in.is_some() {
            return; // Its primary proposes it, or nobody does.
        }
        if !self.pool.holds(name) {
            let believed = request.is_valid(&self.keys) || self.has(super::Mutant::UnsignedRequests);
            if !believed || !self.pool.add(&request, &self.head.executed) {
                return;
            }
        }
        let primary = self.primary_of(self.view);
        if from == request.origin && self.phase == Phase::Active && primary != self.id && primary != from {
            // The origin got no answer from the primary; perhaps we do (4.4). It is the origin's promise, not ours.
            self.say_early(primary, Message::Request(request), out);
        }
    }

    /// What is not executed goes to all; reads that wait too long are refused, and so is what was never sent.
    pub(super) fn retry_requests(&mut self, out: &mut Output<Self>) {
        let (now, patience) = (self.now, self.options.view_timeout * 4);
        let retry = (self.options.view_timeout / 4).max(self.options.heartbeat);
        let mut again = Vec::new();
        for outstanding in self.own.outstanding.values_mut() {
            if now.since(outstanding.sent) >= retry {
                outstanding.sent = now;
                again.push(outstanding.request.clone());
            }
            if now.since(outstanding.made) >= patience {
                for read in outstanding.reads.drain(..) {
                    out.refuse_read(read, Refusal::NoLeader);
                }
            }
        }
        for request in again {
            for peer in self.voters.iter().filter(|peer| **peer != self.id) {
                self.send_in_this_life(*peer, Message::Request(request.clone()), out);
            }
        }
        let waits = !self.own.queue.is_empty() || !self.own.reads.is_empty();
        if waits && now.since(self.own.queued_since) >= patience {
            for read in self.own.reads.drain(..) {
                out.refuse_read(read, Refusal::NoLeader);
            }
            self.own.queue_bytes = 0;
            for batch in self.own.queue.drain(..) {
                out.refuse(batch, Refusal::NoLeader);
            }
            self.own.queued_since = now;
        }
    }

    /// Requests that were executed within a snapshot: nobody here saw it, but their fences hold. Not for whoever was primary until
    /// now: what it kept beside the log has come to an end with that (leases), and its reads are asked for such things.
    pub(super) fn settle_own(&mut self, at: Index, was_primary: bool, out: &mut Output<Self>) {
        for number in self.own.numbers() {
            if self.head.executed.holds((self.id, number)) {
                for read in self.own.executed(number) {
                    if was_primary {
                        out.refuse_read(read, Refusal::LeaderChanged);
                    } else {
                        out.serve(read, at);
                    }
                }
            }
        }
    }
}
