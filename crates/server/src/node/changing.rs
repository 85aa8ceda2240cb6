//! Changes of the members: begun where the protocol takes them (at the leader, if there is one), watched until they are in force.
//!
//! The protocol says only when it does *not* begin a change. That one is done is seen in the configuration that it delivers. Until
//! then the change is asked for again and again, because leaders come and go; changes are idempotent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use synod_core::{Change, Members, NodeId, Refusal, Time};

use super::MemberError;
use super::ask::{Ask, Decline, Envelope, Told};
use super::turn::Turn;
use super::waiters::Who;
use crate::config::Address;
use crate::contract::{Call, Level};
use crate::protocol::{House, Served};

/// Between two tries of a change that the protocol was too busy for.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Changes that wait at once; a further one is declined as busy.
const CHANGING_MAX: usize = 16;
/// How often the peers' addresses are looked at while nothing says that they have changed.
const PEERS_EVERY: Duration = Duration::from_millis(100);
/// A learner may be promoted when it holds so much of what its leader holds, in hundredths; upstream's figure.
const READY_HUNDREDTHS: u64 = 90;

/// A change that somebody waits for.
pub(crate) struct Changing {
    change: Change,
    asker: Asker,
    deadline: Time,
    tried_at: Option<Time>,
}

/// Who waits: somebody here, or at a peer.
#[derive(Clone, Copy)]
enum Asker {
    Here(u64),
    Peer(NodeId, u64),
}

/// What this node knows of the members, beside what the replica knows.
#[derive(Default)]
pub(crate) struct Roster {
    pub(crate) changing: Vec<Changing>,
    /// Where each was reached last.
    pub(crate) addresses: BTreeMap<NodeId, Vec<Address>>,
    /// Those that have left: they are told so when they dial.
    left: BTreeSet<NodeId>,
    /// Since when this member has been out of the configuration.
    out_since: Option<Time>,
    looked_at: Time,
    was_in: bool,
}

impl Roster {
    /// What is known at the start; `was_in`: the founding configuration names this member.
    pub(crate) fn new(addresses: BTreeMap<NodeId, Vec<Address>>, was_in: bool) -> Roster {
        Roster { addresses, was_in, ..Roster::default() }
    }
}

/// Whether the configuration is as the change wishes.
fn is_done(change: Change, members: &Members) -> bool {
    if members.is_joint() {
        return false;
    }
    match change {
        Change::AddLearner(node) => members.contains(node),
        Change::AddVoter(node) => members.voters.contains(&node),
        Change::Remove(node) => !members.contains(node),
    }
}

impl<P: Served> Turn<P> {
    /// A question for the configuration, from here.
    pub(super) fn on_change(&mut self, now: Time, number: u64, change: Change) {
        self.begin_change(now, change, Asker::Here(number));
    }

    /// The same from a peer.
    pub(super) fn on_peers_change(&mut self, now: Time, from: NodeId, number: u64, change: Change) {
        let takes_it = P::ROW.house != House::Leader || self.leads();
        match takes_it {
            true => self.begin_change(now, change, Asker::Peer(from, number)),
            false => self.outside.post(from, &Envelope::Told(number, Told::NotLeader)),
        }
    }

    fn begin_change(&mut self, now: Time, change: Change, asker: Asker) {
        let declined = match (change, self.roster.changing.len() >= CHANGING_MAX) {
            (_, true) => Some(Decline::Busy),
            (Change::AddVoter(node), _) => self.why_not_promote(node),
            _ => None,
        };
        if let Some(why) = declined {
            return self.tell(asker, Told::Declined(why));
        }
        tracing::info!(?change, "a change of the members is asked for");
        let deadline = now + self.outside.waiters.patience();
        self.roster.changing.push(Changing { change, asker, deadline, tried_at: None });
    }

    /// Why a learner gets no vote yet. Somebody who is not here at all may be added with a vote at once.
    fn why_not_promote(&self, node: NodeId) -> Option<Decline> {
        let status = self.replica.status();
        if !status.members.learners.contains(&node) {
            return None;
        }
        let matched = status.peers.iter().find(|peer| peer.id == node).map(|peer| peer.matched.0)?;
        (matched.saturating_mul(100) < status.last.0.saturating_mul(READY_HUNDREDTHS))
            .then_some(Decline::NotReady)
    }

    fn tell(&mut self, asker: Asker, told: Told) {
        match (asker, told) {
            // Whoever leads now is asked, as soon as that is known.
            (Asker::Here(number), Told::NotLeader) => self.outside.waiters.park(Who::Ask(number)),
            (Asker::Here(number), told) => self.outside.waiters.told(number, Ok(told)),
            (Asker::Peer(to, number), told) => self.outside.post(to, &Envelope::Told(number, told)),
        }
    }

    /// Begins the changes that wait for it, and answers those that are done or cannot be.
    pub(super) fn settle_changes(&mut self, now: Time) {
        if self.roster.changing.is_empty() {
            return;
        }
        let declined = if self.moving.is_none() { self.outside.declined.take() } else { None };
        let members = self.shared.members.read().clone();
        // One at a time: protocols take no second one before the first is in force.
        let mut first = self.roster.changing.remove(0);
        let outcome = match declined {
            _ if is_done(first.change, &members) => Some(Told::Changed),
            Some(Refusal::NotLeader { .. } | Refusal::NoLeader | Refusal::LeaderChanged) => {
                Some(Told::NotLeader)
            }
            Some(Refusal::Unsupported(_)) => Some(Told::Declined(Decline::Unsupported)),
            Some(Refusal::Invalid(_)) => Some(Told::Declined(Decline::Invalid)),
            _ if now >= first.deadline => Some(Told::Declined(Decline::Busy)),
            Some(Refusal::Busy | Refusal::Stopped) | None => None,
        };
        if let Some(told) = outcome {
            tracing::info!(change = ?first.change, ?told, "a change of the members has ended");
            self.past_more_to_do();
            return self.tell(first.asker, told);
        }
        if first.tried_at.is_none_or(|tried| now.since(tried) >= AGAIN_AFTER) {
            first.tried_at = Some(now);
            self.replica.reconfigure(now, vec![first.change]);
            self.past_more_to_do();
        }
        self.roster.changing.insert(0, first);
    }

    /// When the next change is to be looked at again.
    pub(super) fn changes_deadline(&self) -> Option<Time> {
        let first = self.roster.changing.first()?;
        Some(first.tried_at.map_or(Time::ZERO, |tried| tried + AGAIN_AFTER))
    }

    /// The configuration has changed.
    pub(super) fn note_members(&mut self, now: Time, members: Members) {
        let before = std::mem::replace(&mut *self.shared.members.write(), members.clone());
        let gone = before.all().filter(|id| !members.contains(*id));
        self.roster.left.extend(gone);
        self.roster.left.retain(|id| !members.contains(*id));
        let (me, was_in) = (self.outside.me, self.roster.was_in);
        self.roster.was_in = members.contains(me);
        if was_in && !self.roster.was_in {
            tracing::warn!("this member was removed from the cluster");
            self.roster.out_since = Some(now);
        }
        self.look_at_peers(now);
    }

    /// Ends a member that is out, once the others had time to hear the last of it.
    pub(super) fn leave_if_out(&mut self, now: Time) -> Result<(), MemberError> {
        match self.roster.out_since {
            Some(since) if now.since(since) >= self.election_timeout * 2 => Err(MemberError::Removed),
            _ => Ok(()),
        }
    }

    /// A peer says that this member is none any more.
    pub(super) fn on_told_removed(&self, by: NodeId) -> Result<(), MemberError> {
        tracing::warn!(peer = %by, "a peer says that this member was removed from the cluster");
        // Where nobody can be removed nobody was: whoever says so lies.
        match self.shared.contract.check(Call::Reconfigure, Level::Linearizable) {
            Ok(()) => Err(MemberError::Removed),
            Err(_) => Ok(()),
        }
    }

    /// Dials whoever belongs to the cluster now, at the addresses that are known now.
    pub(super) fn look_at_peers(&mut self, now: Time) {
        self.roster.looked_at = now;
        let status = self.replica.status();
        let mut wanted = BTreeMap::new();
        {
            let (store, delivered) = (self.shared.store.read(), self.shared.members.read());
            let published = store.members().keys().copied().map(NodeId);
            for id in status.members.all().chain(delivered.all()).chain(published) {
                let in_force = status.members.contains(id) || delivered.contains(id);
                if self.roster.left.contains(&id) && !in_force {
                    continue;
                }
                let said =
                    store.members().get(&id.0).map(|said| said.peer_urls.as_slice()).unwrap_or_default();
                let said: Vec<Address> =
                    said.iter().filter_map(|url| Address::parse("peer-urls", url).ok()).collect();
                let known = self.roster.addresses.get(&id).cloned().unwrap_or_default();
                let addresses = if said.is_empty() { known } else { said };
                if !addresses.is_empty() {
                    wanted.insert(id, addresses);
                }
            }
        }
        if wanted != self.roster.addresses {
            tracing::info!(peers = wanted.len(), "the peers' addresses have changed");
            self.roster.addresses.clone_from(&wanted);
            if let Err(wrong) = self.folder.save_peers(&wanted) {
                tracing::error!(error = %wrong, "cannot write down the peers' addresses");
            }
        }
        self.outside.transport.set_peers(&wanted);
        self.outside.transport.set_left(&self.roster.left);
        *self.shared.peers.write() = self.outside.transport.numbers();
    }

    /// The same, now and then: addresses change without the configuration.
    pub(super) fn look_at_peers_if_due(&mut self, now: Time) {
        if now.since(self.roster.looked_at) >= PEERS_EVERY {
            self.look_at_peers(now);
        }
    }

    /// Puts a question about the configuration to whoever can change it.
    pub(super) fn route_change(&mut self, now: Time, number: u64, change: Change) {
        let leader = self.shared.standing.lock().leader;
        match (P::ROW.house, leader) {
            (House::Leader, Some(leader)) if leader != self.outside.me => {
                self.outside.post(leader, &Envelope::Ask(number, Ask::Change(change)));
            }
            (House::Leader, None) => self.outside.waiters.park(Who::Ask(number)),
            _ => self.on_change(now, number, change),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change is done when the configuration shows it, and not while two configurations are in force at once.
    #[test]
    fn what_is_done() {
        let one = NodeId(1);
        let voters = Members::of([one, NodeId(2)]);
        assert!(is_done(Change::AddVoter(one), &voters) && !is_done(Change::Remove(one), &voters));
        assert!(
            is_done(Change::Remove(NodeId(3)), &voters) && !is_done(Change::AddLearner(NodeId(3)), &voters)
        );
        let learners = Members { learners: [NodeId(3)].into(), ..voters.clone() };
        assert!(is_done(Change::AddLearner(NodeId(3)), &learners));
        assert!(!is_done(Change::AddVoter(NodeId(3)), &learners));
        let joint = Members { outgoing: [one].into(), ..voters };
        assert!(!is_done(Change::AddVoter(one), &joint));
    }
}
