//! Log replication and commitment (Raft 5.3, 5.4.2; thesis 10.2.1 for the leader's disk).
//!
//! Appends are pipelined: once a peer's log is known to agree, they follow one another without waiting, up to
//! a window. Whatever gets lost shows in one of three ways: the next append does not fit and is rejected; the
//! answer to a heartbeat tells how far the peer has come; or nothing is heard of the peer at all.
//!
//! Repair takes one round trip for each *term* in which the logs differ, not for each entry: a rejection
//! names the last place at which the follower could agree with what the leader asked about, and the leader
//! then looks for the last place at which it could agree with that. Between two such places both logs hold
//! terms that the other lacks.

use synod_core::quorum;
use synod_core::{Index, NodeId, Output, Time};

use super::message::{Body, Entry, NUMBER_MAX, Position, Term};
use super::{Leading, Message, Mutant, Part, Raft, Record};
use crate::flow::{Flow, Progress};

impl Raft {
    /// Puts an entry of the leader's own term at the end of its log.
    pub(super) fn append_own(&mut self, body: Body, out: &mut Output<Self>) -> Index {
        let changes_members = matches!(body, Body::Members(_));
        let at = self.append(Entry { term: self.term, body }, out);
        if changes_members {
            self.meet_members();
        }
        at
    }

    fn append(&mut self, entry: Entry, out: &mut Output<Self>) -> Index {
        let at = self.log.append(entry.clone());
        out.record(Record::Entry { at, entry });
        at
    }

    /// Whether so much waits to be decided that a leader takes no more.
    pub(super) fn is_busy(&self) -> bool {
        self.log.bytes() >= self.options.backlog_bytes_max
    }

    /// Sends every peer what it lacks and may be sent.
    pub(super) fn replicate(&mut self, out: &mut Output<Self>) {
        let Part::Leader(leading) = &mut self.part else { return };
        for (&id, peer) in &mut leading.peers {
            while peer.may_send(self.options.inflight_max) {
                if peer.next < self.log.first() {
                    self.compaction.send(id, peer, self.term, self.log.base().index, self.now, out);
                    break;
                }
                let index = peer.next.previous();
                let term = self.log.term_at(index).expect("a peer is never sent more than there is");
                let entries = self.log.entries_from(peer.next, self.options.append_bytes_max);
                if entries.is_empty() && peer.flow == Flow::Replicate {
                    break;
                }
                peer.sent(Index(index.0 + entries.len() as u64), self.now);
                peer.told = self.commit;
                let previous = Position { index, term };
                // Early: the leader's own disk works at the same time, and is counted only when it is done
                // (thesis 10.2.1). The term has been durable since the election.
                let commit = self.commit;
                out.send_early(id, Message::Append { term: self.term, previous, entries, commit });
            }
            if peer.flow == Flow::Replicate && peer.told < self.commit {
                peer.told = self.commit;
                // What is committed stays so, and the next append says it as well: the client comes first.
                out.send_at_leisure(id, Message::Committed { term: self.term, commit: self.commit });
            }
        }
    }

    /// Commits what a quorum holds on disk, if it is of the leader's own term.
    pub(super) fn commit_what_a_quorum_holds(&mut self) {
        let Part::Leader(leading) = &self.part else { return };
        let early = self.has(Mutant::CountsItselfEarly);
        let own = if early { self.log.last().index } else { self.disk.durable_index() };
        let Some(reached) = self.reached(own) else { return };
        // An entry of an earlier term may be on a majority and still be overwritten (figure 8): it is committed
        // together with one of this term (Raft 5.4.2).
        let of_this_term = reached >= leading.term_start || self.has(Mutant::CommitOldTerm);
        if of_this_term && reached > self.commit {
            assert!(reached <= self.log.last().index, "nobody holds more than the leader");
            self.commit = reached;
        }
    }

    /// What a quorum holds if the leader itself holds `own`.
    pub(super) fn reached(&self, own: Index) -> Option<Index> {
        let Part::Leader(leading) = &self.part else { return None };
        quorum::joint_reached(self.members(), |node| {
            leading.peers.get(&node).map_or(own, |peer| peer.matched)
        })
    }

    /// A leader's heartbeat is due: time to look around.
    pub(super) fn leader_timeout(&mut self, out: &mut Output<Self>) {
        let Part::Leader(leading) = &mut self.part else { return };
        if self.now < leading.heartbeat_due {
            return;
        }
        leading.heartbeat_due = self.now + self.options.heartbeat;
        if self.options.check_quorum && !self.quorum_is_near() {
            return self.step_down();
        }
        if self.disk.is_stuck(self.now, self.options.disk_stuck_after) {
            return self.hand_over(out);
        }
        self.expire_transfer();
        self.resend_snapshots();
        self.send_heartbeats(out);
    }

    pub(super) fn send_heartbeats(&mut self, out: &mut Output<Self>) {
        let Part::Leader(Leading { peers, round, .. }) = &mut self.part else { return };
        for (&id, peer) in peers {
            peer.told = self.commit;
            let (term, commit, round, sent) = (self.term, self.commit, *round, self.now);
            // Early: that there is a leader was made durable by those who voted for it.
            out.send_early(id, Message::Heartbeat { term, commit, round, sent });
        }
    }

    // The follower's side.

    pub(super) fn on_append(
        &mut self,
        from: NodeId,
        term: Term,
        previous: Position,
        mut entries: Vec<Entry>,
        commit: Index,
        out: &mut Output<Self>,
    ) {
        if !is_well_formed(term, previous, &entries) {
            return;
        }
        if !self.follow(from, term, out) {
            if term < self.term && !self.has(Mutant::SilentToOldTerms) {
                self.reject(from, previous.index, Position::default(), out);
            }
            return;
        }
        if self.log.bytes() / 2 >= self.options.backlog_bytes_max {
            // The rest will come again, when there is room. What is decided needs none: it is delivered at once. And
            // one entry more must do, or what a restart brought back, none of it known to be decided, would keep
            // the first entry of a new leader out for ever, and itself undecided.
            let end = commit.max(self.log.last().index.next());
            entries.truncate(usize::try_from(end.0.saturating_sub(previous.index.0)).unwrap_or(usize::MAX));
        }
        // What is committed is the same everywhere: the question begins behind it.
        let known = self.commit.0.saturating_sub(previous.index.0);
        let agrees = known > 0 || self.log.term_at(previous.index) == Some(previous.term);
        if !agrees {
            let hint = self.log.last_of_term(previous.index, previous.term);
            return self.reject(from, previous.index, hint, out);
        }
        // A leader that contradicts what is committed is none.
        let committed = (known as usize).checked_sub(1).and_then(|place| entries.get(place));
        if committed.is_some_and(|entry| self.log.term_at(self.commit) != Some(entry.term)) {
            return;
        }
        let end = Index(previous.index.0 + entries.len() as u64);
        for (index, entry) in (previous.index.0 + 1..).zip(entries).skip(known as usize) {
            self.accept(Index(index), entry, out);
        }
        // Never backwards: an old append may come late.
        self.verified = self.verified.max(end).max(self.commit);
        self.owes_appended = true;
        self.commit_up_to(commit);
    }

    /// Makes the entry at `index` the leader's.
    fn accept(&mut self, index: Index, entry: Entry, out: &mut Output<Self>) {
        match self.log.term_at(index) {
            Some(term) if term == entry.term => return,
            Some(_) => {
                assert!(index > self.commit, "a committed entry is never replaced: {index:?}");
                self.log.truncate(index);
                if !self.has(Mutant::CountsOldWrites) {
                    self.disk.truncated(index);
                }
                self.verified = self.verified.min(index.previous());
            }
            None => {}
        }
        let at = self.append(entry, out);
        assert_eq!(at, index, "entries are appended without gaps");
    }

    fn reject(&self, to: NodeId, probe: Index, hint: Position, out: &mut Output<Self>) {
        // That something is not here promises nothing.
        out.send_early(to, Message::Rejected { term: self.term, probe, hint });
    }

    /// Tells the leader how far its appends have come, once for all of them.
    pub(super) fn answer_append(&mut self, out: &mut Output<Self>) {
        if !std::mem::take(&mut self.owes_appended) {
            return;
        }
        if let Some(leader) = self.leader {
            let appended = Message::Appended { term: self.term, matched: self.verified };
            if self.has(Mutant::AckBeforeDisk) {
                return out.send_early(leader, appended);
            }
            // Waits for the disk: the leader will count on it.
            out.send(leader, appended);
        }
    }

    pub(super) fn on_heartbeat(
        &mut self,
        from: NodeId,
        term: Term,
        commit: Index,
        round: u64,
        sent: Time,
        out: &mut Output<Self>,
    ) {
        if self.follow(from, term, out) {
            self.commit_up_to(commit);
            if self.lacks_snapshot() {
                let message = Message::NeedSnapshot { term: self.term, from: self.log.base().index };
                // A wish promises nothing.
                out.send_early(from, message);
            }
        } else {
            if term < self.term && self.has(Mutant::ReadAcrossTerms) {
                let (term, received, durable) = (self.term, Index::ZERO, Index::ZERO);
                out.send_early(from, Message::HeartbeatAck { term, round, sent, received, durable });
            } else if term < self.term && !self.has(Mutant::SilentToOldTerms) {
                // Its term is over, and that is all it is told: whoever led in it may lead again, and must not take an answer to
                // its old round, or to the clock of its old life, for one to the new.
                out.send_early(from, Message::Appended { term: self.term, matched: Index::ZERO });
            }
            return;
        }
        // What is on disk in this term counts as an answer to the appends, should that have been lost.
        let term_is_durable = self.disk.holds(self.vote_lsn);
        let durable =
            if term_is_durable { self.verified.min(self.disk.durable_index()) } else { Index::ZERO };
        let received = self.verified;
        // Early: it says what was true when the heartbeat came. Had this replica voted for a later leader
        // before, it would know by its disk; what it votes from now on cannot make an earlier read stale.
        out.send_early(from, Message::HeartbeatAck { term: self.term, round, sent, received, durable });
    }

    pub(super) fn on_committed(&mut self, from: NodeId, term: Term, commit: Index, out: &mut Output<Self>) {
        if self.follow(from, term, out) {
            self.commit_up_to(commit);
        }
    }

    /// The leader has committed up to `commit`; this replica has what it knows to be the same log.
    pub(super) fn commit_up_to(&mut self, commit: Index) {
        debug_assert!(self.verified <= self.log.last().index, "what is not here cannot be verified");
        let known = if self.has(Mutant::CommitUnverified) { self.log.last().index } else { self.verified };
        self.commit = self.commit.max(commit.min(known));
    }

    // The leader's side, again.

    /// The peer that speaks, if this replica leads in the term that the message speaks of.
    pub(super) fn heard_in(
        &mut self,
        from: NodeId,
        term: Term,
        out: &mut Output<Self>,
    ) -> Option<&mut Progress> {
        if term > self.term {
            self.become_follower(term, out);
        }
        let Part::Leader(leading) = &mut self.part else { return None };
        let peer = leading.peers.get_mut(&from).filter(|_| term == self.term)?;
        peer.heard = self.now;
        peer.is_awake = true;
        Some(peer)
    }

    pub(super) fn on_appended(&mut self, from: NodeId, term: Term, matched: Index, out: &mut Output<Self>) {
        let (first, last) = (self.log.first(), self.log.last().index);
        if let Some(peer) = self.heard_in(from, term, out)
            && matched <= last
        {
            peer.matches(matched, first);
        }
    }

    pub(super) fn on_rejected(
        &mut self,
        from: NodeId,
        term: Term,
        probe: Index,
        hint: Position,
        out: &mut Output<Self>,
    ) {
        let Some(peer) = self.heard_in(from, term, out) else { return };
        let stale = match peer.flow {
            Flow::Probe => probe != peer.next.previous(),
            Flow::Replicate => probe >= peer.next,
            Flow::Snapshot { .. } => true,
        };
        if stale {
            return;
        }
        // Where the follower's entry at the hint is of a term that the leader's is not, the logs differ from
        // the leader's first entry of a later term on.
        let agreed = self.log.last_of_term(hint.index, hint.term).index.min(hint.index).min(probe.previous());
        let stubborn = self.has(Mutant::NeverLooksBack);
        if let Part::Leader(leading) = &mut self.part
            && let Some(peer) = leading.peers.get_mut(&from)
            && !(stubborn && peer.flow == Flow::Replicate)
        {
            // A peer that lost its disk holds less than it once confirmed, and counts for less.
            peer.matched = peer.matched.min(agreed);
            peer.probe(agreed.next());
        }
    }

    pub(super) fn on_heartbeat_ack(
        &mut self,
        from: NodeId,
        term: Term,
        round: u64,
        sent: Time,
        received: Index,
        durable: Index,
        out: &mut Output<Self>,
    ) {
        let (first, last, now) = (self.log.first(), self.log.last().index, self.now);
        if term > self.term
            && self.has(Mutant::ReadAcrossTerms)
            && let Part::Leader(leading) = &mut self.part
            && let Some(peer) = leading.peers.get_mut(&from)
        {
            peer.round = peer.round.max(round);
            self.confirm_reads(out);
        }
        let stubborn = self.has(Mutant::NeverLooksBack);
        let Some(peer) = self.heard_in(from, term, out) else { return };
        let sent_it_all = stubborn && peer.flow == Flow::Replicate;
        let received = if sent_it_all { peer.next.previous() } else { received };
        if durable > peer.matched && durable <= last {
            peer.matches(durable, first);
        }
        peer.round = peer.round.max(round);
        peer.confirmed = peer.confirmed.max(Some(sent.min(now)));
        peer.heartbeat_answered(sent, received.min(last));
        self.confirm_reads(out);
    }
}

/// Whether an append can be what a leader sent: its terms ascend, and no number is out of bounds.
fn is_well_formed(term: Term, previous: Position, entries: &[Entry]) -> bool {
    let mut last = previous.term;
    let ascending = entries.iter().all(|entry| {
        let fits = entry.term >= last && entry.term <= term;
        last = entry.term;
        fits
    });
    let sound = entries.iter().all(|entry| match &entry.body {
        Body::Members(members) => members.is_sound() && !members.voters.is_empty(),
        Body::Batch(_) => true,
    });
    let bounded = previous.index.0 <= NUMBER_MAX && entries.len() as u64 <= NUMBER_MAX;
    ascending && sound && bounded && previous.term <= term
}
