//! What an observer who sees everything may look at: for oracles, never for decisions.

use synod_core::Role;

use super::{Ballot, MultiPaxos, Part};

impl MultiPaxos {
    /// What this replica is, and the highest ballot that it has promised. Of a learner it says follower, which costs no look
    /// at the members.
    #[must_use]
    pub fn standing(&self) -> (Role, Ballot) {
        let role = match &self.part {
            Part::Leader(_) => Role::Leader,
            Part::Scout(_) => Role::Candidate,
            Part::Probing(_) => Role::PreCandidate,
            Part::Follower => Role::Follower,
        };
        (role, self.promised)
    }
}
