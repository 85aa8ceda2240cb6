//! What an observer who sees everything may look at: for oracles, never for decisions.

use synod_core::{Index, Members, Role};

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

    /// The term of the entry at `index`, if that is kept; and of the one before the first kept.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// The configuration in force at `index`, which is not before what is kept.
    #[must_use]
    pub fn members_at(&self, index: Index) -> &Members {
        self.log.members_at(index)
    }

    /// Before this index nothing is kept.
    #[must_use]
    pub fn first(&self) -> Index {
        self.log.first()
    }

    /// The log is on disk up to here.
    #[must_use]
    pub fn durable(&self) -> Index {
        self.disk.durable_index()
    }
}
