//! Configuration changes (Raft section 6; thesis chapter 4) and learners.
//!
//! A configuration is in force from the moment it is in the log, whether committed or not, and goes out of
//! force when it is truncated; `log` sees to that. A change that touches one voter is made directly, because
//! any two majorities then still meet; a larger one goes through a joint configuration, which the leader
//! leaves by itself once it is committed.
//!
//! Two guards, without which two leaders can decide with disjoint quorums: one change at a time, and none
//! before the leader has committed an entry of its own term (Ongaro, raft-dev, 2015).
//!
//! Left out: waiting for a learner to catch up before it is promoted. That is for whoever asks for the
//! promotion, with `status` in hand.

use std::sync::Arc;

use synod_core::{Change, Output, Refusal};

use super::message::Body;
use super::{Mutant, Part, Raft};

impl Raft {
    pub(super) fn reconfigure(&mut self, changes: &[Change], out: &mut Output<Self>) {
        let Part::Leader(leading) = &self.part else {
            return out.decline(Refusal::NotLeader { leader: self.leader });
        };
        let members = self.log.members();
        let own_term = self.commit >= leading.term_start || self.has(Mutant::ChangeTooEarly);
        let settled = self.log.configuration_index() <= self.commit && own_term;
        if !settled || members.is_joint() || leading.transfer.is_some() || self.is_busy() {
            return out.decline(Refusal::Busy);
        }
        // Directly, if any two majorities still meet; else through a joint configuration.
        match members.simple(changes).or_else(|_| members.enter_joint(changes)) {
            Ok(members) => {
                self.append_own(Body::Members(Arc::new(members)), out);
            }
            Err(error) => out.decline(Refusal::Invalid(error.to_string())),
        }
    }

    /// Leaves a joint configuration that is committed.
    pub(super) fn continue_change(&mut self, out: &mut Output<Self>) {
        let Part::Leader(leading) = &self.part else { return };
        let committed = self.log.configuration_index() <= self.commit && self.commit >= leading.term_start;
        let leaves = committed || self.has(Mutant::LeavesJointEarly);
        if leaves && let Ok(members) = self.log.members().leave_joint() {
            self.append_own(Body::Members(Arc::new(members)), out);
        }
    }

    /// A leader that is no voter any more leads until that is committed, and the others know (Raft section 6).
    pub(super) fn leave_if_removed(&mut self, out: &mut Output<Self>) {
        if matches!(self.part, Part::Leader(_))
            && self.log.configuration_index() <= self.commit
            && !self.log.members().is_voter(self.id)
        {
            self.hand_over(out);
        }
    }
}
