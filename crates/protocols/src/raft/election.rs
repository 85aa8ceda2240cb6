//! Terms and votes (Raft 5.2 and 5.4.1), pre-vote (thesis 9.6) and check-quorum (thesis 6.2 and 4.2.3).
//!
//! Two rules keep partial partitions from turning into endless elections. A replica that has heard of a
//! leader within an election timeout refuses votes to others: so a member that cannot see the leader cannot
//! unseat it. A leader that cannot see a quorum steps down: so a member that sees everyone does not stay
//! loyal to a leader that is of no use. Either rule alone can lock a cluster up.
//!
//! A replica whose term is ahead, because it once sought election in vain, answers a leader's messages with
//! its own term. The leader steps down and one election brings both together; silence would part them for ever.

use std::collections::BTreeMap;

use synod_core::quorum::{self, Outcome};
use synod_core::{Members, NodeId, Output, Time};

use super::message::{Body, NUMBER_MAX, Position, Purpose, Term};
use super::{Leading, Message, Mutant, Part, Raft, Record};
use crate::flow::Progress;

/// The answers to a candidate, its own included once it counts.
pub(super) type Tally = BTreeMap<NodeId, bool>;

impl Raft {
    /// Nothing was heard of a leader for too long.
    pub(super) fn election_timeout(&mut self, out: &mut Output<Self>) {
        let purpose = if self.options.pre_vote { Purpose::Probe } else { Purpose::Election };
        self.campaign(purpose, out);
    }

    /// Seeks election, if this replica may.
    pub(super) fn campaign(&mut self, purpose: Purpose, out: &mut Output<Self>) {
        self.wait_for_leader();
        if purpose == Purpose::Probe && self.now < self.eager_until {
            // Where all are being restarted, those who could answer may not be there yet.
            let heartbeat = self.options.heartbeat;
            let soon = self.now + self.rng.span(heartbeat, heartbeat * 3);
            self.election_due = self.election_due.min(soon);
        }
        if !self.may_campaign() {
            return;
        }
        self.leader = None;
        let last = self.log.last();
        if purpose == Purpose::Probe {
            // One's own answer binds nobody, and so need not wait for the disk.
            self.part = Part::PreCandidate(Tally::from([(self.id, true)]));
            let term = self.term.next();
            for voter in self.other_voters() {
                // A question about a vote promises nothing.
                out.send_early(voter, Message::RequestVote { term, last, purpose });
            }
        } else {
            self.begin_term(self.term.next(), Some(self.id), out);
            self.part = Part::Candidate(Tally::new());
            for voter in self.other_voters() {
                // Waits for the disk: whoever is asked may count on our own vote being durable.
                out.send(voter, Message::RequestVote { term: self.term, last, purpose });
            }
        }
        self.count_votes(out);
    }

    pub(super) fn on_request_vote(
        &mut self,
        from: NodeId,
        term: Term,
        last: Position,
        purpose: Purpose,
        out: &mut Output<Self>,
    ) {
        // The leader itself wants a transfer: that it is alive is no reason to refuse.
        let loyal = purpose != Purpose::Transfer && self.has_live_leader();
        if term < self.term || loyal {
            return self.refuse_vote(from, purpose, out);
        }
        if purpose == Purpose::Probe {
            if term > self.term && last.is_up_to_date_with(self.log.last()) {
                // A likely vote is not a vote: it promises nothing.
                out.send_early(from, Message::Vote { term, purpose, granted: true });
            } else {
                self.refuse_vote(from, purpose, out);
            }
            return;
        }
        let up_to_date = last.is_up_to_date_with(self.log.last()) || self.has(Mutant::VoteIgnoresLog);
        if term > self.term {
            self.enter(term, up_to_date.then_some(from), out);
        } else if self.voted_for.is_none() && self.leader.is_none() && up_to_date {
            self.record_vote(Some(from), out);
        }
        // Asked again, it answers again.
        if self.voted_for != Some(from) || self.leader.is_some() || !up_to_date {
            return self.refuse_vote(from, purpose, out);
        }
        self.wait_for_leader();
        let vote = Message::Vote { term, purpose, granted: true };
        if self.has(Mutant::VoteBeforeDisk) {
            return out.send_early(from, vote);
        }
        // Waits for the disk: a vote forgotten in a crash could be given twice.
        out.send(from, vote);
    }

    fn refuse_vote(&self, from: NodeId, purpose: Purpose, out: &mut Output<Self>) {
        // A refusal promises nothing.
        out.send_early(from, Message::Vote { term: self.term, purpose, granted: false });
    }

    pub(super) fn on_vote(
        &mut self,
        from: NodeId,
        term: Term,
        purpose: Purpose,
        granted: bool,
        out: &mut Output<Self>,
    ) {
        if !granted && term > self.term {
            return self.become_follower(term, out);
        }
        let tally = match (&mut self.part, purpose) {
            (Part::PreCandidate(tally), Purpose::Probe) if !granted || term == self.term.next() => tally,
            (Part::Candidate(tally), Purpose::Election | Purpose::Transfer) if term == self.term => tally,
            _ => return,
        };
        tally.insert(from, granted);
        self.count_votes(out);
    }

    /// One's own vote counts like any other: once it is on disk.
    pub(super) fn count_own_vote(&mut self, out: &mut Output<Self>) {
        if let Part::Candidate(tally) = &mut self.part
            && self.disk.holds(self.vote_lsn)
            && tally.insert(self.id, true).is_none()
        {
            self.count_votes(out);
        }
    }

    fn count_votes(&mut self, out: &mut Output<Self>) {
        let (Part::PreCandidate(tally) | Part::Candidate(tally)) = &self.part else { return };
        let outcome = quorum::joint_vote(self.members(), |node| tally.get(&node).copied());
        match (outcome, &self.part) {
            (Outcome::Pending, _) => {}
            // Until the next timeout: the others' may come first.
            (Outcome::Lost, _) => self.part = Part::Follower,
            (Outcome::Won, Part::PreCandidate(_)) => self.campaign(Purpose::Election, out),
            (Outcome::Won, _) => self.become_leader(out),
        }
    }

    fn become_leader(&mut self, out: &mut Output<Self>) {
        assert!(matches!(self.part, Part::Candidate(_)), "only an elected candidate leads");
        assert!(self.disk.holds(self.vote_lsn), "one's own vote is durable before one leads");
        self.part = Part::Leader(Leading {
            peers: BTreeMap::new(),
            term_start: self.log.last().index.next(),
            heartbeat_due: self.now + self.options.heartbeat,
            round: 0,
            transfer: None,
            lease_is_void: false,
        });
        self.leader = Some(self.id);
        // After a restart the state may be ahead of the commit index. What it holds was committed once, and a leader's log
        // has all of that (5.4.3): waiting to learn it again could be in vain, if a peer needs the very snapshot first.
        self.commit = self.commit.max(self.delivered.min(self.log.last().index));
        self.settle_snapshot();
        self.meet_members();
        self.reads.lead();
        // An entry of its own term is all that a leader can commit directly (Raft 5.4.2), and tells it what
        // is committed already (section 8).
        self.append_own(Body::Batch(synod_core::empty_batch()), out);
    }

    /// Follows nobody in particular, in a later term.
    pub(super) fn become_follower(&mut self, term: Term, out: &mut Output<Self>) {
        self.enter(term, None, out);
    }

    /// Enters a later term as a follower, with or without a vote given.
    fn enter(&mut self, term: Term, voted_for: Option<NodeId>, out: &mut Output<Self>) {
        if matches!(self.part, Part::Leader(_)) {
            self.step_down();
        }
        self.part = Part::Follower;
        self.begin_term(term, voted_for, out);
    }

    /// Takes the sender for the leader of its term, unless the term is over.
    pub(super) fn follow(&mut self, leader: NodeId, term: Term, out: &mut Output<Self>) -> bool {
        if term < self.term {
            return false;
        }
        if term > self.term {
            self.become_follower(term, out);
        }
        // Two leaders in one term cannot be; whoever claims it is not listened to.
        if self.leader.is_some_and(|known| known != leader) {
            return false;
        }
        self.part = Part::Follower;
        self.leader = Some(leader);
        self.heard_leader = Some(self.now);
        self.wait_for_leader();
        true
    }

    /// Gives up leadership within the term.
    pub(super) fn step_down(&mut self) {
        self.part = Part::Follower;
        self.leader = None;
        self.reads.stop_leading(self.now);
        self.wait_for_leader();
    }

    /// Enters a later term. Until its leader speaks, only what is committed is sure to be in its log.
    fn begin_term(&mut self, term: Term, voted_for: Option<NodeId>, out: &mut Output<Self>) {
        assert!(term > self.term, "terms only grow: {term:?} after {:?}", self.term);
        self.term = term;
        self.leader = None;
        self.verified = self.commit;
        self.owes_appended = false;
        self.record_vote(voted_for, out);
    }

    fn record_vote(&mut self, voted_for: Option<NodeId>, out: &mut Output<Self>) {
        self.voted_for = voted_for;
        self.vote_lsn = out.record(Record::Vote { term: self.term, voted_for });
    }

    /// Starts waiting afresh; the random part keeps replicas from waking together (Raft 5.2).
    pub(super) fn wait_for_leader(&mut self) {
        let jitter = self.rng.span(std::time::Duration::ZERO, self.options.election_jitter);
        self.election_due = self.now + self.options.election_timeout + jitter;
    }

    /// Whether a leader was heard of so lately that votes against it would only disturb.
    fn has_live_leader(&self) -> bool {
        self.options.check_quorum
            && (matches!(self.part, Part::Leader(_))
                || self
                    .heard_leader
                    .is_some_and(|heard| self.now.since(heard) < self.options.election_timeout))
    }

    /// Whether a quorum was heard of within the last election timeout.
    pub(super) fn quorum_is_near(&self) -> bool {
        let Part::Leader(leading) = &self.part else { return false };
        let heard = |node| leading.peers.get(&node).map_or(self.now, |peer| peer.heard);
        let contact: Option<Time> = quorum::joint_reached(self.log.members(), heard);
        contact.is_none_or(|contact| self.now.since(contact) < self.options.election_timeout)
    }

    /// Whether this replica could seek election at all: it has a state to lead from, and a vote, or had one
    /// before a change that may not be committed. Such a one may hold the only log that can win, and must then
    /// lead until the change is committed (thesis 4.2.2).
    pub(super) fn may_ever_campaign(&self) -> bool {
        self.log.configurations_since(self.commit).any(|members| members.is_voter(self.id))
            && !self.lacks_snapshot()
    }

    /// The configuration that decides: the newest in the log, committed or not (Raft section 6).
    pub(super) fn members(&self) -> &Members {
        let late = self.has(Mutant::MembersWhenCommitted);
        if late { self.log.members_at(self.commit) } else { self.log.members() }
    }

    fn may_campaign(&self) -> bool {
        self.may_ever_campaign()
            && !self.disk.is_stuck(self.now, self.options.disk_stuck_after)
            && self.term.0 < NUMBER_MAX
    }

    fn other_voters(&self) -> Vec<NodeId> {
        let members = self.log.members();
        members.all().filter(|node| *node != self.id && members.is_voter(*node)).collect()
    }

    /// Knows as peers exactly the other members of the configuration.
    pub(super) fn meet_members(&mut self) {
        let Part::Leader(leading) = &mut self.part else { return };
        let (members, next) = (self.log.members(), self.log.last().index.next());
        leading.peers.retain(|node, _| members.contains(*node));
        for node in members.all().filter(|node| *node != self.id) {
            leading.peers.entry(node).or_insert_with(|| Progress::new(next, self.now));
        }
    }
}
