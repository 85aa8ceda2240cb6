//! Configurations as decided values (PMMC 2.1 and 4.4; Made Simple, section 3; Made Live 5.1), and learners.
//!
//! The papers let a configuration take effect a window of *alpha* slots behind its own, so that up to alpha slots can be
//! proposed while nobody knows yet whether a change is among them. Here a configuration is in force right behind its slot, and
//! the leader waits instead: behind a configuration it proposes nothing before that is decided. Then it asks those new voters
//! for promises that have not promised, and goes on once a quorum of the new configuration has.
//!
//! Why this is sound. Call the slot *s*, the configurations before and behind it C and C'. (1) Whoever proposes a new
//! configuration in *s* has, from a quorum of C, promises for all slots from *s* on that found nothing: so by C nothing is
//! decided behind *s* in an earlier ballot, nor ever will be. (2) Nobody proposes behind *s* in a later ballot without having
//! decided *s*: so by C nothing is ever decided behind *s*. (3) Behind *s*, only C' counts, and there both phases need quorums of
//! C', which meet. A gap is filled with a no-op and never with a configuration, or (1) would not hold.
//!
//! As any two configurations may follow one another, there is no joint one in between: any number of members changes in one step.
//!
//! One care more: those who leave might stop for ever once they know, while those who join do not know yet. So who leaves
//! hears of the decision last, when a quorum of the new configuration holds on disk that it is decided; that goes for a leader
//! that removed itself, too. Should it be lost in between, whoever has left and hears of no leader leads once more.

use std::sync::Arc;

use synod_core::quorum;
use synod_core::{Change, Index, Members, NodeId, Output, Refusal};

use super::message::Value;
use super::progress::Progress;
use super::{MultiPaxos, Mutant, Part};

impl MultiPaxos {
    pub(super) fn reconfigure(&mut self, changes: &[Change], out: &mut Output<Self>) {
        let Part::Leader(leading) = &self.part else {
            return out.decline(Refusal::NotLeader { leader: self.leader });
        };
        let pending = leading.barrier > self.decided || leading.is_changing() || leading.handing.is_some();
        if pending || !self.is_settled() || leading.transfer.is_some() || self.is_busy() {
            return out.decline(Refusal::Busy);
        }
        let members = self.slots.members();
        let changed = members.enter_joint(changes).and_then(|joint| joint.leave_joint());
        match changed {
            Ok(changed) if !self.can_reach_quorum_of(&changed) => out.decline(Refusal::Invalid(
                "a quorum of the voters would be out of reach: bring members back, or remove those that are gone, first"
                    .to_owned(),
            )),
            Ok(changed) => {
                if let Part::Leader(leading) = &mut self.part {
                    leading.queue(Value::Members(Arc::new(changed)));
                }
            }
            Err(error) => out.decline(Refusal::Invalid(error.to_string())),
        }
    }

    /// Whether a quorum is there, so far as one can know: of voters that are new, the best is hoped.
    fn can_reach_quorum_of(&self, changed: &Members) -> bool {
        let Part::Leader(leading) = &self.part else { return false };
        let is_near = |node: NodeId| {
            let old = leading.peers.get(&node).filter(|_| self.slots.members().is_voter(node));
            old.is_none_or(|peer| self.now.since(peer.heard) < self.options.election_timeout)
        };
        quorum::joint_vote(changed, |node| Some(is_near(node))) == quorum::Outcome::Won
    }

    /// The configuration that was decided at `at` is in force behind it.
    pub(super) fn members_changed(&mut self, at: Index, out: &mut Output<Self>) {
        let is_voter = self.slots.members().is_voter(self.id);
        let unprepared = (!self.has(Mutant::LeadsUnprepared)).then_some(self.now);
        match &mut self.part {
            Part::Leader(leading) => {
                leading.handing = Some(at);
                leading.unprepared = unprepared;
                self.meet_members();
                self.ask_for_promises(out);
            }
            Part::Scout(_) if is_voter => self.ask_for_promises(out),
            Part::Scout(_) | Part::Probing(_) => self.part = Part::Follower,
            Part::Follower => {}
        }
    }

    /// A configuration has been handed over once a quorum of it cannot forget that it is decided.
    pub(super) fn settle_change(&mut self) {
        let Part::Leader(leading) = &self.part else { return };
        let Some(at) = leading.handing else { return };
        let known = |node| leading.peers.get(&node).map_or(self.knows, |peer| peer.knows);
        let settled = quorum::joint_reached(self.slots.members(), known).is_none_or(|known| known >= at);
        if let Part::Leader(leading) = &mut self.part
            && settled
        {
            leading.handing = None;
        }
    }

    /// A leader that is no voter any more leads until the others know, and can go on without it.
    pub(super) fn leave_if_removed(&mut self, out: &mut Output<Self>) {
        let Part::Leader(leading) = &self.part else { return };
        let handed = leading.handing.is_none() && leading.unprepared.is_none();
        if handed && !self.slots.members().is_voter(self.id) {
            self.hand_over(out);
        }
    }

    /// Knows as peers the other members of the configuration; those that were removed are told so for a while.
    pub(super) fn meet_members(&mut self) {
        let (members, decided, now) = (self.slots.members().clone(), self.decided, self.now);
        let Part::Leader(leading) = &mut self.part else { return };
        for (node, peer) in &mut leading.peers {
            if members.contains(*node) {
                peer.leaving = None;
            } else {
                peer.leaving.get_or_insert(now);
            }
        }
        for node in members.all().filter(|node| *node != self.id) {
            let known = leading.phase1.decided_by(node).map(|known| known.min(decided));
            leading.peers.entry(node).or_insert_with(|| {
                let mut peer = Progress::new(now);
                if let Some(known) = known {
                    // Its promise told where it stands.
                    peer.through = known;
                    peer.next = Some(known.next());
                }
                peer
            });
        }
    }

    /// Those that were removed have had the time to hear of it.
    pub(super) fn forget_the_removed(&mut self) {
        let (now, patience) = (self.now, self.options.election_timeout * 2);
        if let Part::Leader(leading) = &mut self.part
            && leading.handing.is_none()
        {
            leading.peers.retain(|_, peer| peer.leaving.is_none_or(|since| now.since(since) < patience));
        }
    }
}
