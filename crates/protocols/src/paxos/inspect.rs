//! What an observer who sees everything may look at: for oracles, never for decisions.

use synod_core::{Index, NodeId, Role};

use super::{Ballot, Paxos, Proposal};

impl Paxos {
    /// What this replica is, and the highest round that it has begun.
    #[must_use]
    pub fn standing(&self) -> (Role, u64) {
        (Role::Proposer, self.top_round)
    }

    /// Whether this replica has that name.
    #[must_use]
    pub fn is(&self, node: NodeId) -> bool {
        self.id == node
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

    /// What the acceptor has promised and accepted in a slot of which it still speaks.
    #[must_use]
    pub fn acceptor_at(&self, at: Index) -> Option<(Ballot, Option<Ballot>)> {
        if at <= self.floor() || self.slots.chosen(at).is_some() {
            return None;
        }
        let slot = self.slots.get(at);
        let accepted = slot.and_then(|slot| slot.accepted.as_ref()).map(|accepted| accepted.ballot);
        Some((slot.map_or(Ballot::ZERO, |slot| slot.promised), accepted))
    }

    /// Whether the next ballot that this replica begins in a slot may be this one of its own once more.
    #[must_use]
    pub fn may_begin_again(&self, at: Index, ballot: Ballot) -> bool {
        let is_open = at > self.floor() && self.slots.chosen(at).is_none();
        let seen = self.slots.get(at).map_or(Ballot::ZERO, |slot| slot.seen);
        is_open && ballot.node == self.id && self.life_of_ballots() <= ballot.life && seen < ballot
    }
}
