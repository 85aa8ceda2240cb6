//! What an observer who sees everything may look at: for oracles, never for decisions.

use synod_core::{Index, Role};

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

    /// How far this replica knows slots to be decided.
    #[must_use]
    pub fn decided(&self) -> Index {
        self.decided
    }

    /// By which ballot the value in this slot was accepted; none where nothing was, or nothing is kept any more.
    #[must_use]
    pub fn accepted_at(&self, at: Index) -> Option<Ballot> {
        self.slots.ballot(at)
    }

    /// The last slot that is not kept any more.
    #[must_use]
    pub fn base(&self) -> Index {
        self.slots.base()
    }
}
