//! Casting and delivering (Birman, Schiper, Stephenson 1991, section 5.1: the protocol CBCAST for one group).
//!
//! "Before sending m, process p increments its own entry of its vector clock and timestamps m with it. On receipt of m
//! from p, process q delays its delivery until it has delivered the message of p before it, and everything that p had delivered
//! when it sent m." The log records casts in the order in which that holds, so a replica that restarts delivers them in
//! the same order again.
//!
//! *Accepted* is what is in the log; *delivered* is what of it the disk holds. A new cast depends on all that is accepted,
//! which is more than its client can have seen, and costs nothing: the own disk writes in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use synod_core::{Batch, Change, NodeId, Output, Refusal, Stamped};

use super::log::{Entry, bytes_of};
use super::message::{Body, Cast, Then};
use super::wire::CLOCK_ACCEPTED_MAX;
use super::{Causal, Message, Mutant, Record, joined};

/// Casts that came before what they depend on.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// By origin and number.
    casts: BTreeMap<(NodeId, u64), Arc<Cast>>,
    bytes: usize,
}

impl Waiting {
    /// Keeps a cast, if there is room.
    fn keep(&mut self, cast: Arc<Cast>, bytes_max: usize) {
        let bytes = bytes_of(&cast);
        if self.bytes + bytes > bytes_max && !self.casts.is_empty() {
            return; // It is said again when it is missed.
        }
        if self.casts.insert((cast.origin, cast.number), cast).is_none() {
            self.bytes += bytes;
        }
    }

    fn take(&mut self, origin: NodeId, number: u64) -> Option<Arc<Cast>> {
        let cast = self.casts.remove(&(origin, number))?;
        self.bytes -= bytes_of(&cast);
        Some(cast)
    }
}

impl Causal {
    /// Clients of this replica want something done.
    pub(super) fn propose(&mut self, batch: Batch, out: &mut Output<Self>) {
        if let Err(reason) = self.standing() {
            return out.refuse(batch, reason);
        }
        if self.undelivered_bytes() > self.options.backlog_bytes_max {
            return out.refuse(batch, Refusal::Busy);
        }
        self.proposed.push(batch);
    }

    /// Asks for another membership.
    pub(super) fn reconfigure(&mut self, changes: &[Change], out: &mut Output<Self>) {
        if let Err(reason) = self.standing() {
            return out.decline(reason);
        }
        // What was accepted and is not delivered yet counts, too, or two changes in a row would forget the first.
        let mut members = self.delivered.members.clone();
        for (_, entry) in self.log.after(self.delivered.at()) {
            if let Body::Members(accepted) = &entry.cast.body {
                members.join(accepted);
            }
        }
        let name = (self.id, self.log.accepted().get(self.id) + 1);
        match members.changed(changes, name) {
            Ok(changed) => self.cast(Body::Members(changed), out),
            Err(reason) => out.decline(reason),
        }
    }

    /// Casts what was proposed, unless enough own casts wait for the disk: what gathers meanwhile becomes one.
    pub(super) fn cast_proposed(&mut self, out: &mut Output<Self>) {
        let own = |entry: &Entry| entry.cast.origin == self.id;
        let inflight =
            self.log.after(self.delivered.at()).filter(|(_, entry)| own(entry) && entry.lsn > self.durable);
        if self.proposed.is_empty() || inflight.count() >= self.options.inflight_max {
            return;
        }
        if let Some(batch) = joined(&mut self.proposed) {
            self.cast(Body::Batch(batch), out);
        }
    }

    pub(super) fn cast(&mut self, body: Body, out: &mut Output<Self>) {
        let commands = match &body {
            Body::Batch(batch) => batch.len(),
            Body::Members(_) => 1,
        };
        let clock = self.clock.take(self.now, commands);
        let mut past = self.log.accepted().without(self.id);
        if self.has(Mutant::ForgetsWhatItRead) {
            past = past.iter().map(|(origin, count)| (origin, count / 2)).collect();
        }
        let number = self.log.accepted().get(self.id) + 1;
        self.accept(Arc::new(Cast { origin: self.id, number, clock, past, body }), out);
    }

    /// Others' casts.
    pub(super) fn on_cast(
        &mut self,
        from: NodeId,
        casts: Vec<Arc<Cast>>,
        then: Then,
        out: &mut Output<Self>,
    ) {
        // Who was removed is not listened to any more: see `membership`. Who has not joined listens to everybody.
        let members = &self.delivered.members;
        if !members.is_empty() && !members.contains(from) {
            return;
        }
        let now = self.now;
        let peer = self.peers.entry(from).or_insert_with(|| super::Peer::new(now));
        peer.heard = Some(now);
        peer.tell |= then == Then::Tell;
        if self.undelivered_bytes() > self.options.backlog_bytes_max {
            return; // The disk is behind; they are said again.
        }
        for cast in casts {
            // Nobody but this replica speaks for it: a cast of its own that it does not know is nothing that it can use.
            let known = self.log.accepted().get(cast.origin) >= cast.number || cast.origin == self.id;
            // A clock so far ahead is none: who followed it could never be followed.
            if known || cast.last_clock() > CLOCK_ACCEPTED_MAX {
                continue;
            }
            if self.may_accept(&cast) {
                self.accept(cast, out);
                self.accept_waiting(out);
            } else {
                self.waiting.keep(cast, self.options.waiting_bytes_max);
            }
        }
    }

    /// The condition of the paper: the next one of its origin, and nothing missing that its origin had.
    fn may_accept(&self, cast: &Cast) -> bool {
        let accepted = self.log.accepted();
        accepted.get(cast.origin) + 1 == cast.number
            && (accepted.dominates(&cast.past) || self.has(Mutant::IgnoresDependencies))
    }

    /// Accepts whatever of those that wait may be accepted now.
    pub(super) fn accept_waiting(&mut self, out: &mut Output<Self>) {
        loop {
            let accepted = self.log.accepted();
            self.waiting.casts.retain(|(origin, number), cast| {
                let needed = accepted.get(*origin) < *number;
                self.waiting.bytes -= if needed { 0 } else { bytes_of(cast) };
                needed
            });
            let ready = self.waiting.casts.values().find(|cast| self.may_accept(cast));
            let Some((origin, number)) = ready.map(|cast| (cast.origin, cast.number)) else { return };
            if let Some(cast) = self.waiting.take(origin, number) {
                self.accept(cast, out);
            }
        }
    }

    /// Puts a cast into the log: from now on it is part of what new casts depend on.
    fn accept(&mut self, cast: Arc<Cast>, out: &mut Output<Self>) {
        if !self.has(Mutant::ClockIgnoresOthers) || cast.origin == self.id {
            self.clock.observe(cast.last_clock());
        }
        let lsn = out.record(Record::Cast(cast.clone()));
        self.log.push(Entry { cast, lsn, since: self.now });
    }

    /// What was accepted and not delivered yet.
    fn undelivered_bytes(&self) -> usize {
        self.log.after(self.delivered.at()).map(|(_, entry)| bytes_of(&entry.cast)).sum()
    }

    /// Delivers what the disk holds.
    pub(super) fn deliver(&mut self, out: &mut Output<Self>) {
        match self.adopting.take_if(|(_, lsn)| *lsn <= self.durable) {
            Some((snapshot, _)) => out.restore(snapshot),
            None if self.adopting.is_some() => return,
            None => {}
        }
        while let Some(entry) = self.log.get(self.delivered.at().next()) {
            let early = self.has(Mutant::AnswersBeforeDisk);
            if entry.lsn > self.durable && !early {
                return;
            }
            let cast = entry.cast.clone();
            let mut stamp = cast.stamp(self.floor());
            if self.has(Mutant::LastToArriveWins) {
                stamp.clock = self.delivered.at().0 << 20;
            }
            self.delivered.push(&cast);
            self.note_delivered(&cast);
            let body = match &cast.body {
                Body::Batch(batch) => Stamped::Batch(batch.clone()),
                Body::Members(_) => Stamped::Members(self.delivered.members.members()),
            };
            out.deliver_stamped(self.delivered.at(), stamp, body);
        }
    }

    /// Sends own casts as soon as the disk holds them; whoever misses one hears it again (`entropy`).
    pub(super) fn send_new_casts(&mut self, out: &mut Output<Self>) {
        let last = self.log.last();
        if self.sent >= last {
            return;
        }
        let (mut casts, mut bytes) = (Vec::new(), 0);
        for (_, entry) in self.log.after(self.sent) {
            if entry.cast.origin == self.id && bytes < self.options.cast_bytes_max {
                bytes += bytes_of(&entry.cast);
                casts.push(entry.cast.clone());
            }
        }
        self.sent = last;
        if casts.is_empty() {
            return;
        }
        let early = self.has(Mutant::CastsBeforeDisk);
        for (id, peer) in &self.peers {
            // Who is silent for long is told when it speaks again; and who was removed hears no more than that.
            if !peer.is_awake(self.now, self.options.gossip) || !self.delivered.members.contains(*id) {
                continue;
            }
            let message = Message::Cast { casts: casts.clone(), then: Then::Nothing };
            if early {
                out.send_early(*id, message);
            } else {
                out.send(*id, message);
            }
        }
    }
}
