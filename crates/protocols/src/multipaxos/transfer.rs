//! Leadership is handed over, which the papers leave to chance.
//!
//! The leader takes no more proposals, waits until the target has accepted all that it proposed, and invites it to lead. The
//! target's Prepare says that the leader wants it, so acceptors do not refuse for its sake. If that does not happen within an
//! election timeout, the leader goes on leading.

use synod_core::{Index, NodeId, Output, Refusal, Time};

use super::message::{Ballot, Message, Purpose};
use super::{MultiPaxos, Mutant, Part};

/// A transfer under way.
pub(super) struct Transfer {
    to: NodeId,
    since: Time,
    /// When the target was invited last.
    told: Option<Time>,
}

impl MultiPaxos {
    pub(super) fn transfer(&mut self, to: NodeId, out: &mut Output<Self>) {
        let now = self.now;
        let Part::Leader(leading) = &mut self.part else {
            return out.decline(Refusal::NotLeader { leader: self.leader });
        };
        if to == self.id {
            return; // It is done already.
        }
        if !self.slots.members().is_voter(to) {
            return out.decline(Refusal::Invalid(format!("{to} has no vote and cannot lead")));
        }
        match &leading.transfer {
            Some(other) if other.to != to => out.decline(Refusal::Busy),
            Some(_) => {}
            None => leading.transfer = Some(Transfer { to, since: now, told: None }),
        }
    }

    /// Invites the target, once it holds all that the leader does.
    pub(super) fn continue_transfer(&mut self, out: &mut Output<Self>) {
        let (now, ballot, keeps_lease) = (self.now, self.promised, self.has(Mutant::LeaseSurvivesTransfer));
        let Part::Leader(leading) = &mut self.part else { return };
        let Some(transfer) = &mut leading.transfer else { return };
        let Some(peer) = leading.peers.get(&transfer.to) else { return };
        let due = transfer.told.is_none_or(|told| now.since(told) >= self.options.heartbeat);
        if peer.through >= leading.next.previous() && due {
            transfer.told = Some(now);
            // From now on another leader may appear at any moment, however late the message comes.
            leading.lease_is_void = !keeps_lease;
            // An invitation promises nothing.
            out.send_early(transfer.to, Message::Invite { ballot });
        }
    }

    /// The target did not take over in time: this replica goes on leading.
    pub(super) fn expire_transfer(&mut self) {
        let (now, patience) = (self.now, self.options.election_timeout);
        if let Part::Leader(leading) = &mut self.part {
            leading.transfer.take_if(|transfer| now.since(transfer.since) >= patience);
        }
    }

    /// Steps down, and invites the voter that has accepted most.
    pub(super) fn hand_over(&mut self, out: &mut Output<Self>) {
        let Part::Leader(leading) = &self.part else { return };
        let members = self.slots.members();
        let heirs = leading.peers.iter().filter(|(id, peer)| members.is_voter(**id) && peer.is_awake);
        let heir: Option<(Index, NodeId)> = heirs.map(|(id, peer)| (peer.through, *id)).max();
        if let Some((_, heir)) = heir {
            // An invitation promises nothing.
            out.send_early(heir, Message::Invite { ballot: self.promised });
        }
        self.step_down(out);
    }

    pub(super) fn on_invite(&mut self, from: NodeId, ballot: Ballot, out: &mut Output<Self>) {
        // Only the leader of this very ballot may invite: an old invitation is void.
        if ballot == self.promised && self.leader == Some(from) && matches!(self.part, Part::Follower) {
            self.scout(Purpose::Transfer, out);
        }
    }
}
