//! The normal case (4.2): pre-prepare, prepare, commit.
//!
//! Two promises carry it. In one view no two requests prepare at one sequence number, because two quorums share an honest
//! replica, and that one agrees once; it remembers on disk what it agreed to. And what is committed at an honest
//! replica has prepared at so many others, on disk, that every quorum of view changes tells of it.

use std::sync::Arc;

use synod_core::{Index, NodeId, Output};

use super::keys::Digest;
use super::message::{Message, Proposal, Record, View};
use super::slot::Word;
use super::{Mutant, Pbft, Phase};

impl Pbft {
    /// The primary gives numbers to what waits, up to what may be under way.
    pub(super) fn propose_pooled(&mut self, out: &mut Output<Self>) {
        if !self.is_primary() {
            return;
        }
        loop {
            let at = self.next;
            let ahead = at.0.saturating_sub(self.head.point.at.0 + 1);
            if ahead >= self.options.inflight_max || at > self.high_watermark() {
                return;
            }
            let requests = self.pool.take(self.options.proposal_bytes_max);
            if requests.is_empty() {
                return;
            }
            self.next = at.next();
            let proposal = Arc::new(Proposal::new(requests));
            self.accept(at, proposal.clone(), out);
            self.multicast(&Message::PrePrepare { view: self.view, at, proposal }, out);
        }
    }

    /// The last sequence number that may be used (H).
    pub(super) fn high_watermark(&self) -> Index {
        Index(self.stable.point.at.0 + self.options.window)
    }

    /// The view in which this replica agrees to something: none once it has left for another that has not begun.
    fn works_in(&self) -> Option<View> {
        match self.phase {
            Phase::Active => Some(self.view),
            Phase::Changing if self.has(Mutant::StaysInOldView) => self.view.0.checked_sub(1).map(View),
            Phase::Changing => None,
        }
    }

    /// Whether a sequence number lies between the watermarks.
    pub(super) fn is_in_window(&self, at: Index) -> bool {
        at > self.stable.point.at && at <= self.high_watermark()
    }

    pub(super) fn on_pre_prepare(
        &mut self,
        from: NodeId,
        view: View,
        at: Index,
        proposal: Arc<Proposal>,
        out: &mut Output<Self>,
    ) {
        if self.works_in() != Some(view) || from != self.primary_of(view) {
            return;
        }
        if !self.is_in_window(at) {
            return;
        }
        if let Some(accepted) = self.slots.get(&at).and_then(|slot| slot.accepted_in(view)) {
            if accepted.digest() == proposal.digest() {
                return;
            }
            if !self.has(Mutant::EquivocationUnchecked) {
                // Two proposals at one place: nobody needs more proof than one's own eyes to leave such a primary.
                return self.leave_for(self.view.next(), out);
            }
        }
        match self.selection.get(&at) {
            Some(selected) if *selected != proposal.digest() => return self.leave_for(self.view.next(), out),
            Some(_) => {}
            // Below the end of the selection everything is selected; what is not, was stable.
            None if self.selection.last_key_value().is_some_and(|(last, _)| at < *last) => return,
            None if !self.is_valid(&proposal) => return,
            None => {}
        }
        self.accept(at, proposal, out);
    }

    /// Whether every request was made by its origin, and is there once.
    fn is_valid(&self, proposal: &Proposal) -> bool {
        if proposal.requests.is_empty() {
            return false; // A primary has no reason to order nothing, outside a view change.
        }
        proposal.requests.iter().all(|request| {
            self.voters.contains(&request.origin)
                // Meant for one view: an honest primary's own, of this view, and not what it left behind in an earlier one.
                && request.only_in.is_none_or(|view| view == self.view && request.origin == self.primary_of(view))
                && (request.is_valid(&self.keys) || self.has(Mutant::UnsignedRequests))
        })
    }

    /// A proposal gets its place: for a backup, a promise not to agree to another one there in this view.
    pub(super) fn accept(&mut self, at: Index, proposal: Arc<Proposal>, out: &mut Output<Self>) {
        let (view, digest) = (self.works_in().unwrap_or(self.view), proposal.digest());
        let is_primary = self.is_primary();
        for request in &proposal.requests {
            // Whoever waits for it loses its patience with a primary that does not get it executed.
            self.pool.add_proposed(request, &self.head.executed);
        }
        let slot = self.slots.entry(at).or_default();
        slot.accept(view, proposal.clone());
        let prepare = Message::Prepare { view, at, digest };
        if !is_primary && self.has(Mutant::PrepareBeforeDisk) {
            self.multicast_early(&prepare, out);
        }
        out.record(Record::PrePrepare { view, at, proposal });
        if !is_primary {
            self.hear_again(self.id, view, at, Word::Prepare);
            self.slots.entry(at).or_default().prepare(self.id, view, digest);
            if !self.has(Mutant::PrepareBeforeDisk) {
                self.multicast(&prepare, out);
            }
        }
        self.consider_prepared(at, out);
        self.consider_committed(at, out);
    }

    pub(super) fn on_prepare(
        &mut self,
        from: NodeId,
        view: View,
        at: Index,
        digest: Digest,
        out: &mut Output<Self>,
    ) {
        // Of a view to come it is kept; the primary's agreement is its pre-prepare.
        if !self.is_in_window(at) || from == self.primary_of(view) || self.is_far_ahead(view) {
            return;
        }
        self.hear_again(from, view, at, Word::Prepare);
        self.slots.entry(at).or_default().prepare(from, view, digest);
        self.consider_prepared(at, out);
    }

    pub(super) fn on_commit(
        &mut self,
        from: NodeId,
        view: View,
        at: Index,
        digest: Digest,
        out: &mut Output<Self>,
    ) {
        if !self.is_in_window(at) || self.is_far_ahead(view) {
            return;
        }
        self.hear_again(from, view, at, Word::Commit);
        self.slots.entry(at).or_default().commit(from, view, digest);
        self.consider_committed(at, out);
    }

    /// That a replica's first word in a view counts is what makes a second pre-prepare harmless even to those who miss that it is one;
    /// so the mutant that does not look for it must not have this either.
    fn hear_again(&mut self, from: NodeId, view: View, at: Index, which: Word) {
        if self.has(Mutant::EquivocationUnchecked)
            && let Some(slot) = self.slots.get_mut(&at)
        {
            slot.take_back(from, view, which);
        }
    }

    /// Only the newest word of each replica is kept: a liar must not put an end to its own words by a view of fancy.
    /// (It would silence itself alone; but words of far views are useless to keep.)
    fn is_far_ahead(&self, view: View) -> bool {
        view.0 > self.view.0 + 1024
    }

    /// Prepared: a pre-prepare and agreement of enough others, in this view (4.2).
    pub(super) fn consider_prepared(&mut self, at: Index, out: &mut Output<Self>) {
        let Some(view) = self.works_in() else { return };
        let primary = self.primary_of(view);
        let fewer = usize::from(self.has(Mutant::PreparedByFewer));
        let (old_views, early) = (self.has(Mutant::CountsOldViews), self.has(Mutant::CommitBeforeDisk));
        let needed = self.quorums.strong() - fewer;
        let Some(slot) = self.slots.get_mut(&at) else { return };
        let Some(digest) = slot.accepted_in(view).map(|proposal| proposal.digest()) else { return };
        if slot.prepared == Some((view, digest)) {
            return;
        }
        let agreed = if old_views {
            slot.prepares_ever(digest, primary)
        } else {
            slot.prepares(view, digest, primary)
        };
        if 1 + agreed < needed {
            return;
        }
        slot.prepared = Some((view, digest));
        let commit = Message::Commit { view, at, digest };
        if early {
            slot.commit(self.id, view, digest);
            self.multicast_early(&commit, out);
            out.record(Record::Prepared { view, at, digest });
            return self.consider_committed(at, out);
        }
        let lsn = out.record(Record::Prepared { view, at, digest });
        self.multicast(&commit, out);
        // One's own commit counts when one's own disk holds what it promises.
        self.own_commits.push(lsn, (view, at, digest));
    }

    pub(super) fn count_own_commits(&mut self, out: &mut Output<Self>) {
        while let Some((view, at, digest)) = self.own_commits.pop(self.durable) {
            self.hear_again(self.id, view, at, Word::Commit);
            if let Some(slot) = self.slots.get_mut(&at) {
                slot.commit(self.id, view, digest);
                self.consider_committed(at, out);
            }
        }
    }

    /// Committed: a quorum has seen it prepared. That is so for ever, whatever view this replica is in.
    pub(super) fn consider_committed(&mut self, at: Index, out: &mut Output<Self>) {
        if at <= self.head.point.at || self.decided.contains_key(&at) {
            return;
        }
        let needed = self.quorums.strong() - usize::from(self.has(Mutant::CommitsByFewer));
        let Some(slot) = self.slots.get(&at) else { return };
        let committed = if self.has(Mutant::CountsOldViews) {
            slot.committed_ever(needed)
        } else {
            slot.committed(needed)
        };
        let Some(digest) = committed else { return };
        if let Some(proposal) = slot.proposal(digest).cloned() {
            out.record(Record::Decided { at, digest });
            self.decide(at, proposal);
        }
    }
}
