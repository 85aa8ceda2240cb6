//! Leadership transfer (thesis 3.10).
//!
//! The leader takes no more proposals, brings the target's log up to its own, and tells it to seek election
//! at once. If that does not happen within an election timeout, it goes on leading.

use synod_core::{Index, NodeId, Output, Refusal, Time};

use super::message::{Purpose, Term};
use super::{Leading, Message, Mutant, Part, Raft};

/// A transfer under way.
pub(super) struct Transfer {
    to: NodeId,
    since: Time,
    /// When the target was told last.
    told: Option<Time>,
}

impl Raft {
    pub(super) fn transfer(&mut self, to: NodeId, out: &mut Output<Self>) {
        let now = self.now;
        let Part::Leader(leading) = &mut self.part else {
            return out.decline(Refusal::NotLeader { leader: self.leader });
        };
        if to == self.id {
            return; // It is done already.
        }
        if !self.log.members().voters.contains(&to) {
            return out.decline(Refusal::Invalid(format!("{to} has no vote and cannot lead")));
        }
        match &leading.transfer {
            Some(other) if other.to != to => out.decline(Refusal::Busy),
            Some(_) => {}
            None => leading.transfer = Some(Transfer { to, since: now, told: None }),
        }
    }

    /// Tells the target to seek election, once it holds all that the leader does.
    pub(super) fn continue_transfer(&mut self, out: &mut Output<Self>) {
        let Part::Leader(Leading { transfer: Some(transfer), peers, lease_is_void, .. }) = &mut self.part
        else {
            return;
        };
        let Some(peer) = peers.get(&transfer.to) else { return };
        let due = transfer.told.is_none_or(|told| self.now.since(told) >= self.options.heartbeat);
        if peer.matched == self.log.last().index && due {
            transfer.told = Some(self.now);
            // From now on another leader may be elected at any moment, however late the message comes.
            *lease_is_void = !self.options.has(Mutant::LeaseSurvivesTransfer);
            // An invitation promises nothing.
            out.send_early(transfer.to, Message::TimeoutNow { term: self.term });
        }
    }

    /// The target did not take over in time: this replica goes on leading.
    pub(super) fn expire_transfer(&mut self) {
        let (now, patience) = (self.now, self.options.election_timeout);
        if let Part::Leader(leading) = &mut self.part {
            leading.transfer.take_if(|transfer| now.since(transfer.since) >= patience);
        }
    }

    /// Steps down, and invites the voter whose log is closest to seek election at once.
    pub(super) fn hand_over(&mut self, out: &mut Output<Self>) {
        let Part::Leader(leading) = &self.part else { return };
        let voters = &self.log.members().voters;
        let heirs = leading.peers.iter().filter(|(id, peer)| voters.contains(id) && peer.is_awake);
        let heir: Option<(Index, NodeId)> = heirs.map(|(id, peer)| (peer.matched, *id)).max();
        if let Some((_, heir)) = heir {
            // An invitation promises nothing.
            out.send_early(heir, Message::TimeoutNow { term: self.term });
        }
        self.step_down();
    }

    pub(super) fn on_timeout_now(&mut self, from: NodeId, term: Term, out: &mut Output<Self>) {
        // Only the leader of this very term may invite: an old invitation is void.
        if term == self.term && self.leader == Some(from) && matches!(self.part, Part::Follower) {
            self.campaign(Purpose::Transfer, out);
        }
    }
}
