//! What the next view is, and what becomes of a replica when it begins.
//!
//! Two roads lead to it (Oki and Liskov, section 4; PacificA, 2.2.2 and 2.2.3). A *takeover*: nobody hears of a primary, so
//! somebody gathers promises, and out of those of the last view who gave one, whoever's log goes furthest becomes primary.
//! A *change* by the primary: a backup that keeps everybody waiting is left out; a member that has caught up is taken in;
//! members are added, promoted and removed as a person asked; the primary hands over to another.
//!
//! Whom a view contains holds everything decided before it. That is so for members of the last view. For a newcomer, the
//! primary sees to it: it must hold all that this primary took over and all that it decided since, and from the moment that
//! it is proposed nothing is decided without it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use synod_core::{Change, Index, Members, NodeId, Output, Refusal, Time};

use super::agreement::Promise;
use super::message::{Body, Position, Replication, View, ViewNumber};
use super::primary::Leading;
use super::{Mutant, Part, PrimaryBackup};

/// The primary's wish to be primary no more.
pub(super) struct Handover {
    /// To whom; to whichever backup has caught up, when the primary is leaving.
    to: Option<NodeId>,
    since: Time,
}

impl PrimaryBackup {
    /// The view that follows when these promised and the primary is silent; none when nobody of the last view is among
    /// them.
    pub(super) fn takeover(&self, promises: &BTreeMap<NodeId, Promise>) -> Option<View> {
        let (view, members) = (&self.view, &self.view.members);
        let anybody = self.has(Mutant::PrimaryFromOutside);
        let eligible = promises.iter().filter(|(node, _)| anybody || view.contains(**node));
        let ends = eligible.filter_map(|(node, promise)| Some((*node, promise.last?)));
        // Whose log goes furthest: so nothing is lost that need not be, and the least must be sent again. But all of a synchronous view
        // hold what it decided, and its primary has just failed to decide anything more: it may reach nobody but whoever asks here.
        let is_synchronous = view.replication == Replication::Sync;
        let furthest = |(node, Position { index, view: made_in }): &(NodeId, Position)| {
            let is_old = view.primary == Some(*node);
            (is_synchronous && !is_old, *made_in, *index, is_old, *node == self.id)
        };
        let (primary, _) = if anybody {
            ends.min_by_key(|(node, _)| (*node != self.id, *node))?
        } else {
            ends.max_by_key(furthest)?
        };
        let mut backups: BTreeSet<NodeId> =
            view.all().filter(|node| *node != primary && promises.contains_key(node)).collect();
        self.pad(&mut backups, primary, members);
        let heard = |node: NodeId| promises.get(&node).is_some_and(|promise| promise.last.is_some());
        let may_lose = view.replication == Replication::Async && view.primary.is_some_and(|old| !heard(old));
        let number = view.number.next();
        let loss = if may_lose && !self.has(Mutant::HidesLoss) { number } else { view.loss };
        let replication = self.options.replication;
        Some(View { number, primary: Some(primary), backups, members: members.clone(), replication, loss })
    }

    /// Too few copies: members of the last view that are silent must do, until others have caught up. Writes block.
    fn pad(&self, backups: &mut BTreeSet<NodeId>, primary: NodeId, members: &Members) {
        for node in self.view.all() {
            if backups.len() + 1 >= self.view.copies_min(members) {
                break;
            }
            if node != primary && members.voters.contains(&node) {
                backups.insert(node);
            }
        }
    }

    /// The view that the primary would like better than its own; none when there is none, or none yet.
    pub(super) fn wished_view(&self) -> Option<View> {
        let Part::Primary(leading) = &self.part else { return None };
        let members = leading.change.clone().unwrap_or_else(|| self.view.members.clone());
        let stays = |node: NodeId| match leading.peers.get(&node) {
            Some(peer) if self.view.contains(node) => peer.is_lively(self.now, self.options.backup_timeout),
            Some(peer) => {
                peer.is_lively(self.now, self.options.backup_timeout) && self.may_join(leading, node)
            }
            None => false,
        };
        let mut backups: BTreeSet<NodeId> =
            members.voters.iter().copied().filter(|node| stays(*node)).collect();
        let mut primary = self.id;
        if leading.handover.is_some() {
            primary = self.heir(leading, &members)?;
            backups.remove(&primary);
            if members.voters.contains(&self.id) {
                backups.insert(self.id);
            }
        }
        self.pad(&mut backups, primary, &members);
        if backups.len() + 1 < self.view.copies_min(&members) {
            return None;
        }
        let replication = self.options.replication;
        let same = primary == self.id && backups == self.view.backups && replication == self.view.replication;
        if same && leading.change.is_none() && !leading.contested {
            return None;
        }
        let (number, loss) = (self.view.number.next(), self.view.loss);
        Some(View { number, primary: Some(primary), backups, members, replication, loss })
    }

    /// Whether this member holds all that this primary took over, and all that it decided since.
    fn may_join(&self, leading: &Leading, node: NodeId) -> bool {
        if self.has(Mutant::JoinsEarly) {
            return true;
        }
        let needed = match self.view.replication {
            Replication::Sync => self.decided,
            // Nothing waits for it: near enough is enough.
            Replication::Async => leading.decided_before,
        };
        leading.peers.get(&node).is_some_and(|peer| peer.progress.matched >= needed.max(leading.begins_at))
    }

    /// Who may take over from this primary: of its view, and holding all that it holds.
    fn heir(&self, leading: &Leading, members: &Members) -> Option<NodeId> {
        let wanted = leading.handover.as_ref().and_then(|handover| handover.to);
        let last = self.log.last().index;
        let fits = |node: &NodeId| {
            let peer = leading.peers.get(node);
            members.voters.contains(node)
                && wanted.is_none_or(|wanted| wanted == *node)
                && peer.is_some_and(|peer| {
                    peer.progress.matched == last && peer.is_lively(self.now, self.options.backup_timeout)
                })
        };
        self.view.backups.iter().copied().find(fits)
    }

    /// Proposes the view that the primary would like better, if there is one.
    pub(super) fn improve_view(&mut self, out: &mut Output<Self>) {
        if self.proposal.is_none() && self.wished_view().is_some() {
            self.campaign(out);
        }
    }

    /// A view begins that was decided just now, as far as this replica knows.
    pub(super) fn enter(&mut self, view: Arc<View>, out: &mut Output<Self>) {
        self.view = view;
        self.owes_replicated = false;
        self.strays_at = None;
        if self.view.loss == self.view.number {
            let number = self.view.number;
            out.note(format!(
                "{number:?} began without the primary of the view before it, which was asynchronous: writes that it \
                 acknowledged may be lost"
            ));
        }
        let chosen = self.view.primary == Some(self.id);
        if chosen && !self.lacks_snapshot() {
            self.leader = Some(self.id);
            if let Part::Primary(leading) = &mut self.part {
                leading.go_on();
            } else {
                self.part = Part::Primary(Leading::new(self.view.number, self.now));
                self.reads.lead();
            }
            self.meet_members();
            let at = self.append_own(Body::Begin(self.view.members.clone()), out);
            if let Part::Primary(leading) = &mut self.part
                && leading.reign == self.view.number
            {
                leading.begins_at = at;
            }
            self.verified = at;
            return;
        }
        if matches!(self.part, Part::Primary(_)) {
            self.reads.stop_leading(self.now);
        }
        self.part = Part::Backup;
        self.leader = self.view.primary.filter(|_| !chosen);
        // What was decided is the same everywhere, but for what a failover lost: that has to be seen first.
        self.verified = if self.may_stray() { Index::ZERO } else { self.decided };
        // A new primary has its time to speak.
        self.heard = Some(self.now);
        self.wait_for_primary();
    }

    /// Whether this replica may have applied what the primary's history lacks.
    pub(super) fn may_stray(&self) -> bool {
        self.view.loss > ViewNumber(0)
    }

    /// Leads no more in this view, and never again.
    pub(super) fn resign(&mut self) {
        self.reads.stop_leading(self.now);
        self.part = Part::Backup;
        self.leader = None;
        self.heard = None;
        self.wait_for_primary();
    }

    // What a person may ask for.

    pub(super) fn reconfigure(&mut self, changes: &[Change], out: &mut Output<Self>) {
        let (leader, now) = (self.leader, self.now);
        let members = &self.view.members;
        let Part::Primary(leading) = &mut self.part else {
            return out.decline(Refusal::NotLeader { leader });
        };
        if self.proposal.is_some() || leading.change.is_some() || leading.handover.is_some() {
            return out.decline(Refusal::Busy);
        }
        // Any change is safe at once: the members of this view alone decide what the next one is.
        let after = members.enter_joint(changes).and_then(|joint| joint.leave_joint());
        let after = match after {
            Ok(after) => after,
            Err(error) => return out.decline(Refusal::Invalid(error.to_string())),
        };
        if !after.voters.contains(&self.id) {
            // It leaves as soon as a backup holds all that it does.
            if !self.view.backups.iter().any(|node| after.voters.contains(node)) {
                return out.decline(Refusal::Busy);
            }
            leading.handover = Some(Handover { to: None, since: now });
            leading.change = Some(Arc::new(after));
            return;
        }
        leading.change = Some(Arc::new(after));
        if self.wished_view().is_none() {
            // A view would be left with too few copies: somebody has to catch up first.
            if let Part::Primary(leading) = &mut self.part {
                leading.change = None;
            }
            return out.decline(Refusal::Busy);
        }
        self.campaign(out);
    }

    pub(super) fn transfer(&mut self, to: NodeId, out: &mut Output<Self>) {
        let (leader, now) = (self.leader, self.now);
        let Part::Primary(leading) = &mut self.part else {
            return out.decline(Refusal::NotLeader { leader });
        };
        if to == self.id {
            return; // It is done already.
        }
        if !self.view.backups.contains(&to) {
            return out.decline(Refusal::Invalid(format!("{to} is no backup of this view and cannot lead")));
        }
        match &leading.handover {
            Some(other) if other.to != Some(to) => out.decline(Refusal::Busy),
            Some(_) => {}
            None => leading.handover = Some(Handover { to: Some(to), since: now }),
        }
    }

    /// Hands over once the heir holds everything; gives up when that takes too long.
    pub(super) fn continue_handover(&mut self, out: &mut Output<Self>) {
        let Part::Primary(leading) = &mut self.part else { return };
        let Some(handover) = &leading.handover else { return };
        if self.now.since(handover.since) >= self.options.election_timeout {
            (leading.handover, leading.change) = (None, None);
            return;
        }
        self.improve_view(out);
    }
}
