//! How the view after view n is decided: by a majority of the members of view n, once and durably.
//!
//! The papers leave this to a view service (Budhiraja et al.), to the view-change algorithm (Oki and Liskov) or to a
//! configuration manager (PacificA, "using Paxos"). Here it is part of the protocol: one instance of Paxos for each view, its
//! acceptors the voters of the view before. A replica keeps promises about the next view alone: once that is decided and
//! known, there is nothing left to promise about it.
//!
//! Whoever knows more says so: a message of a view that is over is answered with the one that came after it, and a Prepare
//! carries the view that it builds upon, so that an acceptor that missed it can catch up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use synod_core::quorum::majority;
use synod_core::{Lsn, NodeId, Output, Time};

use super::message::{Accepted, Ballot, Message, Position, Record, View, ViewNumber};
use super::{Mutant, Part, PrimaryBackup};

/// An acceptor's memory: about the view after the one it knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Register {
    /// Attempts before this one are refused.
    pub(super) promised: Ballot,
    /// What was accepted last.
    pub(super) accepted: Option<Accepted>,
    /// The record that holds both.
    pub(super) lsn: Lsn,
}

/// A proposer's attempt.
pub(super) struct Proposal {
    ballot: Ballot,
    /// When those who have not answered are asked again.
    resend_due: Time,
    stage: Stage,
}

enum Stage {
    Preparing {
        promises: BTreeMap<NodeId, Promise>,
        /// A majority has answered; until then the others may, so that no member is left out for being slow.
        gather_until: Option<Time>,
    },
    Accepting {
        next: Arc<View>,
        accepted: BTreeSet<NodeId>,
    },
}

/// What one acceptor said.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    pub(super) accepted: Option<Accepted>,
    /// Where its log ends; nothing when it cannot lead.
    pub(super) last: Option<Position>,
}

impl Proposal {
    pub(super) fn deadline(&self) -> Time {
        match &self.stage {
            Stage::Preparing { gather_until: Some(due), .. } => self.resend_due.min(*due),
            _ => self.resend_due,
        }
    }
}

impl PrimaryBackup {
    /// Begins an attempt at the next view.
    pub(super) fn campaign(&mut self, out: &mut Output<Self>) {
        let round = self.register.promised.round.max(self.seen_round) + 1;
        let ballot = Ballot { round, node: self.id };
        self.promise(ballot, out);
        let stage = Stage::Preparing { promises: BTreeMap::new(), gather_until: None };
        self.proposal = Some(Proposal { ballot, resend_due: self.now + self.options.heartbeat, stage });
        self.ask(out);
    }

    fn promise(&mut self, ballot: Ballot, out: &mut Output<Self>) {
        self.register.promised = ballot;
        self.register.lsn = out.record(Record::Promised(ballot));
    }

    /// Asks everybody who has not answered.
    fn ask(&self, out: &mut Output<Self>) {
        let Some(proposal) = &self.proposal else { return };
        for &to in self.view.members.voters.iter().filter(|to| **to != self.id) {
            match &proposal.stage {
                // Waits for the disk: a crash must not let this ballot be used for another attempt.
                Stage::Preparing { promises, .. } if !promises.contains_key(&to) => {
                    out.send(to, Message::Prepare { view: self.view.clone(), ballot: proposal.ballot });
                }
                // Early: a proposal promises nothing, and its ballot has been durable since it was prepared.
                Stage::Accepting { next, accepted } if !accepted.contains(&to) => {
                    let (view, ballot) = (self.view.number, proposal.ballot);
                    out.send_early(to, Message::Accept { view, ballot, next: next.clone() });
                }
                _ => {}
            }
        }
    }

    /// Whether this replica owes its primary not to help `to` yet.
    fn is_bound(&self, to: NodeId) -> bool {
        if self.has(Mutant::PromisesUnderLease) {
            return false;
        }
        if matches!(self.part, Part::Primary(_)) {
            return true;
        }
        let recent = |heard| self.now.since(heard) < self.options.election_timeout;
        // A primary that asks for another view has no lease that it would need to be protected from.
        self.view.primary != Some(to) && self.heard.is_some_and(recent)
    }

    /// A message belongs to the view that this replica knows. Of an older one it is answered with the news; a newer one's
    /// record will come.
    pub(super) fn is_of_this_view(&self, from: NodeId, view: ViewNumber, out: &mut Output<Self>) -> bool {
        if view < self.view.number {
            // Early: a majority's disks hold it.
            out.send_early(from, Message::NewView { view: self.view.clone() });
        }
        view == self.view.number
    }

    // The acceptor.

    pub(super) fn on_prepare(
        &mut self,
        from: NodeId,
        view: Arc<View>,
        ballot: Ballot,
        out: &mut Output<Self>,
    ) {
        let number = view.number;
        if number > self.view.number {
            self.learn(view, out);
        }
        if !self.is_of_this_view(from, number, out) || !self.is_voter() {
            return;
        }
        if ballot.node != from || !self.view.members.voters.contains(&from) || self.is_bound(from) {
            return;
        }
        if ballot < self.register.promised {
            return self.outbid(from, out);
        }
        if ballot > self.register.promised {
            self.promise(ballot, out);
            self.proposal = None;
            self.wait_for_primary();
        }
        let accepted = self.register.accepted.clone();
        let promise = Message::Promise { view: number, ballot, accepted, last: self.end() };
        self.vow(from, promise, out);
    }

    /// Where this replica's log ends, if it could lead.
    fn end(&self) -> Option<Position> {
        (!self.lacks_snapshot()).then(|| self.log.last())
    }

    fn vow(&self, to: NodeId, vow: Message, out: &mut Output<Self>) {
        if self.has(Mutant::PromiseBeforeDisk) {
            return out.send_early(to, vow);
        }
        // Waits for the disk: what is promised must not be forgotten.
        out.send(to, vow);
    }

    fn outbid(&self, to: NodeId, out: &mut Output<Self>) {
        // Early: it tells of a promise and gives none. Were it forgotten, the other would merely have hurried for nothing.
        out.send_early(to, Message::Outbid { view: self.view.number, promised: self.register.promised });
    }

    pub(super) fn on_accept(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        ballot: Ballot,
        next: Arc<View>,
        out: &mut Output<Self>,
    ) {
        let fits = ballot.node == from && next.number == view.next();
        if !self.is_of_this_view(from, view, out) || !self.is_voter() || !fits {
            return;
        }
        if ballot < self.register.promised || !self.view.members.voters.contains(&from) {
            return self.outbid(from, out);
        }
        // A majority has stopped confirming this primary, and its lease is over.
        if matches!(self.part, Part::Primary(_)) {
            self.resign();
        }
        if self.register.accepted.as_ref().is_none_or(|(known, _)| *known != ballot) {
            self.register.promised = ballot;
            self.register.accepted = Some((ballot, next.clone()));
            self.register.lsn = out.record(Record::Accepted { ballot, next });
            self.proposal.take_if(|proposal| proposal.ballot < ballot);
            self.wait_for_primary();
        }
        self.vow(from, Message::Accepted { view, ballot }, out);
    }

    // The proposer.

    pub(super) fn on_promise(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        ballot: Ballot,
        accepted: Option<Accepted>,
        last: Option<Position>,
        out: &mut Output<Self>,
    ) {
        let fits =
            accepted.as_ref().is_none_or(|(known, next)| *known < ballot && next.number == view.next());
        if !self.is_of_this_view(from, view, out) || !fits {
            return;
        }
        let is_voter = self.view.members.voters.contains(&from);
        if let Some(Proposal { ballot: own, stage: Stage::Preparing { promises, .. }, .. }) =
            &mut self.proposal
            && is_voter
            && ballot == *own
        {
            promises.insert(from, Promise { accepted, last });
            self.advance(out);
        }
    }

    pub(super) fn on_accepted(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        ballot: Ballot,
        out: &mut Output<Self>,
    ) {
        if !self.is_of_this_view(from, view, out) {
            return;
        }
        let is_voter = self.view.members.voters.contains(&from);
        if let Some(Proposal { ballot: own, stage: Stage::Accepting { accepted, .. }, .. }) =
            &mut self.proposal
            && is_voter
            && ballot == *own
        {
            accepted.insert(from);
            self.advance(out);
        }
    }

    pub(super) fn on_outbid(&mut self, view: ViewNumber, promised: Ballot) {
        if view != self.view.number || self.proposal.as_ref().is_none_or(|own| promised <= own.ballot) {
            return;
        }
        self.seen_round = self.seen_round.max(promised.round);
        self.proposal = None;
        let soon =
            self.rng.span(self.options.heartbeat, self.options.heartbeat + self.options.election_jitter / 2);
        // Not at once: two that outbid one another for ever would never be done.
        self.election_due = self.election_due.min(self.now + soon);
    }

    /// This replica's own disk votes, too, once it has caught up.
    pub(super) fn count_own(&mut self, out: &mut Output<Self>) {
        let own = self.end();
        if !self.disk.holds(self.register.lsn) {
            return;
        }
        let Register { promised, accepted: known, .. } = &self.register;
        let Some(proposal) = self.proposal.as_mut().filter(|proposal| proposal.ballot == *promised) else {
            return;
        };
        match &mut proposal.stage {
            Stage::Preparing { promises, .. } => {
                promises.insert(self.id, Promise { accepted: known.clone(), last: own });
            }
            Stage::Accepting { accepted, .. } => {
                if known.as_ref().is_some_and(|(ballot, _)| *ballot == proposal.ballot) {
                    accepted.insert(self.id);
                }
            }
        }
        self.advance(out);
    }

    /// Goes on when a majority has answered.
    fn advance(&mut self, out: &mut Output<Self>) {
        let (all, now) = (self.view.members.voters.len(), self.now);
        let patience = self.options.heartbeat;
        let takes_over = matches!(self.part, Part::Backup);
        let Some(proposal) = &mut self.proposal else { return };
        match &mut proposal.stage {
            Stage::Preparing { promises, gather_until } if promises.len() >= majority(all) => {
                let forced = promises.values().filter_map(|promise| promise.accepted.as_ref());
                let forced = forced.max_by_key(|(ballot, _)| *ballot).map(|(_, next)| next.clone());
                let due = *gather_until.get_or_insert(now + patience);
                let next = match forced.filter(|_| !self.options.has(Mutant::IgnoresAccepted)) {
                    // It may be decided already: then nothing else may be.
                    Some(next) => Some(next),
                    None if takes_over && promises.len() < all && now < due => return,
                    None if takes_over => {
                        let promises = std::mem::take(promises);
                        self.takeover(&promises).map(Arc::new)
                    }
                    None => self.wished_view().map(Arc::new),
                };
                match next {
                    Some(next) => self.start_accepting(next, out),
                    None => self.proposal = None,
                }
            }
            Stage::Accepting { next, accepted } if accepted.len() >= majority(all) => {
                let next = next.clone();
                self.proclaim(&next, out);
                self.learn(next, out);
            }
            _ => {}
        }
    }

    fn start_accepting(&mut self, next: Arc<View>, out: &mut Output<Self>) {
        let Some(mut proposal) = self.proposal.take() else { return };
        if let Part::Primary(leading) = &mut self.part {
            if next.primary == Some(self.id) {
                // Whoever may be in the next view must hold what is decided from now on.
                leading.joining.extend(next.backups.iter().filter(|node| !self.view.contains(**node)));
            } else {
                // From now on another may lead at any moment.
                self.resign();
            }
        }
        let ballot = proposal.ballot;
        self.register.accepted = Some((ballot, next.clone()));
        self.register.lsn = out.record(Record::Accepted { ballot, next: next.clone() });
        proposal.stage = Stage::Accepting { next, accepted: BTreeSet::new() };
        proposal.resend_due = self.now + self.options.heartbeat;
        self.proposal = Some(proposal);
        self.ask(out);
    }

    /// Tells everybody of the next view, who is of the last one or of the next.
    fn proclaim(&self, next: &Arc<View>, out: &mut Output<Self>) {
        let all: BTreeSet<NodeId> = self.view.members.all().chain(next.members.all()).collect();
        for to in all.into_iter().filter(|to| *to != self.id) {
            // Early: a majority's disks hold it.
            out.send_early(to, Message::NewView { view: next.clone() });
        }
    }

    /// Those who have not answered are asked again; those who could have been waited for are waited for no longer.
    pub(super) fn proposal_timeout(&mut self, out: &mut Output<Self>) {
        let now = self.now;
        let Some(proposal) = &mut self.proposal else { return };
        let gathered =
            matches!(&proposal.stage, Stage::Preparing { gather_until: Some(due), .. } if *due <= now);
        if proposal.resend_due <= now {
            proposal.resend_due = now + self.options.heartbeat;
            self.ask(out);
        }
        if gathered {
            self.advance(out);
        }
    }

    pub(super) fn on_new_view(&mut self, view: Arc<View>, out: &mut Output<Self>) {
        self.learn(view, out);
    }

    /// This view is decided. If it is news, it is the one to go by from now on.
    pub(super) fn learn(&mut self, view: Arc<View>, out: &mut Output<Self>) {
        if view.number > self.view.number {
            self.view_lsn = out.record(Record::View(view.clone()));
            self.register = Register::default();
            self.proposal = None;
            self.seen_round = 0;
            self.enter(view, out);
        }
    }

    /// Nobody leads: time to agree upon another view.
    pub(super) fn election_timeout(&mut self, out: &mut Output<Self>) {
        self.leader = None;
        self.wait_for_primary();
        if self.is_voter() && !self.is_unheard() {
            self.campaign(out);
        }
    }

    /// Whether it has an attempt that nobody has said a word to. Another, with a higher ballot, would fare no better, and would disturb
    /// those who can hear one another: it may be this replica that is heard by nobody, or that hears nobody. It goes on asking.
    fn is_unheard(&self) -> bool {
        let Some(Proposal { stage: Stage::Preparing { promises, .. }, .. }) = &self.proposal else {
            return false;
        };
        self.view.members.voters.len() > 1 && promises.keys().all(|node| *node == self.id)
    }

    /// How long to wait for a sign of life.
    pub(super) fn wait_for_primary(&mut self) {
        let jitter = self.rng.span(std::time::Duration::ZERO, self.options.election_jitter);
        self.election_due = self.now + self.options.election_timeout + jitter;
    }
}
