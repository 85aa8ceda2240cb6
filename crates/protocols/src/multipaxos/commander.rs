//! The commander (PMMC 2.2, figure 6a): phase 2 for each slot, many at once.
//!
//! A leader gives every value a slot and sends it to all; the slot is decided once a quorum has accepted it on disk, whatever
//! became of the slots before. Values for slots that follow one another share a message, and messages follow one another without
//! waiting, up to a window. What gets lost shows in the answer to a heartbeat, and only what is missing is sent again.
//!
//! What the promises found comes first: for each slot the value found, and a no-op where nothing was (Made Simple, section 3: a
//! gap is filled with a command that leaves the state unchanged). New values come behind all of it.

use std::collections::{BTreeMap, VecDeque};

use synod_core::quorum::{self, Outcome};
use synod_core::{Batch, Index, Members, NodeId, Output, Time, batch_bytes, empty_batch};

use super::message::{Ballot, Message, Range, Value};
use super::progress::Progress;
use super::scout::Phase1;
use super::transfer::Transfer;
use super::{MultiPaxos, Mutant, Part};

/// What only a leader has.
pub(super) struct Leading {
    pub(super) phase1: Phase1,
    /// All other members, learners too, and for a while those that were removed.
    pub(super) peers: BTreeMap<NodeId, Progress>,
    /// The first slot that this ballot has not proposed in.
    pub(super) next: Index,
    /// What waits for a slot.
    waiting: VecDeque<Value>,
    waiting_bytes: usize,
    /// The last slot in which something found was proposed: before it is decided, the leader does not know what is.
    recovered: Index,
    /// A configuration that was proposed in this ballot: nothing is proposed behind it before it is decided.
    pub(super) barrier: Index,
    /// A decided configuration of which a quorum of its voters does not know yet.
    pub(super) handing: Option<Index>,
    /// Since when a quorum's promises are missing, after a change of configuration.
    pub(super) unprepared: Option<Time>,
    pub(super) heartbeat_due: Time,
    /// The newest round of reads.
    pub(super) round: u64,
    pub(super) transfer: Option<Transfer>,
    /// Set once another replica was invited to lead: it may win while the lease still runs.
    pub(super) lease_is_void: bool,
    /// The configuration at the beginning, for a mutant.
    began_with: Option<Members>,
}

/// How far a peer has come, as it answers to a heartbeat.
pub(super) struct Held {
    pub(super) received: Index,
    pub(super) durable: Index,
    pub(super) knows: Index,
}

impl Leading {
    pub(super) fn new(phase1: Phase1, next: Index, heartbeat_due: Time) -> Leading {
        Leading {
            phase1,
            peers: BTreeMap::new(),
            next,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            recovered: Index::ZERO,
            barrier: Index::ZERO,
            handing: None,
            unprepared: None,
            heartbeat_due,
            round: 0,
            transfer: None,
            lease_is_void: false,
            began_with: None,
        }
    }

    /// For a mutant: everything found is left to chance.
    pub(super) fn skip_what_was_found(&mut self) {
        if let Some((last, _)) = self.phase1.found.pop_last() {
            self.next = last.next();
            self.phase1.found.clear();
        }
    }

    /// Lets a value wait for a slot, which it gets in the next flush if the window allows.
    pub(super) fn queue(&mut self, value: Value) {
        if let Value::Batch(batch) = &value {
            self.waiting_bytes += batch_bytes(batch);
        }
        self.waiting.push_back(value);
    }

    fn unqueue(&mut self) -> Option<Value> {
        let value = self.waiting.pop_front()?;
        if let Value::Batch(batch) = &value {
            self.waiting_bytes -= batch_bytes(batch);
        }
        Some(value)
    }

    /// Whether a configuration waits for a slot.
    pub(super) fn is_changing(&self) -> bool {
        self.waiting.iter().any(|value| matches!(value, Value::Members(_)))
    }

    /// Batches that never had a slot.
    pub(super) fn unproposed(self) -> impl Iterator<Item = Batch> {
        self.waiting.into_iter().filter_map(|value| match value {
            Value::Batch(batch) => Some(batch),
            Value::Members(_) => None,
        })
    }

    /// How much of what is decided may be told to `node`, or acted upon by it: those who leave hear last of it.
    pub(super) fn may_tell(&self, node: NodeId, members: &Members, decided: Index) -> Index {
        match self.handing {
            Some(slot) if !members.contains(node) => decided.min(slot.previous()),
            _ => decided,
        }
    }

    /// The value for the next slot, if there is one.
    fn value_for_next(&mut self, mutant: Option<Mutant>) -> Option<Value> {
        let found = &mut self.phase1.found;
        if let Some((_, value)) = found.remove(&self.next) {
            self.recovered = self.next;
            return Some(value);
        }
        if !found.is_empty() {
            // A gap. No quorum has accepted anything here, and none ever will in an earlier ballot.
            self.recovered = self.next;
            if mutant == Some(Mutant::FillsGapWithCommand) {
                return found.first_key_value().map(|(_, (_, value))| value.clone());
            }
            return Some(Value::Batch(empty_batch()));
        }
        self.unqueue()
    }
}

impl MultiPaxos {
    /// Whether so much waits to be decided that a leader takes no more.
    pub(super) fn is_busy(&self) -> bool {
        let waiting = match &self.part {
            Part::Leader(leading) => leading.waiting_bytes,
            _ => 0,
        };
        self.slots.bytes() + waiting >= self.options.backlog_bytes_max
    }

    /// Gives slots to what was found, and then to what waits.
    pub(super) fn propose_what_waits(&mut self, out: &mut Output<Self>) {
        let mutant = [Mutant::FillsGapWithCommand].into_iter().find(|mutant| self.has(*mutant));
        let barred = !self.has(Mutant::NoBarrier);
        let window = self.options.window_max;
        while self.is_prepared() {
            let (decided, delivered) = (self.decided, self.delivered);
            let Part::Leader(leading) = &mut self.part else { return };
            if barred && leading.barrier > decided || leading.next.0 > decided.0 + window {
                return;
            }
            let at = leading.next;
            if at <= delivered && leading.phase1.found.is_empty() {
                // The state knows of a decision that a quorum does not: acceptors have lost their disks. Better to decide nothing.
                return self.step_down(out);
            }
            let Some(value) = leading.value_for_next(mutant) else { return };
            leading.next = at.next();
            if matches!(value, Value::Members(_)) {
                leading.barrier = at;
            }
            self.accept(at, value, out);
            self.extend_prefix();
            // The state holds what was decided here, and so the promises found just that (recovery tells how this comes about).
            if at <= delivered {
                self.decide(at, out);
            }
        }
    }

    /// Whether a quorum of the present configuration has promised.
    fn is_prepared(&mut self) -> bool {
        let Part::Leader(leading) = &self.part else { return false };
        if leading.unprepared.is_none() || self.has(Mutant::LeadsUnprepared) {
            return true;
        }
        let prepared = self.promises() == Outcome::Won;
        if let Part::Leader(leading) = &mut self.part
            && prepared
        {
            leading.unprepared = None;
        }
        prepared
    }

    /// Whether the leader knows what is decided: all that was found is, and a quorum has promised that there is nothing else.
    pub(super) fn is_settled(&self) -> bool {
        let Part::Leader(leading) = &self.part else { return false };
        leading.unprepared.is_none()
            && leading.phase1.found.is_empty()
            && self.decided >= leading.recovered
            && self.decided >= self.delivered
    }

    /// Decides slot after slot, as far as a quorum has accepted.
    pub(super) fn decide_what_a_quorum_accepted(&mut self, out: &mut Output<Self>) {
        let early = self.has(Mutant::CountsItselfEarly);
        let own = if early { self.prefix } else { self.disk.through() };
        loop {
            let at = self.decided.next();
            let Part::Leader(leading) = &self.part else { return };
            if at >= leading.next {
                return;
            }
            let members = leading.began_with.as_ref().unwrap_or(self.slots.members());
            let accepted = |node| {
                let peer = leading.peers.get(&node);
                let accepted = peer.map_or(node == self.id && own >= at, |peer| peer.has_accepted(at));
                accepted.then_some(true)
            };
            if quorum::joint_vote(members, accepted) != Outcome::Won {
                return;
            }
            self.decide(at, out);
        }
    }

    /// Sends every peer what it lacks and may be sent.
    pub(super) fn replicate(&mut self, out: &mut Output<Self>) {
        let members = self.slots.members().clone();
        let Part::Leader(leading) = &mut self.part else { return };
        let mut peers = std::mem::take(&mut leading.peers);
        let last = leading.next.previous();
        for (&id, peer) in &mut peers {
            let Part::Leader(leading) = &self.part else { break };
            let decided = leading.may_tell(id, &members, self.decided);
            let ballot = self.promised;
            while peer.may_send(self.options.inflight_max)
                && let Some(wanted) = peer.next
            {
                let base = self.slots.base();
                if peer.snapshot.is_some() {
                    peer.snapshot.take_if(|_| peer.through >= base);
                } else if wanted <= base {
                    // What it lacks is not kept any more. It gets a snapshot, and meanwhile accepts what is new.
                    self.compaction.send(id, peer, ballot, base, self.now, out);
                }
                let (first, end) = peer.missing(wanted.max(base.next()), last);
                let values = self.slots.values(first, end, self.options.accept_bytes_max);
                if values.is_empty() {
                    peer.next = Some(first);
                    break;
                }
                peer.sent(Index(first.0 + values.len() as u64).previous(), self.now);
                peer.told = decided;
                // Early: the leader's own disk works at the same time, and is counted only when it is done. That the
                // ballot is its own is on disk since before it asked for promises.
                out.send_early(id, Message::Accept { ballot, first, values, decided });
            }
            if peer.next.is_some() && peer.told < decided {
                peer.told = decided;
                // What is decided stays so, and the next accept says it as well: the client comes first.
                out.send_at_leisure(id, Message::Decided { ballot, upto: decided });
            }
        }
        if let Part::Leader(leading) = &mut self.part {
            leading.peers = peers;
        }
    }

    /// A leader's heartbeat is due: time to look around.
    pub(super) fn leader_timeout(&mut self, out: &mut Output<Self>) {
        let now = self.now;
        let Part::Leader(leading) = &mut self.part else { return };
        if now < leading.heartbeat_due {
            return;
        }
        leading.heartbeat_due = now + self.options.heartbeat;
        let patience = self.options.election_timeout * 2;
        let helpless = leading.unprepared.is_some_and(|since| now.since(since) >= patience);
        if helpless || !self.quorum_is_near() {
            return self.step_down(out);
        }
        if self.disk.is_stuck(now, self.options.disk_stuck_after) {
            return self.hand_over(out);
        }
        if !self.is_prepared() {
            self.ask_again(out);
        }
        self.expire_transfer();
        self.resend_snapshots();
        self.forget_the_removed();
        self.send_heartbeats(out);
    }

    pub(super) fn send_heartbeats(&mut self, out: &mut Output<Self>) {
        let members = self.slots.members().clone();
        let (ballot, decided, sent) = (self.promised, self.decided, self.now);
        let Part::Leader(leading) = &mut self.part else { return };
        let mut peers = std::mem::take(&mut leading.peers);
        for (&id, peer) in &mut peers {
            let decided = leading.may_tell(id, &members, decided);
            peer.told = decided;
            // Early: that there is a leader was made durable by those who promised.
            out.send_early(id, Message::Heartbeat { ballot, decided, round: leading.round, sent });
        }
        leading.peers = peers;
    }

    /// Whether a quorum was heard of within the last election timeout.
    fn quorum_is_near(&self) -> bool {
        let Part::Leader(leading) = &self.part else { return false };
        let heard = |node| leading.peers.get(&node).map_or(self.now, |peer| peer.heard);
        let contact: Option<Time> = quorum::joint_reached(self.slots.members(), heard);
        contact.is_none_or(|contact| self.now.since(contact) < self.options.election_timeout)
    }

    /// The peer that speaks, if this replica leads in the ballot that the message speaks of.
    pub(super) fn heard_in(&mut self, from: NodeId, ballot: Ballot) -> Option<&mut Progress> {
        let Part::Leader(leading) = &mut self.part else { return None };
        let peer = leading.peers.get_mut(&from).filter(|_| ballot == self.promised)?;
        peer.heard = self.now;
        peer.is_awake = true;
        Some(peer)
    }

    /// Phase 2b.
    pub(super) fn on_accepted(&mut self, from: NodeId, ballot: Ballot, through: Index, beyond: &[Range]) {
        let last = self.last_proposed();
        if let Some(peer) = self.heard_in(from, ballot)
            && beyond.iter().all(|range| range.last <= last)
        {
            peer.accepted(through, beyond);
        }
    }

    pub(super) fn on_heartbeat_ack(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        round: u64,
        sent: Time,
        held: Held,
        out: &mut Output<Self>,
    ) {
        let now = self.now;
        let Some(peer) = self.heard_in(from, ballot) else { return };
        peer.round = peer.round.max(round);
        peer.confirmed = peer.confirmed.max(Some(sent.min(now)));
        peer.knows = peer.knows.max(held.knows);
        peer.accepted(held.durable, &[]);
        peer.heartbeat_answered(sent, held.received);
        self.confirm_reads(out);
    }

    fn last_proposed(&self) -> Index {
        match &self.part {
            Part::Leader(leading) => leading.next.previous(),
            _ => Index::ZERO,
        }
    }

    /// For a mutant: what counts is the configuration at the beginning.
    pub(super) fn remember_beginning(&mut self) {
        let members = (**self.slots.members()).clone();
        let counts_old = self.has(Mutant::CountsOldMembers);
        if let Part::Leader(leading) = &mut self.part {
            leading.began_with = counts_old.then_some(members);
        }
    }
}
