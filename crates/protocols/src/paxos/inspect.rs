//! What an observer who sees everything may look at: for oracles, never for decisions.

use synod_core::{Index, Role};

use super::{Ballot, Paxos, Proposal};

impl Paxos {
    /// What this replica is, and the highest round that it has begun.
    #[must_use]
    pub fn standing(&self) -> (Role, u64) {
        (Role::Proposer, self.top_round)
    }

    /// What the acceptor has promised and accepted in the slots that are open.
    pub fn open_slots(&self) -> impl Iterator<Item = (Index, Ballot, Option<&Proposal>)> {
        let open = self.slots.after(self.decided).filter(|(_, slot)| slot.chosen.is_none());
        open.map(|(at, slot)| (at, slot.promised, slot.accepted.as_ref()))
    }

    /// How many slots this replica works on as a proposer.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.attempts.len()
    }
}
