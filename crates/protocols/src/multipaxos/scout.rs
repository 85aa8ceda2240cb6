//! The scout (PMMC 2.2, figure 6b): phase 1, once for all slots that are not decided yet.
//!
//! A replica that hears nothing of a leader first probes whether a quorum would promise it a ballot: so whoever was cut off
//! disturbs nobody, and no ballot is spent in vain (PMMC 2.2 leaves the leader alone to find out that it is preempted). Then it
//! asks for promises. What they find is proposed anew by the commander, for each slot the value of the highest ballot, because
//! a lower one's cannot have been decided and the highest one's may have been.
//!
//! The promises are kept while the ballot lasts. When a new configuration is decided, only those of its voters are asked that
//! have not promised yet; whatever the others told still holds.

use std::collections::BTreeMap;

use synod_core::quorum::{self, Outcome};
use synod_core::{Index, NodeId, Output, Time};

use super::commander::Leading;
use super::message::{ALL_SLOTS, Ballot, Message, NUMBER_MAX, Purpose, Pvalue, Value};
use super::{MultiPaxos, Mutant, Part as Role};

/// The answers to a probe, one's own included.
pub(super) type Tally = BTreeMap<NodeId, bool>;

/// One part of a promise: what was accepted in the slots from `from` to `upto`.
pub(super) struct Part {
    pub(super) from: Index,
    pub(super) upto: Index,
    pub(super) accepted: Vec<Pvalue>,
    pub(super) decided: Index,
}

/// Phase 1 of one ballot.
pub(super) struct Phase1 {
    purpose: Purpose,
    answers: BTreeMap<NodeId, Answer>,
    /// What was found in the slots that are not decided, nor proposed by this ballot: for each the highest ballot's value.
    pub(super) found: BTreeMap<Index, (Ballot, Value)>,
}

/// What became of a Prepare.
#[derive(Clone, Copy)]
enum Answer {
    /// Told is everything before `next`.
    Told {
        next: Index,
    },
    /// Told is everything; the acceptor knew so much to be decided.
    Promised {
        decided: Index,
    },
    Refused,
}

impl Phase1 {
    /// How much this acceptor knew to be decided when it promised.
    pub(super) fn decided_by(&self, node: NodeId) -> Option<Index> {
        match self.answers.get(&node) {
            Some(Answer::Promised { decided }) => Some(*decided),
            _ => None,
        }
    }

    /// Keeps, of all values found for a slot, that of the highest ballot.
    fn find(&mut self, pvalue: Pvalue, keeps_first: bool) {
        let Pvalue { at, ballot, value } = pvalue;
        match self.found.get(&at) {
            Some((known, _)) if *known >= ballot || keeps_first => {}
            _ => {
                self.found.insert(at, (ballot, value));
            }
        }
    }
}

impl MultiPaxos {
    /// Nothing was heard of a leader for too long: would a quorum promise?
    pub(super) fn election_timeout(&mut self, out: &mut Output<Self>) {
        self.wait_for_leader();
        if !self.may_campaign() {
            return;
        }
        self.leader = None;
        // One's own answer binds nobody, and so need not wait for the disk.
        self.part = Role::Probing(Tally::from([(self.id, true)]));
        let (ballot, from) = (self.next_ballot(), self.decided.next());
        for voter in self.other_voters() {
            // A question promises nothing.
            out.send_early(voter, Message::Probe { ballot, from });
        }
        self.count_probes(out);
    }

    pub(super) fn on_probed(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        granted: bool,
        promised: Ballot,
        out: &mut Output<Self>,
    ) {
        let current = ballot == self.next_ballot();
        self.round_seen = self.round_seen.max(promised.round);
        let Role::Probing(tally) = &mut self.part else { return };
        if current {
            tally.insert(from, granted);
            self.count_probes(out);
        }
    }

    fn count_probes(&mut self, out: &mut Output<Self>) {
        let Role::Probing(tally) = &self.part else { return };
        match quorum::joint_vote(self.slots.members(), |node| tally.get(&node).copied()) {
            Outcome::Pending => {}
            // Until the next timeout: the others' may come first.
            Outcome::Lost => self.part = Role::Follower,
            Outcome::Won => self.scout(Purpose::Election, out),
        }
    }

    /// Begins phase 1 in a ballot of its own.
    pub(super) fn scout(&mut self, purpose: Purpose, out: &mut Output<Self>) {
        self.wait_for_leader();
        if !self.may_campaign() {
            return;
        }
        let ballot = self.next_ballot();
        if self.has(Mutant::BallotBeforeDisk) {
            self.promised = ballot;
            (self.leader, self.prefix, self.told) = (None, self.decided, Index::ZERO);
            self.disk.begin_ballot(self.decided);
        } else {
            self.adopt(ballot, out);
        }
        let mut phase1 = Phase1 { purpose, answers: BTreeMap::new(), found: BTreeMap::new() };
        // Its own promise tells what it has accepted itself.
        self.slots.above(self.decided).for_each(|pvalue| phase1.find(pvalue, false));
        self.part = Role::Scout(phase1);
        self.ask_for_promises(out);
        self.count_promises(out);
    }

    /// Asks every voter that was not asked yet.
    pub(super) fn ask_for_promises(&mut self, out: &mut Output<Self>) {
        let (ballot, next, voters) = (self.promised, self.decided.next(), self.other_voters());
        let early = self.has(Mutant::BallotBeforeDisk);
        let Some(phase1) = self.phase1_mut() else { return };
        let purpose = phase1.purpose;
        for voter in voters {
            if let std::collections::btree_map::Entry::Vacant(entry) = phase1.answers.entry(voter) {
                entry.insert(Answer::Told { next });
                let prepare = Message::Prepare { ballot, from: next, purpose };
                if early {
                    out.send_early(voter, prepare);
                } else {
                    // Waits for the disk: a ballot that a crash makes forgotten could be used twice.
                    out.send(voter, prepare);
                }
            }
        }
    }

    /// A question, or its answer, may be lost: asks whoever has not answered.
    pub(super) fn ask_again(&mut self, out: &mut Output<Self>) {
        let (ballot, next) = (self.promised, self.decided.next());
        let voters = self.other_voters();
        let Some(phase1) = self.phase1_mut() else { return };
        for voter in voters {
            let from = match phase1.answers.get(&voter) {
                Some(Answer::Promised { .. }) => continue,
                Some(Answer::Told { next }) => *next,
                Some(Answer::Refused) | None => next,
            };
            phase1.answers.insert(voter, Answer::Told { next: from });
            out.send(voter, Message::Prepare { ballot, from, purpose: phase1.purpose });
        }
    }

    /// Phase 1b.
    pub(super) fn on_promise(&mut self, from: NodeId, ballot: Ballot, part: Part, out: &mut Output<Self>) {
        let (own, any) = (self.promised, self.has(Mutant::TakesAnyBallot));
        // What is proposed in this ballot already needs no finding: an answer may come late, and speak of that.
        let first = match &self.part {
            Role::Leader(leading) => leading.next,
            _ => self.decided.next(),
        };
        let scouting = matches!(self.part, Role::Scout(_));
        let Some(phase1) = self.phase1_mut().filter(|_| ballot == own && ballot.leader != from) else {
            return;
        };
        let Some(Answer::Told { next }) = phase1.answers.get(&from).copied() else { return };
        // A copy, or an answer to an earlier question.
        if part.from != next {
            return;
        }
        for pvalue in part.accepted.into_iter().filter(|pvalue| pvalue.at >= first) {
            // What its acceptor knows to be decided needs no comparing.
            let is_decided = pvalue.at <= part.decided;
            let ballot = if is_decided { Ballot::CHOSEN } else { pvalue.ballot };
            phase1.find(Pvalue { ballot, ..pvalue }, any);
        }
        if part.upto < ALL_SLOTS {
            let from_slot = part.upto.next();
            phase1.answers.insert(from, Answer::Told { next: from_slot });
            let purpose = phase1.purpose;
            out.send(from, Message::Prepare { ballot, from: from_slot, purpose });
        } else {
            phase1.answers.insert(from, Answer::Promised { decided: part.decided });
        }
        if scouting {
            self.wait_for_leader();
            self.learn_what_was_found(out);
        }
        self.count_promises(out);
    }

    /// A scout that lags behind takes over what others know to be decided, slot by slot.
    fn learn_what_was_found(&mut self, out: &mut Output<Self>) {
        loop {
            let at = self.decided.next();
            let Role::Scout(phase1) = &mut self.part else { return };
            if phase1.found.get(&at).is_none_or(|(ballot, _)| *ballot != Ballot::CHOSEN) {
                return;
            }
            let Some((_, value)) = phase1.found.remove(&at) else { return };
            // What is decided is what any later ballot would propose: accepting it in one's own is no lie.
            self.accept(at, value, out);
            self.decide(at, out);
        }
    }

    pub(super) fn on_refused(
        &mut self,
        from: NodeId,
        asked: Ballot,
        promised: Ballot,
        out: &mut Output<Self>,
    ) {
        self.round_seen = self.round_seen.max(promised.round);
        if asked != self.promised || asked.leader != self.id {
            return;
        }
        if let Role::Leader(leading) = &mut self.part
            && self.options.has(Mutant::ReadAcrossBallots)
            && let Some(peer) = leading.peers.get_mut(&from)
        {
            peer.round = leading.round;
            self.confirm_reads(out);
        }
        if promised > asked && matches!(self.part, Role::Leader(_)) {
            // PMMC: preempted. Another ballot may have decided something already.
            return self.step_down(out);
        }
        let Some(phase1) = self.phase1_mut() else { return };
        if let Some(answer @ Answer::Told { .. }) = phase1.answers.get_mut(&from) {
            *answer = Answer::Refused;
        }
        self.count_promises(out);
    }

    /// Phase 1 is over when a quorum has promised.
    pub(super) fn count_promises(&mut self, out: &mut Output<Self>) {
        if !matches!(self.part, Role::Scout(_)) {
            return;
        }
        match self.promises() {
            Outcome::Pending => {}
            // Until the next timeout: the others' may come first.
            Outcome::Lost => self.part = Role::Follower,
            Outcome::Won => self.lead(out),
        }
    }

    /// How the voters of the present configuration have answered, in whole.
    pub(super) fn promises(&self) -> Outcome {
        let phase1 = match &self.part {
            Role::Scout(phase1) => phase1,
            Role::Leader(leading) => &leading.phase1,
            _ => return Outcome::Lost,
        };
        quorum::joint_vote(self.slots.members(), |node| {
            if node == self.id {
                return self.disk.holds(self.promised_lsn).then_some(true);
            }
            match phase1.answers.get(&node) {
                Some(Answer::Promised { .. }) => Some(true),
                Some(Answer::Refused) => Some(false),
                _ => None,
            }
        })
    }

    fn lead(&mut self, out: &mut Output<Self>) {
        let Role::Scout(mut phase1) = std::mem::replace(&mut self.part, Role::Follower) else { return };
        assert_eq!(self.promised.leader, self.id, "a replica leads in ballots of its own");
        phase1.found = phase1.found.split_off(&self.decided.next());
        let mut leading = Leading::new(phase1, self.decided.next(), self.now + self.options.heartbeat);
        if self.has(Mutant::LeavesGaps) {
            leading.skip_what_was_found();
        }
        if !self.slots.members().is_voter(self.id) {
            leading.handing = Some(self.decided);
        }
        self.part = Role::Leader(Box::new(leading));
        self.leader = Some(self.id);
        self.remember_beginning();
        self.meet_members();
        self.reads.lead();
        self.send_heartbeats(out);
    }

    /// Gives up leading, or trying to, within the ballot.
    pub(super) fn step_down(&mut self, out: &mut Output<Self>) {
        if let Role::Leader(leading) = std::mem::replace(&mut self.part, Role::Follower) {
            for batch in leading.unproposed() {
                // It never had a slot, and will have none.
                out.refuse(batch, synod_core::Refusal::NoLeader);
            }
        }
        self.leader = None;
        self.reads.stop_leading(self.now);
        self.wait_for_leader();
    }

    /// Starts waiting afresh; the random part keeps proposers from duelling.
    pub(super) fn wait_for_leader(&mut self) {
        let jitter = self.rng.span(std::time::Duration::ZERO, self.options.election_jitter);
        self.election_due = self.now + self.options.election_timeout + jitter;
    }

    /// Whether a leader was heard of so lately that promises to others would only disturb.
    pub(super) fn has_live_leader(&self) -> bool {
        if self.has(Mutant::PromisesDespiteLease) {
            return false;
        }
        let lately = |heard: Time| self.now.since(heard) < self.options.election_timeout;
        matches!(self.part, Role::Leader(_)) || self.heard_leader.is_some_and(lately)
    }

    /// Whether this replica could lead at all: it has a vote by what it knows, and a state to lead from. Or it has left: it may be the only
    /// one who knows so, if the leader was lost right after the change, and then leads once more until a quorum knows (see
    /// `membership`). Proposers need not be members (Made Simple, 2.1), and where somebody leads its probes are denied.
    pub(super) fn may_ever_campaign(&self) -> bool {
        let members = self.slots.members();
        // Who has not joined yet knows of no voters at all.
        let has_left = !members.voters.is_empty() && !members.contains(self.id);
        (members.is_voter(self.id) || has_left) && !self.lacks_snapshot()
    }

    fn may_campaign(&self) -> bool {
        self.may_ever_campaign()
            && !self.disk.is_stuck(self.now, self.options.disk_stuck_after)
            && self.next_ballot().round < NUMBER_MAX
    }

    /// The lowest ballot of its own above all that it knows of.
    fn next_ballot(&self) -> Ballot {
        Ballot { round: self.promised.round.max(self.round_seen) + 1, leader: self.id }
    }

    pub(super) fn other_voters(&self) -> Vec<NodeId> {
        let members = self.slots.members();
        members.all().filter(|node| *node != self.id && members.is_voter(*node)).collect()
    }

    fn phase1_mut(&mut self) -> Option<&mut Phase1> {
        match &mut self.part {
            Role::Scout(phase1) => Some(phase1),
            Role::Leader(leading) => Some(&mut leading.phase1),
            _ => None,
        }
    }
}
