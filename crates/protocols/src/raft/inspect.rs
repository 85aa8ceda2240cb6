//! What an observer who sees everything may look at: for oracles, never for decisions.

use synod_core::{Index, Role};

use super::{Entry, Part, Raft, Term};

impl Raft {
    /// What this replica is, and in which term. Of a learner it says follower, which costs no look at the members.
    #[must_use]
    pub fn standing(&self) -> (Role, Term) {
        let role = match &self.part {
            Part::Leader(_) => Role::Leader,
            Part::Candidate(_) => Role::Candidate,
            Part::PreCandidate(_) => Role::PreCandidate,
            Part::Follower => Role::Follower,
        };
        (role, self.term)
    }

    /// The entries in memory, with their places, in ascending order.
    pub fn entries(&self) -> impl Iterator<Item = (Index, &Entry)> {
        let (first, last) = (self.log.first(), self.log.last().index);
        (first.0..=last.0).map_while(|at| Some((Index(at), self.log.entry(Index(at))?)))
    }
}
